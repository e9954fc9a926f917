//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/rig"
	"github.com/tierstream/tierstream/internal/scoring"
	"github.com/tierstream/tierstream/internal/state"
	"github.com/tierstream/tierstream/internal/stream"
	"github.com/tierstream/tierstream/internal/testenv"
)

// past is a world with some history, which nobody consumes any more.
func past(t testing.TB, seed uint64) *world {
	t.Helper()
	w := newWorld(t, testenv.RedisOptions{})
	c := w.Start()
	w.Send(w.Take(rig.Traffic(t, seed, 0.02), 300))()
	w.Settled(30 * time.Second)
	c.Stop()
	return w
}

// stops starts a consumer, all partitions of which must stop with the given
// reason, and nothing is applied or published.
func (w *world) stops(more []string, want ...string) {
	w.t.Helper()
	journal := w.Count(w.Topics.Journal)
	changes := w.Count(w.Topics.Changes)
	c := w.Start(more...)
	if code := c.Exit(60 * time.Second); code == 0 {
		w.t.Error("exit code 0, want another")
	}
	out := c.Output.String()
	if n := strings.Count(out, "partition stopped: it needs attention"); n != rig.Partitions {
		w.t.Errorf("%d partitions stopped, want %d", n, rig.Partitions)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	last := lines[len(lines)-1]
	for _, text := range append(want, "all 4 partitions owned here have stopped") {
		if !strings.Contains(last, text) {
			w.t.Errorf("the last line is\n%s\nwant something with %q", last, text)
		}
	}
	if n := w.Count(w.Topics.Journal); n > journal {
		w.t.Errorf("the journal grew from %d to %d", journal, n)
	}
	if n := w.Count(w.Topics.Changes); n != changes {
		w.t.Errorf("%d tier changes, were %d", n, changes)
	}
}

// eachFence changes a field of every fence.
func (w *world) eachFence(field string, value func(f *protocol.Fence) string) {
	w.t.Helper()
	fs, err := w.Fences()
	if err != nil {
		w.t.Fatal(err)
	}
	for p, f := range fs {
		if err := w.RDB.HSet(context.Background(), state.PartitionKeys(w.Namespace, int32(p)).Fence(), field, value(f)).Err(); err != nil {
			w.t.Fatal(err)
		}
	}
}

// deleteRecords deletes what a topic's partitions hold, but for the last keep
// offsets of each.
func (w *world) deleteRecords(topic string, keep int64) {
	w.t.Helper()
	ends, err := w.Admin.ListEndOffsets(context.Background(), topic)
	if err != nil {
		w.t.Fatal(err)
	}
	upTo := kadm.Offsets{}
	ends.Each(func(o kadm.ListedOffset) { upTo.AddOffset(topic, o.Partition, max(0, o.Offset-keep), -1) })
	// A broker knows of a changed cleanup.policy a moment after it was accepted.
	rig.Until(w.t, 30*time.Second, "waiting for records of "+topic+" to be deleted", func() error {
		rs, err := w.Admin.DeleteRecords(context.Background(), upTo)
		if err == nil {
			err = rs.Error()
		}
		if err != nil && !errors.Is(err, kerr.PolicyViolation) {
			w.t.Fatal(err)
		}
		return err
	})
}

// TestHealsAnotherBranch: the state stands at a point that the journal does
// not know and that does not continue it.
func TestHealsAnotherBranch(t *testing.T) {
	t.Parallel()
	w := past(t, 20)
	w.eachFence("chain", func(*protocol.Fence) string { return strings.Repeat("ab", 32) })
	w.eachFence("seq", func(f *protocol.Fence) string { return "1000" })
	w.heals("other_branch")
	w.Check()
}

// heals starts a consumer, all partitions of which must be rebuilt for the
// given reason, and go on.
func (w *world) heals(reason string, more ...string) {
	w.t.Helper()
	c := w.Start(more...)
	for deadline := time.Now().Add(60 * time.Second); strings.Count(c.Output.String(), "reason="+reason) < rig.Partitions; {
		if time.Now().After(deadline) {
			w.t.Fatalf("not every partition was rebuilt because of %s:\n%s", reason, c.Output.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
	w.Send(w.Take(rig.Traffic(w.t, 77, 0), 100))()
	w.Settled(60 * time.Second)
	c.Stop()
}

// TestGoesOnWithoutTheJournalsBeginning: the state is whole, so nobody is
// corrected; what it belongs to is put on record again.
func TestGoesOnWithoutTheJournalsBeginning(t *testing.T) {
	t.Parallel()
	w := past(t, 21)
	w.deleteRecords(w.Topics.Journal, 2)
	w.heals("journal_truncated")
	fs, err := w.Fences()
	if err != nil {
		t.Fatal(err)
	}
	for p, f := range fs {
		if f.Rebased.Cause != protocol.JournalTruncated || f.Rebased.Open {
			t.Errorf("partition %d: %+v", p, f.Rebased)
		}
	}
}

func TestStopsOnLostJournal(t *testing.T) {
	t.Parallel()
	t.Run("all of it", func(t *testing.T) {
		t.Parallel()
		w := past(t, 22)
		w.deleteRecords(w.Topics.Journal, 0)
		w.stops(nil, "the journal record that was last published is gone")
	})
	t.Run("the topic", func(t *testing.T) {
		t.Parallel()
		w := past(t, 23)
		if _, err := w.Admin.DeleteTopics(t.Context(), w.Topics.Journal); err != nil {
			t.Fatal(err)
		}
		rig.Until(t, 15*time.Second, "waiting for the journal to be gone", func() error {
			d, err := w.Admin.ListTopics(t.Context(), w.Topics.Journal)
			if err == nil && d.Has(w.Topics.Journal) {
				return rig.ErrNotYet
			}
			return err
		})
		if err := stream.CreateTopics(t.Context(), w.Client, w.Topics, rig.Partitions, 1, nil); err != nil {
			t.Fatal(err)
		}
		w.stops(nil, "deleted and created again")
	})
}

// TestRebasesWithoutItsRules: state is lost, and the rules that decided it are
// lost too, so nothing can repeat it. What the log says is evaluated anew.
func TestRebasesWithoutItsRules(t *testing.T) {
	t.Parallel()
	w := past(t, 24)
	w.Alter(w.Topics.Rules, map[string]string{"cleanup.policy": "delete"})
	w.deleteRecords(w.Topics.Rules, 0)
	w.Alter(w.Topics.Rules, map[string]string{"cleanup.policy": "compact"})
	if err := w.RDB.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	other := strings.Replace(string(scoring.Default().Canonical()), "demo-1", "other-1", 1)
	w.heals("rules_unknown", "--model="+rig.ModelFile(t, other))
}

func TestStopsOnAForeignFoldVersion(t *testing.T) {
	t.Parallel()
	w := past(t, 25)
	w.eachFence("fold", func(*protocol.Fence) string { return "99" })
	w.stops(nil, fmt.Sprintf("folded by fold version 99, this binary has %d", fold.Version))
}

// TestStopsOnDeletedInput: retention removed records that were not applied.
func TestStopsOnDeletedInput(t *testing.T) {
	t.Parallel()
	w := past(t, 26)
	w.Send(w.Take(rig.Traffic(t, 27, 0), 400))()
	for _, in := range w.Topics.Inputs {
		w.deleteRecords(in, 0)
	}
	w.stops(nil, "does not hold offset", "deleted by retention before it was read")
}

// TestStopsWithoutItsFence: the fence alone is gone, and customers of nobody
// knows which point are still there. What comes of re-applying over them must
// begins.
func TestHealsWithoutItsFence(t *testing.T) {
	t.Parallel()
	w := past(t, 28)
	for p := range int32(rig.Partitions) {
		if err := w.RDB.Del(t.Context(), state.PartitionKeys(w.Namespace, p).Fence()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	w.heals("no_state")
	w.Check()
}

// TestChangedModelGoesOn: another model is no stop; old decisions stay as they
// were, also when state is made again from both.
func TestChangedModelGoesOn(t *testing.T) {
	t.Parallel()
	w := past(t, 29)
	other := strings.Replace(string(scoring.Default().Canonical()), "demo-1", "other-1", 1)
	c := w.Start("--model=" + rig.ModelFile(t, other))
	w.Send(w.Take(rig.Traffic(t, 30, 0), 200))()
	w.Settled(30 * time.Second)
	c.Stop()
	if err := w.RDB.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	w.Start()
	w.Settled(30 * time.Second)
	w.Check()
}
