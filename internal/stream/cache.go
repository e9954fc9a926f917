package stream

import "github.com/tierstream/tierstream/internal/fold"

// cache keeps decoded customers of one partition, bounded by an estimate of
// their bytes. Who has not been looked up for long leaves first, about: each
// has a second chance (the CLOCK algorithm), so that a look-up moves nothing.
// It is safe only because the owner is the only writer and every write checks
// the fence: on any doubt the whole cache is dropped.
type cache struct {
	customers map[string]*cached
	ring      []*cached // all of customers
	hand      int       // the next in ring to leave, if not used since it was passed last
	bytes     int
	max       int
}

type cached struct {
	customer *fold.Customer
	cost     int  // bytes, about
	used     bool // since the hand passed
}

func newCache(maxBytes int) *cache {
	return &cache{customers: map[string]*cached{}, max: maxBytes}
}

func (c *cache) lookup(id string) *fold.Customer {
	e := c.customers[id]
	if e == nil {
		return nil
	}
	e.used = true
	return e.customer
}

// put adds or refreshes a customer whose stored form has n bytes.
func (c *cache) put(v *fold.Customer, n int) {
	e := c.customers[v.ID]
	if e == nil {
		e = &cached{customer: v}
		c.customers[v.ID] = e
		c.ring = append(c.ring, e)
	}
	// A decoded record takes about four times its stored form, plus the entry's
	// own overhead in ring and map.
	cost := 4*n + 400
	c.bytes += cost - e.cost
	e.customer, e.cost = v, cost
}

// trim drops customers until the bound holds. Only between batches: a batch
// under way must not lose what it has loaded.
func (c *cache) trim() {
	for c.bytes > c.max && len(c.ring) > 0 {
		if c.hand >= len(c.ring) {
			c.hand = 0
		}
		e := c.ring[c.hand]
		if e.used {
			e.used = false
			c.hand++
			continue
		}
		// The newest takes the place, and is passed over this time.
		last := len(c.ring) - 1
		c.ring[c.hand], c.ring[last] = c.ring[last], nil
		c.ring = c.ring[:last]
		c.hand++
		delete(c.customers, e.customer.ID)
		c.bytes -= e.cost
	}
}
