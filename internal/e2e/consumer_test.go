//go:build unix

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m, removeBinary) }

// binary is the consumer command, built once per test process.
var binary struct {
	sync.Once
	dir, path string
	err       error
}

func removeBinary() error { return os.RemoveAll(binary.dir) }

// command builds the consumer, with the race detector when the test has it.
func command(t testing.TB) string {
	t.Helper()
	binary.Do(func() {
		if binary.dir, binary.err = os.MkdirTemp("", "tierstream-e2e-"); binary.err != nil {
			return
		}
		binary.path = filepath.Join(binary.dir, "consumer")
		args := []string{"build", "-o", binary.path}
		if raceEnabled {
			args = append(args, "-race")
		}
		out, err := exec.Command("go", append(args, "github.com/tierstream/tierstream/cmd/consumer")...).CombinedOutput()
		if err != nil {
			binary.err = fmt.Errorf("building the consumer: %w\n%s", err, out)
		}
	})
	if binary.err != nil {
		t.Fatal(binary.err)
	}
	return binary.path
}

// secret is the Redis password of every consumer here. Nothing that any of
// them prints may contain it.
const secret = "s3cret-Pa55w0rd"

// output collects what a process prints.
type output struct {
	mu   sync.Mutex
	text []byte
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, b...)
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text)
}

// consumer is one process of the consumer command.
type consumer struct {
	t      testing.TB
	cmd    *exec.Cmd
	output output
	ended  chan struct{} // closed when the process has been waited for
}

// launch starts the command. environ is added to an environment without
// settings of ours.
func launch(t testing.TB, environ []string, args ...string) *consumer {
	t.Helper()
	c := &consumer{t: t, cmd: exec.Command(command(t), args...), ended: make(chan struct{})}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "TIERSTREAM_") {
			c.cmd.Env = append(c.cmd.Env, kv)
		}
	}
	c.cmd.Env = append(append(c.cmd.Env, "GORACE=halt_on_error=1"), environ...)
	c.cmd.Dir = t.TempDir()
	c.cmd.Stdout, c.cmd.Stderr = &c.output, &c.output
	c.cmd.SysProcAttr = ownProcess()
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the process is bound to the life of this thread
		defer close(c.ended)
		err := c.cmd.Start()
		started <- err
		if err == nil {
			_ = c.cmd.Wait() // its exit code is read from the state
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.finish)
	return c
}

// finish kills what is still running and looks at what was printed.
func (c *consumer) finish() {
	c.kill()
	out := c.output.String()
	if strings.Contains(out, secret) {
		c.t.Errorf("the consumer printed the password:\n%s", out)
	}
	if strings.Contains(out, "DATA RACE") || strings.Contains(out, "panic:") {
		c.t.Errorf("the consumer crashed:\n%s", out)
	}
	if c.t.Failed() {
		c.t.Logf("consumer %d printed:\n%s", c.cmd.Process.Pid, shorten(out))
	}
}

// shorten leaves the ends of a long text.
func shorten(s string) string {
	const keep = 6 << 10
	if len(s) <= 2*keep {
		return s
	}
	return s[:keep] + "\n…\n" + s[len(s)-keep:]
}

func (c *consumer) signal(s syscall.Signal) {
	// The only error is that it has ended, which ended says.
	_ = c.cmd.Process.Signal(s)
}

// kill ends the process as a crash would and returns when it is gone.
func (c *consumer) kill() {
	c.signal(syscall.SIGKILL)
	<-c.ended
}

// stop asks the process to end, which must succeed.
func (c *consumer) stop() {
	c.t.Helper()
	c.signal(syscall.SIGTERM)
	if code := c.exit(30 * time.Second); code != 0 {
		c.t.Errorf("stopped consumer: exit code %d:\n%s", code, shorten(c.output.String()))
	}
}

// exit waits for the process to end by itself and returns its exit code.
func (c *consumer) exit(limit time.Duration) int {
	c.t.Helper()
	select {
	case <-c.ended:
	case <-time.After(limit):
		c.t.Fatalf("the consumer still runs after %s:\n%s", limit, shorten(c.output.String()))
	}
	return c.cmd.ProcessState.ExitCode()
}

// said waits until the consumer has printed a text.
func (c *consumer) said(text string, limit time.Duration) {
	c.t.Helper()
	until(c.t, limit, "waiting for the consumer to say "+strconv.Quote(text), func() error {
		if out := c.output.String(); !strings.Contains(out, text) {
			return fmt.Errorf("it said:\n%s", shorten(out))
		}
		return nil
	})
}

var ownership = regexp.MustCompile(`msg="partition (assigned|released)".* partition=(\d+)`)

// owned are the partitions that the consumer owns by its own account.
func (c *consumer) owned() []int32 {
	var owned []int32
	for _, m := range ownership.FindAllStringSubmatch(c.output.String(), -1) {
		n, _ := strconv.Atoi(m[2]) // digits
		p := int32(n)
		if m[1] == "assigned" {
			owned = append(owned, p)
		} else {
			owned = slices.DeleteFunc(owned, func(q int32) bool { return q == p })
		}
	}
	return owned
}

// refused runs the command, which must end by itself with a non-zero code and
// say all of the given, in one line that begins with the program's name.
func refused(t testing.TB, environ, args []string, want ...string) {
	t.Helper()
	c := launch(t, environ, args...)
	code := c.exit(30 * time.Second)
	out := strings.TrimSpace(c.output.String())
	if code == 0 {
		t.Errorf("exit code 0, want another:\n%s", out)
	}
	lines := strings.Split(out, "\n")
	last := lines[len(lines)-1]
	if !strings.HasPrefix(last, "consumer: ") {
		t.Errorf("the last line is %q, want one of the program's own", last)
	}
	for _, w := range want {
		if !strings.Contains(last, w) {
			t.Errorf("the consumer said\n%s\nwant something with %q", last, w)
		}
	}
}

// until waits for a condition and fails with what it last said.
func until(t testing.TB, limit time.Duration, what string, f func() error) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s, for %s: %v", what, limit, err)
		}
	}
}

var errNotYet = errors.New("not yet")
