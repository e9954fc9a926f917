package scoring

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

//go:embed default.yaml
var defaultYAML []byte

// document is a model as it is written: YAML by people, JSON (which is YAML) in
// canonical form. A nil pointer is a value left out that is derived.
type document struct {
	Name                string               `yaml:"name" json:"name"`
	Currency            string               `yaml:"currency" json:"currency"`
	Zone                string               `yaml:"zone" json:"zone"`
	TypicalOrder        int64                `yaml:"typical_order_minor" json:"typical_order_minor"`
	MarginRate          decimal              `yaml:"margin_rate" json:"margin_rate"`
	WindowDays          int                  `yaml:"window_days" json:"window_days"`
	ExpectedYears       int                  `yaml:"expected_years" json:"expected_years"`
	StandardServiceCost int64                `yaml:"standard_service_cost_minor" json:"standard_service_cost_minor"`
	DefaultCAC          *int64               `yaml:"default_cac_minor" json:"default_cac_minor"`
	Basis               string               `yaml:"clv_basis" json:"clv_basis"`
	Goodwill            decimal              `yaml:"goodwill" json:"goodwill"`
	NPV                 npvDocument          `yaml:"npv" json:"npv"`
	RFM                 rfmDocument          `yaml:"rfm" json:"rfm"`
	Prediction          predictionDocument   `yaml:"prediction" json:"prediction"`
	Markov              markovDocument       `yaml:"markov" json:"markov"`
	Lifecycle           lifecycleDocument    `yaml:"lifecycle" json:"lifecycle"`
	Satisfaction        satisfactionDocument `yaml:"satisfaction" json:"satisfaction"`
	Contribution        contributionDocument `yaml:"contribution" json:"contribution"`
	ValueClass          valueClassDocument   `yaml:"value_class" json:"value_class"`
	Measure             measureDocument      `yaml:"measure" json:"measure"`
	Tiers               []tierDocument       `yaml:"tiers" json:"tiers"`
	// Clusters of the population; nil: none.
	Clusters *clustersDocument `yaml:"clusters" json:"clusters,omitempty"`
	// Provenance says where values come from, in free form. It decides nothing,
	// and is hashed with the rest: the hash names what was written.
	Provenance map[string]any `yaml:"provenance" json:"provenance,omitempty"`
}

type npvDocument struct {
	Retention decimal `yaml:"yearly_retention" json:"yearly_retention"`
	Discount  decimal `yaml:"yearly_discount" json:"yearly_discount"`
}

type rfmDocument struct {
	RecencyDays     []int32   `yaml:"recency_days" json:"recency_days"`
	FrequencyOrders []int64   `yaml:"frequency_orders" json:"frequency_orders"`
	MonetaryOrders  []decimal `yaml:"monetary_orders" json:"monetary_orders"`
	Weights         struct {
		Recency   decimal `yaml:"recency" json:"recency"`
		Frequency decimal `yaml:"frequency" json:"frequency"`
		Monetary  decimal `yaml:"monetary" json:"monetary"`
	} `yaml:"weights" json:"weights"`
	Map      string            `yaml:"map" json:"map"`
	Axis     string            `yaml:"axis" json:"axis"`
	Segments []segmentDocument `yaml:"segments" json:"segments"`
}

type segmentDocument struct {
	ID        string `yaml:"id" json:"id"`
	Recency   []int  `yaml:"recency" json:"recency"`
	Frequency []int  `yaml:"frequency" json:"frequency"`
}

type predictionDocument struct {
	Predictor string  `yaml:"predictor" json:"predictor"`
	Fitted    bool    `yaml:"fitted" json:"fitted"`
	R         float64 `yaml:"r" json:"r"`
	Alpha     float64 `yaml:"alpha_days" json:"alpha_days"`
	A         float64 `yaml:"a" json:"a"`
	B         float64 `yaml:"b" json:"b"`
	Horizon   int     `yaml:"horizon_days" json:"horizon_days"`
	Discount  decimal `yaml:"yearly_discount" json:"yearly_discount"`
	Periods   int     `yaml:"discount_periods" json:"discount_periods"`
	Spend     struct {
		P float64  `yaml:"p" json:"p"`
		Q float64  `yaml:"q" json:"q"`
		V *float64 `yaml:"v_minor" json:"v_minor"`
	} `yaml:"spend" json:"spend"`
}

