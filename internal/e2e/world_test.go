//go:build unix

package e2e

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

const partitions = 4

// lease is the shortest that the command allows; the session is two seconds
// longer, and a killed owner is replaced when it has passed.
const lease = time.Second

// world is one namespace on a Kafka and a Redis.
type world struct {
	t      testing.TB
	kafka  *testenv.KafkaServer
	redis  *testenv.RedisServer
	rdb    redis.UniversalClient
	admin  *kadm.Client
	client *kgo.Client // produces to the inputs
	ns     string
	topics stream.Topics
	model  string // a file
	sent   int64  // records produced and acknowledged
}

// newWorld makes a namespace on the shared broker with its own Redis.
func newWorld(t testing.TB, options testenv.RedisOptions) *world {
	t.Helper()
	return newWorldOn(t, testenv.SharedKafka(t), options)
}

func newWorldOn(t testing.TB, kafka *testenv.KafkaServer, options testenv.RedisOptions) *world {
	t.Helper()
	// The consumers log in as a user with a password, so that every line they
	// print can be searched for it.
	acl := filepath.Join(t.TempDir(), "users.acl")
	users := "user default on nopass ~* &* +@all\nuser consumer on >" + secret + " ~* &* +@all\n"
	if err := os.WriteFile(acl, []byte(users), 0o600); err != nil {
		t.Fatal(err)
	}
	options.Config = map[string]string{"aclfile": acl}
	w := &world{t: t, kafka: kafka, redis: testenv.Redis(t, options)}
	var err error
	if w.rdb, err = state.Open(w.redis.Addr(), ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.rdb.Close() })
	w.ns = strings.TrimRight(testenv.Prefix(t), "-")
	w.topics = stream.DefaultTopics(w.ns, []string{w.ns + "-purchases", w.ns + "-complaints", w.ns + "-referrals"})
	w.topics.Changes, w.topics.DeadLetters = w.ns+"-changes", w.ns+"-dead"
	w.model = modelFile(t, string(scoring.Default().Canonical()))

	rule, err := event.ParsePartitioner("murmur2")
	if err != nil {
		t.Fatal(err)
	}
	part, err := produce.Partitioner(rule)
	if err != nil {
		t.Fatal(err)
	}
	w.client = w.open(kgo.RecordPartitioner(part))
	w.admin = kadm.NewClient(w.client)
	if err := stream.CreateTopics(t.Context(), w.client, w.topics, partitions, 1, nil); err != nil {
		t.Fatal(err)
	}
	return w
}

func modelFile(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func (w *world) open(opts ...kgo.Opt) *kgo.Client {
	w.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(w.kafka.Addr()), kgo.MetadataMinAge(50 * time.Millisecond)}, opts...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(cl.CloseAllowingRebalance)
	return cl
}

// args are the settings of a consumer of this namespace, with more, which
// replace those of the same name (a list given twice would be one longer list).
//
// Months of simulated traffic pass in seconds here, so that a return can reach
// the log months of event time ahead of its order in another topic: hence the
// grace.
func (w *world) args(more ...string) []string {
	base := []string{
		"--brokers=" + w.kafka.Addr(), "--redis=redis://consumer:" + secret + "@" + w.redis.Addr(),
		"--model=" + w.model, "--namespace=" + w.ns, "--topics=" + strings.Join(w.topics.Inputs, ","),
		"--changes-topic=" + w.topics.Changes, "--dead-letters-topic=" + w.topics.DeadLetters,
		"--listen=127.0.0.1:0", "--lease=" + lease.String(), "--batch-records=40", "--clock=events", "--grace=9000h",
		"--log-level=debug",
	}
	base = slices.DeleteFunc(base, func(setting string) bool {
		name, _, _ := strings.Cut(setting, "=")
		return slices.ContainsFunc(more, func(m string) bool { return strings.HasPrefix(m, name+"=") })
	})
	return append(base, more...)
}

