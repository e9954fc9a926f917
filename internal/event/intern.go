package event

import "strings"

// internTable shares equal strings between events: sources, categories,
// channels, rates. It is bounded: full, it forgets all and begins again, so
// that a flood of different strings costs allocations and no memory.
type internTable struct{ known map[string]string }

// maxInterned bounds the table to about a megabyte, as no string in it is
// longer than maxID.
const maxInterned = 4096

func (t *internTable) intern(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if s, ok := t.known[string(b)]; ok {
		return s
	}
	if t.known == nil {
		t.known = make(map[string]string)
	} else if len(t.known) >= maxInterned {
		clear(t.known)
	}
	s := string(b)
	t.known[s] = s
	return s
}

// textBlocks makes strings, many in one piece of memory.
type textBlocks struct{ block strings.Builder }

const blockBytes = 4 << 10

func (t *textBlocks) text(b []byte) string {
	if t.block.Cap()-t.block.Len() < len(b) {
		t.block.Reset() // the strings keep the old one
		t.block.Grow(max(blockBytes, len(b)))
	}
	at := t.block.Len()
	t.block.Write(b)
	return t.block.String()[at:]
}
