//go:build unix

package torture

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/rig"
	"github.com/tierstream/tierstream/internal/testenv"
)

var healEvents = flag.Int("heal-events", 3000, "let Redis lose so many events")

// TestHeal measures how long the system takes to heal by itself when Redis,
// under a light load, loses everything, and when it returns to a branch of
// history that was never published: until it holds again all that was
// published before.
func TestHeal(t *testing.T) {
	t.Parallel()
	kafka := testenv.Kafka(t, testenv.KafkaOptions{})
	r := &run{t: t, ctx: t.Context(), rng: rand.New(rand.NewPCG(1, 1)), began: time.Now(), looked: map[*rig.Consumer]int{}}
	r.primary = rig.Redis(t, testenv.RedisOptions{AppendFsync: "everysec"})
	r.w = rig.New(t, rig.Config{Brokers: []string{kafka.Addr()}, Redis: r.primary.Addr()})
	r.fleet = &rig.Fleet{W: r.w, Args: []string{"--log-level=info", "--batch-records=8192"}}
	r.journal = follow(t, r.w)

	// Most of the log first, with the batches of a consumer that is behind.
	g := traffic(t, 1)
	for left := *healEvents; left > 0; {
		n := min(left, 10_000)
		r.w.Send(r.w.Take(g, n))()
		left -= n
	}
	for range 2 {
		r.fleet.Start()
	}
	r.w.Settled(patience)
	r.in = send(t, r.w, 200, g)
	older := r.backup()
	r.progress(int64(*rate))

	r.wipe()
	r.heal("wiped", r.everyPartition())
	r.progress(int64(*rate))
	strange, _ := r.toBranch(older)
	if len(strange) == 0 {
		t.Error("no partition is on another branch: nothing was tested")
	} else {
		r.heal("another branch", strange)
	}

	r.in.stop()
	r.w.Settled(patience)
	r.w.Verify(r.ctx)
	r.reportHeals()
}
