package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/stream"
)

type topicsCmd struct {
	Create topicsCreateCmd `cmd:"" help:"Create what is missing; change nothing that exists."`
}

type topicsCreateCmd struct {
	Partitions  int32  `help:"Partitions of each new topic. It cannot be changed later: keys would map to other partitions." default:"4"`
	Replication int16  `help:"Copies of each partition. Default: the broker's setting." placeholder:"N"`
	Values      string `name:"values-topic" help:"Create the topic of customers' values too." placeholder:"TOPIC"`
}

func (c *topicsCreateCmd) Help() string {
	return `Creates the input topics (log-append time, not compacted), tier changes, dead letters, the journal (kept for ever) and the rules (compacted), and with --values-topic that of customers' values (compacted).

  tierctl topics create --brokers kafka:9092 --partitions 12 --replication 3`
}

func (c *topicsCreateCmd) Run(ctx context.Context, conn *connection, t *terminal) error {
	if c.Partitions < 1 {
		return cli.Usage(fmt.Errorf("--partitions %d: want at least 1", c.Partitions))
	}
	s, err := conn.open(ctx, t, needKafka)
	if err != nil {
		return err
	}
	defer s.close()
	topics := s.topic
	topics.Values = c.Values
	if len(topics.Inputs) == 0 {
		topics.Inputs = strings.Split(defaultTopics, ",")
		if r, err := s.rules.inForce(nil); err == nil && r != nil {
			topics.Inputs = r.Topics
		}
	}
	before, err := s.admin.ListTopics(ctx)
	if err != nil {
		return fmt.Errorf("asking Kafka for its topics: %w", err)
	}
	created := map[string]bool{}
	err = stream.CreateTopics(ctx, s.kafka, topics, c.Partitions, c.Replication, func(name string) { created[name] = true })
	for _, name := range topics.Names() {
		switch n := len(before[name].Partitions); {
		case created[name]:
			fmt.Fprintf(t.out, "created    %s\n", name)
		case n > 0:
			fmt.Fprintf(t.out, "was there  %s (%d partitions)\n", name, n)
		}
	}
	return err
}
