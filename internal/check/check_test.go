package check_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/check"
	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/replay"
	"github.com/tierstream/tierstream/internal/replay/replaytest"
	"github.com/tierstream/tierstream/internal/state"
)

func source(t *testing.T, w *replaytest.World) replay.Source {
	t.Helper()
	k, err := replay.NewKafka(w.Config.Kafka)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

func run(t *testing.T, w *replaytest.World, s replay.Source, again bool) *check.Report {
	t.Helper()
	r, err := check.Run(t.Context(), check.Config{Namespace: "live", Topics: w.Config.Topics, Source: s, Redis: w.Redis, Replay: again})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// lived is a world that worked, was restarted and lost its Redis on the way.
func lived(t *testing.T) *replaytest.World {
	t.Helper()
	w := replaytest.New(t, fold.ClockEvents)
	w.Send(1, 0, 700, 0.1)
	stop := w.Start()
	w.Settle()
	w.Mini.FlushAll()
	w.Send(1, 700, 1000, 0.1)
	w.Settle()
	stop()
	w.Send(1, 1000, 1300, 0.1)
	stop = w.Start()
	w.Settle()
	stop()
	return w
}

func holds(t *testing.T, r *check.Report) {
	t.Helper()
	if !r.Holds {
		for _, v := range r.Violations {
			t.Error(v.String())
		}
		t.Fatalf("does not hold: %v", r.Found)
	}
}

func TestASoundSystemHolds(t *testing.T) {
	w := lived(t)
	r := run(t, w, source(t, w), true)
	holds(t, r)
	if r.Customers < 100 || r.Changes < 100 || r.DeadLetters < 50 || r.Read != w.Sent || !slices.Contains(r.Checked, "I6") {
		t.Errorf("customers %d, changes %d, dead letters %d, read %d of %d, checked %v", r.Customers, r.Changes, r.DeadLetters, r.Read, w.Sent, r.Checked)
	}
	for _, p := range r.Partitions {
		if p.Applied != p.Published || p.Behind != 0 || p.Replayed != p.Read || p.Moving {
			t.Errorf("%+v", p)
		}
	}
}

// A check of a system at work sees each partition as of one instant.
func TestAMovingSystemHolds(t *testing.T) {
	w := replaytest.New(t, fold.ClockEvents)
	w.Send(1, 0, 500, 0.1)
	stop := w.Start()
	w.Settle()
	ctx, cancel := context.WithCancel(t.Context())
	var sender sync.WaitGroup
	defer sender.Wait()
	defer cancel()
	sender.Go(func() {
		for from := 500; from < 40000 && ctx.Err() == nil; from += 20 {
			w.Send(1, from, from+20, 0.1)
		}
	})
	moved := false
	for range 6 {
		r := run(t, w, source(t, w), true)
		holds(t, r)
		for _, p := range r.Partitions {
			moved = moved || p.Moving
		}
	}
	if !moved {
		t.Error("nothing moved while it was checked")
	}
	cancel()
	sender.Wait()
	stop()
}

// Each way of breaking a promise is found, and what is broken is named.
func TestWhatIsBrokenIsNamed(t *testing.T) {
	w := lived(t)
	kafka := source(t, w)
	topics := w.Config.Topics
	of := func(topic string) func(string, int32, *kgo.Record) bool {
		return func(t string, _ int32, _ *kgo.Record) bool { return t == topic }
	}
	drop := func(*kgo.Record) []*kgo.Record { return nil }
	double := func(r *kgo.Record) []*kgo.Record { return []*kgo.Record{r, r} }
	// Which record was altered.
	var victim *kgo.Record
	noting := func(alter func(*kgo.Record) []*kgo.Record) func(*kgo.Record) []*kgo.Record {
		return func(r *kgo.Record) []*kgo.Record { victim = r; return alter(r) }
	}
	value := func(edit func([]byte) []byte) func(*kgo.Record) []*kgo.Record {
		return func(r *kgo.Record) []*kgo.Record {
			c := *r
			c.Value = edit(slices.Clone(r.Value))
			return []*kgo.Record{&c}
		}
	}
	// Last change of a customer.
	last := map[string]int64{}
	for p := range int32(replaytest.Partitions) {
		for _, r := range w.Read(topics.Changes, p) {
			last[string(r.Key)] = r.Offset
		}
	}
	isLast := func(topic string, _ int32, r *kgo.Record) bool {
		return topic == topics.Changes && last[string(r.Key)] == r.Offset
	}
	notLast := func(topic string, _ int32, r *kgo.Record) bool {
		return topic == topics.Changes && last[string(r.Key)] != r.Offset
	}
	journal := func(edit func(*protocol.Record)) func(*kgo.Record) []*kgo.Record {
		return value(func(b []byte) []byte {
			rec, err := protocol.DecodeRecord(b)
			if err != nil {
				t.Fatal(err)
			}
			edit(rec)
			return rec.Encode()
		})
	}
	id := func() string { return regexp.QuoteMeta(string(victim.Key)) }
	for _, c := range []struct {
		name   string
		again  bool
		alter  replaytest.Alter
		want   func() string // in a violation
		broken []string      // invariants, all of them
	}{
		{"a change is missing", false, replaytest.Once(notLast, 30, noting(drop)),
			func() string { return `I2 .*customer ` + id() + `, change \d+, .*missing before it` }, []string{"I2"}},
		{"a last change is missing", false, replaytest.Once(isLast, 3, noting(drop)),
			func() string {
				return `I3 .*customer ` + id() + `, change \d+: the record is at change \d+ .*, the last one published is \d+`
			}, []string{"I3"}},
		{"a change is there twice", false, replaytest.Once(of(topics.Changes), 40, noting(double)),
			func() string {
				return fmt.Sprintf(`I2 .*customer %s, change \d+, tier-changes/%d@%d: it is there twice`, id(), victim.Partition, victim.Offset)
			}, []string{"I2"}},
		{"a change says another tier", false, replaytest.Once(isLast, 7, noting(value(func(b []byte) []byte {
			return regexp.MustCompile(`("new_tier":\{"id":"[^"]*","rank":)\d`).ReplaceAll(b, []byte("${1}9"))
		}))), func() string { return `I3 .*customer ` + id() + `, change \d+, .*ends at \S+ \(rank 9\), the record` }, []string{"I3"}},
		{"a change begins at another tier", false, replaytest.Once(notLast, 7, noting(value(func(b []byte) []byte {
			return regexp.MustCompile(`("new_tier":\{"id":"[^"]*","rank":)\d`).ReplaceAll(b, []byte("${1}9"))
		}))), func() string { return `I2 .*customer ` + id() + `, change \d+, .*begins at .*ended at rank 9` }, []string{"I2"}},
		{"a change has another ID", false, replaytest.Once(of(topics.Changes), 9, noting(func(r *kgo.Record) []*kgo.Record {
			c := *r
			c.Headers = slices.Clone(r.Headers)
			for i := range c.Headers {
				if c.Headers[i].Key == "ce_id" {
					c.Headers[i].Value = []byte("00112233")
				}
			}
			return []*kgo.Record{&c}
		})), func() string { return `I2 .*customer ` + id() + `.*its ID 00112233` }, []string{"I2"}},
		{"a change says another score", true, replaytest.Once(of(topics.Changes), 9, noting(value(func(b []byte) []byte {
			return regexp.MustCompile(`"score_after":[\d.]+`).ReplaceAll(b, []byte(`"score_after":1.5`))
		}))), func() string {
			return fmt.Sprintf(`I6 .*customer %s, change \d+, tier-changes/%d@%d: .*not what replaying decides`, id(), victim.Partition, victim.Offset)
		}, []string{"I6"}},
		{"a dead letter is missing", false, replaytest.Once(of(topics.DeadLetters), 11, noting(drop)),
			func() string {
				h := map[string]string{}
				for _, x := range victim.Headers {
					h[x.Key] = string(x.Value)
				}
				return fmt.Sprintf(`I4 partition %s, %s/%s@%s: it was refused as %s, but has no dead letter`, h["tierstream-partition"], h["tierstream-topic"], h["tierstream-partition"], h["tierstream-offset"], h["tierstream-code"])
			}, []string{"I4"}},
		{"a dead letter is there twice", false, replaytest.Once(of(topics.DeadLetters), 11, noting(double)),
			func() string {
				return fmt.Sprintf(`I4 .*dead-letters/%d@%d: .*there twice`, victim.Partition, victim.Offset)
			}, []string{"I4"}},
		{"a journal record is missing", false, replaytest.Once(of(topics.Journal), 5, noting(drop)),
			func() string {
				return fmt.Sprintf(`I1 partition %d, batch \d+, live-journal/%d@\d+: it follows batch \d+`, victim.Partition, victim.Partition)
			}, []string{"I1"}},
		{"a journal record has another clock", false, replaytest.Once(of(topics.Journal), 5, noting(journal(func(r *protocol.Record) { r.State.Clock++ }))),
			func() string {
				return fmt.Sprintf(`I1 partition %d, batch \d+, live-journal/%d@%d: its chain does not continue`, victim.Partition, victim.Partition, victim.Offset)
			}, []string{"I1"}},
		{"a journal record counts wrong", false, replaytest.Once(of(topics.Journal), 5, noting(journal(func(r *protocol.Record) { r.State.Counters[0]++ }))),
			func() string {
				return fmt.Sprintf(`I4 .*live-journal/%d@%d: \d+ records read, \d+ accounted for`, victim.Partition, victim.Offset)
			}, []string{"I1", "I4"}},
		{"an event says another amount", true, replaytest.Once(func(topic string, p int32, r *kgo.Record) bool {
			return topic == "purchases" && p == 1 && strings.Contains(string(r.Value), `"amount_minor":`)
		}, 20, noting(value(func(b []byte) []byte {
			return regexp.MustCompile(`"amount_minor":(\d)`).ReplaceAll(b, []byte(`"amount_minor":1$1`))
		}))), func() string {
			return fmt.Sprintf(`I6 partition %d, batch \d+, live-journal/%d@\d+: repeating it gives .*purchases/%d@`, victim.Partition, victim.Partition, victim.Partition)
		}, []string{"I6"}},
		{"the rules are gone", true, replaytest.Once(of(topics.Rules), 0, noting(drop)),
			func() string {
				return `I6 .*batch 1, live-journal/\d@\d+: it names rules [0-9a-f]{12}, which live-rules does not hold`
			}, []string{"I6"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			found(t, run(t, w, replaytest.Altered{Source: kafka, Alter: c.alter}, c.again), c.want, c.broken...)
		})
	}
	holds(t, run(t, w, kafka, true)) // the log itself is as it was
}

// What is wrong in Redis is found, too; whose record it is, by replaying that
// partition unasked.
func TestWhatIsBrokenInRedisIsNamed(t *testing.T) {
	w := lived(t)
	kafka := source(t, w)
	ctx := t.Context()
	for i, p := 0, int32(0); p != 1; i++ {
		id := fmt.Sprint("waits-", i)
		p = w.SendEvent(0, event.Event{Type: event.Return, ID: id, Customer: id, Time: time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC).UnixMilli(),
			BusinessID: id, OrderID: "unknown", Amount: 100, HasAmount: true, Currency: "EUR", Kind: event.Goods})
	}
	stop := w.Start()
	w.Settle()
	stop()
	keys := state.PartitionKeys("live", 1)
	fence := keys.Fence()
	gen := func() uint64 {
		f, err := w.Store(1).Fence(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return f.Gen
	}()
	var somebody string
	var record []byte
	if _, err := w.Store(1).Each(ctx, func(id string, v []byte) error {
		r := customer.NewRecord()
		if err := customer.Decode(v, &r); err != nil {
			return err
		}
		if len(r.Facts.Orders) > 2 && r.Standing.Tier > 0 {
			somebody, record = id, v
		}
		return nil
	}); err != nil || somebody == "" {
		t.Fatal(err)
	}
	waiting, err := w.Redis.Keys(ctx, "ts:{live:1}:*:w:*").Result()
	if err != nil || len(waiting) == 0 {
		t.Fatalf("no return waits: %v", err)
	}
	who := regexp.QuoteMeta(somebody)
	rewrite := func(edit func(r *customer.Record)) func() error {
		return func() error {
			r := customer.NewRecord()
			if err := customer.Decode(record, &r); err != nil {
				return err
			}
			edit(&r)
			return w.Redis.Set(ctx, keys.Customer(gen, somebody), r.Append(nil), 0).Err()
		}
	}
	for _, c := range []struct {
		name   string
		do     func() error
		want   string
		broken []string
	}{
		{"money of a record", rewrite(func(r *customer.Record) { r.Facts.Orders[1].Amount++ }),
			`I1 partition 1, batch \d+, customer ` + who + `, change \d+: Facts\.Orders\[1\]\.Amount is \d+, replaying gives \d+`, []string{"I1"}},
		{"tier of a record", rewrite(func(r *customer.Record) { r.Standing.Tier-- }),
			`I3 partition 1, customer ` + who + `, change \d+, tier-changes/\d@\d+: it ends at \S+ \(rank \d\), the record after it has rank \d`, []string{"I1", "I3"}},
		{"a record of a later change", rewrite(func(r *customer.Record) { r.Standing.Sequence++ }),
			`I3 partition 1, customer ` + who + `, change \d+: the record is at change`, []string{"I1", "I3"}},
		{"a record cut", func() error { return w.Redis.Set(ctx, keys.Customer(gen, somebody), record[:40], 0).Err() },
			`I1 partition 1, customer ` + who + `: the record is not one: `, []string{"I1", "I3"}},
		{"a record deleted", func() error { return w.Redis.Del(ctx, keys.Customer(gen, somebody)).Err() },
			`I1 partition 1, customer ` + who + `: the due set names this customer, but there is no record`, []string{"I1", "I3"}},
		{"a customer nobody knows", func() error {
			if err := w.Redis.Set(ctx, keys.Customer(gen, "stranger"), record, 0).Err(); err != nil {
				return err
			}
			return w.Redis.ZAdd(ctx, keys.Due(gen), redis.Z{Score: math.Inf(1), Member: "stranger"}).Err()
		}, `I1 partition 1, batch \d+, customer stranger: Redis has a record, replaying gives none`, []string{"I1", "I3"}},
		{"a customer out of the due set", func() error { return w.Redis.ZRem(ctx, keys.Due(gen), somebody).Err() },
			`I1 partition 1, customer ` + who + `: replaying gives a record, Redis has none`, []string{"I1", "I3"}},
		{"a due time", func() error {
			return w.Redis.ZAdd(ctx, keys.Due(gen), redis.Z{Score: 4e12, Member: somebody}).Err()
		}, `I1 partition 1, customer ` + who + `: the record is due at \d+, the due set says 4000000000000`, []string{"I1"}},
		{"the original of a waiting return", func() error { return w.Redis.Del(ctx, waiting[0]).Err() },
			`I1 partition 1, customer \S+: a return waits \([0-9a-f]{16}\), but its original record is gone`, []string{"I1"}},
		{"a counter", func() error {
			v, err := w.Redis.HGet(ctx, fence, "counters").Result()
			if err != nil {
				return err
			}
			first, rest, _ := strings.Cut(v, ",")
			n, err := strconv.Atoi(first)
			return errors.Join(err, w.Redis.HSet(ctx, fence, "counters", fmt.Sprint(n+1, ",", rest)).Err())
		}, `I4 partition 1, batch \d+: the fence says applied \d+, the journal record \d+`, []string{"I4"}},
		{"the digest", func() error { return w.Redis.HSet(ctx, fence, "digest", strings.Repeat("ab", 16)).Err() },
			`I1 partition 1, batch \d+: the fence says digest (ab){16}, the journal record`, []string{"I1"}},
		{"the chain", func() error { return w.Redis.HSet(ctx, fence, "chain", strings.Repeat("cd", 32)).Err() },
			`I1 partition 1, batch \d+: the fence stands here with chain cdcdcdcdcdcd, but published and outbox lead to`, []string{"I1"}},
		{"a position", func() error { return w.Redis.HSet(ctx, fence, "next", "1/0,1/0,1/0").Err() },
			`I1 partition 1, batch \d+: the fence says positions`, []string{"I1"}},
		{"an outbox entry", func() error {
			m, err := w.Redis.HKeys(ctx, keys.Outbox()).Result()
			if err != nil || len(m) == 0 {
				return fmt.Errorf("no entries: %w", err)
			}
			return w.Redis.HDel(ctx, keys.Outbox(), m[0]).Err()
		}, `I1 partition 1, batch \d+: the (outbox lacks this batch|fence stands here with chain)`, []string{"I1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			restore := w.KeepRedis()
			if err := c.do(); err != nil {
				t.Fatal(err)
			}
			found(t, run(t, w, kafka, false), func() string { return c.want }, c.broken...)
			restore()
		})
	}
	holds(t, run(t, w, kafka, true))
}

// After the log was truncated and Redis lost, the check says who was corrected,
// and holds everything else as before.
func TestARebasedSystemHoldsAndNamesTheCorrected(t *testing.T) {
	w := replaytest.New(t, fold.ClockEvents)
	w.Send(1, 0, 900, 0.1)
	stop := w.Start()
	w.Settle()
	stop()
	var gone kadm.Offsets
	for _, topic := range w.Config.Topics.Inputs {
		for p := range int32(replaytest.Partitions) {
			gone.Add(kadm.Offset{Topic: topic, Partition: p, At: int64(len(w.Read(topic, p)) / 2)})
		}
	}
	if rs, err := w.Admin.DeleteRecords(t.Context(), gone); err != nil || rs.Error() != nil {
		t.Fatal(err, rs.Error())
	}
	w.Mini.FlushAll()
	stop = w.Start()
	w.Settle()
	w.Send(1, 900, 1100, 0.1)
	w.Settle()
	stop()

	kafka := source(t, w)
	r := run(t, w, kafka, true)
	holds(t, r)
	corrected := map[string]bool{}
	for p := range int32(replaytest.Partitions) {
		for _, c := range w.Read(w.Config.Topics.Changes, p) {
			if strings.Contains(string(c.Value), `"reason":"correction"`) {
				corrected[string(c.Key)] = true
			}
		}
	}
	if len(corrected) == 0 || int(r.Corrections) != len(corrected) || len(r.Corrected) != len(corrected) {
		t.Errorf("%d customers are corrected, the check counts %d and lists %d", len(corrected), r.Corrections, len(r.Corrected))
	}
	for _, c := range r.Corrected {
		if !corrected[c.Customer] || c.Previous == c.New || c.Sequence < 2 {
			t.Errorf("corrected: %+v", c)
		}
	}
	if notes := strings.Join(r.Notes, "\n"); !regexp.MustCompile(`partition 1: rebased at batch \d+ \(log_truncated\).*I6 begins after it`).MatchString(notes) || !strings.Contains(notes, "partition 1: not replayed, because of its rebase") {
		t.Errorf("notes:\n%s", notes)
	}
	var victim *kgo.Record
	correction := func(topic string, _ int32, c *kgo.Record) bool {
		return topic == w.Config.Topics.Changes && strings.Contains(string(c.Value), `"reason":"correction"`)
	}
	lost := replaytest.Altered{Source: kafka, Alter: replaytest.Once(correction, 0, func(c *kgo.Record) []*kgo.Record { victim = c; return nil })}
	r = run(t, w, lost, false)
	if r.Holds {
		t.Error("a correction is missing, and nobody notices")
	}
	for _, v := range r.Violations {
		if v.Customer != string(victim.Key) {
			t.Errorf("customer %s: %s", victim.Key, v.String())
		}
	}
}

// A customer whose events arrived in another order than that of their
// timestamps, and conflict, is listed; everybody else has the facts of the log.
func TestOrderDependentCustomersAreListed(t *testing.T) {
	w := replaytest.New(t, fold.ClockEvents)
	w.Send(1, 0, 800, 0.05)
	stop := w.Start()
	w.Settle()
	at := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	purchase := event.Event{Type: event.Purchase, ID: "same", Customer: "torn", Time: at, BusinessID: "a", Amount: 100, HasAmount: true, Currency: "EUR"}
	p := w.SendEvent(0, purchase)
	w.Settle()
	// The other one says it is older, by its timestamp, but comes later.
	purchase.Time, purchase.BusinessID, purchase.Amount = at-1, "b", 200
	w.SendEvent(1, purchase)
	w.Settle()
	stop()
	compare := func() *check.Report {
		r, err := check.Run(t.Context(), check.Config{Namespace: "live", Topics: w.Config.Topics, Source: source(t, w), Redis: w.Redis, Canonical: true})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := compare()
	holds(t, r)
	torn := false
	for _, o := range r.Ordered {
		torn = torn || o.Customer == "torn" && o.Partition == p && o.Why == "id_conflict" && strings.HasPrefix(o.Text, "Facts.")
	}
	if !torn || int(r.OrderDependent) != len(r.Ordered) || r.Compared != r.Customers || r.OrderDependent > r.Customers/10 {
		t.Errorf("of %d customers %d are compared, %d depend on the order: %+v", r.Customers, r.Compared, r.OrderDependent, r.Ordered)
	}

	f, err := w.Store(0).Fence(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	somebody := ""
	if _, err := w.Store(0).Each(t.Context(), func(id string, v []byte) error {
		r := customer.NewRecord()
		if err := customer.Decode(v, &r); err != nil || somebody != "" || len(r.Facts.Orders) == 0 || len(r.Facts.Waiting) > 0 {
			return err
		}
		for _, d := range w.Read(w.Config.Topics.DeadLetters, 0) {
			if string(d.Key) == id {
				return nil
			}
		}
		somebody = id
		r.Facts.Orders[0].Amount++
		return w.Redis.Set(t.Context(), state.PartitionKeys("live", 0).Customer(f.Gen, id), r.Append(nil), 0).Err()
	}); err != nil || somebody == "" {
		t.Fatal(somebody, err)
	}
	found(t, compare(), func() string {
		return `I6 partition 0, customer ` + somebody + `: Facts\.Orders\[0\]\.Amount is \d+, replaying gives \d+, and nothing of this customer depends on the order`
	}, "I1", "I6")
}

// found wants a violation, of these invariants and no others.
func found(t *testing.T, r *check.Report, want func() string, broken ...string) {
	t.Helper()
	ok := false
	var all []string
	for _, v := range r.Violations {
		ok = ok || regexp.MustCompile(want()).MatchString(v.String())
		all = append(all, v.String())
	}
	if !ok {
		t.Errorf("no %s in\n%s", want(), strings.Join(all, "\n"))
	}
	var which []string
	for i, n := range r.Found {
		if n > 0 {
			which = append(which, i)
		}
	}
	slices.Sort(which)
	if r.Holds || !slices.Equal(which, broken) {
		t.Errorf("holds %v; violated are %v, want %v:\n%s", r.Holds, which, broken, strings.Join(all, "\n"))
	}
}
