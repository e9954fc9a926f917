// Package cli is what the commands have in common: how a process begins and
// ends, how its command line and environment are read, and how its settings
// are written down for docs/settings.md.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// usageError is a command line, or a file it names, that is wrong.
type usageError struct{ cause error }

func (e *usageError) Error() string { return e.cause.Error() }
func (e *usageError) Unwrap() error { return e.cause }

// Usage marks an error as that of a command line, or of a file it names: the
// exit code is 2.
func Usage(err error) error { return &usageError{err} }

// IsUsage says whether an error was marked by [Usage].
func IsUsage(err error) bool {
	var usage *usageError
	return errors.As(err, &usage)
}

// exitError is an error that chooses the exit code.
type exitError struct {
	code  int
	cause error
}

func (e *exitError) Error() string { return e.cause.Error() }
func (e *exitError) Unwrap() error { return e.cause }

// Exit is an error that ends the process with a code of its own.
func Exit(code int, err error) error { return &exitError{code, err} }

// ExitCode is 0 for nil, 2 for a wrong command line, what [Exit] says, else 1.
func ExitCode(err error) int {
	var chosen *exitError
	switch {
	case err == nil:
		return 0
	case IsUsage(err):
		return 2
	case errors.As(err, &chosen):
		return chosen.code
	}
	return 1
}

// Main runs a command until it returns, with a context that SIGINT and SIGTERM
// end, prints its error to standard error and ends the process.
func Main(name string, run func(ctx context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err == nil {
		return
	}
	hint := ""
	if IsUsage(err) {
		hint = fmt.Sprintf(" (see %s --help)", name)
	}
	fmt.Fprintf(os.Stderr, "%s: %v%s\n", name, err, hint)
	os.Exit(ExitCode(err))
}

// Program is a command line: a struct whose tags kong reads, and around it what
// help says.
type Program struct {
	Name, Description string
	Grammar           any           // pointer to the struct
	Env               Env           // of flags that the command line leaves out
	Options           []kong.Option // further ones
	Stdout, Stderr    io.Writer
}

// Parse reads a command line into the grammar; no arguments at all mean --help.
// The context is nil when help, or [SettingsFlag], was asked for and printed.
// Errors are [Usage].
func (p *Program) Parse(args []string) (*kong.Context, error) {
	helped := false
	options := append([]kong.Option{
		kong.Name(p.Name), kong.Description(p.Description),
		kong.Writers(p.Stdout, p.Stderr),
		kong.Exit(func(int) { helped = true }),
		kong.Resolvers(p.Env.resolver()),
		kong.ConfigureHelp(kong.HelpOptions{NoExpandSubcommands: true, WrapUpperBound: 110}),
	}, p.Options...)
	parser, err := kong.New(p.Grammar, options...)
	if err != nil {
		return nil, fmt.Errorf("building command line: %w", err)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	if len(args) == 1 && args[0] == SettingsFlag {
		WriteSettings(p.Stdout, parser.Model, p.Env)
		return nil, nil
	}
	selected, err := parser.Parse(args)
	switch {
	case helped:
		return nil, nil
	case err != nil:
		return nil, Usage(err)
	}
	return selected, nil
}

// Env reads settings from environment variables.
type Env struct {
	Prefix string // of each variable, TIERSTREAM_ for example
	Getenv func(string) string
	// Groups are the keys of the groups of flags that have variables; nil: all
	// flags have.
	Groups []string
}

// Variable is the name of the variable of a flag: kafka-tls is
// TIERSTREAM_KAFKA_TLS.
func (e Env) Variable(flag string) string {
	return e.Prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Get is the value of a flag's variable, or of one that has no flag because a
// command line is no place for it.
func (e Env) Get(flag string) string { return e.Getenv(e.Variable(flag)) }

// covers says whether a flag has a variable.
func (e Env) covers(f *kong.Flag) bool {
	if f.Name == "help" {
		return false
	}
	for _, group := range e.Groups {
		if f.Group != nil && f.Group.Key == group {
			return true
		}
	}
	return e.Groups == nil
}

func (e Env) resolver() kong.Resolver {
	return kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, f *kong.Flag) (any, error) {
		if !e.covers(f) {
			return nil, nil
		}
		if value := e.Get(f.Name); value != "" {
			return value, nil
		}
		return nil, nil
	})
}
