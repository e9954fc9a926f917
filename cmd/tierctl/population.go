package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/cohort"
	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/scoring"
)

// populationHelp is said by the commands that fold a log in memory.
const populationHelp = `The log is folded in memory into the records that a consumer would keep, in the order of time, and everybody is scored at the end of the last day (--observation-end: another). Purchases and returns count; complaints, referrals, feedback and costs are passed over, so satisfaction and acquisition cost take their neutral values. Days end in the base model's zone. Needs neither Kafka nor Redis.`

// population folds a log into customers and summarises those who bought, in
// the order of their IDs.
func (c *logFlags) population(ctx context.Context, t *terminal, m *scoring.Model) ([]scoring.Summary, error) {
	switch {
	case c.Unit != string(cohort.Days) || c.Period != string(cohort.PerDay):
		return nil, cli.Usage(errors.New("a model's scores know only days: --unit and --period are for summaries"))
	case c.Zone != "" && c.Zone != m.Calendar().Zone():
		return nil, cli.Usage(fmt.Errorf("--zone: the base model's zone is %s", m.Calendar().Zone()))
	case c.Currency != "" && c.Currency != m.Currency():
		return nil, cli.Usage(fmt.Errorf("--currency: the base model's currency is %s", m.Currency()))
	}
	end := int32(0)
	if c.Observation != "" {
		var err error
		if end, err = cohort.ParseDate(c.Observation); err != nil {
			return nil, cli.Usage(fmt.Errorf("--observation-end: %w", err))
		}
	}
	in, err := t.open(c.File)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	bad := 0
	options := cohort.Options{
		Format: cohort.Format(c.Format), CustomerColumn: c.Customer, DateColumn: c.Date, ValueColumn: c.Value,
		DateFormat: c.DateFormat, Zone: m.Calendar().Zone(), Currency: m.Currency(),
	}
	if c.SkipBad {
		options.Bad = func(line int64, err error) error {
			if bad++; bad <= 5 {
				t.note("  line %d: %v", line, err)
			}
			return nil
		}
	}
	events, err := readEvents(&counting{ctx: ctx, Reader: in}, options)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.File, err)
	}

	policy := customer.DefaultPolicy(m.Currency())
	policy.ZeroOrders = customer.Choice(c.Zero)
	folder, err := customer.NewFolder(policy, m.Calendar(), m.WindowDays())
	if err != nil {
		return nil, err
	}
	records := map[string]*customer.Record{}
	refused := map[event.Code]int{}
	for i := range events {
		ev := &events[i]
		day := m.Calendar().Day(ev.Time)
		if c.Observation != "" && day > end {
			break
		} else if c.Observation == "" {
			end = day
		}
		r := records[ev.Customer]
		if r == nil {
			fresh := customer.NewRecord()
			r = &fresh
			records[ev.Customer] = r
		}
		folder.Expire(r, ev.Time)
		if code := folder.Apply(r, ev).Code; code != event.Applied {
			refused[code]++
		}
	}
	at := m.Calendar().Start(end+1) - 1
	var all []scoring.Summary
	for _, id := range sortedKeys(records) {
		var s scoring.Summary
		if folder.Summarize(records[id], at, &s); s.Active {
			all = append(all, s)
		}
	}
	text := fmt.Sprintf("%s events, %s customers with orders, scored on %s", grouped(int64(len(events))), grouped(int64(len(all))), cohort.Date(end))
	for _, code := range sortedKeys(refused) {
		text += fmt.Sprintf(", %d %s", refused[code], code)
	}
	t.note("%s", text)
	if bad > 0 {
		t.note("%d rows left out that cannot be used", bad)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: nobody has an order by %s", c.File, cohort.Date(end))
	}
	return all, nil
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// readEvents reads all purchases and returns of a log, by time. Rows of a CSV
// are orders of their own, named by their line.
func readEvents(in *counting, o cohort.Options) ([]event.Event, error) {
	r, err := cohort.Open(in, o)
	if err != nil {
		return nil, err
	}
	var events []event.Event
	err = r.Each(func(line int64, ev *event.Event) error {
		e := *ev
		e.Customer, e.ID, e.Source = strings.Clone(ev.Customer), strings.Clone(ev.ID), strings.Clone(ev.Source)
		e.BusinessID, e.OrderID = strings.Clone(ev.BusinessID), strings.Clone(ev.OrderID)
		e.Currency, e.FXRate, e.Category, e.Channel = strings.Clone(ev.Currency), strings.Clone(ev.FXRate), strings.Clone(ev.Category), strings.Clone(ev.Channel)
		e.Trace, e.Reason = "", ""
		if r.Format == cohort.CSV {
			e.ID = strconv.FormatInt(line, 10)
			e.BusinessID, e.Content = e.ID, uint64(line)
		}
		events = append(events, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(events) == 0 {
		return nil, errors.New("the log has no purchases")
	}
	slices.SortStableFunc(events, func(a, b event.Event) int { return cmp.Compare(a.Time, b.Time) })
	return events, nil
}
