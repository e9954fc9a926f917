package customer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// The few MessagePack forms that a record needs, written and read directly:
// the library's Encoder costs an interface call per value, and its Decoder
// accepts integers wider than they need be, so that a strict decode would have
// to encode again and compare. Tests hold both directions against the library.

// First bytes of the MessagePack forms in use. (The library keeps its own in
// variables, which no switch can compile to a table.)
const (
	posFixMax  = 0x7f
	fixArray   = 0x90
	fixArrayTo = 0x9f
	fixStr     = 0xa0
	codeNil    = 0xc0
	codeUint8  = 0xcc
	codeUint16 = 0xcd
	codeUint32 = 0xce
	codeUint64 = 0xcf
	codeInt8   = 0xd0
	codeInt16  = 0xd1
	codeInt32  = 0xd2
	codeInt64  = 0xd3
	codeArr16  = 0xdc
	codeArr32  = 0xdd
	negFixMin  = 0xe0
)

// appendUint appends n in the narrowest form, as the library's EncodeUint.
func appendUint(b []byte, n uint64) []byte {
	switch {
	case n <= math.MaxInt8:
		return append(b, byte(n))
	case n <= math.MaxUint8:
		return append(b, codeUint8, byte(n))
	case n <= math.MaxUint16:
		return append(b, codeUint16, byte(n>>8), byte(n))
	case n <= math.MaxUint32:
		return append(b, codeUint32, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return appendUint64(b, n)
}

// appendUint64 appends n in nine bytes whatever its value.
func appendUint64(b []byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, codeUint64), n)
}

// appendInt appends n in the narrowest form, as the library's EncodeInt.
func appendInt(b []byte, n int64) []byte {
	switch {
	case n >= 0:
		return appendUint(b, uint64(n))
	case n >= -32:
		return append(b, byte(n))
	case n >= math.MinInt8:
		return append(b, codeInt8, byte(n))
	case n >= math.MinInt16:
		return append(b, codeInt16, byte(n>>8), byte(n))
	case n >= math.MinInt32:
		return append(b, codeInt32, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return binary.BigEndian.AppendUint64(append(b, codeInt64), uint64(n))
}

// appendArray appends the head of an array of n values.
func appendArray(b []byte, n int) []byte {
	switch {
	case n < 16:
		return append(b, fixArray|byte(n))
	case n <= math.MaxUint16:
		return append(b, codeArr16, byte(n>>8), byte(n))
	}
	return append(b, codeArr32, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

var (
	errTruncated = errors.New("unexpected end")
	errType      = errors.New("unexpected type")
	errWidth     = errors.New("number wider than it need be")
	errRange     = errors.New("value out of range")
	errLength    = errors.New("unexpected array length")
	errOrder     = errors.New("entries out of order")
	errTrailing  = errors.New("bytes after the record")
)

// reader takes the forms above from b and nothing else. The first error
// sticks; after it every value is zero.
type reader struct {
	b   []byte
	i   int // next byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = fmt.Errorf("byte %d: %w", r.i, err)
		r.i = len(r.b) // so that whatever is read next ends at once
	}
}

// wide reads the n big-endian bytes after a code that needs at least min.
func (r *reader) wide(n int, min uint64) uint64 {
	if len(r.b)-r.i < 1+n {
		r.fail(errTruncated)
		return 0
	}
	p := r.b[r.i+1:]
	var v uint64
	switch n {
	case 1:
		v = uint64(p[0])
	case 2:
		v = uint64(binary.BigEndian.Uint16(p))
	case 4:
		v = uint64(binary.BigEndian.Uint32(p))
	default:
		v = binary.BigEndian.Uint64(p)
	}
	if v < min {
		r.fail(errWidth)
		return 0
	}
	r.i += 1 + n
	return v
}

func (r *reader) uint() uint64 {
	if r.i >= len(r.b) {
		r.fail(errTruncated)
		return 0
	}
	switch c := r.b[r.i]; {
	case c <= posFixMax:
		r.i++
		return uint64(c)
	case c == codeUint8:
		return r.wide(1, math.MaxInt8+1)
	case c == codeUint16:
		return r.wide(2, math.MaxUint8+1)
	case c == codeUint32:
		return r.wide(4, math.MaxUint16+1)
	case c == codeUint64:
		return r.wide(8, math.MaxUint32+1)
	}
	r.fail(errType)
	return 0
}

func (r *reader) int() int64 {
	if r.i >= len(r.b) {
		r.fail(errTruncated)
		return 0
	}
	var v, below int64 // a negative number must be below what a narrower form holds
	at := r.i
	switch c := r.b[r.i]; c {
	case codeInt8:
		v, below = int64(int8(r.wide(1, 0))), -32
	case codeInt16:
		v, below = int64(int16(r.wide(2, 0))), math.MinInt8
	case codeInt32:
		v, below = int64(int32(r.wide(4, 0))), math.MinInt16
	case codeInt64:
		v, below = int64(r.wide(8, 0)), math.MinInt32
	default:
		if c >= negFixMin {
			r.i++
			return int64(int8(c))
		}
		u := r.uint()
		if u > math.MaxInt64 {
			r.i = at
			r.fail(errRange)
			return 0
		}
		return int64(u)
	}
	if v >= below && r.err == nil {
		r.i = at
		r.fail(errWidth)
		return 0
	}
	return v
}

// within reads a number in [low, high].
func (r *reader) within(low, high int64) int64 {
	v := r.int()
	if (v < low || v > high) && r.err == nil {
		r.fail(errRange)
		return 0
	}
	return v
}

// hash32 reads a number that fits 32 bits.
func (r *reader) hash32() uint32 {
	v := r.uint()
	if v > math.MaxUint32 {
		r.fail(errRange)
		return 0
	}
	return uint32(v)
}

func (r *reader) day() int32 { return int32(r.within(math.MinInt32, math.MaxInt32)) }

// array reads the head of an array. A length that the remaining bytes cannot
// hold is refused before anything is sized by it.
func (r *reader) array() int {
	if r.i >= len(r.b) {
		r.fail(errTruncated)
		return 0
	}
	var n uint64
	switch c := r.b[r.i]; {
	case c >= fixArray && c <= fixArrayTo:
		n = uint64(c & 0x0f)
		r.i++
	case c == codeArr16:
		n = r.wide(2, 16)
	case c == codeArr32:
		n = r.wide(4, math.MaxUint16+1)
	default:
		r.fail(errType)
	}
	if n > uint64(len(r.b)-r.i) {
		r.fail(errTruncated)
		return 0
	}
	return int(n)
}

// exactly reads the head of an array of n values.
func (r *reader) exactly(n int) {
	if r.array() != n && r.err == nil {
		r.fail(errLength)
	}
}

// groups reads the head of a flat array of entries of size values each, and
// returns how many entries there are.
func (r *reader) groups(size int) int {
	n := r.array()
	if n%size != 0 {
		r.fail(errLength)
		return 0
	}
	return n / size
}

// null skips a nil if it is next.
func (r *reader) null() bool {
	if r.i < len(r.b) && r.b[r.i] == codeNil {
		r.i++
		return true
	}
	return false
}
