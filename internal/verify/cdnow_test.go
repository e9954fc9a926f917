package verify

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/scoring"
	"github.com/tierstream/tierstream/internal/sim"
	"github.com/tierstream/tierstream/internal/testenv"
)

// What is known of the file from its publishers.
const (
	cdnowRows      = 69_659
	cdnowCustomers = 23_570
	cdnowCents     = 250_031_563
)

// TestCDNOWAgreesWithIndependentReadings takes the CDNOW log through real
// Kafka and real Redis, loses Redis in the middle, sends everything twice, and
// compares the outcome with two programs that share no code with this one, and
// the messages with clients that are not ours.
func TestCDNOWAgreesWithIndependentReadings(t *testing.T) {
	file := filepath.Join(testenv.DataDir(t), "cdnow", "CDNOW_master.txt")
	messages, err := sim.ReadCDNOW(file, nil)
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("no CDNOW log: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	if len(messages) != cdnowRows {
		t.Fatalf("the file has %d rows, want %d", len(messages), cdnowRows)
	}
	python := findPython(t)
	wantRFM, wantTiers := runScript(t, python, "python/rfm.py", file), runScript(t, python, "python/tiers.py", file)
	w := newWorld(t, company{
		name:  "cdnow",
		model: scoring.InitOptions{Currency: "USD", TypicalOrderMinor: 3500},
		zero:  customer.Count,
	})

	// Some 600 days in two parts; between them, Redis loses everything.
	cut := slices.IndexFunc(messages, func(m sim.Message) bool {
		return m.At >= time.Date(1997, 10, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	})
	w.send(t, messages[:cut])
	stop := w.start(t)
	w.published(t)
	stop()
	w.loseRedis(t, messages[cut:])

	journal := w.published(t)
	now := w.snapshot(t)
	records := now.records(t)
	changes := w.committed(t, w.cfg.Topics.Changes)
	tiers := readChanges(t, changes)

	t.Run("accounts", func(t *testing.T) { w.checkAccounts(t, journal, now, records) })
	t.Run("RFM", func(t *testing.T) {
		t.Parallel()
		w.checkRFM(t, wantRFM.wait(t))
	})
	t.Run("tiers", func(t *testing.T) {
		t.Parallel()
		checkTiers(t, tiers, wantTiers.wait(t))
		checkStanding(t, w.model.Tiers(), tiers, records)
	})
	t.Run("console consumer", func(t *testing.T) {
		t.Parallel()
		w.checkConsole(t, tiers)
	})
	t.Run("CloudEvents SDK", func(t *testing.T) {
		t.Parallel()
		checkSDK(t, "/tierstream/"+w.cfg.Namespace, changes, tiers)
	})
	t.Run("sent twice", func(t *testing.T) {
		t.Parallel()
		w.checkSentTwice(t, messages, now, records)
	})
}

// loseRedis empties Redis between two runs, starts again, compares, and goes
// on with more. What was published stands: history is applied again silently.
func (w *world) loseRedis(t *testing.T, more []sim.Message) {
	t.Helper()
	journal := w.published(t)
	before := w.snapshot(t)
	journalEnds, changeEnds := w.ends(t, w.cfg.Topics.Journal), w.ends(t, w.cfg.Topics.Changes)

	if err := w.rdb.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	stop := w.start(t)
	w.applied(t, journal)
	stop()

	after := w.snapshot(t)
	if err := differences("records after Redis lost all", after.customers, before.customers); err != nil {
		t.Error(err)
	}
	for p, f := range after.fences {
		was, j := before.fences[p], journal[p]
		if f.Incarnation != was.Incarnation || f.Point != was.Point {
			t.Errorf("partition %d: stands at %d %s of %s, want %d %s of %s", p, f.Seq, f.Chain, f.Incarnation, was.Seq, was.Chain, was.Incarnation)
		}
		if f.State.Digest != was.State.Digest || f.State.Read != was.State.Read || !slices.Equal(f.State.Counters, was.State.Counters) ||
			f.State.Watermark != was.State.Watermark || f.State.Clock != was.State.Clock || !samePositions(f.State.Next, was.State.Next) {
			t.Errorf("partition %d: state %+v, want %+v", p, f.State, was.State)
		}
		if f.Published.Point != j.point() || f.Published.Offset != j.offset {
			t.Errorf("partition %d: published is %d at offset %d, want the journal's last, %d at %d", p, f.Published.Seq, f.Published.Offset, j.Seq, j.offset)
		}
	}
	if got := w.ends(t, w.cfg.Topics.Journal); !slices.Equal(got, journalEnds) {
		t.Errorf("the journal grew while re-applying: ends %v, want %v", got, journalEnds)
	}
	if got := w.ends(t, w.cfg.Topics.Changes); !slices.Equal(got, changeEnds) {
		t.Errorf("tier changes were published again: ends %v, want %v", got, changeEnds)
	}

	stop = w.start(t)
	w.send(t, more)
	w.published(t)
	stop()
}

func (e entry) point() protocol.Point { return protocol.Point{Seq: e.Seq, Chain: e.Chain} }

// samePositions ignores leader epochs: they say how to read, not what was read.
func samePositions(a, b []protocol.Position) bool {
	return slices.EqualFunc(a, b, func(a, b protocol.Position) bool { return a.Next == b.Next })
}

// checkAccounts: every row is accounted for, in the fence as in the journal,
// and the digests are those of the records.
func (w *world) checkAccounts(t *testing.T, journal []entry, now *snapshot, records map[string]*customer.Record) {
	read, codes, outcomes := counted(states(journal))
	if want := map[string]int64{"applied": cdnowRows}; read != cdnowRows || !maps.Equal(codes, want) {
		t.Errorf("%d records read became %v, want %d and %v", read, codes, cdnowRows, want)
	}
	if sum := accounted(outcomes); sum != read {
		t.Errorf("outcomes add up to %d, want the %d records read", sum, read)
	}
	var digest customer.Digest
	for p, f := range now.fences {
		j := journal[p]
		if f.Point != j.point() || f.State.Read != j.State.Read || !slices.Equal(f.State.Counters, j.State.Counters) || f.State.Digest != j.State.Digest {
			t.Errorf("partition %d: the fence says %d %+v, the journal %d %+v", p, f.Seq, f.State, j.Seq, j.State)
		}
		if f.State.Read != j.State.Next[0].Next {
			t.Errorf("partition %d: read %d of %d records", p, f.State.Read, j.State.Next[0].Next)
		}
		digest = digest.Add(digestOf(f.State.Digest))
	}
	if sum := now.digest(); sum != digest {
		t.Errorf("the digests of the fences add up to %x, those of the records to %x", digest, sum)
	}
	if len(records) != cdnowCustomers {
		t.Errorf("%d customers, want %d", len(records), cdnowCustomers)
	}
	if n := len(w.committed(t, w.cfg.Topics.DeadLetters)); n != 0 {
		t.Errorf("%d dead letters, want none", n)
	}
}

// accounted is what must equal the records read.
func accounted(outcomes map[event.Outcome]int64) int64 {
	return outcomes[event.Used] + outcomes[event.Dropped] + outcomes[event.Ignored] + outcomes[event.Held] + outcomes[event.DeadLetter]
}

func digestOf(b [16]byte) (d customer.Digest) {
	for i, c := range b {
		d[i/8] = d[i/8]<<8 | uint64(c)
	}
	return d
}

// checkRFM compares every customer, as `tierctl export` has them, as of a
// moment after the last event.
func (w *world) checkRFM(t *testing.T, want []map[string]string) {
	rows, err := table(w.export(t, "1998-07-01T00:00:00Z", "csv"))
	if err != nil {
		t.Fatal(err)
	}
	columns := []struct{ ours, theirs string }{
		{"orders", "orders"}, {"net_minor", "net"}, {"first_day", "first_day"}, {"last_day", "last_day"},
		{"r_days", "r_days"}, {"f_orders", "f_orders"}, {"m_net_minor", "m_net"},
		{"r_score", "r_score"}, {"f_score", "f_score"}, {"m_score", "m_score"},
	}
	got, wanted := map[string]string{}, map[string]string{}
	var net int64
	for _, row := range rows {
		text := ""
		for _, c := range columns {
			text += " " + c.theirs + "=" + row[c.ours]
		}
		got[row["customer"]] = text
		cents, err := strconv.ParseInt(row["net_minor"], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		net += cents
	}
	for _, row := range want {
		text := ""
		for _, c := range columns {
			text += " " + c.theirs + "=" + row[c.theirs]
		}
		wanted[row["customer"]] = text
	}
	if len(rows) != cdnowCustomers || len(want) != cdnowCustomers || net != cdnowCents {
		t.Errorf("%d customers exported, %d known to rfm.py, want %d; money adds up to %d cents, want %d", len(rows), len(want), cdnowCustomers, net, cdnowCents)
	}
	if err := differences("customers", got, wanted); err != nil {
		t.Error(err)
	}
}

// change is what a tier change says, as far as it is compared.
type change struct {
	id string // the CloudEvents ID
	payload
}

type payload struct {
	Customer  string      `json:"customer_id"`
	Sequence  int         `json:"sequence"`
	Previous  *tier       `json:"previous_tier"`
	New       tier        `json:"new_tier"`
	Score     json.Number `json:"score_after"`
	Effective string      `json:"effective_at"`
}

type tier struct {
	ID   string `json:"id"`
	Rank int    `json:"rank"`
}

func readChanges(t *testing.T, messages []message) []change {
	t.Helper()
	changes := make([]change, len(messages))
	for i, m := range messages {
		c := &changes[i]
		if err := json.Unmarshal(m.value, &c.payload); err != nil {
			t.Fatalf("tier change of %s: %v", m.key, err)
		}
		c.id = header(m, "ce_id")
		if c.Customer != string(m.key) {
			t.Errorf("tier change of %s has the key %s", c.Customer, m.key)
		}
	}
	return changes
}

func header(m message, key string) string {
	i := slices.IndexFunc(m.headers, func(h kgo.RecordHeader) bool { return h.Key == key })
	if i < 0 {
		return ""
	}
	return string(m.headers[i].Value)
}

// checkTiers compares every change, and its score to the last decimal.
func checkTiers(t *testing.T, changes []change, want []map[string]string) {
	got, wanted := map[string]string{}, map[string]string{}
	for _, c := range changes {
		score, err := c.Score.Float64()
		if err != nil {
			t.Fatal(err)
		}
		key := fmt.Sprintf("%s #%d", c.Customer, c.Sequence)
		if _, twice := got[key]; twice {
			t.Errorf("change %s was published twice", key)
		}
		got[key] = fmt.Sprintf("%s at %s with %.4f", c.New.ID, c.Effective, score)
	}
	for _, row := range want {
		wanted[row["customer"]+" #"+row["sequence"]] = row["tier"] + " at " + row["effective_at"] + " with " + row["score"]
	}
	if len(wanted) <= cdnowCustomers {
		t.Errorf("tiers.py knows %d changes: more than the %d first ones are wanted", len(wanted), cdnowCustomers)
	}
	if err := differences("tier changes", got, wanted); err != nil {
		t.Error(err)
	}
}

// checkStanding: the changes of each customer are a chain in the order of the
// topic, no ID comes twice, and the last one is where the customer stands.
func checkStanding(t *testing.T, tiers []scoring.Tier, changes []change, records map[string]*customer.Record) {
	last := map[string]change{}
	ids := map[string]bool{}
	for _, c := range changes {
		before := last[c.Customer]
		if c.Sequence != before.Sequence+1 {
			t.Errorf("customer %s: sequence %d follows %d", c.Customer, c.Sequence, before.Sequence)
		}
		if (c.Previous == nil) != (before.Sequence == 0) || c.Previous != nil && *c.Previous != before.New {
			t.Errorf("customer %s #%d: previous tier %v, want %v", c.Customer, c.Sequence, c.Previous, before.New)
		}
		if c.id == "" || ids[c.id] {
			t.Errorf("customer %s #%d: ID %q is empty or was there before", c.Customer, c.Sequence, c.id)
		}
		ids[c.id], last[c.Customer] = true, c
	}
	got, want := map[string]string{}, map[string]string{}
	for id, r := range records {
		s := &r.Standing
		got[id] = fmt.Sprintf("#%d %s since %s", s.Sequence, tiers[s.Tier].ID, time.UnixMilli(s.Since).UTC().Format("2006-01-02T15:04:05.000Z"))
	}
	for id, c := range last {
		want[id] = fmt.Sprintf("#%d %s since %s", c.Sequence, c.New.ID, c.Effective)
	}
	if err := differences("standing of customers and their last change", got, want); err != nil {
		t.Error(err)
	}
}

// checkConsole reads the topic with Kafka's own console consumer.
func (w *world) checkConsole(t *testing.T, changes []change) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// One more than there are, so that it would see one too many; it gives up
	// when nothing comes for a while.
	out, err := testenv.KafkaTool(ctx, "org.apache.kafka.tools.consumer.ConsoleConsumer",
		"--bootstrap-server", w.addr, "--topic", w.cfg.Topics.Changes, "--from-beginning", "--isolation-level", "read_committed",
		"--max-messages", strconv.Itoa(len(changes)+1), "--timeout-ms", "8000",
		"--formatter-property", "print.key=true", "--formatter-property", "print.headers=true", "--formatter-property", "print.value=false",
		"--formatter-property", "headers.separator=|")
	if err != nil {
		t.Fatal(err)
	}
	got, want := map[string]int{}, map[string]int{}
	for line := range strings.Lines(string(out)) {
		headers, key, _ := strings.Cut(strings.TrimRight(line, "\n"), "\t")
		id, sequence := "", ""
		for h := range strings.SplitSeq(headers, "|") {
			if v, ok := strings.CutPrefix(h, "ce_id:"); ok {
				id = v
			} else if v, ok := strings.CutPrefix(h, "ce_customerseq:"); ok {
				sequence = strings.TrimLeft(v, "0")
			}
		}
		got[key+" #"+sequence+" "+id]++
	}
	for _, c := range changes {
		want[fmt.Sprintf("%s #%d %s", c.Customer, c.Sequence, c.id)]++
	}
	if err := differences("messages on the console", got, want); err != nil {
		t.Error(err)
	}
}

// checkSDK parses and validates the messages with the official CloudEvents
// SDK, by its Kafka binding.
func checkSDK(t *testing.T, source string, messages []message, changes []change) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	inModule := func(arguments ...string) ([]byte, error) {
		command := exec.CommandContext(ctx, "go", arguments...)
		command.Dir = "cesdk"
		return command.CombinedOutput()
	}
	if out, err := inModule("mod", "download"); err != nil {
		missing(t, "the CloudEvents SDK is not here and cannot be downloaded: %v: %s", err, out)
	}
	binary := filepath.Join(t.TempDir(), "cesdk")
	if out, err := inModule("build", "-o", binary, "."); err != nil {
		t.Fatalf("building cesdk: %v\n%s", err, out)
	}
	type header struct {
		Key   string `json:"key"`
		Value []byte `json:"value"`
	}
	type record struct {
		Key     []byte   `json:"key"`
		Value   []byte   `json:"value"`
		Headers []header `json:"headers"`
	}
	var in bytes.Buffer
	encoder := json.NewEncoder(&in)
	for _, m := range messages {
		r := record{Key: m.key, Value: m.value}
		for _, h := range m.headers {
			r.Headers = append(r.Headers, header{h.Key, h.Value})
		}
		if err := encoder.Encode(&r); err != nil {
			t.Fatal(err)
		}
	}
	sdk := exec.CommandContext(ctx, binary)
	sdk.Stdin = &in
	sdk.Stderr = t.Output()
	out, err := sdk.Output()
	if err != nil {
		t.Fatalf("the CloudEvents SDK refuses a message: %v", err)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != len(changes) {
		t.Fatalf("the SDK read %d messages, want %d", len(lines), len(changes))
	}
	for i, c := range changes {
		want := fmt.Sprintf("%s\t%s\tio.tierstream.tier-change.v1\t%s\t%s\tapplication/json\t%020d\t%s\t%d\t%s",
			c.id, source, c.Customer, c.Effective, c.Sequence, c.Customer, c.Sequence, c.New.ID)
		if lines[i] != want {
			t.Fatalf("the SDK reads message %d as\n%s\nwant\n%s", i, lines[i], want)
		}
	}
}

// checkSentTwice sends every event again, under the same IDs. What is still
// remembered is a duplicate; what lies before a customer's floor can no longer
// be told from news and is refused as too late. Nothing else moves.
func (w *world) checkSentTwice(t *testing.T, messages []sim.Message, before *snapshot, records map[string]*customer.Record) {
	want := map[string]int64{"applied": cdnowRows}
	for _, m := range messages {
		if m.Event.Time < records[m.Event.Customer].Facts.MinTime {
			want["too_late"]++
		} else {
			want["duplicate"]++
		}
	}
	if want["duplicate"] < cdnowRows/2 {
		t.Errorf("only %d of %d events are remembered", want["duplicate"], cdnowRows)
	}
	checkFloors(t, messages, records, w.cfg.Rules.Policy.Retention)
	ends := w.ends(t, w.cfg.Topics.Changes)

	// History sent twice over its retention is what the flood stop is for.
	w.cfg.AllowRejects = true
	w.send(t, messages)
	stop := w.start(t)
	journal := w.published(t)
	stop()

	after := w.snapshot(t)
	if err := differences("records after everything was sent twice", unwritten(t, after), unwritten(t, before)); err != nil {
		t.Error(err)
	}
	read, codes, outcomes := counted(states(journal))
	if read != 2*cdnowRows || accounted(outcomes) != read || !maps.Equal(codes, want) {
		t.Errorf("%d records read became %v, want %d and %v", read, codes, 2*cdnowRows, want)
	}
	for p, j := range journal {
		if j.State.Digest != before.fences[p].State.Digest {
			t.Errorf("partition %d: digest %x, want %x", p, j.State.Digest, before.fences[p].State.Digest)
		}
		if f := after.fences[p]; f.Point != j.point() || !slices.Equal(f.State.Counters, j.State.Counters) {
			t.Errorf("partition %d: the fence says %d %v, the journal %d %v", p, f.Seq, f.State.Counters, j.Seq, j.State.Counters)
		}
	}
	if n := int64(len(w.committed(t, w.cfg.Topics.DeadLetters))); n != want["too_late"] {
		t.Errorf("%d dead letters, want %d", n, want["too_late"])
	}
	// Transactions that hold dead letters only leave no mark in this topic.
	if got := w.ends(t, w.cfg.Topics.Changes); !slices.Equal(got, ends) {
		t.Errorf("tier changes were published: ends %v, want %v", got, ends)
	}
}

// checkFloors: a customer's floor is the retention before the newest event,
// unless so many events lie in it that the oldest were compacted.
func checkFloors(t *testing.T, messages []sim.Message, records map[string]*customer.Record, retention time.Duration) {
	const maxEvents = 128
	newest := map[string]int64{}
	for _, m := range messages {
		newest[m.Event.Customer] = max(newest[m.Event.Customer], m.Event.Time)
	}
	within := map[string]int{}
	for _, m := range messages {
		if m.Event.Time >= newest[m.Event.Customer]-retention.Milliseconds() {
			within[m.Event.Customer]++
		}
	}
	compacted := 0
	for id, r := range records {
		floor := newest[id] - retention.Milliseconds()
		if within[id] > maxEvents {
			compacted++
			if r.Facts.MinTime <= floor {
				t.Errorf("customer %s: %d events are kept, want at most %d", id, within[id], maxEvents)
			}
		} else if r.Facts.MinTime < floor {
			t.Errorf("customer %s: floor %d, want %d or later", id, r.Facts.MinTime, floor)
		}
	}
	if compacted == 0 {
		t.Error("no customer has so many events that compaction is needed: the log has some")
	}
}

// findPython is a Python 3.9 or later.
func findPython(t *testing.T) string {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		missing(t, "python3 is not in PATH")
	}
	version := exec.CommandContext(t.Context(), python, "-c", "import sys; sys.exit(sys.version_info < (3, 9))")
	if err := version.Run(); err != nil {
		missing(t, "%s is older than 3.9: %v", python, err)
	}
	return python
}

