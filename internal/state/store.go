package state

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/redis/go-redis/v9"

	"github.com/tierstream/tierstream/internal/protocol"
)

// ErrFenced means: a read found another fence than the expected one. The values were
// thrown away.
var ErrFenced = errors.New("the fence is another owner's or stands at another point")

// NeverDue is the due time of a customer for whom nothing is due.
const NeverDue = math.MaxInt64

// Store is one partition in Redis. Its methods are safe for concurrent use;
// what they return depends on the fence alone. The client must not retry by
// itself and must read from the primary.
type Store struct {
	rdb   redis.UniversalClient
	keys  Keys
	lease time.Duration
}

// NewStore is partition p of a namespace. lease is how long one accepted
// script lets its owner apply.
func NewStore(rdb redis.UniversalClient, namespace string, p int32, lease time.Duration) *Store {
	return &Store{rdb: rdb, keys: PartitionKeys(namespace, p), lease: lease}
}

// run executes a script by its hash, and by its text when Redis does not know
// it (after a restart or failover).
func (s *Store) run(ctx context.Context, script *redis.Script, keys []string, args []any) ([]any, error) {
	v, err := script.Run(ctx, s.rdb, keys, args...).Slice()
	if err != nil {
		return nil, err
	}
	if len(v) == 0 {
		return nil, errors.New("script returned nothing")
	}
	return v, nil
}

// accepted reads the first value of a reply.
func accepted(v []any) bool { n, _ := v[0].(int64); return n == 1 }

// Acquire makes owner the owner of the partition, whoever had it. fresh says
// that there was no fence.
func (s *Store) Acquire(ctx context.Context, owner protocol.Nonce) (f *protocol.Fence, outbox []*protocol.Entry, fresh bool, err error) {
	v, err := s.run(ctx, acquireScript, []string{s.keys.Fence(), s.keys.Outbox(), s.keys.Generations()}, []any{owner.String(), s.lease.Milliseconds(), s.keys.base})
	if err != nil {
		return nil, nil, false, fmt.Errorf("acquiring the fence: %w", err)
	}
	m, err := hash(v[1])
	if err != nil {
		return nil, nil, false, fmt.Errorf("acquiring the fence: %w", err)
	}
	if f, err = parseFence(m); err != nil {
		if f.Epoch == 0 || f.Owner != owner || f.Gen == 0 {
			return nil, nil, false, fmt.Errorf("acquiring the fence: %w", err)
		}
		f.Damaged = true
	}
	if due, _ := v[3].(int64); due == 2 {
		f.Damaged = true // there are customers, but no index of them
	}
	box, err := hash(v[2])
	if err != nil {
		return nil, nil, false, fmt.Errorf("reading the outbox: %w", err)
	}
	for _, b := range box {
		e, err := unpackEntry([]byte(b))
		if err != nil {
			return nil, nil, false, fmt.Errorf("reading the outbox: %w", err)
		}
		outbox = append(outbox, e)
	}
	sort.Slice(outbox, func(i, j int) bool { return outbox[i].Seq < outbox[j].Seq })
	return f, outbox, accepted(v), nil
}

// hash reads the flat reply of HGETALL inside a script.
func hash(v any) (map[string]string, error) {
	l, ok := v.([]any)
	if !ok || len(l)%2 != 0 {
		return nil, fmt.Errorf("unexpected reply %T", v)
	}
	m := make(map[string]string, len(l)/2)
	for i := 0; i < len(l); i += 2 {
		k, _ := l[i].(string)
		m[k], _ = l[i+1].(string)
	}
	return m, nil
}

// Renew extends a lease that holds; one that is over is ErrFenced.
func (s *Store) Renew(ctx context.Context, id protocol.Identity) error {
	v, err := s.run(ctx, renewScript, []string{s.keys.Fence()}, []any{u64(id.Epoch), id.Owner.String(), u64(id.Gen), s.lease.Milliseconds()})
	if err != nil {
		return fmt.Errorf("renewing the lease: %w", err)
	}
	if !accepted(v) {
		return ErrFenced
	}
	return nil
}

// Compare says whether the fence is still the expected one, for an idle owner
// that would not notice otherwise.
func (s *Store) Compare(ctx context.Context, id protocol.Identity) error {
	v, err := s.run(ctx, compareScript, []string{s.keys.Fence()}, appendIdentity(nil, id))
	if err != nil {
		return fmt.Errorf("comparing the fence: %w", err)
	}
	if !accepted(v) {
		return ErrFenced
	}
	return nil
}

// Load reads customers' records, nil for those without one, in order. All
// values come with one check of the fence per chunk, and a batch's chunks are
// valid together because any write between them would have moved the fence.
// ErrDamaged means: somebody has no record who must have one.
func (s *Store) Load(ctx context.Context, id protocol.Identity, customers []string) ([][]byte, error) {
	due, before := s.keys.Due(id.Gen), len(s.keys.Customer(id.Gen, ""))
	return s.load(ctx, id, len(customers), due, before, func(i int) string { return s.keys.Customer(id.Gen, customers[i]) })
}

