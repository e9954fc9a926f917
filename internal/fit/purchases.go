package fit

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/tierstream/tierstream/internal/scoring/btyd"
)

// Use says when the prior on drop-out is used.
type Use string

// The uses.
const (
	// WhenDegenerate fits without it first, and with it only where the data alone
	// have no best parameters. It is the default: where they have, a prior would
	// only move the estimate, and nobody else's figures could be compared.
	WhenDegenerate Use = "auto"
	Never          Use = "never"
	Always         Use = "always"
)

// Options say how to fit.
type Options struct {
	Prior Use // "" is WhenDegenerate
	// Progress is told of each step of a long fit. May be nil.
	Progress func(string)
}

// Erlang families have a shape k that is whole, and tried one by one.
const maxErlang = 6

// Purchases fits a family of [btyd.Families]. k is the Erlang shape of those
// that have one (0: the best of 1 to 6), else 0. Times may be in any unit; the
// parameters come out in it.
//
// It needs customers who bought again, and some who differ: there are errors for
// what cannot be fitted, and [DegenerateError] and [ConvergenceError] for what
// did not come to an end.
func Purchases(family btyd.Family, k int, data []Observation, o Options) (*Fit, error) {
	if slices.Contains(family.Parameters, "k") {
		if k != 0 {
			return regular(family, k, data, o)
		}
		var best *Fit
		for k := 1; k <= maxErlang; k++ {
			f, err := regular(family, k, data, o)
			if err != nil {
				return nil, err
			}
			if best != nil && f.LogLikelihood <= best.LogLikelihood {
				break // it has one maximum in k
			}
			best = f
		}
		return best, nil
	}
	if k != 0 {
		return nil, fmt.Errorf("%s has no Erlang shape k", family.Name)
	}
	return purchases(family.Name, family.Parameters, family.New, data, o)
}

// regular fits a family for one shape.
func regular(family btyd.Family, k int, data []Observation, o Options) (*Fit, error) {
	f, err := purchases(fmt.Sprintf("%s-%d", family.Name, k), family.Parameters[1:], func(p ...float64) (btyd.Model, error) {
		return family.New(append([]float64{float64(k)}, p...)...)
	}, data, o)
	if err != nil {
		return nil, err
	}
	f.Family = family.Name
	f.Parameters = slices.Insert(f.Parameters, 0, Parameter{Name: "k", Value: float64(k)})
	return f, nil
}

func purchases(name string, names []string, model func(...float64) (btyd.Model, error), data []Observation, o Options) (*Fit, error) {
	s := summed(data)
	if err := s.check(len(names)); err != nil {
		return nil, fmt.Errorf("fitting %s: %w", name, err)
	}
	m := &problem{family: name, names: names}
	m.value = func(p []float64) float64 {
		fitted, err := model(p...)
		if err != nil {
			return math.Inf(-1) // out of range; the walls are inside it
		}
		sum := 0.0
		for i := range data {
			sum += data[i].Customers * fitted.LogLikelihood(data[i].History)
		}
		return sum
	}
	if fitted, err := model(ones(len(names))...); err == nil {
		for i := range data {
			if err := fitted.Check(data[i].History); err != nil {
				return nil, fmt.Errorf("fitting %s: %w", name, err)
			}
		}
	}
	start(m, &s)
	prior := priorOf(names)
	if o.Prior == Always {
		if prior == nil {
			return nil, fmt.Errorf("fitting %s: nobody drops out of it, so there is no prior on drop-out", name)
		}
		m.prior = prior
	}
	f, err := m.solve(o.Progress)
	var bad *DegenerateError
	if errors.As(err, &bad) && m.prior == nil && prior != nil && (o.Prior == WhenDegenerate || o.Prior == "") {
		if o.Progress != nil {
			o.Progress(bad.Error())
		}
		m.prior = prior
		if f, err = m.solve(o.Progress); err == nil {
			f.Degenerate = bad.How
		}
	}
	if err != nil {
		return nil, err
	}
	f.Customers, f.Groups = int(s.customers), len(data)
	return f, nil
}

func ones(n int) []float64 { return slices.Repeat([]float64{1}, n) }

// totals are those of a cohort.
type totals struct {
	customers, repeats, time, oldest float64
	histories                        int
}

func summed(data []Observation) (s totals) {
	for _, d := range data {
		s.customers += d.Customers
		s.repeats += d.Customers * d.Frequency
		s.time += d.Customers * d.Age
		s.oldest = max(s.oldest, d.Age)
	}
	s.histories = len(data)
	return s
}

// check refuses what has no maximum whatever the optimizer does.
func (s *totals) check(parameters int) error {
	switch {
	case s.customers == 0:
		return errNothing
	case s.oldest == 0:
		return fmt.Errorf("the observation ends on the day of the first purchases: all %.0f customers are of age 0", s.customers)
	case s.repeats == 0:
		return fmt.Errorf("none of %.0f customers bought twice: how often they buy, and whether they leave, cannot be told apart", s.customers)
	case s.histories <= parameters:
		return fmt.Errorf("%.0f customers with %d different histories cannot determine %d parameters", s.customers, s.histories, parameters)
	}
	return nil
}

