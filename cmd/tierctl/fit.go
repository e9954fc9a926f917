package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/cohort"
	"github.com/tierstream/tierstream/internal/fit"
	"github.com/tierstream/tierstream/internal/scoring"
	"github.com/tierstream/tierstream/internal/scoring/btyd"
)

// predictors are the families by the names that a model file has for them. Those that
// a model cannot hold yet are fitted and compared.
var predictors = []struct {
	name, family string
	scored       bool
}{
	{"mbg_nbd", "MBG/NBD", true}, {"bg_nbd", "BG/NBD", true}, {"pareto_nbd", "Pareto/NBD", false},
	{"nbd", "NBD", false}, {"mbg_cnbd", "MBG/CNBD", false}, {"bg_cnbd", "BG/CNBD", false},
}

type fitCmd struct {
	logFlags
	versionFlags

	Predictor   string `help:"mbg_nbd, bg_nbd, pareto_nbd, nbd, mbg_cnbd, bg_cnbd; or auto: all of them, and the best log score." enum:"mbg_nbd,bg_nbd,pareto_nbd,nbd,mbg_cnbd,bg_cnbd,auto" default:"mbg_nbd" placeholder:"NAME"`
	Shape       int    `name:"erlang-shape" help:"k of mbg_cnbd and bg_cnbd: purchases come the more regularly the greater it is. 0: the likeliest of 1 to 6." placeholder:"K"`
	Prior       string `help:"auto: a prior on drop-out where the log alone has no best parameters. never, always." enum:"auto,never,always" default:"auto"`
	Calibration string `name:"calibration-end" help:"End of the part that the holdout test fits to. Default: two thirds of the log. The parameters that are written are fitted to all of it." placeholder:"DATE"`
	Against     string `help:"Compare with this model on the holdout, too: usually the one in use." type:"existingfile" placeholder:"FILE"`
	Force       bool   `help:"Write the model although it is worse on the holdout than the naive rate or --against."`
}

func (c *fitCmd) Help() string {
	return `Fits a model of when customers buy and leave, and the Gamma-Gamma model of what they spend, to a transaction log by maximum likelihood, and writes the next version of the base model with them (fitted: true, alpha in days, and where it comes from under provenance). Without --base a first model is made, with the log's currency, zone and mean order. Needs neither Kafka nor Redis.

First it is held to a holdout: fitted to the calibration, it must not be worse than going on at the same rate (x/T·t) in the mean absolute error of a customer's purchases, nor in the log score (mean ln of the probability given to what happened); nor worse than --against. Else nothing is written, unless --force. A fit that does not converge is never written.

prior auto: some logs have no best parameters, because nobody seems to leave: then P(alive) would be 1 for ever. Only there a prior is used, and said: ln a and ln b normal around those of public logs (0.8, 2.2) with standard deviation 1.

` + logHelp + `

  tierctl fit CDNOW_sample.txt --zero-orders count --calibration-end 1997-09-30 -o model.yaml
  tierctl fit orders.csv --base model.yaml --against model.yaml --predictor auto -o model-2.yaml`
}

// sample is what one fit is made from.
type sample struct {
	all       []cohort.Summary
	cut       cohort.Cut
	histories []btyd.History
	data      []fit.Observation
}

func newSample(log *cohort.Log, cut cohort.Cut) (*sample, error) {
	all, err := log.Summaries(cut)
	if err != nil {
		return nil, err
	}
	s := &sample{all: all, cut: cut}
	for i := range all {
		h := btyd.History{Frequency: float64(all[i].X), AgeAtLast: all[i].TX, Age: all[i].T}
		for j := 1; j <= all[i].X; j++ {
			h.LogGaps += math.Log(cut.Span(all[i].Purchases[j-1], all[i].Purchases[j]))
		}
		s.histories = append(s.histories, h)
	}
	s.data, err = fit.Observe(s.histories)
	return s, err
}

// again is how many customers bought again.
func (s *sample) again() (n int) {
	for i := range s.all {
		if s.all[i].X > 0 {
			n++
		}
	}
	return n
}

// tried is one predictor, fitted to the calibration and held to the holdout.
type tried struct {
	name  string
	fit   *fit.Fit // nil: nothing was fitted
	err   error    // why not
	score fit.Score
}

