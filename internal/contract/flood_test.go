package contract

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/sim"
	"github.com/tierstream/tierstream/internal/sim/produce"
	"github.com/tierstream/tierstream/internal/state"
	"github.com/tierstream/tierstream/internal/testenv"
)

// testBadTraffic sends believable traffic, 15 % of it bad in every way the
// simulator knows. Nothing stops, nothing is lost, and every record ends where
// the simulator, which shares no code with the fold, says it must.
func testBadTraffic(t *testing.T, brokers []string, redisAddr string, n int) {
	cfg, cl := badWorld(t, brokers, redisAddr, false)
	c := sim.DefaultConfig()
	c.Seed, c.Customers, c.Span, c.BadRate = 11, float64(n)/12, 400*24*time.Hour, 0.18 // of the sound ones
	c.Start, c.Currency = time.Date(2023, 1, 1, 0, 0, 0, 0, time.UTC), cfg.Rules.Model.Currency()
	g, err := sim.New(c)
	if err != nil {
		t.Fatal(err)
	}
	murmur2, err := event.ParsePartitioner("murmur2")
	if err != nil {
		t.Fatal(err)
	}
	// One topic, so that each customer's events are read in the order in which
	// they are made, as the simulator assumes.
	in := cfg.Topics.Inputs[0]
	records := make([]*kgo.Record, 0, n+badPartitions)
	codes := make([]event.Code, 0, n)
	for i := range n {
		m, ok := g.Next()
		if !ok {
			t.Fatalf("only %d messages", i)
		}
		r, err := produce.Record(&m, produce.Topics{in, in, in}, event.Formats[i%len(event.Formats)])
		if err != nil {
			t.Fatal(err)
		}
		r.Partition = murmur2.Partition(r.Key, badPartitions)
		records, codes = append(records, r), append(codes, m.Code)
	}
	// A last event of each partition, so that the clock goes past every grace.
	for i, last := 0, 0; last < badPartitions; i++ {
		id := fmt.Sprintf("last-%d", i)
		if p := murmur2.Partition([]byte(id), badPartitions); p == int32(last) {
			e := event.Examples()[5]
			e.ID, e.Customer, e.Time = id, id, time.Now().Add(-time.Hour).UnixMilli()
			value, headers, err := event.Encode(&e, event.BinaryJSON)
			if err != nil {
				t.Fatal(err)
			}
			r := &kgo.Record{Topic: in, Partition: p, Key: []byte(id), Value: value}
			for _, h := range headers {
				r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
			}
			records, codes = append(records, r), append(codes, event.Applied)
			last++
		}
	}
	if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}

	var want [event.NumCodes]int64
	letters := map[string]event.Code{}
	bad := 0
	for i, r := range records {
		code := codes[i]
		switch {
		case code == event.Late, code == event.Waiting: // late by its sending; ahead of an order that comes
			code = event.Applied
		case code == event.UnusualTransition:
			bad++
			code = event.Applied
		case code != event.Applied:
			bad++
		}
		want[code]++
		if code.Outcome() == event.DeadLetter {
			letters[fmt.Sprintf("%s/%d@%d", r.Topic, r.Partition, r.Offset)] = code
		}
	}
	if 100*bad < 15*n {
		t.Errorf("only %d of %d records are bad", bad, n)
	}
	for _, code := range sim.Flaws() {
		if code.Outcome() != event.Warned && want[code] == 0 {
			t.Errorf("no record is %s", code)
		}
	}

	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	found := 0
	for left := len(letters); left > 0; {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d of %d dead letters are missing", left, len(letters))
		}
		fs.EachRecord(func(r *kgo.Record) {
			if r.Topic != cfg.Topics.DeadLetters {
				return
			}
			m := &event.Message{Key: r.Key, Value: r.Value}
			for _, h := range r.Headers {
				m.Headers = append(m.Headers, event.Header{Key: h.Key, Value: h.Value})
			}
			l, err := ReadDeadLetter(m)
			if err != nil {
				t.Error(err)
				return
			}
			code, ok := letters[l.Origin()]
			if !ok {
				t.Errorf("a dead letter %s of %s, which is good, or a second one", l.Code, l.Origin())
				return
			}
			if l.Code != code.String() {
				t.Errorf("%s is refused as %s (%s), the simulator says %s", l.Origin(), l.Code, l.Detail, code)
			}
			delete(letters, l.Origin())
			left--
			found++
		})
	}
	got := counted(t, cfg, int64(len(records)))
	for c := range event.NumCodes {
		if code := event.Code(c); code.Outcome() != event.Warned && got[c] != want[c] {
			t.Errorf("%s: counted %d, want %d", code, got[c], want[c])
		}
	}
	t.Logf("%d records, %d of them bad, %d dead letters", len(records), bad, found)
}

func TestBadTrafficOnFakes(t *testing.T) {
	testBadTraffic(t, fakeKafka(t), miniredis.RunT(t).Addr(), 10_000)
}

func TestBadTrafficOnRealServices(t *testing.T) {
	k := testenv.SharedKafka(t)
	testBadTraffic(t, []string{k.Addr()}, testenv.Redis(t, testenv.RedisOptions{}).Addr(), 100_000)
}

// TestWrongProducerStopsUntilToldToGoOn: a producer that writes amounts as
// text would only fill the dead letters. Its partition stops before they are
// applied, says what looks wrong, and stops again after a restart.
func TestWrongProducerStopsUntilToldToGoOn(t *testing.T) {
	cfg, cl := newBadWorld(t, fakeKafka(t), miniredis.RunT(t).Addr(), false)
	murmur2, err := event.ParsePartitioner("murmur2")
	if err != nil {
		t.Fatal(err)
	}
	const n = 3_000
	var records []*kgo.Record
	p := &planner{now: time.Now(), topics: cfg.Topics.Inputs[:1]}
	for i := range n {
		p.next()
		d := p.draft(p.event(event.Purchase, "e-1", time.Hour))
		if i%3 == 0 {
			set("amount_minor", "4990")(d)
		}
		if murmur2.Partition([]byte(d.key), badPartitions) == 0 {
			p.send(t, "a purchase", d, event.Applied, "")
			records = append(records, p.out[len(p.out)-1].Record)
		}
	}
	if len(records) < 950 {
		t.Fatalf("only %d records are of one partition", len(records))
	}
	for i := range 1200 - len(records) { // more of the same customers
		r := *records[i]
		records = append(records, &r)
	}
	if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it stops, and stops again
		stopped, stop := runProcessor(t, cfg)
		var reason error
		until(t, "the partition has stopped", func() bool { reason = stopped()[0]; return reason != nil })
		for _, want := range []string{"flood of refused records", "wrong_type", "the producer or its version looks wrong", "--allow-rejects"} {
			if !strings.Contains(reason.Error(), want) {
				t.Errorf("it does not say %q: %v", want, reason)
			}
		}
		stop()
		f, err := cfg.Store(0).(*state.Store).Fence(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if f.State.Read >= 1000 {
			t.Errorf("%d records were applied: the batch that trips must not be", f.State.Read)
		}
	}
	cfg.AllowRejects = true
	_, stop := runProcessor(t, cfg)
	got := counted(t, cfg, int64(len(records)))
	if refused := got[event.WrongType]; refused < 300 || refused+got[event.Applied]+got[event.Duplicate] != int64(len(records)) {
		t.Errorf("going on: %d wrong types, %d applied, %d duplicates of %d", refused, got[event.Applied], got[event.Duplicate], len(records))
	}
	stop()
}
