package fold

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/scoring"
	"github.com/tierstream/tierstream/internal/sim"
)

var update = flag.Bool("update", false, "rewrite golden files")

func testRules() *Rules {
	m := scoring.Default()
	p := customer.DefaultPolicy(m.Currency())
	p.Grace = 24 * time.Hour
	return &Rules{
		Topics: []string{"purchases", "complaints"}, Partitioner: "murmur2", Clock: ClockEvents,
		Limits: event.Limits{}.WithDefaults(), Policy: p, Model: m,
	}
}

// partition is a partition in memory: what Redis would hold, driven batch by
// batch.
type partition struct {
	t      testing.TB
	engine *Engine
	point  protocol.Point
	state  protocol.State
	flood  protocol.Flood
	stored map[string][]byte
	waits  map[Waiting][]byte
	out    []protocol.Message
}

func newPartition(t testing.TB, r *Rules) *partition {
	t.Helper()
	e, err := NewEngine(r, Where{Namespace: "test", Partitions: 1, Engine: "test engine", LiveSince: day(40)}, false)
	if err != nil {
		t.Fatal(err)
	}
	return &partition{
		t: t, engine: e, state: protocol.State{Next: make([]protocol.Position, len(r.Topics)), Counters: make([]int64, r.Codes())},
		stored: map[string][]byte{}, waits: map[Waiting][]byte{},
	}
}

// batch folds records through decoded and stored form, as the real thing does.
func (p *partition) batch(clock int64, bound protocol.Bound, recs ...*Record) (*Output, error) {
	p.t.Helper()
	in := &Input{Parent: p.point, State: p.state, Flood: p.flood, Clock: clock, Wall: day(1000), Bound: bound, Records: recs,
		Next: slices.Clone(p.state.Next), Customers: Set{}, Originals: p.waits}
	load := func(id string) {
		if in.Customers[id] != nil {
			return
		}
		c := NewCustomer(id)
		if v := p.stored[id]; v != nil {
			var err error
			if c, err = StoredCustomer(id, v); err != nil {
				p.t.Fatal(err)
			}
		}
		in.Customers[id] = c
	}
	var due []protocol.Bound
	for id, v := range p.stored {
		c, err := StoredCustomer(id, v)
		if err != nil {
			p.t.Fatal(err)
		}
		if b := (protocol.Bound{Due: c.due, Customer: id}); b.Less(bound) {
			due = append(due, b)
		}
	}
	slices.SortFunc(due, func(a, b protocol.Bound) int {
		if a.Less(b) {
			return -1
		}
		return 1
	})
	for _, d := range due[:min(len(due), MaxSweep)] {
		in.Sweep = append(in.Sweep, d.Customer)
		load(d.Customer)
	}
	for _, r := range recs {
		if p.engine.Decode(r) {
			load(r.Event.Customer)
		}
		in.Next[r.Topic].Next = r.Offset + 1
	}
	out, err := p.engine.Fold(in)
	if err != nil {
		return nil, err
	}
	p.point, p.state, p.flood = out.Entry.Point(), out.State, out.Flood
	for i := range out.Puts {
		p.stored[out.Puts[i].Customer.ID] = bytes.Clone(out.Puts[i].Value)
	}
	out.Applied()
	maps.Copy(p.waits, out.Wait)
	for _, w := range out.Unwait {
		delete(p.waits, w)
	}
	p.out = append(p.out, out.Entry.Messages...)
	return out, nil
}

func (p *partition) must(clock int64, bound protocol.Bound, recs ...*Record) *Output {
	p.t.Helper()
	out, err := p.batch(clock, bound, recs...)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// of lists the messages of a stream.
func (p *partition) of(s protocol.Stream) (ms []protocol.Message) {
	for _, m := range p.out {
		if m.Stream == s {
			ms = append(ms, m)
		}
	}
	return ms
}

// digest recomputes the digest from what is stored.
func (p *partition) digest() [16]byte {
	var d customer.Digest
	for id, v := range p.stored {
		d = d.Add(digestTerm(id, v))
	}
	return d.Bytes()
}

// day is noon of a day, Unix ms.
func day(n int) int64 {
	return time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC).AddDate(0, 0, n).UnixMilli()
}

