//go:build unix

package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/scoring"
	"github.com/tierstream/tierstream/internal/sim"
	"github.com/tierstream/tierstream/internal/sim/produce"
	"github.com/tierstream/tierstream/internal/state"
	"github.com/tierstream/tierstream/internal/stream"
	"github.com/tierstream/tierstream/internal/testenv"
)

// Partitions is how many a world has that asks for no number.
const Partitions = 4

// Lease is the shortest that the command allows; the session is two seconds
// longer, and a killed owner is replaced when it has passed.
const Lease = time.Second

// Config says where a world lives.
type Config struct {
	Brokers []string
	// Redis is the address of a server that [Redis] started, or of a proxy
	// before it; of a cluster those of its nodes, with commas between them.
	Redis   string
	Cluster bool
	// Namespace is made from the test's name when empty.
	Namespace string
	// Inputs are three topics named for the namespace when nil.
	Inputs      []string
	Partitions  int32  // [Partitions] when zero
	Replication int16  // of every topic; 1 when zero
	Model       string // YAML; the default model when empty
}

// World is one namespace on a Kafka and a Redis.
type World struct {
	t         testing.TB
	Config    Config
	Namespace string
	Topics    stream.Topics
	RDB       redis.UniversalClient
	Admin     *kadm.Client
	Client    *kgo.Client // produces to the inputs
	Model     string      // a file
	Sent      int64       // records produced and acknowledged
}

// Redis starts a server with the user as whom the consumers log in, so that
// every line they print can be searched for the password.
func Redis(t testing.TB, options testenv.RedisOptions) *testenv.RedisServer {
	t.Helper()
	acl := filepath.Join(t.TempDir(), "users.acl")
	users := "user default on nopass ~* &* +@all\nuser consumer on >" + Secret + " ~* &* +@all\n"
	if err := os.WriteFile(acl, []byte(users), 0o600); err != nil {
		t.Fatal(err)
	}
	config := map[string]string{"aclfile": acl}
	for k, v := range options.Config {
		config[k] = v
	}
	options.Config = config
	return testenv.Redis(t, options)
}

// New makes a world: its topics and its model file, and no consumer.
func New(t testing.TB, c Config) *World {
	t.Helper()
	if c.Partitions == 0 {
		c.Partitions = Partitions
	}
	if c.Replication == 0 {
		c.Replication = 1
	}
	if c.Namespace == "" {
		c.Namespace = strings.TrimRight(testenv.Prefix(t), "-")
	}
	if c.Inputs == nil {
		c.Inputs = []string{c.Namespace + "-purchases", c.Namespace + "-complaints", c.Namespace + "-referrals"}
	}
	if c.Model == "" {
		c.Model = string(scoring.Default().Canonical())
	}
	w := &World{t: t, Config: c, Namespace: c.Namespace, Model: ModelFile(t, c.Model)}
	var err error
	if w.RDB, err = state.OpenWith(state.Options{Address: c.Redis, Cluster: c.Cluster}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.RDB.Close() })
	w.Topics = stream.DefaultTopics(w.Namespace, c.Inputs)
	w.Topics.Changes, w.Topics.DeadLetters = w.Namespace+"-changes", w.Namespace+"-dead"

	rule, err := event.ParsePartitioner("murmur2")
	if err != nil {
		t.Fatal(err)
	}
	part, err := produce.Partitioner(rule)
	if err != nil {
		t.Fatal(err)
	}
	w.Client = w.Open(kgo.RecordPartitioner(part))
	w.Admin = kadm.NewClient(w.Client)
	if err := stream.CreateTopics(t.Context(), w.Client, w.Topics, c.Partitions, c.Replication, nil); err != nil {
		t.Fatal(err)
	}
	return w
}

// ModelFile is a file with the given text.
func ModelFile(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// Open is a client of the world's Kafka, closed at the test's end.
func (w *World) Open(opts ...kgo.Opt) *kgo.Client {
	w.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(w.Config.Brokers...), kgo.MetadataMinAge(50 * time.Millisecond)}, opts...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(cl.CloseAllowingRebalance)
	return cl
}

