// Package stream runs partitions: it owns them, reads their inputs in order,
// drives the protocol, and publishes. One worker per partition; a worker is
// the only writer of its partition's customers, in Redis and in Kafka, and
// every write of it is refused once that is no longer so.
//
// Delivery: each accepted event moves its customer's state exactly once, and
// each tier change and dead letter is published exactly once to consumers that
// read committed, in order per customer. Nothing is dropped: a record is used,
// counted as duplicate or ignored, held, or sent to the dead letters.
package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/mapping"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/state"
)

// Topics names the topics of a namespace.
type Topics struct {
	Inputs      []string // co-partitioned; their order breaks ties between equal timestamps
	Changes     string
	DeadLetters string
	Journal     string
	Rules       string
	Values      string // customers' whole values, compacted; "" publishes none
}

// DefaultTopics are the topics of a namespace, given its inputs.
func DefaultTopics(namespace string, inputs []string) Topics {
	return Topics{
		Inputs: inputs, Changes: "tier-changes", DeadLetters: "dead-letters",
		Journal: namespace + "-journal", Rules: namespace + "-rules",
	}
}

// Config is what a Processor needs to know. Times and sizes that are zero take
// their defaults.
type Config struct {
	Namespace string
	Topics    Topics
	Rules     *fold.Rules
	Engine    string // build, named in dead letters and changes

	// LiveSince is fixed in the genesis when the namespace is created: changes
	// effective before it are backfill. Zero: the moment of creation, or none
	// when the clock is events.
	LiveSince    time.Time
	AllowRejects bool // go on after a flood of refused records

	// MsgpackChanges sends the data of tier changes as MessagePack, not JSON.
	MsgpackChanges bool

	Lease        time.Duration // how long one accepted script lets its owner apply; 10 s
	Heartbeat    time.Duration // of the consumer group; 250 ms, which bounds how fast a rebalance is noticed
	BatchRecords int           // records per batch at most; 8,192
	BatchBytes   int           // input bytes per batch at most; 4 MiB
	BufferBytes  int           // input bytes buffered per partition and topic at most; 16 MiB
	OutboxBytes  int           // unpublished outputs per partition before applying waits; 32 MiB
	CacheBytes   int           // decoded customers kept per partition; 256 MiB
	MergeWait    time.Duration // how long an input that is neither read to its end nor buffered holds up the others; 1 s

	// Kafka are the options of every client: brokers, TLS, SASL, dialer.
	Kafka []kgo.Opt
	// Schemas is the registry that the rules' mapping names; nil when it names
	// none.
	Schemas mapping.Source
	// Store opens the state of one partition.
	Store func(partition int32) Store
	Log   *slog.Logger
	// Now is the wall clock.
	Now func() time.Time
}

// Store keeps one partition's state. Package state implements it on Redis.
// Every method but Acquire, Renew and Time acts only if the fence is the
// expected one; reads return state.ErrFenced otherwise.
type Store interface {
	Acquire(ctx context.Context, owner protocol.Nonce) (f *protocol.Fence, outbox []*protocol.Entry, fresh bool, err error)
	Raise(ctx context.Context, id protocol.Identity, base uint64, next []protocol.Position) (gen uint64, err error)
	Aim(ctx context.Context, id protocol.Identity, target uint64) error
	Fill(ctx context.Context, id protocol.Identity, customers []state.Put, wait []state.WaitingValue, unwait []state.WaitingKey) (protocol.Answer, error)
	Members(ctx context.Context, id protocol.Identity, gen uint64, from, n int) ([]string, error)
	LoadFrom(ctx context.Context, id protocol.Identity, gen uint64, customers []string) ([][]byte, error)
	LoadWaitingFrom(ctx context.Context, id protocol.Identity, gen uint64, ws []state.WaitingKey) ([][]byte, error)
	Abandoned(ctx context.Context, id protocol.Identity, n int, cursor string) (state.Abandoned, error)
	Forget(ctx context.Context, id protocol.Identity, a state.Abandoned, waiting []state.WaitingKey) error
	Renew(ctx context.Context, id protocol.Identity) error
	Compare(ctx context.Context, id protocol.Identity) error
	Load(ctx context.Context, id protocol.Identity, customers []string) ([][]byte, error)
	LoadWaiting(ctx context.Context, id protocol.Identity, ws []state.WaitingKey) ([][]byte, error)
	Due(ctx context.Context, id protocol.Identity, upTo int64, n int) ([]state.DueEntry, error)
	Apply(ctx context.Context, b *state.Batch) (protocol.Answer, error)
	Time(ctx context.Context) (time.Time, error)
}

func (c *Config) withDefaults() Config {
	d := *c
	set := func(v *time.Duration, def time.Duration) {
		if *v == 0 {
			*v = def
		}
	}
	size := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	set(&d.Lease, 10*time.Second)
	set(&d.Heartbeat, 250*time.Millisecond)
	set(&d.MergeWait, time.Second)
	size(&d.BatchRecords, 8192)
	size(&d.BatchBytes, 4<<20)
	size(&d.BufferBytes, 16<<20)
	size(&d.OutboxBytes, 32<<20)
	size(&d.CacheBytes, 256<<20)
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	return d
}

// Validate says what is wrong with the configuration, without asking anybody.
func (c *Config) Validate() error {
	if c.Namespace == "" || len(c.Namespace) > 64 {
		return fmt.Errorf("namespace %q: want 1 to 64 characters", c.Namespace)
	}
	for _, r := range c.Namespace {
		if !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.') {
			return fmt.Errorf("namespace %q: want lower-case letters, digits, - _ and . only", c.Namespace)
		}
	}
	if strings.HasPrefix(c.Namespace, "replay-") {
		return fmt.Errorf("namespace %q: names that begin with replay- belong to replays", c.Namespace)
	}
	if c.Rules == nil {
		return errors.New("no rules")
	}
	if m := c.Rules.Mapping; m != nil && m.Registry() != "" && c.Schemas == nil {
		return fmt.Errorf("the mapping names the registry %s, but nothing asks it", m.Registry())
	}
	names := map[string]string{}
	for _, t := range []struct {
		role, name string
		optional   bool
	}{
		{role: "tier changes", name: c.Topics.Changes}, {role: "dead letters", name: c.Topics.DeadLetters},
		{role: "journal", name: c.Topics.Journal}, {role: "rules", name: c.Topics.Rules},
		{role: "customers' values", name: c.Topics.Values, optional: true},
	} {
		switch {
		case t.name == "" && t.optional:
			continue
		case t.name == "":
			return fmt.Errorf("no topic for the %s", t.role)
		}
		if other := names[t.name]; other != "" {
			return fmt.Errorf("topic %s is named for the %s and the %s", t.name, other, t.role)
		}
		names[t.name] = t.role
	}
	for _, t := range c.Topics.Inputs {
		if role := names[t]; role != "" {
			return fmt.Errorf("topic %s is an input and the topic of the %s", t, role)
		}
	}
	return c.Rules.Validate()
}

// GroupID is the consumer group by which partitions are owned.
func GroupID(namespace string) string { return "tierstream-" + namespace }

// stopError ends a partition's work until a human has looked.
type stopError struct{ error }

func (e stopError) Unwrap() error { return e.error }

func stopf(format string, args ...any) error { return stopError{fmt.Errorf(format, args...)} }
