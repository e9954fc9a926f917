package view

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tierstream/tierstream/internal/event"
)

// Card writes the view for a person: amounts as money, and why the score is
// what it is.
func (v *View) Card(w io.Writer) error {
	var b bytes.Buffer
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(label, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", label, fmt.Sprintf(format, args...))
	}

	row("Customer", "%s", v.Customer)
	if v.Tier == nil {
		row("Tier", "none yet: it is assigned with the first counted purchase")
	} else {
		state := "published"
		if !v.Published {
			state = "not yet known to be published"
		}
		row("Tier", "%s since %s (change %d, %s)", v.Tier.Name, moment(v.Since), v.Sequence, state)
	}
	row("Now", "%s", v.Now.sentence(v.Model.Measure))
	if v.Tier != nil && v.Now.Tier != nil && v.Tier.Rank != v.Now.Tier.Rank {
		row("", "time has moved it since: the next event decides")
	}
	x := &v.Values
	if x.RFM.Segment != "" {
		row("Segment", "%s (R %d, F %d, M %d); value class %s; %s, %s", strings.ReplaceAll(x.RFM.Segment, "_", " "), x.RFM.R, x.RFM.F, x.RFM.M, x.Value.Class,
			x.Value.Lifecycle, strings.ReplaceAll(x.Value.Health, "_", " "))
	}
	_ = t.Flush() // into a buffer

	fmt.Fprintf(&b, "\nWhy %s is %s\n", v.Model.Measure, Points(x.Score))
	for _, p := range x.Parts {
		assumed := ""
		if !p.Known {
			assumed = "  (assumed: nothing is recorded)"
		}
		fmt.Fprintf(&b, "  %-20s %8s × %.2f = %7s%s\n", p.Name, Points(p.Value), p.Weight, Points(p.Value*p.Weight), assumed)
	}

	fmt.Fprintln(&b)
	t = tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	o := &x.Orders
	if o.Orders > 0 {
		row("Orders", "%d worth %s net, %s on average; %s to %s", o.Orders, v.Money(o.Net), v.Money(o.Average), v.FirstDay, v.LastDay)
		row("In window", "%d orders, %s net in the last %d days; last order %d days ago", x.RFM.Orders, v.Money(x.RFM.Net), v.Model.Window, x.RFM.Days)
	} else {
		row("Orders", "none that is not returned")
	}
	if o.Returns > 0 {
		row("Returns", "%d worth %s (%.0f %% of what was bought)", o.Returns, v.Money(o.Returned), 100*o.ReturnRatio)
	}
	for _, r := range v.Waiting {
		row("Waiting", "return of %s from %s: its order is not known; refused after %s", event.FormatMoney(r.Amount, r.Currency), moment(r.At), moment(r.Until))
	}
	e := &x.Experience
	neutral := ""
	if !e.Surveyed {
		neutral = ", no survey answered"
	}
	row("Satisfaction", "%s%s; %d complaints, %d open; %d referrals converted", Points(e.Satisfaction), neutral, e.Complaints, e.OpenComplaints, e.Referrals)
	f := &x.Forecast
	fitted := ""
	if !f.Fitted {
		fitted = " (model not fitted to this company)"
	}
	row("Forecast", "%.0f %% still a customer; %.1f more purchase days expected; order within 30 days %.0f %%%s", 100*f.Alive, f.Purchases, 100*f.Order30, fitted)
	_ = t.Flush()

	c := &x.CLV
	cac := v.Money(-c.CAC)
	if !c.CACKnown {
		cac = "not recorded"
	}
	fmt.Fprintf(&b, "\nLifetime value %s\n", v.Money(c.Total))
	for _, l := range []struct{ label, amount string }{
		{"first order", v.Money(c.First)}, {"later orders", v.Money(c.Repeat)}, {"new categories", v.Money(c.CrossSell)},
		{"service saved", v.Money(c.ServiceSaving)}, {"referrals", v.Money(c.Referrals)}, {"predicted", v.Money(c.Residual)},
		{"standard service", v.Money(-c.StandardService)}, {"marketing and sales", v.Money(-c.Selling)}, {"acquisition", cac},
	} {
		fmt.Fprintf(&b, "  %-20s %16s\n", l.label, l.amount)
	}
	fmt.Fprintf(&b, "  so far %s; simple %s; margin %s; npv %s; markov %s; at risk %s\n",
		v.Money(c.Historic), v.Money(c.Simple), v.Money(c.Margin), v.Money(c.NPV), v.Money(c.Markov), v.Money(x.Value.AtRisk))

	fmt.Fprintf(&b, "\nEvaluated at %s by model %s (%s); partition %d, batch %d, newest event of the partition %s\n",
		moment(v.Now.At), v.Model.Name, v.Model.Hash, v.AsOf.Partition, v.AsOf.Seq, moment(v.AsOf.Watermark))
	_, err := w.Write(b.Bytes())
	return err
}

// sentence says how far the neighbouring tiers are.
func (n *Now) sentence(measure string) string {
	if n.Tier == nil {
		return fmt.Sprintf("%s %s", measure, Points(n.Score))
	}
	s := fmt.Sprintf("%s with %s %s", n.Tier.Name, measure, Points(n.Score))
	if n.Next != nil {
		s += fmt.Sprintf("; %s more for %s", Points(*n.Missing), n.Next.Name)
	}
	if n.Spare != nil && *n.Spare >= 0 {
		s += fmt.Sprintf("; %s to lose before it is left", Points(*n.Spare))
	}
	return s
}

// Money is an amount of the view's currency for a person: 49.90 EUR.
func (v *View) Money(minor int64) string { return event.FormatMoney(minor, v.Model.Currency) }

// Points is a score for a person, with one decimal.
func Points(score float64) string {
	if math.Abs(score) < 0.05 {
		score = 0 // never -0.0
	}
	return fmt.Sprintf("%.1f", score)
}

// moment is a time for a person, in UTC.
func moment(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}
