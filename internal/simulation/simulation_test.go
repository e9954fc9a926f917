package simulation

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/cryptotest"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/tierstream/tierstream/internal/state"
)

var (
	seedFlag   = flag.Uint64("seed", 1, "first seed")
	seedsFlag  = flag.Uint64("seeds", 0, "how many seeds; 0: 200, or 20 with the race detector or -short")
	repeatFlag = flag.Int("repeat", 0, "run every seed that often and say how many came out the same")
	storyFlag  = flag.Bool("story", false, "print the story of every seed, not only of those that fail")
	tableFlag  = flag.String("table", "", "write the table of faults into this document")
	stopFlag   = flag.Int("stop", 0, "end after that many failing seeds; 0: run all")
	withinFlag = flag.Duration("within", 0, "end after so long with the seeds that are done; 0: run all")
	procsFlag  = flag.Int("procs", runtime.NumCPU(), "how many processes")
	faultFlag  = flag.String("fault", "", "let the first fault of every seed be this one, for example 'long pause at apply script'")
	shardFlag  = flag.String("shard", "", "for the processes that a run starts: which seeds are theirs, from:to:step")
)

func TestMain(m *testing.M) {
	flag.Parse()
	debug.SetGCPercent(800)                        // memory is cheaper here than time
	state.SetLog(slog.New(slog.DiscardHandler))    // of lost connections
	otel.SetMeterProvider(noop.NewMeterProvider()) // the default one keeps every instrument for ever
	os.Exit(m.Run())
}

// TestSeeds runs every seed in a process that has one CPU, because the
// scheduler is the only thing that a seed does not decide.
func TestSeeds(t *testing.T) {
	seeds := *seedsFlag
	if seeds == 0 {
		if seeds = 200; raceEnabled || testing.Short() {
			seeds = 20
		}
	}
	began := time.Now()
	results := run(t, *seedFlag, seeds, *procsFlag)
	sum := summary{hits: map[pair]int{}}
	for _, o := range results {
		sum.add(o)
		if *storyFlag || len(o.Failures) > 0 {
			t.Logf("%s", o)
		}
		for _, f := range o.Failures {
			t.Errorf("seed %d: %s", o.Seed, f)
		}
	}
	t.Logf("%s in %s", &sum, time.Since(began).Round(time.Second))
	if *tableFlag != "" {
		writeTable(t, *tableFlag, &sum)
	}
}

// TestReproduction says how often a seed comes out the same again.
func TestReproduction(t *testing.T) {
	if *repeatFlag == 0 {
		t.Skip("it is a measurement: give -repeat")
	}
	seeds := max(1, *seedsFlag)
	var outcomes, stories []map[uint64]int
	for range seeds {
		outcomes, stories = append(outcomes, map[uint64]int{}), append(stories, map[uint64]int{})
	}
	for range *repeatFlag {
		for _, o := range run(t, *seedFlag, seeds, *procsFlag) {
			outcomes[o.Seed-*seedFlag][o.Result]++
			stories[o.Seed-*seedFlag][o.Story]++
		}
	}
	t.Logf("%d seeds, %d runs each: published and stored the same in %s, the same faults at the same instants to the same instances in %s",
		seeds, *repeatFlag, share(outcomes), share(stories))
}

// share says how many runs came out as most runs of their seed do.
func share(seeds []map[uint64]int) string {
	same, all, never := 0, 0, 0
	for _, counts := range seeds {
		most := 0
		for _, n := range counts {
			most = max(most, n)
			all += n
		}
		same += most
		if len(counts) == 1 {
			never++
		}
	}
	return fmt.Sprintf("%.1f %% of the runs (%d seeds always)", 100*float64(same)/float64(all), never)
}

// TestShard runs some seeds one after another and prints an outcome per line.
func TestShard(t *testing.T) {
	if *shardFlag == "" {
		t.Skip("TestSeeds starts it")
	}
	var from, to, step uint64
	if _, err := fmt.Sscanf(*shardFlag, "%d:%d:%d", &from, &to, &step); err != nil {
		t.Fatal(err)
	}
	out := json.NewEncoder(os.Stdout)
	for seed := from; seed < to; seed += step {
		fmt.Printf("%s%d\n", beginning, seed)
		cryptotest.SetGlobalRandom(t, seed)
		must(out.Encode(simulate(t, seed, seedPlan)))
	}
}

const beginning = "seed "

