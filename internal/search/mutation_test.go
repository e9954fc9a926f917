package search

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mutations do one step wrongly each, in the world: in a script of Redis, in
// Kafka, or in the driver.
var mutations = []struct {
	name  string
	what  Mutation
	world Config // where the search looks
}{
	{"no epoch and no owner", NoEpoch | NoOwner, cramped},
	{"no owner", NoOwner, cramped},
	{"no chain", NoChain, cramped},
	{"no key generation", NoGeneration, cramped},
	{"reads not fenced", UnfencedReads, cramped},
	{"lease not asked for", NoLease, cramped},
	{"a lease that is over is renewed", LateRenewal, cramped},
	{"lease not renewed", NoRenewal, cramped},
	{"offsets before state", OffsetsFirst, cramped},
	{"script split in two", SplitScript, cramped},
	{"old keys deleted unfenced", UnfencedDelete, cramped},
	{"publish before apply", PublishFirst, cramped},
	{"commit despite a failed produce", PartialCommit, cramped},
	{"trim too early", TrimEarly, cramped},
	{"outbox recomputed instead of published", Recompute, cramped},
	{"K read before fencing", LocateFirst, cramped},
	{"InitProducerID left to the lazy client", LazyProducer, cramped},
	{"K read while a transaction is open", IgnoreOpen, cramped},
	{"consumer rewound to what is published", Rewind, cramped},
	{"journal without clock", NoClock, cramped},
	{"digest not updated", NoDigest, cramped},
	{"cache kept when the session ends", KeepCache, cramped},
	{"an idle owner does not look at the journal", NoLook, swept},
	{"base of a rebase deleted", ForgetBase, truncated},
	{"interrupted rebase taken for done", ForgetOpen, truncated},
}

// cramped has room for every mutation but those of a rebase.
var (
	cramped   = Config{Owners: 2, Inputs: 2, MaxBatch: 1, Takes: 3, Losses: 1, Failback: true, Pauses: 1, Markers: true}
	truncated = Config{Owners: 2, Inputs: 1, MaxBatch: 1, Takes: 3, Losses: 1, Truncations: 1}
	swept     = Config{Owners: 2, Sweeps: 2, Takes: 3, Losses: 1}
)

// A hunt ends after so many states, and after so many seeds, or the third that
// breaks an invariant.
const (
	mutantStates = 400_000
	mutantSeeds  = 20_000
	enoughSeeds  = 3
)

var mutationHead = []string{
	"| Step done wrongly | Search: caught by | States | Moves | CPU seconds | Simulation: caught by | Seeds until caught | Caught three times |",
	"| --- | --- | ---: | ---: | ---: | --- | ---: | ---: |",
}

// Each step done wrongly is noticed by the search or by several seeds; nearly
// all are by both.
func TestMutations(t *testing.T) {
	t.Parallel()
	if raceEnabled || testing.Short() {
		t.Skip("searched without -race and -short")
	}
	table := slices.Clone(mutationHead)
	for _, m := range mutations {
		row, ok := hunt(m.what, m.world)
		table = append(table, fmt.Sprintf("| %s | %s |", m.name, row))
		if !ok {
			t.Errorf("%s: not caught", m.name)
		}
	}
	report(t, "mutations", strings.Join(table, "\n"))
}

// hunt searches and simulates a mutated world. ok says that the search or
// enough seeds noticed.
func hunt(what Mutation, world Config) (row string, ok bool) {
	world.Mutation = what
	began := cpu()
	r := Search(world, mutantStates)
	took := cpu() - began
	row = fmt.Sprintf("– | %d | – | %.1f", r.States, took.Seconds())
	if r.Broken != nil {
		row = fmt.Sprintf("%s | %d | %d | %.1f", invariant(r.Broken), r.States, len(r.Trace), took.Seconds())
	}
	cfg := wide
	cfg.Mutation = what
	b := newBook(what)
	var at []string
	var names []string
	for s := 0; s < mutantSeeds && len(at) < enoughSeeds; s++ {
		if len(b.facts) > 1<<15 {
			b = newBook(what)
		}
		w := newWalk(cfg, b, uint64(s))
		if w.take(nil); w.broken != nil {
			at = append(at, fmt.Sprint(s+1))
			names = append(names, invariant(w.broken))
		}
	}
	caught := len(at) == enoughSeeds
	for len(at) < enoughSeeds {
		at = append(at, "–")
	}
	slices.Sort(names)
	row += fmt.Sprintf(" | %s | %s | %s", strings.Join(slices.Compact(names), ", "), at[0], at[enoughSeeds-1])
	return row, r.Broken != nil || caught
}