type markovDocument struct {
	Period      int                  `yaml:"period_days" json:"period_days"`
	Periods     int                  `yaml:"periods" json:"periods"`
	DaysPerBuy  decimal              `yaml:"purchase_days_per_buy" json:"purchase_days_per_buy"`
	ContactCost int64                `yaml:"contact_cost_minor" json:"contact_cost_minor"`
	Lost        bool                 `yaml:"lost_beyond" json:"lost_beyond"`
	Recency     []transitionDocument `yaml:"recency" json:"recency"`
}

type transitionDocument struct {
	Buys      int64 `yaml:"buys" json:"buys"`
	Exposures int64 `yaml:"exposures" json:"exposures"`
}

type lifecycleDocument struct {
	New     int32 `yaml:"new_days" json:"new_days"`
	Lapsing int32 `yaml:"lapsing_days" json:"lapsing_days"`
	Lapsed  int32 `yaml:"lapsed_days" json:"lapsed_days"`
}

type satisfactionDocument struct {
	Neutral  decimal   `yaml:"neutral" json:"neutral"`
	Points   []decimal `yaml:"complaint_points" json:"complaint_points"`
	HalfLife decimal   `yaml:"half_life_days" json:"half_life_days"`
	Kept     decimal   `yaml:"kept_when_resolved" json:"kept_when_resolved"`
}

type contributionDocument struct {
	Weights struct {
		CLV          decimal `yaml:"clv" json:"clv"`
		CAC          decimal `yaml:"cac" json:"cac"`
		Satisfaction decimal `yaml:"satisfaction" json:"satisfaction"`
		Retention    decimal `yaml:"retention" json:"retention"`
	} `yaml:"weights" json:"weights"`
	FullMargins decimal `yaml:"clv_full_margins" json:"clv_full_margins"`
}

type valueClassDocument struct {
	HighFromMargins decimal `yaml:"high_from_margins" json:"high_from_margins"`
	AliveFrom       decimal `yaml:"alive_from" json:"alive_from"`
}

type tierDocument struct {
	ID    string   `yaml:"id" json:"id"`
	Name  string   `yaml:"name" json:"name"`
	Enter *decimal `yaml:"enter" json:"enter,omitempty"`
	Leave *decimal `yaml:"leave" json:"leave,omitempty"`
}

// measureDocument is a weighted sum of fields, written as one name or as a
// mapping from name to weight; its canonical form is a mapping sorted by name.
type measureDocument []weightedField

type weightedField struct {
	Field  string
	Weight decimal
}

// UnmarshalYAML reads either form.
func (d *measureDocument) UnmarshalYAML(n *yaml.Node) error {
	switch n.Kind {
	case yaml.ScalarNode:
		*d = measureDocument{{n.Value, million}}
		return nil
	case yaml.MappingNode:
		*d = nil
		for i := 0; i+1 < len(n.Content); i += 2 {
			name, value := n.Content[i], n.Content[i+1]
			f := weightedField{Field: name.Value}
			if err := f.Weight.UnmarshalYAML(value); err != nil {
				return fmt.Errorf("measure %s: %w", f.Field, err)
			}
			*d = append(*d, f)
		}
		slices.SortStableFunc(*d, func(a, b weightedField) int { return strings.Compare(a.Field, b.Field) })
		return nil
	}
	return fmt.Errorf("line %d: measure: want a field's name, or a mapping of names to weights", n.Line)
}

// MarshalJSON writes the mapping.
func (d measureDocument) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range d {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(f.Field)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.WriteString(f.Weight.String())
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

var unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)

