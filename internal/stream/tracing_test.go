package stream

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/tierstream/tierstream/internal/event"
)

// traced sends one customer's purchases in one record batch, each with its own
// trace context, and returns the spans that were recorded and the first change.
func traced(t *testing.T, sampler sdktrace.Sampler, contexts ...string) (tracetest.SpanStubs, *kgo.Record) {
	t.Helper()
	spans := tracetest.NewInMemoryExporter()
	before := otel.GetTracerProvider()
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans), sdktrace.WithSampler(sampler)))
	t.Cleanup(func() { otel.SetTracerProvider(before) })

	w := fakeWorld(t)
	var records []*kgo.Record
	for i, traceparent := range contexts {
		e := event.Examples()[0]
		e.ID, e.BusinessID, e.Trace = fmt.Sprint("e", i), fmt.Sprint("o", i), traceparent
		v, headers, err := event.Encode(&e, event.BinaryJSON)
		if err != nil {
			t.Fatal(err)
		}
		r := &kgo.Record{Topic: w.cfg.Topics.Inputs[0], Key: []byte(e.Customer), Value: v}
		for _, h := range headers {
			r.Headers = append(r.Headers, kgo.RecordHeader(h))
		}
		records = append(records, r)
	}
	if err := w.client(kgo.ProducerLinger(50*time.Millisecond)).ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	in := w.start()
	cl := w.client(kgo.ConsumeTopics(w.cfg.Topics.Changes), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	var change *kgo.Record
	for change == nil {
		fs := cl.PollFetches(t.Context())
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		if rs := fs.Records(); len(rs) > 0 {
			change = rs[0]
		}
	}
	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	return spans.GetSpans(), change
}

func header(r *kgo.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

func TestTraceLeadsFromTheEventToItsChange(t *testing.T) {
	const (
		first    = "00-11111111111111111111111111111111-00000000000000a1-01"
		second   = "00-22222222222222222222222222222222-00000000000000a2-01"
		unwanted = "00-33333333333333333333333333333333-00000000000000a3-00"
	)
	spans, change := traced(t, sdktrace.ParentBased(sdktrace.NeverSample()), first, second, unwanted)

	in := func(traceparent, name string) tracetest.SpanStub {
		t.Helper()
		i := slices.IndexFunc(spans, func(s tracetest.SpanStub) bool {
			return s.SpanContext.TraceID().String() == traceparent[3:35] && strings.HasPrefix(s.Name, name)
		})
		if i < 0 {
			t.Fatalf("trace %s has no span %q", traceparent[3:35], name)
		}
		return spans[i]
	}
	parents := map[string]string{} // in the first trace
	names := map[trace.SpanID]string{}
	for _, s := range spans {
		names[s.SpanContext.SpanID()] = s.Name
	}
	for _, s := range spans {
		switch s.SpanContext.TraceID().String() {
		case first[3:35]:
			parents[s.Name] = names[s.Parent.SpanID()]
			if s.Parent.SpanID().String() == first[36:52] {
				parents[s.Name] = "the producer"
			}
		case second[3:35]:
		default:
			t.Errorf("span %s in a trace that nobody sampled", s.Name)
		}
	}
	topic := strings.TrimPrefix(in(first, "process ").Name, "process ")
	want := map[string]string{
		"process " + topic:     "the producer",
		"tierstream.batch":     "process " + topic,
		"tierstream.decode":    "tierstream.batch",
		"tierstream.load":      "tierstream.batch",
		"tierstream.fold":      "tierstream.batch",
		"tierstream.apply":     "tierstream.batch",
		"tierstream.publish":   "tierstream.batch",
		"send " + change.Topic: "the producer",
	}
	for name, parent := range want {
		if parents[name] != parent {
			t.Errorf("%s is below %q, want %q", name, parents[name], parent)
		}
	}
	for name := range parents {
		if want[name] == "" {
			t.Errorf("unexpected span %s", name)
		}
	}

	batch, publish, send := in(first, "tierstream.batch"), in(first, "tierstream.publish"), in(first, "send ")
	var linked []string
	for _, l := range batch.Links {
		linked = append(linked, l.SpanContext.SpanID().String())
	}
	if !slices.Equal(linked, []string{first[36:52], second[36:52]}) {
		t.Errorf("the batch links to %v", linked)
	}
	if l := in(second, "process ").Links; len(l) != 1 || l[0].SpanContext.SpanID() != batch.SpanContext.SpanID() {
		t.Errorf("the second event's span links to %v, not to its batch", l)
	}
	if l := send.Links; len(l) != 1 || l[0].SpanContext.SpanID() != publish.SpanContext.SpanID() {
		t.Errorf("the change's span links to %v, not to its transaction", l)
	}
	if got, want := header(change, "traceparent"), fmt.Sprintf("00-%s-%s-01", first[3:35], send.SpanContext.SpanID()); got != want {
		t.Errorf("the change goes on with %q, want %q", got, want)
	}
	if got := header(change, "ce_traceparent"); got != first {
		t.Errorf("the change's ce_traceparent is %q, want the event's", got)
	}
}

func TestWithoutTracesChangesCarryTheEventsContextOnly(t *testing.T) {
	const sampled = "00-11111111111111111111111111111111-00000000000000a1-01"
	spans, change := traced(t, sdktrace.NeverSample(), sampled)
	if len(spans) > 0 {
		t.Errorf("%d spans", len(spans))
	}
	if header(change, "traceparent") != "" || header(change, "ce_traceparent") != sampled {
		t.Errorf("headers %v", change.Headers)
	}
}

// More sampled events than have spans of their own cost no more.
func TestTracedEventsAreBounded(t *testing.T) {
	contexts := make([]string, 3*maxTraced)
	for i := range contexts {
		contexts[i] = fmt.Sprintf("00-%032x-00000000000000a1-01", i+1)
	}
	spans, _ := traced(t, sdktrace.ParentBased(sdktrace.NeverSample()), contexts...)
	batches := map[trace.SpanID]int{}
	for _, s := range spans {
		if s.Name == "tierstream.batch" {
			batches[s.SpanContext.SpanID()] = len(s.Links)
		}
	}
	total := 0
	for _, n := range batches {
		if total += n; n > maxTraced {
			t.Errorf("a batch with %d links", n)
		}
	}
	if processes := strings.Count(fmt.Sprint(names(spans)), "process "); processes != total || total == 0 || total > len(batches)*maxTraced {
		t.Errorf("%d events have spans in %d batches, which link to %d", processes, len(batches), total)
	}
}

func names(spans tracetest.SpanStubs) (all []string) {
	for _, s := range spans {
		all = append(all, s.Name)
	}
	return all
}
