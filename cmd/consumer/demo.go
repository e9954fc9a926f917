package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/tierstream/tierstream/internal/contract"
	"github.com/tierstream/tierstream/internal/embedded"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/sim"
	"github.com/tierstream/tierstream/internal/sim/produce"
	"github.com/tierstream/tierstream/internal/stream"
)

// story is what the simulator must remember to go on with the same customers
// after a restart.
type story struct {
	Seed      uint64    `json:"seed"`
	Start     time.Time `json:"start"`
	From      time.Time `json:"from"`
	Customers int       `json:"customers"`
	Rate      float64   `json:"rate"`
}

// history is how far back the embedded simulator begins.
const history = 400 * 24 * time.Hour

func openStory(dir string, f *flags, now time.Time) (story, error) {
	path := filepath.Join(dir, "simulator.json")
	var s story
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		if err := json.Unmarshal(b, &s); err != nil {
			return s, fmt.Errorf("reading %s: %w", path, err)
		}
		return s, nil
	case !errors.Is(err, os.ErrNotExist):
		return s, fmt.Errorf("reading %s: %w", path, err)
	}
	from := now.UTC().Truncate(time.Second)
	s = story{Seed: 1, Start: from.Add(-history), From: from, Customers: f.Customers, Rate: f.Simulate}
	b, err = json.MarshalIndent(s, "", "  ")
	if err != nil {
		return s, err
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return s, fmt.Errorf("keeping the simulator's story: %w", err)
	}
	return s, nil
}

// demo runs the simulator and tells what is happening.
func demo(ctx context.Context, f *flags, sv *embedded.Services, kafka []kgo.Opt, p *stream.Processor, listen string, w io.Writer) error {
	fmt.Fprintf(w, `tierstream, embedded: Kafka %s in this process, Redis %s (%s)
  %s
  data folder  %s    metrics  http://%s/metrics    ready  http://%s/readyz
  try, in another terminal:
    go run ./cmd/tierctl send purchase --customer me --amount 49.90
    go run ./cmd/tierctl customer me

`, sv.Brokers[0], sv.Redis, sv.RedisKind, sv.Durability, f.DataDir, listen, listen)

	g, ctx := errgroup.WithContext(ctx)
	if f.Simulate > 0 {
		g.Go(func() error { return simulate(ctx, f, kafka) })
	}
	g.Go(func() error { return tell(ctx, f, kafka, p, w) })
	return g.Wait()
}

func simulate(ctx context.Context, f *flags, kafka []kgo.Opt) error {
	rules, err := f.rules()
	if err != nil {
		return err
	}
	s, err := openStory(f.DataDir, f, time.Now())
	if err != nil {
		return err
	}
	rule, err := event.ParsePartitioner(f.Partitioner)
	if err != nil {
		return err
	}
	part, err := produce.Partitioner(rule)
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(append(kafka[:len(kafka):len(kafka)], kgo.RecordPartitioner(part), kgo.ProducerLinger(5*time.Millisecond))...)
	if err != nil {
		return fmt.Errorf("opening the simulator's producer: %w", err)
	}
	defer cl.Close()
	// Going on after a restart: what is in the log already is left out.
	until, err := newestInLog(ctx, kafka, f.Topics)
	if err != nil {
		return err
	}
	c := sim.DefaultConfig()
	c.Seed, c.Start, c.Customers, c.Span = s.Seed, s.Start, float64(s.Customers), history
	c.Currency, c.TypicalOrder = rules.Model.Currency(), rules.Model.TypicalOrder()
	c.BadRate = 0.002
	topics := produce.Topics{}
	for i := range topics {
		topics[i] = f.Topics[min(i, len(f.Topics)-1)]
	}
	return produce.RunLive(ctx, produce.LiveConfig{
		Client: cl, Sim: c, From: s.From, LiveRate: s.Rate, CatchUpRate: 4000,
		Topics: topics, SkipUntil: until,
	})
}

