package fold

import (
	"bytes"
	"encoding/binary"

	"github.com/tierstream/tierstream/internal/protocol"
)

// Decision is the part of an output that its namespace, build, mode and wall
// clock have no part in: what the chain covers, and what replays compare. Of a
// tier change it is the payload without mode, decided_at, namespace, engine and
// cause.trace_id, and without the last brace; of a dead letter its code, topic
// and offset. It is nil for what this package did not write as JSON.
//
// The first byte tells the two apart: { begins a change, x a dead letter.
func Decision(m *protocol.Message) []byte {
	if m.Stream == protocol.DeadLetters {
		// Ours come last; the original's may have any name.
		at := len(m.Headers) - 1
		for at >= 0 && m.Headers[at].Key != "tierstream-code" {
			at--
		}
		if at < 0 {
			return nil
		}
		d := []byte{'x'}
		for _, h := range m.Headers[at:] {
			switch h.Key {
			case "tierstream-code", "tierstream-topic", "tierstream-offset":
				d = binary.AppendUvarint(d, uint64(len(h.Value)))
				d = append(d, h.Value...)
			}
		}
		return d
	}
	// A quote inside a JSON string is escaped, so that these stand where
	// change wrote them and nowhere else.
	end := bytes.LastIndex(m.Value, []byte(`,"mode":"`))
	if end < 0 {
		return nil
	}
	d := m.Value[:end:end]
	trace := []byte(`,"trace_id":"`)
	if at := bytes.Index(d, trace); at >= 0 {
		n := bytes.IndexByte(d[at+len(trace):], '"')
		if n < 0 {
			return nil
		}
		return append(bytes.Clone(d[:at]), d[at+len(trace)+n+1:]...)
	}
	return d
}
