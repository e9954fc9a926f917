package embedded

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// kafka is the broker inside this process.
type kafka struct {
	cluster *kfake.Cluster
	addr    string
	open    string // the file that says it runs
	log     *kafkaLog
}

// brokerSettings are where the fake broker's own do not fit. Its compaction
// deletes a partition's files before it writes the new ones, and a partition
// emptied by retention forgets its offsets in a crash: so nothing is ever
// removed here, which also keeps every replay possible. Ten years in
// milliseconds is "never" for its ticker.
var brokerSettings = map[string]string{
	"log.retention.ms":       "-1",
	"log.cleaner.backoff.ms": "315360000000",
	// Members of a group with a server-side assignor learn of a change with
	// their next heartbeat.
	"group.consumer.heartbeat.interval.ms": "250",
}

// startKafka opens the log in dir/kafka and listens.
func startKafka(dir string, try ports, log *slog.Logger) (_ *kafka, err error) {
	k := &kafka{open: filepath.Join(dir, "kafka.open"), log: &kafkaLog{to: log}}
	data := filepath.Join(dir, "kafka")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return nil, fmt.Errorf("starting Kafka: %w", err)
	}
	if _, err := os.Stat(k.open); err == nil {
		if err := repair(data, log); err != nil {
			return nil, fmt.Errorf("repairing Kafka's log in %s after a crash: %w", data, err)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("starting Kafka: %w", err)
	}
	if err := writeFile(k.open, nil); err != nil {
		return nil, fmt.Errorf("starting Kafka: %w", err)
	}
	listener, err := try.listen()
	if err != nil {
		return nil, fmt.Errorf("starting Kafka: %w", err)
	}
	k.addr = listener.Addr().String()
	k.cluster, err = kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.DataDir(data),
		kfake.SyncWrites(),
		// Of a folder that has been used before, the ID kept in it counts.
		kfake.ClusterID(newClusterID()),
		kfake.GroupMinSessionTimeout(100*time.Millisecond),
		kfake.BrokerConfigs(brokerSettings),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return listener, nil }),
		kfake.WithLogger(k.log),
	)
	if err != nil {
		listener.Close()
		return nil, fmt.Errorf("starting Kafka on %s: %w", data, err)
	}
	stampLogAppendTime(k.cluster)
	return k, nil
}

// stop writes the log's metadata and ends the broker. The mark of an open log
// stays when that fails, so that the next start repairs it.
func (k *kafka) stop() error {
	k.log.collect()
	k.cluster.Close()
	if err := k.log.collected(); err != nil {
		return fmt.Errorf("stopping Kafka: %w", err)
	}
	if err := os.Remove(k.open); err != nil {
		return fmt.Errorf("stopping Kafka: %w", err)
	}
	return nil
}

// newClusterID is a random UUID as Kafka writes one: 16 bytes in URL-safe base
// 64.
func newClusterID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[0] &= 0x7f           // no leading '-', which would read as an option
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// kafkaLog passes the broker's warnings on. At a stop, where the broker has no
// other way to tell, it collects its errors.
type kafkaLog struct {
	to *slog.Logger

	mu         sync.Mutex
	collecting bool
	errs       []error
}

// Logf implements [kfake.Logger].
func (l *kafkaLog) Logf(level kfake.LogLevel, format string, args ...any) {
	switch level {
	case kfake.LogLevelError:
		l.mu.Lock()
		collecting := l.collecting
		if collecting {
			l.errs = append(l.errs, fmt.Errorf(format, args...))
		}
		l.mu.Unlock()
		if !collecting {
			l.to.Error(fmt.Sprintf(format, args...), "service", "kafka")
		}
	case kfake.LogLevelWarn:
		l.to.Warn(fmt.Sprintf(format, args...), "service", "kafka")
	}
}

func (l *kafkaLog) collect() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.collecting = true
}

func (l *kafkaLog) collected() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.errs...)
}
