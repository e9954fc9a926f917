// Command consumer is tierstream: it reads event topics, keeps customers'
// values in Redis and publishes tier changes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/tierstream/tierstream/internal/api"
	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/connect"
	"github.com/tierstream/tierstream/internal/embedded"
	"github.com/tierstream/tierstream/internal/mapping"
	"github.com/tierstream/tierstream/internal/state"
	"github.com/tierstream/tierstream/internal/stream"
	"github.com/tierstream/tierstream/internal/telemetry"
)

func main() {
	if os.Getenv("GOGC") == "" {
		// Most of what is alive is the cache of customers, which is bounded; a
		// collector that runs half as often saves about a tenth of the processor.
		debug.SetGCPercent(200)
	}
	cli.Main("consumer", func(ctx context.Context) error {
		err := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return nil // asked to end while it was still starting
		}
		return err
	})
}

// run builds the parts bottom up, starts them together and stops them in
// reverse.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) (err error) {
	f, done, err := parse(args, environ, stdout, stderr)
	if done {
		return nil
	}
	if err != nil {
		return err
	}
	if err := f.validate(); err != nil {
		return err
	}
	rules, err := f.rules()
	if err != nil {
		return err
	}
	log := logger(f, stderr)
	state.SetLog(log)

	// Services.
	var sv *embedded.Services
	if f.embedded() {
		if f.Check {
			fmt.Fprintln(stdout, "settings and model are right; the embedded services would be used")
			return nil
		}
		sv, err = embedded.Start(ctx, embedded.Options{Dir: f.DataDir, Namespace: f.Namespace, Log: onlyErrors(log)})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, sv.Close()) }()
		f.Brokers, f.Redis = sv.Brokers, sv.Redis
	}
	variables := cli.Env{Prefix: envPrefix, Getenv: lookup(environ)}
	secured, err := f.KafkaSecurity.Options(variables.Get(connect.KafkaPassword))
	if err != nil {
		return err
	}
	kafka := append([]kgo.Opt{kgo.SeedBrokers(f.Brokers...), kgo.ClientID("tierstream"), kgo.MetadataMinAge(250 * time.Millisecond)}, secured...)
	rdb, err := f.RedisSecurity.Open(f.Redis, variables.Get(connect.RedisPassword))
	if err != nil {
		return err
	}
	defer rdb.Close()
	if err := state.Reach(ctx, rdb, f.Redis); err != nil {
		return err
	}
	warning, err := state.Check(ctx, rdb)
	if err != nil {
		return err
	}
	if warning != "" && sv == nil {
		log.Warn(warning)
	}

	var schemas mapping.Source
	if m := rules.Mapping; m != nil && m.Registry() != "" {
		r, err := f.RegistrySecurity.Open(m.Registry(), variables.Get(connect.RegistryPassword))
		if err != nil {
			return err
		}
		// What was learned before needs no registry, so a running system starts
		// without it.
		if err := r.Reach(ctx); err != nil && f.Check {
			return err
		} else if err != nil {
			log.Warn("the schema registry does not answer: partitions wait where they need a schema that the rules do not have", "reason", err)
		}
		schemas = r
	}

	// Telemetry, before the first part that counts.
	tel, err := startTelemetry(ctx, f.OTLP)
	if err != nil {
		return err
	}
	defer tel.stop()
	if err := errors.Join(telemetry.RedisMetrics(rdb), tel.traces.Redis(rdb)); err != nil {
		return fmt.Errorf("watching the Redis client: %w", err)
	}
	kafka = append(kafka, telemetry.KafkaMetrics())

	// The processor.
	cfg := stream.Config{
		Namespace: f.Namespace, Topics: f.topics(), Rules: rules, Engine: version(),
		AllowRejects: f.AllowRejects, MsgpackChanges: f.ChangesFmt == "msgpack", Lease: f.Lease, BatchRecords: f.BatchRecords, CacheBytes: f.CacheMB << 20,
		Kafka: kafka, Log: log, Schemas: schemas,
		Store: func(p int32) stream.Store { return state.NewStore(rdb, f.Namespace, p, f.Lease) },
	}
	if f.LiveSince != "" {
		if cfg.LiveSince, err = time.Parse(time.RFC3339, f.LiveSince); err != nil {
			return fmt.Errorf("--live-since %s: want a time like 2026-01-31T00:00:00Z", f.LiveSince)
		}
	}
	p, err := stream.New(cfg)
	if err != nil {
		return err
	}
	if (f.CreateTopics || sv != nil) && !f.Check {
		if err := createTopics(ctx, kafka, cfg.Topics, f.Partitions, log); err != nil {
			return err
		}
	}
	if err := p.Check(ctx); err != nil {
		return err
	}
	if f.Check {
		fmt.Fprintln(stdout, "settings, model, Kafka and Redis are right")
		return nil
	}

	// The HTTP side.
	l, err := net.Listen("tcp", f.Listen)
	if err != nil && sv != nil {
		l, err = net.Listen("tcp", "127.0.0.1:0") // the demo takes what is free
	}
	if err != nil {
		return fmt.Errorf("listening for /healthz, /readyz and /metrics: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return api.Serve(ctx, l, api.Handler(p.Ready, tel.metrics, p.Degraded)) })
	g.Go(func() error { return p.Run(ctx) })
	if sv != nil {
		g.Go(func() error { return demo(ctx, f, sv, kafka, p, l.Addr().String(), stdout) })
	} else {
		log.Info("running", "namespace", f.Namespace, "topics", f.Topics, "listen", l.Addr().String(), "rules", rules.Hash().String()[:12])
		g.Go(func() error { return watch(ctx, p, log) })
	}
	return g.Wait()
}

// watch ends the process once every partition it owns has stopped for good:
// then nothing is left to do, and an exit code says so to whoever supervises.
func watch(ctx context.Context, p *stream.Processor, log *slog.Logger) error {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		stopped := p.Stopped()
		if n := p.Totals().Partitions; n > 0 && len(stopped) == n {
			for q, err := range stopped {
				return fmt.Errorf("all %d partitions owned here have stopped; partition %d: %w", n, q, err)
			}
		}
	}
}