func (w *world) start(more ...string) *consumer {
	w.t.Helper()
	return launch(w.t, nil, w.args(more...)...)
}

func (w *world) store(p int32) *state.Store { return state.NewStore(w.rdb, w.ns, p, lease) }

// fences are the fences of all partitions, nil where there is none. An error
// is Redis being away.
func (w *world) fences() ([]*protocol.Fence, error) {
	fs := make([]*protocol.Fence, partitions)
	for p := range fs {
		var err error
		if fs[p], err = w.store(int32(p)).Fence(context.Background()); err != nil {
			return nil, err
		}
	}
	return fs, nil
}

// traffic is a generator of believable events, in the order they are sent.
func traffic(t testing.TB, seed uint64, bad float64) *sim.Generator {
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

// take is the next n messages as records.
func (w *world) take(g *sim.Generator, n int) []*kgo.Record {
	w.t.Helper()
	topics := produce.Topics{w.topics.Inputs[0], w.topics.Inputs[1], w.topics.Inputs[2]}
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

// send begins to send and returns; wait returns when all is acknowledged.
func (w *world) send(records []*kgo.Record) (wait func()) {
	w.t.Helper()
	done := make(chan error, 1)
	go func() { done <- w.client.ProduceSync(context.Background(), records...).FirstErr() }()
	return func() {
		w.t.Helper()
		if err := <-done; err != nil {
			w.t.Fatalf("sending: %v", err)
		}
		w.sent += int64(len(records))
	}
}

// settled waits until everything sent is applied and published.
func (w *world) settled(limit time.Duration) {
	w.t.Helper()
	until(w.t, limit, "waiting for everything to be applied and published", func() error {
		fs, err := w.fences()
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
			due, err := w.rdb.ZCount(context.Background(), state.PartitionKeys(w.ns, int32(p)).Due(f.Gen), "-inf", fmt.Sprint(f.State.Watermark)).Result()
			if err != nil {
				return err
			}
			if due > 0 {
				return fmt.Errorf("partition %d: %d customers are due", p, due)
			}
		}
		if read != w.sent {
			return fmt.Errorf("%d of %d read", read, w.sent)
		}
		for p, records := range w.read(w.topics.Journal) {
			last, err := protocol.DecodeRecord(records[len(records)-1].Value)
			if err != nil {
				return err
			}
			if at := (protocol.Point{Seq: last.Seq, Chain: last.Chain}); at != fs[p].Point {
				return fmt.Errorf("partition %d: applied %d, published %d", p, fs[p].Seq, last.Seq)
			}
		}
		return nil
	})
}

// read returns the committed records of a topic, by partition, up to its ends
// as of the call.
func (w *world) read(topic string) [][]*kgo.Record {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	starts, err1 := w.admin.ListStartOffsets(ctx, topic)
	ends, err2 := w.admin.ListCommittedOffsets(ctx, topic)
	if err := errors.Join(err1, err2, starts.Error(), ends.Error()); err != nil {
		w.t.Fatalf("reading %s: %v", topic, err)
	}
	out := make([][]*kgo.Record, len(ends[topic]))
	left := map[int32]int64{}
	from := map[int32]kgo.Offset{}
	for p, e := range ends[topic] {
		if s := starts[topic][p].Offset; s < e.Offset {
			left[p], from[p] = e.Offset, kgo.NewOffset().At(s)
		}
	}
	if len(left) == 0 {
		return out
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.kafka.Addr()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		w.t.Fatal(err)
	}
	defer cl.CloseAllowingRebalance()
	for len(left) > 0 {
		fs := cl.PollFetches(ctx)
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

// records are the stored records of a partition's customers.
func (w *world) records(p int32) map[string][]byte {
	w.t.Helper()
	out := map[string][]byte{}
	_, err := w.store(p).Each(context.Background(), func(id string, v []byte) error {
		out[id] = slices.Clone(v)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}
