package embedded

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/alicebob/miniredis/v2"
)

// mini is the Redis inside this process. Its keys are in memory and in a
// snapshot that is written at an orderly stop.
type mini struct {
	redis    *miniredis.Miniredis
	snapshot string
}

// startMini loads the snapshot of the folder, if there is one, and listens.
// After a crash this is an older state, which is as good as a Redis that lost
// its last writes.
func startMini(dir string, try ports) (_ *mini, err error) {
	m := &mini{redis: miniredis.NewMiniRedis(), snapshot: filepath.Join(dir, "miniredis.snapshot")}
	defer func() {
		if err != nil {
			m.redis.Close()
		}
	}()
	m.redis.ClockTTL(true)
	if err := loadSnapshot(m.redis, m.snapshot); err != nil {
		return nil, err
	}
	for range startTries {
		var port int
		if port, err = try.free(); err != nil {
			break
		}
		if err = m.redis.StartAddr(fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return m, nil
		}
		err = errors.Join(errPortTaken, err)
		try = ports{}
	}
	return nil, fmt.Errorf("starting miniredis: %w", err)
}

func (m *mini) addr() string { return m.redis.Addr() }

// stop ends the connections first, so that the snapshot is of one moment.
func (m *mini) stop() error {
	m.redis.Close()
	m.redis.ClockTTL(false) // no key expires while the snapshot is taken
	if err := saveSnapshot(m.redis, m.snapshot); err != nil {
		return fmt.Errorf("stopping miniredis: %w", err)
	}
	return nil
}
