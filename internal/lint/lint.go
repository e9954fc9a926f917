// Package lint says what a consumer would make of records, without Kafka and
// without Redis: the same decoder, the same fold, customers in memory. Nothing
// is written anywhere.
//
// It begins with no customers, and it reads one record after the other. Returns
// that wait are refused by a later event of the same customer, or at the end
// by the clock; a running consumer also refuses them in between, when its clock
// has gone past their grace. Memory grows with the number of customers.
package lint

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/mapping"
	"github.com/tierstream/tierstream/internal/protocol"
)

// Verdict is what becomes of one record.
type Verdict struct {
	Topic  int // as it was given to Add
	Offset int64
	Code   event.Code
	Field  string // of a refusal, as is Detail
	Detail string
	// Warnings are counted besides: late, unusual_transition.
	Warnings []event.Code
}

// Linter judges the records of one partition, in their order. It is not safe
// for concurrent use.
type Linter struct {
	rules  *fold.Rules
	where  fold.Where
	engine *fold.Engine

	point     protocol.Point
	state     protocol.State
	flood     protocol.Flood
	customers fold.Set
	originals map[fold.Waiting][]byte
	waiting   map[fold.Waiting]Verdict // where each of them is
}

// New judges by rules. Where partition is negative, it is not known which
// partition a record is in: only its key is held to its subject.
func New(rules *fold.Rules, partition, partitions int32) (*Linter, error) {
	r := *rules
	if partition < 0 {
		r.Partitioner, partition, partitions = "explicit", 0, 1
	}
	w := fold.Where{Namespace: "lint", Partition: partition, Partitions: partitions, Engine: "lint"}
	e, err := fold.NewEngine(&r, w, true)
	if err != nil {
		return nil, err
	}
	return &Linter{
		rules: &r, where: w, engine: e, customers: fold.Set{}, originals: map[fold.Waiting][]byte{}, waiting: map[fold.Waiting]Verdict{},
		state: protocol.State{Next: make([]protocol.Position, len(r.Topics)), Counters: make([]int64, r.Codes())},
	}, nil
}

// Needs is the ID of the schema by which a record is to be read and which the
// rules do not have; false when there is none.
func (l *Linter) Needs(topic int, value []byte) (id int, ok bool) {
	return l.engine.Needs(topic, value)
}

// Learn goes on by rules that have more schemas.
func (l *Linter) Learn(m *mapping.Mapping) (err error) {
	l.rules = l.rules.WithMapping(m)
	l.engine, err = fold.NewEngine(l.rules, l.where, true)
	return err
}

// Mapping is that of the rules; nil when there is none.
func (l *Linter) Mapping() *mapping.Mapping { return l.rules.Mapping }

// Add judges the next record. Topic is an index into the rules' topics. settled
// are the earlier returns whose wait it ends, refused or applied.
func (l *Linter) Add(topic int, partition int32, offset int64, m event.Message) (v Verdict, settled []Verdict, err error) {
	r := &fold.Record{Topic: topic, Partition: partition, Offset: offset, Message: m}
	if l.engine.Decode(r) && l.customers[r.Event.Customer] == nil {
		l.customers[r.Event.Customer] = fold.NewCustomer(r.Event.Customer)
	}
	out, refused, err := l.fold(&fold.Input{Records: []*fold.Record{r}})
	if err != nil {
		return v, nil, err
	}
	v = Verdict{Topic: topic, Offset: offset, Code: event.Applied}
	for c, n := range out.Counts {
		code := event.Code(c)
		switch code.Outcome() {
		case event.Dropped, event.Ignored:
			if n > 0 {
				v.Code = code
			}
		case event.Warned:
			for range n {
				v.Warnings = append(v.Warnings, code)
			}
		}
	}
	for k := range out.Wait {
		v.Code = event.Waiting
		l.waiting[k] = v
	}
	for _, f := range refused {
		if f.Topic == topic && f.Offset == offset {
			f.Warnings = v.Warnings
			v = f
		} else {
			settled = append(settled, f)
		}
	}
	return v, append(settled, l.released(out, refused)...), nil
}

