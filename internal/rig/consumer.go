//go:build unix

package rig

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
)

// binary is the consumer command, built once per test process.
var binary struct {
	sync.Once
	dir, path string
	err       error
}

// RemoveBinary deletes the command that was built for the tests.
func RemoveBinary() error { return os.RemoveAll(binary.dir) }

// Race says whether the consumer is built with the race detector, which makes
// it several times slower: as the test is, unless TestMain says otherwise.
var Race = raceEnabled

// command builds the consumer.
func command(t testing.TB) string {
	t.Helper()
	binary.Do(func() {
		if binary.dir, binary.err = os.MkdirTemp("", "tierstream-e2e-"); binary.err != nil {
			return
		}
		binary.path = filepath.Join(binary.dir, "consumer")
		args := []string{"build", "-o", binary.path}
		if Race {
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

// Secret is the Redis password of every consumer here. Nothing that any of
// them prints may contain it.
const Secret = "s3cret-Pa55w0rd"

// Output collects what a process prints.
type Output struct {
	mu   sync.Mutex
	text []byte
}

func (o *Output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, b...)
	return len(b), nil
}

// String is what was printed so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text)
}

// Consumer is one process of the consumer command.
type Consumer struct {
	t      testing.TB
	cmd    *exec.Cmd
	Output Output
	ended  chan struct{} // closed when the process has been waited for
}

// Launch starts the command. environ is added to an environment without
// settings of ours.
func Launch(t testing.TB, environ []string, args ...string) *Consumer {
	t.Helper()
	c := &Consumer{t: t, cmd: exec.Command(command(t), args...), ended: make(chan struct{})}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "TIERSTREAM_") {
			c.cmd.Env = append(c.cmd.Env, kv)
		}
	}
	c.cmd.Env = append(append(c.cmd.Env, "GORACE=halt_on_error=1"), environ...)
	c.cmd.Dir = t.TempDir()
	c.cmd.Stdout, c.cmd.Stderr = &c.Output, &c.Output
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
func (c *Consumer) finish() {
	c.Kill()
	out := c.Output.String()
	if strings.Contains(out, Secret) {
		c.t.Errorf("the consumer printed the password:\n%s", out)
	}
	if strings.Contains(out, "DATA RACE") || strings.Contains(out, "panic:") {
		c.t.Errorf("the consumer crashed:\n%s", out)
	}
	if c.t.Failed() {
		c.t.Logf("consumer %d printed:\n%s", c.cmd.Process.Pid, Shorten(out))
	}
}

// Shorten leaves the ends of a long text.
func Shorten(s string) string {
	const keep = 6 << 10
	if len(s) <= 2*keep {
		return s
	}
	return s[:keep] + "\n…\n" + s[len(s)-keep:]
}

// Signal sends a signal; a process that has ended ignores it.
func (c *Consumer) Signal(s syscall.Signal) {
	// The only error is that it has ended, which ended says.
	_ = c.cmd.Process.Signal(s)
}

// Ended says whether the process is gone.
func (c *Consumer) Ended() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// Kill ends the process as a crash would and returns when it is gone.
func (c *Consumer) Kill() {
	c.Signal(syscall.SIGKILL)
	<-c.ended
}

// Stop asks the process to end, which must succeed. One that has said nothing
// yet may not have got as far as to handle signals, and dies by this one.
func (c *Consumer) Stop() {
	c.t.Helper()
	c.Signal(syscall.SIGTERM)
	if code := c.Exit(30 * time.Second); code != 0 && (code != -1 || c.Output.String() != "") {
		c.t.Errorf("stopped consumer: exit code %d:\n%s", code, Shorten(c.Output.String()))
	}
}

// Exit waits for the process to end by itself and returns its exit code.
func (c *Consumer) Exit(limit time.Duration) int {
	c.t.Helper()
	select {
	case <-c.ended:
	case <-time.After(limit):
		c.t.Fatalf("the consumer still runs after %s:\n%s", limit, Shorten(c.Output.String()))
	}
	return c.cmd.ProcessState.ExitCode()
}

// Said waits until the consumer has printed a text.
func (c *Consumer) Said(text string, limit time.Duration) {
	c.t.Helper()
	Until(c.t, limit, "waiting for the consumer to say "+strconv.Quote(text), func() error {
		if out := c.Output.String(); !strings.Contains(out, text) {
			return fmt.Errorf("it said:\n%s", Shorten(out))
		}
		return nil
	})
}

var ownership = regexp.MustCompile(`msg="partition (assigned|released)".* partition=(\d+)`)

// Owned are the partitions that the consumer owns by its own account.
func (c *Consumer) Owned() []int32 {
	var owned []int32
	for _, m := range ownership.FindAllStringSubmatch(c.Output.String(), -1) {
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

// Until waits for a condition and fails with what it last said.
func Until(t testing.TB, limit time.Duration, what string, f func() error) {
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

// ErrNotYet is for conditions of [Until] with nothing to add.
var ErrNotYet = errors.New("not yet")
