package replay

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/state"
)

// pass is one partition being folded.
type pass struct {
	partition int32
	where     fold.Where
	engine    *fold.Engine
	held      *held
	inputs    []*input // by topic, in the order of the rules

	state protocol.State
	point protocol.Point

	// decisions is the digest of all decisions so far, see [AddDecision].
	decisions   protocol.Hash
	changes     int64
	deadLetters int64
	emit        func(*protocol.Message) error // nil: outputs go nowhere
	flush       func() error                  // of the outputs
	progress    *Progress
	resumed     bool

	// Of the batch under way, reused.
	set     fold.Set
	taken   []*kgo.Record
	of      []int
	records []fold.Record
	list    []*fold.Record
	headers []event.Header
}

// AddDecision is the digest of a partition's decisions after one more:
// SHA-256(digest before ‖ decision), where the decision is that of
// [fold.Decision]. It begins at zero. So it depends on what was decided in
// which order, and on nothing else.
func AddDecision(before protocol.Hash, decision []byte) (after protocol.Hash) {
	h := sha256.New()
	h.Write(before[:])
	h.Write(decision)
	h.Sum(after[:0])
	return after
}

// decode makes log records what the fold reads. What it returns is valid until
// the next call.
func (p *pass) decode(rs []*kgo.Record, topics []int) []*fold.Record {
	p.headers = p.headers[:0]
	p.records = slices.Grow(p.records[:0], len(rs))[:len(rs)]
	for _, r := range rs { // at once, because the records point into it
		for _, h := range r.Headers {
			p.headers = append(p.headers, event.Header{Key: h.Key, Value: h.Value})
		}
	}
	p.list = p.list[:0]
	at := 0
	for i, r := range rs {
		n := len(r.Headers)
		p.records[i] = fold.Record{Topic: topics[i], Partition: r.Partition, Offset: r.Offset, Message: event.Message{
			Key: r.Key, Value: r.Value, Headers: p.headers[at : at+n : at+n], Timestamp: r.Timestamp.UnixMilli(),
		}}
		at += n
		p.engine.Decode(&p.records[i])
		p.list = append(p.list, &p.records[i])
	}
	return p.list
}

// fetch loads the customers of decoded records.
func (p *pass) fetch(ctx context.Context, rs []*fold.Record) error {
	if p.held.remote == nil {
		return nil
	}
	ids := make([]string, 0, len(rs))
	for _, r := range rs {
		if r.Refusal == nil {
			ids = append(ids, r.Event.Customer)
		}
	}
	return p.held.fetch(ctx, ids)
}

// save flushes the outputs, then writes to Redis what was folded since: killed
// in between, a replay that is resumed gives some outputs again, under the same
// IDs, and loses none. at is where the last batch lies in the journal.
func (p *pass) save(ctx context.Context, at int64) error {
	if p.flush != nil {
		if err := p.flush(); err != nil {
			return err
		}
	}
	r := p.held.remote
	if r == nil || r.id.Point == p.point && !r.id.Loading {
		return nil
	}
	b := &state.Batch{
		Point: p.point, State: &p.state, Flood: &protocol.Flood{},
		// A replay publishes to nobody's journal. Its fence keeps the digest of the
		// decisions in this place, and where the journal is to be read on.
		Published: protocol.Published{Point: protocol.Point{Seq: p.point.Seq, Chain: p.decisions}, Offset: at, LeaderEpoch: -1},
	}
	if r.id.Loading {
		b.Genesis = &protocol.Genesis{Incarnation: r.mark, Partitions: p.where.Partitions}
	}
	p.held.changed(b)
	return r.write(ctx, b)
}

// resume goes on where the fence stands.
func (p *pass) resume(f *protocol.Fence) {
	p.state, p.point, p.decisions, p.resumed = f.State, f.Point, f.Published.Chain, true
}

