package produce

import (
	"context"
	"errors"
	"fmt"
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

// A run that is killed leaves a checkpoint of some moment before: the next run
// sends all that it does not cover, and nothing that it does.
func TestKilledRunGoesOnFromItsCheckpoint(t *testing.T) {
	const n = 4_000
	client := broker(t, "murmur2")
	progress := new(Progress)
	ended := make(chan error, 1)
	go func() {
		ended <- Run(t.Context(), RunConfig{
			Client: client, Messages: model(t, func(*sim.Config) {}).All(), Limit: n / 2, Pace: Pace{Rate: 50_000}, Progress: progress,
		})
	}()
	var kept Checkpoint
	for kept.Next < 300 {
		time.Sleep(time.Millisecond) // a poll of the condition
		kept = progress.Checkpoint()
	}
	path := t.TempDir() + "/kept.json"
	if err := kept.Save(path); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	after, err := LoadCheckpoint(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), RunConfig{
		Client: client, Messages: model(t, func(*sim.Config) {}).All(), Limit: n - after.Next, After: after,
	}); err != nil {
		t.Fatal(err)
	}
	sent := map[string]int{}
	for _, r := range readBack(t, client, n/2+n-int(after.Next)) {
		sent[header(r, "ce_id")]++
	}
	g := model(t, func(*sim.Config) {})
	for i := range int64(n) {
		m, _ := g.Next()
		want := 1
		if i >= after.Next && i < n/2 {
			want = 2 // was under way, or sent after the checkpoint was taken
		}
		if got := sent[m.Event.ID]; got != want {
			t.Fatalf("message %d was sent %d times, want %d; the checkpoint covers %d", i, got, want, after.Next)
		}
	}
}

func TestPrefixWaitsForTheGap(t *testing.T) {
	p := new(prefix[string])
	a, b, c := p.add("a"), p.add("b"), p.add("c")
	c()
	if n, _ := p.reached(); n != 0 {
		t.Errorf("%d are acknowledged without a gap, want 0", n)
	}
	a()
	if n, last := p.reached(); n != 1 || last != "a" {
		t.Errorf("got %d %s, want 1 a", n, last)
	}
	d := p.add("d")
	b()
	if n, last := p.reached(); n != 3 || last != "c" {
		t.Errorf("got %d %s, want 3 c", n, last)
	}
	d()
	if n, last := p.reached(); n != 4 || last != "d" {
		t.Errorf("got %d %s, want 4 d", n, last)
	}
}

// Partitions are merged by record timestamp, however they are fetched.
func TestCopyMergesByTimestamp(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "a", "b"), kfake.SeedTopics(1, "to"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	from := []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}
	filling, err := kgo.NewClient(append(from, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(filling.Close)
	begin := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	const n = 3 * fill
	var records []*kgo.Record
	for i := range n {
		r := &kgo.Record{Topic: "a", Timestamp: begin.Add(time.Duration(i) * time.Millisecond), Value: fmt.Appendf(nil, "%06d", i)}
		if i > 2*fill { // before that, one partition has more than is held of it
			r.Topic, r.Partition = []string{"a", "b"}[i%2], int32(i/2%2)
		}
		records = append(records, r)
	}
	if err := filling.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(append(from, kgo.ConsumeTopics("to"))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	progress := new(Progress)
	// 15 seconds of record timestamps in at least a tenth of one.
	began := time.Now()
	if err := Copy(t.Context(), CopyConfig{
		From: from, To: client, Topics: map[string]string{"a": "to", "b": "to"}, KeepTimestamps: true,
		Pace: Pace{Speed: 150}, Progress: progress,
	}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < n*time.Millisecond/150 {
		t.Errorf("copied in %s: faster than the speed allows", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for i := 0; i < n; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		for _, r := range fetches.Records() {
			if want := records[i]; string(r.Value) != string(want.Value) || !r.Timestamp.Equal(want.Timestamp) {
				t.Fatalf("record %d is %s of %s, want %s of %s", i, r.Value, r.Timestamp, want.Value, want.Timestamp)
			}
			i++
		}
	}
	c := progress.Checkpoint()
	if c.Offsets["a"][0]+c.Offsets["a"][1]+c.Offsets["b"][0]+c.Offsets["b"][1] != n {
		t.Errorf("the checkpoint covers %v, want all %d", c.Offsets, n)
	}

	// Going on where the source no longer, or not yet, reaches is refused.
	c.Offsets["b"][1] += 7
	err = Copy(t.Context(), CopyConfig{From: from, To: client, Topics: map[string]string{"b": "to"}, After: c})
	if err == nil || !strings.Contains(err.Error(), "b/1: going on at offset") {
		t.Errorf("got %v", err)
	}
}

// A copy that follows takes what comes after it began.
func TestCopyFollows(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "a"), kfake.SeedTopics(1, "to"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	from := []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}
	client, err := kgo.NewClient(append(from, kgo.ConsumeTopics("to"))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Copy(ctx, CopyConfig{From: from, To: client, Topics: map[string]string{"a": "to"}, Follow: true})
	}()
	for _, value := range []string{"one", "two"} { // the other partition stays empty
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "a", Key: []byte("k"), Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		reading, stop := context.WithTimeout(t.Context(), 20*time.Second)
		fetches := client.PollFetches(reading)
		stop()
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		if r := fetches.Records()[0]; string(r.Value) != value || string(r.Key) != "k" {
			t.Errorf("got %s of %s, want %s", r.Value, r.Key, value)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("a cancelled copy ended with %v", err)
	}
}
