package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/connect"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/sim"
	"github.com/tierstream/tierstream/internal/sim/produce"
	"github.com/tierstream/tierstream/internal/telemetry"
)

// delivery is the flags of everything that is sent.
type delivery struct {
	Brokers  []string      `default:"localhost:9092" help:"Kafka brokers to send to, host:port."`
	Rate     float64       `help:"Events per second at most; 0 for as fast as possible." placeholder:"N"`
	Speed    float64       `help:"Event time per wall time at most: 3600 plays an hour in a second; 0 for no bound." placeholder:"X"`
	Events   int64         `aliases:"limit" help:"Stop after so many events (--limit is the same flag)." placeholder:"N"`
	Duration time.Duration `help:"Stop after so much wall time." placeholder:"1h30m"`
	Create   bool          `name:"create-topics" help:"Create missing topics (LogAppendTime, never compacted)."`
	OTLP     string        `name:"otlp" help:"Give each record a span and send it to this OTLP/HTTP endpoint; the environment says which are sampled (OTEL_TRACES_SAMPLER)." placeholder:"URL"`
	Resume   string        `type:"path" help:"Keep in this file how far the run has come, and go on from there. What was under way when a run was killed is sent again, under the same IDs." placeholder:"FILE"`

	Security connect.Kafka `embed:""`
}

// pace is what the flags say about speed.
func (d *delivery) pace() produce.Pace { return produce.Pace{Rate: d.Rate, Speed: d.Speed} }

func (d *delivery) check() error {
	switch {
	case d.Events < 0:
		return errors.New("--events must not be negative")
	case d.Duration < 0:
		return errors.New("--duration must not be negative")
	}
	return d.pace().Validate()
}

// route is where a delivery goes.
type route struct {
	topics      []string
	partitions  int32 // of created topics
	partitioner kgo.Partitioner
	source      string // cluster ID of what is copied; empty for everything else
}

// deliver connects, makes sure of the topics, and runs send with the
// checkpoint of the run before, reporting and keeping its progress.
func (d *delivery) deliver(ctx context.Context, out output, r route, send func(context.Context, *kgo.Client, produce.Checkpoint, *produce.Progress) error) error {
	if d.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.Duration)
		defer cancel()
	}
	secured, err := d.Security.Options(out.env.Get(connect.KafkaPassword))
	if err != nil {
		return cli.Usage(err)
	}
	traces, err := telemetry.StartTraces(ctx, telemetry.Resource("producer-sim", ""), d.OTLP)
	if err != nil {
		return err
	}
	defer traces.Stop() // after the client
	client, err := kgo.NewClient(append(append(secured, traces.Producer()...),
		kgo.SeedBrokers(d.Brokers...),
		kgo.ClientID("producer-sim"),
		kgo.RecordPartitioner(r.partitioner),
		kgo.ProducerLinger(5*time.Millisecond),
		kgo.MaxBufferedRecords(100_000),
		// Long enough for a broker's restart; then the run fails instead of hanging.
		kgo.RecordDeliveryTimeout(2*time.Minute),
	)...)
	if err != nil {
		return fmt.Errorf("connecting to %s: %w", strings.Join(d.Brokers, ","), err)
	}
	defer client.Close()
	cluster, err := d.ready(ctx, client, r)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	kept, err := d.resume(cluster, r)
	if err != nil {
		return err
	}

	progress := new(produce.Progress)
	reporting := report(out.stderr, progress)
	keeping := d.keep(progress, kept)
	err = send(ctx, client, *kept, progress)
	reporting.stop(ctx.Err() != nil)
	return errors.Join(err, keeping())
}

// resume reads the checkpoint, which must be of this destination.
func (d *delivery) resume(cluster string, r route) (*produce.Checkpoint, error) {
	mine := &produce.Checkpoint{Cluster: cluster, Topics: r.topics, From: r.source}
	if d.Resume == "" {
		return mine, nil
	}
	c, err := produce.LoadCheckpoint(d.Resume)
	if err != nil {
		return nil, err
	}
	if c.Topics == nil {
		return mine, nil
	}
	if c.Cluster != cluster || !slices.Equal(c.Topics, r.topics) || c.From != r.source {
		return nil, fmt.Errorf("%s is about topics %s of Kafka cluster %s from %q, not about %s of %s from %q: give another file to --resume",
			d.Resume, strings.Join(c.Topics, ","), c.Cluster, c.From, strings.Join(r.topics, ","), cluster, r.source)
	}
	return &c, nil
}

// keep writes the checkpoint every second; the returned function does it for
// the last time.
func (d *delivery) keep(progress *produce.Progress, c *produce.Checkpoint) (stop func() error) {
	if d.Resume == "" {
		return func() error { return nil }
	}
	cluster, topics, from := c.Cluster, c.Topics, c.From
	save := func() error {
		now := progress.Checkpoint()
		if now.Next == 0 && now.Offsets == nil {
			return nil // it has not begun
		}
		now.Cluster, now.Topics, now.From = cluster, topics, from
		return now.Save(d.Resume)
	}
	quit, done := make(chan struct{}), make(chan error, 1)
	go func() {
		every := time.NewTicker(time.Second)
		defer every.Stop()
		for {
			select {
			case <-every.C:
				// The last one is what counts: a full disk may have got room by then.
				_ = save()
			case <-quit:
				done <- save()
				return
			}
		}
	}()
	return func() error {
		close(quit)
		return <-done
	}
}

// partitioner is the rule's.
func partitioner(rule string) (kgo.Partitioner, error) {
	named, err := event.ParsePartitioner(rule)
	if err != nil {
		return nil, cli.Usage(err)
	}
	p, err := produce.Partitioner(named)
	if err != nil {
		return nil, cli.Usage(err)
	}
	return p, nil
}

