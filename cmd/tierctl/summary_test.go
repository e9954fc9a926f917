package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/testenv"
)

// logFile writes a log into a file.
func logFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const fewOrders = `customer,date,amount
b,2026-01-05,10
a,2026-01-08,20.00
a,2026-01-01,100
"c,1",2026-01-12,1
a,2026-01-15,30.50
`

func TestSummaryWritesARowPerCustomer(t *testing.T) {
	path := logFile(t, "orders.csv", fewOrders)
	out, said, err := command(t, "summary", path, "--calibration-end", "2026-01-10")
	if err != nil {
		t.Fatal(err)
	}
	if want := `customer,x,t_x,T,mean_value_minor,value_days,value_sum_minor,orders,net_minor,first_day,last_day,holdout,holdout_value_minor
a,1,7,9,2000,1,2000,2,12000,2026-01-01,2026-01-08,1,3050
b,0,0,5,0,0,0,1,1000,2026-01-05,2026-01-05,0,0
`; out != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
	contains(t, said, `csv: 5 purchases; 2026-01-01 to 2026-01-15 in UTC`, `2 customers as of 2026-01-10, 1 of them bought once`)

	file := filepath.Join(t.TempDir(), "summary.ndjson")
	if _, _, err := command(t, "summary", path, "--segmentation", "--as", "ndjson", "-o", file); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if want := `{"customer":"a","recency":0,"frequency":3,"monetary_minor":5016.666666666667,"orders":3,"net_minor":15050,"first_day":"2026-01-01","last_day":"2026-01-15"}
{"customer":"b","recency":10,"frequency":1,"monetary_minor":1000,"orders":1,"net_minor":1000,"first_day":"2026-01-05","last_day":"2026-01-05"}
{"customer":"c,1","recency":3,"frequency":1,"monetary_minor":100,"orders":1,"net_minor":100,"first_day":"2026-01-12","last_day":"2026-01-12"}
`; err != nil || string(b) != want {
		t.Errorf("%v, got\n%s\nwant\n%s", err, b, want)
	}
}

func TestSummarySaysWhatIsWrong(t *testing.T) {
	bad := logFile(t, "bad.csv", fewOrders+"d,2026-02-30,1\n")
	if out, _, err := command(t, "summary", bad); err == nil || out != "" || !strings.Contains(err.Error(), `bad.csv: line 7: date "2026-02-30"`) {
		t.Errorf("a date that is none: %v, %q", err, out)
	}
	_, said, err := command(t, "summary", bad, "--skip-bad")
	if err != nil {
		t.Fatal(err)
	}
	contains(t, said, "1 rows left out that cannot be used", "line 7: date")
	once := logFile(t, "once.csv", "customer,date\na,2026-01-01\n")
	if _, said, err = command(t, "summary", once); err != nil {
		t.Fatal(err)
	}
	contains(t, said, `nobody bought twice; is "customer" the customer's column\?`)
	for _, args := range [][]string{
		{"--period", "week"}, {"--calibration-end", "01.02.2026"}, {"--observation-end", "x"}, {"--segmentation", "--calibration-end", "2026-01-10"},
	} {
		if _, _, err := command(t, append([]string{"summary", once}, args...)...); !cli.IsUsage(err) {
			t.Errorf("%q: %v, want a wrong command line", args, err)
		}
	}
	if _, _, err := command(t, "summary", once, "--calibration-end", "2026-01-01"); err == nil || !strings.Contains(err.Error(), "want a day before the end of observation") {
		t.Errorf("no holdout: %v", err)
	}
}

// dataFile is a public data set, or skips the test.
func dataFile(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(testenv.DataDir(t), filepath.FromSlash(name))
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		t.Skipf("no data set %s: %v", name, err)
	}
	return path
}
