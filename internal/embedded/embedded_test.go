package embedded

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
)

// holdFolder asks the test binary to start the services on this folder and
// hold them until it is killed.
const holdFolder = "TIERSTREAM_TEST_HOLD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdFolder); dir != "" {
		if err := hold(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	code := m.Run()
	if left := leaked(); left != "" {
		fmt.Fprintln(os.Stderr, "goroutines left after all tests:\n"+left)
		code = max(code, 1)
	}
	os.Exit(code)
}

func hold(dir string) error {
	s, err := Start(context.Background(), Options{Dir: dir})
	if err != nil {
		return err
	}
	fmt.Println(s.Redis)
	_, err = io.Copy(io.Discard, os.Stdin) // until the parent is gone too
	return errors.Join(err, s.Close())
}

// leaked shows goroutines of the services, giving those that are ending a
// moment to do so.
func leaked() string {
	deadline := time.Now().Add(5 * time.Second)
	for {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		var left []string
		for g := range strings.SplitSeq(string(stacks), "\n\n") {
			if strings.Contains(g, ".leaked(") || strings.Contains(g, ".TestMain(") {
				continue
			}
			for _, of := range []string{"/internal/embedded.", "/kfake.", "/miniredis/", "/go-redis/", "/kgo."} {
				if strings.Contains(g, of) {
					left = append(left, g)
					break
				}
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return strings.Join(left, "\n\n")
		}
		runtime.Gosched()
	}
}

// needRedisServer skips a test, and in CI fails it, where there is no
// redis-server.
func needRedisServer(t *testing.T) {
	t.Helper()
	if _, _, err := findRedisServer(t.Context()); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// eachRedis runs a test with both kinds of Redis.
func eachRedis(t *testing.T, test func(t *testing.T, kind string)) {
	t.Run("server", func(t *testing.T) {
		needRedisServer(t)
		test(t, "server")
	})
	t.Run("mini", func(t *testing.T) { test(t, "mini") })
}

func start(t *testing.T, o Options) *Services {
	t.Helper()
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func closeAll(t *testing.T, s *Services) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func redisClient(t *testing.T, s *Services) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: s.Redis})
	t.Cleanup(func() { c.Close() })
	return c
}

func TestStartFindsEverythingAgain(t *testing.T) {
	eachRedis(t, func(t *testing.T, kind string) {
		o := Options{Dir: filepath.Join(t.TempDir(), "new", "data"), Redis: kind, Namespace: "demo"}
		s := start(t, o)
		if s.Durability == "" || !strings.HasPrefix(s.RedisKind, map[string]string{"server": "redis-server ", "mini": "miniredis"}[kind]) {
			t.Errorf("kind %q, durability %q", s.RedisKind, s.Durability)
		}
		createTopic(t, s.Brokers[0], "in", 1, nil)
		producer := newClient(t, s.Brokers[0], kgo.TransactionalID("p"))
		transaction(t, producer, "in", 1, "a", &commit)
		producer.Close()
		was := identify(t, s.Brokers[0], "in")
		binary := "\x00\xff\r\n{key}"
		scores := []redis.Z{{Score: math.Inf(-1), Member: "low"}, {Score: 1790000000123.5, Member: binary}, {Score: math.Inf(1), Member: "never"}}
		client := redisClient(t, s)
		if _, err := client.Pipelined(t.Context(), func(p redis.Pipeliner) error {
			p.Set(t.Context(), binary, binary, 0)
			p.Set(t.Context(), "ends", "x", time.Hour)
			p.HSet(t.Context(), "h"+binary, "f"+binary, binary, "empty", "")
			p.ZAdd(t.Context(), "z", scores...)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		client.Close()
		endpoints, err := ReadEndpoints(o.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if endpoints.Redis != s.Redis || !slices.Equal(endpoints.Brokers, s.Brokers) || endpoints.Namespace != "demo" {
			t.Errorf("endpoints.json says %+v, the services are at %v and %s", endpoints, s.Brokers, s.Redis)
		}
		closeAll(t, s)
		for _, addr := range []string{s.Redis, s.Brokers[0]} {
			if c, err := net.Dial("tcp", addr); err == nil {
				c.Close()
				t.Errorf("%s still answers after Close", addr)
			}
		}

		again := start(t, o)
		if again.Redis != s.Redis || !slices.Equal(again.Brokers, s.Brokers) {
			t.Errorf("moved from %v and %s to %v and %s", s.Brokers, s.Redis, again.Brokers, again.Redis)
		}
		if got := identify(t, again.Brokers[0], "in"); fmt.Sprint(got) != fmt.Sprint(was) {
			t.Errorf("identity\n got %v\nwant %v", got, was)
		}
		wantRecords(t, "after a stop", read(t, again.Brokers[0], "in", 0, kgo.ReadCommitted()), "0 a", "1 commit")
		client = redisClient(t, again)
		if got, err := client.Get(t.Context(), binary).Result(); err != nil || got != binary {
			t.Errorf("string: got %q, %v", got, err)
		}
		if ttl, err := client.TTL(t.Context(), "ends").Result(); err != nil || ttl < 59*time.Minute || ttl > time.Hour {
			t.Errorf("time to live: got %v, %v", ttl, err)
		}
		if got, err := client.HGetAll(t.Context(), "h"+binary).Result(); err != nil || !maps.Equal(got, map[string]string{"f" + binary: binary, "empty": ""}) {
			t.Errorf("hash: got %q, %v", got, err)
		}
		if got, err := client.ZRangeWithScores(t.Context(), "z", 0, -1).Result(); err != nil || !slices.Equal(got, scores) {
			t.Errorf("sorted set: got %v, %v", got, err)
		}
		if keys, err := client.DBSize(t.Context()).Result(); err != nil || keys != 4 {
			t.Errorf("%d keys, want 4: %v", keys, err)
		}
		client.Close()
		closeAll(t, again)
	})
}

// alive says that a process runs. One that ended and was not waited for, as
// happens to orphans in a container without an init, still has an entry in the
// process table.
func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil || p.Signal(syscall.Signal(0)) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true // not Linux
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

func TestCloseLeavesNoProcess(t *testing.T) {
	needRedisServer(t)
	dir := t.TempDir()
	s := start(t, Options{Dir: dir})
	pid := readPID(filepath.Join(dir, "redis.lock"))
	if !alive(pid) {
		t.Fatalf("redis.lock names process %d, which does not run", pid)
	}
	closeAll(t, s)
	if alive(pid) {
		t.Errorf("redis-server %d runs after Close", pid)
	}
	if left := leaked(); left != "" {
		t.Errorf("goroutines left after Close:\n%s", left)
	}
}

func TestSecondStartIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := start(t, Options{Dir: dir, Redis: "mini"})
	second, err := Start(t.Context(), Options{Dir: dir, Redis: "mini"})
	if err == nil {
		closeAll(t, second)
		t.Fatal("two starts share a folder")
	}
	for _, want := range []string{dir, fmt.Sprintf("in use by process %d", os.Getpid())} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the message does not say %q: %v", want, err)
		}
	}
	closeAll(t, s)
	closeAll(t, start(t, Options{Dir: dir, Redis: "mini"}))
}

