package bench

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Machine is where a run took place.
type Machine struct {
	CPU    string
	Cores  int
	System string
	Go     string
	Commit string // of this repository, with "+" when files were changed since
}

// ThisMachine describes this machine as far as it is known.
func ThisMachine() Machine {
	m := Machine{CPU: "unknown", Cores: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(), Commit: "unknown"}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				m.CPU = strings.TrimSpace(v)
				break
			}
		}
	}
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" {
				m.Commit = s.Value[:min(12, len(s.Value))]
			}
		}
	}
	// `go run` stamps no revision.
	if m.Commit == "unknown" {
		if out, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output(); err == nil {
			m.Commit = strings.TrimSpace(string(out))
			if exec.Command("git", "diff", "--quiet", "HEAD", "--", "*.go", "go.mod").Run() != nil {
				m.Commit += "+"
			}
		}
	}
	return m
}

func (m Machine) String() string {
	return fmt.Sprintf("%s, %d cores, %s, %s, commit %s", m.CPU, m.Cores, m.System, m.Go, m.Commit)
}

// Spread is the least, the middle and the greatest of several figures. The
// middle of an even number is the mean of the two in the middle.
type Spread struct{ Min, Median, Max float64 }

// SpreadOf sorts one figure of all results; zeros without results.
func SpreadOf(rs []*Result, figure func(*Result) float64) Spread {
	if len(rs) == 0 {
		return Spread{}
	}
	v := make([]float64, len(rs))
	for i, r := range rs {
		v[i] = figure(r)
	}
	slices.SortFunc(v, cmp.Compare)
	n := len(v)
	return Spread{v[0], (v[(n-1)/2] + v[n/2]) / 2, v[n-1]}
}

// Target is a ratio of medians that the project has promised itself.
type Target struct {
	Name  string
	Of    Loop
	Least float64 // 0: for information
}

var targets = []Target{
	{"full / naive", Naive, 6},
	{"full / naive, a loop per partition", NaiveEach, 0},
	{"full / bare", Bare, 0.5},
}

var described = map[Loop]string{
	Naive:     "naive, one loop",
	NaiveEach: "naive, a loop per partition",
	Bare:      "bare protocol",
	Full:      "full job",
}

// Ratio is the full job's median throughput over another loop's; ok is false
// when one of them was not measured.
func (r *Report) Ratio(of Loop, figure func(*Result) float64) (ratio float64, ok bool) {
	if len(r.Results[Full]) == 0 || len(r.Results[of]) == 0 {
		return 0, false
	}
	return SpreadOf(r.Results[Full], figure).Median / SpreadOf(r.Results[of], figure).Median, true
}

// table is a header, a rule and rows, as text or Markdown.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(w io.Writer, markdown bool) error {
	if markdown {
		fmt.Fprintf(w, "| %s |\n", strings.Join(t.head, " | "))
		fmt.Fprintf(w, "|%s\n", strings.Repeat(" --- |", len(t.head)))
		for _, r := range t.rows {
			fmt.Fprintf(w, "| %s |\n", strings.Join(r, " | "))
		}
		_, err := fmt.Fprintln(w)
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, r := range append([][]string{t.head}, t.rows...) {
		fmt.Fprintf(tw, "%s\t\n", strings.Join(r, "\t"))
	}
	fmt.Fprintln(tw)
	return tw.Flush()
}

// Write prints the report; markdown for the kept one.
func (r *Report) Write(w io.Writer, markdown bool) error {
	s := &r.Suite
	fmt.Fprintf(w, "%s\n\n", r.Machine)
	if s.Memory {
		return r.writeMemory(w, markdown)
	}
	if len(s.Loops) > 0 {
		if err := r.writeLoops(w, markdown); err != nil {
			return err
		}
	}
	if r.Latency != nil {
		return r.Latency.write(w, s, markdown)
	}
	return nil
}

