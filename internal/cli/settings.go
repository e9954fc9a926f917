package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// SettingsFlag alone on a command line prints every setting of the program as
// a table in Markdown, from which docs/settings.md is made.
const SettingsFlag = "--settings"

// setting is a flag.
type setting struct{ flag, variable, fallback, meaning string }

// WriteSettings writes the settings of a program: each once, in the order in
// which help shows them, with the commands that have it.
func WriteSettings(w io.Writer, program *kong.Application, env Env) {
	leaves := program.Leaves(true)
	names := make([]string, len(leaves))
	for i, l := range leaves {
		names[i] = strings.TrimPrefix(l.Path(), program.Name+" ")
	}
	if len(leaves) == 0 {
		leaves, names = []*kong.Node{program.Node}, []string{""}
	}
	var order []setting
	of := map[setting][]string{}
	for i, l := range leaves {
		for _, flags := range l.AllFlags(true) {
			for _, f := range flags {
				s := setting{"--" + f.Name, "", f.Default, strings.ReplaceAll(f.Help, "|", `\|`)}
				if env.covers(f) {
					s.variable = env.Variable(f.Name)
				}
				if f.Name == "help" {
					continue
				}
				if of[s] == nil {
					order = append(order, s)
				}
				of[s] = append(of[s], names[i])
			}
		}
	}
	fmt.Fprintf(w, "## %s\n\n", program.Name)
	columns := []string{"Flag", "Variable", "Default", "Meaning"}
	if len(leaves) > 1 {
		columns = append(columns, "Commands")
	}
	row(w, columns)
	row(w, strings.Split(strings.Repeat("---,", len(columns)-1)+"---", ","))
	for _, s := range order {
		cells := []string{code(s.flag), code(s.variable), code(s.fallback), s.meaning}
		if len(leaves) > 1 {
			which := strings.Join(of[s], ", ")
			if len(of[s]) == len(leaves) {
				which = "all"
			}
			cells = append(cells, which)
		}
		row(w, cells)
	}
}

func row(w io.Writer, cells []string) { fmt.Fprintln(w, "| "+strings.Join(cells, " | ")+" |") }

func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}
