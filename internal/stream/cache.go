package stream

import (
	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/tierstream/tierstream/internal/fold"
)

// cache keeps decoded customers of one partition, the least recently used
// leaving first, bounded by an estimate of their bytes. It is safe only
// because the owner is the only writer and every write checks the fence: on
// any doubt the whole cache is dropped.
type cache struct {
	lru   *simplelru.LRU[string, cached]
	bytes int
	max   int
}

type cached struct {
	customer *fold.Customer
	cost     int // bytes, about
}

func newCache(maxBytes int) *cache {
	c := &cache{max: maxBytes}
	l, err := simplelru.NewLRU(1<<30, func(_ string, v cached) { c.bytes -= v.cost })
	if err != nil {
		panic(err) // the size is positive
	}
	c.lru = l
	return c
}

func (c *cache) lookup(id string) *fold.Customer {
	v, _ := c.lru.Get(id)
	return v.customer
}

// put adds or refreshes a customer whose stored form has n bytes.
func (c *cache) put(v *fold.Customer, n int) {
	// A decoded record takes about three times its stored form, plus the
	// entry's own overhead in list and maps.
	cost := 3*n + 400
	before, _ := c.lru.Peek(v.ID)
	c.bytes += cost - before.cost
	c.lru.Add(v.ID, cached{v, cost})
}

// trim drops customers until the bound holds. Only between batches: a batch
// under way must not lose what it has loaded.
func (c *cache) trim() {
	for c.bytes > c.max {
		if _, _, ok := c.lru.RemoveOldest(); !ok {
			return
		}
	}
}
