package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/cohort"
)

// logFlags say how to read a transaction log and what of it is summarised.
type logFlags struct {
	File string `arg:"" help:"The log, gzip or not; - for standard input."`

	Format     string `help:"ndjson, cdnow, uci or csv. Default: recognised by the beginning." enum:"ndjson,cdnow,uci,csv," default:"" placeholder:"FORMAT"`
	Customer   string `name:"customer-column" help:"Of CSV: the column of the customer. Default: the only one with a usual name." placeholder:"NAME"`
	Date       string `name:"date-column" help:"Of CSV: the column of the date." placeholder:"NAME"`
	Value      string `name:"value-column" help:"Of CSV: the column of what was paid; - if there is none." placeholder:"NAME"`
	DateFormat string `help:"Of CSV: how dates are written, such as DD/MM/YYYY or YYYY-MM-DD hh:mm. Default: YYYY-MM-DD or YYYYMMDD, with or without a time, or RFC 3339." placeholder:"FORM"`
	Zone       string `help:"IANA zone whose midnights separate days. Default: UTC, for uci Europe/London." placeholder:"ZONE"`
	Currency   string `help:"Base currency, ISO 4217. Default: that of the first event; of CSV EUR." placeholder:"CUR"`
	Zero       string `name:"zero-orders" help:"Orders of no money: ignore them, or count their days (never their value)." enum:"ignore,count" default:"ignore"`
	SkipBad    bool   `help:"Leave rows out that cannot be used, and list the first ones, instead of stopping."`

	Unit        string `help:"Unit of t_x and T: day, or week, which is days/7." enum:"day,week" default:"day"`
	Period      string `help:"Purchases of one day or one calendar week count once. With week, t_x and T are whole weeks." enum:"day,week" default:"day"`
	Observation string `name:"observation-end" help:"Last day that is looked at. Default: that of the last purchase." placeholder:"DATE"`
}

// logHelp is said by every command that reads a log.
const logHelp = `The log is events as lines of JSON (what producer-sim --dry-run prints, tierctl replay dump writes, or structured CloudEvents), CDNOW, UCI Online Retail, or any CSV with a header, one purchase per row. Rows may come in any order.

Rules: purchases of one day are one, their values add up. A return lowers the day of its order; an order that is returned whole leaves x and t_x. The same event or order again counts once; equal rows of a CSV are separate purchases. A negative value in a CSV, a second currency without a rate, or a date that cannot be read is an error with its line.`

// read reads the log, with progress on standard error.
func (c *logFlags) read(ctx context.Context, t *terminal) (*cohort.Log, error) {
	if c.Period == string(cohort.PerWeek) && c.Unit != string(cohort.Weeks) {
		return nil, cli.Usage(errors.New("--period week needs --unit week"))
	}
	in, err := t.open(c.File)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	size := int64(0)
	if f, ok := in.(*os.File); ok {
		if info, err := f.Stat(); err == nil {
			size = info.Size()
		}
	}
	counted := &counting{ctx: ctx, Reader: in}
	stop := t.watch(func() string {
		const mib = 1 << 20
		if size > 0 {
			return fmt.Sprintf("%s: %d of %d MiB read", c.File, counted.n.Load()/mib, size/mib)
		}
		return fmt.Sprintf("%s: %d MiB read", c.File, counted.n.Load()/mib)
	})
	options := cohort.Options{
		Format: cohort.Format(c.Format), CustomerColumn: c.Customer, DateColumn: c.Date, ValueColumn: c.Value,
		DateFormat: c.DateFormat, Zone: c.Zone, Currency: c.Currency, CountZero: c.Zero == "count",
	}
	const shown = 5
	var skipped []string
	if c.SkipBad {
		options.Bad = func(line int64, err error) error {
			if len(skipped) < shown {
				skipped = append(skipped, fmt.Sprintf("  line %d: %v", line, err))
			}
			return nil
		}
	}
	log, err := cohort.Read(counted, options)
	stop()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.File, err)
	}
	n := &log.Counts
	text := fmt.Sprintf("%s: %s purchases", log.Format, grouped(n.Purchases))
	for _, x := range []struct {
		n    int64
		what string
	}{
		{n.Returns, "returns"}, {n.Orphans, "returns of orders that are not in the log"}, {n.Duplicates, "duplicates dropped"},
		{n.Zero, "orders of no money left out"}, {n.Ignored, "tests and unpaid orders left out"}, {n.Bad, "rows left out that cannot be used"},
	} {
		if x.n > 0 {
			text += fmt.Sprintf(", %s %s", grouped(x.n), x.what)
		}
	}
	t.note("%s; %s to %s in %s", text, cohort.Date(log.First), cohort.Date(log.Last), log.Zone)
	for _, s := range skipped {
		t.note("%s", s)
	}
	return log, nil
}

// cut is what of the log is summarised; calibration is "" or a date.
func (c *logFlags) cut(log *cohort.Log, calibration string) (cut cohort.Cut, err error) {
	cut = log.Until()
	cut.Unit, cut.Period = cohort.Unit(c.Unit), cohort.Period(c.Period)
	if c.Observation != "" {
		if cut.End, err = cohort.ParseDate(c.Observation); err != nil {
			return cut, cli.Usage(fmt.Errorf("--observation-end: %w", err))
		}
	}
	if calibration != "" {
		cut.Split = true
		if cut.Calibration, err = cohort.ParseDate(calibration); err != nil {
			return cut, cli.Usage(fmt.Errorf("--calibration-end: %w", err))
		}
	}
	return cut, nil
}

