package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/tierstream/tierstream/internal/scoring"
)

// demoBase is a base model in EUR, as a file.
func demoBase(t *testing.T) string {
	t.Helper()
	text, err := scoring.Init(scoring.InitOptions{Name: "demo-1", Currency: "EUR", TypicalOrderMinor: 3000})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "base.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// people are the customers of clockwork, as a model's commands see them.
func people(t *testing.T, m *scoring.Model) []scoring.Summary {
	t.Helper()
	flags := logFlags{File: "-", Unit: "day", Period: "day", Zero: "ignore"}
	all, err := flags.population(t.Context(), &terminal{in: strings.NewReader(clockwork()), err: io.Discard}, m)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestCalibrateDividesThePopulation: fifths by the cut points, tiers by the
// shares, each of those that the preview says.
func TestCalibrateDividesThePopulation(t *testing.T) {
	base := demoBase(t)
	out, said, err := offline(t, clockwork(), "calibrate", "-", "--base", base, "--tiers", "50,30,15,5")
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	m, err := scoring.Parse([]byte(out))
	if err != nil {
		t.Fatal(err)
	}
	old, err := scoring.Parse(mustRead(t, base))
	if err != nil {
		t.Fatal(err)
	}
	all := people(t, m)
	if len(all) != 60 {
		t.Fatalf("%d customers", len(all))
	}
	tiers := make([]int, 4)
	var f, money [6]int
	moved := 0
	for i := range all {
		v := m.Values(&all[i])
		f[v.RFM.F]++
		money[v.RFM.M]++
		tier := m.Decide(-1, &all[i], m.Measure(&all[i]).Score)
		tiers[tier]++
		if tier != old.Decide(-1, &all[i], old.Measure(&all[i]).Score) {
			moved++
		}
	}
	for i, want := range []int{30, 18, 9, 3} {
		if d := tiers[i] - want; d < -3 || d > 3 { // equal scores are not torn apart
			t.Errorf("tiers of %v, want 30, 18, 9, 3", tiers)
		}
	}
	for i := 1; i <= 5; i++ {
		if d := money[i] - 12; d < -1 || d > 1 {
			t.Errorf("M scores of %v customers, want 12 each", money[1:])
		}
		if f[i] == 0 {
			t.Errorf("F scores of %v customers: nobody scores %d", f[1:], i)
		}
	}
	if want := strconv.Itoa(moved) + " of 60 customers are in another tier"; !strings.Contains(said, want) {
		t.Errorf("want %q, said %s", want, said)
	}
	shuffled := strings.Split(strings.TrimSpace(clockwork()), "\n")
	for i, j := 1, len(shuffled)-1; i < j; i, j = i+1, j-1 {
		shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
	}
	again, _, err := offline(t, strings.Join(shuffled, "\n"), "calibrate", "-", "--base", base, "--tiers", "50,30,15,5")
	if err != nil || again != out {
		t.Errorf("rows in another order give another model: %v", err)
	}
	kept, _, err := offline(t, clockwork(), "calibrate", "-", "--base", base, "--tiers", "50,30,15,5", "--keep-cuts")
	if err != nil || !strings.Contains(kept, "recency_days: [30, 60, 90, 180]") {
		t.Errorf("--keep-cuts: %v", err)
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSegmentsAreAssignedByTheModel: as many customers have a cluster's
// centroid nearest as the command counted.
func TestSegmentsAreAssignedByTheModel(t *testing.T) {
	args := []string{"segment", "kmeans", "-", "--base", demoBase(t), "--k", "3", "--seed", "5"}
	out, said, err := offline(t, clockwork(), args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	m, err := scoring.Parse([]byte(out))
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[string]int{}
	all := people(t, m)
	for i := range all {
		sizes[m.Values(&all[i]).RFM.Cluster]++
	}
	rows := regexp.MustCompile(`(?m)^ +(c\d) +(\d+) `).FindAllStringSubmatch(said, -1)
	if len(rows) != 3 || len(sizes) != 3 {
		t.Fatalf("clusters %v, said %s", sizes, said)
	}
	for _, r := range rows {
		if n, _ := strconv.Atoi(r[2]); n == 0 || sizes[r[1]] != n {
			t.Errorf("%s has %s customers, the model finds %d", r[1], r[2], sizes[r[1]])
		}
	}
	if again, _, err := offline(t, clockwork(), args...); err != nil || again != out {
		t.Errorf("the same seed gives another model: %v", err)
	}
}

// TestPopulationsNameBadInput, and nothing is written.
func TestPopulationsNameBadInput(t *testing.T) {
	base := demoBase(t)
	const head = "customer,date,value\n"
	for _, c := range []struct {
		log, want string
		args      []string
	}{
		{"", "the log is empty", []string{"calibrate", "-", "--base", base}},
		{head, "no purchases", []string{"calibrate", "-", "--base", base}},
		{head + "a,2026-01-01,0\n", "nobody has an order", []string{"calibrate", "-", "--base", base}},
		{head + "a,2026-01-01,-3\n", "line 2: value -3", []string{"calibrate", "-", "--base", base}},
		{head + "a,2026-01-01,5\n", "too many customers have the score", []string{"calibrate", "-", "--base", base, "--tiers", "50,30,15,5"}},
		{head + "a,2026-01-01,5\n", "2 shares for the 4 tiers", []string{"calibrate", "-", "--base", base, "--tiers", "50,50"}},
		{head + "a,2026-01-01,5\n", "a share of 0", []string{"calibrate", "-", "--base", base, "--tiers", "50,30,15,0"}},
		{head + "a,2026-01-01,5\n", "--base: missing", []string{"calibrate", "-"}},
		{head + "a,2026-01-01,5\n", "base model's currency is EUR", []string{"calibrate", "-", "--base", base, "--currency", "USD"}},
		{head + "a,2026-01-01,5\n", "know only days", []string{"calibrate", "-", "--base", base, "--unit", "week"}},
		{eventOf("1", "a", "USD"), "nobody has an order", []string{"calibrate", "-", "--base", base}},
		{head + "a,2026-01-01,5\n", "cannot make 5 clusters", []string{"segment", "kmeans", "-", "--base", base}},
		{head + "a,2026-01-01,5\n", "want 1 to 32", []string{"segment", "kmeans", "-", "--base", base, "-k", "0"}},
	} {
		out, said, err := offline(t, c.log, c.args...)
		if err == nil || !strings.Contains(err.Error(), c.want) || out != "" {
			t.Errorf("%q %v: %v, want %q; wrote %q\n%s", c.log, c.args, err, c.want, out, said)
		}
	}
}
