package testenv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

// slots is how many hash slots a Redis Cluster has.
const slots = 16384

// RedisCluster is a Redis Cluster: primaries with equal shares of the slots,
// and perhaps a replica of each, which takes over some seven seconds after its
// primary was killed.
type RedisCluster struct {
	Nodes []*RedisServer // the primaries first, as it was made
}

// Clustered starts a Redis Cluster for this test alone and stops it when the
// test ends. Prefer [SharedRedisCluster] unless the test kills nodes.
func Clustered(tb testing.TB, primaries int, replicas bool, options RedisOptions) *RedisCluster {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), startPatience)
	defer cancel()
	c, err := StartRedisCluster(ctx, primaries, replicas, options)
	if err != nil {
		skipOrFail(tb, err)
	}
	for _, r := range c.Nodes {
		tb.Cleanup(func() { finish(tb, &r.service) })
	}
	return c
}

// StartRedisCluster starts primaries, and a replica of each if there are to be
// any, and returns when the cluster serves every slot and every replica is in
// step. It is otherwise as [StartRedis].
func StartRedisCluster(ctx context.Context, primaries int, replicas bool, options RedisOptions) (_ *RedisCluster, err error) {
	if options.Dir != "" || options.Authority != nil {
		return nil, errors.New("starting a Redis Cluster: its nodes share no folder and speak plain text")
	}
	c := &RedisCluster{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	nodes := primaries
	if replicas {
		nodes *= 2
	}
	var starting errgroup.Group
	for n := range nodes {
		r := &RedisServer{service{name: fmt.Sprintf("Redis-%d", n+1)}}
		c.Nodes = append(c.Nodes, r)
		if err := r.configure(options, clusterSettings); err != nil {
			return nil, err
		}
		starting.Go(func() error { return r.start(ctx) })
	}
	if err := starting.Wait(); err != nil {
		return nil, err
	}
	if err := c.join(ctx, primaries); err != nil {
		return nil, fmt.Errorf("forming a Redis Cluster: %w", err)
	}
	return c, nil
}

func clusterSettings(r *RedisServer) map[string]string {
	return map[string]string{
		"cluster-enabled":      "yes",
		"cluster-port":         strconv.Itoa(r.ports[1].number), // else port + 10,000, which is not reserved
		"cluster-node-timeout": "5000",
		// What is not affected goes on.
		"cluster-require-full-coverage":   "no",
		"cluster-allow-replica-migration": "no",
		// A primary need not wait for further replicas to ask.
		"repl-diskless-sync-delay": "0",
	}
}

// join does what redis-cli --cluster create does.
func (c *RedisCluster) join(ctx context.Context, primaries int) error {
	ids := make([]string, len(c.Nodes))
	for n, r := range c.Nodes {
		err := r.do(ctx, func(client *redis.Client) error {
			var err error
			if ids[n], err = client.ClusterMyID(ctx).Result(); err != nil {
				return err
			}
			// Different epochs, or the nodes would have to agree on them first.
			if err := client.Do(ctx, "cluster", "set-config-epoch", n+1).Err(); err != nil {
				return err
			}
			if n < primaries {
				return client.Do(ctx, "cluster", "addslotsrange", n*slots/primaries, (n+1)*slots/primaries-1).Err()
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	host, port, err := net.SplitHostPort(c.Nodes[0].Addr())
	if err != nil {
		return err
	}
	for _, r := range c.Nodes[1:] {
		err := r.do(ctx, func(client *redis.Client) error {
			return client.Do(ctx, "cluster", "meet", host, port, c.Nodes[0].ports[1].number).Err()
		})
		if err != nil {
			return err
		}
	}
	for n, r := range c.Nodes {
		err := r.do(ctx, func(client *redis.Client) error {
			if n >= primaries {
				// Refused until the node has heard of its primary.
				if err := poll(ctx, "a node to know its primary", func() error { return client.ClusterReplicate(ctx, ids[n-primaries]).Err() }); err != nil {
					return err
				}
				if err := poll(ctx, "a replica to be in step", func() error { return reports(ctx, client, "replication", "master_link_status:up") }); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, r := range c.Nodes {
		err := r.do(ctx, func(client *redis.Client) error {
			return poll(ctx, "every node to see the whole cluster", func() error {
				parts, err := slotsOf(ctx, client)
				if err != nil {
					return err
				}
				nodes := 0
				for _, p := range parts {
					nodes += len(p.Nodes)
				}
				if len(parts) != primaries || nodes != len(c.Nodes) {
					return fmt.Errorf("%d parts on %d nodes", len(parts), nodes)
				}
				state, err := client.ClusterInfo(ctx).Result()
				if err == nil && state[:len("cluster_state:ok")] != "cluster_state:ok" {
					err = errors.New(state)
				}
				return err
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sharedCluster is the cluster of this process, started by the first test that
// wants it. A failed start is not tried again.
var sharedCluster struct {
	sync.Once
	cluster *RedisCluster
	err     error
}

// SharedRedisCluster is the one Redis Cluster of this test process, of three
// primaries without replicas, started by the first call. Its package must have
// a TestMain that calls [Main].
func SharedRedisCluster(tb testing.TB) *RedisCluster {
	tb.Helper()
	if !mainRuns {
		tb.Fatal("SharedRedisCluster needs func TestMain(m *testing.M) { testenv.Main(m) } to stop the nodes")
	}
	sharedCluster.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startPatience)
		defer cancel()
		sharedCluster.cluster, sharedCluster.err = StartRedisCluster(ctx, 3, false, RedisOptions{})
	})
	if sharedCluster.err != nil {
		skipOrFail(tb, sharedCluster.err)
	}
	return sharedCluster.cluster
}

// Addrs are where clients connect.
func (c *RedisCluster) Addrs() []string {
	var addrs []string
	for _, r := range c.Nodes {
		addrs = append(addrs, r.Addr())
	}
	return addrs
}

// slotsOf is who has which slots by the account of a node: what clients go by.
func slotsOf(ctx context.Context, client *redis.Client) ([]redis.ClusterSlot, error) {
	return client.ClusterSlots(ctx).Result() //nolint:staticcheck // its successor lists nodes that have failed, too, and Redis 6 lacks it
}

// Primary is the node that has a key by the account of one that answers.
func (c *RedisCluster) Primary(ctx context.Context, key string) (*RedisServer, error) {
	var last error
	for _, r := range c.Nodes {
		var found *RedisServer
		last = r.do(ctx, func(client *redis.Client) error {
			slot, err := client.ClusterKeySlot(ctx, key).Result()
			if err != nil {
				return err
			}
			parts, err := slotsOf(ctx, client)
			if err != nil {
				return err
			}
			for _, p := range parts {
				for _, other := range c.Nodes {
					if int(slot) >= p.Start && int(slot) <= p.End && p.Nodes[0].Addr == other.Addr() {
						found = other
					}
				}
			}
			return nil
		})
		if found != nil {
			return found, nil
		}
	}
	return nil, fmt.Errorf("no node has key %s: %w", key, last)
}

// Stop ends all nodes for good and removes their folders.
func (c *RedisCluster) Stop() error {
	var err error
	for _, r := range c.Nodes {
		err = errors.Join(err, r.Stop())
	}
	return err
}
