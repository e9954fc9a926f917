// Package telemetry is how commands tell what they do: their traces to an OTLP
// endpoint, and what their Kafka and Redis clients count.
//
// Which traces are sampled is said by the environment as OpenTelemetry
// specifies it (OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG); without it, all.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/redis/go-redis/extra/redisotel/v9"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kotel"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// Resource names a command in what it tells.
func Resource(service, version string) *resource.Resource {
	return resource.NewWithAttributes(semconv.SchemaURL, semconv.ServiceName(service), semconv.ServiceVersion(version))
}

// Traces sends spans. Its zero value sends none, at no cost.
type Traces struct {
	provider, clients *sdktrace.TracerProvider
}

// StartTraces makes the process send its spans to an OTLP/HTTP endpoint, in the
// background; what cannot be sent is dropped. "" is no endpoint: then nothing
// is recorded.
func StartTraces(ctx context.Context, res *resource.Resource, endpoint string) (*Traces, error) {
	if endpoint == "" {
		return &Traces{}, nil
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, fmt.Errorf("starting traces: %w", err)
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = "/v1/traces" // the OTLP specification's; the exporter would send to /
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.String()))
	if err != nil {
		return nil, fmt.Errorf("starting traces: %w", err)
	}
	send := sdktrace.NewBatchSpanProcessor(exporter)
	t := &Traces{
		provider: sdktrace.NewTracerProvider(sdktrace.WithResource(res), sdktrace.WithSpanProcessor(send)),
		// Clients have spans only where what they do is part of a trace: renewing
		// a lease three times per lease is not.
		clients: sdktrace.NewTracerProvider(sdktrace.WithResource(res), sdktrace.WithSpanProcessor(send),
			sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample()))),
	}
	otel.SetTracerProvider(t.provider)
	return t, nil
}

// Stop sends what is left, for at most 3 s.
func (t *Traces) Stop() {
	if t.provider == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_ = t.provider.Shutdown(ctx) // at exit: what is not sent by now is lost
}

// Producer gives every record that a client produces a span, and the record its
// context in the header traceparent. Keys are customers' IDs, and stay out of
// the spans.
func (t *Traces) Producer() []kgo.Opt {
	if t.provider == nil {
		return nil
	}
	return []kgo.Opt{kgo.WithHooks(kotel.NewTracer(kotel.TracerProvider(t.provider), kotel.TracerPropagator(propagation.TraceContext{}),
		kotel.KeyFormatter(func(*kgo.Record) (string, error) { return "", errNoKey })))}
}

var errNoKey = errors.New("keys are not told")

// Redis gives a client's commands spans below those of their callers. Arguments
// stay out of them.
func (t *Traces) Redis(rdb redis.UniversalClient) error {
	if t.provider == nil {
		return nil
	}
	return redisotel.InstrumentTracing(rdb, redisotel.WithTracerProvider(t.clients),
		redisotel.WithDBStatement(false), redisotel.WithCallerEnabled(false), redisotel.WithDialFilter(true))
}

// KafkaMetrics counts the connections of Kafka clients, see [ClientViews].
func KafkaMetrics() kgo.Opt { return kgo.WithHooks(kotel.NewMeter()) }

// RedisMetrics counts a client's connections, see [ClientViews].
func RedisMetrics(rdb redis.UniversalClient) error {
	return redisotel.InstrumentMetrics(rdb, redisotel.WithSemConvCompliantMetrics(true))
}

// ClientViews keep of the clients' metrics what tells whether connections hold,
// and drop the rest: bytes and records that are counted better elsewhere, and
// times in milliseconds and nanoseconds where Prometheus has seconds.
func ClientViews() []sdkmetric.View {
	var views []sdkmetric.View
	for _, name := range []string{
		"messaging.kafka.write_bytes", "messaging.kafka.read_bytes.count",
		"messaging.kafka.produce_*", "messaging.kafka.fetch_*",
		"db.client.connections.idle.*", "db.client.connections.hits", "db.client.connections.misses",
		"db.client.connections.waits_duration", "db.client.connections.create_time", "db.client.connections.use_time",
	} {
		views = append(views, sdkmetric.NewView(sdkmetric.Instrument{Name: name}, sdkmetric.Stream{Aggregation: sdkmetric.AggregationDrop{}}))
	}
	return views
}
