package bench

import (
	"bytes"
	"fmt"
	"os"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"
)

// meter takes the CPU times of a span.
type meter struct {
	task        *Task
	began       time.Time
	own         time.Duration
	redis, kafk time.Duration
}

func (t *Task) start() *meter {
	return &meter{task: t, began: time.Now(), own: ownCPU(), redis: processCPU(t.RedisPID), kafk: processCPU(t.BrokerPID)}
}

// stop fills in what the span took.
func (m *meter) stop(r *Result) {
	r.Took = time.Since(m.began)
	r.Own = ownCPU() - m.own
	r.Redis, r.Broker = -1, -1
	if v := processCPU(m.task.RedisPID); v >= 0 && m.redis >= 0 {
		r.Redis = v - m.redis
	}
	if v := processCPU(m.task.BrokerPID); v >= 0 && m.kafk >= 0 {
		r.Broker = v - m.kafk
	}
	_, r.PeakRSS = memory()
}

// tick is the unit of /proc/<pid>/stat: USER_HZ, which is 100 on every Linux
// that Go runs on.
const tick = 10 * time.Millisecond

// processCPU is the CPU time of another process and of its children that have
// ended; -1 where there is no /proc.
func processCPU(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return -1
	}
	// The name in parentheses may hold anything; fields 14 to 17 are utime,
	// stime, cutime and cstime, and what follows the name is field 3.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var sum time.Duration
	for _, s := range f[11:15] {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return -1
		}
		sum += time.Duration(n) * tick
	}
	return sum
}

// memory is the resident set of this process, now and at its peak, in bytes;
// zeros where there is no /proc.
func memory() (now, peak int64) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, _ := strconv.ParseInt(f[1], 10, 64) // kB; other lines' texts do not matter
		switch f[0] {
		case "VmRSS:":
			now = n << 10
		case "VmHWM:":
			peak = n << 10
		}
	}
	return now, peak
}

// sample looks at this process's memory.
func sample(events int64) Sample {
	s := Sample{Events: events}
	s.RSS, s.PeakRSS = memory()
	m := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(m)
	if m[0].Value.Kind() == metrics.KindUint64 {
		s.Heap = int64(m[0].Value.Uint64())
	}
	return s
}
