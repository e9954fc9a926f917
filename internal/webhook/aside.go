package webhook

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// State is that of a delivery that did not succeed at once.
type State string

// The states.
const (
	Waiting State = "waiting" // will be tried again
	Parked  State = "parked"  // given up, until somebody replays it
)

// Entry is a delivery that was set aside: what failed, and what stands behind
// it in its customer's order. It is a record of the aside topic (compacted, as
// many partitions as the changes', each entry in its change's partition): the
// change as it was published, with the headers below; a record without a value
// removes it.
type Entry struct {
	Endpoint  string
	Partition int32
	State     State
	Attempts  int
	First     time.Time // of its attempts; zero before
	Next      time.Time // when it is tried again, for Waiting
	Reason    string    // of the last failure

	change
	writer string
}

// ID is the webhook-id.
func (e *Entry) ID() string { return e.id }

// Customer is whom the change is about.
func (e *Entry) Customer() string { return e.customer }

// Sequence numbers the customer's changes.
func (e *Entry) Sequence() uint64 { return e.sequence }

// Body is the change as it was published.
func (e *Entry) Body() []byte { return e.body }

// Published is when the change was.
func (e *Entry) Published() time.Time { return e.at }

const (
	headerPrefix    = "tierstream-webhook-"
	headerEndpoint  = headerPrefix + "endpoint"
	headerCustomer  = headerPrefix + "customer"
	headerState     = headerPrefix + "state"
	headerAttempts  = headerPrefix + "attempts"
	headerFirst     = headerPrefix + "first-attempt" // Unix ms, as all times here; 0: none
	headerNext      = headerPrefix + "next-attempt"
	headerPublished = headerPrefix + "published"
	headerReason    = headerPrefix + "reason"
	headerWriter    = headerPrefix + "writer"
)

// stateDisabled marks the record of an endpoint that answered 410. Its key is
// the endpoint's name, in partition 0; entries' keys hold a slash.
const stateDisabled = "disabled"

func (e *Entry) key() string { return e.Endpoint + "/" + e.id }

func millis(t time.Time) string {
	if t.IsZero() {
		return "0"
	}
	return strconv.FormatInt(t.UnixMilli(), 10)
}

func fromMillis(s string) time.Time {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n > 0 {
		return time.UnixMilli(n)
	}
	return time.Time{}
}

func pairs(kv ...string) (headers []kgo.RecordHeader) {
	for i := 0; i < len(kv); i += 2 {
		headers = append(headers, kgo.RecordHeader{Key: kv[i], Value: []byte(kv[i+1])})
	}
	return headers
}

func (e *Entry) record(topic string) *kgo.Record {
	return &kgo.Record{
		Topic: topic, Partition: e.Partition, Key: []byte(e.key()), Value: e.body,
		Headers: append(slices.Clone(e.headers), pairs(
			headerEndpoint, e.Endpoint, headerCustomer, e.customer, headerState, string(e.State),
			headerAttempts, strconv.Itoa(e.Attempts), headerFirst, millis(e.First), headerNext, millis(e.Next),
			headerPublished, millis(e.at), headerReason, e.Reason, headerWriter, e.writer)...),
	}
}

