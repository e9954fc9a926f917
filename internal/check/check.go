// Package check proves, from what lies in Kafka and Redis, that a namespace is
// what the protocol promises: the invariants I1 to I4, and I6 by replaying.
//
// It only reads. The system may be running meanwhile: each partition is judged
// as of one instant, and what comes after it is left out.
//
//	I1  each customer's record is the fold of log and journal up to where the
//	    fence stands: journal, fence, outbox and records fit together
//	I2  published changes form a chain per customer
//	I3  the last published tier is the record's tier
//	I4  every record read is accounted for
//	I6  a replay of log and journal gives the same records and decisions
package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/replay"
	"github.com/tierstream/tierstream/internal/state"
	"github.com/tierstream/tierstream/internal/stream"
)

// Config says what is checked. Namespace, Topics (all but the inputs, which
// the journal names), Redis and one of Kafka and Source are required.
type Config struct {
	Namespace string
	Topics    stream.Topics
	Kafka     []kgo.Opt     // options of every client
	Source    replay.Source // instead of Kafka
	Redis     redis.UniversalClient

	Replay bool // I6, too: every batch again as the journal says
	// Canonical folds the log alone, and compares the facts of every customer
	// with the live ones. Who depends on the order of arrival is listed, whoever
	// else differs violates I6.
	Canonical bool
	Workers   int // partitions at a time; 0: 2
	Listed    int // violations listed per invariant at most, the others are only counted; 0: 20

	Progress *Progress // counted up meanwhile; nil: nobody looks
}

// Progress is counted up while a check runs, and may be read meanwhile.
type Progress struct {
	Journal, Customers, Outputs, Replayed atomic.Int64 // records
}

// Violation is one thing that does not hold. What does not apply is zero, or
// −1 of an offset.
type Violation struct {
	Invariant string `json:"invariant"`
	Partition int32  `json:"partition"` // of the namespace
	Customer  string `json:"customer,omitempty"`
	Sequence  uint64 `json:"sequence,omitempty"` // of a change of the customer
	Batch     uint64 `json:"batch,omitempty"`    // seq of a journal record
	Topic     string `json:"topic,omitempty"`    // where Offset is
	Offset    int64  `json:"offset"`
	Text      string `json:"text"`
}

func (v *Violation) String() string {
	s := fmt.Sprintf("%s partition %d", v.Invariant, v.Partition)
	if v.Batch > 0 {
		s += fmt.Sprintf(", batch %d", v.Batch)
	}
	if v.Customer != "" {
		s += ", customer " + v.Customer
	}
	if v.Sequence > 0 {
		s += fmt.Sprintf(", change %d", v.Sequence)
	}
	if v.Offset >= 0 {
		s += fmt.Sprintf(", %s@%d", v.Topic, v.Offset)
	}
	return s + ": " + v.Text
}

// Partition is where one partition stood when it was checked.
type Partition struct {
	Partition int32  `json:"partition"`
	Applied   uint64 `json:"applied"`   // R: seq of the fence
	Published uint64 `json:"published"` // K: seq of the last journal record
	Customers int64  `json:"customers"`
	Digest    string `json:"digest"`
	Read      int64  `json:"read"`
	Behind    int64  `json:"behind"` // offsets of the inputs not yet applied
	Moving    bool   `json:"moving"` // batches were applied meanwhile
	Replayed  int64  `json:"replayed,omitempty"`
}

// Correction is a customer whose chain was continued after a loss.
type Correction struct {
	Customer string `json:"customer"`
	Sequence uint64 `json:"sequence"`
	Topic    string `json:"topic"`
	Offset   int64  `json:"offset"`
	Previous string `json:"previous_tier"`
	New      string `json:"new_tier"`
}

// Ordered is a customer whose outcome depends on the order of arrival.
type Ordered struct {
	Customer  string `json:"customer"`
	Partition int32  `json:"partition"`
	Why       string `json:"why"`
	Text      string `json:"text"` // the first field that differs
}

// Report is what a check found.
type Report struct {
	Namespace   string         `json:"namespace"`
	Holds       bool           `json:"holds"`
	Checked     []string       `json:"checked"`    // invariants
	Found       map[string]int `json:"violations"` // by invariant
	Violations  []Violation    `json:"listed"`
	Notes       []string       `json:"notes,omitempty"`
	Partitions  []Partition    `json:"partitions"`
	Customers   int64          `json:"customers"`
	Read        int64          `json:"read"`
	Changes     int64          `json:"changes"`
	DeadLetters int64          `json:"dead_letters"`
	Corrected   []Correction   `json:"corrected,omitempty"`
	Corrections int64          `json:"corrections"`

	// Of a canonical comparison: customers whose facts are not those of the log
	// in the order of its timestamps, for a reason that the order of arrival has.
	Ordered        []Ordered `json:"order_dependent,omitempty"` // at most 1,000
	OrderDependent int64     `json:"order_dependents"`
	Compared       int64     `json:"compared,omitempty"`

	Took time.Duration `json:"took_ns"`
}

