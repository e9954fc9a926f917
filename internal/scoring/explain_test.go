package scoring

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// arithmetic evaluates what Line.Numbers may hold, by m's purchase model where it
// says CET.
type arithmetic struct {
	m    *Model
	text string
	at   int
}

func (a *arithmetic) accept(s string) bool {
	a.at += len(a.text[a.at:]) - len(strings.TrimLeft(a.text[a.at:], " "))
	if !strings.HasPrefix(a.text[a.at:], s) {
		return false
	}
	a.at += len(s)
	return true
}

func (a *arithmetic) comparison() float64 {
	v := a.sum()
	truth := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	switch {
	case a.accept(">="):
		return truth(v >= a.sum())
	case a.accept(">"):
		return truth(v > a.sum())
	}
	return v
}

func (a *arithmetic) sum() float64 {
	v := a.product()
	for {
		switch {
		case a.accept("+"):
			v += a.product()
		case a.accept("-"):
			v -= a.product()
		default:
			return v
		}
	}
}

func (a *arithmetic) product() float64 {
	v := a.power()
	for {
		switch {
		case a.accept("*"):
			v *= a.power()
		case a.accept("/"):
			v /= a.power()
		default:
			return v
		}
	}
}

func (a *arithmetic) power() float64 {
	v := a.operand()
	if a.accept("^") {
		return math.Pow(v, a.power())
	}
	return v
}

func (a *arithmetic) operand() float64 {
	if a.accept("-") {
		return -a.operand()
	}
	for _, name := range []string{"", "min", "max", "exp", "CET"} {
		if !a.accept(name + "(") {
			continue
		}
		args := []float64{a.comparison()}
		for a.accept(",") {
			args = append(args, a.comparison())
		}
		if !a.accept(")") {
			panic("no closing parenthesis")
		}
		switch name {
		case "min":
			return slices.Min(args)
		case "max":
			return slices.Max(args)
		case "exp":
			return math.Exp(args[0])
		case "CET":
			var out [1]float64
			a.m.purchases.expected(args[0], args[1], args[2:], out[:])
			return out[0]
		}
		return args[0]
	}
	end := a.at
	for end < len(a.text) && (unicode.IsDigit(rune(a.text[end])) || strings.ContainsRune(".e", rune(a.text[end])) || a.text[end] == '-' && a.text[end-1] == 'e' || a.text[end] == '+' && a.text[end-1] == 'e') {
		end++
	}
	v, err := strconv.ParseFloat(a.text[a.at:end], 64)
	if err != nil {
		panic(err)
	}
	a.at = end
	return v
}

func evaluate(m *Model, text string) (v float64, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	a := arithmetic{m: m, text: text}
	if v = a.comparison(); strings.TrimSpace(a.text[a.at:]) != "" {
		err = fmt.Errorf("not understood from %q on", a.text[a.at:])
	}
	return v, err
}

func TestArithmeticOfTheTest(t *testing.T) {
	for text, want := range map[string]float64{"1 + 2 * 3 ^ 2 - (4 - 1) / 2": 17.5, "5 - (3 > 2) - (2 >= 3)": 4, "min(max((-2), 0), 1) + exp(0)": 1, "1.5e-05 * 2": 3e-5} {
		if got, err := evaluate(Default(), text); err != nil || math.Abs(got-want) > 1e-12 {
			t.Errorf("%s = %v, %v; want %v", text, got, err, want)
		}
	}
	if _, err := evaluate(Default(), "1 + 2 x"); err == nil {
		t.Error("rubbish is evaluated")
	}
}

// figureAt is a figure by its place in the document that readers get.
func figureAt(t *testing.T, v Values, path string) any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var at any
	if err := json.Unmarshal(b, &at); err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(path, ".") {
		object, ok := at.(map[string]any)
		if !ok || object[name] == nil {
			t.Fatalf("no figure %s", path)
		}
		at = object[name]
	}
	return at
}

// figuresWithoutExplanation are facts, and answers as they were given.
var figuresWithoutExplanation = []string{
	"rfm.orders", "rfm.net_minor", "clv.selling_minor", "clv.cac_minor", "clv.direct_cost_minor", "clv.indirect_cost_minor",
	"forecast.new_customer_purchases_365", "experience.open_complaints", "experience.complaints", "experience.praises", "experience.suggestions",
	"experience.referrals_converted", "experience.nps", "experience.csat", "experience.ces", "experience.oldest_open_complaint_days",
	"experience.mean_resolution_days", "experience.repeat_complaints", "orders.orders", "orders.net_minor", "orders.largest_minor",
	"orders.purchase_days", "orders.returns", "orders.returned_minor",
}

