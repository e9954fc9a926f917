package stream

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tierstream/tierstream/internal/fold"
)

func TestCacheKeepsItsBoundAndWhoIsUsed(t *testing.T) {
	const most = 100_000
	c := newCache(most)
	id := func(n int) string { return fmt.Sprint("c", n) }
	for n := range 10_000 {
		v := c.lookup(id(n % 10)) // ten are used all the time
		if v == nil {
			if n >= 10 {
				t.Fatalf("step %d: a customer in use has left", n)
			}
			v = fold.NewCustomer(id(n % 10))
		}
		c.put(v, rand.IntN(500))
		c.put(fold.NewCustomer(id(1000+n)), rand.IntN(500))
		c.trim()
		sum := 0
		for key, e := range c.customers {
			if e.customer.ID != key {
				t.Fatalf("%s is under %s", e.customer.ID, key)
			}
			sum += e.cost
		}
		if c.bytes != sum || sum > most || len(c.ring) != len(c.customers) {
			t.Fatalf("step %d: counted %d bytes, there are %d; %d in the ring, %d in the map", n, c.bytes, sum, len(c.ring), len(c.customers))
		}
	}
	if c.lookup(id(1000)) != nil || len(c.customers) < 20 {
		t.Errorf("%d customers, the first of them still there: %v", len(c.customers), c.lookup(id(1000)) != nil)
	}
	c.max = 0
	c.trim()
	if c.bytes != 0 || len(c.ring) != 0 || len(c.customers) != 0 {
		t.Errorf("%d bytes, %d customers are left of an empty cache", c.bytes, len(c.customers))
	}
}
