// Package mapping reads records that are no CloudEvents of ours: another
// company's JSON, Avro and Protobuf. A mapping says, topic by topic, how such a
// record becomes an event; [Mapper.Map] answers a CloudEvent, which
// [event.Decoder] then validates like any other. So every code of bad input is
// decided in one place.
//
// A mapping is content: the expressions, and the schemas by which payloads were
// read, are all in it. It is part of the rules, hashed and kept with them, and
// what it makes of a record depends on nothing else: no clock, no zone data, no
// registry. Who runs it learns schemas from a registry and adds them
// ([Mapping.With]) before anything is decided by them. See ADR 17.
package mapping

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tierstream/tierstream/internal/event"
)

// The formats of a topic's values.
const (
	// FormatJSON is a JSON object by itself.
	FormatJSON = "json"
	// FormatRegistry is Confluent's wire format: a zero byte, the schema's ID in
	// four bytes, and what that schema describes: Avro, Protobuf or JSON.
	FormatRegistry = "registry"
)

// document is a mapping as it is written, in YAML by people, in JSON within the
// rules.
type document struct {
	// Registry is the address of the schema registry that gave the IDs. It is
	// content: IDs of another registry mean other schemas.
	Registry string               `yaml:"registry" json:"registry,omitempty"`
	Topics   map[string]*topicDoc `yaml:"topics" json:"topics"`
	Schemas  []*Schema            `yaml:"schemas" json:"schemas,omitempty"` // by ID
}

// topicDoc says what the records of one topic are.
type topicDoc struct {
	Format     string `yaml:"format" json:"format,omitempty"` // FormatJSON when empty
	attributes `yaml:",inline"`
	Events     []*rule `yaml:"events" json:"events"`
}

// attributes are those of a CloudEvent but its type. What stands at the topic
// holds for all events that do not say otherwise.
type attributes struct {
	ID      *expression `yaml:"id" json:"id,omitempty"`
	Source  *expression `yaml:"source" json:"source,omitempty"`
	Time    *expression `yaml:"time" json:"time,omitempty"`
	Subject *expression `yaml:"subject" json:"subject,omitempty"`
}

// rule makes one kind of event, or leaves a record out. The first rule whose
// condition holds is taken.
type rule struct {
	When       *expression `yaml:"when" json:"when,omitempty"` // nil: always
	Skip       bool        `yaml:"skip" json:"skip,omitempty"`
	Type       string      `yaml:"type" json:"type,omitempty"`
	attributes `yaml:",inline"`
	Data       map[string]*expression `yaml:"data" json:"data,omitempty"`

	line int
}

// expression is a CEL expression, or a constant.
type expression struct {
	text     string
	constant any // string, int64 or bool; nil: text is an expression
	line     int // in the file; 0: not known
}

const wantExpression = "want an expression, or a constant as {const: …}"

// UnmarshalYAML implements yaml.Unmarshaler.
func (e *expression) UnmarshalYAML(n *yaml.Node) error {
	e.line = n.Line
	if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		e.text = n.Value
		return nil
	}
	if n.Kind != yaml.MappingNode || len(n.Content) != 2 || n.Content[0].Value != "const" {
		return fmt.Errorf("line %d: %s", n.Line, wantExpression)
	}
	v := n.Content[1]
	switch v.Tag {
	case "!!str":
		e.constant = v.Value
	case "!!int":
		var i int64
		if err := v.Decode(&i); err != nil {
			return fmt.Errorf("line %d: %s is no 64-bit integer", v.Line, v.Value)
		}
		e.constant = i
	case "!!bool":
		e.constant = v.Value == "true"
	default:
		return fmt.Errorf("line %d: a constant is a text, an integer, true or false", v.Line)
	}
	return nil
}

// MarshalJSON implements json.Marshaler.
func (e *expression) MarshalJSON() ([]byte, error) {
	if e.constant == nil {
		return json.Marshal(e.text)
	}
	return json.Marshal(struct {
		Const any `json:"const"`
	}{e.constant})
}

// UnmarshalJSON implements json.Unmarshaler.
func (e *expression) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &e.text)
	}
	var c struct{ Const any }
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&c); err != nil {
		return err
	}
	switch v := c.Const.(type) {
	case string, bool:
		e.constant = v
	case json.Number:
		i, err := v.Int64()
		if err != nil {
			return err
		}
		e.constant = i
	default:
		return errors.New(wantExpression)
	}
	return nil
}

