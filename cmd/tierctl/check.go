package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tierstream/tierstream/internal/check"
	"github.com/tierstream/tierstream/internal/cli"
)

type checkCmd struct {
	Replay    bool `help:"Fold log and journal again, too, and compare every record and every change with the outcome (I6). Reads the whole log."`
	Canonical bool `help:"Fold the log alone, too, in the order of its timestamps, and compare every customer's facts (I6). Who depends on the order of arrival is listed."`
	JSON      bool `name:"json" help:"Print the report as JSON."`
	Workers   int  `help:"Partitions at a time." default:"2"`
	List      int  `help:"Violations listed per invariant; all are counted." default:"20"`
}

func (c *checkCmd) Help() string {
	return `Reads journal, tier changes, dead letters, the inputs' offsets and Redis, and proves what docs/replay.md lists: (I1) records, fence, outbox and journal fit together, (I2) published changes form a chain per customer, (I3) the last published tier is the record's, (I4) every record read is accounted for. It only reads, and the consumers may run meanwhile.

Exit code: 0 all of it holds, 1 something does not, 2 it could not be checked.

  tierctl check
  tierctl check --replay --json`
}

func (c *checkCmd) Run(ctx context.Context, conn *connection, t *terminal) error {
	s, err := conn.open(ctx, t, needRedis|needKafka)
	if err != nil {
		return cli.Exit(2, err)
	}
	defer s.close()
	began := time.Now()
	p := &check.Progress{}
	stop := t.watch(func() string {
		n := []int64{p.Journal.Load(), p.Customers.Load(), p.Outputs.Load(), p.Replayed.Load()}
		return fmt.Sprintf("%d journal records, %d customers, %d outputs, %d records replayed, %.0f/s", n[0], n[1], n[2], n[3], float64(n[0]+n[1]+n[2]+n[3])/time.Since(began).Seconds())
	})
	r, err := check.Run(ctx, check.Config{
		Namespace: s.Namespace, Topics: s.topic, Kafka: s.base, Redis: s.redis,
		Replay: c.Replay, Canonical: c.Canonical, Workers: c.Workers, Listed: c.List, Progress: p,
	})
	stop()
	if err != nil {
		return cli.Exit(2, fmt.Errorf("could not be checked: %w", err))
	}
	if c.JSON {
		enc := json.NewEncoder(t.out)
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else {
		err = writeReport(t.out, r)
	}
	if err == nil && !r.Holds {
		err = cli.Exit(1, errors.New("not everything holds"))
	}
	return err
}

// promises are the invariants in words.
var promises = map[string]string{
	"I1": "records, fence, outbox and journal fit together",
	"I2": "published changes form a chain per customer",
	"I3": "the last published tier is the record's tier",
	"I4": "every record read is accounted for",
	"I6": "replaying gives the same",
}

func writeReport(to io.Writer, r *check.Report) error {
	w := &printer{to: to}
	w.printf("namespace %s: %s records read, %s customers, %s tier changes, %s dead letters (%s)\n",
		r.Namespace, grouped(r.Read), grouped(r.Customers), grouped(r.Changes), grouped(r.DeadLetters), r.Took.Round(time.Millisecond))
	for _, p := range r.Partitions {
		w.printf("  partition %d: applied %d, published %d, %s customers, digest %.12s, %s offsets behind", p.Partition, p.Applied, p.Published, grouped(p.Customers), p.Digest, grouped(p.Behind))
		if p.Moving {
			w.printf(", moving")
		}
		w.printf("\n")
	}
	for _, i := range r.Checked {
		verdict := "holds"
		if n := r.Found[i]; n > 0 {
			verdict = fmt.Sprintf("DOES NOT HOLD, %d times", n)
		}
		w.printf("%s  %s: %s\n", i, promises[i], verdict)
		n := 0
		for j := range r.Violations {
			if v := &r.Violations[j]; v.Invariant == i {
				n++
				w.printf("    %s\n", v)
			}
		}
		if more := r.Found[i] - n; more > 0 {
			w.printf("    and %d more (--list)\n", more)
		}
	}
	if r.Corrections > 0 {
		w.printf("%s changes corrected what had been lost:\n", grouped(r.Corrections))
		for i, c := range r.Corrected {
			if i == 20 {
				w.printf("    and %s more (--json)\n", grouped(r.Corrections-20))
				break
			}
			w.printf("    customer %s, change %d: %s → %s (%s@%d)\n", c.Customer, c.Sequence, c.Previous, c.New, c.Topic, c.Offset)
		}
	}
	if r.Compared > 0 {
		w.printf("%s customers compared with the log in the order of its timestamps, %s depend on the order of arrival\n", grouped(r.Compared), grouped(r.OrderDependent))
		for i, o := range r.Ordered {
			if i == 20 {
				w.printf("    and %s more (--json)\n", grouped(r.OrderDependent-20))
				break
			}
			w.printf("    customer %s (%s): %s\n", o.Customer, o.Why, o.Text)
		}
	}
	for _, n := range r.Notes {
		w.printf("note: %s\n", n)
	}
	return w.err
}

// printer remembers the first error.
type printer struct {
	to  io.Writer
	err error
}

func (w *printer) printf(format string, args ...any) {
	if w.err == nil {
		_, w.err = fmt.Fprintf(w.to, format, args...)
	}
}
