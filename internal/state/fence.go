package state

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/tierstream/tierstream/internal/protocol"
)

// loading is the chain of a key generation that stands at no point of history
// yet. It is no hash, so it stands in no journal.
const loading = "loading"

// The fence's fields are text, so that a person with redis-cli can read them.
// Hashes and nonces are hex; lists are separated by commas; a position is
// next/leaderEpoch.

func appendIdentity(args []any, id protocol.Identity) []any {
	return append(args, u64(id.Epoch), id.Owner.String(), u64(id.Gen), u64(id.Seq), chainText(id))
}

func chainText(id protocol.Identity) string {
	if id.Loading {
		return loading
	}
	return id.Chain.String()
}

func u64(v uint64) string { return strconv.FormatUint(v, 10) }
func i64(v int64) string  { return strconv.FormatInt(v, 10) }

// appendState appends the fields that a batch moves, with their values.
func appendState(args []any, seq uint64, s *protocol.State, fl *protocol.Flood, p protocol.Published) []any {
	return append(args,
		"seq", u64(seq),
		"clock", i64(s.Clock),
		"watermark", i64(s.Watermark),
		"rules", s.Rules.String(),
		"fold", strconv.Itoa(s.Fold),
		"next", positionsText(s.Next),
		"sweep_due", i64(s.Sweep.Due),
		"sweep_customer", s.Sweep.Customer,
		"counters", listText(s.Counters),
		"read", i64(s.Read),
		"digest", hex.EncodeToString(s.Digest[:]),
		"flood_read", i64(fl.Read),
		"flood_counters", listText(fl.Counters),
		"published_seq", u64(p.Seq),
		"published_chain", p.Chain.String(),
		"published_offset", i64(p.Offset),
		"published_leader_epoch", strconv.Itoa(int(p.LeaderEpoch)),
	)
}

func appendGenesis(args []any, g *protocol.Genesis) []any {
	return append(args,
		"incarnation", g.Incarnation.String(),
		"live_since", i64(g.LiveSince),
	)
}

func listText(vs []int64) string {
	b := make([]byte, 0, 4*len(vs))
	for i, v := range vs {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, v, 10)
	}
	return string(b)
}

func positionsText(ps []protocol.Position) string {
	b := make([]byte, 0, 16*len(ps))
	for i, p := range ps {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, p.Next, 10)
		b = append(b, '/')
		b = strconv.AppendInt(b, int64(p.LeaderEpoch), 10)
	}
	return string(b)
}

// fields decodes text fields and remembers the first error.
type fields struct {
	m   map[string]string
	err error
}

func (f *fields) fail(name string, err error) {
	if f.err == nil && err != nil {
		f.err = fmt.Errorf("fence field %s %q: %w", name, f.m[name], err)
	}
}

func (f *fields) i64(name string) int64 {
	if f.m[name] == "" {
		return 0
	}
	v, err := strconv.ParseInt(f.m[name], 10, 64)
	f.fail(name, err)
	return v
}

func (f *fields) u64(name string) uint64 {
	if f.m[name] == "" {
		return 0
	}
	v, err := strconv.ParseUint(f.m[name], 10, 64)
	f.fail(name, err)
	return v
}

func (f *fields) bytes(name string, dst []byte) {
	s := f.m[name]
	if s == "" {
		return
	}
	if len(s) != 2*len(dst) {
		f.fail(name, fmt.Errorf("want %d hex digits", 2*len(dst)))
		return
	}
	_, err := hex.Decode(dst, []byte(s))
	f.fail(name, err)
}

func (f *fields) list(name string) []int64 {
	if f.m[name] == "" {
		return nil
	}
	var vs []int64
	for s := range strings.SplitSeq(f.m[name], ",") {
		v, err := strconv.ParseInt(s, 10, 64)
		f.fail(name, err)
		vs = append(vs, v)
	}
	return vs
}

func (f *fields) positions(name string) []protocol.Position {
	if f.m[name] == "" {
		return nil
	}
	var ps []protocol.Position
	for s := range strings.SplitSeq(f.m[name], ",") {
		a, b, ok := strings.Cut(s, "/")
		next, err := strconv.ParseInt(a, 10, 64)
		f.fail(name, err)
		epoch, err := strconv.ParseInt(b, 10, 32)
		f.fail(name, err)
		if !ok {
			f.fail(name, fmt.Errorf("want next/leaderEpoch"))
		}
		ps = append(ps, protocol.Position{Next: next, LeaderEpoch: int32(epoch)})
	}
	return ps
}

func parseFence(m map[string]string) (*protocol.Fence, error) {
	f := fields{m: m}
	var o protocol.Fence
	o.Epoch, o.Gen, o.Seq = f.u64("epoch"), f.u64("gen"), f.u64("seq")
	f.bytes("owner", o.Owner[:])
	if m["chain"] == loading {
		o.Loading = true
	} else {
		f.bytes("chain", o.Chain[:])
	}
	o.Lease = f.i64("lease")
	f.bytes("incarnation", o.Incarnation[:])
	o.LiveSince = f.i64("live_since")
	s := &o.State
	s.Clock, s.Watermark = f.i64("clock"), f.i64("watermark")
	f.bytes("rules", s.Rules[:])
	s.Fold = int(f.i64("fold"))
	s.Next = f.positions("next")
	s.Sweep = protocol.Bound{Due: f.i64("sweep_due"), Customer: m["sweep_customer"]}
	s.Counters, s.Read = f.list("counters"), f.i64("read")
	f.bytes("digest", s.Digest[:])
	o.Flood = protocol.Flood{Read: f.i64("flood_read"), Counters: f.list("flood_counters")}
	o.Published.Seq = f.u64("published_seq")
	f.bytes("published_chain", o.Published.Chain[:])
	o.Published.Offset, o.Published.LeaderEpoch = f.i64("published_offset"), int32(f.i64("published_leader_epoch"))
	if f.err == nil && m["chain"] == "" {
		f.err = fmt.Errorf("fence has no chain")
	}
	return &o, f.err
}
