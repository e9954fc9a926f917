package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.26.0"
)

// telemetry is one provider each for metrics and traces. Metrics are read at
// /metrics; traces are sent to an OTLP endpoint, if one is given.
type telemetry struct {
	metrics http.Handler
	stop    func()
}

func startTelemetry(ctx context.Context, otlp string) (*telemetry, error) {
	res := resource.NewSchemaless(semconv.ServiceName("tierstream"), semconv.ServiceVersion(version()))
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reader, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithoutScopeInfo())
	if err != nil {
		return nil, fmt.Errorf("starting metrics: %w", err)
	}
	mp := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithResource(res))
	otel.SetMeterProvider(mp)

	opts := []sdktrace.TracerProviderOption{sdktrace.WithResource(res)}
	if otlp != "" {
		exp, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(otlp))
		if err != nil {
			return nil, fmt.Errorf("starting traces: %w", err)
		}
		opts = append(opts, sdktrace.WithBatcher(exp))
	} else {
		opts = append(opts, sdktrace.WithSampler(sdktrace.NeverSample()))
	}
	tp := sdktrace.NewTracerProvider(opts...)
	otel.SetTracerProvider(tp)
	otel.SetTextMapPropagator(propagation.TraceContext{})
	return &telemetry{
		metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
		stop: func() {
			c, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			_ = tp.Shutdown(c) // at exit: what is not sent by now is lost
			_ = mp.Shutdown(c)
		},
	}, nil
}
