package mapping_test

import (
	"testing"

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
