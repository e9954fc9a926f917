package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/contract"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/sim"
	"github.com/tierstream/tierstream/internal/view"
)

type sendCmd struct {
	Purchase  purchaseCmd  `cmd:"" help:"A purchase."`
	Return    returnCmd    `cmd:"" help:"A return."`
	Complaint complaintCmd `cmd:"" help:"A complaint."`
	Referral  referralCmd  `cmd:"" help:"A referral."`
	Feedback  feedbackCmd  `cmd:"" help:"An answer to a survey."`
	Cost      costCmd      `cmd:"" help:"A cost."`
}

// envelope is the flags that every event has.
type envelope struct {
	Customer  string        `required:"" help:"Customer ID." placeholder:"ID"`
	Time      string        `help:"Event time, RFC 3339. Default: now." placeholder:"TIME"`
	ID        string        `help:"Event ID. Default: a new one; give one again to see a duplicate." placeholder:"ID"`
	Test      bool          `help:"Mark it as a test, which the default rules ignore."`
	Partition int32         `help:"Partition to send to. Needed only for a new customer where the partitioner is explicit." default:"-1" placeholder:"N"`
	Timeout   time.Duration `help:"How long to wait until the event is applied and published." default:"10s"`
}

type purchaseCmd struct {
	envelope
	Amount   string `required:"" help:"Paid for goods, after discounts, without tax and shipping: 49.90." placeholder:"MONEY"`
	Currency string `help:"ISO 4217. Default: the model's." placeholder:"CUR"`
	Order    string `help:"Order ID. Default: a new one." placeholder:"ID"`
	Cost     string `help:"What the goods cost; the margin follows." placeholder:"MONEY"`
	Margin   string `help:"Margin of the order. Without it and --cost the model's rate is assumed." placeholder:"MONEY"`
	Rate     string `name:"fx-rate" help:"Units of the model's currency per unit of --currency." placeholder:"RATE"`
	Category string `help:"Category of the goods; a new one counts as cross-selling."`
	Channel  string `help:"Sales channel."`
	Unpaid   bool   `help:"The payment is pending; unpaid purchases are ignored."`
}

func (c *purchaseCmd) Help() string {
	return `Sends one purchase and shows what it changes. The customer need not exist.

  tierctl send purchase --customer me --amount 49.90
  tierctl send purchase --customer me --amount 120 --category shoes --cost 70`
}

func (c *purchaseCmd) Run(ctx context.Context, conn *connection, t *terminal) error {
	return c.send(ctx, conn, t, sim.Purchases, func(e *event.Event, base string) error {
		e.Type, e.BusinessID = event.Purchase, orNew("ord", c.Order)
		e.Category, e.Channel, e.Unpaid, e.FXRate = c.Category, c.Channel, c.Unpaid, c.Rate
		if err := amount(e, c.Amount, c.Currency, base); err != nil {
			return err
		}
		var err error
		if c.Cost != "" {
			if e.Cost, err = event.ParseMoney(c.Cost, e.Currency); err != nil {
				return fmt.Errorf("--cost: %w", err)
			}
			e.HasCost = true
		}
		if c.Margin != "" {
			if e.Margin, err = event.ParseMoney(c.Margin, e.Currency); err != nil {
				return fmt.Errorf("--margin: %w", err)
			}
			e.HasMargin = true
		}
		return nil
	})
}

type returnCmd struct {
	envelope
	Order    string `required:"" help:"Order of which something comes back." placeholder:"ID"`
	Amount   string `required:"" help:"Money given back." placeholder:"MONEY"`
	Currency string `help:"ISO 4217, the order's. Default: the model's." placeholder:"CUR"`
	Return   string `name:"return" help:"Return ID. Default: a new one." placeholder:"ID"`
	Kind     string `help:"goods, cancelled, store_credit or chargeback." default:"goods" enum:"goods,cancelled,store_credit,chargeback"`
	Reason   string `help:"Why, in free words."`
}

func (c *returnCmd) Help() string {
	return `Sends one return. One that comes before its order waits for it; then it is refused.

  tierctl send return --customer me --order ord-7 --amount 49.90`
}

func (c *returnCmd) Run(ctx context.Context, conn *connection, t *terminal) error {
	return c.send(ctx, conn, t, sim.Purchases, func(e *event.Event, base string) error {
		e.Type, e.BusinessID, e.OrderID, e.Reason = event.Return, orNew("ret", c.Return), c.Order, c.Reason
		e.Kind, _ = event.ParseKind(event.Return, c.Kind) // one of the enum
		return amount(e, c.Amount, c.Currency, base)
	})
}

