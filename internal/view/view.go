// Package view is a customer's value as others see it: the record with what the
// model makes of it at an instant, as data and as a card. What reads customers
// and what publishes them show the same document.
package view

import (
	"errors"
	"fmt"
	"time"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/scoring"
)

var (
	// ErrUnknown means: nothing is known of the customer. No accepted event named
	// them, or the partition was never started.
	ErrUnknown = errors.New("nothing is known of this customer")
	// ErrRebuilding means: the partition's state is being rebuilt from the log, and
	// what is there so far is not the truth.
	ErrRebuilding = errors.New("the state of this partition is being rebuilt from the log")
	// ErrPast means: the instant asked for is before the customer's newest event,
	// which the record cannot unlearn.
	ErrPast = errors.New("the customer has a newer event than the instant asked for")
)

// View is a customer's live value as of a stated point of the log, evaluated at
// a stated instant. Money is int64 minor units of Model.Currency; scores are 0
// to 100 unless the model's measure is money.
type View struct {
	Customer string `json:"customer"`

	// Tier, Since and Sequence are the last decision, which was published as
	// the change of that sequence. Null, zero and 0 while there was none.
	Tier     *Tier     `json:"tier"`
	Since    time.Time `json:"tier_since,omitzero"`
	Sequence uint64    `json:"sequence"`
	// Published says that the batch that last wrote the customer is known to be
	// committed in Kafka. Redis learns of it with the partition's next batch, so
	// false means "not known": see PublishedUpTo.
	Published bool `json:"published"`

	Now Now `json:"now"`

	FirstDay  string    `json:"first_day,omitempty"`    // local date of the first order not fully returned
	LastDay   string    `json:"last_day,omitempty"`     // and of the last one
	LastOrder time.Time `json:"last_order_at,omitzero"` // time of the last one
	Newest    time.Time `json:"newest_event_at,omitzero"`

	Purchases int64           `json:"purchases"` // accepted, returned since or not
	Waiting   []WaitingReturn `json:"waiting_returns"`

	Values scoring.Values `json:"values"` // evaluated at Now.At
	Model  Model          `json:"model"`
	AsOf   AsOf           `json:"as_of"`
}

// Tier is one rank of the model.
type Tier struct {
	ID   string `json:"id"`
	Rank int    `json:"rank"` // 0 is the lowest
	Name string `json:"name"`
}

// Now is what time has made of the customer since the last event: recency grows
// and survival falls without one. A tier that differs from the decided one will
// be decided with the next event.
type Now struct {
	At        time.Time `json:"at"`
	Tier      *Tier     `json:"tier"` // null before the first purchase
	Score     float64   `json:"score"`
	SinceLast int32     `json:"days_since_last"` // 0 without an active order
	Alive     float64   `json:"p_alive"`
	// Next is the tier above Tier, null in the highest; Missing is what the
	// score lacks to enter it.
	Next    *Tier    `json:"next_tier"`
	Missing *float64 `json:"distance_to_next"`
	// Spare is what the score may lose before Tier is left; null in the lowest.
	// Below 0 the tier is left.
	Spare *float64 `json:"distance_to_keep"`
}

// WaitingReturn is a return whose order is not known yet.
type WaitingReturn struct {
	At       time.Time `json:"at"`
	Until    time.Time `json:"until"` // refused if its order has not come by then
	Amount   int64     `json:"amount_minor"`
	Currency string    `json:"currency"`
}

// Model names the model by which the values were computed.
type Model struct {
	Name     string `json:"version"`
	Hash     string `json:"hash"`
	Measure  string `json:"measure"`
	Currency string `json:"currency"`
	Window   int    `json:"window_days"`
	Fitted   bool   `json:"fitted"`
}

