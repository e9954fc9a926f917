package search

import (
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/state"
)

// The Redis that is searched is the one that package state's scripts make of a
// real one: every script of a random way is run there too, and must answer the
// same and leave the same.
func TestScriptsAreAsModelled(t *testing.T) {
	ways := 100
	if raceEnabled || testing.Short() {
		ways = 20
	}
	met := map[kind]int{}
	for seed := range uint64(ways) {
		m := newMirror(t)
		w := newWalk(wide, newBook(0), seed)
		var before world
		var ms []move
		for len(w.made) < maxMoves {
			if ms = w.world.moves(ms[:0]); len(ms) == 0 {
				break
			}
			next := w.choose(ms)
			w.world.fork(&before)
			w.made = append(w.made, next)
			if err := w.world.do(next); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			met[next.kind]++
			if m.move(&before, next, w.world); t.Failed() {
				t.Fatalf("seed %d: Redis differs after\n%s", seed, strings.Join(trace(w.cfg, w.made), "\n"))
			}
		}
	}
	for _, k := range []kind{acquire, raise, fill, visit, install, load, apply, reapply, retry, compare, remove, lose, damage, oversleep, renew} {
		if met[k] == 0 {
			t.Errorf("no way had a %s", k)
		}
	}
}

const (
	leaseTime = 10 * time.Second
	customer  = "c" // whose record is the world's value
)

// mirror is a Redis that follows a world.
type mirror struct {
	*testing.T
	redis *miniredis.Miniredis
	keys  state.Keys
	store *state.Store
	kept  map[*store]dump
}

func newMirror(t *testing.T) *mirror {
	r := miniredis.RunT(t)
	c := redis.NewClient(&redis.Options{Addr: r.Addr(), MaxRetries: -1})
	t.Cleanup(func() { c.Close() })
	return &mirror{T: t, redis: r, keys: state.PartitionKeys("n", 0), store: state.NewStore(c, "n", 0, leaseTime), kept: map[*store]dump{}}
}

// clock is the time of a world, and some of the lease's time after it.
func (m *mirror) clock(w *world, after time.Duration) {
	m.redis.SetTime(time.UnixMilli(1e12).Add(time.Duration(w.now)*leaseTime + after))
}

