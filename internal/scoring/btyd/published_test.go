package btyd

import (
	"bufio"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tierstream/tierstream/internal/testenv"
)

func approx(t testing.TB, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s = %.12g, want %.12g within %g", what, got, want, tolerance)
	}
}

func must[M Model](t testing.TB) func(m M, err error) M {
	return func(m M, err error) M {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
}

// The likelihoods of published fits to the 2,357 customers of the CDNOW sample,
// 39 weeks, and to the regular buyers of a grocery. The summary's times are
// rounded to a hundredth of a week, which moves the likelihood by 0.004.
func TestLikelihoodsOfPublishedFits(t *testing.T) {
	f, err := os.Open(filepath.Join(testenv.DataDir(t), "cdnow", "cdnow_customers_summary.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var customers []History
	lines := bufio.NewScanner(f)
	lines.Scan()
	for lines.Scan() {
		var v [4]float64
		for i, s := range strings.Split(lines.Text(), ",") {
			if v[i], err = strconv.ParseFloat(s, 64); err != nil {
				t.Fatal(err)
			}
		}
		customers = append(customers, History{Frequency: v[1], AgeAtLast: v[2], Age: v[3]})
	}
	for _, c := range []struct {
		m    Model
		want float64
	}{
		{must[*BetaGeometric](t)(NewBGNBD(.2425945, 4.4136019, .7929199, 2.4258881)), -9582.429},
		{must[*BetaGeometric](t)(NewMBGNBD(.525, 6.183, .891, 1.614)), -9582.136},
		{must[*ParetoNBD](t)(NewParetoNBD(.55315, 10.57633, .60625, 11.67150)), -9594.976},
	} {
		sum := 0.0
		for _, h := range customers {
			if err := c.m.Check(h); err != nil {
				t.Fatal(err)
			}
			sum += c.m.LogLikelihood(h)
		}
		approx(t, c.m.Name(), sum, c.want, 0.004)
	}
}

// Fader, Hardie, Lee 2005, and the BTYD walkthrough: a customer with x = 26,
// and how P(alive) falls without a purchase.
func TestPublishedExamples(t *testing.T) {
	bg := must[*BetaGeometric](t)(NewBGNBD(.243, 4.414, .793, 2.426))
	for p, want := range map[float64]float64{.9: 30.2148, .5: 42.4872, .2: 52.3806} {
		approx(t, "crossing", bg.AliveUntil(History{Frequency: 7, AgeAtLast: 29.43}, p), want, 5e-5)
	}
	for x, want := range map[float64]float64{10: .347, 15: .043, 20: .0042, 25: .00036} { // the increasing-frequency paradox
		approx(t, "expected", bg.Expected(History{Frequency: x, AgeAtLast: 20, Age: 39}, 52), want, .02*want)
	}
	// The MBG/NBD of the CDNOW fit: who has just bought for the first time.
	mbg := must[*BetaGeometric](t)(NewMBGNBD(.525, 6.183, .891, 1.614))
	approx(t, "P(alive) of a new customer", mbg.Alive(History{}), .644, 5e-4)
}