// run is a check under way.
type run struct {
	Config
	source replay.Source
	parts  []*part
	rule   event.Partitioner // nil: not known
	packed bool              // changes are MessagePack
	cut    bool              // an output topic has lost its beginning

	mu     sync.Mutex
	report *Report
}

// Run checks a namespace. An error means that it could not be checked; what
// does not hold is in the report.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	began := time.Now()
	if cfg.Workers == 0 {
		cfg.Workers = 2
	}
	if cfg.Listed == 0 {
		cfg.Listed = 20
	}
	if cfg.Progress == nil {
		cfg.Progress = &Progress{}
	}
	c := &run{Config: cfg, source: cfg.Source, report: &Report{Namespace: cfg.Namespace, Found: map[string]int{}, Checked: []string{"I1", "I2", "I3", "I4"}}}
	if cfg.Replay || cfg.Canonical {
		c.report.Checked = append(c.report.Checked, "I6")
	}
	for _, i := range c.report.Checked {
		c.report.Found[i] = 0
	}
	if c.source == nil {
		k, err := replay.NewKafka(cfg.Kafka)
		if err != nil {
			return nil, err
		}
		defer k.Close()
		c.source = k
	}
	n, err := c.source.Partitions(ctx, cfg.Topics.Journal)
	switch {
	case err != nil:
		return nil, err
	case n == 0:
		return nil, fmt.Errorf("namespace %s has not been started: there is no topic %s", cfg.Namespace, cfg.Topics.Journal)
	}
	for p := range n {
		c.parts = append(c.parts, &part{run: c, n: p, store: state.NewStore(cfg.Redis, cfg.Namespace, p, time.Second), decided: map[uint64]decided{}, disputed: map[uint64]event.Code{}})
	}

	// Redis first, then what is published: whatever a record says must then be
	// found in the topics, or in the outbox.
	each := func(f func(*part) error) error {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(cfg.Workers)
		for _, p := range c.parts {
			g.Go(func() error {
				if err := ctx.Err(); err != nil {
					return err
				}
				p.ctx = ctx
				if err := f(p); err != nil {
					return fmt.Errorf("partition %d: %w", p.n, err)
				}
				return nil
			})
		}
		return g.Wait()
	}
	for _, step := range []func(*part) error{(*part).snapshot, (*part).journal, (*part).compare} {
		if err := each(step); err != nil {
			return nil, err
		}
	}
	if err := c.rules(ctx); err != nil {
		return nil, err
	}
	if err := c.outputs(ctx); err != nil {
		return nil, err
	}
	if err := each((*part).account); err != nil {
		return nil, err
	}
	if err := each((*part).repeat); err != nil {
		return nil, err
	}

	if cfg.Canonical {
		if err := c.canonical(ctx); err != nil {
			return nil, err
		}
	}
	if c.packed {
		c.note("changes in MessagePack are not compared with what replaying decides, but for their chain")
	}
	r := c.report
	r.Holds = true
	for _, n := range r.Found {
		r.Holds = r.Holds && n == 0
	}
	slices.SortStableFunc(r.Violations, func(a, b Violation) int {
		if a.Invariant != b.Invariant {
			return compareText(a.Invariant, b.Invariant)
		}
		return int(a.Partition) - int(b.Partition)
	})
	for _, p := range c.parts {
		r.Partitions = append(r.Partitions, p.summary())
		r.Customers += int64(len(p.customers))
		r.Read += p.fence.State.Read
	}
	r.Took = time.Since(began)
	return r, nil
}

func compareText(a, b string) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// violated notes what does not hold.
func (c *run) violated(v Violation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Found[v.Invariant]++
	if c.report.Found[v.Invariant] <= c.Listed {
		c.report.Violations = append(c.report.Violations, v)
	}
}

// found is how often an invariant was violated so far.
func (c *run) found(invariant string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.report.Found[invariant]
}

func (c *run) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Notes = append(c.report.Notes, fmt.Sprintf(format, args...))
}

// ErrMoving means: a partition moved faster than it could be read.
var ErrMoving = errors.New("the partition moves faster than it can be read; try when it is less busy")
