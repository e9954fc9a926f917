package mapping_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/mapping"
	"github.com/tierstream/tierstream/internal/mapping/mappingtest"
)

// The file and the events in docs/mapping.md are those of examples/mapping.
func TestDocumentIsTheExample(t *testing.T) {
	b, err := os.ReadFile("../../docs/mapping.md")
	if err != nil {
		t.Fatal(err)
	}
	block := func(name string) string {
		_, rest, ok := strings.Cut(string(b), "\n```"+name+"\n")
		text, _, closed := strings.Cut(rest, "```\n")
		if !ok || !closed {
			t.Fatalf("the document has no block %s", name)
		}
		return text
	}
	file := mappingtest.File(t, "mapping.yaml")
	if block("yaml mapping") != file {
		t.Error("the mapping in the document is not examples/mapping/mapping.yaml")
	}
	m, err := mapping.Parse([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	x, d := m.Mapper("orders", event.Limits{}), event.NewDecoder(event.Limits{})
	var got strings.Builder
	for i, line := range strings.Split(strings.TrimSpace(mappingtest.File(t, "orders.ndjson")), "\n") {
		var r struct {
			Key   string
			Value json.RawMessage
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		e, refusal := x.Map(0, 0, &event.Message{Key: []byte(r.Key), Value: r.Value, Timestamp: time.Now().UnixMilli()})
		if refusal == nil {
			refusal = d.Decode(e, new(event.Event))
		}
		if refusal != nil {
			fmt.Fprintf(&got, "line %d: %v\n", i+1, refusal)
		} else {
			fmt.Fprintf(&got, "line %d: %s\n", i+1, e.Value)
		}
	}
	if want := block("events"); got.String() != want {
		t.Errorf("the document says\n%s\nthe mapping\n%s", want, got.String())
	}
}

// What is wrong with a file is said with its line and place.
func TestWrongFilesAreRefused(t *testing.T) {
	const good = `registry: http://r:8081
topics:
  orders:
    source: {const: /shop}
    events:
      - when: value.kind == 'a'
        type: purchase
        id: value.id
        time: value.at
        subject: key
        data:
          order_id: value.id
          amount_minor: minor(value.total, 'EUR')
          currency: {const: EUR}
`
	if _, err := mapping.Parse([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, to, want string }{
		{good, "", "it is empty"},
		{good, "topics: {}", "no topics"},
		{"topics:", "topic:", `line 2: field topic not found`},
		{"        id:", "        ids:", `line 8: an event has no "ids"`},
		{"        id: value.id\n", "", "topics.orders.events[0]: line 6: no id, here or at the topic"},
		{"value.id\n        time", "valu.id\n        time", "topics.orders.events[0].id: line 8: valu.id: undeclared reference to 'valu'"},
		{"{const: EUR}", "EUR", "data.currency: line 14: EUR: undeclared reference to 'EUR'; a field is value.name, a constant {const: EUR}"},
		{"{const: EUR}", "{const: 1.5}", "line 14: a constant is a text, an integer, true or false"},
		{"{const: EUR}", "[EUR]", "line 14: want an expression, or a constant"},
		{"currency:", "curency:", "line 6: data.curency: a purchase has order_id, amount_minor, currency"},
		{"          order_id: value.id\n", "", "line 6: no data.order_id, which a purchase must have"},
		{"type: purchase", "type: order", `line 6: type "order": want purchase`},
		{"when: value.kind == 'a'", "when: value.kind + 'a'", "line 6: value.kind + 'a': it is a string, which cannot stand here"},
		{"when: value.kind == 'a'", "when: key", "line 6: key: it is a string, which cannot stand here"},
		{"when: value.kind == 'a'\n        type", "skip: true\n        type", "line 6: what is skipped has a condition and nothing else"},
		{"subject: key", "subject: offset", "line 10: offset: it is a int, which cannot stand here"},
		{"time: value.at", "time: timestamp.getHours('UTC')", "line 9: "},
		{"registry: http://r:8081", "registry: r:8081", `registry "r:8081": want an http or https address`},
		{"registry: http://r:8081", "registry: http://u:p@r:8081", "registry: the address has a user or a password"},
		{"    source", "    format: csv\n    source", `topics.orders: format "csv": want json or registry`},
		{"registry: http://r:8081\ntopics:\n  orders:", "topics:\n  orders:\n    format: registry", "neither a registry nor schemas"},
		{"registry: http://r:8081", "schemas: [{id: 1, type: XML}]", `schema 1: type "XML"`},
		{"registry: http://r:8081", "schemas: [{id: 1, type: JSON}, {id: 1, type: JSON}]", "schema 1 is there twice"},
	} {
		_, err := mapping.Parse([]byte(strings.Replace(good, c.from, c.to, 1)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q for %q: %v, want …%s…", c.to, c.from, err, c.want)
		}
	}
	never := strings.Replace(good, "      - when", "      - skip: true\n      - when", 1)
	if _, err := mapping.Parse([]byte(never)); err == nil || !strings.Contains(err.Error(), "line 6: it has no condition, so those after it are never reached") {
		t.Errorf("a rule that is never reached: %v", err)
	}
}
