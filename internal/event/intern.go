package event

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
