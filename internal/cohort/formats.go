// Package cohort reads transaction logs in several formats and summarises each
// customer as the models of repeat buying want it: x repeat purchase days, t_x
// from the first to the last, T from the first to the end of observation, and
// the value of the repeat days; on request with a holdout behind a cut.
//
// It is the batch reading of what package customer computes event by event, and
// shares no code with it. Rows may come in any order. Memory grows with the
// number of orders, not with the size of the file, but for CDNOW and UCI, which
// are read whole.
package cohort

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/scoring"
	"github.com/tierstream/tierstream/internal/sim"
)

// Format is the form of a transaction log.
type Format string

// The formats. Any of them may be compressed with gzip.
const (
	// NDJSON is events as lines of JSON, in every form that [sim.NDJSON] reads.
	// Purchases and returns count, other events are passed over.
	NDJSON Format = "ndjson"
	// CDNOW is the CDNOW log, master file or sample.
	CDNOW Format = "cdnow"
	// UCI is the UCI "Online Retail" log by the rules of internal/sim/UCI.md.
	UCI Format = "uci"
	// CSV has a header that names the columns, one purchase per row, and
	// commas, semicolons or tabs between.
	CSV Format = "csv"
)

// Options say how to read a log. The zero value detects the format and the
// columns where that is safe.
type Options struct {
	Format Format

	// Of CSV: the columns. Empty: the one column of the header that has a usual
	// name. ValueColumn "-": there are no values, and every row counts.
	CustomerColumn, DateColumn, ValueColumn string
	// DateFormat is that of the date column in the letters YYYY MM DD hh mm ss,
	// such as DD/MM/YYYY. Empty: YYYY-MM-DD or YYYYMMDD, with or without a time
	// of day, or RFC 3339. A date alone means 12:00.
	DateFormat string

	// Zone is the IANA zone whose midnights separate days, and that of times
	// without an offset. Empty: UTC; of UCI Europe/London.
	Zone string
	// Currency is the base currency. Empty: that of the first event; of CSV EUR,
	// of which only the two decimals matter.
	Currency string
	// CountZero counts purchases of zero money as purchase days (zero_orders:
	// count); they never count as value. False: they are left out.
	CountZero bool

	// Bad is told of rows that cannot be used, and why. Nil, or an error that it
	// returns, ends the reading.
	Bad func(line int64, err error) error
}

// A Reader reads one log. Its options are completed by what was detected; the
// columns and the currency of a CSV with the first row.
type Reader struct {
	Options
	in   *bufio.Reader
	head []byte
	zone *time.Location
	days *scoring.Calendar
}

// Open looks at the beginning of a log.
func Open(in io.Reader, o Options) (*Reader, error) {
	r := &Reader{Options: o, in: bufio.NewReaderSize(in, 1<<16)}
	if magic, _ := r.in.Peek(2); string(magic) == "\x1f\x8b" {
		unzipped, err := gzip.NewReader(r.in)
		if err != nil {
			return nil, err
		}
		r.in = bufio.NewReaderSize(unzipped, 1<<16)
	}
	head, err := r.in.Peek(1 << 12)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	r.head = bytes.Clone(head)
	if len(bytes.TrimSpace(head)) == 0 {
		return nil, errors.New("the log is empty")
	}
	if r.Format == "" {
		if r.Format = detect(head); r.Format == "" {
			return nil, errors.New("the format is not recognised: name it (ndjson, cdnow, uci or csv)")
		}
	}
	if r.Zone == "" {
		r.Zone = "UTC"
		if r.Format == UCI {
			r.Zone = "Europe/London"
		}
	}
	if r.zone, err = time.LoadLocation(r.Zone); err == nil {
		r.days, err = scoring.NewCalendar(r.Zone)
	}
	if err != nil {
		return nil, fmt.Errorf("zone: %w", err)
	}
	return r, nil
}

// Day is the local date of an instant (Unix milliseconds) as days since
// 1970-01-01.
func (r *Reader) Day(ms int64) int32 { return r.days.Day(ms) }

// Each hands out the purchases and returns in the order in which the log has
// them (CDNOW and UCI: by time), with the line of each (0 where the event's ID
// names it). An event is valid during the call only.
func (r *Reader) Each(fn func(line int64, ev *event.Event) error) error {
	switch r.Format {
	case NDJSON:
		return r.ndjson(fn)
	case CDNOW:
		messages, err := sim.ParseCDNOW(r.in, r.zone)
		if err != nil {
			return err
		}
		return each(messages, fn)
	case UCI:
		messages, _, err := sim.ParseUCI(r.in, r.zone)
		if err != nil {
			return err
		}
		return each(messages, fn)
	case CSV:
		return r.csv(fn)
	}
	return fmt.Errorf("unknown format %q: want ndjson, cdnow, uci or csv", r.Format)
}

