//go:build unix

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/scoring"
	"github.com/tierstream/tierstream/internal/sim/produce"
	"github.com/tierstream/tierstream/internal/stream"
	"github.com/tierstream/tierstream/internal/testenv"
)

// alter changes a topic's settings until the end of the test; "" is the
// broker's default.
func (w *world) alter(topic string, settings map[string]string) {
	w.t.Helper()
	var cs []kadm.AlterConfig
	for k, v := range settings {
		c := kadm.AlterConfig{Op: kadm.SetConfig, Name: k, Value: &v}
		if v == "" {
			c = kadm.AlterConfig{Op: kadm.DeleteConfig, Name: k}
		}
		cs = append(cs, c)
	}
	rs, err := w.admin.AlterTopicConfigs(context.Background(), cs, topic)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range rs {
		if r.Err != nil {
			w.t.Fatalf("%s: %v %s", topic, r.Err, r.ErrMessage)
		}
	}
}

// refused runs a consumer of this namespace, which must refuse to start, with
// --check and without.
func (w *world) refused(more []string, want ...string) {
	w.t.Helper()
	refused(w.t, nil, w.args(append(more, "--check")...), want...)
	refused(w.t, nil, w.args(more...), want...)
}

// TestRefusesWrongTopics changes one thing at a time on the topics of one
// namespace.
func TestRefusesWrongTopics(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.RedisOptions{})
	in := w.topics.Inputs[1]
	for _, c := range []struct {
		name, topic string
		wrong       map[string]string
		want        []string
	}{
		{"compacted input", in, map[string]string{"cleanup.policy": "compact"}, []string{in, "cleanup.policy=compact", "removes events"}},
		{"compacted journal", w.topics.Journal, map[string]string{"cleanup.policy": "compact,delete"}, []string{w.topics.Journal, "kept whole"}},
		{"journal for a week", w.topics.Journal, map[string]string{"retention.ms": "604800000"}, []string{w.topics.Journal, "retention.ms=604800000", "for ever"}},
		{"journal of a gigabyte", w.topics.Journal, map[string]string{"retention.bytes": "1073741824"}, []string{w.topics.Journal, "retention.bytes=1073741824", "for ever"}},
		{"rules deleted", w.topics.Rules, map[string]string{"cleanup.policy": "delete"}, []string{w.topics.Rules, "must be compact"}},
		{"small changes", w.topics.Changes, map[string]string{"max.message.bytes": "1048576"}, []string{w.topics.Changes, "max.message.bytes"}},
		{"small dead letters", w.topics.DeadLetters, map[string]string{"max.message.bytes": "1048576"}, []string{w.topics.DeadLetters, "max.message.bytes"}},
	} {
		d, err := w.admin.DescribeTopicConfigs(t.Context(), c.topic)
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
		w.alter(c.topic, c.wrong)
		w.refused(nil, c.want...)
		w.alter(c.topic, right)
	}
	// What was wrong is right again.
	if code := w.start("--check").exit(30 * time.Second); code != 0 {
		t.Errorf("exit code %d of a --check of right settings", code)
	}

	other := w.ns + "-other"
	w.kafka.CreateTopic(t, other, partitions+1, nil)
	w.refused([]string{"--topics=" + w.topics.Inputs[0] + "," + other}, "co-partitioned", w.topics.Inputs[0]+" has 4", other+" has 5")
	w.kafka.CreateTopic(t, w.ns+"-another", partitions+1, nil)
	w.refused([]string{"--topics=" + other + "," + w.ns + "-another"}, "the journal "+w.topics.Journal+" has 4 partitions, the inputs have 5")
	w.refused([]string{"--topics=" + other + "-missing"}, "Kafka has no topic "+other+"-missing", "--create-topics")
	w.refused([]string{"--changes-topic=" + w.topics.DeadLetters}, w.topics.DeadLetters, "is named for")
	w.refused([]string{"--changes-topic=" + in}, in, "is an input and the topic of")
	w.refused([]string{"--topics=" + in + "," + in}, "named twice")
	w.refused([]string{"--namespace=Live"}, "namespace \"Live\"", "lower-case")
}

// TestCheckChangesNothing: --check on a cluster without the topics does not
// make them, with --create-topics neither, and writes no key.
func TestCheckChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.RedisOptions{})
	c := w.start("--check")
	if code := c.exit(30 * time.Second); code != 0 || !strings.Contains(c.output.String(), "are right") {
		t.Errorf("exit code %d of a --check of right settings:\n%s", code, c.output.String())
	}
	refused(t, nil, w.args("--check", "--create-topics", "--namespace="+w.ns+"-new"), "Kafka has no topic", w.ns+"-new-journal")
	topics, err := w.admin.ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if topics.Has(w.ns + "-new-journal") {
		t.Error("--check made a topic")
	}
	for _, topic := range w.topics.Names() {
		for p, records := range w.read(topic) {
			if len(records) > 0 {
				t.Errorf("--check wrote to %s/%d", topic, p)
			}
		}
	}
	if n, err := w.rdb.DBSize(t.Context()).Result(); err != nil || n != 0 {
		t.Errorf("--check left %d keys in Redis, %v", n, err)
	}
	groups, err := w.admin.ListGroups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := groups[stream.GroupID(w.ns)]; ok {
		t.Error("--check joined the group")
	}
}

