package search

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"unsafe"

	"github.com/tierstream/tierstream/internal/protocol"
)

// A search must copy a protocol.Machine and tell two of them apart, down to
// fields that it does not show. Both are derived from the type, so that a
// field added there is not forgotten here: one of a kind that is not known
// here panics at start.

// clip makes a copied machine go on by itself: its slices lose their spare
// capacity, so that what it appends is not seen by the one it was copied from.
func clip(m *protocol.Machine) {
	for _, at := range sliceFields {
		h := (*sliceHeader)(unsafe.Add(unsafe.Pointer(m), at))
		h.capacity = h.length
	}
}

// sliceHeader is a slice in memory, see reflect.SliceHeader.
type sliceHeader struct {
	_                unsafe.Pointer
	length, capacity int
}

var sliceFields = func() (at []uintptr) {
	for f := range reflect.TypeFor[protocol.Machine]().Fields() {
		if f.Type.Kind() == reflect.Slice {
			at = append(at, f.Offset)
		}
	}
	return at
}()

// appendMachine appends a form of m that is equal for machines that act
// equally. It leaves out the owner's nonce, which is a name: see world.key.
func appendMachine(b []byte, m *protocol.Machine) []byte { return machineForm(b, unsafe.Pointer(m)) }

type form func(b []byte, at unsafe.Pointer) []byte

var machineForm = formOf(reflect.TypeFor[protocol.Machine](), "Machine")

func formOf(t reflect.Type, path string) form {
	switch t {
	case reflect.TypeFor[protocol.Nonce]():
		return func(b []byte, _ unsafe.Pointer) []byte { return b }
	case reflect.TypeFor[*protocol.Entry]():
		return func(b []byte, at unsafe.Pointer) []byte { return append(b, (*(**protocol.Entry)(at)).Journal...) }
	case reflect.TypeFor[protocol.Hash](): // eight bytes tell the points of a search apart
		return func(b []byte, at unsafe.Pointer) []byte { return append(b, unsafe.Slice((*byte)(at), 8)...) }
	case reflect.TypeFor[error]():
		return func(b []byte, at unsafe.Pointer) []byte {
			if *(*error)(at) == nil {
				return append(b, 0)
			}
			return append(b, 1)
		}
	}
	switch k := t.Kind(); {
	case k >= reflect.Bool && k <= reflect.Uint64: // all that are plain bits
		n := t.Size()
		return func(b []byte, at unsafe.Pointer) []byte { return append(b, unsafe.Slice((*byte)(at), n)...) }
	case k == reflect.Struct:
		type field struct {
			at uintptr
			form
		}
		var fields []field
		for f := range t.Fields() {
			fields = append(fields, field{f.Offset, formOf(f.Type, path+"."+f.Name)})
		}
		return func(b []byte, at unsafe.Pointer) []byte {
			for i := range fields {
				b = fields[i].form(b, unsafe.Add(at, fields[i].at))
			}
			return b
		}
	case k == reflect.Slice:
		size, elem := t.Elem().Size(), formOf(t.Elem(), path+"[]")
		return func(b []byte, at unsafe.Pointer) []byte {
			n := (*sliceHeader)(at).length
			b = binary.AppendUvarint(b, uint64(n))
			data := *(*unsafe.Pointer)(at)
			for i := range n {
				b = elem(b, unsafe.Add(data, uintptr(i)*size))
			}
			return b
		}
	}
	panic(fmt.Sprintf("search: %s is a %s, which copying and comparing machines does not know", path, t))
}
