package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/tierstream/tierstream/internal/cohort"
	"github.com/tierstream/tierstream/internal/scoring"
	"github.com/tierstream/tierstream/internal/testenv"
)

// offline runs a command that needs no service.
func offline(t *testing.T, stdin string, args ...string) (out, said string, err error) {
	t.Helper()
	var o, e strings.Builder
	err = run(t.Context(), args, func(string) string { return "" }, strings.NewReader(stdin), &o, &e)
	return o.String(), e.String(), err
}

// TestFitWritesTheNextVersion: of CDNOW's calibration alone, whose parameters are published in weeks.
func TestFitWritesTheNextVersion(t *testing.T) {
	log := filepath.Join(testenv.DataDir(t), "cdnow", "CDNOW_sample.txt")
	if _, err := os.Stat(log); errors.Is(err, fs.ErrNotExist) {
		t.Skip(err)
	}
	base := filepath.Join(t.TempDir(), "base.yaml")
	text, err := scoring.Init(scoring.InitOptions{Name: "shop-7", Currency: "USD", TypicalOrderMinor: 3500})
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.Replace(string(text), "alpha_days: 43.28", "alpha_days: 20", 1))
	if err := os.WriteFile(base, text, 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"fit", log, "--zero-orders", "count", "--observation-end", "1997-09-30", "--calibration-end", "1997-07-31", "--base", base, "--against", base}
	out, said, err := offline(t, "", args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	m, err := scoring.Parse([]byte(out))
	if err != nil {
		t.Fatal(err)
	}
	if m.Name() != "shop-8" || !m.Fitted() {
		t.Errorf("model %s, fitted %v", m.Name(), m.Fitted())
	}
	var d struct {
		Prediction struct {
			R     float64
			Alpha float64 `yaml:"alpha_days"`
			A, B  float64
		}
		Provenance struct {
			Prediction struct {
				Customers     int
				LogLikelihood float64            `yaml:"log_likelihood"`
				Errors        map[string]float64 `yaml:"standard_errors"`
			}
		}
	}
	if err := yaml.Unmarshal([]byte(out), &d); err != nil {
		t.Fatal(err)
	}
	p := d.Prediction
	for _, v := range [][2]float64{{p.R, .525}, {p.Alpha, 7 * 6.183}, {p.A, .891}, {p.B, 1.614}} {
		if math.Abs(v[0]/v[1]-1) > 1e-3 {
			t.Errorf("%+v, published .525 6.183 weeks .891 1.614", p)
		}
	}
	if q := d.Provenance.Prediction; q.Customers != 2357 || len(q.Errors) != 4 {
		t.Errorf("provenance %+v", q)
	}
	// All comments are still there.
	comments := func(s string) string {
		return strings.Join(regexp.MustCompile(`(?m)^\s*#.*$`).FindAllString(s, -1), "\n")
	}
	if comments(out) != comments(string(text)) {
		t.Error("comments of the base are lost")
	}
	if !regexp.MustCompile(`naive +457 `).MatchString(said) || !strings.Contains(said, "shop-7") {
		t.Errorf("said %s", said)
	}
	if out2, _, err := offline(t, "", args...); err != nil || out2 != out {
		t.Errorf("a second fit differs: %v", err)
	}
}

// clockwork is a log of customers who buy every so many days, for ever: the rate of
// the past is all there is to know.
func clockwork() string {
	var b strings.Builder
	b.WriteString("customer,date,value\n")
	for c := range 60 {
		for day := c % 7; day < 300; day += 5 + c/3 {
			fmt.Fprintf(&b, "c%02d,%s,%d\n", c, cohort.Date(int32(20_000+day)), 10+c)
		}
	}
	return b.String()
}

// TestWorseFitsAreRefused: nothing is written, until it is forced.
func TestWorseFitsAreRefused(t *testing.T) {
	out, said, err := offline(t, clockwork(), "fit", "-")
	if err == nil || !strings.Contains(err.Error(), "worse on the holdout than naive: MAE") || out != "" {
		t.Fatalf("%v, wrote %q\n%s", err, out, said)
	}
	out, said, err = offline(t, clockwork(), "fit", "-", "--force", "--prior", "always")
	if err != nil {
		t.Fatalf("forced: %v\n%s", err, said)
	}
	if m, err := scoring.Parse([]byte(out)); err != nil || !m.Fitted() {
		t.Errorf("forced: %v", err)
	}
}

