// Command webhooks delivers tier changes to HTTP endpoints, for tools that
// cannot read Kafka.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	semconv "go.opentelemetry.io/otel/semconv/v1.26.0"
	"golang.org/x/sync/errgroup"

	"github.com/tierstream/tierstream/internal/api"
	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/connect"
	"github.com/tierstream/tierstream/internal/webhook"
)

func main() {
	cli.Main("webhooks", func(ctx context.Context) error {
		return run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	})
}

const envPrefix = "TIERSTREAM_WEBHOOKS_"

const description = `Delivers tier changes to HTTP endpoints by the Standard Webhooks specification: signed, at least once, each customer's changes in order.

  webhooks secret > crm.secret
  webhooks test crm --endpoints endpoints.yaml
  webhooks run --brokers localhost:9092 --endpoints endpoints.yaml --create-topic

endpoints.yaml:

  endpoints:
    - name: crm
      url: https://crm.example/hooks/tiers
      secrets: [{file: crm.secret}]
      filter: {directions: [up], tiers: [gold, platinum]}

Every flag can be set in the environment too: --brokers as TIERSTREAM_WEBHOOKS_BROKERS.`

// commands are the command line; kong reads the tags.
type commands struct {
	Run    runCmd    `cmd:"" help:"Deliver until stopped."`
	List   listCmd   `cmd:"" help:"Show what is set aside: parked deliveries, and with --waiting those that will be tried again."`
	Replay replayCmd `cmd:"" help:"Deliver parked changes again."`
	Enable enableCmd `cmd:"" help:"Let an endpoint that was disabled by a 410 go on where it stopped."`
	Test   testCmd   `cmd:"" help:"Send a sample change to an endpoint, once."`
	Secret secretCmd `cmd:"" help:"Print a new secret."`
}

// run is the program without its process.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	var c commands
	program := cli.Program{
		Name: "webhooks", Description: description, Grammar: &c,
		Env: cli.Env{Prefix: envPrefix, Getenv: getenv}, Stdout: stdout, Stderr: stderr,
		Options: []kong.Option{kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(&surroundings{getenv, stdout, stderr})},
	}
	selected, err := program.Parse(args)
	if selected == nil {
		return err
	}
	return selected.Run()
}

// surroundings are the process.
type surroundings struct {
	getenv         func(string) string
	stdout, stderr io.Writer
}

// site is where Kafka is.
type site struct {
	Brokers   []string `default:"localhost:9092" help:"Kafka brokers, host:port."`
	Namespace string   `default:"live" help:"Name of the state: part of the names of groups and of the aside topic."`
	Changes   string   `name:"changes-topic" default:"tier-changes" help:"Topic of tier changes."`
	Aside     string   `name:"aside-topic" help:"Topic of deliveries that are set aside. Default: the namespace and -webhooks." placeholder:"TOPIC"`

	Security connect.Kafka `embed:""`
}

func (s *site) kafka(p *surroundings) ([]kgo.Opt, error) {
	secured, err := s.Security.Options(cli.Env{Prefix: envPrefix, Getenv: p.getenv}.Get(connect.KafkaPassword))
	return append([]kgo.Opt{kgo.SeedBrokers(s.Brokers...), kgo.ClientID("tierstream-webhooks"), kgo.MetadataMinAge(250 * time.Millisecond)}, secured...), err
}

// openAside reads the aside topic.
func (s *site) openAside(ctx context.Context, p *surroundings) (*webhook.Aside, error) {
	kafka, err := s.kafka(p)
	if err != nil {
		return nil, err
	}
	return webhook.OpenAside(ctx, kafka, s.topics())
}

func (s *site) topics() webhook.Topics {
	t := webhook.DefaultTopics(s.Namespace)
	t.Changes = s.Changes
	if s.Aside != "" {
		t.Aside = s.Aside
	}
	return t
}