// A SIGKILL of the process that holds the folder, twice, leaves no
// redis-server behind, and what was acknowledged is there again.
func TestKilledHolderLeavesFolderUsable(t *testing.T) {
	needRedisServer(t)
	dir := t.TempDir()
	var pids []int
	for round := range 2 {
		command := exec.CommandContext(t.Context(), os.Args[0])
		command.Env = append(os.Environ(), holdFolder+"="+dir)
		command.Stderr = os.Stderr
		stdin, err := command.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer stdin.Close()
		stdout, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		addr, err := bufio.NewReader(stdout).ReadString('\n')
		if err != nil {
			t.Fatalf("the holder did not start: %v", err)
		}
		if _, err := Start(t.Context(), Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d", command.Process.Pid)) {
			t.Errorf("start beside the holder %d: %v", command.Process.Pid, err)
		}
		pids = append(pids, readPID(filepath.Join(dir, "redis.lock")))
		client := redis.NewClient(&redis.Options{Addr: strings.TrimSpace(addr)})
		n, err := client.Incr(t.Context(), "rounds").Result()
		client.Close()
		if err != nil || n != int64(round)+1 {
			t.Fatalf("round %d: counter %d, %v", round, n, err)
		}
		if err := command.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = command.Wait() // "signal: killed"
	}

	s := start(t, Options{Dir: dir})
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("redis-server %d outlived its consumer", pid)
		}
	}
	client := redisClient(t, s)
	if n, err := client.Get(t.Context(), "rounds").Int(); err != nil || n != 2 {
		t.Errorf("counter %d, want 2: %v", n, err)
	}
	client.Close()
	closeAll(t, s)
}

func TestPreferredPorts(t *testing.T) {
	var preferred ports
	for i := range preferred {
		port, err := ports{}.free()
		if err != nil {
			t.Fatal(err)
		}
		preferred[i] = port
	}
	o := Options{Dir: t.TempDir(), Redis: "mini", KafkaPort: preferred[0], RedisPort: preferred[1]}
	s := start(t, o)
	if portOf(s.Brokers[0]) != preferred[0] || portOf(s.Redis) != preferred[1] {
		t.Errorf("preferred %v, got %v and %s", preferred, s.Brokers, s.Redis)
	}
	// Another folder with the same wish gets others, and the same ones again.
	o.Dir = t.TempDir()
	other := start(t, o)
	if portOf(other.Brokers[0]) == preferred[0] || portOf(other.Redis) == preferred[1] {
		t.Errorf("two services on one port: %v and %s", other.Brokers, other.Redis)
	}
	closeAll(t, other)
	again := start(t, o)
	if again.Redis != other.Redis || again.Brokers[0] != other.Brokers[0] {
		t.Errorf("moved from %v and %s to %v and %s", other.Brokers, other.Redis, again.Brokers, again.Redis)
	}
	closeAll(t, again)
	closeAll(t, s)
}

func TestStartWithoutRedisServer(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	s := start(t, Options{Dir: t.TempDir()})
	if s.RedisKind != "miniredis" {
		t.Errorf("kind %q, want miniredis", s.RedisKind)
	}
	closeAll(t, s)
	dir := t.TempDir()
	if _, err := Start(t.Context(), Options{Dir: dir, Redis: "server"}); !errors.Is(err, errNoRedisServer) {
		t.Errorf("redis-server demanded: %v", err)
	}
	// A refused start gives the folder free.
	closeAll(t, start(t, Options{Dir: dir, Redis: "mini"}))
}
