package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/tierstream/tierstream/internal/check"
	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/replay"
)

func TestCheckSaysWhatHolds(t *testing.T) {
	w := newWorld(t)
	if _, _, err := w.try("check"); cli.ExitCode(err) != 2 || !strings.Contains(err.Error(), "could not be checked") {
		t.Errorf("before any consumer ran: %v", err)
	}
	stop := w.start()
	w.history()
	out := w.run("check", "--replay", "--canonical")
	contains(t, out, `namespace demo: 8 records read, 3 customers, \d tier changes, 0 dead letters`, `(?m)^I1  .*: holds$`, `(?m)^I6  replaying gives the same: holds$`, `(?m)^3 customers compared with the log in the order of its timestamps, 0 depend`, `partition 2: applied \d, published \d`)
	stop()

	rdb := redis.NewClient(&redis.Options{Addr: w.redis})
	defer rdb.Close()
	fences, err := rdb.Keys(t.Context(), "ts:{demo:*}:fence").Result()
	if err != nil || len(fences) != 3 {
		t.Fatal(fences, err)
	}
	if err := rdb.HIncrBy(t.Context(), fences[0], "read", 1).Err(); err != nil {
		t.Fatal(err)
	}
	out, _, err = w.try("check")
	if cli.ExitCode(err) != 1 || err.Error() != "not everything holds" {
		t.Errorf("a wrong count: %v", err)
	}
	contains(t, out, `(?m)^I4  every record read is accounted for: DOES NOT HOLD, 2 times$`, `(?m)^    I4 partition \d.*: the fence says \d records read, and accounts for \d$`)
	out, _, err = w.try("check", "--json")
	var r check.Report
	if e := json.Unmarshal([]byte(out), &r); e != nil || cli.ExitCode(err) != 1 || r.Holds || r.Found["I4"] != 2 || len(r.Violations) != 2 {
		t.Errorf("%v, %v: %s", err, e, out)
	}
	if _, _, err := w.try("check", "--namespace", "other"); cli.ExitCode(err) != 2 {
		t.Errorf("a namespace that is not there: %v", err)
	}
}

func TestReplayIsTheSameFromEverywhere(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.history()
	hash := func(out string) string {
		t.Helper()
		m := regexp.MustCompile(`(?m)^hash ([0-9a-f]{64})$`).FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("no hash in\n%s", out)
		}
		return m[1]
	}
	out := w.run("replay", "exact", "--into", "replay-a")
	contains(t, out, `^exact replay of demo into replay-a: 8 records in`, `every batch came out as the journal says`, `applied 8`)
	exact := hash(out)
	canonical := hash(w.run("replay", "canonical", "--into", "replay-a"))

	dir := filepath.Join(w.dir, "log")
	contains(t, w.run("replay", "dump", dir), `^\d+ records of purchases, complaints, referrals, journal and rules included, are in `)
	if _, _, err := w.try("replay", "dump", dir); err == nil || !strings.Contains(err.Error(), "holds a dumped log already") {
		t.Errorf("dumped twice: %v", err)
	}
	// No services from here on.
	offline := func(args ...string) (string, error) {
		out, _, err := command(t, append(args, "--data-dir", t.TempDir())...)
		return out, err
	}
	for kind, want := range map[string]string{"exact": exact, "canonical": canonical} {
		out, err := offline("replay", kind, "--into", "replay-b", "--log", dir, "--expect", want, "--workers", "3", "--chunk", "1")
		if err != nil || hash(out) != want {
			t.Errorf("%s from the folder: %v\n%s", kind, err, out)
		}
	}
	_, err := offline("replay", "canonical", "--into", "replay-b", "--log", dir, "--expect", strings.Repeat("0", 64))
	if cli.ExitCode(err) != 1 || !strings.Contains(err.Error(), "the hash is "+canonical+", expected was 000") {
		t.Errorf("another hash: %v", err)
	}
	// Another model gives other decisions, but the same facts are read.
	model := filepath.Join(w.dir, "model.yaml")
	if out, _, err := command(t, "model", "init", "--currency", "EUR", "--typical-order", "3", "-o", model); err != nil {
		t.Fatal(err, out)
	}
	out, err = offline("replay", "canonical", "--into", "replay-b", "--log", dir, "--model", model, "--json")
	var r replay.Report
	if e := json.Unmarshal([]byte(out), &r); e != nil || err != nil || r.Read != 8 || r.Hash == canonical {
		t.Errorf("with another model: %v, %v\n%s", err, e, out)
	}
	// The range ends where it says.
	out, err = offline("replay", "canonical", "--into", "replay-b", "--log", dir, "--to", "purchases/0@0,purchases/1@0,purchases/2@0", "--json")
	if e := json.Unmarshal([]byte(out), &r); e != nil || err != nil || r.Read != 3 {
		t.Errorf("without purchases: %v, %v\n%s", err, e, out)
	}
	for _, bad := range [][]string{
		{"replay", "canonical", "--into", "demo"},
		{"replay", "exact", "--into", "replay-x", "--to", "purchases@7"},
		{"replay", "exact", "--into", "replay-x", "--to", "yesterday"},
		{"replay", "canonical"},
	} {
		if _, _, err := w.try(bad...); cli.ExitCode(err) != 2 {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestReplayOfEvents(t *testing.T) {
	file := filepath.Join(t.TempDir(), "events.ndjson")
	lines := `{"topic":"purchases","key":"ann","event":{"specversion":"1.0","id":"1","source":"s","type":"io.tierstream.purchase.v1","time":"2025-01-01T00:00:00Z","subject":"ann","data":{"order_id":"o1","amount_minor":5000,"currency":"EUR"}}}
{"topic":"purchases","key":"bob","event":{"specversion":"1.0","id":"2","source":"s","type":"io.tierstream.purchase.v1","time":"2025-01-02T00:00:00Z","subject":"bob","data":{"order_id":"o2","amount_minor":7000,"currency":"EUR"}}}
{"topic":"complaints","key":"bob","headers":{"content-type":"application/json"},"value":"{"}
`
	if err := os.WriteFile(file, []byte(lines), 0o644); err != nil {
		t.Fatal(err)
	}
	changes := filepath.Join(t.TempDir(), "changes.ndjson")
	out, notes, err := command(t, "replay", "canonical", "--into", "replay-e", "--events", file, "--partitions", "2", "-o", changes, "--data-dir", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	contains(t, out, `3 records in`, `2 customers, 2 tier changes, 1 dead letters`)
	contains(t, notes, `built-in default model`)
	b, err := os.ReadFile(changes)
	if err != nil {
		t.Fatal(err)
	}
	contains(t, string(b), `(?m)^{"type":"tier_change","partition":\d,"id":"[0-9a-f]{32}","data":{"customer_id":"ann","sequence":1,`, `(?m)^{"type":"dead_letter","partition":\d,"key":"bob","letter":{"code":"`)
	if err := os.WriteFile(file, []byte(`{"topic":"elsewhere","key":"a"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := command(t, "replay", "canonical", "--into", "replay-e", "--events", file, "--data-dir", t.TempDir()); err == nil || !strings.Contains(err.Error(), `line 1: topic "elsewhere" is none of`) {
		t.Errorf("an unknown topic: %v", err)
	}
}

func TestHelpOfReplayAndCheck(t *testing.T) {
	for _, c := range []string{"check", "replay exact", "replay canonical", "replay dump"} {
		out, _, err := command(t, append(strings.Fields(c), "--help")...)
		if err != nil {
			t.Errorf("%s: %v", c, err)
		}
		contains(t, out, `(?m)^ +tierctl `+c)
	}
}
