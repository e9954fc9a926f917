package simulation

import (
	"flag"
	"log/slog"
	"os"
	"runtime/debug"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/tierstream/tierstream/internal/state"
)

var (
	seedFlag  = flag.Uint64("seed", 1, "first seed")
	seedsFlag = flag.Uint64("seeds", 3, "how many seeds")
	story     = flag.Bool("story", false, "print the story of every seed, not only of those that fail")
)

func TestMain(m *testing.M) {
	state.SetLog(slog.New(slog.DiscardHandler))
	debug.SetGCPercent(800)                        // memory is cheaper here than time
	otel.SetMeterProvider(noop.NewMeterProvider()) // the default one keeps every instrument for ever
	os.Exit(m.Run())
}

func TestSeedWithoutFaults(t *testing.T) {
	began := time.Now()
	o := simulate(t, *seedFlag, nil)
	report(t, o, time.Since(began))
}

func TestSeeds(t *testing.T) {
	for s := range *seedsFlag {
		began := time.Now()
		o := simulate(t, *seedFlag+s, seedPlan)
		report(t, o, time.Since(began))
	}
}

func report(t *testing.T, o *outcome, took time.Duration) {
	t.Helper()
	t.Logf("seed %d: %d events, %d faults, unmet %v, raised %d, rejected %d, settled after %s, virtual %s, result %016x, order %016x, took %s",
		o.seed, o.events, len(o.hits), o.unmet, o.raised, o.rejected, o.settled.Round(time.Millisecond), o.virtual.Round(time.Millisecond), o.result, o.order, took.Round(time.Millisecond))
	for _, f := range o.failures {
		t.Errorf("seed %d: %s", o.seed, f)
	}
	if *story || len(o.failures) > 0 {
		t.Logf("the story of seed %d:\n%s\nreproduce: go test ./internal/simulation -run 'TestSeeds$' -seed %d -seeds 1 -count=1", o.seed, indent(o.trace), o.seed)
	}
}
