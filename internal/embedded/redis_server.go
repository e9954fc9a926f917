package embedded

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// errNoRedisServer: this machine has no redis-server that can be used.
var errNoRedisServer = errors.New("no usable redis-server")

// oldestRedis has ZRANGE … BYSCORE, which the due set is read with.
var oldestRedis = [2]int{6, 2}

const (
	// stopPatience is how long redis-server may take to end after it was asked
	// to; it syncs its file then.
	stopPatience = 30 * time.Second
	// answerEvery is how often a starting server is asked whether it is ready.
	answerEvery = 10 * time.Millisecond
	// startTries bounds how often a server is given another port because a
	// stranger took the one just found free.
	startTries = 5
)

// redisServer is a redis-server that is a child of this process.
type redisServer struct {
	version string
	port    int
	log     *slog.Logger
	lock    *os.File // open in the child too: locked while either lives
	process *os.Process
	output  string // the file with what it printed

	serving atomic.Bool   // its end would be news: it has answered and was not asked to end
	ended   chan struct{} // closed when the child has been waited for
}

func (r *redisServer) addr() string { return fmt.Sprintf("127.0.0.1:%d", r.port) }

// startRedisServer starts redis-server on dir/redis and returns when it has
// loaded its data. The error is errNoRedisServer when the machine has none.
func startRedisServer(ctx context.Context, dir string, try ports, log *slog.Logger) (_ *redisServer, err error) {
	binary, version, err := findRedisServer(ctx)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "redis")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return nil, fmt.Errorf("starting redis-server: %w", err)
	}
	r := &redisServer{version: version, log: log, output: filepath.Join(data, "output.log")}
	if r.lock, err = lockRedis(ctx, filepath.Join(dir, "redis.lock")); err != nil {
		return nil, fmt.Errorf("starting redis-server: %w", err)
	}
	for range startTries {
		if r.port, err = try.free(); err != nil {
			break
		}
		if err = r.run(ctx, binary, data); !errors.Is(err, errPortTaken) {
			break
		}
		try = ports{}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting redis-server: %w", err), r.lock.Close())
	}
	return r, nil
}

var redisVersion = regexp.MustCompile(`\bv=((\d+)\.(\d+)\S*)`)

// findRedisServer finds a redis-server in PATH and its version.
func findRedisServer(ctx context.Context) (path, version string, err error) {
	if runtime.GOOS == "windows" {
		return "", "", fmt.Errorf("%w: not run on Windows", errNoRedisServer)
	}
	path, err = exec.LookPath("redis-server")
	if err != nil {
		return "", "", fmt.Errorf("%w: %w", errNoRedisServer, err)
	}
	text, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", "", fmt.Errorf("%w: asking %s for its version: %w", errNoRedisServer, path, err)
	}
	m := redisVersion.FindStringSubmatch(string(text))
	if m == nil {
		return "", "", fmt.Errorf("%w: %s says %q as its version", errNoRedisServer, path, text)
	}
	major, _ := strconv.Atoi(m[2]) // digits, as matched
	minor, _ := strconv.Atoi(m[3])
	if major < oldestRedis[0] || major == oldestRedis[0] && minor < oldestRedis[1] {
		return "", "", fmt.Errorf("%w: %s is version %s, want %d.%d or later", errNoRedisServer, path, m[1], oldestRedis[0], oldestRedis[1])
	}
	return path, m[1], nil
}

// lockRedis takes the lock that a redis-server on this folder holds while it
// lives. The caller owns the folder, so a holder is left from a killed consumer:
// it is ending by itself where the system tells it to, and is told here too.
// Its process ID cannot be another's, because it holds the lock.
func lockRedis(ctx context.Context, path string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	ask := time.NewTicker(answerEvery)
	defer ask.Stop()
	for {
		lock, err := tryLock(path)
		if err == nil {
			if err := writePID(lock, 0); err != nil {
				lock.Close()
				return nil, err
			}
			return lock, nil
		}
		if !errors.Is(err, errLocked) {
			return nil, err
		}
		pid := readPID(path)
		if pid > 0 {
			_ = terminate(pid) // fails only when it has just ended
		}
		select {
		case <-ask.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for a redis-server left from before (process %d) to end: %w", pid, ctx.Err())
		}
	}
}

// run starts the child and returns when it answers.
func (r *redisServer) run(ctx context.Context, binary, data string) error {
	output, err := os.Create(r.output)
	if err != nil {
		return err
	}
	defer output.Close()
	command := exec.Command(binary,
		"--bind", "127.0.0.1",
		"--port", strconv.Itoa(r.port),
		"--dir", data,
		"--daemonize", "no",
		"--save", "",
		"--appendonly", "yes",
		"--appendfsync", "everysec",
		"--maxmemory-policy", "noeviction",
	)
	command.Stdout, command.Stderr = output, output
	command.ExtraFiles = []*os.File{r.lock}
	ownGroup(command)

	// Where the kernel ends a child on its parent's death, it means the death
	// of the thread that started it: so this goroutine keeps its thread for as
	// long as the child lives.
	r.ended = make(chan struct{})
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := command.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		err := command.Wait()
		close(r.ended)
		if r.serving.Load() {
			r.log.Error("redis-server ended", "pid", command.Process.Pid, "error", err, "output", r.output)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	r.process = command.Process
	if err := writePID(r.lock, r.process.Pid); err != nil {
		return errors.Join(err, r.end())
	}
	return r.awaitAnswer(ctx)
}

// awaitAnswer returns when the server answers PING, which it refuses while it
// loads its file. It ends the server when that does not come to pass.
func (r *redisServer) awaitAnswer(ctx context.Context) error {
	ask := time.NewTicker(answerEvery)
	defer ask.Stop()
	for {
		err := ping(ctx, r.addr())
		select {
		case <-r.ended: // whoever answered was not this server
			text := tail(r.output)
			if strings.Contains(text, "bind: Address already in use") {
				return errPortTaken
			}
			return fmt.Errorf("it ended and said:\n%s", text)
		default:
		}
		if err == nil {
			r.serving.Store(true)
			return nil
		}
		select {
		case <-ask.C:
		case <-r.ended:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waiting for an answer: %w (last: %w)", ctx.Err(), err), r.end())
		}
	}
}

// ping is nil when a Redis answers there and has loaded its data.
func ping(ctx context.Context, addr string) error {
	const patience = time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	connection, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(connection, "PING\r\n"); err != nil {
		return err
	}
	answer, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil {
		return err
	}
	if answer != "+PONG\r\n" {
		return errors.New(strings.TrimSpace(answer)) // such as -LOADING
	}
	return nil
}

// stop asks the server to write its file and end.
func (r *redisServer) stop() error {
	if err := r.end(); err != nil {
		return fmt.Errorf("stopping redis-server: %w", err)
	}
	return r.lock.Close()
}

func (r *redisServer) end() error {
	r.serving.Store(false)
	_ = terminate(r.process.Pid) // fails only when it has ended
	timeout := time.NewTimer(stopPatience)
	defer timeout.Stop()
	select {
	case <-r.ended:
		return nil
	case <-timeout.C:
		_ = r.process.Kill()
		<-r.ended
		return fmt.Errorf("process %d still ran after %v and was killed", r.process.Pid, stopPatience)
	}
}

// tail is the end of an output file, for an error message.
func tail(path string) string {
	const length = 2 << 10
	file, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > length {
		_, _ = file.Seek(-length, io.SeekEnd) // else all of it is shown
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
