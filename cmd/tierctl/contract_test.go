package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/contract"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/replay"
)

// piped runs a command that needs no services, with something to read.
func piped(t *testing.T, in string, args ...string) (string, error) {
	t.Helper()
	var out, errs bytes.Buffer
	err := run(t.Context(), args, func(string) string { return "" }, strings.NewReader(in), &out, &errs)
	return out.String() + errs.String(), err
}

// TestMappedFilesAreLinted: what the example of a mapping makes of its samples.
func TestMappedFilesAreLinted(t *testing.T) {
	const examples = "../../examples/mapping/"
	said, err := piped(t, "", "events", "lint", examples+"orders.ndjson", "--mapping", examples+"mapping.yaml", "--topic", "orders")
	if err == nil || !strings.Contains(err.Error(), "1 of 4 records would be refused") {
		t.Error(err)
	}
	contains(t, said, `refused +1  bad_amount amount_minor +line 4\n +minor\(.*12\.345 EUR is no whole number`, `ignored +1  skipped +line 2`, `used +2  applied`)
	if _, err := piped(t, "", "events", "lint", examples+"orders.ndjson"); err == nil {
		t.Error("without the mapping they are events")
	}
}

func TestExamplesPassLint(t *testing.T) {
	all, err := piped(t, "", "events", "examples")
	if err != nil || strings.Count(all, "\n") != 6 {
		t.Fatalf("%v\n%s", err, all)
	}
	said, err := piped(t, all, "events", "lint", "-")
	if err != nil {
		t.Errorf("all examples: %v", err)
	}
	contains(t, said, `^6 records, 1 customers; base currency EUR`, `used +6  applied`)
	for typ := event.Purchase; typ <= event.Cost; typ++ {
		one, err := piped(t, "", "events", "examples", typ.String())
		if err != nil || !strings.Contains(one, typ.URI()) {
			t.Errorf("the example of a %s: %v\n%s", typ, err, one)
		}
		said, err := piped(t, one, "events", "lint", "-")
		if err != nil {
			t.Errorf("the example of a %s: %v\n%s", typ, err, said)
		}
		if typ == event.Return {
			contains(t, said, `waiting +1  waiting +line 1\n +its order is not among these records`)
		}
	}
	pretty, err := piped(t, "", "events", "examples", "cost", "--pretty")
	if err != nil || !strings.Contains(pretty, "\n  \"data\": {\n    \"cost_id\": \"a-42\",\n") {
		t.Errorf("%v\n%s", err, pretty)
	}
}

func TestSchemasAreWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "schemas")
	said, err := piped(t, "", "events", "schemas", dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "purchase.v1.json"))
	if err != nil || !json.Valid(b) || !strings.Contains(said, "purchase.v1.json\n") {
		t.Errorf("%v\n%s", err, said)
	}
}

