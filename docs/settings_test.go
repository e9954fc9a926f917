package docs

import (
	"flag"
	"os"
	"strings"
	"testing"
)

//go:generate go test . -run ^TestSettingsAreWrittenDown$ -update

var update = flag.Bool("update", false, "write generated documents")

// settingsHead stands above the tables.
const settingsHead = `# Settings of all commands

Generated from the code by ` + "`make generate`" + ` (each command prints its part with ` + "`--settings`" + `); do not edit. A flag wins over its variable. When to change what, of ` + "`consumer`" + `: [configuration.md](configuration.md).
Passwords have no flag: their variables are ` + "`KAFKA_PASSWORD`" + ` and ` + "`REDIS_PASSWORD`" + ` behind the prefix of the others ([security.md](security.md#secrets)).
`

// settings.md is what the commands print.
func TestSettingsAreWrittenDown(t *testing.T) {
	var b strings.Builder
	b.WriteString(settingsHead)
	for _, name := range []string{"consumer", "tierctl", "producer-sim", "webhooks"} {
		b.WriteString("\n" + ask(t, name, "--settings"))
	}
	if *update {
		if err := os.WriteFile("settings.md", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if read(t, "settings.md") != b.String() {
		t.Error("settings.md is not what the commands print: run make generate")
	}
}
