package cli

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

func TestExitCodes(t *testing.T) {
	cause := errors.New("cause")
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0}, {cause, 1}, {Usage(cause), 2}, {fmt.Errorf("around: %w", Usage(cause)), 2}, {Exit(3, cause), 3},
	} {
		if got := ExitCode(c.err); got != c.want {
			t.Errorf("ExitCode(%v) = %d, want %d", c.err, got, c.want)
		}
		if c.err != nil && (!errors.Is(c.err, cause) || !strings.HasSuffix(c.err.Error(), "cause")) {
			t.Errorf("%v has lost its cause", c.err)
		}
	}
}

type grammar struct {
	Dark bool `group:"services"`
	Do   struct {
		Often int `default:"1"`
	} `cmd:""`
}

func TestParse(t *testing.T) {
	environment := map[string]string{"T_DARK": "true", "T_OFTEN": "7", "T_HELP": "true"}
	parse := func(groups []string, args ...string) (g grammar, selected *kong.Context, out string, err error) {
		var b bytes.Buffer
		p := Program{
			Name: "t", Grammar: &g, Stdout: &b, Stderr: &b,
			Env: Env{Prefix: "T_", Getenv: func(name string) string { return environment[name] }, Groups: groups},
		}
		selected, err = p.Parse(args)
		return g, selected, b.String(), err
	}
	if g, _, _, err := parse(nil, "do"); err != nil || !g.Dark || g.Do.Often != 7 {
		t.Errorf("from the environment: %+v, %v", g, err)
	}
	if g, _, _, err := parse([]string{"services"}, "do"); err != nil || !g.Dark || g.Do.Often != 1 {
		t.Errorf("of one group from the environment: %+v, %v", g, err)
	}
	if g, _, _, err := parse(nil, "do", "--often=3"); err != nil || g.Do.Often != 3 {
		t.Errorf("a flag and the environment: %+v, %v", g, err)
	}
	for _, args := range [][]string{nil, {"--help"}, {"do", "--help"}} {
		if _, selected, out, err := parse(nil, args...); selected != nil || err != nil || !strings.Contains(out, "Usage: t") {
			t.Errorf("%q: %v, %v, %q", args, selected, err, out)
		}
	}
	if _, selected, _, err := parse(nil, "dont"); selected != nil || !IsUsage(err) {
		t.Errorf("a wrong command: %v, %v", selected, err)
	}
}

func TestSettingsAreListedOnce(t *testing.T) {
	var g struct {
		Dark bool `help:"Without a|light." group:"services"`
		Do   struct {
			Often int `default:"1" help:"How often."`
		} `cmd:""`
		Undo struct {
			Often int  `default:"1" help:"How often."`
			All   bool `help:"Everything."`
		} `cmd:""`
	}
	var out bytes.Buffer
	p := Program{Name: "t", Grammar: &g, Stdout: &out, Stderr: &out, Env: Env{Prefix: "T_", Groups: []string{"services"}}}
	if selected, err := p.Parse([]string{SettingsFlag}); selected != nil || err != nil {
		t.Fatalf("%v, %v", selected, err)
	}
	want := "## t\n\n" +
		"| Flag | Variable | Default | Meaning | Commands |\n" +
		"| --- | --- | --- | --- | --- |\n" +
		"| `--dark` | `T_DARK` |  | Without a\\|light. | all |\n" +
		"| `--often` |  | `1` | How often. | all |\n" +
		"| `--all` |  |  | Everything. | undo |\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
