package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/replay"
)

type replayCmd struct {
	Exact     replayExactCmd     `cmd:"" help:"Repeat a run from log and journal, and prove that it comes out the same."`
	Canonical replayCanonicalCmd `cmd:"" help:"Fold the log alone, with the rules in force or another model."`
	Dump      replayDumpCmd      `cmd:"" help:"Copy the log into a folder, to be replayed from there."`
}

// replayFlags are those of both kinds.
type replayFlags struct {
	Into    string `help:"Namespace of the replay; begins with replay-, so that it is no live one." required:"" placeholder:"replay-NAME"`
	Folder  string `name:"log" help:"Folder of a dumped log instead of Kafka." type:"existingdir" placeholder:"DIR"`
	To      string `help:"End before this time, or these offsets: topic/partition@offset, separated by commas. Default: the end of the log." placeholder:"TIME|OFFSETS"`
	State   string `help:"Where customers are kept: memory, or redis, where a replay that was stopped goes on." enum:"memory,redis" default:"memory"`
	Output  string `short:"o" help:"Where changes and dead letters go: none, topics (<namespace>-changes and <namespace>-dead-letters), or a file of JSON lines." default:"none" placeholder:"none|topics|FILE"`
	Expect  string `help:"Fail unless this is the hash that comes out." placeholder:"HASH"`
	Workers int    `help:"Partitions at a time." default:"2"`
	Chunk   int    `help:"Records read ahead, and written to Redis at once. It changes nothing of what comes out." default:"5000"`
	JSON    bool   `name:"json" help:"Print the report as JSON."`
}

type replayExactCmd struct{ replayFlags }

func (c *replayExactCmd) Help() string {
	return `Folds exactly the batches of the journal, from the genesis on, and compares each with what the journal says: chain, digest of the customers, decisions. It stops at the first difference and names partition, batch and offset. Nothing live is touched: docs/replay.md.

  tierctl replay exact --into replay-proof
  tierctl replay exact --into replay-proof --to 2026-07-01 -o changes.ndjson`
}

func (c *replayExactCmd) Run(ctx context.Context, conn *connection, t *terminal) error {
	return c.run(ctx, conn, t, replay.Config{Kind: replay.Exact}, "", "", 0)
}

type replayCanonicalCmd struct {
	replayFlags
	From       string `help:"Begin at this time, or these offsets. Default: the begin of the log." placeholder:"TIME|OFFSETS"`
	Events     string `help:"Events as lines of JSON instead of a log, as producer-sim --dry-run prints them; the time of an event is when it reached the log." type:"existingfile" placeholder:"FILE"`
	Partitions int32  `help:"Partitions that --events are spread over." default:"4"`
}

func (c *replayCanonicalCmd) Help() string {
	return `Merges the inputs by record timestamp and folds them record by record, sweeping before each. The same log and rules give the same hash on every run and machine, whatever --workers and --chunk say. --model tries another model on the history. The clock is that of the log where the namespace runs on the wall clock.

  tierctl replay canonical --into replay-a
  tierctl replay canonical --into replay-b --model new.yaml --from 2026-01-01 -o changes.ndjson
  producer-sim generate --events 10000 --dry-run > e.ndjson && tierctl replay canonical --into replay-c --events e.ndjson`
}

func (c *replayCanonicalCmd) Run(ctx context.Context, conn *connection, t *terminal) error {
	return c.run(ctx, conn, t, replay.Config{Kind: replay.Canonical}, c.From, c.Events, c.Partitions)
}

