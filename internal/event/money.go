package event

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// ErrOverflow says that an amount does not fit into int64 minor units.
var ErrOverflow = errors.New("amount overflows")

// maxRateDigits bounds the digits of an fx_rate, so that a product of rate and
// amount always fits into 128 bits.
const maxRateDigits = 18

var pow10 = func() (p [20]uint64) {
	p[0] = 1
	for i := 1; i < len(p); i++ {
		p[i] = 10 * p[i-1]
	}
	return p
}()

// Convert changes amount, in minor units of from, into minor units of to at
// rate, a decimal string of to's units per unit of from. The result is exact
// but for one rounding, half to even. It fails on an unknown currency, on a
// rate that no event could carry, and with ErrOverflow.
func Convert(amount int64, from string, rate string, to string) (int64, error) {
	fromExp, ok := Exponent(from)
	if !ok {
		return 0, fmt.Errorf("converting from %q: not an ISO 4217 currency", from)
	}
	toExp, ok := Exponent(to)
	if !ok {
		return 0, fmt.Errorf("converting to %q: not an ISO 4217 currency", to)
	}
	mantissa, scale, ok := parseRate(rate)
	if !ok {
		return 0, fmt.Errorf("converting %s to %s: rate %q is not a positive decimal of at most %d digits",
			from, to, rate, maxRateDigits)
	}
	q, ok := scaled(magnitude(amount), mantissa, scale+fromExp-toExp)
	if !ok || q > math.MaxInt64 {
		return 0, fmt.Errorf("converting %d %s to %s at %s: %w", amount, from, to, rate, ErrOverflow)
	}
	if amount < 0 {
		return -int64(q), nil
	}
	return int64(q), nil
}

// scaled is a·b / 10^shift, half to even; false when it exceeds 64 bits.
// b is below 10^18 and shift between -4 and 22.
func scaled(a, b uint64, shift int) (uint64, bool) {
	hi, lo := bits.Mul64(a, b)
	if shift <= 0 {
		over, q := bits.Mul64(lo, pow10[-shift])
		return q, hi == 0 && over == 0
	}
	// 10^shift = d1·d2, both in 64 bits. Where d2 > 1, d1 is 10^19 and thus
	// above hi, which is below 10^18: only the last quotient can overflow.
	d1, d2 := pow10[min(shift, 19)], pow10[max(shift-19, 0)]
	if hi >= d1 {
		return 0, false
	}
	q1, r1 := bits.Div64(hi, lo, d1)
	q, r2 := q1/d2, q1%d2
	// The remainder is r2·d1 + r1 of d1·d2.
	var up bool
	if d2 == 1 {
		up = r1 > d1/2 || r1 == d1/2 && q%2 == 1
	} else {
		up = r2 > d2/2 || r2 == d2/2 && (r1 > 0 || q%2 == 1)
	}
	if up {
		q++
		return q, q != 0
	}
	return q, true
}

// parseRate reads "1.0842" as 10842 and 4 decimals. It accepts digits with at
// most one point between them, no sign, no exponent, no superfluous leading
// zero, at most maxRateDigits digits, above zero.
func parseRate[T string | []byte](s T) (mantissa uint64, scale int, ok bool) {
	digits, point := 0, -1
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			if digits++; digits > maxRateDigits {
				return 0, 0, false
			}
			mantissa = 10*mantissa + uint64(c-'0')
		case c == '.' && point < 0 && i > 0 && i < len(s)-1:
			point = i
			scale = len(s) - 1 - i
		default:
			return 0, 0, false
		}
	}
	if len(s) > 1 && s[0] == '0' && point != 1 {
		return 0, 0, false
	}
	return mantissa, scale, mantissa > 0
}

func magnitude(v int64) uint64 {
	if v < 0 {
		return -uint64(v)
	}
	return uint64(v)
}

// FormatMoney writes minor units for people: "49.90 EUR", "500 JPY". An amount
// whose decimals are unknown says so: "4990 minor units of ABC".
func FormatMoney(minor int64, currency string) string {
	return string(AppendMoney(nil, minor, currency))
}

// AppendMoney appends what FormatMoney returns.
func AppendMoney(b []byte, minor int64, currency string) []byte {
	exp, ok := Exponent(currency)
	if !ok {
		b = append(strconv.AppendInt(b, minor, 10), " minor units"...)
		if currency != "" {
			b = append(append(b, " of "...), currency...)
		}
		return b
	}
	if minor < 0 {
		b = append(b, '-')
	}
	begin := len(b)
	b = strconv.AppendUint(b, magnitude(minor), 10)
	if exp > 0 {
		for len(b)-begin <= exp {
			b = slices.Insert(b, begin, '0')
		}
		b = slices.Insert(b, len(b)-exp, '.')
	}
	return append(append(b, ' '), currency...)
}

// ParseMoney reads what a person wrote, "49.90" or "-5", as minor units. It
// accepts no more decimals than the currency has, and no separators.
func ParseMoney(s string, currency string) (int64, error) {
	exp, ok := Exponent(currency)
	if !ok {
		return 0, fmt.Errorf("reading amount %q: %q is not an ISO 4217 currency", s, currency)
	}
	number, negative := strings.CutPrefix(s, "-")
	whole, decimals, point := strings.Cut(number, ".")
	if whole == "" || point && decimals == "" || !allDigits(whole) || !allDigits(decimals) {
		return 0, fmt.Errorf("reading amount %q: not a decimal number", s)
	}
	if len(decimals) > exp {
		return 0, fmt.Errorf("reading amount %q: %s has %d decimals", s, currency, exp)
	}
	digits := whole + decimals + strings.Repeat("0", exp-len(decimals))
	if negative {
		digits = "-" + digits
	}
	minor, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading amount %q: %w", s, ErrOverflow)
	}
	return minor, nil
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