type complaintCmd struct {
	envelope
	Complaint    string `name:"complaint" help:"Complaint ID. Default: a new one; give it again to resolve or reject." placeholder:"ID"`
	Severity     uint8  `help:"1 to 5, worst is 5." default:"3"`
	Status       string `help:"opened, resolved, reopened or rejected." default:"opened" enum:"opened,resolved,reopened,rejected"`
	Order        string `help:"Order it is about." placeholder:"ID"`
	Compensation string `help:"Money paid to make up for it." placeholder:"MONEY"`
	Currency     string `help:"ISO 4217 of the compensation. Default: the model's." placeholder:"CUR"`
}

func (c *complaintCmd) Help() string {
	return `Sends one complaint, or a new status of one.

  tierctl send complaint --customer me --complaint case-1 --severity 4
  tierctl send complaint --customer me --complaint case-1 --severity 4 --status resolved`
}

func (c *complaintCmd) Run(ctx context.Context, conn *connection, t *terminal) error {
	return c.send(ctx, conn, t, sim.Complaints, func(e *event.Event, base string) error {
		e.Type, e.BusinessID, e.Severity, e.OrderID = event.Complaint, orNew("case", c.Complaint), c.Severity, c.Order
		e.Status, _ = event.ParseStatus(event.Complaint, c.Status) // one of the enum
		if c.Compensation == "" {
			return nil
		}
		return amount(e, c.Compensation, c.Currency, base)
	})
}

type referralCmd struct {
	envelope
	Referee  string `required:"" help:"Customer who was referred." placeholder:"ID"`
	Referral string `name:"referral" help:"Referral ID. Default: a new one." placeholder:"ID"`
	Status   string `help:"invited, converted or reversed; only converted counts." default:"converted" enum:"invited,converted,reversed"`
	Value    string `help:"What the referral is worth. Default: the model's acquisition cost." placeholder:"MONEY"`
	Currency string `help:"ISO 4217 of the value. Default: the model's." placeholder:"CUR"`
}

func (c *referralCmd) Help() string {
	return `Sends one referral.

  tierctl send referral --customer me --referee friend --value 20`
}

func (c *referralCmd) Run(ctx context.Context, conn *connection, t *terminal) error {
	return c.send(ctx, conn, t, sim.Referrals, func(e *event.Event, base string) error {
		e.Type, e.BusinessID, e.RefereeID = event.Referral, orNew("ref", c.Referral), c.Referee
		e.Status, _ = event.ParseStatus(event.Referral, c.Status) // one of the enum
		if c.Value == "" {
			return nil
		}
		return amount(e, c.Value, c.Currency, base)
	})
}

type feedbackCmd struct {
	envelope
	Kind  string `required:"" help:"nps, csat, ces, praise or suggestion." enum:"nps,csat,ces,praise,suggestion"`
	Score int32  `help:"Answer: nps 0 to 10, csat 1 to 5, ces 1 to 7. Praise and suggestions have none."`
	Scale int32  `name:"scale-max" help:"Highest possible score, if it is another one." placeholder:"N"`
}

func (c *feedbackCmd) Help() string {
	return `Sends one answer to a survey; the last one of each kind counts.

  tierctl send feedback --customer me --kind nps --score 9`
}

func (c *feedbackCmd) Run(ctx context.Context, conn *connection, t *terminal) error {
	return c.send(ctx, conn, t, sim.Complaints, func(e *event.Event, _ string) error {
		e.Type, e.BusinessID, e.Score, e.ScaleMax = event.Feedback, orNew("answer", ""), c.Score, c.Scale
		e.Kind, _ = event.ParseKind(event.Feedback, c.Kind) // one of the enum
		return nil
	})
}

type costCmd struct {
	envelope
	Kind     string `required:"" help:"acquisition, service, marketing or sales." enum:"acquisition,service,marketing,sales"`
	Amount   string `required:"" help:"What was spent on this customer." placeholder:"MONEY"`
	Currency string `help:"ISO 4217. Default: the model's." placeholder:"CUR"`
}

func (c *costCmd) Help() string {
	return `Sends one cost.

  tierctl send cost --customer me --kind acquisition --amount 12.50`
}

