package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/tierstream/tierstream/internal/scoring/btyd"
)

type clvCmd struct{}

func (c *clvCmd) Help() string {
	return `Reads evaluations from standard input, one JSON object per line, and prints an answer per line: {"id":…,"value":…} or {"id":…,"error":"…"}. Nothing else is needed, no Kafka and no Redis. A line that cannot be answered does not stop the others.

  {"id":…, "model":…, "params":{…}, "inputs":{…}, "output":…}

Models and their params:
  BG/NBD, MBG/NBD                         r alpha a b
  Pareto/NBD                              r alpha s beta
  NBD                                     r alpha
  BG/CNBD, MBG/CNBD                       k r alpha a b (alpha is the rate of the k stages)
  BG/BB                                   alpha beta gamma delta
  Gamma-Gamma                             p q v
  BG/NBD + Gamma-Gamma (and MBG/NBD + …)  {"bgnbd":{…},"gammagamma":{…}} ("mbgnbd" too)

Outputs and their inputs; x, t_x, T are repeat purchases, time of the last, age, in the unit of the params:
  log_likelihood                   x t_x T (k > 1 and x > 0: litt; Gamma-Gamma: x mean_value)
  p_alive                          x t_x T (BG/BB: at the next opportunity)
  conditional_expected_purchases   x t_x T t: in (T, T+t]
  expected_purchases_new_customer  t
  pmf                              n t: P(n repeat purchases within t)
  p_no_purchase                    x t_x T t: in (T, T+t]
  dert                             x t_x T continuous_discount_per_unit; t for an end
  T_at_crossing                    x t_x p_alive_threshold
  conditional_mean_value           x mean_value
  discounted_clv                   x t_x T mean_value months monthly_discount units_per_month

litt is the sum of the natural logarithms of the times between purchases. Of BG/BB, n stands for T and n_future for t: opportunities; its pmf takes x purchases at n opportunities, or n at t. discounted_clv is the sum over months i of value · purchases expected in month i / (1 + monthly_discount)^i; the value is what Gamma-Gamma makes of mean_value, or mean_value itself where there is no value model.

  $ echo '{"id":1,"model":"BG/NBD","params":{"r":0.243,"alpha":4.414,"a":0.793,"b":2.426},"inputs":{"x":2,"t_x":30.43,"T":38.86,"t":39},"output":"conditional_expected_purchases"}' | tierctl clv
  {"id":1,"value":1.226028174767144}`
}

func (c *clvCmd) Run(ctx context.Context, t *terminal) error {
	return eachLine(ctx, t.in, "standard input", func(_ int64, text []byte) error {
		return answer(t.out, text)
	})
}

// evaluation is one line of clv's input.
type evaluation struct {
	ID     json.RawMessage            `json:"id"`
	Model  string                     `json:"model"`
	Params map[string]json.RawMessage `json:"params"`
	Inputs map[string]json.RawMessage `json:"inputs"`
	Output string                     `json:"output"`
}

// answer writes the answer to one line; its error is the writer's.
func answer(to io.Writer, line []byte) error {
	var out struct {
		ID    json.RawMessage `json:"id"`
		Value *float64        `json:"value,omitempty"`
		Error string          `json:"error,omitempty"`
	}
	var e evaluation
	value, err := 0.0, e.parse(line)
	out.ID = e.ID
	if err == nil {
		value, err = e.evaluate()
	}
	switch {
	case err != nil:
		out.Error = err.Error()
	case math.IsNaN(value) || math.IsInf(value, 0):
		out.Error = fmt.Sprintf("%s cannot be computed for these params and inputs", e.Output)
	default:
		out.Value = &value
	}
	if out.ID == nil {
		out.ID = json.RawMessage("null")
	}
	b := &bytes.Buffer{}
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false) // an id comes back as it was given
	if err := enc.Encode(out); err != nil {
		return fmt.Errorf("encoding an answer: %w", err)
	}
	_, err = to.Write(b.Bytes())
	return err
}

// parse reads a line. With an error the ID may be there none the less.
func (e *evaluation) parse(line []byte) error {
	err := json.Unmarshal(line, e)
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		err = d.Decode(&evaluation{})
	}
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong) && wrong.Field == "":
		return fmt.Errorf("the line is a JSON %s: want an object", wrong.Value)
	case errors.As(err, &wrong):
		return fmt.Errorf("%s is a JSON %s", wrong.Field, wrong.Value)
	case err != nil:
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// clvInputs are the inputs that an evaluation may have, whichever it needs.
var clvInputs = []string{
	"x", "t_x", "T", "t", "n", "n_future", "litt", "mean_value", "months", "monthly_discount", "units_per_month",
	"continuous_discount_per_unit", "p_alive_threshold",
}