// AsOf is the point of the log that the record reflects.
type AsOf struct {
	Partition int32            `json:"partition"`
	Seq       uint64           `json:"seq"`     // last batch applied in the partition
	Written   uint64           `json:"written"` // batch that last wrote this customer
	Offsets   map[string]int64 `json:"offsets"` // next offset to read, by topic
	Watermark time.Time        `json:"watermark,omitzero"`
	Clock     time.Time        `json:"clock,omitzero"`
}

// Viewer makes Views by one model and policy. It is immutable and safe for
// concurrent use.
type Viewer struct {
	model    *scoring.Model
	policy   customer.Policy
	topics   []string
	folder   *customer.Folder
	identity Model
}

// NewViewer reads records that were folded by policy, with the positions of
// topics in this order, and values them by model. The model may be another one
// than that of the fold, if its currency is the policy's.
func NewViewer(model *scoring.Model, policy customer.Policy, topics []string) (*Viewer, error) {
	if model.Currency() != policy.Base {
		return nil, fmt.Errorf("reading amounts of %s by a model of %s", policy.Base, model.Currency())
	}
	f, err := customer.NewFolder(policy, model.Calendar(), model.WindowDays())
	if err != nil {
		return nil, err
	}
	h := model.Hash()
	return &Viewer{
		model: model, policy: policy, topics: topics, folder: f,
		identity: Model{
			Name: model.Name(), Hash: fmt.Sprintf("%x", h[:8]), Measure: model.MeasureName(),
			Currency: model.Currency(), Window: model.WindowDays(), Fitted: model.Fitted(),
		},
	}, nil
}

// View reads a stored record together with the fence of the same instant, as
// state.Store.Read returns them, and evaluates it at an instant; the zero time
// is the customer's own clock, the latest at which they were evaluated. Errors
// are ErrUnknown, ErrRebuilding, ErrPast, or a record that cannot be decoded.
func (w *Viewer) View(id string, partition int32, record []byte, f *protocol.Fence, at time.Time) (*View, error) {
	r, ms, err := open(id, record, f, at)
	if err != nil {
		return nil, err
	}
	v := w.as(id, partition, r, f.Seq, &f.State, ms)
	v.PublishedUpTo(f.Published.Seq)
	return v, nil
}

// Explain is the arithmetic behind the figures of View, of the same arguments and
// with the same errors.
func (w *Viewer) Explain(id string, record []byte, f *protocol.Fence, at time.Time) ([]scoring.Line, error) {
	r, ms, err := open(id, record, f, at)
	if err != nil {
		return nil, err
	}
	var s scoring.Summary
	w.folder.Summarize(r, ms, &s)
	_, lines := w.model.Explain(&s)
	return lines, nil
}

// open decodes a record, and says at which instant it is looked at, Unix ms.
func open(id string, record []byte, f *protocol.Fence, at time.Time) (*customer.Record, int64, error) {
	if f != nil {
		if done, total, is := f.Rebuilding(); is {
			if total > 0 {
				return nil, 0, fmt.Errorf("%w: %d of %d batches", ErrRebuilding, done, total)
			}
			return nil, 0, ErrRebuilding
		}
	}
	if f == nil || record == nil {
		return nil, 0, ErrUnknown
	}
	var r customer.Record
	if err := customer.Decode(record, &r); err != nil {
		return nil, 0, fmt.Errorf("customer %s: %w", id, err)
	}
	ms := at.UnixMilli()
	if at.IsZero() {
		ms = own(&r)
	}
	if ms < r.Facts.Newest {
		return nil, 0, fmt.Errorf("%w: %s", ErrPast, instant(r.Facts.Newest).Format(time.RFC3339))
	}
	return &r, ms, nil
}

// Decided is the View of a record as batch seq of a partition leaves it, at the
// customer's own clock and published: what is sent in the transaction of the
// batch.
func (w *Viewer) Decided(id string, partition int32, r *customer.Record, seq uint64, after *protocol.State) *View {
	v := w.as(id, partition, r, seq, after, own(r))
	v.Published = true
	return v
}

