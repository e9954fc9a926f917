package search

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

var (
	long  = flag.Bool("long", false, "search larger worlds too, and simulate ten times as many seeds; minutes")
	seed  = flag.Int64("seed", -1, "simulate this seed alone and print its trace")
	seeds = flag.Int("seeds", 0, "simulate so many seeds instead of the default")
	write = flag.Bool("write", false, "write the tables into docs/proofs/search.md")
)

var document sync.Mutex

// report logs a table, and writes it into the document at its mark.
func report(t *testing.T, mark, table string) {
	t.Helper()
	t.Log("\n" + table)
	if !*write || t.Failed() {
		return
	}
	document.Lock()
	defer document.Unlock()
	const path = "../../docs/proofs/search.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- "+mark+" -->\n", "<!-- /"+mark+" -->"
	head, rest, ok1 := strings.Cut(string(text), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no mark %s", path, mark)
	}
	if err := os.WriteFile(path, []byte(head+begin+table+"\n"+end+tail), 0o600); err != nil {
		t.Fatal(err)
	}
}

// small are the worlds that are searched in every run, large those of -long.
var (
	small = []Config{
		{Name: "two owners, aborted, late and unknown transactions", Owners: 2, Inputs: 2, MaxBatch: 1, Takes: 3, Timeouts: 1, Markers: true},
		{Name: "three owners, one lost suffix", Owners: 3, Inputs: 1, MaxBatch: 1, Takes: 3, Losses: 1},
		{Name: "lost replies and a lost suffix", Owners: 2, Inputs: 1, MaxBatch: 1, Takes: 3, Losses: 1, Retries: true},
		{Name: "sweeps and a lost suffix", Owners: 2, Sweeps: 2, Takes: 3, Losses: 1},
		{Name: "failback to an old branch", Owners: 2, Inputs: 1, MaxBatch: 1, Takes: 3, Losses: 2, Failback: true},
		{Name: "a session that oversleeps", Owners: 2, Inputs: 1, MaxBatch: 1, Takes: 3, Losses: 1, Pauses: 1},
		{Name: "truncated inputs or journal, lost suffix", Owners: 2, Inputs: 1, MaxBatch: 1, Takes: 3, Truncations: 1, Losses: 1},
		{Name: "missing customers", Owners: 2, Inputs: 2, MaxBatch: 1, Takes: 3, Damages: 1},
		{Name: "Kafka loses the journal's tail", Owners: 2, Inputs: 2, MaxBatch: 1, Takes: 3, Shortenings: 1},
	}
	large = []Config{
		{Name: "two owners, everything Kafka may do", Owners: 2, Inputs: 2, MaxBatch: 2, Takes: 3, Timeouts: 1, Retries: true, Markers: true, Pauses: 1},
		{Name: "four takes, one lost suffix", Owners: 2, Inputs: 1, MaxBatch: 1, Takes: 4, Losses: 1},
		{Name: "an input, a sweep and a lost suffix", Owners: 2, Inputs: 1, MaxBatch: 1, Sweeps: 1, Takes: 3, Losses: 1},
		{Name: "two inputs, one lost suffix", Owners: 2, Inputs: 2, MaxBatch: 1, Takes: 3, Losses: 1},
		{Name: "three owners, failback", Owners: 3, Inputs: 1, MaxBatch: 1, Takes: 3, Losses: 2, Failback: true},
		{Name: "four takes, failback", Owners: 2, Inputs: 1, MaxBatch: 1, Takes: 4, Losses: 2, Failback: true},
		{Name: "a rebase, and two losses", Owners: 2, Inputs: 1, MaxBatch: 1, Takes: 3, Truncations: 1, Losses: 2, Failback: true},
		{Name: "two truncations", Owners: 2, Inputs: 2, MaxBatch: 1, Takes: 3, Truncations: 2},
		{Name: "Kafka and Redis lose", Owners: 2, Inputs: 1, MaxBatch: 1, Takes: 3, Shortenings: 1, Losses: 1},
	}
)

