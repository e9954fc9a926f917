package testenv_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/tierstream/tierstream/internal/testenv"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func newKafkaClient(t *testing.T, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// firstRecord consumes a topic from its start.
func firstRecord(t *testing.T, broker, topic string) *kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := newKafkaClient(t, kgo.SeedBrokers(broker), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	for {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		if records := fetches.Records(); len(records) > 0 {
			return records[0]
		}
	}
}

func produce(t *testing.T, broker, topic, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := newKafkaClient(t, kgo.SeedBrokers(broker), kgo.DefaultProduceTopic(topic))
	if err := client.ProduceSync(ctx, kgo.StringRecord(value)).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func TestSharedKafkaCarriesRecords(t *testing.T) {
	t.Parallel()
	kafka := testenv.SharedKafka(t)
	if again := testenv.SharedKafka(t); again != kafka {
		t.Error("a second call started a second broker")
	}
	topic := testenv.Prefix(t) + "orders"
	kafka.CreateTopic(t, topic, 1, map[string]string{"message.timestamp.type": "LogAppendTime"})
	produce(t, kafka.Addr(), topic, "one")
	record := firstRecord(t, kafka.Addr(), topic)
	if string(record.Value) != "one" {
		t.Errorf("consumed %q", record.Value)
	}
	if record.Attrs.TimestampType() != 1 {
		t.Error("the topic's settings were not applied: the timestamp is not the log's")
	}

	t.Run("and Kafka's own consumer agrees", func(t *testing.T) {
		output, err := testenv.KafkaTool(t.Context(), "org.apache.kafka.tools.consumer.ConsoleConsumer",
			"--bootstrap-server", kafka.Addr(), "--topic", topic, "--from-beginning", "--max-messages", "1")
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(string(output)); got != "one" {
			t.Errorf("it printed %q", got)
		}
	})
}

func TestKafkaKeepsRecordsOverKill(t *testing.T) {
	t.Parallel()
	kafka := testenv.Kafka(t, testenv.KafkaOptions{Properties: map[string]string{"num.partitions": "3"}})
	kafka.CreateTopic(t, "orders", 1, nil)
	produce(t, kafka.Addr(), "orders", "one")
	addr, pid := kafka.Addr(), kafka.PID()
	kafka.Kill()
	if err := kafka.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if kafka.Addr() != addr {
		t.Errorf("moved from %s to %s", addr, kafka.Addr())
	}
	if kafka.PID() == pid {
		t.Error("the broker was not killed")
	}
	if record := firstRecord(t, kafka.Addr(), "orders"); string(record.Value) != "one" {
		t.Errorf("consumed %q", record.Value)
	}
}

func newRedisClient(t *testing.T, addr string) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, DialerRetries: 1, ReadTimeout: 100 * time.Millisecond})
	t.Cleanup(func() { client.Close() })
	return client
}

func TestRedisKeepsDataOverKillWithAppendOnlyFile(t *testing.T) {
	for fsync, want := range map[string]string{"always": "one", "everysec": "one", "": ""} {
		t.Run("fsync "+fsync, func(t *testing.T) {
			server := testenv.Redis(t, testenv.RedisOptions{AppendFsync: fsync})
			if err := newRedisClient(t, server.Addr()).Set(t.Context(), "key", "one", 0).Err(); err != nil {
				t.Fatal(err)
			}
			server.Kill()
			if err := newRedisClient(t, server.Addr()).Ping(t.Context()).Err(); err == nil {
				t.Fatal("a killed server answers")
			}
			if err := server.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			got, err := newRedisClient(t, server.Addr()).Get(t.Context(), "key").Result()
			if err != nil && !errors.Is(err, redis.Nil) {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("after the restart the value is %q, want %q", got, want)
			}
		})
	}
}

func TestRedisSettings(t *testing.T) {
	server := testenv.Redis(t, testenv.RedisOptions{
		MaxMemoryPolicy: "allkeys-lru", Config: map[string]string{"maxmemory": "3145728"}})
	settings, err := newRedisClient(t, server.Addr()).ConfigGet(t.Context(), "maxmemory*").Result()
	if err != nil {
		t.Fatal(err)
	}
	if settings["maxmemory-policy"] != "allkeys-lru" || settings["maxmemory"] != "3145728" {
		t.Errorf("settings: %v", settings)
	}
}

