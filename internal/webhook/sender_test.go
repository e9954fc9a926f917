package webhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/vmihailenco/msgpack/v5"
	"go.opentelemetry.io/otel"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/tierstream/tierstream/internal/testenv"
)

const (
	partitions = 3
	patience   = 30 * time.Second
)

var topics = Topics{Changes: "tier-changes", Aside: "live-webhooks"}

// quick is a schedule of three attempts for tests that cannot wait.
var quick = []time.Duration{20 * time.Millisecond, 50 * time.Millisecond}

// broker is an in-process Kafka with the topic of changes.
func broker(t *testing.T) (kafka []kgo.Opt, client *kgo.Client) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, topics.Changes),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}), kfake.GroupMinSessionTimeout(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	kafka = []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.MetadataMinAge(50 * time.Millisecond), kgo.HeartbeatInterval(50 * time.Millisecond)}
	if client, err = kgo.NewClient(kafka...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := CreateAside(t.Context(), client, topics); err != nil {
		t.Fatal(err)
	}
	return kafka, client
}

// publish writes changes named like a12: customer and sequence. One whose
// sequence is a multiple of five is a downgrade, of seven from history.
func publish(t *testing.T, client *kgo.Client, names ...string) {
	t.Helper()
	var records []*kgo.Record
	for _, name := range names {
		c := named(name)
		direction, mode := "up", "live"
		if c.sequence%5 == 0 {
			direction = "down"
		}
		if c.sequence%7 == 0 {
			mode = "backfill"
		}
		records = append(records, &kgo.Record{
			Topic: topics.Changes, Key: []byte(c.customer),
			Value:   fmt.Appendf(nil, `{"customer_id":%q,"sequence":%d,"new_tier":{"id":"gold"},"direction":%q,"reason":"purchase","mode":%q}`, c.customer, c.sequence, direction, mode),
			Headers: pairs("ce_id", "id-"+name, "ce_customerseq", fmt.Sprintf("%020d", c.sequence), "ce_type", "io.tierstream.tier-change.v1", "ce_subject", c.customer, "content-type", "application/json"),
		})
	}
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// inbox is a receiver that verifies what it gets and answers as it is told.
type inbox struct {
	t        *testing.T
	verifier *standardwebhooks.Webhook
	endpoint *Endpoint
	getenv   func(string) string

	mu     sync.Mutex
	answer func(w http.ResponseWriter, id string) // nil: 200
	got    map[string][]string                    // by customer: IDs answered with 2xx, in order
	tries  map[string]int                         // by ID
	moved  chan struct{}
}

func newInbox(t *testing.T) *inbox {
	t.Helper()
	in := &inbox{t: t, got: map[string][]string{}, tries: map[string]int{}, moved: make(chan struct{})}
	server := httptest.NewServer(in)
	t.Cleanup(server.Close)
	in.endpoint, in.getenv = endpointAt(t, server.URL)
	in.endpoint.Start = "beginning"
	in.endpoint.Timeout = 300 * time.Millisecond
	var err error
	if in.verifier, err = standardwebhooks.NewWebhook(in.getenv("OLD")); err != nil {
		t.Fatal(err)
	}
	return in
}

func (in *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sender has given up
	}
	if err := in.verifier.Verify(body, r.Header); err != nil {
		in.t.Errorf("a request is not signed: %v", err)
	}
	id := r.Header.Get("webhook-id")
	in.mu.Lock()
	in.tries[id]++
	answer := in.answer
	in.mu.Unlock()
	recorder := &statusWriter{ResponseWriter: w, status: 200}
	if answer != nil {
		answer(recorder, id)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if recorder.status/100 == 2 && r.Context().Err() == nil {
		customer := r.Header.Get("ce-subject")
		in.got[customer] = append(in.got[customer], strings.TrimPrefix(id, "id-"))
	}
	close(in.moved)
	in.moved = make(chan struct{})
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (in *inbox) answerBy(answer func(w http.ResponseWriter, id string)) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.answer = answer
}

func always(status int) func(http.ResponseWriter, string) {
	return func(w http.ResponseWriter, _ string) { w.WriteHeader(status) }
}

// await waits until the receiver has got what is wanted.
func (in *inbox) await(what string, reached func() bool) {
	in.t.Helper()
	deadline := time.After(patience)
	for {
		in.mu.Lock()
		ok, moved := reached(), in.moved
		in.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-moved:
		case <-deadline:
			in.mu.Lock()
			defer in.mu.Unlock()
			in.t.Fatalf("waiting for %s: got %v, tried %v", what, in.got, in.tries)
		}
	}
}