// newestInLog is the newest event time that stands at the end of any input
// partition; zero when there is none.
func newestInLog(ctx context.Context, kafka []kgo.Opt, topics []string) (time.Time, error) {
	var newest time.Time
	err := lastRecords(ctx, kafka, topics, func(r *kgo.Record) {
		for _, h := range r.Headers {
			if h.Key != "ce_time" {
				continue
			}
			if t, err := time.Parse(time.RFC3339, string(h.Value)); err == nil && t.After(newest) && !t.After(r.Timestamp.Add(time.Minute)) {
				newest = t
			}
		}
	})
	return newest, err
}

// tell prints tier changes as they come, not more than a reader can follow,
// and once in a while how it goes.
func tell(ctx context.Context, f *flags, kafka []kgo.Opt, p *stream.Processor, w io.Writer) error {
	cl, err := kgo.NewClient(append(kafka[:len(kafka):len(kafka)],
		kgo.ConsumeTopics(f.Changes), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()), kgo.FetchMaxWait(200*time.Millisecond))...)
	if err != nil {
		return fmt.Errorf("reading tier changes: %w", err)
	}
	defer cl.CloseAllowingRebalance()
	const perSecond = 4
	began, last := time.Now(), time.Now()
	var before stream.Totals
	shown, changes := 0, 0
	for ctx.Err() == nil {
		c, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		fs := cl.PollFetches(c)
		cancel()
		fs.EachRecord(func(r *kgo.Record) {
			changes++
			if shown >= perSecond {
				return
			}
			shown++
			fmt.Fprintln(w, changeLine(r))
		})
		if d := time.Since(last); d >= time.Second {
			t := p.Totals()
			first := before.Read == 0 && t.Read > 0
			if before.Running < t.Running {
				before, last = t, time.Now() // what was read before this start is no rate
				continue
			}
			if n := int(time.Since(began).Seconds()); first || n%5 == 0 || n < 4 {
				late := ""
				if t.Watermark > 0 && time.Since(time.UnixMilli(t.Watermark)) > time.Hour {
					late = ", catching up: event time " + time.UnixMilli(t.Watermark).UTC().Format("2006-01-02")
				}
				fmt.Fprintf(w, "-- %s  %.0f events/s, %d read, %d tier changes, %d dead letters, %d of %d partitions running%s\n",
					time.Now().Format("15:04:05"), float64(t.Read-before.Read)/d.Seconds(), t.Read, t.Changes, t.DeadLetter, t.Running, f.Partitions, late)
			}
			for n, err := range p.Stopped() {
				fmt.Fprintf(w, "!! partition %d has stopped: %v\n", n, err)
			}
			before, last, shown = t, time.Now(), 0
		}
	}
	return nil
}

// changeLine is one tier change for a person.
func changeLine(r *kgo.Record) string {
	mediaType := ""
	for _, h := range r.Headers {
		if h.Key == "content-type" {
			mediaType = string(h.Value)
		}
	}
	c, err := contract.ReadChange(mediaType, r.Value)
	if err != nil {
		return err.Error()
	}
	return c.Line()
}

// lastRecords calls fn with the last records of every partition.
func lastRecords(ctx context.Context, kafka []kgo.Opt, topics []string, fn func(*kgo.Record)) error {
	const tail = 20
	cl, err := kgo.NewClient(append(kafka[:len(kafka):len(kafka)],
		kgo.ConsumeTopics(topics...), kgo.FetchMaxWait(200*time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd().Relative(-tail)))...)
	if err != nil {
		return fmt.Errorf("reading the ends of the inputs: %w", err)
	}
	defer cl.CloseAllowingRebalance()
	for quiet := 0; quiet < 2; {
		c, cancel := context.WithTimeout(ctx, 400*time.Millisecond)
		fs := cl.PollFetches(c)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if fs.NumRecords() == 0 {
			quiet++
			continue
		}
		fs.EachRecord(fn)
	}
	return nil
}
