//go:build unix

package torture

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/rig"
	"github.com/tierstream/tierstream/internal/testenv"
)

var handovers = flag.Int("handovers", 4, "measure at least so many handovers of a partition in rolling restarts")

// TestHandover measures how long a rolling restart stops a partition, under a
// steady input: from the last batch that the old owner published to the first
// of the new one, by the log timestamps of their journal records. Nothing is
// asked of the consumers; the journal names each batch's owner.
func TestHandover(t *testing.T) {
	t.Parallel()
	kafka := testenv.Kafka(t, testenv.KafkaOptions{})
	redis := rig.Redis(t, testenv.RedisOptions{AppendFsync: "everysec"})
	w := rig.New(t, rig.Config{Brokers: []string{kafka.Addr()}, Redis: redis.Addr(), Partitions: 6})
	// The defaults of a consumer in production.
	args := []string{"--lease=10s", "--batch-records=8192", "--log-level=info"}
	f := &rig.Fleet{W: w, Args: args}
	for range 3 {
		f.Start()
	}
	s := send(t, w, 600, traffic(t, 1))
	balanced := func() {
		rig.Until(t, time.Minute, "waiting for every consumer to own two partitions", func() error {
			for _, c := range f.On {
				if o := c.Owned(); len(o) != 2 {
					return fmt.Errorf("one owns %v", o)
				}
			}
			return nil
		})
		var at int64
		rig.Until(t, time.Minute, "waiting for every partition to have state", func() (err error) {
			at, err = applied(w) // at first a partition may be owned and not yet begun
			return err
		})
		w.Progress(at + 600)
	}
	balanced()
	began := time.Now() // partitions moved while the first consumers came
	for {
		// One leaves in order and another comes, as a deployment does it.
		c := f.On[0]
		f.On = f.On[1:]
		c.Stop()
		f.Start()
		balanced()
		if len(gaps(t, w, began)) >= *handovers {
			break
		}
	}
	s.stop()
	w.Settled(time.Minute)
	g := gaps(t, w, began)
	slices.SortFunc(g, func(a, b gap) int { return int(a.length - b.length) })
	for _, gap := range g {
		t.Logf("partition %d, batch %d: %v", gap.partition, gap.seq, gap.length)
	}
	t.Logf("%d handovers: median %v, p95 %v, longest %v", len(g), g[len(g)/2].length, g[len(g)*95/100].length, g[len(g)-1].length)
	limit := time.Second
	if *handovers < 20 {
		limit *= 5 // a few say little, and other tests run beside them
	}
	if m := g[len(g)/2].length; m >= limit {
		t.Errorf("the median handover takes %v, want less than %v", m, limit)
	}
	w.Check()
}

// gap is a change of a partition's owner.
type gap struct {
	partition int
	seq       uint64 // the new owner's first batch
	length    time.Duration
}

// gaps are the handovers since a time that the journal knows of.
func gaps(t testing.TB, w *rig.World, since time.Time) (out []gap) {
	t.Helper()
	for p, records := range w.Read(w.Topics.Journal) {
		var last *protocol.Record
		for i, r := range records {
			rec, err := protocol.DecodeRecord(r.Value)
			if err != nil {
				t.Fatal(err)
			}
			if last != nil && last.Owner != rec.Owner && r.Timestamp.After(since) {
				out = append(out, gap{p, rec.Seq, r.Timestamp.Sub(records[i-1].Timestamp)})
			}
			last = rec
		}
	}
	return out
}
