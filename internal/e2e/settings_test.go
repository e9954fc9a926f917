//go:build unix

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/rig"
	"github.com/tierstream/tierstream/internal/scoring"
	"github.com/tierstream/tierstream/internal/sim/produce"
	"github.com/tierstream/tierstream/internal/stream"
	"github.com/tierstream/tierstream/internal/testenv"
)

// refused runs a consumer of this namespace, which must refuse to start, with
// --check and without.
func (w *world) refused(more []string, want ...string) {
	w.t.Helper()
	refused(w.t, nil, w.Args(append(more, "--check")...), want...)
	refused(w.t, nil, w.Args(more...), want...)
}

// refused runs the command, which must end by itself with a non-zero code and
// say all of the given, in one line that begins with the program's name.
func refused(t testing.TB, environ, args []string, want ...string) {
	t.Helper()
	c := rig.Launch(t, environ, args...)
	code := c.Exit(30 * time.Second)
	out := strings.TrimSpace(c.Output.String())
	if code == 0 {
		t.Errorf("exit code 0, want another:\n%s", out)
	}
	lines := strings.Split(out, "\n")
	last := lines[len(lines)-1]
	if !strings.HasPrefix(last, "consumer: ") {
		t.Errorf("the last line is %q, want one of the program's own", last)
	}
	for _, w := range want {
		if !strings.Contains(last, w) {
			t.Errorf("the consumer said\n%s\nwant something with %q", last, w)
		}
	}
}

// TestRefusesWrongTopics changes one thing at a time on the topics of one
// namespace.
func TestRefusesWrongTopics(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.RedisOptions{})
	in := w.Topics.Inputs[1]
	for _, c := range []struct {
		name, topic string
		wrong       map[string]string
		want        []string
	}{
		{"compacted input", in, map[string]string{"cleanup.policy": "compact"}, []string{in, "cleanup.policy=compact", "removes events"}},
		{"compacted journal", w.Topics.Journal, map[string]string{"cleanup.policy": "compact,delete"}, []string{w.Topics.Journal, "kept whole"}},
		{"journal for a week", w.Topics.Journal, map[string]string{"retention.ms": "604800000"}, []string{w.Topics.Journal, "retention.ms=604800000", "for ever"}},
		{"journal of a gigabyte", w.Topics.Journal, map[string]string{"retention.bytes": "1073741824"}, []string{w.Topics.Journal, "retention.bytes=1073741824", "for ever"}},
		{"rules deleted", w.Topics.Rules, map[string]string{"cleanup.policy": "delete"}, []string{w.Topics.Rules, "must be compact"}},
		{"small changes", w.Topics.Changes, map[string]string{"max.message.bytes": "1048576"}, []string{w.Topics.Changes, "max.message.bytes"}},
		{"small dead letters", w.Topics.DeadLetters, map[string]string{"max.message.bytes": "1048576"}, []string{w.Topics.DeadLetters, "max.message.bytes"}},
	} {
		d, err := w.Admin.DescribeTopicConfigs(t.Context(), c.topic)
		if err != nil {
			t.Fatal(err)
		}
		right := map[string]string{}
		for _, r := range d[0].Configs {
			if _, ok := c.wrong[r.Key]; ok {
				right[r.Key] = r.MaybeValue()
			}
		}
		t.Log(c.name)
		w.Alter(c.topic, c.wrong)
		w.refused(nil, c.want...)
		w.Alter(c.topic, right)
	}
	// What was wrong is right again.
	if code := w.Start("--check").Exit(30 * time.Second); code != 0 {
		t.Errorf("exit code %d of a --check of right settings", code)
	}

	other := w.Namespace + "-other"
	w.kafka.CreateTopic(t, other, rig.Partitions+1, nil)
	w.refused([]string{"--topics=" + w.Topics.Inputs[0] + "," + other}, "co-partitioned", w.Topics.Inputs[0]+" has 4", other+" has 5")
	w.kafka.CreateTopic(t, w.Namespace+"-another", rig.Partitions+1, nil)
	w.refused([]string{"--topics=" + other + "," + w.Namespace + "-another"}, "the journal "+w.Topics.Journal+" has 4 partitions, the inputs have 5")
	w.refused([]string{"--topics=" + other + "-missing"}, "Kafka has no topic "+other+"-missing", "--create-topics")
	w.refused([]string{"--changes-topic=" + w.Topics.DeadLetters}, w.Topics.DeadLetters, "is named for")
	w.refused([]string{"--changes-topic=" + in}, in, "is an input and the topic of")
	w.refused([]string{"--topics=" + in + "," + in}, "named twice")
	w.refused([]string{"--namespace=Live"}, "namespace \"Live\"", "lower-case")
}

