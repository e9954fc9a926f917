package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/scoring"
	"github.com/tierstream/tierstream/internal/state"
	"github.com/tierstream/tierstream/internal/stream"
)

var update = flag.Bool("update", false, "write golden files")

// world is Kafka and Redis in this process, and the data folder by which
// tierctl finds them.
type world struct {
	t       *testing.T
	brokers []string
	redis   string
	dir     string
	rules   *fold.Rules
}

func newWorld(t *testing.T) *world {
	t.Helper()
	k, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	r := miniredis.RunT(t)
	m := scoring.Default()
	w := &world{
		t: t, brokers: k.ListenAddrs(), redis: r.Addr(), dir: t.TempDir(),
		rules: &fold.Rules{
			Topics: strings.Split(defaultTopics, ","), Partitioner: "murmur2", Clock: fold.ClockWall,
			Limits: event.Limits{}.WithDefaults(), Policy: customer.DefaultPolicy(m.Currency()), Model: m,
		},
	}
	b, err := json.Marshal(endpoints{Brokers: w.brokers, Redis: w.redis, Namespace: "demo"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "endpoints.json"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	w.run("topics", "create", "--partitions", "3")
	return w
}

// start runs a consumer until stop is called or the test ends. Changes since
// 2000 are live.
func (w *world) start() (stop func()) {
	w.t.Helper()
	rdb, err := state.Open(w.redis, "")
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := stream.New(stream.Config{
		Namespace: "demo", Topics: stream.DefaultTopics("demo", w.rules.Topics), Rules: w.rules, Engine: "test",
		LiveSince: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		Kafka:     []kgo.Opt{kgo.SeedBrokers(w.brokers...), kgo.MetadataMinAge(50 * time.Millisecond)},
		Store:     func(n int32) stream.Store { return state.NewStore(rdb, "demo", n, 10*time.Second) },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("consumer: %v", err)
		}
		_ = rdb.Close()
	}
	w.t.Cleanup(stop)
	for n := int32(0); n < 3; n++ {
		w.until("partition is started", func() bool {
			f, err := state.NewStore(rdb, "demo", n, time.Second).Fence(context.Background())
			return err == nil && f != nil && !f.Loading
		})
	}
	return stop
}

// until waits for a condition.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("waiting until %s: nothing", what)
		}
	}
}

// try runs a command in the world.
func (w *world) try(args ...string) (stdout, stderr string, err error) {
	w.t.Helper()
	return command(w.t, append(args, "--data-dir", w.dir)...)
}

func (w *world) run(args ...string) string {
	w.t.Helper()
	stdout, stderr, err := w.try(args...)
	if err != nil {
		w.t.Fatalf("tierctl %s: %v\n%s%s", strings.Join(args, " "), err, stdout, stderr)
	}
	return stdout
}

func command(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	err = run(t.Context(), args, func(string) string { return "" }, strings.NewReader(""), &out, &errs)
	return out.String(), errs.String(), err
}

