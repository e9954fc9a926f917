package verify

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tierstream/tierstream/internal/backtest"
	"github.com/tierstream/tierstream/internal/cohort"
)

// TestHoldoutFigures runs the backtests of docs/scoring-figures.md.
func TestHoldoutFigures(t *testing.T) {
	for _, c := range []struct {
		figures, file string
		read          cohort.Options
		unit          cohort.Unit
		cut           string
		models        []string
	}{
		{"holdout-cdnow", "cdnow/CDNOW_sample.txt", cohort.Options{CountZero: true}, cohort.Weeks, "1997-09-30", []string{"MBG/NBD", "BG/NBD", "Pareto/NBD"}},
		{"holdout-master", "cdnow/CDNOW_master.txt", cohort.Options{CountZero: true}, cohort.Weeks, "1997-09-30", []string{"MBG/NBD", "BG/NBD", "Pareto/NBD"}},
		{"holdout-grocery", "grocery/grocery_elog.csv", cohort.Options{}, cohort.Weeks, "2006-12-31", []string{"MBG/NBD", "BG/NBD", "Pareto/NBD", "MBG/CNBD"}},
		{"holdout-uci", "online_retail/online_retail.csv.gz", cohort.Options{}, cohort.Days, "2011-08-31", []string{"MBG/NBD", "BG/NBD", "Pareto/NBD"}},
	} {
		t.Run(c.figures, func(t *testing.T) {
			log, err := cohort.Read(openData(t, c.file), c.read)
			if err != nil {
				t.Fatal(err)
			}
			cut := log.Until()
			cut.Split, cut.Unit = true, c.unit
			if cut.Calibration, err = cohort.ParseDate(c.cut); err != nil {
				t.Fatal(err)
			}
			customers, err := log.Summaries(cut)
			if err != nil {
				t.Fatal(err)
			}
			predictors := []backtest.Predictor{backtest.Naive(c.unit)}
			for _, name := range c.models {
				p, err := backtest.Fitted(name)
				if err != nil {
					t.Fatal(err)
				}
				predictors = append(predictors, p)
			}
			b, err := backtest.Run(t.Context(), c.file, customers, cut, predictors, func(string) {})
			if err != nil {
				t.Fatal(err)
			}
			var text strings.Builder
			fmt.Fprintf(&text, "%d customers as of %s, %d of them bought again; %d purchases until %s\n\n", b.Customers, b.Calibration, b.RepeatBuyers, b.Actual, b.End)
			for i, row := range b.Table() {
				fmt.Fprintf(&text, "| %s |\n", strings.Join(row, " | "))
				if i == 0 {
					fmt.Fprintf(&text, "| ---%s |\n", strings.Repeat(" | --:", len(row)-1))
				}
			}
			for _, r := range b.Results {
				if r.Error != "" {
					t.Errorf("%s: %s", r.Name, r.Error)
				}
			}
			figures(t, c.figures, text.String())
		})
	}
}