// has waits for these deliveries, of each customer in this order.
func (in *inbox) has(want map[string][]string) {
	in.t.Helper()
	in.await(fmt.Sprint(want), func() bool { return maps.EqualFunc(in.got, want, slices.Equal[[]string]) })
}

// run starts a sender; stop ends it cleanly.
func run(t *testing.T, kafka []kgo.Opt, getenv func(string) string, schedule []time.Duration, endpoints ...*Endpoint) (s *Sender, stop func()) {
	t.Helper()
	o := Options{Kafka: kafka, Topics: topics, Namespace: "live", Getenv: getenv, Schedule: schedule}
	for _, e := range endpoints {
		o.Endpoints = append(o.Endpoints, *e)
	}
	s, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return s, stop
}

// eventually waits for a condition that nothing announces.
func eventually(t *testing.T, what string, reached func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !reached(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waiting for %s", what)
		}
	}
}

func look(t *testing.T, kafka []kgo.Opt, s Selection) (found []string) {
	t.Helper()
	a, err := OpenAside(t.Context(), kafka, topics)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for _, e := range a.List(s) {
		found = append(found, strings.TrimPrefix(e.ID(), "id-"))
	}
	return found
}

// committed are the group's offsets, summed over partitions.
func committed(t *testing.T, client *kgo.Client) (sum int64) {
	t.Helper()
	offsets, err := kadm.NewClient(client).FetchOffsets(t.Context(), Group("live", "crm"))
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		t.Fatal(err)
	}
	offsets.Each(func(o kadm.OffsetResponse) { sum += max(o.At, 0) })
	return sum
}

// A receiver that fails, hangs, redirects and asks for time, one after the
// other, has every change in the end, in order per customer; meanwhile the
// process is restarted.
func TestReceiverInTroubleGetsEverythingInOrder(t *testing.T) {
	kafka, client := broker(t)
	in := newInbox(t)
	hang := make(chan struct{})
	many := slices.Repeat([]time.Duration{20 * time.Millisecond}, 1000)
	want := map[string][]string{}
	sequence := 0
	more := func() {
		sequence++
		if sequence%7 == 0 {
			sequence++ // not from history
		}
		var names []string
		for _, c := range "abcdefgh" {
			name := fmt.Sprintf("%c%d", c, sequence)
			want[string(c)] = append(want[string(c)], name)
			names = append(names, name)
		}
		publish(t, client, names...)
	}
	// tries tells whether there were n more attempts since now.
	tries := func(n int) func() bool {
		sum := func() (n int) {
			for _, k := range in.tries {
				n += k
			}
			return n
		}
		in.mu.Lock()
		defer in.mu.Unlock()
		before := sum()
		return func() bool { return sum() >= before+n }
	}
	_, stop := run(t, kafka, in.getenv, many, in.endpoint)
	more()
	in.has(want)
	for name, answer := range map[string]func(http.ResponseWriter, string){
		"fails":     always(500),
		"redirects": func(w http.ResponseWriter, _ string) { w.Header().Set("Location", "/"); w.WriteHeader(302) },
		// Longer than the sender waits: it gives up, and nobody gets this answer.
		"hangs": func(w http.ResponseWriter, _ string) {
			select {
			case <-hang:
			case <-time.After(400 * time.Millisecond):
			}
			w.WriteHeader(500)
		},
	} {
		in.answerBy(answer)
		enough := tries(12)
		more()
		more()
		in.await("some attempts while it "+name, enough)
		stop()
		_, stop = run(t, kafka, in.getenv, many, in.endpoint)
		more()
	}
	close(hang)
	began := time.Now()
	var asked sync.Once
	in.answerBy(func(w http.ResponseWriter, _ string) {
		limited := false
		asked.Do(func() { limited, began = true, time.Now() })
		if limited {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
		}
	})
	more()
	in.has(want)
	if took := time.Since(began); took < time.Second {
		t.Errorf("everything was there after %s: not even the second that it asked for", took)
	}
	eventually(t, "all offsets to be committed", func() bool { return committed(t, client) == int64(len(want)*len(want["a"])) })
	eventually(t, "nothing to be set aside", func() bool { return look(t, kafka, Selection{}) == nil })
}

