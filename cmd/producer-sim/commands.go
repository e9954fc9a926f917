package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/connect"
	"github.com/tierstream/tierstream/internal/sim"
	"github.com/tierstream/tierstream/internal/sim/produce"
)

type generateCmd struct {
	Seed      uint64        `default:"1" help:"Seed of all chance."`
	Prefix    string        `help:"Stands before every ID. Give another one for a second run into the same topics, else its events contradict those of the first."`
	Customers float64       `default:"10000" help:"Mean number of customers who arrive within --span."`
	Span      time.Duration `default:"8760h" help:"Time over which they arrive."`
	Later     float64       `default:"1" name:"later-arrivals" help:"Rate of arrivals after --span, as a share of that within it; 0 for a closed population."`
	Start     string        `help:"Event time of the beginning, a date or RFC 3339. Default: 2025-01-01, or as --days says." placeholder:"DATE"`
	Days      float64       `help:"Begin this many days before now instead of --start." placeholder:"N"`
	Until     string        `help:"Stop when event time reaches this date." placeholder:"DATE"`
	Currency  string        `default:"EUR" help:"Base currency, ISO 4217."`
	Typical   int64         `default:"3500" name:"typical-order" help:"What the mean customer spends on an order, minor units."`
	BadRate   float64       `default:"0" help:"Bad messages per good one, 0 to 1, of every kind a consumer must refuse."`
	LiveRate  float64       `help:"From now on, speed the customers up or slow them down to about this many events per second." placeholder:"N"`

	sending
}

func (c *generateCmd) run(ctx context.Context, out output) error {
	if c.Resume != "" && (c.Days != 0 || c.LiveRate != 0) {
		return cli.Usage(errors.New("--resume needs a model that is the same in the next run: give --start instead of --days, and no --live-rate"))
	}
	model := sim.DefaultConfig()
	model.Seed, model.Prefix = c.Seed, c.Prefix
	model.Customers, model.Span, model.Later = c.Customers, c.Span, c.Later
	model.Currency, model.TypicalOrder, model.BadRate = c.Currency, c.Typical, c.BadRate

	now := time.Now()
	switch {
	case c.Start != "" && c.Days != 0:
		return cli.Usage(errors.New("--start and --days exclude each other"))
	case c.Start != "":
		start, err := parseMoment("start", c.Start)
		if err != nil {
			return err
		}
		model.Start = start
	case c.Days > 0:
		model.Start = now.Add(-time.Duration(c.Days * 24 * float64(time.Hour)))
	case c.Days < 0:
		return cli.Usage(errors.New("--days must be more than 0"))
	}
	if err := model.Validate(); err != nil {
		return cli.Usage(err)
	}
	if c.LiveRate != 0 {
		var err error
		if model, err = model.LiveFrom(now, c.LiveRate); err != nil {
			return cli.Usage(err)
		}
	}
	g, err := sim.New(model)
	if err != nil {
		return err
	}
	messages := g.All()
	if c.Until != "" {
		until, err := parseMoment("until", c.Until)
		if err != nil {
			return err
		}
		messages = before(until, messages)
	}
	if c.DryRun && c.Events == 0 && c.Until == "" {
		return cli.Usage(errors.New("--dry-run has no end of its own: give --events or --until"))
	}
	return c.send(ctx, out, messages)
}

// before is the messages that reach the log before a moment.
func before(until time.Time, messages iter.Seq[sim.Message]) iter.Seq[sim.Message] {
	end := until.UnixMilli()
	return func(yield func(sim.Message) bool) {
		for m := range messages {
			if m.At >= end || !yield(m) {
				return
			}
		}
	}
}

type cdnowCmd struct {
	File string `arg:"" type:"existingfile" help:"CDNOW_master.txt or CDNOW_sample.txt."`
	Zone string `default:"UTC" help:"IANA zone in which a purchase is at 12:00 of its date."`

	sending
}

func (c *cdnowCmd) run(ctx context.Context, out output) error {
	zone, err := time.LoadLocation(c.Zone)
	if err != nil {
		return cli.Usage(fmt.Errorf("--zone: %w", err))
	}
	messages, err := sim.ReadCDNOW(c.File, zone)
	if err != nil {
		return err
	}
	// The file has purchases only, so one topic is enough.
	c.only = []sim.Topic{sim.Purchases}
	return c.send(ctx, out, slices.Values(messages))
}

type uciCmd struct {
	File string `arg:"" type:"existingfile" help:"The CSV, or its gzip."`
	Zone string `default:"Europe/London" help:"IANA zone of the file's times."`

	sending
}

func (c *uciCmd) run(ctx context.Context, out output) error {
	zone, err := time.LoadLocation(c.Zone)
	if err != nil {
		return cli.Usage(fmt.Errorf("--zone: %w", err))
	}
	messages, summary, err := sim.ReadUCI(c.File, zone)
	if err != nil {
		return err
	}
	if _, err := summary.WriteTo(out.stderr); err != nil {
		return err
	}
	c.only = []sim.Topic{sim.Purchases}
	return c.send(ctx, out, slices.Values(messages))
}

