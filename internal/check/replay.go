package check

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/zeebo/xxh3"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/replay"
	"github.com/tierstream/tierstream/internal/state"
)

// decided sums what was decided of one customer, on one side.
type decided struct {
	changes uint32
	sum     uint64 // Σ of hashes
}

func (d decided) plus(decision []byte) decided {
	return decided{d.changes + 1, d.sum + xxh3.Hash(decision)}
}

// message is a published record as it was decided, but for what every message
// has.
func message(r *kgo.Record, s protocol.Stream) *protocol.Message {
	m := &protocol.Message{Stream: s, Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		m.Headers = append(m.Headers, protocol.MessageHeader{Key: h.Key, Value: h.Value})
	}
	return m
}

// repeat folds log and journal again, and holds every record in Redis and
// every published decision against the outcome. Where a digest or a count is
// not what it should be it does so without being asked, to say whose it is.
func (p *part) repeat() error {
	if !p.Replay && !p.unexplained {
		return nil
	}
	invariant := "I6"
	if !p.Replay {
		invariant = "I1"
	}
	before := p.found(invariant)
	if p.rebased != nil {
		// What a rebase wrote is not in the log: nothing leads from the genesis to
		// the records of now.
		p.note("partition %d: not replayed, because of its rebase", p.n)
		if p.fence.State.Digest != p.digest.Bytes() {
			p.wrongDigest()
		}
		return nil
	}
	again := &repeated{part: p, invariant: invariant, changes: map[uint64]decided{}, dead: map[string]int{}}
	err := again.run()
	var wrong *replay.Mismatch
	if errors.As(err, &wrong) {
		again.bad(Violation{Batch: wrong.Seq, Topic: p.journalName(), Offset: wrong.Offset, Text: wrong.Text})
		err = nil
	}
	if err != nil && !p.Replay {
		p.note("partition %d: what is wrong could not be told apart by replaying: %v", p.n, err)
		err = nil
	}
	if p.found(invariant) == before && p.fence.State.Digest != p.digest.Bytes() {
		p.wrongDigest()
	}
	return err
}

func (p *part) wrongDigest() {
	p.violated(Violation{Invariant: "I1", Batch: p.fence.Seq, Offset: -1, Text: fmt.Sprintf("the digest of the customers is %x, the fence says %x", p.digest.Bytes(), p.fence.State.Digest)})
}

// repeated is a partition folded again.
type repeated struct {
	*part
	invariant string
	follower  *replay.Follower

	changes map[uint64]decided
	dead    map[string]int // decisions of dead letters, of a partition whose count is wrong
}

func (a *repeated) bad(v Violation) {
	v.Invariant = a.invariant
	a.violated(v)
}