var offset int64

func record(t testing.TB, topic int, ev event.Event) *Record {
	t.Helper()
	if ev.Source == "" {
		ev.Source = "test"
	}
	v, h, err := event.Encode(&ev, event.BinaryJSON)
	if err != nil {
		t.Fatal(err)
	}
	offset++
	return &Record{Topic: topic, Offset: offset, Message: event.Message{Key: []byte(ev.Customer), Value: v, Headers: h, Timestamp: max(ev.Time, day(500))}}
}

func purchase(t testing.TB, id, c string, at int64, amount int64) *Record {
	return record(t, 0, event.Event{Type: event.Purchase, ID: "e-" + id, Customer: c, Time: at, BusinessID: id, Amount: amount, HasAmount: true, Currency: "EUR"})
}

func refund(t testing.TB, id, order, c string, at int64, amount int64) *Record {
	return record(t, 1, event.Event{Type: event.Return, ID: "e-" + id, Customer: c, Time: at, BusinessID: id, OrderID: order, Amount: amount, HasAmount: true, Currency: "EUR", Kind: event.Goods})
}

// One customer's story, with every message it leads to.
func TestGoldenStory(t *testing.T) {
	offset = 0
	p := newPartition(t, testRules())
	trace := purchase(t, "o5", "anna", day(60), 20_000)
	trace.Message.Headers = append(trace.Message.Headers, event.Header{Key: "traceparent", Value: []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")})
	p.must(day(0), protocol.Bound{},
		purchase(t, "o1", "anna", day(0), 4_990),
		purchase(t, "o2", "anna", day(20), 4_000),
		purchase(t, "o3", "anna", day(33), 5_000),
	)
	p.must(day(33), protocol.Bound{},
		purchase(t, "o4", "anna", day(50), 6_000), trace,
		record(t, 1, event.Event{Type: event.Complaint, ID: "c1", Customer: "anna", Time: day(61), BusinessID: "c1", Severity: 5, Status: event.Opened}),
		record(t, 1, event.Event{Type: event.Complaint, ID: "c2", Customer: "anna", Time: day(62), BusinessID: "c1", Severity: 5, Status: event.Resolved}),
		purchase(t, "o1", "anna", day(0), 1), // conflicts
		purchase(t, "o6", "anna", day(700), 100),
	)
	for i := 1; i <= 6; i++ {
		amount := map[int]int64{1: 4_990, 2: 4_000, 3: 5_000, 4: 6_000, 5: 20_000, 6: 100}[i]
		p.must(day(700), protocol.Bound{}, refund(t, fmt.Sprint("r", i), fmt.Sprint("o", i), "anna", day(700+i), amount))
	}
	var b bytes.Buffer
	for _, m := range p.out {
		fmt.Fprintf(&b, "stream %d key %s\n", m.Stream, m.Key)
		for _, h := range Headers("test", &m) {
			fmt.Fprintf(&b, "  %s: %s\n", h.Key, h.Value)
		}
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, m.Value, "  ", "  "); err != nil {
			t.Fatalf("not JSON: %s", m.Value)
		}
		fmt.Fprintf(&b, "  %s\n\n", pretty.String())
	}
	fmt.Fprintf(&b, "chain %s\n", p.point.Chain)
	golden := filepath.Join("testdata", "story.golden")
	if *update {
		if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("the story changed (a golden output: raise Version, then -update):\n%s", b.String())
	}
}

func TestMsgpackSaysWhatTheJSONSays(t *testing.T) {
	p := newPartition(t, testRules())
	p.must(day(0), protocol.Bound{}, purchase(t, "o1", "anna", day(0), 4_990))
	payload := p.of(protocol.Changes)[0].Value
	b, err := Msgpack(payload)
	if err != nil {
		t.Fatal(err)
	}
	var got any
	if err := msgpack.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	back, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var x, y any
	if err := errors.Join(json.Unmarshal(back, &x), json.Unmarshal(payload, &y)); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(x, y) {
		t.Errorf("got %s\nwant %s", back, payload)
	}
	if _, err := Msgpack([]byte("{")); err == nil {
		t.Error("broken JSON is accepted")
	}
}

func TestWaitingReturnIsResolvedByItsOrder(t *testing.T) {
	p := newPartition(t, testRules())
	out := p.must(day(0), protocol.Bound{}, refund(t, "r", "o", "c", day(1), 1_000))
	if out.Counts[event.Waiting] != 1 || len(p.waits) != 1 || p.state.Counters[event.Waiting] != 1 {
		t.Fatalf("counts %v, %d originals", out.Counts, len(p.waits))
	}
	out = p.must(day(1), protocol.Bound{}, purchase(t, "o", "c", day(1), 1_000))
	if out.Counts[event.Applied] != 2 || out.Counts[event.Waiting] != -1 || len(p.waits) != 0 {
		t.Errorf("counts %v, %d originals", out.Counts, len(p.waits))
	}
	if n := len(p.of(protocol.DeadLetters)); n != 0 {
		t.Errorf("%d dead letters", n)
	}
}

// What waits too long goes to the dead letters as it came, whether a sweep or
// an event of the customer ends the wait.
func TestWaitingReturnExpires(t *testing.T) {
	for _, by := range []string{"sweep", "event", "order that does not fit"} {
		t.Run(by, func(t *testing.T) {
			p := newPartition(t, testRules())
			r := refund(t, "r", "o", "c", day(1), 1_000)
			p.must(day(0), protocol.Bound{}, r)
			want := event.OrphanReturn
			switch by {
			case "sweep":
				p.must(day(2), protocol.Bound{Due: day(2) + 1})
				if p.state.Counters[event.OrphanReturn] != 0 {
					t.Fatal("swept at its deadline, not after")
				}
				out := p.must(day(3), protocol.Bound{Due: day(2) + 2})
				if out.Counts[event.OrphanReturn] != 1 || len(out.Puts) != 1 || !out.Puts[0].DueMoved {
					t.Fatalf("%+v", out.Counts)
				}
			case "event":
				p.must(day(2), protocol.Bound{}, purchase(t, "other", "c", day(5), 1))
			default:
				p.must(day(2), protocol.Bound{}, purchase(t, "o", "c", day(1), 999))
				want = event.OverReturn
			}
			if p.state.Counters[want] != 1 || p.state.Counters[event.Waiting] != 0 || len(p.waits) != 0 {
				t.Errorf("counters %v, %d originals", p.state.Counters, len(p.waits))
			}
			dead := p.of(protocol.DeadLetters)
			if len(dead) != 1 || !bytes.Equal(dead[0].Value, r.Message.Value) || string(dead[0].Key) != "c" {
				t.Fatalf("dead letters %+v", dead)
			}
			h := map[string]string{}
			for _, x := range dead[0].Headers {
				h[x.Key] = string(x.Value)
			}
			if h["tierstream-code"] != want.String() || h["tierstream-topic"] != "complaints" || h["tierstream-offset"] != fmt.Sprint(r.Offset) || h["ce_id"] != "e-r" {
				t.Errorf("headers %v", h)
			}
		})
	}
}

// A return that expires and comes again in the same batch waits again: its
// original must not go with the one that expired.
func TestExpiredReturnThatComesAgainInItsBatchWaits(t *testing.T) {
	p := newPartition(t, testRules())
	r := refund(t, "r", "o", "c", day(1), 1_000)
	p.must(day(0), protocol.Bound{}, r)
	again := *r
	again.Offset++
	out := p.must(day(5), protocol.Bound{}, purchase(t, "other", "c", day(5), 1), &again)
	if out.Counts[event.OrphanReturn] != 1 || p.state.Counters[event.Waiting] != 1 || len(p.waits) != 1 || len(out.Unwait) != 0 {
		t.Fatalf("counters %v, %d originals, %v to delete", p.state.Counters, len(p.waits), out.Unwait)
	}
	p.must(day(6), protocol.Bound{Due: day(6)})
	if p.state.Counters[event.OrphanReturn] != 2 || p.state.Counters[event.Waiting] != 0 || len(p.waits) != 0 {
		t.Errorf("counters %v, %d originals", p.state.Counters, len(p.waits))
	}
}

// Where batches end shows in nothing but the journal: not in records, not in
// decisions, not in counters.
func TestBatchBoundariesDoNotShow(t *testing.T) {
	c := sim.DefaultConfig()
	c.Customers, c.Span, c.BadRate, c.Currency = 60, 300*24*time.Hour, 0.05, "EUR"
	g, err := sim.New(c)
	if err != nil {
		t.Fatal(err)
	}
	var recs []*Record
	for m := range g.All() {
		if len(recs) == 1500 {
			break
		}
		r := &Record{Topic: min(int(m.Topic), 1), Offset: int64(len(recs)), Message: event.Message{Key: m.Key(), Timestamp: m.At}}
		if m.Raw != nil {
			r.Message.Value, r.Message.Headers = m.Raw.Value, m.Raw.Headers
		} else if r.Message.Value, r.Message.Headers, err = event.Encode(&m.Event, event.Formats[len(recs)%4]); err != nil {
			t.Fatal(err)
		}
		recs = append(recs, r)
	}
	type result struct {
		stored map[string]string
		out    []string
		counts []int64
	}
	run := func(size int) result {
		p := newPartition(t, testRules())
		p.engine.allowRejects = true
		for from := 0; from < len(recs); from += size {
			var batch []*Record
			for _, r := range recs[from:min(from+size, len(recs))] {
				x := *r
				batch = append(batch, &x)
			}
			p.must(0, protocol.Bound{}, batch...)
			if p.state.Digest != p.digest() {
				t.Fatalf("the digest is not the sum over the records after %d", from)
			}
		}
		r := result{stored: map[string]string{}, counts: p.state.Counters}
		for id, v := range p.stored {
			r.stored[id] = string(v[11:]) // without the seq of the last write
		}
		for _, m := range p.out {
			r.out = append(r.out, fmt.Sprintf("%d %s %s", m.Stream, m.Key, m.Value))
		}
		return r
	}
	one := run(1)
	if len(one.out) < 50 {
		t.Fatalf("only %d messages", len(one.out))
	}
	for _, size := range []int{7, 100, 1500} {
		r := run(size)
		if !maps.Equal(r.stored, one.stored) {
			t.Errorf("batches of %d give other records", size)
		}
		if !slices.Equal(r.out, one.out) {
			t.Errorf("batches of %d give other messages", size)
		}
		if !slices.Equal(r.counts, one.counts) {
			t.Errorf("batches of %d give other counts:\n%v\n%v", size, r.counts, one.counts)
		}
	}
}

func TestSameCountsAsRead(t *testing.T) {
	p := newPartition(t, testRules())
	bad := purchase(t, "x", "c", day(3), 5)
	bad.Message.Value = []byte("{")
	wrongKey := purchase(t, "y", "c", day(3), 5)
	wrongKey.Message.Key = []byte("d")
	p.must(0, protocol.Bound{}, purchase(t, "a", "c", day(1), 5), purchase(t, "a", "c", day(1), 5), bad, wrongKey,
		refund(t, "r", "nowhere", "c", day(2), 1), purchase(t, "z", "c", day(1), 0))
	var sum int64
	for i, n := range p.state.Counters {
		if event.Code(i).Outcome() != event.Warned {
			sum += n
		}
	}
	if sum != 6 || p.state.Read != 6 {
		t.Errorf("%d read, %d accounted for: %v", p.state.Read, sum, p.state.Counters)
	}
}

func TestFloodStops(t *testing.T) {
	rules := testRules()
	feed := func(n, badEvery int, allow bool, first int) error {
		p := newPartition(t, rules)
		p.engine.allowRejects = allow
		var recs []*Record
		for i := range n {
			r := purchase(t, fmt.Sprint("o", i), fmt.Sprint("c", i%997), day(i/100), 5)
			if i >= first && i%badEvery == 0 {
				r.Message.Key = []byte("somebody else")
			}
			recs = append(recs, r)
		}
		for from := 0; from < n; from += 250 {
			before := p.point
			if _, err := p.batch(0, protocol.Bound{}, recs[from:min(from+250, n)]...); err != nil {
				if p.point != before {
					t.Error("the batch that tripped moved the partition")
				}
				return err
			}
		}
		return nil
	}
	if err := feed(999, 1, false, 0); err != nil {
		t.Errorf("judged before 1,000 records: %v", err)
	}
	err := feed(1500, 10, false, 0)
	if !errors.Is(err, ErrFlood) || !strings.Contains(err.Error(), "partitioner setting (murmur2)") || !strings.Contains(err.Error(), "--allow-rejects") {
		t.Errorf("10 %% misrouted from the start: %v", err)
	}
	if err := feed(1500, 10, true, 0); err != nil {
		t.Errorf("allowed: %v", err)
	}
	if err := feed(12_000, 50, false, 0); err != nil {
		t.Errorf("2 %% misrouted: %v", err)
	}
	if err := feed(15_000, 2, false, 12_000); err == nil || !errors.Is(err, ErrFlood) {
		t.Errorf("half of a later window misrouted: %v", err)
	}
}

func TestRulesSurviveTheirCanonicalForm(t *testing.T) {
	r := testRules()
	r.Policy.Rates = []customer.Rate{{Currency: "USD", Rate: "0.92"}}
	got, err := ParseRules(r.Canonical())
	if err != nil {
		t.Fatal(err)
	}
	if got.Hash() != r.Hash() || !bytes.Equal(got.Canonical(), r.Canonical()) {
		t.Errorf("other rules:\n%s\n%s", got.Canonical(), r.Canonical())
	}
	for name, f := range map[string]func(*Rules){
		"topics": func(r *Rules) { r.Topics = r.Topics[:1] }, "partitioner": func(r *Rules) { r.Partitioner = "crc32" },
		"clock": func(r *Rules) { r.Clock = ClockWall }, "skew": func(r *Rules) { r.Limits.MaxSkew++ },
		"grace": func(r *Rules) { r.Policy.Grace += time.Hour }, "rates": func(r *Rules) { r.Policy.Rates = nil },
	} {
		x := *r
		f(&x)
		if x.Hash() == r.Hash() {
			t.Errorf("%s does not change the hash", name)
		}
	}
	if _, err := ParseRules([]byte(`{"fold":99}`)); err == nil {
		t.Error("rules of another fold version are accepted")
	}
}

func TestDecimals(t *testing.T) {
	for v, want := range map[int64]string{0: "0", 10_000: "1", 412_500: "41.25", 1: "0.0001", -5_000: "-0.5", -123_400: "-12.34"} {
		if got := string(appendDecimal(nil, v)); got != want {
			t.Errorf("appendDecimal(%d) = %s, want %s", v, got, want)
		}
	}
}

func FuzzDecodeOriginal(f *testing.F) {
	f.Add(encodeOriginal(Origin{1, 2}, &event.Message{Key: []byte("k"), Value: []byte("v"), Timestamp: 5, Headers: []event.Header{{Key: "h", Value: []byte("x")}}}))
	f.Add([]byte{1, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		o, m, err := decodeOriginal(b)
		if err != nil {
			return
		}
		o2, m2, err := decodeOriginal(encodeOriginal(o, m))
		if err != nil || o2 != o || !bytes.Equal(m2.Value, m.Value) || !bytes.Equal(m2.Key, m.Key) || len(m2.Headers) != len(m.Headers) {
			t.Errorf("%+v %+v, then %+v %+v, %v", o, m, o2, m2, err)
		}
	})
}

func BenchmarkFold(b *testing.B) {
	rules := testRules()
	e, err := NewEngine(rules, Where{Namespace: "test", Partitions: 1}, true)
	if err != nil {
		b.Fatal(err)
	}
	const n = 4096
	var recs []*Record
	for i := range n {
		recs = append(recs, purchase(b, fmt.Sprint("o", i), fmt.Sprint("c", i%1500), day(i/50), int64(1000+i)))
	}
	b.ReportAllocs()
	for b.Loop() {
		set := Set{}
		for _, r := range recs {
			e.Decode(r)
			if set[r.Event.Customer] == nil {
				set[r.Event.Customer] = NewCustomer(r.Event.Customer)
			}
		}
		if _, err := e.Fold(&Input{State: protocol.State{}, Records: recs, Next: []protocol.Position{{}, {}}, Customers: set}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/event")
}
