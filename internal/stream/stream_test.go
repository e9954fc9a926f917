package stream

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/scoring"
	"github.com/tierstream/tierstream/internal/sim"
	"github.com/tierstream/tierstream/internal/sim/produce"
	"github.com/tierstream/tierstream/internal/state"
	"github.com/tierstream/tierstream/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const testPartitions = 4

// world is one Kafka, one Redis and the settings of one namespace.
type world struct {
	t       testing.TB
	brokers []string
	rdb     redis.UniversalClient
	flush   func()
	cfg     Config
}

func testRules(topics ...string) *fold.Rules {
	m := scoring.Default()
	policy := customer.DefaultPolicy(m.Currency())
	// Months of simulated traffic pass in a second here, so that a return can
	// reach the log months of event time ahead of its order in another topic.
	// Were it refused, a second delivery would find the order and accept it.
	policy.Grace = 300 * 24 * time.Hour
	return &fold.Rules{
		Topics: topics, Partitioner: "murmur2", Clock: fold.ClockEvents,
		Limits: event.Limits{}.WithDefaults(), Policy: policy, Model: m,
	}
}

// fakeWorld runs on kfake and miniredis, with the production clients.
func fakeWorld(t testing.TB) *world {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}), kfake.GroupMinSessionTimeout(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	m := miniredis.RunT(t)
	return newWorld(t, c.ListenAddrs(), m.Addr(), "live")
}

// realWorld runs on Kafka and Redis.
func realWorld(t testing.TB) *world {
	t.Helper()
	k := testenv.SharedKafka(t)
	r := testenv.Redis(t, testenv.RedisOptions{AppendFsync: "everysec"})
	return newWorld(t, []string{k.Addr()}, r.Addr(), strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(testenv.Prefix(t))))
}

