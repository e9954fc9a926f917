package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/cli"
)

// command runs the program with its secret in the environment.
func command(t *testing.T, secret string, args ...string) (stdout string, err error) {
	t.Helper()
	var out bytes.Buffer
	err = run(t.Context(), args, func(name string) string {
		return map[string]string{"SECRET": secret, "TIERSTREAM_WEBHOOKS_NAMESPACE": "shop"}[name]
	}, &out, t.Output())
	return out.String(), err
}

func endpoints(t *testing.T, url string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "endpoints.yaml")
	text := fmt.Sprintf("endpoints:\n- {name: crm, url: %q, secrets: [{env: SECRET}], start: beginning, allow_http: true, allow_networks: [127.0.0.0/8]}\n", url)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// From a new secret to a delivery that is looked at and replayed.
func TestAnOperatorsDay(t *testing.T) {
	answer := make(chan int, 1)
	answer <- 200
	got := make(chan *http.Request, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := <-answer
		answer <- status
		w.WriteHeader(status)
		got <- r
	}))
	defer server.Close()
	become := func(status int) { <-answer; answer <- status }
	file := endpoints(t, server.URL)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "tier-changes"), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	brokers := "--brokers=" + cluster.ListenAddrs()[0]

	secret, err := command(t, "", "secret")
	if err != nil || !strings.HasPrefix(secret, "whsec_") {
		t.Fatalf("got %q, %v", secret, err)
	}
	if out, err := command(t, secret, "test", "crm", "--endpoints", file); err != nil || !strings.Contains(out, "200 OK, webhook-id test_") {
		t.Errorf("got %q, %v", out, err)
	}
	if r := <-got; r.Header.Get("ce-type") != "io.tierstream.tier-change.v1" || r.Header.Get("webhook-signature") == "" {
		t.Errorf("got %v", r.Header)
	}
	become(503)
	if _, err := command(t, secret, "test", "crm", "--endpoints", file); err == nil || !strings.Contains(err.Error(), "503 Service Unavailable") {
		t.Errorf("got %v", err)
	}
	<-got
	if _, err := command(t, secret, "run", brokers, "--endpoints", file, "--check"); err == nil || !strings.Contains(err.Error(), "topic shop-webhooks does not exist") {
		t.Errorf("got %v", err)
	}
	if out, err := command(t, secret, "run", brokers, "--endpoints", file, "--create-topic", "--check"); err != nil || !strings.Contains(out, "are right") {
		t.Errorf("got %q, %v", out, err)
	}

	// One change, which the receiver refuses.
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := client.ProduceSync(t.Context(), &kgo.Record{
		Topic: "tier-changes", Key: []byte("c1"), Value: []byte(`{"customer_id":"c1","sequence":1,"mode":"live"}`),
		Headers: []kgo.RecordHeader{{Key: "ce_id", Value: []byte("abc")}, {Key: "ce_customerseq", Value: []byte("00000000000000000001")}},
	}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"run", brokers, "--endpoints", file, "--listen", "127.0.0.1:0"}, func(name string) string {
			return map[string]string{"SECRET": secret, "TIERSTREAM_WEBHOOKS_NAMESPACE": "shop"}[name]
		}, t.Output(), t.Output())
	}()
	if r := <-got; r.Header.Get("webhook-id") != "abc" {
		t.Errorf("got %v", r.Header)
	}
	var r row
	for deadline := time.Now().Add(30 * time.Second); r.Attempts == 0; {
		out, err := command(t, secret, "list", brokers, "--waiting", "--json")
		if err != nil {
			t.Fatal(err)
		}
		if out != "" {
			if err := json.Unmarshal([]byte(out), &r); err != nil {
				t.Fatalf("%v in %s", err, out)
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing was set aside")
		}
	}
	if r.Endpoint != "crm" || r.State != "waiting" || r.Customer != "c1" || r.Sequence != 1 || r.ID != "abc" || r.Reason != "503 Service Unavailable" || r.Next.Before(r.First) || string(r.Change) != `{"customer_id":"c1","sequence":1,"mode":"live"}` {
		t.Errorf("listed is %+v", r)
	}
	if out, err := command(t, secret, "list", brokers); err != nil || strings.Count(out, "\n") != 1 {
		t.Errorf("parked is %q, %v: want the heading only", out, err)
	}
	if out, err := command(t, secret, "replay", brokers, "--all"); err != nil || out != "0 changes will be delivered again\n" {
		t.Errorf("got %q, %v", out, err)
	}
	if _, err := command(t, secret, "enable", brokers, "crm"); err == nil || !strings.Contains(err.Error(), "is not disabled") {
		t.Errorf("got %v", err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWrongCommandLinesAreUsageErrors(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("endpoints: [{name: crm}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"nonsense"},
		{"run"},
		{"run", "--endpoints", bad},
		{"replay"},
		{"replay", "--all", "--customer", "c"},
		{"list", "--since", "yesterday"},
		{"test", "other", "--endpoints", endpoints(t, "http://127.0.0.1:1/")},
	} {
		_, err := command(t, "", args...)
		if !cli.IsUsage(err) {
			t.Errorf("%q: got %v", args, err)
		}
	}
}

// docs/webhooks.md lists the commands that there are.
func TestCommandsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/webhooks.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := strings.Count(string(text), "\n| `webhooks ")
	parser, err := kong.New(&commands{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range parser.Model.Children {
		if !strings.Contains(string(text), "\n| `webhooks "+c.Name+"` |") {
			t.Errorf("webhooks %s is not documented", c.Name)
		}
	}
	if n := len(parser.Model.Children); n != documented {
		t.Errorf("%d commands are documented, there are %d", documented, n)
	}
}
