package view

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/scoring"
)

var update = flag.Bool("update", false, "write golden files")

var inputs = []string{"purchases", "complaints", "referrals"}

// fixture is a customer with two orders, a return that waits, a complaint and
// an acquisition cost, decided as Silver by batch 6.
func fixture(t *testing.T) (*Viewer, []byte, *protocol.Fence) {
	t.Helper()
	m := scoring.Default()
	policy := customer.DefaultPolicy("EUR")
	w, err := NewViewer(m, policy, inputs)
	if err != nil {
		t.Fatal(err)
	}
	r := customer.NewRecord()
	for i, e := range []event.Event{
		{Type: event.Purchase, BusinessID: "o1", Amount: 4990, Currency: "EUR", Category: "tea"},
		{Type: event.Cost, BusinessID: "k1", Kind: event.Acquisition, Amount: 1200, HasAmount: true, Currency: "EUR"},
		{Type: event.Purchase, BusinessID: "o2", Amount: 12000, Currency: "EUR", Category: "pots"},
		{Type: event.Complaint, BusinessID: "b1", Severity: 2, Status: event.Opened},
		{Type: event.Return, BusinessID: "r1", OrderID: "o9", Amount: 700, HasAmount: true, Currency: "EUR"},
	} {
		e.ID, e.Source, e.Customer, e.Content = "e"+e.BusinessID, "/test", "c1", uint64(i+1)
		e.Time = day(10*i) + 9*3_600_000
		if res := w.folder.Apply(&r, &e); res.Code != event.Applied && res.Code != event.Waiting {
			t.Fatalf("event %d: %s", i, res.Code)
		}
	}
	r.Standing = customer.Standing{Tier: 1, Since: day(20) + 9*3_600_000, Sequence: 2, Clock: day(31)}
	r.Seq = 6
	f := &protocol.Fence{}
	f.Seq, f.Published.Seq = 7, 5
	f.State.Next = []protocol.Position{{Next: 30}, {Next: 4}, {Next: 0}}
	f.State.Watermark, f.State.Clock = day(41), day(42)
	return w, r.Append(nil), f
}

// day is midnight of a day of the fixture's history, Unix ms.
func day(n int) int64 {
	return time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC).AddDate(0, 0, n).UnixMilli()
}

func TestViewKeepsDecidedAndNowApart(t *testing.T) {
	w, record, f := fixture(t)
	near, err := w.View("c1", 3, record, f, time.UnixMilli(day(45)))
	if err != nil {
		t.Fatal(err)
	}
	far, err := w.View("c1", 3, record, f, time.UnixMilli(day(1000)))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []*View{near, far} {
		if v.Tier == nil || v.Tier.ID != "silver" || v.Sequence != 2 {
			t.Errorf("decided tier at %s: %+v, sequence %d", v.Now.At, v.Tier, v.Sequence)
		}
	}
	if far.Now.Tier == nil || far.Now.Tier.Rank > near.Now.Tier.Rank || far.Now.Score >= near.Now.Score || far.Now.Alive >= near.Now.Alive {
		t.Errorf("time lifts: %+v then %+v", near.Now, far.Now)
	}
	if far.Now.SinceLast != 980 {
		t.Errorf("days since the last order: %d, want 980", far.Now.SinceLast)
	}
	// What is missing and what is spare are of the tier at the read.
	tiers := scoring.Default().Tiers()
	n := near.Now
	if got, want := n.Score+*n.Missing, float64(tiers[n.Tier.Rank+1].Enter)/10_000; got < want-1e-9 || got > want+1e-9 {
		t.Errorf("score + missing is %v, the next tier begins at %v", got, want)
	}
}

func TestViewSaysWhatItStandsOn(t *testing.T) {
	w, record, f := fixture(t)
	v, err := w.View("c1", 3, record, f, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if want := time.UnixMilli(day(31)).UTC(); !v.Now.At.Equal(want) {
		t.Errorf("the zero instant is %s, want the customer clock %s", v.Now.At, want)
	}
	if v.Published {
		t.Error("batch 6 is called published although the fence knows only of 5")
	}
	if v.PublishedUpTo(6); !v.Published {
		t.Error("batch 6 is not called published although Kafka has it")
	}
	if v.AsOf.Offsets["purchases"] != 30 || v.AsOf.Offsets["complaints"] != 4 || v.AsOf.Seq != 7 || v.AsOf.Written != 6 || v.AsOf.Partition != 3 {
		t.Errorf("as of %+v", v.AsOf)
	}
	if len(v.Waiting) != 1 || v.Waiting[0].Amount != 700 || v.Waiting[0].Currency != "EUR" ||
		v.Waiting[0].Until.Sub(v.Waiting[0].At) != customer.DefaultPolicy("EUR").Grace {
		t.Errorf("waiting: %+v", v.Waiting)
	}
	if v.FirstDay != "2026-01-05" || v.LastDay != "2026-01-25" || v.Purchases != 2 {
		t.Errorf("orders from %s to %s, %d purchases", v.FirstDay, v.LastDay, v.Purchases)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"net_minor":16990`, `"tier":{"id":"silver","rank":1,"name":"Silver"}`, `"published":true`, `"currency":"EUR"`, `"fitted":false`} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("JSON has no %s: %s", want, b)
		}
	}
}

func TestViewRefusesWhatItCannotKnow(t *testing.T) {
	w, record, f := fixture(t)
	if _, err := w.View("c1", 0, nil, f, time.Time{}); !errors.Is(err, ErrUnknown) {
		t.Errorf("no record: %v", err)
	}
	if _, err := w.View("c1", 0, nil, nil, time.Time{}); !errors.Is(err, ErrUnknown) {
		t.Errorf("no fence: %v", err)
	}
	if _, err := w.View("c1", 0, record, f, time.UnixMilli(day(20))); !errors.Is(err, ErrPast) {
		t.Errorf("before the newest event: %v", err)
	}
	if _, err := w.View("c1", 0, record[:len(record)-1], f, time.Time{}); err == nil {
		t.Error("half a record was read")
	}
	for name, spoil := range map[string]func(*protocol.Fence){
		"loading":                 func(f *protocol.Fence) { f.Loading = true },
		"below what is published": func(f *protocol.Fence) { f.Target = f.Seq + 1 },
		"a rebase under way":      func(f *protocol.Fence) { f.Rebased.Open = true },
	} {
		g := *f
		spoil(&g)
		if _, err := w.View("c1", 0, record, &g, time.Time{}); !errors.Is(err, ErrRebuilding) {
			t.Errorf("%s: %v", name, err)
		}
	}
	g := *f
	g.Target, g.Rebased = g.Seq, protocol.Rebased{Seq: g.Seq}
	if _, err := w.View("c1", 0, record, &g, time.Time{}); err != nil {
		t.Errorf("rebuilt: %v", err)
	}
	if _, err := NewViewer(scoring.Default(), customer.DefaultPolicy("USD"), inputs); err == nil {
		t.Error("a model of EUR reads amounts of USD")
	}
}

func TestCardGolden(t *testing.T) {
	w, record, f := fixture(t)
	v, err := w.View("c1", 3, record, f, time.UnixMilli(day(45)))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := v.Card(&b); err != nil {
		t.Fatal(err)
	}
	const path = "testdata/card.txt"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("card:\n%s\nwant (-update writes it):\n%s", b.Bytes(), want)
	}
}