// clvModel is what a line names: a purchase model, a value model, or both.
type clvModel struct {
	purchases btyd.Model       // nil: none
	values    *btyd.GammaGamma // nil: none
	pair      bool
	regular   bool // its likelihood needs litt
}

const gammaGamma = "Gamma-Gamma"

func (e *evaluation) evaluate() (float64, error) {
	if e.Output == "" {
		return 0, errors.New("output is missing")
	}
	m, err := e.model()
	if err != nil {
		return 0, err
	}
	in, err := e.inputs()
	if err != nil {
		return 0, err
	}
	compute, ok := map[string]func(*clvModel, *clvValues) (float64, error){
		"log_likelihood":                  logLikelihood,
		"p_alive":                         pAlive,
		"conditional_expected_purchases":  expectedPurchases,
		"expected_purchases_new_customer": newCustomer,
		"pmf":                             pmf,
		"p_no_purchase":                   noPurchase,
		"dert":                            dert,
		"T_at_crossing":                   crossing,
		"conditional_mean_value":          meanValue,
		"discounted_clv":                  discountedCLV,
	}[e.Output]
	if !ok {
		return 0, fmt.Errorf("unknown output %q", e.Output)
	}
	switch value := e.Output == "conditional_mean_value"; {
	case value && m.values == nil,
		!value && m.purchases == nil && e.Output != "log_likelihood",
		m.pair && e.Output == "log_likelihood": // the sum of two likelihoods of different data
		return 0, fmt.Errorf("model %s has no %s", e.Model, e.Output)
	}
	value, err := compute(m, in)
	if err == nil {
		err = in.err
	}
	return value, err
}

// model is the model of the line, with its parameters.
func (e *evaluation) model() (*clvModel, error) {
	switch e.Model {
	case "":
		return nil, errors.New("model is missing")
	case gammaGamma:
		g, err := gammaGammaOf(e.Params)
		return &clvModel{values: g}, err
	}
	name, pair := strings.CutSuffix(e.Model, " + "+gammaGamma)
	family, ok := btyd.FamilyOf(name)
	if !ok || pair && name != "BG/NBD" && name != "MBG/NBD" {
		return nil, fmt.Errorf("unknown model %q", e.Model)
	}
	params, m := e.Params, &clvModel{pair: pair}
	if pair {
		var of struct {
			BG     map[string]json.RawMessage `json:"bgnbd"`
			MBG    map[string]json.RawMessage `json:"mbgnbd"`
			Values map[string]json.RawMessage `json:"gammagamma"`
		}
		b, err := json.Marshal(e.Params)
		if err != nil {
			return nil, fmt.Errorf("params: %w", err)
		}
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(&of); err != nil {
			return nil, fmt.Errorf("params: %w", err)
		}
		params = of.BG
		switch {
		case of.BG != nil && of.MBG != nil:
			return nil, errors.New("params has both bgnbd and mbgnbd")
		case of.MBG != nil && name == "BG/NBD":
			return nil, errors.New("params has mbgnbd, the model is a BG/NBD")
		case of.MBG != nil:
			params = of.MBG
		case of.BG == nil:
			return nil, errors.New("params: bgnbd is missing")
		case of.Values == nil:
			return nil, errors.New("params: gammagamma is missing")
		}
		if m.values, err = gammaGammaOf(of.Values); err != nil {
			return nil, err
		}
	}
	p, err := parameters(params, family.Parameters)
	if err != nil {
		return nil, err
	}
	m.regular = family.Parameters[0] == "k" && p[0] > 1
	m.purchases, err = family.New(p...)
	return m, err
}

func gammaGammaOf(params map[string]json.RawMessage) (*btyd.GammaGamma, error) {
	p, err := parameters(params, []string{"p", "q", "v"})
	if err != nil {
		return nil, err
	}
	return btyd.NewGammaGamma(p[0], p[1], p[2])
}

