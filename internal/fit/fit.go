// Package fit estimates the models of package btyd from what customers did, by
// maximum likelihood, and says how far the estimate can be trusted: standard
// errors, convergence, and a holdout. It also computes what else a population
// decides in a model: cut points, tier thresholds and clusters.
//
// Everything is deterministic: the same input gives the same result on the same
// machine. Bits may differ between machines, because an optimizer's do; what is
// fitted is written into a model, and read from there.
package fit

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/tierstream/tierstream/internal/scoring/btyd"
)

// Observation is a history, and how many customers have it.
type Observation struct {
	btyd.History
	Customers float64
}

// Observe groups customers of the same x, t_x and T, in ascending order of
// these: the likelihood of a cohort takes one evaluation per group. LogGaps of
// a group is the mean of its customers', which leaves every likelihood as it is.
func Observe(histories []btyd.History) ([]Observation, error) {
	for i, h := range histories {
		if err := h.Check(); err != nil {
			return nil, fmt.Errorf("customer %d: %w", i+1, err)
		}
	}
	sorted := slices.Clone(histories)
	slices.SortStableFunc(sorted, func(a, b btyd.History) int {
		switch {
		case a.Frequency != b.Frequency:
			return sign(a.Frequency - b.Frequency)
		case a.AgeAtLast != b.AgeAtLast:
			return sign(a.AgeAtLast - b.AgeAtLast)
		}
		return sign(a.Age - b.Age)
	})
	var out []Observation
	for _, h := range sorted {
		if n := len(out); n > 0 {
			last := &out[n-1]
			if last.Frequency == h.Frequency && last.AgeAtLast == h.AgeAtLast && last.Age == h.Age {
				last.LogGaps += (h.LogGaps - last.LogGaps) / (last.Customers + 1)
				last.Customers++
				continue
			}
		}
		out = append(out, Observation{h, 1})
	}
	return out, nil
}

func sign(d float64) int {
	switch {
	case d < 0:
		return -1
	case d > 0:
		return 1
	}
	return 0
}

// Parameter is an estimate.
type Parameter struct {
	Name  string // the literature's
	Value float64
	// SE is the standard error, from the curvature of the log likelihood (with a
	// prior: of the posterior) at the estimate. 0: the parameter was not estimated.
	SE float64
}

// Fit is the outcome of an estimation that converged.
type Fit struct {
	Family     string
	Parameters []Parameter // in the order of the family's

	// LogLikelihood of the data, without the prior.
	LogLikelihood float64
	// Prior tells that the prior on drop-out decided with the data. LogPrior is its
	// density, 0 at its greatest.
	Prior    bool
	LogPrior float64
	// Degenerate says why there is a prior, where nobody asked for one: how the
	// estimate from the data alone ran away. Empty: it did not, or was not tried.
	Degenerate string

	Customers   int
	Groups      int     // of equal histories
	Evaluations int     // of the likelihood of all
	Starts      int     // from where it was sought
	Agreeing    int     // starts that led to the same maximum, within 0.001 of the likelihood
	Decrement   float64 // how far the likelihood may be below its maximum, by gradient and curvature
}

// Values are those of the parameters.
func (f *Fit) Values() []float64 {
	v := make([]float64, len(f.Parameters))
	for i, p := range f.Parameters {
		v[i] = p.Value
	}
	return v
}

// Model is the fitted model of when customers buy. A fit of what they spend has
// none.
func (f *Fit) Model() (btyd.Model, error) {
	family, ok := btyd.FamilyOf(f.Family)
	if !ok {
		return nil, fmt.Errorf("%s is no model of purchases", f.Family)
	}
	return family.New(f.Values()...)
}

// A DegenerateError says that the likelihood has no maximum inside the range
// of parameters: it grows, ever more slowly, towards a model without drop-out
// or without differences between customers.
type DegenerateError struct {
	Family        string
	How           string
	LogLikelihood float64 // as far as it was followed
}

func (e *DegenerateError) Error() string {
	return fmt.Sprintf("fitting %s: the data have no best parameters: %s; use the prior", e.Family, e.How)
}

// A ConvergenceError says that no maximum was found that can be relied on.
type ConvergenceError struct {
	Family string
	How    string
}

