//go:build unix

package e2e

import (
	"testing"

	"github.com/tierstream/tierstream/internal/rig"
	"github.com/tierstream/tierstream/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m, rig.RemoveBinary) }

// world is a rig's world on one broker and a Redis of its own.
type world struct {
	*rig.World
	t     testing.TB
	kafka *testenv.KafkaServer
	redis *testenv.RedisServer
}

// newWorld makes a namespace on the shared broker with its own Redis.
func newWorld(t testing.TB, options testenv.RedisOptions) *world {
	t.Helper()
	return newWorldOn(t, testenv.SharedKafka(t), options)
}

func newWorldOn(t testing.TB, kafka *testenv.KafkaServer, options testenv.RedisOptions) *world {
	t.Helper()
	redis := rig.Redis(t, options)
	w := rig.New(t, rig.Config{Brokers: []string{kafka.Addr()}, Redis: redis.Addr()})
	return &world{w, t, kafka, redis}
}
