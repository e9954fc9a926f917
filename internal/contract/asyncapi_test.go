package contract

import (
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/stream"
	"github.com/tierstream/tierstream/internal/view"
)

const asyncapiFile = "../../docs/asyncapi.yaml"

// asyncapi is the document, with its numbers as they are written.
func asyncapi(t *testing.T) object {
	t.Helper()
	b, err := os.ReadFile(asyncapiFile)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := yaml.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return document(t, encode(t, v)).(object)
}

func TestAsyncAPIDocumentIsValid(t *testing.T) {
	f, err := os.Open("testdata/asyncapi-3.0.0.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := jsonschema.UnmarshalJSON(z)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(offline{})
	if err := c.AddResource("asyncapi:///3.0.0", spec); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("asyncapi:///3.0.0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(asyncapi(t)); err != nil {
		t.Error(err)
	}
	// It can say no.
	broken := asyncapi(t)
	broken["channels"].(object)["purchases"].(object)["place"] = "purchases"
	if s.Validate(broken) == nil {
		t.Error("a channel with an unknown member is accepted")
	}
}

// resolve follows a reference, in the document or into a file beside it.
func resolve(t *testing.T, doc object, ref string) any {
	t.Helper()
	file, path, _ := strings.Cut(ref, "#")
	var v any = doc
	if file != "" {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(asyncapiFile), filepath.FromSlash(file)))
		if err != nil {
			t.Errorf("$ref %s: %v", ref, err)
			return nil
		}
		v = document(t, b)
	}
	for part := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		if part == "" {
			continue
		}
		m, _ := v.(object)
		var ok bool
		if v, ok = m[part]; !ok {
			t.Errorf("$ref %s leads nowhere", ref)
			return nil
		}
	}
	return v
}

