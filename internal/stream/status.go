package stream

import (
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
)

type statusName string

const (
	statusAcquiring statusName = "acquiring"
	statusRunning   statusName = "running"
	statusWaiting   statusName = "waiting to acquire again"
	statusStopped   statusName = "stopped"
	statusReleased  statusName = "released"
)

// partitionStatus is what a worker tells the rest of the process.
type partitionStatus struct {
	attrs metric.MeasurementOption

	mu      sync.Mutex
	name    statusName
	err     error
	last    protocol.State
	seq     uint64
	pubSeq  uint64
	lag     int64
	changes int64
}

func newPartitionStatus(p int32) *partitionStatus {
	return &partitionStatus{name: statusAcquiring, attrs: metric.WithAttributeSet(attribute.NewSet(attribute.Int("partition", int(p))))}
}

func (s *partitionStatus) set(n statusName, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.name, s.err = n, err
}

// phase names what an owner that does not run yet is doing.
func (s *partitionStatus) phase(p protocol.Phase) {
	if p != protocol.Running && p != protocol.Stopped {
		s.set(statusName(p.String()), nil)
	}
}

func (s *partitionStatus) state() (statusName, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.name, s.err
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
func (s *partitionStatus) lagging(r *reader, next []protocol.Position) {
	if r.end == nil {
		return
	}
	var lag int64
	for i := range r.queues {
		if !r.atEnd(i) {
			lag += max(0, r.end[i]-next[i].Next)
		}
	}
	s.mu.Lock()
	s.lag = lag
	s.mu.Unlock()
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