// firstLine is the first line of a log, without a byte order mark.
func firstLine(head []byte) string {
	line, _, _ := strings.Cut(string(bytes.TrimPrefix(head, []byte("\ufeff"))), "\n")
	return strings.TrimSpace(line)
}

// detect tells a format by the beginning of a log; "" when it cannot.
func detect(head []byte) Format {
	line := firstLine(bytes.TrimLeft(head, " \r\n"))
	words := strings.Fields(line)
	digits := func(i, n int) bool { return len(words[i]) == n && strings.Trim(words[i], "0123456789") == "" }
	switch {
	case strings.HasPrefix(line, "{"):
		return NDJSON
	case strings.Contains(line, "InvoiceNo") && strings.Contains(line, "StockCode"):
		return UCI
	case strings.Join(words, " ") == "customer_id date number_of_cds dollar_value",
		len(words) == 5 && digits(0, 5) && digits(1, 4) && digits(2, 8):
		return CDNOW
	case strings.ContainsAny(line, ",;\t"):
		return CSV
	}
	return ""
}

// each hands out what a reader of package sim has made.
func each(messages []sim.Message, fn func(line int64, ev *event.Event) error) error {
	for i := range messages {
		if err := fn(0, &messages[i].Event); err != nil {
			return err
		}
	}
	return nil
}

// bad tells of a row that cannot be used.
func (r *Reader) bad(line int64, err error) error {
	if r.Bad == nil {
		return fmt.Errorf("line %d: %w", line, err)
	}
	return r.Bad(line, err)
}

// maxLine bounds a line of JSON, as a record of 1 MiB may be in base64.
const maxLine = 2 << 20

func (r *Reader) ndjson(fn func(line int64, ev *event.Event) error) error {
	lines := bufio.NewScanner(r.in)
	lines.Buffer(nil, maxLine)
	d := event.NewDecoder(event.Limits{})
	now := time.Now().UnixMilli()
	var n sim.NDJSON
	var line int64
	for lines.Scan() {
		line++
		text := bytes.TrimSpace(lines.Bytes())
		if len(text) == 0 {
			continue
		}
		m, err := n.Message(text)
		if err == nil {
			var ev event.Event
			record := &event.Message{Key: m.Raw.Key, Value: m.Raw.Value, Headers: m.Raw.Headers, Timestamp: min(cmp.Or(m.At, now), now)}
			if refusal := d.Decode(record, &ev); refusal != nil {
				err = refusal
			} else if !event.KeyMatches(record, &ev) {
				err = &event.Refusal{Code: event.Misrouted, Field: "key", Detail: fmt.Sprintf("the record key %.40q is not the subject %.40q", record.Key, ev.Customer)}
			} else if ev.Type == event.Purchase || ev.Type == event.Return {
				if err := fn(line, &ev); err != nil {
					return err
				}
			}
		}
		if err != nil {
			if err := r.bad(line, err); err != nil {
				return err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("line %d: %w", line+1, err)
	}
	return nil
}

// Usual names of columns, without regard to case. id is not among them: in most
// files it names the order.
var (
	customerNames = []string{"customer", "customer_id", "customerid", "cust", "cust_id", "client", "client_id", "user_id"}
	dateNames     = []string{"date", "order_date", "orderdate", "purchase_date", "transaction_date", "datetime", "timestamp", "time"}
	valueNames    = []string{"value", "amount", "revenue", "price", "sales", "total"}
)

// separator is the one of comma, semicolon and tab that a header has most of.
func separator(header string) rune {
	best := ','
	for _, c := range ";\t" {
		if strings.Count(header, string(c)) > strings.Count(header, string(best)) {
			best = c
		}
	}
	return best
}

// column finds a column by its name or, if that is empty, by usual names; -1
// when there is none.
func column(header []string, flag, name string, usual []string) (int, error) {
	if name != "" {
		if i := slices.Index(header, name); i >= 0 {
			return i, nil
		}
		return -1, fmt.Errorf("no %s column %q: the header has %s", flag, name, strings.Join(header, ", "))
	}
	found := -1
	for i, h := range header {
		if !slices.Contains(usual, strings.ToLower(h)) {
			continue
		}
		if found >= 0 {
			return -1, fmt.Errorf("%s and %s may both be the %s column: name it", header[found], h, flag)
		}
		found = i
	}
	return found, nil
}

func (r *Reader) csv(fn func(line int64, ev *event.Event) error) error {
	rows := csv.NewReader(r.in)
	rows.Comma, rows.ReuseRecord, rows.FieldsPerRecord = separator(firstLine(r.head)), true, -1
	header, err := rows.Read()
	if err != nil {
		return fmt.Errorf("header: %w", err)
	}
	header = slices.Clone(header)
	header[0] = strings.TrimPrefix(header[0], "\ufeff")
	for i := range header {
		header[i] = strings.TrimSpace(header[i])
	}
	who, err := column(header, "customer", r.CustomerColumn, customerNames)
	if err != nil {
		return err
	}
	when, err := column(header, "date", r.DateColumn, dateNames)
	if err != nil {
		return err
	}
	if who < 0 || when < 0 {
		return fmt.Errorf("which columns are customer and date? The header has %s", strings.Join(header, ", "))
	}
	worth := -1
	if r.ValueColumn != "-" {
		if worth, err = column(header, "value", r.ValueColumn, valueNames); err != nil {
			return err
		}
	}
	r.CustomerColumn, r.DateColumn, r.ValueColumn = header[who], header[when], "-"
	if worth >= 0 {
		r.ValueColumn = header[worth]
	} else {
		r.CountZero = true
	}
	r.Currency = cmp.Or(r.Currency, "EUR")

	layouts := layouts(r.DateFormat)
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err // names the line itself
		}
		at, _ := rows.FieldPos(0)
		line := int64(at)
		ev, err := r.row(row, len(header), who, when, worth, layouts)
		if err == nil {
			ev.ID = "csv:L" + strconv.FormatInt(line, 10)
			ev.BusinessID = ev.ID
			err = fn(line, ev)
		} else {
			err = r.bad(line, err)
		}
		if err != nil {
			return err
		}
	}
}