// TestFitNamesBadInput: an error that says what is wrong, and never a model.
func TestFitNamesBadInput(t *testing.T) {
	const head = "customer,date,value\n"
	once := head
	for c := range 50 {
		once += fmt.Sprintf("c%d,%s,5\n", c, cohort.Date(int32(20_000+c)))
	}
	for _, c := range []struct {
		name, log, want string
		args            []string
	}{
		{"empty", "", "the log is empty", nil},
		{"no rows", head, "no purchases", nil},
		{"one purchase", head + "a,2026-01-01,5\n", "calibration ends on 2026-01-01", nil},
		{"one customer", head + "a,2026-01-01,5\na,2026-01-05,5\na,2026-02-01,5\n", "1 customers with 1 different histories cannot determine 4 parameters", nil},
		{"nobody twice", once, "none of .* customers bought twice", nil},
		{"negative value", head + "a,2026-01-01,-5\n", "line 2: value -5", nil},
		{"no money", strings.ReplaceAll(once, ",5\n", ",0\n"), "no money", []string{"--zero-orders", "count"}},
		{"two currencies", eventOf("1", "a", "EUR") + eventOf("2", "b", "USD"), "an amount in USD, where the log is in EUR", nil},
		{"not a number", head + "a,2026-01-01,NaN\n", "not a decimal", nil},
		{"calendar weeks", once, "--period week", []string{"--unit", "week", "--period", "week"}},
	} {
		out, said, err := offline(t, c.log, append([]string{"fit", "-"}, c.args...)...)
		if err == nil || !regexp.MustCompile(c.want).MatchString(err.Error()) || out != "" {
			t.Errorf("%s: %v, want %q; wrote %q\n%s", c.name, err, c.want, out, said)
		}
	}
}

func eventOf(id, customer, currency string) string {
	return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/s","type":"io.tierstream.purchase.v1","time":"2026-01-01T10:00:00Z","subject":%q,"datacontenttype":"application/json","data":{"order_id":%q,"amount_minor":5,"currency":%q}}`+"\n", id, customer, "o"+id, currency)
}

// TestEditionsKeepWhatStands: values change in place, in every form that YAML
// has for them; what is not there is added.
func TestEditionsKeepWhatStands(t *testing.T) {
	const before = `# head
name: 'a-1' # its name
rfm:
  # days
  recency_days: [1, 2,
    3, 4] # four
  frequency_orders:
    - 1
    - 2
  weights: {recency: 1, frequency: 2}
# the end
provenance:
  x: {y: 1}
z: "é\"" # last
`
	e := edition{[]byte(before)}
	for _, s := range [][]string{
		{`"a-2"`, "name"}, {"[5, 6]", "rfm", "recency_days"}, {"[7, 8]", "rfm", "frequency_orders"},
		{"3", "rfm", "weights", "recency"}, {"4", "rfm", "weights", "monetary"}, {"ten", "rfm", "map"}, {"1", "z"},
		{"2.5", "prediction", "spend", "p"},
	} {
		if err := e.set(s[0], s[1:]...); err != nil {
			t.Fatal(s, err)
		}
	}
	if err := e.provenance("fit", map[string]any{"rows": 3}); err != nil {
		t.Fatal(err)
	}
	const want = `# head
name: "a-2" # its name
rfm:
  map: ten
  # days
  recency_days: [5, 6] # four
  frequency_orders: [7, 8]
  weights: {monetary: 4, recency: 3, frequency: 2}
# the end
provenance:
  fit:
    rows: 3
  x:
    "y": 1
z: 1 # last

prediction: {spend: {p: 2.5}}
`
	if got := string(e.text); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for name, next := range map[string]string{"demo-1": "demo-2", "v9": "v10", "summer": "summer-2"} {
		if got := nextName(name); got != next {
			t.Errorf("after %s comes %s, want %s", name, got, next)
		}
	}
}
