package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/state"
	"github.com/tierstream/tierstream/internal/stream"
	"github.com/tierstream/tierstream/internal/testenv"
)

// Suite is a whole run: services, backlog, loops in rounds.
type Suite struct {
	Loops       []Loop
	Events      int64 // of the backlog
	NaiveEvents int64 // how many of them the naive loops process
	Customers   int
	Partitions  int32
	Rounds      int
	CacheMB     int
	Profile     string // file for a CPU profile of the full job in an extra round; "" for none
	Memory      bool   // the full job once, sampling its memory, instead of rounds

	LatencyRate float64       // events per second of the latency run
	LatencyFor  time.Duration // how long it is measured; 0: it is left out

	// Self is the command that measures one task in another process: it must
	// call [Child] with the argument that is added at its end.
	Self []string
	// Progress says in lines what is under way.
	Progress io.Writer
}

// Report is what a Suite found.
type Report struct {
	Suite   Suite
	Began   time.Time
	Machine Machine
	Loading time.Duration
	Results map[Loop][]*Result
	Latency *Latency // nil: not measured
}

// services are a Kafka and a Redis on loopback.
type services struct {
	kafka *testenv.KafkaServer
	redis *testenv.RedisServer
}

// startServices starts them, and creates the topics of the events.
func startServices(ctx context.Context, partitions int32) (_ *services, err error) {
	sv := &services{}
	defer func() {
		if err != nil {
			err = errors.Join(err, sv.stop())
		}
	}()
	if sv.kafka, err = testenv.StartKafka(ctx, testenv.KafkaOptions{Throughput: true, Heap: "1g"}); err != nil {
		return nil, err
	}
	if sv.redis, err = testenv.StartRedis(ctx, testenv.RedisOptions{AppendFsync: "everysec"}); err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(sv.kafka.Addr()))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	return sv, stream.CreateTopics(ctx, cl, stream.DefaultTopics("load", inputs), partitions, 1, nil)
}

func (sv *services) stop() (err error) {
	if sv.redis != nil {
		err = sv.redis.Stop()
	}
	if sv.kafka != nil {
		err = errors.Join(err, sv.kafka.Stop())
	}
	return err
}

// task is what all tasks on these services have in common.
func (sv *services) task(s *Suite) Task {
	return Task{
		Brokers: sv.kafka.Addr(), Redis: sv.redis.Addr(), RedisPID: sv.redis.PID(), BrokerPID: sv.kafka.PID(),
		Partitions: s.Partitions, Events: s.Events, CacheMB: s.CacheMB,
	}
}

// Run measures: the loops, if there are any, and then the latency, each on a
// Kafka and a Redis of its own.
func (s *Suite) Run(ctx context.Context) (*Report, error) {
	say := func(format string, args ...any) { fmt.Fprintf(s.Progress, format+"\n", args...) }
	rep := &Report{Suite: *s, Began: time.Now(), Machine: ThisMachine(), Results: map[Loop][]*Result{}}
	if len(s.Loops) > 0 {
		if err := s.throughput(ctx, rep, say); err != nil {
			return nil, err
		}
	}
	if s.LatencyFor > 0 && !s.Memory {
		say("starting Kafka and Redis for the latency")
		var err error
		if rep.Latency, err = s.latency(ctx, say); err != nil {
			return nil, err
		}
	}
	return rep, nil
}

// throughput loads the backlog and lets the loops drain it.
func (s *Suite) throughput(ctx context.Context, rep *Report, say func(string, ...any)) (err error) {
	say("starting Kafka and Redis")
	sv, err := startServices(ctx, s.Partitions)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sv.stop()) }()
	t := sv.task(s)
	b := Backlog{Events: s.Events, Customers: s.Customers, End: rep.Began, Span: 90 * 24 * time.Hour}
	if err := b.Load(ctx, t.Brokers); err != nil {
		return err
	}
	rep.Loading = time.Since(rep.Began)
	say("loaded %d events of %d customers", s.Events, s.Customers)

	measure := func(l Loop, name string, set func(*Task)) (*Result, error) {
		if err := clean(ctx, t.Redis); err != nil {
			return nil, err
		}
		t := t
		t.Loop, t.Namespace = l, "bench-"+name
		if l == Naive || l == NaiveEach {
			t.Events = min(s.Events, s.NaiveEvents)
		}
		if set != nil {
			set(&t)
		}
		r, err := s.child(ctx, t)
		if err != nil {
			return nil, fmt.Errorf("measuring %s: %w", name, err)
		}
		say("%-14s %9.0f events/s  %9.0f per CPU-second  %d MB", name, r.PerSecond(), r.PerCPUSecond(), r.PeakRSS>>20)
		return r, nil
	}
	if s.Memory {
		r, err := measure(Full, "full-memory", func(t *Task) { t.Sample = time.Second })
		if err != nil {
			return err
		}
		rep.Results[Full] = []*Result{r}
		return nil
	}
	for round := range s.Rounds {
		// Every other round the other way round: whoever comes first does not
		// always meet the warmest machine.
		for i := range s.Loops {
			l := s.Loops[i]
			if round%2 == 1 {
				l = s.Loops[len(s.Loops)-1-i]
			}
			r, err := measure(l, fmt.Sprintf("%s-%d", l, round+1), nil)
			if err != nil {
				return err
			}
			rep.Results[l] = append(rep.Results[l], r)
		}
	}
	if s.Profile != "" {
		if _, err := measure(Full, "full-profile", func(t *Task) { t.Profile = s.Profile }); err != nil {
			return err
		}
	}
	return nil
}

// clean empties Redis, its log too, so that each loop finds the same.
func clean(ctx context.Context, addr string) error {
	rdb, err := state.Open(addr, "")
	if err != nil {
		return err
	}
	defer rdb.Close()
	if err := rdb.FlushAll(ctx).Err(); err != nil {
		return fmt.Errorf("emptying Redis: %w", err)
	}
	wait := time.NewTicker(20 * time.Millisecond)
	defer wait.Stop()
	for asked := false; ; {
		info, err := rdb.Info(ctx, "persistence").Result()
		if err != nil {
			return fmt.Errorf("emptying Redis: %w", err)
		}
		if strings.Contains(info, "aof_rewrite_in_progress:0") && strings.Contains(info, "aof_rewrite_scheduled:0") {
			if asked {
				return nil
			}
			if err := rdb.BgRewriteAOF(ctx).Err(); err != nil {
				return fmt.Errorf("emptying Redis: %w", err)
			}
			asked = true
		}
		select {
		case <-wait.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// child measures a task in another process.
func (s *Suite) child(ctx context.Context, t Task) (*Result, error) {
	arg, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, s.Self[0], append(s.Self[1:len(s.Self):len(s.Self)], string(arg))...)
	cmd.Stdout, cmd.Stderr = &out, s.Progress
	cmd.Env = os.Environ()
	if os.Getenv("GOGC") == "" {
		cmd.Env = append(cmd.Env, "GOGC=200") // as the consumer sets it; for every loop
	}
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	var r Result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		return nil, fmt.Errorf("reading its result: %w", err)
	}
	return &r, nil
}

// Child measures the task in this process and writes the result for the
// parent.
func Child(ctx context.Context, task string, stdout io.Writer) error {
	var t Task
	if err := json.Unmarshal([]byte(task), &t); err != nil {
		return fmt.Errorf("reading the task: %w", err)
	}
	r, err := Run(ctx, t)
	if err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(r)
}
