package scoring

import (
	"bufio"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
)

func approx(t *testing.T, what string, got, want, relative float64) {
	t.Helper()
	if d := math.Abs(got - want); !(d <= relative*math.Abs(want)) {
		t.Errorf("%s = %.17g, want %.17g (off by %.2g relative, allowed %.2g)", what, got, want, d/math.Abs(want), relative)
	}
}

// Asked are 1e-12, and where a+b is large against r the digits that the published
// difference loses in itself: (a+b)/r rounding errors of the sums. P(alive) carries those of an
// exponent up to 700.
func TestExpectedPurchasesAgainstHighPrecision(t *testing.T) {
	f, err := os.Open("testdata/expected_purchases.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows := 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		field := strings.Split(line, ",")
		if line[0] == '#' || field[0] == "model" {
			continue
		}
		var v [10]float64
		for i, s := range field[1:] {
			if v[i], err = strconv.ParseFloat(s, 64); err != nil {
				t.Fatal(err)
			}
		}
		p := purchaseModel{r: v[0], alpha: v[1], a: v[2], b: v[3], afterFirst: field[0] == "mbg_nbd"}
		x, tx, T := v[4], v[5], v[6]
		approx(t, "P(alive) of "+line, p.alive(x, tx, T), v[8], 1e-11)
		var out [1]float64
		p.expected(x, T, []float64{v[7]}, out[:])
		approx(t, "expected purchases of "+line, out[0], v[9], max(1e-12, 1e-14*(p.a+p.b)/p.r))
		var again [1]float64
		p.tabulate()
		if p.expected(x, T, []float64{v[7]}, again[:]); again != out {
			t.Errorf("%s: %v with the table, %v without", line, again[0], out[0])
		}
		rows++
	}
	if rows < 300 {
		t.Fatalf("only %d rows", rows)
	}
}

// Several horizons at once are the same as one by one, across the limit at
// which the series is continued.
func TestExpectedPurchasesShareCoefficients(t *testing.T) {
	p := purchaseModel{r: .525, alpha: 6, a: .891, b: 1.614, afterFirst: true}
	horizon := []float64{10, 50, 91.25, 182.5, 273.75, 365}
	var all [6]float64
	p.expected(1, 1.5, horizon, all[:])
	for i, h := range horizon {
		var one [1]float64
		p.expected(1, 1.5, []float64{h}, one[:])
		approx(t, "horizon "+strconv.Itoa(i), all[i], one[0], 1e-13)
	}
}

func BenchmarkExpected(b *testing.B) {
	p := purchaseModel{r: .525, alpha: 43.28, a: .891, b: 1.614, afterFirst: true}
	p.tabulate()
	horizon := []float64{91.25, 182.5, 273.75, 365}
	for _, age := range []float64{0, 30, 365} {
		b.Run(strconv.Itoa(int(age)), func(b *testing.B) {
			var out [4]float64
			for b.Loop() {
				p.expected(2, age, horizon, out[:])
			}
		})
	}
}
