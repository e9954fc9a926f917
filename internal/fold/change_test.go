package fold

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/scoring"
)

func TestTimesAreWrittenAsTheLayoutSays(t *testing.T) {
	end := time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC).UnixMilli()
	times := []int64{0, -1, 999, 951782400000, end, end + 1}
	for range 10_000 {
		times = append(times, rand.Int64N(end))
	}
	for _, ms := range times {
		want := time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
		if got := appendTime(nil, ms); string(got) != want {
			t.Errorf("%d: %s, want %s", ms, got, want)
		}
	}
}

// Names are the model's and IDs the producers': whatever characters they have,
// a change is JSON and gives them back.
func TestTextIsEscapedInChanges(t *testing.T) {
	const name = `<Größe> "5\6" & more`
	rules := testRules()
	var err error
	if rules.Model, err = scoring.Parse([]byte("{name: test, currency: EUR, typical_order_minor: 5000, tiers: [{id: bronze, name: Bronze}, {id: silver, name: '" + name + "', enter: 40, leave: 36}]}")); err != nil {
		t.Fatal(err)
	}
	p := newPartition(t, rules)
	var recs []*Record
	for i := range 4 {
		r := purchase(t, fmt.Sprint(`o"`, i), `ça\va`, day(i), 6000)
		r.Offset = int64(i)
		recs = append(recs, r)
	}
	if _, err := p.batch(day(5), protocol.Bound{}, recs...); err != nil {
		t.Fatal(err)
	}
	named := false
	for _, m := range p.out {
		var c struct {
			CustomerID string                `json:"customer_id"`
			ReasonText string                `json:"reason_text"`
			NewTier    struct{ Name string } `json:"new_tier"`
			Cause      struct {
				EventID string `json:"event_id"`
			}
		}
		if err := json.Unmarshal(m.Value, &c); err != nil {
			t.Fatalf("%v: %s", err, m.Value)
		}
		if c.CustomerID != `ça\va` || !strings.HasPrefix(c.Cause.EventID, `e-o"`) {
			t.Errorf("customer %s, event %s", c.CustomerID, c.Cause.EventID)
		}
		if c.NewTier.Name == name {
			named = true
			if !strings.Contains(c.ReasonText, name) {
				t.Errorf("reason %s", c.ReasonText)
			}
		}
	}
	if !named {
		t.Fatalf("nobody came to the tier: %d changes", len(p.out))
	}
}

// Messages wait in the outbox while later batches are folded.
func TestChangesOutliveTheNextBatch(t *testing.T) {
	p := newPartition(t, testRules())
	batch := func(n int) []protocol.Message {
		t.Helper()
		var recs []*Record
		for i := range 300 {
			r := purchase(t, fmt.Sprint("o", n, "-", i), fmt.Sprint("c", n, "-", i), day(n), 5000)
			r.Offset = int64(300*n + i)
			recs = append(recs, r)
		}
		from := len(p.out)
		if _, err := p.batch(day(n), protocol.Bound{}, recs...); err != nil {
			t.Fatal(err)
		}
		return p.out[from:]
	}
	text := func(ms []protocol.Message) (all []string) {
		for _, m := range ms {
			all = append(all, string(m.Key)+string(m.Value))
			for _, h := range m.Headers {
				all = append(all, h.Key+string(h.Value))
			}
		}
		return all
	}
	first := batch(0)
	was := text(first)
	if len(first) != 300 {
		t.Fatalf("%d changes of 300 new customers", len(first))
	}
	batch(1)
	if is := text(first); !slices.Equal(is, was) {
		t.Error("folding a batch changed the messages of the one before")
	}
}

// Where the measure is money, a reason says it as money: nobody reads minor units.
func TestReasonsTellMoneyAsMoney(t *testing.T) {
	rules := testRules()
	var err error
	if rules.Model, err = scoring.Parse([]byte("{name: test, currency: EUR, typical_order_minor: 5000, measure: clv.historic, tiers: [{id: bronze, name: Bronze}, {id: silver, name: Silver, enter: 3000, leave: 2500}]}")); err != nil {
		t.Fatal(err)
	}
	p := newPartition(t, rules)
	a := purchase(t, "o1", "anna", day(0), 4_990)
	b := purchase(t, "o2", "anna", day(1), 12_345)
	c := refund(t, "r2", "o2", "anna", day(2), 12_345)
	b.Offset, c.Offset = 1, 2
	p.must(day(3), protocol.Bound{}, a, b, c)
	var got []string
	for _, m := range p.of(protocol.Changes) {
		var c struct {
			Text string `json:"reason_text"`
		}
		if err := json.Unmarshal(m.Value, &c); err != nil {
			t.Fatal(err)
		}
		got = append(got, c.Text)
	}
	want := []string{ // margins of 30 %
		"purchase of 49.90 EUR: clv.historic 14.97 EUR gives Bronze (from 0.00 EUR)",
		"purchase of 123.45 EUR: clv.historic 14.97 EUR → 52.01 EUR reaches Silver (from 30.00 EUR)",
		"return of 123.45 EUR: clv.historic 52.01 EUR → 14.97 EUR leaves Silver (below 25.00 EUR) for Bronze",
	}
	if !slices.Equal(got, want) {
		t.Errorf("reasons are %q, want %q", got, want)
	}
}