// fold folds one batch.
func (p *pass) fold(in *fold.Input) (*fold.Output, error) {
	if p.set == nil {
		p.set = fold.Set{}
	}
	clear(p.set)
	in.Parent, in.State, in.Customers, in.Originals = p.point, p.state, p.set, p.held.waiting
	in.Wall = in.Clock
	want := func(id string) error {
		if _, ok := p.set[id]; ok {
			return nil
		}
		c, err := p.held.customer(id)
		if err == nil {
			p.set[c.ID] = c
		}
		return err
	}
	for _, id := range in.Sweep {
		if err := want(id); err != nil {
			return nil, err
		}
	}
	for _, r := range in.Records {
		if r.Refusal == nil {
			if err := want(r.Event.Customer); err != nil {
				return nil, err
			}
		}
	}
	return p.engine.Fold(in)
}

// settle takes an output as the new state.
func (p *pass) settle(out *fold.Output) error {
	p.held.apply(out)
	out.Applied()
	p.state, p.point = out.State, out.Entry.Point()
	for i := range out.Entry.Messages {
		m := &out.Entry.Messages[i]
		p.decisions = AddDecision(p.decisions, fold.Decision(m))
		if m.Stream == protocol.Changes {
			p.changes++
		} else {
			p.deadLetters++
		}
		if p.emit != nil {
			if err := p.emit(m); err != nil {
				return err
			}
		}
	}
	return nil
}

// input is one topic of the partition being read, with the record that comes
// next.
type input struct {
	topic  string
	cursor Cursor
	next   int64       // offset after the last record taken
	head   *kgo.Record // nil: not read yet, or none is left
	ended  bool
}

// peek is the next record; nil when none is left.
func (i *input) peek(ctx context.Context) (*kgo.Record, error) {
	if i.head != nil || i.ended {
		return i.head, nil
	}
	r, err := i.cursor.Next(ctx)
	if errors.Is(err, io.EOF) {
		i.ended = true
		return nil, nil
	}
	i.head = r
	return r, err
}

// take hands out at most max records below the offsets upTo, merged by
// timestamp, ties by topic, never reordering within a topic. An input that is
// taken up to its offset is not read further: it might wait for ever. What it
// returns is valid until the next call.
func (p *pass) take(ctx context.Context, upTo []int64, max int) ([]*kgo.Record, []int, error) {
	p.taken, p.of = p.taken[:0], p.of[:0]
	for len(p.taken) < max {
		best := -1
		for i, in := range p.inputs {
			if in.next >= upTo[i] {
				continue
			}
			r, err := in.peek(ctx)
			if err != nil {
				return nil, nil, err
			}
			if r == nil || r.Offset >= upTo[i] {
				continue
			}
			if best < 0 || r.Timestamp.UnixMilli() < p.inputs[best].head.Timestamp.UnixMilli() {
				best = i
			}
		}
		if best < 0 {
			break
		}
		in := p.inputs[best]
		p.taken, p.of = append(p.taken, in.head), append(p.of, best)
		in.next, in.head = in.head.Offset+1, nil
	}
	return p.taken, p.of, nil
}

// open opens the inputs from the positions of the state, up to the given
// offsets.
func (p *pass) open(s Source, topics []string, to []int64) error {
	for i, t := range topics {
		c, err := s.Open(t, p.partition, p.state.Next[i].Next, to[i])
		if err != nil {
			return err
		}
		p.inputs = append(p.inputs, &input{topic: t, cursor: c, next: p.state.Next[i].Next})
	}
	return nil
}

func (p *pass) close() {
	for _, in := range p.inputs {
		in.cursor.Close()
	}
}

// ranges names the records of a batch.
func ranges(topics []string, partition int32, from, to []protocol.Position) string {
	text := ""
	for i, t := range topics {
		if to[i].Next > from[i].Next {
			if text != "" {
				text += ", "
			}
			text += fmt.Sprintf("%s/%d@%d–%d", t, partition, from[i].Next, to[i].Next-1)
		}
	}
	if text == "" {
		return "no records, a sweep alone"
	}
	return text
}
