package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/replay"
	"github.com/tierstream/tierstream/internal/sim"
	"github.com/tierstream/tierstream/internal/sim/produce"
)

func nothing(string) string { return "" }

// cluster starts an in-process Kafka and gives its address and a client.
func cluster(t *testing.T, opts ...kfake.Opt) (string, *kgo.Client) {
	t.Helper()
	c, err := kfake.NewCluster(append(opts, kfake.NumBrokers(1))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return c.ListenAddrs()[0], client
}

func TestDryRunPrintsTheSameLinesForTheSameSeed(t *testing.T) {
	lines := func(args ...string) string {
		var stdout, stderr bytes.Buffer
		args = append([]string{"generate", "--dry-run", "--events", "300", "--bad-rate", "0.3"}, args...)
		if err := run(t.Context(), args, nothing, &stdout, &stderr); err != nil {
			t.Fatal(err)
		}
		if stderr.Len() > 0 {
			t.Errorf("stderr: %s", stderr.String())
		}
		return stdout.String()
	}
	first := lines()
	if again := lines("--seed", "1"); again != first {
		t.Error("two runs of seed 1 differ")
	}
	if other := lines("--seed", "2"); other == first {
		t.Error("seeds 1 and 2 print the same")
	}
	rows := strings.Split(strings.TrimSpace(first), "\n")
	if len(rows) != 300 {
		t.Fatalf("%d lines, want 300", len(rows))
	}
	bad := 0
	for _, row := range rows {
		var l sim.Line
		if err := json.Unmarshal([]byte(row), &l); err != nil {
			t.Fatalf("%v in %s", err, row)
		}
		if l.Expect != event.Applied.String() {
			bad++
		}
		if l.Event == nil && l.Value == "" && l.Base64 == nil {
			t.Errorf("nothing is shown of %s", row)
		}
	}
	if bad < 30 || bad > 110 {
		t.Errorf("%d bad of 300 at 0.3 per good one", bad)
	}
}

func TestGenerateRefusesUnknownTopicsAndCreatesThemWhenTold(t *testing.T) {
	addr, client := cluster(t)
	args := []string{"generate", "--brokers", addr, "--topics", "shop,desk,word", "--events", "2000", "--partitions", "3"}
	var stdout, stderr bytes.Buffer
	err := run(t.Context(), args, nothing, &stdout, &stderr)
	if err == nil || !strings.Contains(err.Error(), "topic desk, shop, word does not exist") || !strings.Contains(err.Error(), "--create-topics") {
		t.Fatalf("got %v", err)
	}

	if err := run(t.Context(), append(args, "--create-topics"), nothing, &stdout, &stderr); err != nil {
		t.Fatal(err)
	}
	admin := kadm.NewClient(client)
	ends, err := admin.ListEndOffsets(t.Context(), "shop", "desk", "word")
	if err != nil {
		t.Fatal(err)
	}
	var sent int64
	partitions := 0
	ends.Each(func(o kadm.ListedOffset) { sent += o.Offset; partitions++ })
	if sent != 2_000 || partitions != 9 {
		t.Errorf("%d records in %d partitions, want 2000 in 9", sent, partitions)
	}
	if !strings.Contains(stderr.String(), "2,000 events sent") || !strings.Contains(stderr.String(), "2,000 acknowledged") {
		t.Errorf("stderr: %s", stderr.String())
	}
	configs, err := admin.DescribeTopicConfigs(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	logTime := false
	for _, c := range configs[0].Configs {
		logTime = logTime || c.Key == "message.timestamp.type" && c.MaybeValue() == "LogAppendTime"
	}
	if !logTime {
		t.Error("the created topic does not stamp records itself")
	}
}

func TestUnequalPartitionCountsAreRefused(t *testing.T) {
	addr, _ := cluster(t, kfake.SeedTopics(2, "purchases", "complaints"), kfake.SeedTopics(3, "referrals"))
	var out bytes.Buffer
	err := run(t.Context(), []string{"generate", "--brokers", addr, "--events", "1"}, nothing, &out, &out)
	if err == nil || !strings.Contains(err.Error(), "2 and 3 partitions") {
		t.Fatalf("got %v", err)
	}
}

func TestCDNOWSendsTheFileInTimeOrder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cdnow.txt")
	rows := "customer_id date number_of_cds dollar_value\n" +
		"00002 19970112 1 12.00\n00002 19970112 5 77.00\n00001 19970101 1 11.77\n00003 19970102 1 0.00\n"
	if err := os.WriteFile(file, []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	addr, client := cluster(t, kfake.SeedTopics(1, "purchases"))
	// The setting from the environment must count, and the flag win over it.
	getenv := func(name string) string {
		return map[string]string{"TIERSTREAM_SIM_BROKERS": addr, "TIERSTREAM_SIM_LIMIT": "1", "TIERSTREAM_SIM_EVENTS": "2"}[name]
	}
	var out bytes.Buffer
	if err := run(t.Context(), []string{"cdnow", file, "--limit", "3"}, getenv, &out, &out); err != nil {
		t.Fatal(err)
	}
	client.AddConsumeTopics("purchases")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []string
	for len(got) < 3 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		for _, r := range fetches.Records() {
			for _, h := range r.Headers {
				if h.Key == "ce_id" {
					got = append(got, string(r.Key)+" "+string(h.Value))
				}
			}
			if time.Since(r.Timestamp) > time.Hour {
				t.Errorf("record timestamp %s is not the time of sending", r.Timestamp)
			}
		}
	}
	if want := []string{"00001 cdnow:L000004", "00003 cdnow:L000005", "00002 cdnow:L000002"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// all reads n records of the topics.
func all(t *testing.T, client *kgo.Client, n int, topics ...string) (records []*kgo.Record) {
	t.Helper()
	client.AddConsumeTopics(topics...)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for len(records) < n {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("%d of %d records: %v", len(records), n, err)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

// same is what a copy must keep of records.
func same(records []*kgo.Record) (out []string) {
	for _, r := range records {
		slices.SortFunc(r.Headers, func(a, b kgo.RecordHeader) int { return strings.Compare(a.Key, b.Key) })
		out = append(out, fmt.Sprintf("%s/%d %q %q %q", r.Topic, r.Partition, r.Key, r.Value, r.Headers))
	}
	slices.Sort(out)
	return out
}

// What --dry-run prints, bad input included, is what ndjson sends.
func TestLinesOfADryRunAreSentAsTheyStand(t *testing.T) {
	var lines, stderr bytes.Buffer
	args := []string{"generate", "--events", "400", "--bad-rate", "0.3", "--format", "structured-json"}
	if err := run(t.Context(), append(args, "--dry-run"), nothing, &lines, &stderr); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "events.ndjson")
	if err := os.WriteFile(file, lines.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	var got [2][]string
	for i, args := range [][]string{args, {"ndjson", file}} {
		addr, client := cluster(t, kfake.SeedTopics(3, "purchases", "complaints", "referrals"))
		if err := run(t.Context(), append(args, "--brokers", addr), nothing, &lines, &stderr); err != nil {
			t.Fatal(err)
		}
		got[i] = same(all(t, client, 400, "purchases", "complaints", "referrals"))
	}
	if !slices.Equal(got[0], got[1]) {
		for i := range got[0] {
			if got[0][i] != got[1][i] {
				t.Fatalf("record %d was\n%s\nfrom lines it is\n%s", i, got[0][i], got[1][i])
			}
		}
	}
}

// A dumped log is sent again, record by record, merged by timestamp.
func TestADumpedLogIsSentAgain(t *testing.T) {
	from, source := cluster(t, kfake.SeedTopics(3, "purchases", "complaints", "referrals"))
	var out bytes.Buffer
	args := []string{"generate", "--events", "600", "--bad-rate", "0.3", "--format", "binary-json,binary-msgpack,structured-json", "--brokers", from}
	if err := run(t.Context(), args, nothing, &out, &out); err != nil {
		t.Fatal(err)
	}
	want := all(t, source, 600, "purchases", "complaints", "referrals")
	dir := filepath.Join(t.TempDir(), "log")
	w, err := replay.NewWriter(dir, replay.Manifest{Inputs: []string{"purchases", "complaints", "referrals"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range []string{"purchases", "complaints", "referrals"} {
		for p := range int32(3) {
			if err := w.Partition(topic, replay.Extent{}, func(emit func(*kgo.Record) error) error {
				for _, r := range want {
					if r.Topic == topic && r.Partition == p {
						if err := emit(r); err != nil {
							return err
						}
					}
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	to, client := cluster(t, kfake.SeedTopics(3, "purchases", "complaints", "referrals"))
	if err := run(t.Context(), []string{"ndjson", dir, "--brokers", to}, nothing, &out, &out); err != nil {
		t.Fatal(err)
	}
	got := all(t, client, 600, "purchases", "complaints", "referrals")
	if !slices.Equal(same(got), same(want)) {
		t.Error("what was sent again differs from what was dumped")
	}
}

func TestNDJSONMergesFilesByTime(t *testing.T) {
	var files []string
	for i, text := range []string{"1 3 5 6", "2 4 9", "", "7 8"} {
		file := filepath.Join(t.TempDir(), fmt.Sprint(i))
		lines := ""
		for n := range strings.FieldsSeq(text) {
			lines += fmt.Sprintf(`{"specversion":"1.0","id":%q,"time":"2025-01-0%sT00:00:00Z","type":"x","subject":"c"}`+"\n", n, n)
		}
		if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	addr, client := cluster(t, kfake.SeedTopics(1, "one"))
	var out bytes.Buffer
	if err := run(t.Context(), append([]string{"ndjson", "--topics", "one", "--brokers", addr}, files...), nothing, &out, &out); err != nil {
		t.Fatal(err)
	}
	order := ""
	for _, r := range all(t, client, 9, "one") {
		var e struct{ ID string }
		if err := json.Unmarshal(r.Value, &e); err != nil {
			t.Fatal(err)
		}
		order += e.ID
	}
	if order != "123456789" {
		t.Errorf("sent in the order %s", order)
	}
}

func TestNDJSONNamesTheLineThatIsWrong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "events.ndjson")
	text := `{"specversion":"1.0","id":"1","source":"s","type":"io.tierstream.complaint.v1","subject":"c1"}` + "\n\n" + `{"a":1}` + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	addr, client := cluster(t, kfake.SeedTopics(1, "purchases", "complaints", "referrals"))
	var out bytes.Buffer
	err := run(t.Context(), []string{"ndjson", file, "--brokers", addr}, nothing, &out, &out)
	if err == nil || !strings.Contains(err.Error(), "events.ndjson line 3: neither a CloudEvent") {
		t.Errorf("got %v", err)
	}
	if r := all(t, client, 1, "complaints")[0]; string(r.Key) != "c1" {
		t.Errorf("key %q", r.Key)
	}
}

// A run that stops and is started again sends each event once.
func TestResumeGoesOnWhereTheRunStopped(t *testing.T) {
	addr, client := cluster(t, kfake.SeedTopics(3, "purchases", "complaints", "referrals"))
	kept := filepath.Join(t.TempDir(), "kept.json")
	args := []string{"generate", "--until", "2025-01-20", "--brokers", addr, "--resume", kept}
	var out bytes.Buffer
	if err := run(t.Context(), append(args, "--events", "700"), nothing, &out, &out); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds nothing left
		if err := run(t.Context(), args, nothing, &out, &out); err != nil {
			t.Fatal(err)
		}
	}
	var lines bytes.Buffer
	if err := run(t.Context(), []string{"generate", "--until", "2025-01-20", "--dry-run"}, nothing, &lines, &out); err != nil {
		t.Fatal(err)
	}
	want := strings.Count(lines.String(), "\n")
	seen := map[string]int{}
	for _, r := range all(t, client, want, "purchases", "complaints", "referrals") {
		for _, h := range r.Headers {
			if h.Key == "ce_id" {
				seen[string(h.Value)]++
			}
		}
	}
	ends, err := kadm.NewClient(client).ListEndOffsets(t.Context(), "purchases", "complaints", "referrals")
	if err != nil {
		t.Fatal(err)
	}
	sent := int64(0)
	ends.Each(func(o kadm.ListedOffset) { sent += o.Offset })
	if len(seen) != want || sent != int64(want) || want < 1_000 {
		t.Errorf("%d events and %d records, want %d of each", len(seen), sent, want)
	}

	// Another seed is another input, another topic another destination.
	err = run(t.Context(), append(args, "--seed", "2"), nothing, &out, &out)
	if err == nil || !strings.Contains(err.Error(), "belongs to another input") {
		t.Errorf("got %v", err)
	}
	err = run(t.Context(), append(args, "--topics", "purchases"), nothing, &out, &out)
	if err == nil || !strings.Contains(err.Error(), "give another file to --resume") {
		t.Errorf("got %v", err)
	}
}

// TestMain lets a test start the program as a process of its own, to kill it.
func TestMain(m *testing.M) {
	if os.Getenv("TIERSTREAM_TEST_COMMAND") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// A killed process has left a checkpoint of at most a second before: the next
// one sends the rest, and again only what came after the checkpoint.
func TestKilledProcessIsResumed(t *testing.T) {
	addr, client := cluster(t, kfake.SeedTopics(3, "purchases", "complaints", "referrals"))
	kept := filepath.Join(t.TempDir(), "kept.json")
	args := []string{"generate", "--until", "2025-03-15", "--brokers", addr, "--resume", kept}
	process := exec.CommandContext(t.Context(), os.Args[0], append(args, "--rate", "3000")...)
	process.Env = append(os.Environ(), "TIERSTREAM_TEST_COMMAND=1")
	process.Stderr = t.Output()
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	var before produce.Checkpoint
	for deadline := time.Now().Add(30 * time.Second); before.Next == 0; time.Sleep(10 * time.Millisecond) {
		var err error
		if before, err = produce.LoadCheckpoint(kept); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatal("no checkpoint")
		}
	}
	if err := process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := process.Wait(); err == nil {
		t.Fatal("the run was complete before it was killed")
	}
	after, err := produce.LoadCheckpoint(kept)
	if err != nil {
		t.Fatal(err)
	}
	admin := kadm.NewClient(client)
	sent := func() (n int64) {
		ends, err := admin.ListEndOffsets(t.Context(), "purchases", "complaints", "referrals")
		if err != nil {
			t.Fatal(err)
		}
		ends.Each(func(o kadm.ListedOffset) { n += o.Offset })
		return n
	}
	var out, lines bytes.Buffer
	if err := run(t.Context(), args, nothing, &out, &out); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), []string{"generate", "--until", "2025-03-15", "--dry-run"}, nothing, &lines, &out); err != nil {
		t.Fatal(err)
	}
	want := int64(strings.Count(lines.String(), "\n"))
	total := sent()
	if !strings.Contains(out.String(), ": "+grouped(want-after.Next)+" events sent") || after.Next == 0 || total < want {
		t.Errorf("%d of %d events were covered, %d records are there; the second run says %s", after.Next, want, total, out.String())
	}
	seen := map[string]bool{}
	for _, r := range all(t, client, int(total), "purchases", "complaints", "referrals") {
		for _, h := range r.Headers {
			if h.Key == "ce_id" {
				seen[string(h.Value)] = true
			}
		}
	}
	if len(seen) != int(want) {
		t.Errorf("%d events arrived, want %d", len(seen), want)
	}
}

func TestCopyKeepsRecordsAndGoesOn(t *testing.T) {
	from, source := cluster(t, kfake.ClusterID("source"), kfake.SeedTopics(3, "purchases", "complaints", "referrals"))
	to, client := cluster(t, kfake.ClusterID("destination"))
	var out bytes.Buffer
	args := []string{"generate", "--events", "900", "--bad-rate", "0.2", "--format", "binary-json,binary-msgpack", "--brokers", from}
	if err := run(t.Context(), args, nothing, &out, &out); err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(t.TempDir(), "kept.json")
	args = []string{"copy", "--from-brokers", from, "--brokers", to, "--topics", "purchases,complaints,referrals", "--to-topics", "p,complaints,r",
		"--create-topics", "--resume", kept, "--partitioner", "keep"}
	if err := run(t.Context(), append(args, "--events", "250"), nothing, &out, &out); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), args, nothing, &out, &out); err != nil {
		t.Fatal(err)
	}
	want := all(t, source, 900, "purchases", "complaints", "referrals")
	for _, r := range want {
		r.Topic = map[string]string{"purchases": "p", "complaints": "complaints", "referrals": "r"}[r.Topic]
	}
	got := all(t, client, 900, "p", "complaints", "r")
	if !slices.Equal(same(got), same(want)) {
		t.Error("the copy differs from the source")
	}
	ends, err := kadm.NewClient(client).ListEndOffsets(t.Context(), "p", "complaints", "r")
	if err != nil {
		t.Fatal(err)
	}
	sent := int64(0)
	ends.Each(func(o kadm.ListedOffset) { sent += o.Offset })
	if sent != 900 {
		t.Errorf("%d records were copied, want 900", sent)
	}

	err = run(t.Context(), []string{"copy", "--from-brokers", from, "--brokers", from, "--topics", "purchases"}, nothing, &out, &out)
	if err == nil || !strings.Contains(err.Error(), "one cluster") {
		t.Errorf("a topic copied onto itself: %v", err)
	}
}

func TestWrongCommandLinesAreUsageErrors(t *testing.T) {
	for _, args := range [][]string{
		{"nonsense"},
		{"generate", "--no-such-flag"},
		{"generate", "--bad-rate", "2", "--dry-run", "--events", "1"},
		{"generate", "--start", "yesterday", "--dry-run", "--events", "1"},
		{"generate", "--start", "2025-01-01", "--days", "3"},
		{"generate", "--dry-run"},
		{"generate", "--topics", "a,b", "--dry-run", "--events", "1"},
		{"generate", "--format", "xml", "--dry-run", "--events", "1"},
		{"generate", "--partitioner", "explicit", "--events", "1"},
		{"generate", "--days", "3", "--resume", "f", "--events", "1"},
		{"copy", "--topics", "a"},
		{"copy", "--from-brokers", "localhost:1", "--topics", "a,b", "--to-topics", "c"},
		{"copy", "--from-brokers", "localhost:1", "--topics", "a", "--partitioner", "modulo"},
		{"generate", "--rate", "-1", "--dry-run", "--events", "1"},
	} {
		var out bytes.Buffer
		err := run(t.Context(), args, nothing, &out, &out)
		if !cli.IsUsage(err) {
			t.Errorf("%q: got %v", args, err)
		}
	}
	var stdout, stderr bytes.Buffer
	if err := run(t.Context(), []string{"generate", "--help"}, nothing, &stdout, &stderr); err != nil || !strings.Contains(stdout.String(), "--create-topics") {
		t.Errorf("help: %v, %q", err, stdout.String())
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234"} {
		if got := grouped(n); got != want {
			t.Errorf("grouped(%d) = %q, want %q", n, got, want)
		}
	}
}
