package event

import (
	"bytes"
	"io"
	"math"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// packScanner reads msgpack as strictly as jsonScanner reads JSON: names are
// UTF-8 strings, none occurs twice, nothing follows the value. A length is
// believed only as far as there are bytes: nothing is allocated by it.
type packScanner struct {
	data     []byte
	rest     bytes.Reader // unread part of data; the decoder adds no buffer of its own
	dec      *msgpack.Decoder
	maxDepth int
	fault    string // the first fault, which lies at pos()
	names    nameSet
}

func (s *packScanner) pos() int { return len(s.data) - s.rest.Len() }

// scan reads the one value that data consists of; members of a map go to into,
// unless that is nil. On false, fault and pos say why.
func (s *packScanner) scan(data []byte, maxDepth int, v *value, into *slots) bool {
	s.data, s.maxDepth, s.fault = data, maxDepth, ""
	s.names.names = s.names.names[:0]
	s.rest.Reset(data)
	if s.dec == nil {
		s.dec = msgpack.NewDecoder(&s.rest)
	} else {
		s.dec.ResetReader(&s.rest)
	}
	if !s.value(1, v, into) {
		return false
	}
	if s.rest.Len() > 0 {
		return s.fail("bytes after the value")
	}
	return true
}

func (s *packScanner) fail(fault string) bool {
	if s.fault == "" {
		s.fault = fault
	}
	return false
}

// value reads the next value; v nil: only checks it.
func (s *packScanner) value(depth int, v *value, into *slots) bool {
	c, err := s.dec.PeekCode()
	if err != nil {
		return s.fail("ends within a value")
	}
	var unused value
	if v == nil {
		v = &unused
	}
	switch {
	case msgpcode.IsString(c):
		v.kind = isText
		v.text, err = s.bytes()
		if err == nil && !utf8.Valid(v.text) {
			return s.fail("a string is not UTF-8")
		}
	case msgpcode.IsFixedNum(c), c >= msgpcode.Uint8 && c <= msgpcode.Int64:
		v.kind = isInteger
		if c == msgpcode.Uint64 {
			var n uint64
			if n, err = s.dec.DecodeUint64(); n > math.MaxInt64 {
				v.kind = isNumber
			}
			v.num = int64(n)
		} else {
			v.num, err = s.dec.DecodeInt64()
		}
	case c == msgpcode.Float, c == msgpcode.Double:
		v.kind = isNumber
		_, err = s.dec.DecodeFloat64()
	case c == msgpcode.True, c == msgpcode.False:
		v.kind = isBool
		var b bool
		if b, err = s.dec.DecodeBool(); b {
			v.num = 1
		}
	case c == msgpcode.Nil:
		v.kind = isNull
		err = s.dec.DecodeNil()
	case msgpcode.IsFixedMap(c), c == msgpcode.Map16, c == msgpcode.Map32:
		v.kind = isObject
		return s.object(depth, into)
	case msgpcode.IsFixedArray(c), c == msgpcode.Array16, c == msgpcode.Array32:
		v.kind = isOther
		return s.array(depth)
	case msgpcode.IsBin(c):
		v.kind = isOther
		_, err = s.bytes()
	case msgpcode.IsExt(c):
		v.kind = isOther
		var n int
		if _, n, err = s.dec.DecodeExtHeader(); err == nil {
			_, err = s.take(n)
		}
	default:
		return s.fail("no value begins like this")
	}
	if err != nil {
		return s.fail("ends within a value")
	}
	return true
}

// bytes reads a string or binary as a part of data.
func (s *packScanner) bytes() ([]byte, error) {
	n, err := s.dec.DecodeBytesLen()
	if err != nil {
		return nil, err
	}
	return s.take(n)
}

// take is the next n bytes of data.
func (s *packScanner) take(n int) ([]byte, error) {
	if n < 0 || n > s.rest.Len() {
		return nil, io.ErrUnexpectedEOF
	}
	begin := s.pos()
	_, err := s.rest.Seek(int64(n), io.SeekCurrent)
	return s.data[begin : begin+n], err
}

func (s *packScanner) object(depth int, into *slots) bool {
	if depth > s.maxDepth {
		return s.fail("nested too deeply")
	}
	n, err := s.dec.DecodeMapLen()
	if err != nil || n > s.rest.Len()/2 { // a member takes two bytes at least
		return s.fail("ends within a map")
	}
	begin := s.names.begin()
	for range n {
		c, err := s.dec.PeekCode()
		if err != nil {
			return s.fail("ends within a map")
		}
		if !msgpcode.IsString(c) {
			return s.fail("a map has a name that is not a string")
		}
		name, err := s.bytes()
		if err != nil {
			return s.fail("ends within a map")
		}
		if !utf8.Valid(name) {
			return s.fail("a string is not UTF-8")
		}
		var v *value
		if slot, ok := s.slot(name, into); ok {
			if v = into.claim(slot); v == nil {
				return s.fail("a map has a name twice")
			}
		} else {
			s.names.add(name)
		}
		if !s.value(depth+1, v, nil) {
			return false
		}
	}
	if _, found := s.names.end(begin); found {
		return s.fail("a map has a name twice")
	}
	return true
}

func (*packScanner) slot(name []byte, into *slots) (int, bool) {
	if into == nil {
		return 0, false
	}
	return into.find(name)
}

func (s *packScanner) array(depth int) bool {
	if depth > s.maxDepth {
		return s.fail("nested too deeply")
	}
	n, err := s.dec.DecodeArrayLen()
	if err != nil || n > s.rest.Len() {
		return s.fail("ends within an array")
	}
	for range n {
		if !s.value(depth+1, nil, nil) {
			return false
		}
	}
	return true
}
