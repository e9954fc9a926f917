package contract

import (
	"bytes"
	"maps"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/tierstream/tierstream/internal/event"
)

// seeds are the examples of all types, their faults, and what lies near them.
func seeds(f *testing.F) {
	for _, e := range event.Examples() {
		value, _, err := event.Encode(&e, event.BinaryJSON)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(value, uint8(e.Type))
	}
}

// fuzzed is the object that data is, nil when it is none or when the decoder
// says, before any field, that it is malformed: names that occur twice, what
// is not UTF-8, nesting.
func fuzzed(data []byte, typ uint8) (object, *event.Refusal, *event.Event) {
	if typ < uint8(event.Purchase) || typ > uint8(event.Cost) {
		return nil, nil, nil
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	doc, ok := v.(object)
	if err != nil || !ok {
		return nil, nil, nil
	}
	var ev event.Event
	r := event.NewDecoder(event.Limits{}).Decode(inBinary(event.Type(typ), "application/json", data), &ev)
	if r != nil && r.Code == event.Malformed && (r.Field == "data" || r.Field == "") {
		return nil, nil, nil
	}
	return doc, r, &ev
}

// FuzzSchemaAgrees: schema and decoder judge any object alike, but for what a
// schema cannot say.
func FuzzSchemaAgrees(f *testing.F) {
	seeds(f)
	schemas := map[uint8]*jsonschema.Schema{}
	for typ := event.Purchase; typ <= event.Cost; typ++ {
		schemas[uint8(typ)] = compiled(f, typ.String()+".v1.json")
	}
	f.Fuzz(func(t *testing.T, data []byte, typ uint8) {
		doc, r, _ := fuzzed(data, typ)
		if doc == nil {
			return
		}
		invalid := schemas[typ].Validate(doc)
		whole := maps.Clone(doc)
		whole["subject"] = "c-1"
		if _, err := compare(whole, invalid, r); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzJSONAndMsgpackAlike: the same data has the same outcome in either
// encoding, code and field included.
func FuzzJSONAndMsgpackAlike(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte, typ uint8) {
		doc, asJSON, ev := fuzzed(data, typ)
		if doc == nil {
			return
		}
		packed := pack(t, doc)
		var again event.Event
		asPack := event.NewDecoder(event.Limits{}).Decode(inBinary(event.Type(typ), "application/msgpack", packed), &again)
		switch {
		case (asJSON == nil) != (asPack == nil):
			t.Fatalf("as JSON %v, as msgpack %v", asJSON, asPack)
		case asJSON != nil && (asJSON.Code != asPack.Code || asJSON.Field != asPack.Field):
			t.Fatalf("as JSON %v, as msgpack %v", asJSON, asPack)
		case asJSON == nil && again != *ev:
			t.Fatalf("as msgpack\n %+v, as JSON\n %+v", again, *ev)
		}
	})
}