func TestRedisPausedIsSilentUntilResumed(t *testing.T) {
	server := testenv.Redis(t, testenv.RedisOptions{})
	client := newRedisClient(t, server.Addr())
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := client.Ping(t.Context()).Err(); err == nil {
		t.Error("a paused server answers")
	}
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := newRedisClient(t, server.Addr()).Ping(t.Context()).Err(); err != nil {
		t.Errorf("after Resume: %v", err)
	}
}

func TestClusterOutlivesItsLeader(t *testing.T) {
	t.Parallel()
	cluster := testenv.Cluster(t, 3, testenv.KafkaOptions{Heap: "256m"})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := newKafkaClient(t, kgo.SeedBrokers(cluster.Addrs()...), kgo.DefaultProduceTopic("orders"), kgo.MetadataMinAge(50*time.Millisecond))
	admin := kadm.NewClient(client)
	if _, err := admin.CreateTopic(ctx, 1, 3, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	leader := func() int32 {
		topics, err := admin.ListTopics(ctx, "orders")
		if err != nil {
			t.Fatal(err)
		}
		return topics["orders"].Partitions[0].Leader
	}
	if err := client.ProduceSync(ctx, kgo.StringRecord("one")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	first := leader()
	cluster.Brokers[first-1].Kill()
	if err := client.ProduceSync(ctx, kgo.StringRecord("two")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if second := leader(); second == first {
		t.Errorf("broker %d still leads, and is dead", second)
	}
	if err := cluster.Brokers[first-1].Restart(ctx); err != nil {
		t.Fatal(err)
	}
	ends, err := admin.ListEndOffsets(ctx, "orders")
	if err != nil {
		t.Fatal(err)
	}
	if end, _ := ends.Lookup("orders", 0); end.Offset != 2 {
		t.Errorf("the topic ends at %d, want 2", end.Offset)
	}
}

// TestRedisLosesWhatAReplicaDidNotGet promotes a replica that lags behind, by
// an address that moves with it, and lets the old primary come back.
func TestRedisLosesWhatAReplicaDidNotGet(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	primary := testenv.Redis(t, testenv.RedisOptions{AppendFsync: "everysec"})
	replica := testenv.Redis(t, testenv.RedisOptions{AppendFsync: "everysec"})
	proxy, err := testenv.StartProxy(primary.Addr())
	check(err)
	t.Cleanup(proxy.Stop)
	client := newRedisClient(t, proxy.Addr())
	want := func(value string) {
		t.Helper()
		if got, err := newRedisClient(t, proxy.Addr()).Get(ctx, "key").Result(); err != nil || got != value {
			t.Errorf("the value is %q, %v, want %q", got, err, value)
		}
	}

	check(client.Set(ctx, "key", "one", 0).Err())
	check(replica.Follow(ctx, primary))
	backup := filepath.Join(t.TempDir(), "backup")
	check(primary.Backup(ctx, backup))
	check(replica.Lag(ctx))
	check(client.Set(ctx, "key", "two", 0).Err())
	primary.Kill()
	check(replica.Promote(ctx))
	proxy.Point(replica.Addr(), true)
	want("one")
	check(newRedisClient(t, proxy.Addr()).Set(ctx, "key", "three", 0).Err())

	check(primary.Restart(ctx)) // it still has what the replica did not get
	proxy.Point(primary.Addr(), true)
	want("two")
	check(primary.Restore(ctx, backup))
	want("one")
	check(primary.Follow(ctx, replica))
	want("three")
}

func TestProxyKeepsOrCutsConnections(t *testing.T) {
	old, next := testenv.Redis(t, testenv.RedisOptions{}), testenv.Redis(t, testenv.RedisOptions{})
	for server, name := range map[*testenv.RedisServer]string{old: "old", next: "next"} {
		if err := newRedisClient(t, server.Addr()).Set(t.Context(), "name", name, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	proxy, err := testenv.StartProxy(old.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Stop)
	stays := redis.NewClient(&redis.Options{Addr: proxy.Addr(), MaxRetries: -1, PoolSize: 1})
	t.Cleanup(func() { stays.Close() })
	name := func(c *redis.Client) string {
		got, _ := c.Get(t.Context(), "name").Result() // "" is told apart below
		return got
	}
	if got := name(stays); got != "old" {
		t.Fatalf("the first connection leads to %q", got)
	}
	proxy.Point(next.Addr(), false)
	if got := name(stays); got != "old" {
		t.Errorf("the open connection leads to %q", got)
	}
	if got := name(newRedisClient(t, proxy.Addr())); got != "next" {
		t.Errorf("a new connection leads to %q", got)
	}
	proxy.Cut()
	eventually(t, "the cut connection to be replaced", func() bool { return name(stays) == "next" })
}

func TestStopRemovesOnlyOwnFolder(t *testing.T) {
	testenv.Redis(t, testenv.RedisOptions{}) // skips where there is no Redis
	named := t.TempDir()
	for dir, kept := range map[string]bool{"": false, named: true} {
		server, err := testenv.StartRedis(t.Context(), testenv.RedisOptions{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := server.Stop(); err != nil {
			t.Errorf("stopping twice: %v", err)
		}
		if _, err := os.Stat(server.Dir()); (err == nil) != kept {
			t.Errorf("folder %q, named in the options: %t: %v", server.Dir(), kept, err)
		}
	}
}

func TestStartReportsWhatTheServerSaid(t *testing.T) {
	testenv.Redis(t, testenv.RedisOptions{}) // skips where there is no Redis
	_, err := testenv.StartRedis(t.Context(), testenv.RedisOptions{Config: map[string]string{"no-such-setting": "1"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-setting") {
		t.Errorf("error: %v", err)
	}
}

// TestServiceDiesWithItsTest runs itself in a child process that is killed
// while its Redis runs.
func TestServiceDiesWithItsTest(t *testing.T) {
	const marker = "TESTENV_CHILD_DIR"
	if dir := os.Getenv(marker); dir != "" {
		server := testenv.Redis(t, testenv.RedisOptions{Dir: dir})
		if err := os.WriteFile(filepath.Join(dir, "addr.new"), []byte(server.Addr()), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "addr.new"), filepath.Join(dir, "addr")); err != nil {
			t.Fatal(err)
		}
		select {} // until killed
	}
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends a service with its parent")
	}
	testenv.Redis(t, testenv.RedisOptions{}) // skips where there is no Redis

	dir := t.TempDir()
	child := exec.Command(os.Args[0], "-test.run=^TestServiceDiesWithItsTest$")
	child.Env = append(os.Environ(), marker+"="+dir)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var addr string
	eventually(t, "the child's Redis to start", func() bool {
		text, err := os.ReadFile(filepath.Join(dir, "addr"))
		addr = string(text)
		return err == nil
	})
	if err := newRedisClient(t, addr).Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // it was killed
	eventually(t, "the child's Redis to end", func() bool {
		return newRedisClient(t, addr).Ping(t.Context()).Err() != nil
	})
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ask := time.NewTicker(5 * time.Millisecond)
	defer ask.Stop()
	for !holds() {
		select {
		case <-ask.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestPrefixDiffersBetweenTests(t *testing.T) {
	seen := map[string]bool{testenv.Prefix(t): true}
	if !seen[testenv.Prefix(t)] {
		t.Error("the prefix changed within one test")
	}
	for _, name := range []string{"a", "b"} {
		t.Run(name, func(t *testing.T) {
			if prefix := testenv.Prefix(t); seen[prefix] {
				t.Errorf("%s came before", prefix)
			} else {
				seen[prefix] = true
			}
		})
	}
}

// recorder notes how a helper ends the test that it stands for.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper()           {}
func (r *recorder) Skip(args ...any)  { r.skipped = args[0].(string); panic(r) }
func (r *recorder) Fatal(args ...any) { r.failed = args[0].(error).Error(); panic(r) }
func (r *recorder) end(helper func()) { defer func() { _ = recover() }(); helper() }
func (r *recorder) Cleanup(f func())  {}

func TestMissingServiceSkipsAtHomeAndFailsInCI(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("CI", "")
	const want = "missing redis-server in PATH"
	home := &recorder{TB: t}
	home.end(func() { testenv.Redis(home, testenv.RedisOptions{}) })
	if home.skipped != want || home.failed != "" {
		t.Errorf("at home: skipped %q, failed %q", home.skipped, home.failed)
	}
	t.Setenv("CI", "true")
	ci := &recorder{TB: t}
	ci.end(func() { testenv.Redis(ci, testenv.RedisOptions{}) })
	if ci.failed != want || ci.skipped != "" {
		t.Errorf("in CI: skipped %q, failed %q", ci.skipped, ci.failed)
	}
}

func TestDataDirFollowsTheEnvironment(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TIERSTREAM_DATA", dir)
	if got := testenv.DataDir(t); got != dir {
		t.Errorf("got %s, want %s", got, dir)
	}
	t.Setenv("TIERSTREAM_DATA", filepath.Join(dir, "missing"))
	t.Setenv("CI", "")
	home := &recorder{TB: t}
	home.end(func() { testenv.DataDir(home) })
	if home.skipped == "" {
		t.Error("a missing folder does not skip")
	}
}
