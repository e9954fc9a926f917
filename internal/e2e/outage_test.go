//go:build unix

package e2e

import (
	"context"
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
		wait := w.send(w.take(g, 600))
		w.progress(w.sent + 100)
		// All of it at once, as FLUSHALL, a lost disk or an empty replica do.
		if err := w.rdb.FlushAll(context.Background()).Err(); err != nil {
			t.Fatal(err)
		}
		wait()
	}
	w.settled(60 * time.Second)
	w.check()
}

// progress waits until that many records are applied.
func (w *world) progress(n int64) {
	w.t.Helper()
	until(w.t, 60*time.Second, "waiting for progress", func() error {
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
