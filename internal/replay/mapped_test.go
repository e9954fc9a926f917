package replay_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/check"
	"github.com/tierstream/tierstream/internal/connect"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/mapping"
	"github.com/tierstream/tierstream/internal/mapping/mappingtest"
	"github.com/tierstream/tierstream/internal/replay/replaytest"
)

// A company's own JSON, Avro and Protobuf are consumed by configuration alone;
// every bad record is accounted for by its code; and with the registry gone the
// run is repeated, to the byte, by a rebuild of Redis and by replays.
func TestMappedRunIsRepeatedWithoutTheRegistry(t *testing.T) {
	w := replaytest.New(t, fold.ClockEvents)
	in := w.Config.Topics.Inputs
	company := mappingtest.New(t, [3]string{in[0], in[1], in[2]})
	m, err := mapping.Parse([]byte(company.Mapping))
	if err != nil {
		t.Fatal(err)
	}
	w.Config.Rules = w.Config.Rules.WithMapping(m)
	registry, err := (&connect.Registry{}).Open(m.Registry(), "")
	if err != nil {
		t.Fatal(err)
	}
	w.Config.Schemas = registry

	// The registry is away at first: nothing of what needs it is decided.
	var asked atomic.Int64
	company.Registry.Intercept(func(rw http.ResponseWriter, _ *http.Request) bool {
		asked.Add(1)
		rw.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	stop := w.Start()
	records, want := company.Traffic(60)
	rule, err := event.ParsePartitioner("murmur2")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		r.Partition = rule.Partition(r.Key, replaytest.Partitions)
	}
	w.Produce(records...)
	w.Sent += int64(len(records))
	for deadline := time.Now().Add(30 * time.Second); asked.Load() < 3; {
		if time.Now().After(deadline) {
			t.Fatal("the registry was not asked again")
		}
		time.Sleep(10 * time.Millisecond)
	}
	for p := range int32(replaytest.Partitions) {
		if rs := w.Read(w.Config.Topics.DeadLetters, p); len(rs) > 0 {
			t.Errorf("partition %d: %d dead letters while the registry was away", p, len(rs))
		}
	}
	company.Registry.ClearInterceptors()
	w.Settle()

	counted := func() (got [event.NumCodes]int64) {
		for p := range int32(replaytest.Partitions) {
			f, err := w.Store(p).Fence(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for c, n := range f.State.Counters {
				got[c] += n
			}
		}
		got[event.Late] = 0 // a warning besides
		return got
	}
	if got := counted(); got != want {
		t.Errorf("counted %v, want %v", got, want)
	}

	// From here on there is no registry.
	stop()
	company.Registry.Close()
	w.Config.Schemas = gone{t}
	before := w.Dump()
	w.Mini.FlushAll()
	stop = w.Start()
	w.Settle()
	if got := counted(); got != want {
		t.Errorf("rebuilt, it counts %v, want %v", got, want)
	}
	if len(w.Dump()) < len(before)/2 {
		t.Errorf("%d keys were rebuilt of %d", len(w.Dump()), len(before))
	}
	stop()

	s := kafka(t, w)
	var customers int
	for p := range int32(replaytest.Partitions) {
		f := followed(t, w, s, p)
		fence, err := w.Store(p).Each(t.Context(), func(id string, value []byte) error {
			if customers++; !bytes.Equal(f.Value(id), value) {
				t.Errorf("customer %s: Redis has\n%x, the replay\n%x", id, value, f.Value(id))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if fence.Point != f.Point() {
			t.Errorf("partition %d: Redis is at %v, the replay at %v", p, fence.Point, f.Point())
		}
	}
	if customers != 60 {
		t.Errorf("%d customers, want 60", customers)
	}
	report, err := check.Run(t.Context(), check.Config{
		Namespace: "live", Topics: w.Config.Topics, Kafka: w.Config.Kafka, Redis: w.Redis, Replay: true, Canonical: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if !report.Holds || report.Compared != 60 {
		t.Errorf("the check: %+v", report)
	}
}

// gone is a registry that nobody may ask.
type gone struct{ t *testing.T }

func (g gone) Schema(_ context.Context, id int) (*mapping.Schema, error) {
	g.t.Errorf("the registry was asked for schema %d", id)
	return nil, errors.New("gone")
}
