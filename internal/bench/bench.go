// Package bench measures the consumer against two other loops that read the
// same backlog from the same Kafka into the same Redis, in the same run:
//
//   - naive: poll, and for every event GET, decode, fold, score, SET, and
//     produce a change when the tier moved. At least once.
//   - bare: the exactly-once protocol alone, one script and one journal record
//     per batch, with values of 400 bytes and neither decoding nor folding.
//   - full: the consumer as cmd/consumer configures it.
//
// Each loop runs in a process of its own, so that its CPU time and memory are
// its own, and over several rounds, the loops taking turns, so that whatever
// else the machine does meets all of them. A loop's time begins when its
// clients are connected (full: when it owns its first partition) and ends when
// everything that it read is in Redis and acknowledged, or committed, in Kafka.
package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/scoring"
	"github.com/tierstream/tierstream/internal/state"
	"github.com/tierstream/tierstream/internal/stream"
)

// Loop names what is measured.
type Loop string

// The loops. Naive is one loop over all partitions, as it is usually written;
// NaiveEach is one per partition, each with a Kafka client of its own.
const (
	Naive     Loop = "naive"
	NaiveEach Loop = "naive-each"
	Bare      Loop = "bare"
	Full      Loop = "full"
)

// batchRecords is how many records the bare loop and the consumer take at
// most: the consumer's default.
const batchRecords = 8192

// lease is the consumer's default.
const lease = 10 * time.Second

// inputs are the topics of the backlog.
var inputs = []string{"purchases", "complaints", "referrals"}

// Task is what one process measures. The parent hands it over as JSON.
type Task struct {
	Loop       Loop
	Brokers    string
	Redis      string
	RedisPID   int
	BrokerPID  int
	Namespace  string
	Partitions int32
	Events     int64 // to be processed; the naive loops stop there, the others must find exactly so many
	CacheMB    int
	Profile    string        // file for a CPU profile, "" for none
	Sample     time.Duration // how often memory is looked at; 0: at the end only
}

// Result is what one process measured.
type Result struct {
	Events  int64
	Took    time.Duration
	Own     time.Duration // CPU time of the process
	Redis   time.Duration // CPU time of Redis, its forked children included; negative: not known
	Broker  time.Duration // CPU time of the broker; negative: not known
	PeakRSS int64         // bytes; of the process's whole life; 0: not known
	Batches int64         // scripts; naive: 0
	Changes int64         // tier changes produced
	Used    int64         // events that were applied (full: not duplicate, not refused, …)

	Customers int64    // full: customers found in Redis when verifying
	Verified  []string // full: what was checked, in words
	Samples   []Sample
}

// Sample is one look at the memory of a running loop.
type Sample struct {
	Events  int64
	RSS     int64 // bytes now
	PeakRSS int64 // bytes so far
	Heap    int64 // bytes of live and not yet swept Go objects
}

// PerSecond is the throughput.
func (r *Result) PerSecond() float64 { return float64(r.Events) / r.Took.Seconds() }

// PerCPUSecond is events per second of the process's own CPU time.
func (r *Result) PerCPUSecond() float64 { return float64(r.Events) / r.Own.Seconds() }

// Run measures one task in this process.
func Run(ctx context.Context, t Task) (*Result, error) {
	rdb, err := state.Open(t.Redis, "")
	if err != nil {
		return nil, err
	}
	defer rdb.Close()
	w := &work{Task: t, rdb: rdb, kafka: []kgo.Opt{
		kgo.SeedBrokers(t.Brokers), kgo.ClientID("tierstream-bench"), kgo.MetadataMinAge(250 * time.Millisecond),
	}}
	switch t.Loop {
	case Naive:
		return w.naive(ctx, 1)
	case NaiveEach:
		return w.naive(ctx, int(t.Partitions))
	case Bare:
		return w.bare(ctx)
	case Full:
		return w.full(ctx)
	}
	return nil, fmt.Errorf("loop %q: want %s, %s, %s or %s", t.Loop, Naive, NaiveEach, Bare, Full)
}

// work is a task with its connections.
type work struct {
	Task
	rdb   redis.UniversalClient
	kafka []kgo.Opt
}

func (w *work) topics() stream.Topics {
	t := stream.DefaultTopics(w.Namespace, inputs)
	t.Changes, t.DeadLetters = w.Namespace+"-changes", w.Namespace+"-dead-letters"
	return t
}

func (w *work) client(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(w.kafka[:len(w.kafka):len(w.kafka)], opts...)...)
}

func (w *work) store(p int32) *state.Store { return state.NewStore(w.rdb, w.Namespace, p, lease) }

// createTopics makes the topics of the task's namespace.
func (w *work) createTopics(ctx context.Context) error {
	cl, err := w.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	return stream.CreateTopics(ctx, cl, w.topics(), w.Partitions, 1, nil)
}

// rules are the defaults of cmd/consumer with real services.
func rules() *fold.Rules {
	m := scoring.Default()
	p := customer.DefaultPolicy(m.Currency())
	p.Grace = 24 * time.Hour
	return &fold.Rules{
		Topics: inputs, Partitioner: "murmur2", Clock: fold.ClockWall,
		Limits: event.Limits{}.WithDefaults(), Policy: p, Model: m,
	}
}

func logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// fetchErrors joins what went wrong in a poll; the end of ctx is not among it.
func fetchErrors(ctx context.Context, fs kgo.Fetches) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var errs []error
	for _, e := range fs.Errors() {
		errs = append(errs, fmt.Errorf("reading %s/%d: %w", e.Topic, e.Partition, e.Err))
	}
	return errors.Join(errs...)
}