// What Explain prints is what Values says: each line's arithmetic, evaluated,
// gives the value that is printed, and that is the figure, money to the minor
// unit.
func TestExplanationsGiveTheFigures(t *testing.T) {
	models := []*Model{
		Default(),
		edit(t, "mbg_nbd\n", "bg_nbd\n", "standard_service_cost_minor: 0", "standard_service_cost_minor: 130", "clv_basis: contribution", "clv_basis: profit", "contact_cost_minor: 0", "contact_cost_minor: 25", "EUR", "JPY"),
		edit(t, "measure: contribution", "measure: {contribution: 0.6, rfm.weighted: 0.4}", "map: ten_segments", "map: eleven_groups", "clv_basis: contribution", "clv_basis: revenue", "EUR", "KWD"),
		edit(t, "measure: contribution", "measure: {clv.total: 0.5, clv.npv: 0.25}", "lost_beyond: true", "lost_beyond: false"),
	}
	exponents := []float64{100, 1, 1000, 100}
	explained := map[string]bool{}
	n := 0
	eachRandom(func(r *rand.Rand, s Summary) {
		if n++; n%20 != 0 {
			return
		}
		s.PreviousDay, s.Largest = s.LastDay-r.Int32N(400), s.Net/2
		for i, m := range models {
			v, lines := m.Explain(&s)
			if got, want := fmt.Sprint(v), fmt.Sprint(m.Values(&s)); got != want && len(s.Complaints) == 0 && !s.NPS.Known && !s.CSAT.Known && !s.CES.Known { // pointers print as addresses
				t.Fatalf("Explain has other figures than Values:\n%s\n%s", got, want)
			}
			for _, l := range lines {
				if l.Group == "" || l.Label == "" || l.Formula == "" || l.Source == "" || l.Value == "" {
					if l.Figure != "rfm.segment" {
						t.Fatalf("a line says too little: %+v", l)
					}
				}
				var figure any
				if l.Figure != "" {
					explained[l.Figure] = true
					figure = figureAt(t, v, l.Figure)
				}
				if text, ok := figure.(string); ok {
					if text != l.Value {
						t.Fatalf("%s is %s: %+v", l.Figure, text, l)
					}
					continue
				}
				printed, unitName, _ := strings.Cut(l.Value, " ")
				value, err := strconv.ParseFloat(printed, 64)
				if err != nil {
					t.Fatalf("%+v: %v", l, err)
				}
				inMoney := unitName == m.currency && l.Figure != "" || strings.HasSuffix(l.Figure, "_minor")
				if figure != nil {
					want := figure.(float64)
					if inMoney {
						want = math.RoundToEven(want) / exponents[i]
					}
					if math.Abs(value-want) > 1e-9*math.Max(1, math.Abs(want)) {
						t.Fatalf("%s is %v: %+v", l.Figure, want, l)
					}
				}
				if l.Figure == "clv.recency_state" {
					continue // said in words
				}
				got, err := evaluate(m, l.Numbers)
				if err != nil {
					t.Fatalf("%+v: %v", l, err)
				}
				allowed := 1e-7*math.Max(1, math.Abs(value)) + 0.51/unit // a score is rounded to 1/10,000
				if inMoney || unitName == m.currency {
					allowed = 0.51/exponents[i] + 1e-8*math.Abs(value)
				}
				if math.Abs(got-value) > allowed {
					t.Fatalf("the numbers give %v: %+v", got, l)
				}
			}
		}
	})
	// Every figure is explained, but for facts.
	var walk func(path string, v any)
	walk = func(path string, v any) {
		if object, ok := v.(map[string]any); ok {
			for name, v := range object {
				walk(strings.TrimPrefix(path+"."+name, "."), v)
			}
			return
		}
		if _, number := v.(float64); number && !explained[path] && !slices.Contains(figuresWithoutExplanation, path) {
			t.Errorf("%s is not explained", path)
		}
	}
	s := sample()
	s.PreviousDay, s.Largest = s.LastDay-40, 9_000
	s.CSAT, s.CES = Response{true, 4, 5}, Response{true, 6, 7}
	v, _ := models[0].Explain(&s)
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var document any
	if err := json.Unmarshal(b, &document); err != nil {
		t.Fatal(err)
	}
	walk("", document)
}

// CLV1 to CLV6 and the costs add up to the total, to the minor unit, as they are
// printed.
func TestExplainedPartsAddUp(t *testing.T) {
	m := edit(t, "standard_service_cost_minor: 0", "standard_service_cost_minor: 250")
	eachRandom(func(_ *rand.Rand, s Summary) {
		_, lines := m.Explain(&s)
		i := slices.IndexFunc(lines, func(l Line) bool { return l.Figure == "clv.total_minor" })
		printed, _, _ := strings.Cut(lines[i].Value, " ")
		value, err := strconv.ParseFloat(printed, 64)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := evaluate(m, lines[i].Numbers); err != nil || math.Round(got*100) != math.Round(value*100) {
			t.Fatalf("%s is %v, %v; printed is %s", lines[i].Numbers, got, err, lines[i].Value)
		}
	})
}