// row is the purchase of one row.
func (r *Reader) row(row []string, columns, who, when, worth int, layouts []string) (*event.Event, error) {
	if len(row) != columns {
		return nil, fmt.Errorf("%d columns, the header has %d", len(row), columns)
	}
	ev := &event.Event{Type: event.Purchase, Source: "file", Customer: strings.Clone(strings.TrimSpace(row[who])), Currency: r.Currency, HasAmount: true}
	if ev.Customer == "" {
		return nil, fmt.Errorf("the customer is missing (column %s)", r.CustomerColumn)
	}
	at, err := parseTime(strings.TrimSpace(row[when]), layouts, r.zone)
	if err != nil {
		return nil, err
	}
	if at.After(time.Now().Add(24 * time.Hour)) { // a date alone may be today's
		return nil, fmt.Errorf("date %s is in the future", row[when])
	}
	ev.Time = at.UnixMilli()
	if worth >= 0 {
		if ev.Amount, err = parseValue(strings.TrimSpace(row[worth]), r.Currency); err != nil {
			return nil, err
		}
		if ev.Amount < 0 {
			return nil, fmt.Errorf("value %s: a return belongs to the day of its order, which a row cannot name; events can (return, order_id)", row[worth])
		}
	}
	return ev, nil
}

// parseValue reads money as minor units, half to even where there are more
// decimals than the currency has: 118.22999999999999 is what a float leaves.
func parseValue(s, currency string) (int64, error) {
	exponent, _ := event.Exponent(currency)
	whole, decimals, _ := strings.Cut(s, ".")
	if len(decimals) <= exponent || strings.Trim(decimals, "0123456789") != "" {
		return event.ParseMoney(s, currency)
	}
	kept, rest := whole, decimals[exponent:]
	if exponent > 0 {
		kept += "." + decimals[:exponent]
	}
	minor, err := event.ParseMoney(kept, currency)
	if err != nil {
		return 0, err
	}
	half := "5" + strings.Repeat("0", len(rest)-1)
	if rest > half || rest == half && minor%2 != 0 {
		if strings.HasPrefix(s, "-") {
			return minor - 1, nil
		}
		return minor + 1, nil
	}
	return minor, nil
}

// layouts are those of package time for a date format.
func layouts(format string) []string {
	if format != "" {
		return []string{strings.NewReplacer("YYYY", "2006", "MM", "01", "DD", "02", "hh", "15", "mm", "04", "ss", "05").Replace(format)}
	}
	return []string{time.DateOnly, time.DateTime, "20060102", time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04"}
}

// parseTime reads a date, which means 12:00, or a time.
func parseTime(s string, layouts []string, zone *time.Location) (time.Time, error) {
	for _, l := range layouts {
		t, err := time.ParseInLocation(l, s, zone)
		if err != nil {
			continue
		}
		if !strings.Contains(l, "15") {
			t = time.Date(t.Year(), t.Month(), t.Day(), 12, 0, 0, 0, zone)
		}
		return t, nil
	}
	return time.Time{}, fmt.Errorf("date %q is not understood: want YYYY-MM-DD, YYYYMMDD or a time, or say the date format", s)
}
