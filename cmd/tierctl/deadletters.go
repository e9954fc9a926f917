package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/contract"
	"github.com/tierstream/tierstream/internal/event"
)

type deadLettersCmd struct {
	List  lettersListCmd  `cmd:"" help:"List refused records, the newest last."`
	Show  lettersShowCmd  `cmd:"" help:"Show one refused record as it came, and why it was refused."`
	Stats lettersStatsCmd `cmd:"" help:"Count refused records by code, field and who sent them."`
}

// letterFilter is the flags that choose dead letters.
type letterFilter struct {
	Code  []string `help:"Only these codes." placeholder:"CODE"`
	Topic []string `help:"Only records of these input topics." placeholder:"TOPIC"`
	Key   string   `help:"Only records with this key: a customer ID, where the producer was right." placeholder:"KEY"`
	Since string   `help:"Refused since: a date, RFC 3339, or how long ago (2h)." placeholder:"TIME"`
	Until string   `help:"Refused before: as --since." placeholder:"TIME"`
}

// letter is a dead letter with its place.
type letter struct {
	*contract.DeadLetter
	at        time.Time // when it was refused
	partition int32     // of the dead letters, as is offset
	offset    int64
}

// letters calls fn with the namespace's dead letters that the filter lets
// through, partition by partition, up to the committed end.
func (f *letterFilter) letters(ctx context.Context, s *site, fn func(*letter) error) error {
	known := map[string]bool{}
	for c := range event.NumCodes {
		known[event.Code(c).String()] = event.Code(c).Outcome() == event.DeadLetter
	}
	for _, c := range f.Code {
		if !known[c] {
			s.term.note("note: %s is no code by which this version refuses records", c)
		}
	}
	since, err := parseMoment("since", f.Since)
	if err != nil {
		return err
	}
	until, err := parseMoment("until", f.Until)
	if err != nil {
		return err
	}
	others := map[string]int{}
	err = s.tail(ctx, s.topic.DeadLetters, nil, since, func(r *kgo.Record) error {
		if !until.IsZero() && !r.Timestamp.Before(until) {
			return nil
		}
		d, err := contract.ReadDeadLetter(messageOf(r))
		if err != nil {
			return fmt.Errorf("%s/%d@%d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		switch {
		case len(f.Code) > 0 && !slices.Contains(f.Code, d.Code),
			len(f.Topic) > 0 && !slices.Contains(f.Topic, d.Topic),
			f.Key != "" && f.Key != string(d.Original.Key):
			return nil
		case d.Namespace != s.Namespace:
			others[d.Namespace]++
			return nil
		}
		return fn(&letter{DeadLetter: d, at: r.Timestamp.UTC(), partition: r.Partition, offset: r.Offset})
	})
	for ns, n := range others {
		s.term.note("note: %d dead letters of namespace %s are left out (--namespace %s shows them)", n, ns, ns)
	}
	return err
}

// tail reads the committed records of some partitions of a topic, nil for all,
// from a time on; the zero time is the start.
func (s *site) tail(ctx context.Context, topic string, partitions []int32, since time.Time, fn func(*kgo.Record) error) error {
	n, err := s.partitionsOf(ctx, topic)
	if err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("Kafka has no topic %s", topic)
	}
	if partitions == nil {
		for p := range n {
			partitions = append(partitions, p)
		}
	}
	for _, p := range partitions {
		in, from, err := s.spanSince(ctx, topic, p, since)
		if err != nil {
			return err
		}
		if err := s.each(ctx, topic, p, from, in.Committed, fn); err != nil {
			return err
		}
	}
	return nil
}

// spanSince is what a partition holds, and its first offset from a time on.
func (s *site) spanSince(ctx context.Context, topic string, partition int32, since time.Time) (in span, from int64, err error) {
	if in, err = s.span(ctx, topic, partition); err != nil || since.IsZero() {
		return in, in.Start, err
	}
	offsets, err := s.admin.ListOffsetsAfterMilli(ctx, since.UnixMilli(), topic)
	if err != nil {
		return in, 0, fmt.Errorf("asking for the offsets of %s at %s: %w", topic, since.Format(time.RFC3339), err)
	}
	o, _ := offsets.Lookup(topic, partition)
	if o.Err != nil {
		return in, 0, fmt.Errorf("asking for the offset of %s/%d at %s: %w", topic, partition, since.Format(time.RFC3339), o.Err)
	}
	if from = o.Offset; from < 0 { // nothing since
		from = in.End
	}
	return in, max(from, in.Start), nil
}

// messageOf is a record as packages without Kafka know it.
func messageOf(r *kgo.Record) *event.Message {
	m := &event.Message{Key: r.Key, Value: r.Value, Timestamp: r.Timestamp.UnixMilli()}
	for _, h := range r.Headers {
		m.Headers = append(m.Headers, event.Header{Key: h.Key, Value: h.Value})
	}
	return m
}

