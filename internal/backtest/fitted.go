package backtest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tierstream/tierstream/internal/fit"
	"github.com/tierstream/tierstream/internal/scoring/btyd"
)

// Fitted fits a family of package btyd by maximum likelihood, with the prior
// where the data alone have no best parameters. BG/BB is none of them: it counts
// opportunities, and a log has none.
func Fitted(family string) (Predictor, error) {
	f, ok := btyd.FamilyOf(family)
	if !ok || family == "BG/BB" {
		var names []string
		for _, f := range btyd.Families() {
			names = append(names, f.Name)
		}
		names = slices.DeleteFunc(names, func(n string) bool { return n == "BG/BB" })
		return Predictor{}, fmt.Errorf("no model %q: want one of %s", family, strings.Join(names, ", "))
	}
	return Predictor{family, func(calibration []btyd.History) (Estimate, error) { return estimate(f, calibration) }}, nil
}

func estimate(family btyd.Family, calibration []btyd.History) (Estimate, error) {
	data, err := fit.Observe(calibration)
	if err != nil {
		return Estimate{}, err
	}
	found, err := fit.Purchases(family, 0, data, fit.Options{})
	if err != nil {
		return Estimate{}, err
	}
	m, err := found.Model()
	if err != nil {
		return Estimate{}, err
	}
	p, err := found.Predictor()
	if err != nil {
		return Estimate{}, err
	}
	var text []string
	for _, p := range found.Parameters {
		if p.SE > 0 {
			text = append(text, fmt.Sprintf("%s %.5g (±%.2g)", p.Name, p.Value, p.SE))
		} else {
			text = append(text, fmt.Sprintf("%s %.5g", p.Name, p.Value))
		}
	}
	e := Estimate{Predictor: p, Model: m, Parameters: strings.Join(text, ", "), LogLikelihood: &found.LogLikelihood}
	if found.Prior {
		e.Parameters += "; with the prior on drop-out"
		if found.Degenerate != "" {
			e.Parameters += ": " + found.Degenerate
		}
	}
	return e, nil
}