func (c *fitCmd) Run(ctx context.Context, t *terminal) error {
	if c.Period == string(cohort.PerWeek) {
		return cli.Usage(errors.New("--period week is not for fitting: a model scores by days"))
	}
	log, err := c.read(ctx, t)
	if err != nil {
		return err
	}
	whole, err := c.cut(log, "")
	if err != nil {
		return err
	}
	e, base, err := c.base(t, log, whole)
	if err != nil {
		return err
	}

	best, rivals, err := c.compare(ctx, t, log)
	if err != nil {
		return err
	}
	var worse []string
	for i := range rivals {
		if w := best.score.WorseThan(rivals[i].name, &rivals[i].score); w != "" {
			worse = append(worse, w)
		}
	}
	for _, w := range worse {
		t.note("%s is %s", best.name, w)
	}
	if len(worse) > 0 && !c.Force {
		return fmt.Errorf("the fit of %s is refused, nothing is written: it is %s (--force writes it)", best.name, strings.Join(worse, "; and "))
	}

	all, err := newSample(log, whole)
	if err != nil {
		return err
	}
	t.note("fitting %s to all of it, until %s", best.name, cohort.Date(whole.SummaryEnd()))
	f, err := c.fit(ctx, t, best.name, all)
	if err != nil {
		return err
	}
	spend, spendErr := spending(all)
	c.say(t, f, spend, spendErr)
	if !scored(best.name) {
		return fmt.Errorf("%s is fitted, but a model cannot hold it yet: it scores by mbg_nbd or bg_nbd", best.name)
	}
	if err := c.edit(e, log, best, rivals, f, spend, all); err != nil {
		return err
	}
	_, err = c.finish(t, e, base)
	return err
}

func scored(name string) bool {
	for _, p := range predictors {
		if p.name == name {
			return p.scored
		}
	}
	return false
}

// base is the model to be edited, and the name that the next version counts on
// from.
func (c *fitCmd) base(t *terminal, log *cohort.Log, cut cohort.Cut) (*edition, string, error) {
	if c.Base != "" {
		e, m, err := c.open()
		if err != nil {
			return nil, "", err
		}
		if m.Currency() != log.Currency {
			return nil, "", fmt.Errorf("%s keeps %s, the log %s: say --currency, if that is wrong", c.Base, m.Currency(), log.Currency)
		}
		if zone := m.Calendar().Zone(); zone != log.Zone {
			t.note("warning: days end in %s in the model, in %s in the log: say --zone", zone, log.Zone)
		}
		return e, m.Name(), nil
	}
	all, err := log.Summaries(cut)
	if err != nil {
		return nil, "", err
	}
	net, orders := int64(0), int64(0)
	for i := range all {
		net += all[i].Net
		orders += int64(all[i].Orders)
	}
	if net <= 0 {
		return nil, "", errors.New("the log has no money, so a typical order is not known: say --base, with a model that has one (tierctl model init)")
	}
	text, err := scoring.Init(scoring.InitOptions{Currency: log.Currency, Zone: log.Zone, TypicalOrderMinor: max(1, net/orders)})
	return &edition{text}, "fitted-0", err
}

// compare fits to the calibration and scores on the holdout. best is the model
// that is asked for, or has the best log score of those that a model can hold; the rivals
// are the naive rate and --against.
func (c *fitCmd) compare(ctx context.Context, t *terminal, log *cohort.Log) (best tried, rivals []tried, err error) {
	cut, err := c.cut(log, c.Calibration)
	if err != nil {
		return best, nil, err
	}
	if c.Calibration == "" {
		cut.Split, cut.Calibration = true, log.First+2*(cut.End-log.First)/3
	}
	s, err := newSample(log, cut)
	if err != nil {
		return best, nil, fmt.Errorf("the holdout: %w", err)
	}
	t.note("calibration until %s: %s customers, %s of them bought again; holdout until %s", cohort.Date(cut.Calibration), grouped(int64(len(s.all))), grouped(int64(s.again())), cohort.Date(cut.End))

	rows := []tried{{name: "naive"}}
	if rows[0].score, err = s.evaluate(fit.Naive{Least: cut.Span(0, 1)}); err != nil {
		return best, nil, fmt.Errorf("the holdout: %w", err)
	}
	if c.Against != "" {
		r, err := against(c.Against, s)
		if err != nil {
			return best, nil, err
		}
		rows = append(rows, r)
	}
	rivals = rows
	for _, p := range predictors {
		if c.Predictor != p.name && c.Predictor != "auto" {
			continue
		}
		r := tried{name: p.name}
		if r.fit, r.err = c.fit(ctx, t, p.name, s); r.err == nil {
			var predictor fit.Predictor
			if predictor, r.err = r.fit.Predictor(); r.err == nil {
				r.score, r.err = s.evaluate(predictor)
			}
		}
		if ctx.Err() != nil {
			return best, nil, ctx.Err()
		}
		if c.Predictor != "auto" && r.err != nil {
			return best, nil, fmt.Errorf("the holdout test: %w", r.err)
		}
		rows = append(rows, r)
		if r.err == nil && (best.fit == nil || r.score.LogScore > best.score.LogScore) && (p.scored || c.Predictor != "auto") {
			best = r
		}
	}
	t.table(rows)
	if best.fit == nil {
		return best, nil, errors.New("no model could be fitted")
	}
	for _, r := range rows {
		if r.fit != nil && r.score.LogScore > best.score.LogScore {
			t.note("%s has a better log score than %s, but a model cannot hold it yet", r.name, best.name)
		}
	}
	return best, rivals[:len(rivals):len(rivals)], nil
}

