package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"github.com/vmihailenco/msgpack/v5"
	"pgregory.net/rapid"

	"github.com/tierstream/tierstream/internal/event"
)

// recordTime is the timestamp of the records here: the end of 2262, so that no
// event is from the future.
var recordTime = func() int64 {
	at, _ := json.Number("9246182399999").Int64()
	return at
}()

// object is a JSON object with its numbers as they are written.
type object = map[string]any

func encode(tb rapid.TB, v any) []byte {
	tb.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// structured is a record that carries the event as it is.
func structured(value []byte) *event.Message {
	return &event.Message{Value: value, Timestamp: recordTime,
		Headers: []event.Header{{Key: "content-type", Value: []byte("application/cloudevents+json")}}}
}

// inBinary is a record in binary mode around data.
func inBinary(typ event.Type, mediaType string, data []byte) *event.Message {
	m := &event.Message{Value: data, Timestamp: recordTime}
	for _, h := range [][2]string{
		{"ce_specversion", "1.0"}, {"ce_id", "e-1"}, {"ce_source", "/shop"}, {"ce_type", typ.URI()},
		{"ce_time", "2026-03-02T09:30:00Z"}, {"ce_subject", "c-1"}, {"content-type", mediaType},
	} {
		m.Headers = append(m.Headers, event.Header{Key: h[0], Value: []byte(h[1])})
	}
	return m
}

// pack is a document as msgpack, its numbers as a producer would have them:
// integers where they fit, else floats.
func pack(tb rapid.TB, v any) []byte {
	tb.Helper()
	var convert func(v any) any
	convert = func(v any) any {
		switch v := v.(type) {
		case json.Number:
			if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
				return n
			}
			if n, err := strconv.ParseUint(v.String(), 10, 64); err == nil {
				return n
			}
			f, err := v.Float64()
			if err != nil {
				return math.Inf(1)
			}
			return f
		case object:
			m := object{}
			for k, x := range v {
				m[k] = convert(x)
			}
			return m
		case []any:
			l := make([]any, len(v))
			for i := range v {
				l[i] = convert(v[i])
			}
			return l
		}
		return v
	}
	b, err := msgpack.Marshal(convert(v))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// unpack is the inverse, for what has no numbers beyond int64.
func unpack(tb rapid.TB, b []byte) (v any) {
	tb.Helper()
	if err := msgpack.Unmarshal(b, &v); err != nil {
		tb.Fatal(err)
	}
	return v
}

// unsaid is what the decoder refuses and a schema cannot say. The rows of the
// table in docs/events.md are these, by name.
var unsaid = []struct {
	name string
	// is tells by the refusal and the document whether this is the reason. The
	// document is an event in structured mode, or its data alone.
	is func(r *event.Refusal, doc object) bool
}{
	{"bytes", func(r *event.Refusal, doc object) bool {
		s, _ := at(doc, r.Field).(string)
		limit := 128
		if r.Field == "reason" {
			limit = 1024
		}
		return (r.Code == event.BadID || r.Code == event.Malformed) && len(s) > limit && utf8.RuneCountInString(s) <= limit
	}},
	{"integer form", func(r *event.Refusal, doc object) bool {
		n, _ := at(doc, r.Field).(json.Number)
		f, err := n.Float64()
		return err == nil && strings.ContainsAny(n.String(), ".eE") && f == math.Trunc(f)
	}},
	{"cap", func(r *event.Refusal, doc object) bool {
		n, _ := at(doc, r.Field).(json.Number)
		v, err := strconv.ParseInt(n.String(), 10, 64)
		return err == nil && r.Code == event.BadAmount && (v > 1e12 || v < -1e12)
	}},
	{"scale", func(r *event.Refusal, doc object) bool {
		score, err1 := number(at(doc, "score"))
		scale, err2 := number(at(doc, "scale_max"))
		return r.Code == event.BadScore && r.Field == "score" && err1 == nil && err2 == nil && score > scale
	}},
	{"self-referral", func(r *event.Refusal, doc object) bool {
		return r.Code == event.SelfReferral && at(doc, "referee_id") == at(doc, "subject")
	}},
	{"calendar", func(r *event.Refusal, doc object) bool {
		s, _ := at(doc, "time").(string)
		return r.Code == event.BadTime && r.Field == "time" && regexp.MustCompile(`^(1969|1970-01-01|2262-12-31|2263|\d{4}-(0[2469]|11)-(29|3[01]))`).MatchString(s)
	}},
	{"future", func(r *event.Refusal, _ object) bool { return r.Code == event.FutureTime }},
	{"base64", func(r *event.Refusal, doc object) bool {
		inEnvelope := slices.Contains([]string{"specversion", "id", "source", "type", "time", "subject", "datacontenttype"}, r.Field)
		return at(doc, "data_base64") != nil && !inEnvelope
	}},
}

// at is a member of an event or of its data.
func at(doc object, name string) any {
	if v, ok := doc[name]; ok {
		return v
	}
	data, _ := doc["data"].(object)
	return data[name]
}

func number(v any) (int64, error) {
	n, _ := v.(json.Number)
	return n.Int64()
}

// shape are the codes by which a record is refused for what it is, rather than
// for what was there before.
var shape = []event.Code{
	event.Malformed, event.UnknownType, event.UnsupportedVersion, event.MissingField, event.WrongType, event.BadID, event.BadTime,
	event.BadAmount, event.NegativePurchase, event.BadCurrency, event.BadSeverity, event.BadStatus, event.BadScore, event.BadCost,
}

// compare holds the schema's judgement of a document against the decoder's. It
// answers which exception explains a difference, "" when there is none.
func compare(doc object, invalid error, r *event.Refusal) (exception string, err error) {
	switch {
	case invalid == nil && r == nil:
		return "", nil
	case r == nil:
		return "", fmt.Errorf("the decoder accepts what the schema refuses: %w", invalid)
	case invalid == nil:
		for _, u := range unsaid {
			if u.is(r, doc) {
				return u.name, nil
			}
		}
		return "", fmt.Errorf("the schema accepts what the decoder refuses: %w", r)
	}
	if !slices.Contains(shape, r.Code) {
		for _, u := range unsaid {
			if u.is(r, doc) {
				return "", nil // the first of several faults
			}
		}
		return "", fmt.Errorf("%w is not about the shape of the record", r)
	}
	// The decoder names one fault, the schema all of them.
	var v *jsonschema.ValidationError
	if !errors.As(invalid, &v) {
		return "", invalid
	}
	if faults := faults(v); r.Field != "" && !slices.Contains(faults, r.Field) {
		for _, u := range unsaid {
			if u.is(r, doc) {
				return "", nil
			}
		}
		return "", fmt.Errorf("the decoder says %w, the schema finds fault with %q", r, faults)
	}
	return "", nil
}

// faults are the names of all members that a schema finds fault with.
func faults(v *jsonschema.ValidationError) (names []string) {
	names = append(names, v.InstanceLocation...)
	if k, ok := v.ErrorKind.(*kind.Required); ok {
		names = append(names, k.Missing...)
	}
	for _, c := range v.Causes {
		names = append(names, faults(c)...)
	}
	return names
}

// generator draws values that a schema allows, as far as it can tell; what
// depends on other members is left to the validator.
type generator struct{ docs map[string]object }

func newGenerator(tb rapid.TB) *generator {
	g := &generator{docs: map[string]object{}}
	for _, name := range []string{"common", "event", "purchase", "return", "complaint", "referral", "feedback", "cost"} {
		g.docs[name+".v1.json"] = parsed(tb, name+".v1.json")
	}
	return g
}

func (g *generator) value(t *rapid.T, file, label string, s object) any {
	if ref, ok := s["$ref"].(string); ok {
		name, path, _ := strings.Cut(ref, "#/$defs/")
		if name == "" {
			name = file
		}
		target := g.docs[name]
		if path != "" {
			target = target["$defs"].(object)[path].(object)
		}
		merged := maps.Clone(target)
		maps.Copy(merged, s)
		delete(merged, "$ref")
		return g.value(t, name, label, merged)
	}
	if v, ok := s["const"]; ok {
		return v
	}
	if list, ok := s["enum"].([]any); ok {
		return rapid.SampledFrom(list).Draw(t, label)
	}
	if list, ok := s["anyOf"].([]any); ok {
		return g.value(t, file, label, rapid.SampledFrom(list).Draw(t, label+" of").(object))
	}
	typ := s["type"]
	if list, ok := typ.([]any); ok {
		typ = rapid.SampledFrom(list).Draw(t, label+" type")
	}
	switch typ {
	case "null":
		return nil
	case "boolean":
		return rapid.Bool().Draw(t, label)
	case "integer":
		// Rarely beyond the cap of amounts, which is a setting.
		low, high := bound(s["minimum"], math.MinInt64), bound(s["maximum"], math.MaxInt64)
		if rapid.IntRange(0, 9).Draw(t, label+" wide") > 0 {
			low, high = max(low, -1e12), min(high, 1e12)
		}
		return json.Number(strconv.FormatInt(rapid.Int64Range(low, high).Draw(t, label), 10))
	case "string":
		pattern, ok := s["pattern"].(string)
		if !ok {
			pattern = "[ -~é€]{0,20}"
		}
		return rapid.StringMatching(pattern).Draw(t, label)
	case "object":
		return g.object(t, file, s)
	}
	// Anything: it depends on another member.
	return rapid.SampledFrom([]any{"EUR", "JPY", "EUR", "x", nil, true,
		json.Number("0"), json.Number("1"), json.Number("3"), json.Number("5"), json.Number("7"), json.Number("10")}).Draw(t, label)
}

func bound(v any, otherwise int64) int64 {
	if n, err := number(v); err == nil {
		return n
	}
	return otherwise
}

func (g *generator) object(t *rapid.T, file string, s object) object {
	out := object{}
	properties, _ := s["properties"].(object)
	required, _ := s["required"].([]any)
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		if slices.Contains(required, any(name)) || rapid.Bool().Draw(t, name+" is there") {
			out[name] = g.value(t, file, name, properties[name].(object))
		}
	}
	if rapid.IntRange(0, 3).Draw(t, "more") == 0 {
		out["x_unknown"] = object{"deep": []any{nil, json.Number("1.5"), "x"}}
	}
	return out
}

