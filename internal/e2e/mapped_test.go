//go:build unix

package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/mapping/mappingtest"
	"github.com/tierstream/tierstream/internal/testenv"
)

// TestForeignTopicsByConfigurationAlone: orders in another company's JSON,
// invoices in Avro and tickets in Protobuf with a schema registry are consumed
// by a mapping file alone. Every bad record is accounted for by its code, and
// the check, which folds log and journal again, holds with the registry gone.
func TestForeignTopicsByConfigurationAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.RedisOptions{})
	company := mappingtest.New(t, [3]string{w.Topics.Inputs[0], w.Topics.Inputs[1], w.Topics.Inputs[2]})
	file := filepath.Join(t.TempDir(), "mapping.yaml")
	if err := os.WriteFile(file, []byte(company.Mapping), 0o600); err != nil {
		t.Fatal(err)
	}
	c := w.Start("--mapping", file)
	records, want := company.Traffic(90)
	half := len(records) / 2
	w.Send(records[:half])()
	w.Settled(60 * time.Second)
	c.Kill()
	c = w.Start("--mapping", file)
	w.Send(records[half:])()
	w.Settled(60 * time.Second)
	got := w.counters()
	got[event.Late] = 0 // a warning besides
	if got != want {
		t.Errorf("counted %v, want %v", got, want)
	}
	c.Stop()
	company.Registry.Close()
	w.Check()
	if report := w.Verify(t.Context()); !report.Holds || report.Customers != 90 {
		t.Errorf("the check: %+v", report)
	}
}
