package stream

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/tierstream/tierstream/internal/fold"
)

var tracer = otel.Tracer("github.com/tierstream/tierstream")

// maxLinks bounds how many of a batch's producers its span links to.
const maxLinks = 64

// linkProducers links a batch's span to the spans that produced its events. A
// link, not a parent: a batch has many producers.
func linkProducers(span trace.Span, records []*fold.Record) {
	if !span.IsRecording() {
		return
	}
	n := 0
	for _, r := range records {
		if r.Event.Trace == "" {
			continue
		}
		c := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": r.Event.Trace})
		if sc := trace.SpanContextFromContext(c); sc.IsValid() {
			span.AddLink(trace.Link{SpanContext: sc})
			if n++; n == maxLinks {
				return
			}
		}
	}
}

func endSpan(span trace.Span, err error) {
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}