// One customer's changes are refused: they are parked, survive a restart, and
// are delivered in order when they are replayed. Nobody else notices.
func TestParkedChangesAreReplayed(t *testing.T) {
	t.Run("kfake", func(t *testing.T) {
		kafka, client := broker(t)
		parkAndReplay(t, kafka, client)
	})
	t.Run("Kafka", func(t *testing.T) {
		server := testenv.Kafka(t, testenv.KafkaOptions{})
		server.CreateTopic(t, topics.Changes, partitions, nil)
		kafka := []kgo.Opt{kgo.SeedBrokers(server.Addr()), kgo.MetadataMinAge(50 * time.Millisecond)}
		client, err := kgo.NewClient(kafka...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		if err := CreateAside(t.Context(), client, topics); err != nil {
			t.Fatal(err)
		}
		parkAndReplay(t, kafka, client)
	})
}

func parkAndReplay(t *testing.T, kafka []kgo.Opt, client *kgo.Client) {
	in := newInbox(t)
	in.answerBy(func(w http.ResponseWriter, id string) {
		if strings.HasPrefix(id, "id-a") {
			w.WriteHeader(400)
		}
	})
	_, stop := run(t, kafka, in.getenv, quick, in.endpoint)
	publish(t, client, "a1", "b1", "a2", "c1", "b2", "a3")
	in.await("the others", func() bool { return len(in.got["b"]) == 2 && len(in.got["c"]) == 1 })
	eventually(t, "a's to be parked", func() bool { return slices.Equal(look(t, kafka, Selection{State: Parked}), []string{"a1", "a2", "a3"}) })
	eventually(t, "all offsets to be committed", func() bool { return committed(t, client) == 6 })
	stop()

	a, err := OpenAside(t.Context(), kafka, topics)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	e := a.List(Selection{State: Parked})[0]
	if e.Endpoint != "crm" || e.Customer() != "a" || e.Sequence() != 1 || e.Attempts != len(quick)+1 || e.Reason != "400 Bad Request" || !strings.Contains(string(e.Body()), `"customer_id":"a"`) || e.Published().IsZero() {
		t.Errorf("parked is %+v", e)
	}
	if n := len(a.List(Selection{Customer: "b"})); n != 0 {
		t.Errorf("%d of b are set aside", n)
	}

	_, stop = run(t, kafka, in.getenv, quick, in.endpoint)
	publish(t, client, "b3") // what is parked stays so
	in.await("b3", func() bool { return len(in.got["b"]) == 3 })
	in.answerBy(nil)
	if n, err := a.Replay(t.Context(), Selection{Customer: "a"}); n != 3 || err != nil {
		t.Errorf("replayed %d, %v", n, err)
	}
	in.has(map[string][]string{"a": {"a1", "a2", "a3"}, "b": {"b1", "b2", "b3"}, "c": {"c1"}})
	eventually(t, "nothing to be set aside", func() bool { return look(t, kafka, Selection{}) == nil })
	stop()

	// Replayed while nothing runs: the next run delivers it.
	in.answerBy(always(500))
	_, stop = run(t, kafka, in.getenv, quick, in.endpoint)
	publish(t, client, "d1")
	eventually(t, "d1 to be parked", func() bool { return slices.Equal(look(t, kafka, Selection{State: Parked}), []string{"d1"}) })
	stop()
	in.answerBy(nil)
	b, err := OpenAside(t.Context(), kafka, topics)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if n, err := b.Replay(t.Context(), Selection{IDs: []string{"id-d1"}}); n != 1 || err != nil {
		t.Errorf("replayed %d, %v", n, err)
	}
	run(t, kafka, in.getenv, quick, in.endpoint)
	in.await("d1", func() bool { return slices.Equal(in.got["d"], []string{"d1"}) })
}

// 410 disables the endpoint for every process, until somebody enables it; then
// it goes on where it stopped. Another endpoint does not care.
func TestGoneDisablesTheEndpoint(t *testing.T) {
	kafka, client := broker(t)
	in, other := newInbox(t), newInbox(t)
	other.endpoint.Name = "other"
	other.endpoint.Secrets = in.endpoint.Secrets
	other.verifier = in.verifier
	s, stop := run(t, kafka, in.getenv, quick, in.endpoint, other.endpoint)
	publish(t, client, "a1")
	in.has(map[string][]string{"a": {"a1"}})
	in.answerBy(always(410))
	publish(t, client, "a2", "b1")
	eventually(t, "the endpoint to be disabled", func() bool { return s.Ready() != nil })
	if text := s.Ready().Error(); !strings.Contains(text, "endpoint crm is disabled: answered 410 Gone at ") {
		t.Errorf("not ready: %s", text)
	}
	publish(t, client, "a3")
	other.has(map[string][]string{"a": {"a1", "a2", "a3"}, "b": {"b1"}})
	stop()

	in.answerBy(nil)
	s, _ = run(t, kafka, in.getenv, quick, in.endpoint)
	eventually(t, "the restarted process to know", func() bool { return s.Ready() != nil })
	in.mu.Lock()
	tried := in.tries["id-a2"] + in.tries["id-b1"] + in.tries["id-a3"]
	in.mu.Unlock()
	if tried > 2 { // both customers may have been under way
		t.Errorf("%d attempts at a disabled endpoint", tried)
	}
	a, err := OpenAside(t.Context(), kafka, topics)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if off := a.Disabled(); len(off) != 1 || off["crm"] == "" {
		t.Errorf("disabled are %v", off)
	}
	if err := a.Enable(t.Context(), "other"); err == nil {
		t.Error("an endpoint that is not disabled was enabled")
	}
	if err := a.Enable(t.Context(), "crm"); err != nil {
		t.Fatal(err)
	}
	in.has(map[string][]string{"a": {"a1", "a2", "a3"}, "b": {"b1"}})
	if err := s.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
}

// Two processes share the partitions; while one comes and goes, each change is
// delivered, a customer's in order.
func TestProcessesShareThePartitions(t *testing.T) {
	kafka, client := broker(t)
	in := newInbox(t)
	n := 0
	var mu sync.Mutex
	in.answerBy(func(w http.ResponseWriter, _ string) {
		mu.Lock()
		defer mu.Unlock()
		if n++; n%5 == 0 {
			w.WriteHeader(500)
		}
	})
	many := slices.Repeat([]time.Duration{10 * time.Millisecond}, 1000)
	run(t, kafka, in.getenv, many, in.endpoint)
	want := 0
	for round := range 4 {
		_, stop := run(t, kafka, in.getenv, many, in.endpoint)
		for i := range 20 {
			sequence := round*20 + i + 1
			if sequence%7 == 0 {
				continue
			}
			want++
			publish(t, client, fmt.Sprintf("a%d", sequence), fmt.Sprintf("b%d", sequence), fmt.Sprintf("c%d", sequence), fmt.Sprintf("d%d", sequence))
		}
		in.await("some of this round", func() bool { return len(in.got["a"]) >= want-10 })
		stop()
	}
	// At least once: an ID may come again after a handover, never an older one
	// that is new.
	in.await("everything", func() bool {
		for _, c := range []string{"a", "b", "c", "d"} {
			if len(once(in.got[c])) < want {
				return false
			}
		}
		return true
	})
	in.mu.Lock()
	defer in.mu.Unlock()
	for c, got := range in.got {
		ordered(t, once(got), want)
		if doubles := len(got) - want; doubles > 0 {
			t.Logf("%d of %s came twice", doubles, c)
		}
	}
}

// once drops repeated IDs, as the webhook-id is there for.
func once(ids []string) (out []string) {
	seen := map[string]bool{}
	for _, id := range ids {
		if !seen[id] {
			out = append(out, id)
		}
		seen[id] = true
	}
	return out
}

func TestFiltersAndWhereAnEndpointBegins(t *testing.T) {
	kafka, client := broker(t)
	in := newInbox(t)
	publish(t, client, "a1", "a2")
	in.endpoint.Start = "end"
	in.endpoint.Filter.Directions = []string{"down"}
	_, stop := run(t, kafka, in.getenv, quick, in.endpoint)
	// The offsets are there before anything is read: a restart begins there, too.
	eventually(t, "the first offsets", func() bool { return committed(t, client) == 2 })
	stop()
	publish(t, client, "a3", "a5", "a7", "b10", "b14", "a35") // 35 is from history
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: topics.Changes, Key: []byte("x"), Value: []byte("no change")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	run(t, kafka, in.getenv, quick, in.endpoint)
	in.has(map[string][]string{"a": {"a5"}, "b": {"b10"}})
	eventually(t, "all offsets to be committed", func() bool { return committed(t, client) == 9 })
}

// Changes of a transaction that was aborted were never published.
func TestAbortedChangesAreNotDelivered(t *testing.T) {
	kafka, client := broker(t)
	in := newInbox(t)
	writer, err := kgo.NewClient(append(slices.Clone(kafka), kgo.TransactionalID("t"))...)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	for _, try := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit} {
		if err := writer.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		name := map[kgo.TransactionEndTry]string{kgo.TryAbort: "a1", kgo.TryCommit: "a2"}[try]
		publish(t, writer, name)
		if err := writer.EndTransaction(t.Context(), try); err != nil {
			t.Fatal(err)
		}
	}
	run(t, kafka, in.getenv, quick, in.endpoint)
	publish(t, client, "a3")
	in.has(map[string][]string{"a": {"a2", "a3"}})
}

