package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/connect"
	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/scoring"
	"github.com/tierstream/tierstream/internal/state"
	"github.com/tierstream/tierstream/internal/stream"
	"github.com/tierstream/tierstream/internal/view"
)

// connectionGroup is the key of the flags below.
const connectionGroup = "connection"

// defaultTopics are the inputs of a namespace that names no others.
const defaultTopics = "purchases,complaints,referrals"

// connection is the flags all commands share. What is left empty is found out:
// from the running embedded consumer, from the namespace's rules, or it takes
// its default, in that order.
type connection struct {
	Brokers     []string `help:"Kafka brokers. Default: those of the embedded consumer." placeholder:"HOST:PORT" group:"connection"`
	Redis       string   `help:"Redis: host:port, or a redis:// or, for TLS, rediss:// URL. Default: that of the embedded consumer." placeholder:"ADDRESS" group:"connection"`
	Namespace   string   `help:"Name of the state. Default: live." placeholder:"NAME" group:"connection"`
	Topics      []string `help:"Input topics. Default: those of the namespace's rules, else purchases,complaints,referrals." placeholder:"TOPIC" group:"connection"`
	Changes     string   `name:"changes-topic" help:"Topic of tier changes." default:"tier-changes" group:"connection"`
	DeadLetters string   `name:"dead-letters-topic" help:"Topic of refused records." default:"dead-letters" group:"connection"`
	Partitioner string   `help:"How producers choose partitions: murmur2, crc32, fnv1a or explicit. Default: that of the rules, else murmur2." enum:"murmur2,crc32,fnv1a,explicit," default:"" placeholder:"RULE" group:"connection"`
	Model       string   `help:"Read values with this model instead of the one in force." type:"existingfile" placeholder:"FILE" group:"connection"`
	Mapping     string   `help:"Read records with this mapping instead of the one in force." type:"existingfile" placeholder:"FILE" group:"connection"`
	DataDir     string   `help:"Folder of the embedded consumer." default:"tierstream-data" group:"connection"`

	KafkaSecurity connect.Kafka `embed:"" group:"connection"`
	RedisSecurity connect.Redis `embed:"" group:"connection"`

	RegistrySecurity connect.Registry `embed:"" group:"connection"`
}

// endpoints is what a running embedded consumer writes into its data folder.
type endpoints struct {
	Brokers   []string `json:"brokers"`
	Redis     string   `json:"redis"`
	Namespace string   `json:"namespace"`
}

// resolve fills in where the services are.
func (c *connection) resolve() error {
	if len(c.Brokers) == 0 && c.Redis == "" {
		path := filepath.Join(c.DataDir, "endpoints.json")
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("no embedded consumer has run in %s, and neither --brokers nor --redis is given: start one (go run ./cmd/consumer), name its --data-dir, or say where Kafka and Redis are", c.DataDir)
		}
		if err != nil {
			return fmt.Errorf("reading the embedded consumer's addresses: %w", err)
		}
		var e endpoints
		if err := json.Unmarshal(b, &e); err != nil {
			return fmt.Errorf("reading %s: %w", path, err)
		}
		c.Brokers, c.Redis = e.Brokers, e.Redis
		if c.Namespace == "" {
			c.Namespace = e.Namespace
		}
	}
	if c.Namespace == "" {
		c.Namespace = "live"
	}
	return nil
}

// site is an open connection to one namespace.
type site struct {
	*connection
	term  *terminal
	redis redis.UniversalClient // nil: not asked for
	base  []kgo.Opt             // of every Kafka client
	kafka *kgo.Client           // nil: not asked for, or not reachable and not required
	admin *kadm.Client
	topic stream.Topics
	rules *rulesTopic    // nil without Kafka
	model *scoring.Model // of --model; nil: none

	warned bool // that the built-in model is used
}

// needs says what a command cannot do without.
type needs uint8

const (
	needRedis needs = 1 << iota
	needKafka
	useKafka // if it is there: for the rules in force
)

// open connects. Close the site when done.
func (c *connection) open(ctx context.Context, t *terminal, n needs) (_ *site, err error) {
	if err := c.resolve(); err != nil {
		return nil, err
	}
	s := &site{connection: c, term: t}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.model, err = c.readModel(); err != nil {
		return nil, err
	}
	if n&needRedis != 0 {
		if c.Redis == "" {
			return nil, errors.New("no Redis is named: give --redis host:port beside --brokers")
		}
		if s.redis, err = c.RedisSecurity.Open(c.Redis, t.env.Get(connect.RedisPassword)); err != nil {
			return nil, err
		}
		if err := state.Reach(ctx, s.redis, c.Redis); err != nil {
			return nil, err
		}
	}
	s.topic = stream.DefaultTopics(c.Namespace, c.Topics)
	s.topic.Changes, s.topic.DeadLetters = c.Changes, c.DeadLetters
	if n&(needKafka|useKafka) != 0 {
		if err := s.openKafka(ctx); err != nil {
			if n&needKafka != 0 {
				return nil, err
			}
			t.note("note: %v; the rules in force are not known", err)
			s.closeKafka()
		}
	}
	return s, nil
}

