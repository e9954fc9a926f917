package event

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

func TestCurrencyTable(t *testing.T) {
	for code, want := range map[string]int{"EUR": 2, "USD": 2, "JPY": 0, "KWD": 3, "CLF": 4, "CLP": 0, "ISK": 0, "HUF": 2, "XOF": 0, "XCG": 2, "ZWG": 2} {
		if got, ok := Exponent(code); !ok || got != want {
			t.Errorf("%s: %d, %t, want %d", code, got, ok, want)
		}
	}
	for _, code := range []string{"", "E", "EURO", "eur", "Eur", "ABC", "XXX", "XTS", "XAU", "DEM", "HRK", "\xff\xff\xff", "€"} {
		if exp, ok := Exponent(code); ok {
			t.Errorf("%q has %d decimals", code, exp)
		}
	}
	seen := map[string]bool{}
	for _, c := range currencies {
		if seen[c.code] {
			t.Errorf("%s stands in the table twice", c.code)
		}
		seen[c.code] = true
	}
	if len(currencies) > math.MaxUint8 {
		t.Errorf("%d currencies, the index has one byte", len(currencies))
	}
}

func TestConvert(t *testing.T) {
	for _, c := range []struct {
		amount         int64
		from, rate, to string
		want           int64
	}{
		{4990, "EUR", "1", "EUR", 4990},
		{4990, "EUR", "1.0842", "USD", 5410}, // 5410.158
		{5, "EUR", "0.1", "USD", 0},          // 0.5: to even
		{15, "EUR", "0.1", "USD", 2},         // 1.5: to even
		{25, "EUR", "0.1", "USD", 2},         // 2.5: to even
		{-25, "EUR", "0.1", "USD", -2},       // the same below zero
		{26, "EUR", "0.1", "USD", 3},         // 2.6
		{-35, "EUR", "0.1", "USD", -4},       // -3.5: to even
		{500, "JPY", "0.0061", "EUR", 305},   // 3.05 EUR
		{305, "EUR", "163.93", "JPY", 500},   // 499.9865
		{1234, "KWD", "3.25", "USD", 401},    // 4.0105 USD
		{1, "JPY", "1", "CLF", 10000},
		{math.MaxInt64, "EUR", "1", "EUR", math.MaxInt64},
		{math.MinInt64 + 1, "EUR", "1", "EUR", math.MinInt64 + 1},
		{math.MaxInt64, "CLF", "0.00000000000000001", "JPY", 0},       // 0.0092
		{5000000000000000000, "CLF", "0.00000000000000100", "JPY", 0}, // 0.5: to even
		{5000000000000000001, "CLF", "0.00000000000000100", "JPY", 1}, // just above
	} {
		got, err := Convert(c.amount, c.from, c.rate, c.to)
		if err != nil || got != c.want {
			t.Errorf("%d %s at %s: %d %s, %v, want %d", c.amount, c.from, c.rate, got, c.to, err, c.want)
		}
	}
	for _, c := range []struct {
		amount         int64
		from, rate, to string
	}{
		{math.MaxInt64, "EUR", "1.1", "USD"},
		{math.MinInt64, "EUR", "1", "EUR"},
		{math.MaxInt64, "EUR", "999999999999999999", "USD"},
		{math.MaxInt64 / 10, "JPY", "1", "EUR"},
	} {
		if got, err := Convert(c.amount, c.from, c.rate, c.to); !errors.Is(err, ErrOverflow) {
			t.Errorf("%d %s at %s: %d, %v, want an overflow", c.amount, c.from, c.rate, got, err)
		}
	}
	for _, rate := range []string{"", "0", "0.0", "-1", "+1", "1e3", "1,5", ".5", "5.", "1.2.3", "01", "00.5", " 1", "1.000000000000000001", "NaN"} {
		if got, err := Convert(100, "EUR", rate, "USD"); err == nil {
			t.Errorf("rate %q gives %d", rate, got)
		}
	}
	if _, err := Convert(1, "ABC", "1", "EUR"); err == nil {
		t.Error("converted from no currency")
	}
	if _, err := Convert(1, "EUR", "1", "ABC"); err == nil {
		t.Error("converted to no currency")
	}
}