// move does in Redis what mv does in the world, which goes from a to b.
func (m *mirror) move(a *world, mv move, b *world) {
	m.Helper()
	m.clock(a, 0)
	ctx := m.Context()
	o, then := &a.owners[mv.who%maxOwners], &b.owners[mv.who%maxOwners]
	id := o.m.Identity()
	refused := !a.holds(id) || a.over()
	switch mv.kind {
	case acquire:
		if len(m.kept) == 0 {
			m.keep(a.redis)
		}
		f, outbox, fresh, err := m.store.Acquire(ctx, nonce(b.redis.owner))
		switch {
		case err != nil:
			m.Fatal(err)
		case fresh == a.redis.exists || len(outbox) != len(b.redis.outbox) || f.Identity != then.m.Identity() || f.Damaged:
			m.Errorf("acquired %+v fresh %v with %d entries, want %+v with %d", f, fresh, len(outbox), then.m.Identity(), len(b.redis.outbox))
		}
	case raise:
		gen, err := m.store.Raise(ctx, id, uint64(b.redis.base), []protocol.Position{{Next: int64(b.book.of(b.redis.basis).to), LeaderEpoch: -1}})
		m.accepted(err, !refused)
		if err == nil && gen != uint64(b.redis.gen) {
			m.Errorf("raised to %d, want %d", gen, b.redis.gen)
		}
	case fill:
		got, err := m.store.Fill(ctx, id, puts(b.redis.value(int8(id.Gen))), nil, nil)
		m.answered(got, err, refused, false)
	case install:
		m.apply(a, &script{id: id, to: o.first, known: protocol.Published{Point: a.book.at(o.first), LeaderEpoch: -1}}, refused)
	case apply, reapply, visit:
		s := then.script
		if s == nil && !refused {
			return // nothing was sent
		}
		if s == nil { // whatever it was
			s = &script{id: id, to: a.book.point(batch{parent: max(o.at, 1), from: 99, to: 99}), value: 1, outbox: true}
		}
		m.apply(a, s, refused)
	case retry:
		m.apply(a, o.script, !then.up)
	case load:
		vs, err := m.store.Load(ctx, id, []string{customer})
		switch {
		case errors.Is(err, state.ErrDamaged):
			if then.up || !a.holds(id) || b.owners[mv.who].condemned != a.redis.gen {
				m.Error("Redis misses the customer, the world does not")
			}
		case err == nil && then.up:
			if number(vs[0]) != then.value {
				m.Errorf("loaded %d, want %d", number(vs[0]), then.value)
			}
		default:
			m.accepted(err, then.up)
		}
	case compare:
		m.accepted(m.store.Compare(ctx, id), a.holds(id))
	case remove:
		err := m.store.Forget(ctx, id, state.Abandoned{Gen: uint64(o.old), Customers: []string{customer}}, nil)
		m.accepted(err, b.redis != a.redis)
	case renew:
		m.accepted(m.store.Renew(ctx, id), then.up)
	case oversleep:
		m.clock(a, leaseTime-time.Duration(a.now+1)*time.Millisecond) // those who are awake renew in time
		for i := range a.owners[:a.cfg.Owners] {
			if other := &a.owners[i]; int8(i) != mv.who && other.up && !other.late {
				id := other.m.Identity()
				m.accepted(m.store.Renew(ctx, id), a.mine(id) && !a.over())
			}
		}
	case lose:
		m.restore(m.kept[b.redis])
	case damage:
		m.redis.Del(m.keys.Customer(uint64(b.redis.gen), customer))
	default:
		return
	}
	m.same(b)
	if slices.Contains(b.kept, b.redis) {
		m.keep(b.redis)
	}
}

// apply runs a batch's script.
func (m *mirror) apply(a *world, s *script, refused bool) {
	m.Helper()
	f := a.book.of(s.to)
	st := f.record.State
	st.Counters = []int64{0}
	batch := &state.Batch{
		Identity: s.id, Point: a.book.at(s.to), State: &st, Flood: &protocol.Flood{Counters: []int64{0}},
		Genesis: f.record.Origin(), Published: s.known, Drop: s.drop, Customers: puts(s.value),
	}
	if s.outbox {
		batch.Entry = f.entry
	}
	if rb := f.record.Rebase; rb != nil {
		batch.Rebased = &protocol.Rebased{Seq: f.seq, Cause: rb.Cause, Open: !rb.Last}
	}
	already := a.mine(s.id) && a.redis.at != 0 && a.redis.at == s.to
	got, err := m.store.Apply(m.Context(), batch)
	m.answered(got, err, refused, already)
}

func (m *mirror) answered(got protocol.Answer, err error, refused, already bool) {
	m.Helper()
	want := protocol.Accepted
	switch {
	case already:
		want = protocol.Already
	case refused:
		want = protocol.Rejected
	}
	if err != nil || got != want {
		m.Errorf("answer %d, %v; want %d", got, err, want)
	}
}

func (m *mirror) accepted(err error, want bool) {
	m.Helper()
	if err != nil && !errors.Is(err, state.ErrFenced) || (err == nil) != want {
		m.Errorf("%v; accepted should be %v", err, want)
	}
}

