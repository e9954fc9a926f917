package state

import (
	"encoding/hex"
	"encoding/json"
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
func appendState(args []any, s *protocol.State, fl *protocol.Flood, p protocol.Published) []any {
	return append(args,
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
		"genesis", genesisText(g),
	)
}

// appendRebased appends what a batch of a rebase says. Its base is not needed
// any longer when it is done.
func appendRebased(args []any, r *protocol.Rebased) []any {
	open := "0"
	if r.Open {
		open = "1"
	}
	args = append(args, "rebase_seq", u64(r.Seq), "rebase_cause", r.Cause.String(), "rebase_open", open)
	if !r.Open {
		args = append(args, "base", "", "base_next", "")
	}
	return args
}

// origin is what is in field genesis, beside incarnation and live_since.
type origin struct {
	Partitions int32    `json:"partitions"`
	Cluster    string   `json:"cluster"`
	Topics     []string `json:"topics"`
	TopicIDs   []string `json:"topic_ids"`
	Start      []int64  `json:"start"`
	Adopted    bool     `json:"adopted,omitempty"`
}

func genesisText(g *protocol.Genesis) string {
	o := origin{Partitions: g.Partitions, Cluster: g.ClusterID, Topics: g.Topics, TopicIDs: g.TopicIDs, Adopted: g.Adopted}
	for _, p := range g.Start {
		o.Start = append(o.Start, p.Next)
	}
	b, err := json.Marshal(&o)
	if err != nil {
		panic(fmt.Sprintf("encoding a genesis: %v", err)) // plain values cannot fail
	}
	return string(b)
}

func (f *fields) genesis(name string) *protocol.Genesis {
	if f.m[name] == "" {
		return nil
	}
	var o origin
	if err := json.Unmarshal([]byte(f.m[name]), &o); err != nil {
		f.fail(name, err)
		return nil
	}
	g := &protocol.Genesis{Partitions: o.Partitions, ClusterID: o.Cluster, Topics: o.Topics, TopicIDs: o.TopicIDs, Adopted: o.Adopted}
	for _, n := range o.Start {
		g.Start = append(g.Start, protocol.Position{Next: n, LeaderEpoch: -1})
	}
	return g
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

// required are the fields without which state that stands at a point cannot be
// continued.
var required = []string{
	"owner", "gen", "seq", "incarnation", "clock", "rules", "fold", "next", "counters", "read", "digest",
	"published_seq", "published_chain", "published_offset",
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
	o.Target = f.u64("target")
	if g := f.genesis("genesis"); g != nil {
		g.Incarnation, g.LiveSince = o.Incarnation, o.LiveSince
		o.Genesis = g
	}
	o.Rebased = protocol.Rebased{Seq: f.u64("rebase_seq"), Open: m["rebase_open"] == "1"}
	var err error
	o.Rebased.Cause, err = protocol.ParseCause(m["rebase_cause"])
	f.fail("rebase_cause", err)
	o.Base, o.BaseNext = f.u64("base"), f.positions("base_next")
	if f.err == nil && m["chain"] == "" {
		f.err = fmt.Errorf("fence has no chain")
	}
	for _, name := range required {
		o.Damaged = o.Damaged || !o.Loading && m[name] == ""
	}
	return &o, f.err
}