// contains wants each text somewhere in what a command said.
func contains(t *testing.T, said string, want ...string) {
	t.Helper()
	for _, s := range want {
		if !regexp.MustCompile(s).MatchString(said) {
			t.Errorf("no %q in\n%s", s, said)
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (-update writes it):\n%s\nwant\n%s", path, got, want)
	}
}

func TestMain(m *testing.M) {
	redis.SetLogger(silent{})
	os.Exit(m.Run())
}

func TestSendShowsBeforeAfterAndTheChange(t *testing.T) {
	w := newWorld(t)
	w.start()
	first := w.run("send", "purchase", "--customer", "me", "--amount", "49.90", "--order", "o1", "--time", "2024-03-01T10:00:00Z")
	contains(t, first,
		`sent +purchase o1 of me to purchases/\d@0`,
		`outcome +applied \(batch 1, published\)`,
		`tier +- +Bronze`,
		`change +1: no tier → Bronze \(assigned, purchase\)\n +purchase of 49\.90 EUR`,
	)
	second := w.run("send", "purchase", "--customer", "me", "--amount", "49.90", "--category", "tea", "--time", "2024-03-20T10:00:00Z")
	contains(t, second,
		`outcome +applied \(batch 2, published\)`,
		`tier +Bronze +Gold`,
		`\n  clv +\d+\.\d +\d+\.\d\n`,
		`R F M +5 1 1 +5 2 2`,
		`orders +1, 49\.90 EUR +2, 99\.80 EUR`,
		`change +2: Bronze → Gold \(up, purchase\)`,
	)
	if strings.Contains(second, "change   1:") {
		t.Errorf("an earlier change is shown again:\n%s", second)
	}
	contains(t, w.run("send", "complaint", "--customer", "me", "--complaint", "case-1", "--severity", "1", "--time", "2024-03-21T10:00:00Z"),
		`complaints open +0 +1`, `  satisfaction +80\.0 assumed +78\.0 assumed`, `change +none`)
	contains(t, w.run("send", "feedback", "--customer", "me", "--kind", "nps", "--score", "9", "--time", "2024-03-21T11:00:00Z"),
		`  satisfaction +\S+ assumed +88\.\d\n`)
	contains(t, w.run("send", "cost", "--customer", "me", "--kind", "acquisition", "--amount", "5", "--time", "2024-03-21T12:00:00Z"),
		`  cac +\S+ assumed +\S+\n`)
	contains(t, w.run("send", "referral", "--customer", "me", "--referee", "friend", "--value", "20", "--time", "2024-03-21T13:00:00Z"),
		`  referrals +0\.00 EUR +20\.00 EUR`)
}

func TestSendSaysWhatBecameOfAnEventThatWasNotApplied(t *testing.T) {
	w := newWorld(t)
	w.start()
	at := "2024-03-01T10:00:00Z"

	out, _, err := w.try("send", "purchase", "--customer", "me", "--amount=-5", "--time", at)
	if err == nil || !strings.Contains(err.Error(), "negative_purchase") {
		t.Errorf("a negative purchase: %v", err)
	}
	contains(t, out, `refused +negative_purchase amount_minor: .*return.*\n +it is in topic dead-letters/\d@0`)

	buy := []string{"send", "purchase", "--customer", "me", "--amount", "10", "--order", "o1", "--id", "e1", "--time", at}
	contains(t, w.run(buy...), `outcome +applied`)
	contains(t, w.run(buy...), `outcome +duplicate: said before, nothing changes`, `change +none`)
	contains(t, w.run("send", "purchase", "--customer", "me", "--amount", "10", "--order", "o1", "--time", at), `outcome +business_duplicate`)
	if _, _, err := w.try("send", "purchase", "--customer", "me", "--amount", "11", "--order", "o1", "--time", at); err == nil || !strings.Contains(err.Error(), "business_conflict") {
		t.Errorf("another amount of the same order: %v", err)
	}
	contains(t, w.run("send", "purchase", "--customer", "nobody", "--amount", "10", "--test", "--time", at), `outcome +test_event: ignored by the rules`)
	contains(t, w.run("send", "purchase", "--customer", "me", "--amount", "10", "--time", "2024-02-01T10:00:00Z"), `applied .*late: older`)
	// On the wall clock a wait that began in 2024 would be over at once.
	contains(t, w.run("send", "return", "--customer", "me", "--order", "o2", "--amount", "3"),
		`outcome +waiting: its order is not known yet`, `returns waiting +0 +1`)
	contains(t, w.run("send", "purchase", "--customer", "me", "--amount", "3", "--order", "o2"),
		`outcome +applied`, `returns waiting +1 +0`)
}

func TestSendExplainsWhyItCannot(t *testing.T) {
	w := newWorld(t)
	_, _, err := w.try("send", "purchase", "--customer", "me", "--amount", "5")
	if err == nil || !strings.Contains(err.Error(), "is a consumer running?") {
		t.Errorf("before any consumer ran: %v", err)
	}

	w.rules.Clock = fold.ClockEvents
	stop := w.start()
	// The first event of all sets the clock, so it may have any time.
	w.run("send", "purchase", "--customer", "me", "--amount", "5", "--time", "2024-03-01T10:00:00Z")
	_, _, err = w.try("send", "purchase", "--customer", "me", "--amount", "5")
	if err == nil || !strings.Contains(err.Error(), "stands at 2024-03-01T10:00:00Z") {
		t.Errorf("far ahead of the events' clock: %v", err)
	}
	w.run("send", "purchase", "--customer", "other", "--amount", "5", "--time", "2024-03-02T09:00:00Z")

	stop()
	out, _, err := w.try("send", "purchase", "--customer", "me", "--amount", "5", "--time", "2024-03-02T10:00:00Z", "--timeout", "100ms")
	if err == nil || !strings.Contains(err.Error(), "stands at offset 1, and the event is at 1") || !strings.Contains(err.Error(), "not lost") {
		t.Errorf("without a consumer: %v", err)
	}
	contains(t, out, `sent +purchase`)
	for _, bad := range [][]string{
		{"send", "purchase", "--customer", "me", "--amount", "five"},
		{"send", "purchase", "--customer", "me", "--amount", "5", "--time", "yesterday"},
		{"send", "feedback", "--customer", "me", "--kind", "mood"},
		{"send", "purchase", "--amount", "5"},
	} {
		if _, _, err := w.try(bad...); !cli.IsUsage(err) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestChangesAreReadInEitherForm(t *testing.T) {
	payload := []byte(`{"customer_id":"me","sequence":7,"previous_tier":{"id":"a","rank":0,"name":"A"},"new_tier":{"id":"b","rank":1,"name":"B"},` +
		`"direction":"up","reason":"purchase","reason_text":"why","score_before":1.25,"cause":{"topic":"purchases","partition":2,"offset":9},"mode":"backfill"}`)
	packed, err := fold.Msgpack(payload)
	if err != nil {
		t.Fatal(err)
	}
	for contentType, value := range map[string][]byte{"application/json": payload, fold.MsgpackType: packed} {
		m, err := decodeChange(&kgo.Record{Value: value, Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte(contentType)}}})
		if err != nil {
			t.Fatalf("%s: %v", contentType, err)
		}
		if got := m.String(); got != "7: A → B (up, purchase), mode backfill\n         why" || m.Cause.Offset != 9 || m.Cause.Partition != 2 {
			t.Errorf("%s: %q, cause %+v", contentType, got, m.Cause)
		}
	}
}

// history is three customers: one with everything, one who sent all back, one
// of whom only a complaint is known.
func (w *world) history() {
	w.t.Helper()
	send := func(args ...string) { w.t.Helper(); w.run(append([]string{"send"}, args...)...) }
	send("purchase", "--customer", "ann", "--order", "a1", "--amount", "49.90", "--category", "tea", "--time", "2024-01-10T10:00:00Z")
	send("cost", "--customer", "ann", "--kind", "acquisition", "--amount", "12", "--time", "2024-01-10T11:00:00Z")
	send("purchase", "--customer", "ann", "--order", "a2", "--amount", "120", "--cost", "70", "--category", "pots", "--time", "2024-02-01T10:00:00Z")
	send("return", "--customer", "ann", "--order", "a2", "--amount", "20", "--time", "2024-02-05T10:00:00Z")
	send("complaint", "--customer", "ann", "--severity", "2", "--time", "2024-02-06T10:00:00Z")
	send("purchase", "--customer", "bob", "--order", "b1", "--amount", "30", "--time", "2024-02-10T10:00:00Z")
	send("return", "--customer", "bob", "--order", "b1", "--amount", "30", "--time", "2024-02-12T10:00:00Z")
	send("complaint", "--customer", "=cy, \"the\" third", "--severity", "5", "--time", "2024-03-01T10:00:00Z")
}

func TestCustomersAreReadAndExported(t *testing.T) {
	w := newWorld(t)
	stop := w.start()
	w.history()

	golden(t, "customer.txt", w.run("customer", "ann", "--at", "2024-04-01"))
	var doc struct {
		Tier      struct{ ID string }
		Published bool
		Values    struct {
			Orders struct {
				Net int64 `json:"net_minor"`
			}
		}
	}
	if err := json.Unmarshal([]byte(w.run("customer", "ann", "--json")), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Tier.ID == "" || !doc.Published || doc.Values.Orders.Net != 14990 {
		t.Errorf("value document: %+v", doc)
	}
	if _, _, err := w.try("customer", "ann", "--at", "2024-02-01"); err == nil || !strings.Contains(err.Error(), "newer event") {
		t.Errorf("before the newest event: %v", err)
	}
	if _, _, err := w.try("customer", "nobody"); err == nil || !strings.Contains(err.Error(), "nothing is known of this customer") {
		t.Errorf("an unknown customer: %v", err)
	}

	golden(t, "export.csv", w.run("export", "--as-of", "2024-04-01"))
	path := filepath.Join(w.dir, "out.ndjson")
	out, warnings, err := w.try("export", "--as-of", "2024-02-20", "--format", "ndjson", "-o", path)
	if err != nil || out != "" {
		t.Fatalf("export to a file: %v, printed %q", err, out)
	}
	contains(t, warnings, `2 customers written`, `warning: 1 customers have an event after 2024-02-20T00:00:00Z`)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], `{"customer":"ann"`) || !strings.HasPrefix(lines[1], `{"customer":"bob"`) {
		t.Errorf("lines: %s", b)
	}

	// The rest needs no consumer, and reading customers needs no Kafka.
	stop()
	out, notes, err := command(t, "export", "--redis", w.redis, "--namespace", "demo", "--as-of", "2024-04-01")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "export.csv", out)
	contains(t, notes, `the rules in force are not known`, `built-in default model`)
}