// event draws a whole event in structured mode.
func (g *generator) event(t *rapid.T, typ event.Type) object {
	file := typ.String() + ".v1.json"
	doc := g.object(t, "event.v1.json", g.docs["event.v1.json"])
	doc["type"] = typ.URI()
	data := g.object(t, file, g.docs[file])
	delete(doc, "data_base64")
	delete(doc, "datacontenttype")
	switch rapid.IntRange(0, 5).Draw(t, "content") {
	case 0:
		doc["datacontenttype"] = rapid.SampledFrom([]any{"application/json; charset=utf-8", "application/vnd.shop+json", "Application/JSON", "", nil}).Draw(t, "datacontenttype")
	case 1:
		doc["data"] = nil
		doc["data_base64"] = encode(t, data) // []byte: base64 in JSON
		return doc
	}
	doc["data"] = data
	return doc
}

// TestValidDocumentsDecode: whatever a schema allows, the decoder takes, as
// JSON and as msgpack; but for what a schema cannot say.
func TestValidDocumentsDecode(t *testing.T) {
	g := newGenerator(t)
	whole := compiled(t, "event.v1.json")
	for typ := event.Purchase; typ <= event.Cost; typ++ {
		t.Run(typ.String(), func(t *testing.T) {
			schema := compiled(t, typ.String()+".v1.json")
			file := typ.String() + ".v1.json"
			valid, used := 0, 0
			rapid.Check(t, func(t *rapid.T) {
				data := g.object(t, file, g.docs[file])
				doc := g.event(t, typ)
				raw := encode(t, doc)
				if schema.Validate(data) == nil {
					valid++
					used += checkAgreement(t, schema, typ, data)
				}
				doc = document(t, raw).(object)
				if whole.Validate(doc) == nil {
					valid++
					var ev event.Event
					r := event.NewDecoder(event.Limits{}).Decode(structured(raw), &ev)
					if _, err := compare(doc, nil, r); err != nil {
						t.Fatalf("%v\n%s", err, raw)
					}
					if r == nil {
						used++
					}
				}
			})
			if used < 40 || used < valid/4 {
				t.Errorf("of %d valid documents only %d were decoded: nothing was tested", valid, used)
			}
		})
	}
}

