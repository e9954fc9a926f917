package state

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Options say where Redis is and who asks.
type Options struct {
	// Address is host:port, or a redis:// or rediss:// URL; the latter is TLS.
	// Of a cluster some nodes are enough: several host:port with commas between
	// them, or a URL with each further one as ?addr=host:port.
	Address string
	// Cluster: which server has a partition is found out, and followed.
	Cluster bool
	// TLS is how the servers of a rediss:// address are verified; nil: by the
	// system's certificates. Servers are verified by the name or IP address that
	// is dialled, of a cluster by what its nodes call themselves.
	TLS *tls.Config
	// Credentials are asked for at each new connection; nil: the address's. No
	// user means the address's.
	Credentials func(ctx context.Context) (user, password string, err error)
}

// clusterRefresh is how often a client asks a cluster that it uses who has
// which slot. A primary that is gone redirects nobody to its successor.
const clusterRefresh = time.Second

// Open is [OpenWith] an address, and a password that wins over the address's
// unless it is empty.
func Open(address, password string) (redis.UniversalClient, error) {
	o := Options{Address: address}
	if password != "" {
		o.Credentials = func(context.Context) (string, string, error) { return "", password, nil }
	}
	return OpenWith(o)
}

// OpenWith makes a client. It does not send a command again whose reply was
// lost (a batch knows whether it is already there) and reads from primaries.
func OpenWith(options Options) (redis.UniversalClient, error) {
	if !strings.Contains(options.Address, "://") && strings.Contains(options.Address, "@") {
		// Errors of the dialer would print it, password and all.
		return nil, errors.New("reading the Redis address: it has a user or password, so it must begin with redis:// or rediss://")
	}
	if options.Cluster {
		return openCluster(options)
	}
	o := &redis.Options{Addr: options.Address}
	if strings.Contains(options.Address, "://") {
		var err error
		if o, err = redis.ParseURL(options.Address); err != nil {
			return nil, errAddress
		}
	}
	var err error
	if o.TLSConfig, err = options.tls(o.TLSConfig); err != nil {
		return nil, err
	}
	o.CredentialsProviderContext = options.credentials(o.Username)
	o.MaxRetries = -1
	o.ReadBufferSize, o.WriteBufferSize = bufferSize, bufferSize
	o.ReadTimeout, o.WriteTimeout = patience, patience
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return redis.NewClient(o), nil
}

func openCluster(options Options) (redis.UniversalClient, error) {
	o := &redis.ClusterOptions{Addrs: strings.Split(options.Address, ",")}
	if strings.Contains(options.Address, "://") {
		var err error
		if o, err = redis.ParseClusterURL(options.Address); err != nil {
			return nil, errAddress
		}
	}
	var err error
	if o.TLSConfig, err = options.tls(o.TLSConfig); err != nil {
		return nil, err
	}
	o.CredentialsProviderContext = options.credentials(o.Username)
	o.ReadBufferSize, o.WriteBufferSize = bufferSize, bufferSize
	o.ReadTimeout, o.WriteTimeout = patience, patience
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	o.ReadOnly, o.RouteByLatency, o.RouteRandomly = false, false, false
	o.ClusterStateReloadInterval = clusterRefresh
	// Every command here has its keys in one slot: there is nothing to split, and
	// no need for the permission to ask how.
	o.DisableRoutingPolicies = true
	o.NewClient = func(node *redis.Options) *redis.Client {
		c := redis.NewClient(node)
		c.AddHook(once{})
		return c
	}
	return redis.NewClusterClient(o), nil
}

const bufferSize = 256 << 10

// patience is long enough for a batch of some megabytes, on a Redis that is
// busy writing its log.
const patience = 10 * time.Second

// errAddress does not say what is wrong, because that would print a password.
var errAddress = errors.New("reading the Redis address: not a redis:// URL")

// tls is how servers are verified, given what the address says; nil: not at
// all, it is plain text.
func (o *Options) tls(address *tls.Config) (*tls.Config, error) {
	switch {
	case address == nil && o.TLS != nil:
		return nil, errors.New("certificates for Redis are given, but its address does not begin with rediss://")
	case address == nil:
		return nil, nil
	case o.TLS != nil:
		return o.TLS.Clone(), nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12}, nil
}

// credentials are those of the options with the address's user; nil: the
// address's.
func (o *Options) credentials(user string) func(context.Context) (string, string, error) {
	if o.Credentials == nil {
		return nil
	}
	return func(ctx context.Context) (string, string, error) {
		name, password, err := o.Credentials(ctx)
		if name == "" {
			name = user
		}
		return name, password, err
	}
}

// once keeps a cluster's client, which follows redirections, from also sending
// a command again whose reply was lost: it hides from it that the connection
// failed. Replies, redirections among them, and the end of a context pass.
type once struct{}

// lostError is a command of which nobody knows whether it was executed.
type lostError struct{ error }

func lost(err error) error {
	if err == nil || !isNetwork(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return lostError{err}
}

func (once) DialHook(next redis.DialHook) redis.DialHook { return next }

func (once) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { return lost(next(ctx, cmd)) }
}

func (once) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error { return lost(next(ctx, cmds)) }
}

// eachPrimary calls fn for every server that has keys, and names the one for
// which it fails.
func eachPrimary(ctx context.Context, rdb redis.UniversalClient, fn func(context.Context, redis.UniversalClient) error) error {
	cluster, ok := rdb.(*redis.ClusterClient)
	if !ok {
		return fn(ctx, rdb)
	}
	return cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		if err := fn(ctx, node); err != nil {
			return fmt.Errorf("node %s: %w", node.Options().Addr, err)
		}
		return nil
	})
}

// isNetwork tells a connection's failure from a reply that is an error.
func isNetwork(err error) bool {
	var reply redis.Error
	return !errors.As(err, &reply)
}

// SetLog sends what the client library has to say of its connections to log,
// at debug level: whatever matters comes back as an error of a call.
func SetLog(log *slog.Logger) { redis.SetLogger(redisLog{log}) }

type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, "redis: "+fmt.Sprintf(format, args...))
}

// Reach says in one sentence that Redis, or a primary of its cluster, does not
// answer.
func Reach(ctx context.Context, rdb redis.UniversalClient, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := eachPrimary(ctx, rdb, func(ctx context.Context, c redis.UniversalClient) error { return c.Ping(ctx).Err() })
	if err != nil {
		if i := strings.LastIndex(address, "@"); i >= 0 {
			address = address[i+1:]
		}
		return fmt.Errorf("no Redis answers at %s: %w", address, err)
	}
	return nil
}
