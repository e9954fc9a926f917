package telemetry

import (
	"context"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

// What the clients count is what docs/metrics.md lists, names and labels alike.
func TestClientMetricsAreDocumented(t *testing.T) {
	registry := prometheus.NewRegistry()
	exporter, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithoutScopeInfo())
	if err != nil {
		t.Fatal(err)
	}
	before := otel.GetMeterProvider()
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter), sdkmetric.WithView(ClientViews()...)))
	t.Cleanup(func() { otel.SetMeterProvider(before) })

	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...), kgo.ConsumeTopics("t"), KafkaMetrics())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Value: []byte("v")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if n := cl.PollFetches(t.Context()).NumRecords(); n != 1 {
		t.Fatalf("%d records", n)
	}
	rdb := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
	defer rdb.Close()
	if err := RedisMetrics(rdb); err != nil {
		t.Fatal(err)
	}
	if err := rdb.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	// A broker that goes away, so that what counts trouble has something to count.
	k.Close()
	gone, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := cl.Ping(gone); err == nil {
		t.Fatal("a broker that is gone answers")
	}

	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]string{}
	for _, f := range families {
		if f.GetName() == "target_info" {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		counted[f.GetName()] = strings.Join(labels, ", ")
	}
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "| Client metric | Type, unit |")
	section, _, _ = strings.Cut(section, "\n\n")
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|[^|]*\\| `([^`]+)` \\|").FindAllStringSubmatch(section, -1) {
		documented[m[1]] = m[2]
	}
	for _, name := range slices.Sorted(maps.Keys(documented)) {
		if labels, ok := counted[name]; ok && labels != documented[name] || !ok && !strings.Contains(name, "_errors_") {
			t.Errorf("%s has the labels %q, documented is %q", name, labels, documented[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(counted)) {
		if documented[name] == "" {
			t.Errorf("%s{%s} is not documented", name, counted[name])
		}
	}
}