// evaluate scores a predictor on the holdout of the sample.
func (s *sample) evaluate(p fit.Predictor) (fit.Score, error) {
	actual := make([]int, len(s.all))
	for i := range s.all {
		actual[i] = s.all[i].Holdout
	}
	return fit.Evaluate(p, s.histories, actual, s.cut.Horizon())
}

// against scores the prediction of a model file.
func against(file string, s *sample) (tried, error) {
	v := versionFlags{Base: file}
	_, m, err := v.open()
	if err != nil {
		return tried{}, err
	}
	var d struct {
		Prediction struct {
			Predictor string  `json:"predictor"`
			R         float64 `json:"r"`
			Alpha     float64 `json:"alpha_days"`
			A         float64 `json:"a"`
			B         float64 `json:"b"`
		} `json:"prediction"`
	}
	if err := json.Unmarshal(m.Canonical(), &d); err != nil {
		return tried{}, fmt.Errorf("reading %s: %w", file, err)
	}
	p := d.Prediction
	family := ""
	for _, x := range predictors {
		if x.name == p.Predictor && x.scored {
			family = x.family
		}
	}
	predictor, err := fit.NewPredictor(family, p.R, p.Alpha*s.cut.Span(0, 1), p.A, p.B)
	if err != nil {
		return tried{}, fmt.Errorf("%s: %s: %w", file, p.Predictor, err)
	}
	out := tried{name: m.Name()}
	out.score, err = s.evaluate(predictor)
	return out, err
}

// fit fits one model to a sample.
func (c *fitCmd) fit(ctx context.Context, t *terminal, name string, s *sample) (*fit.Fit, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, p := range predictors {
		if p.name != name {
			continue
		}
		family, ok := btyd.FamilyOf(p.family)
		if !ok {
			return nil, fmt.Errorf("%s is not there", p.family)
		}
		k := 0
		if strings.HasSuffix(p.name, "_cnbd") {
			k = c.Shape
		}
		return fit.Purchases(family, k, s.data, fit.Options{Prior: fit.Use(c.Prior), Progress: func(text string) { t.note("  %s", text) }})
	}
	return nil, fmt.Errorf("%s is not known", name)
}

// spending fits what is spent; nil with the reason where it cannot be.
func spending(s *sample) (*fit.Fit, error) {
	var data []fit.Spending
	for i := range s.all {
		if x := &s.all[i]; x.ValueDays > 0 {
			data = append(data, fit.Spending{Purchases: float64(x.ValueDays), Mean: x.MeanValue()})
		}
	}
	return fit.Spend(data, fit.Options{})
}

// table prints how everybody did on the holdout.
func (t *terminal) table(rows []tried) {
	w := tabwriter.NewWriter(t.err, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "on the holdout\tlog likelihood\tpurchases\texpected\tbias\tMAE\tRMSE\tlog score\t")
	for i := range rows {
		r := &rows[i]
		if r.err != nil {
			continue
		}
		likelihood := ""
		if r.fit != nil {
			likelihood = strconv.FormatFloat(r.fit.LogLikelihood, 'f', 3, 64)
		}
		s := &r.score
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%.1f\t%+.1f %%\t%.4f\t%.4f\t%.4f\t\n", r.name, likelihood, s.Actual, s.Predicted, 100*s.Bias(), s.MAE, s.RMSE, s.LogScore)
	}
	_ = w.Flush() // to standard error
	for i := range rows {
		if rows[i].err != nil {
			t.note("%s: %v", rows[i].name, rows[i].err)
		}
	}
}

