package state

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/alicebob/miniredis/v2"
	miniserver "github.com/alicebob/miniredis/v2/server"

	"github.com/tierstream/tierstream/internal/testenv"
)

// A command whose reply is lost is sent once: whoever sent it must know that
// it may have been executed.
func TestLostRepliesAreNotAskedForAgain(t *testing.T) {
	for _, cluster := range []bool{false, true} {
		m := miniredis.RunT(t)
		rdb, err := OpenWith(Options{Address: m.Addr(), Cluster: cluster})
		if err != nil {
			t.Fatal(err)
		}
		defer rdb.Close()
		var sent atomic.Int32 // a cluster's client has more than one connection
		m.Server().SetPreHook(func(c *miniserver.Peer, name string, _ ...string) bool {
			if strings.ToUpper(name) != "INCR" {
				return false
			}
			sent.Add(1)
			c.Close()
			return true
		})
		err = rdb.Incr(t.Context(), "x").Err()
		if err == nil || sent.Load() != 1 || !IsTemporary(err) {
			t.Errorf("cluster %v: sent %d times: %v", cluster, sent.Load(), err)
		}
	}
}

// Which kind of Redis it is must be said rightly.
func TestCheckTellsAClusterFromAServer(t *testing.T) {
	nodes := testenv.SharedRedisCluster(t)
	_, err := Check(t.Context(), open(t, nodes.Nodes[0].Addr()))
	if err == nil || !strings.Contains(err.Error(), "--redis-cluster") {
		t.Errorf("a node taken for a server: %v", err)
	}
	server := testenv.Redis(t, testenv.RedisOptions{})
	rdb, err := OpenWith(Options{Address: server.Addr(), Cluster: true})
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	if err := Reach(t.Context(), rdb, server.Addr()); err == nil || !strings.Contains(err.Error(), "cluster support disabled") {
		t.Errorf("a server taken for a cluster: %v", err)
	}
}

// Of a cluster every primary is asked.
func TestCheckAsksEveryPrimary(t *testing.T) {
	nodes := testenv.Clustered(t, 3, false, testenv.RedisOptions{})
	rdb := clustered(t, nodes)
	for _, n := range nodes.Nodes {
		if warning, err := Check(t.Context(), rdb); warning != "" || err != nil {
			t.Fatalf("%q, %v", warning, err)
		}
		node := open(t, n.Addr())
		if err := node.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := Check(t.Context(), rdb); err == nil || !strings.Contains(err.Error(), n.Addr()) || !strings.Contains(err.Error(), "allkeys-lru") {
			t.Errorf("node %s evicts: %v", n.Addr(), err)
		}
		if err := node.ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err(); err != nil {
			t.Fatal(err)
		}
	}
	nodes.Nodes[1].Kill()
	if err := Reach(t.Context(), rdb, strings.Join(nodes.Addrs(), ",")); err == nil || !strings.Contains(err.Error(), nodes.Nodes[1].Addr()) {
		t.Errorf("node %s is gone: %v", nodes.Nodes[1].Addr(), err)
	}
}

// A partition's clock is that of the server which holds its lease.
func TestTimeIsThatOfThePartitionsServer(t *testing.T) {
	nodes := testenv.SharedRedisCluster(t)
	rdb := clustered(t, nodes)
	asked := func(addr string) int {
		t.Helper()
		client := open(t, addr)
		stats, err := client.Info(context.Background(), "commandstats").Result()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(stats, "cmdstat_time:")
	}
	for _, n := range nodes.Nodes {
		if err := open(t, n.Addr()).ConfigResetStat(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	s := NewStore(rdb, "test", 3, testLease)
	if _, err := s.Time(t.Context()); err != nil {
		t.Fatal(err)
	}
	has, err := nodes.Primary(t.Context(), s.keys.Fence())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes.Nodes {
		want := 0
		if n == has {
			want = 1
		}
		if got := asked(n.Addr()); got != want {
			t.Errorf("node %s was asked: %d, want %d", n.Addr(), got, want)
		}
	}
}
