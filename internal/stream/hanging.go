package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
	"unicode/utf16"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// stateTopic is where Kafka's transaction coordinators keep their decisions.
const stateTopic = "__transaction_state"

// markers writes the markers that Kafka left out. A coordinator that starts
// sends those of transactions that it had decided; a partition without a leader
// at that moment it takes for deleted (4.3, TransactionMarkerChannelManager),
// and the transaction is complete without it. The record is then undecided for
// ever, and nobody who reads committed gets past it (a "hanging" transaction,
// KIP-664).
//
// Unlike kafka-transactions.sh, which can only abort, it ends each as the
// coordinator has decided it, so that the transaction is one fact again. It
// touches transactions of its own transactional ID only, and only after
// InitProducerID: the coordinator has then ended all of them, and believes that
// it has sent all markers.
type markers struct {
	base    []kgo.Opt // of a client that reads Kafka's decisions
	admin   *kadm.Client
	id      string // the transactional ID
	outputs []string
	log     *slog.Logger
}

// finish ends what hangs, and says in how many partitions. producer is the ID
// that InitProducerID gave; it must not be writing. Nothing hangs nearly
// always: then this costs two requests.
func (m *markers) finish(ctx context.Context, producer int64) (finished int, err error) {
	behind, err := m.undecided(ctx)
	if err != nil || len(behind) == 0 {
		return 0, err
	}
	// In this order: if the coordinator is done, what is open then is left over.
	d, err := m.admin.DescribeTransactions(ctx, m.id)
	if err != nil {
		return 0, fmt.Errorf("asking for the transaction %s: %w", m.id, err)
	}
	t, err := d.On(m.id, nil)
	if err = errors.Join(err, t.Err); err != nil {
		return 0, fmt.Errorf("asking for the transaction %s: %w", m.id, err)
	}
	switch t.State {
	case "Empty", "CompleteCommit", "CompleteAbort":
	default:
		return 0, nil
	}
	open, unknown := m.open(ctx, behind, producer)
	if len(open) == 0 {
		return 0, unknown
	}
	decided, err := m.decisions(ctx)
	if err != nil {
		return 0, err
	}
	for _, o := range open {
		commit, ok := decided[decision{o.ProducerID, o.ProducerEpoch}]
		if !ok {
			m.log.Warn("a transaction hangs, and Kafka does not tell how it was decided", "topic", o.topic, "in", o.partition,
				"offset", o.CurrentTxnStartOffset, "producer", o.ProducerID, "epoch", o.ProducerEpoch)
			continue
		}
		rs, err := m.admin.WriteTxnMarkers(ctx, kadm.TxnMarkers{
			ProducerID: o.ProducerID, ProducerEpoch: o.ProducerEpoch, Commit: commit,
			CoordinatorEpoch: max(0, o.CoordinatorEpoch), // −1: the partition has seen no marker yet
			Topics:           kadm.TopicsSet{o.topic: {o.partition: {}}},
		})
		if err == nil {
			rs.EachPartition(func(r kadm.TxnMarkersPartitionResponse) { err = errors.Join(err, r.Err) })
		}
		if err != nil {
			return finished, fmt.Errorf("ending the transaction that hangs in %s/%d since offset %d: %w", o.topic, o.partition, o.CurrentTxnStartOffset, err)
		}
		finished++
		m.log.Warn("Kafka had left out the marker of a transaction: written as its coordinator had decided", "topic", o.topic, "in", o.partition,
			"offset", o.CurrentTxnStartOffset, "committed", commit, "producer", o.ProducerID, "epoch", o.ProducerEpoch)
	}
	return finished, unknown
}

// undecided lists the partitions of the outputs that hold a transaction open,
// anybody's.
func (m *markers) undecided(ctx context.Context) (behind kadm.TopicsSet, err error) {
	committed, err := m.admin.ListCommittedOffsets(ctx, m.outputs...)
	if err != nil {
		return nil, fmt.Errorf("asking for the ends of the outputs: %w", err)
	}
	ends, err := m.admin.ListEndOffsets(ctx, m.outputs...)
	if err != nil {
		return nil, fmt.Errorf("asking for the ends of the outputs: %w", err)
	}
	behind = kadm.TopicsSet{}
	ends.Each(func(end kadm.ListedOffset) {
		if c, ok := committed.Lookup(end.Topic, end.Partition); ok && c.Err == nil && end.Err == nil && c.Offset < end.Offset {
			behind.Add(end.Topic, end.Partition)
		}
	})
	return behind, nil
}

