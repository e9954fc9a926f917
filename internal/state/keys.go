// Package state keeps partitions in Redis: the fence, the customers, the due
// set and the outbox of one partition in one slot, written by one script per
// batch. A write is accepted only if the fence is the expected one, and a read
// that feeds the fold returns values only together with that same check, so
// what a caller computes from is never another owner's or another time's.
//
// The layout (documented in docs/redis.md):
//
//	ts:{<namespace>:<p>}:fence           hash   the fence
//	ts:{<namespace>:<p>}:outbox          hash   seq → entry not known to be published
//	ts:{<namespace>:<p>}:gens            set    key generations that may have keys
//	ts:{<namespace>:<p>}:g<gen>:due      zset   customer → due time, +inf for never; every customer is in it
//	ts:{<namespace>:<p>}:g<gen>:c:<id>   string the customer's record
//	ts:{<namespace>:<p>}:g<gen>:w:<hash>:<id>  string a waiting return's original record
package state

import (
	"fmt"
	"strconv"
	"strings"
)

// Keys names the keys of one partition. All share one hash tag, hence one
// slot.
type Keys struct{ base string }

// PartitionKeys names the keys of partition p of a namespace.
func PartitionKeys(namespace string, p int32) Keys {
	return Keys{fmt.Sprintf("ts:{%s:%d}:", namespace, p)}
}

// Fence is the key of the fence.
func (k Keys) Fence() string { return k.base + "fence" }

// Outbox is the key of the outbox.
func (k Keys) Outbox() string { return k.base + "outbox" }

// Generations is the key of the set of key generations that may have keys.
func (k Keys) Generations() string { return k.base + "gens" }

// Due is the key of the due set of a key generation.
func (k Keys) Due(gen uint64) string { return k.gen(gen) + "due" }

// Customer is the key of a customer's record.
func (k Keys) Customer(gen uint64, id string) string { return k.gen(gen) + "c:" + id }

// customers are the keys of the records of puts, all in one piece of memory.
func (k Keys) customers(gen uint64, puts []Put) []string {
	prefix := k.Customer(gen, "")
	n := len(puts) * len(prefix)
	for i := range puts {
		n += len(puts[i].Customer)
	}
	var b strings.Builder
	b.Grow(n)
	keys := make([]string, len(puts))
	for i := range puts {
		at := b.Len()
		b.WriteString(prefix)
		b.WriteString(puts[i].Customer)
		keys[i] = b.String()[at:]
	}
	return keys
}

// Waiting is the key of the original record of a waiting return.
func (k Keys) Waiting(gen uint64, w WaitingKey) string {
	return fmt.Sprintf("%sw:%016x:%s", k.gen(gen), w.Hash, w.Customer)
}

func (k Keys) gen(gen uint64) string { return k.base + "g" + strconv.FormatUint(gen, 10) + ":" }

// WaitingKey names one waiting return.
type WaitingKey struct {
	Customer string
	Hash     uint64 // of its event ID
}
