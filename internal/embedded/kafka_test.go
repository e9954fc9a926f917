package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// openKafka starts the broker on a folder; the test's end stops it.
func openKafka(t *testing.T, dir string) *kafka {
	t.Helper()
	k, err := startKafka(dir, ports{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.stop(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// newClient opens a client; the test's end closes it.
func newClient(t *testing.T, addr string, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(addr), kgo.RecordPartitioner(kgo.ManualPartitioner())}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func createTopic(t *testing.T, addr, topic string, partitions int32, settings map[string]string) {
	t.Helper()
	configs := map[string]*string{}
	for key, value := range settings {
		configs[key] = &value
	}
	if _, err := kadm.NewClient(newClient(t, addr)).CreateTopic(t.Context(), partitions, 1, configs, topic); err != nil {
		t.Fatal(err)
	}
}

// transaction produces each text to each partition of the topic and ends as
// told; nil leaves it open.
func transaction(t *testing.T, client *kgo.Client, topic string, partitions int32, text string, end *kgo.TransactionEndTry) {
	t.Helper()
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for p := range partitions {
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Partition: p, Value: []byte(text)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if end != nil {
		if err := client.EndTransaction(t.Context(), *end); err != nil {
			t.Fatal(err)
		}
	}
}

var commit, abort = kgo.TryCommit, kgo.TryAbort

// image copies the data folder as a SIGKILL at this moment would leave it:
// every write of the broker is a system call of its own.
func image(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// read returns all records of a partition as "offset text", control records
// as "offset commit|abort".
func read(t *testing.T, addr, topic string, partition int32, isolation kgo.IsolationLevel) []string {
	t.Helper()
	client := newClient(t, addr,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(0)}}),
		kgo.FetchIsolationLevel(isolation), kgo.KeepControlRecords(), kgo.FetchMaxWait(50*time.Millisecond))
	defer client.Close() // closing it after the broker takes seconds
	end := endOffset(t, addr, topic, partition, isolation)
	var out []string
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for next := int64(0); next < end; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("reading %s/%d from %d to %d: %v (so far %q)", topic, partition, next, end, err, out)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			text := string(r.Value)
			if r.Attrs.IsControl() {
				text = map[byte]string{0: "abort", 1: "commit"}[r.Key[3]]
			}
			out = append(out, fmt.Sprint(r.Offset, " ", text))
		})
	}
	return out
}

