package replay_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/replay"
	"github.com/tierstream/tierstream/internal/replay/replaytest"
	"github.com/tierstream/tierstream/internal/state"
	"github.com/tierstream/tierstream/internal/stream"
)

// live is everything that a replay must not touch: all keys of Redis, the ends
// of all topics, the offsets of all groups.
func live(t *testing.T, w *replaytest.World) map[string]any {
	t.Helper()
	all := map[string]any{}
	for k, v := range w.Dump() {
		if !strings.HasPrefix(k, "ts:{"+replay.Prefix) {
			all["redis "+k] = v
		}
	}
	topics, err := w.Admin.ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ends, err := w.Admin.ListEndOffsets(t.Context(), topics.Names()...)
	if err != nil {
		t.Fatal(err)
	}
	for topic, ps := range ends {
		for p, o := range ps {
			if !strings.HasPrefix(topic, replay.Prefix) {
				all[fmt.Sprintf("end of %s/%d", topic, p)] = o.Offset
			}
		}
	}
	groups, err := w.Admin.ListGroups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups.Groups() {
		offsets, err := w.Admin.FetchOffsets(t.Context(), g)
		if err != nil {
			t.Fatal(err)
		}
		for topic, ps := range offsets {
			for p, o := range ps {
				all[fmt.Sprintf("group %s at %s/%d", g, topic, p)] = o.At
			}
		}
	}
	return all
}

// A replay leaves every live key, topic and group as it was, whatever it is
// asked to do, and refuses what would touch one.
func TestReplayTouchesNothingLive(t *testing.T) {
	w := lived(t, fold.ClockEvents)
	ctx, s := t.Context(), kafka(t, w)
	group, err := kgo.NewClient(append(w.Config.Kafka, kgo.ConsumerGroup(stream.GroupID("live")))...)
	if err != nil {
		t.Fatal(err)
	}
	group.Close()
	before := live(t, w)
	if len(before) < 300 {
		t.Fatalf("only %d things to compare", len(before))
	}
	run := func(cfg replay.Config) error {
		cfg.Source, cfg.Topics, cfg.Rules = s, w.Config.Topics, w.Config.Rules
		_, err := replay.Run(ctx, cfg)
		return err
	}
	refused := func(what string, err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}

	// What is no replay's name makes no key and no topic.
	for _, bad := range []string{"", "live", "replay", "replay-", "REPLAY-x", "live-replay-x", "replay-x:0}:fence{", "replay-x/y", "replay-" + strings.Repeat("x", 60), " replay-x"} {
		_, err := replay.ParseName(bad)
		refused(fmt.Sprintf("%q", bad), err, "of a replay")
	}
	refused("no name", run(replay.Config{Kind: replay.Canonical}), "namespace of its own")
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a name that nobody parsed makes topics")
			}
		}()
		_, _ = replay.ToTopics(ctx, w.Config.Kafka, replay.Name{}, 3, w.Config.Topics)
	}()

	// A consumer that runs under a replay's name is a live namespace too.
	squatter := name(t, "replay-squatter")
	if _, err := w.Admin.CreateTopic(ctx, 3, 1, nil, "replay-squatter-journal"); err != nil {
		t.Fatal(err)
	}
	refused("a namespace with a journal", run(replay.Config{Kind: replay.Canonical, Name: squatter}), "is a live namespace")
	_, err = replay.ToTopics(ctx, w.Config.Kafka, squatter, 3, w.Config.Topics)
	refused("its topics", err, "is a live namespace")

	// State under a replay's name that no replay made: of a consumer whose
	// journal is on another cluster.
	taken := state.NewStore(w.Redis, "replay-taken", 1, 0)
	if _, _, _, err := taken.Acquire(ctx, [16]byte{1}); err != nil {
		t.Fatal(err)
	}
	held := w.Dump()["ts:{replay-taken:1}:fence"]
	refused("a namespace with a fence", run(replay.Config{Kind: replay.Canonical, Name: name(t, "replay-taken"), Redis: w.Redis}), "holds something else in Redis")
	if after := w.Dump()["ts:{replay-taken:1}:fence"]; !reflect.DeepEqual(after, held) {
		t.Errorf("the fence was %v, now it is %v", held, after)
	}

	// The replay's topics are an input, or a topic of what is replayed, or hold
	// what somebody else wrote.
	own := name(t, "replay-own")
	for _, topics := range []stream.Topics{
		{Inputs: []string{"purchases", own.Changes()}, Changes: "tier-changes", DeadLetters: "dead-letters", Journal: "j", Rules: "r"},
		{Inputs: []string{"purchases"}, Changes: "tier-changes", DeadLetters: own.DeadLetters(), Journal: "j", Rules: "r"},
		{Inputs: []string{"purchases"}, Changes: "tier-changes", DeadLetters: "d", Journal: own.Changes(), Rules: "r"},
	} {
		_, err := replay.ToTopics(ctx, w.Config.Kafka, own, 3, topics)
		refused(fmt.Sprint(topics), err, "of the namespace that is replayed")
	}
	if _, err := w.Admin.CreateTopic(ctx, 1, 1, nil, "replay-foreign-changes"); err != nil {
		t.Fatal(err)
	}
	w.Produce(&kgo.Record{Topic: "replay-foreign-changes", Value: []byte("somebody else's")})
	_, err = replay.ToTopics(ctx, w.Config.Kafka, name(t, "replay-foreign"), 3, w.Config.Topics)
	refused("a topic with another's records", err, "holds something else than outputs of replay")

	// What is allowed: all kinds, into Redis and topics, twice.
	for range 2 {
		for kind, n := range map[replay.Kind]string{replay.Exact: "replay-exact", replay.Canonical: "replay-canonical"} {
			out, err := replay.ToTopics(ctx, w.Config.Kafka, name(t, n), 3, w.Config.Topics)
			if err != nil {
				t.Fatal(err)
			}
			if err := run(replay.Config{Kind: kind, Name: name(t, n), Redis: w.Redis, Output: out, Workers: 2}); err != nil {
				t.Fatal(err)
			}
		}
	}
	published := 0
	for p := range int32(replaytest.Partitions) {
		published += len(w.Read("replay-exact-changes", p)) - len(w.Read("tier-changes", p))
	}
	if published != 0 {
		t.Errorf("%+d changes more than the live run", published)
	}

	after := live(t, w)
	for k, v := range before {
		if !reflect.DeepEqual(after[k], v) {
			t.Errorf("%s was %v, now it is %v", k, v, after[k])
		}
	}
	for k := range after {
		if _, ok := before[k]; !ok {
			t.Errorf("%s is new", k)
		}
	}
}

