// Package backtest asks models of repeat buying for a holdout that they have
// not seen, and shows how far they are off: beside each other, beside the naive
// rate x/T, and as a report that needs nothing but a browser.
package backtest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/tierstream/tierstream/internal/cohort"
	"github.com/tierstream/tierstream/internal/fit"
	"github.com/tierstream/tierstream/internal/scoring/btyd"
)

// A Predictor learns from the calibration.
type Predictor struct {
	Name string
	Fit  func(calibration []btyd.History) (Estimate, error)
}

// Estimate is what a predictor has learned.
type Estimate struct {
	fit.Predictor
	Model         btyd.Model // nil: it expects purchases, and knows no more
	Parameters    string     // for people; "" if there are none
	LogLikelihood *float64   // of the calibration; nil if there is no likelihood
}

// naive is the name of the naive rate.
const naive = "naive"

// Naive expects x/T·t purchases: what any model has to beat.
func Naive(unit cohort.Unit) Predictor {
	day := 1.0
	if unit == cohort.Weeks {
		day = 1.0 / 7
	}
	return Predictor{naive, func([]btyd.History) (Estimate, error) {
		return Estimate{Predictor: fit.Naive{Least: day}}, nil
	}}
}

// Result is how one predictor did.
type Result struct {
	Name          string   `json:"name"`
	Parameters    string   `json:"parameters,omitempty"`
	Error         string   `json:"error,omitempty"` // why there is no forecast; the rest is then empty
	LogLikelihood *float64 `json:"log_likelihood,omitempty"`

	Predicted float64  `json:"predicted"`      // total
	Bias      *float64 `json:"bias,omitempty"` // predicted/actual − 1; nil if nothing was bought
	MAE       float64  `json:"mae"`            // per customer, as is RMSE
	RMSE      float64  `json:"rmse"`
	// Correlation of predicted and actual over customers; nil where one of them
	// does not vary.
	Correlation *float64 `json:"correlation,omitempty"`
	// LogScore is the mean of ln P of each customer's number of purchases in the
	// holdout. Nearer to 0 is better.
	LogScore float64 `json:"log_score"`
	// ByFrequency is the mean forecast of each of the backtest's groups.
	ByFrequency []float64 `json:"by_frequency"`

	estimate Estimate
}

// Group is the customers with as many repeat purchases in the calibration.
type Group struct {
	X         string  `json:"x"` // 0 to 6, or 7+
	Customers int     `json:"customers"`
	Actual    float64 `json:"actual"` // mean purchases in the holdout
}

// groups is how many there are; the last takes all above.
const groups = 8

// Backtest is a holdout and what predictors made of it.
type Backtest struct {
	Source       string      `json:"source"`
	Unit         cohort.Unit `json:"unit"`
	Calibration  string      `json:"calibration_end"`
	End          string      `json:"observation_end"`
	Horizon      float64     `json:"horizon"` // in units
	Customers    int         `json:"customers"`
	RepeatBuyers int         `json:"repeat_buyers"`
	Actual       int         `json:"actual"` // purchases in the holdout
	Groups       []Group     `json:"groups"`
	Results      []Result    `json:"results"`

	cut       cohort.Cut
	customers []cohort.Summary
	histories []btyd.History
}

// Run fits each predictor on the calibration and compares it with the holdout.
// A predictor that cannot be fitted has an error in its result. tell is told what is
// being done.
func Run(ctx context.Context, source string, customers []cohort.Summary, cut cohort.Cut, predictors []Predictor, tell func(string)) (*Backtest, error) {
	if !cut.Split {
		return nil, errors.New("a backtest needs a holdout: say where the calibration ends")
	}
	b := &Backtest{
		Source: source, Unit: cut.Unit, Calibration: cohort.Date(cut.Calibration), End: cohort.Date(cut.End), Horizon: cut.Horizon(),
		Customers: len(customers), cut: cut, customers: customers, histories: make([]btyd.History, len(customers)),
	}
	for x := range groups {
		label := fmt.Sprint(x)
		if x == groups-1 {
			label += "+"
		}
		b.Groups = append(b.Groups, Group{X: label})
	}
	for i := range customers {
		s := &customers[i]
		b.histories[i] = history(s, &cut)
		b.Actual += s.Holdout
		if s.X > 0 {
			b.RepeatBuyers++
		}
		g := &b.Groups[min(s.X, groups-1)]
		g.Customers++
		g.Actual += float64(s.Holdout)
	}
	for i := range b.Groups {
		if g := &b.Groups[i]; g.Customers > 0 {
			g.Actual /= float64(g.Customers)
		}
	}
	if b.RepeatBuyers == 0 {
		return nil, fmt.Errorf("nobody of %d customers bought twice by %s: there is nothing to learn from", b.Customers, b.Calibration)
	}
	for _, p := range predictors {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		tell("fitting " + p.Name)
		began := time.Now()
		r, err := b.judge(p)
		if err != nil {
			tell(fmt.Sprintf("%s: %v", p.Name, err))
			r = Result{Name: p.Name, Error: err.Error()}
		}
		b.Results = append(b.Results, r)
		if took := time.Since(began); took > time.Second {
			tell(fmt.Sprintf("%s took %s", p.Name, took.Round(100*time.Millisecond)))
		}
	}
	return b, nil
}

// history is a summary in the terms of the models.
func history(s *cohort.Summary, cut *cohort.Cut) btyd.History {
	h := btyd.History{Frequency: float64(s.X), AgeAtLast: s.TX, Age: s.T}
	for i := 1; i <= s.X; i++ { // the first x+1 purchases are those of the calibration
		h.LogGaps += math.Log(cut.Span(s.Purchases[i-1], s.Purchases[i]))
	}
	return h
}

// judge fits a predictor and compares its forecast with the holdout.
func (b *Backtest) judge(p Predictor) (Result, error) {
	e, err := p.Fit(b.histories)
	if err != nil {
		return Result{}, err
	}
	actual := make([]int, len(b.customers))
	for i := range b.customers {
		actual[i] = b.customers[i].Holdout
	}
	score, err := fit.Evaluate(e, b.histories, actual, b.Horizon)
	if err != nil {
		return Result{}, err
	}
	r := Result{
		Name: p.Name, Parameters: e.Parameters, LogLikelihood: e.LogLikelihood,
		Predicted: score.Predicted, MAE: score.MAE, RMSE: score.RMSE, LogScore: score.LogScore,
		ByFrequency: make([]float64, groups), estimate: e,
	}
	if b.Actual > 0 {
		bias := score.Bias()
		r.Bias = &bias
	}
	// Deviations from the means.
	var own, theirs, both float64
	n := float64(b.Customers)
	for i, h := range b.histories {
		v := e.Expected(h, b.Horizon)
		r.ByFrequency[min(b.customers[i].X, groups-1)] += v
		x, y := v-score.Predicted/n, float64(actual[i])-score.Actual/n
		own, theirs, both = own+x*x, theirs+y*y, both+x*y
	}
	if own > 0 && theirs > 0 {
		c := both / math.Sqrt(own*theirs)
		r.Correlation = &c
	}
	for i, g := range b.Groups {
		if g.Customers > 0 {
			r.ByFrequency[i] /= float64(g.Customers)
		}
	}
	return r, nil
}
