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
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/sim"
	"github.com/tierstream/tierstream/internal/sim/produce"
)

// sending is the flags both commands share.
type sending struct {
	Brokers     []string      `default:"localhost:9092" help:"Kafka brokers, host:port."`
	Topics      []string      `default:"purchases,complaints,referrals" help:"Topics for the shop, the service desk and marketing; one name for all three is allowed."`
	Format      []string      `default:"binary-json" name:"format" aliases:"mix" help:"binary-json, binary-msgpack, structured-json or structured-msgpack; several are taken in turn (--mix is the same flag)."`
	Partitioner string        `default:"murmur2" help:"murmur2 (Java, franz-go), crc32 (librdkafka) or fnv1a (sarama): must be the consumer's."`
	Rate        float64       `help:"Events per second at most; 0 for as fast as possible." placeholder:"N"`
	Speed       float64       `help:"Event time per wall time at most: 3600 plays an hour in a second; 0 for no bound." placeholder:"X"`
	Events      int64         `aliases:"limit" help:"Stop after so many events (--limit is the same flag)." placeholder:"N"`
	Duration    time.Duration `help:"Stop after so much wall time." placeholder:"1h30m"`
	Create      bool          `name:"create-topics" help:"Create missing topics (LogAppendTime, never compacted)."`
	Partitions  int32         `default:"6" help:"Partitions of created topics."`
	DryRun      bool          `name:"dry-run" help:"Print the events as lines of JSON instead of sending them."`

	only []sim.Topic // the classes used; nil: all
}

// pace is what the flags say about speed.
func (s *sending) pace() produce.Pace { return produce.Pace{Rate: s.Rate, Speed: s.Speed} }

// send sends or prints the messages and reports.
func (s *sending) send(ctx context.Context, out output, messages iter.Seq[sim.Message]) error {
	topics, formats, err := s.check()
	if err != nil {
		return &usageError{err}
	}
	if s.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.Duration)
		defer cancel()
	}
	if s.DryRun {
		return s.print(ctx, out, messages, topics)
	}

	rule, err := event.ParsePartitioner(s.Partitioner)
	if err != nil {
		return &usageError{err}
	}
	partitioner, err := produce.Partitioner(rule)
	if err != nil {
		return &usageError{err}
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(s.Brokers...),
		kgo.ClientID("producer-sim"),
		kgo.RecordPartitioner(partitioner),
		kgo.ProducerLinger(5*time.Millisecond),
		kgo.MaxBufferedRecords(100_000),
		// Long enough for a broker's restart; then the run fails instead of hanging.
		kgo.RecordDeliveryTimeout(2*time.Minute),
	)
	if err != nil {
		return fmt.Errorf("connecting to %s: %w", strings.Join(s.Brokers, ","), err)
	}
	defer client.Close()
	if err := s.ready(ctx, client, topics); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}

	progress := new(produce.Progress)
	reporting := report(out.stderr, progress)
	err = produce.Run(ctx, produce.RunConfig{
		Client:   client,
		Messages: messages,
		Topics:   topics,
		Formats:  formats,
		Pace:     s.pace(),
		Limit:    s.Events,
		Progress: progress,
	})
	reporting.stop(ctx.Err() != nil)
	return err
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
	switch {
	case s.Events < 0:
		return topics, nil, errors.New("--events must not be negative")
	case s.Duration < 0:
		return topics, nil, errors.New("--duration must not be negative")
	case s.Partitions < 1:
		return topics, nil, errors.New("--partitions must be 1 or more")
	}
	return topics, formats, s.pace().Validate()
}

// ready makes sure that the topics exist with one partition count: a consumer
// reads all events of a customer from one partition number.
func (s *sending) ready(ctx context.Context, client *kgo.Client, topics produce.Topics) error {
	used := topics[:]
	if s.only != nil {
		used = nil
		for _, t := range s.only {
			used = append(used, topics[t])
		}
	}
	used = slices.Compact(slices.Sorted(slices.Values(used)))

	asking, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	admin := kadm.NewClient(client)
	found, err := admin.ListTopics(asking, used...)
	if err != nil {
		return fmt.Errorf("asking %s for topics: %w", strings.Join(s.Brokers, ","), err)
	}
	var missing []string
	for _, name := range used {
		detail := found[name]
		switch {
		case errors.Is(detail.Err, kerr.UnknownTopicOrPartition):
			missing = append(missing, name)
		case detail.Err != nil:
			return fmt.Errorf("asking for topic %s: %w", name, detail.Err)
		}
	}
	if len(missing) > 0 && !s.Create {
		return fmt.Errorf("topic %s does not exist on %s: create it, give other --topics, or let --create-topics do it",
			strings.Join(missing, ", "), strings.Join(s.Brokers, ","))
	}

	count, first := 0, ""
	for _, name := range used {
		n := len(found[name].Partitions)
		if slices.Contains(missing, name) {
			n = int(s.Partitions)
		}
		if first != "" && n != count {
			return fmt.Errorf("topics %s and %s have %d and %d partitions: a customer's events must lie in the same partition of each, so give them one count", first, name, count, n)
		}
		count, first = n, name
	}
	if len(missing) == 0 {
		return nil
	}
	configs := map[string]*string{
		"message.timestamp.type": kadm.StringPtr("LogAppendTime"),
		"cleanup.policy":         kadm.StringPtr("delete"),
	}
	created, err := admin.CreateTopics(asking, s.Partitions, -1, configs, missing...)
	if err != nil {
		return fmt.Errorf("creating topics %s: %w", strings.Join(missing, ", "), err)
	}
	for _, c := range created.Sorted() {
		if c.Err != nil && !errors.Is(c.Err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("creating topic %s: %w", c.Topic, c.Err)
		}
	}
	return nil
}

// line is one message of a dry run: a sound one as a structured event, one with
// broken bytes as it would lie in the log.
type line struct {
	Topic   string            `json:"topic"`
	Key     string            `json:"key"`
	Expect  string            `json:"expect"` // the code a consumer must give it
	Event   json.RawMessage   `json:"event,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Value   string            `json:"value,omitempty"`
	Base64  []byte            `json:"value_base64,omitempty"` // a value that is not UTF-8
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
		l := line{Topic: topics[m.Topic], Key: string(m.Key()), Expect: m.Code.String()}
		if m.Raw == nil {
			value, _, err := event.Encode(&m.Event, event.StructuredJSON)
			if err != nil {
				return err
			}
			l.Event = value
		} else {
			l.Headers = map[string]string{}
			for _, h := range m.Raw.Headers {
				l.Headers[h.Key] = string(h.Value)
			}
			if utf8.Valid(m.Raw.Value) {
				l.Value = string(m.Raw.Value)
			} else {
				l.Base64 = m.Raw.Value
			}
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