// own is the customer's own clock.
func own(r *customer.Record) int64 { return max(r.Standing.Clock, r.Facts.Newest, 0) }

// as is a record at an instant, and as of the state of its partition.
func (w *Viewer) as(id string, partition int32, r *customer.Record, seq uint64, s *protocol.State, at int64) *View {
	v := w.view(id, r)
	w.evaluate(v, r, at)
	v.AsOf = AsOf{
		Partition: partition, Seq: seq, Written: r.Seq, Offsets: map[string]int64{},
		Watermark: instant(s.Watermark), Clock: instant(s.Clock),
	}
	for i, p := range s.Next {
		name := fmt.Sprintf("input %d", i)
		if i < len(w.topics) {
			name = w.topics[i]
		}
		v.AsOf.Offsets[name] = p.Next
	}
	return v
}

// PublishedUpTo tells the view that the partition's batches up to seq are
// committed in Kafka, for callers who have asked Kafka.
func (v *View) PublishedUpTo(seq uint64) { v.Published = v.Published || v.AsOf.Written <= seq }

// view is what does not depend on the time of reading.
func (w *Viewer) view(id string, r *customer.Record) *View {
	st, fs := &r.Standing, &r.Facts
	v := &View{
		Customer: id, Tier: w.tier(int(st.Tier)), Sequence: st.Sequence, Purchases: fs.Purchases,
		Waiting: make([]WaitingReturn, 0, len(fs.Waiting)), Model: w.identity,
	}
	if st.Sequence > 0 {
		v.Since = instant(st.Since)
	}
	if fs.Newest != customer.NoTime {
		v.Newest = instant(fs.Newest)
	}
	for i := range fs.Waiting {
		x := &fs.Waiting[i]
		c := w.policy.Base
		if x.Currency != (customer.Currency{}) {
			c = string(x.Currency[:])
		}
		v.Waiting = append(v.Waiting, WaitingReturn{
			At: instant(x.Time), Until: instant(x.Time + w.policy.Grace.Milliseconds()), Amount: x.Amount, Currency: c,
		})
	}
	return v
}

// evaluate fills in what the instant decides.
func (w *Viewer) evaluate(v *View, r *customer.Record, at int64) {
	var s scoring.Summary
	w.folder.Summarize(r, at, &s)
	v.Values = w.model.Values(&s)
	if s.Active {
		v.FirstDay, v.LastDay, v.LastOrder = Date(s.FirstDay), Date(s.LastDay), instant(s.LastOrderAt)
	}
	score := w.model.Measure(&s).Score
	rank := w.model.Decide(int(r.Standing.Tier), &s, score)
	v.Now = Now{
		At: time.UnixMilli(at).UTC(), Tier: w.tier(rank), Score: v.Values.Score,
		SinceLast: v.Values.RFM.Days, Alive: v.Values.Forecast.Alive,
	}
	if d, ok := w.model.DistanceToNext(rank, score); ok {
		v.Now.Next, v.Now.Missing = w.tier(rank+1), points(d)
	}
	if d, ok := w.model.DistanceToKeep(rank, score); ok {
		v.Now.Spare = points(d)
	}
}

// tier is a rank as the model names it; nil for none, and for a rank that the
// model does not have.
func (w *Viewer) tier(rank int) *Tier {
	tiers := w.model.Tiers()
	if rank < 0 || rank >= len(tiers) {
		return nil
	}
	return &Tier{ID: tiers[rank].ID, Rank: rank, Name: tiers[rank].Name}
}

// points are a score's 1/10,000ths as a number.
func points(d int64) *float64 {
	f := float64(d) / 10_000
	return &f
}

// instant is Unix milliseconds as a time; zero for zero.
func instant(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// Date is a day number as records hold it (days since 1970-01-01): 2026-01-31.
func Date(day int32) string {
	return time.Unix(int64(day)*86_400, 0).UTC().Format(time.DateOnly)
}
