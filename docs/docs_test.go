// Package docs holds the documents to the code: what they list must be what
// the code has, no more and no less.
package docs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/scoring"
	"github.com/tierstream/tierstream/internal/state"
	"github.com/tierstream/tierstream/internal/stream"
	"github.com/tierstream/tierstream/internal/testenv"
)

func TestMain(m *testing.M) {
	testenv.Main(m, func() error {
		if commands.dir == "" {
			return nil
		}
		return os.RemoveAll(commands.dir)
	})
}

// root is the repository's.
const root = ".."

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// table returns the rows of the table whose header begins with the cells.
func table(t *testing.T, text string, header ...string) [][]string {
	t.Helper()
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if row := cells(l); len(row) < len(header) || !slices.Equal(row[:len(header)], header) {
			continue
		}
		var rows [][]string
		for _, l := range lines[i+2:] {
			row := cells(l)
			if row == nil {
				break
			}
			rows = append(rows, row)
		}
		return rows
	}
	t.Fatalf("no table %q", header)
	return nil
}

// cells splits a table's line; nil for any other line.
func cells(line string) []string {
	line = strings.TrimSpace(line)
	if len(line) < 2 || line[0] != '|' || line[len(line)-1] != '|' {
		return nil
	}
	var out []string
	for c := range strings.SplitSeq(line[1:len(line)-1], " |") {
		out = append(out, strings.TrimSpace(c))
	}
	return out
}

// bare is a cell without the marks of code.
func bare(cell string) string { return strings.Trim(cell, "`") }

func column(rows [][]string, n int) []string {
	out := make([]string, len(rows))
	for i := range rows {
		out[i] = bare(rows[i][n])
	}
	return out
}

// same compares two sets and names what is on one side only.
func same(t *testing.T, what string, documented, real []string) {
	t.Helper()
	d, r := slices.Clone(documented), slices.Clone(real)
	sort.Strings(d)
	sort.Strings(r)
	for i := 1; i < len(d); i++ {
		if d[i] == d[i-1] {
			t.Errorf("%s: %s is documented twice", what, d[i])
		}
	}
	for _, x := range d {
		if !slices.Contains(r, x) {
			t.Errorf("%s: %s is documented, but is not there", what, x)
		}
	}
	for _, x := range r {
		if !slices.Contains(d, x) {
			t.Errorf("%s: %s is not documented", what, x)
		}
	}
}

func TestCodesAreDocumentedInTheirOrder(t *testing.T) {
	outcomes := map[event.Outcome]string{
		event.Used: "used", event.DeadLetter: "dead letter", event.Dropped: "dropped",
		event.Warned: "warned", event.Ignored: "ignored", event.Held: "held",
	}
	rows := table(t, read(t, "events.md"), "Code", "Outcome")
	// The order is that of the fence's counters, which redis.md refers to.
	for i := range max(len(rows), event.NumCodes) {
		if i >= len(rows) || i >= event.NumCodes {
			t.Fatalf("%d codes are documented, there are %d", len(rows), event.NumCodes)
		}
		c := event.Code(i)
		if bare(rows[i][0]) != c.String() || rows[i][1] != outcomes[c.Outcome()] {
			t.Errorf("code %d is documented as %s, %s; it is %s, %s", i, rows[i][0], rows[i][1], c, outcomes[c.Outcome()])
		}
	}
}

// blocks are the fenced blocks of a document, by what follows the fence.
func blocks(text string) map[string]string {
	out := map[string]string{}
	for _, m := range regexp.MustCompile("(?ms)^```([^\n]+)\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		out[m[1]] = m[2]
	}
	return out
}

// The examples of events decode to the examples of package event.
func TestExamplesDecode(t *testing.T) {
	text := blocks(read(t, "events.md"))
	d := event.NewDecoder(event.Limits{})
	for _, want := range event.Examples() {
		body, ok := text["json event="+want.Type.String()]
		if !ok {
			t.Errorf("no example of a %s", want.Type)
			continue
		}
		_, headers, err := event.Encode(&want, event.BinaryJSON)
		if err != nil {
			t.Fatal(err)
		}
		decodes(t, d, &event.Message{Key: []byte(want.Customer), Value: []byte(body), Headers: headers, Timestamp: want.Time}, &want)
	}
	want := event.Examples()[0]
	decodes(t, d, &event.Message{
		Key: []byte(want.Customer), Value: []byte(text["json structured"]), Timestamp: want.Time,
		Headers: []event.Header{{Key: "content-type", Value: []byte("application/cloudevents+json")}},
	}, &want)
}