// Nothing in this package can write to Redis or Kafka but what isolated.go
// makes from a Name.
func TestOnlyIsolatedWrites(t *testing.T) {
	writers := map[string]bool{
		"NewStore": true, "Acquire": true, "Apply": true, "Raise": true, "Fill": true, "Forget": true, // state
		"Produce": true, "ProduceSync": true, "TryProduce": true, "CreateTopic": true, "CreateTopics": true, "DeleteTopics": true, "DeleteRecords": true,
		"AlterTopicConfigs": true, "CommitOffsets": true, "CommitRecords": true, "CommitMarkedOffsets": true, "DeleteGroup": true, "DeleteGroups": true,
		"ConsumerGroup": true, "TransactionalID": true, "Set": true, "HSet": true, "Del": true, "ZAdd": true, "FlushAll": true, "Eval": true, "EvalSha": true, "Do": true,
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok && writers[sel.Sel.Name] {
				if found++; file != "isolated.go" {
					t.Errorf("%s calls %s", file, sel.Sel.Name)
				}
			}
			return true
		})
	}
	if found < 4 {
		t.Errorf("only %d calls that write", found)
	}
}

// A replay in Redis goes on where it was killed, and comes to what one comes
// to that was not.
func TestReplayIsResumed(t *testing.T) {
	w := lived(t, fold.ClockEvents)
	s := kafka(t, w)
	for _, kind := range []replay.Kind{replay.Canonical, replay.Exact} {
		cfg := replay.Config{Kind: kind, Name: name(t, "replay-memory"), Source: s, Topics: w.Config.Topics, Rules: w.Config.Rules}
		want, err := replay.Run(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Name, cfg.Redis, cfg.Chunk = name(t, "replay-"+string(kind)), w.Redis, 50
		kills, got := 0, (*replay.Report)(nil)
		for n := int64(130); got == nil; n += 170 {
			ctx, kill := context.WithCancelCause(t.Context())
			killed := errors.New("killed")
			read := int64(0)
			cfg.Source = replaytest.Altered{Source: s, Alter: func(topic string, _ int32, r *kgo.Record) []*kgo.Record {
				if read++; read > n {
					kill(killed)
				}
				return []*kgo.Record{r}
			}}
			r, err := replay.Run(ctx, cfg)
			kill(nil)
			switch {
			case err == nil:
				got = r
			case errors.Is(context.Cause(ctx), killed):
				kills++
			default:
				t.Fatal(err)
			}
			if kills > 100 {
				t.Fatal("it does not get on")
			}
		}
		if got.Hash != want.Hash || got.Records != want.Records || kills == 0 || !got.Resumed {
			t.Errorf("%s: killed %d times it gives %s, else %s", kind, kills, got.Hash, want.Hash)
		}
		customers := 0
		for p := range int32(replaytest.Partitions) {
			st := state.NewStore(w.Redis, cfg.Name.String(), p, 0)
			if _, err := st.Each(t.Context(), func(string, []byte) error { customers++; return nil }); err != nil {
				t.Fatal(err)
			}
		}
		if int64(customers) != want.Customers {
			t.Errorf("%s: Redis has %d customers, want %d", kind, customers, want.Customers)
		}
		// Other parameters are another replay.
		other := cfg
		other.Source = s
		if kind == replay.Canonical {
			other.Kind = replay.Exact
		} else {
			other.Kind = replay.Canonical
		}
		if _, err := replay.Run(t.Context(), other); err == nil || !strings.Contains(err.Error(), "other parameters") {
			t.Errorf("another kind under the same name: %v", err)
		}
	}
}
