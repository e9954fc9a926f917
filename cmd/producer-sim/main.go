// Command producer-sim fills a company's event topics: with the traffic of a
// seeded model of customers, with what the CDNOW or UCI files tell, or with what
// lies in lines of JSON or in other topics.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	_ "time/tzdata" // for --zone, where the system has no zone data

	"github.com/tierstream/tierstream/internal/cli"
)

func main() {
	cli.Main("producer-sim", func(ctx context.Context) error {
		return run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	})
}

const description = `Sends customer events to Kafka: purchases, returns, complaints, referrals, feedback and costs, as CloudEvents keyed by customer.

A first look, without any Kafka:

  producer-sim generate --events 20 --dry-run

Two million events of history, as fast as possible:

  producer-sim generate --brokers localhost:9092 --create-topics --start 2023-01-01 --customers 200000 --events 2000000

A month of history, then 20 events a second in real time until Ctrl-C:

  producer-sim generate --brokers localhost:9092 --days 30 --live-rate 20

What lies in another cluster, an hour in a second, going on after an interruption:

  producer-sim copy --from-brokers prod:9092 --topics purchases,complaints --speed 3600 --resume copy.json

A message is never sent before its own time: a run that reaches the present goes on in real time. Record timestamps are the time of sending; the event's own time is in the header ce_time.

Every flag can be set in the environment too: --bad-rate as TIERSTREAM_SIM_BAD_RATE. The exit code is 0 after a complete run or Ctrl-C, 1 after a failure, 2 for a wrong command line.`

// commands are the command line; kong reads the tags.
type commands struct {
	Generate generateCmd `cmd:"" help:"Send the traffic of a seeded model. The same seed and flags give the same events."`
	CDNOW    cdnowCmd    `cmd:"" name:"cdnow" help:"Send the CDNOW purchase log (1997 to 1998), one event per row, in time order."`
	UCI      uciCmd      `cmd:"" name:"uci" help:"Send the UCI Online Retail log (2010 to 2011): invoices as purchases, credit notes as returns, in time order."`
	NDJSON   ndjsonCmd   `cmd:"" name:"ndjson" help:"Send records from lines of JSON, as they stand."`
	Copy     copyCmd     `cmd:"" help:"Copy topics of another cluster, or to other names: keys, values and headers as they are."`
}

// run is the program without its process: it returns when the run is complete,
// ctx is done or something failed.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	var c commands
	env := cli.Env{Prefix: "TIERSTREAM_SIM_", Getenv: getenv}
	program := cli.Program{
		Name: "producer-sim", Description: description, Grammar: &c,
		Env: env, Stdout: stdout, Stderr: stderr,
	}
	selected, err := program.Parse(args)
	if selected == nil {
		return err
	}
	out := output{stdout, stderr, env}
	switch command, _, _ := strings.Cut(selected.Command(), " "); command {
	case "generate":
		return c.Generate.run(ctx, out)
	case "cdnow":
		return c.CDNOW.run(ctx, out)
	case "uci":
		return c.UCI.run(ctx, out)
	case "ndjson":
		return c.NDJSON.run(ctx, out)
	default:
		return c.Copy.run(ctx, out)
	}
}

// output is where a command writes, and the environment it reads secrets from.
type output struct {
	stdout, stderr io.Writer
	env            cli.Env
}

// parseMoment reads a date, which means its begin in UTC, or a full timestamp.
func parseMoment(flag, s string) (time.Time, error) {
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, cli.Usage(fmt.Errorf("--%s %q: want 2025-01-31 or 2025-01-31T09:00:00+01:00", flag, s))
	}
	return t, nil
}
