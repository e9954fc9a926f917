// Package embedded runs the services of a consumer that was given none: Kafka
// inside this process, and Redis as a child process where redis-server is
// installed, else inside this process too.
//
// Everything listens on loopback only and lives in one data folder:
//
//	lock                 held while a process uses the folder; the process ID
//	endpoints.json       addresses for other tools, and the ports to try next time
//	kafka/               the log; every record is on disk before it is acknowledged
//	kafka.open           there while Kafka runs, so that a kill is noticed
//	redis/               append-only file and output of redis-server
//	redis.lock           held while that redis-server lives; its process ID
//	miniredis.snapshot   what the in-process Redis held at its last orderly stop
//
// What a SIGKILL, a crash or a power cut leaves is opened again as a broker
// would: a transaction is there as a whole or not at all. Redis may come back
// older than it was, never half-written; the consumer brings it up to date
// from its journal.
package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// Options say where and how. Dir is required.
type Options struct {
	// Dir is the data folder, made when it does not exist.
	Dir string
	// KafkaPort and RedisPort are the preferred ports on loopback, 0 for none.
	// A service whose preferred port is taken uses the one of the last run, and
	// if that is taken too, any free one.
	KafkaPort, RedisPort int
	// Log takes the services' warnings; nil discards them.
	Log *slog.Logger
	// Redis is "auto" (or ""): redis-server if there is one in PATH, else the
	// in-process one; "server": redis-server or an error; "mini": in-process.
	Redis string
	// Namespace is written to endpoints.json for other tools; nothing here
	// depends on it.
	Namespace string
}

// Services are running until Close.
type Services struct {
	Brokers    []string // host:port
	Redis      string   // host:port
	RedisKind  string   // "redis-server 7.0.15" or "miniredis"
	Durability string   // what a crash may cost, in words for people

	kafka *kafka
	redis redisService
	lock  *os.File
}

// redisService is one of the two kinds of Redis.
type redisService interface {
	addr() string
	// stop writes what must not be lost and ends the service.
	stop() error
}

// Endpoints is what endpoints.json says. It outlives the services, so an
// address in it may not answer.
type Endpoints struct {
	Brokers   []string `json:"brokers"`
	Redis     string   `json:"redis"`
	Namespace string   `json:"namespace"`
}

const endpointsName = "endpoints.json"

// ReadEndpoints tells where the services of a data folder listen, or listened
// when they last ran. The error is fs.ErrNotExist for a folder that was never
// used.
func ReadEndpoints(dir string) (Endpoints, error) {
	var e Endpoints
	text, err := os.ReadFile(filepath.Join(dir, endpointsName))
	if err != nil {
		return e, fmt.Errorf("reading endpoints: %w", err)
	}
	if err := json.Unmarshal(text, &e); err != nil {
		return e, fmt.Errorf("reading %s: %w", filepath.Join(dir, endpointsName), err)
	}
	return e, nil
}

// Start starts the services and returns when both answer. Only the start
// depends on ctx. The data folder is this process's alone until Close; a second
// Start on it is refused with a message that names the process.
func Start(ctx context.Context, o Options) (_ *Services, err error) {
	if o.Dir == "" {
		return nil, errors.New("starting embedded services: no data folder")
	}
	switch o.Redis {
	case "", "auto", "server", "mini":
	default:
		return nil, fmt.Errorf("starting embedded services: redis is %q, want auto, server or mini", o.Redis)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the data folder: %w", err)
	}
	s := &Services{}
	if s.lock, err = lockFolder(o.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()

	last, err := ReadEndpoints(o.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		o.Log.Warn("the ports of the last run are not known", "error", err)
	}
	var lastBroker string
	if len(last.Brokers) > 0 {
		lastBroker = last.Brokers[0]
	}
	if s.kafka, err = startKafka(o.Dir, ports{o.KafkaPort, portOf(lastBroker)}, o.Log); err != nil {
		return nil, err
	}
	s.Brokers = []string{s.kafka.addr}
	if err := s.startRedis(ctx, o, ports{o.RedisPort, portOf(last.Redis)}); err != nil {
		return nil, err
	}
	s.Redis = s.redis.addr()

	text, err := json.Marshal(Endpoints{s.Brokers, s.Redis, o.Namespace})
	if err != nil {
		return nil, fmt.Errorf("writing endpoints: %w", err)
	}
	if err := writeFile(filepath.Join(o.Dir, endpointsName), append(text, '\n')); err != nil {
		return nil, fmt.Errorf("writing endpoints: %w", err)
	}
	return s, nil
}

// startRedis starts the kind of Redis that the options ask for and the machine
// has.
func (s *Services) startRedis(ctx context.Context, o Options, try ports) error {
	const kafka = "Every Kafka record is on disk before it is acknowledged. "
	if o.Redis != "mini" {
		server, err := startRedisServer(ctx, o.Dir, try, o.Log)
		switch {
		case err == nil:
			s.redis, s.RedisKind = server, "redis-server "+server.version
			s.Durability = kafka + "redis-server appends every write to its file and syncs it once a second: a power cut may cost Redis about a second, which is rebuilt from the journal."
			return nil
		case o.Redis == "server" || !errors.Is(err, errNoRedisServer):
			return err
		}
		o.Log.Info("using the in-process Redis", "because", err)
	}
	mini, err := startMini(o.Dir, try)
	if err != nil {
		return err
	}
	s.redis, s.RedisKind = mini, "miniredis"
	s.Durability = kafka + "Redis is in memory and written to disk only at an orderly stop: after a crash, what came since the last one is rebuilt from the journal."
	return nil
}

// Close stops the services in order and gives the folder free. Clients should
// be closed before. A second Close does nothing.
func (s *Services) Close() error {
	var err error
	if s.redis != nil {
		err = s.redis.stop()
		s.redis = nil
	}
	if s.kafka != nil {
		err = errors.Join(err, s.kafka.stop())
		s.kafka = nil
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
		s.lock = nil
	}
	return err
}

// lockFolder makes this process the only one to use the folder. The lock ends
// with the process at the latest.
func lockFolder(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	lock, err := tryLock(path)
	if errors.Is(err, errLocked) {
		who := "another process"
		if pid := readPID(path); pid > 0 {
			who = fmt.Sprintf("process %d", pid)
		}
		return nil, fmt.Errorf("the data folder %s is in use by %s: stop it, or choose another folder", dir, who)
	}
	if err != nil {
		return nil, fmt.Errorf("locking the data folder: %w", err)
	}
	if err := writePID(lock, os.Getpid()); err != nil {
		lock.Close()
		return nil, fmt.Errorf("locking the data folder: %w", err)
	}
	return lock, nil
}

// errLocked says that another process, or another open of the same file in
// this one, holds the lock.
var errLocked = errors.New("locked by another")

// readPID reads what writePID wrote; 0 when there is nothing to read.
func readPID(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		return 0
	}
	return pid
}

// writePID replaces what a lock file says; 0 empties it.
func writePID(lock *os.File, pid int) error {
	if err := lock.Truncate(0); err != nil || pid == 0 {
		return err
	}
	_, err := lock.WriteAt([]byte(strconv.Itoa(pid)), 0)
	return err
}

// portOf is the port of an address, 0 when it has none.
func portOf(addr string) int {
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		return 0
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return port
}
