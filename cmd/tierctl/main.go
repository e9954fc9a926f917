// Command tierctl is for people who run tierstream or try it: it sends single
// events and shows what they change, reads customers, exports all of them,
// and prints the journal, the rules and the model in plain words.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kong"
	"github.com/redis/go-redis/v9"

	"github.com/tierstream/tierstream/internal/cli"
)

func main() {
	redis.SetLogger(silent{}) // what it would say comes as errors, too
	cli.Main("tierctl", func(ctx context.Context) error {
		return run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)
	})
}

// silent is a logger of the Redis client that says nothing.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

const description = `Talks to a running tierstream: sends events, shows customers, explains.

With the embedded demo running (go run ./cmd/consumer), nothing else is needed:

  tierctl send purchase --customer me --amount 49.90
  tierctl customer me

Otherwise say where Kafka and Redis are, by flags or once in the environment:

  export TIERSTREAM_BROKERS=kafka:9092 TIERSTREAM_REDIS=redis:6379
  tierctl export --format csv -o customers.csv

The exit code is 0 if all went well, 1 after a failure or a refused event, 2 for a wrong command line.`

// commands are the command line; kong reads the tags.
type commands struct {
	connection

	Send     sendCmd     `cmd:"" help:"Send one event, wait for it, and show before, after and the tier change."`
	Customer customerCmd `cmd:"" help:"Show one customer: tier, value, and why."`
	Explain  explainCmd  `cmd:"" help:"Print a customer's figures as arithmetic."`
	Export   exportCmd   `cmd:"" help:"Write all customers as CSV or lines of JSON."`
	Journal  journalCmd  `cmd:"" help:"Print the journal: one line per applied batch."`
	Rules    rulesCmd    `cmd:"" help:"List or show the rules by which the namespace was decided."`
	Topics   topicsCmd   `cmd:"" help:"Create the topics of a namespace."`
	Model    modelCmd    `cmd:"" help:"Make or check a model file."`
	CLV      clvCmd      `cmd:"" name:"clv" help:"Evaluate customer-base models: lines of JSON in, an answer each."`

	Calc      calcCmd        `cmd:"" help:"Calculate figures whose inputs no event carries."`
	Mapping   mappingCmd     `cmd:"" help:"Check a mapping of foreign records, and try it."`
	Events    eventsCmd      `cmd:"" help:"Look at events before anything runs: examples, schemas, and what would be refused."`
	ChangeLog changesCmd     `cmd:"" name:"changes" help:"Print tier changes, as they come or the newest."`
	Letters   deadLettersCmd `cmd:"" name:"deadletters" help:"Look at refused records."`

	Summary  summaryCmd  `cmd:"" help:"Summarise a transaction log: per customer x, t_x, T and mean value, with a holdout."`
	Backtest backtestCmd `cmd:"" help:"Fit models of repeat buying to a log and hold them to what came after: figures, and a report with plots."`

	Fit       fitCmd       `cmd:"" help:"Fit the prediction of a model to a transaction log."`
	Calibrate calibrateCmd `cmd:"" help:"Compute cut points and tier thresholds from a population, and show whom they move."`
	Segment   segmentCmd   `cmd:"" help:"Find clusters of customers."`

	Check  checkCmd  `cmd:"" help:"Prove from Kafka and Redis that nothing is lost, doubled or different."`
	Replay replayCmd `cmd:"" help:"Fold the log again, in a namespace of its own; nothing live is touched."`
}

// terminal is where a command reads and writes: results to out, progress and
// warnings to err, so that out can be piped.
type terminal struct {
	in       io.Reader
	out, err io.Writer
	env      cli.Env // of the connection
}

func (t *terminal) note(format string, args ...any) { fmt.Fprintf(t.err, format+"\n", args...) }

// open opens a file to read, or the terminal's input for "-".
func (t *terminal) open(path string) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(t.in), nil
	}
	return os.Open(path)
}

// run is the program without its process.
func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) error {
	var c commands
	program := cli.Program{
		Name: "tierctl", Description: description, Grammar: &c, Stdout: stdout, Stderr: stderr,
		// Flags of other groups have no variables: an amount that stands in the
		// environment would be a trap.
		Env:     cli.Env{Prefix: "TIERSTREAM_", Getenv: getenv, Groups: []string{connectionGroup}},
		Options: []kong.Option{kong.ExplicitGroups([]kong.Group{{Key: connectionGroup, Title: "Where the services are (in the environment too: --redis as TIERSTREAM_REDIS):"}})},
	}
	selected, err := program.Parse(args)
	if selected == nil {
		return err
	}
	selected.BindTo(ctx, (*context.Context)(nil))
	return selected.Run(&c.connection, &terminal{stdin, stdout, stderr, program.Env})
}