func TestJournalAndRulesAreReadable(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.history()
	all := w.run("journal")
	contains(t, all,
		`(?m)^0@0  genesis 0  chain [0-9a-f]{12}  .*  incarnation [0-9a-f]{32}  live since 2000-01-01T00:00:00Z  digest 000000000000$`,
		`(?m)^\d@2  batch 1  chain [0-9a-f]{12}  clock \d{4}-.*  next purchases 1, complaints 0, referrals 0  applied \+1  digest [0-9a-f]{12}$`)
	if n := strings.Count(all, "\n"); n != 3+8 {
		t.Errorf("%d lines, want 3 geneses and 8 batches:\n%s", n, all)
	}
	// From an offset on, what was counted is still known.
	one := ""
	for _, p := range []string{"0", "1", "2"} {
		if l, _, err := w.try("journal", "--partition", p, "--from", "3"); err == nil && l != "" {
			one = l
		}
	}
	contains(t, one, `^\d@4  batch 2 .* applied \+1 `)
	if _, _, err := w.try("journal", "--partition", "0", "--from", "1000", "--follow"); err == nil || !strings.Contains(err.Error(), "demo-journal/0 ends at offset") {
		t.Errorf("from beyond the end: %v", err)
	}
	var l line
	first, _, _ := strings.Cut(w.run("journal", "--partition", "1", "--json"), "\n")
	if err := json.Unmarshal([]byte(first), &l); err != nil {
		t.Fatal(err)
	}
	if l.Kind != "genesis" || len(l.Chain) != 64 || l.Partition != 1 {
		t.Errorf("first line as JSON: %s", first)
	}
	if _, _, err := w.try("journal", "--partition", "9"); err == nil || !strings.Contains(err.Error(), "has 3") {
		t.Errorf("a partition too far: %v", err)
	}

	list := w.run("rules", "list")
	hash := w.rules.Hash().String()
	contains(t, list, `^`+hash[:12]+`  \S+  model demo-1 \(EUR\)  clock wall  partitioner murmur2  topics purchases,complaints,referrals\n$`)
	contains(t, w.run("rules", "show", hash[:6]), `"hash": "`+hash+`"`, `"currency": "EUR"`)
	if _, _, err := w.try("rules", "show", "zz"); err == nil || !strings.Contains(err.Error(), "rules list") {
		t.Errorf("unknown rules: %v", err)
	}
}

