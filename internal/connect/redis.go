package connect

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/tierstream/tierstream/internal/state"
)

// RedisPassword is the setting without a flag: its variable has the password
// where there is no file.
const RedisPassword = "redis-password"

// Redis is the flags that say how Redis is spoken to. TLS is a matter of the
// address: rediss://.
type Redis struct {
	Cluster  bool   `name:"redis-cluster" help:"The address is that of a Redis Cluster: some of its nodes, as host:port,host:port or as a URL with ?addr=host:port for each further one."`
	User     string `name:"redis-user" help:"User of Redis' access control list. Default: the address's." placeholder:"NAME"`
	Password string `name:"redis-password-file" help:"File with the Redis password; read again at each connection. Without it the variable REDIS_PASSWORD, with the prefix of the others." type:"existingfile" placeholder:"FILE"`
	CA       string `name:"redis-ca-file" help:"Certificates that sign those of a rediss:// address, PEM. Default: the system's." type:"existingfile" placeholder:"FILE"`
	Cert     string `name:"redis-cert-file" help:"Our certificate for mutual TLS, PEM; read again at each connection." type:"existingfile" placeholder:"FILE"`
	Key      string `name:"redis-key-file" help:"Its private key, PEM." type:"existingfile" placeholder:"FILE"`
}

// Open makes a client. password is what the environment says, and used when no
// file is given; both win over the address's.
func (r *Redis) Open(address, password string) (redis.UniversalClient, error) {
	o := state.Options{Address: address, Cluster: r.Cluster}
	if files := (certificates{"redis", r.CA, r.Cert, r.Key}); files.given() {
		var err error
		if o.TLS, err = files.config(); err != nil {
			return nil, err
		}
	}
	from := secret{r.Password, password}
	now, err := from.read()
	switch {
	case err != nil:
		return nil, fmt.Errorf("--redis-password-file: %w", err)
	case now == "" && r.User != "":
		return nil, errNoPassword("redis")
	case now != "":
		o.Credentials = func(context.Context) (string, string, error) {
			now, err := from.read()
			return r.User, now, err
		}
	}
	return state.OpenWith(o)
}
