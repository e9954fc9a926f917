package scoring

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decimal is a decimal number in millionths, so that rates, weights and
// thresholds are exact: 0.3 is 300,000.
type decimal int64

const million = 1_000_000

func parseDecimal(s string) (decimal, error) {
	digits := strings.TrimPrefix(s, "-")
	whole, frac, _ := strings.Cut(digits, ".")
	if len(frac) > 6 || len(whole) > 12 || whole+frac == "" || strings.Trim(whole+frac, "0123456789") != "" {
		return 0, fmt.Errorf("%q is not a decimal number with at most 6 decimals", s)
	}
	v, err := strconv.ParseInt(whole+frac+strings.Repeat("0", 6-len(frac)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a decimal number with at most 6 decimals", s)
	}
	if digits != s {
		v = -v
	}
	return decimal(v), nil
}

func (d decimal) String() string {
	sign, v := "", uint64(d)
	if d < 0 {
		sign, v = "-", -v
	}
	s := fmt.Sprintf("%s%d.%06d", sign, v/million, v%million)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

func (d decimal) float() float64 { return float64(d) / million }

// UnmarshalYAML reads the scalar's text, never its float value.
func (d *decimal) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return fmt.Errorf("line %d: want a decimal number", n.Line)
	}
	v, err := parseDecimal(n.Value)
	if err != nil {
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	*d = v
	return nil
}

// MarshalJSON writes the number in its shortest form.
func (d decimal) MarshalJSON() ([]byte, error) { return []byte(d.String()), nil }

// mulDiv returns a·b/c rounded half-even, for c > 0, through 128 bits; beyond
// int64 it saturates.
func mulDiv(a, b, c int64) int64 {
	negative := (a < 0) != (b < 0)
	hi, lo := bits.Mul64(magnitude(a), magnitude(b))
	d := uint64(c)
	if hi >= d {
		return saturated(negative)
	}
	q, r := bits.Div64(hi, lo, d)
	if half := d - r; r > half || r == half && q&1 == 1 {
		q++
	}
	if q > math.MaxInt64 {
		return saturated(negative)
	}
	if negative {
		return -int64(q)
	}
	return int64(q)
}

func magnitude(v int64) uint64 {
	if v < 0 {
		return -uint64(v)
	}
	return uint64(v)
}

func saturated(negative bool) int64 {
	if negative {
		return math.MinInt64
	}
	return math.MaxInt64
}

// roundFloat returns v rounded half-even to an integer; beyond ±9·10¹⁸ it
// saturates, and NaN is 0.
func roundFloat(v float64) int64 {
	const limit = 9e18
	switch {
	case v != v:
		return 0
	case v > limit:
		return limit
	case v < -limit:
		return -limit
	}
	return int64(math.RoundToEven(v))
}
