package stream

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// group is membership of the consumer group that owns partitions. It
// subscribes to the journal topic only and fetches nothing: owning journal
// partition p is owning partition p of every input.
type group struct {
	client *kgo.Client
	id     string
}

// stillMember waits for a heartbeat of its own that the group accepts: after a
// rejection, only a member that the group still knows may acquire again, or a
// process that woke from a long pause would take its partitions back from
// their new owner. That the client's own heartbeats are answered is not
// enough: an answer can say that the member is unknown. It returns false when
// the worker is to end.
func (g *group) stillMember(ctx context.Context, drain <-chan struct{}) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-drain:
			cancel()
		case <-ctx.Done():
		}
	}()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		req := kmsg.NewPtrHeartbeatRequest()
		req.Group = g.id
		req.MemberID, req.Generation = g.client.GroupMetadata()
		if req.MemberID != "" {
			// During a rebalance, members keep what is not taken from them.
			resp, err := req.RequestWith(ctx, g.client)
			if err == nil && (resp.ErrorCode == 0 || resp.ErrorCode == kerr.RebalanceInProgress.Code) {
				return ctx.Err() == nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
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
