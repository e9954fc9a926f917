package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/state"
)

// What an owner looks at beside its work: that nobody took away what it stands
// on, that the clocks agree, that nothing old is left.

// watch asks whether journal and inputs are still those that the session found.
func (s *session) watch(ctx context.Context) error {
	topics, err := s.identify(ctx, s.admin)
	if err != nil {
		return err
	}
	if err := s.continues(s.genesis, topics); err != nil {
		return stopError{err}
	}
	first, err := s.journal.start(ctx)
	if err != nil {
		return err
	}
	if first > s.found.scan.Start {
		return fmt.Errorf("the journal's first records were deleted: it begins at offset %d", first)
	}
	s.mu.Lock()
	before := s.machine.Known()
	s.mu.Unlock()
	ends, err := s.admin.ListEndOffsets(ctx, s.journal.topic)
	if err != nil {
		return fmt.Errorf("asking for the journal's end: %w", err)
	}
	s.mu.Lock()
	known := s.machine.Known() // a transaction may have committed since
	s.mu.Unlock()
	switch end, ok := ends.Lookup(s.journal.topic, s.partition); {
	case !ok || end.Err != nil:
	case end.Offset <= before.Offset:
		// What that means is decided where K is read.
		return fmt.Errorf("the journal was shortened: it ends at offset %d, and a record at %d was committed", end.Offset, before.Offset)
	case end.Offset > known.Offset+2 && end.Offset != s.journalEnd && s.unpublished() == 0:
		// Behind the record there is its transaction's marker. Whatever else is
		// there, may be of an owner before me that published what Redis then
		// lost: it had my outbox.
		err := s.journal.each(ctx, known.Offset+1, -1, end.Offset, func(rec *protocol.Record, _ protocol.Published) error {
			return fmt.Errorf("%w: the journal went on to %d without me", errRejected, rec.Seq)
		})
		if err != nil {
			return err
		}
		s.journalEnd = end.Offset
	}
	if s.unpublished() == 0 && time.Since(s.hangingAt) > hangingEvery {
		s.finishHanging(ctx)
	}
	starts, err := s.admin.ListStartOffsets(ctx, s.cfg.Topics.Inputs...)
	if err != nil {
		return fmt.Errorf("asking for the starts of the inputs: %w", err)
	}
	for i, t := range s.cfg.Topics.Inputs {
		if o, ok := starts.Lookup(t, s.partition); ok && o.Err == nil && o.Offset > s.state.Next[i].Next {
			return stopf("%s/%d begins at offset %d, but was read up to %d: records were deleted before they were read", t, s.partition, o.Offset, s.state.Next[i].Next)
		}
	}
	return nil
}

// hangingEvery is how often an idle owner looks for transactions that hang; an
// owner that publishes ends them by its next transaction.
const hangingEvery = 30 * time.Second

// finishHanging writes markers that Kafka left out. What cannot be done here is
// said and no error: if it is in the journal, reading that will wait, and stop.
func (s *session) finishHanging(ctx context.Context) {
	s.hangingAt = time.Now()
	t := &s.cfg.Topics
	m := &markers{base: s.cfg.Kafka, admin: s.admin, id: transactionalID(s.cfg.Namespace, s.partition), outputs: []string{t.Journal, t.Changes, t.DeadLetters}, log: s.log}
	if t.Values != "" {
		m.outputs = append(m.outputs, t.Values)
	}
	n, err := m.finish(ctx, s.producerID)
	s.metrics.markers.Add(ctx, int64(n))
	if err != nil && ctx.Err() == nil {
		s.log.Warn("looking for transactions that Kafka left open", "reason", err)
	}
}

// maxClockSkew is by how much this machine's clock and Redis' may differ.
const maxClockSkew = time.Second

// skew is by how much this machine's clock is ahead of Redis', as far as the
// time the question took does not explain it.
func skew(ctx context.Context, store Store, now func() time.Time) (time.Duration, error) {
	before := now()
	theirs, err := store.Time(ctx)
	if err != nil {
		return 0, err
	}
	switch after := now(); {
	case before.After(theirs):
		return before.Sub(theirs), nil
	case theirs.After(after):
		return -theirs.Sub(after), nil
	default:
		return 0, nil
	}
}

func skewError(d time.Duration) error {
	if d.Abs() <= maxClockSkew {
		return nil
	}
	return fmt.Errorf("the local clock and Redis' differ by %s", d.Abs().Round(time.Millisecond))
}

// wall reads this machine's clock. Where that decides outcomes, it holds the
// partition for as long as the clock is wrong: a batch's clock never goes back,
// so one read from a clock that had jumped ahead would stay. The clocks are
// compared once a second, and at once when ours jumped.
func (s *session) wall(ctx context.Context) (time.Time, error) {
	if s.cfg.Rules.Clock != fold.ClockWall {
		return s.cfg.Now(), nil
	}
	held, was := false, statusRunning
	for {
		now := s.cfg.Now()
		passed := time.Since(s.clockAt)
		// Without the monotonic part: what the clock shows, not what has passed.
		jump := now.Round(0).Sub(s.clockShown.Round(0)) - passed
		if passed < time.Second && jump.Abs() < maxClockSkew {
			if held {
				s.log.Info("the clocks agree again")
				s.status.set(was, nil)
			}
			return now, nil
		}
		d, err := skew(ctx, s.store, s.cfg.Now)
		if err != nil {
			return now, fmt.Errorf("comparing the clocks: %w", err)
		}
		wrong := skewError(d)
		if wrong == nil {
			s.clockShown, s.clockAt = s.cfg.Now(), time.Now()
			continue
		}
		if !held {
			was, _ = s.status.state()
			s.log.Error("partition held until the clocks agree", "reason", wrong)
		}
		held = true
		s.status.set(statusClock, wrong)
		select {
		case <-time.After(250 * time.Millisecond):
		case <-s.drain:
			return now, errDrained
		case <-ctx.Done():
			return now, ctx.Err()
		}
	}
}

// tidy deletes a piece of a key generation that was abandoned.
func (s *session) tidy(ctx context.Context) error {
	if !s.litter {
		return nil
	}
	const piece = 500
	id := s.machine.Identity()
	a, err := s.store.Abandoned(ctx, id, piece, s.cursor)
	if err != nil {
		return s.doubt(err)
	}
	if s.cursor = "0"; a.More {
		s.cursor = a.Cursor
		return nil
	}
	if a.Gen == 0 {
		s.litter = false
		return nil
	}
	var waiting []state.WaitingKey
	for i, v := range a.Records {
		if c, err := fold.StoredCustomer(a.Customers[i], v); err == nil {
			waiting = append(waiting, waitingOf(c)...)
		}
	}
	return s.doubt(s.store.Forget(ctx, id, a, waiting))
}

// errDeleted: records that a re-apply was about to read are gone. The next
// session finds out what that means.
var errDeleted = errors.New("records that were to be re-applied were deleted meanwhile")
