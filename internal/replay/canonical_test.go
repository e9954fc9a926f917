package replay_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/replay"
	"github.com/tierstream/tierstream/internal/replay/replaytest"
)

func name(t testing.TB, s string) replay.Name {
	t.Helper()
	n, err := replay.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// dumped is a world's log in a folder.
func dumped(t *testing.T, w *replaytest.World) (*replay.Folder, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "log")
	m := replay.Manifest{Namespace: "live", Inputs: w.Config.Topics.Inputs, Journal: w.Config.Topics.Journal, Rules: w.Config.Topics.Rules}
	if err := replay.Dump(t.Context(), kafka(t, w), dir, m, replay.Edge{}, replay.Edge{}, nil); err != nil {
		t.Fatal(err)
	}
	f, err := replay.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f, dir
}

func canonical(t testing.TB, s replay.Source, clock fold.ClockSource, edit func(*replay.Config)) *replay.Report {
	t.Helper()
	cfg := replay.Config{Kind: replay.Canonical, Name: name(t, "replay-x"), Source: s, Rules: replaytest.Rules(clock)}
	if edit != nil {
		edit(&cfg)
	}
	r, err := replay.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestMain is also the program that replays a folder and prints the hash, for
// the test that wants it from a process with other settings of the processor.
func TestMain(m *testing.M) {
	dir := os.Getenv("REPLAY_TEST_FOLDER")
	if dir == "" {
		os.Exit(m.Run())
	}
	s, err := replay.OpenFolder(dir)
	if err == nil {
		var n replay.Name
		if n, err = replay.ParseName("replay-x"); err == nil {
			var r *replay.Report
			r, err = replay.Run(context.Background(), replay.Config{Kind: replay.Canonical, Name: n, Source: s, Rules: replaytest.Rules(fold.ClockSource(os.Getenv("REPLAY_TEST_CLOCK")))})
			if err == nil {
				fmt.Println("hash:", r.Hash)
				os.Exit(0)
			}
		}
	}
	fmt.Println(err)
	os.Exit(1)
}

// The same log gives the same hash, whatever the number of workers, the size
// of the pieces it is read in, and whether the processor fuses multiply and
// add.
func TestCanonicalReplayIsTheSameEveryTime(t *testing.T) {
	for _, clock := range []fold.ClockSource{fold.ClockEvents, fold.ClockLog} {
		t.Run(string(clock), func(t *testing.T) {
			w := lived(t, clock)
			s, dir := dumped(t, w)
			one := canonical(t, s, clock, nil)
			if one.Read != w.Sent || one.Changes < 100 || one.DeadLetters < 20 || one.Customers < 100 || one.Counts["orphan_return"] == 0 {
				t.Errorf("%+v", one)
			}
			for _, c := range []struct{ workers, chunk int }{{3, 1}, {2, 7}, {1, 100_000}} {
				r := canonical(t, s, clock, func(cfg *replay.Config) { cfg.Workers, cfg.Chunk = c.workers, c.chunk })
				if r.Hash != one.Hash {
					t.Errorf("%d workers and pieces of %d give %s, before it was %s", c.workers, c.chunk, r.Hash, one.Hash)
				}
			}
			if r := canonical(t, kafka(t, w), clock, nil); r.Hash != one.Hash {
				t.Errorf("Kafka gives %s, the folder %s", r.Hash, one.Hash)
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), "GODEBUG=cpu.fma=off", "REPLAY_TEST_FOLDER="+dir, "REPLAY_TEST_CLOCK="+string(clock))
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "hash: "+one.Hash) {
				t.Errorf("without fused multiply-add (%v):\n%s\nwant %s", err, out, one.Hash)
			}
			// Another log gives another hash.
			amount := func(topic string, _ int32, r *kgo.Record) bool {
				return topic == "purchases" && bytes.Contains(r.Value, []byte(`"amount_minor":1`))
			}
			other := canonical(t, replaytest.Altered{Source: s, Alter: replaytest.Once(amount, 3, func(r *kgo.Record) []*kgo.Record {
				c := *r
				c.Value = bytes.Replace(r.Value, []byte(`"amount_minor":1`), []byte(`"amount_minor":2`), 1)
				return []*kgo.Record{&c}
			})}, clock, nil)
			if other.Hash == one.Hash || other.Records == one.Records {
				t.Error("an event with another amount leaves the hash as it was")
			}
		})
	}
}