// TestCheckChangesNothing: --check on a cluster without the topics does not
// make them, with --create-topics neither, and writes no key.
func TestCheckChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.RedisOptions{})
	c := w.Start("--check")
	if code := c.Exit(30 * time.Second); code != 0 || !strings.Contains(c.Output.String(), "are right") {
		t.Errorf("exit code %d of a --check of right settings:\n%s", code, c.Output.String())
	}
	refused(t, nil, w.Args("--check", "--create-topics", "--namespace="+w.Namespace+"-new"), "Kafka has no topic", w.Namespace+"-new-journal")
	topics, err := w.Admin.ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if topics.Has(w.Namespace + "-new-journal") {
		t.Error("--check made a topic")
	}
	for _, topic := range w.Topics.Names() {
		for p, records := range w.Read(topic) {
			if len(records) > 0 {
				t.Errorf("--check wrote to %s/%d", topic, p)
			}
		}
	}
	if n, err := w.RDB.DBSize(t.Context()).Result(); err != nil || n != 0 {
		t.Errorf("--check left %d keys in Redis, %v", n, err)
	}
	groups, err := w.Admin.ListGroups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := groups[stream.GroupID(w.Namespace)]; ok {
		t.Error("--check joined the group")
	}
}

func TestRefusesWrongServices(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.RedisOptions{MaxMemoryPolicy: "allkeys-lru"})
	w.refused(nil, "maxmemory-policy allkeys-lru", "set it to noeviction")
	nobody := testenv.Redis(t, testenv.RedisOptions{})
	nobody.Kill() // its port is ours and closed
	w.refused([]string{"--redis=redis://u:" + rig.Secret + "@" + nobody.Addr()}, "no Redis answers at "+nobody.Addr())
	for _, address := range []string{
		"redis://consumer:wrong-" + rig.Secret + "@" + w.redis.Addr(), // refused by Redis
		"http://consumer:" + rig.Secret + "@" + w.redis.Addr(),
		"redis://consumer:" + rig.Secret + "@" + w.redis.Addr() + "/nodatabase",
		"redis://consumer:" + rig.Secret + "@" + w.redis.Addr() + ":1",
		"consumer:" + rig.Secret + "@" + w.redis.Addr(),
	} {
		refused(t, nil, w.Args("--redis="+address), "Redis")
	}
	if err := w.RDB.ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err(); err != nil {
		t.Fatal(err)
	}
	w.refused([]string{"--brokers=" + nobody.Addr()}, "no Kafka broker answers at ["+nobody.Addr()+"]")
}

// TestStoppedWhileStarting: a process that is asked to end before it has
// found its services has nothing to report.
func TestStoppedWhileStarting(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.RedisOptions{})
	silent := testenv.Redis(t, testenv.RedisOptions{}) // any server that accepts connections
	if err := silent.Pause(); err != nil {
		t.Fatal(err)
	}
	c := w.Start("--brokers=" + silent.Addr())
	rig.Until(t, 30*time.Second, "waiting for the consumer to try a script in Redis", func() error {
		if w.scripts() == 0 {
			return rig.ErrNotYet
		}
		return nil
	})
	c.Stop()
}