func (e *ConvergenceError) Error() string {
	return fmt.Sprintf("fitting %s did not converge: %s", e.Family, e.How)
}

const (
	// A parameter further from its scale than a factor of e^farthest has run away.
	farthest = 14
	// What a maximum may lack of the likelihood by gradient and curvature.
	closeEnough = 1e-5
	// Starts agree whose likelihoods differ by no more.
	agreement = 1e-3
)

// problem is a function of logarithms of parameters to be maximized: a log
// likelihood, of parameters relative to scales.
type problem struct {
	family string
	names  []string
	scale  []float64 // of each parameter: theta = ln(value/scale)
	bound  []float64 // how far theta may be from 0
	starts [][]float64
	value  func(p []float64) float64     // log likelihood
	prior  func(theta []float64) float64 // log density; nil: none

	evaluations int
	p           []float64
}

// parameters are those at theta, in a slice that the next call overwrites.
func (m *problem) parameters(theta []float64) []float64 {
	m.p = m.p[:0]
	for i, v := range theta {
		m.p = append(m.p, m.scale[i]*math.Exp(v))
	}
	return m.p
}

// loss is minus the function, with a slope towards the range outside it.
func (m *problem) loss(theta []float64) float64 {
	m.evaluations++
	inside := slices.Clone(theta)
	wall := 0.0
	for i, v := range theta {
		if math.IsNaN(v) {
			return math.Inf(1)
		}
		inside[i] = min(max(v, -m.bound[i]-1), m.bound[i]+1)
		wall += (v - inside[i]) * (v - inside[i])
	}
	f := -m.value(m.parameters(inside)) + 100*wall
	if m.prior != nil {
		f -= m.prior(theta)
	}
	if math.IsNaN(f) {
		return math.Inf(1)
	}
	return f
}

// bend returns gradient and Hessian of loss at theta, where it is f0, by
// central differences. At this step the rounding of a sum of thousands and the
// higher derivatives each cost about a millionth of the curvature.
func (m *problem) bend(theta []float64, f0 float64) (g *mat.VecDense, h *mat.SymDense) {
	const step = 1e-3
	n := len(theta)
	g, h = mat.NewVecDense(n, nil), mat.NewSymDense(n, nil)
	at := slices.Clone(theta)
	f := func(i, j int, d float64) float64 { // i = j: one parameter moves
		at[i] = theta[i] + d
		at[j] = theta[j] + d
		v := m.loss(at)
		at[i], at[j] = theta[i], theta[j]
		return v
	}
	sum := make([]float64, n) // f(+i) + f(−i)
	for i := range n {
		up, down := f(i, i, step), f(i, i, -step)
		sum[i] = up + down
		g.SetVec(i, (up-down)/(2*step))
		h.SetSym(i, i, (sum[i]-2*f0)/(step*step))
		for j := range i {
			h.SetSym(i, j, (f(i, j, step)+f(i, j, -step)-sum[i]-sum[j]+2*f0)/(2*step*step))
		}
	}
	return g, h
}

// optimum is a place, and what is known of the function there.
type optimum struct {
	theta     []float64
	loss      float64
	decrement float64
	curvature *mat.Cholesky // nil: it is no maximum
}

// climb goes uphill from a start by Newton's steps, damped where the function
// is not like a paraboloid (Levenberg and Marquardt).
func (m *problem) climb(start []float64) optimum {
	const steps, longest = 100, 2 // a factor of 7 at a time
	at := optimum{theta: slices.Clone(start), loss: m.loss(start)}
	n := len(start)
	damping := 0.0
	for range steps {
		for i, v := range at.theta {
			if math.Abs(v) > m.bound[i] {
				return at
			}
		}
		g, h := m.bend(at.theta, at.loss)
		at.curvature, at.decrement = &mat.Cholesky{}, math.Inf(1)
		if at.curvature.Factorize(h) {
			var step mat.VecDense
			if at.curvature.SolveVecTo(&step, g) == nil {
				at.decrement = mat.Dot(&step, g) / 2
			}
			if at.decrement < closeEnough/100 {
				return at
			}
		} else {
			at.curvature = nil
		}
		moved := false
		for tries := 0; tries < 40 && !moved; tries++ {
			damped := mat.NewSymDense(n, nil)
			damped.CopySym(h)
			for i := range n {
				damped.SetSym(i, i, h.At(i, i)+damping)
			}
			var c mat.Cholesky
			var step mat.VecDense
			if c.Factorize(damped) && c.SolveVecTo(&step, g) == nil && mat.Norm(&step, math.Inf(1)) <= longest {
				next := slices.Clone(at.theta)
				for i := range next {
					next[i] -= step.AtVec(i)
				}
				if f := m.loss(next); f < at.loss {
					if at.loss-f < closeEnough/1000 {
						at.theta, at.loss = next, f
						return at // a slope that never ends, but leads nowhere
					}
					at.theta, at.loss, moved = next, f, true
					damping /= 10
					if damping < 1e-3 {
						damping = 0
					}
					break
				}
			}
			damping = max(10*damping, 1e-2)
		}
		if !moved {
			return at // nothing is higher, but for rounding
		}
	}
	return at
}

