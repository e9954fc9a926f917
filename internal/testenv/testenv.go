// Package testenv starts the real services that tests and benchmarks need,
// Apache Kafka and Redis, on free loopback ports and in temporary folders, and
// stops exactly the processes it started.
//
//	func TestMain(m *testing.M) { testenv.Main(m) }
//
//	func TestApply(t *testing.T) {
//		kafka := testenv.SharedKafka(t)       // one broker per test process
//		topic := testenv.Prefix(t) + "orders" // unique to this run of this test
//		kafka.CreateTopic(t, topic, 4, nil)
//		redis := testenv.Redis(t, testenv.RedisOptions{AppendFsync: "everysec"})
//		…
//		redis.Kill()
//		redis.Restart(t.Context())
//	}
//
// [StartKafka] and [StartRedis] are the same without a test, for benchmarks
// that are commands. [Cluster] is several brokers, [Clustered] a Redis Cluster;
// both services can ask for certificates and users. A Redis server can be a
// replica of another, be backed up and restored; a [Proxy] is an address that
// moves between servers.
//
// Where a service cannot be started because the machine lacks a program, a
// test is skipped with the reason; where the environment says CI=true it
// fails instead, so that a green CI run has met the real services.
package testenv

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// startPatience bounds the wait for a service in a test. Kafka listens after
// three seconds on an idle machine; the first use also downloads it.
const startPatience = 5 * time.Minute

// MissingError says that the machine lacks something a service needs.
type MissingError struct {
	What  string // a program or a system, in words
	Cause error  // nil, or what was tried
}

func (e *MissingError) Error() string {
	if e.Cause == nil {
		return "missing " + e.What
	}
	return fmt.Sprintf("missing %s: %v", e.What, e.Cause)
}

func (e *MissingError) Unwrap() error { return e.Cause }

// program finds an executable in PATH.
func program(name, what string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", &MissingError{What: what + " in PATH"}
	}
	return path, nil
}

// Kafka starts a broker for this test alone and stops it when the test ends.
// Prefer [SharedKafka] unless the test kills or configures its broker.
func Kafka(tb testing.TB, options KafkaOptions) *KafkaServer {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), startPatience)
	defer cancel()
	k, err := StartKafka(ctx, options)
	if err != nil {
		skipOrFail(tb, err)
	}
	tb.Cleanup(func() { finish(tb, &k.service) })
	return k
}

// Cluster starts several brokers for this test alone and stops them when the
// test ends.
func Cluster(tb testing.TB, brokers int, options KafkaOptions) *KafkaCluster {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), startPatience)
	defer cancel()
	c, err := StartKafkaCluster(ctx, brokers, options)
	if err != nil {
		skipOrFail(tb, err)
	}
	for _, k := range c.Brokers {
		tb.Cleanup(func() { finish(tb, &k.service) })
	}
	return c
}

// Redis starts a Redis server for this test alone, which takes about 20 ms,
// and stops it when the test ends.
func Redis(tb testing.TB, options RedisOptions) *RedisServer {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), startPatience)
	defer cancel()
	r, err := StartRedis(ctx, options)
	if err != nil {
		skipOrFail(tb, err)
	}
	tb.Cleanup(func() { finish(tb, &r.service) })
	return r
}

// finish stops a test's own service and shows its output when the test failed.
func finish(tb testing.TB, s *service) {
	if tb.Failed() {
		tb.Logf("output of %s:\n%s", s.name, tail(filepath.Join(s.dir, outputName)))
	}
	if err := s.Stop(); err != nil {
		tb.Error(err)
	}
}

// shared is the broker of this process, started by the first test that wants
// it. A failed start is not tried again.
var shared struct {
	sync.Mutex
	tried bool
	kafka *KafkaServer
	err   error
}

// SharedKafka is the one broker of this test process, started by the first
// call. Its package must have a TestMain that calls [Main]. Tests share it, so
// they name what they create by [Prefix] and leave the broker running.
func SharedKafka(tb testing.TB) *KafkaServer {
	tb.Helper()
	shared.Lock()
	defer shared.Unlock()
	if !shared.tried {
		if !mainRuns {
			tb.Fatal("SharedKafka needs func TestMain(m *testing.M) { testenv.Main(m) } to stop the broker")
		}
		ctx, cancel := context.WithTimeout(tb.Context(), startPatience)
		defer cancel()
		shared.kafka, shared.err = StartKafka(ctx, KafkaOptions{})
		shared.tried = true
	}
	if shared.err != nil {
		skipOrFail(tb, shared.err)
	}
	return shared.kafka
}

