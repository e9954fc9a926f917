package docs

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

var updateTrace = flag.Bool("update-trace", false, "write the trace in tracing.md anew")

// spans are what commands exported, as an OTLP/HTTP endpoint receives it.
type spans struct {
	mu  sync.Mutex
	all []span
}

type span struct {
	*tracepb.Span
	service string
}

func (s *spans) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var request collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &request)
	}
	if err != nil || r.URL.Path != "/v1/traces" {
		http.Error(w, fmt.Sprint(r.URL.Path, ": ", err), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rs := range request.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, x := range ss.Spans {
				s.all = append(s.all, span{x, attribute(rs.Resource.Attributes, "service.name")})
			}
		}
	}
}

// trace are the spans of the first trace that has them all, by when they began;
// nil when there is none yet.
func (s *spans) trace(names ...string) (found []span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	byTrace := map[string][]span{}
	for _, x := range s.all {
		byTrace[string(x.TraceId)] = append(byTrace[string(x.TraceId)], x)
	}
	for _, list := range byTrace {
		missing := slices.ContainsFunc(names, func(name string) bool {
			return !slices.ContainsFunc(list, func(x span) bool { return x.Name == name })
		})
		slices.SortFunc(list, func(a, b span) int { return cmp.Compare(a.StartTimeUnixNano, b.StartTimeUnixNano) })
		if !missing && (found == nil || list[0].StartTimeUnixNano < found[0].StartTimeUnixNano) {
			found = list
		}
	}
	return found
}

func attribute(all []*common.KeyValue, key string) string {
	for _, kv := range all {
		if kv.Key != key {
			continue
		}
		if v, ok := kv.Value.Value.(*common.AnyValue_IntValue); ok {
			return fmt.Sprint(v.IntValue)
		}
		return kv.Value.GetStringValue()
	}
	return ""
}

// tree prints a trace, a span per line below its parent. Without times it is
// what two runs have in common: how often a script is sent depends on what
// Redis had loaded.
func tree(list []span, times bool) string {
	var b strings.Builder
	if times {
		fmt.Fprintf(&b, "trace %s\n\n%-38s %-13s %8s %8s\n", hex.EncodeToString(list[0].TraceId), "", "", "at ms", "took ms")
	}
	begin := list[0].StartTimeUnixNano
	var below func(parent []byte, depth int)
	below = func(parent []byte, depth int) {
		for _, x := range list {
			if string(x.ParentSpanId) != string(parent) || !times && x.Kind == tracepb.Span_SPAN_KIND_CLIENT {
				continue
			}
			name := strings.Repeat("  ", depth) + x.Name
			if !times {
				fmt.Fprintf(&b, "%s %s\n", name, x.service)
			} else {
				where := ""
				// kotel names destination and offset by older conventions.
				for _, k := range [][2]string{{"messaging.destination.partition.id", "messaging.kafka.offset"}, {"messaging.kafka.destination.partition", "messaging.kafka.message.offset"}} {
					if o := attribute(x.Attributes, k[1]); o != "" {
						where = fmt.Sprintf("  %s/%s@%s", attribute(x.Attributes, "messaging.destination.name"), attribute(x.Attributes, k[0]), o)
					}
				}
				fmt.Fprintf(&b, "%-38s %-13s %8.2f %8.2f%s\n", name, x.service,
					float64(x.StartTimeUnixNano-begin)/1e6, float64(x.EndTimeUnixNano-x.StartTimeUnixNano)/1e6, where)
			}
			below(x.SpanId, depth+1)
		}
	}
	below(nil, 0)
	return b.String()
}

// One trace leads from the simulator to the tier change: the commands
// themselves, with Kafka and Redis in the consumer's process, and an endpoint
// that takes what they export. The example in tracing.md has its spans.
func TestTraceFromSimulatorToTierChange(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the commands")
	}
	help(t, "consumer") // builds them
	received := &spans{}
	endpoint := httptest.NewServer(received)
	t.Cleanup(endpoint.Close)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute) // which has ended when cleaning up
	t.Cleanup(cancel)
	run := func(name, sampler string, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, filepath.Join(commands.dir, name), append(args, "--otlp", endpoint.URL)...)
		cmd.Env = append(os.Environ(), "OTEL_TRACES_SAMPLER="+sampler, "OTEL_BSP_SCHEDULE_DELAY=100")
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = 20 * time.Second
		return cmd
	}
	data := t.TempDir()
	consumer := run("consumer", "parentbased_always_off", "--data-dir", data, "--simulate", "0", "--listen", "127.0.0.1:0")
	if err := consumer.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = consumer.Process.Signal(syscall.SIGTERM)
		if err := consumer.Wait(); err != nil {
			t.Errorf("consumer: %v", err)
		}
	})
	wait := func(what string, done func() bool) {
		t.Helper()
		for !done() {
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("waiting for %s: %v", what, ctx.Err())
			}
		}
	}
	var at struct{ Brokers []string }
	wait("the embedded services", func() bool {
		b, err := os.ReadFile(filepath.Join(data, "endpoints.json"))
		return err == nil && json.Unmarshal(b, &at) == nil && len(at.Brokers) > 0
	})
	cl, err := kgo.NewClient(kgo.SeedBrokers(at.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	wait("the journals' first records", func() bool {
		ends, err := kadm.NewClient(cl).ListCommittedOffsets(ctx, "live-journal")
		n := 0
		ends.Each(func(o kadm.ListedOffset) {
			if o.Err == nil && o.Offset > 0 {
				n++
			}
		})
		return err == nil && n > 0 && n == len(ends["live-journal"])
	})
	// So slowly that each event has a batch of its own; the first of a customer
	// may be a cost, which moves no tier.
	if out, err := run("producer-sim", "always_on", "generate", "--brokers", strings.Join(at.Brokers, ","), "--events", "12", "--rate", "4").CombinedOutput(); err != nil {
		t.Fatalf("producer-sim: %v\n%s", err, out)
	}
	var list []span
	wait("a trace that ends in a tier change", func() bool {
		list = received.trace("purchases publish", "process purchases", "tierstream.batch", "tierstream.apply", "tierstream.publish", "send tier-changes")
		return list != nil
	})

	const begin, end = "```trace\n", "```\n"
	text := read(t, "tracing.md")
	head, rest, ok := strings.Cut(text, begin)
	old, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("tracing.md has no block of a trace")
	}
	if *updateTrace {
		if err := os.WriteFile("tracing.md", []byte(head+begin+tree(list, true)+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	// Of the documented lines name, depth and service count.
	var documented strings.Builder
	_, old, _ = strings.Cut(old, "took ms\n")
	for l := range strings.Lines(old) {
		if f := strings.Fields(l[min(38, len(l)):]); len(f) > 0 && !strings.Contains(l, "eval") {
			fmt.Fprintf(&documented, "%s %s\n", strings.TrimRight(l[:38], " "), f[0])
		}
	}
	if got := tree(list, false); got != documented.String() {
		t.Errorf("the trace is\n%s\ntracing.md (go test ./docs -run TestTraceFrom -update-trace) has\n%s", got, documented.String())
	}
}
