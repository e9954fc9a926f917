package mapping

import (
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"strconv"
	"strings"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/tierstream/tierstream/internal/event"
)

// decimal is unscaled / 10^scale, exactly. It is a value of expressions: it
// adds, subtracts, multiplies and compares with decimals and integers, and
// nothing is ever rounded.
type decimal struct {
	unscaled *big.Int
	scale    int // not negative
}

// maxDigits bounds a decimal: the digits that are written, before and after the
// point. No amount needs more than a third of them.
const maxDigits = 60

// tenTo are the powers of ten that a decimal may need.
var tenTo = func() (p [2*maxDigits + 1]*big.Int) {
	p[0] = big.NewInt(1)
	for i := 1; i < len(p); i++ {
		p[i] = new(big.Int).Mul(p[i-1], big.NewInt(10))
	}
	return p
}()

var errTooLong = fmt.Errorf("a decimal of more than %d digits", maxDigits)

// parseDecimal reads 12, -0.5, 1.50 or 4.99e2: digits with at most one point
// between them, a sign, an exponent. No spaces, no separators.
func parseDecimal(text string) (*decimal, error) {
	number, exponent, hasExponent := strings.Cut(strings.ToLower(text), "e")
	shift := 0
	if hasExponent {
		var err error
		if shift, err = strconv.Atoi(exponent); err != nil || shift < -maxDigits || shift > maxDigits {
			return nil, fmt.Errorf("%.40q is no decimal number", text)
		}
	}
	digits, negative := strings.CutPrefix(number, "-")
	whole, fraction, point := strings.Cut(digits, ".")
	if whole == "" || point && fraction == "" || !allDigits(whole) || !allDigits(fraction) {
		return nil, fmt.Errorf("%.40q is no decimal number", text)
	}
	if len(whole)+len(fraction) > maxDigits {
		return nil, errTooLong
	}
	d := &decimal{unscaled: new(big.Int), scale: len(fraction) - shift}
	d.unscaled.SetString(whole+fraction, 10)
	if negative {
		d.unscaled.Neg(d.unscaled)
	}
	if d.scale < 0 {
		d.unscaled.Mul(d.unscaled, tenTo[-d.scale])
		d.scale = 0
	}
	return d.bounded()
}

