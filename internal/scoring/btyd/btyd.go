// Package btyd holds the "buy till you die" models of customers who buy without
// a contract: when they buy, whether they still do, and what they spend.
//
//	BG/NBD       Fader, Hardie, Lee 2005 (BetaGeometric)
//	MBG/NBD      Batislam, Denizel, Filiztekin 2007 (BetaGeometric)
//	BG/CNBD-k    Platzer, Reutterer 2016: regular timing (Erlang)
//	MBG/CNBD-k   the same
//	Pareto/NBD   Schmittlein, Morrison, Colombo 1987 (ParetoNBD)
//	NBD          Ehrenberg 1959: nobody leaves (NBD)
//	BG/BB        Fader, Hardie, Shang 2010: opportunities instead of time (BGBB)
//	Gamma-Gamma  Fader, Hardie 2013: what a purchase is worth (GammaGamma)
//
// Times are in any one unit, that of the parameters. Models are immutable and
// safe for concurrent use. Parameters are checked once, by the constructor, and
// histories by Check: for those that it accepts, no method returns NaN, and an
// infinity only where its comment says so. Methods of one customer allocate
// nothing. All arithmetic is that of dmath, the same bits on every machine.
package btyd

import (
	"errors"
	"fmt"
	"math"
)

// History is what a model knows of one customer.
type History struct {
	Frequency float64 // x: repeat purchases, whole. 0 if there was none after the first
	AgeAtLast float64 // t_x: from the first to the last purchase. 0 if Frequency is 0
	Age       float64 // T: from the first purchase until now
	LogGaps   float64 // sum of ln of the times between purchases ("litt"); only the likelihood of regular timing reads it
}

// Model is a fitted model of when customers buy and leave.
type Model interface {
	// Name is the family's.
	Name() string

	// Check says why the model has no answer for a history: nil if it has.
	Check(h History) error

	// LogLikelihood is ln of the probability density of the history.
	LogLikelihood(h History) float64

	// Alive is P(alive at Age), for BG/BB at the opportunity after it.
	Alive(h History) float64

	// Expected is the number of purchases expected in (Age, Age+t]. Of the
	// empty history it is E[X(t)], what a new customer will buy again within t.
	Expected(h History, t float64) float64

	// Probability is P(X(t) = n): of n repeat purchases within t of the first.
	Probability(n int, t float64) float64

	// NoPurchase is the probability of no purchase in (Age, Age+t].
	NoPurchase(h History, t float64) float64

	// DERT are the discounted expected residual transactions: each purchase
	// expected in (Age, Age+horizon] counts exp(−rate·s), s after Age. The
	// horizon may be +Inf; rate > 0, per unit of time.
	DERT(h History, rate, horizon float64) float64

	// AliveUntil is the least Age ≥ AgeAtLast at which Alive falls to p or
	// below, 0 < p < 1, if nothing is bought: +Inf if it never does.
	AliveUntil(h History, p float64) float64
}

// Family is a kind of model, whatever its parameters.
type Family struct {
	Name       string
	Parameters []string // in New's order, by the literature's names
	build      func(p []float64) (Model, error)
}

// New makes a model of the family: an error names the parameter that is not a
// number in the range of parameters.
func (f Family) New(p ...float64) (Model, error) {
	if len(p) != len(f.Parameters) {
		return nil, fmt.Errorf("%s has the %d parameters %v, not %d", f.Name, len(f.Parameters), f.Parameters, len(p))
	}
	return f.build(p)
}

// Families are all of them, the default first.
func Families() []Family {
	betaGeometric := []string{"r", "alpha", "a", "b"}
	erlang := []string{"k", "r", "alpha", "a", "b"}
	return []Family{
		{"MBG/NBD", betaGeometric, func(p []float64) (Model, error) { return orNil(NewMBGNBD(p[0], p[1], p[2], p[3])) }},
		{"BG/NBD", betaGeometric, func(p []float64) (Model, error) { return orNil(NewBGNBD(p[0], p[1], p[2], p[3])) }},
		{"Pareto/NBD", []string{"r", "alpha", "s", "beta"}, func(p []float64) (Model, error) { return orNil(NewParetoNBD(p[0], p[1], p[2], p[3])) }},
		{"NBD", []string{"r", "alpha"}, func(p []float64) (Model, error) { return orNil(NewNBD(p[0], p[1])) }},
		{"BG/BB", []string{"alpha", "beta", "gamma", "delta"}, func(p []float64) (Model, error) { return orNil(NewBGBB(p[0], p[1], p[2], p[3])) }},
		{"MBG/CNBD", erlang, func(p []float64) (Model, error) { return NewMBGCNBD(p[0], p[1], p[2], p[3], p[4]) }},
		{"BG/CNBD", erlang, func(p []float64) (Model, error) { return NewBGCNBD(p[0], p[1], p[2], p[3], p[4]) }},
	}
}

// FamilyOf is the family of that name.
func FamilyOf(name string) (Family, bool) {
	for _, f := range Families() {
		if f.Name == name {
			return f, true
		}
	}
	return Family{}, false
}

// orNil makes the nil pointer of a refused constructor a nil Model.
func orNil[M Model](m M, err error) (Model, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}

// The range of parameters. Fits without an optimum run to infinity; they end
// here.
const (
	minParameter = 1e-9
	maxParameter = 1e9
)

// positive checks parameters, given by name and value in turn.
func positive(model string, named ...any) error {
	for i := 0; i < len(named); i += 2 {
		if v := named[i+1].(float64); !(v >= minParameter && v <= maxParameter) {
			return fmt.Errorf("%s: parameter %s is %v: want %v to %v", model, named[i], v, minParameter, maxParameter)
		}
	}
	return nil
}

// The range of histories, and of the times asked for.
const (
	maxFrequency = 1e9
	maxAge       = 1e9
)

// Check says why h is no history.
func (h History) Check() error {
	x, tx, T := h.Frequency, h.AgeAtLast, h.Age
	switch {
	case !(x >= 0 && x <= maxFrequency) || x != math.Floor(x):
		return fmt.Errorf("x is %v: want a whole number, 0 to %v", x, maxFrequency)
	case !(tx >= 0 && tx <= maxAge):
		return fmt.Errorf("t_x is %v: want 0 to %v", tx, maxAge)
	case !(T >= 0 && T <= maxAge):
		return fmt.Errorf("T is %v: want 0 to %v", T, maxAge)
	case tx > T:
		return fmt.Errorf("t_x is %v and T is %v: the last purchase cannot lie after now", tx, T)
	case x == 0 && tx != 0:
		return fmt.Errorf("x is 0 and t_x is %v: without a repeat purchase t_x is 0", tx)
	case math.IsNaN(h.LogGaps) || math.IsInf(h.LogGaps, 0):
		return errors.New("litt, the sum of the logarithms of the times between purchases, is not finite")
	}
	return nil
}

// CheckTime says why t cannot be a horizon.
func CheckTime(t float64) error {
	if !(t >= 0 && t <= maxAge) {
		return fmt.Errorf("want a time of 0 to %v, not %v", maxAge, t)
	}
	return nil
}
