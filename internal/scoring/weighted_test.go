package scoring

import (
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
)

// The score is the exact weighted sum, rounded half-even, ties and negative
// sums included.
func TestWeightedSumIsRoundedHalfEven(t *testing.T) {
	for _, c := range []struct{ value, weight, want int64 }{
		{15_000, 1, 2}, {25_000, 1, 2}, {5_000, 1, 0}, {-5_000, 1, 0}, {-15_000, 1, -2}, {30_000, 5_000, 15_000}, {3, 5_000, 2}, {5, 5_000, 2},
	} {
		if got := weighted([]Part{{Value: c.value, Weight: c.weight}}); got != c.want {
			t.Errorf("%d × %d = %d, want %d", c.value, c.weight, got, c.want)
		}
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		parts := make([]Part, 1+rnd.IntN(8))
		sum := new(big.Int)
		for i := range parts {
			parts[i] = Part{Value: rnd.Int64N(2e9) - 1e9, Weight: rnd.Int64N(2*unit+1) - unit}
			if rnd.IntN(2) == 0 {
				parts[i].Value = rnd.Int64N(20) * 500 // ties
			}
			sum.Add(sum, new(big.Int).Mul(big.NewInt(parts[i].Value), big.NewInt(parts[i].Weight)))
		}
		q, r := new(big.Int).DivMod(sum, big.NewInt(unit), new(big.Int)) // Euclidean: r ≥ 0
		want := q.Int64()
		if 2*r.Int64() > unit || 2*r.Int64() == unit && want%2 != 0 {
			want++
		}
		if got := weighted(parts); got != want {
			t.Fatalf("%v: %d, want %d", parts, got, want)
		}
	}
}

func TestModelThatOverflowsIsRefused(t *testing.T) {
	y := strings.NewReplacer("alpha_days: 43.28", "alpha_days: 0.5", "a: 0.891", "a: 9.5").Replace(string(defaultYAML))
	if y == string(defaultYAML) {
		t.Fatal("the default model has other parameters now")
	}
	if _, err := Parse([]byte(y)); err == nil || !strings.Contains(err.Error(), "at most 30") {
		t.Errorf("error %v", err)
	}
}
