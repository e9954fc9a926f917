package fit_test

import (
	"math"
	"testing"

	"github.com/tierstream/tierstream/internal/cohort"
	"github.com/tierstream/tierstream/internal/fit"
	"github.com/tierstream/tierstream/internal/scoring/btyd"
)

// TestProbabilitiesAreOfTheModel: they sum to 1, their mean is Expected, and
// that of 0 is NoPurchase, which are computed otherwise.
func TestProbabilitiesAreOfTheModel(t *testing.T) {
	for _, c := range []struct {
		family string
		p      []float64
	}{
		{"NBD", []float64{0.42, 5.2}},
		{"BG/NBD", []float64{0.24, 4.4, 0.79, 2.4}},
		{"MBG/NBD", []float64{0.52, 6.2, 0.89, 1.6}},
		{"Pareto/NBD", []float64{0.55, 10.6, 0.61, 11.7}},
		{"MBG/CNBD", []float64{1, 0.52, 6.2, 0.89, 1.6}},
		{"BG/CNBD", []float64{2, 0.36, 1.13, 0.52, 2.8}},
		{"MBG/CNBD", []float64{3, 1.33, 2.8, 0.42, 0.79}},
	} {
		p, err := fit.NewPredictor(c.family, c.p...)
		if err != nil {
			t.Fatal(err)
		}
		family, _ := btyd.FamilyOf(c.family)
		m, err := family.New(c.p...)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range []btyd.History{{Age: 20}, {Frequency: 3, AgeAtLast: 18, Age: 20}, {Frequency: 3, AgeAtLast: 5, Age: 30}, {Frequency: 1, AgeAtLast: 2, Age: 2}} {
			sum, mean := 0.0, 0.0
			for n := range 400 {
				v := p.Probability(h, 25, n)
				if !(v >= 0 && v <= 1) {
					t.Fatalf("%s %+v: P(%d) = %v", c.family, h, n, v)
				}
				sum += v
				mean += float64(n) * v
			}
			want, none := m.Expected(h, 25), m.NoPurchase(h, 25)
			if math.Abs(sum-1) > 1e-8 || math.Abs(mean-want) > 1e-6*max(1, want) || math.Abs(p.Probability(h, 25, 0)-none) > 1e-9 {
				t.Errorf("%s %+v: Σ P = %.10f, mean %.8f, want %.8f; P(0) = %.10f, want %.10f", c.family, h, sum, mean, want, p.Probability(h, 25, 0), none)
			}
		}
	}
}

// TestHoldoutOfCDNOW: totals and errors that public libraries gave on the same
// holdout, for the models and for the naive rate.
func TestHoldoutOfCDNOW(t *testing.T) {
	all, cut := cdnow(t, "CDNOW_sample.txt")
	h, actual := histories(all, cut), holdout(all)
	for _, c := range []struct {
		family               string
		predicted, mae, rmse float64
	}{
		{"BG/NBD", 1653.4, .7855, 1.6080},
		{"MBG/NBD", 1576.7, .7648, 1.6072},
		{"Pareto/NBD", 1665.5, .7545, 1.6028},
		{"", 2930.1, 1.0237, 2.2119},
	} {
		var p fit.Predictor = fit.Naive{Least: 1. / 7}
		if c.family != "" {
			family, _ := btyd.FamilyOf(c.family)
			f, err := fit.Purchases(family, 0, observe(t, all, cut), fit.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if p, err = f.Predictor(); err != nil {
				t.Fatal(err)
			}
		}
		s, err := fit.Evaluate(p, h, actual, cut.Horizon())
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %+v", c.family, s)
		if s.Actual != 1882 || math.Abs(s.Predicted-c.predicted) > 0.06 || math.Abs(s.MAE-c.mae) > 0.00006 || math.Abs(s.RMSE-c.rmse) > 0.00006 {
			t.Errorf("%s: %+v, want %+v", c.family, s, c)
		}
	}
}

func holdout(all []cohort.Summary) []int {
	out := make([]int, len(all))
	for i := range all {
		out[i] = all[i].Holdout
	}
	return out
}

// TestWorseThan: a fit is worse when either figure is.
func TestWorseThan(t *testing.T) {
	a := fit.Score{MAE: 1, LogScore: -1}
	for _, c := range []struct {
		rival fit.Score
		want  string
	}{
		{a, ""},
		{fit.Score{MAE: 2, LogScore: -2}, ""},
		{fit.Score{MAE: 0.9, LogScore: -2}, "worse on the holdout than x: MAE 1.0000 against 0.9000"},
		{fit.Score{MAE: 2, LogScore: -0.5}, "worse on the holdout than x: log score -1.0000 against -0.5000"},
	} {
		if got := a.WorseThan("x", &c.rival); got != c.want {
			t.Errorf("%+v: %q, want %q", c.rival, got, c.want)
		}
	}
}
