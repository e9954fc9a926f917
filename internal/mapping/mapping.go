package mapping

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"cel.dev/cel-go/cel"

	"github.com/tierstream/tierstream/internal/event"
)

// Mapping says how records of some topics become events. It is immutable, and
// safe for concurrent use. Its JSON is its content: equal mappings are equal
// bytes.
type Mapping struct {
	doc     document
	topics  map[string]*compiledTopic
	schemas map[int]*Schema
}

type compiledTopic struct {
	name     string
	registry bool
	rules    []*compiledRule
}

type compiledRule struct {
	when  *program // nil: always
	skip  bool
	uri   string // CloudEvents type
	attrs []part
	data  []part
}

// part is one attribute or field of the event.
type part struct {
	name string
	from *program
}

// newMapping compiles a document.
func newMapping(doc document) (*Mapping, error) {
	slices.SortFunc(doc.Schemas, func(a, b *Schema) int { return cmp.Compare(a.ID, b.ID) })
	if err := doc.validate(); err != nil {
		return nil, err
	}
	m := &Mapping{doc: doc, topics: map[string]*compiledTopic{}, schemas: map[int]*Schema{}}
	for _, s := range doc.Schemas {
		m.schemas[s.ID] = s
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Topics)) {
		t := doc.Topics[name]
		c := &compiledTopic{name: name, registry: t.Format == FormatRegistry}
		for i, r := range t.Events {
			one, err := r.compile(t)
			if err != nil {
				return nil, fmt.Errorf("topics.%s.events[%d].%w", name, i, err)
			}
			c.rules = append(c.rules, one)
		}
		m.topics[name] = c
	}
	return m, nil
}

func (r *rule) compile(t *topicDoc) (*compiledRule, error) {
	c := &compiledRule{skip: r.Skip}
	one := func(n named, want ...*cel.Type) (*program, error) {
		p, err := n.of.compile(want...)
		if err != nil {
			return nil, errors.New(n.name + ": " + at(n.of.line, "%v", err))
		}
		return p, nil
	}
	var err error
	if r.When != nil {
		if c.when, err = one(named{"when", r.When}, cel.BoolType); err != nil {
			return nil, err
		}
	}
	if r.Skip {
		return c, nil
	}
	typ, _ := event.ParseType(r.Type) // validated
	c.uri = typ.URI()
	for _, a := range r.attributes.or(&t.attributes).named() {
		want := []*cel.Type{cel.StringType}
		if a.name == "time" {
			want = append(want, cel.TimestampType)
		}
		p, err := one(a, want...)
		if err != nil {
			return nil, err
		}
		c.attrs = append(c.attrs, part{a.name, p})
	}
	fields, _ := typ.Fields()
	for _, name := range fields {
		e := r.Data[name]
		if e == nil {
			continue
		}
		p, err := one(named{"data." + name, e}, cel.StringType, cel.IntType, cel.UintType, cel.DoubleType, cel.BoolType)
		if err != nil {
			return nil, err
		}
		c.data = append(c.data, part{name, p})
	}
	return c, nil
}

// MarshalJSON implements json.Marshaler.
func (m *Mapping) MarshalJSON() ([]byte, error) { return json.Marshal(m.doc) }

// UnmarshalJSON implements json.Unmarshaler; it reads what MarshalJSON wrote.
func (m *Mapping) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var doc document
	if err := d.Decode(&doc); err != nil {
		return fmt.Errorf("reading a mapping: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("reading a mapping: something follows it")
	}
	parsed, err := newMapping(doc)
	if err != nil {
		return fmt.Errorf("reading a mapping: %w", err)
	}
	*m = *parsed
	return nil
}

// Topics are the topics that are mapped, sorted.
func (m *Mapping) Topics() []string { return slices.Sorted(maps.Keys(m.topics)) }

// Only is the part of the mapping that concerns one topic; nil when there is
// none.
func (m *Mapping) Only(topic string) *Mapping {
	if m == nil || m.topics[topic] == nil {
		return nil
	}
	c := *m
	c.topics = map[string]*compiledTopic{topic: m.topics[topic]}
	c.doc.Topics = map[string]*topicDoc{topic: m.doc.Topics[topic]}
	return &c
}

// Describe says in words what becomes of the records of a topic.
func (m *Mapping) Describe(topic string) (format string, events []string) {
	t := m.doc.Topics[topic]
	if t == nil {
		return "", nil
	}
	if format = t.Format; format == "" {
		format = FormatJSON
	}
	for _, r := range t.Events {
		what := r.Type
		if r.Skip {
			what = "skipped"
		}
		if r.When != nil {
			what += " when " + r.When.text
		}
		events = append(events, what)
	}
	return format, events
}

// Registry is the address of the registry that gives schemas; "" when none
// does.
func (m *Mapping) Registry() string { return m.doc.Registry }

// Schemas are the schemas that the mapping holds, by ID.
func (m *Mapping) Schemas() []*Schema { return m.doc.Schemas }

// With is the mapping with more schemas. What it holds of an ID already stays:
// a registry never changes what an ID means.
func (m *Mapping) With(schemas ...*Schema) *Mapping {
	c := *m
	c.schemas = maps.Clone(m.schemas)
	c.doc.Schemas = slices.Clone(m.doc.Schemas)
	for _, s := range schemas {
		if c.schemas[s.ID] == nil {
			c.schemas[s.ID] = s
			c.doc.Schemas = append(c.doc.Schemas, s)
		}
	}
	slices.SortFunc(c.doc.Schemas, func(a, b *Schema) int { return cmp.Compare(a.ID, b.ID) })
	return &c
}

// Needs is the ID of the schema by which a record of the topic is to be read
// and which the mapping does not hold; false when there is none. Such a record
// is refused as unknown_type, so whoever can ask the registry does so before.
func (m *Mapping) Needs(topic string, value []byte) (id int, ok bool) {
	t := m.topics[topic]
	if t == nil || !t.registry || m.doc.Registry == "" {
		return 0, false
	}
	id, ok = event.SchemaID(value)
	return id, ok && m.schemas[id] == nil
}