func TestRefusesWrongModels(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.RedisOptions{})
	for _, c := range []struct {
		name, model string
		want        []string
	}{
		{"empty", "", []string{"it is empty"}},
		{"not YAML", "name: [", []string{"line 1"}},
		{"unknown key", "name: x\ncurrency: EUR\ntypical_order_minor: 5000\ntypical_oder_minor: 1\n", []string{"typical_oder_minor"}},
		{"no currency", "name: x\ntypical_order_minor: 5000\n", []string{"currency"}},
		{"unknown currency", "name: x\ncurrency: EURO\ntypical_order_minor: 5000\n", []string{"currency"}},
		{"unknown zone", "name: x\ncurrency: EUR\nzone: Europe/Nowhere\ntypical_order_minor: 5000\n", []string{"Europe/Nowhere"}},
		{"negative order", "name: x\ncurrency: EUR\ntypical_order_minor: -1\n", []string{"typical_order_minor"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := rig.ModelFile(t, c.model)
			refused(t, nil, w.Args("--model="+path), append(c.want, "reading the model "+path)...)
		})
	}
	refused(t, nil, w.Args("--model="+filepath.Join(t.TempDir(), "none.yaml")), "--model", "none.yaml")
}

// settingsFile writes a settings file.
func settingsFile(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "settings.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRefusesUnknownSettings(t *testing.T) {
	t.Parallel()
	env := []string{}
	for _, c := range []struct {
		name      string
		env, args []string
		want      []string
	}{
		{"flag", env, []string{"--nmespace=x"}, []string{"unknown flag --nmespace"}},
		{"argument", env, []string{"x"}, []string{"unexpected argument x"}},
		{"environment", []string{"TIERSTREAM_X=1"}, nil, []string{"unknown setting TIERSTREAM_X in the environment"}},
		{"file", env, []string{"--config=" + settingsFile(t, "namespace: x\nnmespace: y\n")}, []string{"unknown setting nmespace", "settings.yaml"}},
		{"file with itself", env, []string{"--config=" + settingsFile(t, "config: x\n")}, []string{"unknown setting config"}},
		{"file that is none", env, []string{"--config=" + settingsFile(t, "- x\n")}, []string{"settings.yaml"}},
		{"no file", env, []string{"--config=/does/not/exist.yaml"}, []string{"/does/not/exist.yaml"}},
		{"secret in a flag that is none", env, []string{"--rediss=redis://u:" + rig.Secret + "@h"}, []string{"unknown flag --rediss"}},
		{"redis alone", env, []string{"--redis=redis://u:" + rig.Secret + "@h"}, []string{"--redis without --brokers"}},
		{"brokers alone", env, []string{"--brokers=h:1"}, []string{"--brokers without --redis"}},
		{"no model", env, []string{"--brokers=h:1", "--redis=h:2"}, []string{"no --model", "tierctl model init"}},
		{"wrong word", env, []string{"--partitioner=murmur3"}, []string{"--partitioner", "murmur2"}},
		{"wrong number", env, []string{"--batch-records=many"}, []string{"--batch-records"}},
		{"negative", env, []string{"--batch-records=-1"}, []string{"--batch-records"}},
		{"wrong time", env, []string{"--brokers=h:1", "--redis=redis://u:" + rig.Secret + "@h:2:3", "--model=" + rig.ModelFile(t, string(scoring.Default().Canonical()))}, []string{"Redis"}},
	} {
		t.Run(c.name, func(t *testing.T) { refused(t, c.env, c.args, c.want...) })
	}
}

