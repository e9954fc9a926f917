package fit_test

import (
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tierstream/tierstream/internal/cohort"
	"github.com/tierstream/tierstream/internal/fit"
	"github.com/tierstream/tierstream/internal/scoring/btyd"
	"github.com/tierstream/tierstream/internal/testenv"
)

// load reads a public data set with a holdout: days as YYYY-MM-DD.
func load(t *testing.T, name, calibration, end string, o cohort.Options, unit cohort.Unit) ([]cohort.Summary, cohort.Cut) {
	t.Helper()
	f, err := os.Open(filepath.Join(testenv.DataDir(t), filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("no data set %s: %v", name, err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return summaries(t, f, calibration, end, o, unit)
}

func summaries(t *testing.T, in io.Reader, calibration, end string, o cohort.Options, unit cohort.Unit) ([]cohort.Summary, cohort.Cut) {
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
	all, err := log.Summaries(cut)
	if err != nil {
		t.Fatal(err)
	}
	return all, cut
}

func cdnow(t *testing.T, file string) ([]cohort.Summary, cohort.Cut) {
	return load(t, "cdnow/"+file, "1997-09-30", "1998-06-30", cohort.Options{CountZero: true}, cohort.Weeks)
}

func grocery(t *testing.T) ([]cohort.Summary, cohort.Cut) {
	return load(t, "grocery/grocery_elog.csv", "2006-12-31", "2007-12-30", cohort.Options{}, cohort.Weeks)
}

// uci is as the published fits have it: every row with a customer, a price and a
// quantity, but those of credit notes, whatever was returned.
func uci(t *testing.T) ([]cohort.Summary, cohort.Cut) {
	t.Helper()
	f, err := os.Open(filepath.Join(testenv.DataDir(t), "online_retail", "online_retail.csv.gz"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("no data set online_retail: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(unzipped).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	type day struct{ customer, date string }
	values := map[day]float64{}
	for _, r := range rows[1:] { // invoice, code, text, quantity, time, price, customer, country
		if r[6] == "" || strings.HasPrefix(r[0], "C") {
			continue
		}
		quantity, err1 := strconv.ParseFloat(r[3], 64)
		price, err2 := strconv.ParseFloat(r[5], 64)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if quantity <= 0 || price <= 0 {
			continue
		}
		values[day{r[6], r[4][:10]}] += quantity * price
	}
	log := strings.Builder{}
	log.WriteString("customer,date,value\n")
	for d, v := range values {
		fmt.Fprintf(&log, "%s,%s,%.2f\n", d.customer, d.date, v)
	}
	return summaries(t, strings.NewReader(log.String()), "2011-08-31", "2011-12-09", cohort.Options{CountZero: true}, cohort.Weeks)
}

// histories are those that the models know, with the sum of the logarithms of
// the times between purchases.
func histories(all []cohort.Summary, cut cohort.Cut) []btyd.History {
	out := make([]btyd.History, len(all))
	for i := range all {
		s := &all[i]
		h := btyd.History{Frequency: float64(s.X), AgeAtLast: s.TX, Age: s.T}
		for j := 1; j <= s.X; j++ {
			gap := float64(s.Purchases[j] - s.Purchases[j-1])
			if cut.Unit == cohort.Weeks {
				gap /= 7
			}
			h.LogGaps += math.Log(gap)
		}
		out[i] = h
	}
	return out
}

func observe(t *testing.T, all []cohort.Summary, cut cohort.Cut) []fit.Observation {
	t.Helper()
	data, err := fit.Observe(histories(all, cut))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestPublishedFits are reproduced on the same data: the likelihood at least as
// high, the parameters within what their printed digits and 0.02 standard
// errors leave open, the standard errors within 2 %.
func TestPublishedFits(t *testing.T) {
	sample := func(t *testing.T) ([]cohort.Summary, cohort.Cut) { return cdnow(t, "CDNOW_sample.txt") }
	master := func(t *testing.T) ([]cohort.Summary, cohort.Cut) { return cdnow(t, "CDNOW_master.txt") }
	for _, c := range []struct {
		name   string
		family string
		k      int
		slow   bool
		load   func(*testing.T) ([]cohort.Summary, cohort.Cut)
		logL   float64
		printed, unit,
		se []float64 // unit: the last printed digit of printed
	}{
		// CLVTools' tests and the standard errors of lifetimes' Quickstart.
		{"CDNOW sample", "BG/NBD", 0, false, sample, -9582.429, []float64{.2425945, 4.4136019, .7929199, 2.4258881}, []float64{1e-7, 1e-7, 1e-7, 1e-7}, []float64{.012557, .378221, .185719, .705345}},
		{"CDNOW sample", "MBG/NBD", 0, false, sample, -9582.136, []float64{.525, 6.183, .891, 1.614}, []float64{1e-3, 1e-3, 1e-3, 1e-3}, nil},
		{"CDNOW sample", "Pareto/NBD", 0, false, sample, -9594.976, []float64{.55315, 10.57633, .60625, 11.67150}, []float64{1e-5, 1e-5, 1e-5, 1e-5}, []float64{.0476264, .8427222, .1872594, 6.2105448}},
		// The vignette of BTYDplus, which prints no parameters, and two decimals or none.
		{"grocery", "NBD", 0, false, grocery, -16376.865, nil, nil, nil},
		{"grocery", "BG/NBD", 0, false, grocery, -15836.566, nil, nil, nil},
		{"grocery", "MBG/NBD", 0, false, grocery, -15781.939, nil, nil, nil},
		{"grocery", "Pareto/NBD", 0, false, grocery, -15782.392, nil, nil, nil},
		{"grocery", "BG/CNBD", 2, false, grocery, -15054.5, nil, nil, nil},  // printed without decimals
		{"grocery", "MBG/CNBD", 2, false, grocery, -14978.5, nil, nil, nil}, // printed without decimals
		// Computed with public libraries under the same rules.
		{"CDNOW master", "BG/NBD", 0, true, master, -95368.444, []float64{.25162, 4.78894, .72343, 2.16109}, []float64{1e-5, 1e-5, 1e-5, 1e-5}, nil},
		{"CDNOW master", "MBG/NBD", 0, true, master, -95336.958, []float64{.63714, 7.31029, .80747, 1.2284}, []float64{1e-5, 1e-5, 1e-5, 1e-4}, nil},
		{"CDNOW master", "Pareto/NBD", 0, true, master, -95415.119, []float64{.59742, 11.58565, .52219, 8.82777}, []float64{1e-5, 1e-5, 1e-5, 1e-5}, nil},
	} {
		t.Run(c.name+" "+c.family, func(t *testing.T) {
			if c.slow && testing.Short() {
				t.Skip("short")
			}
			all, cut := c.load(t)
			family, ok := btyd.FamilyOf(c.family)
			if !ok {
				t.Fatal("no such family")
			}
			f, err := fit.Purchases(family, c.k, observe(t, all, cut), fit.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if f.Prior {
				t.Errorf("a prior was used: %s", f.Degenerate)
			}
			compare(t, f, c.logL, c.printed, c.unit, c.se)
		})
	}
}

// compare holds a fit to what is printed.
func compare(t *testing.T, f *fit.Fit, logL float64, printed, unit, se []float64) {
	t.Helper()
	t.Logf("%s: log likelihood %.4f after %d evaluations, %d of %d starts agree; %v", f.Family, f.LogLikelihood, f.Evaluations, f.Agreeing, f.Starts, f.Parameters)
	if f.LogLikelihood < logL-0.001 {
		t.Errorf("log likelihood %.4f, published %.3f", f.LogLikelihood, logL)
	}
	for i := range printed {
		p := f.Parameters[i]
		if d := math.Abs(p.Value - printed[i]); !(d <= unit[i]/2+0.02*p.SE) {
			t.Errorf("%s is %.7f ± %.5f, published %v", p.Name, p.Value, p.SE, printed[i])
		}
	}
	for i := range se {
		if p := f.Parameters[i]; !(math.Abs(p.SE/se[i]-1) <= 0.02) {
			t.Errorf("the standard error of %s is %.7f, published %v", p.Name, p.SE, se[i])
		}
	}
}

// TestSpendingOfCDNOW: CLVTools' tests; lifetimes' print the same. The published mean
// value is that of all repeat purchases, free ones too.
func TestSpendingOfCDNOW(t *testing.T) {
	all, _ := cdnow(t, "CDNOW_sample.txt")
	var data []fit.Spending
	for i := range all {
		if s := &all[i]; s.X > 0 {
			data = append(data, fit.Spending{Purchases: float64(s.X), Mean: float64(s.ValueSum) / float64(s.X) / 100})
		}
	}
	f, err := fit.Spend(data, fit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if f.Customers != 946 {
		t.Errorf("%d repeat buyers, published 946", f.Customers)
	}
	compare(t, f, -4055.9177, []float64{6.25, 3.74, 15.44}, []float64{.01, .01, .01}, nil)
}

// TestSpendingOfUCI: what public libraries gave on the same data.
func TestSpendingOfUCI(t *testing.T) {
	all, _ := uci(t)
	var data []fit.Spending
	for i := range all {
		if s := &all[i]; s.ValueDays > 0 {
			data = append(data, fit.Spending{Purchases: float64(s.X), Mean: float64(s.ValueSum) / float64(s.X) / 100})
		}
	}
	f, err := fit.Spend(data, fit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if f.Customers != 1_890 {
		t.Errorf("%d repeat buyers, want 1890", f.Customers)
	}
	compare(t, f, -12924.638, []float64{2.3950, 3.3018, 396.43}, []float64{1e-4, 1e-4, 1e-2}, nil)
}

// TestDonations: the six opportunities of 11,104 donors (Fader, Hardie, Shang
// 2010, table 2: x, t_x, donors), and the fit that lifetimes and BTYD print.
func TestDonations(t *testing.T) {
	var data []fit.Observation
	for _, row := range [][3]float64{
		{6, 6, 1203}, {5, 6, 728}, {4, 6, 512}, {3, 6, 357}, {2, 6, 234}, {1, 6, 129}, {5, 5, 335}, {4, 5, 284},
		{3, 5, 225}, {2, 5, 173}, {1, 5, 119}, {4, 4, 240}, {3, 4, 181}, {2, 4, 155}, {1, 4, 78}, {3, 3, 322},
		{2, 3, 255}, {1, 3, 129}, {2, 2, 613}, {1, 2, 277}, {1, 1, 1091}, {0, 0, 3464},
	} {
		data = append(data, fit.Observation{History: btyd.History{Frequency: row[0], AgeAtLast: row[1], Age: 6}, Customers: row[2]})
	}
	family, _ := btyd.FamilyOf("BG/BB")
	f, err := fit.Purchases(family, 0, data, fit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if f.Customers != 11_104 {
		t.Fatalf("%d donors", f.Customers)
	}
	compare(t, f, -33225.585, []float64{1.204, .750, .657, 2.783}, []float64{1e-3, 1e-3, 1e-3, 1e-3}, nil)
}

// TestWithoutDropOut: between December and August the UCI shop shows no sign
// that anybody left. Without a prior that is said; with it, P(alive) falls.
func TestWithoutDropOut(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	all, cut := uci(t)
	if len(all) != 3_317 {
		t.Fatalf("%d customers, want 3317", len(all))
	}
	data := observe(t, all, cut)
	for _, name := range []string{"BG/NBD", "MBG/NBD", "Pareto/NBD"} {
		t.Run(name, func(t *testing.T) {
			family, _ := btyd.FamilyOf(name)
			var bad *fit.DegenerateError
			_, err := fit.Purchases(family, 0, data, fit.Options{Prior: fit.Never})
			if !errors.As(err, &bad) {
				t.Fatalf("without a prior: %v", err)
			}
			t.Log(bad)
			if name == "BG/NBD" && bad.LogLikelihood < -21755.348-0.001 {
				t.Errorf("the log likelihood came to %.4f, elsewhere to -21755.348", bad.LogLikelihood)
			}
			f, err := fit.Purchases(family, 0, data, fit.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if !f.Prior || f.Degenerate == "" {
				t.Errorf("no prior was used: %+v", f)
			}
			t.Logf("%+v", f)
			m, err := f.Model()
			if err != nil {
				t.Fatal(err)
			}
			year := btyd.History{Frequency: 5, AgeAtLast: 20, Age: 20 + 52}
			if p := m.Alive(year); !(p < 0.9) {
				t.Errorf("P(alive) is %.3f after a year of silence and five purchases within 20 weeks", p)
			}
		})
	}
}
