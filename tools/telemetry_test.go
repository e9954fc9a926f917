package tools_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// promtool checks and runs what stands in deploy/prometheus, as Prometheus
// itself would read it.
func TestAlertsFireWhenTheyShould(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI has no promtool (Debian: prometheus)")
		}
		t.Skip("no promtool (Debian: prometheus)")
	}
	for _, args := range [][]string{
		{"check", "config", "../deploy/prometheus/prometheus.yml"},
		{"test", "rules", "../deploy/prometheus/alerts_test.yml"},
	} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// Every alert has a case in which it fires and one in which it does not.
func TestEveryAlertIsTested(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile("../deploy/prometheus/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	cases := strings.Split(read("alerts_test.yml"), "alertname: ")
	var alerts int
	for _, m := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(read("alerts.yml"), -1) {
		alerts++
		var fires, quiet bool
		for _, c := range cases[1:] {
			if name, rest, _ := strings.Cut(c, "\n"); name == m[1] {
				if strings.Contains(rest, "exp_alerts: []") {
					quiet = true
				} else {
					fires = true
				}
			}
		}
		if !fires || !quiet {
			t.Errorf("%s: tested when it fires %v, when it does not %v", m[1], fires, quiet)
		}
	}
	if alerts < 10 {
		t.Errorf("only %d alerts are found", alerts)
	}
}

// What compose mounts is there.
func TestComposeMountsWhatExists(t *testing.T) {
	var mounted []string
	for name, service := range load(t).Services {
		for _, v := range service.Volumes {
			if v.Type != "bind" {
				continue
			}
			if _, err := os.Stat(v.Source); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			mounted = append(mounted, filepath.Base(v.Source))
		}
	}
	for _, want := range []string{"prometheus", "provisioning", "dashboards", "otel", "model.yaml"} {
		if !slices.Contains(mounted, want) {
			t.Errorf("nothing mounts %s", want)
		}
	}
}