// counting counts what is read, until ctx is over.
type counting struct {
	io.Reader
	ctx context.Context
	n   atomic.Int64
}

func (c *counting) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

type summaryCmd struct {
	logFlags

	Calibration  string `name:"calibration-end" help:"Summarise as of this day, and count the purchases after it until the end of observation as holdout." placeholder:"DATE"`
	Segmentation bool   `help:"The form for segments instead: frequency counts all purchases, recency is the time since the last one, there is no T."`
	As           string `help:"csv or ndjson." enum:"csv,ndjson" default:"csv"`
	Output       string `short:"o" help:"Write to this file instead of the terminal." placeholder:"FILE"`
}

func (c *summaryCmd) Help() string {
	return `Writes one row per customer, sorted by ID: x repeat purchases, t_x from the first to the last, T from the first to the end of observation, and the mean value of the repeat purchases above zero (their number is value_days, their sum value_sum_minor; the first purchase is left out; 0 where there are none). Needs neither Kafka nor Redis.

` + logHelp + `

  tierctl summary CDNOW_sample.txt --zero-orders count --unit week --calibration-end 1997-09-30
  tierctl summary orders.csv --customer-column id --date-column date --value-column price -o summary.csv
  producer-sim generate --events 20000 --dry-run | tierctl summary - --as ndjson`
}

func (c *summaryCmd) Run(ctx context.Context, t *terminal) error {
	if c.Segmentation && c.Calibration != "" {
		return cli.Usage(errors.New("--segmentation is of one period: it has no holdout"))
	}
	log, err := c.read(ctx, t)
	if err != nil {
		return err
	}
	cut, err := c.cut(log, c.Calibration)
	if err != nil {
		return err
	}
	all, err := log.Summaries(cut)
	if err != nil {
		return err
	}
	if err := c.save(t, all, &cut); err != nil {
		return fmt.Errorf("writing summaries: %w", err)
	}
	once := 0
	for i := range all {
		if all[i].X == 0 {
			once++
		}
	}
	t.note("%s customers as of %s, %s of them bought once", grouped(int64(len(all))), cohort.Date(cut.SummaryEnd()), grouped(int64(once)))
	if once == len(all) {
		t.note("warning: nobody bought twice; is %s the customer's column?", strconv.Quote(log.CustomerColumn))
	}
	return nil
}

// save writes to the terminal, or to a file that nobody sees half of.
func (c *summaryCmd) save(t *terminal, all []cohort.Summary, cut *cohort.Cut) (err error) {
	if c.Output == "" {
		return c.write(t.out, all, cut)
	}
	return writeWhole(c.Output, func(w io.Writer) error { return c.write(w, all, cut) })
}

// writeWhole writes a file under another name, and renames it when it is whole.
func writeWhole(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if err := errors.Join(write(f), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// field is a column of the output: a text or a number as it is written.
type field struct {
	name, text string
	quoted     bool // in JSON
}

// fields are a customer's row.
func (c *summaryCmd) fields(s *cohort.Summary, split bool) []field {
	number := func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
	count := func(n int64) string { return strconv.FormatInt(n, 10) }
	f := []field{{"customer", s.Customer, true}}
	if c.Segmentation {
		f = append(f,
			field{"recency", number(s.T - s.TX), false}, field{"frequency", strconv.Itoa(s.X + 1), false},
			field{"monetary_minor", number(float64(s.Net) / float64(s.X+1)), false})
	} else {
		f = append(f,
			field{"x", strconv.Itoa(s.X), false}, field{"t_x", number(s.TX), false}, field{"T", number(s.T), false},
			field{"mean_value_minor", number(s.MeanValue()), false}, field{"value_days", strconv.Itoa(s.ValueDays), false},
			field{"value_sum_minor", count(s.ValueSum), false})
	}
	f = append(f, field{"orders", strconv.Itoa(s.Orders), false}, field{"net_minor", count(s.Net), false},
		field{"first_day", cohort.Date(s.First), true}, field{"last_day", cohort.Date(s.Last), true})
	if split {
		f = append(f, field{"holdout", strconv.Itoa(s.Holdout), false}, field{"holdout_value_minor", count(s.HoldoutValue), false})
	}
	return f
}

func (c *summaryCmd) write(to io.Writer, all []cohort.Summary, cut *cohort.Cut) error {
	w := bufio.NewWriterSize(to, 1<<16)
	rows := csv.NewWriter(w)
	for i := range all {
		fields := c.fields(&all[i], cut.Split)
		if c.As == "csv" {
			if i == 0 {
				if err := rows.Write(mapped(fields, func(f field) string { return f.name })); err != nil {
					return err
				}
			}
			if err := rows.Write(mapped(fields, func(f field) string { return f.text })); err != nil {
				return err
			}
			continue
		}
		line := mapped(fields, func(f field) string {
			text := f.text
			if f.quoted {
				b, _ := json.Marshal(text) // a string always marshals
				text = string(b)
			}
			return strconv.Quote(f.name) + ":" + text
		})
		if _, err := fmt.Fprintf(w, "{%s}\n", strings.Join(line, ",")); err != nil {
			return err
		}
	}
	rows.Flush()
	return errors.Join(rows.Error(), w.Flush())
}

func mapped(fields []field, fn func(field) string) []string {
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = fn(f)
	}
	return out
}