// A first file of somebody else's data, with what goes wrong on a first day.
const firstDay = `{"specversion":"1.0","id":"1","source":"/shop","type":"io.tierstream.purchase.v1","time":"2025-03-01T10:00:00Z","subject":"a","data":{"order_id":"o1","amount_minor":1000,"currency":"EUR"}}
{"specversion":"1.0","id":"2","source":"/shop","type":"io.tierstream.purchase.v1","time":"2025-03-02T10:00:00Z","subject":"a","data":{"order_id":"o2","amount_minor":49.90,"currency":"EUR"}}

{"specversion":"1.0","id":"3","source":"/shop","type":"io.tierstream.return.v1","time":"2025-03-03T10:00:00Z","subject":"a","data":{"return_id":"r1","order_id":"o1","amount_minor":2000,"currency":"EUR"}}
{"specversion":"1.0","id":"1","source":"/shop","type":"io.tierstream.purchase.v1","time":"2025-03-01T10:00:00Z","subject":"a","data":{"order_id":"o1","amount_minor":1000,"currency":"EUR"}}
{"order_id":"o9"}
not json
{"key":"b","event":{"specversion":"1.0","id":"4","source":"/shop","type":"io.tierstream.purchase.v1","time":"2025-03-04T10:00:00Z","subject":"a","data":{"order_id":"o4","amount_minor":1000,"currency":"EUR"}}}
{"key":"c","headers":{"ce_specversion":"1.0","ce_id":"5","ce_source":"/shop","ce_type":"io.tierstream.cost.v1","ce_time":"2025-03-04T10:00:00Z","ce_subject":"c"},"value":"{\"cost_id\":\"x\",\"kind\":\"sales\",\"amount_minor\":1,\"currency\":\"EUR\"}"}
{"key":"c","headers":{"ce_specversion":"1.0","ce_id":"6","ce_source":"/shop","ce_type":"io.tierstream.cost.v1","ce_time":"2025-03-04T10:00:00Z","ce_subject":"c"},"value_base64":"/w=="}
{"specversion":"1.0","id":"7","source":"/shop","type":"io.tierstream.purchase.v1","time":"2025-02-01T10:00:00Z","subject":"a","data":{"order_id":"o7","amount_minor":0,"currency":"EUR"}}
{"specversion":"1.0","id":"8","source":"/shop","type":"io.tierstream.return.v1","time":"2025-03-05T10:00:00Z","subject":"a","data":{"return_id":"r8","order_id":"o8","amount_minor":10,"currency":"EUR"}}
{"specversion":"1.0","id":"9","source":"/shop","type":"io.tierstream.purchase.v1","time":"2025-03-04T10:00:00Z","subject":"a","data":{"order_id":"o8","amount_minor":10,"currency":"EUR"}}
{"specversion":"1.0","id":"10","source":"/shop","type":"io.tierstream.return.v1","time":"2025-03-06T10:00:00Z","subject":"a","data":{"return_id":"r9","order_id":"never","amount_minor":10,"currency":"EUR"}}
{"specversion":"1.0","id":"11","source":"/shop","type":"io.tierstream.feedback.v1","time":"2125-03-06T10:00:00Z","subject":"a","data":{"response_id":"s","kind":"praise"}}
{"specversion":"1.0","id":"12","source":"/shop","type":"io.tierstream.purchase.v1","time":"2025-03-12T10:00:00Z","subject":"z","data":{"order_id":"oz","amount_minor":10,"currency":"EUR"}}
{"specversion":"1.0","id":"13","source":"/shop","type":"io.tierstream.return.v1","time":"2025-03-12T10:00:00Z","subject":"z","data":{"return_id":"rz","order_id":"later","amount_minor":10,"currency":"EUR"}}
{"specversion":"1.0","id":"14","source":"/shop","type":"io.tierstream.purchase.v1","time":"2025-03-13T10:00:01Z","subject":"y","data":{"order_id":"oy","amount_minor":10,"currency":"EUR"}}
`

func TestLintOfAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "first.ndjson")
	if err := os.WriteFile(path, []byte(firstDay), 0o644); err != nil {
		t.Fatal(err)
	}
	said, err := piped(t, "", "events", "lint", path, "--list")
	if err == nil || err.Error() != "8 of 17 records would be refused" {
		t.Errorf("%v", err)
	}
	contains(t, said,
		`(?m)^line 2  bad_amount amount_minor: an integer without`,
		`(?m)^refused +1  over_return amount_minor +line 4\n +the returns of this order`,
		`(?m)^dropped +1  duplicate +line 5$`,
		`(?m)^refused +1  missing_field specversion +line 6\n +the record is not a CloudEvent$`,
		`(?m)^refused +1  malformed +line 7\n +JSON byte 0`,
		`(?m)^refused +1  misrouted key +line 8$`,
		`(?m)^refused +1  malformed data +line 10$`,
		`(?m)^ignored +1  zero_purchase +line 11$`,
		`(?m)^refused +1  orphan_return order_id +line 14$`,
		`(?m)^refused +1  future_time time +line 15$`,
		`(?m)^used +6  applied$`, // 1, 9, 12 after its wait, 13, 16 and 18
		`(?m)^waiting +1  waiting +line 17$`,
	)
	var doc struct {
		Records, Refused int64
		Kinds            []struct {
			Code     string
			Count    int64
			Examples []string
		}
	}
	text, err := piped(t, firstDay, "events", "lint", "-", "--json")
	if err == nil {
		t.Error("no error")
	}
	sum := int64(0)
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, k := range doc.Kinds {
		if k.Code != "late" {
			sum += k.Count
		}
	}
	if doc.Records != 17 || doc.Refused != 8 || sum != 17 {
		t.Errorf("%d records, %d refused, %d in kinds", doc.Records, doc.Refused, sum)
	}
	for _, c := range []struct{ source, want string }{
		{"missing.ndjson", "no such file"},
		{"purchases", "no embedded consumer has run"},
	} {
		if _, err := piped(t, "", "events", "lint", c.source, "--data-dir", t.TempDir()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.source, err)
		}
	}
}