// parseMoment reads a flag that is a point in time, or how long ago it was;
// "" is the zero time.
func parseMoment(flag, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return time.Now().Add(-d), nil
	}
	t, err := parseInstant(flag, s)
	if err != nil {
		return t, cli.Usage(fmt.Errorf("--%s %q: want 2026-01-31, 2026-01-31T09:00:00+01:00, or how long ago, such as 2h", flag, s))
	}
	return t, nil
}

type lettersListCmd struct {
	letterFilter
	Limit int  `short:"n" help:"The newest so many; 0 for all." default:"20"`
	JSON  bool `name:"json" help:"One JSON object per dead letter, with the original's bytes in base 64."`
}

func (c *lettersListCmd) Help() string {
	return `A line says: when it was refused, code and field, where it came from (topic/partition@offset), its key, and what was found. Take the origin to show it whole.

  tierctl deadletters list --since 1h
  tierctl deadletters list --code no_rate,bad_currency --topic purchases -n 100`
}

func (c *lettersListCmd) Run(ctx context.Context, conn *connection, t *terminal) error {
	s, err := conn.open(ctx, t, needKafka)
	if err != nil {
		return err
	}
	defer s.close()
	var newest []*letter
	total := 0
	err = c.letters(ctx, s, func(l *letter) error {
		total++
		newest = append(newest, l)
		if c.Limit > 0 && len(newest) >= 2*c.Limit+1000 {
			newest = lastLetters(newest, c.Limit)
		}
		return nil
	})
	if err != nil {
		return err
	}
	newest = lastLetters(newest, c.Limit)
	for _, l := range newest {
		text := l.line()
		if c.JSON {
			b, err := json.Marshal(l.document())
			if err != nil {
				return err
			}
			text = string(b)
		}
		if _, err := fmt.Fprintln(t.out, text); err != nil {
			return err
		}
	}
	if len(newest) < total {
		t.note("the newest %d of %d dead letters (-n 0 shows all)", len(newest), total)
	}
	return nil
}

// lastLetters are the newest n in the order of time; n 0 is all.
func lastLetters(ls []*letter, n int) []*letter {
	slices.SortStableFunc(ls, func(a, b *letter) int { return a.at.Compare(b.at) })
	if n > 0 && len(ls) > n {
		return slices.Delete(ls, 0, len(ls)-n)
	}
	return ls
}

func (l *letter) line() string {
	why := l.Code
	if l.Field != "" {
		why += " " + l.Field
	}
	return strings.TrimRight(fmt.Sprintf("%s  %s  %s  key %s  %s",
		l.at.Format("2006-01-02 15:04:05"), why, l.Origin(), quoted(l.Original.Key), safe([]byte(l.Detail), false)), " ")
}

// letterDocument is a dead letter as JSON. Bytes are base 64.
type letterDocument struct {
	RefusedAt time.Time        `json:"refused_at"`
	Code      string           `json:"code"`
	Field     string           `json:"field"`
	Detail    string           `json:"detail"`
	Topic     string           `json:"topic"`
	Partition int32            `json:"partition"`
	Offset    int64            `json:"offset"`
	Timestamp time.Time        `json:"timestamp"`
	Engine    string           `json:"engine"`
	Source    string           `json:"source"`
	Key       []byte           `json:"key_base64"`
	Value     []byte           `json:"value_base64"`
	Headers   []headerDocument `json:"headers"`
	Omitted   map[string]int64 `json:"omitted,omitempty"` // what was too large to repeat, in bytes
}

type headerDocument struct {
	Name  string `json:"name"`
	Value []byte `json:"value_base64"`
}

func (l *letter) document() *letterDocument {
	d := &letterDocument{
		RefusedAt: l.at, Code: l.Code, Field: l.Field, Detail: l.Detail, Topic: l.Topic, Partition: l.Partition, Offset: l.Offset,
		Timestamp: l.Timestamp, Engine: l.Engine, Source: l.source(), Key: l.Original.Key, Value: l.Original.Value, Headers: []headerDocument{}, Omitted: l.Omitted,
	}
	for _, h := range l.Original.Headers {
		d.Headers = append(d.Headers, headerDocument{h.Key, h.Value})
	}
	return d
}