// sending is the flags of everything that makes events.
type sending struct {
	Topics      []string `default:"purchases,complaints,referrals" help:"Topics for the shop, the service desk and marketing; one name for all three is allowed."`
	Format      []string `default:"binary-json" name:"format" aliases:"mix" help:"binary-json, binary-msgpack, structured-json or structured-msgpack; several are taken in turn (--mix is the same flag)."`
	Partitioner string   `default:"murmur2" help:"murmur2 (Java, franz-go), crc32 (librdkafka) or fnv1a (sarama): must be the consumer's."`
	Partitions  int32    `default:"6" help:"Partitions of created topics."`
	DryRun      bool     `name:"dry-run" help:"Print the events as lines of JSON instead of sending them."`

	delivery

	only []sim.Topic // the classes used; nil: all
}

// send sends or prints the messages and reports.
func (s *sending) send(ctx context.Context, out output, messages iter.Seq[sim.Message]) error {
	topics, formats, err := s.check()
	if err != nil {
		return cli.Usage(err)
	}
	if s.DryRun {
		return s.print(ctx, out, messages, topics)
	}
	p, err := partitioner(s.Partitioner)
	if err != nil {
		return err
	}
	used := topics[:]
	if s.only != nil {
		used = nil
		for _, t := range s.only {
			used = append(used, topics[t])
		}
	}
	used = slices.Compact(slices.Sorted(slices.Values(used)))
	return s.deliver(ctx, out, route{topics: used, partitions: s.Partitions, partitioner: p}, func(ctx context.Context, client *kgo.Client, after produce.Checkpoint, progress *produce.Progress) error {
		return produce.Run(ctx, produce.RunConfig{
			Client:   client,
			Messages: messages,
			Topics:   topics,
			Formats:  formats,
			After:    after,
			Pace:     s.pace(),
			Limit:    s.Events,
			Progress: progress,
		})
	})
}

// check reads what the flags say, besides Kafka.
func (s *sending) check() (topics produce.Topics, formats []event.Format, err error) {
	switch len(s.Topics) {
	case 1:
		for i := range topics {
			topics[i] = s.Topics[0]
		}
	case sim.NumTopics:
		topics = produce.Topics(s.Topics)
	default:
		return topics, nil, fmt.Errorf("--topics: %d names, want 1 or %d (shop, service desk, marketing)", len(s.Topics), sim.NumTopics)
	}
	if slices.Contains(s.Topics, "") {
		return topics, nil, errors.New("--topics: a name is empty")
	}
	for _, name := range s.Format {
		f, err := event.ParseFormat(name)
		if err != nil {
			return topics, nil, fmt.Errorf("--format: %w", err)
		}
		formats = append(formats, f)
	}
	if s.Partitions < 1 {
		return topics, nil, errors.New("--partitions must be 1 or more")
	}
	return topics, formats, s.delivery.check()
}

// ready makes sure that the topics exist with one partition count: a consumer
// reads all events of a customer from one partition number. It returns the
// cluster's ID.
func (d *delivery) ready(ctx context.Context, client *kgo.Client, r route) (cluster string, err error) {
	used := r.topics
	asking, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	admin := kadm.NewClient(client)
	meta, err := admin.Metadata(asking, used...)
	if err != nil {
		return "", fmt.Errorf("asking %s for topics: %w", strings.Join(d.Brokers, ","), err)
	}
	found := meta.Topics
	var missing []string
	for _, name := range used {
		detail := found[name]
		switch {
		case errors.Is(detail.Err, kerr.UnknownTopicOrPartition):
			missing = append(missing, name)
		case detail.Err != nil:
			return "", fmt.Errorf("asking for topic %s: %w", name, detail.Err)
		}
	}
	if len(missing) > 0 && !d.Create {
		return "", fmt.Errorf("topic %s does not exist on %s: create it, give other --topics, or let --create-topics do it",
			strings.Join(missing, ", "), strings.Join(d.Brokers, ","))
	}

	count, first := 0, ""
	for _, name := range used {
		n := len(found[name].Partitions)
		if slices.Contains(missing, name) {
			n = int(r.partitions)
		}
		if first != "" && n != count {
			return "", fmt.Errorf("topics %s and %s have %d and %d partitions: a customer's events must lie in the same partition of each, so give them one count", first, name, count, n)
		}
		count, first = n, name
	}
	if len(missing) == 0 {
		return meta.Cluster, nil
	}
	configs := map[string]*string{
		"message.timestamp.type": kadm.StringPtr("LogAppendTime"),
		"cleanup.policy":         kadm.StringPtr("delete"),
	}
	created, err := admin.CreateTopics(asking, r.partitions, -1, configs, missing...)
	if err != nil {
		return "", fmt.Errorf("creating topics %s: %w", strings.Join(missing, ", "), err)
	}
	for _, c := range created.Sorted() {
		if c.Err != nil && !errors.Is(c.Err, kerr.TopicAlreadyExists) {
			return "", fmt.Errorf("creating topic %s: %w", c.Topic, c.Err)
		}
	}
	return meta.Cluster, nil
}

func (s *sending) print(ctx context.Context, out output, messages iter.Seq[sim.Message], topics produce.Topics) error {
	w := bufio.NewWriter(out.stdout)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	n := int64(0)
	for m := range messages {
		if ctx.Err() != nil || s.Events > 0 && n == s.Events {
			break
		}
		n++
		l, err := m.Line(topics[m.Topic])
		if err != nil {
			return err
		}
		if err := encoder.Encode(l); err != nil {
			return fmt.Errorf("printing event %s: %w", m.Event.ID, err)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("printing events: %w", err)
	}
	return nil
}
