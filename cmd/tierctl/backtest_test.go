package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tierstream/tierstream/internal/cli"
)

// TestBacktestOfCDNOW runs the example of the help.
func TestBacktestOfCDNOW(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.html")
	args := []string{"backtest", dataFile(t, "cdnow/CDNOW_sample.txt"), "--zero-orders", "count", "--unit", "week", "--calibration-end", "1997-09-30"}
	out, said, err := command(t, append(args, "--models", "MBG/NBD", "--html", path, "--customer", "00111")...)
	if err != nil {
		t.Fatal(err)
	}
	contains(t, out, `2357 customers as of 1997-09-30, 946 of them bought again; 1882 purchases in the 39 weeks until 1998-06-30`,
		`(?m)^ +model +ln L +predicted +bias +MAE +RMSE +correlation +log score$`,
		`(?m)^ +naive +– +2930\.1 +\+55\.7 % +1\.0237 +2\.2119 +0\.5839 +-\d\.\d{4}$`,
		`(?m)^ +MBG/NBD +-9582\.1 +1576\.\d +-16\.2 % +0\.7648`,
		`(?m)^ +actual +0\.2367 +0\.6970 +1\.3925`, `(?m)^MBG/NBD: r 0\.52\d+ \(±`)
	contains(t, said, "cdnow: 6,919 purchases", "fitting MBG/NBD")
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	contains(t, string(page), "<h1>Backtest of CDNOW_sample.txt</h1>", "<svg", "One customer: 00111", "2930.1")

	out, _, err = command(t, append(args, "--models", "none", "--json")...)
	var result struct {
		Actual  int
		Results []struct{ Name string }
	}
	if err != nil || json.Unmarshal([]byte(out), &result) != nil || result.Actual != 1882 || len(result.Results) != 1 {
		t.Errorf("as JSON: %v, %s", err, out)
	}
}

func TestBacktestSaysWhatIsWrong(t *testing.T) {
	path := logFile(t, "orders.csv", fewOrders)
	if _, _, err := command(t, "backtest", path, "--calibration-end", "2026-01-10", "--models", "oracle"); !cli.IsUsage(err) || !strings.Contains(err.Error(), "want one of MBG/NBD, BG/NBD") {
		t.Errorf("an unknown model: %v", err)
	}
	if _, _, err := command(t, "backtest", path); !cli.IsUsage(err) {
		t.Errorf("without a cut: %v", err)
	}
	if _, _, err := command(t, "backtest", path, "--calibration-end", "2026-01-05", "--models", "none"); err == nil || !strings.Contains(err.Error(), "nobody of 2 customers bought twice by 2026-01-05") {
		t.Errorf("nothing to learn from: %v", err)
	}
	report := filepath.Join(t.TempDir(), "r.html")
	if _, _, err := command(t, "backtest", path, "--calibration-end", "2026-01-10", "--models", "none", "--html", report, "--customer", "z"); err == nil || !strings.Contains(err.Error(), "customer z had not bought") {
		t.Errorf("the history of a stranger: %v", err)
	}
	if _, err := os.Stat(report); err == nil {
		t.Error("half a report is there")
	}
}
