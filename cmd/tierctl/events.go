package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/contract"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/lint"
	"github.com/tierstream/tierstream/internal/mapping"
	"github.com/tierstream/tierstream/internal/replay"
)

type eventsCmd struct {
	Lint     eventsLintCmd     `cmd:"" help:"Say which records of a file or a topic would be used, which not, and why."`
	Examples eventsExamplesCmd `cmd:"" help:"Print an event of each type, to copy."`
	Schemas  eventsSchemasCmd  `cmd:"" help:"Write the JSON Schemas of all events and outputs into a folder."`
}

type eventsExamplesCmd struct {
	Type   string `arg:"" optional:"" help:"purchase, return, complaint, referral, feedback or cost. Default: all." enum:"purchase,return,complaint,referral,feedback,cost," default:""`
	Pretty bool   `help:"Indented, for reading."`
}

func (c *eventsExamplesCmd) Help() string {
	return `Prints events in structured mode, one per line. To send one, produce the line as the value of a record with the header content-type: application/cloudevents+json, and the subject as its key. What each field means is in docs/events.md.

  tierctl events examples purchase --pretty
  tierctl events examples > events.ndjson && tierctl events lint events.ndjson`
}

func (c *eventsExamplesCmd) Run(_ context.Context, _ *connection, t *terminal) error {
	for _, e := range event.Examples() {
		if c.Type != "" && e.Type.String() != c.Type {
			continue
		}
		b, _, err := event.Encode(&e, event.StructuredJSON)
		if err != nil {
			return err
		}
		if c.Pretty {
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, b, "", "  "); err != nil {
				return err
			}
			b = pretty.Bytes()
		}
		if _, err := fmt.Fprintln(t.out, string(b)); err != nil {
			return err
		}
	}
	return nil
}

type eventsSchemasCmd struct {
	Dir string `arg:"" help:"Folder; made if it is not there." type:"path"`
}

func (c *eventsSchemasCmd) Help() string {
	return `JSON Schema, draft 2020-12; the files refer to one another by name. event.v1.json is a whole event in structured mode, <type>.v1.json the data of one type, tier-change.v1.json what is published. What a schema cannot say is in docs/events.md.

  tierctl events schemas ./schemas`
}

func (c *eventsSchemasCmd) Run(_ context.Context, _ *connection, t *terminal) error {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return fmt.Errorf("writing schemas: %w", err)
	}
	return fs.WalkDir(contract.Schemas(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(contract.Schemas(), name)
		if err != nil {
			return err
		}
		path := filepath.Join(c.Dir, name)
		if err := os.WriteFile(path, b, 0o644); err != nil {
			return fmt.Errorf("writing schemas: %w", err)
		}
		_, err = fmt.Fprintln(t.out, path)
		return err
	})
}

type eventsLintCmd struct {
	Source    string `arg:"" help:"A file of lines, - for standard input, or the name of a topic."`
	Topic     string `help:"Of a file: its records are of this mapped topic. Default: of none, or the only one of --mapping." placeholder:"TOPIC"`
	Partition int32  `help:"Of a topic: this partition only." default:"-1" placeholder:"N"`
	Since     string `help:"Of a topic: records since a date, RFC 3339, or how long ago (2h). Default: the start." placeholder:"TIME"`
	Until     string `help:"Of a topic: records before, as --since. Default: the end." placeholder:"TIME"`
	Limit     int64  `short:"n" help:"Of a topic: so many records per partition at most." placeholder:"N"`
	List      bool   `help:"Besides, one line for every record that is not used, as it comes."`
	Examples  int    `help:"Show so many examples of each kind." default:"3"`
	JSON      bool   `name:"json" help:"The summary as JSON."`
}

func (c *eventsLintCmd) Help() string {
	return `Judges records as a consumer would, with the same decoder and the same fold, and writes nothing anywhere. It begins with no customers: a return waits for its order as if nothing had come before.

A line of a file is an event in structured mode (see tierctl events examples), a line that producer-sim --dry-run prints, or a record of a dumped log. Only the last has a time of its own; of the others an event is from the future when it is later than now. The clock is that of the events, and a key is held to its subject, not to a partition.

Records of a mapped topic (docs/mapping.md) are mapped first, by the mapping in force or that of --mapping. A line of a file is then a record's value, or {"key": …, "value": …}.

The rules are those in force in the namespace when Kafka is known (--brokers, or for topics a running embedded consumer), else the defaults with --model.

The exit code is 1 when any record would be refused.

  tierctl events lint events.ndjson
  tierctl events lint purchases --since 24h --brokers kafka:9092
  tierctl events lint orders.ndjson --mapping mapping.yaml --topic orders`
}

