package docs

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// exported are the names of the series that the documented metrics have: those
// of a histogram have three. [TestRunningProcessorIsAsDocumented] holds the
// documented ones to what a consumer exports.
func exported(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{"up": true, "process_resident_memory_bytes": true, "process_cpu_seconds_total": true} // of Prometheus and its Go client
	text := read(t, "metrics.md")
	for _, head := range []string{"Metric", "Client metric", "Webhook metric"} {
		for _, row := range table(t, text, head, "Type, unit") {
			name := bare(row[0])
			if !strings.HasPrefix(row[1], "histogram") {
				names[name] = true
				continue
			}
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				names[name+suffix] = true
			}
		}
	}
	return names
}

// metricName matches what an expression names, without functions, labels,
// strings and durations.
var (
	metricName = regexp.MustCompile(`\b([a-z][a-z0-9_]*_[a-z0-9_]+|up)\b`)
	notNames   = regexp.MustCompile(`"[^"]*"|\[[^\]]*\]|\{[^}]*\}|\b(?:by|without|on|group_left|group_right)\s*\([^)]*\)|\b[a-z_]+\(`)
)

func namesIn(expr string) (names []string) {
	for _, m := range metricName.FindAllStringSubmatch(notNames.ReplaceAllString(expr, " ("), -1) {
		names = append(names, m[1])
	}
	return names
}

func TestDashboardAsksForMetricsThatExist(t *testing.T) {
	type panel struct {
		Title, Description, Type string
		Targets                  []struct{ Expr string }
	}
	var dashboard struct{ Panels []panel }
	if err := json.Unmarshal([]byte(read(t, "../deploy/grafana/dashboards/tierstream.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	known, shown := exported(t), map[string]bool{}
	for _, p := range dashboard.Panels {
		if p.Type != "row" && (len(p.Targets) == 0 || p.Description == "") {
			t.Errorf("panel %q has no expression or no description", p.Title)
		}
		for _, target := range p.Targets {
			names := namesIn(target.Expr)
			if len(names) == 0 {
				t.Errorf("panel %q: no metric in %s", p.Title, target.Expr)
			}
			for _, name := range names {
				shown[name] = true
				if !known[name] {
					t.Errorf("panel %q asks for %s, which nothing exports", p.Title, name)
				}
			}
		}
	}
	// What the consumer says about itself is to be seen there.
	for _, row := range table(t, read(t, "metrics.md"), "Metric", "Type, unit") {
		name := bare(row[0])
		if name == "tierstream_partition_degraded" || name == "tierstream_outbox_batches" {
			continue // /readyz says it; the size is shown
		}
		if !shown[name] && !shown[name+"_bucket"] {
			t.Errorf("no panel shows %s", name)
		}
	}
}

func TestAlertsJudgeMetricsThatExist(t *testing.T) {
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "../deploy/prometheus/alerts.yml")), &rules); err != nil {
		t.Fatal(err)
	}
	known := exported(t)
	n := 0
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			n++
			for _, name := range namesIn(r.Expr) {
				if !known[name] {
					t.Errorf("%s judges %s, which nothing exports", r.Alert, name)
				}
			}
			// The description names a metric whose row says what to do.
			for _, name := range regexp.MustCompile(`tierstream_\w+`).FindAllString(r.Annotations["description"], -1) {
				if !known[name] && !known[name+"_bucket"] {
					t.Errorf("%s refers to %s, which is not documented", r.Alert, name)
				}
			}
		}
	}
	if n < 10 {
		t.Errorf("only %d alerts are found", n)
	}
}

func TestNamesInExpressions(t *testing.T) {
	got := strings.Join(namesIn(`histogram_quantile(0.99, sum by (le, not_me) (rate(a_bucket{stage!="x_y"}[$__rate_interval]))) > on () group_left () 2 * up / b_total`), " ")
	if got != "a_bucket up b_total" {
		t.Errorf("found %q", got)
	}
}
