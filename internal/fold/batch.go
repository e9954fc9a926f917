package fold

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/zeebo/xxh3"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/mapping"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/scoring"
)

// Record is one input record, with what decoding made of it.
type Record struct {
	Topic     int // index into the rules' topics
	Partition int32
	Offset    int64
	Message   event.Message

	Event   event.Event
	Refusal *event.Refusal // nil when Event is valid
	// Customer is the event's, from whoever has it at hand; nil: the batch's Set
	// has it.
	Customer *Customer
}

// Customer is a customer as the owner holds it: the record, and what Redis
// holds of it.
type Customer struct {
	ID     string
	Record customer.Record

	stored bool            // Redis has a record
	sum    customer.Digest // digest term of the stored record
	due    int64           // due time in the due set
	dirty  bool            // touched by the batch under way
}

// NewCustomer is a customer of whom nothing is known.
func NewCustomer(id string) *Customer {
	return &Customer{ID: strings.Clone(id), Record: customer.NewRecord(), due: customer.NeverDue}
}

// StoredCustomer is a customer as Redis holds it.
func StoredCustomer(id string, value []byte) (*Customer, error) {
	c := &Customer{ID: strings.Clone(id), stored: true}
	if err := customer.Decode(value, &c.Record); err != nil {
		return nil, fmt.Errorf("customer %s: %w", id, err)
	}
	c.sum = digestTerm(id, value)
	c.due = c.Record.Due
	return c, nil
}