type ndjsonCmd struct {
	Files []string `arg:"" help:"Lines as --dry-run prints them, structured CloudEvents, or records of a dumped log; - is standard input, and a folder that of a dumped log. Several files are merged by time."`

	sending
}

func (c *ndjsonCmd) run(ctx context.Context, out output) error {
	topics, _, err := c.check()
	if err != nil {
		return cli.Usage(err)
	}
	var readers []io.Reader
	for _, path := range c.Files {
		if path == "-" {
			readers = append(readers, os.Stdin)
			continue
		}
		paths, err := dumped(path)
		if err != nil {
			return err
		}
		for _, p := range paths {
			f, err := os.Open(p)
			if err != nil {
				return err
			}
			defer f.Close()
			readers = append(readers, f)
		}
	}
	reader := sim.NDJSON{Topics: topics}
	err = c.send(ctx, out, reader.All(readers...))
	if reader.Err() != nil {
		err = errors.Join(err, fmt.Errorf("reading: %w", reader.Err()))
	}
	return err
}

// dumped are the files of the inputs of a dumped log, if path is its folder;
// else it is path alone.
func dumped(path string) ([]string, error) {
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return []string{path}, err
	}
	text, err := os.ReadFile(filepath.Join(path, "manifest.json"))
	if err != nil {
		return nil, fmt.Errorf("%s is not a dumped log, or not a whole one: %w", path, err)
	}
	var manifest struct {
		Inputs     []string
		Partitions map[string][]struct{}
	}
	if err := json.Unmarshal(text, &manifest); err != nil {
		return nil, fmt.Errorf("%s: manifest.json: %w", path, err)
	}
	var files []string
	for _, topic := range manifest.Inputs {
		for p := range manifest.Partitions[topic] {
			files = append(files, filepath.Join(path, fmt.Sprintf("%s-%d.ndjson", topic, p)))
		}
	}
	return files, nil
}

type copyCmd struct {
	From        []string `name:"from-brokers" required:"" help:"Kafka brokers of the source, host:port."`
	Topics      []string `required:"" help:"Topics of the source."`
	To          []string `name:"to-topics" help:"Their names at the destination, in the same order. Default: the same names."`
	Partitioner string   `default:"murmur2" help:"By which rule keys are partitioned at the destination: murmur2, crc32, fnv1a; or keep, the partition numbers of the source."`
	Timestamps  bool     `name:"keep-timestamps" help:"Keep record timestamps, where the destination's topics have CreateTime. Beware of its retention."`
	Follow      bool     `help:"Go on when the end of the source is reached."`

	Source connect.Kafka `embed:"" prefix:"from-"`

	delivery
}

func (c *copyCmd) run(ctx context.Context, out output) error {
	if c.To == nil {
		c.To = c.Topics
	}
	if len(c.To) != len(c.Topics) {
		return cli.Usage(fmt.Errorf("--to-topics: %d names for %d topics", len(c.To), len(c.Topics)))
	}
	if err := c.check(); err != nil {
		return cli.Usage(err)
	}
	names := map[string]string{}
	for i, t := range c.Topics {
		names[t] = c.To[i]
	}
	if len(names) < len(c.Topics) {
		return cli.Usage(errors.New("--topics: a name occurs twice"))
	}
	var rule kgo.Partitioner
	if c.Partitioner == "keep" {
		rule = kgo.ManualPartitioner()
	} else {
		var err error
		if rule, err = partitioner(c.Partitioner); err != nil {
			return err
		}
	}
	secured, err := c.Source.Options(out.env.Get("from-" + connect.KafkaPassword))
	if err != nil {
		return cli.Usage(fmt.Errorf("the source's settings (--from-…): %w", err))
	}
	from := append([]kgo.Opt{kgo.SeedBrokers(c.From...), kgo.ClientID("producer-sim")}, secured...)
	source, err := kgo.NewClient(from...)
	if err != nil {
		return fmt.Errorf("connecting to %s: %w", strings.Join(c.From, ","), err)
	}
	defer source.Close()
	asking, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	meta, err := kadm.NewClient(source).Metadata(asking, c.Topics...)
	if err == nil {
		err = meta.Topics.Error()
	}
	if err != nil {
		return fmt.Errorf("asking %s for topics: %w", strings.Join(c.From, ","), err)
	}
	partitions := int32(len(meta.Topics[c.Topics[0]].Partitions))

	to := slices.Compact(slices.Sorted(slices.Values(c.To)))
	return c.deliver(ctx, out, route{to, partitions, rule, meta.Cluster}, func(ctx context.Context, client *kgo.Client, after produce.Checkpoint, progress *produce.Progress) error {
		if after.Cluster == meta.Cluster {
			for from, to := range names {
				if names[to] != "" || from == to {
					return fmt.Errorf("topic %s is copied into a topic that is copied: source and destination are one cluster", from)
				}
			}
		}
		return produce.Copy(ctx, produce.CopyConfig{
			From: from, To: client, Topics: names,
			KeepTimestamps: c.Timestamps, Follow: c.Follow, After: after,
			Pace: c.pace(), Limit: c.Events, Progress: progress,
		})
	})
}
