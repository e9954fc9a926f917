//go:build unix

package torture

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/rig"
	"github.com/tierstream/tierstream/internal/state"
	"github.com/tierstream/tierstream/internal/testenv"
)

// follower reads the committed journal as it grows. What it counts never goes
// back, unlike what Redis says.
type follower struct {
	t      testing.TB
	client *kgo.Client

	mu     sync.Mutex
	last   []*protocol.Record // by partition
	points []map[protocol.Point]bool
	wake   chan struct{} // closed and replaced with every record
	newest int32         // partition of the newest record
}

func follow(t testing.TB, w *rig.World) *follower {
	t.Helper()
	n := w.Config.Partitions
	f := &follower{t: t, last: make([]*protocol.Record, n), wake: make(chan struct{})}
	for range n {
		f.points = append(f.points, map[protocol.Point]bool{})
	}
	f.client = w.Open(kgo.ConsumeTopics(w.Topics.Journal), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(50*time.Millisecond))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			// Errors are brokers being away; the client tries again.
			f.client.PollFetches(ctx).EachRecord(f.take)
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return f
}

func (f *follower) take(r *kgo.Record) {
	rec, err := protocol.DecodeRecord(r.Value)
	if err != nil {
		f.t.Errorf("journal record at offset %d: %v", r.Offset, err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if last := f.last[r.Partition]; last != nil && rec.Seq != last.Seq+1 {
		f.t.Errorf("partition %d: the journal goes from %d to %d", r.Partition, last.Seq, rec.Seq)
	}
	f.last[r.Partition], f.newest = rec, r.Partition
	f.points[r.Partition][protocol.Point{Seq: rec.Seq, Chain: rec.Chain}] = true
	close(f.wake)
	f.wake = make(chan struct{})
}

// published is how many input records are applied and published.
func (f *follower) published() (n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, rec := range f.last {
		if rec != nil {
			n += rec.State.Read
		}
	}
	return n
}

// reached is how many input records of each partition are applied and
// published.
func (f *follower) reached() (out []int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, rec := range f.last {
		out = append(out, rec.State.Read)
	}
	return out
}

// has says whether a point is in the journal, or ahead of it.
func (f *follower) has(p int, at protocol.Point) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.points[p][at] || at.Seq > f.last[p].Seq
}

// next is closed when the next record is there.
func (f *follower) next() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wake
}

// strange are the partitions that another Redis, sampled, holds at a point
// of another branch: one that is not in the journal, and to whose outbox the
// journal's end does not lead.
func (f *follower) strange(others []*state.Sample) (ps []int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for p, o := range others {
		if o.Fence == nil || o.Fence.Loading || f.points[p][o.Fence.Point] {
			continue
		}
		end := f.last[p]
		if !slices.ContainsFunc(o.Outbox, func(e *protocol.Entry) bool { return e.Seq == end.Seq+1 && e.Parent == end.Chain }) {
			ps = append(ps, p)
		}
	}
	return ps
}

// sample reads what a Redis server holds of every partition.
func (r *run) sample(server *testenv.RedisServer) (out []*state.Sample) {
	r.t.Helper()
	rdb, err := state.Open(server.Addr(), "")
	r.must(err)
	defer rdb.Close()
	for p := range r.w.Config.Partitions {
		s, err := state.NewStore(rdb, r.w.Namespace, p, rig.Lease).Sample(r.ctx, nil)
		r.must(err)
		out = append(out, s)
	}
	return out
}
