package event

import (
	"reflect"
	"testing"
)

// Hashes lie in customers' records: a changed value here would make stored
// events look new.
func TestContentHashNeverChanges(t *testing.T) {
	want := []uint64{
		0x8d2bc0d70aca9e05, 0x136190548ace8230, 0x1cc251bd70e80d44,
		0x62d94bd4d110e083, 0x3d5a7b32f76d1db6, 0xd49eecca383f896a,
	}
	for i, e := range Examples() {
		if e.Content != want[i] {
			t.Errorf("%s: %#x, was %#x", e.Type, e.Content, want[i])
		}
	}
}

func TestContentHashIgnoresWhereAnEventCameFrom(t *testing.T) {
	e := Examples()[0]
	other := e
	other.ID, other.Source, other.Trace, other.Content = "e-99", "/elsewhere", "", 7
	if ContentHash(&other) != e.Content {
		t.Error("the same purchase under another ID has another content")
	}
}

// Every other field must count. The test goes through the struct, so that a
// field added later cannot be forgotten.
func TestContentHashSeesEveryOtherField(t *testing.T) {
	ignored := map[string]bool{"ID": true, "Source": true, "Trace": true, "Content": true}
	seen := map[uint64]string{ContentHash(&Event{}): "no change"}
	typ := reflect.TypeFor[Event]()
	for i := range typ.NumField() {
		name := typ.Field(i).Name
		if ignored[name] {
			continue
		}
		var e Event
		// A number is nothing without the flag that says it is there.
		v := reflect.ValueOf(&e).Elem()
		if has := v.FieldByName("Has" + name); has.IsValid() {
			has.SetBool(true)
		}
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString("x")
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Int64, reflect.Int32:
			f.SetInt(1)
		case reflect.Uint8:
			f.SetUint(1)
		default:
			t.Fatalf("%s: a kind this test does not know", name)
		}
		h := ContentHash(&e)
		if other, ok := seen[h]; ok {
			t.Errorf("%s has the content of %s", name, other)
		}
		seen[h] = name
	}
}

func TestContentHashKeepsFieldsApart(t *testing.T) {
	a := ContentHash(&Event{Customer: "ab", BusinessID: "c"})
	b := ContentHash(&Event{Customer: "a", BusinessID: "bc"})
	if a == b {
		t.Error("where one string ends does not count")
	}
}
