// Package webhook delivers tier changes to HTTP endpoints, for tools that
// cannot read Kafka, by the Standard Webhooks specification 1.0.0.
//
// Delivery: at least once, the changes of a customer in the order of their
// sequence; an endpoint that is slow or away holds up no other one, and a
// customer whose change is refused no other customer. Each endpoint is a
// consumer group of its own on the topic of tier changes, read committed. An
// offset is committed when its change is delivered, not wanted, or set aside in
// a compacted topic, from which it is tried again and, in the end, parked.
//
// Memory is bounded per endpoint: beyond its bound nothing more is read, and the
// backlog stays in Kafka.
package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"
)

// Options are what a Sender needs beside the endpoints. Kafka, Topics and
// Namespace are required.
type Options struct {
	Kafka     []kgo.Opt
	Topics    Topics
	Namespace string // part of the groups' names
	Endpoints []Endpoint

	Schedule []time.Duration     // nil: Schedule
	Getenv   func(string) string // for secrets; nil: the environment
	Log      *slog.Logger        // nil: none
}

// Sender runs all endpoints.
type Sender struct {
	options Options
	aside   *aside
	metrics *metrics
	runners []*runner
}

// Group is the consumer group of an endpoint.
func Group(namespace, endpoint string) string {
	return "tierstream-" + namespace + "-webhooks-" + endpoint
}

