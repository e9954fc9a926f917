package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/scoring"
)

type modelCmd struct {
	Init  modelInitCmd  `cmd:"" help:"Make a first model: asks for what is missing."`
	Check modelCheckCmd `cmd:"" help:"Check a model file and say in plain words what it does."`
}

type modelInitCmd struct {
	Name         string `help:"Name of this version of the model. Default: first-1." placeholder:"NAME"`
	Currency     string `help:"Base currency, ISO 4217: all amounts are kept in it." placeholder:"CUR"`
	Zone         string `help:"IANA zone whose midnights separate purchase days, such as Europe/Berlin." placeholder:"ZONE"`
	TypicalOrder string `help:"What a usual order is worth, as money: 35.00." placeholder:"MONEY"`
	MarginRate   string `help:"Margin of an order that states none, 0 to 1." placeholder:"RATE"`
	Output       string `short:"o" help:"Write to this file, which must not exist, instead of the terminal." placeholder:"FILE"`
}

func (c *modelInitCmd) Help() string {
	return `Writes a model with every value explained. Four answers are needed; on a terminal it asks for those that no flag gives. Elsewhere the zone defaults to UTC and the margin rate to 0.30.

  tierctl model init -o model.yaml
  tierctl model init --currency EUR --zone Europe/Berlin --typical-order 35.00 --margin-rate 0.4 -o model.yaml`
}

func (c *modelInitCmd) Run(t *terminal) error {
	o, err := c.options(t)
	if err != nil {
		return err
	}
	b, err := scoring.Init(o)
	if err != nil {
		return err
	}
	if c.Output == "" {
		_, err := t.out.Write(b)
		return err
	}
	f, err := os.OpenFile(c.Output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("writing the model: %s exists already, and a model in use must not change under its name", c.Output)
	}
	if err != nil {
		return fmt.Errorf("writing the model: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing the model: %w", err)
	}
	t.note("wrote %s; look at it with tierctl model check %s, use it with consumer --model %s", c.Output, c.Output, c.Output)
	return nil
}

// options completes the flags by asking, where somebody can answer.
func (c *modelInitCmd) options(t *terminal) (o scoring.InitOptions, err error) {
	var q *questions
	if isTerminal(t.in) {
		q = newQuestions(t, t.in)
	} else {
		q = newQuestions(t, nil)
	}
	o.Name = c.Name
	o.Currency = q.currency(c.Currency)
	o.Zone = q.zone(c.Zone)
	typical := q.typicalOrder(c.TypicalOrder, o.Currency)
	o.MarginRate = q.marginRate(c.MarginRate, o.Currency)
	if q.err != nil {
		return o, q.err
	}
	o.TypicalOrderMinor, err = event.ParseMoney(typical, o.Currency)
	return o, err
}

func (q *questions) currency(given string) string {
	return strings.ToUpper(q.ask(given, "", "Base currency (ISO 4217, such as EUR)", "--currency", func(s string) error {
		if _, ok := event.Exponent(strings.ToUpper(s)); !ok {
			return fmt.Errorf("%q is not an ISO 4217 currency", s)
		}
		return nil
	}))
}

func (q *questions) zone(given string) string {
	return q.ask(given, "UTC", "Zone whose midnights separate purchase days", "--zone", func(s string) error {
		_, err := scoring.NewCalendar(s)
		return err
	})
}

func (q *questions) typicalOrder(given, currency string) string {
	return q.ask(given, "", "Typical order, as money (such as 35.00)", "--typical-order", func(s string) error {
		minor, err := event.ParseMoney(s, currency)
		if err == nil && minor <= 0 {
			err = fmt.Errorf("%s is not above 0", s)
		}
		return err
	})
}

func (q *questions) marginRate(given, currency string) string {
	return q.ask(given, "0.30", "Margin rate of an order that states none (0 to 1)", "--margin-rate", func(s string) error {
		_, err := scoring.Init(scoring.InitOptions{Currency: currency, MarginRate: s})
		return err
	})
}

// isTerminal tells whether somebody can answer.
func isTerminal(in io.Reader) bool {
	f, ok := in.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	if err != nil || st.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(st, null)
}

