package mapping

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"strconv"
	"time"
	"unicode/utf8"
)

// Values of expressions are maps of texts, lists, texts, booleans, nil, int64,
// float64, decimals, bytes, times and durations.

// parseJSON reads JSON so that nothing is lost: a whole number becomes an
// int64, any other a decimal, never a float (but for one that no decimal here
// could hold). It refuses what the decoder of events refuses: a name twice, what
// is not UTF-8, objects and arrays nested deeper than maxDepth.
func parseJSON(b []byte, maxDepth int) (any, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("it is not UTF-8")
	}
	p := jsonParser{json.NewDecoder(bytes.NewReader(b))}
	p.UseNumber()
	v, err := p.value(maxDepth)
	if err == nil {
		if _, more := p.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the value")
		}
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("JSON byte %d: %w", p.InputOffset(), err)
	}
	return v, nil
}

type jsonParser struct{ *json.Decoder }

func (p jsonParser) value(depth int) (any, error) {
	t, err := p.Token()
	if err != nil {
		return nil, err
	}
	d, ok := t.(json.Delim)
	if !ok {
		if n, ok := t.(json.Number); ok {
			return number(string(n)), nil
		}
		return t, nil
	}
	if depth == 0 {
		return nil, errNesting
	}
	if d == '[' {
		list := []any{}
		for p.More() {
			v, err := p.value(depth - 1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := p.Token()
		return list, err
	}
	object := map[string]any{}
	for p.More() {
		name, err := p.Token()
		if err != nil {
			return nil, err
		}
		key, _ := name.(string) // the library sees to it
		if _, twice := object[key]; twice {
			return nil, fmt.Errorf("the name %q occurs twice", key)
		}
		if object[key], err = p.value(depth - 1); err != nil {
			return nil, err
		}
	}
	_, err = p.Token()
	return object, err
}

// number is a JSON number.
func number(text string) any {
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return i
	}
	if d, err := parseDecimal(text); err == nil {
		return d
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return text // beyond what a float can hold: no amount and no score
	}
	return f
}

func unsigned(n uint64) any {
	if n <= math.MaxInt64 {
		return int64(n)
	}
	return &decimal{unscaled: new(big.Int).SetUint64(n)}
}

// timestampOf and durationOf keep to the ranges that Protobuf states.
func timestampOf(seconds, nanos int64) (any, error) {
	const first, last = -62_135_596_800, 253_402_300_799 // years 1 to 9999
	if seconds < first || seconds > last || nanos < 0 || nanos > 999_999_999 {
		return nil, fmt.Errorf("a timestamp of %d s and %d ns", seconds, nanos)
	}
	return time.Unix(seconds, nanos).UTC(), nil
}

func durationOf(seconds, nanos int64) (any, error) {
	const most = 9_000_000_000 // what nanoseconds can hold
	if seconds < -most || seconds > most || nanos < -999_999_999 || nanos > 999_999_999 {
		return nil, fmt.Errorf("a duration of %d s and %d ns", seconds, nanos)
	}
	return time.Duration(seconds)*time.Second + time.Duration(nanos), nil
}
