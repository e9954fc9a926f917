package fit

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Cuts are the four cut points that divide a population into scores 1 to 5 of
// about a fifth each: score 1 + number of cut points strictly below a value. Each
// is a value of the population, the least with at least 20, 40, 60, 80 % of it up to and
// including that value; so equal values score the same, and many equal ones
// make unequal fifths. Where fewer than five values can be told apart they are
// lifted to ascend, and upper scores stay empty.
func Cuts(values []int64) ([4]int64, error) {
	var cuts [4]int64
	if len(values) == 0 {
		return cuts, errors.New("there is nobody to compute cut points from")
	}
	sorted := slices.Sorted(slices.Values(values))
	for i := range cuts {
		// ⌈n·(i+1)/5⌉-th smallest
		cuts[i] = sorted[(len(sorted)*(i+1)+4)/5-1]
		if i > 0 && cuts[i] <= cuts[i-1] {
			// The next value there is, for the score to have somebody.
			at, _ := slices.BinarySearch(sorted, cuts[i-1]+1)
			if at < len(sorted) && sorted[at] < sorted[len(sorted)-1] {
				cuts[i] = sorted[at]
			} else {
				cuts[i] = cuts[i-1] + 1
			}
		}
	}
	return cuts, nil
}

// Thresholds are the scores from which the upper tiers are entered, lowest
// first, so that the population divides into the shares, lowest tier first, in
// parts of their sum. Equal scores go into one tier, the upper one only if that comes nearer to
// its share and those above. Thresholds ascend.
func Thresholds(scores []int64, shares []float64) ([]int64, error) {
	sum := 0.0
	for _, s := range shares {
		if !(s > 0) || math.IsInf(s, 0) {
			return nil, fmt.Errorf("a share of %v: want above 0", s)
		}
		sum += s
	}
	switch {
	case len(shares) < 2:
		return nil, errors.New("want the shares of two tiers or more")
	case len(scores) == 0:
		return nil, errors.New("there is nobody to divide into tiers")
	}
	sorted := slices.Sorted(slices.Values(scores))
	out := make([]int64, 0, len(shares)-1)
	below := 0.0
	for i, s := range shares[:len(shares)-1] {
		below += s / sum
		want := below * float64(len(sorted)) // so many below the threshold
		at := min(int(math.Round(want)), len(sorted)-1)
		// The run of scores equal to that at the place: all of it above, or all below.
		first, _ := slices.BinarySearch(sorted, sorted[at])
		after, _ := slices.BinarySearch(sorted, sorted[at]+1)
		if want-float64(first) > float64(after)-want && after < len(sorted) {
			first = after
		}
		if first == 0 || (i > 0 && sorted[first] <= out[i-1]) {
			return nil, fmt.Errorf("too many customers have the score %d for %d tiers of these shares: tier %d would have nobody", sorted[first], len(shares), i+1)
		}
		out = append(out, sorted[first])
	}
	return out, nil
}