// readEntry reads a record of the aside topic, one without a value too.
func readEntry(r *kgo.Record) (*Entry, error) {
	own := map[string]string{}
	e := &Entry{Partition: r.Partition}
	for _, h := range r.Headers {
		if strings.HasPrefix(h.Key, headerPrefix) {
			own[h.Key] = string(h.Value)
		} else {
			e.headers = append(e.headers, h)
		}
	}
	e.Endpoint, e.customer, e.State = own[headerEndpoint], own[headerCustomer], State(own[headerState])
	e.First, e.Next, e.at = fromMillis(own[headerFirst]), fromMillis(own[headerNext]), fromMillis(own[headerPublished])
	e.Reason, e.writer, e.body = own[headerReason], own[headerWriter], r.Value
	var ok bool
	if _, e.id, ok = strings.Cut(string(r.Key), "/"); !ok {
		return nil, fmt.Errorf("%s/%d@%d: key %q is no entry's", r.Topic, r.Partition, r.Offset, r.Key)
	}
	if r.Value == nil {
		return e, nil
	}
	attempts, err1 := strconv.Atoi(own[headerAttempts])
	sequence, err2 := strconv.ParseUint(e.header("ce_customerseq"), 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("%s/%d@%d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	e.Attempts, e.sequence = attempts, sequence
	return e, nil
}

// Topics names what webhooks read and write.
type Topics struct {
	Changes string // of tier changes
	Aside   string // of deliveries set aside
}

// DefaultTopics of a namespace.
func DefaultTopics(namespace string) Topics {
	return Topics{Changes: "tier-changes", Aside: namespace + "-webhooks"}
}

// CreateAside creates the aside topic unless it exists, with the partitions of
// the changes, and waits until it can be seen.
func CreateAside(ctx context.Context, client *kgo.Client, t Topics) error {
	admin := kadm.NewClient(client)
	n, err := partitionsOf(ctx, admin, t.Changes)
	if err != nil {
		return err
	}
	settings := map[string]*string{"cleanup.policy": kadm.StringPtr("compact"), "min.compaction.lag.ms": kadm.StringPtr("60000")}
	created, err := admin.CreateTopics(ctx, n, -1, settings, t.Aside)
	if err == nil {
		for _, c := range created {
			if c.Err != nil && !errors.Is(c.Err, kerr.TopicAlreadyExists) {
				err = c.Err
			}
		}
	}
	if err != nil {
		return fmt.Errorf("creating topic %s: %w", t.Aside, err)
	}
	for {
		_, err := partitionsOf(ctx, admin, t.Aside)
		if !errors.Is(err, kerr.UnknownTopicOrPartition) {
			return err
		}
		select { // a new topic reaches a broker's metadata a little later
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

func partitionsOf(ctx context.Context, admin *kadm.Client, topic string) (int32, error) {
	found, err := admin.ListTopics(ctx, topic)
	if err == nil {
		err = found.Error()
	}
	if err != nil {
		return 0, fmt.Errorf("asking for topic %s: %w", topic, err)
	}
	return int32(len(found[topic].Partitions)), nil
}

// checkTopics refuses topics that cannot serve.
func checkTopics(ctx context.Context, client *kgo.Client, t Topics) (int32, error) {
	admin := kadm.NewClient(client)
	n, err := partitionsOf(ctx, admin, t.Changes)
	if err != nil {
		return 0, err
	}
	m, err := partitionsOf(ctx, admin, t.Aside)
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return 0, fmt.Errorf("topic %s does not exist: --create-topic makes it (compacted, %d partitions as %s)", t.Aside, n, t.Changes)
	} else if err != nil {
		return 0, err
	}
	if n != m {
		return 0, fmt.Errorf("topics %s and %s have %d and %d partitions: a change is set aside in its own partition, so they must be equal", t.Changes, t.Aside, n, m)
	}
	settings, err := admin.DescribeTopicConfigs(ctx, t.Aside)
	if err != nil {
		return 0, fmt.Errorf("asking for settings of topic %s: %w", t.Aside, err)
	}
	for _, s := range settings {
		for _, c := range s.Configs {
			if c.Key == "cleanup.policy" && c.MaybeValue() != "compact" {
				return 0, fmt.Errorf("topic %s has cleanup.policy=%s: it must be compact, or what waits is lost with time", t.Aside, c.MaybeValue())
			}
		}
	}
	return n, nil
}

// aside is the topic of deliveries set aside, and what this process knows of
// it. Whoever writes, every process reads all of it.
type aside struct {
	topic      string
	partitions int32
	writer     string // of this process
	client     *kgo.Client

	keepParked bool // in waiting, too: for people who look at them

	mu       sync.Mutex
	waiting  map[int32]map[string]*Entry // by partition and key
	disabled map[string]string           // reasons by endpoint
	barriers map[string]chan struct{}

	// foreign sees waiting entries that others have written, changed the
	// endpoints that were disabled or enabled; each may be nil. They are called
	// one at a time, in the topic's order.
	foreign func(*Entry)
	changed func(endpoint string)
}

// newAside opens the topic; read must run from then on.
func newAside(kafka []kgo.Opt, topic string, partitions int32) (*aside, error) {
	all := map[int32]kgo.Offset{}
	for p := range partitions {
		all[p] = kgo.NewOffset().AtStart()
	}
	client, err := kgo.NewClient(append(slices.Clone(kafka),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: all}),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0),
		kgo.MaxBufferedRecords(1<<20), // never blocks: what is held is bounded before
	)...)
	if err != nil {
		return nil, fmt.Errorf("opening a Kafka client: %w", err)
	}
	return &aside{
		topic: topic, partitions: partitions, writer: rand.Text(), client: client,
		waiting: map[int32]map[string]*Entry{}, disabled: map[string]string{}, barriers: map[string]chan struct{}{},
	}, nil
}

// read follows the topic until ctx is done.
func (a *aside) read(ctx context.Context) error {
	for {
		fetches := a.client.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("reading %s: %w", a.topic, err)
		}
		var err error
		fetches.EachRecord(func(r *kgo.Record) {
			if err == nil {
				err = a.take(r)
			}
		})
		if err != nil {
			return err
		}
	}
}