// writeLoops prints the throughput of the loops.
func (r *Report) writeLoops(w io.Writer, markdown bool) error {
	s := &r.Suite
	fmt.Fprintf(w, "%s events of %s customers in %d topics of %d partitions; %d rounds; the naive loops process %s of the events.\nKafka (1 GB heap) and Redis (AOF everysec) share the machine with the loops.\n\n",
		count(float64(s.Events)), count(float64(s.Customers)), len(inputs), s.Partitions, s.Rounds, count(float64(min(s.Events, s.NaiveEvents))))

	t := table{head: []string{"loop", "events/s: min", "median", "max", "per CPU-second: min", "median", "max"}}
	u := table{head: []string{"medians", "own CPU s", "Redis CPU s", "broker CPU s", "per million events: own", "Redis", "broker", "peak RSS MB", "events per batch", "changes"}}
	for _, l := range s.Loops {
		rs := r.Results[l]
		perSecond, perCPU := SpreadOf(rs, (*Result).PerSecond), SpreadOf(rs, (*Result).PerCPUSecond)
		t.add(described[l], count(perSecond.Min), count(perSecond.Median), count(perSecond.Max),
			count(perCPU.Min), count(perCPU.Median), count(perCPU.Max))
		median := func(figure func(*Result) float64) float64 { return SpreadOf(rs, figure).Median }
		own := func(r *Result) float64 { return r.Own.Seconds() }
		redis := func(r *Result) float64 { return r.Redis.Seconds() }
		broker := func(r *Result) float64 { return r.Broker.Seconds() }
		million := func(f func(*Result) float64) float64 {
			return median(func(r *Result) float64 { return f(r) * 1e6 / float64(r.Events) })
		}
		size := "1"
		if rs[0].Batches > 0 {
			size = count(median(func(r *Result) float64 { return float64(r.Events) / float64(r.Batches) }))
		}
		u.add(described[l], seconds(median(own)), seconds(median(redis)), seconds(median(broker)),
			seconds(million(own)), seconds(million(redis)), seconds(million(broker)),
			count(median(func(r *Result) float64 { return float64(r.PeakRSS) / (1 << 20) })), size,
			count(median(func(r *Result) float64 { return float64(r.Changes) })))
	}
	if err := t.write(w, markdown); err != nil {
		return err
	}
	if err := u.write(w, markdown); err != nil {
		return err
	}

	ratios := table{head: []string{"ratio of medians", "events/s", "per CPU-second", "target", ""}}
	for _, x := range targets {
		a, ok := r.Ratio(x.Of, (*Result).PerSecond)
		if !ok {
			continue
		}
		b, _ := r.Ratio(x.Of, (*Result).PerCPUSecond)
		want, verdict := "", ""
		if x.Least > 0 {
			want, verdict = fmt.Sprintf("≥ %.1f", x.Least), "met"
			if a < x.Least {
				verdict = "missed"
			}
		}
		ratios.add(x.Name, fmt.Sprintf("%.2f", a), fmt.Sprintf("%.2f", b), want, verdict)
	}
	if len(ratios.rows) > 0 {
		if err := ratios.write(w, markdown); err != nil {
			return err
		}
	}
	return r.writeVerified(w)
}

func (r *Report) writeVerified(w io.Writer) error {
	full := r.Results[Full]
	if len(full) == 0 {
		return nil
	}
	fmt.Fprintf(w, "Verified after each of the %d runs of the full job:\n\n", len(full))
	return writeList(w, full[len(full)-1].Verified)
}

func (r *Report) writeMemory(w io.Writer, markdown bool) error {
	res := r.Results[Full][0]
	fmt.Fprintf(w, "The full job drains %s events of %s customers; customers kept in memory: at most %d MB per partition.\n\n",
		count(float64(r.Suite.Events)), count(float64(r.Suite.Customers)), r.Suite.CacheMB)
	t := table{head: []string{"events done", "RSS MB", "peak RSS MB", "heap MB"}}
	for _, s := range res.Samples {
		t.add(count(float64(s.Events)), count(float64(s.RSS)/(1<<20)), count(float64(s.PeakRSS)/(1<<20)), count(float64(s.Heap)/(1<<20)))
	}
	if err := t.write(w, markdown); err != nil {
		return err
	}
	fmt.Fprintf(w, "%s events/s, peak RSS %d MB.\n\n", count(res.PerSecond()), res.PeakRSS>>20)
	return r.writeVerified(w)
}

func (l *Latency) write(w io.Writer, s *Suite, markdown bool) error {
	fmt.Fprintf(w, "%s events of %s customers in %d topics of %d partitions, due at %s per second for %v after %v of warm-up; the producer lingers %v.\nFrom when an event was due to when a consumer that reads committed had its tier change. Kafka (1 GB heap), Redis (AOF everysec), the consumer, the producer and that reader share the machine.\n\n",
		count(float64(l.events())), count(float64(s.Customers)), len(inputs), s.Partitions, count(l.Rate), l.Measured, l.WarmUp, latencyLinger)
	t := table{head: []string{"milliseconds", "events", "p50", "p90", "p99", "p99.9", "max"}}
	row := func(what string, d []time.Duration) {
		t.add(what, count(float64(len(d))), millis(Quantile(d, .5)), millis(Quantile(d, .9)), millis(Quantile(d, .99)), millis(Quantile(d, .999)), millis(Quantile(d, 1)))
	}
	row("acknowledged by Kafka", l.Sent)
	row("tier change committed and read", l.Seen)
	if err := t.write(w, markdown); err != nil {
		return err
	}
	c := l.Consumer
	fmt.Fprintf(w, "The consumer took %.0f %% of one core, Redis %.0f %%, the broker %.0f %%; %s events per batch. Verified after it:\n\n",
		100*c.Own.Seconds()/c.Took.Seconds(), 100*c.Redis.Seconds()/c.Took.Seconds(), 100*c.Broker.Seconds()/c.Took.Seconds(), count(float64(c.Events)/float64(c.Batches)))
	return writeList(w, c.Verified)
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/1e6) }

func writeList(w io.Writer, lines []string) error {
	for _, l := range lines {
		fmt.Fprintf(w, "- %s\n", l)
	}
	_, err := fmt.Fprintln(w)
	return err
}

// count groups digits by three.
func count(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func seconds(v float64) string {
	if v < 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", v)
}
