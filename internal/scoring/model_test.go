package scoring

import (
	"bytes"
	"strings"
	"testing"
)

// replaced is the default model's text with old, new pairs replaced.
func replaced(t testing.TB, pairs ...string) []byte {
	t.Helper()
	text := string(defaultYAML)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("the default model has no %q", pairs[i])
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return []byte(text)
}

func edit(t testing.TB, pairs ...string) *Model {
	t.Helper()
	m, err := Parse(replaced(t, pairs...))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCanonicalGivesTheSameModel(t *testing.T) {
	for _, m := range []*Model{
		Default(),
		edit(t, "measure: contribution", "measure: {rfm.weighted: 0.3, contribution: 0.7}", "EUR", "JPY", "zone: UTC", "zone: Asia/Tokyo"),
		edit(t, "map: ten_segments", "map: eleven_groups", "clv_basis: contribution", "clv_basis: revenue"),
		edit(t, "map: ten_segments", "segments: [{id: here, recency: [3, 5], frequency: [1, 5]}, {id: gone, recency: [1, 2], frequency: [1, 5]}]"),
		edit(t, "# default_cac_minor: 1500", "default_cac_minor: 0", "# v_minor: 2192", "v_minor: 1e3", "fitted: false", "fitted: true"),
	} {
		again, err := Parse(m.Canonical())
		if err != nil {
			t.Fatalf("%v\n%s", err, m.Canonical())
		}
		if again.Hash() != m.Hash() || !bytes.Equal(again.Canonical(), m.Canonical()) {
			t.Errorf("canonical form changes\n%s\n%s", m.Canonical(), again.Canonical())
		}
		s := sample()
		if again.Measure(&s) != m.Measure(&s) {
			t.Error("a model scores differently after its canonical form")
		}
	}
}

func TestHashIsOfValuesOnly(t *testing.T) {
	base := Default().Hash()
	for name, data := range map[string][]byte{
		"comments":       append([]byte("# a word\n"), defaultYAML...),
		"other digits":   replaced(t, "margin_rate: 0.30", "margin_rate: 0.3000", "r: 0.525", "r: 5.25e-1"),
		"derived, said":  replaced(t, "# default_cac_minor: 1500", "default_cac_minor: 1500"),
		"short":          []byte("typical_order_minor: 5000\ncurrency: EUR\nname: demo-1\n"),
		"map by default": replaced(t, "  map: ten_segments\n", ""),
		"measure":        replaced(t, "measure: contribution", "measure: {contribution: 1}"),
	} {
		m, err := Parse(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if m.Hash() != base {
			t.Errorf("%s changes the hash", name)
		}
	}
	for _, pair := range [][2]string{
		{"demo-1", "demo-2"}, {"margin_rate: 0.30", "margin_rate: 0.300001"}, {"zone: UTC", "zone: Etc/UTC"}, {"r: 0.525", "r: 0.5250000001"}, {"fitted: false", "fitted: true"},
		{"enter: 40", "enter: 40.0001"}, {"name: Gold", "name: Or"}, {"horizon_days: 365", "horizon_days: 364"}, {"half_life_days: 90", "half_life_days: 91"},
		{"map: ten_segments", "map: eleven_groups"}, {"goodwill: 0.15", "goodwill: 0.2"}, {"buys: 466", "buys: 467"}, {"new_days: 90", "new_days: 91"},
	} {
		if edit(t, pair[0], pair[1]).Hash() == base {
			t.Errorf("%s instead of %s leaves the hash", pair[1], pair[0])
		}
	}
}

func TestParseRefuses(t *testing.T) {
	cases := []struct{ old, new, want string }{
		{"name: demo-1", "name: ''", "name"},
		{"currency: EUR", "currency: euro", "ISO 4217"},
		{"currency: EUR", "currencies: EUR", "currencies is no key of a model"},
		{"zone: UTC", "zone: Mars", "unknown zone"},
		{"margin_rate: 0.30", "margin_rate: 1.2", "margin_rate is 1.2: want 0 to 1"},
		{"margin_rate: 0.30", "margin_rate: 0.1234567", "at most 6 decimals"},
		{"typical_order_minor: 5000", "typical_order_minor: 0", "typical_order_minor"},
		{"typical_order_minor: 5000", "typical_order_minor: many", "line"},
		{"window_days: 365", "window_days: 366", "window_days is 366: want 1 to 365"},
		{"recency_days: [30, 60, 90, 180]", "recency_days: [30, 60, 90]", "want 4"},
		{"frequency_orders: [1, 2, 4, 8]", "frequency_orders: [1, 2, 2, 8]", "ascending"},
		{"map: ten_segments", "segments: [{id: all, recency: [1, 5], frequency: [1, 5]}, {id: new, recency: [4, 5], frequency: [1, 1]}]", "R 4 F 1 belongs to all and new"},
		{"map: ten_segments", "segments: [{id: all, recency: [1, 5], frequency: [2, 5]}]", "R 1 F 1 belongs to no segment"},
		{"map: ten_segments", "map: ten_segments\n  segments: [{id: all, recency: [1, 5], frequency: [1, 5]}]", "not those of map ten_segments: want map custom"},
		{"map: ten_segments", "map: custom", "rfm.segments are missing"},
		{"map: ten_segments", "map: eleven", "want ten_segments, eleven_groups or custom"},
		{"map: ten_segments", "map: eleven_groups\n  axis: frequency", "map eleven_groups has frequency_monetary"},
		{"map: ten_segments", "axis: money\n  segments: [{id: all, recency: [1, 5], frequency: [1, 5]}]", "rfm.axis is"},
		{"clv_basis: contribution", "clv_basis: sales", "want contribution, profit, revenue"},
		{"goodwill: 0.15", "goodwill: -1", "goodwill is -1: want 0 to 100"},
		{"period_days: 91", "period_days: 0", "markov.period_days is 0"},
		{"periods: 4\n  # By", "periods: -1\n  # By", "markov.periods is -1"},
		{"{buys: 13393, exposures: 41191}", "{buys: 13393, exposures: 13392}", "state 1 has 13393 buys of 13392 exposures"},
		{"{buys: 466, exposures: 14074}", "{buys: 0, exposures: 0}", "state 5 has 0 exposures"},
		{"purchase_days_per_buy: 1.734", "purchase_days_per_buy: 0.9", "want 1 to 1000"},
		{"lapsed_days: 365\n", "lapsed_days: 180\n", "lifecycle.lapsed_days is 180: want 181"},
		{"alive_from: 0.5", "alive_from: 1.1", "value_class.alive_from"},
		{"predictor: mbg_nbd", "predictor: pareto_nbd", "want mbg_nbd or bg_nbd"},
		{"  r: 0.525", "  r: .nan", "prediction.r"},
		{"  b: 1.614", "  b: 1000", "never leave"},
		{"q: 3.74", "q: 1", "prediction.spend.q"},
		{"discount_periods: 4", "discount_periods: 13", "discount_periods is 13: want 1 to 12"},
		{"clv: 0.40", "clv: 0.41", "sum to 1.01: want 1"},
		{"measure: contribution", "measure: profit", "want one of contribution"},
		{"measure: contribution", "measure: {clv.total: 2}", "want -1 to 1"},
		{"measure: contribution", "measure: [clv.total]", "want a field's name"},
		{"leave: 36", "leave: 40", "want below enter"},
		{"enter: 60, leave: 56", "enter: 40, leave: 39", "above those of silver"},
		{"id: bronze, name: Bronze", "id: bronze, name: Bronze, enter: 0", "takes everybody else"},
		{"id: gold, name: Gold", "id: golden, name: Gold", "value class"},
		{"id: gold, name: Gold", "id: silver, name: Gold", "word of its own"},
		{"complaint_points: [2, 5, 10, 20, 40]", "complaint_points: [2, 5, 10, 20, 4]", "worse severity"},
		{"name: demo-1", "name: demo-1\nname: demo-2", "already"},
		{"# A tierstream", "---\n---\n# A tierstream", ""},
	}
	for _, c := range cases {
		_, err := Parse(replaced(t, c.old, c.new))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one that says %q", c.new, err, c.want)
		}
	}
	if _, err := Parse(nil); err == nil {
		t.Error("an empty model is accepted")
	}
}

func TestInit(t *testing.T) {
	if _, err := Init(InitOptions{}); err == nil || !strings.Contains(err.Error(), "currency is missing") {
		t.Errorf("without currency: %v", err)
	}
	if _, err := Init(InitOptions{Currency: "EUR", MarginRate: "2"}); err == nil {
		t.Error("margin rate 2 is accepted")
	}
	text, err := Init(InitOptions{Currency: "JPY", Zone: "Asia/Tokyo", TypicalOrderMinor: 6000, MarginRate: "0.25", Name: "tokyo: 1"})
	if err != nil {
		t.Fatal(err)
	}
	m, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if m.Name() != "tokyo: 1" || m.Currency() != "JPY" || m.Calendar().Zone() != "Asia/Tokyo" || m.TypicalOrder() != 6000 || m.defaultCAC != 1500 {
		t.Errorf("model is %s", m.Canonical())
	}
	if strings.Count(string(text), "#") != strings.Count(string(defaultYAML), "#") {
		t.Error("comments were lost")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(defaultYAML)
	f.Add(Default().Canonical())
	f.Add([]byte("name: x\ncurrency: EUR\ntypical_order_minor: 1\nmeasure: {clv.npv: -1}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(data)
		if err != nil {
			return
		}
		again, err := Parse(m.Canonical())
		if err != nil {
			t.Fatalf("canonical form is refused: %v\n%s", err, m.Canonical())
		}
		if again.Hash() != m.Hash() {
			t.Fatalf("hash changes through the canonical form\n%s\n%s", m.Canonical(), again.Canonical())
		}
		s := sample()
		if tier := m.Decide(-1, &s, m.Measure(&s).Score); tier < 0 || tier >= len(m.Tiers()) {
			t.Fatalf("tier %d of %d", tier, len(m.Tiers()))
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for b.Loop() {
		if _, err := Parse(defaultYAML); err != nil {
			b.Fatal(err)
		}
	}
}
