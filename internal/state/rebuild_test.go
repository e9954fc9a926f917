package state

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/tierstream/tierstream/internal/protocol"
)

func keysOf(t *testing.T, rdb redis.UniversalClient, pattern string) []string {
	t.Helper()
	keys, err := server(t, rdb).Keys(t.Context(), pattern).Result()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func raise(t *testing.T, s *Store, id protocol.Identity, base uint64, next []protocol.Position) protocol.Identity {
	t.Helper()
	gen, err := s.Raise(t.Context(), id, base, next)
	if err != nil {
		t.Fatal(err)
	}
	id.Gen, id.Point, id.Loading = gen, protocol.Point{}, true
	return id
}

func fence(t *testing.T, s *Store) *protocol.Fence {
	t.Helper()
	f, err := s.Fence(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// If only the fence is lost, what it guarded is still there. It must not be
// taken for state of the life that begins.
func TestAGenerationWithKeysIsNeverTakenAgain(t *testing.T) {
	everywhere(t, func(t *testing.T, rdb redis.UniversalClient) {
		s, id := started(t, rdb, testLease)
		put := Put{Customer: "c", Value: []byte("old"), Due: 1, DueMoved: true}
		apply(t, s, batch(id, 2, put))
		gone := func(keys ...string) {
			t.Helper()
			if err := rdb.Del(t.Context(), keys...).Err(); err != nil {
				t.Fatal(err)
			}
		}
		gone(s.keys.Fence())
		f, _, fresh, err := s.Acquire(t.Context(), protocol.Nonce{2})
		if err != nil || !fresh || f.Gen != 2 {
			t.Fatalf("fresh %v, generation %d, %v", fresh, f.Gen, err)
		}
		// Also when the list of generations is gone with it.
		b := batch(f.Identity, 3, put)
		b.Genesis = &protocol.Genesis{Incarnation: protocol.Nonce{8}}
		apply(t, s, b)
		gone(s.keys.Fence(), s.keys.Generations())
		f, _, fresh, err = s.Acquire(t.Context(), protocol.Nonce{3})
		if err != nil || !fresh || f.Gen != 3 {
			t.Fatalf("fresh %v, generation %d, %v", fresh, f.Gen, err)
		}
		id = f.Identity // of the third
		for range 2 {   // and both are found for deletion
			a, err := s.Abandoned(t.Context(), id, 10, "0")
			if err != nil || a.Gen == 0 {
				t.Fatalf("%+v, %v", a, err)
			}
			if err := s.Forget(t.Context(), id, a, nil); err != nil {
				t.Fatal(err)
			}
		}
		if keys := keysOf(t, rdb, "*:g[12]:*"); len(keys) > 0 {
			t.Errorf("left: %v", keys)
		}
	})
}

// Steps of loading stand at no point of history, yet one that Redis lost is
// missed by the next, and a second try is recognised.
func TestStepsOfLoadingFollowEachOther(t *testing.T) {
	everywhere(t, func(t *testing.T, rdb redis.UniversalClient) {
		s, id := started(t, rdb, testLease)
		id = raise(t, s, id, 1, []protocol.Position{{Next: 7, LeaderEpoch: 2}})
		if f := fence(t, s); f.Base != 1 || !reflect.DeepEqual(f.BaseNext, []protocol.Position{{Next: 7, LeaderEpoch: 2}}) {
			t.Errorf("base %d at %v", f.Base, f.BaseNext)
		}
		fill := func(want protocol.Answer, cs ...Put) {
			t.Helper()
			got, err := s.Fill(t.Context(), id, cs, nil, nil)
			if err != nil || got != want {
				t.Fatalf("answer %d, %v, want %d", got, err, want)
			}
		}
		b, a := Put{Customer: "b", Value: []byte("1"), Due: 5}, Put{Customer: "a", Value: []byte("2"), Due: NeverDue}
		fill(protocol.Accepted, b)
		fill(protocol.Already, b)
		id.Seq++
		before, err := rdb.HGetAll(t.Context(), s.keys.Fence()).Result()
		if err != nil {
			t.Fatal(err)
		}
		fill(protocol.Accepted, a)
		id.Seq++
		// Everybody is pending, in customer order.
		due, err := s.Due(t.Context(), id, Pending, 10)
		if err != nil || !reflect.DeepEqual(due, []DueEntry{{"a", Pending}, {"b", Pending}}) {
			t.Fatalf("due %v, %v", due, err)
		}
		// Redis loses the last step.
		if err := rdb.HSet(t.Context(), s.keys.Fence(), before).Err(); err != nil {
			t.Fatal(err)
		}
		fill(protocol.Rejected, a)
		id.Seq--
		if f := fence(t, s); !f.Loading || f.Seq != 1 {
			t.Fatalf("fence %+v", f.Identity)
		}
		// The first batch of the rebase sets the point; the last ends the base.
		next := batch(id, 9, Put{Customer: "a", Value: []byte("2"), Due: NeverDue, DueMoved: true})
		next.Point.Seq = 40
		next.Rebased = &protocol.Rebased{Seq: 40, Cause: protocol.LogTruncated, Open: true}
		next.Genesis = &protocol.Genesis{Incarnation: protocol.Nonce{8}, Topics: []string{"x"}, Start: []protocol.Position{{Next: 3, LeaderEpoch: -1}}, Adopted: true}
		id = apply(t, s, next)
		f := fence(t, s)
		if f.Rebased != *next.Rebased || f.Base != 1 || !reflect.DeepEqual(f.Genesis, next.Genesis) {
			t.Errorf("fence %+v, genesis %+v", f, f.Genesis)
		}
		if _, _, is := f.Rebuilding(); !is {
			t.Error("a rebase that is not done reads as the truth")
		}
		if due, err = s.Due(t.Context(), id, Pending, 10); err != nil || len(due) != 1 || due[0].Customer != "b" {
			t.Errorf("left %v, %v", due, err)
		}
		last := batch(id, 10, Put{Customer: "b", Value: []byte("1"), Due: 5, DueMoved: true})
		last.Rebased = &protocol.Rebased{Seq: 41, Cause: protocol.LogTruncated}
		apply(t, s, last)
		if f := fence(t, s); f.Rebased != *last.Rebased || f.Base != 0 || f.BaseNext != nil {
			t.Errorf("fence %+v", f)
		}
	})
}

func TestTargetSaysWhenTheStateIsTheTruth(t *testing.T) {
	everywhere(t, func(t *testing.T, rdb redis.UniversalClient) {
		s, id := started(t, rdb, testLease)
		if err := s.Aim(t.Context(), id, 2); err != nil {
			t.Fatal(err)
		}
		for want := uint64(0); want < 2; want++ {
			if done, total, is := fence(t, s).Rebuilding(); !is || done != want || total != 2 {
				t.Errorf("at %d: %d of %d, %v", want, done, total, is)
			}
			id = apply(t, s, batch(id, byte(want+2)))
		}
		if _, _, is := fence(t, s).Rebuilding(); is {
			t.Error("rebuilding at the target")
		}
		raise(t, s, id, 0, nil)
		if _, total, is := fence(t, s).Rebuilding(); !is || total != 2 {
			t.Errorf("loading: %d, %v", total, is)
		}
	})
}

// Keys that somebody deleted are missed, and the fence says so or the read
// does, before anything is computed from their absence.
func TestMissingKeysAreNoticed(t *testing.T) {
	everywhere(t, func(t *testing.T, rdb redis.UniversalClient) {
		s, id := started(t, rdb, testLease)
		b := batch(id, 2, Put{Customer: "c", Value: []byte("v"), Due: NeverDue, DueMoved: true}, Put{Customer: "d", Value: []byte("v"), Due: 3, DueMoved: true})
		b.State.Digest[0] = 1
		id = apply(t, s, b)
		damaged := func() bool {
			t.Helper()
			f, _, _, err := s.Acquire(t.Context(), protocol.Nonce{2})
			if err != nil {
				t.Fatal(err)
			}
			id = f.Identity
			return f.Damaged
		}
		if damaged() {
			t.Fatal("nothing is missing")
		}
		if err := rdb.Del(t.Context(), s.keys.Customer(1, "c")).Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(t.Context(), id, []string{"new", "d", "c"}); !errors.Is(err, ErrDamaged) || !strings.Contains(fmt.Sprint(err), "customer c") {
			t.Errorf("loading a deleted record: %v", err)
		}
		if vs, err := s.Load(t.Context(), id, []string{"new", "d"}); err != nil || vs[0] != nil || vs[1] == nil {
			t.Errorf("loading a new customer: %q, %v", vs, err)
		}
		for _, field := range []string{"next", "published_chain", "owner"} {
			was, err := rdb.HGet(t.Context(), s.keys.Fence(), field).Result()
			if err != nil {
				t.Fatal(err)
			}
			if err := rdb.HDel(t.Context(), s.keys.Fence(), field).Err(); err != nil {
				t.Fatal(err)
			}
			if got := damaged(); got != (field != "owner") { // the owner is written anew
				t.Errorf("field %s deleted: damaged %v", field, got)
			}
			if field != "owner" {
				if err := rdb.HSet(t.Context(), s.keys.Fence(), field, was).Err(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := rdb.HSet(t.Context(), s.keys.Fence(), "counters", "x").Err(); err != nil {
			t.Fatal(err)
		}
		if !damaged() {
			t.Error("a field that cannot be read is no damage")
		}
		if err := rdb.HSet(t.Context(), s.keys.Fence(), "counters", "1").Err(); err != nil {
			t.Fatal(err)
		}
		if err := rdb.Del(t.Context(), s.keys.Due(1)).Err(); err != nil {
			t.Fatal(err)
		}
		if !damaged() {
			t.Error("a due set that is gone is no damage")
		}
		// Without its index, the generation is found among all keys.
		id = raise(t, s, id, 0, nil)
		if err := rdb.Set(t.Context(), "other{test:3}", "1", 0).Err(); err != nil {
			t.Fatal(err)
		}
		cursor := "0"
		for {
			a, err := s.Abandoned(t.Context(), id, 3, cursor)
			if err != nil {
				t.Fatal(err)
			}
			if cursor = a.Cursor; !a.More {
				break
			}
		}
		if keys := keysOf(t, rdb, "*:g1:*"); len(keys) > 0 || len(keysOf(t, rdb, "other*")) != 1 {
			t.Errorf("left: %v", keys)
		}
	})
}

// Old generations go in bounded steps; the fence's own, and the one a rebase
// begins from, never.
func TestOldGenerationsAreDeletedInSteps(t *testing.T) {
	everywhere(t, func(t *testing.T, rdb redis.UniversalClient) {
		s, id := started(t, rdb, testLease)
		many := func(n int) (ps []Put) {
			for i := range n {
				ps = append(ps, Put{Customer: fmt.Sprintf("c%02d", i), Value: []byte("v"), Due: int64(i), DueMoved: true})
			}
			return ps
		}
		w := WaitingKey{"c03", 77}
		b := batch(id, 2, many(25)...)
		b.Wait = []WaitingValue{{w, []byte("original")}}
		id = apply(t, s, b)
		id = raise(t, s, id, 1, nil)
		fill, err := s.Fill(t.Context(), id, many(5), nil, nil)
		if err != nil || fill != protocol.Accepted {
			t.Fatal(fill, err)
		}
		id.Seq++
		if a, err := s.Abandoned(t.Context(), id, 10, "0"); err != nil || a.Gen != 0 {
			t.Fatalf("the base is abandoned: %+v, %v", a, err)
		}
		if err := s.Forget(t.Context(), id, Abandoned{Gen: 1, Customers: []string{"c01"}}, nil); !errors.Is(err, ErrFenced) {
			t.Errorf("deleting from the base: %v", err)
		}
		if err := s.Forget(t.Context(), id, Abandoned{Gen: 2, Customers: []string{"c01"}}, nil); !errors.Is(err, ErrFenced) {
			t.Errorf("deleting from the fence's own generation: %v", err)
		}
		// Members are listed each once, by rank.
		var members []string
		for from := 0; ; from += 10 {
			page, err := s.Members(t.Context(), id, 1, from, 10)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			members = append(members, page...)
		}
		if vs, err := s.LoadFrom(t.Context(), id, 1, members); err != nil || len(vs) != 25 || string(vs[24]) != "v" {
			t.Errorf("%d records of the base, %v", len(vs), err)
		}
		if vs, err := s.LoadWaitingFrom(t.Context(), id, 1, []WaitingKey{w}); err != nil || string(vs[0]) != "original" {
			t.Errorf("original %q, %v", vs, err)
		}
		id = raise(t, s, id, 0, nil)
		stale := id
		stale.Epoch--
		if _, err := s.Abandoned(t.Context(), stale, 10, "0"); !errors.Is(err, ErrFenced) {
			t.Errorf("looking as another: %v", err)
		}
		steps := 0
		for ; ; steps++ {
			a, err := s.Abandoned(t.Context(), id, 10, "0")
			if err != nil {
				t.Fatal(err)
			}
			if a.Gen == 0 {
				break
			}
			if len(a.Customers) > 10 || len(a.Records) != len(a.Customers) {
				t.Fatalf("a step of %d customers and %d records", len(a.Customers), len(a.Records))
			}
			if err := s.Forget(t.Context(), stale, a, nil); !errors.Is(err, ErrFenced) {
				t.Fatalf("deleting as another: %v", err)
			}
			var waiting []WaitingKey
			if a.Gen == 1 {
				waiting = []WaitingKey{w}
			}
			if err := s.Forget(t.Context(), id, a, waiting); err != nil {
				t.Fatal(err)
			}
		}
		if steps != 4 {
			t.Errorf("%d steps for 25 and 5 customers", steps)
		}
		if keys := keysOf(t, rdb, "*:g[12]:*"); len(keys) > 0 {
			t.Errorf("left: %v", keys)
		}
	})
}

// An owner that overslept writes nothing, also where Redis names it still.
func TestNoScriptWritesWithoutTheLease(t *testing.T) {
	everywhere(t, func(t *testing.T, rdb redis.UniversalClient) {
		s, id := started(t, rdb, testLease)
		id = apply(t, s, batch(id, 2, Put{Customer: "c", Value: []byte("v"), Due: 1, DueMoved: true}))
		id = raise(t, s, id, 0, nil)
		if err := rdb.HSet(t.Context(), s.keys.Fence(), "lease", "1").Err(); err != nil {
			t.Fatal(err)
		}
		before := dump(t, rdb)
		if a, err := s.Fill(t.Context(), id, []Put{{Customer: "d", Value: []byte("v")}}, nil, nil); err != nil || a != protocol.Rejected {
			t.Errorf("fill: %d, %v", a, err)
		}
		for name, err := range map[string]error{
			"aim": s.Aim(t.Context(), id, 9), "forget": s.Forget(t.Context(), id, Abandoned{Gen: 1, Customers: []string{"c"}}, nil),
			"raise": second(s.Raise(t.Context(), id, 0, nil)), "abandoned": second(s.Abandoned(t.Context(), id, 9, "0")),
			"renew": s.Renew(t.Context(), id),
		} {
			if !errors.Is(err, ErrFenced) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if after := dump(t, rdb); after != before {
			t.Errorf("written:\n%s\nwas\n%s", after, before)
		}
	})
}

func second[T any](_ T, err error) error { return err }
