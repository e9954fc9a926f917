//go:build unix

package mirrors

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/rig"
	"github.com/tierstream/tierstream/internal/testenv"
)

// A record that is no event leaves as a dead letter with its bytes, in the
// transaction of its offset: a consumer of such records is a transactional
// copier.

// messages are n records without meaning, told apart by their values.
func messages(topic string, from, n int) (out []*kgo.Record) {
	for i := from; i < from+n; i++ {
		out = append(out, &kgo.Record{Topic: topic, Key: fmt.Appendf(nil, "k%d", i%97), Value: fmt.Appendf(nil, "message %d", i)})
	}
	return out
}

// values of records, by partition.
func values(all [][]*kgo.Record) [][]string {
	out := make([][]string, len(all))
	for p, records := range all {
		for _, r := range records {
			out[p] = append(out[p], string(r.Value))
		}
	}
	return out
}

// equal compares, per partition, with the order.
func equal(t testing.TB, what string, got, want [][]string) {
	t.Helper()
	for p := range want {
		if len(got[p]) != len(want[p]) {
			t.Errorf("%s: partition %d has %d messages, want %d", what, p, len(got[p]), len(want[p]))
		}
		for i := range min(len(got[p]), len(want[p])) {
			if got[p][i] != want[p][i] {
				t.Errorf("%s: partition %d: message %d is %q, want %q", what, p, i, got[p][i], want[p][i])
				break
			}
		}
	}
}

// TestTransactionalCopy mirrors Kafka's transactions_test.py and
// group_mode_transactions_test.py: messages are copied in transactions while
// the brokers are bounced, and the copiers, in order and by SIGKILL. Kept:
//
//   - no message is in the output twice
//   - the set of outputs is the set of inputs
//   - both are true of a consumer that reads committed records meanwhile
//   - with one partition the order is the same; here with several as well, per
//     partition
//
// The two group protocols and the bounce with group metadata have no
// counterpart: positions are not kept by the group.
func TestTransactionalCopy(t *testing.T) {
	t.Parallel()
	kafka := testenv.Kafka(t, testenv.KafkaOptions{})
	const n = 8000
	type copying struct {
		w     *rig.World
		f     *rig.Fleet
		wait  func()
		seen  [][]string // by a consumer that reads meanwhile
		ended chan struct{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var cs []*copying
	for _, partitions := range []int32{1, 3} {
		c := &copying{w: oneInput(t, []string{kafka.Addr()}, rig.Config{
			Partitions: partitions, Namespace: fmt.Sprintf("copy-%d", partitions)}), ended: make(chan struct{})}
		c.f = &rig.Fleet{W: c.w, Args: []string{"--allow-rejects", "--batch-records=250"}}
		c.seen = make([][]string, partitions)
		reader := c.w.Open(kgo.ConsumeTopics(c.w.Topics.DeadLetters), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
			kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(100*time.Millisecond))
		go func() {
			defer close(c.ended)
			for read := 0; read < n && ctx.Err() == nil; {
				reader.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
					c.seen[r.Partition] = append(c.seen[r.Partition], string(r.Value))
					read++
				})
			}
		}()
		c.f.Start()
		c.f.Start()
		c.wait = func() {}
		cs = append(cs, c)
	}
	// A third of the messages, and a bounce in their midst.
	bounces := []func(){
		func() { // the copiers die
			for _, c := range cs {
				c.f.Kill(0)
				c.f.Start()
			}
		},
		func() { // the broker dies
			kafka.Kill()
			if err := kafka.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
		func() { // the copiers are closed
			for _, c := range cs {
				c.f.On[0].Stop()
				c.f.On = c.f.On[1:]
				c.f.Start()
			}
		},
		func() { // the broker is stopped in order
			if err := kafka.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
	}
	for i, bounce := range bounces {
		for _, c := range cs {
			part := n / len(bounces)
			c.wait = c.w.Send(messages(c.w.Topics.Inputs[0], i*part, part))
		}
		for _, c := range cs {
			c.w.Progress(c.w.Sent + 500)
		}
		bounce()
		for _, c := range cs {
			c.wait()
			c.w.Progress(c.w.Sent)
		}
	}
	for _, c := range cs {
		c.w.Settled(time.Minute)
		noTransactionIsOpen(t, c.w)
		in := values(c.w.Read(c.w.Topics.Inputs[0]))
		equal(t, "read afterwards", values(c.w.Read(c.w.Topics.DeadLetters)), in)
		select {
		case <-c.ended:
		case <-time.After(time.Minute):
			t.Fatal("the consumer that read meanwhile did not see everything")
		}
		equal(t, "read meanwhile", c.seen, in)
		distinct(t, in, n)
	}
}

// distinct: the inputs themselves are each there once.
func distinct(t testing.TB, all [][]string, n int) {
	t.Helper()
	flat := slices.Concat(all...)
	slices.Sort(flat)
	if got := len(slices.Compact(flat)); got != n {
		t.Errorf("%d different messages, want %d", got, n)
	}
}

// TestTxnEtl mirrors franz-go's TestTxnEtl: a chain of consumers, each of which
// reads committed records and writes the next one's input in transactions,
// while members of each stage come, leave and die. Kept, of the chain's end:
//
//   - every message is there exactly once
//   - per partition, offsets and messages are in the order of the chain's
//     beginning
//   - nothing of an aborted transaction surfaces
//
// It runs under every group balancer there; here under the one that is used.
func TestTxnEtl(t *testing.T) {
	t.Parallel()
	const n, partitions = 6000, 4
	broker := []string{testenv.SharedKafka(t).Addr()}
	redis := rig.Redis(t, testenv.RedisOptions{AppendFsync: "everysec"})
	var stages []*rig.Fleet
	input := ""
	for stage := range 3 {
		c := rig.Config{Brokers: broker, Redis: redis.Addr(), Partitions: partitions, Namespace: fmt.Sprintf("%sstage%d", testenv.Prefix(t), stage)}
		if stage == 0 {
			c.Inputs = []string{c.Namespace + "-in"}
		} else {
			c.Inputs = []string{input}
		}
		w := rig.New(t, c)
		// A dead letter must have room for the whole of its input.
		for _, out := range []string{w.Topics.Changes, w.Topics.DeadLetters} {
			w.Alter(out, map[string]string{"max.message.bytes": fmt.Sprint((2 + stage) << 20)})
		}
		input = w.Topics.DeadLetters
		f := &rig.Fleet{W: w, Args: []string{"--allow-rejects", "--batch-records=100"}}
		f.Start()
		stages = append(stages, f)
	}
	first, last := stages[0].W, stages[2].W
	const rounds = 4
	for round := range rounds {
		first.Send(messages(first.Topics.Inputs[0], round*n/rounds, n/rounds))()
		for i, f := range stages {
			switch (round + i) % rounds {
			case 0:
				f.Start()
			case 1:
				f.Start()
				f.Kill(0)
			case 2:
				f.Start()
				f.On[0].Stop()
				f.On = f.On[1:]
			}
		}
		last.Progress(int64((round + 1) * n / rounds))
	}
	for _, f := range stages {
		f.W.Sent = n
		f.W.Settled(time.Minute)
		noTransactionIsOpen(t, f.W)
	}
	in := values(first.Read(first.Topics.Inputs[0]))
	equal(t, "the end of the chain", values(last.Read(last.Topics.DeadLetters)), in)
	distinct(t, in, n)
}
