package stream

import (
	"encoding/json"
	"fmt"

	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/view"
)

// values adds the value of every customer that a batch writes to what the batch
// sends, if there is a topic for them. They are no decision: no chain and no
// digest knows of them, and a replay makes none. They go through the outbox all
// the same, so that a crash between the script and the commit loses none.
func (s *session) values(out *fold.Output) error {
	if s.cfg.Topics.Values == "" {
		return nil
	}
	if rules := s.engine.Rules(); s.viewer == nil || s.viewed != rules {
		v, err := view.NewViewer(rules.Model, rules.Policy, rules.Topics)
		if err != nil {
			return stopf("customers' values: %w", err)
		}
		s.viewer, s.viewed = v, rules
	}
	for i := range out.Puts {
		c := out.Puts[i].Customer
		b, err := json.Marshal(s.viewer.Decided(c.ID, s.partition, &c.Record, out.Entry.Seq, &out.State))
		if err != nil {
			return fmt.Errorf("the value of customer %s: %w", c.ID, err)
		}
		out.Entry.Messages = append(out.Entry.Messages, protocol.Message{Stream: protocol.Values, Key: []byte(c.ID), Value: b})
	}
	return nil
}

// newestValues tells which of the entries holds the newest value of a customer;
// only that one is sent.
func newestValues(entries []*protocol.Entry) map[string]*protocol.Entry {
	newest := map[string]*protocol.Entry{}
	for _, e := range entries {
		for i := range e.Messages {
			if m := &e.Messages[i]; m.Stream == protocol.Values {
				newest[string(m.Key)] = e
			}
		}
	}
	return newest
}