func decodes(t *testing.T, d *event.Decoder, m *event.Message, want *event.Event) {
	t.Helper()
	var got event.Event
	if r := d.Decode(m, &got); r != nil {
		t.Errorf("the example of a %s is refused: %v", want.Type, r)
	} else if got.Content != want.Content || got.ID != want.ID || !event.KeyMatches(m, &got) {
		t.Errorf("the example of a %s says\n %+v, want\n %+v", want.Type, got, *want)
	}
}

// Events in which everything is set name every field that a type may have.
func TestEventFieldsAreDocumented(t *testing.T) {
	full := map[event.Type]event.Event{}
	for _, e := range event.Examples() {
		e.HasAmount, e.Currency, e.Category, e.Channel, e.Reason = true, "USD", "c", "h", "r"
		e.HasBase, e.HasCost, e.HasMargin, e.FXRate, e.Test, e.Unpaid = true, true, true, "1", true, true
		full[e.Type] = e
	}
	text := read(t, "events.md")
	for typ, e := range full {
		v, _, err := event.Encode(&e, event.BinaryJSON)
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := json.Unmarshal(v, &m); err != nil {
			t.Fatal(err)
		}
		if typ != event.Purchase {
			delete(m, "test") // accepted of every type, without effect
		}
		_, section, ok := strings.Cut(text, "\n### "+typ.String()+"\n")
		if !ok {
			t.Errorf("no section on %s", typ)
			continue
		}
		section, _, _ = strings.Cut(section, "\n### ")
		same(t, typ.String(), column(table(t, section, "Field", "Type"), 0), slices.Collect(maps.Keys(m)))
	}
}

var commands struct {
	once sync.Once
	dir  string
	err  error
}

// help is what a command says to --help, below the given words.
func help(t *testing.T, name string, words ...string) string {
	t.Helper()
	return ask(t, name, append(words, "--help")...)
}

// ask is what a command prints, given arguments with which it must succeed.
func ask(t *testing.T, name string, args ...string) string {
	t.Helper()
	c := &commands
	c.once.Do(func() {
		if c.dir, c.err = os.MkdirTemp("", "tierstream-docs-"); c.err != nil {
			return
		}
		out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", c.dir+string(filepath.Separator), "../cmd/consumer", "../cmd/tierctl", "../cmd/producer-sim", "../cmd/webhooks").CombinedOutput()
		if err != nil {
			c.err = fmt.Errorf("building the commands: %w\n%s", err, out)
		}
	})
	if c.err != nil {
		t.Fatal(c.err)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(c.dir, name), args...).Output()
	if err != nil {
		t.Fatalf("asking %s %s: %v", name, strings.Join(args, " "), err)
	}
	return string(out)
}

var longFlag = regexp.MustCompile(`(?m)^\s+(?:-\w, )?(--[a-z][a-z-]*)`)

func TestFlagsAreDocumented(t *testing.T) {
	var real []string
	for _, m := range longFlag.FindAllStringSubmatch(help(t, "consumer"), -1) {
		real = append(real, m[1])
	}
	var documented []string
	for l := range strings.SplitSeq(read(t, "configuration.md"), "\n") {
		if row := cells(l); len(row) >= 3 && strings.HasPrefix(row[0], "`--") {
			documented = append(documented, bare(row[0]))
		}
	}
	same(t, "flags of consumer", documented, real)

	// What the example file sets must be settings.
	for l := range strings.SplitSeq(blocks(read(t, "configuration.md"))["yaml"], "\n") {
		if name, _, ok := strings.Cut(l, ": "); ok && l[0] != '#' && !slices.Contains(real, "--"+name) {
			t.Errorf("the example file has %s, which is no setting", name)
		}
	}
}