// lookup finds a variable among those of a process.
func lookup(environ []string) func(string) string {
	return func(name string) string {
		for _, kv := range environ {
			if v, ok := strings.CutPrefix(kv, name+"="); ok {
				return v
			}
		}
		return ""
	}
}

func createTopics(ctx context.Context, kafka []kgo.Opt, t stream.Topics, partitions int32, log *slog.Logger) error {
	cl, err := kgo.NewClient(kafka...)
	if err != nil {
		return fmt.Errorf("opening a Kafka client: %w", err)
	}
	defer cl.Close()
	if err := stream.Reach(ctx, cl); err != nil {
		return err
	}
	return stream.CreateTopics(ctx, cl, t, partitions, 0, func(name string) { log.Info("topic created", "topic", name) })
}

func logger(f *flags, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(f.LogLevel)) // one of the enum
	if f.embedded() && f.LogLevel == "info" {
		level = slog.LevelWarn // the demo prints its own lines
	}
	o := &slog.HandlerOptions{Level: level}
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// onlyErrors lets the embedded services speak only when something is wrong:
// they warn of every fsync that takes some milliseconds.
func onlyErrors(log *slog.Logger) *slog.Logger { return slog.New(errorsOnly{log.Handler()}) }

type errorsOnly struct{ slog.Handler }

func (h errorsOnly) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelError }

func (h errorsOnly) WithAttrs(a []slog.Attr) slog.Handler { return errorsOnly{h.Handler.WithAttrs(a)} }

func (h errorsOnly) WithGroup(g string) slog.Handler { return errorsOnly{h.Handler.WithGroup(g)} }

// version names this build.
func version() string {
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return "tierstream " + s.Value[:12]
			}
		}
	}
	return "tierstream dev"
}