// solve finds the maximum from every start. The error is a DegenerateError or
// a ConvergenceError.
func (m *problem) solve(progress func(string)) (*Fit, error) {
	var found []optimum
	for i, s := range m.starts {
		o := m.climb(s)
		if progress != nil {
			progress(fmt.Sprintf("%s: start %d of %d, log likelihood %.3f", m.family, i+1, len(m.starts), -o.loss))
		}
		found = append(found, o)
	}
	best := slices.MinFunc(found, func(a, b optimum) int { return sign(a.loss - b.loss) })
	f := &Fit{Family: m.family, Evaluations: m.evaluations, Starts: len(found), Decrement: best.decrement}
	for _, o := range found {
		if o.loss-best.loss <= agreement {
			f.Agreeing++
		}
	}
	p := slices.Clone(m.parameters(best.theta))
	at := ""
	for i, name := range m.names {
		at += fmt.Sprintf(" %s %.6g", name, p[i])
	}
	for i, v := range best.theta {
		if math.Abs(v) > m.bound[i] {
			return nil, &DegenerateError{LogLikelihood: -best.loss, Family: m.family, How: fmt.Sprintf("%s runs away, at%s the log likelihood is %.3f and still grows", m.names[i], at, -best.loss)}
		}
	}
	if best.curvature == nil || best.curvature.Cond() > 1e10 {
		return nil, &DegenerateError{LogLikelihood: -best.loss, Family: m.family, How: fmt.Sprintf("around%s the log likelihood, %.3f, is flat", at, -best.loss)}
	}
	var covariance mat.SymDense
	if err := best.curvature.InverseTo(&covariance); err != nil {
		return nil, &DegenerateError{LogLikelihood: -best.loss, Family: m.family, How: fmt.Sprintf("around%s the log likelihood, %.3f, is flat", at, -best.loss)}
	}
	// A parameter whose logarithm is uncertain by so much that the factor is beyond 1,000 is
	// not determined by the data.
	for i := range p {
		if se := math.Sqrt(covariance.At(i, i)); se > math.Log(1000)/2 {
			return nil, &DegenerateError{LogLikelihood: -best.loss, Family: m.family, How: fmt.Sprintf("%s is undetermined: at%s the log likelihood is %.3f, and much the same at %.3g times %s", m.names[i], at, -best.loss, math.Exp(se), m.names[i])}
		}
	}
	if !(best.decrement < closeEnough) {
		return nil, &ConvergenceError{m.family, fmt.Sprintf("at%s the log likelihood, %.3f, may be %.2g below its maximum", at, -best.loss, best.decrement)}
	}
	if f.Agreeing < 2 {
		return nil, &ConvergenceError{m.family, fmt.Sprintf("of %d starts only one led to%s", len(found), at)}
	}
	for i, name := range m.names {
		// The error of a logarithm is that of the parameter relative to it.
		f.Parameters = append(f.Parameters, Parameter{name, p[i], p[i] * math.Sqrt(covariance.At(i, i))})
	}
	f.LogLikelihood = -best.loss
	if m.prior != nil {
		f.Prior, f.LogPrior = true, m.prior(best.theta)
		f.LogLikelihood -= f.LogPrior
	}
	return f, nil
}

// errNothing says what data no model can be fitted to.
var errNothing = errors.New("there are no customers")