// inlined is v with all references replaced by what they refer to, but for
// those within our schema files.
func inlined(t *testing.T, doc object, v any) any {
	t.Helper()
	switch v := v.(type) {
	case object:
		if ref, ok := v["$ref"].(string); ok {
			if !strings.HasPrefix(ref, "#") {
				resolve(t, doc, ref)
				return v
			}
			return inlined(t, doc, resolve(t, doc, ref))
		}
		m := object{}
		for k, x := range v {
			m[k] = inlined(t, doc, x)
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i := range v {
			l[i] = inlined(t, doc, v[i])
		}
		return l
	}
	return v
}

// asyncapiSchema compiles a schema of the document; its references into our
// files are resolved by the compiler.
func asyncapiSchema(t *testing.T, schema any) *jsonschema.Schema {
	t.Helper()
	text := strings.ReplaceAll(string(encode(t, schema)), "../internal/contract/schemas/", "")
	c := jsonschema.NewCompiler()
	c.UseLoader(offline{})
	names, err := filepath.Glob("schemas/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if err := c.AddResource("tierstream:///"+filepath.Base(n), parsed(t, filepath.Base(n))); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.AddResource("tierstream:///asyncapi", document(t, []byte(text))); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("tierstream:///asyncapi")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAsyncAPIHasAllTopics(t *testing.T) {
	doc := asyncapi(t)
	topics := stream.DefaultTopics("live", []string{"purchases", "complaints", "referrals"})
	topics.Values = "customer-values"
	want := topics.Names()
	var got []string
	messages := map[string]bool{}
	for name, c := range inlined(t, doc, doc["channels"]).(object) {
		channel := c.(object)
		got = append(got, channel["address"].(string))
		if slices.Contains([]string{"purchases", "complaints", "referrals"}, name) && len(channel["messages"].(object)) != 7 {
			t.Errorf("%s carries %d messages, want all six types and structured mode", name, len(channel["messages"].(object)))
		}
		for m := range channel["messages"].(object) {
			messages[m] = true
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the document has the topics %q, the code %q", got, want)
	}
	for name := range doc["components"].(object)["messages"].(object) {
		if !messages[name] {
			t.Errorf("message %s is in no channel", name)
		}
	}
}

// The examples of what comes in decode to the examples of package event; all
// examples are valid by the document's own schemas.
func TestAsyncAPIExamplesAreLoaded(t *testing.T) {
	doc := asyncapi(t)
	want := map[string]event.Event{"structured": event.Examples()[0]}
	for _, e := range event.Examples() {
		want[e.Type.String()] = e
	}
	decoded := 0
	for name, m := range inlined(t, doc, doc["components"].(object)["messages"]).(object) {
		message := m.(object)
		examples, _ := message["examples"].([]any)
		if internal := name == "journalRecord" || name == "rules"; internal != (len(examples) == 0) {
			t.Errorf("%s has %d examples", name, len(examples))
		}
		for i, x := range examples {
			example := x.(object)
			headers, payload := example["headers"].(object), example["payload"].(object)
			for part, schema := range map[string]any{"headers": message["headers"], "payload": message["payload"]} {
				if err := asyncapiSchema(t, schema).Validate(example[part]); err != nil {
					t.Errorf("%s, example %d: %s: %v", name, i, part, err)
				}
			}
			rec := &event.Message{Value: encode(t, payload), Timestamp: recordTime}
			for k, v := range headers {
				rec.Headers = append(rec.Headers, event.Header{Key: k, Value: []byte(v.(string))})
			}
			slices.SortFunc(rec.Headers, func(a, b event.Header) int { // ours last, the code first of them
				rank := func(k string) int {
					switch {
					case k == "tierstream-code":
						return 1
					case strings.HasPrefix(k, letterPrefix):
						return 2
					}
					return 0
				}
				return rank(a.Key) - rank(b.Key)
			})
			switch name {
			case "tierChange":
				c, err := ReadChange("application/json", rec.Value)
				if err != nil || c.Customer != headers["ce_subject"] || c.EffectiveAt != headers["ce_time"] {
					t.Errorf("example %d of a change: %+v, %v", i, c, err)
				}
			case "customerValue":
				var v view.View
				if err := json.Unmarshal(rec.Value, &v); err != nil || v.Customer == "" || !v.Published {
					t.Errorf("example of a customer's value: %+v, %v", v, err)
				}
			case "deadLetter":
				l, err := ReadDeadLetter(rec)
				if err != nil || l.Origin() != "purchases/3@1184" || len(l.Original.Headers) != 7 {
					t.Errorf("example of a dead letter: %+v, %v", l, err)
				}
			default:
				decoded++
				var ev event.Event
				w := want[name]
				if r := event.NewDecoder(event.Limits{}).Decode(rec, &ev); r != nil {
					t.Errorf("%s: refused: %v", name, r)
				} else if ev != w {
					t.Errorf("%s says\n %+v, want\n %+v", name, ev, w)
				}
			}
		}
	}
	if decoded != len(want) {
		t.Errorf("%d examples of events, want %d", decoded, len(want))
	}
}

// A Java developer finds what a consumer sees that does not read committed.
func TestAsyncAPISaysWhatUncommittedReadersSee(t *testing.T) {
	text := asyncapi(t)["info"].(object)["description"].(string)
	for _, want := range []string{"isolation.level=read_committed", "aborted", "same `ce_id`"} {
		if !strings.Contains(text, want) {
			t.Errorf("the description has no %q", want)
		}
	}
}

// The example in events.md is a change by the schema.
func TestExampleOfAChangeIsValid(t *testing.T) {
	b, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "```json change\n")
	if !ok {
		t.Fatal("events.md has no example of a change")
	}
	text, _, _ := strings.Cut(rest, "```")
	if err := compiled(t, "tier-change.v1.json").Validate(document(t, []byte(text))); err != nil {
		t.Error(err)
	}
	var c Change
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	if line := c.Line(); line != "2026-11-22 07:13 ▲  me           Bronze → Gold   purchase of 180.00 EUR: contribution 37.3 → 68.5 reaches Gold (from 60.0)" {
		t.Errorf("as a line: %s", line)
	}
}
