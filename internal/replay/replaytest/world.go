// Package replaytest is a whole tierstream in this process, Kafka and Redis
// included, for tests of what is read afterwards: replays and checks.
package replaytest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	"github.com/tierstream/tierstream/internal/stream"
)

// Partitions is how many a world has.
const Partitions = 3

// World is one namespace, "live", on kfake and miniredis.
type World struct {
	t       testing.TB
	Brokers []string
	Mini    *miniredis.Miniredis
	Redis   redis.UniversalClient
	Config  stream.Config
	Client  *kgo.Client // produces, to the partition a record names
	Admin   *kadm.Client
	Sent    int64 // records in the inputs
}

// Rules are the rules of a world.
func Rules(clock fold.ClockSource) *fold.Rules {
	m := scoring.Default()
	p := customer.DefaultPolicy(m.Currency())
	p.Grace = 30 * 24 * time.Hour
	return &fold.Rules{
		Topics: []string{"purchases", "complaints", "referrals"}, Partitioner: "murmur2", Clock: clock,
		Limits: event.Limits{}.WithDefaults(), Policy: p, Model: m,
	}
}

// New starts Kafka and Redis and creates the topics. No consumer runs yet.
func New(t testing.TB, clock fold.ClockSource) *World {
	t.Helper()
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}), kfake.GroupMinSessionTimeout(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	w := &World{t: t, Brokers: k.ListenAddrs(), Mini: miniredis.RunT(t)}
	if w.Redis, err = state.Open(w.Mini.Addr(), ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Redis.Close() })
	rules := Rules(clock)
	w.Config = stream.Config{
		Namespace: "live", Topics: stream.DefaultTopics("live", rules.Topics), Rules: rules, Engine: "test",
		Lease: 3 * time.Second, BatchRecords: 60, Kafka: []kgo.Opt{kgo.SeedBrokers(w.Brokers...), kgo.MetadataMinAge(50 * time.Millisecond)},
		Log: slog.New(slog.DiscardHandler),
	}
	w.Config.Store = func(p int32) stream.Store { return w.Store(p) }
	if w.Client, err = kgo.NewClient(append(w.Config.Kafka[:2:2], kgo.RecordPartitioner(kgo.ManualPartitioner()))...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Client.Close)
	w.Admin = kadm.NewClient(w.Client)
	if err := stream.CreateTopics(t.Context(), w.Client, w.Config.Topics, Partitions, 1, nil); err != nil {
		t.Fatal(err)
	}
	return w
}

// Store is a partition's state.
func (w *World) Store(p int32) *state.Store {
	return state.NewStore(w.Redis, w.Config.Namespace, p, 3*time.Second)
}

// Start runs a consumer until stop is called or the test ends.
func (w *World) Start() (stop func()) {
	w.t.Helper()
	p, err := stream.New(w.Config)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("consumer: %v", err)
		}
	}
	w.t.Cleanup(stop)
	return stop
}

// Send puts records into the inputs, from the from-th to the to-th that the
// simulator makes of a seed, with the simulator's times as their timestamps.
func (w *World) Send(seed uint64, from, to int, bad float64) {
	w.t.Helper()
	c := sim.DefaultConfig()
	c.Seed, c.Customers, c.Span, c.BadRate = seed, 200, 300*24*time.Hour, bad
	c.Start = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	c.Currency = w.Config.Rules.Model.Currency()
	g, err := sim.New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	rule, err := event.ParsePartitioner(w.Config.Rules.Partitioner)
	if err != nil {
		w.t.Fatal(err)
	}
	topics := produce.Topics{w.Config.Topics.Inputs[0], w.Config.Topics.Inputs[1], w.Config.Topics.Inputs[2]}
	var rs []*kgo.Record
	n := 0
	for m := range g.All() {
		if n++; n <= from {
			continue
		}
		if n > to {
			break
		}
		r, err := produce.Record(&m, topics, event.Formats[n%len(event.Formats)])
		if err != nil {
			w.t.Fatal(err)
		}
		r.Timestamp = time.UnixMilli(m.At)
		r.Partition = rule.Partition(r.Key, Partitions)
		rs = append(rs, r)
	}
	w.Produce(rs...)
	w.Sent += int64(len(rs))
}

