//go:build unix

package rig

import (
	"context"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/state"
)

// Fleet are the consumers of a world, of which some are dead.
type Fleet struct {
	W    *World
	Args []string // of every consumer that is started
	On   []*Consumer
	// Further, if there is one, gives further arguments of the nth consumer.
	Further func(n int) []string
	started int
}

// Start adds a consumer.
func (f *Fleet) Start() {
	args := slices.Clone(f.Args)
	if f.Further != nil {
		args = append(args, f.Further(f.started)...)
	}
	f.started++
	f.On = append(f.On, f.W.Start(args...))
}

// Owner is the index of the consumer that says it owns a partition, else any.
func (f *Fleet) Owner(p int32) int {
	for i, c := range f.On {
		if slices.Contains(c.Owned(), p) {
			return i
		}
	}
	return 0
}

// Kill ends a consumer as a crash would.
func (f *Fleet) Kill(i int) {
	c := f.On[i]
	f.On = slices.Delete(f.On, i, i+1)
	c.Kill()
}

// AfterCommit waits until a batch is published that its owner cannot have
// trimmed yet, because that takes the next batch, and returns its partition.
func (w *World) AfterCommit() int32 {
	w.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.Config.Brokers...), kgo.ConsumeTopics(w.Topics.Journal),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		w.t.Fatal(err)
	}
	defer cl.CloseAllowingRebalance()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			w.t.Fatalf("watching the journal: %v", err)
		}
		if rs := fs.Records(); len(rs) > 0 {
			return rs[0].Partition
		}
	}
}

// AfterApply waits until a batch is applied that is not published yet, and
// returns its partition.
func (w *World) AfterApply() (at int32) {
	w.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	ctx := context.Background()
	before := make([]int64, w.Config.Partitions)
	for first := true; time.Now().Before(deadline); first = false {
		for p := range w.Config.Partitions {
			// Not HLEN: entries that are published and await their trim count too.
			seq, err := w.RDB.HGet(ctx, state.PartitionKeys(w.Namespace, p).Fence(), "seq").Int64()
			if err == nil && !first && seq > before[p] {
				return p
			}
			before[p] = seq
		}
	}
	w.t.Fatal("no batch was applied")
	return 0
}

// OpenBatches counts the outbox entries that are not published, over all partitions:
// what the next owners have to publish.
func (w *World) OpenBatches() int {
	n := 0
	fs, err := w.Fences()
	if err != nil {
		w.t.Fatal(err)
	}
	for p, r := range w.Last(w.Topics.Journal) {
		published := uint64(0)
		if r != nil {
			rec, err := protocol.DecodeRecord(r.Value)
			if err != nil {
				w.t.Fatal(err)
			}
			published = rec.Seq
		}
		if fs[p] != nil && fs[p].Seq > published {
			n += int(fs[p].Seq - published)
		}
	}
	return n
}

// Seed is where a test's random choices begin: $TIERSTREAM_TEST_SEED, else the
// time.
func Seed(t testing.TB) uint64 {
	t.Helper()
	s := uint64(time.Now().UnixNano())
	if v := os.Getenv("TIERSTREAM_TEST_SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("TIERSTREAM_TEST_SEED: %v", err)
		}
		s = n
	}
	t.Logf("seed %d (repeat with TIERSTREAM_TEST_SEED)", s)
	return s
}

// Progress waits until that many records are applied.
func (w *World) Progress(n int64) {
	w.t.Helper()
	Until(w.t, 90*time.Second, "waiting for Progress", func() error {
		fs, err := w.Fences()
		if err != nil {
			return err
		}
		var read int64
		for _, f := range fs {
			if f != nil {
				read += f.State.Read
			}
		}
		if read < n {
			return ErrNotYet
		}
		return nil
	})
}
