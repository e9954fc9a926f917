package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
)

// Processor is one instance of the consumer: it owns the partitions that the
// group gives it, each by a worker of its own.
type Processor struct {
	cfg     Config
	inForce *inForce
	rules   *rulesLog
	group   *group
	admin   *kadm.Client
	metrics *metrics
	tracer  trace.Tracer

	partitions int32
	clusterID  string
	topicIDs   []string
	maxMessage int32

	mu      sync.Mutex
	workers map[int32]*running
	status  map[int32]*partitionStatus
	ahead   time.Duration // of Redis' clock, as it was compared last
}

type running struct {
	cancel context.CancelFunc
	drain  chan struct{}
	done   chan struct{}
}

// New checks the configuration. It starts nothing and asks nobody.
func New(cfg Config) (*Processor, error) {
	c := cfg.withDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	m, err := newMetrics()
	if err != nil {
		return nil, err
	}
	p := &Processor{
		cfg: c, inForce: newInForce(c.Rules), metrics: m, tracer: otel.Tracer(scope),
		rules:   &rulesLog{base: c.Kafka, topic: c.Topics.Rules},
		workers: map[int32]*running{}, status: map[int32]*partitionStatus{},
	}
	return p, m.observe(p)
}

// Check asks Kafka whether everything is as it must be: topics, partitions,
// settings, and the topics that the namespace was created on. It changes
// nothing. While a broker is missing or a leader is being elected it asks
// again, for half a minute.
func (p *Processor) Check(ctx context.Context) error {
	cl, err := kgo.NewClient(p.cfg.Kafka...)
	if err != nil {
		return fmt.Errorf("opening a Kafka client: %w", err)
	}
	defer cl.Close()
	if err := Reach(ctx, cl); err != nil {
		return err
	}
	adm := kadm.NewClient(cl)
	for deadline := time.Now().Add(30 * time.Second); ; {
		if err = p.check(ctx, adm); err == nil {
			err = p.checkHistory(ctx, adm)
		}
		if err == nil || !passing(err) || time.Now().After(deadline) {
			return err
		}
		p.cfg.Log.Warn("Kafka is not ready, asking again", "reason", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// passing is whether what Kafka answered, or that a broker did not, can be
// otherwise in a moment.
func passing(err error) bool {
	var dial *net.OpError
	return kerr.IsRetriable(err) || kgo.IsRetryableBrokerErr(err) || errors.As(err, &dial)
}

// Reach says in one sentence that no broker answers.
func Reach(ctx context.Context, cl *kgo.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := cl.Ping(ctx); err != nil {
		return fmt.Errorf("no Kafka broker answers at %v: %w", cl.OptValue(kgo.SeedBrokers), err)
	}
	return nil
}

// Run owns and processes partitions until ctx ends; then it finishes what is
// under way and leaves the group. It returns nil after a clean stop.
func (p *Processor) Run(ctx context.Context) error {
	if err := p.Check(ctx); err != nil {
		return err
	}
	if err := p.adopt(ctx); err != nil {
		return err
	}
	// Workers outlive ctx: they are told to drain, and have a while to do so.
	work, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()

	session := p.cfg.Lease + 2*time.Second
	p.group = &group{id: GroupID(p.cfg.Namespace)}
	opened := make(chan struct{})
	cl, err := kgo.NewClient(append(p.cfg.Kafka[:len(p.cfg.Kafka):len(p.cfg.Kafka)],
		kgo.ConsumerGroup(p.group.id),
		kgo.ConsumeTopics(p.cfg.Topics.Journal),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.DisableAutoCommit(),
		kgo.SessionTimeout(session), kgo.RebalanceTimeout(2*session), kgo.HeartbeatInterval(p.cfg.Heartbeat),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, a map[string][]int32) {
			<-opened // the client calls from its own goroutine, perhaps before NewClient returns
			p.assigned(work, a[p.cfg.Topics.Journal])
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, a map[string][]int32) { p.release(a[p.cfg.Topics.Journal], true) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, a map[string][]int32) {
			p.release(a[p.cfg.Topics.Journal], false)
		}),
	)...)
	if err != nil {
		return fmt.Errorf("joining the group: %w", err)
	}
	p.group.client, p.admin = cl, kadm.NewClient(cl)
	close(opened)
	cl.PauseFetchTopics(p.cfg.Topics.Journal)

	var g errgroup.Group
	stop := make(chan struct{})
	g.Go(func() error { p.report(work, stop); return nil })
	var fatal error
	for ctx.Err() == nil && fatal == nil {
		for _, e := range cl.PollFetches(ctx).Errors() {
			switch {
			case ctx.Err() != nil || errors.Is(e.Err, context.Canceled):
			case errors.Is(e.Err, kerr.GroupAuthorizationFailed), errors.Is(e.Err, kerr.InvalidSessionTimeout), errors.Is(e.Err, kerr.InconsistentGroupProtocol):
				fatal = fmt.Errorf("joining group %s: %w", p.group.id, e.Err)
			default:
				p.cfg.Log.Warn("consumer group", "reason", e.Err)
			}
		}
	}
	// Leaving the group revokes, which drains the workers.
	closed := make(chan struct{})
	go func() { defer close(closed); cl.CloseAllowingRebalance() }()
	select {
	case <-closed:
	case <-time.After(p.cfg.Lease):
		abandon()
		<-closed
	}
	p.releaseAll()
	close(stop)
	_ = g.Wait()
	return fatal
}

func (p *Processor) assigned(ctx context.Context, partitions []int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range partitions {
		if p.workers[n] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		r := &running{cancel: cancel, drain: make(chan struct{}), done: make(chan struct{})}
		st := newPartitionStatus(n)
		p.metrics.zero(st.attrs)
		log := p.cfg.Log.With("partition", n)
		w := &worker{
			Processor: p, partition: n, log: log, store: p.cfg.Store(n), drain: r.drain, status: st,
			journal: &journal{base: p.cfg.Kafka, admin: p.admin, topic: p.cfg.Topics.Journal, partition: n, log: log},
		}
		p.workers[n], p.status[n] = r, st
		log.Info("partition assigned")
		go func() {
			defer close(r.done)
			w.run(ctx)
		}()
	}
}

// releaseAll drains every worker that is left.
func (p *Processor) releaseAll() {
	p.mu.Lock()
	var left []int32
	for n := range p.workers {
		left = append(left, n)
	}
	p.mu.Unlock()
	p.release(left, true)
}

// release ends the workers of the given partitions; none, when there are none:
// the client also calls when a rebalance begins that takes nothing away.
// Drained workers finish what is under way first; lost ones stop where they
// are, and the fence refuses whatever they still try.
func (p *Processor) release(partitions []int32, drain bool) {
	p.mu.Lock()
	var gone []*running
	for _, n := range partitions {
		if r := p.workers[n]; r != nil {
			gone = append(gone, r)
			delete(p.workers, n)
			delete(p.status, n)
			p.cfg.Log.Info("partition released", "partition", n, "lost", !drain)
		}
	}
	p.mu.Unlock()
	for _, r := range gone {
		close(r.drain)
		if !drain {
			r.cancel()
		}
	}
	for _, r := range gone {
		<-r.done
		r.cancel()
	}
}

// report commits group offsets for lag tools and compares the clocks.
func (p *Processor) report(ctx context.Context, stop <-chan struct{}) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	var skewed bool
	for {
		select {
		case <-stop:
			return
		case <-t.C:
		}
		next := map[int32][]int64{}
		p.mu.Lock()
		for q, st := range p.status {
			if o := st.offsets(); o != nil {
				next[q] = o
			}
		}
		p.mu.Unlock()
		c, cancel := context.WithTimeout(ctx, 5*time.Second)
		p.group.commit(c, p.cfg.Topics.Inputs, next)
		skewed = p.compareClocks(c, skewed)
		cancel()
	}
}

