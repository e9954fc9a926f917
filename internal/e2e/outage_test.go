//go:build unix

package e2e

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/testenv"
)

func TestRedisWipedUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.RedisOptions{})
	w.start()
	w.start()
	g := traffic(t, 2, 0.03)
	for range 4 {
		wait := w.send(w.take(g, 500))
		w.progress(w.sent + 100)
		// All of it at once, as a lost disk or an empty replica do.
		if err := w.rdb.FlushAll(context.Background()).Err(); err != nil {
			t.Fatal(err)
		}
		wait()
	}
	w.settled(60 * time.Second)
	w.check()
}

// TestRedisKilledAndRestarted kills Redis, and cuts off the end of what it had
// logged, as a loss of power does with appendfsync everysec.
func TestRedisKilledAndRestarted(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(seed(t), 2))
	w := newWorld(t, testenv.RedisOptions{AppendFsync: "everysec"})
	w.start()
	w.start()
	g := traffic(t, 4, 0.03)
	lost := 0
	for round := range 4 {
		wait := w.send(w.take(g, 500))
		w.progress(w.sent + 200)
		w.afterApply()
		w.redis.Kill()
		if round > 0 {
			lost += w.cutLog(rng)
		}
		if err := w.redis.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		wait()
		w.progress(w.sent)
	}
	w.settled(60 * time.Second)
	t.Logf("%d bytes of Redis' log were lost", lost)
	if lost == 0 {
		t.Error("nothing was lost: nothing was tested")
	}
	w.check()
}

// cutLog drops up to 64 KiB from the end of Redis' append-only file, at any
// byte, and returns how many.
func (w *world) cutLog(rng *rand.Rand) (n int) {
	w.t.Helper()
	err := filepath.WalkDir(w.redis.Dir(), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".incr.aof") {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		n = rng.IntN(int(min(info.Size()/2, 64<<10)) + 1)
		return os.Truncate(path, info.Size()-int64(n))
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func TestBrokerKilledAndRestarted(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, testenv.Kafka(t, testenv.KafkaOptions{}), testenv.RedisOptions{})
	w.start()
	w.start()
	g := traffic(t, 5, 0.03)
	for range 2 {
		wait := w.send(w.take(g, 600))
		w.progress(w.sent + 100)
		w.afterApply()
		w.kafka.Kill()
		if err := w.kafka.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		wait()
		w.progress(w.sent)
	}
	w.settled(90 * time.Second)
	w.check()
}

// TestEverythingKilledAtOnce: nothing that any of the three held in
// memory is left.
func TestEverythingKilledAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, testenv.Kafka(t, testenv.KafkaOptions{}), testenv.RedisOptions{AppendFsync: "everysec"})
	f := &fleet{w: w}
	f.start()
	g := traffic(t, 6, 0.03)
	for range 2 {
		wait := w.send(w.take(g, 500))
		w.progress(w.sent + 100)
		w.afterApply()
		f.kill(0)
		w.redis.Kill()
		w.kafka.Kill()
		if err := errors.Join(w.redis.Restart(t.Context()), w.kafka.Restart(t.Context())); err != nil {
			t.Fatal(err)
		}
		f.start()
		wait()
		w.progress(w.sent)
	}
	w.settled(90 * time.Second)
	w.check()
}

// progress waits until that many records are applied.
func (w *world) progress(n int64) {
	w.t.Helper()
	until(w.t, 90*time.Second, "waiting for progress", func() error {
		fs, err := w.fences()
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
			return errNotYet
		}
		return nil
	})
}
