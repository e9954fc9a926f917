package replay

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/state"
	"github.com/tierstream/tierstream/internal/stream"
)

// Everything in this package that writes to Redis or Kafka is in this file, and
// takes its keys and topics from a Name.

// Prefix is what the name of every replay begins with.
const Prefix = "replay-"

// Name is the namespace of a replay. Only ParseName makes one that is not
// empty, so that nothing made from it can be a key or a topic of a namespace
// that has another name.
type Name struct{ text string }

// ParseName takes the name of a replay: replay- and more, in the characters of
// a namespace.
func ParseName(s string) (Name, error) {
	if !strings.HasPrefix(s, Prefix) || len(s) == len(Prefix) || len(s) > 64 {
		return Name{}, fmt.Errorf("namespace %q of a replay: it must begin with %s and have 1 to %d characters more, so that it is no live one", s, Prefix, 64-len(Prefix))
	}
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.') {
			return Name{}, fmt.Errorf("namespace %q of a replay: want lower-case letters, digits, - _ and . only", s)
		}
	}
	return Name{s}, nil
}

func (n Name) String() string { return n.text }

// Changes is the topic of the replay's tier changes.
func (n Name) Changes() string { return n.must() + "-changes" }

// DeadLetters is the topic of the records that the replay refused.
func (n Name) DeadLetters() string { return n.must() + "-dead-letters" }

// journal would be a live namespace's.
func (n Name) journal() string { return stream.DefaultTopics(n.must(), nil).Journal }

func (n Name) must() string {
	if n.text == "" {
		panic("replay: a name that ParseName did not make")
	}
	return n.text
}

// incarnation marks what a replay of this name wrote: the same for the same
// parameters, so that it can be resumed, and none that is drawn at random.
func (n Name) incarnation(parameters string) (i protocol.Nonce) {
	h := sha256.Sum256([]byte("tierstream replay\x00" + n.must() + "\x00" + parameters))
	copy(i[:], h[:])
	return i
}

// free refuses a name under which a consumer runs or ran.
func (n Name) free(ctx context.Context, s Source) error {
	there, err := s.Partitions(ctx, n.journal())
	if err != nil {
		return err
	}
	if there > 0 {
		return fmt.Errorf("%s is a live namespace: it has the journal %s; choose another name for the replay", n, n.journal())
	}
	return nil
}

// lease is how long a replay may take from one write to the next.
const lease = 2 * time.Minute

// remote is a partition of the replay in Redis.
type remote struct {
	store *state.Store
	id    protocol.Identity
	mark  protocol.Nonce
}

