package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/connect"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/mapping"
)

type mappingCmd struct {
	Check mappingCheckCmd `cmd:"" help:"Check a mapping file, and show the events that it makes of sample records."`
}

type mappingCheckCmd struct {
	File   string `arg:"" help:"The mapping." type:"existingfile"`
	Sample string `arg:"" optional:"" help:"Records of one topic, one per line; - for standard input."`
	Topic  string `help:"Of which topic the sample is. Default: the only one of the mapping." placeholder:"TOPIC"`
}

func (c *mappingCheckCmd) Help() string {
	return `Compiles every expression and says line and place of what is wrong. With a sample it prints, for each line, the event in structured mode or why there is none. Whether such events would be used, and not only be well-formed, says tierctl events lint --mapping FILE.

A line of the sample is a record's value, or {"key": …, "value": …}, with value_base64 where the value is no JSON, and headers if the mapping asks for them. What each part of a mapping means is in docs/mapping.md.

  tierctl mapping check mapping.yaml
  tierctl mapping check mapping.yaml orders.ndjson --topic orders`
}

func (c *mappingCheckCmd) Run(ctx context.Context, conn *connection, t *terminal) error {
	m, err := readMapping(c.File)
	if err != nil {
		return err
	}
	if c.Sample == "" {
		return describe(t.out, m)
	}
	topic, err := mappedTopic(m, c.Topic)
	if err != nil {
		return err
	}
	in, err := t.open(c.Sample)
	if err != nil {
		return err
	}
	defer in.Close()
	l := &learner{conn: conn, term: t}
	x, d := m.Mapper(topic, event.Limits{}), event.NewDecoder(event.Limits{})
	refused, records := 0, int64(0)
	err = eachLine(ctx, in, c.Sample, func(line int64, text []byte) error {
		records++
		msg := mappedLine(text)
		msg.Timestamp = cmp.Or(msg.Timestamp, time.Now().UnixMilli())
		if id, ok := m.Needs(topic, msg.Value); ok {
			if m, err = l.learn(ctx, m, id); err != nil {
				return err
			}
			x = m.Mapper(topic, event.Limits{})
		}
		mapped, refusal := x.Map(0, line, msg)
		var ev event.Event
		if refusal == nil {
			if refusal = d.Decode(mapped, &ev); refusal != nil {
				x.Explain(refusal)
			} else if msg.Key != nil && !event.KeyMatches(msg, &ev) {
				refusal = &event.Refusal{Code: event.Misrouted, Field: "key", Detail: fmt.Sprintf("the record key %.40q is not the subject %.40q", msg.Key, ev.Customer)}
			}
		}
		if refusal != nil {
			if refusal.Code.Outcome() == event.DeadLetter {
				refused++
			}
			_, err := fmt.Fprintf(t.out, "line %d: %s\n", line, safe([]byte(refusal.Error()), false))
			return err
		}
		_, err := fmt.Fprintf(t.out, "line %d: %s\n", line, mapped.Value)
		return err
	})
	if err == nil && refused > 0 {
		err = fmt.Errorf("%d of %d records would be refused", refused, records)
	}
	return err
}

// describe prints what a mapping does, topic by topic.
func describe(to io.Writer, m *mapping.Mapping) error {
	w := &printer{to: to}
	if m.Registry() != "" {
		w.printf("schemas of %s\n", m.Registry())
	}
	for _, topic := range m.Topics() {
		format, events := m.Describe(topic)
		w.printf("%s (%s)\n", topic, format)
		for _, e := range events {
			w.printf("  %s\n", e)
		}
	}
	for _, s := range m.Schemas() {
		if err := s.Check(); err != nil {
			return err
		}
	}
	return w.err
}

func readMapping(path string) (*mapping.Mapping, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the mapping: %w", err)
	}
	m, err := mapping.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// mappedTopic is the topic that is named, or the only one.
func mappedTopic(m *mapping.Mapping, name string) (string, error) {
	topics := m.Topics()
	switch {
	case name == "" && len(topics) == 1:
		return topics[0], nil
	case name == "":
		return "", cli.Usage(fmt.Errorf("--topic: of which topic are these records: %s?", strings.Join(topics, ", ")))
	case !slices.Contains(topics, name):
		return "", fmt.Errorf("the mapping says nothing of topic %s, but of %s", name, strings.Join(topics, ", "))
	}
	return name, nil
}

// learner asks the registry of a mapping, once for each schema.
type learner struct {
	conn   *connection
	term   *terminal
	source mapping.Source // nil: not asked yet
	asked  map[int]bool
}

func (l *learner) learn(ctx context.Context, m *mapping.Mapping, id int) (*mapping.Mapping, error) {
	if l.asked[id] {
		return m, nil
	}
	if l.source == nil {
		r, err := l.conn.RegistrySecurity.Open(m.Registry(), l.term.env.Get(connect.RegistryPassword))
		if err != nil {
			return nil, err
		}
		l.source, l.asked = r, map[int]bool{}
	}
	l.asked[id] = true
	learned, _, err := m.Learn(ctx, l.source, []int{id})
	return learned, err
}

// eachLine hands out the lines that are not empty.
func eachLine(ctx context.Context, in io.Reader, name string, fn func(line int64, text []byte) error) error {
	b := bufio.NewReaderSize(in, 1<<20)
	for line := int64(1); ; line++ {
		text, err := b.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		if text = bytes.TrimSpace(text); len(text) > 0 {
			if err := fn(line, text); err != nil {
				return fmt.Errorf("%s:%d: %w", name, line, err)
			}
		}
		if err != nil {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// mappedLine is the record of a mapped topic that a line stands for: a record of
// a dumped log, a key with a value, or a value alone, whose key is not known.
func mappedLine(text []byte) *event.Message {
	if m := dumpedLine(text); m != nil {
		return m
	}
	var line struct {
		Key     *string           `json:"key"`
		Value   json.RawMessage   `json:"value"`
		Base64  []byte            `json:"value_base64"`
		Headers map[string]string `json:"headers"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&line); err != nil || line.Key == nil {
		return &event.Message{Value: text}
	}
	m := &event.Message{Key: []byte(*line.Key), Value: line.Value}
	if line.Base64 != nil {
		m.Value = line.Base64
	}
	for _, name := range slices.Sorted(maps.Keys(line.Headers)) {
		m.Headers = append(m.Headers, event.Header{Key: name, Value: []byte(line.Headers[name])})
	}
	return m
}