func decodeDocument(data []byte, into *document) error {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	switch err := decoder.Decode(into); {
	case errors.Is(err, io.EOF):
		return errors.New("it is empty")
	case err != nil:
		text := strings.TrimPrefix(err.Error(), "yaml: ")
		text = strings.ReplaceAll(strings.TrimPrefix(text, "unmarshal errors:\n  "), "\n  ", "; ")
		return errors.New(unknownField.ReplaceAllString(text, "$1 is no key of a model"))
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("more than one document")
	}
	return nil
}

// Parse reads and validates a model written as YAML. Its errors name the key
// and what is allowed.
func Parse(data []byte) (*Model, error) {
	var d document
	if err := decodeDocument(defaultYAML, &d); err != nil {
		return nil, fmt.Errorf("parsing built-in model: %w", err)
	}
	d.Name, d.Currency, d.TypicalOrder = "", "", 0
	d.RFM.Map, d.RFM.Axis = "", "" // derived: segments of their own make a map of their own
	if err := decodeDocument(data, &d); err != nil {
		return nil, fmt.Errorf("parsing model: %w", err)
	}
	m, err := build(d)
	if err != nil {
		return nil, fmt.Errorf("model %q: %w", d.Name, err)
	}
	return m, nil
}

// Default returns the embedded demonstration model (EUR, UTC, typical order
// 50.00, margin rate 0.30, not fitted).
func Default() *Model {
	m, err := Parse(defaultYAML)
	if err != nil {
		panic(err) // the embedded file is part of the program, and tested
	}
	return m
}

// Canonical returns the model with every value stated, derived ones too, in
// one fixed form (JSON, which Parse reads): the same bytes for the same model.
func (m *Model) Canonical() []byte { return bytes.Clone(m.canonical) }

// InitOptions fill a first model in. Empty fields keep the example's value.
type InitOptions struct {
	Name              string
	Currency          string // ISO 4217; required
	Zone              string // IANA
	TypicalOrderMinor int64
	MarginRate        string // decimal, such as "0.35"
}

// Init returns the annotated default model with the options filled in. It
// refuses what Parse would refuse.
func Init(o InitOptions) ([]byte, error) {
	if o.Currency == "" {
		return nil, errors.New("initialising model: currency is missing: want an ISO 4217 code such as EUR")
	}
	out := defaultYAML
	set := func(key, value string) {
		if value != "" {
			line := regexp.MustCompile(`(?m)^` + key + `: .*$`)
			out = line.ReplaceAllLiteral(out, []byte(key+": "+value))
		}
	}
	quoted := func(s string) string {
		if s == "" {
			return ""
		}
		return strconv.Quote(s)
	}
	name := o.Name
	if name == "" {
		name = "first-1"
	}
	set("name", quoted(name))
	set("currency", quoted(o.Currency))
	set("zone", quoted(o.Zone))
	if o.TypicalOrderMinor != 0 {
		set("typical_order_minor", strconv.FormatInt(o.TypicalOrderMinor, 10))
	}
	if o.MarginRate != "" {
		if _, err := parseDecimal(o.MarginRate); err != nil {
			return nil, fmt.Errorf("initialising model: margin rate: %w", err)
		}
		set("margin_rate", o.MarginRate)
	}
	m, err := Parse(out)
	if err != nil {
		return nil, fmt.Errorf("initialising model: %w", err)
	}
	// The examples of derived values, for this model.
	out = bytes.Replace(out, []byte("# default_cac_minor: 1500"), fmt.Appendf(nil, "# default_cac_minor: %d", m.defaultCAC), 1)
	out = bytes.Replace(out, []byte("# v_minor: 2192"), fmt.Appendf(nil, "# v_minor: %d", roundFloat(m.spend.v)), 1)
	return bytes.Replace(out, []byte("(5000 = 50.00)"), []byte("(cents, pence, yen)"), 1), nil
}