// questions asks one after the other and remembers the first error.
type questions struct {
	t       *terminal
	answers *bufio.Scanner // nil: nobody is there
	err     error
}

// newQuestions asks whoever writes answers; nil is nobody.
func newQuestions(t *terminal, answers io.Reader) *questions {
	q := &questions{t: t}
	if answers != nil {
		q.answers = bufio.NewScanner(answers)
	}
	return q
}

// ask is the given answer, or that of the person, or the default. A wrong
// answer is asked for again; a wrong flag is an error.
func (q *questions) ask(given, byDefault, question, flag string, check func(string) error) string {
	if q.err != nil {
		return ""
	}
	wrong := func(err error) string {
		q.err = cli.Usage(fmt.Errorf("%s: %w", flag, err))
		return ""
	}
	if given != "" || q.answers == nil {
		if given == "" {
			given = byDefault
		}
		if given == "" {
			return wrong(errors.New("missing: nobody is here to be asked"))
		}
		if err := check(given); err != nil {
			return wrong(err)
		}
		return given
	}
	hint := ""
	if byDefault != "" {
		hint = " [" + byDefault + "]"
	}
	for {
		fmt.Fprintf(q.t.err, "%s%s: ", question, hint)
		if !q.answers.Scan() {
			return wrong(errors.Join(errors.New("no answer"), q.answers.Err()))
		}
		s := strings.TrimSpace(q.answers.Text())
		if s == "" {
			s = byDefault
		}
		if s == "" {
			continue
		}
		err := check(s)
		if err == nil {
			return s
		}
		q.t.note("  %v", err)
	}
}

type modelCheckCmd struct {
	File string `arg:"" type:"existingfile" help:"Model file."`
}

func (c *modelCheckCmd) Help() string {
	return `Reads a model as the consumer would, says what it means and prints its hash; the hash changes when any value does that decides an outcome. What is wrong is told with file and line.

  tierctl model check model.yaml`
}

func (c *modelCheckCmd) Run(t *terminal) error {
	b, err := os.ReadFile(c.File)
	if err != nil {
		return fmt.Errorf("reading the model: %w", err)
	}
	m, err := scoring.Parse(b)
	if err != nil {
		if n := lineOf(b, err.Error()); n > 0 {
			return fmt.Errorf("%s:%d: %w", c.File, n, err)
		}
		return fmt.Errorf("%s: %w", c.File, err)
	}
	return explain(t.out, m)
}

// lineOf finds the line of the key that an error of the model names; 0 when it
// names none that stands in the file, or says the line itself.
func lineOf(file []byte, err string) int {
	if strings.Contains(err, "line ") {
		return 0
	}
	var doc yaml.Node
	if yaml.Unmarshal(file, &doc) != nil || len(doc.Content) == 0 {
		return 0
	}
	best, line := "", 0
	var walk func(path string, n *yaml.Node)
	visit := func(path string, n *yaml.Node) {
		if len(path) > len(best) && strings.Contains(err, path) {
			best, line = path, n.Line
		}
	}
	walk = func(path string, n *yaml.Node) {
		switch n.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				key, sep := n.Content[i], "."
				if path == "" {
					sep = ""
				} else if strings.Contains(path, ": ") {
					sep = ": " // an element of a list
				}
				visit(path+sep+key.Value, key)
				walk(path+sep+key.Value, n.Content[i+1])
			}
		case yaml.SequenceNode:
			for _, e := range n.Content {
				for i := 0; i+1 < len(e.Content); i += 2 {
					if e.Content[i].Value == "id" {
						visit(path+": "+e.Content[i+1].Value, e)
						walk(path+": "+e.Content[i+1].Value, e)
					}
				}
			}
		}
	}
	walk("", doc.Content[0])
	return line
}