func TestRefusesWrongServices(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.RedisOptions{MaxMemoryPolicy: "allkeys-lru"})
	w.refused(nil, "maxmemory-policy allkeys-lru", "set it to noeviction")
	nobody := testenv.Redis(t, testenv.RedisOptions{})
	nobody.Kill() // its port is ours and closed
	w.refused([]string{"--redis=redis://u:" + secret + "@" + nobody.Addr()}, "no Redis answers at "+nobody.Addr())
	for _, address := range []string{
		"redis://consumer:wrong-" + secret + "@" + w.redis.Addr(), // refused by Redis
		"http://consumer:" + secret + "@" + w.redis.Addr(),
		"redis://consumer:" + secret + "@" + w.redis.Addr() + "/nodatabase",
		"redis://consumer:" + secret + "@" + w.redis.Addr() + ":1",
		"consumer:" + secret + "@" + w.redis.Addr(),
	} {
		refused(t, nil, w.args("--redis="+address), "Redis")
	}
	if err := w.rdb.ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err(); err != nil {
		t.Fatal(err)
	}
	w.refused([]string{"--brokers=" + nobody.Addr()}, "no Kafka broker answers at ["+nobody.Addr()+"]")
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
			path := modelFile(t, c.model)
			refused(t, nil, w.args("--model="+path), append(c.want, "reading the model "+path)...)
		})
	}
	refused(t, nil, w.args("--model="+filepath.Join(t.TempDir(), "none.yaml")), "--model", "none.yaml")
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
		{"secret in a flag that is none", env, []string{"--rediss=redis://u:" + secret + "@h"}, []string{"unknown flag --rediss"}},
		{"redis alone", env, []string{"--redis=redis://u:" + secret + "@h"}, []string{"--redis without --brokers"}},
		{"brokers alone", env, []string{"--brokers=h:1"}, []string{"--brokers without --redis"}},
		{"no model", env, []string{"--brokers=h:1", "--redis=h:2"}, []string{"no --model", "tierctl model init"}},
		{"wrong word", env, []string{"--partitioner=murmur3"}, []string{"--partitioner", "murmur2"}},
		{"wrong number", env, []string{"--batch-records=many"}, []string{"--batch-records"}},
		{"negative", env, []string{"--batch-records=-1"}, []string{"--batch-records"}},
		{"wrong time", env, []string{"--brokers=h:1", "--redis=redis://u:" + secret + "@h:2:3", "--model=" + modelFile(t, string(scoring.Default().Canonical()))}, []string{"Redis"}},
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
	named := func(name string) string { return modelFile(t, "name: "+name+"\n") }
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
	c := w.start()
	w.send(w.take(traffic(t, 7, 0), 100))()
	w.settled(30 * time.Second)
	c.stop()
	before, err := w.fences()
	if err != nil {
		t.Fatal(err)
	}
	rs, err := w.admin.CreatePartitions(t.Context(), 2, append(slices.Clone(w.topics.Inputs), w.topics.Journal)...)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rs {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	until(t, 15*time.Second, "waiting for the partitions", func() error {
		d, err := w.admin.ListTopics(t.Context(), append(slices.Clone(w.topics.Inputs), w.topics.Journal)...)
		if err != nil {
			return err
		}
		for _, topic := range d {
			if len(topic.Partitions) != partitions+2 {
				return errNotYet
			}
		}
		return nil
	})
	c = w.start()
	c.said("the inputs have 6 partitions, but this namespace was created with 4", 30*time.Second)
	if code := c.exit(30 * time.Second); code == 0 {
		t.Error("exit code 0, want another")
	}
	after, err := w.fences()
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
	w.client = w.open(kgo.RecordPartitioner(part))
	w.send(w.take(traffic(t, 8, 0), 4*2500))()
	var stopped []*protocol.Fence
	for range 2 {
		c := w.start("--batch-records=1000")
		c.said("the partitioner setting (murmur2) or a producer's key looks wrong", 30*time.Second)
		if code := c.exit(60 * time.Second); code == 0 {
			t.Error("exit code 0, want another")
		}
		if out := c.output.String(); !strings.Contains(out, "--allow-rejects") || !strings.Contains(out, "misrouted") {
			t.Errorf("the consumer does not say how to go on:\n%s", out)
		}
		fs, err := w.fences()
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
	w.start("--allow-rejects", "--batch-records=1000")
	w.settled(60 * time.Second)
	w.check()
}
