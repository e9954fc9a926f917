package fit

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"gonum.org/v1/gonum/mathext"

	"github.com/tierstream/tierstream/internal/scoring/btyd"
)

// A Predictor says how many purchases a customer of a history will make within
// t from now.
type Predictor interface {
	Expected(h btyd.History, t float64) float64
	// Probability is that of exactly n.
	Probability(h btyd.History, t float64, n int) float64
}

// Predictor is the fit as a predictor. BG/BB has none here: a holdout in
// opportunities is not what the others are compared on.
func (f *Fit) Predictor() (Predictor, error) { return NewPredictor(f.Family, f.Values()...) }

// NewPredictor makes a predictor of a family and its parameters.
func NewPredictor(family string, p ...float64) (Predictor, error) {
	known, ok := btyd.FamilyOf(family)
	if !ok {
		return nil, fmt.Errorf("%s is no model of purchases", family)
	}
	m, err := known.New(p...)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(family, "CNBD") && p[0] == 1 {
		family, p = strings.Replace(family, "CNBD", "NBD", 1), p[1:]
	}
	out := predictor{Model: m}
	switch family {
	case "NBD":
		// Given the history the rate is gamma (r+x, alpha+T).
		out.later = func(h btyd.History, _ float64, n int, t float64) (float64, error) {
			m, err := btyd.NewNBD(p[0]+h.Frequency, p[1]+h.Age)
			return probability(m, err, n, t)
		}
	case "Pareto/NBD":
		// Who is alive has forgotten nothing but when: rate gamma (r+x, alpha+T), drop-out rate gamma (s, beta+T).
		out.later = func(h btyd.History, alive float64, n int, t float64) (float64, error) {
			m, err := btyd.NewParetoNBD(p[0]+h.Frequency, p[1]+h.Age, p[2], p[3]+h.Age)
			v, err := probability(m, err, n, t)
			return alive * v, err
		}
	case "BG/NBD", "MBG/NBD":
		// Who is alive is like a new customer of a BG/NBD whose drop-out probability has passed the
		// chances of the past: beta (a, b+x), in the MBG/NBD one more.
		passed := 0.0
		if family == "MBG/NBD" {
			passed = 1
		}
		out.later = func(h btyd.History, alive float64, n int, t float64) (float64, error) {
			m, err := btyd.NewBGNBD(p[0]+h.Frequency, p[1]+h.Age, p[2], p[3]+h.Frequency+passed)
			v, err := probability(m, err, n, t)
			return alive * v, err
		}
	case "BG/CNBD", "MBG/CNBD":
		e := erlang{k: int(p[0]), r: p[1], alpha: p[2], a: p[3], b: p[4]}
		if family == "MBG/CNBD" {
			e.b++
		}
		out.later = func(h btyd.History, alive float64, n int, t float64) (float64, error) {
			return alive * e.probability(h, t, n), nil
		}
	default:
		return nil, fmt.Errorf("%s is not compared on a holdout", family)
	}
	return out, nil
}

// predictor adds the probabilities of numbers of purchases to a model.
type predictor struct {
	btyd.Model
	// later is the probability that the customer is alive and makes n purchases.
	later func(h btyd.History, alive float64, n int, t float64) (float64, error)
}

// Probability implements Predictor.
func (p predictor) Probability(h btyd.History, t float64, n int) float64 {
	alive := p.Alive(h)
	v, err := p.later(h, alive, n, t)
	if err != nil {
		return 0 // a history beyond the range of parameters: nobody has lived so long
	}
	if n == 0 {
		v += 1 - alive
	}
	return v
}

// probability is that of a model just made, if it could be made.
func probability(m btyd.Model, err error, n int, t float64) (float64, error) {
	if err != nil {
		return 0, err
	}
	return m.Probability(n, t), nil
}

// erlang is a BG/CNBD-k for who is alive; b counts the chances to leave that
// were passed before any repeat purchase.
type erlang struct {
	k              int
	r, alpha, a, b float64
}