// kindOf is records that have the same fate, and where the first of them are.
type kindOf struct {
	Code     string   `json:"code"`
	Outcome  string   `json:"outcome"`
	Field    string   `json:"field,omitempty"`
	Count    int64    `json:"count"`
	Examples []string `json:"examples"`
	Detail   string   `json:"detail,omitempty"` // of the first

	code event.Code
}

func (k *kindOf) name() string { return strings.TrimSpace(k.Code + " " + k.Field) }

// linting is one run.
type linting struct {
	*eventsLintCmd
	term      *terminal
	learner   learner
	kinds     map[[2]string]*kindOf
	records   int64
	refused   int64
	customers int
}

func (c *eventsLintCmd) Run(ctx context.Context, conn *connection, t *terminal) error {
	run := &linting{eventsLintCmd: c, term: t, learner: learner{conn: conn, term: t}, kinds: map[[2]string]*kindOf{}}
	_, err := os.Stat(c.Source)
	isFile := c.Source == "-" || err == nil
	if !isFile && (strings.ContainsAny(c.Source, `/\`) || strings.HasSuffix(c.Source, "json")) {
		return fmt.Errorf("%s: no such file", c.Source)
	}
	var s *site
	if isFile && len(conn.Brokers) == 0 {
		s = &site{connection: conn, term: t, warned: true}
		if s.model, err = conn.readModel(); err != nil {
			return err
		}
	} else if s, err = conn.open(ctx, t, needKafka); err != nil {
		return err
	}
	defer s.close()
	rules, err := s.rulesInForce(nil)
	if err != nil {
		return err
	}
	if isFile {
		err = run.file(ctx, s, rules)
	} else {
		err = run.topic(ctx, s, rules)
	}
	if err != nil {
		return err
	}
	if err := run.report(rules); err != nil {
		return err
	}
	if run.refused > 0 {
		return fmt.Errorf("%d of %d records would be refused", run.refused, run.records)
	}
	return nil
}

// add counts one verdict at a place.
func (l *linting) add(place string, v *lint.Verdict) error {
	l.count(place, v.Code, v.Field, v.Detail)
	for _, w := range v.Warnings {
		l.count(place, w, "", "")
	}
	if v.Code.Outcome() == event.DeadLetter {
		l.refused++
	}
	if !l.List || v.Code.Outcome() == event.Used {
		return nil
	}
	_, err := fmt.Fprintf(l.term.out, "%s  %s\n", place, safe([]byte((&event.Refusal{Code: v.Code, Field: v.Field, Detail: v.Detail}).Error()), false))
	return err
}

func (l *linting) count(place string, code event.Code, field, detail string) {
	id := [2]string{code.String(), field}
	k := l.kinds[id]
	if k == nil {
		k = &kindOf{Code: code.String(), Outcome: outcomeNames[code.Outcome()], Field: field, Detail: detail, code: code, Examples: []string{}}
		l.kinds[id] = k
	}
	k.Count++
	if len(k.Examples) < l.Examples && code.Outcome() != event.Used {
		k.Examples = append(k.Examples, place)
	}
}

var outcomeNames = map[event.Outcome]string{
	event.Used: "used", event.DeadLetter: "refused", event.Dropped: "dropped",
	event.Warned: "warned", event.Ignored: "ignored", event.Held: "waiting",
}

// judge is a linter with what it leads to counted. Returns that wait are
// counted when their wait ends, or at the end.
type judge struct {
	*linting
	lint    *lint.Linter
	place   func(offset int64) string
	waiting map[int64]bool // by offset
}

func (l *linting) judge(rules *fold.Rules, partition, partitions int32, place func(offset int64) string) (*judge, error) {
	of, err := lint.New(rules, partition, partitions)
	return &judge{linting: l, lint: of, place: place, waiting: map[int64]bool{}}, err
}

func (j *judge) record(ctx context.Context, partition int32, offset int64, m *event.Message) error {
	if id, ok := j.lint.Needs(0, m.Value); ok {
		learned, err := j.learner.learn(ctx, j.lint.Mapping(), id)
		if err == nil && learned != j.lint.Mapping() {
			err = j.lint.Learn(learned)
		}
		if err != nil {
			return err
		}
	}
	v, settled, err := j.lint.Add(0, partition, offset, *m)
	if err != nil {
		return err
	}
	j.records++
	if v.Code == event.Waiting {
		j.waiting[offset] = true
		for _, w := range v.Warnings {
			j.count(j.place(offset), w, "", "")
		}
		return nil
	}
	if err := j.add(j.place(offset), &v); err != nil {
		return err
	}
	return j.settle(settled)
}

func (j *judge) settle(settled []lint.Verdict) error {
	for i := range settled {
		delete(j.waiting, settled[i].Offset)
		if err := j.add(j.place(settled[i].Offset), &settled[i]); err != nil {
			return err
		}
	}
	return nil
}

// end refuses what has waited too long at clock, Unix milliseconds.
func (j *judge) end(clock int64) error {
	settled, err := j.lint.Finish(clock)
	if err != nil {
		return err
	}
	if err := j.settle(settled); err != nil {
		return err
	}
	for _, offset := range slices.Sorted(maps.Keys(j.waiting)) {
		v := lint.Verdict{Offset: offset, Code: event.Waiting, Detail: "its order is not among these records; refused as orphan_return when none comes within the grace"}
		if err := j.add(j.place(offset), &v); err != nil {
			return err
		}
	}
	j.customers += j.lint.Customers()
	return nil
}

// file judges lines. Their offsets are line numbers.
func (l *linting) file(ctx context.Context, s *site, rules *fold.Rules) error {
	in, err := l.term.open(l.Source)
	if err != nil {
		return err
	}
	defer in.Close()
	r := *rules
	r.Topics, r.Mapping = []string{l.Source}, nil
	if rules.Mapping != nil && (l.Topic != "" || l.learner.conn.Mapping != "") {
		topic, err := mappedTopic(rules.Mapping, l.Topic)
		if err != nil {
			return err
		}
		r.Topics, r.Mapping = []string{topic}, rules.Mapping.Only(topic)
	}
	j, err := l.judge(&r, -1, 0, func(line int64) string { return fmt.Sprintf("line %d", line) })
	if err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	read := lineRecord
	if r.Mapping != nil {
		read = mappedLine
	}
	err = eachLine(ctx, in, l.Source, func(line int64, text []byte) error {
		m := read(text)
		if m.Timestamp == 0 {
			m.Timestamp = now
		}
		if m.Key == nil && r.Mapping != nil {
			m.Key = subjectOf(r.Mapping, r.Topics[0], m)
		}
		return j.record(ctx, 0, line, m)
	})
	if err != nil {
		return err
	}
	return j.end(j.lint.Newest()) // as when history is loaded
}

// subjectOf is the subject of a mapped record; nil when it is no event. Where
// only a value is at hand it stands for the key.
func subjectOf(m *mapping.Mapping, topic string, r *event.Message) []byte {
	mapped, refusal := m.Mapper(topic, event.Limits{}).Map(0, 0, r)
	if refusal != nil {
		return nil
	}
	var ev event.Event
	_ = event.NewDecoder(event.Limits{}).Decode(mapped, &ev) // refused or not, it says whose it is
	return []byte(ev.Customer)
}

// dumpedLine is a record of a dumped log; nil when the line is none.
func dumpedLine(text []byte) *event.Message {
	var dumped struct {
		Topic  string
		Offset *int64
	}
	var l replay.Line
	if json.Unmarshal(text, &dumped) != nil || dumped.Topic == "" || dumped.Offset == nil || json.Unmarshal(text, &l) != nil {
		return nil
	}
	return messageOf(l.Record())
}

// lineRecord is the record that a line stands for: an event in structured
// mode; what producer-sim prints, which is a key with such an event or with
// headers and value as they would lie in the log; or a record of a dumped log,
// which alone has a timestamp.
func lineRecord(text []byte) *event.Message {
	var line struct {
		SpecVersion json.RawMessage   `json:"specversion"`
		Subject     any               `json:"subject"`
		Key         *string           `json:"key"`
		Event       json.RawMessage   `json:"event"`
		Headers     map[string]string `json:"headers"`
		Value       *string           `json:"value"`
		Base64      []byte            `json:"value_base64"`
	}
	if m := dumpedLine(text); m != nil {
		return m
	}
	structured := func(value []byte) *event.Message {
		var e struct{ Subject any }
		_ = json.Unmarshal(value, &e) // the decoder says what is wrong with it
		m := &event.Message{Value: value, Headers: []event.Header{{Key: "content-type", Value: []byte("application/cloudevents+json")}}}
		if subject, ok := e.Subject.(string); ok {
			m.Key = []byte(subject)
		}
		return m
	}
	err := json.Unmarshal(text, &line)
	if err != nil || line.SpecVersion != nil || line.Event == nil && line.Headers == nil {
		return structured(text)
	}
	var m *event.Message
	if line.Event != nil {
		m = structured(line.Event)
	} else {
		m = &event.Message{Value: line.Base64}
		if line.Value != nil {
			m.Value = []byte(*line.Value)
		}
		for _, name := range slices.Sorted(maps.Keys(line.Headers)) {
			m.Headers = append(m.Headers, event.Header{Key: name, Value: []byte(line.Headers[name])})
		}
	}
	if line.Key != nil {
		m.Key = []byte(*line.Key)
	}
	return m
}

// topic judges the committed records of a topic, partition by partition.
func (l *linting) topic(ctx context.Context, s *site, rules *fold.Rules) error {
	since, err := parseMoment("since", l.Since)
	if err != nil {
		return err
	}
	until, err := parseMoment("until", l.Until)
	if err != nil {
		return err
	}
	n, err := s.partitionsOf(ctx, l.Source)
	switch {
	case err != nil:
		return err
	case n == 0:
		return fmt.Errorf("%s is neither a file nor a topic of this Kafka", l.Source)
	case l.Partition >= n:
		return fmt.Errorf("partition %d: topic %s has %d", l.Partition, l.Source, n)
	}
	r := *rules
	r.Topics, r.Mapping = []string{l.Source}, rules.Mapping.Only(l.Source)
	for p := range n {
		if l.Partition >= 0 && p != l.Partition {
			continue
		}
		j, err := l.judge(&r, p, n, func(offset int64) string { return fmt.Sprintf("%s/%d@%d", l.Source, p, offset) })
		if err != nil {
			return err
		}
		in, from, err := s.spanSince(ctx, l.Source, p, since)
		if err != nil {
			return err
		}
		newest, read := int64(0), int64(0)
		err = s.each(ctx, l.Source, p, from, in.Committed, func(rec *kgo.Record) error {
			if !until.IsZero() && !rec.Timestamp.Before(until) {
				return nil
			}
			newest = max(newest, rec.Timestamp.UnixMilli())
			if read++; l.Limit > 0 && read > l.Limit {
				return errEnough
			}
			return j.record(ctx, p, rec.Offset, messageOf(rec))
		})
		if err != nil {
			return err
		}
		clock := j.lint.Newest()
		switch rules.Clock {
		case fold.ClockWall:
			clock = time.Now().UnixMilli()
		case fold.ClockLog:
			clock = newest
		}
		if err := j.end(clock); err != nil {
			return err
		}
	}
	return nil
}

// report prints the summary.
func (l *linting) report(rules *fold.Rules) error {
	kinds := slices.Collect(maps.Values(l.kinds))
	slices.SortFunc(kinds, func(a, b *kindOf) int {
		rank := func(k *kindOf) int { // what is refused first, what is used last
			return slices.Index([]event.Outcome{event.DeadLetter, event.Held, event.Dropped, event.Ignored, event.Warned, event.Used}, k.code.Outcome())
		}
		return cmp.Or(cmp.Compare(rank(a), rank(b)), -cmp.Compare(a.Count, b.Count), cmp.Compare(a.code, b.code), cmp.Compare(a.Field, b.Field))
	})
	if l.JSON {
		b, err := json.MarshalIndent(struct {
			Source    string    `json:"source"`
			Records   int64     `json:"records"`
			Refused   int64     `json:"refused"`
			Customers int       `json:"customers"`
			Kinds     []*kindOf `json:"kinds"`
		}{l.Source, l.records, l.refused, l.customers, kinds}, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(l.term.out, string(b))
		return err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d records, %d customers; base currency %s, model %s\n", l.records, l.customers, rules.Model.Currency(), rules.Model.Name())
	width := 0
	for _, k := range kinds {
		width = max(width, len(k.name()))
	}
	for _, k := range kinds {
		fmt.Fprintf(&b, "%-7s %7d  %-*s  %s\n", k.Outcome, k.Count, width, k.name(), strings.Join(k.Examples, ", "))
		if k.Detail != "" {
			fmt.Fprintf(&b, "%19s%s\n", "", safe([]byte(k.Detail), false))
		}
	}
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(l.term.out, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}
