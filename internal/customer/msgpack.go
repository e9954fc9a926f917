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
	codeBin8   = 0xc4
	codeBin16  = 0xc5
	codeBin32  = 0xc6
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

// openBin begins a byte string whose length is known only at its end; at is
// closeBin's.
func openBin(b []byte) (_ []byte, at int) { return append(b, codeBin16, 0, 0), len(b) }

// closeBin ends the byte string that began at the index at, with the narrowest
// head.
func closeBin(b []byte, at int) []byte {
	const head = 3 // that of openBin
	switch n := len(b) - at - head; {
	case n <= math.MaxUint8:
		b[at], b[at+1] = codeBin8, byte(n)
		return append(b[:at+2], b[at+head:]...)
	case n <= math.MaxUint16:
		binary.BigEndian.PutUint16(b[at+1:], uint16(n))
		return b
	default:
		b = append(b, 0, 0)
		copy(b[at+head+2:], b[at+head:])
		b[at] = codeBin32
		binary.BigEndian.PutUint32(b[at+1:], uint32(n))
		return b
	}
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

func (r *reader) uint() uint64 {
	if r.i < len(r.b) && r.b[r.i] <= posFixMax {
		r.i++
		return uint64(r.b[r.i-1])
	}
	return r.wide()
}

// wide reads an unsigned number that has a code before it.
func (r *reader) wide() uint64 {
	p := r.b[r.i:]
	if len(p) == 0 {
		r.fail(errTruncated)
		return 0
	}
	var v, least uint64 // least is the smallest number that needs the width
	var n int
	switch p[0] {
	case codeUint64:
		if n = 9; len(p) >= 9 {
			v, least = binary.BigEndian.Uint64(p[1:]), math.MaxUint32+1
		}
	case codeUint32:
		if n = 5; len(p) >= 5 {
			v, least = uint64(binary.BigEndian.Uint32(p[1:])), math.MaxUint16+1
		}
	case codeUint16:
		if n = 3; len(p) >= 3 {
			v, least = uint64(binary.BigEndian.Uint16(p[1:])), math.MaxUint8+1
		}
	case codeUint8:
		if n = 2; len(p) >= 2 {
			v, least = uint64(p[1]), posFixMax+1
		}
	default:
		r.fail(errType)
		return 0
	}
	switch {
	case len(p) < n:
		r.fail(errTruncated)
		return 0
	case v < least:
		r.fail(errWidth)
		return 0
	}
	r.i += n
	return v
}

func (r *reader) int() int64 {
	if r.i < len(r.b) {
		switch c := r.b[r.i]; {
		case c <= posFixMax || c >= negFixMin:
			r.i++
			return int64(int8(c))
		case c >= codeInt8 && c <= codeInt64:
			return r.negative()
		}
	}
	v := r.wide()
	if v > math.MaxInt64 {
		r.fail(errRange)
		return 0
	}
	return int64(v)
}

// negative reads a signed number that has a code before it. Those forms are
// for negative numbers only.
func (r *reader) negative() int64 {
	p := r.b[r.i:]
	var v, narrow int64 // narrow is the least number that a narrower form holds
	n := 1 + 1<<(p[0]-codeInt8)
	if len(p) < n {
		r.fail(errTruncated)
		return 0
	}
	switch p[0] {
	case codeInt8:
		v, narrow = int64(int8(p[1])), -32
	case codeInt16:
		v, narrow = int64(int16(binary.BigEndian.Uint16(p[1:]))), math.MinInt8
	case codeInt32:
		v, narrow = int64(int32(binary.BigEndian.Uint32(p[1:]))), math.MinInt16
	default:
		v, narrow = int64(binary.BigEndian.Uint64(p[1:])), math.MinInt32
	}
	if v >= narrow {
		r.fail(errWidth)
		return 0
	}
	r.i += n
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
	var n, least int
	p := r.b[r.i:]
	switch c := p[0]; {
	case c >= fixArray && c <= fixArrayTo:
		n = int(c & 0x0f)
		r.i++
	case c == codeArr16 && len(p) >= 3:
		n, least = int(binary.BigEndian.Uint16(p[1:])), 16
		r.i += 3
	case c == codeArr32 && len(p) >= 5:
		n, least = int(binary.BigEndian.Uint32(p[1:])), math.MaxUint16+1
		r.i += 5
	default:
		r.fail(errType)
		return 0
	}
	if n < least {
		r.fail(errWidth)
		return 0
	}
	if n > len(r.b)-r.i {
		r.fail(errTruncated)
		return 0
	}
	return n
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

// bin reads the head of a byte string and returns where it ends.
func (r *reader) bin() (end int) {
	p := r.b[r.i:]
	var n, least, head int
	switch {
	case len(p) >= 2 && p[0] == codeBin8:
		head, n = 2, int(p[1])
	case len(p) >= 3 && p[0] == codeBin16:
		head, n, least = 3, int(binary.BigEndian.Uint16(p[1:])), math.MaxUint8+1
	case len(p) >= 5 && p[0] == codeBin32:
		head, n, least = 5, int(binary.BigEndian.Uint32(p[1:])), math.MaxUint16+1
	case len(p) == 0 || p[0] >= codeBin8 && p[0] <= codeBin32:
		r.fail(errTruncated)
		return r.i
	default:
		r.fail(errType)
		return r.i
	}
	switch {
	case n < least:
		r.fail(errWidth)
	case n > len(p)-head:
		r.fail(errTruncated)
	default:
		r.i += head
		return r.i + n
	}
	return r.i
}

// packed reads the number of packed entries up to end, each of which has at
// least so many bytes.
func (r *reader) packed(end, least int) int {
	n := r.uvarint()
	if r.err == nil && n > uint64(max(end-r.i, 0)/least) {
		r.fail(errTruncated)
	}
	if r.err != nil {
		return 0
	}
	return int(n)
}

// ends checks that the byte string that ends there was read, no more and no
// less.
func (r *reader) ends(end int) {
	if r.i != end && r.err == nil {
		r.fail(errLength)
	}
}

// uvarint reads a varint of encoding/binary in its narrowest form.
func (r *reader) uvarint() uint64 {
	if r.i < len(r.b) && r.b[r.i] < 0x80 {
		r.i++
		return uint64(r.b[r.i-1])
	}
	v, n := binary.Uvarint(r.b[r.i:])
	switch {
	case n == 0:
		r.fail(errTruncated)
		return 0
	case n < 0:
		r.fail(errRange)
		return 0
	case r.b[r.i+n-1] == 0:
		r.fail(errWidth)
		return 0
	}
	r.i += n
	return v
}

// varint reads a signed one.
func (r *reader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// amount reads an amount of money, which is never negative.
func (r *reader) amount() int64 {
	v := r.uvarint()
	if v > maxAmount {
		r.fail(errRange)
		return 0
	}
	return int64(v)
}

func (r *reader) byte() byte {
	if r.i >= len(r.b) {
		r.fail(errTruncated)
		return 0
	}
	r.i++
	return r.b[r.i-1]
}

func (r *reader) fixed32() uint32 {
	if len(r.b)-r.i < 4 {
		r.fail(errTruncated)
		return 0
	}
	r.i += 4
	return binary.LittleEndian.Uint32(r.b[r.i-4:])
}

func (r *reader) fixed64() uint64 {
	if len(r.b)-r.i < 8 {
		r.fail(errTruncated)
		return 0
	}
	r.i += 8
	return binary.LittleEndian.Uint64(r.b[r.i-8:])
}

// letters reads the three letters of a currency.
func (r *reader) letters() (c Currency) {
	if len(r.b)-r.i < len(c) {
		r.fail(errTruncated)
		return c
	}
	copy(c[:], r.b[r.i:])
	r.i += len(c)
	return c
}

// null skips a nil if it is next.
func (r *reader) null() bool {
	if r.i < len(r.b) && r.b[r.i] == codeNil {
		r.i++
		return true
	}
	return false
}
