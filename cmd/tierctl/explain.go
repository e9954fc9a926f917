package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/scoring"
	"github.com/tierstream/tierstream/internal/view"
)

type explainCmd struct {
	ID         string `arg:"" help:"Customer ID."`
	Figure     string `help:"Only figures whose name holds this, with the steps of their groups: clv.npv, markov, satisfaction." placeholder:"TEXT"`
	At         string `help:"Evaluate at this time (a date or RFC 3339) instead of now; not before the customer's newest event." placeholder:"TIME"`
	JSON       bool   `name:"json" help:"Print the lines as JSON."`
	Partitions int32  `help:"Number of partitions. Default: the journal topic's." placeholder:"N"`
}

func (c *explainCmd) Help() string {
	return `Prints every figure of a customer as arithmetic: the formula, the same with the customer's and the model's numbers, the value, and where the formula is from. Money is in major units. CET(x, T, t) is the sum of a series that the line names.

  tierctl explain me
  tierctl explain me --figure clv.predicted
  tierctl explain me --at 2027-01-01 --json`
}

func (c *explainCmd) Run(ctx context.Context, conn *connection, t *terminal) error {
	s, err := conn.open(ctx, t, needRedis|useKafka)
	if err != nil {
		return err
	}
	defer s.close()
	found, err := s.look(ctx, c.ID, c.At, c.Partitions)
	if err != nil {
		return err
	}
	// The view's own instant: both are of one.
	lines, err := found.viewer.Explain(c.ID, found.record, found.fence, found.view.Now.At)
	if err != nil {
		return err
	}
	if lines = withGroups(lines, c.Figure); len(lines) == 0 {
		return cli.Usage(fmt.Errorf("--figure: no figure's name holds %q", c.Figure))
	}
	if !c.JSON {
		return printLines(t.out, found.view, lines)
	}
	e := json.NewEncoder(t.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(lines)
}

// withGroups are the figures whose name or label holds a text, and the steps of
// their groups; all lines without a text.
func withGroups(lines []scoring.Line, text string) []scoring.Line {
	named := func(l scoring.Line) bool {
		return l.Figure != "" && (strings.Contains(l.Figure, text) || strings.Contains(l.Label, text))
	}
	groups := map[string]bool{}
	for _, l := range lines {
		groups[l.Group] = groups[l.Group] || named(l)
	}
	return slices.DeleteFunc(lines, func(l scoring.Line) bool {
		return text != "" && !named(l) && (l.Figure != "" || !groups[l.Group])
	})
}

// printLines writes lines for a person, by group.
func printLines(w io.Writer, v *view.View, lines []scoring.Line) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Customer %s at %s, by model %s (%s), money in %s\n", v.Customer, v.Now.At.Format("2006-01-02 15:04:05 UTC"), v.Model.Name, v.Model.Hash, v.Model.Currency)
	group := ""
	for _, l := range lines {
		if l.Group != group {
			group = l.Group
			fmt.Fprintf(&b, "\n%s\n", group)
		}
		name := l.Label
		if l.Figure != "" && l.Figure != l.Label {
			name += "  [" + l.Figure + "]"
		}
		fmt.Fprintf(&b, "  %s\n    %s    (%s)\n    = %s\n", name, l.Formula, l.Source, l.Numbers)
		if l.Numbers != l.Value {
			fmt.Fprintf(&b, "    = %s\n", l.Value)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