// say tells what was fitted, and how surely.
func (c *fitCmd) say(t *terminal, f, spend *fit.Fit, spendErr error) {
	tell := func(f *fit.Fit, unit string) {
		text := fmt.Sprintf("%s, %s customers, log likelihood %.3f; %d of %d starts agree:", f.Family, grouped(int64(f.Customers)), f.LogLikelihood, f.Agreeing, f.Starts)
		for _, p := range f.Parameters {
			text += fmt.Sprintf(" %s %.6g", p.Name, p.Value)
			if p.SE > 0 {
				text += fmt.Sprintf(" ± %.2g", p.SE)
			}
		}
		t.note("%s (%s)", text, unit)
		if f.Degenerate != "" {
			t.note("warning: a prior on drop-out was needed: %s", f.Degenerate)
		} else if f.Prior {
			t.note("with a prior on drop-out, as asked for")
		}
	}
	tell(f, c.Unit+"s")
	if spendErr != nil {
		t.note("warning: what is spent stays as in the base: %v", spendErr)
		return
	}
	tell(spend, "minor units")
}

// edit writes the fit into the model.
func (c *fitCmd) edit(e *edition, log *cohort.Log, best tried, rivals []tried, f, spend *fit.Fit, all *sample) error {
	days := 1 / all.cut.Span(0, 1)
	standard := map[string]any{}
	set := func(value string, path ...string) error {
		return e.set(value, append([]string{"prediction"}, path...)...)
	}
	keys := map[string]string{"r": "r", "alpha": "alpha_days", "a": "a", "b": "b"}
	errs := []error{set(best.name, "predictor"), set("true", "fitted")}
	for _, p := range f.Parameters {
		scale := 1.0
		if p.Name == "alpha" {
			scale = days
		}
		errs = append(errs, set(short(p.Value*scale), keys[p.Name]))
		standard[keys[p.Name]] = rounded(p.SE * scale)
	}
	purchases := map[string]any{
		"log": string(log.Format), "until": cohort.Date(all.cut.SummaryEnd()), "from": cohort.Date(log.First),
		"customers": f.Customers, "bought_again": all.again(), "log_likelihood": rounded(f.LogLikelihood), "unit": c.Unit,
		"standard_errors": standard, "prior": f.Prior,
		"holdout": map[string]any{
			"calibration_until": cohort.Date(c.calibration(log, all.cut)), "customers": best.score.Customers,
			"purchases": int(best.score.Actual), "expected": rounded(best.score.Predicted),
			"mae": rounded(best.score.MAE), "log_score": rounded(best.score.LogScore),
			"naive_mae": rounded(rivals[0].score.MAE), "naive_log_score": rounded(rivals[0].score.LogScore),
		},
	}
	if f.Degenerate != "" {
		purchases["without_prior"] = f.Degenerate
	}
	errs = append(errs, e.provenance("prediction", purchases))
	if spend != nil {
		se := map[string]any{}
		for i, key := range []string{"p", "q", "v_minor"} {
			errs = append(errs, set(short(spend.Parameters[i].Value), "spend", key))
			se[key] = rounded(spend.Parameters[i].SE)
		}
		errs = append(errs, e.provenance("spend", map[string]any{"customers": spend.Customers, "log_likelihood": rounded(spend.LogLikelihood), "standard_errors": se}))
	}
	return errors.Join(errs...)
}

// calibration is the last day of the calibration.
func (c *fitCmd) calibration(log *cohort.Log, whole cohort.Cut) int32 {
	if cut, err := c.cut(log, c.Calibration); err == nil && cut.Split {
		return cut.Calibration
	}
	return log.First + 2*(whole.End-log.First)/3
}

// short is a number as a model has it: seven digits are far within its error.
func short(v float64) string { return strconv.FormatFloat(v, 'g', 7, 64) }

// rounded is a number to be read.
func rounded(v float64) float64 {
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'g', 7, 64), 64)
	return v
}
