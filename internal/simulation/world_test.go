package simulation

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/scoring"
	"github.com/tierstream/tierstream/internal/state"
	"github.com/tierstream/tierstream/internal/stream"
)

const (
	namespace  = "sim"
	partitions = 2
	lease      = time.Second
	session    = lease + 2*time.Second // of the consumer group
)

// world is one Kafka, one Redis, the instances, and what happens to them.
// Everything in it runs inside one synctest bubble.
type world struct {
	t    testing.TB
	ctx  context.Context
	seed uint64
	rnd  *rand.Rand // of the controller alone
	cfg  stream.Config

	net        kfake.VirtualNetwork
	kafka      *kfake.Cluster
	topics     stream.Topics
	topicNames map[[16]byte]string
	client     *kgo.Client // the tester's own, without faults
	redis      *miniredis.Miniredis
	admin      *redis.Client
	began      time.Time

	redisTurn sync.Mutex // one script at a time, with what is noted of it
	scripts   int
	past      []*snapshot
	// acquisitions are what Redis held before the last two.
	acquisitions []*snapshot
	changes      int // how often Redis was made to show another state
	watch        watch

	mu        sync.Mutex
	slow      *rand.Rand  // how long transactional requests take; nil: no time
	instances []*instance // running, in the order of their start
	started   int
	armed     *fault
	skip      int // requests that the armed fault still lets pass
	duel      *duel
	branched  bool // Redis may be on another branch than Kafka
	floods    bool // the flood stop is being provoked
	refusing  struct {
		text  string
		until time.Time
	}
	pending int  // things that happen later
	healed  bool // no fault happens any more
	over    bool // nobody is started any more
	hits    []pair
	met     []string // which fault met whom, and when
	trace   []string
	ending  sync.WaitGroup
}

// watch sees what passes and must not.
type watch struct {
	mu         sync.Mutex
	owners     map[string]owned // by fence key
	accepted   [numSteps]int
	rejected   int
	violations []string
	epochs     map[string]int16 // by transactional ID, as the last fresh InitProducerID was answered
	trace      func(string, ...any)
	branched   func() bool
}

func (t *watch) fail(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.violation(format, args...)
}

func (t *watch) violation(format string, args ...any) {
	t.violations = append(t.violations, fmt.Sprintf(format, args...))
	t.trace("VIOLATION "+format, args...)
}

// reply notes what brokers say to producers.
func (t *watch) reply(req kmsg.Request, frame []byte) {
	r, ok := req.(*kmsg.InitProducerIDRequest)
	if !ok || r.TransactionalID == nil || r.ProducerEpoch >= 0 {
		return
	}
	resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
	body := frame[8:]
	if resp.IsFlexible() {
		body = body[1:]
	}
	if resp.ReadFrom(body) != nil || resp.ErrorCode != 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.epochs[*r.TransactionalID] = max(t.epochs[*r.TransactionalID], resp.ProducerEpoch)
}

// stale: the request comes with an epoch that a later producer has fenced.
// Kafka refuses it; the fake would hand out a new one.
func (t *watch) stale(r *kmsg.InitProducerIDRequest) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return r.TransactionalID != nil && r.ProducerEpoch >= 0 && r.ProducerEpoch < t.epochs[*r.TransactionalID]
}