// A processor on fakes that has read one good purchase and one bad record:
// what it exposes, writes and publishes is what the documents say.
func TestRunningProcessorIsAsDocumented(t *testing.T) {
	registry := prometheus.NewRegistry()
	exporter, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithoutScopeInfo())
	if err != nil {
		t.Fatal(err)
	}
	before := otel.GetMeterProvider()
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter)))
	t.Cleanup(func() { otel.SetMeterProvider(before) })

	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}), kfake.GroupMinSessionTimeout(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	rdb, err := state.Open(miniredis.RunT(t).Addr(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rdb.Close() })

	const namespace = "live"
	inputs := []string{"purchases"}
	model := scoring.Default()
	cfg := stream.Config{
		Namespace: namespace, Topics: stream.DefaultTopics(namespace, inputs), Engine: "test", Lease: 3 * time.Second,
		Rules: &fold.Rules{
			Topics: inputs, Partitioner: "murmur2", Clock: fold.ClockEvents,
			Limits: event.Limits{}.WithDefaults(), Policy: customer.DefaultPolicy(model.Currency()), Model: model,
		},
		Kafka: []kgo.Opt{kgo.SeedBrokers(k.ListenAddrs()...), kgo.MetadataMinAge(50 * time.Millisecond)},
	}
	cfg.Store = func(p int32) stream.Store { return state.NewStore(rdb, namespace, p, cfg.Lease) }
	// The reader comes when its topics are there: it would look for unknown ones
	// a few times only, and then not for minutes.
	admin, err := kgo.NewClient(cfg.Kafka...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	if err := stream.CreateTopics(t.Context(), admin, cfg.Topics, 1, 1, nil); err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(append(cfg.Kafka, kgo.ConsumeTopics(cfg.Topics.Changes, cfg.Topics.DeadLetters),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	p, err := stream.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("running: %v", err)
		}
	}()

	purchase := event.Examples()[0]
	for _, value := range []string{"", "{"} { // "": the good one's
		v, headers, err := event.Encode(&purchase, event.BinaryJSON)
		if err != nil {
			t.Fatal(err)
		}
		if value != "" {
			v = []byte(value)
		}
		r := &kgo.Record{Topic: "purchases", Key: []byte(purchase.Customer), Value: v}
		for _, h := range headers {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	deadline, stop := context.WithTimeout(ctx, 60*time.Second)
	defer stop()
	published := map[string]*kgo.Record{}
	for len(published) < 2 {
		cl.PollFetches(deadline).EachRecord(func(r *kgo.Record) { published[r.Topic] = r })
		if deadline.Err() != nil {
			t.Fatalf("only %d topics were written", len(published))
		}
	}

	t.Run("metrics", func(t *testing.T) {
		labels := map[string][]string{}
		for labels["tierstream_publish_delay_seconds"] == nil { // counted a moment after readers see the commit
			families, err := registry.Gather()
			if err = errors.Join(err, deadline.Err()); err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				if name := f.GetName(); strings.HasPrefix(name, "tierstream_") {
					labels[name] = []string{} // some have none
					for _, l := range f.GetMetric()[0].GetLabel() {
						labels[name] = append(labels[name], l.GetName())
					}
				}
			}
		}
		text := read(t, "metrics.md")
		rows := table(t, text, "Metric", "Type, unit")
		real := slices.Collect(maps.Keys(labels))
		same(t, "metrics", column(rows, 0), real)
		same(t, "metrics that move", column(table(t, text, "Metric", "Moving means"), 0), real)
		for _, row := range rows {
			if name := bare(row[0]); strings.Join(labels[name], ", ") != bare(row[2]) {
				t.Errorf("%s has the labels %q, documented is %s", name, labels[name], row[2])
			}
		}
	})
	t.Run("fence", func(t *testing.T) {
		fields, err := rdb.HGetAll(t.Context(), state.PartitionKeys(namespace, 0).Fence()).Result()
		if err != nil {
			t.Fatal(err)
		}
		same(t, "fence", column(table(t, read(t, "redis.md"), "Field", "Form"), 0), slices.Collect(maps.Keys(fields)))
	})
	t.Run("keys", func(t *testing.T) {
		keys, err := rdb.Keys(t.Context(), "*").Result()
		if err != nil {
			t.Fatal(err)
		}
		forms := column(table(t, read(t, "redis.md"), "Key", "Type"), 0)
		for _, key := range keys {
			form := strings.NewReplacer("{live:0}", "{<namespace>:<p>}", ":g1:", ":g<gen>:", purchase.Customer, "<id>").Replace(key)
			if !slices.Contains(forms, form) {
				t.Errorf("key %s is not documented", key)
			}
		}
	})
	t.Run("tier change", func(t *testing.T) {
		text := read(t, "events.md")
		var payload, example map[string]any
		if err := json.Unmarshal(published[cfg.Topics.Changes].Value, &payload); err != nil {
			t.Fatal(err)
		}
		d := json.NewDecoder(strings.NewReader(blocks(text)["json change"]))
		if err := d.Decode(&example); err != nil {
			t.Fatalf("the example of a change: %v", err)
		}
		real := slices.Collect(maps.Keys(payload))
		_, out, _ := strings.Cut(text, "## Out: tier changes")
		same(t, "fields of a tier change", column(table(t, out, "Field", "Type"), 0), real)
		same(t, "example of a tier change", slices.Collect(maps.Keys(example)), real)
		same(t, "headers of a tier change", column(table(t, out, "Header", "Meaning"), 0), headerNames(published[cfg.Topics.Changes], ""))
	})
	t.Run("dead letter", func(t *testing.T) {
		_, out, _ := strings.Cut(read(t, "events.md"), "## Out: dead letters")
		same(t, "headers of a dead letter", column(table(t, out, "Header", "Meaning"), 0), headerNames(published[cfg.Topics.DeadLetters], "tierstream-"))
	})
}

func headerNames(r *kgo.Record, prefix string) (names []string) {
	for _, h := range r.Headers {
		if strings.HasPrefix(h.Key, prefix) {
			names = append(names, h.Key)
		}
	}
	return names
}

// documents are all Markdown files of the repository, relative to it.
func documents(t *testing.T) (names []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != root || d.Name() == "testdata" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if filepath.Ext(path) == ".md" {
			names = append(names, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(names) < 10 {
		t.Fatalf("only %d documents found", len(names))
	}
	return names
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	fence   = regexp.MustCompile("(?ms)^```.*?^```$")
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	notSlug = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors are what links may name in a document, as GitHub makes them.
func anchors(text string) (out []string) {
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		out = append(out, strings.ReplaceAll(notSlug.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return out
}

func TestLinksLeadSomewhere(t *testing.T) {
	for _, name := range documents(t) {
		text := read(t, name)
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			u, err := url.Parse(m[1])
			if err != nil {
				t.Errorf("%s: link %s: %v", name, m[1], err)
				continue
			}
			if u.IsAbs() {
				continue
			}
			target := name
			if u.Path != "" {
				target = filepath.Join(filepath.Dir(name), filepath.FromSlash(u.Path))
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: link %s leads nowhere", name, m[1])
			} else if u.Fragment != "" && filepath.Ext(target) == ".md" && !slices.Contains(anchors(read(t, target)), u.Fragment) {
				t.Errorf("%s: link %s: no such heading", name, m[1])
			}
		}
	}
}

var (
	testName   = regexp.MustCompile("`((?:Test|Fuzz|Example|Benchmark)[A-Z_][A-Za-z0-9_]*)")
	testDefine = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example|Benchmark)[A-Za-z0-9_]*)\(`)
	goFile     = regexp.MustCompile("`((?:internal|cmd|deploy|tools|docs)/[a-zA-Z0-9_./-]+)`")
)

// What documents name in code marks must be there: tests by name, files and
// folders by path.
func TestNamedTestsAndFilesExist(t *testing.T) {
	defined := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range testDefine.FindAllSubmatch(b, -1) {
			defined[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, name := range documents(t) {
		text := read(t, name)
		for _, m := range testName.FindAllStringSubmatch(text, -1) {
			if named++; !defined[m[1]] {
				t.Errorf("%s names %s, which is no test", name, m[1])
			}
		}
		for _, m := range goFile.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(m[1]))); err != nil {
				t.Errorf("%s names %s, which is not there", name, m[1])
			}
		}
	}
	if named < 20 {
		t.Errorf("only %d tests are named", named)
	}
}

// Every record of a decision is listed, in its order.
func TestDecisionRecordsAreListed(t *testing.T) {
	files, err := filepath.Glob("adr/[0-9]*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d decision records, %v", len(files), err)
	}
	index := read(t, "adr/README.md")
	at := -1
	for _, f := range files {
		i := strings.Index(index, "("+filepath.Base(f)+")")
		if i <= at {
			t.Errorf("adr/README.md does not list %s in its place", f)
		}
		at = max(at, i)
		text := read(t, f)
		for _, part := range []string{"## Context", "## Decision", "## Consequences"} {
			if !bytes.Contains([]byte(text), []byte("\n"+part+"\n")) {
				t.Errorf("%s has no %q", f, part)
			}
		}
		if n := strings.Count(text, "\n"); n > 60 {
			t.Errorf("%s has %d lines: more than a page", f, n)
		}
	}
}

// Every module that our packages import is explained where dependencies are.
func TestDependenciesAreExplained(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-C", root,
		"-f", `{{range .Imports}}{{.}} {{end}}{{range .TestImports}}{{.}} {{end}}{{range .XTestImports}}{{.}} {{end}}`, "./...").Output()
	if err != nil {
		t.Fatalf("listing imports: %v", err)
	}
	text := read(t, "adr/0011-dependencies.md")
	seen := map[string]bool{}
	for path := range strings.FieldsSeq(string(out)) {
		// Host, owner and name say which module it is, and where names are
		// given by the host, the first two parts.
		parts := strings.Split(path, "/")
		if !strings.Contains(parts[0], ".") || strings.HasPrefix(path, "github.com/tierstream/") || len(parts) < 2 {
			continue
		}
		n := 3
		if parts[0] != "github.com" && parts[0] != "golang.org" {
			n = 2
		}
		module := strings.Join(parts[:min(n, len(parts))], "/")
		if seen[module] {
			continue
		}
		seen[module] = true
		if !strings.Contains(text, "`"+module) {
			t.Errorf("module %s is not explained", module)
		}
	}
	if len(seen) < 5 {
		t.Errorf("only %d modules are imported: the listing is wrong", len(seen))
	}
}

// cli.md lists the commands that the commands have.
func TestCommandsAreDocumented(t *testing.T) {
	var documented, real []string
	for l := range strings.SplitSeq(read(t, "cli.md"), "\n") {
		if row := cells(l); len(row) == 2 && (strings.HasPrefix(row[0], "`tierctl ") || strings.HasPrefix(row[0], "`producer-sim ")) {
			documented = append(documented, bare(row[0]))
		}
	}
	// A command's help lists the commands below it, each on a line of two
	// spaces: its words, then arguments and flags.
	line := regexp.MustCompile(`(?m)^  ([a-z][a-z -]*[a-z])(?: [-<\[].*)?$`)
	var walk func(name string, below ...string)
	walk = func(name string, below ...string) {
		_, list, ok := strings.Cut(help(t, name, below...), "\nCommands:\n")
		if !ok {
			real = append(real, strings.Join(append([]string{name}, below...), " "))
			return
		}
		for _, m := range line.FindAllStringSubmatch(list, -1) {
			words := strings.Fields(m[1])
			if len(words) != len(below)+1 { // "send <command>" is told by its help
				continue
			}
			walk(name, words...)
		}
	}
	walk("tierctl")
	walk("producer-sim")
	same(t, "commands", documented, real)
}

var codeName = regexp.MustCompile("`(?:session|worker|reader|taken|producer|batch|Processor|Machine|protocol|fold|state|event|scoring|customer|stream)((?:\\.[A-Za-z]+)+)")

// The walk and the invariants name functions and types; each must be in the
// code, or a renamed one would leave the walk behind.
func TestNamesOfTheWalkExist(t *testing.T) {
	var code strings.Builder
	err := filepath.WalkDir(filepath.Join(root, "internal"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		code.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// Declarations: functions, methods, types, variables, constants and fields.
	declared := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^func (?:\([^)]*\) )?(\w+)|^(?:type|var|const) (\w+)|^\t(\w+)(?:, \w+)*\s`).FindAllStringSubmatch(code.String(), -1) {
		declared[m[1]+m[2]+m[3]] = true
	}
	named := 0
	for _, name := range documents(t) {
		for _, m := range codeName.FindAllStringSubmatch(read(t, name), -1) {
			for part := range strings.SplitSeq(m[1][1:], ".") {
				if named++; !declared[part] && part != "go" && part != "md" {
					t.Errorf("%s names %s, which is not declared in internal", name, m[0][1:])
				}
			}
		}
	}
	if named < 20 {
		t.Errorf("only %d names are checked", named)
	}
}
