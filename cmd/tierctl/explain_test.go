package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/scoring"
)

func TestFiguresAreExplained(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.history()

	golden(t, "explain.txt", w.run("explain", "ann", "--at", "2024-04-01", "--figure", "clv."))
	all := w.run("explain", "ann", "--at", "2024-04-01")
	// 49.90 and 100.00 are left of two orders; acquisition cost 12.00.
	contains(t, all, `(?m)^Purchases to come$`, `orders.average_minor\]\n.*\n    = 149.90 / 2\n    = 74.95 EUR`, `clv.historic_minor\]`, `Pfeifer and Carraway 2000`)

	// What is printed is what the value document holds.
	var doc struct{ Values scoring.Values }
	var lines []scoring.Line
	for args, into := range map[string]any{"customer": &doc, "explain": &lines} {
		if err := json.Unmarshal([]byte(w.run(args, "ann", "--at", "2024-04-01", "--json")), into); err != nil {
			t.Fatal(err)
		}
	}
	for figure, minor := range map[string]int64{"clv.total_minor": doc.Values.CLV.Total, "clv.markov_minor": doc.Values.CLV.Markov, "value.at_risk_minor": doc.Values.Value.AtRisk} {
		i := slices.IndexFunc(lines, func(l scoring.Line) bool { return l.Figure == figure })
		if want := event.FormatMoney(minor, "EUR"); i < 0 || lines[i].Value != want {
			t.Errorf("%s is not explained as %s", figure, want)
		}
	}
	if _, _, err := w.try("explain", "ann", "--figure", "luck"); err == nil || !strings.Contains(err.Error(), `"luck"`) {
		t.Errorf("a figure that is none: %v", err)
	}
}

func TestCalculators(t *testing.T) {
	for args, want := range map[string][]string{
		"calc cac --marketing 100000 --service 25000 --customers 1000 --value 500":                                    {`without service +100\n`, `with service +125\n`, `CAC ratio +0.25\n`, `LTV : CAC +4\n`},
		"calc roi --gain 300000 --cost 50000":                                                                         {`ROI +5\n`},
		"calc loss-value --a 3540 --b 1150":                                                                           {`loss value +5393.5\n`},
		"calc information-value --k 0.5 --chance 0.1,0.02 --cases 1000,500 --benefit 20,300 --asked 2000 --cost 0.75": {`information value +1000\n`},
	} {
		out, _, err := command(t, strings.Fields(args)...)
		if err != nil {
			t.Errorf("%s: %v", args, err)
		}
		contains(t, out, want...)
	}
	for args, want := range map[string]string{
		"calc roi --gain 1 --cost 0":                                    "a denominator is 0",
		"calc information-value --chance 0.1,0.2 --cases 1 --benefit 1": "2 chances, 1 cases and 1 benefits",
	} {
		if _, _, err := command(t, strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}