// instance is one consumer process.
type instance struct {
	*host
	p      *stream.Processor
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// handler puts what an instance says into the story.
func (w *world) handler(name string) slog.Handler {
	return slog.NewTextHandler(logLine{w, name}, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
}

type logLine struct {
	w    *world
	name string
}

func (l logLine) Write(b []byte) (int, error) {
	l.w.tracef("%s: %s", l.name, bytes.TrimSpace(b))
	return len(b), nil
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// tracef adds a line to the story of the seed.
func (w *world) tracef(format string, args ...any) {
	line := fmt.Sprintf("%9.3f  ", time.Since(w.began).Seconds()) + fmt.Sprintf(format, args...)
	w.mu.Lock()
	w.trace = append(w.trace, line)
	w.mu.Unlock()
}

func newWorld(t testing.TB, seed uint64, old bool) *world {
	w := &world{
		t: t, ctx: context.Background(), seed: seed, rnd: rand.New(rand.NewPCG(seed, 1)), began: time.Now(),
		topicNames: map[[16]byte]string{}, redis: newRedis(),
	}
	w.watch = watch{owners: map[string]owned{}, epochs: map[string]int16{}, trace: w.tracef, branched: func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.branched
	}}
	opts := []kfake.Opt{
		kfake.Ports(9000), kfake.ListenFn(w.net.Listen), kfake.GroupMinSessionTimeout(100 * time.Millisecond),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}),
	}
	if old { // before transactions of the second kind: AddPartitionsToTxn is a request
		opts = append(opts, kfake.MaxVersions(kversion.V3_8_0()))
	}
	if seed%2 == 0 {
		w.slow = rand.New(rand.NewPCG(seed, 3))
	}
	var err error
	w.kafka, err = kfake.NewCluster(opts...)
	must(err)
	w.client = w.open()
	w.admin = w.redisClient(func(context.Context, string, string) (net.Conn, error) { return w.redis.Dial() })

	inputs := []string{"purchases", "complaints", "referrals"}
	w.topics = stream.DefaultTopics(namespace, inputs)
	must(stream.CreateTopics(w.ctx, w.client, w.topics, partitions, 1, nil))
	list, err := kadm.NewClient(w.client).ListTopics(w.ctx)
	must(err)
	for name, d := range list {
		w.topicNames[d.ID] = name
	}

	m := scoring.Default()
	policy := customer.DefaultPolicy(m.Currency())
	clocks := []fold.ClockSource{fold.ClockWall, fold.ClockLog, fold.ClockEvents}
	w.cfg = stream.Config{
		Namespace: namespace, Topics: w.topics, Engine: "simulation",
		Rules: &fold.Rules{
			Topics: inputs, Partitioner: "murmur2", Clock: clocks[w.rnd.IntN(len(clocks))],
			Limits: event.Limits{}.WithDefaults(), Policy: policy, Model: m,
		},
		Lease: lease, Heartbeat: 500 * time.Millisecond, BatchRecords: 5 + w.rnd.IntN(40),
		MergeWait: 200 * time.Millisecond, CacheBytes: 20_000 + w.rnd.IntN(200_000),
	}
	return w
}

// open makes a Kafka client without faults.
func (w *world) open(opts ...kgo.Opt) *kgo.Client {
	cl, err := kgo.NewClient(append(w.kafkaOpts(w.net.DialContext), opts...)...)
	must(err)
	return cl
}

func (w *world) kafkaOpts(dial func(context.Context, string, string) (net.Conn, error)) []kgo.Opt {
	return []kgo.Opt{kgo.SeedBrokers("127.0.0.1:9000"), kgo.Dialer(dial), kgo.MetadataMinAge(50 * time.Millisecond), kgo.DisableClientMetrics()}
}

// redisClient is the client that package state opens, on another network.
func (w *world) redisClient(dial func(context.Context, string, string) (net.Conn, error)) *redis.Client {
	c, err := state.Open("simulation:6379", "")
	must(err)
	o := *c.(*redis.Client).Options()
	must(c.Close())
	o.Dialer, o.ReadBufferSize, o.WriteBufferSize = dial, 4<<10, 4<<10
	o.ReadTimeout, o.WriteTimeout = lease, lease // as the real ones are to the real lease
	o.PoolSize = 100                             // a full pool would wait on timers that all bubbles share
	return redis.NewClient(&o)
}

// start starts an instance.
func (w *world) start() {
	w.mu.Lock()
	if w.over {
		w.mu.Unlock()
		return
	}
	w.started++
	w.ending.Add(1)
	h := &host{w: w, name: fmt.Sprintf("i%d", w.started), links: map[*link]struct{}{}}
	w.mu.Unlock()
	rdb := w.redisClient(func(ctx context.Context, _, _ string) (net.Conn, error) {
		return h.dial(ctx, false, w.redis.Dial)
	})
	cfg := w.cfg
	cfg.Kafka = append(w.kafkaOpts(func(ctx context.Context, network, address string) (net.Conn, error) {
		return h.dial(ctx, true, func() (net.Conn, error) { return w.net.DialContext(ctx, network, address) })
	}), kgo.ClientID(h.name))
	cfg.Store = func(p int32) stream.Store { return state.NewStore(rdb, namespace, p, lease) }
	cfg.Now = h.now
	i := &instance{host: h, done: make(chan struct{})}
	cfg.Log = slog.New(w.handler(h.name))
	var err error
	i.p, err = stream.New(cfg)
	must(err)
	ctx, cancel := context.WithCancel(w.ctx)
	i.cancel = cancel
	w.mu.Lock()
	w.instances = append(w.instances, i)
	w.mu.Unlock()
	w.tracef("%s: starts", h.name)
	go func() {
		defer w.ending.Done()
		defer rdb.Close()
		defer close(i.done)
		i.err = i.p.Run(ctx)
		w.ended(i, ctx.Err() != nil)
	}()
}