// LoadWaiting reads the original records of waiting returns.
func (s *Store) LoadWaiting(ctx context.Context, id protocol.Identity, ws []WaitingKey) ([][]byte, error) {
	return s.load(ctx, id, len(ws), "", 0, func(i int) string { return s.keys.Waiting(id.Gen, ws[i]) })
}

// loadChunk bounds how long one script may hold Redis.
const loadChunk = 10_000

// load reads n keys. With a due set, who has no value must not be in it;
// before is how many bytes of a key come before the customer.
func (s *Store) load(ctx context.Context, id protocol.Identity, n int, due string, before int, key func(int) string) ([][]byte, error) {
	out := make([][]byte, 0, n)
	for from := 0; from < n; from += loadChunk {
		args := append(appendIdentity(make([]any, 0, 7+min(n-from, loadChunk)), id), due, before)
		for i := from; i < min(n, from+loadChunk); i++ {
			args = append(args, key(i))
		}
		v, err := s.run(ctx, loadScript, []string{s.keys.Fence()}, args)
		if err != nil {
			return nil, fmt.Errorf("loading %d values: %w", n, err)
		}
		switch answer, _ := v[0].(int64); answer {
		case 1:
		case 2:
			return nil, fmt.Errorf("customer %v: %w", v[1], ErrDamaged)
		default:
			return nil, ErrFenced
		}
		for _, chunk := range v[1:] {
			if out, err = appendValues(out, chunk); err != nil {
				return nil, fmt.Errorf("loading %d values: %w", n, err)
			}
		}
	}
	if len(out) != n {
		return nil, fmt.Errorf("loading %d values: got %d", n, len(out))
	}
	return out, nil
}

// DueEntry is one entry of the due set.
type DueEntry struct {
	Customer string
	Due      int64 // Unix ms
}

// Due reads at most n entries due at or before upTo, in (due, customer) order.
func (s *Store) Due(ctx context.Context, id protocol.Identity, upTo int64, n int) ([]DueEntry, error) {
	args := append(appendIdentity(nil, id), s.keys.Due(id.Gen), i64(upTo), n)
	v, err := s.run(ctx, dueScript, []string{s.keys.Fence()}, args)
	if err != nil {
		return nil, fmt.Errorf("reading the due set: %w", err)
	}
	if !accepted(v) {
		return nil, ErrFenced
	}
	l, ok := v[1].([]any)
	if !ok || len(l)%2 != 0 {
		return nil, fmt.Errorf("reading the due set: unexpected reply %T", v[1])
	}
	out := make([]DueEntry, 0, len(l)/2)
	for i := 0; i < len(l); i += 2 {
		customer, _ := l[i].(string)
		score, _ := l[i+1].(string)
		if score == "-inf" {
			out = append(out, DueEntry{customer, Pending})
			continue
		}
		due, err := strconv.ParseFloat(score, 64)
		if err != nil {
			return nil, fmt.Errorf("reading the due set: customer %s: %w", customer, err)
		}
		out = append(out, DueEntry{customer, int64(due)})
	}
	return out, nil
}

// Put is one customer's new record.
type Put struct {
	Customer string
	Value    []byte
	Due      int64 // NeverDue for never
	DueMoved bool  // Due differs from what the due set holds, or the customer is new
}

// Batch is what one script writes.
type Batch struct {
	Identity  protocol.Identity // expected
	Point     protocol.Point    // after
	State     *protocol.State   // after; nil for a step of loading, see Fill
	Flood     *protocol.Flood   // after
	Genesis   *protocol.Genesis // of the genesis, and of a rebase
	Rebased   *protocol.Rebased // of a rebase only
	Published protocol.Published
	Drop      []uint64        // outbox entries known to be published
	Entry     *protocol.Entry // nil when nothing is to be published (re-applied)
	Customers []Put
	Wait      []WaitingValue
	Unwait    []WaitingKey
}

// WaitingValue is the original record of a return that waits for its order.
type WaitingValue struct {
	WaitingKey
	Record []byte
}

