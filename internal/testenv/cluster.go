package testenv

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"
)

// KafkaCluster is several brokers, each of them a controller too. By default
// internal topics have a replica on every broker, and a write needs a majority
// of a partition's replicas; give topics as many replicas as there are brokers,
// and any minority may be killed without loss.
type KafkaCluster struct {
	Brokers []*KafkaServer
}

// StartKafkaCluster starts n brokers and returns when each of them answers. It
// is otherwise as [StartKafka].
func StartKafkaCluster(ctx context.Context, n int, options KafkaOptions) (_ *KafkaCluster, err error) {
	if options.Dir != "" {
		return nil, errors.New("starting a Kafka cluster: its brokers cannot share one folder")
	}
	kafka, err := installKafka(ctx)
	if err != nil {
		return nil, err
	}
	c := &KafkaCluster{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	var voters []string
	for node := 1; node <= n; node++ {
		k := &KafkaServer{service: service{name: fmt.Sprintf("Kafka-%d", node)}, brokers: n}
		c.Brokers = append(c.Brokers, k)
		if err := k.place("", 2); err != nil {
			return nil, err
		}
		voters = append(voters, fmt.Sprintf("%d@%s", node, k.ports[1].addr()))
	}
	cluster := kafkaID()
	for i, k := range c.Brokers {
		if err := kafka.configure(k, i+1, cluster, strings.Join(voters, ","), options); err != nil {
			return nil, err
		}
	}
	// Together, because one alone is no majority.
	var g errgroup.Group
	for _, k := range c.Brokers {
		g.Go(func() error { return k.start(ctx) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return c, nil
}

// Addrs are where clients connect.
func (c *KafkaCluster) Addrs() []string {
	var addrs []string
	for _, k := range c.Brokers {
		addrs = append(addrs, k.Addr())
	}
	return addrs
}

// Stop ends all brokers for good and removes their folders.
func (c *KafkaCluster) Stop() error {
	var err error
	for _, k := range c.Brokers {
		err = errors.Join(err, k.Stop())
	}
	return err
}