// take learns what a record says.
func (a *aside) take(r *kgo.Record) error {
	name := string(r.Key)
	if !strings.Contains(name, "/") {
		a.mu.Lock()
		reached := a.barriers[name]
		delete(a.barriers, name)
		_, was := a.disabled[name]
		disabled := r.Value != nil && namePattern.MatchString(name)
		delete(a.disabled, name)
		if disabled {
			a.disabled[name] = string(r.Value)
		}
		a.mu.Unlock()
		if reached != nil {
			close(reached)
		} else if was != disabled && a.changed != nil {
			a.changed(name)
		}
		return nil
	}
	e, err := readEntry(r)
	if err != nil {
		return err
	}
	removed := r.Value == nil
	a.mu.Lock()
	if removed || e.State == Parked && !a.keepParked {
		delete(a.waiting[e.Partition], e.key())
	} else {
		if a.waiting[e.Partition] == nil {
			a.waiting[e.Partition] = map[string]*Entry{}
		}
		a.waiting[e.Partition][e.key()] = e
	}
	a.mu.Unlock()
	if !removed && e.State == Waiting && e.writer != a.writer && a.foreign != nil {
		a.foreign(e)
	}
	return nil
}

// catchUp waits until everything has been read that was in the partitions when
// it was called. It writes a mark of its own and waits for it: the end offset
// of a compacted topic need not have a record before it.
func (a *aside) catchUp(ctx context.Context, partitions ...int32) error {
	for _, p := range partitions {
		name := "MARK-" + rand.Text() // no endpoint's name
		reached := make(chan struct{})
		a.mu.Lock()
		a.barriers[name] = reached
		a.mu.Unlock()
		if err := a.client.ProduceSync(ctx, &kgo.Record{Topic: a.topic, Partition: p, Key: []byte(name)}).FirstErr(); err != nil {
			return fmt.Errorf("writing to %s: %w", a.topic, err)
		}
		select {
		case <-reached:
		case <-ctx.Done():
			return fmt.Errorf("reading %s: %w", a.topic, ctx.Err())
		}
	}
	return nil
}

func (a *aside) all() (partitions []int32) {
	for p := range a.partitions {
		partitions = append(partitions, p)
	}
	return partitions
}

// waitingFor are an endpoint's waiting entries of a partition, in no order.
func (a *aside) waitingFor(endpoint string, partition int32) (entries []*Entry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.waiting[partition] {
		if e.Endpoint == endpoint {
			entries = append(entries, e)
		}
	}
	return entries
}

// isDisabled returns why an endpoint is.
func (a *aside) isDisabled(endpoint string) (reason string, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	reason, ok = a.disabled[endpoint]
	return reason, ok
}

// put writes an entry; then is called when it is safe, or will never be.
func (a *aside) put(e *Entry, then func(error)) {
	e.writer = a.writer
	a.produce(e.record(a.topic), then)
}

// remove removes an entry.
func (a *aside) remove(e *Entry, then func(error)) {
	a.produce(&kgo.Record{
		Topic: a.topic, Partition: e.Partition, Key: []byte(e.key()),
		Headers: pairs(headerEndpoint, e.Endpoint, headerCustomer, e.customer, headerWriter, a.writer),
	}, then)
}

func (a *aside) produce(r *kgo.Record, then func(error)) {
	// Not bound to a run's context: what was decided is written while the client
	// is open. It tries for ever.
	a.client.Produce(context.Background(), r, func(_ *kgo.Record, err error) { then(err) })
}

// setDisabled writes that an endpoint is disabled or, without a reason, enabled.
func (a *aside) setDisabled(ctx context.Context, endpoint, reason string) error {
	r := &kgo.Record{Topic: a.topic, Key: []byte(endpoint)}
	if reason != "" {
		r.Value = []byte(reason)
		r.Headers = pairs(headerEndpoint, endpoint, headerState, stateDisabled)
	}
	if err := a.client.ProduceSync(ctx, r).FirstErr(); err != nil {
		return fmt.Errorf("writing to %s: %w", a.topic, err)
	}
	return nil
}
