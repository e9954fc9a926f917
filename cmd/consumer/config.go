package main

import (
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"

	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/connect"
	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/mapping"
	"github.com/tierstream/tierstream/internal/scoring"
	"github.com/tierstream/tierstream/internal/stream"
)

const envPrefix = "TIERSTREAM_"

// flags are the settings. Each can be given as a flag, in the environment
// (TIERSTREAM_ and the flag's name in capitals) or in the file, in that order
// of precedence; unknown ones are refused wherever they stand.
type flags struct {
	Config string `help:"Settings file (YAML): the flags' names without the dashes." type:"existingfile" placeholder:"FILE"`
	Check  bool   `help:"Check settings, model, Kafka and Redis, change nothing, and exit."`

	Brokers   []string `help:"Kafka brokers. Without them everything runs embedded in this process, with the simulator." placeholder:"HOST:PORT" group:"Services"`
	Redis     string   `help:"Redis: host:port, or a redis:// or, for TLS, rediss:// URL. Required with --brokers. A password is better put in --redis-password-file." placeholder:"ADDRESS" group:"Services"`
	Listen    string   `help:"Address of /healthz, /readyz and /metrics." default:"127.0.0.1:8080" group:"Services"`
	OTLP      string   `name:"otlp" help:"Send traces to this OTLP/HTTP endpoint." placeholder:"URL" group:"Services"`
	LogFormat string   `help:"Log as text or json." enum:"text,json" default:"text" group:"Services"`
	LogLevel  string   `help:"Least severity that is logged." enum:"debug,info,warn,error" default:"info" group:"Services"`

	KafkaSecurity connect.Kafka `embed:"" group:"Security"`
	RedisSecurity connect.Redis `embed:"" group:"Security"`

	RegistrySecurity connect.Registry `embed:"" group:"Security"`

	Namespace    string   `help:"Name of this state: part of every Redis key, of the journal's name and of the group." default:"live" group:"Topics"`
	Topics       []string `help:"Input topics. Must have the same number of partitions and be keyed by customer ID." default:"purchases,complaints,referrals" group:"Topics"`
	Changes      string   `name:"changes-topic" help:"Topic of tier changes." default:"tier-changes" group:"Topics"`
	ChangesFmt   string   `name:"changes-format" help:"Data of tier changes: json or msgpack." enum:"json,msgpack" default:"json" group:"Topics"`
	DeadLetters  string   `name:"dead-letters-topic" help:"Topic of refused records." default:"dead-letters" group:"Topics"`
	Values       string   `name:"values-topic" help:"Compacted topic of customers' whole values, as customer-values. Without it none are published." placeholder:"TOPIC" group:"Topics"`
	Partitioner  string   `help:"How producers choose partitions: murmur2 (Java, franz-go), crc32 (librdkafka), fnv1a (sarama), explicit." enum:"murmur2,crc32,fnv1a,explicit" default:"murmur2" group:"Topics"`
	CreateTopics bool     `help:"Create topics that do not exist." group:"Topics"`
	Partitions   int32    `help:"Partitions of topics that are created." default:"4" group:"Topics"`

	Model      string        `help:"Model file; see tierctl model init. Required with --brokers." type:"existingfile" placeholder:"FILE" group:"Rules"`
	Mapping    string        `help:"Mapping of topics whose records are no CloudEvents (JSON of another shape, Avro, Protobuf); see docs/mapping.md." type:"existingfile" placeholder:"FILE" group:"Rules"`
	Clock      string        `help:"Clock of the namespace: wall (live topics), log (record timestamps) or events (loading history)." enum:"wall,log,events," default:"" placeholder:"wall" group:"Rules"`
	LiveSince  string        `help:"Changes effective before this time (RFC 3339) are marked backfill. Fixed when the namespace is created; default: that moment." placeholder:"TIME" group:"Rules"`
	MaxSkew    time.Duration `help:"How far an event's time may lie after its record's timestamp." default:"5m" group:"Rules"`
	MaxAmount  int64         `help:"Sanity cap of one amount, in minor units." default:"1000000000000" group:"Rules"`
	Retention  time.Duration `help:"How far behind a customer's newest event another may still be used." default:"9600h" group:"Rules"`
	Grace      time.Duration `help:"How long after its own time a return may wait for its order." default:"168h" group:"Rules"`
	MaxEvents  int           `help:"Events of one customer kept in detail." default:"128" group:"Rules"`
	ZeroOrders string        `help:"Purchases of amount 0." enum:"ignore,count" default:"ignore" group:"Rules"`
	TestEvents string        `help:"Events marked as test." enum:"ignore,count" default:"ignore" group:"Rules"`
	Rates      []string      `help:"Fixed rates for amounts that bring none, as USD=0.92 (base units per unit)." placeholder:"CUR=RATE" group:"Rules"`

	AllowRejects bool          `help:"Go on although a flood of records is refused." group:"Running"`
	Lease        time.Duration `help:"How long one accepted write lets its owner go on. The group's session timeout is 2s more." default:"10s" group:"Running"`
	BatchRecords int           `help:"Records of one batch at most." default:"8192" group:"Running"`
	CacheMB      int           `name:"cache-mb" help:"Memory for customers, per partition." default:"256" group:"Running"`

	DataDir   string  `help:"Folder of the embedded services." default:"tierstream-data" group:"Embedded"`
	Simulate  float64 `help:"Events per second of the embedded simulator once it has caught up; 0 switches it off." default:"20" group:"Embedded"`
	Customers int     `help:"Customers of the embedded simulator." default:"2000" group:"Embedded"`
}

