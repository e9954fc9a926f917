package protocol

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"
)

// Kind says what a journal record is.
type Kind uint8

const (
	KindGenesis Kind = iota // the first record of a namespace's partition
	KindBatch               // one applied batch
	KindRebase              // a batch that no log explains, see Rebase
)

// State is what a batch moves besides the customers. The fence holds the
// current one; the journal holds that of each batch.
type State struct {
	Clock     int64      // the batch's one clock reading, Unix ms; never goes back
	Watermark int64      // newest accepted event time, Unix ms; for display and the events clock
	Rules     Hash       // the rules that decided the batch
	Fold      int        // fold version
	Next      []Position // per input topic, in the order of the rules' topics
	Sweep     Bound
	Counters  []int64  // cumulative per outcome code; the waiting count is a gauge
	Read      int64    // records read, cumulative; equals the sum of Counters' outcomes
	Digest    [16]byte // Σ mod 2^128 over customers
}

// Genesis is what a partition's history starts from.
type Genesis struct {
	Incarnation Nonce
	LiveSince   int64 // changes effective before it are backfill; Unix ms
	Partitions  int32
	ClusterID   string
	Topics      []string   // input topics, in order
	TopicIDs    []string   // their IDs in that cluster, the journal's last
	Start       []Position // where reading began
	// Adopted: the first genesis was lost, and this one was made to continue.
	// Incarnation is not that of earlier changes. Of a rebase record only.
	Adopted bool
}

// Record is one journal record: what the log alone does not decide about one
// batch. It is written in the transaction that publishes the batch's outputs.
type Record struct {
	Kind      Kind
	Seq       uint64
	Chain     Hash
	Decisions Hash // of the batch, as NextChain takes it; so that the journal alone shows its chain unbroken
	Epoch     uint64
	Owner     Nonce
	State     State
	Genesis   *Genesis // of a genesis only
	Rebase    *Rebase  // of a rebase only
}

// Origin is the genesis document that the record holds; nil when none.
func (r *Record) Origin() *Genesis {
	if r.Rebase != nil {
		return &r.Rebase.Genesis
	}
	return r.Genesis
}

// journalVersion is the version byte before each encoded journal record.
const journalVersion = 1

// wire form of a record. Body is encoded on its own because the chain hashes
// exactly those bytes. Leader epochs are outside it: they say how to read the
// log, not what happened.
type wireRecord struct {
	Chain        []byte
	Epoch        uint64
	Owner        []byte
	LeaderEpochs []int32
	Body         []byte
	Decisions    []byte
}

type wireBody struct {
	Kind      uint8
	Seq       uint64
	Clock     int64
	Watermark int64
	Rules     []byte
	Fold      int
	Next      []int64
	SweepDue  int64
	SweepID   string
	Counters  []int64
	Read      int64
	Digest    []byte
	Genesis   *wireGenesis
}

type wireGenesis struct {
	Incarnation []byte
	LiveSince   int64
	Partitions  int32
	ClusterID   string
	Topics      []string
	TopicIDs    []string
	Start       []int64
}

// wireRebase follows the body of a rebase record.
type wireRebase struct {
	Cause   string
	Last    bool
	From    []int64
	Based   bool
	Adopted bool
	Genesis *wireGenesis
}

// body is the part of r that the chain covers: all but chain, epoch, owner and
// leader epochs.
func (r *Record) body() []byte {
	w := wireBody{
		Kind: uint8(r.Kind), Seq: r.Seq, Clock: r.State.Clock, Watermark: r.State.Watermark,
		Rules: r.State.Rules[:], Fold: r.State.Fold, SweepDue: r.State.Sweep.Due, SweepID: r.State.Sweep.Customer,
		Counters: r.State.Counters, Read: r.State.Read, Digest: r.State.Digest[:],
	}
	for _, p := range r.State.Next {
		w.Next = append(w.Next, p.Next)
	}
	if r.Genesis != nil {
		w.Genesis = r.Genesis.wire()
	}
	b := marshal(&w)
	if rb := r.Rebase; rb != nil {
		b = append(b, marshal(&wireRebase{
			Cause: rb.Cause.String(), Last: rb.Last, From: rb.From, Based: rb.Based,
			Adopted: rb.Genesis.Adopted, Genesis: rb.Genesis.wire(),
		})...)
	}
	return b
}

func (g *Genesis) wire() *wireGenesis {
	w := &wireGenesis{
		Incarnation: g.Incarnation[:], LiveSince: g.LiveSince, Partitions: g.Partitions,
		ClusterID: g.ClusterID, Topics: g.Topics, TopicIDs: g.TopicIDs,
	}
	for _, p := range g.Start {
		w.Start = append(w.Start, p.Next)
	}
	return w
}

func (w *wireGenesis) genesis(epochs []int32) (*Genesis, error) {
	g := &Genesis{LiveSince: w.LiveSince, Partitions: w.Partitions, ClusterID: w.ClusterID, Topics: w.Topics, TopicIDs: w.TopicIDs}
	if !fill(g.Incarnation[:], w.Incarnation) {
		return nil, errors.New("decoding genesis: incarnation has the wrong length")
	}
	g.Start = positions(w.Start, epochs)
	return g, nil
}

