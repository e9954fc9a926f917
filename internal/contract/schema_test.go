package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"github.com/tierstream/tierstream/internal/event"
)

// offline refuses to fetch: what a schema refers to must be embedded.
type offline struct{}

func (offline) Load(url string) (any, error) { return nil, fmt.Errorf("%s is not embedded", url) }

// compiled makes a validator of one of our schemas.
func compiled(tb rapid.TB, name string) *jsonschema.Schema {
	tb.Helper()
	c := jsonschema.NewCompiler()
	c.UseLoader(offline{})
	names, err := fs.Glob(Schemas(), "*.json")
	if err != nil {
		tb.Fatal(err)
	}
	for _, n := range names {
		if err := c.AddResource("tierstream:///"+n, parsed(tb, n)); err != nil {
			tb.Fatal(err)
		}
	}
	s, err := c.Compile("tierstream:///" + name)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func parsed(tb rapid.TB, name string) map[string]any {
	tb.Helper()
	b, err := fs.ReadFile(Schemas(), name)
	if err != nil {
		tb.Fatal(err)
	}
	return document(tb, b).(map[string]any)
}

// document reads JSON with its numbers as they are written.
func document(tb rapid.TB, b []byte) any {
	tb.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		tb.Fatalf("%v\n%s", err, b)
	}
	return v
}

func TestSchemasCompile(t *testing.T) {
	names, err := fs.Glob(Schemas(), "*")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"common.v1.json", valueFile, "dead-letter.v1.json", "event.v1.json", "tier-change.v1.json", "tier-change-headers.v1.json"}
	for typ := event.Purchase; typ <= event.Cost; typ++ {
		want = append(want, typ.String()+".v1.json")
	}
	if slices.Sort(want); !slices.Equal(names, want) {
		t.Errorf("the schemas are %q, want %q", names, want)
	}
	for _, name := range names {
		if draft := parsed(t, name)["$schema"]; draft != "https://json-schema.org/draft/2020-12/schema" {
			t.Errorf("%s is of draft %v", name, draft)
		}
		compiled(t, name)
	}
}

func TestExamplesOfEventsAreValid(t *testing.T) {
	whole := compiled(t, "event.v1.json")
	for _, e := range event.Examples() {
		value, _, err := event.Encode(&e, event.BinaryJSON)
		if err != nil {
			t.Fatal(err)
		}
		if err := compiled(t, e.Type.String()+".v1.json").Validate(document(t, value)); err != nil {
			t.Errorf("data of a %s: %v", e.Type, err)
		}
		for _, f := range []event.Format{event.StructuredJSON, event.StructuredMsgpack} {
			if value, _, err = event.Encode(&e, f); err != nil {
				t.Fatal(err)
			}
			if err := whole.Validate(document(t, value)); err != nil {
				t.Errorf("%s as %s: %v", e.Type, f, err)
			}
		}
	}
}

// texts are the strings of an enum or of x-values; a null in it is left out.
func texts(tb rapid.TB, v any) (out []string) {
	tb.Helper()
	list, ok := v.([]any)
	if !ok {
		tb.Fatalf("%v is no list", v)
	}
	for _, x := range list {
		if s, ok := x.(string); ok {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return out
}

func property(tb rapid.TB, schema, name string) map[string]any {
	tb.Helper()
	p, ok := parsed(tb, schema)["properties"].(map[string]any)[name].(map[string]any)
	if !ok {
		tb.Fatalf("%s has no property %s", schema, name)
	}
	return p
}

// The closed lists of the schemas are those of the code.
func TestListsAreThoseOfTheCode(t *testing.T) {
	want := func(what string, got, want []string) {
		t.Helper()
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the schema has %q, the code %q", what, got, want)
		}
	}
	var uris, letters, currencies []string
	for typ := event.Purchase; typ <= event.Cost; typ++ {
		uris = append(uris, typ.URI())
		file := typ.String() + ".v1.json"
		var statuses, kinds []string
		for s := event.Opened; s.String() != ""; s++ {
			if _, ok := event.ParseStatus(typ, s.String()); ok {
				statuses = append(statuses, s.String())
			}
		}
		for k := event.NPS; k.String() != ""; k++ {
			if _, ok := event.ParseKind(typ, k.String()); ok {
				kinds = append(kinds, k.String())
			}
		}
		if statuses != nil {
			want(file+" status", texts(t, property(t, file, "status")["enum"]), statuses)
		}
		if kinds != nil {
			want(file+" kind", texts(t, property(t, file, "kind")["enum"]), kinds)
		}
	}
	want("types", texts(t, property(t, "event.v1.json", "type")["enum"]), uris)
	for c := range event.NumCodes {
		if code := event.Code(c); code.Outcome() == event.DeadLetter {
			letters = append(letters, code.String())
		}
	}
	want("codes", texts(t, property(t, "dead-letter.v1.json", "tierstream-code")["x-values"]), letters)
	for i := range 26 * 26 * 26 {
		code := string([]byte{byte('A' + i/676), byte('A' + i/26%26), byte('A' + i%26)})
		if _, ok := event.Exponent(code); ok {
			currencies = append(currencies, code)
		}
	}
	defs := parsed(t, "common.v1.json")["$defs"].(map[string]any)
	want("currencies", texts(t, defs["currency"].(map[string]any)["enum"]), currencies)
}

// Every field that an event may have is in its schema, and none other.
func TestFieldsAreThoseOfTheCode(t *testing.T) {
	for _, e := range event.Examples() {
		e.HasAmount, e.Currency, e.Category, e.Channel, e.Reason = true, "USD", "c", "h", "r"
		e.HasBase, e.HasCost, e.HasMargin, e.FXRate, e.Test, e.Unpaid = true, true, true, "1", true, true
		value, _, err := event.Encode(&e, event.BinaryJSON)
		if err != nil {
			t.Fatal(err)
		}
		var full map[string]any
		if err := json.Unmarshal(value, &full); err != nil {
			t.Fatal(err)
		}
		props := parsed(t, e.Type.String()+".v1.json")["properties"].(map[string]any)
		got, want := slices.Sorted(maps.Keys(props)), slices.Sorted(maps.Keys(full))
		if !slices.Equal(got, want) {
			t.Errorf("%s: the schema has %q, the code %q", e.Type, got, want)
		}
	}
}