// probability of n purchases within t, given that the customer is alive. Stages passed
// since the last purchase, j < k, weigh (R)_j/j!·yʲ with R = r+kx and
// y = (T−t_x)/(alpha+T); given j, the stages to come are negative binomial with shape R+j
// and z = t/(alpha+T+t). n purchases are nk−j of them or more, with the last chance to leave taken, or
// less than (n+1)k−j, with it passed.
func (e *erlang) probability(h btyd.History, t float64, n int) float64 {
	R, y := e.r+float64(e.k)*h.Frequency, (h.Age-h.AgeAtLast)/(e.alpha+h.Age)
	z := t / (e.alpha + h.Age + t)
	B := e.b + h.Frequency
	sum, total, weight := 0.0, 0.0, 1.0
	for j := range e.k {
		if j > 0 {
			weight *= (R + float64(j) - 1) / float64(j) * y
		}
		atLeast := func(stages int) float64 {
			if stages <= 0 {
				return 1
			}
			return mathext.RegIncBeta(float64(stages), R+float64(j), z)
		}
		next := atLeast((n+1)*e.k - j)
		p := 1 - next
		if n > 0 {
			here := atLeast(n*e.k - j)
			kept := math.Exp(lnRising(B, n-1) - lnRising(e.a+B, n-1))
			q := e.a / (e.a + B + float64(n-1))
			p = kept * (q*here + (1-q)*(here-next))
		}
		sum += weight * p
		total += weight
	}
	return sum / total
}

// lnRising is ln Γ(x+n) − ln Γ(x).
func lnRising(x float64, n int) float64 {
	over, _ := math.Lgamma(x + float64(n))
	under, _ := math.Lgamma(x)
	return over - under
}

// Naive predicts that a customer goes on as before: x/T·t purchases. Its
// probabilities are those of a rate that is gamma (x+½, T) distributed, what x
// purchases in T say without any knowledge of other customers (Jeffreys). A
// customer of age 0 is taken to be of Least.
type Naive struct {
	Least float64 // above 0
}

// Expected implements Predictor.
func (n Naive) Expected(h btyd.History, t float64) float64 {
	if h.Age == 0 {
		return 0
	}
	return h.Frequency / h.Age * t
}

// Probability implements Predictor.
func (n Naive) Probability(h btyd.History, t float64, count int) float64 {
	m, err := btyd.NewNBD(h.Frequency+0.5, max(h.Age, n.Least))
	if err != nil {
		return 0
	}
	return m.Probability(count, t)
}

// Score is how a predictor did on a holdout.
type Score struct {
	Customers         int
	Actual, Predicted float64 // purchases of all
	// MAE and RMSE are of a customer's number of purchases.
	MAE, RMSE float64
	// LogScore is the mean logarithm of the probability that was given to what happened: the
	// higher the better. A probability below 1e-12 counts as that.
	LogScore float64
}

// Bias is the relative error of the total.
func (s *Score) Bias() float64 { return s.Predicted/s.Actual - 1 }

// Evaluate scores a predictor: actual are the purchases within t of each history.
func Evaluate(p Predictor, histories []btyd.History, actual []int, t float64) (Score, error) {
	if len(histories) == 0 || len(histories) != len(actual) {
		return Score{}, fmt.Errorf("a holdout of %d histories and %d numbers of purchases", len(histories), len(actual))
	}
	if !(t > 0) {
		return Score{}, errors.New("a holdout of no time")
	}
	s := Score{Customers: len(histories)}
	for i, h := range histories {
		e := p.Expected(h, t)
		if math.IsNaN(e) || math.IsInf(e, 0) {
			return s, fmt.Errorf("customer %d is predicted to make %v purchases", i+1, e)
		}
		n := float64(actual[i])
		s.Actual += n
		s.Predicted += e
		s.MAE += math.Abs(e - n)
		s.RMSE += (e - n) * (e - n)
		s.LogScore += math.Log(max(p.Probability(h, t, actual[i]), 1e-12))
	}
	n := float64(s.Customers)
	s.MAE /= n
	s.RMSE = math.Sqrt(s.RMSE / n)
	s.LogScore /= n
	return s, nil
}

// WorseThan says in what a score is worse than a rival's: in the error of a
// customer, or in the probability given to what happened. Empty: in neither.
func (s *Score) WorseThan(name string, rival *Score) string {
	var in []string
	if s.MAE > rival.MAE*(1+1e-9) {
		in = append(in, fmt.Sprintf("MAE %.4f against %.4f", s.MAE, rival.MAE))
	}
	if s.LogScore < rival.LogScore-1e-9 {
		in = append(in, fmt.Sprintf("log score %.4f against %.4f", s.LogScore, rival.LogScore))
	}
	if in == nil {
		return ""
	}
	return "worse on the holdout than " + name + ": " + strings.Join(in, ", ")
}
