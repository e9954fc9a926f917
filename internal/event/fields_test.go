package event

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"
)

// An event of each type with every field set and each field left out in turn:
// the decoder misses exactly the required ones, and what the encoder writes are
// the fields that the table names.
func TestFieldsAreThoseOfTheDecoder(t *testing.T) {
	d := NewDecoder(Limits{})
	for _, e := range Examples() {
		e.HasBase, e.HasCost, e.HasMargin, e.FXRate, e.Test, e.Unpaid = true, true, true, "1", true, true
		e.HasAmount, e.Currency, e.Category, e.Channel, e.Reason = true, "USD", "c", "h", "r"
		v, headers, err := Encode(&e, BinaryJSON)
		if err != nil {
			t.Fatal(err)
		}
		var all map[string]json.RawMessage
		if err := json.Unmarshal(v, &all); err != nil {
			t.Fatal(err)
		}
		names, required := e.Type.Fields()
		if all["test"] == nil { // written of purchases only, read of all
			all["test"] = json.RawMessage("true")
		}
		if len(names) != len(all) {
			t.Errorf("%s has the fields %q, the encoder writes %d", e.Type, names, len(all))
		}
		for i, name := range names {
			if all[name] == nil {
				t.Errorf("%s has the field %s, which the encoder does not write", e.Type, name)
				continue
			}
			var less bytes.Buffer
			less.WriteByte('{')
			for _, other := range names {
				if other != name {
					if less.Len() > 1 {
						less.WriteByte(',')
					}
					less.WriteString(`"` + other + `":`)
					less.Write(all[other])
				}
			}
			less.WriteByte('}')
			r := d.Decode(&Message{Key: []byte(e.Customer), Value: less.Bytes(), Headers: headers, Timestamp: e.Time}, new(Event))
			missed := r != nil && r.Code == MissingField && r.Field == name
			needed := i >= required && slices.Contains([]string{"currency", "score"}, name) // by a field that is there
			if missed != (i < required || needed) && !(needed && !missed) {
				t.Errorf("%s without %s: %v, but required is %t", e.Type, name, r, i < required)
			}
		}
	}
}
