package scoring

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/population.golden anew; raise FormulasVersion with it")

// TestPopulationIsFixed scores a fixed simulated population under three models
// and compares score, parts, tier and P(alive) bit by bit with a stored file.
// A difference changes tiers that were published: raise FormulasVersion.
func TestPopulationIsFixed(t *testing.T) {
	const file = "testdata/population.golden"
	models := []*Model{
		Default(),
		edit(t, "mbg_nbd\n", "bg_nbd\n", "alpha_days: 43.28", "alpha_days: 5.5", "discount_periods: 4", "discount_periods: 12"),
		edit(t, "measure: contribution", "measure: {contribution: 0.6, rfm.weighted: 0.4, clv.predicted: 0.0005}"),
	}
	var got bytes.Buffer
	fmt.Fprintf(&got, "# formulas version %d: model, customer, score, parts, tier, P(alive) as bits\n", FormulasVersion)
	r := rand.New(rand.NewPCG(2026, 1))
	for i := range 300 {
		s := random(r)
		for k, m := range models {
			measure := m.Measure(&s)
			fmt.Fprintf(&got, "%d %d %d", k, i, measure.Score)
			for _, p := range measure.Parts[:measure.N] {
				fmt.Fprintf(&got, " %d", p.Value)
			}
			var v figures
			m.evaluate(&s, &v)
			fmt.Fprintf(&got, " %d %016x\n", m.Decide(-1, &s, measure.Score), math.Float64bits(v.alive))
		}
	}
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	g, w := strings.Split(got.String(), "\n"), strings.Split(string(want), "\n")
	if len(g) != len(w) {
		t.Fatalf("%d lines, want %d", len(g), len(w))
	}
	for i := range g {
		if g[i] != w[i] {
			t.Errorf("line %d is\n%s\nwant\n%s", i+1, g[i], w[i])
		}
	}
}

func TestPopulationIsFixedWithoutFMA(t *testing.T) {
	if os.Getenv("SCORING_CHILD") != "" {
		t.Skip("this is the child")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestPopulationIsFixed$", "-test.v")
	cmd.Env = append(os.Environ(), "SCORING_CHILD=1", "GODEBUG=cpu.fma=off")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestPopulationIsFixed") {
		t.Errorf("with cpu.fma=off: %v\n%s", err, out)
	}
}
