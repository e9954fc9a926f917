//go:build unix

// Package examples tests the example programs against the real system.
package examples

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/rig"
	"github.com/tierstream/tierstream/internal/testenv"
)

// patience bounds each wait, on a machine that does other things, too.
const patience = 2 * time.Minute

func TestMain(m *testing.M) { testenv.Main(m, rig.RemoveBinary) }

// missing ends a test for want of a program: skipped, but failed in CI.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// java compiles the example against the jars of the broker and returns how to
// run it.
func java(t *testing.T) []string {
	t.Helper()
	javac, err := exec.LookPath("javac")
	if err != nil {
		missing(t, "missing a Java compiler (javac) in PATH")
	}
	libs, err := testenv.KafkaLibs(t.Context())
	if err != nil {
		missing(t, "%v", err)
	}
	classpath := filepath.Join(libs, "*")
	classes := t.TempDir()
	source := filepath.Join("java", "src", "main", "java", "io", "tierstream", "examples", "TierChanges.java")
	if out, err := exec.Command(javac, "-Xlint:all", "-Werror", "--release", "11", "-cp", classpath, "-d", classes, source).CombinedOutput(); err != nil {
		t.Fatalf("compiling: %v\n%s", err, out)
	}
	return []string{"java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx128m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-cp", classes + string(filepath.ListSeparator) + classpath, "io.tierstream.examples.TierChanges"}
}

// python finds an interpreter that has the client.
func python(t *testing.T) []string {
	t.Helper()
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(name, "-c", "import confluent_kafka").Run() == nil {
			return []string{name, filepath.Join("python", "tier_changes.py")}
		}
	}
	missing(t, "missing python3 with confluent_kafka")
	return nil
}

// program is one of the examples, which may be killed and started again.
type program struct {
	t       *testing.T
	name    string
	command []string
	more    []string // the last of the command
	file    string
	cmd     *exec.Cmd
	output  rig.Output
	ended   chan error
	dead    bool
}

func (p *program) start() {
	p.t.Helper()
	p.cmd = exec.Command(p.command[0], p.command[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.ended, p.dead = make(chan error, 1), false
	go func(c *exec.Cmd, ended chan error) { ended <- c.Wait() }(p.cmd, p.ended)
}

func (p *program) kill() {
	if p.dead {
		return
	}
	_ = p.cmd.Process.Kill() // it may have ended, which the next line says
	<-p.ended
	p.dead = true
}

// stop ends it in order.
func (p *program) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Errorf("%s: %v", p.name, err)
	}
	select {
	case err := <-p.ended:
		p.dead = true
		var exit *exec.ExitError
		if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 128+int(syscall.SIGTERM)) { // as Java ends
			p.t.Errorf("%s: stopped: %v\n%s", p.name, err, p.output.String())
		}
	case <-time.After(patience):
		p.t.Errorf("%s does not stop", p.name)
	}
}

// lines are the effects, without a last one that is being written.
func (p *program) lines() []string {
	p.t.Helper()
	b, err := os.ReadFile(p.file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.t.Fatal(err)
	}
	return strings.SplitAfter(string(b[:bytes.LastIndexByte(b, '\n')+1]), "\n")
}

