package simulation

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

const (
	tableBegins = "<!-- faults -->\n"
	tableEnds   = "<!-- /faults -->\n"
)

// writeTable puts how often each fault met each step into a document, between
// its marks.
func writeTable(t *testing.T, path string, s *summary) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), tableBegins)
	_, after, ok2 := strings.Cut(rest, tableEnds)
	if !ok || !ok2 {
		t.Fatalf("%s has no marks for the table", path)
	}
	if err := os.WriteFile(path, []byte(before+tableBegins+table(s)+tableEnds+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// table is fault kind × protocol step; – is a pair without a meaning.
func table(s *summary) string {
	means := map[pair]bool{}
	for _, p := range meaningful {
		means[p] = true
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s.\n\n| Step |", s)
	for k := range numKinds {
		fmt.Fprintf(&b, " %s |", k)
	}
	b.WriteString("\n| --- |" + strings.Repeat(" ---: |", int(numKinds)) + "\n")
	for st := other + 1; st < numSteps; st++ {
		fmt.Fprintf(&b, "| %s |", st)
		for k := range numKinds {
			switch p := (pair{k, st}); {
			case means[p], s.hits[p] > 0:
				fmt.Fprintf(&b, " %d |", s.hits[p])
			default:
				b.WriteString(" – |")
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	return b.String()
}