// wide is the world of the simulation. Each seed draws its own bounds within
// these.
var wide = Config{
	Owners: 3, Inputs: 8, MaxBatch: 3, Sweeps: 3, Takes: 24, Losses: 4, Failback: true, Damages: 1, Pauses: 3, Timeouts: 3, Shortenings: 1,
	Truncations: 3, Retries: true, Markers: true, Reloads: true, Keep: 20,
}

// maxStates bounds the searches of a run in memory and time; none of the small
// worlds is as large.
const maxStates = 5_000_000

// Every schedule of the small worlds holds all invariants, and from every
// state of them a schedule without faults ends with everything published.
func TestSearch(t *testing.T) {
	t.Parallel()
	worlds := small
	if *long {
		worlds = append(worlds[:len(worlds):len(worlds)], large...)
	}
	if raceEnabled || testing.Short() {
		worlds = worlds[:1]
	}
	table := []string{"| World | States | Moves | Depth | CPU seconds |", "| --- | ---: | ---: | ---: | ---: |"}
	for _, c := range worlds {
		t.Run(c.Name, func(t *testing.T) {
			began := cpu()
			r := Search(c, maxStates)
			took := cpu() - began
			if r.Broken != nil {
				t.Fatalf("%v\n%s", r.Broken, strings.Join(r.Trace, "\n"))
			}
			part := ""
			if !r.Full {
				part = " and more"
				if !*long {
					t.Error("not all states were searched")
				}
			}
			table = append(table, fmt.Sprintf("| %s | %d%s | %d | %d | %.1f |", c.Name, r.States, part, r.Steps, r.Depth, took.Seconds()))
		})
	}
	report(t, "search", strings.Join(table, "\n"))
}

// Random ways through a larger world hold the invariants too.
func TestSimulation(t *testing.T) {
	t.Parallel()
	if *seed >= 0 {
		r := Simulate(wide, uint64(*seed), nil)
		t.Logf("seed %d:\n%s", *seed, strings.Join(r.Trace, "\n"))
		if r.Broken != nil {
			t.Fatal(r.Broken)
		}
		return
	}
	n := 100_000
	switch {
	case *seeds > 0:
		n = *seeds
	case *long:
		n *= 10
	case raceEnabled, testing.Short():
		n /= 100
	}
	var seen Coverage
	began := cpu()
	r := Simulations(wide, 0, n, &seen)
	if r.Broken != nil {
		last := r.States - 1
		t.Fatalf("seed %d: %v\n%s\n\ngo test ./internal/search -run '^TestSimulation$' -v -seed=%d", last, r.Broken, strings.Join(r.Trace, "\n"), last)
	}
	report(t, "simulation", fmt.Sprintf("%d seeds, %d moves, %.0f CPU seconds.\n%s", r.States, r.Steps, (cpu()-began).Seconds(), seen.table()))
	if n >= 100_000 {
		for _, miss := range seen.missing(20) {
			t.Errorf("%s: fewer than 20 times", miss)
		}
	}
}

// The same seed takes the same way, whatever was simulated before it.
func TestSeedsRepeat(t *testing.T) {
	alone := Simulate(wide, 41, nil)
	var again *walk
	b := newBook(0)
	for s := range uint64(42) {
		again = newWalk(wide, b, s)
		again.take(nil)
	}
	all := trace(again.cfg, again.made)
	if a, b := strings.Join(alone.Trace, "\n"), strings.Join(all, "\n"); a != b || len(all) < 50 {
		t.Errorf("seed 41 alone:\n%s\nand after others:\n%s", a, b)
	}
}

func ExampleSearch() {
	r := Search(Config{Owners: 2, Inputs: 1, MaxBatch: 1, Takes: 2, Losses: 1, Mutation: UnfencedReads}, 0)
	fmt.Println(r.Broken)
	// Output:
	// I1: the fence stands at 1·312f, but the customers are not the fold of what led there
}
