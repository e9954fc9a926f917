package check

import (
	"context"
	"fmt"
	"reflect"

	"github.com/zeebo/xxh3"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/replay"
	"github.com/tierstream/tierstream/internal/state"
)

// orderly are the codes by which a customer's outcome depends on the order in
// which the records arrived.
var orderly = map[event.Code]bool{
	event.TooLate: true, event.IDConflict: true, event.BusinessConflict: true, event.OrphanReturn: true,
	event.OverReturn: true, event.CurrencyChanged: true, event.BadAmount: true,
}

// canonical folds the log alone up to where the fences stood, and compares
// facts.
func (c *run) canonical(ctx context.Context) error {
	book, err := replay.ReadRules(ctx, c.source, c.Topics.Rules)
	if err != nil {
		return err
	}
	rules, err := book.Lookup(c.parts[0].fence.State.Rules)
	if err != nil {
		return err
	}
	rules = book.Learned(rules)
	name, err := replay.ParseName(replay.Prefix + "check")
	if err != nil {
		return err
	}
	cfg := replay.Config{Kind: replay.Canonical, Name: name, Source: c.source, Topics: c.Topics, Rules: rules, Workers: c.Workers}
	cfg.From.Offsets, cfg.To.Offsets = map[string]map[int32]int64{}, map[string]map[int32]int64{}
	for i, t := range rules.Topics {
		cfg.From.Offsets[t], cfg.To.Offsets[t] = map[int32]int64{}, map[int32]int64{}
		for _, p := range c.parts {
			if p.rebased != nil {
				c.note("not compared with a canonical replay, because partition %d was rebased", p.n)
				return nil
			}
			cfg.From.Offsets[t][p.n], cfg.To.Offsets[t][p.n] = p.genesis.Start[i].Next, p.fence.State.Next[i].Next
		}
	}
	sides := make([]*side, len(c.parts))
	for i, p := range c.parts {
		sides[i] = &side{part: p, ctx: ctx}
	}
	cfg.Output = letters{c}
	cfg.Values = func(n int32, id string, value []byte) error { return sides[n].add(id, value) }
	if _, err := replay.Run(ctx, cfg); err != nil {
		return err
	}
	for _, s := range sides {
		if err := s.compare(); err != nil {
			return err
		}
	}
	return nil
}

// letters learns whom the canonical replay refused something.
type letters struct{ *run }

func (l letters) Open(_ context.Context, n int32) (func(*protocol.Message) error, func() error, error) {
	p := l.parts[n]
	emit := func(m *protocol.Message) error {
		if m.Stream != protocol.DeadLetters {
			return nil
		}
		for _, h := range m.Headers {
			for code := range orderly {
				if h.Key == "tierstream-code" && string(h.Value) == code.String() {
					p.disputed[xxh3.Hash(m.Key)] = code
				}
			}
		}
		return nil
	}
	return emit, func() error { return nil }, nil
}

func (letters) Close() error { return nil }

// side gathers customers of one partition until they are worth a question to
// Redis.
type side struct {
	*part
	ctx    context.Context
	ids    []string
	values [][]byte
}

func (s *side) add(id string, value []byte) error {
	s.ids, s.values = append(s.ids, id), append(s.values, value)
	if len(s.ids) < state.MaxSample {
		return nil
	}
	return s.compare()
}

func (s *side) compare() error {
	if len(s.ids) == 0 {
		return nil
	}
	now, err := s.store.Sample(s.ctx, s.ids)
	if err != nil {
		return err
	}
	if now.Fence == nil || len(now.Customers) != len(s.ids) {
		return errRebuilding
	}
	for i, id := range s.ids {
		log, live := customer.NewRecord(), customer.NewRecord()
		if err := customer.Decode(s.values[i], &log); err != nil {
			return fmt.Errorf("customer %s: %w", id, err)
		}
		if v := now.Customers[i].Value; v == nil || customer.Decode(v, &live) != nil || live.Seq > s.fence.Seq {
			continue // noted elsewhere, or written since
		}
		text := difference(reflect.ValueOf(live.Facts), reflect.ValueOf(log.Facts), "Facts")
		s.mu.Lock()
		s.report.Compared++
		s.mu.Unlock()
		if text == "" {
			continue
		}
		why := s.why(id, &live, &log)
		if why == "" {
			s.violated(Violation{Invariant: "I6", Customer: id, Offset: -1, Text: text + ", and nothing of this customer depends on the order of arrival"})
			continue
		}
		s.mu.Lock()
		if s.report.OrderDependent++; len(s.report.Ordered) < 1000 {
			s.report.Ordered = append(s.report.Ordered, Ordered{Customer: id, Partition: s.n, Why: why, Text: text})
		}
		s.mu.Unlock()
	}
	s.ids, s.values = s.ids[:0], s.values[:0]
	return nil
}

// why says by what a customer's facts depend on the order of arrival; "" when
// they should not.
func (s *side) why(id string, live, log *customer.Record) string {
	if code, ok := s.disputed[key(id)]; ok {
		return code.String()
	}
	for _, r := range []*customer.Record{live, log} {
		if f := &r.Facts; f.First < f.MinTime || f.Old.Orders > 0 || f.Old.Complaints > 0 || f.Old.Converted > 0 {
			return "detail was compacted"
		}
		if len(r.Facts.Waiting) > 0 {
			return "a return waits"
		}
	}
	return ""
}