// ended takes an instance off the list. One that ended by itself is started
// again, as a supervisor would.
func (w *world) ended(i *instance, asked bool) {
	w.mu.Lock()
	for n, o := range w.instances {
		if o == i {
			w.instances = append(w.instances[:n:n], w.instances[n+1:]...)
		}
	}
	w.mu.Unlock()
	if i.err != nil {
		w.tracef("%s: ended: %v", i.name, i.err)
	}
	if !asked {
		w.after(500*time.Millisecond, func() { w.start() })
	}
}

// after does something later, which the end of the faults waits for.
func (w *world) after(d time.Duration, f func()) {
	w.mu.Lock()
	w.pending++
	w.mu.Unlock()
	time.AfterFunc(d, func() {
		f()
		w.mu.Lock()
		w.pending--
		w.mu.Unlock()
	})
}

func (w *world) running() []*instance {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*instance(nil), w.instances...)
}

func (w *world) hosts() []*host {
	var hs []*host
	for _, i := range w.running() {
		hs = append(hs, i.host)
	}
	return hs
}

// crash takes an instance off the network and starts another one later.
func (w *world) crash(h *host, later time.Duration) {
	w.tracef("%s: crashes", h.name)
	h.crash()
	for _, i := range w.running() {
		if i.host == h {
			// What is left of the process only ends; it reaches nobody.
			i.cancel()
			w.after(later, func() { w.start() })
		}
	}
}

// leave stops an instance in good order.
func (w *world) leave(i *instance) {
	w.tracef("%s: leaves", i.name)
	i.cancel()
}

// rebalance lets an instance join or leave.
func (w *world) rebalance(choice uint64, h *host) {
	is := w.running()
	if choice%2 == 0 && len(is) < 4 {
		go w.start()
		return
	}
	i := is[int(choice>>1)%len(is)]
	w.leave(i)
	if len(is) <= 2 {
		w.after(time.Second, func() { w.start() })
	}
}

// slowest is how long a request is under way at most.
const slowest = 250 * time.Millisecond

// delay is how long a request is under way. In every other seed a transaction
// takes long enough for more batches to be applied meanwhile.
func (w *world) delay(s step) time.Duration {
	if s != addPartitions && s != produceBatch && s != endTxn {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.slow == nil {
		return 0
	}
	return time.Duration(w.slow.Int64N(int64(slowest)))
}

// step is told of every request before it is sent, and says what goes wrong
// with it.
func (w *world) step(h *host, s step) *fault {
	if s == other {
		return nil
	}
	w.mu.Lock()
	var stall time.Duration
	if d := w.duel; d != nil && d.at == s && d.not != h {
		w.duel, stall = nil, time.Until(d.until)
	}
	f := w.armed
	switch {
	case f == nil || f.step != s:
		f = nil
	case w.skip > 0:
		w.skip--
		f = nil
	default:
		w.armed = nil
	}
	w.mu.Unlock()
	if stall > 0 {
		w.tracef("%s: stalls at %s", h.name, s)
		h.pause(stall)
	}
	return f
}

// happened notes that a fault met its request.
func (w *world) happened(f *fault, h *host) {
	w.tracef("%s: %v", h.name, f)
	w.mu.Lock()
	f.host = h
	w.hits = append(w.hits, f.pair)
	w.met = append(w.met, fmt.Sprintf("%s %v %s", time.Since(w.began).Round(10*time.Millisecond), f, h.name))
	w.mu.Unlock()
	close(f.fired)
}

func (w *world) arm(f *fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = f
	if f != nil {
		w.skip = f.skip
	}
}

// hash is a short name of a story.
func hash(lines []string) uint64 {
	h := fnv.New64a()
	for _, l := range lines {
		_, _ = h.Write([]byte(l))
	}
	return h.Sum64()
}

func indent(lines []string) string { return "\t" + strings.Join(lines, "\n\t") }
