// Package fold turns one batch into its consequences: new records, tier
// changes, dead letters, counters, digest and chain. It is a pure function of
// the batch, the customers and the rules: no I/O, no clock, no goroutine. The
// live path, recovery and replay all go through it, which is why they agree.
package fold

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/mapping"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/scoring"
)

// Version is the fold version: raised when any golden output changes. A binary
// refuses state of a version it does not know.
const Version = 2

// ClockSource says what a batch's one clock reading is.
type ClockSource string

const (
	// ClockWall is the owner's wall clock.
	ClockWall ClockSource = "wall"
	// ClockLog is the timestamp of the batch's first record.
	ClockLog ClockSource = "log"
	// ClockEvents is the newest accepted event time before the batch: for
	// loading history, and for the embedded simulator.
	ClockEvents ClockSource = "events"
)

// Rules are everything that decides an outcome, beside the log and the
// journal. They are hashed; each journal record names the hash.
type Rules struct {
	Topics      []string         `json:"topics"` // input topics, in the order of positions; ties between equal timestamps go by it
	Partitioner string           `json:"partitioner"`
	Clock       ClockSource      `json:"clock"`
	Limits      event.Limits     `json:"limits"`
	Policy      customer.Policy  `json:"policy"`
	Mapping     *mapping.Mapping `json:"mapping,omitempty"` // of topics whose records are no CloudEvents; nil: there are none
	Model       *scoring.Model   `json:"-"`
}

type canonicalRules struct {
	Fold     int             `json:"fold"`
	Settings json.RawMessage `json:"settings"`
	Model    string          `json:"model"`
}

// Validate says what is wrong with the rules.
func (r *Rules) Validate() error {
	if len(r.Topics) == 0 {
		return errors.New("no input topics")
	}
	seen := map[string]bool{}
	for _, t := range r.Topics {
		if t == "" || seen[t] {
			return fmt.Errorf("input topics %q: empty or named twice", r.Topics)
		}
		seen[t] = true
	}
	if _, err := event.ParsePartitioner(r.Partitioner); err != nil {
		return err
	}
	switch r.Clock {
	case ClockWall, ClockLog, ClockEvents:
	default:
		return fmt.Errorf("clock %q: want wall, log or events", r.Clock)
	}
	if r.Model == nil {
		return errors.New("no model")
	}
	if r.Mapping != nil {
		for _, t := range r.Mapping.Topics() {
			if !seen[t] {
				return fmt.Errorf("the mapping names %s, which is none of the input topics %s", t, strings.Join(r.Topics, ", "))
			}
		}
	}
	return r.Policy.Validate()
}

// Codes is how many codes the rules can lead to, and so how many counters a
// journal has. Those that came with mappings are not counted where nothing is
// mapped: what was decided before there were any comes out again to the byte.
func (r *Rules) Codes() int {
	if r.Mapping == nil {
		return int(event.Skipped)
	}
	return event.NumCodes
}

// WithMapping is the rules with another mapping.
func (r *Rules) WithMapping(m *mapping.Mapping) *Rules {
	c := *r
	c.Mapping = m
	return &c
}

// WithLearned is the rules with the schemas that other rule sets, in their
// canonical form, had from the same registry: what an ID means never changes,
// so what one instance learned holds for all.
func (r *Rules) WithLearned(canonical iter.Seq[[]byte]) *Rules {
	if r.Mapping == nil || r.Mapping.Registry() == "" {
		return r
	}
	m := r.Mapping
	for b := range canonical {
		// Only this part is read: the binary need not be able to repeat the rest.
		var other struct {
			Settings struct {
				Mapping struct {
					Registry string
					Schemas  []*mapping.Schema
				}
			}
		}
		if json.Unmarshal(b, &other) == nil && other.Settings.Mapping.Registry == m.Registry() {
			m = m.With(other.Settings.Mapping.Schemas...)
		}
	}
	return r.WithMapping(m)
}

// Canonical is the form that is hashed and kept for as long as the journal
// names the rules.
func (r *Rules) Canonical() []byte {
	settings, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("encoding rules: %v", err)) // plain values cannot fail
	}
	b, err := json.Marshal(canonicalRules{Fold: Version, Settings: settings, Model: string(r.Model.Canonical())})
	if err != nil {
		panic(fmt.Sprintf("encoding rules: %v", err))
	}
	return b
}

// Hash identifies the rules.
func (r *Rules) Hash() protocol.Hash { return sha256.Sum256(r.Canonical()) }

// ParseRules reads what Canonical wrote. A set written by another fold version
// is refused: its hash would not be reproduced.
func ParseRules(b []byte) (*Rules, error) {
	var c canonicalRules
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return nil, fmt.Errorf("reading rules: %w", err)
	}
	if c.Fold != Version {
		return nil, fmt.Errorf("reading rules: written by fold version %d, this binary has %d", c.Fold, Version)
	}
	var r Rules
	dec = json.NewDecoder(bytes.NewReader(c.Settings))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return nil, fmt.Errorf("reading rules: %w", err)
	}
	m, err := scoring.Parse([]byte(c.Model))
	if err != nil {
		return nil, fmt.Errorf("reading rules: %w", err)
	}
	r.Model = m
	return &r, nil
}
