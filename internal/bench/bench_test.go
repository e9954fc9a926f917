package bench

import (
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
)

// The backlog must be sound: what a loop measures is folding, not refusing.
func TestBacklogIsAcceptedWhole(t *testing.T) {
	rs := rules()
	f, err := customer.NewFolder(rs.Policy, rs.Model.Calendar(), rs.Model.WindowDays())
	if err != nil {
		t.Fatal(err)
	}
	dec := event.NewDecoder(rs.Limits)
	b := Backlog{Events: 20_000, Customers: 1_000, End: time.Now(), Span: 90 * 24 * time.Hour}
	records := map[string]*customer.Record{}
	types := map[event.Type]int{}
	var last int64
	for topic, e := range b.All() {
		value, headers, err := event.Encode(e, event.BinaryJSON)
		if err != nil {
			t.Fatal(err)
		}
		var got event.Event
		if r := dec.Decode(&event.Message{Key: []byte(e.Customer), Value: value, Headers: headers, Timestamp: b.End.UnixMilli()}, &got); r != nil {
			t.Fatalf("event %s: %s %s", e.ID, r.Code, r.Field)
		}
		if got.Time < last {
			t.Fatalf("event %s is older than the one before", e.ID)
		}
		last = got.Time
		rec := records[got.Customer]
		if rec == nil {
			n := customer.NewRecord()
			rec = &n
			records[got.Customer] = rec
		}
		if res := f.Apply(rec, &got); res.Code != event.Applied {
			t.Fatalf("event %s (%s, topic %d): %s %s", e.ID, got.Type, topic, res.Code, res.Field)
		}
		types[got.Type]++
	}
	for _, ty := range []event.Type{event.Purchase, event.Return, event.Complaint, event.Referral, event.Feedback, event.Cost} {
		if types[ty] == 0 {
			t.Errorf("no %s", ty)
		}
	}
	if p := types[event.Purchase]; p < 18_000 || p > 19_000 {
		t.Errorf("%d purchases of %d events", p, b.Events)
	}
}

func TestBacklogRepeats(t *testing.T) {
	b := Backlog{Events: 500, Customers: 50, End: time.Unix(1.7e9, 0), Span: time.Hour}
	var first []event.Event
	for _, e := range b.All() {
		first = append(first, *e)
	}
	i := 0
	for _, e := range b.All() {
		if first[i] != *e {
			t.Fatalf("event %d is %+v, was %+v", i, *e, first[i])
		}
		i++
	}
}

func TestSpreadOf(t *testing.T) {
	of := func(events ...int64) Spread {
		var rs []*Result
		for _, n := range events {
			rs = append(rs, &Result{Events: n, Took: time.Second})
		}
		return SpreadOf(rs, (*Result).PerSecond)
	}
	for _, c := range []struct{ got, want Spread }{
		{of(), Spread{}},
		{of(5), Spread{5, 5, 5}},
		{of(9, 1, 4), Spread{1, 4, 9}},
		{of(8, 2, 4, 3), Spread{2, 3.5, 8}},
	} {
		if c.got != c.want {
			t.Errorf("got %v, want %v", c.got, c.want)
		}
	}
}

func TestReportSaysWhetherTargetsAreMet(t *testing.T) {
	res := func(n int64) []*Result {
		return []*Result{{Events: n, Took: time.Second, Own: time.Second, Batches: 1, Verified: []string{"all of it"}}}
	}
	r := Report{
		Suite:   Suite{Loops: []Loop{Naive, Bare, Full}, Events: 100, Rounds: 1},
		Results: map[Loop][]*Result{Naive: res(10_000), Bare: res(200_000), Full: res(61_000)},
	}
	r.Latency = &Latency{Rate: 5000, Measured: time.Second, Sent: []time.Duration{1e6}, Seen: []time.Duration{2e6, 73.4e6}, Consumer: res(5000)[0]}
	for _, markdown := range []bool{false, true} {
		var b strings.Builder
		if err := r.Write(&b, markdown); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			switch {
			case strings.Contains(line, "full / naive"):
				if !strings.Contains(line, "6.10") || !strings.Contains(line, "met") {
					t.Errorf("%s", line)
				}
			case strings.Contains(line, "full / bare"):
				if !strings.Contains(line, "0.3") || !strings.Contains(line, "missed") {
					t.Errorf("%s", line)
				}
			}
		}
		for _, want := range []string{"full / naive", "full / bare", "200,000", "all of it", "5,000 per second", "73.4"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("no %q in:\n%s", want, b.String())
			}
		}
	}
}

func TestQuantile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, c := range []struct {
		times []time.Duration
		q     float64
		want  time.Duration
	}{
		{nil, .5, 0}, {hundred[:1], .99, 1}, {hundred, .5, 50}, {hundred, .99, 99}, {hundred, .985, 99}, {hundred, 1, 100},
	} {
		if got := Quantile(c.times, c.q); got != c.want {
			t.Errorf("quantile %v of %d is %d, want %d", c.q, len(c.times), got, c.want)
		}
	}
}

// When the broker stands still, every event that is due meanwhile has waited,
// also those that could not be sent.
func TestLatencyCountsWhatAPauseHeldUp(t *testing.T) {
	const rate, pause = 500, 400 * time.Millisecond
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	task := Task{Loop: Full, Brokers: k.ListenAddrs()[0], Redis: miniredis.RunT(t).Addr(), Namespace: "latency", Partitions: 2, CacheMB: 1}
	l := &Latency{Rate: rate, Measured: 2 * time.Second}
	task.Events = l.events()

	var produced atomic.Int64
	k.ControlKey(kmsg.Produce.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		if produced.Add(1) == 40 {
			time.Sleep(pause) // the whole broker waits for it
		}
		return nil, nil, false
	})
	g, ctx := errgroup.WithContext(t.Context())
	g.Go(func() (err error) {
		l.Consumer, err = Run(ctx, task)
		return err
	})
	g.Go(func() error { return l.measure(ctx, task, 1000) })
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(l.Seen) != int(l.Consumer.Changes) || len(l.Sent) != len(l.Seen) {
		t.Fatalf("%d changes seen, %d of them sent, %d are in Kafka", len(l.Seen), len(l.Sent), l.Consumer.Changes)
	}
	held := 0
	for _, d := range l.Seen {
		if d > pause/2 {
			held++
		}
	}
	// Half of the pause's events have waited for half of it or longer, and most
	// of them cause a change.
	if least := int(rate * pause.Seconds() / 4); held < least {
		t.Errorf("%d changes waited for more than %v, want %d at least", held, pause/2, least)
	}
}

func TestProcessCPUGrows(t *testing.T) {
	before := processCPU(os.Getpid())
	if before < 0 {
		t.Skip("no /proc here")
	}
	for ownCPU() < before+50*time.Millisecond {
	}
	if after := processCPU(os.Getpid()); after < before+40*time.Millisecond || after > before+10*time.Second {
		t.Errorf("%v after %v", after, before)
	}
	if now, peak := memory(); now <= 0 || peak < now/2 {
		t.Errorf("memory %d, peak %d", now, peak)
	}
}