// Apply writes a batch: all of it, or nothing.
func (s *Store) Apply(ctx context.Context, b *Batch) (protocol.Answer, error) {
	gen := b.Identity.Gen
	args := make([]any, 0, 64+3*len(b.Customers)+len(b.Drop))
	args = appendIdentity(args, b.Identity)
	args = append(args, chainText(protocol.Identity{Point: b.Point, Loading: b.State == nil}), s.lease.Milliseconds())

	count := func() int { args = append(args, 0); return len(args) - 1 }
	close := func(at int) { args[at] = len(args) - at - 1 }

	at := count()
	args = append(args, "seq", u64(b.Point.Seq))
	if b.State != nil {
		args = appendState(args, b.State, b.Flood, b.Published)
	}
	if b.Genesis != nil {
		args = appendGenesis(args, b.Genesis)
	}
	if b.Rebased != nil {
		args = appendRebased(args, b.Rebased)
	}
	close(at)
	at = count()
	keys := s.keys.customers(gen, b.Customers)
	for i := range b.Customers {
		args = append(args, keys[i], b.Customers[i].Value)
	}
	close(at)
	at = count()
	for i := range b.Customers {
		if c := &b.Customers[i]; c.DueMoved {
			args = append(args, score(c.Due), c.Customer)
		}
	}
	close(at)
	at = count()
	for i := range b.Wait {
		args = append(args, s.keys.Waiting(gen, b.Wait[i].WaitingKey), b.Wait[i].Record)
	}
	close(at)
	at = count()
	for i := range b.Unwait {
		args = append(args, s.keys.Waiting(gen, b.Unwait[i]))
	}
	close(at)
	at = count()
	for _, seq := range b.Drop {
		args = append(args, u64(seq))
	}
	close(at)
	at = count()
	if b.Entry != nil {
		p := packs.Get().(*packBuffers)
		defer packs.Put(p) // the client has written it, or given up, when run returns
		args = append(args, u64(b.Entry.Seq), p.pack(b.Entry))
	}
	close(at)

	v, err := s.run(ctx, applyScript, []string{s.keys.Fence(), s.keys.Outbox(), s.keys.Due(gen)}, args)
	if err != nil {
		return protocol.Rejected, fmt.Errorf("applying batch %d: %w", b.Point.Seq, err)
	}
	switch n, _ := v[0].(int64); n {
	case 1:
		return protocol.Accepted, nil
	case 2:
		return protocol.Already, nil
	default:
		return protocol.Rejected, nil
	}
}

// packedEntry is the first byte of a compressed outbox entry; an S2 block
// follows. An entry as protocol encodes it begins with another, that of a
// MessagePack array.
const packedEntry = 0xc1 // MessagePack leaves it unused

// packBuffers are what packing needs, some megabytes each.
type packBuffers struct{ raw, packed []byte }

var packs = sync.Pool{New: func() any { return new(packBuffers) }}

// pack is the entry as the outbox holds it, in p's memory: valid until the next
// call. Tier changes resemble each other, and Redis copies every byte several
// times on its way to its log: uncompressed, they were a third of its work.
func (p *packBuffers) pack(e *protocol.Entry) []byte {
	p.raw = e.Append(slices.Grow(p.raw[:0], e.Size()))
	if len(p.raw) < 1<<10 {
		return p.raw
	}
	p.packed = slices.Grow(p.packed[:0], 1+s2.MaxEncodedLen(len(p.raw)))
	p.packed = append(p.packed, packedEntry)
	return p.packed[:1+len(s2.Encode(p.packed[1:cap(p.packed)], p.raw))]
}

func unpackEntry(b []byte) (*protocol.Entry, error) {
	if len(b) > 0 && b[0] == packedEntry {
		raw, err := s2.Decode(nil, b[1:])
		if err != nil {
			return nil, fmt.Errorf("decompressing an entry: %w", err)
		}
		b = raw
	}
	return protocol.DecodeEntry(b)
}

func score(due int64) string {
	switch due {
	case NeverDue:
		return "+inf"
	case Pending:
		return "-inf"
	}
	return i64(due)
}

// Fence reads the fence without owning the partition; nil when there is none.
func (s *Store) Fence(ctx context.Context) (*protocol.Fence, error) {
	m, err := s.rdb.HGetAll(ctx, s.keys.Fence()).Result()
	if err != nil {
		return nil, fmt.Errorf("reading the fence: %w", err)
	}
	if len(m) == 0 {
		return nil, nil
	}
	return parseFence(m)
}

// readScript reads a customer and the fence in one atomic command.
var readScript = redis.NewScript(`
local f = redis.call('HGETALL', KEYS[1])
local g = redis.call('HGET', KEYS[1], 'gen')
if not g then return {0} end
return {1, f, redis.call('GET', ARGV[1] .. 'g' .. g .. ':c:' .. ARGV[2])}`)

// Read returns a customer's record together with the fence as of the same
// instant, without owning the partition. The record is nil when there is none,
// the fence when the partition was never started.
func (s *Store) Read(ctx context.Context, customer string) ([]byte, *protocol.Fence, error) {
	v, err := s.run(ctx, readScript, []string{s.keys.Fence()}, []any{s.keys.base, customer})
	if err != nil {
		return nil, nil, fmt.Errorf("reading customer %s: %w", customer, err)
	}
	if !accepted(v) {
		return nil, nil, nil
	}
	m, err := hash(v[1])
	if err != nil {
		return nil, nil, fmt.Errorf("reading customer %s: %w", customer, err)
	}
	f, err := parseFence(m)
	if err != nil {
		return nil, nil, fmt.Errorf("reading customer %s: %w", customer, err)
	}
	if len(v) < 3 || v[2] == nil {
		return nil, f, nil
	}
	text, _ := v[2].(string)
	return []byte(text), f, nil
}