func (f *replayFlags) run(ctx context.Context, conn *connection, t *terminal, cfg replay.Config, from, events string, partitions int32) (err error) {
	if cfg.Name, err = replay.ParseName(f.Into); err != nil {
		return cli.Usage(fmt.Errorf("--into: %w", err))
	}
	if cfg.From, err = parseEdge("from", from); err != nil {
		return err
	}
	if cfg.To, err = parseEdge("to", f.To); err != nil {
		return err
	}
	if f.Folder != "" && events != "" {
		return cli.Usage(errors.New("--log or --events, not both"))
	}
	offline := (f.Folder != "" || events != "") && f.Output != "topics"
	var s *site
	if offline && f.State == "memory" {
		if conn.Namespace == "" {
			conn.Namespace = "live"
		}
		if s, err = conn.offline(t); err != nil {
			return err
		}
	} else {
		n := needs(0)
		if f.State == "redis" {
			n |= needRedis
		}
		if !offline {
			n |= needKafka
		}
		if s, err = conn.open(ctx, t, n); err != nil {
			return err
		}
		defer s.close()
	}
	if cfg.Topics = s.topic; cfg.Kind == replay.Canonical {
		if cfg.Rules, err = s.rulesInForce(nil); err != nil {
			return err
		}
	}
	switch {
	case f.Folder != "":
		folder, err := replay.OpenFolder(f.Folder)
		if err != nil {
			return err
		}
		cfg.Source, cfg.Topics.Inputs, cfg.Topics.Journal, cfg.Topics.Rules = folder, folder.Manifest.Inputs, folder.Manifest.Journal, folder.Manifest.Rules
		if cfg.Kind == replay.Canonical {
			if cfg.Rules, err = s.rulesOf(ctx, folder, cfg.Rules); err != nil {
				return err
			}
		}
	case events != "":
		dir, err := os.MkdirTemp("", "tierstream-events-")
		if err != nil {
			return fmt.Errorf("making room for the events: %w", err)
		}
		defer os.RemoveAll(dir)
		if cfg.Source, err = importEvents(events, dir, cfg.Rules, partitions); err != nil {
			return err
		}
	default:
		k, err := replay.NewKafka(s.base)
		if err != nil {
			return err
		}
		defer k.Close()
		cfg.Source = k
	}
	cfg.Engine, cfg.Workers, cfg.Chunk, cfg.Progress = "tierctl replay", f.Workers, f.Chunk, &replay.Progress{}
	if f.State == "redis" {
		cfg.Redis = s.redis
	}
	switch f.Output {
	case "none":
	case "topics":
		topics := cfg.Topics
		if cfg.Rules != nil {
			topics.Inputs = cfg.Rules.Topics
		} else {
			first, err := replay.First(ctx, cfg.Source, topics.Journal)
			if err != nil {
				return err
			}
			topics.Inputs = first.Origin().Topics
		}
		n, err := cfg.Source.Partitions(ctx, topics.Inputs[0])
		if err != nil {
			return err
		}
		if cfg.Output, err = replay.ToTopics(ctx, s.base, cfg.Name, max(n, 1), topics); err != nil {
			return err
		}
	default:
		cfg.Output = replay.ToFile(f.Output)
	}

	began := time.Now()
	stop := t.watch(func() string {
		done, total := cfg.Progress.Records()
		return rate("records", began, done, total)
	})
	r, err := replay.Run(ctx, cfg)
	stop()
	if err != nil {
		return err
	}
	if f.JSON {
		enc := json.NewEncoder(t.out)
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else {
		err = writeReplay(t, s.Namespace, r)
	}
	if err == nil && f.Expect != "" && !strings.EqualFold(f.Expect, r.Hash) {
		err = fmt.Errorf("the hash is %s, expected was %s", r.Hash, f.Expect)
	}
	return err
}

// offline is a site without services.
func (c *connection) offline(t *terminal) (*site, error) {
	s := &site{connection: c, term: t}
	var err error
	s.model, err = c.readModel()
	return s, err
}

// rulesOf are the newest rules that a dumped log holds, with the model of the
// command line; otherwise what is given.
func (s *site) rulesOf(ctx context.Context, folder *replay.Folder, otherwise *fold.Rules) (*fold.Rules, error) {
	book, err := replay.ReadRules(ctx, folder, folder.Manifest.Rules)
	if err != nil {
		return nil, err
	}
	r, err := book.Newest()
	if err != nil || r == nil {
		otherwise.Topics = folder.Manifest.Inputs
		return otherwise, err
	}
	c := *r
	if s.model != nil {
		if s.model.Currency() != r.Model.Currency() {
			return nil, fmt.Errorf("the model %s is in %s, but the log was folded in %s", s.Model, s.model.Currency(), r.Model.Currency())
		}
		c.Model = s.model
	}
	return &c, nil
}

func writeReplay(t *terminal, of string, r *replay.Report) error {
	w := &printer{to: t.out}
	w.printf("%s replay of %s into %s: %s records in %s (%.0f/s)\n", r.Kind, of, r.Namespace, grouped(r.Read), r.Took.Round(time.Millisecond), float64(r.Read)/r.Took.Seconds())
	w.printf("%s customers, %s tier changes, %s dead letters\n", grouped(r.Customers), grouped(r.Changes), grouped(r.DeadLetters))
	var counts []string
	for i := range event.NumCodes {
		if n := r.Counts[event.Code(i).String()]; n != 0 {
			counts = append(counts, fmt.Sprintf("%s %s", event.Code(i), grouped(n)))
		}
	}
	w.printf("%s\n", strings.Join(counts, ", "))
	for _, p := range r.Partitions {
		w.printf("partition %d  records %s  decisions %.32s…\n", p.Partition, p.Records, p.Decisions)
	}
	if r.Kind == replay.Exact {
		w.printf("every batch came out as the journal says\n")
	}
	w.printf("hash %s\n", r.Hash)
	return w.err
}

// parseEdge reads one end of a range.
func parseEdge(flag, text string) (e replay.Edge, err error) {
	if text == "" {
		return e, nil
	}
	if !strings.Contains(text, "@") {
		e.Time, err = parseInstant(flag, text)
		return e, err
	}
	e.Offsets = map[string]map[int32]int64{}
	for part := range strings.SplitSeq(text, ",") {
		where, at, _ := strings.Cut(part, "@")
		slash := strings.LastIndex(where, "/")
		if slash > 0 {
			p, err1 := strconv.ParseInt(where[slash+1:], 10, 32)
			o, err2 := strconv.ParseInt(at, 10, 64)
			if err1 == nil && err2 == nil && p >= 0 && o >= 0 {
				topic := where[:slash]
				if e.Offsets[topic] == nil {
					e.Offsets[topic] = map[int32]int64{}
				}
				e.Offsets[topic][int32(p)] = o
				continue
			}
		}
		return e, cli.Usage(fmt.Errorf("--%s %q: want a time, or topic/partition@offset like purchases/0@1184", flag, part))
	}
	return e, nil
}

type replayDumpCmd struct {
	Dir  string `arg:"" help:"Folder; made if it is not there." type:"path"`
	From string `help:"Begin at this time, or these offsets. An exact replay needs the log from its begin." placeholder:"TIME|OFFSETS"`
	To   string `help:"End before this time, or these offsets." placeholder:"TIME|OFFSETS"`
}

func (c *replayDumpCmd) Help() string {
	return `Writes inputs, journal and rules as lines of JSON, one file per topic and partition, and manifest.json last. With tierctl replay --log the folder is replayed on any machine, without Kafka.

  tierctl replay dump ./log
  tierctl replay canonical --into replay-a --log ./log`
}

func (c *replayDumpCmd) Run(ctx context.Context, conn *connection, t *terminal) error {
	from, err := parseEdge("from", c.From)
	if err != nil {
		return err
	}
	to, err := parseEdge("to", c.To)
	if err != nil {
		return err
	}
	s, err := conn.open(ctx, t, needKafka)
	if err != nil {
		return err
	}
	defer s.close()
	k, err := replay.NewKafka(s.base)
	if err != nil {
		return err
	}
	defer k.Close()
	m := replay.Manifest{Namespace: s.Namespace, Journal: s.topic.Journal, Rules: s.topic.Rules}
	if n, err := k.Partitions(ctx, s.topic.Journal); err != nil {
		return err
	} else if n == 0 { // a log that no consumer ever read
		m.Journal, m.Rules = "", ""
	}
	r, err := s.rulesInForce(nil)
	if err != nil {
		return err
	}
	m.Inputs = r.Topics
	began, p := time.Now(), &replay.Progress{}
	stop := t.watch(func() string {
		done, total := p.Records()
		return rate("records", began, done, total)
	})
	err = replay.Dump(ctx, k, c.Dir, m, from, to, p)
	stop()
	if err != nil {
		return err
	}
	done, _ := p.Records()
	_, err = fmt.Fprintf(t.out, "%s records of %s, journal and rules included, are in %s\n", grouped(done), strings.Join(m.Inputs, ", "), c.Dir)
	return err
}

// importEvents makes a log of a file of events: of each line the topic, the
// key, and the event or the value with headers.
func importEvents(path, dir string, rules *fold.Rules, partitions int32) (replay.Source, error) {
	rule, err := event.ParsePartitioner(rules.Partitioner)
	if err != nil {
		return nil, err
	}
	if partitions < 1 {
		return nil, cli.Usage(errors.New("--partitions: want at least 1"))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the events: %w", err)
	}
	defer f.Close()
	logs := make([][][]*kgo.Record, len(rules.Topics))
	for i := range logs {
		logs[i] = make([][]*kgo.Record, partitions)
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 4<<20)
	var last int64 // a line whose time cannot be read reached the log with the one before
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var l struct {
			Topic   string            `json:"topic"`
			Key     string            `json:"key"`
			Event   json.RawMessage   `json:"event"`
			Headers map[string]string `json:"headers"`
			Value   string            `json:"value"`
			Base64  []byte            `json:"value_base64"`
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", path, n, err)
		}
		r := &kgo.Record{Topic: l.Topic, Key: []byte(l.Key), Value: []byte(l.Value), LeaderEpoch: -1}
		switch {
		case l.Event != nil:
			r.Value = l.Event
			r.Headers = []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/cloudevents+json")}}
		case l.Base64 != nil:
			r.Value = l.Base64
		}
		for k, v := range l.Headers {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: k, Value: []byte(v)})
		}
		slices.SortFunc(r.Headers, func(a, b kgo.RecordHeader) int { return strings.Compare(a.Key, b.Key) })
		t := slices.Index(rules.Topics, l.Topic)
		if t < 0 {
			return nil, fmt.Errorf("%s, line %d: topic %q is none of %s", path, n, l.Topic, strings.Join(rules.Topics, ", "))
		}
		var e struct {
			Time time.Time `json:"time"`
		}
		at := l.Headers["ce_time"]
		if l.Event != nil && json.Unmarshal(l.Event, &e) == nil {
			at = e.Time.Format(time.RFC3339Nano)
		}
		if when, err := time.Parse(time.RFC3339Nano, at); err == nil {
			last = max(last, when.UnixMilli())
		}
		r.Timestamp = time.UnixMilli(last)
		if r.Partition = rule.Partition(r.Key, partitions); r.Partition == event.AnyPartition {
			r.Partition = 0
		}
		r.Offset = int64(len(logs[t][r.Partition]))
		logs[t][r.Partition] = append(logs[t][r.Partition], r)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	w, err := replay.NewWriter(dir, replay.Manifest{Inputs: rules.Topics})
	if err != nil {
		return nil, err
	}
	for t, topic := range rules.Topics {
		for _, rs := range logs[t] {
			err := w.Partition(topic, replay.Extent{End: int64(len(rs))}, func(write func(*kgo.Record) error) error {
				for _, r := range rs {
					if err := write(r); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return replay.OpenFolder(dir)
}
