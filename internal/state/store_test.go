package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// everywhere runs a test on the fake, on the real Redis and on a cluster of
// it: what the protocol asks of scripts must hold on each.
func everywhere(t *testing.T, f func(t *testing.T, rdb redis.UniversalClient)) {
	t.Run("miniredis", func(t *testing.T) {
		m := miniredis.RunT(t)
		f(t, open(t, m.Addr()))
	})
	t.Run("redis", func(t *testing.T) {
		f(t, open(t, testenv.Redis(t, testenv.RedisOptions{}).Addr()))
	})
	t.Run("cluster", func(t *testing.T) {
		rdb := clustered(t, testenv.SharedRedisCluster(t))
		t.Cleanup(func() {
			err := eachPrimary(context.Background(), rdb, func(ctx context.Context, node redis.UniversalClient) error {
				return node.FlushAll(ctx).Err()
			})
			if err != nil {
				t.Error(err)
			}
		})
		f(t, rdb)
	})
}

func clustered(t *testing.T, c *testenv.RedisCluster) redis.UniversalClient {
	t.Helper()
	rdb, err := OpenWith(Options{Address: strings.Join(c.Addrs(), ","), Cluster: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

// server is the server that has the partition of the tests, for commands that
// name no key.
func server(t *testing.T, rdb redis.UniversalClient) redis.UniversalClient {
	t.Helper()
	cluster, ok := rdb.(*redis.ClusterClient)
	if !ok {
		return rdb
	}
	node, err := cluster.MasterForKey(t.Context(), PartitionKeys("test", 3).Fence())
	if err != nil {
		t.Fatal(err)
	}
	return node
}

func open(t *testing.T, addr string) redis.UniversalClient {
	t.Helper()
	rdb, err := Open(addr, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

const testLease = 10 * time.Second

// batch is a batch after id that writes the customers.
func batch(id protocol.Identity, chain byte, cs ...Put) *Batch {
	return &Batch{
		Identity: id, Point: protocol.Point{Seq: id.Seq + 1, Chain: protocol.Hash{chain}},
		State:     &protocol.State{Clock: 5, Next: []protocol.Position{{Next: 7, LeaderEpoch: 2}}, Counters: []int64{1, 2}, Sweep: protocol.Bound{Due: 3, Customer: "x y"}},
		Flood:     &protocol.Flood{Read: 1, Counters: []int64{3}},
		Published: protocol.Published{Point: protocol.Point{Seq: 1}, Offset: 11, LeaderEpoch: -1},
		Entry:     &protocol.Entry{Seq: id.Seq + 1, Parent: id.Chain, Chain: protocol.Hash{chain}, Journal: []byte("j")},
		Customers: cs,
	}
}

// started is a partition that has been acquired and stands at a genesis.
func started(t *testing.T, rdb redis.UniversalClient, lease time.Duration) (*Store, protocol.Identity) {
	t.Helper()
	s := NewStore(rdb, "test", 3, lease)
	id := acquire(t, s, 1)
	b := batch(id, 1)
	b.Point.Seq = 0
	b.Entry = nil
	b.Genesis = &protocol.Genesis{Incarnation: protocol.Nonce{8}, LiveSince: 77}
	id = apply(t, s, b)
	return s, id
}

func acquire(t *testing.T, s *Store, owner byte) protocol.Identity {
	t.Helper()
	f, _, _, err := s.Acquire(t.Context(), protocol.Nonce{owner})
	if err != nil {
		t.Fatal(err)
	}
	return f.Identity
}

// apply expects the batch to be accepted and gives the identity after it.
func apply(t *testing.T, s *Store, b *Batch) protocol.Identity {
	t.Helper()
	answer(t, s, b, protocol.Accepted)
	id := b.Identity
	id.Point, id.Loading = b.Point, false
	return id
}

func answer(t *testing.T, s *Store, b *Batch, want protocol.Answer) {
	t.Helper()
	got, err := s.Apply(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Fatalf("answer %d, want %d", got, want)
	}
}

// dump is everything Redis holds of the partition.
func dump(t *testing.T, rdb redis.UniversalClient) string {
	t.Helper()
	ctx := context.Background()
	keys, err := server(t, rdb).Keys(ctx, "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, k := range keys {
		var v any
		switch rdb.Type(ctx, k).Val() {
		case "string":
			v = rdb.Get(ctx, k).Val()
		case "hash":
			m := rdb.HGetAll(ctx, k).Val()
			delete(m, "lease")
			v = m
		case "zset":
			v = rdb.ZRangeWithScores(ctx, k, 0, -1).Val()
		case "set":
			m := rdb.SMembers(ctx, k).Val()
			slices.Sort(m)
			v = m
		}
		lines = append(lines, fmt.Sprintf("%s = %q", k, fmt.Sprint(v)))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestAcquireCreatesALoadingFenceAndRaisesTheEpoch(t *testing.T) {
	everywhere(t, func(t *testing.T, rdb redis.UniversalClient) {
		s := NewStore(rdb, "test", 0, testLease)
		if f, err := s.Fence(t.Context()); f != nil || err != nil {
			t.Fatalf("fence %v, %v before the first start", f, err)
		}
		f, box, fresh, err := s.Acquire(t.Context(), protocol.Nonce{1})
		if err != nil {
			t.Fatal(err)
		}
		if !fresh || !f.Loading || f.Epoch != 1 || f.Gen != 1 || f.Owner != (protocol.Nonce{1}) || len(box) != 0 {
			t.Fatalf("fresh %v, fence %+v, outbox %v", fresh, f, box)
		}
		f, _, fresh, err = s.Acquire(t.Context(), protocol.Nonce{2})
		if err != nil || fresh || f.Epoch != 2 || !f.Loading {
			t.Fatalf("second: fresh %v, fence %+v, %v", fresh, f, err)
		}
	})
}

func TestFenceAndOutboxComeBackAsWritten(t *testing.T) {
	everywhere(t, func(t *testing.T, rdb redis.UniversalClient) {
		s, id := started(t, rdb, testLease)
		b := batch(id, 2, Put{Customer: "ä b", Value: []byte{0, 1, 255}, Due: 42, DueMoved: true}, Put{Customer: "z", Value: []byte("z"), Due: NeverDue, DueMoved: true})
		apply(t, s, b)
		f, box, _, err := s.Acquire(t.Context(), protocol.Nonce{5})
		if err != nil {
			t.Fatal(err)
		}
		want := protocol.Fence{
			Genesis:  &protocol.Genesis{Incarnation: protocol.Nonce{8}, LiveSince: 77},
			Identity: protocol.Identity{Epoch: 2, Owner: protocol.Nonce{5}, Gen: 1, Point: b.Point},
			Lease:    f.Lease, Incarnation: protocol.Nonce{8}, LiveSince: 77, State: *b.State, Flood: *b.Flood, Published: b.Published,
		}
		if !reflect.DeepEqual(*f, want) {
			t.Errorf("fence\n got %+v\nwant %+v", *f, want)
		}
		if len(box) != 1 || !reflect.DeepEqual(box[0], b.Entry) {
			t.Errorf("outbox %+v", box)
		}
		vs, err := s.Load(t.Context(), f.Identity, []string{"z", "nobody", "ä b"})
		if err != nil || string(vs[0]) != "z" || vs[1] != nil || !bytes.Equal(vs[2], []byte{0, 1, 255}) {
			t.Errorf("loaded %q, %v", vs, err)
		}
		due, err := s.Due(t.Context(), f.Identity, math.MaxInt64-1, 10)
		if err != nil || !reflect.DeepEqual(due, []DueEntry{{"ä b", 42}}) {
			t.Errorf("due %v, %v", due, err)
		}
		v, g, err := s.Read(t.Context(), "z")
		if err != nil || string(v) != "z" || g.Seq != 1 {
			t.Errorf("read %q, %v", v, err)
		}
	})
}

// A write is accepted only if all five identities are the expected ones, and
// a refused one changes nothing.
func TestApplyIsRefusedOnAnyOtherIdentity(t *testing.T) {
	everywhere(t, func(t *testing.T, rdb redis.UniversalClient) {
		s, id := started(t, rdb, testLease)
		before := dump(t, rdb)
		for name, f := range map[string]func(*protocol.Identity){
			"epoch": func(id *protocol.Identity) { id.Epoch++ }, "owner": func(id *protocol.Identity) { id.Owner[3]++ },
			"generation": func(id *protocol.Identity) { id.Gen++ }, "seq": func(id *protocol.Identity) { id.Seq++ },
			"chain": func(id *protocol.Identity) { id.Chain[0]++ }, "loading": func(id *protocol.Identity) { id.Loading = true },
		} {
			other := id
			f(&other)
			b := batch(other, 2, Put{Customer: "c", Value: []byte("v"), Due: 1, DueMoved: true})
			got, err := s.Apply(t.Context(), b)
			if err != nil || got != protocol.Rejected {
				t.Errorf("%s: answer %d, %v", name, got, err)
			}
			if _, err := s.Load(t.Context(), other, []string{"c"}); !errors.Is(err, ErrFenced) {
				t.Errorf("%s: load: %v", name, err)
			}
			if _, err := s.Due(t.Context(), other, 9, 9); !errors.Is(err, ErrFenced) {
				t.Errorf("%s: due: %v", name, err)
			}
			if err := s.Compare(t.Context(), other); !errors.Is(err, ErrFenced) {
				t.Errorf("%s: compare: %v", name, err)
			}
			if _, err := s.Raise(t.Context(), other, 0, nil); !errors.Is(err, ErrFenced) {
				t.Errorf("%s: raise: %v", name, err)
			}
		}
		if after := dump(t, rdb); after != before {
			t.Errorf("a refused script wrote:\n%s\nwas\n%s", after, before)
		}
		if err := s.Compare(t.Context(), id); err != nil {
			t.Errorf("the right identity: %v", err)
		}
	})
}

// A second try of an accepted batch is told so, even when the lease is over
// by then; a different batch at the same place is refused.
func TestSecondTryIsRecognised(t *testing.T) {
	everywhere(t, func(t *testing.T, rdb redis.UniversalClient) {
		s, id := started(t, rdb, testLease)
		b := batch(id, 2, Put{Customer: "c", Value: []byte("v"), Due: 1, DueMoved: true})
		apply(t, s, b)
		before := dump(t, rdb)
		answer(t, s, b, protocol.Already)
		if err := rdb.HSet(t.Context(), s.keys.Fence(), "lease", "1").Err(); err != nil {
			t.Fatal(err)
		}
		answer(t, s, b, protocol.Already)
		answer(t, s, batch(id, 3), protocol.Rejected)
		if after := dump(t, rdb); after != before {
			t.Errorf("a second try wrote:\n%s\nwas\n%s", after, before)
		}
		acquire(t, s, 9)
		answer(t, s, b, protocol.Rejected) // not mine any more
	})
}

func TestApplyNeedsTheLease(t *testing.T) {
	everywhere(t, func(t *testing.T, rdb redis.UniversalClient) {
		s, id := started(t, rdb, testLease)
		if err := rdb.HSet(t.Context(), s.keys.Fence(), "lease", "1").Err(); err != nil {
			t.Fatal(err)
		}
		answer(t, s, batch(id, 2), protocol.Rejected)
		// A paused owner that wakes to a Redis that lost its heir's epoch finds
		// itself named. Only the lease says that time has passed.
		if err := s.Renew(t.Context(), id); !errors.Is(err, ErrFenced) {
			t.Errorf("renewing a lease that is over: %v", err)
		}
		answer(t, s, batch(id, 2), protocol.Rejected)
	})
}

func TestRenewExtendsTheOwnLease(t *testing.T) {
	everywhere(t, func(t *testing.T, rdb redis.UniversalClient) {
		s, id := started(t, rdb, testLease)
		lease := func() int64 {
			t.Helper()
			f, err := s.Fence(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return f.Lease
		}
		// So short that a renewal shows.
		if err := rdb.HSet(t.Context(), s.keys.Fence(), "lease", lease()-testLease.Milliseconds()/2).Err(); err != nil {
			t.Fatal(err)
		}
		before := lease()
		if err := s.Renew(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if now := lease(); now < before+testLease.Milliseconds()/4 {
			t.Errorf("the lease was renewed from %d to %d", before, now)
		}
		other := id
		other.Owner[0]++
		if err := s.Renew(t.Context(), other); !errors.Is(err, ErrFenced) {
			t.Errorf("renewing another's lease: %v", err)
		}
	})
}

func TestOutboxIsTrimmedByTheNextApply(t *testing.T) {
	everywhere(t, func(t *testing.T, rdb redis.UniversalClient) {
		s, id := started(t, rdb, testLease)
		for i := byte(2); i <= 4; i++ {
			id = apply(t, s, batch(id, i))
		}
		b := batch(id, 5)
		b.Drop = []uint64{1, 2}
		apply(t, s, b)
		_, box, _, err := s.Acquire(t.Context(), protocol.Nonce{2})
		if err != nil || len(box) != 2 || box[0].Seq != 3 || box[1].Seq != 4 {
			t.Errorf("outbox %v, %v", box, err)
		}
	})
}

func TestRaiseAbandonsAGeneration(t *testing.T) {
	everywhere(t, func(t *testing.T, rdb redis.UniversalClient) {
		s, id := started(t, rdb, testLease)
		id = apply(t, s, batch(id, 2, Put{Customer: "c", Value: []byte("old"), Due: 1, DueMoved: true}))
		gen, err := s.Raise(t.Context(), id, 0, nil)
		if err != nil || gen != 2 {
			t.Fatalf("generation %d, %v", gen, err)
		}
		f, box, fresh, err := s.Acquire(t.Context(), protocol.Nonce{2})
		if err != nil || fresh || !f.Loading || f.Gen != 2 || len(box) != 0 {
			t.Fatalf("fence %+v, outbox %v, fresh %v, %v", f, box, fresh, err)
		}
		vs, err := s.Load(t.Context(), f.Identity, []string{"c"})
		if err != nil || vs[0] != nil {
			t.Errorf("the new generation has %q, %v", vs, err)
		}
	})
}

func TestWaitingOriginalsComeAndGoWithTheBatch(t *testing.T) {
	everywhere(t, func(t *testing.T, rdb redis.UniversalClient) {
		s, id := started(t, rdb, testLease)
		k := WaitingKey{Customer: "c", Hash: 0xabc}
		b := batch(id, 2)
		b.Wait = []WaitingValue{{k, []byte("original")}}
		id = apply(t, s, b)
		vs, err := s.LoadWaiting(t.Context(), id, []WaitingKey{k})
		if err != nil || string(vs[0]) != "original" {
			t.Fatalf("%q, %v", vs, err)
		}
		b = batch(id, 3)
		b.Unwait = []WaitingKey{k}
		id = apply(t, s, b)
		if vs, err = s.LoadWaiting(t.Context(), id, []WaitingKey{k}); err != nil || vs[0] != nil {
			t.Fatalf("%q, %v", vs, err)
		}
	})
}

// Batches beyond the limits of Lua's unpack and of one load chunk.
func TestLargeBatch(t *testing.T) {
	everywhere(t, func(t *testing.T, rdb redis.UniversalClient) {
		s, id := started(t, rdb, testLease)
		const n = 12_345
		var puts []Put
		var ids []string
		for i := range n {
			c := fmt.Sprintf("c%05d", i)
			ids = append(ids, c)
			puts = append(puts, Put{Customer: c, Value: []byte(c), Due: int64(i % 7), DueMoved: true})
		}
		id = apply(t, s, batch(id, 2, puts...))
		vs, err := s.Load(t.Context(), id, ids)
		if err != nil {
			t.Fatal(err)
		}
		for i := range vs {
			if string(vs[i]) != ids[i] {
				t.Fatalf("customer %s has %q", ids[i], vs[i])
			}
		}
		due, err := s.Due(t.Context(), id, 0, n)
		if err != nil || len(due) != (n+6)/7 || due[0].Customer != "c00000" || due[1].Customer != "c00007" {
			t.Errorf("due: %d entries, %v", len(due), err)
		}
		seen := map[string]bool{}
		if _, err := s.Each(t.Context(), func(c string, v []byte) error { seen[c] = string(v) == c; return nil }); err != nil || len(seen) != n {
			t.Errorf("each: %d customers, %v", len(seen), err)
		}
	})
}

// A script is not rolled back on an error, so whatever can fail must fail
// before the first write.
func TestWrongTypeWritesNothing(t *testing.T) {
	everywhere(t, func(t *testing.T, rdb redis.UniversalClient) {
		s, id := started(t, rdb, testLease)
		if err := rdb.Set(t.Context(), s.keys.Due(1), "not a set", 0).Err(); err != nil {
			t.Fatal(err)
		}
		before := dump(t, rdb)
		if _, err := s.Apply(t.Context(), batch(id, 2, Put{Customer: "c", Value: []byte("v"), Due: 1, DueMoved: true})); err == nil || !strings.Contains(err.Error(), "WRONGTYPE") {
			t.Errorf("error %v", err)
		}
		if after := dump(t, rdb); after != before {
			t.Errorf("wrote:\n%s\nwas\n%s", after, before)
		}
	})
}

// Redis out of memory refuses at the first write, not in the middle.
func TestOutOfMemoryWritesNothing(t *testing.T) {
	rdb := open(t, testenv.Redis(t, testenv.RedisOptions{}).Addr())
	s, id := started(t, rdb, testLease)
	if err := server(t, rdb).ConfigSet(t.Context(), "maxmemory", "1mb").Err(); err != nil {
		t.Fatal(err)
	}
	if err := rdb.Set(t.Context(), "filler", make([]byte, 2<<20), 0).Err(); err != nil && !strings.Contains(err.Error(), "OOM") {
		t.Fatal(err)
	}
	before := dump(t, rdb)
	_, err := s.Apply(t.Context(), batch(id, 2, Put{Customer: "c", Value: []byte("v"), Due: 1, DueMoved: true}))
	if err == nil || !strings.Contains(err.Error(), "OOM") || !IsTemporary(err) {
		t.Errorf("error %v, temporary %v", err, IsTemporary(err))
	}
	if after := dump(t, rdb); after != before {
		t.Errorf("wrote:\n%s\nwas\n%s", after, before)
	}
}

func TestCheckRefusesEviction(t *testing.T) {
	good := open(t, testenv.Redis(t, testenv.RedisOptions{}).Addr())
	if w, err := Check(t.Context(), good); w != "" || err != nil {
		t.Errorf("noeviction: %q, %v", w, err)
	}
	bad := open(t, testenv.Redis(t, testenv.RedisOptions{MaxMemoryPolicy: "allkeys-lru"}).Addr())
	if _, err := Check(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "noeviction") {
		t.Errorf("allkeys-lru: %v", err)
	}
	if err := Reach(t.Context(), open(t, "127.0.0.1:1"), "redis://u:secret@127.0.0.1:1"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("unreachable: %v", err)
	}
}

func TestScriptsSurviveAFlushOfTheScriptCache(t *testing.T) {
	everywhere(t, func(t *testing.T, rdb redis.UniversalClient) {
		s, id := started(t, rdb, testLease)
		if err := server(t, rdb).ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		apply(t, s, batch(id, 2))
	})
}
