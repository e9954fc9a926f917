package stream

import (
	"context"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/tierstream/tierstream/internal/testenv"
)

// TestMarkersLeftOutAreWritten: where Kafka left out the marker of a
// transaction, the next owner writes it as the coordinator had decided. A
// journal record that was committed is then followed, one that was aborted is
// not, and readers of the changes get past it. An open transaction of somebody
// else stays open.
func TestMarkersLeftOutAreWritten(t *testing.T) {
	t.Parallel()
	// The coordinator then does not learn of partitions that it was not told of:
	// to them it sends no marker.
	k := testenv.Kafka(t, testenv.KafkaOptions{Properties: map[string]string{"transaction.partition.verification.enable": "false"}})
	for name, end := range map[string]kgo.TransactionEndTry{"committed": kgo.TryCommit, "aborted": kgo.TryAbort} {
		t.Run(name, func(t *testing.T) {
			r := testenv.Redis(t, testenv.RedisOptions{})
			w := newWorld(t, []string{k.Addr()}, r.Addr(), name)
			adm := kadm.NewClient(w.client())
			i := w.start()
			n := w.history(0, 300)
			w.settled(n)
			if err := i.stop(); err != nil {
				t.Fatal(err)
			}

			const p = 2
			before, entry := w.fence(p), w.next(p)
			elsewhere := w.cfg.Namespace + "-elsewhere"
			if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, elsewhere); err != nil {
				t.Fatal(err)
			}
			last := w.client(kgo.TransactionalID(transactionalID(w.cfg.Namespace, p)))
			if err := last.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := last.ProduceSync(t.Context(), &kgo.Record{Topic: elsewhere, Value: []byte("known to the coordinator")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			id, epoch, err := last.ProducerID(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			w.smuggle(w.cfg.Topics.Journal, p, id, epoch, entry.Journal)
			w.smuggle(w.cfg.Topics.Changes, 1, id, epoch, []byte("not a change"))
			if err := last.EndTransaction(t.Context(), end); err != nil {
				t.Fatal(err)
			}
			other := w.client(kgo.TransactionalID(name+" somebody else"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
			if err := other.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := other.ProduceSync(t.Context(), &kgo.Record{Topic: w.cfg.Topics.Changes, Partition: 0, Value: []byte("open")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			changes := w.cfg.Topics.Changes
			if open, want := w.undecided(), fmt.Sprintf("%s/0 %s/1 %s/%d", changes, changes, w.cfg.Topics.Journal, p); open != want {
				t.Fatalf("open: %s, want %s", open, want)
			}

			i = w.start()
			until(t, 30*time.Second, "waiting for the markers", func() (bool, string) {
				open := w.undecided()
				return open == changes+"/0", open
			})
			w.running(i)
			if end == kgo.TryCommit {
				until(t, 20*time.Second, "waiting for the batch to be re-applied", func() (bool, string) {
					g := w.fence(p)
					return g.Point == entry.Point(), fmt.Sprintf("at %d, want %d", g.Seq, entry.Seq)
				})
			} else if g := w.fence(p); g.Point != before.Point {
				t.Errorf("the fence is at %d: want %d, an aborted batch is none", g.Seq, before.Seq)
			}
			if err := other.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
				t.Fatal(err)
			}
			w.settled(n + w.history(300, 300))
			if err := i.stop(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// undecided lists the partitions of the outputs that hold a transaction open.
func (w *world) undecided() string {
	w.t.Helper()
	m := &markers{admin: kadm.NewClient(w.client()), outputs: []string{w.cfg.Topics.Changes, w.cfg.Topics.DeadLetters, w.cfg.Topics.Journal}}
	behind, err := m.undecided(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, t := range behind.Sorted() {
		for _, p := range t.Partitions {
			out = append(out, fmt.Sprintf("%s/%d", t.Topic, p))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// smuggle appends a record of a producer's transaction to a partition that its
// coordinator does not learn of.
func (w *world) smuggle(topic string, partition int32, producer int64, epoch int16, value []byte) {
	w.t.Helper()
	now := time.Now().UnixMilli()
	body := kmsg.Record{Value: value} // attributes, two deltas, no key, no headers
	body.Length = int32(len(body.AppendTo(nil)) - 1)
	b := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, Attributes: 0x10, // transactional
		FirstTimestamp: now, MaxTimestamp: now, ProducerID: producer, ProducerEpoch: epoch, NumRecords: 1,
		Records: body.AppendTo(nil),
	}
	raw := b.AppendTo(nil)
	const unchecked, sized = 21, 12 // what the checksum and the length do not count
	b.CRC = int32(crc32.Checksum(raw[unchecked:], crc32.MakeTable(crc32.Castagnoli)))
	b.Length = int32(len(raw) - sized)

	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = partition, b.AppendTo(nil)
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.Partitions = topic, []kmsg.ProduceRequestTopicPartition{rp}
	req := kmsg.NewPtrProduceRequest()
	txn := transactionalID(w.cfg.Namespace, 2)
	req.TransactionID, req.Acks, req.TimeoutMillis, req.Topics = &txn, -1, 10_000, []kmsg.ProduceRequestTopic{rt}
	// Before KIP-890 a produce request did not add its partition.
	cl := w.client(kgo.MaxVersions(kversion.V3_5_0()))
	md, err := kadm.NewClient(cl).Metadata(w.t.Context(), topic)
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := req.RequestWith(w.t.Context(), cl.Broker(int(md.Topics[topic].Partitions[partition].Leader)))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode); err != nil {
		w.t.Fatal(err)
	}
}