// Args are the settings of a consumer of this namespace, with more, which
// replace those of the same name (a list given twice would be one longer list).
//
// Months of simulated traffic pass in seconds here, so that a return can reach
// the log months of event time ahead of its order in another topic: hence the
// grace.
func (w *World) Args(more ...string) []string {
	base := []string{
		"--brokers=" + strings.Join(w.Config.Brokers, ","), "--redis=redis://consumer:" + Secret + "@" + w.Config.Redis,
		"--model=" + w.Model, "--namespace=" + w.Namespace, "--topics=" + strings.Join(w.Topics.Inputs, ","),
		"--changes-topic=" + w.Topics.Changes, "--dead-letters-topic=" + w.Topics.DeadLetters,
		"--listen=127.0.0.1:0", "--lease=" + Lease.String(), "--batch-records=40", "--clock=events", "--grace=9000h",
		"--log-level=debug",
	}
	base = slices.DeleteFunc(base, func(setting string) bool {
		name, _, _ := strings.Cut(setting, "=")
		return slices.ContainsFunc(more, func(m string) bool { return strings.HasPrefix(m, name+"=") })
	})
	return append(base, more...)
}

// Start launches a consumer of this namespace.
func (w *World) Start(more ...string) *Consumer {
	w.t.Helper()
	return Launch(w.t, nil, w.Args(more...)...)
}

// Store is a partition's state.
func (w *World) Store(p int32) *state.Store { return state.NewStore(w.RDB, w.Namespace, p, Lease) }

// Fences are the fences of all partitions, nil where there is none. An error
// is Redis being away.
func (w *World) Fences() ([]*protocol.Fence, error) {
	fs := make([]*protocol.Fence, w.Config.Partitions)
	for p := range fs {
		var err error
		if fs[p], err = w.Store(int32(p)).Fence(context.Background()); err != nil {
			return nil, err
		}
	}
	return fs, nil
}

