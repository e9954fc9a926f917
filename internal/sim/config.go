package sim

import (
	"fmt"
	"math"
	"time"
)

// Config is the model. Start from DefaultConfig: a zero here means zero, not
// the default.
type Config struct {
	Seed  uint64
	Start time.Time // event time of the beginning; nothing is older

	// Prefix stands before every ID, so that two runs into the same topics are
	// two companies and not one with contradictions.
	Prefix string

	// Customers is the mean number of customers who arrive within Span, as a
	// Poisson process of constant rate. Those whom others bring come on top.
	Customers float64
	Span      time.Duration
	// Later is the rate of arrivals after Span, as a share of that within it.
	Later float64

	// Purchases: the MBG/NBD model of Batislam, Denizel and Filiztekin (2007),
	// "Empirical validation and comparison of models for customer base
	// analysis": a customer's rate is Gamma(R, Alpha), in purchases per day; after
	// every purchase, the first included, he leaves for good with a probability
	// that is Beta(A, B).
	R, Alpha float64 // Alpha in days
	A, B     float64

	// Order values: the Gamma-Gamma model of Fader and Hardie (2013), "The
	// Gamma-Gamma model of monetary value": Gamma(P, nu), nu being Gamma(Q, v) per
	// customer, with v chosen so that the mean customer spends TypicalOrder.
	P, Q         float64
	TypicalOrder int64  // minor units of Currency
	Currency     string // ISO 4217; the company's base currency

	// SeasonAmplitude is the relative height of the yearly sine, whose top is in
	// mid December; WeekendFactor is the rate of a Saturday or Sunday relative to
	// a working day. Both leave the yearly mean as it is.
	SeasonAmplitude float64
	WeekendFactor   float64

	// Shares of orders with a consequence.
	ReturnShare    float64 // sent back, half of them whole
	CancelShare    float64 // cancelled within minutes
	DelayedShare   float64 // whose record reaches the log minutes late
	ComplaintShare float64
	ReferralShare  float64 // after which the customer invites somebody
	FeedbackShare  float64
	ForeignShare   float64 // paid in another currency, with a rate or a base amount

	// BadRate is the number of bad messages per sound one, see Flaws.
	BadRate float64

	// Warp makes the model faster or slower from a moment on.
	Warp Warp
}

// Warp lets the model's time run Factor times as fast as event time from From
// on, so that a demonstration does not take months. The zero value changes
// nothing.
type Warp struct {
	From   time.Time
	Factor float64
}

// DefaultConfig is a shop of 10,000 customers a year with the parameters that
// were fitted to CDNOW. Seed 1, start 2025-01-01 UTC, nothing bad.
func DefaultConfig() Config {
	return Config{
		Seed:            1,
		Start:           time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC),
		Customers:       10_000,
		Span:            365 * 24 * time.Hour,
		Later:           1,
		R:               0.525,
		Alpha:           43.28,
		A:               0.891,
		B:               1.614,
		P:               6.25,
		Q:               3.74,
		TypicalOrder:    3_500,
		Currency:        "EUR",
		SeasonAmplitude: 0.3,
		WeekendFactor:   1.4,
		ReturnShare:     0.08,
		CancelShare:     0.01,
		DelayedShare:    0.005,
		ComplaintShare:  0.05,
		ReferralShare:   0.05,
		FeedbackShare:   0.10,
		ForeignShare:    0.02,
	}
}

// Validate names the first field that makes no sense.
func (c *Config) Validate() error {
	positive := func(v float64) bool { return v > 0 && !math.IsInf(v, 1) }
	share := func(v float64) bool { return v >= 0 && v <= 1 }
	for _, f := range []struct {
		name string
		ok   bool
		want string
	}{
		{"start", !c.Start.IsZero() && c.Start.UnixMilli() >= 0, "a date after 1970"},
		{"prefix", len(c.Prefix) <= 64, "at most 64 bytes"},
		{"customers", positive(c.Customers), "more than 0"},
		{"span", c.Span >= time.Minute, "a minute or more"},
		{"later arrivals", c.Later >= 0 && !math.IsInf(c.Later, 1), "0 or more"},
		{"r", positive(c.R), "more than 0"},
		{"alpha", positive(c.Alpha), "more than 0 days"},
		{"a", positive(c.A), "more than 0"},
		{"b", positive(c.B), "more than 0"},
		{"p", positive(c.P), "more than 0"},
		{"q", c.Q > 1 && !math.IsInf(c.Q, 1), "more than 1, else the mean order is infinite"},
		{"typical order", c.TypicalOrder > 0 && c.TypicalOrder <= 1e9, "1 to 1,000,000,000 minor units"},
		{"currency", len(c.Currency) == 3, "three letters"},
		{"season amplitude", c.SeasonAmplitude >= 0 && c.SeasonAmplitude < 1, "0 to below 1"},
		{"weekend factor", positive(c.WeekendFactor), "more than 0"},
		{"return share", share(c.ReturnShare), "0 to 1"},
		{"cancel share", share(c.CancelShare), "0 to 1"},
		{"delayed share", share(c.DelayedShare), "0 to 1"},
		{"complaint share", share(c.ComplaintShare), "0 to 1"},
		{"referral share", share(c.ReferralShare), "0 to 1"},
		{"feedback share", share(c.FeedbackShare), "0 to 1"},
		{"foreign share", share(c.ForeignShare), "0 to 1"},
		{"bad rate", share(c.BadRate), "0 to 1"},
		{"warp factor", c.Warp.From.IsZero() || positive(c.Warp.Factor), "more than 0"},
	} {
		if !f.ok {
			return fmt.Errorf("simulator setting %s: must be %s", f.name, f.want)
		}
	}
	return nil
}

// LiveFrom gives the model that from the given moment on makes about perSecond
// messages in a second of event time. It finds the factor by running the model
// up to that moment, at about a microsecond per message.
func (c Config) LiveFrom(from time.Time, perSecond float64) (Config, error) {
	c.Warp = Warp{}
	if !(perSecond > 0) {
		return c, fmt.Errorf("simulator setting live rate: must be more than 0")
	}
	if !from.After(c.Start) {
		return c, fmt.Errorf("simulator setting live from: must be after the start")
	}
	g, err := New(c)
	if err != nil {
		return c, err
	}
	// The last week, so that season and weekday of the moment weigh little.
	window := min(from.Sub(c.Start), 7*24*time.Hour)
	since, until := from.Add(-window).UnixMilli(), from.UnixMilli()
	n := 0
	for m := range g.All() {
		if m.At >= until {
			break
		}
		if m.At >= since {
			n++
		}
	}
	// One is added so that an empty week gives a large factor, not an infinite one.
	natural := float64(n+1) / window.Seconds()
	c.Warp = Warp{From: from, Factor: perSecond / natural}
	return c, nil
}
