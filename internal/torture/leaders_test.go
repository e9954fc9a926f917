//go:build unix

package torture

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/tierstream/tierstream/internal/rig"
)

// moveLeaders makes the next broker in line the leader of every partition,
// those of transactions and of groups included, so that coordinators move too.
func (r *run) moveLeaders() string {
	_, when := r.moment()
	admin := r.w.Admin
	moved := 0
	rig.Until(r.t, patience, "moving leaders", func() error {
		r.alive()
		topics, err := admin.ListTopicsWithInternal(r.ctx)
		if err != nil {
			return err
		}
		var req kadm.AlterPartitionAssignmentsReq
		before := map[string][]int32{}
		for _, t := range topics {
			for _, p := range t.Partitions.Sorted() {
				req.Assign(t.Topic, p.Partition, append(p.Replicas[1:len(p.Replicas):len(p.Replicas)], p.Replicas[0]))
				before[t.Topic] = append(before[t.Topic], p.Leader)
			}
		}
		if _, err := admin.AlterPartitionAssignments(r.ctx, req); err != nil {
			return err
		}
		if _, err := admin.ElectLeaders(r.ctx, kadm.ElectPreferredReplica, nil); err != nil {
			return err
		}
		topics, err = admin.ListTopicsWithInternal(r.ctx)
		if err != nil {
			return err
		}
		for _, t := range topics {
			for i, p := range t.Partitions.Sorted() {
				if p.Leader != before[t.Topic][i] {
					moved++
				}
			}
		}
		if moved == 0 {
			return rig.ErrNotYet
		}
		return nil
	})
	return fmt.Sprintf("%d partitions, %s", moved, when)
}