func (c *costCmd) Run(ctx context.Context, conn *connection, t *terminal) error {
	return c.send(ctx, conn, t, sim.Referrals, func(e *event.Event, base string) error {
		e.Type, e.BusinessID = event.Cost, orNew("cost", "")
		e.Kind, _ = event.ParseKind(event.Cost, c.Kind) // one of the enum
		return amount(e, c.Amount, c.Currency, base)
	})
}

// amount reads money in its currency or the base currency.
func amount(e *event.Event, s, currency, base string) (err error) {
	if currency == "" {
		currency = base
	}
	e.Currency, e.HasAmount = strings.ToUpper(currency), true
	e.Amount, err = event.ParseMoney(s, e.Currency)
	return err
}

// orNew is id, or a new one.
func orNew(prefix, id string) string {
	if id != "" {
		return id
	}
	return prefix + "-" + strings.ToLower(rand.Text()[:16])
}

// send sends the event that fill completes, and tells what became of it.
func (c *envelope) send(ctx context.Context, conn *connection, t *terminal, class sim.Topic, fill func(e *event.Event, base string) error) error {
	s, err := conn.open(ctx, t, needRedis|needKafka)
	if err != nil {
		return err
	}
	defer s.close()
	n, err := s.partitions(ctx)
	if err != nil {
		return err
	}
	rules, err := s.rulesInForce(nil)
	if err != nil {
		return err
	}
	d := &delivery{site: s, class: class}
	if d.partition, err = s.findPartition(ctx, c.Customer, rules, n); err != nil {
		return err
	}
	if c.Partition >= 0 {
		d.partition = c.Partition
	}
	if d.partition == event.AnyPartition {
		return cli.Usage(fmt.Errorf("customer %s is new, and the partitioner is explicit: give the partition that your producers would choose with --partition", c.Customer))
	}

	e := event.Event{ID: orNew("evt", c.ID), Source: "/tierctl", Customer: c.Customer, Time: time.Now().UnixMilli(), Test: c.Test}
	if c.Time != "" {
		at, err := parseInstant("time", c.Time)
		if err != nil {
			return err
		}
		e.Time = at.UnixMilli()
	}
	if err := fill(&e, rules.Model.Currency()); err != nil {
		return cli.Usage(err)
	}
	if err := d.checkClock(ctx, rules, n, e.Time); err != nil {
		return err
	}
	return d.run(ctx, &e, c.Timeout)
}

// delivery is one event on its way through the system.
type delivery struct {
	*site
	class     sim.Topic
	partition int32
	input     int // index of its topic
	sentTo    string
	offset    int64

	before      []byte // the customer's record before; nil: unknown
	beforeFence *protocol.Fence
	changesAt   span // of the partitions in which its outputs would be
	lettersAt   span

	reached atomic.Int64 // next offset that is applied and published, as far as seen
	batch   *protocol.Record
	counts  [event.NumCodes]int64 // what the batch counted
	read    int64                 // records of the batch
}

// maxBehind is by how much an event may run ahead of a clock that is driven by
// events.
const maxBehind = 24 * time.Hour

// checkClock refuses an event that would push the clock of a namespace far
// ahead that is still reading history.
func (d *delivery) checkClock(ctx context.Context, r *fold.Rules, partitions int32, at int64) error {
	if r.Clock != fold.ClockEvents {
		return nil
	}
	newest := int64(0)
	for p := range partitions {
		f, err := d.store(p).Fence(ctx)
		if err != nil {
			return err
		}
		if f != nil {
			newest = max(newest, f.State.Clock, f.State.Watermark)
		}
	}
	if newest == 0 || at-newest <= maxBehind.Milliseconds() {
		return nil
	}
	return fmt.Errorf("namespace %s runs on the clock of its events, which stands at %s: an event of %s would age every customer at once; wait until its history is read, or give a --time near that",
		d.Namespace, time.UnixMilli(newest).UTC().Format(time.RFC3339), time.UnixMilli(at).UTC().Format(time.RFC3339))
}

