package stream

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/protocol"
)

// headroom is by how much the outputs' largest message must exceed the
// inputs': a dead letter carries the whole record and says why. Without it one
// big bad record would stop its partition for ever.
const headroom = 64 << 10

// CreateTopics makes what a namespace needs and does not exist yet: inputs
// with log-append time, the journal kept for ever, the rules compacted. It
// changes no topic that exists. replication 0 takes the broker's default.
func CreateTopics(ctx context.Context, cl *kgo.Client, t Topics, partitions int32, replication int16, progress func(topic string)) error {
	if replication == 0 {
		replication = -1
	}
	str := func(s string) *string { return &s }
	const inputMax = 1 << 20
	adm := kadm.NewClient(cl)
	there, err := adm.ListTopics(ctx)
	if err != nil {
		return fmt.Errorf("listing topics: %w", err)
	}
	create := func(name string, n int32, configs map[string]*string) error {
		if there.Has(name) {
			return nil
		}
		r, err := adm.CreateTopic(ctx, n, replication, configs, name)
		if err == nil {
			err = r.Err
		}
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("creating topic %s: %w", name, err)
		}
		if progress != nil {
			progress(name)
		}
		return nil
	}
	for _, in := range t.Inputs {
		if err := create(in, partitions, map[string]*string{
			"cleanup.policy": str("delete"), "message.timestamp.type": str("LogAppendTime"), "max.message.bytes": str(strconv.Itoa(inputMax)),
			"retention.ms": str("-1"),
		}); err != nil {
			return err
		}
	}
	// A rebase continues chains from the changes that were published, and the
	// checks read both topics whole.
	out := map[string]*string{
		"cleanup.policy": str("delete"), "max.message.bytes": str(strconv.Itoa(inputMax + 2*headroom)), "retention.ms": str("-1"),
	}
	for _, o := range []string{t.Changes, t.DeadLetters} {
		if err := create(o, partitions, out); err != nil {
			return err
		}
	}
	if t.Values != "" {
		if err := create(t.Values, partitions, map[string]*string{"cleanup.policy": str("compact"), "max.message.bytes": str(strconv.Itoa(inputMax))}); err != nil {
			return err
		}
	}
	if err := create(t.Journal, partitions, map[string]*string{
		"cleanup.policy": str("delete"), "retention.ms": str("-1"), "retention.bytes": str("-1"),
	}); err != nil {
		return err
	}
	if err := create(t.Rules, 1, map[string]*string{"cleanup.policy": str("compact"), "max.message.bytes": str(strconv.Itoa(inputMax))}); err != nil {
		return err
	}
	return visible(ctx, adm, t.Names())
}

// visible waits until the brokers know the topics: a topic is created by the
// controller and reaches the brokers a little later.
func visible(ctx context.Context, adm *kadm.Client, names []string) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for {
		md, err := adm.ListTopics(ctx, names...)
		if err != nil {
			return fmt.Errorf("waiting for the topics: %w", err)
		}
		missing := ""
		for _, n := range names {
			d, ok := md[n]
			if !ok || d.Err != nil || len(d.Partitions) == 0 {
				missing = n
			}
			for _, p := range d.Partitions {
				if p.Err != nil || p.Leader < 0 {
					missing = n
				}
			}
		}
		if missing == "" {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("waiting for topic %s: %w", missing, ctx.Err())
		}
	}
}

