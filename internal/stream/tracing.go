package stream

import (
	"context"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// scope names the instruments and spans of this program.
const scope = "github.com/tierstream/tierstream"

// maxTraced bounds how many events of a batch, and changes of a transaction,
// have spans of their own. Only those have one whose producer sampled them.
const maxTraced = 64

var w3c propagation.TraceContext

// producerOf is ctx with the span that produced an event as its parent; false
// where there is none, or it is not sampled and hence nowhere to be found.
func producerOf(ctx context.Context, parent string) (context.Context, bool) {
	if len(parent) < 55 || parent[53:55] == "00" { // version-trace-parent-flags; no flag is set
		return ctx, false
	}
	ctx = w3c.Extract(ctx, propagation.MapCarrier{"traceparent": parent})
	return ctx, trace.SpanContextFromContext(ctx).IsSampled()
}

// batchTrace is the spans of one batch: its own, and "process" of those events
// whose producers sampled them.
type batchTrace struct {
	span   trace.Span
	events []trace.Span
}

// traceBatch begins the spans of a batch. A batch has many producers, so its
// span links to theirs. It lies in the trace of the first of them, so that this
// trace shows everything that its event went through; the other events' spans
// link to it. Without a sampled event it begins a trace of its own, if the
// sampler wants one.
func (s *session) traceBatch(ctx context.Context, b *batch) (context.Context, *batchTrace) {
	bt := &batchTrace{}
	parent, tried := ctx, 0
	var links []trace.Link
	for _, r := range b.records {
		producer, ok := producerOf(ctx, r.Event.Trace)
		if !ok {
			continue
		}
		if tried++; tried > maxTraced {
			break
		}
		topic := s.cfg.Topics.Inputs[r.Topic]
		c, span := s.tracer.Start(producer, "process "+topic, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(b.took))
		if !span.IsRecording() {
			continue
		}
		span.SetAttributes(semconv.MessagingSystemKafka, semconv.MessagingOperationName("process"), semconv.MessagingOperationTypeProcess,
			semconv.MessagingConsumerGroupName(s.group.id), semconv.MessagingDestinationName(topic),
			semconv.MessagingDestinationPartitionID(strconv.Itoa(int(r.Partition))), semconv.MessagingKafkaOffset(int(r.Offset)),
			semconv.CloudEventsEventID(r.Event.ID), semconv.CloudEventsEventType("io.tierstream."+r.Event.Type.String()+".v1"))
		if len(bt.events) == 0 {
			parent = c
		}
		bt.events = append(bt.events, span)
		links = append(links, trace.Link{SpanContext: trace.SpanContextFromContext(producer)})
	}
	ctx, bt.span = s.tracer.Start(parent, "tierstream.batch", trace.WithTimestamp(b.took), trace.WithLinks(links...))
	if !bt.span.IsRecording() {
		return ctx, bt
	}
	bt.span.SetAttributes(semconv.MessagingSystemKafka, semconv.MessagingBatchMessageCount(len(b.records)),
		semconv.MessagingDestinationPartitionID(strconv.Itoa(int(s.partition))))
	for i := 1; i < len(bt.events); i++ {
		bt.events[i].AddLink(trace.Link{SpanContext: bt.span.SpanContext()})
	}
	if len(b.records) > 0 {
		_, decode := s.tracer.Start(ctx, "tierstream.decode", trace.WithTimestamp(b.took))
		decode.End(trace.WithTimestamp(b.decoded))
	}
	return ctx, bt
}

func (bt *batchTrace) end(err error) {
	endSpan(bt.span, err)
	for _, span := range bt.events {
		endSpan(span, err)
	}
}

// stage is one stage of a batch under way.
type stage struct {
	*session
	ctx   context.Context
	name  string
	began time.Time
}

// stage begins a stage. It has a span where the batch has one.
func (s *session) stage(ctx context.Context, name string) (context.Context, stage) {
	g := stage{s, context.Background(), name, time.Now()}
	if trace.SpanFromContext(ctx).IsRecording() {
		ctx, _ = s.tracer.Start(ctx, "tierstream."+name)
		g.ctx = ctx
	}
	return ctx, g
}

// end ends the stage. Only what succeeded counts into its times.
func (g *stage) end(err error) {
	if err == nil {
		g.metrics.stage(g.ctx, g.name, g.began)
	}
	endSpan(trace.SpanFromContext(g.ctx), err)
}

// traceTransaction begins the span of a transaction in the trace of the first
// traced batch that it publishes, with links to the others. Where none is
// traced it has none.
func (s *session) traceTransaction(ctx context.Context, flights []flight) (context.Context, trace.Span) {
	var batches []trace.Link
	for _, f := range flights {
		if f.span.IsSampled() {
			batches = append(batches, trace.Link{SpanContext: f.span})
		}
	}
	if len(batches) == 0 {
		return ctx, trace.SpanFromContext(ctx)
	}
	return s.tracer.Start(trace.ContextWithSpanContext(ctx, batches[0].SpanContext), "tierstream.publish", trace.WithLinks(batches[1:]...),
		trace.WithAttributes(semconv.MessagingSystemKafka, semconv.MessagingDestinationPartitionID(strconv.Itoa(int(s.partition)))))
}

// sends are the spans of the tier changes in one transaction that sampled
// events caused, each in its event's trace.
type sends struct {
	spans   []trace.Span
	records []*kgo.Record
}

// add begins the span of one change, which ends when it is committed, and makes
// it the parent of whoever reads the change: the header traceparent, as every
// instrumented Kafka client reads it. ce_traceparent stays the event's.
func (s *sends) add(ctx context.Context, tracer trace.Tracer, r *kgo.Record) {
	if len(s.spans) == maxTraced {
		return
	}
	for _, h := range r.Headers {
		if h.Key != "ce_traceparent" {
			continue
		}
		producer, ok := producerOf(ctx, string(h.Value))
		if !ok {
			return
		}
		c, span := tracer.Start(producer, "send "+r.Topic, trace.WithSpanKind(trace.SpanKindProducer),
			trace.WithLinks(trace.Link{SpanContext: trace.SpanContextFromContext(ctx)}))
		if !span.IsRecording() {
			return
		}
		carrier := propagation.MapCarrier{}
		w3c.Inject(c, carrier)
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "traceparent", Value: []byte(carrier["traceparent"])})
		s.spans, s.records = append(s.spans, span), append(s.records, r)
		return
	}
}

func (s *sends) end(err error) {
	for i, span := range s.spans {
		r := s.records[i]
		span.SetAttributes(semconv.MessagingSystemKafka, semconv.MessagingOperationName("send"), semconv.MessagingOperationTypeSend,
			semconv.MessagingDestinationName(r.Topic), semconv.MessagingDestinationPartitionID(strconv.Itoa(int(r.Partition))),
			semconv.MessagingKafkaOffset(int(r.Offset)))
		endSpan(span, err)
	}
}

func endSpan(span trace.Span, err error) {
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}