// TestPrecedence: a flag wins over the environment, the environment over the
// file, the file over the default. What is refused names the winner.
func TestPrecedence(t *testing.T) {
	t.Parallel()
	file := "--config=" + settingsFile(t, "lease: 101ms\nrates: [FILE, OTHER]\n")
	env := []string{"TIERSTREAM_LEASE=102ms", "TIERSTREAM_RATES=ENVIRONMENT"}
	refused(t, nil, []string{file}, "--lease 101ms")
	refused(t, env, []string{file}, "--lease 102ms")
	refused(t, env, []string{file, "--lease=103ms"}, "--lease 103ms")
	refused(t, []string{"TIERSTREAM_CONFIG=" + strings.TrimPrefix(file, "--config=")}, nil, "--lease 101ms")
	// Lists are replaced, not mixed.
	refused(t, nil, []string{file, "--lease=2s"}, "--rates FILE")
	refused(t, env, []string{file, "--lease=2s"}, "--rates ENVIRONMENT")
	refused(t, env, []string{file, "--lease=2s", "--rates=FLAG"}, "--rates FLAG")
	// Files have a parser of their own.
	named := func(name string) string { return rig.ModelFile(t, "name: "+name+"\n") }
	file = "--config=" + settingsFile(t, "brokers: [h:1]\nredis: h:2\nmodel: "+named("file")+"\n")
	env = []string{"TIERSTREAM_MODEL=" + named("environment")}
	refused(t, nil, []string{file}, `model "file"`)
	refused(t, env, []string{file}, `model "environment"`)
	refused(t, env, []string{file, "--model=" + named("flag")}, `model "flag"`)
}

// TestChangedPartitionCount: keys would map to other partitions.
func TestChangedPartitionCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.RedisOptions{})
	c := w.Start()
	w.Send(w.Take(rig.Traffic(t, 7, 0), 100))()
	w.Settled(30 * time.Second)
	c.Stop()
	before, err := w.Fences()
	if err != nil {
		t.Fatal(err)
	}
	rs, err := w.Admin.CreatePartitions(t.Context(), 2, append(slices.Clone(w.Topics.Inputs), w.Topics.Journal)...)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rs {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	rig.Until(t, 15*time.Second, "waiting for the partitions", func() error {
		d, err := w.Admin.ListTopics(t.Context(), append(slices.Clone(w.Topics.Inputs), w.Topics.Journal)...)
		if err != nil {
			return err
		}
		for _, topic := range d {
			if len(topic.Partitions) != rig.Partitions+2 {
				return rig.ErrNotYet
			}
		}
		return nil
	})
	c = w.Start()
	c.Said("the inputs have 6 partitions, but this namespace was created with 4", 30*time.Second)
	if code := c.Exit(30 * time.Second); code == 0 {
		t.Error("exit code 0, want another")
	}
	after, err := w.Fences()
	if err != nil {
		t.Fatal(err)
	}
	for p := range after {
		if after[p].Point != before[p].Point {
			t.Errorf("partition %d went on from %d to %d", p, before[p].Seq, after[p].Seq)
		}
	}
}

// TestWrongPartitioner: producers map by another rule than the setting says.
// The partitions stop with nothing of that batch applied, also after a
// restart, until they are told to go on.
func TestWrongPartitioner(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.RedisOptions{})
	rule, err := event.ParsePartitioner("crc32")
	if err != nil {
		t.Fatal(err)
	}
	part, err := produce.Partitioner(rule)
	if err != nil {
		t.Fatal(err)
	}
	w.Client = w.Open(kgo.RecordPartitioner(part))
	w.Send(w.Take(rig.Traffic(t, 8, 0), 4*2500))()
	var stopped []*protocol.Fence
	for range 2 {
		c := w.Start("--batch-records=1000")
		c.Said("the partitioner setting (murmur2) or a producer's key looks wrong", 30*time.Second)
		if code := c.Exit(60 * time.Second); code == 0 {
			t.Error("exit code 0, want another")
		}
		if out := c.Output.String(); !strings.Contains(out, "--allow-rejects") || !strings.Contains(out, "misrouted") {
			t.Errorf("the consumer does not say how to go on:\n%s", out)
		}
		fs, err := w.Fences()
		if err != nil {
			t.Fatal(err)
		}
		for p, f := range fs {
			if stopped != nil && f.Point != stopped[p].Point {
				t.Errorf("partition %d went on from %d to %d after the restart", p, stopped[p].Seq, f.Seq)
			}
		}
		stopped = fs
	}
	w.Start("--allow-rejects", "--batch-records=1000")
	w.Settled(60 * time.Second)
	w.Check()
}
