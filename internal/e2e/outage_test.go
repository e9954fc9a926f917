//go:build unix

package e2e

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/rig"
	"github.com/tierstream/tierstream/internal/testenv"
)

func TestRedisWipedUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.RedisOptions{})
	w.Start()
	w.Start()
	g := rig.Traffic(t, 2, 0.03)
	for range 4 {
		wait := w.Send(w.Take(g, 500))
		w.Progress(w.Sent + 100)
		// All of it at once, as a lost disk or an empty replica do.
		if err := w.RDB.FlushAll(context.Background()).Err(); err != nil {
			t.Fatal(err)
		}
		wait()
	}
	w.Settled(60 * time.Second)
	w.Check()
}

// TestRedisKilledAndRestarted kills Redis, and cuts off the end of what it had
// logged, as a loss of power does with appendfsync everysec.
func TestRedisKilledAndRestarted(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(rig.Seed(t), 2))
	w := newWorld(t, testenv.RedisOptions{AppendFsync: "everysec"})
	w.Start()
	w.Start()
	g := rig.Traffic(t, 4, 0.03)
	lost := int64(0)
	for round := range 4 {
		wait := w.Send(w.Take(g, 500))
		w.Progress(w.Sent + 200)
		w.AfterApply()
		w.redis.Kill()
		if round > 0 {
			n, err := w.redis.LoseTail(1 + rng.Int64N(64<<10))
			if err != nil {
				t.Fatal(err)
			}
			lost += n
		}
		if err := w.redis.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		wait()
		w.Progress(w.Sent)
	}
	w.Settled(60 * time.Second)
	t.Logf("%d bytes of Redis' log were lost", lost)
	if lost == 0 {
		t.Error("nothing was lost: nothing was tested")
	}
	w.Check()
}

func TestBrokerKilledAndRestarted(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, testenv.Kafka(t, testenv.KafkaOptions{}), testenv.RedisOptions{})
	w.Start()
	w.Start()
	g := rig.Traffic(t, 5, 0.03)
	for range 2 {
		wait := w.Send(w.Take(g, 600))
		w.Progress(w.Sent + 100)
		w.AfterApply()
		w.kafka.Kill()
		if err := w.kafka.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		wait()
		w.Progress(w.Sent)
	}
	w.Settled(90 * time.Second)
	if w.kafka.LostMarkers() {
		t.Log("Kafka left out markers: the owners wrote them")
	}
	w.Check()
}

// TestEverythingKilledAtOnce: nothing that any of the three held in
// memory is left.
func TestEverythingKilledAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, testenv.Kafka(t, testenv.KafkaOptions{}), testenv.RedisOptions{AppendFsync: "everysec"})
	f := &rig.Fleet{W: w.World}
	f.Start()
	g := rig.Traffic(t, 6, 0.03)
	for range 2 {
		wait := w.Send(w.Take(g, 500))
		w.Progress(w.Sent + 100)
		w.AfterApply()
		f.Kill(0)
		w.redis.Kill()
		w.kafka.Kill()
		if err := errors.Join(w.redis.Restart(t.Context()), w.kafka.Restart(t.Context())); err != nil {
			t.Fatal(err)
		}
		f.Start()
		wait()
		w.Progress(w.Sent)
	}
	w.Settled(90 * time.Second)
	w.Check()
}