func (d *delivery) run(ctx context.Context, e *event.Event, timeout time.Duration) error {
	store := d.store(d.partition)
	var err error
	if d.before, d.beforeFence, err = store.Read(ctx, e.Customer); err != nil {
		return err
	}
	if d.beforeFence == nil {
		return fmt.Errorf("partition %d of namespace %s has not been started: is a consumer running?", d.partition, d.Namespace)
	}
	if _, _, is := d.beforeFence.Rebuilding(); is {
		return fmt.Errorf("partition %d: %w; try again when it is done", d.partition, view.ErrRebuilding)
	}
	viewer, rules, err := d.viewer(d.beforeFence)
	if err != nil {
		return err
	}
	d.input = min(int(d.class), len(rules.Topics)-1)
	key := []byte(e.Customer)
	changes, letters, err := d.outputs(ctx, key)
	if err != nil {
		return err
	}

	if err := d.produce(ctx, e, rules.Topics[d.input], key); err != nil {
		return err
	}
	t := d.term
	fmt.Fprintf(t.out, "sent     %s %s of %s to %s/%d@%d\n", e.Type, e.BusinessID, e.Customer, d.sentTo, d.partition, d.offset)
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := d.wait(waiting); err != nil {
		return d.late(ctx, err, timeout)
	}
	letter, err := d.deadLetter(waiting, letters)
	if err != nil {
		return d.late(ctx, err, timeout)
	}
	if letter != nil {
		fmt.Fprintf(t.out, "refused  %s\n         it is in topic %s/%d@%d\n", letter, d.topic.DeadLetters, letters, letter.offset)
		return fmt.Errorf("the event was refused: %s", letter.code)
	}
	fmt.Fprintf(t.out, "outcome  %s\n", d.outcome())

	after, fence, err := store.Read(ctx, e.Customer)
	if err != nil {
		return err
	}
	if fence == nil || fence.Loading || fence.Seq < d.batch.Seq {
		return fmt.Errorf("partition %d: %w: Redis went back in time", d.partition, view.ErrRebuilding)
	}
	if after == nil {
		return nil // the customer is still unknown: an ignored event of nobody
	}
	// Both are evaluated at one instant, so that what differs is the event's doing.
	now, err := viewer.View(e.Customer, d.partition, after, fence, time.Time{})
	if err != nil {
		return err
	}
	now.PublishedUpTo(d.batch.Seq)
	var then *view.View
	if d.before != nil {
		if then, err = viewer.View(e.Customer, d.partition, d.before, d.beforeFence, now.Now.At); err != nil {
			return err
		}
	}
	if err := compare(t, then, now); err != nil {
		return err
	}
	had := uint64(0)
	if then != nil {
		had = then.Sequence
	}
	return d.printChanges(waiting, changes, e.Customer, had)
}

// outputs finds the partitions of tier changes and dead letters in which a
// key's outputs lie, and where they end now. The consumer chooses them by
// murmur2 whatever the inputs' partitioner is.
func (d *delivery) outputs(ctx context.Context, key []byte) (changes, letters int32, err error) {
	murmur2, err := event.ParsePartitioner("murmur2")
	if err != nil {
		return 0, 0, err
	}
	find := func(topic string, at *span) (int32, error) {
		n, err := d.partitionsOf(ctx, topic)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			return 0, fmt.Errorf("Kafka has no topic %s", topic)
		}
		p := murmur2.Partition(key, n)
		*at, err = d.span(ctx, topic, p)
		return p, err
	}
	if changes, err = find(d.topic.Changes, &d.changesAt); err != nil {
		return 0, 0, err
	}
	letters, err = find(d.topic.DeadLetters, &d.lettersAt)
	return changes, letters, err
}

func (d *delivery) produce(ctx context.Context, e *event.Event, topic string, key []byte) error {
	value, headers, err := event.Encode(e, event.BinaryJSON)
	if err != nil {
		return cli.Usage(err)
	}
	r := &kgo.Record{Topic: topic, Partition: d.partition, Key: key, Value: value}
	for _, h := range headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	if err := d.kafka.ProduceSync(ctx, r).FirstErr(); err != nil {
		return fmt.Errorf("producing to %s/%d: %w", topic, d.partition, err)
	}
	d.sentTo, d.offset = topic, r.Offset
	return nil
}

