// Command bench measures the consumer's throughput, CPU time and memory
// against a naive loop and against the bare protocol, and how long its tier
// changes take, on a real Kafka and a real Redis that it starts itself.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/tierstream/tierstream/internal/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type flags struct {
	Events       int64  `help:"Events of the backlog." default:"1000000"`
	NaiveEvents  int64  `help:"Let the naive loops stop after so many, to save time (0: all). Their share of tier changes is then higher." default:"0"`
	Customers    int    `help:"Customers; each event's is drawn uniformly." default:"100000"`
	Partitions   int32  `help:"Partitions of each topic." default:"4"`
	Rounds       int    `help:"Rounds; the loops take turns in each." default:"3"`
	Only         string `help:"Measure only one: naive, bare, full or latency." enum:"naive,bare,full,latency," default:""`
	CacheMB      int    `name:"cache-mb" help:"The full job's memory for customers, per partition." default:"256"`
	Profile      string `help:"Write a CPU profile of the full job to this file, from an extra round, and print its top entries." placeholder:"FILE"`
	Memory       bool   `help:"Drain a backlog with the full job once, and print its memory over time, instead of measuring throughput."`
	MemoryEvents int64  `help:"Events of the backlog with --memory." default:"2000000"`
	Write        bool   `help:"Write the report to docs/bench/README.md (--memory: memory.md, latency: latency.md), below what a person has written there."`

	LatencyRate float64       `help:"Events per second while latency is measured." default:"5000"`
	LatencyFor  time.Duration `help:"How long latency is measured." default:"20s"`

	Task string `hidden:"" help:"Measure this task in this process (used by bench itself)."`
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var f flags
	k, err := kong.New(&f, kong.Name("bench"), kong.Writers(stdout, stderr),
		kong.Description("Starts Kafka and Redis on this machine, loads a backlog, and measures how fast it is processed: by a naive loop, by the bare exactly-once protocol, and by the consumer; then how long a tier change takes at a steady rate."))
	if err != nil {
		return err
	}
	if _, err := k.Parse(args); err != nil {
		return err
	}
	if f.Task != "" {
		return bench.Child(ctx, f.Task, stdout)
	}
	if f.Events < 1 || f.MemoryEvents < 1 || f.NaiveEvents < 0 || f.Customers < 1 || f.Partitions < 1 || f.Rounds < 1 || f.CacheMB < 1 || f.LatencyRate <= 0 || f.LatencyFor <= 0 {
		return errors.New("all numbers must be positive")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	s := bench.Suite{
		Loops:  []bench.Loop{bench.Naive, bench.NaiveEach, bench.Bare, bench.Full},
		Events: f.Events, NaiveEvents: f.NaiveEvents, Customers: f.Customers, Partitions: f.Partitions,
		Rounds: f.Rounds, CacheMB: f.CacheMB, Profile: f.Profile, Memory: f.Memory,
		LatencyRate: f.LatencyRate, Self: []string{self, "--task"}, Progress: stderr,
	}
	switch f.Only {
	case "naive":
		s.Loops = []bench.Loop{bench.Naive, bench.NaiveEach}
	case "bare":
		s.Loops = []bench.Loop{bench.Bare}
	case "full":
		s.Loops = []bench.Loop{bench.Full}
	case "latency":
		s.Loops = nil
	}
	if f.Only == "" || f.Only == "latency" {
		s.LatencyFor = f.LatencyFor
	}
	if f.Memory {
		s.Events = f.MemoryEvents
	}
	if s.NaiveEvents == 0 {
		s.NaiveEvents = s.Events
	}
	r, err := s.Run(ctx)
	if err != nil {
		return err
	}
	if err := r.Write(stdout, false); err != nil {
		return err
	}
	if f.Profile != "" && !f.Memory && len(s.Loops) > 0 {
		// The profile carries its own symbols; the tool comes with Go.
		top := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", "-nodecount=40", f.Profile)
		top.Stdout, top.Stderr = stdout, stderr
		if err := top.Run(); err != nil {
			return fmt.Errorf("printing the profile: %w", err)
		}
	}
	if !f.Write {
		return nil
	}
	command := "go run ./cmd/bench " + strings.Join(args, " ")
	if l := r.Latency; l != nil {
		alone := *r
		alone.Suite.Loops = nil
		if err := write(&alone, "latency.md", command); err != nil {
			return err
		}
		r.Latency = nil
	}
	switch {
	case f.Memory:
		return write(r, "memory.md", command)
	case len(r.Suite.Loops) > 0:
		return write(r, "README.md", command)
	}
	return nil
}

// marker parts what a person writes in a kept report from what is measured.
const marker = "<!-- measured: written by go run ./cmd/bench --write -->"

// write keeps the report below the marker; what stands above it stays.
func write(r *bench.Report, name, command string) error {
	path := filepath.Join("docs", "bench", name)
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	head, _, _ := strings.Cut(string(old), marker)
	var b strings.Builder
	b.WriteString(head)
	fmt.Fprintf(&b, "%s\n\n`%s` on %s\n\n", marker, strings.TrimSpace(command), r.Began.UTC().Format("2006-01-02"))
	if err := r.Write(&b, true); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(strings.TrimRight(b.String(), "\n")+"\n"), 0o644)
}
