package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/view"
)

type exportCmd struct {
	AsOf       string `help:"Evaluate everybody at this time (a date means its begin in UTC, or RFC 3339). Default: now. Customers with a newer event are left out and counted." placeholder:"TIME"`
	Format     string `help:"csv or ndjson (one value document per line)." enum:"csv,ndjson" default:"csv"`
	Output     string `short:"o" help:"Write to this file instead of the terminal." placeholder:"FILE"`
	Partitions int32  `help:"Number of partitions. Default: the journal topic's." placeholder:"N"`
}

func (c *exportCmd) Help() string {
	return `Writes all customers, sorted by ID. In CSV every amount stands twice: in minor units (net_minor) and as money (net).

While a consumer runs, each customer is read whole, but not all at one instant.

  tierctl export -o customers.csv
  tierctl export --as-of 2026-07-01 --format ndjson`
}

// stored is one customer as Redis holds them.
type stored struct {
	id        string
	partition int32
	seq       uint64 // batch that wrote it
	value     []byte
}

func (c *exportCmd) Run(ctx context.Context, conn *connection, t *terminal) (err error) {
	s, err := conn.open(ctx, t, needRedis|useKafka)
	if err != nil {
		return err
	}
	defer s.close()
	at := time.Now()
	if c.AsOf != "" {
		if at, err = parseInstant("as-of", c.AsOf); err != nil {
			return err
		}
	}
	n := c.Partitions
	if n == 0 {
		if n, err = s.partitions(ctx); err != nil {
			return err
		}
	}
	all, fences, err := s.customers(ctx, n)
	if err != nil {
		return err
	}
	viewer, _, err := s.viewer(newest(fences))
	if err != nil {
		return err
	}

	if c.Output == "" {
		return c.write(t, t.out, viewer, all, fences, at)
	}
	// A reader of the file never sees half of it.
	f, err := os.CreateTemp(filepath.Dir(c.Output), filepath.Base(c.Output)+".*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", c.Output, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if err := errors.Join(c.write(t, f, viewer, all, fences, at), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), c.Output); err != nil {
		return fmt.Errorf("writing %s: %w", c.Output, err)
	}
	return nil
}

// newest is the fence that went furthest; nil when no partition was started.
func newest(fences []*protocol.Fence) (f *protocol.Fence) {
	for _, g := range fences {
		if g != nil && (f == nil || g.State.Clock > f.State.Clock) {
			f = g
		}
	}
	return f
}

// customers reads everybody, sorted by ID.
func (s *site) customers(ctx context.Context, partitions int32) ([]stored, []*protocol.Fence, error) {
	var all []stored
	fences := make([]*protocol.Fence, partitions)
	for p := range partitions {
		had := len(all)
		var r customer.Record
		f, err := s.store(p).Each(ctx, func(id string, value []byte) error {
			if err := customer.Decode(value, &r); err != nil {
				return fmt.Errorf("customer %s: %w", id, err)
			}
			all = append(all, stored{id, p, r.Seq, value})
			if len(all)%100_000 == 0 {
				s.term.note("%d customers read, now in partition %d", len(all), p)
			}
			return nil
		})
		if err != nil {
			return nil, nil, fmt.Errorf("partition %d: %w", p, err)
		}
		if f != nil {
			if _, _, is := f.Rebuilding(); is {
				return nil, nil, fmt.Errorf("partition %d: %w; try again when it is done", p, view.ErrRebuilding)
			}
		}
		fences[p] = f
		s.term.note("partition %d: %d customers (%d of %d partitions)", p, len(all)-had, p+1, partitions)
	}
	// A customer whose due time moved while their partition was listed can
	// appear twice: the newer record counts.
	slices.SortFunc(all, func(a, b stored) int {
		return cmp.Or(strings.Compare(a.id, b.id), cmp.Compare(a.partition, b.partition), cmp.Compare(b.seq, a.seq))
	})
	return slices.CompactFunc(all, func(a, b stored) bool { return a.id == b.id && a.partition == b.partition }), fences, nil
}

