package stream

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// group is membership of the consumer group that owns partitions. It
// subscribes to the journal topic only and fetches nothing: owning journal
// partition p is owning partition p of every input.
type group struct {
	client *kgo.Client
	id     string
	beat   atomic.Int64 // when the last answered heartbeat was sent, Unix ns
}

// OnBrokerE2E notes answered heartbeats. (A kgo hook.)
func (g *group) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	const heartbeat, consumerGroupHeartbeat = 12, 68
	if (key == heartbeat || key == consumerGroupHeartbeat) && e2e.Err() == nil {
		g.beat.Store(time.Now().Add(-e2e.DurationE2E()).UnixNano())
	}
}

// heartbeatAfter waits for a heartbeat sent after t: after a rejection, only a
// member that the group still knows may acquire again, or a process that woke
// from a long pause would take its partitions back from their new owner.
func (g *group) heartbeatAfter(ctx context.Context, drain <-chan struct{}, t time.Time) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if g.beat.Load() > t.UnixNano() {
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		case <-drain:
			return false
		}
	}
}

// commit tells lag tools how far the inputs are applied. Nothing ever reads
// it back.
func (g *group) commit(ctx context.Context, topics []string, next map[int32][]int64) {
	member, generation := g.client.GroupMetadata()
	if member == "" || len(next) == 0 {
		return
	}
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.MemberID, req.Generation = g.id, member, generation
	for i, t := range topics {
		rt := kmsg.NewOffsetCommitRequestTopic()
		rt.Topic = t
		for p, offsets := range next {
			rp := kmsg.NewOffsetCommitRequestTopicPartition()
			rp.Partition, rp.Offset, rp.LeaderEpoch = p, offsets[i], -1
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
	}
	_, _ = req.RequestWith(ctx, g.client) // for display only; the next second tries again
}
