package customer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
	"pgregory.net/rapid"
)

// edges are the numbers around which a form's width changes.
func edges() []int64 {
	var numbers []int64
	for bits := range 63 {
		for _, n := range []int64{1<<bits - 1, 1 << bits, 1<<bits + 1} {
			numbers = append(numbers, n, -n)
		}
	}
	return append(numbers, 0, -32, -33, math.MaxInt64, math.MinInt64)
}

func TestIntegersAreWrittenAsTheLibraryDoes(t *testing.T) {
	var buf bytes.Buffer
	enc := msgpack.NewEncoder(&buf)
	library := func(encode func() error) []byte {
		buf.Reset()
		if err := encode(); err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	for _, n := range edges() {
		want := library(func() error { return enc.EncodeInt(n) })
		if got := appendInt(nil, n); !bytes.Equal(got, want) {
			t.Errorf("int %d: %x, the library writes %x", n, got, want)
		}
		d := reader{b: want}
		if got := d.int(); got != n || d.err != nil || d.i != len(want) {
			t.Errorf("int %d: read %d, %v", n, got, d.err)
		}
		u := uint64(n)
		want = library(func() error { return enc.EncodeUint(u) })
		if got := appendUint(nil, u); !bytes.Equal(got, want) {
			t.Errorf("uint %d: %x, the library writes %x", u, got, want)
		}
		d = reader{b: want}
		if got := d.uint(); got != u || d.err != nil || d.i != len(want) {
			t.Errorf("uint %d: read %d, %v", u, got, d.err)
		}
		want = library(func() error { return enc.EncodeUint64(u) })
		if got := appendUint64(nil, u); !bytes.Equal(got, want) {
			t.Errorf("uint64 %d: %x, the library writes %x", u, got, want)
		}
	}
	for _, n := range []int{0, 1, 15, 16, math.MaxUint16, math.MaxUint16 + 1} {
		want := library(func() error { return enc.EncodeArrayLen(n) })
		if got := appendArray(nil, n); !bytes.Equal(got, want) {
			t.Errorf("array of %d: %x, the library writes %x", n, got, want)
		}
		d := reader{b: append(slices.Clone(want), make([]byte, n)...)}
		if got := d.array(); got != n || d.err != nil {
			t.Errorf("array of %d: read %d, %v", n, got, d.err)
		}
	}
	for _, n := range []int{0, 1, math.MaxUint8, math.MaxUint8 + 1, math.MaxUint16, math.MaxUint16 + 1} {
		bytes := bytes.Repeat([]byte{7}, n)
		want := library(func() error { return enc.EncodeBytes(bytes) })
		b, at := openBin([]byte{1})
		b = closeBin(append(b, bytes...), at)[1:]
		if !slices.Equal(b, want) {
			t.Errorf("%d bytes: %.9x, the library writes %.9x", n, b, want)
		}
		d := reader{b: want}
		if end := d.bin(); d.err != nil || end != len(want) || !slices.Equal(d.b[d.i:end], bytes) {
			t.Errorf("%d bytes: read to %d, %v", n, end, d.err)
		}
	}
	if got, want := appendCurrency(nil, Currency{'E', 'U', 'R'}), library(func() error { return enc.EncodeString("EUR") }); !bytes.Equal(got, want) {
		t.Errorf("currency: %x, the library writes %x", got, want)
	}
	if got, want := appendCurrency(nil, Currency{}), library(enc.EncodeNil); !bytes.Equal(got, want) {
		t.Errorf("no currency: %x, the library writes %x", got, want)
	}
}

func TestReaderRefusesWideAndShortForms(t *testing.T) {
	for _, b := range [][]byte{
		{codeUint8, 127}, {codeUint16, 0, 255}, {codeUint32, 0, 0, 255, 255}, {codeUint64, 0, 0, 0, 0, 255, 255, 255, 255},
		{codeInt8, 5}, {codeInt8, 0xe0}, {codeInt16, 0xff, 0x80}, {codeInt32, 0xff, 0xff, 0x80, 0},
		{codeInt64, 0xff, 0xff, 0xff, 0xff, 0x80, 0, 0, 0}, {codeInt64, 0, 0, 0, 0, 0, 0, 0, 1},
		{codeUint64, 0x80, 0, 0, 0, 0, 0, 0, 0}, // more than an int64
		{}, {codeUint8}, {codeUint64, 1, 2, 3}, {codeInt16, 1}, {codeNil}, {fixArray},
	} {
		d := reader{b: b}
		if n := d.int(); d.err == nil || n != 0 {
			t.Errorf("%x: read %d, %v", b, n, d.err)
		}
	}
	for _, b := range [][]byte{{fixArray | 1}, {codeArr16, 0, 15}, {codeArr32, 0, 0, 1, 0}, {codeArr32, 255, 255, 255, 255}, {codeArr16, 0}, {}} {
		d := reader{b: b}
		if n := d.array(); d.err == nil || n != 0 {
			t.Errorf("array %x: read %d, %v", b, n, d.err)
		}
	}
}

func TestReaderRefusesWideAndShortPackedForms(t *testing.T) {
	for _, b := range [][]byte{{}, {0x80}, {0x80, 0}, {0xff, 0x80, 0}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2}} {
		d := reader{b: b}
		if n := d.uvarint(); d.err == nil || n != 0 {
			t.Errorf("varint %x: read %d, %v", b, n, d.err)
		}
	}
	for _, n := range edges() {
		b := binary.AppendVarint(nil, n)
		d := reader{b: b}
		if got := d.varint(); got != n || d.err != nil || d.i != len(b) {
			t.Errorf("varint %d: read %d, %v", n, got, d.err)
		}
	}
	for _, b := range [][]byte{{}, {codeBin8}, {codeBin8, 1}, {codeBin16, 0, 1, 7}, {codeBin16, 1}, {codeBin32, 0, 0, 0, 1, 7}, {codeNil}, {fixStr | 1, 'a'}} {
		d := reader{b: b}
		if d.bin(); d.err == nil {
			t.Errorf("bytes %x: accepted", b)
		}
	}
	for name, read := range map[string]func(*reader){
		"byte": func(r *reader) { r.byte() }, "fixed32": func(r *reader) { r.fixed32() }, "fixed64": func(r *reader) { r.fixed64() }, "letters": func(r *reader) { r.letters() },
	} {
		d := reader{}
		if read(&d); !errors.Is(d.err, errTruncated) {
			t.Errorf("%s of nothing: %v", name, d.err)
		}
	}
}

