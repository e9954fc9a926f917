package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/event"
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
		var l line
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
		{"generate", "--rate", "-1", "--dry-run", "--events", "1"},
	} {
		var out bytes.Buffer
		err := run(t.Context(), args, nothing, &out, &out)
		var usage *usageError
		if !errors.As(err, &usage) {
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