// New checks the topics, reads the secrets, and starts nothing.
func New(ctx context.Context, o Options) (*Sender, error) {
	if o.Schedule == nil {
		o.Schedule = Schedule
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	client, err := kgo.NewClient(o.Kafka...)
	if err != nil {
		return nil, fmt.Errorf("opening a Kafka client: %w", err)
	}
	defer client.Close()
	partitions, err := checkTopics(ctx, client, o.Topics)
	if err != nil {
		return nil, err
	}
	s := &Sender{options: o}
	if s.metrics, err = newMetrics(); err != nil {
		return nil, fmt.Errorf("making metrics: %w", err)
	}
	for i := range o.Endpoints {
		e := &o.Endpoints[i]
		requests, err := newSender(e, o.Getenv)
		if err != nil {
			return nil, err
		}
		s.runners = append(s.runners, &runner{
			Sender: s, endpoint: e, requests: requests, metrics: s.metrics.endpoint(e.Name),
			log: o.Log.With("endpoint", e.Name), enabled: make(chan struct{}, 1),
		})
	}
	if s.aside, err = newAside(o.Kafka, o.Topics.Aside, partitions); err != nil {
		return nil, err
	}
	s.aside.foreign = func(e *Entry) {
		for _, r := range s.runners {
			if r.endpoint.Name == e.Endpoint {
				r.restore(e)
			}
		}
	}
	s.aside.changed = func(endpoint string) {
		for _, r := range s.runners {
			if r.endpoint.Name == endpoint {
				r.toggled()
			}
		}
	}
	return s, s.metrics.observe(s)
}

// Run delivers until ctx is done; requests under way are finished then. An
// endpoint whose group cannot be served tries again by itself, see Ready. Run
// returns an error when what is set aside can no longer be read.
func (s *Sender) Run(ctx context.Context) error {
	defer s.aside.client.Close()
	reading, stop := context.WithCancel(context.WithoutCancel(ctx)) // to the very end
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	read := make(chan error, 1)
	go func() { read <- s.aside.read(reading) }()
	g.Go(func() error {
		select {
		case err := <-read:
			return err
		case <-ctx.Done():
			return nil
		}
	})
	g.Go(func() error {
		if err := s.aside.catchUp(ctx, s.aside.all()...); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		for _, r := range s.runners {
			g.Go(func() error {
				r.run(ctx)
				return nil
			})
		}
		return nil
	})
	return g.Wait()
}

// Close releases a Sender that is not run.
func (s *Sender) Close() { s.aside.client.Close() }

// Ready says which endpoints do not deliver, and why.
func (s *Sender) Ready() error {
	var errs []error
	for _, r := range s.runners {
		if reason, ok := s.aside.isDisabled(r.endpoint.Name); ok {
			errs = append(errs, fmt.Errorf("endpoint %s is disabled: %s", r.endpoint.Name, reason))
		}
		r.mu.Lock()
		if r.trouble != nil {
			errs = append(errs, fmt.Errorf("endpoint %s: %w", r.endpoint.Name, r.trouble))
		}
		r.mu.Unlock()
	}
	return errors.Join(errs...)
}

// runner is one endpoint.
type runner struct {
	*Sender
	endpoint *Endpoint
	requests *sender
	metrics  *endpointMetrics
	log      *slog.Logger
	enabled  chan struct{} // has one when the endpoint may have been enabled

	mu      sync.Mutex
	queue   *queue // nil while disabled
	sending context.Context
	cancel  context.CancelFunc // ends the session; nil while disabled
	trouble error              // why the last session ended; nil when one runs
}

// run keeps the endpoint going, except while it is disabled.
func (r *runner) run(ctx context.Context) {
	const least, most = 500 * time.Millisecond, 30 * time.Second
	pause := least
	for ctx.Err() == nil {
		if reason, off := r.aside.isDisabled(r.endpoint.Name); off {
			r.log.Error("endpoint is disabled; `webhooks enable` goes on where it stopped", "reason", reason)
			select {
			case <-r.enabled:
			case <-ctx.Done():
			}
			continue
		}
		began := time.Now()
		err := r.session(ctx)
		if err == nil {
			continue
		}
		r.mu.Lock()
		r.trouble = err
		r.mu.Unlock()
		if time.Since(began) > most {
			pause = least
		}
		r.log.Error("reading changes failed, trying again", "err", err, "in", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, most)
	}
}

// toggled is told that the endpoint was disabled or enabled, by whomever.
func (r *runner) toggled() {
	if _, off := r.aside.isDisabled(r.endpoint.Name); off {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.cancel != nil {
			r.cancel()
		}
		return
	}
	select {
	case r.enabled <- struct{}{}:
	default:
	}
}

func (r *runner) restore(e *Entry) {
	r.mu.Lock()
	q, ctx := r.queue, r.sending
	r.mu.Unlock()
	if q != nil {
		q.restore(ctx, e)
	}
}

func (r *runner) queueStatus() (waiting int, oldest time.Time) {
	r.mu.Lock()
	q := r.queue
	r.mu.Unlock()
	if q == nil {
		return 0, time.Time{}
	}
	return q.status()
}

// disable writes down that the endpoint does not want changes any more, which
// ends the session, here and elsewhere.
func (r *runner) disable(reason string) {
	text := fmt.Sprintf("answered %s at %s", reason, time.Now().UTC().Format(time.RFC3339))
	// Until it is written or the client is closed: then the next run learns it anew.
	if err := r.aside.setDisabled(context.Background(), r.endpoint.Name, text); err != nil {
		r.log.Error("the endpoint answered 410, which could not be written down", "err", err)
	}
}

const (
	// pollRecords bounds how far one poll may go beyond the bound of memory.
	pollRecords = 500
	// commitEvery is how often offsets are committed.
	commitEvery = time.Second
)

// session reads changes as a member of the endpoint's group until ctx is done
// or the endpoint is disabled.
func (r *runner) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Requests outlive ctx until they are finished.
	sending, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	q := (&queue{
		endpoint: r.endpoint.Name, concurrency: r.endpoint.Concurrency, schedule: r.options.Schedule,
		attempt: r.requests.send, store: r.aside, metrics: r.metrics, stopped: r.disable,
	}).init()
	r.mu.Lock()
	r.queue, r.sending, r.cancel = q, sending, cancel
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.queue, r.cancel = nil, nil
		r.mu.Unlock()
	}()
	if _, off := r.aside.isDisabled(r.endpoint.Name); off {
		return nil // since the caller looked
	}

	topic, group := r.options.Topics.Changes, Group(r.options.Namespace, r.endpoint.Name)
	if err := r.begin(ctx, group); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	// What is given up is finished, and committed, before somebody else has it.
	give := func(ctx context.Context, client *kgo.Client, revoked map[string][]int32) {
		ps := revoked[topic]
		q.quiesce(ctx, ps)
		_ = r.aside.client.Flush(ctx) // else it is set aside again by the next owner
		if err := commit(ctx, client, topic, q, ps); err != nil {
			r.log.Warn("offsets of given up partitions are not committed; their last changes will be sent again", "err", err)
		}
		q.drop(ps)
	}
	client, err := kgo.NewClient(append(slices.Clone(r.options.Kafka),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(), // what was polled is in the queue before it can be revoked
		kgo.RebalanceTimeout(r.endpoint.Timeout+time.Minute),
		kgo.OnPartitionsAssigned(func(ctx context.Context, _ *kgo.Client, assigned map[string][]int32) {
			for _, p := range assigned[topic] {
				if err := r.aside.catchUp(ctx, p); err != nil {
					r.log.Warn("what was set aside is not known to be complete", "partition", p, "err", err)
				}
				q.open(sending, p, r.aside.waitingFor(r.endpoint.Name, p))
			}
		}),
		kgo.OnPartitionsRevoked(give),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) { q.drop(lost[topic]) }),
	)...)
	if err != nil {
		return fmt.Errorf("opening a Kafka client: %w", err)
	}
	defer client.CloseAllowingRebalance()
	r.mu.Lock()
	r.trouble = nil
	r.mu.Unlock()
	r.log.Info("endpoint is served", "group", group)

	committing := make(chan struct{})
	go func() {
		defer close(committing)
		every := time.NewTicker(commitEvery)
		defer every.Stop()
		for {
			select {
			case <-every.C:
				if err := commit(ctx, client, topic, q, nil); err != nil && ctx.Err() == nil {
					r.log.Warn("offsets are not committed", "err", err)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() { <-committing }()
	defer cancel()
	for q.room(ctx, r.endpoint.HoldMB<<20) {
		fetches := client.PollRecords(ctx, pollRecords)
		if ctx.Err() != nil {
			return nil
		}
		for _, e := range fetches.Errors() {
			if !errors.Is(e.Err, kerr.OffsetOutOfRange) {
				return fmt.Errorf("reading %s/%d: %w", e.Topic, e.Partition, e.Err)
			}
			if err := r.afterGap(ctx, client, e.Topic, e.Partition); err != nil {
				return err
			}
		}
		fetches.EachRecord(func(record *kgo.Record) { r.take(sending, q, record) })
		client.AllowRebalance()
	}
	return nil
}

// take hands a record to the queue, unless it is not wanted.
func (r *runner) take(ctx context.Context, q *queue, record *kgo.Record) {
	c, err := readChange(record)
	var what content
	if err == nil {
		what, err = c.content()
	}
	skip := false
	switch {
	case err != nil:
		r.log.Error("a record that is no tier change is left out", "err", err)
		r.metrics.count(ctx, resultUnreadable)
		skip = true
	case !r.endpoint.Filter.selects(&what):
		r.metrics.count(ctx, resultFiltered)
		skip = true
	}
	q.offer(ctx, record.Partition, record.Offset, c, skip)
}

// commit commits what is done with; of all partitions if none is named.
func commit(ctx context.Context, client *kgo.Client, topic string, q *queue, only []int32) error {
	next := map[int32]kgo.EpochOffset{}
	for p, offset := range q.committable() {
		if only == nil || slices.Contains(only, p) {
			next[p] = kgo.EpochOffset{Epoch: -1, Offset: offset}
		}
	}
	if len(next) == 0 {
		return nil
	}
	var failed error
	client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{topic: next}, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error) {
		failed = err
		if err != nil {
			return
		}
		for _, t := range response.Topics {
			for _, p := range t.Partitions {
				failed = errors.Join(failed, kerr.ErrorForCode(p.ErrorCode))
			}
		}
	})
	return failed
}

// begin commits where a group that has no offsets begins, before it reads:
// else a restart before the first delivery would begin somewhere else.
func (r *runner) begin(ctx context.Context, group string) error {
	client, err := kgo.NewClient(r.options.Kafka...)
	if err != nil {
		return fmt.Errorf("opening a Kafka client: %w", err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	topic := r.options.Topics.Changes
	// missing are the partitions without an offset.
	missing := func() (map[int32]bool, error) {
		ends, err := admin.ListEndOffsets(ctx, topic)
		if err == nil {
			err = ends.Error()
		}
		had, err2 := admin.FetchOffsets(ctx, group)
		if errors.Is(err2, kerr.GroupIDNotFound) {
			err2 = nil // some brokers say so of a group that has not been there
		}
		if err := errors.Join(err, err2, had.Error()); err != nil {
			return nil, fmt.Errorf("asking for offsets of group %s: %w", group, err)
		}
		without := map[int32]bool{}
		ends.Each(func(o kadm.ListedOffset) {
			if c, ok := had.Lookup(o.Topic, o.Partition); !ok || c.At < 0 {
				without[o.Partition] = true
			}
		})
		return without, nil
	}
	without, err := missing()
	if err != nil || len(without) == 0 {
		return err
	}
	list := admin.ListCommittedOffsets
	if r.endpoint.Start == "beginning" {
		list = admin.ListStartOffsets
	}
	from, err := list(ctx, topic)
	if err == nil {
		err = from.Error()
	}
	if err != nil {
		return fmt.Errorf("asking where %s begins and ends: %w", topic, err)
	}
	first := kadm.Offsets{}
	from.Each(func(o kadm.ListedOffset) {
		if without[o.Partition] {
			first.AddOffset(o.Topic, o.Partition, o.Offset, -1)
		}
	})
	if err := admin.CommitAllOffsets(ctx, group, first); err != nil {
		// Another member may have been faster.
		if without, again := missing(); again != nil || len(without) > 0 {
			return fmt.Errorf("committing where group %s begins: %w", group, err)
		}
	}
	return nil
}

// afterGap goes on where the topic begins now. Its receiver sees that a
// customer's sequence has a gap.
func (r *runner) afterGap(ctx context.Context, client *kgo.Client, topic string, partition int32) error {
	starts, err := kadm.NewClient(client).ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return fmt.Errorf("asking where %s begins: %w", topic, err)
	}
	start, _ := starts.Lookup(topic, partition)
	r.metrics.skipped.Add(ctx, 1, r.metrics.only)
	r.log.Error("changes were deleted from the topic before they were read: raise its retention; receivers read the customer's state on a gap in the sequence",
		"partition", partition, "going on at", start.Offset)
	client.SetOffsets(map[string]map[int32]kgo.EpochOffset{topic: {partition: {Epoch: -1, Offset: start.Offset}}})
	return nil
}