func newWorld(t testing.TB, brokers []string, redisAddr, ns string) *world {
	t.Helper()
	rdb, err := state.Open(redisAddr, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rdb.Close() })
	w := &world{t: t, brokers: brokers, rdb: rdb}
	w.flush = func() {
		if err := rdb.FlushAll(context.Background()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	ns = strings.TrimRight(ns, "-.")
	inputs := []string{ns + "-purchases", ns + "-complaints", ns + "-referrals"}
	topics := DefaultTopics(ns, inputs)
	topics.Changes, topics.DeadLetters = ns+"-changes", ns+"-dead"
	w.cfg = Config{
		Namespace: ns, Topics: topics, Rules: testRules(inputs...), Engine: "test",
		Lease: 3 * time.Second, BatchRecords: 150, Kafka: []kgo.Opt{kgo.SeedBrokers(brokers...), kgo.MetadataMinAge(50 * time.Millisecond)},
		Log: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	w.cfg.Store = func(p int32) Store { return state.NewStore(rdb, ns, p, w.cfg.Lease) }
	cl := w.client()
	if err := CreateTopics(context.Background(), cl, topics, testPartitions, 1, nil); err != nil {
		t.Fatal(err)
	}
	return w
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	if os.Getenv("TIERSTREAM_TEST_LOG") != "" {
		os.Stderr.Write(b)
	}
	return len(b), nil
}

func (w *world) client(opts ...kgo.Opt) *kgo.Client {
	w.t.Helper()
	cl, err := kgo.NewClient(append(append([]kgo.Opt{}, w.cfg.Kafka...), opts...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(cl.CloseAllowingRebalance)
	return cl
}

// instance is one running consumer.
type instance struct {
	p    *Processor
	stop func() error
}

func (w *world) start() *instance {
	w.t.Helper()
	p, err := New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	var once sync.Once
	i := &instance{p: p}
	var result error
	i.stop = func() error {
		once.Do(func() { cancel(); result = <-done })
		return result
	}
	w.t.Cleanup(func() {
		if err := i.stop(); err != nil {
			w.t.Errorf("consumer: %v", err)
		}
	})
	return i
}

// load sends n simulated events and says how many records that were.
func (w *world) load(seed uint64, n int64, bad float64) int64 {
	w.t.Helper()
	c := sim.DefaultConfig()
	c.Seed, c.Customers, c.Span, c.BadRate = seed, 300, 200*24*time.Hour, bad
	c.Start = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	c.Currency = w.cfg.Rules.Model.Currency()
	g, err := sim.New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	// Paced, so that topics do not overtake each other by months of event time.
	return w.send(produce.RunConfig{Messages: g.All(), Limit: n, Formats: event.Formats[:], Pace: produce.Pace{Rate: 2000}})
}

func (w *world) send(rc produce.RunConfig) int64 {
	w.t.Helper()
	rule, err := event.ParsePartitioner("murmur2")
	if err != nil {
		w.t.Fatal(err)
	}
	part, err := produce.Partitioner(rule)
	if err != nil {
		w.t.Fatal(err)
	}
	rc.Client = w.client(kgo.RecordPartitioner(part))
	rc.Topics = produce.Topics{w.cfg.Topics.Inputs[0], w.cfg.Topics.Inputs[1], w.cfg.Topics.Inputs[2]}
	rc.Progress = &produce.Progress{}
	if err := produce.Run(context.Background(), rc); err != nil {
		w.t.Fatal(err)
	}
	return rc.Progress.Stats().Acked
}

func (w *world) store(p int32) *state.Store {
	return state.NewStore(w.rdb, w.cfg.Namespace, p, w.cfg.Lease)
}

// until waits for a condition, and fails with what it last said.
func until(t testing.TB, limit time.Duration, what string, f func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		ok, saw := f()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %s", what, saw)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// settled waits until all n records are applied and published.
func (w *world) settled(n int64) {
	w.t.Helper()
	adm := kadm.NewClient(w.client())
	until(w.t, 60*time.Second, "waiting for everything to be applied and published", func() (bool, string) {
		var read int64
		for p := range int32(testPartitions) {
			f, err := w.store(p).Fence(context.Background())
			if err != nil || f == nil || f.Loading {
				return false, fmt.Sprintf("partition %d: %+v %v", p, f, err)
			}
			read += f.State.Read
			// The last batch moves the events' clock; the sweep that follows it is
			// part of being settled.
			due, err := w.rdb.ZCount(context.Background(), state.PartitionKeys(w.cfg.Namespace, p).Due(f.Gen), "-inf", fmt.Sprint(f.State.Watermark)).Result()
			if err != nil || due > 0 {
				return false, fmt.Sprintf("partition %d: %d customers are due, %v", p, due, err)
			}
			j := &journal{base: w.cfg.Kafka, admin: adm, topic: w.cfg.Topics.Journal, partition: p, log: slog.New(slog.DiscardHandler)}
			k, err := lastJournal(j)
			if err != nil || k.Point != f.Point {
				return false, fmt.Sprintf("partition %d: applied %d, published %d, %v", p, f.Seq, k.Seq, err)
			}
		}
		return read == n, fmt.Sprintf("%d of %d read", read, n)
	})
}

func lastJournal(j *journal) (k protocol.Published, err error) {
	end, err := j.end(context.Background(), time.Second)
	if err != nil {
		return k, err
	}
	first, err := j.start(context.Background())
	if err != nil {
		return k, err
	}
	err = j.each(context.Background(), first, -1, end, func(_ *protocol.Record, at protocol.Published) error { k = at; return nil })
	return k, err
}

// read returns all committed records of a topic, up to its end as of now.
func (w *world) read(topic string) []*kgo.Record {
	w.t.Helper()
	ctx, adm := context.Background(), kadm.NewClient(w.client())
	starts, err := adm.ListStartOffsets(ctx, topic)
	if err != nil {
		w.t.Fatal(err)
	}
	ends, err := adm.ListEndOffsets(ctx, topic)
	if err != nil {
		w.t.Fatal(err)
	}
	ranges := map[int32][2]int64{}
	ends.Each(func(e kadm.ListedOffset) {
		first, _ := starts.Lookup(topic, e.Partition)
		ranges[e.Partition] = [2]int64{first.Offset, e.Offset}
	})
	var out []*kgo.Record
	if err := readRanges(ctx, w.cfg.Kafka, topic, ranges, func(r *kgo.Record) error { out = append(out, r); return nil }); err != nil {
		w.t.Fatal(err)
	}
	return out
}

// change is what a consumer sees of a tier change.
type change struct {
	ID        string
	Customer  string    `json:"customer_id"`
	Sequence  int       `json:"sequence"`
	Previous  *tierName `json:"previous_tier"`
	New       tierName  `json:"new_tier"`
	Effective string    `json:"effective_at"`
	Reason    string    `json:"reason"`
	Text      string    `json:"reason_text"`
	Mode      string    `json:"mode"`
}

type tierName struct{ ID string }

// changes reads tier-changes and checks that they form an unbroken chain per
// customer, in order, no ID twice.
func (w *world) changes() map[string][]change {
	w.t.Helper()
	out := map[string][]change{}
	ids := map[string]bool{}
	for _, r := range w.read(w.cfg.Topics.Changes) {
		var c change
		if err := json.Unmarshal(r.Value, &c); err != nil {
			w.t.Fatalf("tier change %s: %v", r.Value, err)
		}
		for _, h := range r.Headers {
			if h.Key == "ce_id" {
				c.ID = string(h.Value)
			}
		}
		if ids[c.ID] {
			w.t.Errorf("change %s twice", c.ID)
		}
		ids[c.ID] = true
		l := out[c.Customer]
		if c.Sequence != len(l)+1 {
			w.t.Errorf("customer %s: sequence %d after %d", c.Customer, c.Sequence, len(l))
		}
		switch {
		case len(l) == 0 && c.Previous != nil, len(l) > 0 && (c.Previous == nil || c.Previous.ID != l[len(l)-1].New.ID):
			w.t.Errorf("customer %s: change %d does not continue the one before", c.Customer, c.Sequence)
		}
		out[c.Customer] = append(l, c)
	}
	return out
}

// records are all customers' stored records without seq.
func (w *world) records() map[string][]byte {
	w.t.Helper()
	out := map[string][]byte{}
	for p := range int32(testPartitions) {
		_, err := w.store(p).Each(context.Background(), func(id string, v []byte) error {
			out[id] = v
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return out
}

// sameRecords compares but for the seq that wrote them.
func sameRecords(t testing.TB, got, want map[string][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d customers, want %d", len(got), len(want))
	}
	var ids []string
	for id := range want {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	bad := 0
	for _, id := range ids {
		g, wnt := got[id], want[id]
		if len(g) < 11 || !bytes.Equal(g[11:], wnt[11:]) {
			if bad++; bad <= 3 {
				t.Errorf("customer %s:\n got %.400x…\nwant %.400x…", id, g, wnt)
			}
		}
	}
	if bad > 3 {
		t.Errorf("… and %d more", bad-3)
	}
}

// balanced checks that every record read is accounted for, in fences and in
// the journal.
func (w *world) balanced() (counts [event.NumCodes]int64) {
	w.t.Helper()
	for p := range int32(testPartitions) {
		f, err := w.store(p).Fence(context.Background())
		if err != nil {
			w.t.Fatal(err)
		}
		var sum int64
		for i, n := range f.State.Counters {
			counts[i] += n
			if o := event.Code(i).Outcome(); o != event.Warned {
				sum += n
			}
		}
		if sum != f.State.Read {
			w.t.Errorf("partition %d: %d records read, %d accounted for", p, f.State.Read, sum)
		}
	}
	return counts
}

func testMainJob(t *testing.T, w *world) {
	i := w.start()
	n := w.load(1, 3000, 0.05)
	w.settled(n)
	counts := w.balanced()
	if counts[event.Applied] == 0 || counts[event.MissingField] == 0 {
		t.Errorf("counts %v", counts)
	}
	// The last batch moves the events' clock, so a sweep may follow it.
	until(t, 10*time.Second, "comparing dead letters with the counters", func() (bool, string) {
		got := map[string]int64{}
		for _, r := range w.read(w.cfg.Topics.DeadLetters) {
			for _, h := range r.Headers {
				if h.Key == "tierstream-code" {
					got[string(h.Value)]++
				}
			}
		}
		for c, n := range w.balanced() {
			if code := event.Code(c); code.Outcome() == event.DeadLetter && n != got[code.String()] {
				return false, fmt.Sprintf("%s: %d dead letters, counted %d", code, got[code.String()], n)
			}
		}
		return true, ""
	})
	ch := w.changes()
	if len(ch) < 100 {
		t.Errorf("only %d customers have tier changes", len(ch))
	}
	before := w.records()
	if err := i.stop(); err != nil {
		t.Fatal(err)
	}

	// Redis wiped: everything is re-applied silently, and comes out the same.
	w.flush()
	w.start()
	w.settled(n)
	sameRecords(t, w.records(), before)
	after := w.changes()
	if len(after) != len(ch) {
		t.Errorf("%d customers changed after the wipe, %d before", len(after), len(ch))
	}
	for id := range ch {
		if len(after[id]) != len(ch[id]) {
			t.Errorf("customer %s: %d changes after the wipe, %d before", id, len(after[id]), len(ch[id]))
		}
	}

	// The same input again changes nothing.
	digest := w.records()
	m := w.load(1, 3000, 0.05)
	w.settled(n + m)
	sameRecords(t, w.records(), digest)
	if again := w.changes(); len(again) != len(ch) {
		t.Errorf("the same events again gave %d customers with changes, were %d", len(again), len(ch))
	}
	w.balanced()
}

func TestMainJobOnFakes(t *testing.T)        { testMainJob(t, fakeWorld(t)) }
func TestMainJobOnRealServices(t *testing.T) { testMainJob(t, realWorld(t)) }
