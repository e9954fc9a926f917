package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// Tier is a tier as changes name it. Rank 0 is the lowest.
type Tier struct {
	ID   string `json:"id"`
	Rank int    `json:"rank"`
	Name string `json:"name"`
}

// Component is one part of the measure.
type Component struct {
	Name   string   `json:"name"`
	Before *float64 `json:"before"`
	After  float64  `json:"after"`
	Weight float64  `json:"weight"`
	Known  bool     `json:"known"`
}

// Cause is the event that caused a change.
type Cause struct {
	EventID   string `json:"event_id"`
	Source    string `json:"source"`
	Type      string `json:"type"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	TraceID   string `json:"trace_id,omitempty"`
}

// Change is a tier change as consumers read it. Scores are points from 0 to
// 100, or minor units of money where the measure is money.
type Change struct {
	Customer       string      `json:"customer_id"`
	Sequence       uint64      `json:"sequence"` // per customer, from 1, each one more
	Previous       *Tier       `json:"previous_tier"`
	New            Tier        `json:"new_tier"`
	Direction      string      `json:"direction"` // assigned, up or down
	Reason         string      `json:"reason"`
	Text           string      `json:"reason_text"` // one line for a person
	Measure        string      `json:"measure"`
	ScoreBefore    *float64    `json:"score_before"`
	ScoreAfter     float64     `json:"score_after"`
	Components     []Component `json:"components"`
	Cause          Cause       `json:"cause"`
	EffectiveAt    string      `json:"effective_at"` // RFC 3339, UTC, as is DecidedAt
	DecidedAt      string      `json:"decided_at"`
	NextTier       *Tier       `json:"next_tier"`
	DistanceToNext *float64    `json:"distance_to_next"`
	DistanceToKeep *float64    `json:"distance_to_keep"`
	Model          string      `json:"model_version"`
	ConfigHash     string      `json:"config_hash"`
	Mode           string      `json:"mode"`
	Namespace      string      `json:"namespace"`
	Engine         string      `json:"engine"`
}

// ReadChange decodes the value of a tier change by its content type: msgpack
// where that says so, else JSON. Fields it does not know are ignored.
func ReadChange(contentType string, value []byte) (*Change, error) {
	var c Change
	var err error
	if contentType == "application/msgpack" {
		d := msgpack.NewDecoder(bytes.NewReader(value))
		d.SetCustomStructTag("json")
		err = d.Decode(&c)
	} else {
		err = json.Unmarshal(value, &c)
	}
	if err != nil {
		return nil, fmt.Errorf("reading a tier change: %w", err)
	}
	return &c, nil
}

// From is the name of the tier before, "–" when there was none.
func (c *Change) From() string {
	if c.Previous == nil {
		return "–"
	}
	return c.Previous.Name
}

// Line is the change for a person: when, which way, who, from, to, and why.
func (c *Change) Line() string {
	at := c.EffectiveAt
	if t, err := time.Parse(time.RFC3339, at); err == nil {
		at = t.UTC().Format("2006-01-02 15:04")
	}
	arrow := map[string]string{"assigned": "•", "up": "▲", "down": "▼"}[c.Direction]
	if arrow == "" {
		arrow = c.Direction // one of a later version
	}
	return fmt.Sprintf("%s %s  %-12s %s → %s   %s", at, arrow, c.Customer, c.From(), c.New.Name, c.Text)
}