// endpointsFile reads the file of endpoints.
func endpointsFile(path string) (*webhook.Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c, err := webhook.ParseConfig(text)
	if err != nil {
		return nil, cli.Usage(fmt.Errorf("%s: %w", path, err))
	}
	return c, nil
}

type runCmd struct {
	site
	Endpoints string `required:"" type:"existingfile" help:"YAML file of endpoints." placeholder:"FILE"`
	Create    bool   `name:"create-topic" help:"Create the aside topic if it does not exist."`
	Check     bool   `help:"Check endpoints, secrets and topics, and exit."`
	Listen    string `default:"127.0.0.1:8081" help:"Address of /healthz, /readyz and /metrics."`
	LogFormat string `enum:"text,json" default:"text" help:"Log as text or json."`
}

// Run delivers until ctx is done.
func (c *runCmd) Run(ctx context.Context, s *surroundings) error {
	config, err := endpointsFile(c.Endpoints)
	if err != nil {
		return err
	}
	var handler slog.Handler = slog.NewTextHandler(s.stderr, nil)
	if c.LogFormat == "json" {
		handler = slog.NewJSONHandler(s.stderr, nil)
	}
	log := slog.New(handler)

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reader, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithoutScopeInfo())
	if err != nil {
		return fmt.Errorf("starting metrics: %w", err)
	}
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader),
		sdkmetric.WithResource(resource.NewSchemaless(semconv.ServiceName("tierstream-webhooks")))))

	kafka, err := c.kafka(s)
	if err != nil {
		return err
	}
	if c.Create {
		client, err := kgo.NewClient(kafka...)
		if err != nil {
			return fmt.Errorf("opening a Kafka client: %w", err)
		}
		err = webhook.CreateAside(ctx, client, c.topics())
		client.Close()
		if err != nil {
			return err
		}
	}
	sender, err := webhook.New(ctx, webhook.Options{
		Kafka: kafka, Topics: c.topics(), Namespace: c.Namespace, Endpoints: config.Endpoints, Getenv: s.getenv, Log: log,
	})
	if err != nil {
		return err
	}
	if c.Check {
		sender.Close()
		fmt.Fprintln(s.stdout, "endpoints, secrets and topics are right")
		return nil
	}
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		sender.Close()
		return fmt.Errorf("listening for /healthz, /readyz and /metrics: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return api.Serve(ctx, listener, api.Handler(sender.Ready, promhttp.HandlerFor(registry, promhttp.HandlerOpts{})))
	})
	g.Go(func() error { return sender.Run(ctx) })
	log.Info("running", "endpoints", len(config.Endpoints), "listen", listener.Addr().String())
	return g.Wait()
}

// selection is which deliveries are meant.
type selection struct {
	Endpoint string    `help:"Of this endpoint only." placeholder:"NAME"`
	Customer string    `help:"Of this customer only." placeholder:"ID"`
	ID       []string  `help:"These webhook-ids only." placeholder:"ID"`
	Since    time.Time `help:"Published at or after this time, RFC 3339." placeholder:"TIME"`
	Until    time.Time `help:"Published before this time." placeholder:"TIME"`
}

func (s *selection) selection() webhook.Selection {
	return webhook.Selection{Endpoint: s.Endpoint, Customer: s.Customer, IDs: s.ID, Since: s.Since, Until: s.Until}
}

type listCmd struct {
	site
	selection
	Waiting bool `help:"Those that will be tried again, too."`
	JSON    bool `help:"One line of JSON each, with the change."`
}

// row is an entry for people and programs.
type row struct {
	Endpoint string          `json:"endpoint"`
	State    webhook.State   `json:"state"`
	Customer string          `json:"customer_id"`
	Sequence uint64          `json:"sequence"`
	ID       string          `json:"webhook_id"`
	Attempts int             `json:"attempts"`
	First    time.Time       `json:"first_attempt,omitzero"`
	Next     time.Time       `json:"next_attempt,omitzero"`
	Reason   string          `json:"reason,omitempty"`
	Change   json.RawMessage `json:"change,omitempty"` // left out when it is MessagePack
}