// explain says in plain words what a model does.
func explain(w io.Writer, m *scoring.Model) error {
	var d struct {
		Zone          string  `json:"zone"`
		MarginRate    float64 `json:"margin_rate"`
		ExpectedYears int     `json:"expected_years"`
		DefaultCAC    int64   `json:"default_cac_minor"`
		Prediction    struct {
			Predictor string  `json:"predictor"`
			Horizon   int     `json:"horizon_days"`
			Discount  float64 `json:"yearly_discount"`
		} `json:"prediction"`
		Satisfaction struct {
			Neutral  float64   `json:"neutral"`
			Points   []float64 `json:"complaint_points"`
			HalfLife float64   `json:"half_life_days"`
		} `json:"satisfaction"`
		Measure map[string]float64 `json:"measure"`
	}
	if err := json.Unmarshal(m.Canonical(), &d); err != nil {
		return fmt.Errorf("reading the model's canonical form: %w", err)
	}
	money := func(minor int64) string { return event.FormatMoney(minor, m.Currency()) }
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("Model %s is right. Its hash is %x.", m.Name(), m.Hash())
	say("")
	say("Money is kept in %s. Days end at midnight in %s.", m.Currency(), d.Zone)
	say("A typical order is %s; an order that states no margin is taken to bring %g %% of it.", money(m.TypicalOrder()), 100*d.MarginRate)
	say("Frequency and money count the last %d days; simple lifetime values look %d years ahead.", m.WindowDays(), d.ExpectedYears)
	say("A customer whose acquisition cost is not recorded is taken to have cost %s.", money(d.DefaultCAC))
	fitted := "fitted to this company's customers"
	if !m.Fitted() {
		fitted = "not fitted to this company's customers, and every output says so"
	}
	say("Future purchases are predicted for %d days by %s, discounted by %g %% a year; it is %s.", d.Prediction.Horizon, d.Prediction.Predictor, 100*d.Prediction.Discount, fitted)
	say("Without a survey satisfaction is %g; a complaint takes %g to %g points off, of which half have faded after %g days.",
		d.Satisfaction.Neutral, d.Satisfaction.Points[0], d.Satisfaction.Points[len(d.Satisfaction.Points)-1], d.Satisfaction.HalfLife)
	say("")
	say("Tiers are decided by %s:", m.MeasureName())
	if len(d.Measure) > 1 {
		for _, name := range slices.Sorted(maps.Keys(d.Measure)) {
			say("  %g × %s", d.Measure[name], name)
		}
	}
	tiers := m.Tiers()
	for i := len(tiers) - 1; i > 0; i-- {
		say("  %-12s from %s, kept down to %s", tiers[i].Name, number(tiers[i].Enter), number(tiers[i].Leave))
	}
	say("  %-12s everybody else", tiers[0].Name)
	say("")
	say("For example, a customer who has just made typical orders, one a month:")
	for _, orders := range []int64{1, 2, 4, 8, 12} {
		s := example(m, orders)
		score := m.Measure(&s).Score
		say("  after %2d: %s %s, %s", orders, m.MeasureName(), number(score), tiers[max(0, m.Decide(-1, &s, score))].Name)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// number is a score or threshold, 1/10,000, for a person.
func number(v int64) string {
	return strings.TrimSuffix(strings.TrimRight(strconv.FormatFloat(float64(v)/10_000, 'f', 2, 64), "0"), ".")
}

// example is a customer after so many typical orders, 30 days apart, of whom
// nothing else is known, evaluated right after the last.
func example(m *scoring.Model, orders int64) scoring.Summary {
	const month = 30
	today := int32(20_000)
	s := scoring.Summary{
		At: int64(today) * 86_400_000, Today: today, Bought: true, Active: true,
		FirstDay: today - int32(orders-1)*month, LastDay: today, Days: orders,
		Orders: orders, Net: orders * m.TypicalOrder(), LastOrderAt: int64(today) * 86_400_000,
		First:     scoring.Margins{Assumed: m.TypicalOrder()},
		Repeat:    scoring.Margins{Assumed: (orders - 1) * m.TypicalOrder()},
		ValueDays: orders - 1, ValueSum: (orders - 1) * m.TypicalOrder(),
	}
	within := func(days int) int64 { return min(orders, 1+int64(days-1)/month) }
	s.WindowOrders, s.YearOrders = within(m.WindowDays()), within(365)
	s.WindowNet, s.YearNet = s.WindowOrders*m.TypicalOrder(), s.YearOrders*m.TypicalOrder()
	s.Year.Assumed = s.YearNet
	return s
}
