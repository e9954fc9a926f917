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