func allDigits(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

func (d *decimal) bounded() (*decimal, error) {
	if d.scale > maxDigits || d.unscaled.CmpAbs(tenTo[maxDigits]) >= 0 {
		return nil, errTooLong
	}
	return d, nil
}

// rational is a decimal of Avro, which the library answers as a fraction.
func rational(r *big.Rat) (*decimal, error) {
	digits, exact := r.FloatPrec()
	if !exact || digits > maxDigits {
		return nil, errTooLong
	}
	d := &decimal{unscaled: new(big.Int).Mul(r.Num(), tenTo[digits]), scale: digits}
	d.unscaled.Quo(d.unscaled, r.Denom()) // exact
	return d.bounded()
}

// text writes all digits, without an exponent.
func (d *decimal) text() string {
	digits := new(big.Int).Abs(d.unscaled).String()
	if d.scale > 0 {
		if n := d.scale + 1 - len(digits); n > 0 {
			digits = strings.Repeat("0", n) + digits
		}
		digits = digits[:len(digits)-d.scale] + "." + digits[len(digits)-d.scale:]
	}
	if d.unscaled.Sign() < 0 {
		return "-" + digits
	}
	return digits
}

// at is the decimal's unscaled value at a scale that is not below its own.
func (d *decimal) at(scale int) *big.Int {
	if scale == d.scale {
		return d.unscaled
	}
	return new(big.Int).Mul(d.unscaled, tenTo[scale-d.scale])
}

// whole is the decimal times 10^shift as an integer; false when it is none.
func (d *decimal) whole(shift int) (int64, bool) {
	n := d.unscaled
	if shift >= d.scale {
		n = new(big.Int).Mul(n, tenTo[shift-d.scale])
	} else {
		var rest big.Int
		n, _ = new(big.Int).QuoRem(n, tenTo[d.scale-shift], &rest)
		if rest.Sign() != 0 {
			return 0, false
		}
	}
	return n.Int64(), n.IsInt64()
}

// toDecimal makes a number or its text a decimal. A binary fraction is refused:
// 4.99 is not one.
func toDecimal(v ref.Val) (*decimal, error) {
	switch v := v.(type) {
	case *decimal:
		return v, nil
	case types.Int:
		return &decimal{unscaled: big.NewInt(int64(v))}, nil
	case types.Uint:
		return &decimal{unscaled: new(big.Int).SetUint64(uint64(v))}, nil
	case types.String:
		return parseDecimal(string(v))
	case types.Double:
		return nil, errors.New("a binary fraction is not exact: let the producer send a decimal, or take its shortest form by string(…)")
	}
	return nil, fmt.Errorf("%s is no number", v.Type().TypeName())
}

// minor is an amount in the minor units of a currency, exactly.
func minor(amount, currency ref.Val) ref.Val {
	amount, ok1 := present(amount)
	currency, ok2 := present(currency)
	if !ok1 || !ok2 {
		return types.WrapErr(errAbsent)
	}
	code, ok := currency.(types.String)
	if !ok {
		return types.WrapErr(&event.Refusal{Code: event.BadCurrency, Field: "currency", Detail: "a text is needed, not " + currency.Type().TypeName()})
	}
	exponent, ok := event.Exponent(string(code))
	if !ok {
		return types.WrapErr(&event.Refusal{Code: event.BadCurrency, Field: "currency", Detail: fmt.Sprintf("%.20q is no active ISO 4217 code in upper case", string(code))})
	}
	d, err := toDecimal(amount)
	if err != nil {
		return types.WrapErr(&event.Refusal{Code: event.BadAmount, Detail: err.Error()})
	}
	n, ok := d.whole(exponent)
	if !ok {
		return types.WrapErr(&event.Refusal{Code: event.BadAmount, Detail: fmt.Sprintf("%s %s is no whole number of minor units (%s has %d decimals)", d.text(), code, code, exponent)})
	}
	return types.Int(n)
}

var decimalType = types.NewObjectType("tierstream.decimal",
	traits.AdderType|traits.SubtractorType|traits.MultiplierType|traits.NegatorType|traits.ComparerType)

// combine is an operation on a decimal and another number.
func (d *decimal) combine(other ref.Val, op func(a, b *decimal) *decimal) ref.Val {
	switch other.(type) {
	case *decimal, types.Int, types.Uint:
	default:
		return types.MaybeNoSuchOverloadErr(other)
	}
	o, err := toDecimal(other)
	if err != nil {
		return types.WrapErr(err)
	}
	r, err := op(d, o).bounded()
	if err != nil {
		return types.WrapErr(err)
	}
	return r
}

// Add implements traits.Adder.
func (d *decimal) Add(other ref.Val) ref.Val {
	return d.combine(other, func(a, b *decimal) *decimal {
		s := max(a.scale, b.scale)
		return &decimal{new(big.Int).Add(a.at(s), b.at(s)), s}
	})
}

// Subtract implements traits.Subtractor.
func (d *decimal) Subtract(other ref.Val) ref.Val {
	return d.combine(other, func(a, b *decimal) *decimal {
		s := max(a.scale, b.scale)
		return &decimal{new(big.Int).Sub(a.at(s), b.at(s)), s}
	})
}

// Multiply implements traits.Multiplier.
func (d *decimal) Multiply(other ref.Val) ref.Val {
	return d.combine(other, func(a, b *decimal) *decimal {
		return &decimal{new(big.Int).Mul(a.unscaled, b.unscaled), a.scale + b.scale}
	})
}

// Negate implements traits.Negater.
func (d *decimal) Negate() ref.Val {
	return &decimal{new(big.Int).Neg(d.unscaled), d.scale}
}

// Compare implements traits.Comparer.
func (d *decimal) Compare(other ref.Val) ref.Val {
	if f, ok := other.(types.Double); ok {
		return d.double().Compare(f)
	}
	o, err := toDecimal(other)
	if _, isText := other.(types.String); err != nil || isText {
		return types.MaybeNoSuchOverloadErr(other)
	}
	s := max(d.scale, o.scale)
	return types.Int(d.at(s).Cmp(o.at(s)))
}

// Equal implements ref.Val.
func (d *decimal) Equal(other ref.Val) ref.Val {
	c, ok := d.Compare(other).(types.Int)
	return types.Bool(ok && c == 0)
}

func (d *decimal) double() types.Double {
	f, _ := strconv.ParseFloat(d.text(), 64) // what it holds is in range
	return types.Double(f)
}

// ConvertToType implements ref.Val.
func (d *decimal) ConvertToType(t ref.Type) ref.Val {
	switch t {
	case types.StringType:
		return types.String(d.text())
	case types.DoubleType:
		return d.double()
	case types.IntType:
		n, ok := d.whole(0)
		if !ok {
			return types.NewErr("%s is no 64-bit integer", d.text())
		}
		return types.Int(n)
	case decimalType:
		return d
	case types.TypeType:
		return decimalType
	}
	return types.NewErr("a decimal is no %s", t.TypeName())
}

// ConvertToNative implements ref.Val.
func (d *decimal) ConvertToNative(t reflect.Type) (any, error) {
	if t.Kind() == reflect.String {
		return d.text(), nil
	}
	return nil, fmt.Errorf("a decimal is no %s", t)
}

// Type implements ref.Val.
func (d *decimal) Type() ref.Type { return decimalType }

// Value implements ref.Val.
func (d *decimal) Value() any { return d.text() }
