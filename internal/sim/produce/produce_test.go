package produce

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/sim"
)

const partitions = 4

// broker starts an in-process Kafka with the three topics and gives a client of
// it that partitions by the rule.
func broker(t *testing.T, rule string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, DefaultTopics[:]...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	named, err := event.ParsePartitioner(rule)
	if err != nil {
		t.Fatal(err)
	}
	partitioner, err := Partitioner(named)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(cluster.ListenAddrs()...),
		kgo.RecordPartitioner(partitioner),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// readBack reads n records of all three topics.
func readBack(t *testing.T, client *kgo.Client, n int) []*kgo.Record {
	t.Helper()
	client.AddConsumeTopics(DefaultTopics[:]...)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var records []*kgo.Record
	for len(records) < n {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("reading back, %d of %d records: %v", len(records), n, err)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

func model(t *testing.T, change func(*sim.Config)) *sim.Generator {
	t.Helper()
	c := sim.DefaultConfig()
	c.Customers, c.Span = 500, 30*24*time.Hour
	change(&c)
	g, err := sim.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestRunSendsEveryMessageOnceAndInOrder(t *testing.T) {
	for _, rule := range []string{"murmur2", "crc32", "fnv1a"} {
		t.Run(rule, func(t *testing.T) {
			const n = 3_000
			bad := func(c *sim.Config) { c.BadRate = 0.1 }
			client := broker(t, rule)
			named, err := event.ParsePartitioner(rule)
			if err != nil {
				t.Fatal(err)
			}
			before := time.Now()
			progress := new(Progress)
			if err := Run(t.Context(), RunConfig{
				Client:   client,
				Messages: model(t, bad).All(),
				Formats:  event.Formats[:],
				Limit:    n,
				Progress: progress,
			}); err != nil {
				t.Fatal(err)
			}
			if s := progress.Stats(); s.Sent != n || s.Acked != n || s.Failed != 0 {
				t.Fatalf("progress %+v, want %d sent and acknowledged", s, n)
			}

			// What should lie in each topic, by key, in order.
			type lane struct{ topic, key string }
			want := map[lane][]string{}
			g := model(t, bad)
			for i := range n {
				m, _ := g.Next()
				r, err := Record(&m, DefaultTopics, event.Formats[i%len(event.Formats)])
				if err != nil {
					t.Fatal(err)
				}
				l := lane{r.Topic, string(r.Key)}
				want[l] = append(want[l], string(r.Value))
			}
			for _, r := range readBack(t, client, n) {
				l := lane{r.Topic, string(r.Key)}
				if len(want[l]) == 0 || want[l][0] != string(r.Value) {
					t.Fatalf("%s of %s: got %q, want first of %q", r.Topic, r.Key, r.Value, want[l])
				}
				want[l] = want[l][1:]
				if p := named.Partition(r.Key, partitions); r.Partition != p {
					t.Fatalf("key %s lies in partition %d, the rule says %d", r.Key, r.Partition, p)
				}
				if r.Timestamp.Before(before.Add(-time.Second)) {
					t.Fatalf("record timestamp %s is not the time of sending", r.Timestamp)
				}
			}
			for l, left := range want {
				if len(left) > 0 {
					t.Errorf("%d records of %v are missing", len(left), l)
				}
			}
		})
	}
}

func TestRunGoesOnWhereAnEarlierOneStopped(t *testing.T) {
	plain := func(*sim.Config) {}
	var stop time.Time
	var rest []string
	g := model(t, plain)
	for i := range 600 {
		m, _ := g.Next()
		if i == 300 {
			stop = time.UnixMilli(m.At)
		}
		if i > 300 && m.At > stop.UnixMilli() {
			rest = append(rest, m.Event.ID)
		}
	}
	client := broker(t, "murmur2")
	if err := Run(t.Context(), RunConfig{
		Client: client, Messages: model(t, plain).All(), SkipUntil: stop, Limit: int64(len(rest)),
	}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range readBack(t, client, len(rest)) {
		got = append(got, header(r, "ce_id"))
	}
	slices.Sort(got)
	slices.Sort(rest)
	if !slices.Equal(got, rest) {
		t.Errorf("got %d messages from %s, want %d from %s", len(got), got[0], len(rest), rest[0])
	}
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

func TestRunReportsTheFirstFailure(t *testing.T) {
	client := broker(t, "murmur2", kgo.UnknownTopicRetries(0))
	progress := new(Progress)
	err := Run(t.Context(), RunConfig{
		Client:   client,
		Messages: model(t, func(*sim.Config) {}).All(),
		Topics:   Topics{"nowhere", "nowhere", "nowhere"},
		// Slow, so that the failure has to break a wait.
		Pace:     Pace{Rate: 0.001},
		Progress: progress,
	})
	if err == nil || !strings.HasPrefix(err.Error(), "producing to nowhere: ") {
		t.Fatalf("got %v", err)
	}
	if s := progress.Stats(); s.Failed == 0 || s.Acked != 0 {
		t.Errorf("progress %+v", s)
	}
}

func TestRunEndsCleanlyWhenCancelled(t *testing.T) {
	client := broker(t, "murmur2")
	ctx, cancel := context.WithCancel(t.Context())
	progress := new(Progress)
	g := model(t, func(*sim.Config) {})
	n := 0
	err := Run(ctx, RunConfig{
		Client: client,
		Messages: func(yield func(sim.Message) bool) {
			for m := range g.All() {
				if n++; n == 500 {
					cancel()
				}
				if !yield(m) {
					return
				}
			}
		},
		Progress: progress,
	})
	if err != nil {
		t.Fatal(err)
	}
	if s := progress.Stats(); s.Acked != 499 || s.Sent != 499 {
		t.Errorf("progress %+v, want 499 sent and acknowledged", s)
	}
}

func TestRunLiveCatchesUpAndNeverRunsAhead(t *testing.T) {
	const n = 4_000
	client := broker(t, "murmur2")
	c := sim.DefaultConfig()
	c.Customers, c.Span = 300, 10*24*time.Hour
	c.Start = time.Now().Add(-10 * 24 * time.Hour)
	progress := new(Progress)
	if err := RunLive(t.Context(), LiveConfig{
		Client: client, Sim: c, LiveRate: 5_000, Limit: n, Progress: progress,
	}); err != nil {
		t.Fatal(err)
	}
	d := event.NewDecoder(event.Limits{MaxSkew: time.Millisecond})
	history, live := 0, 0
	for _, r := range readBack(t, client, n) {
		m := event.Message{Key: r.Key, Value: r.Value, Timestamp: r.Timestamp.UnixMilli()}
		for _, h := range r.Headers {
			m.Headers = append(m.Headers, event.Header{Key: h.Key, Value: h.Value})
		}
		var e event.Event
		if refusal := d.Decode(&m, &e); refusal != nil {
			t.Fatalf("got %v for %s", refusal, r.Value)
		}
		if m.Timestamp-e.Time > time.Hour.Milliseconds() {
			history++
		} else {
			live++
		}
	}
	if history == 0 || live == 0 {
		t.Errorf("%d messages of history, %d live", history, live)
	}
}

func TestPacer(t *testing.T) {
	now := time.UnixMilli(1_000_000_000)
	past := now.UnixMilli() - 1_000_000

	p := newPacer(Pace{Rate: 100})
	for i := range int64(5) {
		if got, want := p.due(now, past), now.Add(time.Duration(i)*10*time.Millisecond); !got.Equal(want) {
			t.Errorf("at 100 a second, message %d is due at %v, want %v", i, got, want)
		}
	}
	// A stall of a minute gives back no more than the burst.
	later := now.Add(time.Minute)
	if got, want := p.due(later, past), later.Add(-burst); !got.Equal(want) {
		t.Errorf("after a stall due at %v, want %v", got, want)
	}

	p = newPacer(Pace{Speed: 60})
	p.due(now, past)
	if got, want := p.due(now, past+120_000), now.Add(2*time.Second); !got.Equal(want) {
		t.Errorf("two minutes on at speed 60 due at %v, want %v", got, want)
	}

	// Nothing is sent before its time, at whatever pace.
	future := now.UnixMilli() + 5_000
	for _, pace := range []Pace{{}, {Rate: 1e6}, {Speed: 1e9}} {
		if got := newPacer(pace).due(now, future); got.UnixMilli() < future {
			t.Errorf("pace %+v: due at %v, before its time", pace, got)
		}
	}
}

func TestExplicitPartitionerIsRefused(t *testing.T) {
	explicit, err := event.ParsePartitioner("explicit")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Partitioner(explicit); err == nil {
		t.Error("the rule without a rule is accepted")
	}
	if err := Run(t.Context(), RunConfig{}); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("no client: got %v", err)
	}
}
