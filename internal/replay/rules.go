package replay

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
)

// Rulebook is what a rules topic holds.
type Rulebook struct {
	topic  string
	raw    map[protocol.Hash][]byte
	newest protocol.Hash

	mu     sync.Mutex
	parsed map[protocol.Hash]*fold.Rules
}

// ReadRules reads the rules topic of a namespace; a missing one is empty.
func ReadRules(ctx context.Context, s Source, topic string) (*Rulebook, error) {
	b := &Rulebook{topic: topic, raw: map[protocol.Hash][]byte{}, parsed: map[protocol.Hash]*fold.Rules{}}
	n, err := s.Partitions(ctx, topic)
	if err != nil {
		return nil, err
	}
	for p := range n {
		start, end, err := s.Span(ctx, topic, p)
		if err != nil {
			return nil, err
		}
		err = Each(ctx, s, topic, p, start, end, func(r *kgo.Record) error {
			// The key is checked, not believed.
			if h := protocol.Hash(sha256.Sum256(r.Value)); h.String() == string(r.Key) {
				b.raw[h], b.newest = r.Value, h
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}

// Lookup finds the rules that a journal record names. It is safe for
// concurrent use.
func (b *Rulebook) Lookup(h protocol.Hash) (*fold.Rules, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r := b.parsed[h]; r != nil {
		return r, nil
	}
	raw := b.raw[h]
	if raw == nil {
		return nil, fmt.Errorf("rules %.12s, which %s does not hold: what they decided cannot be repeated", h, b.topic)
	}
	r, err := fold.ParseRules(raw)
	if err != nil {
		return nil, fmt.Errorf("rules %.12s of %s: %w", h, b.topic, err)
	}
	if got := r.Hash(); got != h {
		return nil, fmt.Errorf("rules %.12s, but this binary reads them as %.12s (other zone data or formulas): what they decided cannot be repeated", h, got)
	}
	b.parsed[h] = r
	return r, nil
}

// Newest are the rules that were written last, with the schemas of all others;
// nil when there are none.
func (b *Rulebook) Newest() (*fold.Rules, error) {
	if b.newest.IsZero() {
		return nil, nil
	}
	r, err := b.Lookup(b.newest)
	if err != nil {
		return nil, err
	}
	return b.Learned(r), nil
}

// Learned are rules with the schemas that any others had from the same
// registry. Partitions learn them at different times, so that no set need hold
// what the whole log needs.
func (b *Rulebook) Learned(r *fold.Rules) *fold.Rules { return r.WithLearned(maps.Values(b.raw)) }
