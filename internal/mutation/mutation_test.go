package mutation

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	mutate = flag.Bool("mutate", false, "break the code and run the simulation against it")
	only   = flag.String("only", "", "mutations to run, separated by commas; empty: all")
	seeds  = flag.Int("seeds", 1000, "seeds to run at most")
	fault  = flag.String("fault", "", "first fault of every seed, see the simulation's flag of this name")
	caught = flag.Int("caught", 3, "seeds that must fail")
	table  = flag.String("table", "", "write the table of mutations into this document")
)

// root is the repository's.
const root = "../.."

// apply gives each file that the mutation changes, changed.
func (m *mutation) apply(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, e := range m.edits {
		text, ok := files[e.file]
		if !ok {
			b, err := os.ReadFile(filepath.Join(root, e.file))
			if err != nil {
				t.Fatal(err)
			}
			text = string(b)
		}
		if n := strings.Count(text, e.old); n != 1 {
			t.Fatalf("mutation %q: what it replaces in %s is there %d times, want once:\n%s", m.name, e.file, n, e.old)
		}
		files[e.file] = strings.Replace(text, e.old, e.new, 1)
	}
	return files
}

// overlay writes the mutation for the go command.
func (m *mutation) overlay(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	replace := map[string]string{}
	for file, text := range m.apply(t) {
		real, err := filepath.Abs(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(dir, filepath.Base(file))
		if err := os.WriteFile(copied, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[real] = copied
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every mutation must still have something to replace, or it would silently
// mutate nothing.
func TestMutationsApply(t *testing.T) {
	for _, m := range mutations {
		m.apply(t)
	}
}

// What the compiler refuses would count as caught. The rest is built when it is
// run.
func TestMutationsCompile(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	for _, name := range []string{"publish before apply", "script split in two"} {
		m := mutations[slices.IndexFunc(mutations, func(m mutation) bool { return m.name == name })]
		cmd := exec.CommandContext(t.Context(), "go", "build", "-overlay", m.overlay(t), "./internal/stream")
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", m.name, err, out)
		}
	}
}

// failure is what a failing seed says of itself.
var failure = regexp.MustCompile(`_test.go:\d+: seed (\d+): (.*)`)

// summary is what the simulation says at the end.
var summary = regexp.MustCompile(`(\d+) seeds, (\d+) failed`)

func TestMutationsAreCaught(t *testing.T) {
	if !*mutate {
		t.Skip("it takes long: make mutations")
	}
	var rows strings.Builder
	for _, m := range mutations {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), m.name) {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			binary := filepath.Join(t.TempDir(), "simulation.test")
			build := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", m.overlay(t), "-o", binary, "./internal/simulation")
			build.Dir = root
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			began := time.Now()
			cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestSeeds$", "-test.v", "-test.timeout=0",
				fmt.Sprintf("-seeds=%d", *seeds), fmt.Sprintf("-stop=%d", *caught), "-fault="+*fault)
			cmd.Dir = filepath.Join(root, "internal/simulation")
			out, _ := cmd.CombinedOutput() // a failure is what is wanted
			took := time.Since(began)
			first := map[string]string{} // what each failing seed says first
			var order []string
			for line := range strings.Lines(string(out)) {
				if f := failure.FindStringSubmatch(line); f != nil && first[f[1]] == "" && !strings.Contains(f[2], " events, ") {
					first[f[1]] = check(f[2])
					order = append(order, f[1])
				}
			}
			if len(order) < *caught {
				t.Errorf("only %d seeds notice: %v\n%s", len(order), order, summary.FindString(string(out)))
			}
			var checks []string
			for _, s := range order {
				if !slices.Contains(checks, first[s]) {
					checks = append(checks, first[s])
				}
			}
			run := summary.FindStringSubmatch(string(out))
			if run == nil {
				run = []string{"", "?", "?"}
			}
			row := fmt.Sprintf("| %s | %s | %s | %s | %s | %.0f |\n", m.name, m.does, strings.Join(checks, "; "), strings.Join(order, ", "), run[1], took.Seconds())
			t.Log(row)
			rows.WriteString(row)
		})
	}
	if *table != "" {
		writeTable(t, rows.String())
	}
}

// check names the check that a failure's text comes from.
func check(text string) string {
	for _, c := range []struct{ contains, name string }{
		{"the latest acquirer is", "I7, on the wire"},
		{"acquired with epoch", "I7, on the wire: epochs rise"},
		{"although the lease is over", "lease, on the wire"},
		{"rebuilt from nothing although", "no needless rebuild, on the wire"},
		{"scripts were refused although", "nothing is refused without a fault"},
		{"a flood of refused", "flood stops"},
		{"the process died", "it panics"},
		{"has chain", "I1: chain of log and journal"},
		{"the fence is at", "I1: fence equals log and journal"},
		{"add up to digest", "I1: digest"},
		{"customers in Redis", "I1: customers"},
		{"is due at", "I1: due set"},
		{"due set has", "I1: due set"},
		{"waiting return", "I1: waiting returns"},
		{"log and journal give", "I1"},
		{"the journal goes from", "journal without gaps"},
		{"of an owner that had lost", "journal: owners do not return"},
		{"accounted for", "I4"},
		{"dead letters:", "dead letters exactly once"},
		{"I2", "I2"},
		{"I3", "I3"},
		{"stopped:", "a partition stops"},
		{"did not settle", "it does not settle"},
	} {
		if strings.Contains(text, c.contains) {
			return c.name
		}
	}
	return text
}

const (
	tableBegins = "<!-- mutations -->\n"
	tableEnds   = "<!-- /mutations -->\n"
)

func writeTable(t *testing.T, rows string) {
	t.Helper()
	b, err := os.ReadFile(*table)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), tableBegins)
	_, after, ok2 := strings.Cut(rest, tableEnds)
	if !ok || !ok2 {
		t.Fatalf("%s has no marks for the table", *table)
	}
	head := "\n| Mutation | The broken program | Caught by | First seeds | Seeds run | Seconds |\n| --- | --- | --- | --- | ---: | ---: |\n"
	if err := os.WriteFile(*table, []byte(before+tableBegins+head+rows+"\n"+tableEnds+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
