package cohort

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/tierstream/tierstream/internal/testenv"
)

func open(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Open(filepath.Join(testenv.DataDir(t), filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("no data set %s: %v", name, err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func date(t *testing.T, s string) int32 {
	t.Helper()
	d, err := ParseDate(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestCDNOWIsAsPublished compares with the summary that two libraries ship:
// times in weeks to two decimals, and the mean of the repeat purchases, free
// ones included, to a cent.
func TestCDNOWIsAsPublished(t *testing.T) {
	log, err := Read(open(t, "cdnow/CDNOW_sample.txt"), Options{CountZero: true})
	if err != nil {
		t.Fatal(err)
	}
	all, err := log.Summaries(Cut{Split: true, Calibration: date(t, "1997-09-30"), End: date(t, "1998-06-30"), Unit: Weeks})
	if err != nil {
		t.Fatal(err)
	}
	published, err := csv.NewReader(open(t, "cdnow/cdnow_customers_summary_with_transactions.csv")).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	// The sample file has both the master's IDs, ours, and its own, theirs.
	theirs := map[string]string{}
	for lines := bufio.NewScanner(open(t, "cdnow/CDNOW_sample.txt")); lines.Scan(); {
		f := strings.Fields(lines.Text())
		theirs[f[0]] = strings.TrimLeft(f[1], "0")
	}
	rows := map[string][]string{}
	for _, row := range published {
		rows[row[0]] = row
	}
	if len(all) != 2_357 || len(published) != len(all)+1 {
		t.Fatalf("%d customers, %d published, want 2357", len(all), len(published)-1)
	}
	x, buyers, holdout := 0, 0, 0
	for _, s := range all {
		row := rows[theirs[s.Customer]]
		mean := 0.0
		if s.X > 0 {
			mean = float64(s.ValueSum) / float64(s.X) / 100
			buyers++
		}
		if strconv.Itoa(s.X) != row[1] || !near(s.TX, row[2], 0.0051) || !near(s.T, row[3], 0.0051) || !near(mean, row[4], 0.0051) {
			t.Errorf("customer %s: x %d t_x %.4f T %.4f mean %.4f, published %v", s.Customer, s.X, s.TX, s.T, mean, row)
		}
		x += s.X
		holdout += s.Holdout
	}
	// SOURCE.md beside the data: sums known from BTYD and lifetimes.
	if x != 2_457 || buyers != 946 || holdout != 1_882 {
		t.Errorf("Σ x %d, %d repeat buyers, Σ holdout %d; want 2457, 946, 1882", x, buyers, holdout)
	}
}

func near(got float64, want string, tolerance float64) bool {
	w, err := strconv.ParseFloat(want, 64)
	return err == nil && math.Abs(got-w) <= tolerance
}

// texts are summaries as "customer x t_x T orders net valueDays/valueSum holdout".
func texts(all []Summary) (out []string) {
	for _, s := range all {
		out = append(out, fmt.Sprintf("%s %d %.4g %.4g %d %d %d/%d %d", s.Customer, s.X, s.TX, s.T, s.Orders, s.Net, s.ValueDays, s.ValueSum, s.Holdout))
	}
	return out
}

func read(t *testing.T, text string, o Options) *Log {
	t.Helper()
	log, err := Read(strings.NewReader(text), o)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// TestRules: one day counts once, the order of rows does not matter, free orders, the cut.
func TestRules(t *testing.T) {
	rows := []string{
		"b,2026-01-05,10", // all on the first day: x is 0
		"b,2026-01-05,5.50",
		"a,2026-01-01,100",
		"a,2026-01-08,20",
		"a,2026-01-08,0", // free, on a day that counts anyway
		"a,2026-01-10,0", // free
		"a,2026-01-15,30",
		"c,2026-01-12,1", // born in the holdout
	}
	text := "customer,date,value\n" + strings.Join(rows, "\n") + "\n"
	var reversed strings.Builder
	reversed.WriteString("value;customer;date\n")
	for i := len(rows) - 1; i >= 0; i-- {
		c := strings.Split(rows[i], ",")
		fmt.Fprintf(&reversed, "%s;%s;%sT00:30:00\n", c[2], c[0], c[1])
	}
	cut := Cut{End: date(t, "2026-01-15"), Split: true, Calibration: date(t, "2026-01-10")}
	for _, c := range []struct {
		what string
		zero bool
		cut  Cut
		want []string
	}{
		{"whole", false, Cut{End: cut.End}, []string{"a 2 14 14 3 15000 2/5000 0", "b 0 0 10 2 1550 0/0 0", "c 0 0 3 1 100 0/0 0"}},
		{"zero counted", true, Cut{End: cut.End}, []string{"a 3 14 14 5 15000 2/5000 0", "b 0 0 10 2 1550 0/0 0", "c 0 0 3 1 100 0/0 0"}},
		{"split", false, cut, []string{"a 1 7 9 2 12000 1/2000 1", "b 0 0 5 2 1550 0/0 0"}},
		{"split, zero counted", true, cut, []string{"a 2 9 9 4 12000 1/2000 1", "b 0 0 5 2 1550 0/0 0"}},
		{"weeks", false, Cut{End: cut.End, Unit: Weeks}, []string{"a 2 2 2 3 15000 2/5000 0", "b 0 0 1.429 2 1550 0/0 0", "c 0 0 0.4286 1 100 0/0 0"}},
		// Calendar weeks: a bought in those of Dec 29, Jan 5 and Jan 12.
		{"calendar weeks", false, Cut{End: cut.End, Unit: Weeks, Period: PerWeek}, []string{"a 2 2 2 3 15000 2/5000 0", "b 0 0 1 2 1550 0/0 0", "c 0 0 0 1 100 0/0 0"}},
	} {
		for _, input := range []string{text, reversed.String()} {
			all, err := read(t, input, Options{CountZero: c.zero}).Summaries(c.cut)
			if err != nil {
				t.Fatal(err)
			}
			if got := texts(all); !reflect.DeepEqual(got, c.want) {
				t.Errorf("%s: got %q, want %q", c.what, got, c.want)
			}
		}
	}
}

// TestDaysAreLocal: the same instants are other days elsewhere.
func TestDaysAreLocal(t *testing.T) {
	text := "cust,time\nz,2026-01-01T23:30:00Z\nz,2026-01-02T00:30:00Z\n"
	for zone, want := range map[string]string{"": "z 1 1 1 2 0 0/0 0", "Europe/Berlin": "z 0 0 0 2 0 0/0 0"} {
		log := read(t, text, Options{Zone: zone})
		all, err := log.Summaries(log.Until())
		if err != nil {
			t.Fatal(err)
		}
		if got := texts(all); len(got) != 1 || got[0] != want {
			t.Errorf("in zone %q: %q, want %q", zone, got, want)
		}
	}
}

func eventLine(typ, id, at, data string) string {
	return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/s","type":"io.tierstream.%s.v1","time":%q,"subject":"k","datacontenttype":"application/json","data":%s}`, id, typ, at, data)
}

// TestReturnsLeaveTheDayOfTheirOrder: a return lowers the day of its order from
// the day it was made on; an order returned whole was never bought; a holdout
// does not reach back into the calibration.
func TestReturnsLeaveTheDayOfTheirOrder(t *testing.T) {
	lines := []string{
		eventLine("purchase", "1", "2026-01-01T10:00:00Z", `{"order_id":"o1","amount_minor":1000,"currency":"EUR"}`),
		eventLine("purchase", "2", "2026-01-05T10:00:00Z", `{"order_id":"o2","amount_minor":700,"currency":"EUR"}`),
		eventLine("purchase", "3", "2026-01-09T10:00:00Z", `{"order_id":"o3","amount_minor":900,"currency":"USD","fx_rate":"0.5"}`),
		eventLine("return", "4", "2026-01-12T10:00:00Z", `{"return_id":"r1","order_id":"o1","amount_minor":1000,"currency":"EUR"}`),
		eventLine("return", "5", "2026-01-13T10:00:00Z", `{"return_id":"r2","order_id":"o3","amount_minor":301,"currency":"USD"}`),
		eventLine("purchase", "6", "2026-01-14T10:00:00Z", `{"order_id":"o6","amount_minor":50,"currency":"EUR"}`),
	}
	again := eventLine("purchase", "2", "2026-01-05T10:00:00Z", `{"order_id":"o2","amount_minor":700,"currency":"EUR"}`)
	renamed := eventLine("purchase", "7", "2026-01-05T10:00:00Z", `{"order_id":"o2","amount_minor":700,"currency":"EUR"}`)
	orphan := eventLine("return", "8", "2026-01-13T10:00:00Z", `{"return_id":"r8","order_id":"o9","amount_minor":1,"currency":"EUR"}`)
	unpaid := eventLine("purchase", "9", "2026-01-02T10:00:00Z", `{"order_id":"o8","amount_minor":5,"currency":"EUR","status":"failed"}`)
	other := eventLine("complaint", "10", "2026-01-13T10:00:00Z", `{"complaint_id":"c","severity":3,"status":"opened"}`)
	end := date(t, "2026-01-14")
	for _, order := range [][]string{append([]string{again, orphan, unpaid}, append(lines, renamed, other)...), {lines[4], lines[3], again, unpaid, other, lines[5], renamed, lines[2], lines[1], orphan, lines[0]}} {
		log := read(t, strings.Join(order, "\n")+"\n", Options{Currency: "EUR"})
		if want := (Counts{Purchases: 4, Returns: 2, Duplicates: 2, Orphans: 1, Ignored: 1}); log.Counts != want {
			t.Errorf("counts %+v, want %+v", log.Counts, want)
		}
		for _, c := range []struct {
			cut  Cut
			want string
		}{
			{Cut{End: date(t, "2026-01-11")}, "k 2 8 10 3 2150 2/1150 0"}, // 900 USD are 450 EUR
			{Cut{End: end}, "k 2 9 9 3 1050 2/350 0"},                     // 450 − 150 (150.5, half to even) = 300
			{Cut{End: end, Split: true, Calibration: date(t, "2026-01-11")}, "k 2 8 10 3 2150 2/1150 1"},
		} {
			all, err := log.Summaries(c.cut)
			if err != nil {
				t.Fatal(err)
			}
			if got := texts(all); len(got) != 1 || got[0] != c.want {
				t.Errorf("%+v: %q, want %q", c.cut, got, c.want)
			}
		}
	}
}

func matches(text, want string) bool { return regexp.MustCompile(want).MatchString(text) }

// TestBadInputIsNamed: what cannot be used ends the reading with its line, or is
// left out and counted; nothing is guessed at.
func TestBadInputIsNamed(t *testing.T) {
	const head = "customer,date,value\na,2026-01-01,1\n"
	purchase := func(id, amount, currency string) string {
		return eventLine("purchase", id, "2026-01-01T10:00:00Z", `{"order_id":"o`+id+`","amount_minor":`+amount+`,"currency":"`+currency+`"}`) + "\n"
	}
	for _, c := range []struct {
		text, want string
		o          Options
	}{
		{"", "the log is empty", Options{}},
		{"  \n", "the log is empty", Options{}},
		{"just words\n", "not recognised", Options{}},
		{"customer,date,value\n", "no purchases", Options{}},
		{"customer,date,value\na,2026-01-01,0\n", "no purchases: 0 duplicates, 1 of zero money", Options{}},
		{head + "b,2026-13-01,1\n", `line 3: date "2026-13-01"`, Options{}},
		{head + "b,01/02/2026,1\n", `line 3: date "01/02/2026"`, Options{}},
		{head + "b,2999-01-01,1\n", "line 3: date 2999-01-01 is in the future", Options{}},
		{head + "b,2026-01-01,-1\n", "line 3: value -1: a return belongs", Options{}},
		{head + "b,2026-01-01,1e3\n", "line 3: .*not a decimal", Options{}},
		{head + "b,2026-01-01,NaN\n", "line 3: .*not a decimal", Options{}},
		{head + ",2026-01-01,1\n", "line 3: the customer is missing", Options{}},
		{head + "b,2026-01-01\n", "line 3: 2 columns, the header has 3", Options{}},
		{"id,date\n1,2026-01-01\n", "which columns are customer and date", Options{}},
		{"cust,customer,date\n1,1,2026-01-01\n", "cust and customer may both be", Options{}},
		{head, `no customer column "who"`, Options{CustomerColumn: "who"}},
		{purchase("1", "5", "EUR") + purchase("2", "5", "USD"), "line 2: an amount in USD, where the log is in EUR", Options{}},
		{purchase("1", "5", "EUR") + purchase("1", "6", "EUR"), "line 2: event 1 of /s again, with another content", Options{}},
		{purchase("1", "5", "EUR") + eventLine("purchase", "2", "2200-01-01T10:00:00Z", `{"order_id":"o2","amount_minor":5,"currency":"EUR"}`), "line 2: future_time", Options{}},
		{purchase("1", "0.5", "EUR"), "line 1: bad_amount amount_minor", Options{}},
		{purchase("1", "5", "EUR") + `{"specversion":"1.0"}` + "\n", "line 2: missing_field", Options{}},
		{purchase("1", "5", "EUR") + eventLine("return", "2", "2026-01-02T10:00:00Z", `{"return_id":"r","order_id":"o1","amount_minor":6,"currency":"EUR"}`), "line 2: return r: the returns of order o1 add up to more", Options{}},
		{" 00001 19970101 1 11.7\n", "line 1: amount", Options{Format: CDNOW}},
		{head, "zone", Options{Zone: "Mars"}},
		{head, "unknown format", Options{Format: "xml"}},
	} {
		_, err := Read(strings.NewReader(c.text), c.o)
		if err == nil || !matches(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
			continue
		}
		if !strings.HasPrefix(c.want, "line 3") && !strings.HasPrefix(c.want, "line 2") {
			continue
		}
		said := ""
		c.o.Bad = func(line int64, err error) error {
			said = fmt.Sprintf("line %d: %v", line, err)
			return nil
		}
		log, err := Read(strings.NewReader(c.text), c.o)
		if err != nil || log.Counts.Bad != 1 || log.Counts.Purchases != 1 || !matches(said, c.want) {
			t.Errorf("%q, bad rows left out: %v, %v, %q", c.text, log, err, said)
		}
	}
}

// TestValuesAreRounded: half to even where floats left more decimals.
func TestValuesAreRounded(t *testing.T) {
	for _, c := range []struct {
		text, currency string
		want           int64
	}{
		{"118.22999999999999", "EUR", 11823}, {"0.125", "EUR", 12}, {"0.135", "EUR", 14}, {"0.1251", "EUR", 13},
		{"-0.006", "EUR", -1}, {"7", "EUR", 700}, {"7.5", "JPY", 8}, {"8.5", "JPY", 8},
	} {
		if got, err := parseValue(c.text, c.currency); err != nil || got != c.want {
			t.Errorf("%s %s is %d (%v), want %d", c.text, c.currency, got, err, c.want)
		}
	}
}

// TestFormatsAreRecognised, and what is not safe is not guessed.
func TestFormatsAreRecognised(t *testing.T) {
	for text, want := range map[string]Format{
		"{\"specversion\"": NDJSON,
		" customer_id  date number_of_cds  dollar_value\n": CDNOW,
		" 00004 0001 19970101  2   29.33\n":                CDNOW,
		"InvoiceNo,StockCode,Description,Quantity\n":       UCI,
		"cust,date\n":   CSV,
		"cust\tdate\n":  CSV,
		"hello world\n": "",
		"1 2 3 4 5\n":   "",
	} {
		if got := detect([]byte(text)); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}