// marshal encodes plain values in which nothing can fail.
func marshal(v any) []byte {
	var buf bytes.Buffer
	enc := msgpack.NewEncoder(&buf)
	enc.UseCompactInts(true)
	enc.UseArrayEncodedStructs(true)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("encoding %T: %v", v, err)) // a programming error: no field can refuse
	}
	return buf.Bytes()
}

// NextChain is the chain after a batch:
// SHA-256(parent ‖ journal record without epoch and owner ‖ decisions), the
// digest after the batch being part of the journal record. decisions is the
// hash of the batch's decisions and of its dead letters' codes and origins.
// The genesis has the zero parent and no decisions.
func NextChain(parent Hash, r *Record, decisions Hash) Hash {
	h := sha256.New()
	h.Write(parent[:])
	h.Write(r.body())
	h.Write(decisions[:])
	return Hash(h.Sum(nil))
}

// Continues reports whether r's chain is the one that follows parent: whether
// nothing of r or of what led to it is other than it was.
func (r *Record) Continues(parent Hash) bool { return NextChain(parent, r, r.Decisions) == r.Chain }

// Encode is the record as the journal topic holds it.
func (r *Record) Encode() []byte {
	w := wireRecord{Chain: r.Chain[:], Epoch: r.Epoch, Owner: r.Owner[:], Body: r.body(), Decisions: r.Decisions[:]}
	next := r.State.Next
	if r.Genesis != nil {
		next = r.Genesis.Start
	}
	for _, p := range next {
		w.LeaderEpochs = append(w.LeaderEpochs, p.LeaderEpoch)
	}
	return append([]byte{journalVersion}, marshal(&w)...)
}

// DecodeRecord reads what Encode wrote.
func DecodeRecord(b []byte) (*Record, error) {
	if len(b) == 0 || b[0] != journalVersion {
		return nil, fmt.Errorf("decoding journal record: unknown version %x", b[:min(1, len(b))])
	}
	var w wireRecord
	if err := msgpack.Unmarshal(b[1:], &w); err != nil {
		return nil, fmt.Errorf("decoding journal record: %w", err)
	}
	var body wireBody
	rest := bytes.NewReader(w.Body)
	if err := msgpack.NewDecoder(rest).Decode(&body); err != nil {
		return nil, fmt.Errorf("decoding journal record body: %w", err)
	}
	r := &Record{
		Kind: Kind(body.Kind), Seq: body.Seq, Epoch: w.Epoch,
		State: State{
			Clock: body.Clock, Watermark: body.Watermark, Fold: body.Fold,
			Sweep: Bound{body.SweepDue, body.SweepID}, Counters: body.Counters, Read: body.Read,
		},
	}
	if !fill(r.Chain[:], w.Chain) || !fill(r.Decisions[:], w.Decisions) || !fill(r.Owner[:], w.Owner) || !fill(r.State.Rules[:], body.Rules) || !fill(r.State.Digest[:], body.Digest) {
		return nil, fmt.Errorf("decoding journal record %d: a hash has the wrong length", body.Seq)
	}
	next := body.Next
	if body.Genesis != nil {
		var err error
		if r.Genesis, err = body.Genesis.genesis(w.LeaderEpochs); err != nil {
			return nil, err
		}
	}
	if r.Kind == KindRebase {
		if err := r.decodeRebase(rest); err != nil {
			return nil, fmt.Errorf("decoding journal record %d: %w", body.Seq, err)
		}
	}
	if (r.Kind == KindGenesis) != (r.Genesis != nil) || r.Kind > KindRebase || rest.Len() > 0 {
		return nil, fmt.Errorf("decoding journal record %d: kind %d does not fit its content", body.Seq, body.Kind)
	}
	if len(next) != len(w.LeaderEpochs) {
		return nil, fmt.Errorf("decoding journal record %d: %d offsets, %d leader epochs", body.Seq, len(next), len(w.LeaderEpochs))
	}
	r.State.Next = positions(next, w.LeaderEpochs)
	return r, nil
}

func (r *Record) decodeRebase(rest *bytes.Reader) error {
	var w wireRebase
	if err := msgpack.NewDecoder(rest).Decode(&w); err != nil {
		return err
	}
	cause, err := ParseCause(w.Cause)
	if err != nil {
		return err
	}
	if w.Genesis == nil {
		return errors.New("a rebase without a genesis")
	}
	g, err := w.Genesis.genesis(nil)
	if err != nil {
		return err
	}
	g.Adopted = w.Adopted
	r.Rebase = &Rebase{Cause: cause, Last: w.Last, From: w.From, Based: w.Based, Genesis: *g}
	return nil
}

func positions(next []int64, epochs []int32) []Position {
	ps := make([]Position, len(next))
	for i := range next {
		ps[i] = Position{Next: next[i], LeaderEpoch: -1}
		if i < len(epochs) {
			ps[i].LeaderEpoch = epochs[i]
		}
	}
	return ps
}

func fill(dst, src []byte) bool { return copy(dst, src) == len(dst) && len(src) == len(dst) }

// NewGenesis is the first record of a partition's journal. Its hash is the
// first chain.
func NewGenesis(g Genesis, s State) *Record {
	s.Next = g.Start
	r := &Record{Kind: KindGenesis, State: s, Genesis: &g}
	r.Chain = NextChain(Hash{}, r, Hash{})
	return r
}
