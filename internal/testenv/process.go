package testenv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"time"
)

// stopPatience is how long a service may take to end after it was asked to.
// Kafka with many open partitions needs a few seconds.
const stopPatience = 30 * time.Second

// process is one child process in a process group of its own, so that a
// signal reaches whatever the child has forked, and nothing else.
type process struct {
	command *exec.Cmd
	ended   chan struct{} // closed when the child has been waited for
}

// startProcess starts the command with its output going to the file log.
//
// The goroutine that starts the child keeps its thread until the child has
// ended: where the kernel can kill a child on its parent's death, it means the
// death of the parent's thread. A test process that dies by its own timeout
// then leaves no service behind.
func startProcess(command *exec.Cmd, log string) (*process, error) {
	output, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	command.Stdout, command.Stderr = output, output
	ownGroup(command)
	p := &process{command: command, ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer output.Close()
		if err := command.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		_ = command.Wait() // the exit code of a killed service says nothing
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", command.Path, err)
	}
	return p, nil
}

func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// kill ends the process group without warning (SIGKILL) and waits for it.
func (p *process) kill() {
	if p.running() {
		_ = killGroup(p.command.Process.Pid) // fails only when it has just ended
	}
	<-p.ended
}

// stop asks the process to end and kills it when it does not within
// stopPatience.
func (p *process) stop() error {
	if !p.running() {
		return nil
	}
	_ = terminate(p.command.Process.Pid) // as in kill
	_ = resume(p.command.Process.Pid)    // a paused process would not notice
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopPatience):
		p.kill()
		return fmt.Errorf("stopping %s: still running after %v, killed", p.command.Path, stopPatience)
	}
}

// service is what the two kinds of server have in common: a child process, its
// folder and its port, which survive a restart.
type service struct {
	name    string // for error messages
	dir     string
	ownsDir bool // whether Stop removes dir
	ports   []*port
	command func() *exec.Cmd
	ready   func(context.Context) error // asks once

	mu      sync.Mutex
	process *process // nil before the first start
}

// Addr is where clients connect, "127.0.0.1:port". It stays the same over
// Restart.
func (s *service) Addr() string { return s.ports[0].addr() }

// outputName is the file in a service's folder that has what it printed.
const outputName = "output.log"

// Dir is the folder with the data and with the server's output, "output.log".
func (s *service) Dir() string { return s.dir }

// PID is the process ID of the server as last started.
func (s *service) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process.command.Process.Pid
}

// Kill ends the server as a crash would (SIGKILL) and returns when it is gone.
// What it had handed to the operating system stays on disk.
func (s *service) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process.kill()
}

// Pause halts the server as a long stall would (SIGSTOP): its connections stay
// open and nothing is answered until Resume, Kill or Stop.
func (s *service) Pause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.process.running() {
		return fmt.Errorf("pausing %s: it does not run", s.name)
	}
	return pause(s.process.command.Process.Pid)
}

// Resume ends a Pause.
func (s *service) Resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.process.running() {
		return fmt.Errorf("resuming %s: it does not run", s.name)
	}
	return resume(s.process.command.Process.Pid)
}

// Restart starts the server again on its port and data, after stopping it
// gently if it still runs, and returns when it answers.
func (s *service) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.process.stop(); err != nil {
		return err
	}
	return s.start(ctx)
}

// Stop ends the server for good. A folder named in the options is kept, and the
// server asked to leave it in order; a temporary folder is removed, and the
// server killed, which spares Kafka's orderly end. A second Stop does nothing.
func (s *service) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	switch {
	case s.process == nil: // the start failed early
	case s.ownsDir:
		s.process.kill()
	default:
		err = s.process.stop()
	}
	for _, p := range s.ports {
		p.release()
	}
	if s.ownsDir {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

// start runs the command and asks until the server answers, ctx is done or the
// process has ended.
func (s *service) start(ctx context.Context) error {
	log := filepath.Join(s.dir, outputName)
	p, err := startProcess(s.command(), log)
	if err != nil {
		return err
	}
	s.process = p
	ask := time.NewTicker(20 * time.Millisecond)
	defer ask.Stop()
	for {
		err := s.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ask.C:
		case <-p.ended:
			return fmt.Errorf("starting %s: it ended:\n%s", s.name, tail(log))
		case <-ctx.Done():
			p.kill()
			return fmt.Errorf("starting %s: %w (last answer: %w):\n%s", s.name, ctx.Err(), err, tail(log))
		}
	}
}

// tail is the end of a log file, for an error message.
func tail(path string) string {
	const length = 4 << 10
	file, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > length {
		_, _ = file.Seek(-length, io.SeekEnd) // else the whole file is shown
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// The ports handed out lie below the ranges from which Linux (32768 and up)
// and macOS (49152 and up) take the local port of an outgoing connection.
// Otherwise, while a killed server is away, another connection could take its
// port, even the client's own attempts to reach it (a TCP simultaneous open
// connects a socket to itself).
const (
	firstPort = 20000
	portCount = 10000
)

// port is a TCP port on loopback, reserved among all processes that use this
// package, also while nobody listens on it.
type port struct {
	number int
	unlock func()
}

func (p *port) addr() string { return fmt.Sprintf("127.0.0.1:%d", p.number) }

func (p *port) release() { p.unlock() }

func reservePort() (*port, error) {
	dir, err := cacheDir("ports")
	if err != nil {
		return nil, err
	}
	for range 200 {
		number := firstPort + rand.IntN(portCount)
		unlock, err := tryLock(filepath.Join(dir, fmt.Sprint(number)))
		if errors.Is(err, errLocked) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reserving port %d: %w", number, err)
		}
		p := &port{number: number, unlock: unlock}
		listener, err := net.Listen("tcp", p.addr())
		if err != nil {
			unlock()
			continue
		}
		listener.Close()
		return p, nil
	}
	return nil, errors.New("reserving a port: none of 200 tries was free")
}

// errLocked says that another process, or another open of the same file in
// this one, holds the lock.
var errLocked = errors.New("locked by another")

// lock waits for an exclusive lock on the file, which it creates. The lock
// ends with the process at the latest.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	ask := time.NewTicker(100 * time.Millisecond)
	defer ask.Stop()
	for {
		unlock, err := tryLock(path)
		if !errors.Is(err, errLocked) {
			return unlock, err
		}
		select {
		case <-ask.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the lock %s: %w", path, ctx.Err())
		}
	}
}