// start chooses scales and starting points by the names of the parameters:
// alpha so that the population buys as often as it did, times relative to the
// greatest age.
func start(m *problem, s *totals) {
	every := s.time / s.repeats // mean time between purchases
	at := map[string][]float64{
		"r": {0.5, 1.5, 0.2}, "a": {0.5, 1, 0.1}, "b": {1.5, 5, 0.5},
		"s": {0.5, 1.5, 0.2}, "alpha": {0.5 * every, 1.5 * every, 0.2 * every},
		"beta": {0.5 * s.oldest, 2 * s.oldest, 0.1 * s.oldest},
	}
	scales := map[string]float64{"alpha": s.oldest, "beta": s.oldest}
	// A lifetime of a thousand times of what was seen is none; and the likelihood of
	// the Pareto/NBD takes ever longer on the way there.
	bounds := map[string]float64{"beta": 7}
	if slices.Contains(m.names, "gamma") { // BG/BB: alpha and beta are of a probability
		at = map[string][]float64{"alpha": {1, 0.5, 2}, "beta": {1, 1, 2}, "gamma": {0.5, 1, 0.2}, "delta": {2, 3, 1}}
		scales, bounds = nil, nil
	}
	for i := range 3 {
		var theta []float64
		for _, name := range m.names {
			scale := 1.0
			if v, ok := scales[name]; ok {
				scale = v
			}
			if i == 0 {
				m.scale = append(m.scale, scale)
				limit := float64(farthest)
				if v, ok := bounds[name]; ok {
					limit = v
				}
				m.bound = append(m.bound, limit)
			}
			theta = append(theta, math.Log(at[name][i]/scale))
		}
		m.starts = append(m.starts, theta)
	}
}

// priorOf is the prior of a family on how customers leave; nil where they do not.
//
// The logarithms of the two drop-out parameters are normal around those that the
// public logs have been fitted with (a about 0.8, b about 2.2; s about 0.6 and
// beta a quarter of the time observed), with a standard deviation of 1: half of all companies
// are expected within a factor of two, 95 % within one of seven. The purchase rate needs no
// prior: what is degenerate is that nobody seems to leave.
func priorOf(names []string) func(theta []float64) float64 {
	center := map[string]float64{"a": math.Log(0.8), "b": math.Log(2.2), "s": math.Log(0.6), "beta": math.Log(0.25)}
	var index []int
	for i, n := range names {
		if _, ok := center[n]; ok {
			index = append(index, i)
		}
	}
	if len(index) != 2 || slices.Contains(names, "gamma") {
		return nil
	}
	return func(theta []float64) float64 {
		sum := 0.0
		for _, i := range index {
			d := theta[i] - center[names[i]]
			sum -= d * d / 2
		}
		return sum
	}
}

// Spending is what a customer's repeat purchases were worth: how many, and
// their mean value in any unit.
type Spending struct{ Purchases, Mean float64 }

// Spend fits the Gamma-Gamma model to customers with repeat purchases of a value.
// Customers without any say nothing, and are left out.
func Spend(data []Spending, o Options) (*Fit, error) {
	const name = "Gamma-Gamma"
	n, total := 0.0, 0.0
	different := map[Spending]bool{}
	for i, d := range data {
		switch {
		case d.Purchases == 0:
			continue
		case !(d.Purchases > 0) || math.IsInf(d.Purchases, 0):
			return nil, fmt.Errorf("fitting %s: customer %d: %v purchases", name, i+1, d.Purchases)
		case !(d.Mean > 0) || math.IsInf(d.Mean, 0):
			return nil, fmt.Errorf("fitting %s: customer %d: a mean value of %v: a gamma distribution knows only values above zero", name, i+1, d.Mean)
		}
		n++
		total += d.Mean
		different[d] = true
	}
	names := []string{"p", "q", "v"}
	switch {
	case n == 0:
		return nil, fmt.Errorf("fitting %s: nobody has a repeat purchase with a value", name)
	case len(different) <= len(names):
		return nil, fmt.Errorf("fitting %s: %.0f customers with %d different values cannot determine %d parameters", name, n, len(different), len(names))
	}
	mean := total / n
	m := &problem{family: name, names: names, scale: []float64{1, 1, mean}, bound: []float64{farthest, farthest, farthest}}
	m.value = func(p []float64) float64 {
		g, err := btyd.NewGammaGamma(p[0], p[1], p[2])
		if err != nil {
			return math.Inf(-1)
		}
		sum := 0.0
		for _, d := range data {
			if d.Purchases > 0 {
				sum += g.LogLikelihood(d.Purchases, d.Mean)
			}
		}
		return sum
	}
	for _, s := range [][3]float64{{5, 4, 0.6}, {2, 3, 1}, {10, 2.5, 0.15}} {
		m.starts = append(m.starts, []float64{math.Log(s[0]), math.Log(s[1]), math.Log(s[2])})
	}
	f, err := m.solve(o.Progress)
	if err != nil {
		// There is no prior to recommend: say what it means instead.
		return nil, fmt.Errorf("%s", strings.TrimSuffix(err.Error(), "; use the prior"))
	}
	f.Customers, f.Groups = int(n), len(different)
	if q := f.Parameters[1].Value; q <= 1 {
		return nil, fmt.Errorf("fitting %s: q is %.4g: up to 1 the population has no mean value", name, q)
	}
	return f, nil
}
