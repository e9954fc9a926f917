package stream

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
)

// rulesLog keeps every rule set that a journal may name: in a compacted topic,
// keyed by hash.
type rulesLog struct {
	base  []kgo.Opt
	topic string

	mu    sync.Mutex
	known map[protocol.Hash]*fold.Rules
	raw   map[protocol.Hash][]byte
}

// canonical are the rule sets that the topic holds.
func (l *rulesLog) canonical() iter.Seq[[]byte] {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Values(l.raw) // which is replaced, never written to
}

// keep makes sure that the topic, as it was read last, holds the rules, before
// anything is decided by them.
func (l *rulesLog) keep(ctx context.Context, r *fold.Rules) error {
	h := r.Hash()
	l.mu.Lock()
	_, there := l.raw[h]
	l.known[h] = r
	l.mu.Unlock()
	if there {
		return nil
	}
	cl, err := kgo.NewClient(l.base...)
	if err != nil {
		return err
	}
	defer cl.Close()
	rec := &kgo.Record{Topic: l.topic, Key: []byte(h.String()), Value: r.Canonical()}
	if err := cl.ProduceSync(ctx, rec).FirstErr(); err != nil {
		return fmt.Errorf("keeping the rules in %s: %w", l.topic, err)
	}
	return nil
}

// read learns what the topic holds.
func (l *rulesLog) read(ctx context.Context) error {
	cl, err := kgo.NewClient(append(l.base[:len(l.base):len(l.base)],
		kgo.ConsumeTopics(l.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		return err
	}
	defer cl.CloseAllowingRebalance()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, l.topic)
	if err != nil {
		return fmt.Errorf("reading %s: %w", l.topic, err)
	}
	starts, err := kadm.NewClient(cl).ListStartOffsets(ctx, l.topic)
	if err != nil {
		return fmt.Errorf("reading %s: %w", l.topic, err)
	}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if s, ok := starts.Lookup(o.Topic, o.Partition); ok && o.Offset > s.Offset {
			left[o.Partition] = o.Offset
		}
	})
	raw := map[protocol.Hash][]byte{}
	for len(left) > 0 {
		fs := cl.PollFetches(ctx)
		for _, e := range fs.Errors() {
			return fmt.Errorf("reading %s: %w", l.topic, e.Err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			// The key is checked, not believed.
			if h := protocol.Hash(sha256.Sum256(r.Value)); h.String() == string(r.Key) {
				raw[h] = r.Value
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.raw = raw
	if l.known == nil {
		l.known = map[protocol.Hash]*fold.Rules{}
	}
	return nil
}

// currency is the base currency of a rule set that the topic holds, "" when it
// does not hold it. It is read without parsing the rest, because this binary
// need not be able to repeat rules only to go on after them.
func (l *rulesLog) currency(h protocol.Hash) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var r struct {
		Settings struct {
			Policy struct {
				Base string `json:"base"`
			} `json:"policy"`
		} `json:"settings"`
	}
	if json.Unmarshal(l.raw[h], &r) != nil {
		return ""
	}
	return r.Settings.Policy.Base
}

// errUnknownRules: what rules that the journal names decided cannot be repeated.
var errUnknownRules = errors.New("rules that the journal names cannot be used")

// lookup finds the rules that a journal record names.
func (l *rulesLog) lookup(ctx context.Context, h protocol.Hash) (*fold.Rules, error) {
	l.mu.Lock()
	r, raw := l.known[h], l.raw[h]
	l.mu.Unlock()
	if r != nil {
		return r, nil
	}
	if raw == nil {
		if err := l.read(ctx); err != nil { // another instance may have written them since
			return nil, err
		}
		l.mu.Lock()
		raw = l.raw[h]
		l.mu.Unlock()
	}
	if raw == nil {
		return nil, fmt.Errorf("%w: %s does not hold %s", errUnknownRules, l.topic, h)
	}
	r, err := fold.ParseRules(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errUnknownRules, h, err)
	}
	if got := r.Hash(); got != h {
		return nil, fmt.Errorf("%w: this binary reads %s as %s (other zone data or formulas)", errUnknownRules, h, got)
	}
	l.mu.Lock()
	l.known[h] = r
	l.mu.Unlock()
	return r, nil
}
