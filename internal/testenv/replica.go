package testenv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Follow makes the server a replica of another and returns when it has all of
// the other's data; its own is gone. A restart forgets that it is a replica.
func (r *RedisServer) Follow(ctx context.Context, primary *RedisServer) error {
	return r.do(ctx, func(client *redis.Client) error {
		if err := replicaOf(ctx, client, primary.Addr()); err != nil {
			return err
		}
		return poll(ctx, "the replica to be in step", func() error {
			return reports(ctx, client, "replication", "master_link_status:up")
		})
	})
}

// Lag cuts a replica off from its primary: it keeps what it has and gets
// nothing more, until Promote or Follow.
func (r *RedisServer) Lag(ctx context.Context) error {
	// Port 1 on loopback: nobody listens there, and it asks again and again.
	return r.do(ctx, func(client *redis.Client) error { return replicaOf(ctx, client, "127.0.0.1:1") })
}

// Promote makes a replica a primary, with the data that it has.
func (r *RedisServer) Promote(ctx context.Context) error {
	return r.do(ctx, func(client *redis.Client) error { return client.ReplicaOf(ctx, "NO", "ONE").Err() })
}

func replicaOf(ctx context.Context, client *redis.Client, primary string) error {
	host, port, err := net.SplitHostPort(primary)
	if err != nil {
		return err
	}
	return client.ReplicaOf(ctx, host, port).Err()
}

// appendOnlyDir is where Redis 7 keeps its append-only files by default.
const appendOnlyDir = "appendonlydir"

// Backup copies the append-only files into a folder, which it makes, while the
// server runs: the data as of about now.
func (r *RedisServer) Backup(ctx context.Context, dir string) error {
	return r.do(ctx, func(client *redis.Client) error {
		// A rewrite would replace the files while they are copied.
		const setting = "auto-aof-rewrite-percentage"
		before, err := client.ConfigGet(ctx, setting).Result()
		if err != nil {
			return err
		}
		if err := client.ConfigSet(ctx, setting, "0").Err(); err != nil {
			return err
		}
		err = poll(ctx, "the rewrite of the append-only file to end", func() error {
			return reports(ctx, client, "persistence", "aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0")
		})
		if err == nil {
			err = os.CopyFS(dir, os.DirFS(filepath.Join(r.Dir(), appendOnlyDir)))
		}
		return errors.Join(err, client.ConfigSet(ctx, setting, before[setting]).Err())
	})
}

// Restore kills the server and starts it on a copy that Backup made.
func (r *RedisServer) Restore(ctx context.Context, dir string) error {
	r.Kill()
	live := filepath.Join(r.Dir(), appendOnlyDir)
	if err := os.RemoveAll(live); err != nil {
		return err
	}
	if err := os.CopyFS(live, os.DirFS(dir)); err != nil {
		return err
	}
	return r.Restart(ctx)
}

// LoseTail drops bytes from the end of a killed server's append-only file, as a
// loss of power does: at most so many, and never more than half of the file. It
// returns how many.
func (r *RedisServer) LoseTail(most int64) (lost int64, err error) {
	files, err := filepath.Glob(filepath.Join(r.Dir(), appendOnlyDir, "*.incr.aof"))
	if err != nil || len(files) == 0 {
		return 0, err
	}
	newest := files[len(files)-1] // a rewrite leaves two for a while, numbered
	info, err := os.Stat(newest)
	if err != nil {
		return 0, err
	}
	lost = min(most, info.Size()/2)
	return lost, os.Truncate(newest, info.Size()-lost)
}

// do gives f a client of the server.
func (r *RedisServer) do(ctx context.Context, f func(*redis.Client) error) error {
	client := redis.NewClient(&redis.Options{Addr: r.Addr(), MaxRetries: -1, DialerRetries: 1})
	defer client.Close()
	return f(client)
}

// reports is nil when a section of INFO has all of the lines.
func reports(ctx context.Context, client *redis.Client, section string, lines ...string) error {
	info, err := client.Info(ctx, section).Result()
	if err != nil {
		return err
	}
	for _, line := range lines {
		if !strings.Contains(info, line) {
			return fmt.Errorf("no %s in\n%s", line, info)
		}
	}
	return nil
}

// poll asks until f is nil or ctx ends.
func poll(ctx context.Context, what string, f func() error) error {
	ask := time.NewTicker(10 * time.Millisecond)
	defer ask.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ask.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w: %w", what, ctx.Err(), err)
		}
	}
}