// Run prints what is set aside.
func (c *listCmd) Run(ctx context.Context, s *surroundings) error {
	aside, err := c.openAside(ctx, s)
	if err != nil {
		return err
	}
	defer aside.Close()
	wanted := c.selection.selection()
	if !c.Waiting {
		wanted.State = webhook.Parked
	}
	entries := aside.List(wanted)
	if c.JSON {
		out := json.NewEncoder(s.stdout)
		for _, e := range entries {
			r := row{e.Endpoint, e.State, e.Customer(), e.Sequence(), e.ID(), e.Attempts, e.First.UTC(), e.Next.UTC(), e.Reason, nil}
			if json.Valid(e.Body()) {
				r.Change = e.Body()
			}
			if err := out.Encode(r); err != nil {
				return fmt.Errorf("printing: %w", err)
			}
		}
		return nil
	}
	for name, reason := range aside.Disabled() {
		fmt.Fprintf(s.stderr, "endpoint %s is disabled: %s\n", name, reason)
	}
	w := tabwriter.NewWriter(s.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "ENDPOINT\tCUSTOMER\tSEQUENCE\tSTATE\tATTEMPTS\tNEXT\tWEBHOOK-ID\tREASON")
	for _, e := range entries {
		next := "-"
		if !e.Next.IsZero() {
			next = e.Next.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\t%s\t%s\t%s\n", e.Endpoint, e.Customer(), e.Sequence(), e.State, e.Attempts, next, e.ID(), e.Reason)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return nil
}

type replayCmd struct {
	site
	selection
	All bool `help:"Everything that is parked."`
}

// Run lets parked deliveries be tried again.
func (c *replayCmd) Run(ctx context.Context, s *surroundings) error {
	none := c.Endpoint == "" && c.Customer == "" && c.ID == nil && c.Since.IsZero() && c.Until.IsZero()
	if none != c.All {
		return cli.Usage(errors.New("say what to replay, or --all"))
	}
	aside, err := c.openAside(ctx, s)
	if err != nil {
		return err
	}
	defer aside.Close()
	n, err := aside.Replay(ctx, c.selection.selection())
	fmt.Fprintf(s.stdout, "%d changes will be delivered again\n", n)
	return err
}

type enableCmd struct {
	site
	Name string `arg:"" help:"The endpoint."`
}

// Run enables an endpoint.
func (c *enableCmd) Run(ctx context.Context, s *surroundings) error {
	aside, err := c.openAside(ctx, s)
	if err != nil {
		return err
	}
	defer aside.Close()
	if err := aside.Enable(ctx, c.Name); err != nil {
		return err
	}
	fmt.Fprintf(s.stdout, "endpoint %s is enabled\n", c.Name)
	return nil
}

type testCmd struct {
	Name      string `arg:"" help:"The endpoint."`
	Endpoints string `required:"" type:"existingfile" help:"YAML file of endpoints." placeholder:"FILE"`
}

// Run sends the sample.
func (c *testCmd) Run(ctx context.Context, s *surroundings) error {
	config, err := endpointsFile(c.Endpoints)
	if err != nil {
		return err
	}
	e, err := config.Endpoint(c.Name)
	if err != nil {
		return cli.Usage(err)
	}
	result, err := webhook.Test(ctx, e, s.getenv)
	if err != nil {
		return err
	}
	if result.Verdict != "delivered" {
		return fmt.Errorf("%s after %s: %s", result.Verdict, result.Took.Round(time.Millisecond), result.Reason)
	}
	fmt.Fprintf(s.stdout, "delivered in %s: %d %s, webhook-id %s\n", result.Took.Round(time.Millisecond), result.Status, http.StatusText(result.Status), result.ID)
	return nil
}

type secretCmd struct{}

// Run prints a secret.
func (c *secretCmd) Run(s *surroundings) error {
	fmt.Fprintln(s.stdout, webhook.NewSecret())
	return nil
}