func TestTopicsAreCreatedOnce(t *testing.T) {
	w := newWorld(t) // has created them
	out := w.run("topics", "create", "--partitions", "7")
	contains(t, out, `was there  purchases \(3 partitions\)`, `was there  demo-journal \(3 partitions\)`, `was there  demo-rules \(1 partitions\)`)
	if strings.Contains(out, "created") {
		t.Errorf("created again:\n%s", out)
	}
	contains(t, w.run("topics", "create", "--namespace", "other"), `created +other-journal`, `created +other-rules`, `was there  tier-changes`)
}

func TestServicesAreFoundOrAskedFor(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"customer", "me", "--data-dir", dir}, "no embedded consumer has run in " + dir},
		{[]string{"customer", "me", "--brokers", "127.0.0.1:1"}, "give --redis"},
		{[]string{"journal", "--redis", "127.0.0.1:1"}, "give --brokers"},
		{[]string{"customer", "me", "--redis", "127.0.0.1:1"}, "no Redis answers at 127.0.0.1:1"},
	} {
		_, _, err := command(t, c.args...)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want one sentence with %q", c.args, err, c.want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "endpoints.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := command(t, "customer", "me", "--data-dir", dir); err == nil || !strings.Contains(err.Error(), "endpoints.json") {
		t.Errorf("broken endpoints: %v", err)
	}
	// The environment is a flag; an amount in it is none.
	var out, errs bytes.Buffer
	env := map[string]string{"TIERSTREAM_REDIS": "127.0.0.1:2", "TIERSTREAM_CUSTOMER": "me", "TIERSTREAM_AMOUNT": "5"}
	err := run(t.Context(), []string{"customer", "me"}, func(k string) string { return env[k] }, strings.NewReader(""), &out, &errs)
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:2") {
		t.Errorf("Redis from the environment: %v", err)
	}
	err = run(t.Context(), []string{"send", "purchase"}, func(k string) string { return env[k] }, strings.NewReader(""), &out, &errs)
	if err == nil || !strings.Contains(err.Error(), "missing flags") {
		t.Errorf("a purchase from the environment: %v", err)
	}
}

func TestHelpHasAnExampleForEveryCommand(t *testing.T) {
	for _, c := range []string{
		"send purchase", "send return", "send complaint", "send referral", "send feedback", "send cost",
		"customer", "export", "journal", "rules list", "rules show", "topics create", "model init", "model check",
		"events lint", "events examples", "events schemas", "changes", "deadletters list", "deadletters show", "deadletters stats",
	} {
		out, _, err := command(t, append(strings.Fields(c), "--help")...)
		if err != nil {
			t.Errorf("%s: %v", c, err)
		}
		contains(t, out, `(?m)^ +tierctl `+c)
	}
	if out, _, err := command(t); err != nil || !strings.Contains(out, "tierctl send purchase --customer me") {
		t.Errorf("no arguments: %v\n%s", err, out)
	}
}