// missing ends a test for what the machine lacks: a skip at home, a failure in CI.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// script is a Python script that runs beside the system.
type script struct {
	done chan struct{}
	rows []map[string]string
	err  error
}

func runScript(t *testing.T, python, path string, arguments ...string) *script {
	s := &script{done: make(chan struct{})}
	go func() {
		defer close(s.done)
		s.rows, s.err = table(exec.CommandContext(t.Context(), python, append([]string{path}, arguments...)...))
	}()
	return s
}

// wait returns what the script printed.
func (s *script) wait(t *testing.T) []map[string]string {
	t.Helper()
	<-s.done
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.rows
}

// table runs a command and reads the CSV it prints, a row as a map by column.
// What tiers.py says on standard error about a close decision is an error:
// there, two correct programs may differ.
func table(command *exec.Cmd) ([]map[string]string, error) {
	var out, said bytes.Buffer
	command.Stdout, command.Stderr = &out, &said
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("running %s: %w\n%s", command, err, &said)
	}
	if strings.Contains(said.String(), "close:") {
		return nil, fmt.Errorf("running %s: the log has decisions too close to compare\n%s", command, &said)
	}
	lines, err := csv.NewReader(&out).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("reading what %s printed: %w", command, err)
	}
	var rows []map[string]string
	for i, line := range lines {
		if i == 0 {
			continue
		}
		row := map[string]string{}
		for i, column := range lines[0] {
			row[column] = line[i]
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// TestExpectedPurchasesAgree: the integral by which tiers.py forecasts equals
// the published closed form.
func TestExpectedPurchasesAgree(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), findPython(t), "python/tiers.py", "--check").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
