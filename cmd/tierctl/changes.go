package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/vmihailenco/msgpack/v5"
	"golang.org/x/sync/errgroup"

	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/contract"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
)

type changesCmd struct {
	Follow    bool     `short:"f" help:"Go on with new changes until Ctrl-C. Begins now, unless --since is given."`
	Tier      []string `help:"Only into these tiers, by ID or name." placeholder:"TIER"`
	Direction []string `help:"Only these: assigned, up, down." placeholder:"WAY"`
	Reason    []string `help:"Only for these reasons, such as purchase, return, time_decay." placeholder:"REASON"`
	Customer  []string `help:"Only of these customers." placeholder:"ID"`
	Mode      []string `help:"Only of these modes: live, backfill." placeholder:"MODE"`
	Since     string   `help:"Published since: a date, RFC 3339, or how long ago (2h)." placeholder:"TIME"`
	Limit     int      `short:"n" help:"Without --follow: the newest so many; 0 for all." default:"20"`
	JSON      bool     `name:"json" help:"One JSON object per change, as it was published."`
}

func (c *changesCmd) Help() string {
	return `Prints committed tier changes, one line each: effective time, ▲ up, ▼ down or • first tier, customer, from, to, and why. The order is that of publishing; per customer it is that of the sequence.

  tierctl changes --follow
  tierctl changes --follow --direction down --reason complaint,return
  tierctl changes --customer me -n 0`
}

func (c *changesCmd) Run(ctx context.Context, conn *connection, t *terminal) error {
	for _, d := range c.Direction {
		if !slices.Contains([]string{"assigned", "up", "down"}, d) {
			return cli.Usage(fmt.Errorf("--direction %s: want assigned, up or down", d))
		}
	}
	since, err := parseMoment("since", c.Since)
	if err != nil {
		return err
	}
	s, err := conn.open(ctx, t, needKafka)
	if err != nil {
		return err
	}
	defer s.close()
	n, err := s.partitionsOf(ctx, s.topic.Changes)
	if err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("Kafka has no topic %s", s.topic.Changes)
	}
	currency := ""
	if r, err := s.rules.inForce(nil); err == nil && r != nil {
		currency = r.Model.Currency()
	}
	partitions, err := c.partitions(n)
	if err != nil {
		return err
	}

	if !c.Follow {
		type shown struct {
			at   time.Time
			text string
		}
		var all []shown
		total := 0
		err := s.tail(ctx, s.topic.Changes, partitions, since, func(r *kgo.Record) error {
			text, err := c.text(s, r, currency)
			if err != nil || text == "" {
				return err
			}
			total++
			if all = append(all, shown{r.Timestamp, text}); c.Limit > 0 && len(all) >= 2*c.Limit+1000 {
				slices.SortStableFunc(all, func(a, b shown) int { return a.at.Compare(b.at) })
				all = slices.Delete(all, 0, len(all)-c.Limit)
			}
			return nil
		})
		if err != nil {
			return err
		}
		slices.SortStableFunc(all, func(a, b shown) int { return a.at.Compare(b.at) })
		if c.Limit > 0 && len(all) > c.Limit {
			all = all[len(all)-c.Limit:]
		}
		for _, l := range all {
			if _, err := fmt.Fprintln(t.out, l.text); err != nil {
				return err
			}
		}
		if len(all) < total {
			t.note("the newest %d of %d changes (-n 0 shows all)", len(all), total)
		}
		return nil
	}

	var mu sync.Mutex
	g, following := errgroup.WithContext(ctx)
	for _, p := range partitions {
		in, from, err := s.spanSince(ctx, s.topic.Changes, p, since)
		if err != nil {
			return err
		}
		if since.IsZero() {
			from = in.Committed
		}
		g.Go(func() error {
			return s.each(following, s.topic.Changes, p, from, forever, func(r *kgo.Record) error {
				text, err := c.text(s, r, currency)
				if err != nil || text == "" {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				_, err = fmt.Fprintln(t.out, text)
				return err
			})
		})
	}
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil // Ctrl-C
}

// partitions are those in which the customers' changes lie: the consumer
// chooses them by murmur2 of the key.
func (c *changesCmd) partitions(n int32) (ps []int32, err error) {
	murmur2, err := event.ParsePartitioner("murmur2")
	if err != nil || len(c.Customer) == 0 {
		for p := range n {
			ps = append(ps, p)
		}
		return ps, err
	}
	for _, id := range c.Customer {
		if p := murmur2.Partition([]byte(id), n); !slices.Contains(ps, p) {
			ps = append(ps, p)
		}
	}
	slices.Sort(ps)
	return ps, nil
}

// text is the change as it is printed, "" when a filter leaves it out.
func (c *changesCmd) text(s *site, r *kgo.Record, currency string) (string, error) {
	h := headers(r)
	if h["ce_source"] != "/tierstream/"+s.Namespace {
		return "", nil
	}
	change, err := contract.ReadChange(h["content-type"], r.Value)
	if err != nil {
		return "", fmt.Errorf("%s/%d@%d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	one := func(list []string, values ...string) bool {
		return len(list) == 0 || slices.ContainsFunc(list, func(x string) bool {
			return slices.ContainsFunc(values, func(v string) bool { return strings.EqualFold(x, v) })
		})
	}
	if !one(c.Tier, change.New.ID, change.New.Name) || !one(c.Direction, change.Direction) || !one(c.Reason, change.Reason) || !one(c.Mode, change.Mode) ||
		len(c.Customer) > 0 && !slices.Contains(c.Customer, change.Customer) {
		return "", nil
	}
	if c.JSON {
		return changeJSON(h["content-type"], r.Value)
	}
	line := change.Line()
	if score := moneyScore(change, currency); score != "" {
		line += "  (" + score + ")"
	}
	if change.Mode != "live" {
		line += "  [" + change.Mode + "]"
	}
	return safe([]byte(line), false), nil
}

// changeJSON is the payload as one line of JSON, whatever it was published as.
func changeJSON(mediaType string, value []byte) (string, error) {
	if mediaType != fold.MsgpackType {
		return string(value), nil
	}
	var v map[string]any
	if err := msgpack.Unmarshal(value, &v); err != nil {
		return "", fmt.Errorf("reading a tier change: %w", err)
	}
	b, err := json.Marshal(v)
	return string(b), err
}

// moneyScore is the measure before and after as money, "" where the measure
// is points: those made of lifetime values are minor units of the model's
// currency.
func moneyScore(c *contract.Change, currency string) string {
	if !strings.HasPrefix(c.Measure, "clv.") && !strings.HasPrefix(c.Measure, "value.") {
		return ""
	}
	money := func(v float64) string { return event.FormatMoney(int64(math.RoundToEven(v)), currency) }
	before := "–"
	if c.ScoreBefore != nil {
		before = money(*c.ScoreBefore)
	}
	return c.Measure + " " + before + " → " + money(c.ScoreAfter)
}
