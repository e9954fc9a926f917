package mapping_test

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/tierstream/tierstream/internal/connect"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/mapping"
	"github.com/tierstream/tierstream/internal/mapping/mappingtest"
)

// Every record of a company becomes what it should, by the expressions of
// examples/mapping.
func TestCompanysRecords(t *testing.T) {
	topics := [3]string{"orders", "billing", "tickets"}
	company := mappingtest.New(t, topics)
	m, err := mapping.Parse([]byte(company.Mapping))
	if err != nil {
		t.Fatal(err)
	}
	registry, err := (&connect.Registry{}).Open(m.Registry(), "")
	if err != nil {
		t.Fatal(err)
	}
	records, want := company.Traffic(12)
	var got [event.NumCodes]int64
	d := event.NewDecoder(event.Limits{})
	for _, r := range records {
		if id, ok := m.Needs(r.Topic, r.Value); ok {
			if m, _, err = m.Learn(t.Context(), registry, []int{id}); err != nil {
				t.Fatal(err)
			}
		}
		msg := &event.Message{Key: r.Key, Value: r.Value, Timestamp: r.Timestamp.UnixMilli()}
		x := m.Mapper(r.Topic, event.Limits{})
		mapped, refusal := x.Map(0, 0, msg)
		var ev event.Event
		if refusal == nil {
			refusal = d.Decode(mapped, &ev)
		}
		switch {
		case refusal != nil:
			t.Logf("%s: %v", r.Topic, refusal)
			got[refusal.Code]++
		case !event.KeyMatches(msg, &ev):
			got[event.Misrouted]++
		default:
			got[event.Applied]++
		}
	}
	got[event.Applied] -= want[event.Duplicate] // which the fold tells apart
	got[event.Duplicate] = want[event.Duplicate]
	if got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A JSON document behind a JSON Schema's ID is read as the document alone is;
// the schema is looked up, so that an ID of nothing is refused.
func TestJSONSchemaThroughTheRegistry(t *testing.T) {
	company := mappingtest.New(t, [3]string{"orders", "billing", "tickets"})
	id, _, err := company.Registry.RegisterSchema("orders-value", sr.Schema{Type: sr.TypeJSON, Schema: `{"type":"object","required":["eventId","kind"]}`})
	if err != nil {
		t.Fatal(err)
	}
	parse := func(text string) *mapping.Mapping {
		m, err := mapping.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := parse(company.Mapping)
	registry, err := (&connect.Registry{}).Open(m.Registry(), "")
	if err != nil {
		t.Fatal(err)
	}
	plain := company.Order("c1", "paid-1", "ORDER_PAID", "2025-06-01T08:00:00Z", `,"order":{"number":"A-1","total":20.9,"currency":"EUR","items":[{"group":"g1"}]}`)
	decode := func(value []byte) (ev event.Event, refusal *event.Refusal) {
		if id, ok := m.Needs("orders", value); ok {
			if m, _, err = m.Learn(t.Context(), registry, []int{id}); err != nil {
				t.Fatal(err)
			}
		}
		msg, refusal := m.Mapper("orders", event.Limits{}).Map(0, 0, &event.Message{Key: plain.Key, Value: value, Timestamp: mappingtest.Start.UnixMilli()})
		if refusal == nil {
			refusal = event.NewDecoder(event.Limits{}).Decode(msg, &ev)
		}
		return ev, refusal
	}
	want, refusal := decode(plain.Value)
	if refusal != nil || want.Amount != 2090 {
		t.Fatalf("without a schema: %+v, %v", want, refusal)
	}
	if _, refusal := decode(mappingtest.Framed(id, plain.Value...)); refusal == nil || !strings.Contains(refusal.Detail, "format: registry") {
		t.Errorf("no hint: %v", refusal)
	}
	m = parse(strings.Replace(company.Mapping, "  orders:\n", "  orders:\n    format: registry\n", 1))
	if got, refusal := decode(mappingtest.Framed(id, plain.Value...)); refusal != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, refusal, want)
	}
	if _, refusal := decode(mappingtest.Framed(id+100, plain.Value...)); refusal == nil || refusal.Code != event.UnknownType {
		t.Errorf("a schema that nobody registered: %v", refusal)
	}
	if _, refusal := decode(mappingtest.Framed(id, []byte(`{"eventId":`)...)); refusal == nil || refusal.Code != event.Malformed {
		t.Errorf("half a document: %v", refusal)
	}
}
