package webhook

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

func document(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheDocumentedFileIsRight(t *testing.T) {
	_, text, _ := strings.Cut(document(t, "webhooks.md"), "```yaml endpoints\n")
	text, _, _ = strings.Cut(text, "```")
	c, err := ParseConfig([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	e := c.Endpoints[0]
	plain := Endpoint{Name: e.Name, URL: e.URL, Secrets: e.Secrets}
	plain.defaults()
	if e.Start != plain.Start || e.Timeout != plain.Timeout || e.Concurrency != plain.Concurrency || e.HoldMB != plain.HoldMB || !slices.Equal(e.Filter.Modes, plain.Filter.Modes) {
		t.Errorf("documented defaults are %+v, they are %+v", e, plain)
	}
}

func TestTheScheduleIsPublished(t *testing.T) {
	var pauses []string
	for _, d := range Schedule {
		switch {
		case d < time.Minute:
			pauses = append(pauses, strings.TrimSuffix(d.String(), "s")+" s")
		case d < time.Hour:
			pauses = append(pauses, strings.TrimSuffix(d.String(), "m0s")+" min")
		default:
			pauses = append(pauses, strings.TrimSuffix(d.String(), "h0m0s")+" h")
		}
	}
	last := len(pauses) - 1
	want := "at once, then after " + strings.Join(pauses[:last], ", ") + " and " + pauses[last] + ", each a tenth longer or shorter"
	if !strings.Contains(document(t, "webhooks.md"), want) {
		t.Errorf("not published: %s", want)
	}
}

// What a sender exposes is what the table says, and the other way round.
func TestMetricsAreDocumented(t *testing.T) {
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
	run(t, kafka, in.getenv, quick, in.endpoint)
	publish(t, client, "a1")
	in.has(map[string][]string{"a": {"a1"}})

	rows := map[string]int{}
	for line := range strings.SplitSeq(document(t, "metrics.md"), "\n") {
		if name, ok := strings.CutPrefix(line, "| `tierstream_webhook_"); ok {
			name, _, _ = strings.Cut(name, "`")
			rows["tierstream_webhook_"+name]++
		}
	}
	var families []string
	eventually(t, "every metric", func() bool {
		gathered, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		families = nil
		for _, f := range gathered {
			if strings.HasPrefix(f.GetName(), "tierstream_") {
				families = append(families, f.GetName())
				if l := f.GetMetric()[0].GetLabel(); l[0].GetName() != "endpoint" || l[0].GetValue() != "crm" {
					t.Errorf("%s has the labels %v", f.GetName(), l)
				}
			}
		}
		return len(families) >= len(rows)
	})
	for _, name := range families {
		if rows[name] != 2 {
			t.Errorf("%s stands in %d tables, want what it is and what to do", name, rows[name])
		}
		delete(rows, name)
	}
	for name := range rows {
		t.Errorf("%s is documented, but is not there", name)
	}
}

// The sample has the fields of the documented example of a change.
func TestTheSampleHasTheFieldsOfAChange(t *testing.T) {
	_, text, _ := strings.Cut(document(t, "events.md"), "```json change\n")
	text, _, _ = strings.Cut(text, "```")
	var want, got map[string]any
	if err := json.Unmarshal([]byte(text), &want); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(Sample(), &got); err != nil {
		t.Fatal(err)
	}
	if w, g := slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)); !slices.Equal(w, g) {
		t.Errorf("the sample has %q, a change %q", g, w)
	}
}
