package stream

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
)

type statusName string

const (
	statusAcquiring  statusName = "acquiring"
	statusRebuilding statusName = "rebuilding"
	statusClock      statusName = "held until the clocks agree"
	statusRunning    statusName = "running"
	statusWaiting    statusName = "waiting to acquire again"
	statusStopped    statusName = "stopped"
	statusReleased   statusName = "released"
)

// partitionStatus is what a worker tells the rest of the process.
type partitionStatus struct {
	attrs metric.MeasurementOption

	mu          sync.Mutex
	name        statusName
	err         error
	why         protocol.Rebuild // while rebuilding
	done, total uint64           // of units; total 0 when not known
	unit        string
	cut         protocol.Rebased // the last rebase
	last        protocol.State
	seq         uint64
	pubSeq      uint64
	lag         int64
	oldest      int64         // Kafka's timestamp of the oldest record not yet applied, Unix ms; math.MaxInt64: there is none
	overdue     time.Duration // how far the clock is past the earliest due time
	pending     int           // bytes applied and not published
	changes     int64
}

func newPartitionStatus(p int32) *partitionStatus {
	return &partitionStatus{name: statusAcquiring, oldest: math.MaxInt64, attrs: metric.WithAttributeSet(attribute.NewSet(attribute.Int("partition", int(p))))}
}

func (s *partitionStatus) set(n statusName, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.name, s.err = n, err
}

// phase names what an owner that does not run yet is doing.
func (s *partitionStatus) phase(p protocol.Phase, why protocol.Rebuild) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch p {
	case protocol.Running, protocol.Stopped:
	case protocol.Raising, protocol.Installing, protocol.Reapplying, protocol.Loading, protocol.Rebasing:
		s.name, s.err, s.why = statusRebuilding, nil, why
	default:
		s.name, s.err = statusName(p.String()), nil
	}
	if s.name != statusRebuilding {
		s.done, s.total = 0, 0
	}
}

// progress notes how far rebuilding is.
func (s *partitionStatus) progress(done, total uint64, unit string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done, s.total, s.unit = done, total, unit
}

// rebased notes the last rebase of the partition's history.
func (s *partitionStatus) rebased(r protocol.Rebased) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = r
}

// degraded says what the log does not explain; "" when it explains everything.
func (s *partitionStatus) degraded() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut.Seq == 0 {
		return ""
	}
	return fmt.Sprintf("rebased at batch %d (%s): the log alone does not explain the state before it", s.cut.Seq, s.cut.Cause)
}

// state says what the partition is doing, and what is wrong or how far it is.
func (s *partitionStatus) state() (statusName, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.name != statusRebuilding || s.err != nil {
		return s.name, s.err
	}
	text := string(statusRebuilding)
	for _, c := range []protocol.Cause{s.why.Cause, s.why.Blocked} {
		if c != protocol.NoCause {
			text += ", " + c.String()
		}
	}
	switch {
	case s.total > 0:
		text += fmt.Sprintf(": %d of %d %s", s.done, s.total, s.unit)
	case s.done > 0:
		text += fmt.Sprintf(": %d %s", s.done, s.unit)
	}
	return s.name, errors.New(text)
}

// restored notes where the partition stands when its owner begins.
func (s *partitionStatus) restored(st protocol.State, seq, published uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last, s.seq, s.pubSeq = st, seq, published
}

func (s *partitionStatus) applied(out *fold.Output) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last, s.seq = out.State, out.Entry.Seq
	s.changes += int64(out.Changes)
}

func (s *partitionStatus) published(k protocol.Published) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pubSeq = k.Seq
}

// lagging notes how much is not applied yet, as of the reader's last look.
func (s *partitionStatus) lagging(r *reader, next []protocol.Position, t *taken) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oldest = t.oldest
	if r.end == nil {
		return
	}
	s.lag = 0
	for i := range r.queues {
		if !r.atEnd(i) {
			s.lag += max(0, r.end[i]-next[i].Next)
		}
	}
}

// age is how long the oldest record that is not applied has been in Kafka; the
// caller holds mu.
func (s *partitionStatus) age(now time.Time) time.Duration {
	if s.oldest == math.MaxInt64 {
		return 0
	}
	return max(0, now.Sub(time.UnixMilli(s.oldest)))
}

// timers notes how late the sweep is. due is the earliest due time, clock the
// partition's, both Unix ms.
func (s *partitionStatus) timers(clock, due int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.overdue = 0
	if due < clock {
		s.overdue = time.Duration(clock-due) * time.Millisecond
	}
}

// unpublished notes how much is applied and not published.
func (s *partitionStatus) unpublished(bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = bytes
}

func (s *partitionStatus) offsets() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.last.Next) == 0 {
		return nil
	}
	o := make([]int64, len(s.last.Next))
	for i, p := range s.last.Next {
		o[i] = p.Next
	}
	return o
}

func (s *partitionStatus) add(t *Totals) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.Partitions++
	if s.name == statusRunning {
		t.Running++
	}
	t.Read += s.last.Read
	for i, n := range s.last.Counters {
		switch code := event.Code(i); code.Outcome() {
		case event.Used:
			t.Applied += n
		case event.DeadLetter:
			t.DeadLetter += n
		}
	}
	t.Changes += s.changes
	t.Watermark = max(t.Watermark, s.last.Watermark)
}