// A range by offsets ends and begins where it says; by time likewise.
func TestCanonicalReplayOfARange(t *testing.T) {
	w := replaytest.New(t, fold.ClockEvents)
	w.Send(1, 0, 800, 0.05)
	s := kafka(t, w)
	all := canonical(t, s, fold.ClockEvents, nil)
	var middle time.Time
	want := int64(0)
	for p := range int32(replaytest.Partitions) {
		for _, topic := range w.Config.Topics.Inputs {
			for _, r := range w.Read(topic, p) {
				if middle.IsZero() && r.Offset == 100 {
					middle = r.Timestamp
				}
			}
		}
	}
	for p := range int32(replaytest.Partitions) {
		for _, topic := range w.Config.Topics.Inputs {
			for _, r := range w.Read(topic, p) {
				if r.Timestamp.Before(middle) {
					want++
				}
			}
		}
	}
	f := func(edit func(*replay.Config)) *replay.Report { return canonical(t, s, fold.ClockEvents, edit) }
	first := f(func(c *replay.Config) { c.To = replay.Edge{Time: middle} })
	second := f(func(c *replay.Config) { c.From = replay.Edge{Time: middle} })
	if first.Read != want || first.Read+second.Read != all.Read || want == 0 {
		t.Errorf("before %s %d records, want %d; after it %d of %d", middle, first.Read, want, second.Read, all.Read)
	}
	part := f(func(c *replay.Config) {
		c.From = replay.Edge{Offsets: map[string]map[int32]int64{"purchases": {0: 5}}}
		c.To = replay.Edge{Offsets: map[string]map[int32]int64{"purchases": {0: 12}, "complaints": {0: 0, 1: 0, 2: 0}}}
	})
	if n := part.Partitions[0].Next; n[0].Offset != 12 || n[1].Offset != 0 {
		t.Errorf("ended at %+v", n)
	}
	_, err := replay.Run(t.Context(), replay.Config{Kind: replay.Canonical, Name: name(t, "replay-x"), Source: s, Rules: w.Config.Rules,
		To: replay.Edge{Offsets: map[string]map[int32]int64{"purchases": {0: 1e9}}}})
	if err == nil || !strings.Contains(err.Error(), "ends at offset") {
		t.Errorf("beyond the end: %v", err)
	}
}

// The same replay into two files gives two files that diff calls equal, and an
// exact one decides what the live run published.
func TestOutputsToAFile(t *testing.T) {
	w := lived(t, fold.ClockEvents)
	s := kafka(t, w)
	var files [2][]byte
	for i := range files {
		path := filepath.Join(t.TempDir(), "out.ndjson")
		canonical(t, s, fold.ClockEvents, func(c *replay.Config) { c.Output, c.Workers, c.Chunk = replay.ToFile(path), i+1, 10+i })
		var err error
		if files[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
		if left, _ := filepath.Glob(path + "*part"); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	}
	if !bytes.Equal(files[0], files[1]) || len(files[0]) < 10_000 {
		t.Errorf("two files of %d and %d bytes differ", len(files[0]), len(files[1]))
	}
	path := filepath.Join(t.TempDir(), "exact.ndjson")
	r, err := replay.Run(t.Context(), replay.Config{Kind: replay.Exact, Name: name(t, "replay-x"), Source: s, Topics: w.Config.Topics, Output: replay.ToFile(path)})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for l := range strings.Lines(string(b)) {
		var o struct {
			Type string
			Data struct {
				Customer string `json:"customer_id"`
				Sequence int    `json:"sequence"`
				Mode     string `json:"mode"`
			}
			Letter map[string]string
		}
		if err := json.Unmarshal([]byte(l), &o); err != nil {
			t.Fatal(err)
		}
		if o.Type == "tier_change" {
			if o.Data.Mode != "replay" {
				t.Errorf("mode %q", o.Data.Mode)
			}
			got[fmt.Sprint(o.Data.Customer, o.Data.Sequence)]++
		} else {
			got[o.Letter["code"]+o.Letter["topic"]+o.Letter["partition"]+o.Letter["offset"]]++
		}
	}
	for p := range int32(replaytest.Partitions) {
		for _, topic := range []string{w.Config.Topics.Changes, w.Config.Topics.DeadLetters} {
			for _, r := range w.Read(topic, p) {
				h := map[string]string{}
				for _, x := range r.Headers {
					h[x.Key] = string(x.Value)
				}
				if topic == w.Config.Topics.Changes {
					got[string(r.Key)+strings.TrimLeft(h["ce_customerseq"], "0")]--
				} else {
					got[h["tierstream-code"]+h["tierstream-topic"]+h["tierstream-partition"]+h["tierstream-offset"]]--
				}
			}
		}
	}
	for k, n := range got {
		if n != 0 {
			t.Errorf("%s: %+d times more than published", k, n)
		}
	}
	if r.Changes < 100 || len(got) != int(r.Changes+r.DeadLetters) {
		t.Errorf("%d outputs, %d changes, %d dead letters", len(got), r.Changes, r.DeadLetters)
	}
}