func (c *exportCmd) write(t *terminal, to io.Writer, viewer *view.Viewer, all []stored, fences []*protocol.Fence, at time.Time) error {
	buffered := bufio.NewWriterSize(to, 1<<16)
	emit, finish := jsonLines(buffered)
	if c.Format == "csv" {
		emit, finish = table(buffered)
	}
	tooNew := 0
	for i := range all {
		x := &all[i]
		v, err := viewer.View(x.id, x.partition, x.value, fences[x.partition], at)
		if errors.Is(err, view.ErrPast) {
			if c.AsOf != "" {
				tooNew++
				continue
			}
			// Ahead of this machine's clock, within the skew.
			v, err = viewer.View(x.id, x.partition, x.value, fences[x.partition], time.Time{})
		}
		if err != nil {
			return fmt.Errorf("customer %s: %w", x.id, err)
		}
		if err := emit(v); err != nil {
			return fmt.Errorf("writing customer %s: %w", x.id, err)
		}
	}
	if err := errors.Join(finish(), buffered.Flush()); err != nil {
		return fmt.Errorf("writing customers: %w", err)
	}
	t.note("%d customers written", len(all)-tooNew)
	if tooNew > 0 {
		t.note("warning: %d customers have an event after %s and are left out: a record cannot unlearn it", tooNew, at.UTC().Format(time.RFC3339))
	}
	return nil
}

func jsonLines(w io.Writer) (emit func(*view.View) error, finish func() error) {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return func(v *view.View) error { return e.Encode(v) }, func() error { return nil }
}

// table writes CSV with a header, also when there is nobody. The score's column
// is called like the model's measure.
func table(w io.Writer) (emit func(*view.View) error, finish func() error) {
	c := csv.NewWriter(w)
	var row []string
	header := false
	emit = func(v *view.View) error {
		if !header {
			header = true
			if err := c.Write(columns(v.Model.Measure)); err != nil {
				return err
			}
		}
		row = cells(v, row[:0])
		return c.Write(row)
	}
	finish = func() error {
		if !header {
			if err := c.Write(columns("score")); err != nil {
				return err
			}
		}
		c.Flush()
		return c.Error()
	}
	return emit, finish
}

func columns(measure string) []string {
	return []string{
		"customer", "tier", "sequence", "tier_since", "tier_now", "currency",
		"orders", "net_minor", "net", "first_day", "last_day",
		"r_days", "f_orders", "m_net_minor", "m_net", "r_score", "f_score", "m_score", "segment", "class",
		"clv_historic_minor", "clv_historic", "clv_simple_minor", "clv_simple", "clv_margin_minor", "clv_margin",
		"clv_npv_minor", "clv_npv", "clv_predicted_minor", "clv_predicted", "clv_total_minor", "clv_total",
		"p_alive", "satisfaction", measure,
		"lifecycle", "health", "customer_days", "largest_order_minor", "largest_order", "purchase_cycle_days", "next_order_on",
		"clv_markov_minor", "clv_markov", "clv_parts_minor", "clv_parts", "value_at_risk_minor", "value_at_risk",
	}
}

// cells are empty where there is nothing to say: no tier yet, no active order.
func cells(v *view.View, row []string) []string {
	text := func(s string) { row = append(row, s) }
	number := func(n int64) { text(strconv.FormatInt(n, 10)) }
	points := func(f float64, decimals int) { text(strconv.FormatFloat(f, 'f', decimals, 64)) }
	money := func(minor int64) {
		number(minor)
		text(strings.TrimSuffix(event.FormatMoney(minor, v.Model.Currency), " "+v.Model.Currency))
	}
	tier := func(t *view.Tier) {
		if t == nil {
			text("")
		} else {
			text(t.ID)
		}
	}
	x := &v.Values
	active := v.LastDay != ""

	text(v.Customer)
	tier(v.Tier)
	text(strconv.FormatUint(v.Sequence, 10))
	if v.Since.IsZero() {
		text("")
	} else {
		text(v.Since.Format("2006-01-02T15:04:05.000Z"))
	}
	tier(v.Now.Tier)
	text(v.Model.Currency)
	number(x.Orders.Orders)
	money(x.Orders.Net)
	text(v.FirstDay)
	text(v.LastDay)
	if active {
		number(int64(x.RFM.Days))
	} else {
		text("")
	}
	number(x.RFM.Orders)
	money(x.RFM.Net)
	number(int64(x.RFM.R))
	number(int64(x.RFM.F))
	number(int64(x.RFM.M))
	text(x.RFM.Segment)
	text(x.Value.Class)
	money(x.CLV.Historic)
	money(x.CLV.Simple)
	money(x.CLV.Margin)
	money(x.CLV.NPV)
	money(x.CLV.Predicted)
	money(x.CLV.Total)
	points(x.Forecast.Alive, 6)
	points(x.Experience.Satisfaction, 4)
	points(x.Score, 4)
	text(x.Value.Lifecycle)
	text(x.Value.Health)
	number(int64(x.Orders.CustomerDays))
	money(x.Orders.Largest)
	points(x.Orders.PurchaseCycle, 2)
	text(x.Forecast.NextOrderOn)
	money(x.CLV.Markov)
	money(x.CLV.Parts)
	money(x.Value.AtRisk)
	return row
}
