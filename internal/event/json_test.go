package event

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// jsonSeeds are accepted and refused for reasons of every kind.
var jsonSeeds = []string{
	`{}`, `[]`, `""`, `0`, `-0`, `null`, `true`, `false`, ` { "a" : [ 1 , 2.5e+3 , -1E-2 ] } `, goodData,
	`{"a":1,"a":2}`, `{"a":{"b":1},"b":{"b":2}}`, `{"a":1,"\u0061":2}`, `[{"a":1},{"a":1}]`,
	``, ` `, `{`, `}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{a:1}`, `[1,]`, `[,]`, `[1 2]`, `{"a":1 "b":2}`, `{"a" 1}`,
	`01`, `-`, `-01`, `1.`, `.1`, `1e`, `1e+`, `+1`, `0x1`, `1.5.5`, `NaN`, `Infinity`, `tru`, `nul`, `truee`, `nulll`,
	`"`, `"a`, `"\`, `"\x"`, `"\u12"`, `"\u12g4"`, `"\ud800"`, `"\udc00"`, `"\ud800\u0041"`, `"\ud83d\ude00"`, `"\ud83d\ud83d\ude00"`,
	"\"\x00\"", "\"\x1f\"", "\"\x7f\"", "\"\xff\"", "\"\xed\xa0\x80\"", "\"\u20ac\"", "\"\\n\u20ac\xff\"", "\ufeff{}", `{} {}`, `{}x`, "{}\x00",
	`9223372036854775807`, `9223372036854775808`, `-9223372036854775808`, `-9223372036854775809`, `18446744073709551616`, `99999999999999999999999`,
	strings.Repeat("[", 16) + strings.Repeat("]", 16), strings.Repeat("[", 17) + strings.Repeat("]", 17), strings.Repeat(`{"a":`, 17) + "1" + strings.Repeat("}", 17),
	`{"1":1,"2":1,"3":1,"4":1,"5":1,"6":1,"7":1,"8":1,"9":1,"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"a":1}`,
	`{"1":1,"2":1,"3":1,"4":1,"5":1,"6":1,"7":1,"8":1,"9":1,"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1}`,
}

// FuzzJSON compares with encoding/json: the scanner accepts exactly what
// encoding/json calls valid and what in addition is UTF-8, has no name twice
// in one object, no lone surrogate, and is not nested too deeply; and it reads
// the same values.
func FuzzJSON(f *testing.F) {
	for _, seed := range jsonSeeds {
		f.Add([]byte(seed))
	}
	var s jsonScanner
	f.Fuzz(func(t *testing.T, data []byte) {
		const depth = 16
		var v value
		got := s.scan(data, depth, &v, nil)
		want := utf8.Valid(data) && json.Valid(data) && strict(data, depth)
		if got != want {
			t.Fatalf("accepted %t, want %t (byte %d: %s): %q", got, want, s.pos, s.fault, data)
		}
		if !got {
			if s.fault == "" {
				t.Fatalf("no reason to refuse %q", data)
			}
			return
		}
		var text string
		var integer int64
		switch v.kind {
		case isText:
			if err := json.Unmarshal(data, &text); err != nil || text != string(v.text) {
				t.Fatalf("%q reads as %q, want %q, %v", data, v.text, text, err)
			}
		case isInteger:
			if err := json.Unmarshal(data, &integer); err != nil || integer != v.num {
				t.Fatalf("%q reads as %d, want %d, %v", data, v.num, integer, err)
			}
		case isNumber:
			if err := json.Unmarshal(data, &integer); err == nil {
				t.Fatalf("%q is no int64, yet reads as %d", data, integer)
			}
		}
	})
}

// strict checks valid JSON for what encoding/json lets pass.
func strict(data []byte, depth int) bool {
	if loneSurrogate(data) {
		return false
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var open []map[string]bool // the names of each open object, nil for an array
	name := false              // whether a name comes next
	for {
		token, err := d.Token()
		if err != nil {
			return true
		}
		switch tok := token.(type) {
		case json.Delim:
			switch tok {
			case '{':
				open = append(open, map[string]bool{})
			case '[':
				open = append(open, nil)
			default:
				open = open[:len(open)-1]
			}
			if len(open) > depth {
				return false
			}
			name = len(open) > 0 && open[len(open)-1] != nil
			continue
		case string:
			if name {
				names := open[len(open)-1]
				if names[tok] {
					return false
				}
				names[tok] = true
				name = false
				continue
			}
		}
		name = len(open) > 0 && open[len(open)-1] != nil
	}
}

// loneSurrogate looks through the escapes of valid JSON, in which a backslash
// stands in strings only.
func loneSurrogate(data []byte) bool {
	unit := func(i int) int { // the kind of \u escape at i: 1 high, 2 low
		if i+6 > len(data) || data[i] != '\\' || data[i+1] != 'u' || data[i+2]|0x20 != 'd' {
			return 0
		}
		switch c := data[i+3] | 0x20; {
		case c == '8' || c == '9' || c == 'a' || c == 'b':
			return 1
		case c >= 'c' && c <= 'f':
			return 2
		}
		return 0
	}
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		switch unit(i) {
		case 0:
			i++
		case 1:
			if unit(i+6) != 2 {
				return true
			}
			i += 11
		case 2:
			return true
		}
	}
	return false
}
