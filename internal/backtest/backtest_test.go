package backtest

import (
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/tierstream/tierstream/internal/cohort"
	"github.com/tierstream/tierstream/internal/fit"
	"github.com/tierstream/tierstream/internal/scoring/btyd"
	"github.com/tierstream/tierstream/internal/testenv"
)

func open(t *testing.T, name string) io.Reader {
	t.Helper()
	f, err := os.Open(filepath.Join(testenv.DataDir(t), filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("no data set %s: %v", name, err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func run(t *testing.T, in io.Reader, o cohort.Options, unit cohort.Unit, calibration, end string, predictors ...Predictor) *Backtest {
	t.Helper()
	log, err := cohort.Read(in, o)
	if err != nil {
		t.Fatal(err)
	}
	cut := cohort.Cut{Split: true, Unit: unit}
	if cut.Calibration, err = cohort.ParseDate(calibration); err != nil {
		t.Fatal(err)
	}
	if cut.End, err = cohort.ParseDate(end); err != nil {
		t.Fatal(err)
	}
	customers, err := log.Summaries(cut)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Run(t.Context(), t.Name(), customers, cut, predictors, func(s string) { t.Log(s) })
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestNaiveBaselines: what x/T·t gives on the public logs, which any model has
// to beat. The figures were computed outside this repository.
func TestNaiveBaselines(t *testing.T) {
	for _, c := range []struct {
		name              string
		in                func(t *testing.T) io.Reader
		o                 cohort.Options
		unit              cohort.Unit
		cut, end          string
		customers, actual int
		want              [4]float64 // predicted, MAE, RMSE, correlation
	}{
		{"CDNOW sample", file("cdnow/CDNOW_sample.txt"), cohort.Options{CountZero: true}, cohort.Weeks, "1997-09-30", "1998-06-30", 2_357, 1_882,
			[4]float64{2930.1, 1.0237, 2.2119, .5839}},
		{"CDNOW master", file("cdnow/CDNOW_master.txt"), cohort.Options{CountZero: true}, cohort.Weeks, "1997-09-30", "1998-06-30", 23_570, 19_684,
			[4]float64{29010.7, 1.0381, 2.1582, .6510}},
		{"grocery", file("grocery/grocery_elog.csv"), cohort.Options{}, cohort.Weeks, "2006-12-31", "2007-12-30", 1_525, 3_389,
			[4]float64{6357.5, 2.5651, 4.9146, .7598}},
		{"UCI", invoices, cohort.Options{}, cohort.Days, "2011-08-31", "2011-12-09", 3_317, 4_806,
			[4]float64{3363.7, .9667, 1.5903, .7840}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := run(t, c.in(t), c.o, c.unit, c.cut, c.end, Naive(c.unit))
			r := b.Results[0]
			if b.Customers != c.customers || b.Actual != c.actual {
				t.Errorf("%d customers and %d purchases, want %d and %d", b.Customers, b.Actual, c.customers, c.actual)
			}
			for i, got := range [4]float64{r.Predicted, r.MAE, r.RMSE, *r.Correlation} {
				tolerance := 0.00006 // as printed there
				if i == 0 {
					tolerance = 0.06
				}
				if math.Abs(got-c.want[i]) > tolerance {
					t.Errorf("figure %d is %.6f, want %.4f", i, got, c.want[i])
				}
			}
			if r.LogLikelihood != nil {
				t.Error("the naive rate has no likelihood")
			}
		})
	}
}

func file(name string) func(*testing.T) io.Reader {
	return func(t *testing.T) io.Reader { return open(t, name) }
}

// invoices is the UCI log as the published baseline reads it: every row of an
// invoice with a customer and a price, postage too; credit notes left out. Our
// own rules (internal/sim/UCI.md) keep goods only and take returns off.
func invoices(t *testing.T) io.Reader {
	unzipped, err := gzip.NewReader(open(t, "online_retail/online_retail.csv.gz"))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(unzipped).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	out.WriteString("customer,date\n")
	for _, r := range rows[1:] { // InvoiceNo, StockCode, Description, Quantity, InvoiceDate, UnitPrice, CustomerID
		price, err := strconv.ParseFloat(r[5], 64)
		if err != nil {
			t.Fatal(err)
		}
		if r[6] != "" && !strings.HasPrefix(r[0], "C") && price > 0 {
			fmt.Fprintf(&out, "%s,%s\n", r[6], r[4])
		}
	}
	return &out
}

// TestFittedModelsBeatTheNaiveRate: published fits and what they make of the
// holdout (BTYD walkthrough; the totals were computed outside this repository).
func TestFittedModelsBeatTheNaiveRate(t *testing.T) {
	predictors := []Predictor{Naive(cohort.Weeks)}
	for _, name := range []string{"BG/NBD", "MBG/NBD", "Pareto/NBD"} {
		p, err := Fitted(name)
		if err != nil {
			t.Fatal(err)
		}
		predictors = append(predictors, p)
	}
	b := run(t, open(t, "cdnow/CDNOW_sample.txt"), cohort.Options{CountZero: true}, cohort.Weeks, "1997-09-30", "1998-06-30", predictors...)
	for i, want := range [][5]float64{ // ln L, predicted, MAE, RMSE, correlation
		{-9582.429, 1653.4, .7855, 1.6080, .6256}, {-9582.136, 1576.7, .7648, 1.6072, .6273}, {-9594.976, 1665.5, .7545, 1.6028, .6302},
	} {
		r := b.Results[i+1]
		if r.Error != "" {
			t.Errorf("%s: %s", r.Name, r.Error)
			continue
		}
		got := [5]float64{*r.LogLikelihood, r.Predicted, r.MAE, r.RMSE, *r.Correlation}
		tolerance := [5]float64{.002, .2, .0002, .0002, .0002}
		for j := range got {
			if math.Abs(got[j]-want[j]) > tolerance[j] {
				t.Errorf("%s: figure %d is %.5f, want %.4f", r.Name, j, got[j], want[j])
			}
		}
		if n := b.Results[0]; r.MAE >= n.MAE || r.LogScore <= n.LogScore {
			t.Errorf("%s is no better than the naive rate: MAE %.4f and %.4f, log score %.4f and %.4f", r.Name, r.MAE, n.MAE, r.LogScore, n.LogScore)
		}
	}
	// Mean holdout by frequency, of BG/NBD.
	for x, want := range [groups]float64{.2251, .5231, 1.0441, 1.5203, 2.1638, 2.6538, 3.5040, 6.1570} {
		if got := b.Results[1].ByFrequency[x]; math.Abs(got-want) > .0005 {
			t.Errorf("BG/NBD expects %.4f of those with %d repeat purchases, published is %.4f", got, x, want)
		}
	}
	if _, err := Fitted("BG/BB"); err == nil || !strings.Contains(err.Error(), "want one of MBG/NBD") {
		t.Errorf("a model for opportunities: %v", err)
	}
}

// A fixed is a predictor whose answers are known.
type fixed struct{}

func (fixed) Expected(h btyd.History, _ float64) float64 { return 2 * h.Frequency }

func (fixed) Probability(_ btyd.History, _ float64, n int) float64 {
	return []float64{0.5, 0.25, 0.125}[n]
}

const few = `customer,date
a,2026-01-01
a,2026-01-05
a,2026-01-20
a,2026-01-21
b,2026-01-02
c,2026-01-03
c,2026-01-04
c,2026-01-06
c,2026-01-08
c,2026-01-25
`

// TestFigures are those of a calculation by hand: forecasts 2, 0, 6; actual 2, 0, 1.
func TestFigures(t *testing.T) {
	likelihood := -7.0
	stuck := Predictor{"stuck", func([]btyd.History) (Estimate, error) { return Estimate{}, errors.New("no maximum") }}
	known := Predictor{"known", func(h []btyd.History) (Estimate, error) {
		if want := math.Log(1) + math.Log(2) + math.Log(2); len(h) != 3 || math.Abs(h[2].LogGaps-want) > 1e-12 {
			t.Errorf("histories %+v: the last has gaps of 1, 2 and 2 days", h)
		}
		return Estimate{Predictor: fixed{}, Parameters: "r 1", LogLikelihood: &likelihood}, nil
	}}
	b := run(t, strings.NewReader(few), cohort.Options{}, cohort.Days, "2026-01-10", "2026-01-25", known, stuck)
	r := b.Results[0]
	near := func(what string, got *float64, want float64) {
		t.Helper()
		if got == nil || math.Abs(*got-want) > 1e-12 {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	near("predicted", &r.Predicted, 8)
	near("bias", r.Bias, 8.0/3-1)
	near("MAE", &r.MAE, 5.0/3)
	near("RMSE", &r.RMSE, math.Sqrt(25.0/3))
	// Deviations −2/3, −8/3, 10/3 and 1, −1, 0.
	near("correlation", r.Correlation, 2/math.Sqrt(168.0/9*2))
	near("log score", &r.LogScore, (math.Log(.125)+math.Log(.5)+math.Log(.25))/3)
	near("of those who bought thrice again", &r.ByFrequency[3], 6)
	if b.Actual != 3 || b.Horizon != 15 || b.RepeatBuyers != 2 || b.Groups[1] != (Group{"1", 1, 2}) {
		t.Errorf("%+v", b)
	}
	if e := b.Results[1]; e.Error != "no maximum" || e.Predicted != 0 {
		t.Errorf("a predictor that fails: %+v", e)
	}
	if _, err := json.Marshal(b); err != nil {
		t.Error(err)
	}
	if got := strings.Join(b.Table()[1], " "); got != "known -7.0 8.0 +166.7 % 1.6667 2.8868 0.3273 -1.3863" {
		t.Errorf("table: %s", got)
	}
}

// TestNothingToLearn is an error, not a report of zeros.
func TestNothingToLearn(t *testing.T) {
	s := []cohort.Summary{{Customer: "a", Purchases: []int32{0}}}
	if _, err := Run(t.Context(), "x", s, cohort.Cut{Split: true, Calibration: 5, End: 9}, nil, func(string) {}); err == nil || !strings.Contains(err.Error(), "nobody of 1 customers bought twice") {
		t.Errorf("all one-time buyers: %v", err)
	}
	if _, err := Run(t.Context(), "x", s, cohort.Cut{End: 9}, nil, func(string) {}); err == nil {
		t.Error("without a holdout")
	}
}

// TestReportStandsAlone: well-formed, complete, the same each time, and it loads
// nothing.
func TestReportStandsAlone(t *testing.T) {
	model, err := btyd.NewMBGNBD(0.5, 10, 0.9, 1.6)
	if err != nil {
		t.Fatal(err)
	}
	predictor, err := fit.NewPredictor("MBG/NBD", 0.5, 10, 0.9, 1.6)
	if err != nil {
		t.Fatal(err)
	}
	p := Predictor{"A & <B>", func([]btyd.History) (Estimate, error) {
		return Estimate{Predictor: predictor, Model: model, Parameters: "r 0.5"}, nil
	}}
	b := run(t, strings.NewReader(few), cohort.Options{}, cohort.Days, "2026-01-10", "2026-01-25", Naive(cohort.Days), p)
	var one, two bytes.Buffer
	if err := errors.Join(b.Report(&one, ""), b.Report(&two, "")); err != nil {
		t.Fatal(err)
	}
	if one.String() != two.String() {
		t.Error("two reports of one backtest differ")
	}
	page := one.String()
	if m := regexp.MustCompile(`(?i)https?://|<script|<link|@import|url\(|src=`).FindString(page); m != "" {
		t.Errorf("the report holds %q", m)
	}
	if strings.Contains(page, "NaN") || strings.Contains(page, "Inf") || strings.Contains(page, "<B>") {
		t.Error("a figure is none, or a name is not escaped")
	}
	drawings := regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1)
	if len(drawings) != 7 { // tracking twice, frequency, holdout, two matrices, one customer
		t.Errorf("%d plots, want 7", len(drawings))
	}
	for _, d := range drawings {
		x := xml.NewDecoder(strings.NewReader(d))
		for {
			if _, err := x.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("a plot is not well-formed: %v\n%.300s", err, d)
			}
		}
	}
	if err := b.Report(io.Discard, "nobody"); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("an unknown customer: %v", err)
	}
}

func TestTicksAreRound(t *testing.T) {
	for _, c := range []struct {
		from, to float64
		n        int
		want     string
	}{
		{0, 1, 5, "0 0.2 0.4 0.6 0.8 1"}, {0, 78, 8, "0 10 20 30 40 50 60 70"}, {0, 4300, 5, "0 1000 2000 3000 4000"}, {0, 0.003, 5, "0 0.001 0.002 0.003"},
	} {
		var names []string
		for _, v := range ticks(c.from, c.to, c.n) {
			names = append(names, short(v))
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%v to %v: %s, want %s", c.from, c.to, got, c.want)
		}
	}
}