// wait reads the journal until a committed batch has gone past the event: then
// it is applied, and what it led to is published.
func (d *delivery) wait(ctx context.Context) error {
	d.reached.Store(d.beforeFence.State.Next[d.input].Next)
	done := make(chan struct{})
	defer close(done)
	go d.progress(done)

	var prev *protocol.Record
	// The record known to be published is read again: what the batch counted is
	// the difference to the one before.
	return d.each(ctx, d.topic.Journal, d.partition, d.beforeFence.Published.Offset, forever, func(r *kgo.Record) error {
		rec, err := protocol.DecodeRecord(r.Value)
		if err != nil {
			return fmt.Errorf("%s/%d@%d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		next := rec.State.Next[d.input].Next
		d.reached.Store(next)
		if next <= d.offset {
			prev = rec
			return nil
		}
		d.batch, d.read, d.counts = rec, rec.State.Read, difference(rec, prev)
		if prev != nil {
			d.read -= prev.State.Read
		}
		return errEnough
	})
}

// difference is what a batch counted; prev nil is the beginning.
func difference(rec, prev *protocol.Record) (d [event.NumCodes]int64) {
	copy(d[:], rec.State.Counters)
	if prev != nil {
		for i, n := range prev.State.Counters[:min(len(prev.State.Counters), len(d))] {
			d[i] -= n
		}
	}
	return d
}

// progress tells about a wait that takes more than a second.
func (d *delivery) progress(done <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			d.term.note("waiting: partition %d stands at offset %d, the event is at %d", d.partition, d.reached.Load(), d.offset)
		}
	}
}

// late explains a wait that ended without an answer.
func (d *delivery) late(ctx context.Context, err error, timeout time.Duration) error {
	if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("no consumer has applied and published the event within %s: it is in the topic and not lost, but partition %d stands at offset %d, and the event is at %d; is a consumer of namespace %s running?",
		timeout, d.partition, d.reached.Load(), d.offset, d.Namespace)
}

// deadLetter is a refusal as it stands in the dead letters.
type deadLetter struct {
	code, field, detail string
	offset              int64
}

func (l *deadLetter) String() string {
	s := l.code
	if l.field != "" {
		s += " " + l.field
	}
	if l.detail != "" {
		s += ": " + l.detail
	}
	return s
}

// deadLetter looks for the event among the dead letters that were published
// since it was sent; nil when it is not there.
func (d *delivery) deadLetter(ctx context.Context, partition int32) (found *deadLetter, err error) {
	// Whatever its transaction wrote lies before the end asked for now.
	in, err := d.span(ctx, d.topic.DeadLetters, partition)
	if err != nil {
		return nil, err
	}
	origin := fmt.Sprintf("%s/%d@%d", d.sentTo, d.partition, d.offset)
	err = d.each(ctx, d.topic.DeadLetters, partition, d.lettersAt.End, in.End, func(r *kgo.Record) error {
		h := headers(r)
		if h["tierstream-topic"]+"/"+h["tierstream-partition"]+"@"+h["tierstream-offset"] != origin || h["tierstream-namespace"] != d.Namespace {
			return nil
		}
		found = &deadLetter{code: h["tierstream-code"], field: h["tierstream-field"], detail: h["tierstream-detail"], offset: r.Offset}
		return errEnough
	})
	return found, err
}

func headers(r *kgo.Record) map[string]string {
	m := map[string]string{}
	for _, h := range r.Headers {
		m[h.Key] = string(h.Value)
	}
	return m
}

// outcome says what became of an event that was not refused, by what its batch
// counted. In a batch with other records this may be less than certain.
func (d *delivery) outcome() string {
	where := fmt.Sprintf("batch %d, published", d.batch.Seq)
	var could []event.Code
	var parts []string
	for i, n := range d.counts {
		code := event.Code(i)
		if n <= 0 || code.Outcome() == event.DeadLetter || code.Outcome() == event.Warned {
			continue // a batch may also refuse, or stop waiting for, what came earlier
		}
		could = append(could, code)
		parts = append(parts, fmt.Sprintf("%s %d", code, n))
	}
	if len(could) != 1 {
		return fmt.Sprintf("not refused; its batch of %d records counts %s (%s)", d.read, strings.Join(parts, ", "), where)
	}
	switch code := could[0]; code.Outcome() {
	case event.Held:
		return fmt.Sprintf("%s: its order is not known yet (%s)", code, where)
	case event.Dropped:
		return fmt.Sprintf("%s: said before, nothing changes (%s)", code, where)
	case event.Ignored:
		return fmt.Sprintf("%s: ignored by the rules, nothing changes (%s)", code, where)
	}
	s := "applied (" + where + ")"
	if d.read == 1 && d.counts[event.Late] > 0 {
		s += ", late: older than the customer's newest event"
	}
	if d.read == 1 && d.counts[event.UnusualTransition] > 0 {
		s += ", unusual_transition: the status does not follow the usual order"
	}
	return s
}