// mainRuns is set before any test runs.
var mainRuns bool

// Main runs the tests of a package and then stops what they shared. The checks
// come last, for example one that looks for leaked goroutines; their errors
// fail the package.
func Main(m *testing.M, checks ...func() error) {
	mainRuns = true
	code := m.Run()
	if shared.kafka != nil {
		checks = append([]func() error{shared.kafka.Stop}, checks...)
	}
	if sharedCluster.cluster != nil {
		checks = append([]func() error{sharedCluster.cluster.Stop}, checks...)
	}
	for _, check := range checks {
		if err := check(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// prefixes counts the runs of each test of this process, which -count repeats.
var prefixes struct {
	sync.Mutex
	runs    map[string]int
	current map[string]string // by test name, while the test runs
}

// Prefix starts the names of topics, groups, transactional IDs and namespaces
// that a test creates on a shared server. It is the same during one run of one
// test and different in every other; it has the characters that Kafka allows.
func Prefix(tb testing.TB) string {
	prefixes.Lock()
	defer prefixes.Unlock()
	name := tb.Name()
	if prefix, ok := prefixes.current[name]; ok {
		return prefix
	}
	if prefixes.runs == nil {
		prefixes.runs, prefixes.current = map[string]int{}, map[string]string{}
	}
	prefixes.runs[name]++
	hash := fnv.New64a()
	hash.Write([]byte(name))
	prefix := fmt.Sprintf("t%016x-%d-", hash.Sum64(), prefixes.runs[name])
	prefixes.current[name] = prefix
	tb.Cleanup(func() {
		prefixes.Lock()
		defer prefixes.Unlock()
		delete(prefixes.current, name)
	})
	return prefix
}

// DataDir is the folder with the public data sets that some tests compare
// with: $TIERSTREAM_DATA, else shared/data beside the repository. A test that
// wants it is skipped where it is missing, and fails where CI=true and
// TIERSTREAM_DATA promises it.
func DataDir(tb testing.TB) string {
	tb.Helper()
	dir, promised := os.LookupEnv("TIERSTREAM_DATA")
	if !promised {
		dir = filepath.Join(filepath.Dir(repository()), "shared", "data")
	}
	if _, err := os.Stat(dir); err != nil {
		if promised && os.Getenv("CI") == "true" {
			tb.Fatalf("no data sets: TIERSTREAM_DATA: %v", err)
		}
		tb.Skip("no data sets: TIERSTREAM_DATA is not set and ../shared/data does not exist")
	}
	return dir
}

// repository is the root of the repository as it was when this was compiled.
func repository() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// skipOrFail ends a test whose service could not be started: a test is skipped
// for what the machine lacks, except in CI, and fails for every other cause.
func skipOrFail(tb testing.TB, err error) {
	tb.Helper()
	var missing *MissingError
	if !errors.As(err, &missing) || os.Getenv("CI") == "true" {
		tb.Fatal(err)
	}
	reason, _, _ := strings.Cut(err.Error(), "\n")
	tb.Skip(reason)
}

// cacheDir makes and returns a folder for what outlives a test process:
// $TIERSTREAM_CACHE, else tierstream in the user's cache folder.
func cacheDir(name string) (string, error) {
	cache := os.Getenv("TIERSTREAM_CACHE")
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("finding a cache folder: %w", err)
		}
		cache = filepath.Join(user, "tierstream")
	}
	dir := filepath.Join(cache, name)
	return dir, os.MkdirAll(dir, 0o755)
}

// place gives the service its folder and its ports.
func (s *service) place(dir string, ports int) (err error) {
	s.dir = dir
	if dir == "" {
		s.ownsDir = true
		if s.dir, err = os.MkdirTemp("", "tierstream-"+strings.ToLower(s.name)+"-"); err != nil {
			return err
		}
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for range ports {
		p, err := reservePort()
		if err != nil {
			return err
		}
		s.ports = append(s.ports, p)
	}
	return nil
}