// TestEachChangeOnce: while tierstream's consumers are killed again and again,
// and each program once, every change is acted on once, in order per customer.
func TestEachChangeOnce(t *testing.T) {
	kafka := testenv.SharedKafka(t)
	redis := rig.Redis(t, testenv.RedisOptions{AppendFsync: "everysec"})
	w := rig.New(t, rig.Config{Brokers: []string{kafka.Addr()}, Redis: redis.Addr()})
	dir := t.TempDir()
	var programs []*program
	add := func(name string, command []string, more ...string) {
		file := filepath.Join(dir, name+".tsv")
		args := append([]string{kafka.Addr(), w.Topics.Changes, w.Namespace + "-" + name, file}, more...)
		p := &program{t: t, name: name, command: append(command, args...), more: more, file: file}
		t.Cleanup(func() {
			p.kill()
			if t.Failed() {
				t.Logf("%s printed:\n%s", name, rig.Shorten(p.output.String()))
			}
		})
		programs = append(programs, p)
		p.start()
	}
	add("java", java(t))
	add("python", python(t))
	// Who reads uncommitted comes to the same by the same rule, as long as Redis
	// loses nothing that was decided.
	add("uncommitted", python(t), "--isolation", "read_uncommitted")

	rng := rand.New(rand.NewPCG(1, 2))
	g := rig.Traffic(t, 60, 0.03)
	on := []*rig.Consumer{w.Start(), w.Start()}
	kills := 0
	for round := range 6 {
		wait := w.Send(w.Take(g, 300))
		applied := w.Sent + int64(rng.IntN(200))
		rig.Until(t, patience, "waiting for some of it to be applied", func() error {
			fs, err := w.Fences()
			if err != nil {
				return err
			}
			read := int64(0)
			for _, f := range fs {
				if f != nil {
					read += f.State.Read
				}
			}
			if read < applied {
				return fmt.Errorf("%d of %d", read, applied)
			}
			return nil
		})
		on[0].Kill()
		on = append(on[1:], w.Start())
		kills++
		if round < len(programs) {
			programs[round].kill()
			programs[round].start()
		}
		wait()
	}
	w.Settled(patience)

	want := map[string][]string{} // data by customer, in the order of the sequence
	total := 0
	for _, records := range w.Read(w.Topics.Changes) {
		for _, r := range records {
			want[string(r.Key)] = append(want[string(r.Key)], string(r.Value))
			total++
		}
	}
	if total < 200 {
		t.Errorf("only %d changes", total)
	}
	for _, p := range programs {
		rig.Until(t, patience, "waiting for "+p.name+" to have all changes", func() error {
			if n := len(p.lines()) - 1; n < total {
				return fmt.Errorf("it has %d of %d:\n%s", n, total, rig.Shorten(p.output.String()))
			}
			return nil
		})
		p.stop()
		got := map[string][]string{}
		for _, line := range p.lines() {
			if line == "" {
				continue
			}
			part := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 3)
			if n, err := strconv.Atoi(part[1]); err != nil || n != len(got[part[0]])+1 {
				t.Errorf("%s: customer %s: sequence %s after %d", p.name, part[0], part[1], len(got[part[0]]))
			}
			got[part[0]] = append(got[part[0]], part[2])
		}
		if p.name == "uncommitted" { // the same decisions; when they were made may differ
			for _, m := range []map[string][]string{got, want} {
				for id, l := range m {
					m[id] = slices.Clone(l)
					for i := range l {
						m[id][i], _, _ = strings.Cut(l[i], `,"mode":`)
					}
				}
			}
		}
		if !maps.EqualFunc(got, want, slices.Equal) {
			t.Errorf("%s: acted on other changes than were published", p.name)
		}
		if strings.Contains(p.output.String(), "gap:") {
			t.Errorf("%s met a gap:\n%s", p.name, p.output.String())
		}
		// All of it delivered once more, to a group without offsets: nothing is
		// done again.
		before := len(p.lines())
		group := w.Namespace + "-" + p.name + "-again"
		p.command[len(p.command)-len(p.more)-2] = group
		p.start()
		rig.Until(t, patience, "waiting for "+p.name+" to read all changes again", func() error {
			at, err := w.Admin.FetchOffsets(t.Context(), group)
			if err != nil {
				return err
			}
			for n, last := range w.Last(w.Topics.Changes) {
				if o, ok := at.Lookup(w.Topics.Changes, int32(n)); last != nil && (!ok || o.At <= last.Offset) {
					return fmt.Errorf("partition %d stands at %d of %d", n, o.At, last.Offset)
				}
			}
			return nil
		})
		p.stop()
		if after := len(p.lines()); after != before {
			t.Errorf("%s: %d lines after a second delivery, %d before", p.name, after, before)
		}
	}
	t.Logf("%d changes, %d kills of consumers, one of each program", total, kills)
}

// The example's Kafka is the one the tests run on.
func TestOneVersionOfKafka(t *testing.T) {
	version := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var pom struct {
			Version string `xml:"properties>kafka.version"`
		}
		if err := xml.Unmarshal(b, &pom); err != nil {
			t.Fatal(err)
		}
		return pom.Version
	}
	if a, b := version("java/pom.xml"), version("../internal/testenv/kafka/pom.xml"); a != b || a == "" {
		t.Errorf("the example has Kafka %q, the tests run on %q", a, b)
	}
}