func invariant(err error) string {
	var b *errBroken
	if errors.As(err, &b) {
		return b.invariant
	}
	return "?"
}

// The owner is a random name of one acquisition, so it says all that the epoch
// says: without the epoch, exactly the same scripts are accepted. The epoch is
// there for people.
func TestEpochIsImpliedByOwner(t *testing.T) {
	if raceEnabled || testing.Short() {
		t.Skip("searched without -race and -short")
	}
	c := Config{Owners: 2, Inputs: 1, MaxBatch: 1, Takes: 3, Losses: 1}
	with := Search(c, 0)
	c.Mutation = NoEpoch
	without := Search(c, 0)
	if without.Broken != nil || with.States != without.States || with.Steps != without.Steps {
		t.Errorf("%d states and %d moves with the epoch, %d and %d without: %v", with.States, with.Steps, without.States, without.Steps, without.Broken)
	}
}

// machineMutations change the machine itself, by a text that stands exactly
// once in a file of package protocol.
var machineMutations = []struct {
	name, file, old, new string
	world                string // see worlds
}{
	{"recovery by the oldest outbox entry only", "machine.go", "for i, e := range m.outbox {", "for i, e := range m.outbox[:min(1, len(m.outbox))] {", "cramped"},
	{"recovery compares numbers, not chains", "machine.go", "if e.Parent == s.K.Chain && e.Seq == s.K.Seq+1 {", "if e.Seq == s.K.Seq+1 {", "cramped"},
	{"R in the journal is not looked for", "machine.go", "if s.Found {", "if s.Found && m.id.Point == s.K.Point {", "cramped"},
	{"the published record is not compared", "machine.go", "case began && m.known.Offset >= s.Start && (s.FirstAt == nil || *s.FirstAt != m.known.Point),", "case", "shortened"},
	{"trim by what is applied", "machine.go", "if seq <= m.known.Seq {", "if seq <= m.id.Seq {", "cramped"},
	{"an interrupted rebase is continued", "machine.go", "case f.Rebased.Open:", "case false:", "truncated"},
	{"an abandoned rebuild is continued", "machine.go", "case !m.fresh:", "case false:", "truncated"},
}

var worlds = map[string]Config{
	"cramped": cramped, "truncated": truncated,
	"shortened": {Owners: 2, Inputs: 2, MaxBatch: 1, Takes: 3, Shortenings: 1},
}

var mutant = flag.String("mutant", "", "of TestMachineMutations: hunt in this world and print a row")

// TestMachineMutations builds this test with a changed machine, and has it hunt.
func TestMachineMutations(t *testing.T) {
	t.Parallel()
	if *mutant != "" {
		row, ok := hunt(0, worlds[*mutant])
		fmt.Printf("row: %v %s\n", ok, row)
		return
	}
	if raceEnabled || testing.Short() {
		t.Skip("searched without -race and -short")
	}
	table := slices.Clone(mutationHead)
	found := regexp.MustCompile(`(?m)^row: (true|false) (.*)$`)
	for _, m := range machineMutations {
		path, err := filepath.Abs(filepath.Join("..", "protocol", m.file))
		if err != nil {
			t.Fatal(err)
		}
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(source), m.old); n != 1 {
			t.Errorf("%s: %q stands %d times in %s", m.name, m.old, n, m.file)
			continue
		}
		dir := t.TempDir()
		changed := filepath.Join(dir, m.file)
		if err := os.WriteFile(changed, []byte(strings.Replace(string(source), m.old, m.new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay := filepath.Join(dir, "overlay.json")
		text, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(overlay, text, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), "go", "test", "-v", "-overlay", overlay, "-count=1", "-run", "^TestMachineMutations$", ".", "-mutant="+m.world).CombinedOutput()
		row := found.FindStringSubmatch(string(out))
		if row == nil {
			t.Errorf("%s: %v\n%s", m.name, err, out)
			continue
		}
		table = append(table, fmt.Sprintf("| %s | %s |", m.name, row[2]))
		if row[1] != "true" {
			t.Errorf("%s: not caught", m.name)
		}
	}
	report(t, "machine", strings.Join(table, "\n"))
}