// run spreads seeds over processes and gives their outcomes in order.
func run(t *testing.T, first, n uint64, procs int) []*outcome {
	t.Helper()
	var mu sync.Mutex
	var all []*outcome
	failed := 0
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if *withinFlag > 0 {
		defer time.AfterFunc(*withinFlag, cancel).Stop()
	}
	took := func(o *outcome) {
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		all = append(all, o)
		if len(o.Failures) > 0 {
			if failed++; failed == *stopFlag {
				cancel()
			}
		}
	}
	var wg sync.WaitGroup
	for k := range min(uint64(procs), n) {
		wg.Go(func() {
			for from, step := first+k, min(uint64(procs), n); from < first+n && ctx.Err() == nil; {
				last, err := shard(ctx, from, first+n, step, took)
				if err == nil || ctx.Err() != nil {
					return
				}
				took(&outcome{Seed: last, Failures: []string{err.Error()}})
				from = last + step
			}
		})
	}
	wg.Wait()
	slices.SortFunc(all, func(a, b *outcome) int { return int(a.Seed) - int(b.Seed) })
	return all
}

// stuck is how long a seed may take, in real time; a few hundred milliseconds
// are usual.
const stuck = 3 * time.Minute

// shard runs a process over its seeds. When it dies, last is the seed it died
// of.
func shard(ctx context.Context, from, to, step uint64, took func(*outcome)) (last uint64, err error) {
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestShard$", "-test.timeout=0", "-fault="+*faultFlag, fmt.Sprintf("-shard=%d:%d:%d", from, to, step))
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOTRACEBACK=all")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return from, err
	}
	if err := cmd.Start(); err != nil {
		return from, err
	}
	watchdog := time.AfterFunc(stuck, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) }) // it prints its stacks
	defer watchdog.Stop()
	last = from
	var rest []string // what a dying process says
	in := bufio.NewReader(pipe)
	for {
		line, err := in.ReadBytes('\n')
		switch {
		case bytes.HasPrefix(line, []byte(beginning)):
			last, _ = strconv.ParseUint(strings.TrimSpace(string(line[len(beginning):])), 10, 64)
			watchdog.Reset(stuck)
		case bytes.HasPrefix(line, []byte("{")):
			o := new(outcome)
			if err := json.Unmarshal(line, o); err != nil {
				return last, err
			}
			took(o)
		case len(line) > 0 && len(rest) < 200:
			rest = append(rest, string(line))
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return last, err
		}
	}
	if err := cmd.Wait(); err != nil {
		text := strings.Join(rest, "") + stderr.String()
		return last, fmt.Errorf("the process died: %w\n%.8000s", err, text)
	}
	return last, nil
}

// String is a seed as a person reads it.
func (o *outcome) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d events, %d faults, settled %s after the last, virtual %s", o.Seed, o.Events, len(o.Hits), o.Settled.Round(time.Millisecond), o.Virtual.Round(time.Millisecond))
	if len(o.Unmet) > 0 {
		fmt.Fprintf(&b, ", %d steps did not come about", len(o.Unmet))
	}
	fmt.Fprintf(&b, "\n%s\nreproduce: go test ./internal/simulation -run 'TestSeeds$' -count=1 -v -story -seeds 1 -seed %d", indent(o.Trace), o.Seed)
	return b.String()
}

// summary is what many seeds came to.
type summary struct {
	seeds, failed, events, faults int
	unmet                         map[pair]int
	raised, rejected              int
	virtual                       time.Duration
	hits                          map[pair]int
}

func (s *summary) add(o *outcome) {
	s.seeds++
	if len(o.Failures) > 0 {
		s.failed++
	}
	s.events += o.Events
	for _, h := range o.Hits {
		s.hits[h]++
		s.faults++
	}
	if s.unmet == nil {
		s.unmet = map[pair]int{}
	}
	for _, p := range o.Unmet {
		s.unmet[p]++
	}
	s.raised += o.Raised
	s.rejected += o.Rejected
	s.virtual += o.Virtual
}

func (s *summary) String() string {
	least, rare := 1<<30, pair{}
	for _, p := range meaningful {
		if n := s.hits[p]; n < least {
			least, rare = n, p
		}
	}
	unmet := 0
	for _, n := range s.unmet {
		unmet += n
	}
	return fmt.Sprintf("%d seeds, %d failed: %d events, %d faults (%d pairs, the rarest %d times: %s at %s; %d did not come about), %d rebuilds on a new generation, %d scripts refused, %s of virtual time",
		s.seeds, s.failed, s.events, s.faults, len(meaningful), least, rare.kind, rare.step, unmet, s.raised, s.rejected, s.virtual.Round(time.Second))
}
