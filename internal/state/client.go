package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Open makes a client for an address: host:port, or a redis:// or rediss://
// URL. password, when not empty, overrides the address's. The client does not
// retry by itself (a batch knows whether it is already there) and reads from
// the primary.
func Open(address, password string) (redis.UniversalClient, error) {
	o := &redis.Options{Addr: address}
	if !strings.Contains(address, "://") && strings.Contains(address, "@") {
		// Errors of the dialer would print it, password and all.
		return nil, errors.New("reading the Redis address: it has a user or password, so it must begin with redis:// or rediss://")
	}
	if strings.Contains(address, "://") {
		var err error
		if o, err = redis.ParseURL(address); err != nil {
			return nil, fmt.Errorf("reading the Redis address: not a redis:// URL") // the error would print a password
		}
	}
	if password != "" {
		o.Password = password
	}
	o.MaxRetries = -1
	o.ReadBufferSize, o.WriteBufferSize = 256<<10, 256<<10
	// A batch of some megabytes, on a Redis that is busy writing its log.
	o.ReadTimeout, o.WriteTimeout = 10*time.Second, 10*time.Second
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return redis.NewClient(o), nil
}

// SetLog sends what the client library has to say of its connections to log,
// at debug level: whatever matters comes back as an error of a call.
func SetLog(log *slog.Logger) { redis.SetLogger(redisLog{log}) }

type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, "redis: "+fmt.Sprintf(format, args...))
}

// Reach says in one sentence that Redis does not answer.
func Reach(ctx context.Context, rdb redis.UniversalClient, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := rdb.Ping(ctx).Err(); err != nil {
		if i := strings.LastIndex(address, "@"); i >= 0 {
			address = address[i+1:]
		}
		return fmt.Errorf("no Redis answers at %s: %w", address, err)
	}
	return nil
}