// openRemote takes the partition; f is nil when nothing is there yet. What is
// there and was not made by the same replay is not touched.
func openRemote(ctx context.Context, rdb redis.UniversalClient, n Name, partition int32, mark, owner protocol.Nonce) (r *remote, f *protocol.Fence, err error) {
	r = &remote{store: state.NewStore(rdb, n.must(), partition, lease), mark: mark}
	there, err := r.store.Sample(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	if f := there.Fence; f != nil && (f.Incarnation != mark || f.Loading) {
		return nil, nil, fmt.Errorf("namespace %s holds something else in Redis: state of a consumer, or of a replay with other parameters; choose another name", n)
	}
	f, _, fresh, err := r.store.Acquire(ctx, owner)
	if err != nil {
		return nil, nil, err
	}
	r.id = f.Identity
	if fresh {
		// From here on the fence says whose it is. Killed before, it stays loading,
		// and the name is spent.
		f = nil
	} else if f.Incarnation != mark {
		return nil, nil, fmt.Errorf("namespace %s was taken by somebody else just now", n)
	}
	return r, f, nil
}

// write makes a batch what Redis holds.
func (r *remote) write(ctx context.Context, b *state.Batch) error {
	b.Identity = r.id
	a, err := r.store.Apply(ctx, b)
	if err != nil && state.IsTemporary(err) && ctx.Err() == nil {
		a, err = r.store.Apply(ctx, b) // the reply may be lost although the script ran
	}
	if err != nil {
		return err
	}
	if a == protocol.Rejected {
		return errors.New("another replay has taken this namespace, or more than " + lease.String() + " passed since the last write")
	}
	r.id.Point, r.id.Loading = b.Point, false
	return nil
}

// Output is where a replay's tier changes and dead letters go.
type Output interface {
	// Open begins a partition. Its emit and flush are called by one goroutine.
	Open(ctx context.Context, partition int32) (emit func(*protocol.Message) error, flush func() error, err error)
	// Close ends it, when all partitions are done.
	Close() error
}

// topics is the output to Kafka.
type topics struct {
	name   Name
	client *kgo.Client
	rule   event.Partitioner

	mu  sync.Mutex
	err error // the first that a produce came to
}

// ToTopics publishes to the replay's own topics, which it creates where they
// are missing. A topic that somebody else wrote to is refused. source is what
// is replayed from, with these topics.
func ToTopics(ctx context.Context, base []kgo.Opt, n Name, partitions int32, replayed stream.Topics) (Output, error) {
	own := []string{n.Changes(), n.DeadLetters()}
	for _, t := range own {
		for _, other := range replayed.Names() {
			if t == other {
				return nil, fmt.Errorf("topic %s is one of the namespace that is replayed; choose another name for the replay", t)
			}
		}
	}
	rule, err := event.ParsePartitioner("murmur2")
	if err != nil {
		return nil, err
	}
	s, err := NewKafka(base)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := n.free(ctx, s); err != nil {
		return nil, err
	}
	str := func(s string) *string { return &s }
	for _, t := range own {
		if err := n.ours(ctx, s, t); err != nil {
			return nil, err
		}
		r, err := s.admin.CreateTopic(ctx, partitions, -1, map[string]*string{"max.message.bytes": str(strconv.Itoa(1<<20 + 128<<10))}, t)
		if err == nil {
			err = r.Err
		}
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return nil, fmt.Errorf("creating topic %s: %w", t, err)
		}
	}
	o := &topics{name: n, rule: rule}
	o.client, err = kgo.NewClient(append(base[:len(base):len(base)],
		kgo.RecordPartitioner(kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
			return func(r *kgo.Record, n int) int {
				if r.Key == nil {
					return int(r.Partition) % n
				}
				return int(rule.Partition(r.Key, int32(n)))
			}
		})),
		kgo.UnknownTopicRetries(20),
		kgo.ProducerBatchMaxBytes(1<<20+64<<10),
		kgo.ProducerBatchCompression(kgo.SnappyCompression(), kgo.NoCompression()),
		kgo.MaxBufferedRecords(1<<16),
	)...)
	if err != nil {
		return nil, fmt.Errorf("opening the producer: %w", err)
	}
	return o, nil
}

// ours refuses a topic that holds something else than a replay's outputs.
func (n Name) ours(ctx context.Context, s *Kafka, topic string) error {
	partitions, err := s.Partitions(ctx, topic)
	if err != nil {
		return err
	}
	for p := range partitions {
		start, end, err := s.Span(ctx, topic, p)
		if err != nil {
			return err
		}
		enough := errors.New("enough")
		err = Each(ctx, s, topic, p, start, end, func(r *kgo.Record) error {
			for _, h := range r.Headers {
				if h.Key == madeBy && string(h.Value) == n.text {
					return enough
				}
			}
			return fmt.Errorf("topic %s holds something else than outputs of replay %s; choose another name", topic, n)
		})
		if err != nil && !errors.Is(err, enough) {
			return err
		}
	}
	return nil
}

// madeBy is a header of every record that a replay publishes.
const madeBy = "tierstream-replay"

func (o *topics) Open(ctx context.Context, partition int32) (func(*protocol.Message) error, func() error, error) {
	emit := func(m *protocol.Message) error {
		r := &kgo.Record{Topic: o.name.Changes(), Partition: partition, Key: m.Key, Value: m.Value}
		if m.Stream == protocol.DeadLetters {
			r.Topic = o.name.DeadLetters()
		}
		for _, h := range fold.Headers(o.name.text, m) {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: madeBy, Value: []byte(o.name.text)})
		o.client.Produce(ctx, r, func(r *kgo.Record, err error) {
			o.mu.Lock()
			defer o.mu.Unlock()
			if err != nil && o.err == nil {
				o.err = fmt.Errorf("producing to %s: %w", r.Topic, err)
			}
		})
		return o.failed()
	}
	flush := func() error {
		if err := o.client.Flush(ctx); err != nil {
			return fmt.Errorf("flushing the outputs: %w", err)
		}
		return o.failed()
	}
	return emit, flush, nil
}

func (o *topics) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

func (o *topics) Close() error {
	o.client.Close()
	return o.failed()
}