// SendEvent puts one event into an input, with its time as the record's
// timestamp, and says to which partition.
func (w *World) SendEvent(topic int, ev event.Event) int32 {
	w.t.Helper()
	rule, err := event.ParsePartitioner(w.Config.Rules.Partitioner)
	if err != nil {
		w.t.Fatal(err)
	}
	ev.Source = "test"
	v, hs, err := event.Encode(&ev, event.BinaryJSON)
	if err != nil {
		w.t.Fatal(err)
	}
	r := &kgo.Record{Topic: w.Config.Topics.Inputs[topic], Key: []byte(ev.Customer), Value: v, Timestamp: time.UnixMilli(ev.Time)}
	for _, h := range hs {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	r.Partition = rule.Partition(r.Key, Partitions)
	w.Produce(r)
	w.Sent++
	return r.Partition
}

// Produce writes records to the partitions they name, outside transactions.
func (w *World) Produce(rs ...*kgo.Record) {
	w.t.Helper()
	if err := w.Client.ProduceSync(w.t.Context(), rs...).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

// Settle waits until everything sent is applied and published, and nobody is
// due any more.
func (w *World) Settle() {
	w.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(60 * time.Second)
	for {
		ok, saw := w.settled()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("waiting for everything to be applied and published: %s", saw)
		}
	}
}

func (w *World) settled() (bool, string) {
	ctx := w.t.Context()
	var read int64
	for p := range int32(Partitions) {
		f, err := w.Store(p).Fence(ctx)
		if err != nil || f == nil || f.Loading {
			return false, fmt.Sprintf("partition %d: %+v %v", p, f, err)
		}
		read += f.State.Read
		if w.Config.Rules.Clock == fold.ClockEvents {
			due, err := w.Redis.ZCount(ctx, state.PartitionKeys(w.Config.Namespace, p).Due(f.Gen), "-inf", fmt.Sprint(f.State.Watermark)).Result()
			if err != nil || due > 0 {
				return false, fmt.Sprintf("partition %d: %d customers are due, %v", p, due, err)
			}
		}
		rs := w.Read(w.Config.Topics.Journal, p)
		if len(rs) == 0 {
			return false, fmt.Sprintf("partition %d: no journal", p)
		}
		last, err := protocol.DecodeRecord(rs[len(rs)-1].Value)
		if err != nil || last.Seq != f.Seq || last.Chain != f.Chain {
			return false, fmt.Sprintf("partition %d: applied %d, published %d, %v", p, f.Seq, last.Seq, err)
		}
	}
	return read == w.Sent, fmt.Sprintf("%d of %d read", read, w.Sent)
}

// Read returns the committed records of one partition.
func (w *World) Read(topic string, p int32) (rs []*kgo.Record) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	ends, err := w.Admin.ListCommittedOffsets(ctx, topic)
	if err != nil {
		w.t.Fatal(err)
	}
	end, ok := ends.Lookup(topic, p)
	if !ok || end.Err != nil {
		w.t.Fatalf("%s/%d: %v", topic, p, end.Err)
	}
	if end.Offset == 0 {
		return nil
	}
	cl, err := kgo.NewClient(append(w.Config.Kafka[:2:2],
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {p: kgo.NewOffset().At(0)}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.FetchMaxWait(100*time.Millisecond))...)
	if err != nil {
		w.t.Fatal(err)
	}
	defer cl.CloseAllowingRebalance()
	for position := int64(0); position < end.Offset; {
		fs := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			w.t.Fatalf("reading %s/%d: at %d of %d: %v", topic, p, position, end.Offset, err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			if position = r.Offset + 1; !r.Attrs.IsControl() {
				rs = append(rs, r)
			}
		})
	}
	return rs
}

// Dump is everything in Redis, by key, but for the leases' times.
func (w *World) Dump() map[string]any {
	w.t.Helper()
	ctx := w.t.Context()
	keys, err := w.Redis.Keys(ctx, "*").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	all := map[string]any{}
	for _, k := range keys {
		switch kind := w.Redis.Type(ctx, k).Val(); kind {
		case "string":
			all[k] = w.Redis.Get(ctx, k).Val()
		case "hash":
			m := w.Redis.HGetAll(ctx, k).Val()
			delete(m, "lease")
			all[k] = m
		case "zset":
			all[k] = w.Redis.ZRangeWithScores(ctx, k, 0, -1).Val()
		case "set":
			all[k] = w.Redis.SMembers(ctx, k).Val()
		default:
			w.t.Fatalf("%s is a %s", k, kind)
		}
	}
	return all
}

// KeepRedis remembers what Redis holds; restore brings it back.
func (w *World) KeepRedis() (restore func()) {
	w.t.Helper()
	all := w.Dump()
	return func() {
		w.t.Helper()
		ctx := w.t.Context()
		w.Mini.FlushAll()
		for k, v := range all {
			var err error
			switch v := v.(type) {
			case string:
				err = w.Redis.Set(ctx, k, v, 0).Err()
			case map[string]string:
				err = w.Redis.HSet(ctx, k, v).Err()
			case []string:
				for _, m := range v {
					err = errors.Join(err, w.Redis.SAdd(ctx, k, m).Err())
				}
			case []redis.Z:
				err = w.Redis.ZAdd(ctx, k, v...).Err()
			}
			if err != nil {
				w.t.Fatal(err)
			}
		}
	}
}