// compareClocks refuses readiness while this machine's clock and Redis' differ
// by more than a second: the lease is judged by Redis' clock, the skew of
// events by ours. It says so once.
func (p *Processor) compareClocks(ctx context.Context, before bool) (skewed bool) {
	d, err := skew(ctx, p.cfg.Store(0), p.cfg.Now)
	if err != nil {
		return before // Redis away shows elsewhere
	}
	p.mu.Lock()
	p.ahead = d
	p.mu.Unlock()
	wrong := skewError(d)
	switch {
	case wrong != nil && !before:
		p.cfg.Log.Error("not ready", "reason", wrong)
	case wrong == nil && before:
		p.cfg.Log.Info("the clocks agree again")
	}
	return wrong != nil
}

// Ready says why the instance is not doing its work; nil when every assigned
// partition runs, also when it has none.
func (p *Processor) Ready() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	errs := []error{skewError(p.ahead)}
	for n, st := range p.status {
		if s, err := st.state(); s != statusRunning {
			if err == nil {
				err = errors.New(string(s))
			}
			errs = append(errs, fmt.Errorf("partition %d: %w", n, err))
		}
	}
	return errors.Join(errs...)
}

// Degraded says of which partitions owned here the log alone does not explain
// the state, because they were rebased. They do their work.
func (p *Processor) Degraded() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for n, st := range p.status {
		if text := st.degraded(); text != "" {
			all = append(all, fmt.Sprintf("partition %d: %s", n, text))
		}
	}
	slices.Sort(all)
	return all
}

// Stopped returns the reasons of partitions that have stopped for good.
func (p *Processor) Stopped() map[int32]error {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := map[int32]error{}
	for n, st := range p.status {
		if s, err := st.state(); s == statusStopped {
			m[n] = err
		}
	}
	return m
}

// Totals is what the partitions owned here have counted, for people.
type Totals struct {
	Partitions int
	Running    int
	Read       int64
	Applied    int64
	DeadLetter int64
	Changes    int64 // decided since the start of this process
	Watermark  int64 // newest accepted event time, Unix ms
}

// Totals sums over the partitions owned now.
func (p *Processor) Totals() Totals {
	p.mu.Lock()
	defer p.mu.Unlock()
	var t Totals
	for _, st := range p.status {
		st.add(&t)
	}
	return t
}