// A new process of another version, or an operator's mistake: topics that
// cannot serve are refused with what to do.
func TestWrongTopicsAreRefused(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "tier-changes"), kfake.SeedTopics(2, "two"), kfake.SeedTopics(3, "deleted"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	kafka := []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}
	for aside, want := range map[string]string{
		"nowhere": "--create-topic",
		"two":     "3 and 2 partitions",
		"deleted": "must be compact",
	} {
		_, err := New(t.Context(), Options{Kafka: kafka, Topics: Topics{Changes: "tier-changes", Aside: aside}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", aside, err, want)
		}
	}
}

// Changes that retention deleted cannot be delivered: that is counted, and the
// rest goes on.
func TestDeletedChangesAreCountedAndLeft(t *testing.T) {
	registry := prometheus.NewRegistry()
	exporter, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithoutScopeInfo())
	if err != nil {
		t.Fatal(err)
	}
	before := otel.GetMeterProvider()
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter)))
	t.Cleanup(func() { otel.SetMeterProvider(before) })

	kafka, client := broker(t)
	in := newInbox(t)
	_, stop := run(t, kafka, in.getenv, quick, in.endpoint)
	publish(t, client, "a1")
	in.has(map[string][]string{"a": {"a1"}})
	eventually(t, "the offset", func() bool { return committed(t, client) == 1 })
	stop()

	publish(t, client, "a2", "a3", "a4")
	admin := kadm.NewClient(client)
	ends, err := admin.ListEndOffsets(t.Context(), topics.Changes)
	if err != nil {
		t.Fatal(err)
	}
	upTo := kadm.Offsets{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			upTo.AddOffset(o.Topic, o.Partition, o.Offset-1, -1) // all but the last
		}
	})
	if deleted, err := admin.DeleteRecords(t.Context(), upTo); err != nil || deleted.Error() != nil {
		t.Fatal(err, deleted.Error())
	}
	run(t, kafka, in.getenv, quick, in.endpoint)
	in.has(map[string][]string{"a": {"a1", "a4"}})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "tierstream_webhook_offsets_lost_total" {
			if n := f.GetMetric()[0].GetCounter().GetValue(); n != 1 {
				t.Errorf("%v gaps are counted, want 1", n)
			}
			return
		}
	}
	t.Error("gaps are not counted")
}

func TestMessagePackChangesAreFiltered(t *testing.T) {
	body, err := msgpack.Marshal(map[string]any{
		"customer_id": "a", "sequence": 1, "new_tier": map[string]any{"id": "gold", "rank": 2}, "direction": "up", "reason": "purchase", "mode": "live", "score_after": 1.5,
	})
	if err != nil {
		t.Fatal(err)
	}
	c := change{id: "x", customer: "a", body: body, headers: pairs("content-type", "application/msgpack")}
	got, err := c.content()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		Filter
		want bool
	}{
		{Filter{}, true},
		{Filter{Tiers: []string{"silver", "gold"}, Directions: []string{"up"}, Reasons: []string{"purchase"}, Modes: []string{"live"}}, true},
		{Filter{Tiers: []string{"silver"}}, false},
		{Filter{Directions: []string{"down"}}, false},
		{Filter{Reasons: []string{"return"}}, false},
		{Filter{Modes: []string{"backfill"}}, false},
	} {
		if f.selects(&got) != f.want {
			t.Errorf("%+v selects %+v: want %v", f.Filter, got, f.want)
		}
	}
}