// released are the returns that wait no longer and are not refused.
func (l *Linter) released(out *fold.Output, refused []Verdict) (applied []Verdict) {
	for _, k := range out.Unwait {
		v := l.waiting[k]
		delete(l.waiting, k)
		if !slices.ContainsFunc(refused, func(f Verdict) bool { return f.Topic == v.Topic && f.Offset == v.Offset }) {
			applied = append(applied, Verdict{Topic: v.Topic, Offset: v.Offset, Code: event.Applied})
		}
	}
	return applied
}

// Finish refuses the returns whose grace has passed at clock, Unix
// milliseconds.
func (l *Linter) Finish(clock int64) (settled []Verdict, err error) {
	type due struct {
		at int64
		id string
	}
	for {
		var ds []due
		for id, c := range l.customers {
			if c.Record.Due <= clock {
				ds = append(ds, due{c.Record.Due, id})
			}
		}
		if len(ds) == 0 {
			return settled, nil
		}
		slices.SortFunc(ds, func(a, b due) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.id, b.id)) })
		in := &fold.Input{}
		for _, d := range ds {
			in.Sweep = append(in.Sweep, d.id)
		}
		out, refused, err := l.fold(in)
		if err != nil {
			return settled, err
		}
		settled = append(append(settled, refused...), l.released(out, refused)...)
	}
}

// Counts is what was counted so far, by code; Waiting is how many wait now.
func (l *Linter) Counts() (n [event.NumCodes]int64) {
	copy(n[:], l.state.Counters)
	return n
}

// Newest is the newest time of an accepted event, Unix milliseconds; 0 before
// the first.
func (l *Linter) Newest() int64 { return l.state.Watermark }

// Customers is how many customers are known.
func (l *Linter) Customers() int { return len(l.customers) }

// fold applies a batch to the customers in memory, and reads the refusals.
func (l *Linter) fold(in *fold.Input) (*fold.Output, []Verdict, error) {
	in.Parent, in.State, in.Flood = l.point, l.state, l.flood
	in.Customers, in.Originals = l.customers, l.originals
	out, err := l.engine.Fold(in)
	if err != nil {
		return nil, nil, err
	}
	l.point, l.state, l.flood = out.Entry.Point(), out.State, out.Flood
	out.Applied()
	for k, v := range out.Wait {
		l.originals[k] = bytes.Clone(v)
	}
	for _, k := range out.Unwait {
		delete(l.originals, k)
	}
	var refused []Verdict
	for i := range out.Entry.Messages {
		if m := &out.Entry.Messages[i]; m.Stream == protocol.DeadLetters {
			v, err := l.refusal(m)
			if err != nil {
				return nil, nil, err
			}
			refused = append(refused, v)
		}
	}
	return out, refused, nil
}

// refusal reads what the fold wrote into a dead letter.
func (l *Linter) refusal(m *protocol.Message) (v Verdict, err error) {
	for i := len(m.Headers) - 1; i >= 0; i-- {
		value := string(m.Headers[i].Value)
		switch m.Headers[i].Key {
		case "tierstream-offset":
			v.Offset, err = strconv.ParseInt(value, 10, 64)
		case "tierstream-topic":
			v.Topic = slices.Index(l.rules.Topics, value)
		case "tierstream-detail":
			v.Detail = value
		case "tierstream-field":
			v.Field = value
		case "tierstream-code": // the first of those that the fold adds
			for c := range event.NumCodes {
				if event.Code(c).String() == value {
					v.Code = event.Code(c)
					return v, err
				}
			}
			return v, fmt.Errorf("the fold refuses with the unknown code %q", value)
		}
		if err != nil {
			return v, fmt.Errorf("reading a refusal: %w", err)
		}
	}
	return v, fmt.Errorf("a refusal has no code")
}
