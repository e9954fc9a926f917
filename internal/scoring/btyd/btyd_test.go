package btyd

import (
	"bufio"
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"
)

// evaluation is a line of testdata/golden.ndjson, which golden.py wrote, in the
// form that tierctl clv reads. The value has more digits than a float64.
type evaluation struct {
	Model  string                     `json:"model"`
	Params map[string]json.RawMessage `json:"params"`
	Inputs map[string]float64         `json:"inputs"`
	Output string                     `json:"output"`
	Value  float64                    `json:"value"`
}

func golden(t testing.TB, use func(line string, e *evaluation)) {
	t.Helper()
	f, err := os.Open("testdata/golden.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for lines := bufio.NewScanner(f); lines.Scan(); n++ {
		var e evaluation
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		use(lines.Text(), &e)
	}
	if n < 500 {
		t.Fatalf("only %d lines", n)
	}
}

func numbers(t testing.TB, raw map[string]json.RawMessage) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for name, v := range raw {
		var f float64
		if err := json.Unmarshal(v, &f); err != nil {
			t.Fatal(err)
		}
		out[name] = f
	}
	return out
}

func (e *evaluation) model(t testing.TB) Model {
	t.Helper()
	f, ok := FamilyOf(e.Model)
	if !ok {
		t.Fatalf("no model %s", e.Model)
	}
	p := numbers(t, e.Params)
	var ordered []float64
	for _, name := range f.Parameters {
		ordered = append(ordered, p[name])
	}
	m, err := f.New(ordered...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (e *evaluation) history() History {
	in := e.Inputs
	age := max(in["T"]+in["n"], in["t_x"]) // T or, of BG/BB, n; a crossing has neither
	return History{Frequency: in["x"], AgeAtLast: in["t_x"], Age: age, LogGaps: in["litt"]}
}

func (e *evaluation) evaluate(t testing.TB) float64 {
	t.Helper()
	in := e.Inputs
	if e.Model == "Gamma-Gamma" {
		p := numbers(t, e.Params)
		g, err := NewGammaGamma(p["p"], p["q"], p["v"])
		if err != nil {
			t.Fatal(err)
		}
		if e.Output == "log_likelihood" {
			return g.LogLikelihood(in["x"], in["mean_value"])
		}
		return g.Expected(in["x"], in["x"]*in["mean_value"])
	}
	m, h := e.model(t), e.history()
	if e.Output == "pmf" {
		return m.Probability(int(in["n"]), in["t"])
	}
	if err := m.Check(h); err != nil {
		t.Fatal(err)
	}
	horizon := in["t"] + in["n_future"]
	switch e.Output {
	case "log_likelihood":
		return m.LogLikelihood(h)
	case "p_alive":
		return m.Alive(h)
	case "conditional_expected_purchases", "expected_purchases_new_customer":
		return m.Expected(h, horizon)
	case "p_no_purchase":
		return m.NoPurchase(h, horizon)
	case "dert":
		return m.DERT(h, in["continuous_discount_per_unit"], math.Inf(1))
	case "T_at_crossing":
		return m.AliveUntil(h, in["p_alive_threshold"])
	}
	t.Fatalf("no output %s", e.Output)
	return 0
}

// Everything agrees with published forms, computed at high precision.
func TestModelsAgainstHighPrecision(t *testing.T) {
	worst := map[string]float64{}
	golden(t, func(line string, e *evaluation) {
		if strings.Contains(e.Model, "+") {
			return // the pair is the command's
		}
		got := e.evaluate(t)
		off := math.Abs(got-e.Value) / math.Abs(e.Value)
		if math.Abs(got-e.Value) < 1e-14 && math.Abs(e.Value) < 1e-14 { // ln of a probability of 1
			off = 0
		}
		key := e.Model + " " + e.Output
		worst[key] = max(worst[key], off)
		if !(off <= 1e-9) {
			t.Errorf("%s\nis %.17g, off by %.3g", line, got, off)
		}
	})
	for key, off := range worst {
		t.Logf("%-50s %.2g", key, off)
	}
}
