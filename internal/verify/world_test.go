package verify

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
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
	"github.com/tierstream/tierstream/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const (
	partitions = 4
	// patience bounds every wait: far more than a busy machine needs.
	patience = 2 * time.Minute
)

// world is one namespace on real services.
type world struct {
	addr  string // of the broker
	redis string // its address
	rdb   redis.UniversalClient
	model *scoring.Model
	cfg   stream.Config
	admin *kadm.Client
}

// company is what a namespace decides by.
type company struct {
	name  string // of the data
	model scoring.InitOptions
	zero  customer.Choice // free orders
}

// newWorld starts the services and creates the topics of a namespace for a
// company's purchases.
func newWorld(t *testing.T, c company) *world {
	t.Helper()
	kafka := testenv.SharedKafka(t)
	store := testenv.Redis(t, testenv.RedisOptions{AppendFsync: "everysec"})
	rdb, err := state.Open(store.Addr(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rdb.Close() })

	text, err := scoring.Init(c.model)
	if err != nil {
		t.Fatal(err)
	}
	model, err := scoring.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	ns := testenv.Prefix(t) + c.name
	topics := stream.DefaultTopics(ns, []string{ns + "-purchases", ns + "-complaints", ns + "-referrals"})
	topics.Changes, topics.DeadLetters = ns+"-tier-changes", ns+"-dead-letters"
	policy := customer.DefaultPolicy(model.Currency())
	policy.ZeroOrders = c.zero
	w := &world{addr: kafka.Addr(), redis: store.Addr(), rdb: rdb, model: model}
	w.cfg = stream.Config{
		Namespace: ns, Topics: topics, Engine: "verify",
		Rules: &fold.Rules{
			Topics: topics.Inputs, Partitioner: "murmur2", Clock: fold.ClockEvents,
			Limits: event.Limits{}.WithDefaults(), Policy: policy, Model: model,
		},
		Log:          slog.New(slog.NewTextHandler(t.Output(), nil)),
		BatchRecords: 1000, // some twenty batches per partition, so that there is history to go back to
		Kafka:        []kgo.Opt{kgo.SeedBrokers(kafka.Addr()), kgo.MetadataMinAge(50 * time.Millisecond)},
	}
	w.cfg.Store = func(p int32) stream.Store { return w.store(p) }
	client := w.client(t)
	w.admin = kadm.NewClient(client)
	if err := stream.CreateTopics(t.Context(), client, topics, partitions, 1, nil); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) store(p int32) *state.Store {
	return state.NewStore(w.rdb, w.cfg.Namespace, p, 10*time.Second)
}

func (w *world) client(t *testing.T, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(slices.Clone(w.cfg.Kafka), options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseAllowingRebalance)
	return client
}

