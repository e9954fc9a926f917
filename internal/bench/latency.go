package bench

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/tierstream/tierstream/internal/event"
)

// warmUp is how long events flow before those that are measured: until the
// broker has compiled what it runs.
const warmUp = 10 * time.Second

// latencyLinger is how long the producer of the latency run waits for more
// records before it sends a batch. It is part of what is measured.
const latencyLinger = 5 * time.Millisecond

// Latency is how long tier changes take at a steady rate of events.
//
// The load is an open loop: event n is due at begin + n/Rate, whatever happens,
// and its latency counts from then, not from when it could be sent. So a pause
// of anything, of the producer too, is in the latency of every event that it
// held up (no coordinated omission).
type Latency struct {
	Rate     float64 // events per second
	WarmUp   time.Duration
	Measured time.Duration

	// Sent is until Kafka acknowledged the event, by each event that caused a
	// change. Seen is until a consumer that reads committed had the change.
	// Both in order of size, without those due in the warm-up.
	Sent, Seen []time.Duration
	caused     []int64 // the events of Seen

	Consumer *Result // what the consumer took, and what was verified of it
}

func (l *Latency) events() int64 { return int64(l.Rate * (l.WarmUp + l.Measured).Seconds()) }

// Quantile is the least of sorted times that a share q of them does not exceed
// (nearest rank); 0 when there are none.
func Quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// latency runs the consumer in a process of its own, with its default settings,
// while events come in at the given rate.
func (s *Suite) latency(ctx context.Context, say func(string, ...any)) (_ *Latency, err error) {
	sv, err := startServices(ctx, s.Partitions)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, sv.stop()) }()
	l := &Latency{Rate: s.LatencyRate, WarmUp: warmUp, Measured: s.LatencyFor}
	t := sv.task(s)
	t.Loop, t.Namespace, t.Events = Full, "bench-latency", l.events()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		l.Consumer, err = s.child(ctx, t)
		return err
	})
	g.Go(func() error { return l.measure(ctx, t, s.Customers) })
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("measuring latency: %w", err)
	}
	say("%-14s p50 %v, p99 %v of %d changes", "latency", millis(Quantile(l.Seen, .5)), millis(Quantile(l.Seen, .99)), len(l.Seen))
	return l, nil
}

// measure sends the events and reads the changes until the journal says that
// all events are applied and published, and the changes are read to their end.
func (l *Latency) measure(ctx context.Context, t Task, customers int) error {
	w := &work{Task: t, kafka: []kgo.Opt{kgo.SeedBrokers(t.Brokers), kgo.MetadataMinAge(50 * time.Millisecond)}}
	watch, err := w.newWatcher()
	if err != nil {
		return err
	}
	defer watch.client.Close()
	changes, err := w.client(kgo.ConsumeTopics(w.topics().Changes), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return err
	}
	defer changes.Close()
	if err := w.running(ctx, kadm.NewClient(changes)); err != nil {
		return err
	}

	due := make([]atomic.Int64, l.events()+1) // when event n is due, and when it was acknowledged; Unix ns
	acked := make([]atomic.Int64, l.events()+1)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return watch.run(ctx) })
	g.Go(func() error { return l.send(ctx, t.Brokers, customers, due, acked) })

	reading, done := context.WithCancel(ctx)
	defer done()
	g.Go(func() error {
		// What is committed by now is read within a moment, and then no more comes.
		select {
		case <-ctx.Done():
			return nil
		case <-watch.complete:
		}
		defer done()
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
		return nil
	})
	g.Go(func() error { return l.read(reading, changes, due) })
	if err := g.Wait(); err != nil {
		return err
	}
	if len(l.Seen) == 0 {
		return errors.New("no change was seen")
	}
	for _, n := range l.caused {
		l.Sent = append(l.Sent, time.Duration(acked[n].Load()-due[n].Load()))
	}
	slices.SortFunc(l.Sent, cmp.Compare)
	slices.SortFunc(l.Seen, cmp.Compare)
	return nil
}

// running waits until every partition has written its genesis: its owner runs.
func (w *work) running(ctx context.Context, adm *kadm.Client) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		ends, err := adm.ListCommittedOffsets(ctx, w.topics().Journal)
		n := int32(0)
		ends.Each(func(o kadm.ListedOffset) {
			if o.Err == nil && o.Offset > 0 {
				n++
			}
		})
		if err == nil && n == w.Partitions {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the consumer: %d of %d partitions run: %w", n, w.Partitions, errors.Join(ctx.Err(), err))
		case <-look.C:
		}
	}
}

// send sends every event when it is due, or as soon after as it can.
func (l *Latency) send(ctx context.Context, brokers string, customers int, due, acked []atomic.Int64) error {
	cl, err := loader(brokers, kgo.ProducerLinger(latencyLinger))
	if err != nil {
		return err
	}
	defer cl.Close()
	var failed atomic.Pointer[error]
	span := time.Duration(float64(l.events()) / l.Rate * float64(time.Second))
	begin := time.Now()
	b := Backlog{Events: l.events(), Customers: customers, End: begin.Add(span), Span: span}
	n := int64(0)
	for topic, e := range b.All() {
		n++
		at := begin.Add(time.Duration(float64(n-1) / l.Rate * float64(time.Second)))
		due[n].Store(at.UnixNano())
		if wait := time.Until(at); wait > 0 {
			time.Sleep(wait)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := record(topic, e)
		if err != nil {
			return err
		}
		mine := n
		cl.Produce(ctx, r, func(r *kgo.Record, err error) {
			if err != nil {
				err = fmt.Errorf("sending to %s: %w", r.Topic, err)
				failed.CompareAndSwap(nil, &err)
			}
			acked[mine].Store(time.Now().UnixNano())
		})
	}
	if err := cl.Flush(ctx); err != nil {
		return err
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// read takes the time of every change until ctx ends.
func (l *Latency) read(ctx context.Context, cl *kgo.Client, due []atomic.Int64) error {
	for {
		fs := cl.PollFetches(ctx)
		now := time.Now().UnixNano()
		if ctx.Err() != nil {
			return nil
		}
		if err := fetchErrors(ctx, fs); err != nil {
			return err
		}
		for it := fs.RecordIter(); !it.Done(); {
			n, err := causedBy(it.Next().Value)
			if err != nil {
				return fmt.Errorf("reading a change: %w", err)
			}
			if at := due[n].Load(); n > 0 && at >= due[1].Load()+int64(l.WarmUp) {
				l.Seen, l.caused = append(l.Seen, time.Duration(now-at)), append(l.caused, n)
			}
		}
	}
}

// causedBy is the number of the event that caused a change; 0 when it was time.
func causedBy(change []byte) (n int64, err error) {
	var c struct {
		Cause struct {
			Event string `json:"event_id"`
		} `json:"cause"`
	}
	if err := json.Unmarshal(change, &c); err != nil || c.Cause.Event == "" {
		return 0, err
	}
	n, err = strconv.ParseInt(c.Cause.Event[1:], 10, 64)
	return n - firstID, err
}

// record is an event as it is sent: CloudEvents in binary mode with JSON data.
func record(topic int, e *event.Event) (*kgo.Record, error) {
	value, headers, err := event.Encode(e, event.BinaryJSON)
	if err != nil {
		return nil, fmt.Errorf("encoding event %s: %w", e.ID, err)
	}
	r := &kgo.Record{Topic: inputs[topic], Key: []byte(e.Customer), Value: value, Headers: make([]kgo.RecordHeader, len(headers))}
	for i, h := range headers {
		r.Headers[i] = kgo.RecordHeader(h)
	}
	return r, nil
}
