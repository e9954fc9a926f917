package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fit"
	"github.com/tierstream/tierstream/internal/scoring"
)

type calibrateCmd struct {
	logFlags
	versionFlags

	Tiers []float64 `help:"Thresholds of the tiers, so that they divide the population into these shares, lowest first: 50,30,15,5. One for each tier of the base." placeholder:"SHARES"`
	Keep  bool      `name:"keep-cuts" help:"Leave the cut points of R, F and M as they are."`
}

func (c *calibrateCmd) Help() string {
	return `Computes the cut points of R, F and M that divide the customers of a log into fifths, and with --tiers the scores from which tiers are entered (each is left as far below as in the base), and writes the next version of --base with them. Equal values get equal scores, so many equal ones make unequal fifths. Before, it shows whom the new version moves: from which tier to which, how many, and what they bought in the window.

` + populationHelp + `

  tierctl calibrate orders.ndjson --base model.yaml -o model-2.yaml
  tierctl calibrate orders.csv --base model.yaml --keep-cuts --tiers 50,30,15,5 -o model-2.yaml`
}

func (c *calibrateCmd) Run(ctx context.Context, t *terminal) error {
	if c.Base == "" {
		return cli.Usage(errors.New("--base: missing: the model whose measure, window and zone count"))
	}
	e, base, err := c.open()
	if err != nil {
		return err
	}
	if n := len(base.Tiers()); len(c.Tiers) > 0 && len(c.Tiers) != n {
		return cli.Usage(fmt.Errorf("--tiers: %d shares for the %d tiers of %s", len(c.Tiers), n, c.Base))
	}
	if c.Keep && len(c.Tiers) == 0 {
		return cli.Usage(errors.New("--keep-cuts without --tiers leaves nothing to do"))
	}
	all, err := c.population(ctx, t, base)
	if err != nil {
		return err
	}
	m := base
	if !c.Keep {
		if err := cutPoints(t, e, base, all); err != nil {
			return err
		}
		if m, err = scoring.Parse(e.text); err != nil {
			return fmt.Errorf("the cut points are not accepted: %w", err)
		}
	}
	if len(c.Tiers) > 0 {
		if err := thresholds(t, e, m, all, c.Tiers); err != nil {
			return err
		}
		if m, err = scoring.Parse(e.text); err != nil {
			return fmt.Errorf("the thresholds are not accepted: %w", err)
		}
	}
	moves(t, base, m, all)
	notes := map[string]any{"customers": len(all), "cut_points": !c.Keep}
	if len(c.Tiers) > 0 {
		notes["tier_shares"] = c.Tiers
	}
	if err := e.provenance("calibration", notes); err != nil {
		return err
	}
	_, err = c.finish(t, e, base.Name())
	return err
}

// cutPoints sets those of R, F and M.
func cutPoints(t *terminal, e *edition, m *scoring.Model, all []scoring.Summary) error {
	var r, f, money []int64
	for i := range all {
		s := &all[i]
		r = append(r, int64(s.Today-s.LastDay))
		f = append(f, s.WindowOrders)
		money = append(money, max(0, s.WindowNet))
	}
	rc, err1 := fit.Cuts(r)
	fc, err2 := fit.Cuts(f)
	mc, err3 := fit.Cuts(money)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	list := func(v [4]int64, text func(int64) string) string {
		out := make([]string, len(v))
		for i := range v {
			out[i] = text(v[i])
		}
		return "[" + strings.Join(out, ", ") + "]"
	}
	number := func(v int64) string { return strconv.FormatInt(v, 10) }
	// M is reached, not exceeded: the cut point is one minor unit above the
	// value, in typical orders to six decimals.
	orders := func(v int64) string {
		return new(big.Rat).SetFrac64(v+1, m.TypicalOrder()).FloatString(6)
	}
	t.note("cut points: R %v days, F %v orders, M %s", list(rc, number), list(fc, number),
		list(mc, func(v int64) string { return event.FormatMoney(v, m.Currency()) }))
	return errors.Join(e.set(list(rc, number), "rfm", "recency_days"), e.set(list(fc, number), "rfm", "frequency_orders"),
		e.set(list(mc, orders), "rfm", "monetary_orders"))
}

// thresholds sets where tiers are entered and left.
func thresholds(t *terminal, e *edition, m *scoring.Model, all []scoring.Summary, shares []float64) error {
	scores := make([]int64, len(all))
	for i := range all {
		scores[i] = m.Measure(&all[i]).Score
	}
	enter, err := fit.Thresholds(scores, shares)
	if err != nil {
		return err
	}
	var d struct {
		Tiers []map[string]any `json:"tiers"`
	}
	if err := json.Unmarshal(m.Canonical(), &d); err != nil {
		return fmt.Errorf("reading the model's canonical form: %w", err)
	}
	exact := func(v int64) string { // 1/10,000
		return new(big.Rat).SetFrac64(v, 10_000).FloatString(4)
	}
	root, err := e.root()
	if err != nil {
		return err
	}
	if k, _ := child(root, "tiers"); k == nil { // taken from the default: written out
		b, err := json.Marshal(d.Tiers)
		if err != nil {
			return err
		}
		if err := e.set(string(b), "tiers"); err != nil {
			return err
		}
	}
	for i, tier := range m.Tiers() {
		if i == 0 {
			continue
		}
		leave := enter[i-1] - (tier.Enter - tier.Leave)
		t.note("%s from %s, kept down to %s", tier.Name, number(enter[i-1]), number(leave))
		at := strconv.Itoa(i)
		if err := errors.Join(e.set(exact(enter[i-1]), "tiers", at, "enter"), e.set(exact(leave), "tiers", at, "leave")); err != nil {
			return err
		}
	}
	return nil
}

// moves shows who is in another tier by the new model than by the old one, both
// decided anew, without what hysteresis keeps.
func moves(t *terminal, old, m *scoring.Model, all []scoring.Summary) {
	type move struct{ from, to int }
	count, net := map[move]int64{}, map[move]int64{}
	moved := int64(0)
	for i := range all {
		s := &all[i]
		way := move{old.Decide(-1, s, old.Measure(s).Score), m.Decide(-1, s, m.Measure(s).Score)}
		count[way]++
		net[way] += s.WindowNet
		if way.from != way.to {
			moved++
		}
	}
	t.note("%s of %s customers are in another tier:", grouped(moved), grouped(int64(len(all))))
	name := func(m *scoring.Model, tier int) string {
		if tier < 0 {
			return "none"
		}
		return m.Tiers()[tier].Name
	}
	w := tabwriter.NewWriter(t.err, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "from\tto\tcustomers\tbought in the window")
	for from := -1; from < len(old.Tiers()); from++ {
		for to := -1; to < len(m.Tiers()); to++ {
			if n := count[move{from, to}]; n > 0 {
				mark := ""
				if from == to {
					mark = " (stay)"
				}
				fmt.Fprintf(w, "%s\t%s%s\t%s\t%s\n", name(old, from), name(m, to), mark, grouped(n), event.FormatMoney(net[move{from, to}], m.Currency()))
			}
		}
	}
	_ = w.Flush() // to standard error
}
