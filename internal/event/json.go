package event

import (
	"math"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonScanner reads RFC 8259 strictly: it also refuses what the RFC leaves
// open, namely names that occur twice in one object, lone surrogates, and a
// byte order mark. Whatever it skips it still checks. Buffers are reused.
type jsonScanner struct {
	data     []byte
	pos      int
	maxDepth int
	fault    string // the first fault, which lies at pos
	scratch  []byte // strings that had escapes
	names    nameSet
}

// scan reads the one value that data consists of; members of an object go to
// into, unless that is nil. On false, fault and pos say why.
func (s *jsonScanner) scan(data []byte, maxDepth int, v *value, into *slots) bool {
	s.data, s.pos, s.maxDepth, s.fault = data, 0, maxDepth, ""
	s.scratch, s.names.names = s.scratch[:0], s.names.names[:0]
	s.space()
	if !s.value(1, v, into) {
		return false
	}
	s.space()
	if s.pos < len(s.data) {
		return s.fail("bytes after the value")
	}
	return true
}

func (s *jsonScanner) fail(fault string) bool {
	if s.fault == "" {
		s.fault = fault
	}
	return false
}

func (s *jsonScanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// value reads the value at pos; v nil: only checks it. An object or array of
// depth 1 is not in another.
func (s *jsonScanner) value(depth int, v *value, into *slots) bool {
	if s.pos >= len(s.data) {
		return s.fail("ends within a value")
	}
	switch c := s.data[s.pos]; c {
	case '"':
		text, ok := s.text()
		if v != nil {
			v.kind, v.text = isText, text
		}
		return ok
	case '{':
		if v != nil {
			v.kind = isObject
		}
		return s.object(depth, into)
	case '[':
		if v != nil {
			v.kind = isOther
		}
		return s.array(depth)
	case 't':
		return s.literal("true", v, isBool, 1)
	case 'f':
		return s.literal("false", v, isBool, 0)
	case 'n':
		return s.literal("null", v, isNull, 0)
	default:
		if c == '-' || c >= '0' && c <= '9' {
			return s.number(v)
		}
		return s.fail("no value begins like this")
	}
}

func (s *jsonScanner) literal(word string, v *value, kind valueKind, num int64) bool {
	if len(s.data)-s.pos < len(word) || string(s.data[s.pos:s.pos+len(word)]) != word {
		return s.fail("no value begins like this")
	}
	s.pos += len(word)
	if v != nil {
		v.kind, v.num = kind, num
	}
	return true
}

func (s *jsonScanner) object(depth int, into *slots) bool {
	if depth > s.maxDepth {
		return s.fail("nested too deeply")
	}
	s.pos++
	begin := s.names.begin()
	for first := true; ; first = false {
		s.space()
		if s.pos >= len(s.data) {
			return s.fail("ends within an object")
		}
		switch c := s.data[s.pos]; {
		case c == '}' && first:
			s.pos++
			return true
		case c == '}':
			s.pos++
			if _, found := s.names.end(begin); found {
				return s.fail("an object has a name twice")
			}
			return true
		case c == ',' && !first:
			s.pos++
			s.space()
		case !first:
			return s.fail("no comma after a member")
		}
		if s.pos >= len(s.data) || s.data[s.pos] != '"' {
			return s.fail("no name where a member begins")
		}
		name, ok := s.text()
		if !ok {
			return false
		}
		s.space()
		if s.pos >= len(s.data) || s.data[s.pos] != ':' {
			return s.fail("no colon after a name")
		}
		s.pos++
		s.space()
		if !s.member(depth, name, into) {
			return false
		}
	}
}

// member reads the value of the member of this name.
func (s *jsonScanner) member(depth int, name []byte, into *slots) bool {
	if into != nil {
		if slot, ok := into.find(name); ok {
			v := into.claim(slot)
			if v == nil {
				return s.fail("an object has a name twice")
			}
			if into.inner != nil && slot == into.at {
				// The data of an event: as deep as it may be on its own.
				return s.value(1, v, into.inner)
			}
			return s.value(depth+1, v, nil)
		}
	}
	s.names.add(name)
	return s.value(depth+1, nil, nil)
}

func (s *jsonScanner) array(depth int) bool {
	if depth > s.maxDepth {
		return s.fail("nested too deeply")
	}
	s.pos++
	for first := true; ; first = false {
		s.space()
		if s.pos >= len(s.data) {
			return s.fail("ends within an array")
		}
		switch c := s.data[s.pos]; {
		case c == ']':
			s.pos++
			return true
		case c == ',' && !first:
			s.pos++
			s.space()
		case !first:
			return s.fail("no comma after an element")
		}
		if !s.value(depth+1, nil, nil) {
			return false
		}
	}
}

// number reads a number. Only one in integer form that fits int64 has a value.
func (s *jsonScanner) number(v *value) bool {
	negative := s.data[s.pos] == '-'
	if negative {
		s.pos++
	}
	begin := s.pos
	var n uint64
	fits := true
	for s.pos < len(s.data) {
		c := s.data[s.pos] - '0'
		if c > 9 {
			break
		}
		if n > (math.MaxUint64-9)/10 {
			fits = false
		}
		n = 10*n + uint64(c)
		s.pos++
	}
	switch digits := s.pos - begin; {
	case digits == 0:
		return s.fail("a number without digits")
	case digits > 1 && s.data[begin] == '0':
		return s.fail("a number with a leading zero")
	}
	if s.pos < len(s.data) && s.data[s.pos] == '.' {
		fits = false
		s.pos++
		if !s.digits() {
			return false
		}
	}
	if s.pos < len(s.data) && s.data[s.pos]|0x20 == 'e' {
		fits = false
		s.pos++
		if s.pos < len(s.data) && (s.data[s.pos] == '+' || s.data[s.pos] == '-') {
			s.pos++
		}
		if !s.digits() {
			return false
		}
	}
	if v == nil {
		return true
	}
	v.kind = isInteger
	switch {
	case fits && !negative && n <= math.MaxInt64:
		v.num = int64(n)
	case fits && negative && n <= 1<<63:
		v.num = -int64(n)
	default:
		v.kind = isNumber
	}
	return true
}

func (s *jsonScanner) digits() bool {
	begin := s.pos
	for s.pos < len(s.data) && s.data[s.pos]-'0' <= 9 {
		s.pos++
	}
	if s.pos == begin {
		return s.fail("a number without digits")
	}
	return true
}

// special marks the bytes at which reading a string must look closer: its end,
// escapes, control characters, and what is not ASCII.
var special = func() (marks [256]bool) {
	for i := range marks {
		marks[i] = i < 0x20 || i == '"' || i == '\\' || i >= utf8.RuneSelf
	}
	return marks
}()

// text reads the string at pos. It is a part of data, or of scratch if it had
// escapes.
func (s *jsonScanner) text() ([]byte, bool) {
	s.pos++
	begin, ascii := s.pos, true
	for i, c := range s.data[begin:] {
		if !special[c] {
			continue
		}
		switch {
		case c == '"':
			text := s.data[begin : begin+i]
			s.pos = begin + i + 1
			if !ascii && !utf8.Valid(text) {
				return nil, s.fail("a string is not UTF-8")
			}
			return text, true
		case c == '\\':
			s.pos = begin + i
			return s.escaped(begin)
		case c < 0x20:
			s.pos = begin + i
			return nil, s.fail("a control character in a string")
		default:
			ascii = false
		}
	}
	s.pos = len(s.data)
	return nil, s.fail("ends within a string")
}

// escaped reads on in a string whose first escape is at pos.
func (s *jsonScanner) escaped(begin int) ([]byte, bool) {
	start := len(s.scratch)
	s.scratch = append(s.scratch, s.data[begin:s.pos]...)
	for s.pos < len(s.data) {
		c := s.data[s.pos]
		switch {
		case c == '"':
			s.pos++
			text := s.scratch[start:]
			if !utf8.Valid(text) {
				return nil, s.fail("a string is not UTF-8")
			}
			return text, true
		case c < 0x20:
			return nil, s.fail("a control character in a string")
		case c != '\\':
			s.scratch = append(s.scratch, c)
			s.pos++
			continue
		}
		if s.pos++; s.pos >= len(s.data) {
			break
		}
		c = s.data[s.pos]
		s.pos++
		switch c {
		case '"', '\\', '/':
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r, ok := s.hex4()
			if ok && utf16.IsSurrogate(r) {
				var low rune
				if s.pos+1 < len(s.data) && s.data[s.pos] == '\\' && s.data[s.pos+1] == 'u' {
					s.pos += 2
					low, ok = s.hex4()
				}
				if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
					return nil, s.fail("a lone surrogate in a string")
				}
			}
			if !ok {
				return nil, s.fail("a wrong escape in a string")
			}
			s.scratch = utf8.AppendRune(s.scratch, r)
			continue
		default:
			return nil, s.fail("a wrong escape in a string")
		}
		s.scratch = append(s.scratch, c)
	}
	return nil, s.fail("ends within a string")
}

func (s *jsonScanner) hex4() (rune, bool) {
	if len(s.data)-s.pos < 4 {
		return 0, false
	}
	var r rune
	for _, c := range s.data[s.pos : s.pos+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	s.pos += 4
	return r, true
}