// The reference computes with exact fractions.
func TestConvertIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		amount := rapid.Int64().Draw(t, "amount")
		if rapid.Bool().Draw(t, "small") {
			amount %= 1_000_000
		}
		rate := rapid.StringMatching(`(0|[1-9][0-9]{0,8})(\.[0-9]{1,9})?|0\.[0-9]{1,17}|[1-9][0-9]{17}`).Draw(t, "rate")
		from := rapid.SampledFrom(currencies).Draw(t, "from")
		to := rapid.SampledFrom(currencies).Draw(t, "to")

		exact, ok := new(big.Rat).SetString(rate)
		if !ok {
			t.Fatalf("rate %q", rate)
		}
		got, err := Convert(amount, from.code, rate, to.code)
		if exact.Sign() == 0 {
			if err == nil {
				t.Fatalf("a rate of zero gives %d", got)
			}
			return
		}
		exact.Mul(exact, new(big.Rat).SetInt64(amount))
		shift := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(to.exponent-from.exponent, from.exponent-to.exponent))), nil))
		if to.exponent > from.exponent {
			exact.Mul(exact, shift)
		} else {
			exact.Quo(exact, shift)
		}
		want := halfEven(exact)
		// -2^63 has no positive counterpart and counts as too large.
		if !want.IsInt64() || want.Int64() == math.MinInt64 {
			if !errors.Is(err, ErrOverflow) {
				t.Fatalf("%d, %v, want an overflow (%s)", got, err, want)
			}
			return
		}
		if err != nil || got != want.Int64() {
			t.Fatalf("%d, %v, want %s", got, err, want)
		}
	})
}

func halfEven(r *big.Rat) *big.Int {
	two := big.NewInt(2)
	q, rest := new(big.Int).QuoRem(r.Num(), r.Denom(), new(big.Int))
	c := new(big.Int).Mul(rest.Abs(rest), two).Cmp(r.Denom())
	if c > 0 || c == 0 && q.Bit(0) == 1 {
		q.Add(q, big.NewInt(int64(r.Sign())))
	}
	return q
}

func TestMoneyForPeople(t *testing.T) {
	for _, c := range []struct {
		minor    int64
		currency string
		want     string
	}{
		{4990, "EUR", "49.90 EUR"}, {5, "EUR", "0.05 EUR"}, {-5, "EUR", "-0.05 EUR"}, {0, "EUR", "0.00 EUR"},
		{500, "JPY", "500 JPY"}, {-1234, "KWD", "-1.234 KWD"}, {1, "CLF", "0.0001 CLF"},
		{math.MinInt64, "EUR", "-92233720368547758.08 EUR"},
		{4990, "ABC", "4990 minor units of ABC"}, {4990, "", "4990 minor units"},
	} {
		if got := FormatMoney(c.minor, c.currency); got != c.want {
			t.Errorf("%d %s: %q, want %q", c.minor, c.currency, got, c.want)
		}
	}
	for _, c := range []struct {
		s, currency string
		want        int64
	}{{"49.90", "EUR", 4990}, {"49.9", "EUR", 4990}, {"49", "EUR", 4900}, {"-0.05", "EUR", -5}, {"500", "JPY", 500}, {"1.234", "KWD", 1234}, {"007", "JPY", 7}} {
		if got, err := ParseMoney(c.s, c.currency); err != nil || got != c.want {
			t.Errorf("%s %s: %d, %v, want %d", c.s, c.currency, got, err, c.want)
		}
	}
	for _, c := range [][2]string{{"", "EUR"}, {"-", "EUR"}, {".5", "EUR"}, {"5.", "EUR"}, {"1.234", "EUR"}, {"5.0", "JPY"}, {"1,000", "EUR"},
		{"+5", "EUR"}, {"--5", "EUR"}, {"1e3", "EUR"}, {" 5", "EUR"}, {"5", "ABC"}, {"5", "eur"}, {"٥", "EUR"}, {"1.2.3", "EUR"}} {
		if got, err := ParseMoney(c[0], c[1]); err == nil {
			t.Errorf("%q %s reads as %d", c[0], c[1], got)
		}
	}
	if _, err := ParseMoney("92233720368547758.08", "EUR"); !errors.Is(err, ErrOverflow) {
		t.Errorf("too much money: %v", err)
	}
	rapid.Check(t, func(t *rapid.T) {
		minor := rapid.Int64().Draw(t, "minor")
		c := rapid.SampledFrom(currencies).Draw(t, "currency").code
		var number, unit string
		fmt.Sscan(FormatMoney(minor, c), &number, &unit)
		if got, err := ParseMoney(number, unit); err != nil || got != minor {
			t.Fatalf("%d %s is written %s and read as %d, %v", minor, c, number, got, err)
		}
	})
}

func BenchmarkConvert(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Convert(4990, "USD", "0.9224", "EUR"); err != nil {
			b.Fatal(err)
		}
	}
}