// checkAgreement compares schema and decoder on data in binary mode, as JSON
// and as msgpack, and answers how often it was accepted.
func checkAgreement(t rapid.TB, schema *jsonschema.Schema, typ event.Type, data object) (accepted int) {
	raw := encode(t, data)
	invalid := schema.Validate(document(t, raw))
	d := event.NewDecoder(event.Limits{})
	for _, m := range []*event.Message{inBinary(typ, "application/json", raw), inBinary(typ, "application/msgpack", pack(t, data))} {
		var ev event.Event
		r := d.Decode(m, &ev)
		doc := maps.Clone(data)
		doc["subject"] = "c-1"
		if _, err := compare(doc, invalid, r); err != nil {
			t.Fatalf("%v\n%s", err, raw)
		}
		if r == nil {
			accepted++
		}
	}
	return accepted
}

// nasty is put in the place of sound members.
var nasty = []any{
	nil, true, object{}, []any{}, "", "x", " x", "x ", "x\u00a0", "\u2003x", "a\u0000b", "a\u0085b", "null", "NULL", "Undefined", "anonymous",
	strings.Repeat("x", 128), strings.Repeat("x", 129), strings.Repeat("é", 128), strings.Repeat("é", 65), strings.Repeat("x", 1025),
	"EUR", "eur", "XXX", "EURO", "paid", "opened", "converted", "nps", "praise", "goods", "c-1",
	"1", "0", "0.0", "0.92", "00.5", "01", "1.", ".5", "-1", "1e3", "123456789012345678", "1234567890123456789", "1.23456789012345678", "0.000000000000000001",
	json.Number("0"), json.Number("-0"), json.Number("1"), json.Number("-1"), json.Number("5"), json.Number("6"), json.Number("10"), json.Number("11"), json.Number("100"), json.Number("101"),
	json.Number("1.5"), json.Number("1.0"), json.Number("1e1"), json.Number("1000000000000"), json.Number("1000000000001"), json.Number("-1000000000001"),
	json.Number("9223372036854775807"), json.Number("9223372036854775808"), json.Number("-9223372036854775808"), json.Number("1e400"),
}

