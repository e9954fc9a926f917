package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/tierstream/tierstream/internal/backtest"
	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/cohort"
)

type backtestCmd struct {
	logFlags

	Calibration string   `name:"calibration-end" required:"" help:"The models learn from what was until this day, and are asked for what comes after it." placeholder:"DATE"`
	Models      []string `help:"Which models, besides the naive rate: MBG/NBD, BG/NBD, Pareto/NBD, NBD, MBG/CNBD, BG/CNBD; none for none." default:"MBG/NBD,BG/NBD,Pareto/NBD" placeholder:"MODEL"`
	HTML        string   `name:"html" help:"Write a report with plots into this file. It loads nothing from anywhere." placeholder:"FILE"`
	Whose       string   `name:"customer" help:"In the report: whose history is drawn. Default: a frequent buyer." placeholder:"ID"`
	JSON        bool     `name:"json" help:"The figures as JSON."`
}

func (c *backtestCmd) Help() string {
	return `Fits models of repeat buying to a log up to the calibration's end and compares what they expect with what was bought after it: total, bias (predicted/actual − 1), mean absolute and squared error and correlation over customers, and mean purchases by repeat purchases in the calibration, beside the naive rate x/T. The log score is the mean of ln P of each customer's number of purchases in the holdout; nearer to 0 is better. Needs neither Kafka nor Redis.

` + logHelp + `

  tierctl backtest CDNOW_sample.txt --zero-orders count --unit week --calibration-end 1997-09-30
  tierctl backtest grocery_elog.csv --unit week --calibration-end 2006-12-31 --html grocery.html`
}

func (c *backtestCmd) Run(ctx context.Context, t *terminal) error {
	predictors, err := c.predictors()
	if err != nil {
		return err
	}
	log, err := c.read(ctx, t)
	if err != nil {
		return err
	}
	cut, err := c.cut(log, c.Calibration)
	if err != nil {
		return err
	}
	customers, err := log.Summaries(cut)
	if err != nil {
		return err
	}
	source := filepath.Base(c.File)
	if c.File == "-" {
		source = "standard input"
	}
	b, err := backtest.Run(ctx, source, customers, cut, predictors, func(s string) { t.note("%s", s) })
	if err != nil {
		return err
	}
	if c.HTML != "" {
		if err := writeWhole(c.HTML, func(w io.Writer) error { return b.Report(w, c.Whose) }); err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
	}
	if c.JSON {
		out, err := json.MarshalIndent(b, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(t.out, string(out))
		return err
	}
	return describeBacktest(t.out, b)
}

// describeBacktest prints two tables.
func describeBacktest(to io.Writer, b *backtest.Backtest) error {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%d customers as of %s, %d of them bought again; %d purchases in the %g %ss until %s\n\n",
		b.Customers, b.Calibration, b.RepeatBuyers, b.Actual, b.Horizon, b.Unit, b.End)
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(cells []string) { fmt.Fprintln(w, strings.Join(cells, "\t")+"\t") }
	for _, cells := range b.Table() {
		line(cells)
	}
	line(nil)
	line(append([]string{"by repeat purchases"}, columnOf(b.Groups, func(g backtest.Group) string { return g.X })...))
	line(append([]string{"customers"}, columnOf(b.Groups, func(g backtest.Group) string { return fmt.Sprint(g.Customers) })...))
	line(append([]string{"actual"}, columnOf(b.Groups, func(g backtest.Group) string { return fmt.Sprintf("%.4f", g.Actual) })...))
	for _, r := range b.Results {
		if r.Error == "" {
			line(append([]string{r.Name}, columnOf(r.ByFrequency, func(v float64) string { return fmt.Sprintf("%.4f", v) })...))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(&out)
	for _, r := range b.Results {
		if r.Parameters != "" || r.Error != "" {
			fmt.Fprintf(&out, "%s: %s%s\n", r.Name, r.Parameters, r.Error)
		}
	}
	for text := range strings.Lines(out.String()) {
		if _, err := fmt.Fprintln(to, strings.TrimRight(text, " \n")); err != nil {
			return err
		}
	}
	return nil
}

func columnOf[T any](all []T, text func(T) string) []string {
	out := make([]string, len(all))
	for i, x := range all {
		out[i] = text(x)
	}
	return out
}

// predictors are the naive rate and the models asked for.
func (c *backtestCmd) predictors() ([]backtest.Predictor, error) {
	all := []backtest.Predictor{backtest.Naive(cohort.Unit(c.Unit))}
	for _, name := range c.Models {
		if name == "none" {
			continue
		}
		p, err := backtest.Fitted(name)
		if err != nil {
			return nil, cli.Usage(fmt.Errorf("--models: %w", err))
		}
		all = append(all, p)
	}
	return all, nil
}