// parameters are those of the names, in their order; there must be no others.
func parameters(given map[string]json.RawMessage, names []string) ([]float64, error) {
	p := make([]float64, len(names))
	for i, name := range names {
		raw, ok := given[name]
		if !ok {
			return nil, fmt.Errorf("params: %s is missing", name)
		}
		var err error
		if p[i], err = jsonNumber(raw); err != nil {
			return nil, fmt.Errorf("params: %s %w", name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("params: unknown field %q: want %s", name, strings.Join(names, ", "))
		}
	}
	return p, nil
}

// jsonNumber is a JSON number within float64; null is none.
func jsonNumber(raw json.RawMessage) (float64, error) {
	var v *float64
	if err := json.Unmarshal(raw, &v); err != nil || v == nil {
		return 0, fmt.Errorf("is %.40s: want a number", raw)
	}
	return *v, nil
}

// clvValues are the inputs of a line. The first that is missing or wrong is err.
type clvValues struct {
	v   map[string]float64
	err error
}

func (e *evaluation) inputs() (*clvValues, error) {
	in := &clvValues{v: map[string]float64{}}
	for _, name := range slices.Sorted(maps.Keys(e.Inputs)) {
		if !slices.Contains(clvInputs, name) {
			return nil, fmt.Errorf("inputs: unknown field %q", name)
		}
		v, err := jsonNumber(e.Inputs[name])
		if err != nil {
			return nil, fmt.Errorf("inputs: %s %w", name, err)
		}
		if v < 0 && name != "litt" {
			return nil, fmt.Errorf("inputs: %s is %v: want 0 or more", name, v)
		}
		in.v[name] = v
	}
	return in, nil
}

func (in *clvValues) fail(format string, args ...any) {
	if in.err == nil {
		in.err = fmt.Errorf("inputs: "+format, args...)
	}
}

func (in *clvValues) has(name string) bool { _, ok := in.v[name]; return ok }

// need is the first of the inputs that is given.
func (in *clvValues) need(names ...string) float64 {
	for _, name := range names {
		if v, ok := in.v[name]; ok {
			return v
		}
	}
	in.fail("%s is missing", names[0])
	return 0
}

// whole is need of a whole number in a range.
func (in *clvValues) whole(name string, least, most float64) float64 {
	v := in.need(name)
	if in.err == nil && (v != math.Floor(v) || v < least || v > most) {
		in.fail("%s is %v: want a whole number, %v to %v", name, v, least, most)
	}
	return v
}

// horizon is t; of BG/BB n_future or t, whole.
func (in *clvValues) horizon(m *clvModel) float64 {
	if !m.discrete() {
		t := in.need("t")
		if err := btyd.CheckTime(t); err != nil {
			in.fail("t: %w", err)
		}
		return t
	}
	for _, name := range []string{"n_future", "t"} {
		if in.has(name) {
			return in.whole(name, 0, 1e6)
		}
	}
	in.fail("n_future is missing")
	return 0
}

func (m *clvModel) discrete() bool { _, ok := m.purchases.(*btyd.BGBB); return ok }

// history is x, t_x and T, checked; of BG/BB n may stand for T.
func (in *clvValues) history(m *clvModel) btyd.History {
	h := btyd.History{Frequency: in.need("x"), AgeAtLast: in.need("t_x"), LogGaps: in.v["litt"]}
	h.Age = in.age(m)
	in.check(m, h)
	return h
}

func (in *clvValues) age(m *clvModel) float64 {
	if !m.discrete() {
		return in.need("T")
	}
	if in.has("T") && in.has("n") && in.v["T"] != in.v["n"] {
		in.fail("T is %v and n is %v: of BG/BB both are the number of opportunities", in.v["T"], in.v["n"])
	}
	return in.need("n", "T")
}

func (in *clvValues) check(m *clvModel, h btyd.History) {
	if in.err == nil {
		if err := m.purchases.Check(h); err != nil {
			in.fail("%w", err)
		}
	}
}

// The outputs. An input that is missing makes what they return meaningless,
// and in.err says so.

func logLikelihood(m *clvModel, in *clvValues) (float64, error) {
	if m.purchases == nil {
		x, mean := in.value(m)
		if in.err == nil && x == 0 {
			in.fail("x is 0: without a purchase there is no value")
		}
		return m.values.LogLikelihood(x, mean), nil
	}
	h := in.history(m)
	if m.regular && h.Frequency > 0 {
		in.need("litt")
	}
	return guarded(in, func() float64 { return m.purchases.LogLikelihood(h) }), nil
}

// guarded computes nothing from wrong inputs.
func guarded(in *clvValues, compute func() float64) float64 {
	if in.err != nil {
		return 0
	}
	return compute()
}

func pAlive(m *clvModel, in *clvValues) (float64, error) {
	h := in.history(m)
	return guarded(in, func() float64 { return m.purchases.Alive(h) }), nil
}

func expectedPurchases(m *clvModel, in *clvValues) (float64, error) {
	h, t := in.history(m), in.horizon(m)
	return guarded(in, func() float64 { return m.purchases.Expected(h, t) }), nil
}

func newCustomer(m *clvModel, in *clvValues) (float64, error) {
	t := in.horizon(m)
	return guarded(in, func() float64 { return m.purchases.Expected(btyd.History{}, t) }), nil
}

// pmf counts up to a million purchases: what its sums may cost.
func pmf(m *clvModel, in *clvValues) (float64, error) {
	count := "n"
	var t float64
	if m.discrete() && in.has("x") { // x purchases at n opportunities
		count, t = "x", in.age(m)
		in.check(m, btyd.History{Age: t})
	} else {
		t = in.horizon(m)
	}
	n := in.whole(count, 0, 1e6)
	return guarded(in, func() float64 { return m.purchases.Probability(int(n), t) }), nil
}

func noPurchase(m *clvModel, in *clvValues) (float64, error) {
	h, t := in.history(m), in.horizon(m)
	return guarded(in, func() float64 { return m.purchases.NoPurchase(h, t) }), nil
}

func dert(m *clvModel, in *clvValues) (float64, error) {
	h, rate, horizon := in.history(m), in.need("continuous_discount_per_unit"), math.Inf(1)
	if in.has("t") || in.has("n_future") {
		horizon = in.horizon(m)
	}
	if in.err == nil && (rate > 1e6 || rate < 1e-9 && (rate > 0 || math.IsInf(horizon, 1))) {
		in.fail("continuous_discount_per_unit is %v: want 1e-9 to 1e6, or 0 with t", rate)
	}
	return guarded(in, func() float64 { return m.purchases.DERT(h, rate, horizon) }), nil
}

func crossing(m *clvModel, in *clvValues) (float64, error) {
	h := btyd.History{Frequency: in.need("x"), AgeAtLast: in.need("t_x"), LogGaps: in.v["litt"]}
	h.Age = h.AgeAtLast
	if in.has("T") || m.discrete() && in.has("n") {
		h.Age = in.age(m)
	}
	in.check(m, h)
	p := in.need("p_alive_threshold")
	if in.err == nil && (p <= 0 || p >= 1) {
		in.fail("p_alive_threshold is %v: want above 0, below 1", p)
	}
	if in.err != nil {
		return 0, nil
	}
	T := m.purchases.AliveUntil(h, p)
	if math.IsInf(T, 1) {
		return 0, fmt.Errorf("P(alive) never falls to %v", p)
	}
	return T, nil
}

// value is x and mean_value, checked; a mean of nothing need not be given.
func (in *clvValues) value(m *clvModel) (x, mean float64) {
	if x = in.need("x"); x > 0 {
		mean = in.need("mean_value")
	}
	if in.err == nil && x != math.Floor(x) {
		in.fail("x is %v: want a whole number", x)
	}
	if in.err == nil {
		if err := m.values.CheckValue(x, mean); err != nil {
			in.fail("%w", err)
		}
	}
	return x, mean
}

func meanValue(m *clvModel, in *clvValues) (float64, error) {
	x, mean := in.value(m)
	if in.err != nil {
		return 0, nil
	}
	v := m.values.Expected(x, float64(x*mean))
	if math.IsInf(v, 1) {
		return 0, errors.New("p·x + q is not above 1: values have no mean")
	}
	return v, nil
}

func discountedCLV(m *clvModel, in *clvValues) (float64, error) {
	h := in.history(m)
	months, unit, discount := in.whole("months", 1, 10_000), in.need("units_per_month"), in.need("monthly_discount")
	if err := btyd.CheckTime(float64(months * unit)); err != nil {
		in.fail("months · units_per_month: %w", err)
	}
	if in.err == nil && unit == 0 {
		in.fail("units_per_month is 0: want the length of a month")
	}
	if in.err == nil && m.discrete() && (unit != math.Floor(unit) || months*unit > 1e6) {
		in.fail("units_per_month is %v: of BG/BB want a whole number, up to a million in all months", unit)
	}
	var value float64
	if m.values != nil {
		var err error
		if value, err = meanValue(m, in); err != nil {
			return 0, err
		}
	} else if value = in.need("mean_value"); value > 1e15 {
		in.fail("mean_value is %v: want 0 to 1e15", value)
	}
	return guarded(in, func() float64 {
		return btyd.CLV(m.purchases, h, value, int(months), unit, discount)
	}), nil
}