var nastyAttributes = []any{
	"1.1", "io.tierstream.purchase.v2", "io.tierstream.merge.v1", "io.tierstream.cost.v1", "application/json", "application/xml", "application/msgpack", "e30=", "e3=", "e30",
	"2026-03-02T09:30:00", "2026-03-02 09:30:00Z", "2026-02-30T09:30:00Z", "2026-03-02t09:30:00.123456z", "1969-12-31T23:59:59Z", "1969-12-31T23:59:59-01:00",
	"2263-01-01T00:00:00Z", "2263-01-01T00:00:00+01:00", "2026-03-02T24:00:00Z", "2026-03-02T09:30:60Z", "2026-03-02T09:30:00+24:00", "yesterday",
}

// TestSchemaAndDecoderAgree changes one or two members of sound events, and
// wants the same judgement of both.
func TestSchemaAndDecoderAgree(t *testing.T) {
	g := newGenerator(t)
	whole := compiled(t, "event.v1.json")
	met := map[string]int{}
	accepted, refused := 0, 0
	check := func(t *rapid.T) {
		typ := event.Type(rapid.IntRange(int(event.Purchase), int(event.Cost)).Draw(t, "type"))
		doc := g.event(t, typ)
		data, _ := doc["data"].(object)
		for range rapid.IntRange(1, 2).Draw(t, "changes") {
			target, file, pool := doc, "event.v1.json", append(slices.Clone(nastyAttributes), nasty...)
			if data != nil && rapid.IntRange(0, 3).Draw(t, "where") > 0 {
				target, file, pool = data, typ.String()+".v1.json", nasty
			}
			name := rapid.SampledFrom(slices.Sorted(maps.Keys(g.docs[file]["properties"].(object)))).Draw(t, "member")
			if rapid.IntRange(0, 5).Draw(t, "how") == 0 {
				delete(target, name)
			} else {
				target[name] = rapid.SampledFrom(pool).Draw(t, "value")
			}
		}
		raw := encode(t, doc)
		doc = document(t, raw).(object)
		invalid := whole.Validate(doc)
		m := structured(raw)
		var ev event.Event
		r := event.NewDecoder(event.Limits{}).Decode(m, &ev)
		why, err := compare(doc, invalid, r)
		if err != nil {
			t.Fatalf("%v\n%s", err, raw)
		}
		if why != "" {
			met[why]++
		}
		if r != nil {
			refused++
		} else {
			accepted++
		}
		if d, ok := doc["data"].(object); ok && doc["type"] == typ.URI() {
			checkAgreement(t, compiledOnce(t, typ), typ, d)
		}
	}
	for range 10 { // of 100 checks each
		rapid.Check(t, check)
	}
	if refused < 300 || accepted < 20 {
		t.Errorf("only %d events were refused and %d accepted", refused, accepted)
	}
	t.Logf("%d accepted, %d refused, exceptions met: %v", accepted, refused, met)
}

var onceCompiled = map[event.Type]*jsonschema.Schema{}

func compiledOnce(tb rapid.TB, typ event.Type) *jsonschema.Schema {
	if onceCompiled[typ] == nil {
		onceCompiled[typ] = compiled(tb, typ.String()+".v1.json")
	}
	return onceCompiled[typ]
}