func (l *letter) header(name string) string {
	for _, h := range l.Original.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

// source is who sent it, by its own account; "" when it does not say.
func (l *letter) source() string {
	if s := l.header("ce_source"); s != "" {
		return s
	}
	var e struct{ Source any }
	if json.Unmarshal(l.Original.Value, &e) == nil {
		if s, ok := e.Source.(string); ok {
			return s
		}
	}
	return ""
}

type lettersShowCmd struct {
	Place string `arg:"" help:"Where it came from, as list prints it: purchases/3@1184. Or where it lies now: dead-letters/2@8."`
	Raw   bool   `help:"Write the value as it came, byte for byte, and nothing else."`
	JSON  bool   `name:"json" help:"As JSON, with the original's bytes in base 64."`
}

func (c *lettersShowCmd) Help() string {
	return `Text is shown with everything unprintable escaped, so that a record cannot play with your terminal; msgpack also as JSON, other bytes as a dump.

To send it again after the cause is gone, produce key, value and headers to the origin topic: a dead letter left no trace in its customer.

  tierctl deadletters show purchases/3@1184
  tierctl deadletters show purchases/3@1184 --raw > record.bin`
}

func (c *lettersShowCmd) Run(ctx context.Context, conn *connection, t *terminal) error {
	topic, partition, offset, ok := parsePlace(c.Place)
	if !ok {
		return cli.Usage(fmt.Errorf("%q: want topic/partition@offset, such as purchases/3@1184", c.Place))
	}
	s, err := conn.open(ctx, t, needKafka)
	if err != nil {
		return err
	}
	defer s.close()
	var found *letter
	if topic == s.topic.DeadLetters {
		in, err := s.span(ctx, topic, partition)
		if err != nil {
			return err
		}
		if offset >= in.Start {
			err = s.each(ctx, topic, partition, offset, min(offset+1, in.Committed), func(r *kgo.Record) error {
				d, err := contract.ReadDeadLetter(messageOf(r))
				found = &letter{DeadLetter: d, at: r.Timestamp.UTC(), partition: r.Partition, offset: r.Offset}
				return err
			})
		}
		if err != nil {
			return err
		}
	} else {
		f := letterFilter{Topic: []string{topic}}
		err := f.letters(ctx, s, func(l *letter) error {
			if l.Partition == partition && l.Offset == offset {
				found = l
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	switch {
	case found == nil:
		return fmt.Errorf("no dead letter of %s is in topic %s", c.Place, s.topic.DeadLetters)
	case c.Raw:
		if n, cut := found.Omitted["value"]; cut {
			return fmt.Errorf("the value of %s has %d bytes, too many to be repeated in the dead letters: read it at its origin", found.Origin(), n)
		}
		_, err = t.out.Write(found.Original.Value)
	case c.JSON:
		var b []byte
		if b, err = json.MarshalIndent(found.document(), "", "  "); err == nil {
			_, err = fmt.Fprintln(t.out, string(b))
		}
	default:
		_, err = t.out.Write(found.show(s.topic.DeadLetters))
	}
	return err
}

// parsePlace reads topic/partition@offset.
func parsePlace(s string) (topic string, partition int32, offset int64, ok bool) {
	slash, at := strings.LastIndexByte(s, '/'), strings.LastIndexByte(s, '@')
	if slash < 1 || at < slash {
		return "", 0, 0, false
	}
	p, err1 := strconv.ParseInt(s[slash+1:at], 10, 32)
	o, err2 := strconv.ParseInt(s[at+1:], 10, 64)
	return s[:slash], int32(p), o, err1 == nil && err2 == nil && p >= 0 && o >= 0
}

// show is the dead letter for a person.
func (l *letter) show(topic string) []byte {
	var b bytes.Buffer
	row := func(name, text string) { fmt.Fprintf(&b, "%-10s %s\n", name, text) }
	why := l.Code
	if l.Field != "" {
		why += ", field " + safe([]byte(l.Field), false)
	}
	row("Refused", why)
	if l.Detail != "" {
		row("Because", safe([]byte(l.Detail), false))
	}
	row("Origin", fmt.Sprintf("%s, record time %s", l.Origin(), l.Timestamp.Format("2006-01-02 15:04:05.000 UTC")))
	row("When", fmt.Sprintf("%s by %s; now %s/%d@%d", l.at.Format("2006-01-02 15:04:05.000 UTC"), safe([]byte(l.Engine), false), topic, l.partition, l.offset))
	row("Key", quoted(l.Original.Key))
	for _, h := range l.Original.Headers {
		row("Header", quoted([]byte(h.Key))+" "+quoted(h.Value))
	}
	for _, what := range []string{"key", "headers", "value"} {
		if n, ok := l.Omitted[what]; ok {
			row("Left out", fmt.Sprintf("%s of %d bytes, too large to be repeated here: read it at its origin", what, n))
		}
	}
	if _, cut := l.Omitted["value"]; cut {
		return b.Bytes()
	}
	v := l.Original.Value
	switch {
	case v == nil:
		row("Value", "none: a tombstone")
	case len(v) == 0:
		row("Value", "empty")
	default:
		row("Value", fmt.Sprintf("%d bytes", len(v)))
		b.WriteString(showValue(v, l.header("content-type")))
	}
	return b.Bytes()
}

// mostShown bounds how much of a value is shown.
const mostShown = 8 << 10

// showValue is a value for a person: JSON indented, text, msgpack as JSON, the
// rest as a dump.
func showValue(v []byte, mediaType string) string {
	text := v
	if strings.Contains(mediaType, "msgpack") {
		d := msgpack.NewDecoder(bytes.NewReader(v))
		if x, err := d.DecodeInterface(); err == nil {
			if b, err := json.MarshalIndent(x, "", "  "); err == nil {
				return "msgpack, as JSON:\n" + safe(cut(b), true) + "\n"
			}
		}
	}
	if json.Valid(v) {
		var b bytes.Buffer
		if json.Indent(&b, v, "", "  ") == nil {
			text = b.Bytes()
		}
	} else if !utf8.Valid(v) || unprintable(v) > len(v)/10 {
		return strings.TrimRight(hex.Dump(cut(v)), "\n") + "\n" + rest(v)
	}
	return safe(cut(text), true) + "\n" + rest(text)
}

func cut(b []byte) []byte { return b[:min(len(b), mostShown)] }

func rest(b []byte) string {
	if len(b) <= mostShown {
		return ""
	}
	return fmt.Sprintf("… and %d bytes more (--raw writes all)\n", len(b)-mostShown)
}

// unprintable counts the control characters but for white space.
func unprintable(b []byte) (n int) {
	for _, c := range b {
		if c < ' ' && c != '\n' && c != '\t' && c != '\r' {
			n++
		}
	}
	return n
}

// safe escapes whatever is not printable, so that what others sent cannot move
// a cursor, colour a line or turn its direction.
func safe(b []byte, lines bool) string {
	var s strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&s, `\x%02x`, b[0])
		case unicode.IsPrint(r) || lines && r == '\n':
			s.WriteRune(r)
		default:
			q := strconv.QuoteRune(r)
			s.WriteString(q[1 : len(q)-1])
		}
		b = b[n:]
	}
	return s.String()
}

// quoted is a short value on one line, told apart from none.
func quoted(b []byte) string {
	const most = 256
	switch {
	case b == nil:
		return "none"
	case len(b) > most:
		return `"` + safe(b[:most], false) + `"…`
	}
	return `"` + safe(b, false) + `"`
}

type lettersStatsCmd struct {
	letterFilter
	JSON bool `name:"json" help:"As JSON."`
}

func (c *lettersStatsCmd) Help() string {
	return `Counts by code, offending field and the source that the records name, the most frequent first, each with the first and last time and one to look at.

  tierctl deadletters stats --since 24h`
}

// letterGroup is dead letters that are alike.
type letterGroup struct {
	Code    string    `json:"code"`
	Field   string    `json:"field"`
	Source  string    `json:"source"` // "" where it is not known
	Count   int64     `json:"count"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
	Example string    `json:"example"` // origin of the last
}

func (c *lettersStatsCmd) Run(ctx context.Context, conn *connection, t *terminal) error {
	s, err := conn.open(ctx, t, needKafka)
	if err != nil {
		return err
	}
	defer s.close()
	type key struct{ code, field, source string }
	groups := map[key]*letterGroup{}
	total := int64(0)
	err = c.letters(ctx, s, func(l *letter) error {
		total++
		k := key{l.Code, l.Field, l.source()}
		g := groups[k]
		if g == nil {
			g = &letterGroup{Code: k.code, Field: k.field, Source: k.source, First: l.at}
			groups[k] = g
		}
		g.Count++
		if l.at.Before(g.First) {
			g.First = l.at
		}
		if !l.at.Before(g.Last) {
			g.Last, g.Example = l.at, l.Origin()
		}
		return nil
	})
	if err != nil {
		return err
	}
	list := []*letterGroup{}
	for _, g := range groups {
		list = append(list, g)
	}
	slices.SortFunc(list, func(a, b *letterGroup) int {
		return cmp.Or(-cmp.Compare(a.Count, b.Count), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Source, b.Source))
	})
	if c.JSON {
		b, err := json.MarshalIndent(list, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(t.out, string(b))
		return err
	}
	if total == 0 {
		_, err := fmt.Fprintln(t.out, "no dead letters")
		return err
	}
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "count\tcode\tfield\tsource\tfirst\tlast\texample\n")
	for _, g := range list {
		source := "not known"
		if g.Source != "" {
			source = safe([]byte(g.Source), false)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", g.Count, g.Code, orDash(safe([]byte(g.Field), false)), source,
			g.First.Format("2006-01-02 15:04:05"), g.Last.Format("2006-01-02 15:04:05"), g.Example)
	}
	_ = w.Flush() // into a buffer
	fmt.Fprintf(&b, "%d dead letters\n", total)
	_, err = t.out.Write(b.Bytes())
	return err
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
