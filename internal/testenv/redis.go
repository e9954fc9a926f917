package testenv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"

	"github.com/redis/go-redis/v9"
)

// RedisOptions is what may differ between Redis servers. The zero value keeps
// nothing on disk and never evicts.
type RedisOptions struct {
	// Dir keeps the data; "" is a temporary folder, removed by Stop.
	Dir string
	// AppendFsync is "everysec", "always" or "no" and switches the append-only
	// file on; "" leaves it off, so that Kill and Restart lose all data.
	AppendFsync string
	// MaxMemoryPolicy is "noeviction" when empty.
	MaxMemoryPolicy string
	// Config has further settings by their names in redis.conf, for example
	// "maxmemory" or "replicaof".
	Config map[string]string
	// Authority adds a port with TLS, whose clients must show a certificate of
	// it; nil: none.
	Authority *Authority
}

// RedisServer is one Redis server. Its methods may be called from any
// goroutine.
type RedisServer struct{ service }

// TLSAddr is the address of the port with TLS.
func (r *RedisServer) TLSAddr() string { return r.ports[1].addr() }

// StartRedis starts a server and returns when it answers, with its data
// loaded. Of ctx only the start depends, not the life of the server. The
// caller must call Stop. The error is a *[MissingError] when the machine lacks
// redis-server.
func StartRedis(ctx context.Context, options RedisOptions) (_ *RedisServer, err error) {
	r := &RedisServer{service{name: "Redis"}}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Stop())
		}
	}()
	if err := r.configure(options, nil); err != nil {
		return nil, err
	}
	if err := r.start(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// configure says how the server starts. more are settings that depend on its
// ports, of which the second is that of TLS, else that of a cluster's bus.
func (r *RedisServer) configure(options RedisOptions, more func(*RedisServer) map[string]string) error {
	binary, err := program("redis-server", "redis-server")
	if err != nil {
		return err
	}
	if err := r.place(options.Dir, 2); err != nil {
		return err
	}
	settings := map[string]string{
		"bind":             "127.0.0.1",
		"port":             fmt.Sprint(r.ports[0].number),
		"dir":              r.dir,
		"save":             "", // no snapshots
		"appendonly":       "no",
		"maxmemory-policy": "noeviction",
	}
	if options.AppendFsync != "" {
		settings["appendonly"], settings["appendfsync"] = "yes", options.AppendFsync
	}
	if options.MaxMemoryPolicy != "" {
		settings["maxmemory-policy"] = options.MaxMemoryPolicy
	}
	if options.Authority != nil {
		pair, err := options.Authority.Issue("redis")
		if err != nil {
			return err
		}
		settings["tls-port"] = fmt.Sprint(r.ports[1].number)
		settings["tls-cert-file"], settings["tls-key-file"] = pair.Cert, pair.Key
		settings["tls-ca-cert-file"], settings["tls-auth-clients"] = options.Authority.CA, "yes"
	}
	if more != nil {
		maps.Copy(settings, more(r))
	}
	maps.Copy(settings, options.Config)
	var arguments []string
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		arguments = append(arguments, "--"+key, settings[key])
	}
	r.command = func() *exec.Cmd { return exec.Command(binary, arguments...) }
	r.ready = r.answers
	return nil
}

// answers is nil when the server replies to PING, which it refuses with
// LOADING while it reads its append-only file.
func (r *RedisServer) answers(ctx context.Context) error {
	client := redis.NewClient(&redis.Options{Addr: r.Addr(), MaxRetries: -1, DialerRetries: 1})
	defer client.Close()
	return client.Ping(ctx).Err()
}