const description = `Reads a company's event topics, keeps each customer's value in Redis, and publishes
every move between value tiers exactly once.

Without --brokers it needs nothing: Kafka runs inside this process, Redis is taken
from PATH or runs inside too, and a simulator makes traffic.

  consumer                                      the embedded demo
  consumer --brokers k:9092 --redis r:6379 --model model.yaml --create-topics`

// parse reads flags, environment and file.
func parse(args []string, environ []string, stdout, stderr io.Writer) (f *flags, done bool, err error) {
	f = &flags{}
	known := map[string]bool{}
	exited := false
	k, err := kong.New(f,
		kong.Name("consumer"), kong.Description(description),
		kong.DefaultEnvars(strings.TrimSuffix(envPrefix, "_")),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { exited = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
	)
	if err != nil {
		return nil, false, err
	}
	variables := cli.Env{Prefix: envPrefix}
	if len(args) == 1 && args[0] == cli.SettingsFlag {
		cli.WriteSettings(stdout, k.Model, variables)
		return f, true, nil
	}
	envs := map[string]bool{variables.Variable(connect.KafkaPassword): true, variables.Variable(connect.RedisPassword): true, variables.Variable(connect.RegistryPassword): true}
	for _, fl := range k.Model.Flags {
		known[fl.Name] = true
		for _, e := range fl.Envs {
			envs[e] = true
		}
	}
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, envPrefix) && !envs[name] && !foreignEnv.MatchString(name) {
			return nil, false, fmt.Errorf("unknown setting %s in the environment", name)
		}
	}
	if path := configPath(args, environ); path != "" {
		r, err := fileResolver(path, known)
		if err != nil {
			return nil, false, err
		}
		if err := kong.Resolvers(r).Apply(k); err != nil {
			return nil, false, err
		}
	}
	_, err = k.Parse(args)
	return f, exited, err
}

// foreignEnv are variables with our prefix that belong to other programs of
// this repository: the simulator, webhooks, and the tests.
var foreignEnv = regexp.MustCompile(`^TIERSTREAM_(SIM_.*|WEBHOOKS_.*|TEST_.*|DATA|CACHE)$`)

// configPath finds --config before everything else is parsed.
func configPath(args, environ []string) string {
	for i, a := range args {
		if a == "--config" && i+1 < len(args) {
			return args[i+1]
		}
		if v, ok := strings.CutPrefix(a, "--config="); ok {
			return v
		}
	}
	for _, kv := range environ {
		if v, ok := strings.CutPrefix(kv, envPrefix+"CONFIG="); ok {
			return v
		}
	}
	return ""
}