// send produces purchases and waits for every acknowledgement.
func (w *world) send(t *testing.T, messages []sim.Message) {
	t.Helper()
	rule, err := event.ParsePartitioner("murmur2")
	if err != nil {
		t.Fatal(err)
	}
	partitioner, err := produce.Partitioner(rule)
	if err != nil {
		t.Fatal(err)
	}
	client := w.client(t, kgo.RecordPartitioner(partitioner), kgo.ProducerLinger(5*time.Millisecond))
	defer client.Close()
	err = produce.Run(t.Context(), produce.RunConfig{
		Client: client, Messages: slices.Values(messages), Topics: produce.Topics(w.cfg.Topics.Inputs),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// start runs two instances, which share the partitions, until stop is called.
// They have stopped cleanly when stop returns.
func (w *world) start(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	var instances []*stream.Processor
	for range cap(ended) {
		p, err := stream.New(w.cfg)
		if err != nil {
			t.Fatal(err)
		}
		instances = append(instances, p)
		go func() { ended <- p.Run(ctx) }()
	}
	return func() {
		t.Helper()
		for _, p := range instances {
			for n, err := range p.Stopped() {
				t.Errorf("partition %d stopped: %v", n, err)
			}
		}
		cancel()
		for range instances {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
}

// ends are the end offsets of a topic, by partition.
func (w *world) ends(t *testing.T, topic string) []int64 {
	t.Helper()
	listed, err := w.admin.ListEndOffsets(t.Context(), topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]int64, partitions)
	for p := range ends {
		o, ok := listed.Lookup(topic, int32(p))
		if !ok {
			t.Fatalf("no end of %s/%d", topic, p)
		}
		ends[p] = o.Offset
	}
	return ends
}

// published waits until the journal says, read committed, that every partition
// has read its input to the end, and returns the last record of each. The
// outputs are in the same transactions, so they are published then.
func (w *world) published(t *testing.T) []entry {
	t.Helper()
	want := w.ends(t, w.cfg.Topics.Inputs[0])
	return w.publishedUntil(t, func(p int, e entry) bool { return e.State.Next[0].Next >= want[p] })
}

// publishedUntil waits until a record of each partition's journal, read
// committed, is what is wanted, and returns it.
func (w *world) publishedUntil(t *testing.T, wanted func(p int, e entry) bool) []entry {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client := w.client(t, kgo.ConsumeTopics(w.cfg.Topics.Journal),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	defer client.CloseAllowingRebalance()
	last := make([]entry, partitions)
	for {
		behind := 0
		for p, e := range last {
			if e.Record == nil || !wanted(p, e) {
				behind++
			}
		}
		if behind == 0 {
			return last
		}
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("waiting for %d partitions to publish: %v", behind, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			record, err := protocol.DecodeRecord(r.Value)
			if err != nil {
				t.Fatalf("journal %d@%d: %v", r.Partition, r.Offset, err)
			}
			last[r.Partition] = entry{record, r.Offset}
		})
	}
}

// entry is a journal record and its offset.
type entry struct {
	*protocol.Record
	offset int64
}

// applied waits until Redis stands where the journal ends, in every partition.
func (w *world) applied(t *testing.T, journal []entry) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		behind := []string{}
		for p := range journal {
			f, err := w.store(int32(p)).Fence(ctx)
			switch {
			case err != nil:
				t.Fatal(err)
			case f == nil:
				behind = append(behind, fmt.Sprintf("%d is empty", p))
			case f.Point != (protocol.Point{Seq: journal[p].Seq, Chain: journal[p].Chain}):
				behind = append(behind, fmt.Sprintf("%d is at %d of %d", p, f.Seq, journal[p].Seq))
			}
		}
		if len(behind) == 0 {
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatalf("waiting for Redis to stand where the journal ends: partitions %s", strings.Join(behind, ", "))
		}
	}
}

// snapshot is what Redis holds.
type snapshot struct {
	fences    []*protocol.Fence
	customers map[string]stored // by ID
}

func (w *world) snapshot(t *testing.T) *snapshot {
	t.Helper()
	s := &snapshot{customers: map[string]stored{}}
	for p := range int32(partitions) {
		f, err := w.store(p).Each(t.Context(), func(id string, value []byte) error {
			if old, ok := s.customers[id]; ok && old != stored(value) {
				return fmt.Errorf("customer %s stands twice", id)
			}
			s.customers[id] = stored(value)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if f == nil {
			t.Fatalf("partition %d has no fence", p)
		}
		s.fences = append(s.fences, f)
	}
	return s
}

// stored is a stored record. It prints as hex.
type stored string

func (s stored) String() string { return hex.EncodeToString([]byte(s)) }

// records decodes the customers.
func (s *snapshot) records(t *testing.T) map[string]*customer.Record {
	t.Helper()
	records := make(map[string]*customer.Record, len(s.customers))
	for id, value := range s.customers {
		r := new(customer.Record)
		if err := customer.Decode([]byte(value), r); err != nil {
			t.Fatalf("customer %s: %v", id, err)
		}
		records[id] = r
	}
	return records
}

// unwritten are the records without the number of the batch that last wrote
// them, which is no part of what is known of a customer.
func unwritten(t *testing.T, s *snapshot) map[string]stored {
	t.Helper()
	out := make(map[string]stored, len(s.customers))
	for id, r := range s.records(t) {
		r.Seq = 0
		out[id] = stored(r.Append(nil))
	}
	return out
}

// digest is the digest of all customers, summed up anew.
func (s *snapshot) digest() customer.Digest {
	var d customer.Digest
	for id, value := range s.customers {
		hi, lo := customer.Sum(id, []byte(value))
		d = d.Add(customer.Digest{hi, lo})
	}
	return d
}

// message is one published record, as a consumer of ours reads it.
type message struct {
	key, value []byte
	headers    []kgo.RecordHeader
}

// committed reads what a topic holds up to its end, read committed, in the
// order of each partition.
func (w *world) committed(t *testing.T, topic string) []message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	left := map[int32]int64{}
	for p, end := range w.ends(t, topic) {
		if end > 0 {
			left[int32(p)] = end
		}
	}
	// Control records are kept: the last record of a partition is one.
	client := w.client(t, kgo.ConsumeTopics(topic), kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	defer client.CloseAllowingRebalance()
	var messages []message
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("reading %s, partitions and ends left %v: %v", topic, left, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
			if !r.Attrs.IsControl() {
				messages = append(messages, message{r.Key, r.Value, r.Headers})
			}
		})
	}
	return messages
}

// counted sums a counter over partitions, and names every code that counted.
func counted(states []protocol.State) (read int64, codes map[string]int64, outcomes map[event.Outcome]int64) {
	codes, outcomes = map[string]int64{}, map[event.Outcome]int64{}
	for _, s := range states {
		read += s.Read
		for i, n := range s.Counters {
			if n != 0 {
				codes[event.Code(i).String()] += n
				outcomes[event.Code(i).Outcome()] += n
			}
		}
	}
	return read, codes, outcomes
}

func states(journal []entry) []protocol.State {
	var s []protocol.State
	for _, e := range journal {
		s = append(s, e.State)
	}
	return s
}

// differences lists at most a few keys at which two maps differ, and how many
// there are, as an error; nil when they are equal.
func differences[V comparable](what string, got, want map[string]V) error {
	var errs []error
	n := 0
	differ := func(key, format string, args ...any) {
		if n++; n <= 10 {
			errs = append(errs, fmt.Errorf("%s: "+format, append([]any{key}, args...)...))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if v, ok := got[key]; !ok {
			differ(key, "missing, want %v", want[key])
		} else if v != want[key] {
			differ(key, "got %v, want %v", v, want[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[key]; !ok {
			differ(key, "got %v, want none", got[key])
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%s: %d of %d differ:\n%w", what, n, len(want), errors.Join(errs...))
}

// export is `tierctl export` of the namespace, not yet run.
func (w *world) export(t *testing.T, asOf, format string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	tierctl := filepath.Join(t.TempDir(), "tierctl")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", tierctl, "../../cmd/tierctl").CombinedOutput(); err != nil {
		t.Fatalf("building tierctl: %v\n%s", err, out)
	}
	return exec.CommandContext(ctx, tierctl, "export", "--as-of", asOf, "--format", format,
		"--brokers", w.addr, "--redis", w.redis, "--namespace", w.cfg.Namespace, "--topics", strings.Join(w.cfg.Topics.Inputs, ","))
}