// Traffic is a generator of believable events, in the order they are sent.
func Traffic(t testing.TB, seed uint64, bad float64) *sim.Generator {
	t.Helper()
	c := sim.DefaultConfig()
	c.Seed, c.Customers, c.Span, c.BadRate = seed, 300, 200*24*time.Hour, bad
	c.Start = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	c.Currency = scoring.Default().Currency()
	g, err := sim.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// Take is the next n messages as records.
func (w *World) Take(g *sim.Generator, n int) []*kgo.Record {
	w.t.Helper()
	topics := produce.Topics{w.Topics.Inputs[0], w.Topics.Inputs[1], w.Topics.Inputs[2]}
	var out []*kgo.Record
	for i := range n {
		m, ok := g.Next()
		if !ok {
			w.t.Fatalf("the generator ends after %d of %d messages", i, n)
		}
		r, err := produce.Record(&m, topics, event.Formats[i%len(event.Formats)])
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

// Send begins to send and returns; wait returns when all is acknowledged.
func (w *World) Send(records []*kgo.Record) (wait func()) {
	w.t.Helper()
	done := make(chan error, 1)
	go func() { done <- w.Client.ProduceSync(context.Background(), records...).FirstErr() }()
	return func() {
		w.t.Helper()
		if err := <-done; err != nil {
			w.t.Fatalf("sending: %v", err)
		}
		w.Sent += int64(len(records))
	}
}

// Settled waits until everything sent is applied and published.
func (w *World) Settled(limit time.Duration) {
	w.t.Helper()
	Until(w.t, limit, "waiting for everything to be applied and published", func() error {
		fs, err := w.Fences()
		if err != nil {
			return err
		}
		var read int64
		for p, f := range fs {
			if f == nil || f.Loading {
				return fmt.Errorf("partition %d is not there", p)
			}
			read += f.State.Read
			// The last batch moves the events' clock; the sweep that follows it is
			// part of being settled.
			due, err := w.RDB.ZCount(context.Background(), state.PartitionKeys(w.Namespace, int32(p)).Due(f.Gen), "-inf", fmt.Sprint(f.State.Watermark)).Result()
			if err != nil {
				return err
			}
			if due > 0 {
				return fmt.Errorf("partition %d: %d customers are due", p, due)
			}
		}
		if read != w.Sent {
			return fmt.Errorf("%d of %d read", read, w.Sent)
		}
		for p, last := range w.Last(w.Topics.Journal) {
			if last == nil {
				return fmt.Errorf("partition %d: the journal is empty", p)
			}
			rec, err := protocol.DecodeRecord(last.Value)
			if err != nil {
				return err
			}
			if at := (protocol.Point{Seq: rec.Seq, Chain: rec.Chain}); at != fs[p].Point {
				return fmt.Errorf("partition %d: applied %d, published %d", p, fs[p].Seq, rec.Seq)
			}
		}
		return nil
	})
}

// Count is how many committed records a topic holds.
func (w *World) Count(topic string) (n int) {
	w.t.Helper()
	for _, records := range w.Read(topic) {
		n += len(records)
	}
	return n
}

// Read returns the committed records of a topic, by partition, up to its ends
// as of the call.
func (w *World) Read(topic string) [][]*kgo.Record {
	w.t.Helper()
	return w.read(topic, func(start, _ int64) int64 { return start })
}

// Last returns the last committed record of each partition of a topic, nil
// where there is none.
func (w *World) Last(topic string) []*kgo.Record {
	w.t.Helper()
	// The last record lies before the marker of its transaction, and before
	// whatever was aborted since.
	for back := int64(64); ; back *= 16 {
		all := w.read(topic, func(start, end int64) int64 { return max(start, end-back) })
		last := make([]*kgo.Record, len(all))
		missing := false
		for p, records := range all {
			if len(records) > 0 {
				last[p] = records[len(records)-1]
			} else {
				missing = true
			}
		}
		if !missing || back > 1<<24 {
			return last
		}
	}
}

// read returns the committed records of each partition from a place between
// its start and its end.
func (w *World) read(topic string, place func(start, end int64) int64) [][]*kgo.Record {
	w.t.Helper()
	const patience = 30 * time.Second // without anything arriving
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	starts, err1 := w.Admin.ListStartOffsets(ctx, topic)
	ends, err2 := w.Admin.ListCommittedOffsets(ctx, topic)
	if err := errors.Join(err1, err2, starts.Error(), ends.Error()); err != nil {
		w.t.Fatalf("reading %s: %v", topic, err)
	}
	out := make([][]*kgo.Record, len(ends[topic]))
	left := map[int32]int64{}
	from := map[int32]kgo.Offset{}
	for p, e := range ends[topic] {
		if s := place(starts[topic][p].Offset, e.Offset); s < e.Offset {
			left[p], from[p] = e.Offset, kgo.NewOffset().At(s)
		}
	}
	if len(left) == 0 {
		return out
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.Config.Brokers...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		w.t.Fatal(err)
	}
	defer cl.CloseAllowingRebalance()
	for len(left) > 0 {
		poll, cancel := context.WithTimeout(context.Background(), patience)
		fs := cl.PollFetches(poll)
		cancel()
		if err := fs.Err(); err != nil {
			w.t.Fatalf("reading %s: %v", topic, err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			end, open := left[r.Partition]
			if !open || r.Offset >= end {
				delete(left, r.Partition)
				return
			}
			if !r.Attrs.IsControl() {
				out[r.Partition] = append(out[r.Partition], r)
			}
			if r.Offset+1 == end {
				delete(left, r.Partition)
			}
		})
	}
	return out
}

// Alter changes a topic's settings; "" is the broker's default.
func (w *World) Alter(topic string, settings map[string]string) {
	w.t.Helper()
	var cs []kadm.AlterConfig
	for k, v := range settings {
		c := kadm.AlterConfig{Op: kadm.SetConfig, Name: k, Value: &v}
		if v == "" {
			c = kadm.AlterConfig{Op: kadm.DeleteConfig, Name: k}
		}
		cs = append(cs, c)
	}
	rs, err := w.Admin.AlterTopicConfigs(context.Background(), cs, topic)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range rs {
		if r.Err != nil {
			w.t.Fatalf("%s: %v %s", topic, r.Err, r.ErrMessage)
		}
	}
}

// Records are the stored records of a partition's customers.
func (w *World) Records(p int32) map[string][]byte {
	w.t.Helper()
	out := map[string][]byte{}
	_, err := w.Store(p).Each(context.Background(), func(id string, v []byte) error {
		out[id] = slices.Clone(v)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}