func endOffset(t *testing.T, addr, topic string, partition int32, isolation kgo.IsolationLevel) int64 {
	t.Helper()
	admin := kadm.NewClient(newClient(t, addr))
	list := admin.ListEndOffsets
	if isolation == kgo.ReadCommitted() {
		list = admin.ListCommittedOffsets
	}
	ends, err := list(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	end, ok := ends.Lookup(topic, partition)
	if !ok || end.Err != nil {
		t.Fatalf("end of %s/%d: %+v", topic, partition, end)
	}
	return end.Offset
}

func wantRecords(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

// identity is what a consumer compares with its genesis.
type identity struct {
	Cluster string
	Topic   kadm.TopicID
	Epochs  []int32
}

func identify(t *testing.T, addr, topic string) (id identity) {
	t.Helper()
	m, err := kadm.NewClient(newClient(t, addr)).Metadata(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	id.Cluster, id.Topic = m.Cluster, m.Topics[topic].ID
	for _, p := range m.Topics[topic].Partitions.Sorted() {
		id.Epochs = append(id.Epochs, p.LeaderEpoch)
	}
	return id
}

// A stop and a kill keep cluster and topic IDs, leader epochs, settings,
// offsets with control records, and what is committed.
func TestKafkaKeepsItsLog(t *testing.T) {
	dir := t.TempDir()
	k := openKafka(t, dir)
	createTopic(t, k.addr, "in", 2, map[string]string{"retention.ms": "-1"})
	createTopic(t, k.addr, "rules", 1, map[string]string{"cleanup.policy": "compact"})
	client := newClient(t, k.addr, kgo.TransactionalID("p"))
	transaction(t, client, "in", 2, "a", &commit)
	transaction(t, client, "in", 2, "b", &abort)
	transaction(t, client, "in", 1, "c", &commit)
	for _, text := range []string{"old", "older", "new"} {
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "rules", Key: []byte("k"), Value: []byte(text)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := client.EndTransaction(t.Context(), commit); err != nil {
			t.Fatal(err)
		}
	}
	was := identify(t, k.addr, "in")
	check := func(what, addr string) {
		t.Helper()
		if got := identify(t, addr, "in"); fmt.Sprint(got) != fmt.Sprint(was) {
			t.Errorf("%s: identity\n got %v\nwant %v", what, got, was)
		}
		wantRecords(t, what, read(t, addr, "in", 0, kgo.ReadCommitted()), "0 a", "1 commit", "3 abort", "4 c", "5 commit")
		wantRecords(t, what, read(t, addr, "in", 0, kgo.ReadUncommitted()), "0 a", "1 commit", "2 b", "3 abort", "4 c", "5 commit")
		wantRecords(t, what, read(t, addr, "in", 1, kgo.ReadCommitted()), "0 a", "1 commit", "3 abort")
		wantRecords(t, what, read(t, addr, "rules", 0, kgo.ReadCommitted()), "0 old", "1 commit", "2 older", "3 commit", "4 new", "5 commit")
		configs, err := kadm.NewClient(newClient(t, addr)).DescribeTopicConfigs(t.Context(), "rules")
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(configs[0].Configs, func(c kadm.Config) bool { return c.Key == "cleanup.policy" && c.MaybeValue() == "compact" }) {
			t.Errorf("%s: the topic's settings are lost", what)
		}
	}
	check("running", k.addr)
	killed := image(t, dir)
	check("killed", openKafka(t, killed).addr)

	client.Close()
	stopped := stop(t, k, dir)
	check("stopped", openKafka(t, stopped).addr)
}

// stop ends a broker and returns a copy of its folder as it leaves it.
func stop(t *testing.T, k *kafka, dir string) string {
	t.Helper()
	if err := k.stop(); err != nil {
		t.Fatal(err)
	}
	to := image(t, dir)
	// The cleanup of openKafka stops it once more.
	if err := os.WriteFile(k.open, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return to
}

// A transaction open at a kill is aborted for good: not by the next
// transaction of the same producer, nor by another kill, do its records come
// back.
func TestKilledTransactionStaysAborted(t *testing.T) {
	dir := t.TempDir()
	k := openKafka(t, dir)
	createTopic(t, k.addr, "in", 1, nil)
	client := newClient(t, k.addr, kgo.TransactionalID("p"))
	transaction(t, client, "in", 1, "a", &commit)
	transaction(t, client, "in", 1, "lost", nil)
	if end := endOffset(t, k.addr, "in", 0, kgo.ReadCommitted()); end != 2 {
		t.Fatalf("the open transaction does not hold the committed end back: %d", end)
	}

	second := image(t, dir)
	k = openKafka(t, second)
	wantRecords(t, "after one kill", read(t, k.addr, "in", 0, kgo.ReadCommitted()), "0 a", "1 commit", "3 abort")
	client = newClient(t, k.addr, kgo.TransactionalID("p"))
	transaction(t, client, "in", 1, "b", &commit)
	want := []string{"0 a", "1 commit", "3 abort", "4 b", "5 commit"}
	wantRecords(t, "after the next transaction", read(t, k.addr, "in", 0, kgo.ReadCommitted()), want...)

	third := image(t, second)
	wantRecords(t, "after two kills", read(t, openKafka(t, third).addr, "in", 0, kgo.ReadCommitted()), want...)
}

// A kill between the markers of one commit does not tear the transaction.
func TestKilledCommitIsCompleted(t *testing.T) {
	dir := t.TempDir()
	k := openKafka(t, dir)
	createTopic(t, k.addr, "in", 3, nil)
	client := newClient(t, k.addr, kgo.TransactionalID("p"))
	transaction(t, client, "in", 3, "a", &commit)
	transaction(t, client, "in", 3, "b", &commit)

	killed := image(t, dir)
	for _, p := range []string{"in-0", "in-2"} {
		dropLastBatch(t, filepath.Join(killed, "kafka", "partitions", p, "0"), true)
	}
	addr := openKafka(t, killed).addr
	for p := range int32(3) {
		wantRecords(t, fmt.Sprint("partition ", p), read(t, addr, "in", p, kgo.ReadCommitted()), "0 a", "1 commit", "2 b", "3 commit")
	}

	// Without any marker the commit had not begun.
	killed = image(t, dir)
	for p := range 3 {
		dropLastBatch(t, filepath.Join(killed, "kafka", "partitions", fmt.Sprint("in-", p), "0"), true)
	}
	addr = openKafka(t, killed).addr
	for p := range int32(3) {
		wantRecords(t, fmt.Sprint("partition ", p), read(t, addr, "in", p, kgo.ReadCommitted()), "0 a", "1 commit", "3 abort")
	}
}

// dropLastBatch takes the last batch from a segment, or only from its index.
func dropLastBatch(t *testing.T, segment string, data bool) {
	t.Helper()
	raw, err := os.ReadFile(segment + ".dat")
	if err != nil {
		t.Fatal(err)
	}
	last, count := 0, int64(0)
	for at := 0; at < len(raw); count++ {
		b, ok := readBatch(raw[at:])
		if !ok {
			t.Fatalf("%s: no batch at byte %d", segment, at)
		}
		last = at
		at += b.size
	}
	if data {
		if err := os.Truncate(segment+".dat", int64(last)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(segment+".idx", 15*(count-1)); err != nil {
		t.Fatal(err)
	}
}

// A kill between the writes of a batch and of its index entry loses nothing
// and does not make an open transaction's record visible; half a batch is
// forgotten.
func TestRepairCompletesIndexAndCutsTornBatch(t *testing.T) {
	dir := t.TempDir()
	k := openKafka(t, dir)
	createTopic(t, k.addr, "in", 1, nil)
	client := newClient(t, k.addr, kgo.TransactionalID("p"))
	transaction(t, client, "in", 1, "a", &commit)
	transaction(t, client, "in", 1, "lost", nil)

	killed := image(t, dir)
	segment := filepath.Join(killed, "kafka", "partitions", "in-0", "0")
	dropLastBatch(t, segment, false)
	wantRecords(t, "index entry missing", read(t, openKafka(t, killed).addr, "in", 0, kgo.ReadCommitted()), "0 a", "1 commit", "3 abort")

	killed = image(t, dir)
	segment = filepath.Join(killed, "kafka", "partitions", "in-0", "0")
	raw, err := os.ReadFile(segment + ".dat")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(segment+".dat", int64(len(raw)-1)); err != nil {
		t.Fatal(err)
	}
	wantRecords(t, "batch torn", read(t, openKafka(t, killed).addr, "in", 0, kgo.ReadUncommitted()), "0 a", "1 commit")
}

// Topics with LogAppendTime get the time of arrival in every record, whatever
// the producer says and however it compresses; it survives a restart. Others
// keep the producer's.
func TestLogAppendTime(t *testing.T) {
	dir := t.TempDir()
	k := openKafka(t, dir)
	createTopic(t, k.addr, "stamped", 1, map[string]string{"message.timestamp.type": "LogAppendTime"})
	createTopic(t, k.addr, "plain", 1, nil)
	begin := time.Now().Truncate(time.Millisecond)
	wrong := []time.Time{begin.Add(48 * time.Hour), begin.Add(-48 * time.Hour)}
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	for _, codec := range codecs {
		client := newClient(t, k.addr, kgo.ProducerBatchCompression(codec))
		var records []*kgo.Record
		for _, topic := range []string{"stamped", "plain"} {
			for i, at := range wrong {
				records = append(records, &kgo.Record{
					Topic: topic, Timestamp: at, Key: []byte("key"), Value: fmt.Appendf(nil, "%0500d", i),
					Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}},
				})
			}
		}
		if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	end := time.Now()
	check := func(what, addr string) {
		t.Helper()
		client := newClient(t, addr, kgo.ConsumeTopics("stamped", "plain"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for n := 0; n < 4*len(codecs); {
			fetches := client.PollFetches(ctx)
			if err := fetches.Err(); err != nil {
				t.Fatal(err)
			}
			fetches.EachRecord(func(r *kgo.Record) {
				n++
				i := int(r.Offset % 2)
				if string(r.Key) != "key" || string(r.Value) != fmt.Sprintf("%0500d", i) || len(r.Headers) != 1 || string(r.Headers[0].Value) != "v" {
					t.Errorf("%s: %s@%d holds another record: %q %q %v", what, r.Topic, r.Offset, r.Key, r.Value, r.Headers)
				}
				switch r.Topic {
				case "stamped":
					if r.Timestamp.Before(begin) || r.Timestamp.After(end) {
						t.Errorf("%s: stamped@%d has time %v, want within [%v, %v]", what, r.Offset, r.Timestamp, begin, end)
					}
				default:
					if !r.Timestamp.Equal(wrong[i]) {
						t.Errorf("%s: plain@%d has time %v, want the producer's %v", what, r.Offset, r.Timestamp, wrong[i])
					}
				}
			})
		}
	}
	check("running", k.addr)
	check("killed", openKafka(t, image(t, dir)).addr)
}

// A topic exists only when it was created.
func TestTopicsAreNotCreatedByUse(t *testing.T) {
	k := openKafka(t, t.TempDir())
	client := newClient(t, k.addr, kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(0))
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "typo", Value: []byte("x")}).FirstErr(); err == nil {
		t.Fatal("producing to an unknown topic created it")
	}
}
