package stream

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
)

// inForce are the rules by which this process decides: those of the
// configuration, with the schemas that were learned since. They change while
// partitions run. Each batch names the rules it was decided by, so it is no
// matter which partition goes over to new ones first.
type inForce struct {
	mu      sync.Mutex
	rules   *fold.Rules
	hash    protocol.Hash
	unknown map[int]time.Time // schemas that the registry did not have, and when it said so
}

// askAgain is after how long the registry is asked again for a schema that it
// did not have. maxUnknown bounds how many of those are remembered.
const (
	askAgain   = time.Minute
	maxUnknown = 10_000
)

func newInForce(r *fold.Rules) *inForce {
	return &inForce{rules: r, hash: r.Hash(), unknown: map[int]time.Time{}}
}

func (f *inForce) now() protocol.Hash {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hash
}

// adopt begins with what the rules topic holds: whatever any instance learned
// from the same registry, and these rules.
func (p *Processor) adopt(ctx context.Context) error {
	f := p.inForce
	f.mu.Lock()
	defer f.mu.Unlock()
	return p.force(ctx, f.rules)
}

// force makes rules those in force, with what others learned meanwhile. They
// are kept before anything is decided by them. The caller holds the lock.
func (p *Processor) force(ctx context.Context, r *fold.Rules) error {
	if err := p.rules.read(ctx); err != nil {
		return err
	}
	r = r.WithLearned(p.rules.canonical())
	if err := p.rules.keep(ctx, r); err != nil {
		return err
	}
	p.inForce.rules, p.inForce.hash = r, r.Hash()
	return nil
}

// learn makes sure that the rules in force have these schemas, but for those
// that the registry does not have. Where it cannot be asked, nothing may be
// decided of the records that need them: the partition waits.
func (p *Processor) learn(ctx context.Context, ids []int) (protocol.Hash, error) {
	f := p.inForce
	f.mu.Lock()
	defer f.mu.Unlock()
	now := p.cfg.Now()
	ids = slices.DeleteFunc(ids, func(id int) bool {
		at, unknown := f.unknown[id]
		return unknown && now.Sub(at) < askAgain
	})
	m, unknown, err := f.rules.Mapping.Learn(ctx, p.cfg.Schemas, ids)
	if err != nil {
		return f.hash, err
	}
	if len(unknown) > 0 {
		if len(f.unknown) > maxUnknown {
			clear(f.unknown)
		}
		for _, id := range unknown {
			f.unknown[id] = now
		}
		p.cfg.Log.Warn("the schema registry does not have schemas that records name: they go to the dead letters as unknown_type", "schemas", unknown)
	}
	if m == f.rules.Mapping {
		return f.hash, nil
	}
	p.cfg.Log.Info("schemas learned from the registry", "schemas", ids)
	err = p.force(ctx, f.rules.WithMapping(m))
	return f.hash, err
}

// learn goes over to rules that have the schemas of a batch, before it is
// decoded. What is re-applied is not asked for: it is decided by the rules of
// then, which have what was known then.
func (s *session) learn(ctx context.Context, t *taken) error {
	var ids map[int]bool
	for i, r := range t.records {
		if id, ok := s.engine.Needs(t.topic[i], r.Value); ok {
			if ids == nil {
				ids = map[int]bool{}
			}
			ids[id] = true
		}
	}
	if ids == nil {
		return nil
	}
	h, err := s.Processor.learn(ctx, slices.Sorted(maps.Keys(ids)))
	if err != nil || h == s.engine.Hash() {
		return err
	}
	return s.engineFor(ctx, h)
}