// Each calls fn for every customer of the partition, in no order, and returns
// the fence as read before the first of them. A customer that is written
// meanwhile may be newer than that fence (each record knows the seq that last
// wrote it) and may come twice; none that was there at the beginning is left
// out.
func (s *Store) Each(ctx context.Context, fn func(customer string, value []byte) error) (*protocol.Fence, error) {
	f, err := s.Fence(ctx)
	if err != nil || f == nil {
		return f, err
	}
	for cursor := uint64(0); ; {
		page, next, err := s.rdb.ZScan(ctx, s.keys.Due(f.Gen), cursor, "", 1000).Result()
		if err != nil {
			return f, fmt.Errorf("listing customers: %w", err)
		}
		keys := make([]string, 0, len(page)/2)
		for i := 0; i < len(page); i += 2 { // member, score
			keys = append(keys, s.keys.Customer(f.Gen, page[i]))
		}
		if len(keys) > 0 {
			vs, err := s.rdb.MGet(ctx, keys...).Result()
			if err != nil {
				return f, fmt.Errorf("reading customers: %w", err)
			}
			for i, v := range vs {
				if text, ok := v.(string); ok {
					if err := fn(page[2*i], []byte(text)); err != nil {
						return f, err
					}
				}
			}
		}
		if cursor = next; cursor == 0 {
			return f, nil
		}
	}
}

// Time is the clock of the Redis that has the partition.
func (s *Store) Time(ctx context.Context) (time.Time, error) {
	if cluster, ok := s.rdb.(*redis.ClusterClient); ok {
		node, err := cluster.MasterForKey(ctx, s.keys.Fence())
		if err != nil {
			return time.Time{}, err
		}
		return node.Time(ctx).Result()
	}
	return s.rdb.Time(ctx).Result()
}

// Check refuses a Redis that may lose state by policy or cannot run scripts;
// of a cluster it asks every primary. A server that does not tell its policy
// (managed services may hide CONFIG) is accepted with the returned warning.
func Check(ctx context.Context, rdb redis.UniversalClient) (warning string, err error) {
	var mu sync.Mutex
	err = eachPrimary(ctx, rdb, func(ctx context.Context, c redis.UniversalClient) error {
		w, err := check(ctx, c)
		mu.Lock()
		defer mu.Unlock()
		if w != "" {
			warning = w
		}
		return err
	})
	if err != nil {
		return "", err
	}
	if _, cluster := rdb.(*redis.ClusterClient); !cluster && isCluster(ctx, rdb) {
		return "", errors.New("Redis is a node of a cluster: give --redis-cluster")
	}
	return warning, nil
}

func check(ctx context.Context, rdb redis.UniversalClient) (warning string, err error) {
	if err := rdb.Eval(ctx, "return 1", nil).Err(); err != nil {
		return "", fmt.Errorf("Redis cannot run scripts: %w", err)
	}
	m, err := rdb.ConfigGet(ctx, "maxmemory-policy").Result()
	if err != nil {
		if isNetwork(err) {
			return "", fmt.Errorf("asking Redis for its eviction policy: %w", err)
		}
		return "Redis does not tell its maxmemory-policy: make sure that it is noeviction", nil
	}
	if p := m["maxmemory-policy"]; p != "noeviction" {
		return "", fmt.Errorf("Redis has maxmemory-policy %s, which may evict customers: set it to noeviction", p)
	}
	return "", nil
}

// isCluster asks a server for its mode, which needs no permission. One that
// does not tell is none: its scripts would say MOVED.
func isCluster(ctx context.Context, rdb redis.UniversalClient) bool {
	hello := redis.NewMapStringInterfaceCmd(ctx, "hello")
	return rdb.Process(ctx, hello) == nil && hello.Val()["mode"] == "cluster"
}

// IsTemporary reports whether an error of this package is worth another try:
// anything but a reply by which Redis refuses for good.
func IsTemporary(err error) bool {
	if err == nil || errors.Is(err, ErrFenced) {
		return false
	}
	var reply redis.Error
	if !errors.As(err, &reply) {
		return true
	}
	for _, p := range []string{"LOADING", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "READONLY", "MASTERDOWN", "OOM", "MISCONF", "NOREPLICAS", "NOSCRIPT", "MOVED", "ASK"} {
		if strings.HasPrefix(reply.Error(), p) {
			return true
		}
	}
	return false
}
