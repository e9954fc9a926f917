package mapping

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
)

// maxCost bounds one evaluation, in CEL's units: about one per operation and
// per ten bytes of text that is looked at. A usual expression costs below ten.
const maxCost = 100_000

// variables are what an expression can see.
const (
	varValue     = "value"     // the decoded payload
	varKey       = "key"       // the record's key, "" when it has none
	varHeaders   = "headers"   // by name; of one that occurs twice the last
	varTimestamp = "timestamp" // the record's
	varTopic     = "topic"
	varPartition = "partition"
	varOffset    = "offset"
)

// language is CEL with its optional values and functions on texts, and:
//
//	minor(amount, currency)  an amount in minor units, exactly
//	decimal(number)          an exact decimal, of a number or its text
//	millis(integer)          the time so many milliseconds after 1970
//
// Left out is what depends on the machine: the parts of a time in a time zone.
// There is no clock.
var language = sync.OnceValues(func() (*cel.Env, error) {
	zoned := env.NewLibrarySubset()
	for function, overload := range map[string]string{
		overloads.TimeGetFullYear:     overloads.TimestampToYearWithTz,
		overloads.TimeGetMonth:        overloads.TimestampToMonthWithTz,
		overloads.TimeGetDayOfYear:    overloads.TimestampToDayOfYearWithTz,
		overloads.TimeGetDayOfMonth:   overloads.TimestampToDayOfMonthZeroBasedWithTz,
		overloads.TimeGetDate:         overloads.TimestampToDayOfMonthOneBasedWithTz,
		overloads.TimeGetDayOfWeek:    overloads.TimestampToDayOfWeekWithTz,
		overloads.TimeGetHours:        overloads.TimestampToHoursWithTz,
		overloads.TimeGetMinutes:      overloads.TimestampToMinutesWithTz,
		overloads.TimeGetSeconds:      overloads.TimestampToSecondsWithTz,
		overloads.TimeGetMilliseconds: overloads.TimestampToMillisecondsWithTz,
	} {
		zoned.AddExcludedFunctions(env.NewFunction(function, env.NewOverload(overload, nil, nil)))
	}
	return cel.NewCustomEnv(
		cel.StdLib(cel.StdLibSubset(zoned)),
		cel.OptionalTypes(cel.OptionalTypesVersion(2)),
		ext.Strings(ext.StringsVersion(4)),
		cel.Variable(varValue, cel.DynType),
		cel.Variable(varKey, cel.StringType),
		cel.Variable(varHeaders, cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable(varTimestamp, cel.TimestampType),
		cel.Variable(varTopic, cel.StringType),
		cel.Variable(varPartition, cel.IntType),
		cel.Variable(varOffset, cel.IntType),
		cel.Function("minor", cel.Overload("minor_dyn_dyn", []*cel.Type{cel.DynType, cel.DynType}, cel.IntType, cel.BinaryBinding(minor))),
		cel.Function("decimal", cel.Overload("decimal_dyn", []*cel.Type{cel.DynType}, cel.DynType, cel.UnaryBinding(func(v ref.Val) ref.Val {
			v, ok := present(v)
			if !ok {
				return types.WrapErr(errAbsent)
			}
			d, err := toDecimal(v)
			if err != nil {
				return types.WrapErr(err)
			}
			return d
		}))),
		cel.Function("millis", cel.Overload("millis_int", []*cel.Type{cel.IntType}, cel.TimestampType, cel.UnaryBinding(func(v ref.Val) ref.Val {
			ms, ok := v.(types.Int)
			if !ok {
				return types.MaybeNoSuchOverloadErr(v)
			}
			return types.Timestamp{Time: time.UnixMilli(int64(ms)).UTC()}
		}))),
	)
})

// program is an expression that can be evaluated, from several goroutines.
type program struct {
	source   string  // as people know it
	constant ref.Val // nil: eval
	eval     cel.Program
}

// compile makes an expression ready. want is the type that it must have; it may
// turn out at run time.
func (e *expression) compile(want ...*cel.Type) (*program, error) {
	if e.constant != nil {
		return &program{source: fmt.Sprint(e.constant), constant: types.DefaultTypeAdapter.NativeToValue(e.constant)}, nil
	}
	l, err := language()
	if err != nil {
		return nil, err
	}
	ast, issues := l.Compile(e.text)
	if err := issues.Err(); err != nil {
		return nil, hinted(e.text, issues)
	}
	got, fits := ast.OutputType(), false
	for _, w := range append(want, cel.DynType) {
		fits = fits || got.IsExactType(w) || got.IsExactType(cel.OptionalType(w)) || got.IsExactType(cel.NullableType(w))
	}
	if !fits {
		return nil, fmt.Errorf("%s: it is a %s, which cannot stand here", e.text, cel.FormatCELType(got))
	}
	p, err := l.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.text, err)
	}
	return &program{source: e.text, eval: p}, nil
}

// hinted are the compiler's complaints in one line, with a hint for what people
// get wrong first.
func hinted(text string, issues *cel.Issues) error {
	var all []string
	bare := false
	for _, e := range issues.Errors() {
		all = append(all, strings.ReplaceAll(e.Message, " (in container '')", ""))
		bare = bare || strings.HasPrefix(e.Message, "undeclared reference to") && !strings.Contains(text, "(")
	}
	hint := ""
	if bare {
		hint = "; a field is value.name, a constant {const: " + text + "}"
	}
	return fmt.Errorf("%s: %s%s", text, strings.Join(all, "; "), hint)
}

// errAbsent says that an expression leads to nothing: a field that is not
// there, a null, an empty optional.
var errAbsent = errors.New("there is nothing")

// evaluate answers errAbsent, what is wrong, or a value that is neither null nor
// optional.
func (p *program) evaluate(in cel.Activation) (ref.Val, error) {
	v := p.constant
	if v == nil {
		var err error
		if v, _, err = p.eval.Eval(in); err != nil {
			// The library has no exported error for it, but names it in its
			// specification.
			if strings.HasPrefix(err.Error(), "no such key") {
				return nil, fmt.Errorf("%w: %w", errAbsent, err)
			}
			return nil, err
		}
	}
	if v, ok := present(v); ok {
		return v, nil
	}
	return nil, errAbsent
}

// present takes a value out of an optional. It is false of an empty one and of
// null.
func present(v ref.Val) (ref.Val, bool) {
	if o, ok := v.(*types.Optional); ok {
		if !o.HasValue() {
			return nil, false
		}
		v = o.GetValue()
	}
	return v, v != types.NullValue
}