// Each exception, with an event that the schema allows and the decoder
// refuses: were it told by the schema after all, the list would be wrong.
func TestExceptionsAreReal(t *testing.T) {
	whole := compiled(t, "event.v1.json")
	long := strings.Repeat("é", 100)
	for name, change := range map[string]func(doc, data object){
		"bytes":        func(doc, _ object) { doc["subject"] = long },
		"integer form": func(_, data object) { data["amount_minor"] = json.Number("5.0") },
		"cap":          func(_, data object) { data["amount_minor"] = json.Number("1000000000001") },
		"scale": func(doc, _ object) {
			setData(doc, event.Feedback, `{"response_id":"s","kind":"csat","score":6,"scale_max":5}`)
		},
		"self-referral": func(doc, _ object) {
			setData(doc, event.Referral, `{"referral_id":"f","referee_id":"c-1","status":"invited"}`)
		},
		"calendar": func(doc, _ object) { doc["time"] = "2026-02-29T00:00:00Z" },
		"future":   func(doc, _ object) { doc["time"] = "2026-03-02T09:36:00Z" },
		"base64": func(doc, _ object) {
			delete(doc, "data")
			doc["data_base64"] = "e30="
		},
	} {
		doc := document(t, []byte(`{"specversion":"1.0","id":"e-1","source":"/shop","type":"io.tierstream.purchase.v1","time":"2026-03-02T09:30:00Z","subject":"c-1",
			"data":{"order_id":"o-1","amount_minor":5,"currency":"EUR"}}`)).(object)
		change(doc, doc["data"].(object))
		raw := encode(t, doc)
		doc = document(t, raw).(object)
		m := structured(raw)
		if name == "future" {
			m.Timestamp = 1772443800000 // 2026-03-02T09:30:00Z
		}
		var ev event.Event
		r := event.NewDecoder(event.Limits{}).Decode(m, &ev)
		if invalid := whole.Validate(doc); invalid != nil || r == nil {
			t.Errorf("%s: the schema says %v, the decoder %v", name, invalid, r)
			continue
		}
		if got, err := compare(doc, nil, r); err != nil || got != name {
			t.Errorf("%s: is taken for %q, %v", name, got, err)
		}
	}
	if n := len(unsaid); n != 8 {
		t.Errorf("%d exceptions, 8 are tested above", n)
	}
}

func setData(doc object, typ event.Type, data string) {
	doc["type"] = typ.URI()
	doc["data"] = json.RawMessage(data)
}

// What never gets to be a document is malformed, and no schema sees it.
func TestMalformedBeforeAnySchema(t *testing.T) {
	for what, data := range map[string]string{
		"a name twice":         `{"order_id":"a","order_id":"a","amount_minor":1,"currency":"EUR"}`,
		"not UTF-8":            "{\"order_id\":\"\xff\",\"amount_minor\":1,\"currency\":\"EUR\"}",
		"a lone surrogate":     `{"order_id":"\ud800","amount_minor":1,"currency":"EUR"}`,
		"nested too deeply":    `{"order_id":"a","amount_minor":1,"currency":"EUR","x":` + strings.Repeat("[", 16) + strings.Repeat("]", 16) + `}`,
		"over the size":        `{"order_id":"a","amount_minor":1,"currency":"EUR","x":"` + strings.Repeat("x", 1<<20) + `"}`,
		"a byte order mark":    "\ufeff" + `{"order_id":"a","amount_minor":1,"currency":"EUR"}`,
		"bytes after the data": `{"order_id":"a","amount_minor":1,"currency":"EUR"} {}`,
	} {
		var ev event.Event
		r := event.NewDecoder(event.Limits{}).Decode(inBinary(event.Purchase, "application/json", []byte(data)), &ev)
		if r == nil || r.Code != event.Malformed {
			t.Errorf("%s: %v", what, r)
		}
	}
}

// The document has a row for every exception, and none for another.
func TestExceptionsAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := bytes.Cut(b, []byte("\n## What a schema cannot say\n"))
	if !ok {
		t.Fatal("docs/events.md has no section on what a schema cannot say")
	}
	section, _, _ = bytes.Cut(section, []byte("\n## "))
	var rows, want []string
	for _, m := range regexp.MustCompile(`(?m)^\| ([a-z0-9 -]+) \| `).FindAllSubmatch(section, -1) {
		if name := string(m[1]); strings.Trim(name, "-") != "" {
			rows = append(rows, name)
		}
	}
	for _, u := range unsaid {
		want = append(want, u.name)
	}
	slices.Sort(rows)
	slices.Sort(want)
	if !slices.Equal(rows, want) {
		t.Errorf("docs/events.md lists %q, the exceptions are %q", rows, want)
	}
}