func digestOf(b [16]byte) customer.Digest {
	return customer.Digest{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func digestTerm(id string, value []byte) customer.Digest {
	hi, lo := customer.Sum(id, value)
	return customer.Digest{hi, lo}
}

// Set gives the batch its customers. It must know every customer that the
// batch names: those of valid events, unless their records hold them, and those
// it sweeps.
type Set map[string]*Customer

// Waiting names the original record of a waiting return.
type Waiting struct {
	Customer string
	Hash     uint64
}

// Input is one batch: a sweep part, then a record part.
type Input struct {
	Parent protocol.Point
	State  protocol.State // before
	Flood  protocol.Flood // before

	Clock int64 // the batch's one clock reading
	Wall  int64 // when decisions are made, for people; not part of any decision

	Sweep []string       // customers due below Bound, in (due, customer) order
	Bound protocol.Bound // journalled sweep limit after the batch

	Records []*Record // decoded, in merge order
	Next    []protocol.Position

	Customers Set
	Originals map[Waiting][]byte // of all waiting returns of Customers
}

// Output is what a batch leads to.
type Output struct {
	Entry     *protocol.Entry
	Journal   *protocol.Record
	State     protocol.State
	Flood     protocol.Flood
	Decisions protocol.Hash

	Puts   []Put
	Wait   map[Waiting][]byte
	Unwait []Waiting

	Changes int
	Counts  [event.NumCodes]int64 // of this batch; Waiting is a difference
}

// Put is one customer to be written.
type Put struct {
	Customer *Customer
	Value    []byte
	Due      int64
	DueMoved bool

	sum customer.Digest
}

// MaxSweep is how many customers one batch sweeps at most: the first so many of
// the due set below the batch's bound. Part of the fold version, because a
// re-apply must sweep the same.
const MaxSweep = 2000

// ErrFlood means: so many records of the window are refused that a setting or a
// producer must be wrong. The batch must not be applied, so that a restart
// finds the same again.
var ErrFlood = errors.New("flood of refused records")

// Engine folds the batches of one partition under one set of rules. It is not
// safe for concurrent use.
type Engine struct {
	rules       *Rules
	hash        protocol.Hash
	partitioner event.Partitioner
	anywhere    bool // explicit partitioning: any partition is right
	decoder     *event.Decoder
	mappers     []*mapping.Mapper // by topic, nil of those that are not mapped; nil: none is
	folder      *customer.Folder
	model       *scoring.Model
	tiers       []scoring.Tier
	modelHash   string

	where        Where
	allowRejects bool

	before, after scoring.Summary // of the customer of the record under way
	arena         []byte
	last          struct { // the batch before, for its memory
		dirty    []*Customer
		puts     []Put
		messages int // how many
	}
	decisions *xxh3.Hasher
	small     [40]byte

	// Of changes, see [batch.change].
	text        []byte // of messages; never written again
	headers     []protocol.MessageHeader
	tierText    []string // each tier as it stands in a change
	tierNames   []string // its name, as it stands inside a JSON string
	measureText string
	partText    [8]struct{ before, known string } // what stands before these figures of a part
	rulesText   string                            // the end of every decision
	madeText    []byte                            // the end of every change of the batch
}

// Where is what identifies a partition's outputs.
type Where struct {
	Namespace   string
	Incarnation protocol.Nonce
	LiveSince   int64
	Partition   int32
	Partitions  int32
	Engine      string // build, for dead letters
	Mode        string // of changes; "": live, or backfill before LiveSince
}

// NewEngine folds under rules. allowRejects turns the flood stop off.
func NewEngine(rules *Rules, w Where, allowRejects bool) (*Engine, error) {
	if err := rules.Validate(); err != nil {
		return nil, err
	}
	part, err := event.ParsePartitioner(rules.Partitioner)
	if err != nil {
		return nil, err
	}
	folder, err := customer.NewFolder(rules.Policy, rules.Model.Calendar(), rules.Model.WindowDays())
	if err != nil {
		return nil, err
	}
	mh := rules.Model.Hash()
	e := &Engine{
		rules: rules, hash: rules.Hash(), partitioner: part, anywhere: part.Name() == "explicit",
		decoder: event.NewDecoder(rules.Limits), folder: folder,
		model: rules.Model, tiers: rules.Model.Tiers(), modelHash: fmt.Sprintf("%x", mh[:8]),
		where: w, allowRejects: allowRejects, decisions: xxh3.New(),
	}
	if rules.Mapping != nil {
		for _, t := range rules.Topics {
			e.mappers = append(e.mappers, rules.Mapping.Mapper(t, rules.Limits))
		}
	}
	e.constants()
	return e, nil
}

// Rules are the engine's rules.
func (e *Engine) Rules() *Rules { return e.rules }

// Decode fills in what a record says. It reports whether the record concerns a
// customer of this partition, who must then be in the batch's Set.
func (e *Engine) Decode(r *Record) bool {
	if e.mappers == nil || e.mappers[r.Topic] == nil {
		r.Refusal = e.decoder.Decode(&r.Message, &r.Event)
	} else {
		e.mapped(e.mappers[r.Topic], r)
	}
	if r.Refusal != nil {
		return false
	}
	if !event.KeyMatches(&r.Message, &r.Event) {
		r.Refusal = &event.Refusal{Code: event.Misrouted, Field: "key", Detail: "the record key is not the subject"}
		return false
	}
	if !e.anywhere {
		if p := e.partitioner.Partition(r.Message.Key, e.where.Partitions); p != r.Partition {
			r.Refusal = &event.Refusal{Code: event.Misrouted, Field: "key",
				Detail: "by " + e.partitioner.Name() + " this key belongs to partition " + strconv.Itoa(int(p)) + "; is the partitioner setting right?"}
			return false
		}
	}
	return true
}

// Needs is the ID of the schema by which a record of a topic is to be read and
// which the rules do not have; false when there is none. See mapping.Learn.
func (e *Engine) Needs(topic int, value []byte) (id int, ok bool) {
	if e.mappers == nil {
		return 0, false
	}
	return e.rules.Mapping.Needs(e.rules.Topics[topic], value)
}

// Hash identifies the engine's rules.
func (e *Engine) Hash() protocol.Hash { return e.hash }

// mapped decodes a record of a topic that has a mapping.
func (e *Engine) mapped(x *mapping.Mapper, r *Record) {
	m, refusal := x.Map(r.Partition, r.Offset, &r.Message)
	if refusal == nil {
		if refusal = e.decoder.Decode(m, &r.Event); refusal != nil {
			x.Explain(refusal)
		}
	}
	r.Refusal = refusal
}

// Fold computes what the batch leads to. The customers of in are changed: when
// the output is not applied, they are worthless. The output's Puts are valid
// until the next call.
func (e *Engine) Fold(in *Input) (*Output, error) {
	out := &Output{State: in.State, Flood: in.Flood, Wait: map[Waiting][]byte{}}
	b := batch{Engine: e, in: in, out: out, dirty: e.last.dirty[:0], messages: make([]protocol.Message, 0, e.last.messages)}
	e.arena = e.arena[:0]
	e.decisions.Reset()
	e.madeBy(in.Wall)

	for _, id := range in.Sweep {
		c := in.Customers[id]
		if c == nil {
			return nil, fmt.Errorf("sweeping customer %s: not loaded", id)
		}
		// Up to its own due time only: a later due time of the same customer
		// has its own place in the order.
		if err := b.expire(c, c.Record.Due); err != nil {
			return nil, err
		}
	}
	for _, r := range in.Records {
		if err := b.record(r); err != nil {
			return nil, fmt.Errorf("folding %s/%d@%d: %w", e.rules.Topics[r.Topic], r.Partition, r.Offset, err)
		}
	}

	s := &out.State
	s.Clock, s.Rules, s.Fold, s.Sweep = in.Clock, e.hash, Version, in.Bound
	if in.Next != nil {
		s.Next = in.Next
	}
	s.Read += int64(len(in.Records))
	s.Counters = slices.Clone(in.State.Counters)
	if n := e.rules.Codes(); len(s.Counters) < n {
		s.Counters = append(s.Counters, make([]int64, n-len(s.Counters))...)
	}
	for i, n := range out.Counts[:min(len(s.Counters), event.NumCodes)] {
		s.Counters[i] += n
	}
	if err := e.flood(in, out); err != nil {
		return nil, err
	}

	b.puts(in.Parent.Seq + 1)
	out.Decisions = e.decisionsHash()
	j := &protocol.Record{Kind: protocol.KindBatch, Seq: in.Parent.Seq + 1, Decisions: out.Decisions, State: *s}
	j.Chain = protocol.NextChain(in.Parent.Chain, j, out.Decisions)
	out.Journal = j
	e.last.dirty, e.last.puts, e.last.messages = b.dirty, out.Puts, len(b.messages)
	out.Entry = &protocol.Entry{Seq: j.Seq, Parent: in.Parent.Chain, Chain: j.Chain, Messages: b.messages}
	return out, nil
}

// decide adds numbers to the hash of the batch's decisions.
func (e *Engine) decide(kind byte, ns ...uint64) {
	b := append(e.small[:0], kind)
	for _, n := range ns {
		b = binary.AppendUvarint(b, n)
	}
	_, _ = e.decisions.Write(b) // a hash takes everything
}

// decisionsHash is XXH3-128, as the digest: it guards against accidents, not
// against forgers (who could rewrite the journal itself), and hashing the
// decisions' text with SHA-256 took a quarter of the fold.
func (e *Engine) decisionsHash() (h protocol.Hash) {
	sum := e.decisions.Sum128().Bytes()
	copy(h[:], sum[:])
	return h
}

// Applied tells the customers that Redis holds them now as the output says.
func (o *Output) Applied() {
	for i := range o.Puts {
		p := &o.Puts[i]
		p.Customer.stored, p.Customer.due, p.Customer.sum = true, p.Due, p.sum
	}
}

type batch struct {
	*Engine
	in       *Input
	out      *Output
	dirty    []*Customer
	messages []protocol.Message
}

func (b *batch) touch(c *Customer) {
	if !c.dirty {
		c.dirty = true
		b.dirty = append(b.dirty, c)
	}
}

// record folds one record.
func (b *batch) record(r *Record) error {
	if r.Refusal != nil {
		if r.Refusal.Code.Outcome() == event.Ignored {
			b.out.Counts[r.Refusal.Code]++
			return nil
		}
		b.deadLetter(r.Refusal.Code, r.Refusal.Field, r.Refusal.Detail, origin(r), &r.Message)
		return nil
	}
	ev := &r.Event
	c := r.Customer
	if c == nil {
		if c = b.in.Customers[ev.Customer]; c == nil {
			return fmt.Errorf("customer %s: not loaded", ev.Customer)
		}
	}
	// Every evaluation of this customer due before the event is made first.
	if c.Record.Due <= ev.Time {
		if err := b.expire(c, ev.Time); err != nil {
			return err
		}
	}
	st := &c.Record.Standing
	at := max(st.Clock, ev.Time)
	// What the score was, should the tier move: at the same instant, without
	// the event. To summarize costs less than to copy the record.
	b.folder.Summarize(&c.Record, at, &b.before)
	res := b.folder.Apply(&c.Record, ev)
	if res.Late {
		b.out.Counts[event.Late]++
	}
	if res.Unusual {
		b.out.Counts[event.UnusualTransition]++
	}
	switch res.Code.Outcome() {
	case event.DeadLetter:
		b.deadLetter(res.Code, res.Field, "", origin(r), &r.Message)
		return nil
	case event.Ignored:
		b.out.Counts[res.Code]++
		return nil
	case event.Dropped:
		b.out.Counts[res.Code]++
		if res.Code == event.BusinessDuplicate {
			b.touch(c) // its event ID is remembered
		}
		return nil
	case event.Held:
		b.out.Counts[event.Waiting]++
		b.wait(Waiting{c.ID, res.WaitingHash}, encodeOriginal(origin(r), &r.Message))
		b.touch(c)
		return nil
	}
	b.out.Counts[event.Applied]++
	b.touch(c)
	b.out.State.Watermark = max(b.out.State.Watermark, ev.Time)
	for _, w := range res.Resolved {
		b.out.Counts[event.Waiting]--
		if w.Code.Outcome() == event.DeadLetter {
			if err := b.refuseWaiting(c, w.Hash, w.Code, w.Field); err != nil {
				return err
			}
			continue
		}
		b.out.Counts[w.Code]++
		b.forget(Waiting{c.ID, w.Hash})
	}

	b.folder.Summarize(&c.Record, at, &b.after)
	st.Clock = at
	if b.model.Keeps(int(st.Tier), &b.after) {
		return nil // certain without the exact score
	}
	m := b.model.Measure(&b.after)
	tier := b.model.Decide(int(st.Tier), &b.after, m.Score)
	if tier == int(st.Tier) {
		return nil
	}
	b.change(c, r, at, tier, &m)
	return nil
}

// expire refuses the waiting returns of c whose deadline is before the given
// time.
func (b *batch) expire(c *Customer, before int64) error {
	for _, h := range b.folder.Expire(&c.Record, before) {
		b.out.Counts[event.Waiting]--
		if err := b.refuseWaiting(c, h, event.OrphanReturn, "order_id"); err != nil {
			return err
		}
		b.touch(c)
	}
	return nil
}

// refuseWaiting makes a dead letter of a return that had waited.
func (b *batch) refuseWaiting(c *Customer, hash uint64, code event.Code, field string) error {
	k := Waiting{c.ID, hash}
	raw := b.out.Wait[k]
	if raw == nil {
		raw = b.in.Originals[k]
	}
	if raw == nil {
		return fmt.Errorf("customer %s: the original of waiting return %016x is missing", c.ID, hash)
	}
	o, m, err := decodeOriginal(raw)
	if err != nil {
		return fmt.Errorf("customer %s: the original of waiting return %016x: %w", c.ID, hash, err)
	}
	b.deadLetter(code, field, "", o, m)
	b.forget(k)
	return nil
}

// wait keeps the original of a return that waits. It may be one that waited
// before and expired in this same batch.
func (b *batch) wait(k Waiting, original []byte) {
	b.out.Unwait = slices.DeleteFunc(b.out.Unwait, func(w Waiting) bool { return w == k })
	b.out.Wait[k] = original
}

// forget drops the original of a return that waits no longer.
func (b *batch) forget(k Waiting) {
	if _, ok := b.out.Wait[k]; ok {
		delete(b.out.Wait, k)
		return
	}
	b.out.Unwait = append(b.out.Unwait, k)
}

// deadLetter counts a refusal and sends the original away with its code. The
// code and the origin are part of the decisions; the detail is for people.
func (b *batch) deadLetter(code event.Code, field, detail string, o Origin, m *event.Message) {
	b.out.Counts[code]++
	b.decide('x', uint64(code), uint64(o.Topic), uint64(o.Offset))
	if detail == "" {
		detail = hints[code]
	}
	headers := make([]protocol.MessageHeader, 0, len(m.Headers)+9)
	for _, h := range m.Headers {
		headers = append(headers, protocol.MessageHeader{Key: h.Key, Value: h.Value})
	}
	add := func(k, v string) { headers = append(headers, protocol.MessageHeader{Key: k, Value: []byte(v)}) }
	add("tierstream-code", code.String())
	add("tierstream-field", field)
	add("tierstream-detail", detail)
	add("tierstream-topic", b.rules.Topics[o.Topic])
	add("tierstream-partition", strconv.Itoa(int(b.where.Partition)))
	add("tierstream-offset", strconv.FormatInt(o.Offset, 10))
	add("tierstream-timestamp", strconv.FormatInt(m.Timestamp, 10))
	add("tierstream-namespace", b.where.Namespace)
	add("tierstream-engine", b.where.Engine)
	b.messages = append(b.messages, protocol.Message{Stream: protocol.DeadLetters, Key: m.Key, Value: m.Value, Headers: headers})
}

// hints say what to do about codes that are decided here rather than by the
// decoder.
var hints = map[event.Code]string{
	event.TooLate:          "older than what is kept of this customer; load history in time order, or raise the retention",
	event.IDConflict:       "this (source, id) was used before with other content; event IDs must be unique",
	event.BusinessConflict: "this order, return, complaint or referral ID was used before with other content",
	event.NoRate:           "send base_amount_minor or fx_rate, or set a rate for this currency",
	event.CurrencyChanged:  "a return must have its order's currency",
	event.OrphanReturn:     "no purchase with this order_id came within the grace",
	event.OverReturn:       "the returns of this order add up to more than its amount",
	event.BadAmount:        "a sum would overflow",
}

// puts encodes the changed customers and moves the digest.
func (b *batch) puts(seq uint64) {
	digest := digestOf(b.out.State.Digest)
	b.out.Puts = slices.Grow(b.last.puts[:0], len(b.dirty))[:len(b.dirty)]
	marks := make([]int, 0, len(b.dirty)+1)
	for _, c := range b.dirty {
		c.dirty = false
		c.Record.Seq = seq
		marks = append(marks, len(b.arena))
		b.arena = c.Record.Append(b.arena)
	}
	marks = append(marks, len(b.arena))
	for i, c := range b.dirty {
		v := b.arena[marks[i]:marks[i+1]]
		sum := digestTerm(c.ID, v)
		if c.stored {
			digest = digest.Sub(c.sum)
		}
		digest = digest.Add(sum)
		b.out.Puts[i] = Put{
			Customer: c, Value: v, Due: c.Record.Due,
			DueMoved: !c.stored || c.due != c.Record.Due, sum: sum,
		}
	}
	b.out.State.Digest = digest.Bytes()
}

// Flood window: judged after 1,000 records, tumbling every 10,000.
const (
	floodWindow    = 10_000
	floodMin       = 1_000
	floodShare     = 0.20 // of a window, by one code
	misroutedFirst = 0.05 // of the first records of a partition
)

// flood stops a partition whose records are refused in such numbers that a
// setting or a producer must be wrong.
func (e *Engine) flood(in *Input, out *Output) error {
	if n := len(out.State.Counters); len(out.Flood.Counters) < n {
		out.Flood.Counters = append(slices.Clone(out.Flood.Counters), make([]int64, n-len(out.Flood.Counters))...)
	}
	read := out.State.Read - out.Flood.Read
	if read >= floodMin && !e.allowRejects {
		for i := range min(len(out.State.Counters), event.NumCodes) {
			code := event.Code(i)
			if code.Outcome() != event.DeadLetter {
				continue
			}
			n := out.State.Counters[i] - out.Flood.Counters[i]
			share := float64(n) / float64(read)
			first := code == event.Misrouted && out.Flood.Read == 0 && share > misroutedFirst
			if share <= floodShare && !first {
				continue
			}
			what := "the producer or its version looks wrong"
			switch code {
			case event.Misrouted:
				what = "the partitioner setting (" + e.partitioner.Name() + ") or a producer's key looks wrong"
			case event.NoRate, event.BadCurrency:
				what = "the base currency or the rates setting looks wrong"
			case event.UnknownType:
				if e.mappers != nil {
					what = "the mapping or the schema registry looks wrong"
				}
			case event.FutureTime, event.BadTime, event.TooLate:
				what = "a producer's clock, the max-skew or the retention setting looks wrong"
			}
			return fmt.Errorf("%w: %d of the last %d records are %s: %s (--allow-rejects goes on)", ErrFlood, n, read, code, what)
		}
	}
	if read >= floodWindow {
		out.Flood = protocol.Flood{Read: out.State.Read, Counters: out.State.Counters}
	}
	return nil
}

// Origin says where a record came from.
type Origin struct {
	Topic  int
	Offset int64
}

func origin(r *Record) Origin { return Origin{r.Topic, r.Offset} }

// encodeOriginal keeps a waiting return's record: origin, timestamp, key,
// value and headers, each length-prefixed.
func encodeOriginal(o Origin, m *event.Message) []byte {
	b := []byte{1}
	b = binary.AppendUvarint(b, uint64(o.Topic))
	b = binary.AppendUvarint(b, uint64(o.Offset))
	b = binary.AppendVarint(b, m.Timestamp)
	put := func(v []byte) {
		b = binary.AppendUvarint(b, uint64(len(v)))
		b = append(b, v...)
	}
	put(m.Key)
	put(m.Value)
	b = binary.AppendUvarint(b, uint64(len(m.Headers)))
	for _, h := range m.Headers {
		put([]byte(h.Key))
		put(h.Value)
	}
	return b
}

func decodeOriginal(b []byte) (o Origin, m *event.Message, err error) {
	bad := errors.New("malformed")
	if len(b) == 0 || b[0] != 1 {
		return o, nil, bad
	}
	rd := bytes.NewReader(b[1:])
	num := func() uint64 {
		v, e := binary.ReadUvarint(rd)
		if e != nil || v > math.MaxInt64 {
			err = bad
		}
		return v
	}
	text := func() []byte {
		n := num()
		if err != nil || n > uint64(rd.Len()) {
			err = bad
			return nil
		}
		v := make([]byte, n)
		_, _ = rd.Read(v) // n bytes are there
		return v
	}
	m = &event.Message{}
	o.Topic, o.Offset = int(num()), int64(num())
	if m.Timestamp, err = binary.ReadVarint(rd); err != nil {
		return o, nil, bad
	}
	m.Key, m.Value = text(), text()
	n := num()
	for i := uint64(0); i < n && err == nil; i++ {
		k := text()
		m.Headers = append(m.Headers, event.Header{Key: string(k), Value: text()})
	}
	if err != nil || rd.Len() != 0 {
		return o, nil, bad
	}
	return o, m, nil
}
