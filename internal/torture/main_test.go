//go:build unix

package torture

import (
	"flag"
	"testing"

	"github.com/tierstream/tierstream/internal/rig"
	"github.com/tierstream/tierstream/internal/testenv"
)

var race = flag.Bool("race-consumers", false, "build the consumers with the race detector")

func TestMain(m *testing.M) {
	flag.Parse()
	rig.Race = *race
	testenv.Main(m, rig.RemoveBinary)
}