// A dumped record is judged as it lies in the log: with its timestamp, which
// here is before the event, and with headers that are no text.
func TestLintOfADumpedLog(t *testing.T) {
	e := event.Examples()[0]
	value, headers, err := event.Encode(&e, event.BinaryMsgpack)
	if err != nil {
		t.Fatal(err)
	}
	var lines bytes.Buffer
	for i, at := range []int64{e.Time, e.Time - time.Hour.Milliseconds()} {
		r := &kgo.Record{Topic: "purchases", Partition: 3, Offset: int64(i), Timestamp: time.UnixMilli(at), Key: []byte(e.Customer), Value: value}
		for _, h := range headers {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		b, err := json.Marshal(replay.NewLine(r))
		if err != nil {
			t.Fatal(err)
		}
		lines.Write(append(b, '\n'))
	}
	b, err := json.Marshal(replay.NewLine(&kgo.Record{Topic: "purchases", Offset: 2, Timestamp: time.UnixMilli(e.Time), Key: []byte("\xff")}))
	if err != nil {
		t.Fatal(err)
	}
	lines.Write(append(b, '\n'))
	said, err := piped(t, lines.String(), "events", "lint", "-")
	if err == nil {
		t.Error("no error")
	}
	contains(t, said, `used +1  applied`, `refused +1  future_time time +line 2\n +3600000 ms after`, `refused +1  malformed +line 3\n +a tombstone`)
}

// produce writes a record as it is.
func (w *world) produce(r *kgo.Record) {
	w.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		w.t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(w.t.Context(), r).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

func TestLintOfATopic(t *testing.T) {
	w := newWorld(t)
	e := event.Examples()[0]
	value, headers, err := event.Encode(&e, event.BinaryMsgpack)
	if err != nil {
		t.Fatal(err)
	}
	murmur2, err := event.ParsePartitioner("murmur2")
	if err != nil {
		t.Fatal(err)
	}
	p := murmur2.Partition([]byte(e.Customer), 3)
	record := func(partition int32) *kgo.Record {
		r := &kgo.Record{Topic: "purchases", Partition: partition, Key: []byte(e.Customer), Value: value}
		for _, h := range headers {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		return r
	}
	w.produce(record(p))
	w.produce(record(p))
	said, notes, err := w.try("events", "lint", "purchases")
	if err != nil {
		t.Errorf("%v\n%s", err, said)
	}
	contains(t, said, `^2 records, 1 customers`, `dropped +1  duplicate +purchases/\d@1\n`, `used +1  applied`)
	contains(t, notes, `built-in default model`) // nobody has started this namespace

	w.produce(record((p + 1) % 3))
	said, _, err = w.try("events", "lint", "purchases")
	if err == nil || !strings.Contains(err.Error(), "1 of 3 records") {
		t.Errorf("in the wrong partition: %v", err)
	}
	contains(t, said, `misrouted key +purchases/\d@0\n +by murmur2 this key belongs to partition \d`)
	if said, _, err = w.try("events", "lint", "purchases", "--partitioner", "explicit"); err != nil {
		t.Errorf("where producers choose partitions themselves: %v\n%s", err, said)
	}
	said, _, err = w.try("events", "lint", "purchases", "-n", "1", "--since", "1h")
	if err == nil {
		t.Errorf("one record per partition: %s", said)
	}
	contains(t, said, `^2 records`)
	if said, _, err = w.try("events", "lint", "purchases", "--until", "1h"); err != nil || !strings.HasPrefix(said, "0 records") {
		t.Errorf("before there were any: %v\n%s", err, said)
	}
	if _, _, err := w.try("events", "lint", "orders"); err == nil || !strings.Contains(err.Error(), "neither a file nor a topic") {
		t.Errorf("an unknown topic: %v", err)
	}
}

func TestDeadLettersAreShown(t *testing.T) {
	w := newWorld(t)
	w.start()
	if said, _, err := w.try("deadletters", "stats"); err != nil || said != "no dead letters\n" {
		t.Errorf("before there are any: %v %s", err, said)
	}
	_, _, err := w.try("send", "purchase", "--customer", "me", "--amount=-5", "--time", "2024-03-01T10:00:00Z")
	if err == nil {
		t.Fatal("accepted")
	}
	// A record that would clear the screen, and one that is no text at all.
	evil := []byte("{\"source\":\"/legacy\",\"x\":\"\x1b[2J\u202egnp\"}")
	w.produce(&kgo.Record{Topic: "purchases", Partition: 1, Key: []byte("k\x1b[31m"), Value: evil,
		Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/cloudevents+json")}}})
	binary := []byte{0, 1, 2, 0xff, 0xfe}
	w.produce(&kgo.Record{Topic: "referrals", Partition: 2, Key: nil, Value: binary})
	packed, headers, err := event.Encode(&event.Event{Type: event.Cost, ID: "e", Source: "/crm", Customer: "you", BusinessID: "c", Currency: "EURO", Kind: event.Sales}, event.BinaryMsgpack)
	if err != nil {
		t.Fatal(err)
	}
	r := &kgo.Record{Topic: "complaints", Partition: 0, Key: []byte("you"), Value: packed}
	for _, h := range headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	w.produce(r)
	var list string
	w.until("all four are refused", func() bool {
		list = w.run("deadletters", "list")
		return strings.Count(list, "\n") == 4
	})
	contains(t, list,
		`(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  negative_purchase amount_minor  purchases/\d@0  key "me"  .*send a return$`,
		`malformed  purchases/1@\d  key "k\\x1b\[31m"  JSON byte`,
		`malformed data  referrals/2@0  key none  `,
		`(misrouted key|bad_currency currency)  complaints/0@0  key "you"`,
	)
	if strings.ContainsAny(list, "\x1b\u202e") {
		t.Errorf("control characters reach the terminal: %q", list)
	}
	place := regexp.MustCompile(`purchases/1@\d`).FindString(list)
	shown := w.run("deadletters", "show", place)
	contains(t, shown, `^Refused +malformed\nBecause +JSON byte`, `Origin +purchases/1@\d, record time`, `Key +"k\\x1b\[31m"`,
		`Header +"content-type" "application/cloudevents\+json"`, `Value +\d+ bytes\n.*\\x1b\[2J\\u202egnp`)
	if strings.ContainsAny(shown, "\x1b\u202e") {
		t.Errorf("control characters reach the terminal: %q", shown)
	}
	if raw := w.run("deadletters", "show", place, "--raw"); raw != string(evil) {
		t.Errorf("raw: %q", raw)
	}
	contains(t, w.run("deadletters", "show", "referrals/2@0"), `Key +none`, `00000000  00 01 02 ff fe`)
	contains(t, w.run("deadletters", "show", "complaints/0@0"), `msgpack, as JSON:\n\{\n`, `"currency": "EURO"`)
	var doc letterDocument
	if err := json.Unmarshal([]byte(w.run("deadletters", "show", place, "--json")), &doc); err != nil || !bytes.Equal(doc.Value, evil) || doc.Code != "malformed" {
		t.Errorf("as JSON: %+v, %v", doc, err)
	}
	now := regexp.MustCompile(`now (dead-letters/\d@\d)`).FindStringSubmatch(shown)
	if now == nil || w.run("deadletters", "show", now[1]) != shown {
		t.Errorf("by its place in the dead letters: %q", now)
	}

	contains(t, w.run("deadletters", "stats"),
		`^count +code +field +source +first +last +example\n`, `1 +negative_purchase +amount_minor +/tierctl +`, `1 +malformed +data +not known +`, `4 dead letters\n$`)
	contains(t, w.run("deadletters", "stats", "--json", "--code", "negative_purchase"), `"source": "/tierctl"`, `"count": 1`)
	for _, c := range []struct {
		args []string
		n    int
	}{
		{[]string{"--code", "malformed"}, 2}, {[]string{"--topic", "referrals"}, 1}, {[]string{"--key", "me"}, 1},
		{[]string{"--since", "1h"}, 4}, {[]string{"--until", "1h"}, 0}, {[]string{"--since", "2020-01-01", "--code", "malformed,negative_purchase"}, 3},
		{[]string{"-n", "1"}, 1}, {[]string{"-n", "0", "--json"}, 4}, {[]string{"--namespace", "other"}, 0},
	} {
		out, _, err := w.try(append([]string{"deadletters", "list"}, c.args...)...)
		if err != nil || strings.Count(out, "\n") != c.n {
			t.Errorf("%q: %v, want %d:\n%s", c.args, err, c.n, out)
		}
	}
	if _, notes, _ := w.try("deadletters", "list", "--namespace", "other", "--code", "applied"); !strings.Contains(notes, "applied is no code") {
		t.Errorf("notes: %s", notes)
	}
	if _, notes, _ := w.try("deadletters", "list", "--namespace", "other"); !strings.Contains(notes, "4 dead letters of namespace demo are left out") {
		t.Errorf("notes: %s", notes)
	}
	for place, want := range map[string]string{"purchases": "want topic/partition@offset", "purchases/0@99": "no dead letter of purchases/0@99", "dead-letters/0@99": "no dead letter of"} {
		if _, _, err := w.try("deadletters", "show", place); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", place, err)
		}
	}
}

func TestWhatOthersSentIsShownSafely(t *testing.T) {
	for in, want := range map[string]string{
		"plain é €":         "plain é €",
		"a\x1b[2Jb":         `a\x1b[2Jb`,
		"a\u202eb\u200bc":   `a\u202eb\u200bc`,
		"a\xffb\ufffd":      "a\\xffb\ufffd",
		"tab\tline\nreturn": `tab\tline\nreturn`,
		"\u0085":            `\u0085`,
	} {
		if got := safe([]byte(in), false); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
	if got := safe([]byte("a\nb\x07"), true); got != "a\nb\\a" {
		t.Errorf("lines: %q", got)
	}
}

// writer collects what a command prints while it runs.
type writer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *writer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(b)
}

func (w *writer) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

func TestChangesAreShownAndFollowed(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.history()
	all := w.run("changes", "-n", "0")
	contains(t, all,
		`(?m)^2024-01-10 10:00 •  ann          – → Bronze   purchase of 49\.90 EUR: contribution \S+ gives Bronze \(from 0\.0\)$`,
		`(?m)^2024-02-01 10:00 ▲  ann          Silver → Gold   purchase of 120\.00 EUR: contribution`,
	)
	n := strings.Count(all, "\n")
	count := func(args ...string) int {
		t.Helper()
		return strings.Count(w.run(append([]string{"changes", "-n", "0"}, args...)...), "\n")
	}
	up, first, down := count("--direction", "up"), count("--direction", "assigned"), count("--direction", "down")
	if up == 0 || first == 0 || up+first+down != n {
		t.Errorf("%d up, %d first and %d down of %d", up, first, down, n)
	}
	if a, b := count("--customer", "ann"), count("--customer", "bob"); a == 0 || b == 0 || a+b != n || count("--customer", "ann,bob") != n || count("--customer", "nobody") != 0 {
		t.Errorf("%d of ann and %d of bob of %d", a, b, n)
	}
	if got := count("--tier", "BRONZE", "--direction", "assigned"); got == 0 || got > first {
		t.Errorf("%d were first put into bronze, %d had a first tier", got, first)
	}
	if got := count("--reason", "purchase") + count("--reason", "return,complaint,complaint_resolved,cost,referral,feedback,time_decay"); got != n {
		t.Errorf("%d of %d by reason", got, n)
	}
	if count("--mode", "backfill") != 0 || count("--since", "1h") != n || count("--since", "2999-01-01") != 0 {
		t.Error("by mode and time")
	}
	if out, notes, err := w.try("changes", "-n", "1"); err != nil || strings.Count(out, "\n") != 1 || !strings.Contains(notes, "the newest 1 of") {
		t.Errorf("the newest: %v %s %s", err, out, notes)
	}
	line, _, _ := strings.Cut(w.run("changes", "--json", "-n", "0", "--customer", "ann"), "\n")
	var c contract.Change
	if err := json.Unmarshal([]byte(line), &c); err != nil || c.Customer != "ann" || c.Sequence != 1 {
		t.Errorf("as JSON: %v %+v", err, c)
	}
	if _, _, err := w.try("changes", "--direction", "sideways"); err == nil || !strings.Contains(err.Error(), "want assigned, up or down") {
		t.Errorf("a direction that is none: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	out, ended := &writer{}, make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"changes", "--follow", "--since", "1h", "--data-dir", w.dir}, func(string) string { return "" }, strings.NewReader(""), out, &bytes.Buffer{})
	}()
	w.until("what was there is printed", func() bool { return strings.Count(out.String(), "\n") == n })
	w.run("send", "purchase", "--customer", "dan", "--amount", "10", "--time", "2024-05-01T10:00:00Z")
	w.until("a new change is printed", func() bool { return strings.Contains(out.String(), "dan") })
	cancel()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("following: %v", err)
	}
	if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); len(lines) != n+1 || !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "purchase of 10.00 EUR") }) {
		t.Errorf("followed:\n%s", out)
	}
}

func TestMoneyIsShownAsMoney(t *testing.T) {
	before := 1234.0
	c := &contract.Change{Measure: "clv.total", ScoreBefore: &before, ScoreAfter: 100000.5}
	if got := moneyScore(c, "EUR"); got != "clv.total 12.34 EUR → 1000.00 EUR" {
		t.Errorf("%q", got)
	}
	if got := moneyScore(&contract.Change{Measure: "value.current", ScoreAfter: 500}, "JPY"); got != "value.current – → 500 JPY" {
		t.Errorf("%q", got)
	}
	if got := moneyScore(&contract.Change{Measure: "contribution", ScoreAfter: 50}, "EUR"); got != "" {
		t.Errorf("points as money: %q", got)
	}
}
