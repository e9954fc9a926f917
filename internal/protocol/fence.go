package protocol

// Fence is everything one partition keeps beside its customers, in one hash of
// the same slot.
type Fence struct {
	Identity
	Lease       int64 // until when the owner may apply, Redis' own time, Unix ms
	Incarnation Nonce
	LiveSince   int64
	State       State
	Flood       Flood
	Published   Published
	// Target is the sequence of K when an owner last found the state behind it.
	// As long as the fence is loading or stands below Target, the state is
	// older than what was published, and must not be read as the truth.
	Target uint64
	// Genesis is the namespace's origin; nil when the fence does not know it.
	Genesis *Genesis
	Rebased Rebased
	// Base and BaseNext are the key generation that a rebase under way begins
	// from, and its positions; 0 and nil when there is none.
	Base     uint64
	BaseNext []Position
	// Damaged: fields or keys that must be there are missing.
	Damaged bool
}

// Rebuilding says that what is in Redis is not the truth, and how far it is:
// done of total batches. total is 0 while that is not known.
func (f *Fence) Rebuilding() (done, total uint64, is bool) {
	switch {
	case f.Loading:
		return 0, f.Target, true
	case f.Seq < f.Target:
		return f.Seq, f.Target, true
	default:
		return 0, 0, f.Rebased.Open || f.Damaged
	}
}

// Flood is where the current window of the flood stop began: the counters at
// that time. A window tumbles; see package fold for what trips it.
type Flood struct {
	Read     int64
	Counters []int64
}

// Answer is what a script said.
type Answer uint8

const (
	// Rejected: the fence is another's, or at another point, or the lease is
	// over. Nothing was written. Drop every cached value and acquire anew.
	Rejected Answer = iota
	// Accepted: written.
	Accepted
	// Already: the very same batch is already there; an earlier try of mine
	// had succeeded although its reply was lost.
	Already
)