// An openTransaction is one that a partition holds open.
type openTransaction struct {
	topic     string
	partition int32
	kadm.DescribedProducer
}

// open lists the producer's open transactions, as the leaders know them
// (KIP-664); beside an error those of the partitions that did answer.
func (m *markers) open(ctx context.Context, in kadm.TopicsSet, producer int64) (open []openTransaction, err error) {
	all, err := m.admin.DescribeProducers(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("asking who writes to the outputs: %w", err)
	}
	all.EachPartition(func(ps kadm.DescribedProducersPartition) {
		if ps.Err != nil && !kerr.IsRetriable(ps.Err) {
			err = errors.Join(err, fmt.Errorf("asking who writes to %s/%d: %w", ps.Topic, ps.Partition, ps.Err))
		}
		for _, p := range ps.ActiveProducers {
			if p.ProducerID == producer && p.CurrentTxnStartOffset >= 0 {
				open = append(open, openTransaction{ps.Topic, ps.Partition, p})
			}
		}
	})
	return open, err
}

// A decision is about the last transaction that a producer began in an epoch.
type decision struct {
	producer int64
	epoch    int16
}

// decisions reads what the coordinator has decided: whether it was to commit.
// The coordinator writes Ongoing under the epoch of the producer before that
// writes anything; its decision follows under that epoch or, where each
// transaction has an epoch of its own (KIP-890), under the next.
func (m *markers) decisions(ctx context.Context) (map[decision]bool, error) {
	ends, err := m.admin.ListEndOffsets(ctx, stateTopic)
	if err != nil {
		return nil, fmt.Errorf("asking for the end of %s: %w", stateTopic, err)
	}
	n := int32(len(ends[stateTopic]))
	if n == 0 {
		return nil, fmt.Errorf("%s is not there", stateTopic)
	}
	partition := coordinatorOf(m.id, n)
	end, _ := ends.Lookup(stateTopic, partition)
	if end.Err != nil {
		return nil, fmt.Errorf("asking for the end of %s/%d: %w", stateTopic, partition, end.Err)
	}
	cl, err := kgo.NewClient(append(m.base[:len(m.base):len(m.base)],
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{stateTopic: {partition: kgo.NewOffset().AtStart()}}),
		kgo.FetchMaxWait(250*time.Millisecond),
	)...)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", stateTopic, err)
	}
	defer cl.CloseAllowingRebalance()
	decided := map[decision]bool{}
	var ongoing *decision
	for position := int64(0); position < end.Offset; {
		fs := cl.PollRecords(ctx, 10_000)
		for _, e := range fs.Errors() {
			return nil, fmt.Errorf("reading %s/%d: %w", stateTopic, partition, e.Err)
		}
		for it := fs.RecordIter(); !it.Done(); {
			r := it.Next()
			position = r.Offset + 1
			var k kmsg.TxnMetadataKey
			var v kmsg.TxnMetadataValue
			if len(r.Value) == 0 || k.ReadFrom(r.Key) != nil || k.TransactionalID != m.id || v.ReadFrom(r.Value) != nil {
				continue
			}
			switch v.State {
			case kmsg.TransactionStateOngoing:
				ongoing = &decision{v.ProducerID, v.ProducerEpoch}
				delete(decided, *ongoing)
			case kmsg.TransactionStatePrepareCommit, kmsg.TransactionStatePrepareAbort, kmsg.TransactionStateCompleteCommit, kmsg.TransactionStateCompleteAbort:
				if ongoing != nil {
					decided[*ongoing] = v.State == kmsg.TransactionStatePrepareCommit || v.State == kmsg.TransactionStateCompleteCommit
					ongoing = nil
				}
			}
		}
	}
	return decided, nil
}

// coordinatorOf is the partition of n that has a transactional ID's decisions:
// Java's String.hashCode, made positive (TransactionStateManager.partitionFor).
func coordinatorOf(id string, n int32) int32 {
	var h int32
	for _, u := range utf16.Encode([]rune(id)) {
		h = 31*h + int32(u)
	}
	return max(h, -h, 0) % n // of the least int32 there is no positive: 0
}
