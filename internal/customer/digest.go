package customer

import (
	"encoding/binary"
	"math/bits"

	"github.com/zeebo/xxh3"
)

// Digest is a sum modulo 2^128 of one term per customer, so that it does not
// depend on their order and is kept up to date by subtracting the old term and
// adding the new one. The halves are {high, low}; zero is the digest of no
// customer.
type Digest [2]uint64

// Add returns d + e modulo 2^128.
func (d Digest) Add(e Digest) Digest {
	lo, carry := bits.Add64(d[1], e[1], 0)
	hi, _ := bits.Add64(d[0], e[0], carry)
	return Digest{hi, lo}
}

// Sub returns d − e modulo 2^128.
func (d Digest) Sub(e Digest) Digest {
	lo, borrow := bits.Sub64(d[1], e[1], 0)
	hi, _ := bits.Sub64(d[0], e[0], borrow)
	return Digest{hi, lo}
}

// Bytes is d in big-endian order.
func (d Digest) Bytes() [16]byte {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], d[0])
	binary.BigEndian.PutUint64(b[8:], d[1])
	return b
}

// Sum is the digest term of one customer, Digest{hi, lo}: XXH3-128 of what
// follows the seq in the stored record, with the sum of the XXH3-64 of the
// customer ID and the record's version as the seed. The seq is left out, so
// that how events were cut into batches does not show. A missing record
// (stored empty) has the term zero.
func Sum(customer string, stored []byte) (hi, lo uint64) {
	if len(stored) < headBytes {
		return 0, 0
	}
	s := xxh3.Hash128Seed(stored[headBytes:], xxh3.HashString(customer)+uint64(stored[0]))
	return s.Hi, s.Lo
}
