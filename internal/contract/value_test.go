package contract

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/view"
)

const valueFile = "customer-value.v1.json"

// schemaOf is the schema of what encoding/json makes of a type.
func schemaOf(t *testing.T, typ reflect.Type) object {
	t.Helper()
	if typ == reflect.TypeFor[time.Time]() {
		return object{"type": "string", "format": "date-time"}
	}
	switch typ.Kind() {
	case reflect.Pointer:
		return object{"anyOf": []any{object{"type": "null"}, schemaOf(t, typ.Elem())}}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int32, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Slice:
		return object{"type": "array", "items": schemaOf(t, typ.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": schemaOf(t, typ.Elem())}
	case reflect.Struct:
		properties, required := object{}, []any{}
		for f := range typ.Fields() {
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" {
				t.Fatalf("%s.%s has no name in JSON", typ, f.Name)
			}
			properties[name] = schemaOf(t, f.Type)
			if options == "" {
				required = append(required, name)
			}
		}
		return object{"type": "object", "required": required, "properties": properties}
	}
	t.Fatalf("no schema for %s", typ)
	return nil
}

// TestValueSchemaIsThatOfTheCode: the schema of customer-values is written
// from the document that is sent; compatible_test.go holds it to v1.
func TestValueSchemaIsThatOfTheCode(t *testing.T) {
	s := schemaOf(t, reflect.TypeFor[view.View]())
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "A customer's whole value, as topic customer-values holds it"
	s["description"] = "Money is integers in minor units of model.currency; times are UTC. docs/events.md says what the fields mean. Ignore fields that you do not know."
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("schemas/"+valueFile, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("schemas/" + valueFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, b.Bytes()) {
		t.Errorf("schemas/%s is not what the code sends; go test ./internal/contract -run Value -update writes it", valueFile)
	}
}
