// Package tools_test checks what is deployed against its schema.
package tools_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// load validates the compose file against the specification's schema and its
// rules of consistency.
func load(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"../docker-compose.yml"})
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestComposeFileIsValidAndComplete(t *testing.T) {
	project := load(t)
	want := []string{"collector", "consumer", "grafana", "jaeger", "kafka", "producer-sim", "prometheus", "redis"}
	if got := project.ServiceNames(); !slices.Equal(got, want) {
		t.Fatalf("services %v, want %v", got, want)
	}
	for name, service := range project.Services {
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is open beyond this machine (host IP %q)", name, port.Published, port.HostIP)
			}
		}
		if service.Image != "" && !regexp.MustCompile(`:v?\d`).MatchString(service.Image) {
			t.Errorf("%s: image %s has no version", name, service.Image)
		}
		for other, dependency := range service.DependsOn {
			if dependency.Condition != types.ServiceConditionHealthy {
				t.Errorf("%s starts when %s is %s, not when it is healthy", name, other, dependency.Condition)
			}
			if project.Services[other].HealthCheck == nil {
				t.Errorf("%s waits for the health of %s, which has no check", name, other)
			}
		}
	}
	for _, setting := range []string{"--appendonly yes", "--appendfsync everysec", "--maxmemory-policy noeviction"} {
		if command := strings.Join(project.Services["redis"].Command, " "); !strings.Contains(command, setting) {
			t.Errorf("redis runs without %s: %s", setting, command)
		}
	}
}

func TestComposeRunsTheKafkaThatTestsUse(t *testing.T) {
	pom, err := os.ReadFile("../internal/testenv/kafka/pom.xml")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`<kafka.version>(.*)</kafka.version>`).FindSubmatch(pom)
	if version == nil {
		t.Fatal("pom.xml names no version")
	}
	if got, want := load(t).Services["kafka"].Image, "apache/kafka:"+string(version[1]); got != want {
		t.Errorf("image %s, want %s", got, want)
	}
}

func TestComposeBuildsStagesThatExist(t *testing.T) {
	project := load(t)
	var built int
	for name, service := range project.Services {
		if service.Build == nil {
			continue
		}
		built++
		text, err := os.ReadFile(filepath.Join(service.Build.Context, service.Build.Dockerfile))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !regexp.MustCompile(`(?m)^FROM \S+ AS ` + regexp.QuoteMeta(service.Build.Target) + `$`).Match(text) {
			t.Errorf("%s: the Dockerfile has no stage %s", name, service.Build.Target)
		}
		if !regexp.MustCompile(`(?m)^USER [1-9]\d*:[1-9]\d*$`).Match(text) {
			t.Errorf("%s: the Dockerfile does not leave root", name)
		}
	}
	if built != 2 {
		t.Errorf("%d services are built here, want 2", built)
	}
}