// readModel reads the model of --model; nil when none is given.
func (c *connection) readModel() (*scoring.Model, error) {
	if c.Model == "" {
		return nil, nil
	}
	b, err := os.ReadFile(c.Model)
	if err != nil {
		return nil, fmt.Errorf("reading the model: %w", err)
	}
	m, err := scoring.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("reading the model %s: %w", c.Model, err)
	}
	return m, nil
}

func (s *site) openKafka(ctx context.Context) error {
	if len(s.Brokers) == 0 {
		return errors.New("no Kafka is named: give --brokers host:port beside --redis")
	}
	secured, err := s.KafkaSecurity.Options(s.term.env.Get(connect.KafkaPassword))
	if err != nil {
		return err
	}
	s.base = append([]kgo.Opt{kgo.SeedBrokers(s.Brokers...), kgo.ClientID("tierctl")}, secured...)
	cl, err := kgo.NewClient(append(s.base[:len(s.base):len(s.base)],
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.RecordDeliveryTimeout(10*time.Second))...)
	if err != nil {
		return fmt.Errorf("opening a Kafka client: %w", err)
	}
	s.kafka, s.admin = cl, kadm.NewClient(cl)
	if err := stream.Reach(ctx, cl); err != nil {
		return err
	}
	s.rules, err = s.readRules(ctx)
	return err
}

func (s *site) closeKafka() {
	if s.kafka != nil {
		s.kafka.Close()
	}
	s.kafka, s.admin, s.rules = nil, nil, nil
}

func (s *site) close() {
	s.closeKafka()
	if s.redis != nil {
		_ = s.redis.Close()
	}
}

// store is the state of one partition. tierctl never owns one, so the lease is
// not used.
func (s *site) store(partition int32) *state.Store {
	return state.NewStore(s.redis, s.Namespace, partition, time.Second)
}

// rulesInForce are the rules by which f was decided last. Without Kafka, or in
// a namespace that nobody started, they are what flags and defaults say.
func (s *site) rulesInForce(f *protocol.Fence) (*fold.Rules, error) {
	var r *fold.Rules
	if s.rules != nil {
		var err error
		if r, err = s.rules.inForce(f); err != nil {
			return nil, err
		}
	}
	if r == nil {
		m := s.model
		if m == nil {
			m = scoring.Default()
			if !s.warned {
				s.warned = true
				s.term.note("note: values are read with the built-in default model, because the rules of namespace %s are not known (--model gives another)", s.Namespace)
			}
		}
		r = &fold.Rules{Clock: fold.ClockWall, Partitioner: "murmur2", Topics: strings.Split(defaultTopics, ","),
			Limits: event.Limits{}.WithDefaults(), Policy: customer.DefaultPolicy(m.Currency()), Model: m}
	}
	c := *r
	if s.model != nil && s.model.Hash() != r.Model.Hash() {
		if s.model.Currency() != r.Model.Currency() {
			return nil, fmt.Errorf("the model %s is in %s, but the namespace keeps %s: amounts cannot be read with it", s.Model, s.model.Currency(), r.Model.Currency())
		}
		c.Model = s.model
	}
	if len(s.Topics) > 0 {
		c.Topics = s.Topics
	}
	if s.Mapping != "" {
		m, err := readMapping(s.Mapping)
		if err != nil {
			return nil, err
		}
		c.Mapping = m
		if s.rules != nil {
			c = *c.WithLearned(maps.Values(s.rules.raw))
		}
	}
	if s.Partitioner != "" {
		c.Partitioner = s.Partitioner
	}
	return &c, nil
}

// viewer reads customers of a partition that stands at f.
func (s *site) viewer(f *protocol.Fence) (*view.Viewer, *fold.Rules, error) {
	r, err := s.rulesInForce(f)
	if err != nil {
		return nil, nil, err
	}
	v, err := view.NewViewer(r.Model, r.Policy, r.Topics)
	return v, r, err
}

// partitions is how many partitions the namespace has: as many as its journal
// topic, else as many as were started in Redis.
func (s *site) partitions(ctx context.Context) (int32, error) {
	if s.admin != nil {
		n, err := s.partitionsOf(ctx, s.topic.Journal)
		if n > 0 || err != nil {
			return n, err
		}
	}
	if s.redis == nil {
		return 0, s.notStarted()
	}
	n := int32(0)
	for {
		f, err := s.store(n).Fence(ctx)
		if err != nil {
			return 0, err
		}
		if f == nil {
			break
		}
		n++
	}
	if n == 0 {
		return 0, s.notStarted()
	}
	return n, nil
}

func (s *site) notStarted() error {
	return fmt.Errorf("namespace %s has not been started: no consumer has run in it", s.Namespace)
}

// findPartition is where a customer is, or would be.
func (s *site) findPartition(ctx context.Context, id string, r *fold.Rules, n int32) (int32, error) {
	part, err := event.ParsePartitioner(r.Partitioner)
	if err != nil {
		return 0, err
	}
	if p := part.Partition([]byte(id), n); p != event.AnyPartition {
		return p, nil
	}
	for p := range n {
		b, _, err := s.store(p).Read(ctx, id)
		if err != nil || b != nil {
			return p, err
		}
	}
	return event.AnyPartition, nil
}