// UnmarshalYAML implements yaml.Unmarshaler: it remembers the line. Unknown
// names are refused here, because a decoder does not say so to the nodes below
// a method like this.
func (r *rule) UnmarshalYAML(n *yaml.Node) error {
	type plain rule
	if n.Kind == yaml.MappingNode {
		for i := 0; i < len(n.Content); i += 2 {
			if k := n.Content[i]; !slices.Contains([]string{"when", "skip", "type", "id", "source", "time", "subject", "data"}, k.Value) {
				return fmt.Errorf("line %d: an event has no %q: want when, skip, type, id, source, time, subject or data", k.Line, k.Value)
			}
		}
	}
	r.line = n.Line
	return n.Decode((*plain)(r))
}

// Parse reads a mapping as people write it, in YAML. What is wrong is said with
// line and place.
func Parse(b []byte) (*Mapping, error) {
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	var doc document
	if err := d.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("it is empty")
		}
		return nil, errors.New(strings.TrimPrefix(strings.Join(strings.Fields(err.Error()), " "), "yaml: ")) // in one line
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one YAML document")
	}
	return newMapping(doc)
}

// at says where an expression or a rule stands.
func at(line int, format string, args ...any) string {
	place := fmt.Sprintf(format, args...)
	if line > 0 {
		return fmt.Sprintf("line %d: %s", line, place)
	}
	return place
}

// validate says what is wrong with the document, but for its expressions.
func (d *document) validate() error {
	if len(d.Topics) == 0 {
		return errors.New("no topics")
	}
	if d.Registry != "" {
		u, err := url.Parse(d.Registry)
		switch {
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
			return fmt.Errorf("registry %q: want an http or https address", d.Registry)
		case u.User != nil:
			return errors.New("registry: the address has a user or a password, which would be kept in the rules for all to read: give them by flags")
		}
	}
	seen := map[int]bool{}
	for _, s := range d.Schemas {
		if seen[s.ID] {
			return fmt.Errorf("schema %d is there twice", s.ID)
		}
		seen[s.ID] = true
		if err := s.validate(); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.Topics)) {
		t := d.Topics[name]
		if name == "" || t == nil {
			return fmt.Errorf("topic %q: nothing is said of it", name)
		}
		if err := t.validate(d); err != nil {
			return fmt.Errorf("topics.%s%w", name, err)
		}
	}
	return nil
}

func (t *topicDoc) validate(d *document) error {
	switch t.Format {
	case "", FormatJSON:
	case FormatRegistry:
		if d.Registry == "" && len(d.Schemas) == 0 {
			return errors.New(": format registry, but the mapping names neither a registry nor schemas")
		}
	default:
		return fmt.Errorf(": format %q: want json or registry", t.Format)
	}
	if len(t.Events) == 0 {
		return errors.New(": no events")
	}
	for i, r := range t.Events {
		if r == nil {
			return fmt.Errorf(".events[%d]: it is empty", i)
		}
		if err := r.validate(t); err != nil {
			return fmt.Errorf(".events[%d]: %s", i, at(r.line, "%v", err))
		}
		if r.When == nil && i < len(t.Events)-1 {
			return fmt.Errorf(".events[%d]: %s", i, at(r.line, "it has no condition, so those after it are never reached"))
		}
	}
	return nil
}

func (r *rule) validate(t *topicDoc) error {
	if r.Skip {
		if r.Type != "" || r.attributes != (attributes{}) || r.Data != nil {
			return errors.New("what is skipped has a condition and nothing else")
		}
		return nil
	}
	typ, ok := event.ParseType(r.Type)
	if !ok {
		return fmt.Errorf("type %q: want purchase, return, complaint, referral, feedback or cost", r.Type)
	}
	for _, a := range r.attributes.or(&t.attributes).named() {
		if a.of == nil {
			return fmt.Errorf("no %s, here or at the topic", a.name)
		}
	}
	fields, required := typ.Fields()
	for _, name := range slices.Sorted(maps.Keys(r.Data)) {
		if r.Data[name] == nil || !slices.Contains(fields, name) {
			return fmt.Errorf("data.%s: a %s has %s", name, typ, strings.Join(fields, ", "))
		}
	}
	for _, name := range fields[:required] {
		if r.Data[name] == nil {
			return fmt.Errorf("no data.%s, which a %s must have", name, typ)
		}
	}
	return nil
}

// named is an attribute or a field with its expression.
type named struct {
	name string
	of   *expression
}

// named are the attributes in the order in which the decoder reads them.
func (a *attributes) named() []named {
	return []named{{"id", a.ID}, {"source", a.Source}, {"time", a.Time}, {"subject", a.Subject}}
}

// or is a, with what is missing taken from b.
func (a attributes) or(b *attributes) *attributes {
	for _, p := range []struct {
		to   **expression
		from *expression
	}{{&a.ID, b.ID}, {&a.Source, b.Source}, {&a.Time, b.Time}, {&a.Subject, b.Subject}} {
		if *p.to == nil {
			*p.to = p.from
		}
	}
	return &a
}
