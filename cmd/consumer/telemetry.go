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
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/tierstream/tierstream/internal/telemetry"
)

// instruments is one provider each for metrics and traces. Metrics are read at
// /metrics; traces are sent to an OTLP endpoint, if one is given.
type instruments struct {
	metrics http.Handler
	traces  *telemetry.Traces
	stop    func()
}

func startTelemetry(ctx context.Context, otlp string) (*instruments, error) {
	res := telemetry.Resource("tierstream", version())
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reader, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithoutScopeInfo())
	if err != nil {
		return nil, fmt.Errorf("starting metrics: %w", err)
	}
	mp := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithResource(res), sdkmetric.WithView(telemetry.ClientViews()...))
	otel.SetMeterProvider(mp)
	traces, err := telemetry.StartTraces(ctx, res, otlp)
	if err != nil {
		return nil, err
	}
	return &instruments{
		metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
		traces:  traces,
		stop: func() {
			traces.Stop()
			c, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			_ = mp.Shutdown(c)
		},
	}, nil
}