func (a *repeated) run() error {
	f, err := replay.Follow(a.ctx, a.source, a.Namespace, a.Topics, a.n)
	if err != nil {
		return err
	}
	defer f.Close()
	a.follower = f
	f.Record = func(rec *protocol.Record, at protocol.Published, out *fold.Output) error {
		a.Progress.Replayed.Add(rec.State.Read - a.replayed)
		a.replayed = rec.State.Read
		if out == nil {
			return nil
		}
		for i := range out.Entry.Messages {
			switch m := &out.Entry.Messages[i]; {
			case m.Stream == protocol.Changes:
				k := xxh3.Hash(m.Key)
				a.changes[k] = a.changes[k].plus(fold.Decision(m))
			case a.unexplained && at.Offset >= 0:
				a.dead[string(fold.Decision(m))]++
			}
		}
		return nil
	}
	gen, err := a.advance()
	if err != nil {
		return err
	}
	seen := make(map[uint64]struct{}, f.Customers())
	var moved []string
	err = a.store.EachSampled(a.ctx, gen, func(id string, s state.Sampled) error {
		seen[key(id)] = struct{}{}
		if !a.same(id, s.Value) {
			moved = append(moved, id)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for try := 0; len(moved) > 0; try++ {
		if try == 200 {
			return ErrMoving
		}
		if _, err := a.advance(); err != nil {
			return err
		}
		var still []string
		for len(moved) > 0 {
			some := moved[:min(len(moved), state.MaxSample)]
			moved = moved[len(some):]
			s, err := a.store.Sample(a.ctx, some)
			if err != nil {
				return err
			}
			for i, id := range some {
				if !a.same(id, s.Customers[i].Value) {
					still = append(still, id)
				}
			}
		}
		moved = still
	}
	f.Values(func(id string, _ []byte) {
		if _, ok := seen[key(id)]; !ok && f.Point().Seq <= a.fence.Seq {
			a.bad(Violation{Customer: id, Offset: -1, Text: "replaying gives a record, Redis has none"})
		}
	})
	return a.published()
}

// advance folds to where Redis stands: what the journal has, and what the
// outbox has beyond it. It returns the key generation.
func (a *repeated) advance() (uint64, error) {
	deadline := time.Now().Add(10 * time.Second)
	for {
		s, err := a.store.Sample(a.ctx, nil)
		if err != nil {
			return 0, err
		}
		if s.Fence == nil || s.Fence.Loading {
			return 0, errRebuilding
		}
		_, end, err := a.source.Span(a.ctx, a.Topics.Journal, a.n)
		if err == nil {
			err = a.follower.To(a.ctx, end)
		}
		if err != nil {
			return 0, err
		}
		for _, e := range s.Outbox {
			if e.Seq == a.follower.Point().Seq+1 {
				if err := a.follower.Ahead(a.ctx, e); err != nil {
					return 0, err
				}
			}
		}
		if a.follower.Point().Seq >= s.Fence.Seq {
			return s.Fence.Gen, nil
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("journal and outbox lead to batch %d, the fence stands at %d", a.follower.Point().Seq, s.Fence.Seq)
		}
	}
}

// same compares one customer's record. It is false when the record is newer
// than what was folded.
func (a *repeated) same(id string, value []byte) bool {
	want := a.follower.Value(id)
	if bytes.Equal(value, want) {
		return true
	}
	got := customer.NewRecord()
	switch {
	case value == nil:
		a.bad(Violation{Customer: id, Offset: -1, Text: "replaying gives a record, Redis has none"})
		return true
	case customer.Decode(value, &got) != nil:
		if a.invariant == "I6" {
			a.bad(Violation{Customer: id, Offset: -1, Text: "the record is not one"})
		}
		return true // else noted before
	case got.Seq > a.follower.Point().Seq:
		return false
	case want == nil:
		a.bad(Violation{Customer: id, Batch: got.Seq, Offset: -1, Text: "Redis has a record, replaying gives none"})
		return true
	}
	r := customer.NewRecord()
	text := "the record differs from the replay's"
	if err := customer.Decode(want, &r); err == nil {
		if d := difference(reflect.ValueOf(got), reflect.ValueOf(r), ""); d != "" {
			text = d
		}
	}
	a.bad(Violation{Customer: id, Batch: got.Seq, Sequence: got.Standing.Sequence, Offset: -1, Text: text})
	return true
}

// difference names the first field in which two values of one type differ, and
// both values; "" when they are the same.
func difference(got, want reflect.Value, path string) string {
	switch got.Kind() {
	case reflect.Struct:
		for i := range got.NumField() {
			name := got.Type().Field(i).Name
			if path != "" {
				name = path + "." + name
			}
			if d := difference(got.Field(i), want.Field(i), name); d != "" {
				return d
			}
		}
		return ""
	case reflect.Slice:
		for i := range min(got.Len(), want.Len()) {
			if d := difference(got.Index(i), want.Index(i), fmt.Sprintf("%s[%d]", path, i)); d != "" {
				return d
			}
		}
		if got.Len() != want.Len() {
			return fmt.Sprintf("%s has %d entries, replaying gives %d", path, got.Len(), want.Len())
		}
		return ""
	default:
		if !got.Equal(want) {
			return fmt.Sprintf("%s is %v, replaying gives %v", path, got, want)
		}
		return ""
	}
}

// published holds the published decisions against those decided again.
func (a *repeated) published() error {
	suspects := map[uint64]bool{}
	for k, d := range a.changes {
		if got, ok := a.decided[k]; ok && got.changes == d.changes && got.sum != d.sum {
			suspects[k] = true
		}
	}
	if len(suspects) > 0 {
		if err := a.otherChanges(suspects); err != nil {
			return err
		}
	}
	if a.unexplained {
		return a.otherDeadLetters()
	}
	return nil
}

// otherChanges says which changes of some customers are not as decided.
func (a *repeated) otherChanges(suspects map[uint64]bool) error {
	type change struct {
		customer string
		decision uint64
	}
	want := map[change]int{}
	f, err := replay.Follow(a.ctx, a.source, a.Namespace, a.Topics, a.n)
	if err != nil {
		return err
	}
	defer f.Close()
	f.Record = func(_ *protocol.Record, _ protocol.Published, out *fold.Output) error {
		for i := 0; out != nil && i < len(out.Entry.Messages); i++ {
			if m := &out.Entry.Messages[i]; m.Stream == protocol.Changes && suspects[xxh3.Hash(m.Key)] {
				want[change{string(m.Key), xxh3.Hash(fold.Decision(m))}]++
			}
		}
		return nil
	}
	if err := f.To(a.ctx, a.next); err != nil {
		return err
	}
	source := "/tierstream/" + a.Namespace
	return a.each(a.ctx, a.Topics.Changes, func(r *kgo.Record) error {
		if !suspects[xxh3.Hash(r.Key)] || header(r, "ce_source") != source {
			return nil
		}
		k := change{string(r.Key), xxh3.Hash(fold.Decision(message(r, protocol.Changes)))}
		if want[k]--; want[k] < 0 {
			v := Violation{Customer: string(r.Key), Topic: fmt.Sprintf("%s/%d", r.Topic, r.Partition), Offset: r.Offset, Text: "what was published is not what replaying decides"}
			if ch, err := decodeChange(r.Value, false); err == nil {
				v.Sequence = ch.Sequence
			}
			a.bad(v)
		}
		return nil
	})
}

// otherDeadLetters says which refused records have no dead letter, and which
// dead letters nobody decided.
func (a *repeated) otherDeadLetters() error {
	still := a.follower.Point().Seq == a.last.Seq // nothing was published after
	err := a.each(a.ctx, a.Topics.DeadLetters, func(r *kgo.Record) error {
		if header(r, "tierstream-namespace") != a.Namespace || header(r, "tierstream-partition") != strconv.Itoa(int(a.n)) {
			return nil
		}
		d := string(fold.Decision(message(r, protocol.DeadLetters)))
		if a.dead[d]--; a.dead[d] < 0 && still {
			a.violated(Violation{Invariant: "I4", Topic: fmt.Sprintf("%s/%d", r.Topic, r.Partition), Offset: r.Offset,
				Text: fmt.Sprintf("a dead letter of %s/%d@%s (%s) that was not decided, or is there twice", header(r, "tierstream-topic"), a.n, header(r, "tierstream-offset"), header(r, "tierstream-code"))})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for d, n := range a.dead {
		if n <= 0 {
			continue
		}
		var words []string // code, topic, offset
		for b := []byte(d[1:]); len(b) > 0; {
			n, size := binary.Uvarint(b)
			words, b = append(words, string(b[size:size+int(n)])), b[size+int(n):]
		}
		offset, err := strconv.ParseInt(words[2], 10, 64)
		if err != nil {
			return err
		}
		a.violated(Violation{Invariant: "I4", Topic: fmt.Sprintf("%s/%d", words[1], a.n), Offset: offset,
			Text: fmt.Sprintf("it was refused as %s, but has no dead letter in %s", words[0], a.Topics.DeadLetters)})
	}
	return nil
}