// rewrite decodes any value with the library and encodes it again: it takes
// the whole record apart as MessagePack, without knowing what it means.
func rewrite(t rapid.TB, b []byte) []byte {
	t.Helper()
	src := bytes.NewReader(b)
	dec := msgpack.NewDecoder(src)
	var out bytes.Buffer
	enc := msgpack.NewEncoder(&out)
	var value func() error
	value = func() error {
		code, err := dec.PeekCode()
		switch {
		case err != nil:
			return err
		case code == codeNil:
			if err := dec.DecodeNil(); err != nil {
				return err
			}
			return enc.EncodeNil()
		case code >= codeBin8 && code <= codeBin32:
			s, err := dec.DecodeBytes()
			if err != nil {
				return err
			}
			return enc.EncodeBytes(s)
		case code&0xe0 == fixStr:
			s, err := dec.DecodeString()
			if err != nil {
				return err
			}
			return enc.EncodeString(s)
		case code >= fixArray && code <= fixArrayTo, code == codeArr16, code == codeArr32:
			n, err := dec.DecodeArrayLen()
			if err != nil {
				return err
			}
			if err := enc.EncodeArrayLen(n); err != nil {
				return err
			}
			for range n {
				if err := value(); err != nil {
					return err
				}
			}
			return nil
		case code >= codeInt8 && code <= codeInt64 || code >= negFixMin:
			n, err := dec.DecodeInt64()
			if err != nil {
				return err
			}
			return enc.EncodeInt(n)
		}
		n, err := dec.DecodeUint64()
		if err != nil {
			return err
		}
		return enc.EncodeUint(n)
	}
	if err := value(); err != nil {
		t.Fatalf("the library cannot read the record: %v", err)
	}
	if src.Len() > 0 {
		t.Fatalf("the library left %d bytes of the record", src.Len())
	}
	return out.Bytes()
}

func TestRecordIsMessagePackInNarrowestForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := anyRecord(t)
		r.Seq = 1 << 63 // the one number of fixed width is nine bytes by value, too
		b := r.Append(nil)
		if got := rewrite(t, b[1:]); !bytes.Equal(got, b[1:]) {
			t.Fatalf("the library writes\n%x, the record is\n%x", got, b[1:])
		}
	})
}