// same compares Redis with the world's.
func (m *mirror) same(w *world) {
	m.Helper()
	r := w.redis
	f, err := m.store.Fence(m.Context())
	if err != nil {
		m.Fatal(err)
	}
	if f == nil || !r.exists {
		if f != nil || r.exists {
			m.Errorf("fence %+v, want %+v", f, r)
		}
		return
	}
	want := protocol.Identity{Epoch: uint64(r.epoch), Owner: nonce(r.owner), Gen: uint64(r.gen), Point: w.point(), Loading: r.at == 0}
	if f.Identity != want || f.Base != uint64(r.base) || f.Rebased.Open != r.open || f.Published.Point != r.published.Point || f.Published.Offset != r.published.Offset {
		m.Errorf("fence %+v, want %+v and %+v", f, want, r)
	}
	if r.at != 0 && f.State.Next[0].Next != int64(w.book.of(r.at).to) || r.base != 0 && f.BaseNext[0].Next != int64(w.book.of(r.basis).to) {
		m.Errorf("positions %v, base %v", f.State.Next, f.BaseNext)
	}
	now, err := m.store.Time(m.Context())
	if err != nil {
		m.Fatal(err)
	}
	if a, b := now.UnixMilli() < f.Lease, w.now < r.lease; a != b && now.Equal(time.UnixMilli(1e12).Add(time.Duration(w.now)*leaseTime)) {
		m.Errorf("lease holds: %v, want %v", a, b)
	}
	entries, _ := m.redis.HKeys(m.keys.Outbox())
	if len(entries) != len(r.outbox) {
		m.Errorf("outbox %v, want %s", entries, names(w, r.outbox))
	}
	for _, p := range r.outbox {
		if !slices.Contains(entries, strconv.FormatUint(w.book.of(p).seq, 10)) {
			m.Errorf("outbox %v, want %s", entries, names(w, r.outbox))
		}
	}
	for gen := int8(1); gen <= r.gen; gen++ {
		v, _ := m.redis.Get(m.keys.Customer(uint64(gen), customer))
		if number([]byte(v)) != r.value(gen) {
			m.Errorf("customers of generation %d: %d, want %d", gen, number([]byte(v)), r.value(gen))
		}
	}
}

func puts(v value) []state.Put {
	if v == 0 {
		return nil
	}
	return []state.Put{{Customer: customer, Value: binary.BigEndian.AppendUint16(nil, uint16(v)), Due: 1, DueMoved: true}}
}

func number(b []byte) value {
	if len(b) == 0 {
		return 0
	}
	return value(binary.BigEndian.Uint16(b))
}

// dump is all that a Redis holds.
type dump struct {
	text   map[string]string
	hashes map[string]map[string]string
	zsets  map[string]map[string]float64
	sets   map[string][]string
}

func (m *mirror) keep(s *store) {
	d := dump{map[string]string{}, map[string]map[string]string{}, map[string]map[string]float64{}, map[string][]string{}}
	for _, k := range m.redis.Keys() {
		switch m.redis.Type(k) {
		case "string":
			d.text[k], _ = m.redis.Get(k)
		case "hash":
			d.hashes[k] = map[string]string{}
			fields, _ := m.redis.HKeys(k)
			for _, f := range fields {
				d.hashes[k][f] = m.redis.HGet(k, f)
			}
		case "zset":
			d.zsets[k], _ = m.redis.SortedSet(k)
		case "set":
			d.sets[k], _ = m.redis.Members(k)
		default:
			m.Fatalf("%s is a %s", k, m.redis.Type(k))
		}
	}
	m.kept[s] = d
}

func (m *mirror) restore(d dump) {
	m.redis.FlushAll()
	for k, v := range d.text {
		if err := m.redis.Set(k, v); err != nil {
			m.Fatal(err)
		}
	}
	for k, fields := range d.hashes {
		for f, v := range fields {
			m.redis.HSet(k, f, v)
		}
	}
	for k, members := range d.zsets {
		for member, score := range members {
			if _, err := m.redis.ZAdd(k, score, member); err != nil {
				m.Fatal(err)
			}
		}
	}
	for k, members := range d.sets {
		if _, err := m.redis.SAdd(k, members...); err != nil {
			m.Fatal(err)
		}
	}
}