// check looks at the topics and refuses what would break a promise, in one
// sentence each.
func (p *Processor) check(ctx context.Context, adm *kadm.Client) error {
	t := p.cfg.Topics
	all := t.Names()
	cluster, err := adm.BrokerMetadata(ctx)
	if err != nil {
		return fmt.Errorf("asking Kafka for its brokers: %w", err)
	}
	p.clusterID = cluster.Cluster
	found, err := adm.ListTopics(ctx, all...)
	if err != nil {
		return fmt.Errorf("asking Kafka for its topics: %w", err)
	}
	var missing []string
	for _, name := range all {
		d, ok := found[name]
		if !ok || errors.Is(d.Err, kerr.UnknownTopicOrPartition) {
			missing = append(missing, name)
		} else if d.Err != nil {
			return fmt.Errorf("asking Kafka for topic %s: %w", name, d.Err)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("Kafka has no topic %s: create what is missing with `tierctl topics create`, or start with --create-topics", strings.Join(missing, ", "))
	}
	count := func(name string) int32 { return int32(len(found[name].Partitions)) }
	p.partitions = count(t.Inputs[0])
	for _, in := range t.Inputs[1:] {
		if n := count(in); n != p.partitions {
			return fmt.Errorf("input topics must be co-partitioned: %s has %d partitions, %s has %d", t.Inputs[0], p.partitions, in, n)
		}
	}
	if n := count(t.Journal); n != p.partitions {
		return fmt.Errorf("the journal %s has %d partitions, the inputs have %d: they must be the same", t.Journal, n, p.partitions)
	}
	p.topicIDs = nil
	for _, name := range append(append([]string{}, t.Inputs...), t.Journal) {
		p.topicIDs = append(p.topicIDs, found[name].ID.String())
	}

	rcs, err := adm.DescribeTopicConfigs(ctx, all...)
	if err != nil {
		return fmt.Errorf("asking Kafka for its topics' settings: %w", err)
	}
	conf := map[string]map[string]string{}
	for _, rc := range rcs {
		if rc.Err != nil {
			return fmt.Errorf("asking Kafka for the settings of %s: %w", rc.Name, rc.Err)
		}
		m := map[string]string{}
		for _, c := range rc.Configs {
			m[c.Key] = c.MaybeValue()
		}
		conf[rc.Name] = m
	}
	bytes := func(name string) int {
		n, err := strconv.Atoi(conf[name]["max.message.bytes"])
		if err != nil {
			return 1048588 // Kafka's default
		}
		return n
	}
	inputs := 0
	for _, in := range t.Inputs {
		if strings.Contains(conf[in]["cleanup.policy"], "compact") {
			return fmt.Errorf("input topic %s has cleanup.policy=%s: compaction removes events, so state could not be rebuilt from it; use delete", in, conf[in]["cleanup.policy"])
		}
		if ts := conf[in]["message.timestamp.type"]; ts != "LogAppendTime" {
			p.cfg.Log.Warn("input topic does not have message.timestamp.type=LogAppendTime: a record with a timestamp from the future will stop its partition", "topic", in)
		}
		inputs = max(inputs, bytes(in))
	}
	j := conf[t.Journal]
	if strings.Contains(j["cleanup.policy"], "compact") {
		return fmt.Errorf("the journal %s has cleanup.policy=%s: it must be kept whole; use delete with unlimited retention", t.Journal, j["cleanup.policy"])
	}
	for _, k := range []string{"retention.ms", "retention.bytes"} {
		if v, ok := j[k]; ok && v != "-1" {
			return fmt.Errorf("the journal %s has %s=%s: it must be kept for ever; set it to -1", t.Journal, k, v)
		}
	}
	if !strings.Contains(conf[t.Rules]["cleanup.policy"], "compact") {
		return fmt.Errorf("the rules topic %s has cleanup.policy=%s: it must be compact, or rules that the journal names would be deleted", t.Rules, conf[t.Rules]["cleanup.policy"])
	}
	if t.Values != "" && !strings.Contains(conf[t.Values]["cleanup.policy"], "compact") {
		return fmt.Errorf("the topic of customers' values %s has cleanup.policy=%s: it must be compact, or it would grow by a document for every batch of every customer", t.Values, conf[t.Values]["cleanup.policy"])
	}
	out := min(bytes(t.Changes), bytes(t.DeadLetters))
	if out < inputs+headroom {
		return fmt.Errorf("the outputs accept messages of %d bytes, the inputs of %d: max.message.bytes of %s and %s must exceed the inputs' by %d, or one big bad record stops its partition", out, inputs, t.Changes, t.DeadLetters, headroom)
	}
	p.maxMessage = int32(min(out, bytes(t.Journal)+headroom+inputs))
	return nil
}

// checkHistory compares the topics with those that the namespace was created
// on. Partitions that were added since have an empty journal, and would begin
// a second life of customers who live elsewhere: hence before any begins.
func (p *Processor) checkHistory(ctx context.Context, adm *kadm.Client) error {
	ends, err := adm.ListCommittedOffsets(ctx, p.cfg.Topics.Journal)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("asking for the journal's end: %w", err)
	}
	for n := range p.partitions {
		o, ok := ends.Lookup(p.cfg.Topics.Journal, n)
		if !ok || o.Offset == 0 {
			continue
		}
		first, _, err := (&journal{base: p.cfg.Kafka, admin: adm, topic: p.cfg.Topics.Journal, partition: n}).first(ctx, o.Offset)
		switch {
		case err != nil:
			return err
		case first == nil || first.Origin() == nil:
			continue // a transaction was aborted there, or its first records were deleted
		}
		return p.continues(first.Origin(), identity{clusterID: p.clusterID, partitions: p.partitions, topicIDs: p.topicIDs}) // the others were created with it
	}
	return nil
}

// continues says what is not as it was when the namespace was created.
func (p *Processor) continues(g *protocol.Genesis, now identity) error {
	switch {
	case g.Partitions != now.partitions:
		return fmt.Errorf("the inputs have %d partitions, but this namespace was created with %d: keys now map to other partitions; start a new namespace, or give the topics back their partitions", now.partitions, g.Partitions)
	case fmt.Sprint(g.Topics) != fmt.Sprint(p.cfg.Topics.Inputs):
		return fmt.Errorf("the input topics are %v, but this namespace was created with %v", p.cfg.Topics.Inputs, g.Topics)
	case g.ClusterID != now.clusterID:
		return fmt.Errorf("this is Kafka cluster %q, but the namespace was created on %q", now.clusterID, g.ClusterID)
	case fmt.Sprint(g.TopicIDs) != fmt.Sprint(now.topicIDs):
		return fmt.Errorf("an input or journal topic was deleted and created again since this namespace was created: topic IDs are %v, were %v", now.topicIDs, g.TopicIDs)
	}
	return nil
}

// startOffsets is where a new namespace begins to read.
func (p *Processor) startOffsets(ctx context.Context, partition int32) ([]protocol.Position, error) {
	starts, err := p.admin.ListStartOffsets(ctx, p.cfg.Topics.Inputs...)
	if err != nil {
		return nil, fmt.Errorf("asking for the starts of the inputs: %w", err)
	}
	out := make([]protocol.Position, len(p.cfg.Topics.Inputs))
	for i, t := range p.cfg.Topics.Inputs {
		o, ok := starts.Lookup(t, partition)
		if !ok || o.Err != nil {
			return nil, fmt.Errorf("asking for the start of %s/%d: %w", t, partition, o.Err)
		}
		out[i] = protocol.Position{Next: o.Offset, LeaderEpoch: -1}
	}
	return out, nil
}

// Names lists all topics, sorted.
func (t Topics) Names() []string {
	all := append(append([]string{}, t.Inputs...), t.Changes, t.DeadLetters, t.Journal, t.Rules)
	if t.Values != "" {
		all = append(all, t.Values)
	}
	sort.Strings(all)
	return all
}