// compare prints before and after side by side: always tier, score, RFM and
// CLV, the rest where it moved.
func compare(t *terminal, before, after *view.View) error {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\tbefore\tafter\n")
	const (
		always  = iota
		moved   // or nothing was known before
		changed // from what was known before
	)
	row := func(when int, label string, show func(v *view.View) string) {
		was, is := "-", show(after)
		if before != nil {
			was = show(before)
		}
		if was != is && (when != changed || before != nil) || when == always {
			fmt.Fprintf(w, "%s\t%s\t%s\n", label, was, is)
		}
	}
	row(always, "tier", func(v *view.View) string {
		if v.Tier == nil {
			return "none yet"
		}
		return v.Tier.Name
	})
	row(always, after.Model.Measure, func(v *view.View) string { return view.Points(v.Values.Score) })
	for i, p := range after.Values.Parts {
		row(moved, "  "+p.Name, func(v *view.View) string {
			if i >= len(v.Values.Parts) {
				return "-"
			}
			s := view.Points(v.Values.Parts[i].Value)
			if !v.Values.Parts[i].Known {
				s += " assumed"
			}
			return s
		})
	}
	row(always, "R F M", func(v *view.View) string {
		r := &v.Values.RFM
		return fmt.Sprintf("%d %d %d", r.R, r.F, r.M)
	})
	row(moved, "segment", func(v *view.View) string { return strings.ReplaceAll(v.Values.RFM.Segment, "_", " ") })
	row(moved, "orders", func(v *view.View) string {
		return fmt.Sprintf("%d, %s", v.Values.Orders.Orders, v.Money(v.Values.Orders.Net))
	})
	row(always, "CLV", func(v *view.View) string { return v.Money(v.Values.CLV.Total) })
	row(changed, "  so far", func(v *view.View) string { return v.Money(v.Values.CLV.Historic) })
	row(changed, "  referrals", func(v *view.View) string { return v.Money(v.Values.CLV.Referrals) })
	row(moved, "  predicted", func(v *view.View) string { return v.Money(v.Values.CLV.Predicted) })
	row(changed, "complaints open", func(v *view.View) string { return strconv.Itoa(v.Values.Experience.OpenComplaints) })
	row(changed, "returns waiting", func(v *view.View) string { return strconv.Itoa(len(v.Waiting)) })
	_ = w.Flush() // into a buffer
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(t.out, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// changeMessage is a tier change as send shows it.
type changeMessage contract.Change

func (m *changeMessage) String() string {
	from := "no tier"
	if m.Previous != nil {
		from = m.Previous.Name
	}
	s := fmt.Sprintf("%d: %s → %s (%s, %s)", m.Sequence, from, m.New.Name, m.Direction, m.Reason)
	if m.Mode != "live" {
		s += ", mode " + m.Mode
	}
	return s + "\n         " + m.Text
}

// decodeChange reads a tier change in whichever form it was published.
func decodeChange(r *kgo.Record) (*changeMessage, error) {
	c, err := contract.ReadChange(headers(r)["content-type"], r.Value)
	return (*changeMessage)(c), err
}

// printChanges prints the customer's tier changes above a sequence that were
// published since the event was sent.
func (d *delivery) printChanges(ctx context.Context, partition int32, customer string, above uint64) error {
	in, err := d.span(ctx, d.topic.Changes, partition)
	if err != nil {
		return err
	}
	n := 0
	err = d.each(ctx, d.topic.Changes, partition, d.changesAt.End, in.End, func(r *kgo.Record) error {
		if string(r.Key) != customer || headers(r)["ce_source"] != "/tierstream/"+d.Namespace {
			return nil
		}
		m, err := decodeChange(r)
		if err != nil {
			return fmt.Errorf("reading the tier change %s/%d@%d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		if m.Sequence > above {
			n++
			other := ""
			if o := &m.Cause; o.Topic != d.sentTo || o.Partition != d.partition || o.Offset != d.offset {
				other = fmt.Sprintf("\n         (caused by another event, %s/%d@%d)", o.Topic, o.Partition, o.Offset)
			}
			_, err = fmt.Fprintf(d.term.out, "change   %s%s\n", m, other)
			return err
		}
		return nil
	})
	if err == nil && n == 0 {
		_, err = fmt.Fprintln(d.term.out, "change   none")
	}
	return err
}

// parseInstant reads a date, which means its begin in UTC, or a full timestamp.
func parseInstant(flag, s string) (time.Time, error) {
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, cli.Usage(fmt.Errorf("--%s %q: want 2026-01-31 or 2026-01-31T09:00:00+01:00", flag, s))
	}
	return t, nil
}