// fileResolver reads settings from a YAML file. A setting that the environment
// gives is left alone.
func fileResolver(path string, known map[string]bool) (kong.Resolver, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the settings: %w", err)
	}
	values := map[string]any{}
	if err := yaml.Unmarshal(b, &values); err != nil {
		return nil, fmt.Errorf("reading %s: %s", path, strings.Join(strings.Fields(err.Error()), " ")) // in one line
	}
	var unknown []string
	for name := range values {
		if !known[name] || name == "config" {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		sort.Strings(unknown)
		return nil, fmt.Errorf("reading %s: unknown setting %s", path, strings.Join(unknown, ", "))
	}
	return kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, f *kong.Flag) (any, error) {
		v, ok := values[f.Name]
		if !ok {
			return nil, nil
		}
		for _, e := range f.Envs {
			if _, set := os.LookupEnv(e); set {
				return nil, nil
			}
		}
		if l := reflect.ValueOf(v); l.Kind() == reflect.Slice {
			parts := make([]string, l.Len())
			for i := range parts {
				parts[i] = fmt.Sprint(l.Index(i).Interface())
			}
			return strings.Join(parts, ","), nil
		}
		return fmt.Sprint(v), nil
	}), nil
}

func (f *flags) embedded() bool { return len(f.Brokers) == 0 }

// validate says what does not fit together.
func (f *flags) validate() error {
	switch {
	case f.embedded() && f.Redis != "":
		return fmt.Errorf("--redis without --brokers: give both for real services, or neither for the embedded ones")
	case !f.embedded() && f.Redis == "":
		return fmt.Errorf("--brokers without --redis: give both for real services, or neither for the embedded ones")
	case !f.embedded() && f.Model == "":
		return fmt.Errorf("no --model: make one with `tierctl model init`, which asks for currency, zone and typical order")
	case f.embedded() && (f.KafkaSecurity != connect.Kafka{} || f.RedisSecurity != connect.Redis{}):
		return fmt.Errorf("the embedded services have neither TLS nor users: give --brokers and --redis, or no setting of security")
	case f.Lease < time.Second:
		return fmt.Errorf("--lease %s: want at least 1s", f.Lease)
	case f.Partitions < 1:
		return fmt.Errorf("--partitions %d: want at least 1", f.Partitions)
	case f.CacheMB < 1 || f.BatchRecords < 1:
		return fmt.Errorf("--cache-mb and --batch-records must be positive")
	}
	return nil
}

// rules are the settings that decide outcomes.
func (f *flags) rules() (*fold.Rules, error) {
	m := scoring.Default()
	if f.Model != "" {
		b, err := os.ReadFile(f.Model)
		if err != nil {
			return nil, fmt.Errorf("reading the model: %w", err)
		}
		if m, err = scoring.Parse(b); err != nil {
			return nil, fmt.Errorf("reading the model %s: %w", f.Model, err)
		}
	}
	p := customer.DefaultPolicy(m.Currency())
	p.MaxEvents, p.Retention, p.Grace, p.MaxAmount = f.MaxEvents, f.Retention, f.Grace, f.MaxAmount
	p.ZeroOrders, p.TestEvents = customer.Choice(f.ZeroOrders), customer.Choice(f.TestEvents)
	for _, r := range f.Rates {
		cur, rate, ok := strings.Cut(r, "=")
		if !ok {
			return nil, fmt.Errorf("--rates %s: want CUR=RATE", r)
		}
		p.Rates = append(p.Rates, customer.Rate{Currency: cur, Rate: rate})
	}
	sort.Slice(p.Rates, func(i, j int) bool { return p.Rates[i].Currency < p.Rates[j].Currency })
	clock := fold.ClockSource(f.Clock)
	if clock == "" {
		clock = fold.ClockWall
		if f.embedded() {
			clock = fold.ClockEvents
		}
	}
	var mapped *mapping.Mapping
	if f.Mapping != "" {
		b, err := os.ReadFile(f.Mapping)
		if err != nil {
			return nil, fmt.Errorf("reading the mapping: %w", err)
		}
		if mapped, err = mapping.Parse(b); err != nil {
			return nil, fmt.Errorf("reading the mapping %s: %w", f.Mapping, err)
		}
	}
	r := &fold.Rules{
		Topics: f.Topics, Partitioner: f.Partitioner, Clock: clock,
		Limits: event.Limits{MaxSkew: f.MaxSkew, MaxAmount: f.MaxAmount}.WithDefaults(),
		Policy: p, Model: m, Mapping: mapped,
	}
	return r, r.Validate()
}

// topics are the namespace's topics.
func (f *flags) topics() stream.Topics {
	t := stream.DefaultTopics(f.Namespace, f.Topics)
	t.Changes, t.DeadLetters, t.Values = f.Changes, f.DeadLetters, f.Values
	return t
}
