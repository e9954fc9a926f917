package event

import (
	"fmt"
	"time"
)

// Limits bound what a record may hold. They decide outcomes, so they belong to
// the settings a namespace is repeated with. A zero field takes its default.
type Limits struct {
	// MaxBytes bounds the record's value; beyond: malformed.
	MaxBytes int
	// MaxDepth bounds how deeply objects and arrays of the data are nested,
	// the data itself being 1 deep; beyond: malformed.
	MaxDepth int
	// MaxAmount bounds the magnitude of every amount, in minor units of
	// whichever currency; beyond: bad_amount.
	MaxAmount int64
	// MaxSkew is by how much the event time may lie after the record's
	// timestamp; beyond: future_time. Below a millisecond: not at all.
	MaxSkew time.Duration
}

// The defaults: Kafka's own default for a message, far more nesting than any
// type has, ten thousand million euros, and clocks five minutes apart.
const (
	defaultMaxBytes  = 1 << 20
	defaultMaxDepth  = 16
	defaultMaxAmount = 1_000_000_000_000
	defaultMaxSkew   = 5 * time.Minute
)

// WithDefaults is l with its zero fields set.
func (l Limits) WithDefaults() Limits {
	if l.MaxBytes == 0 {
		l.MaxBytes = defaultMaxBytes
	}
	if l.MaxDepth == 0 {
		l.MaxDepth = defaultMaxDepth
	}
	if l.MaxAmount == 0 {
		l.MaxAmount = defaultMaxAmount
	}
	if l.MaxSkew == 0 {
		l.MaxSkew = defaultMaxSkew
	}
	return l
}

// Validate refuses limits under which no record could pass.
func (l Limits) Validate() error {
	switch l = l.WithDefaults(); {
	case l.MaxBytes < 0:
		return fmt.Errorf("checking limits: max bytes %d is negative", l.MaxBytes)
	case l.MaxDepth < 0 || l.MaxDepth > 1000:
		return fmt.Errorf("checking limits: max depth %d is not within 1 to 1000", l.MaxDepth)
	case l.MaxAmount < 0:
		return fmt.Errorf("checking limits: max amount %d is negative", l.MaxAmount)
	case l.MaxSkew < 0:
		return fmt.Errorf("checking limits: max skew %s is negative", l.MaxSkew)
	}
	return nil
}
