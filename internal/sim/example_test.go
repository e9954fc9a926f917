package sim_test

import (
	"fmt"
	"time"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/sim"
)

// A year of a closed group of about 1,000 customers, with one bad message to
// fifty good ones.
func ExampleGenerator() {
	c := sim.DefaultConfig()
	c.Customers, c.Span, c.Later = 1_000, 24*time.Hour, 0
	c.BadRate = 0.02
	g, err := sim.New(c)
	if err != nil {
		fmt.Println(err)
		return
	}
	end := c.Start.AddDate(1, 0, 0).UnixMilli()
	purchases, refused := 0, 0
	for m := range g.All() {
		if m.At >= end {
			break
		}
		switch {
		case m.Code.Outcome() == event.DeadLetter:
			refused++
		case m.Code == event.Applied && m.Event.Type == event.Purchase:
			purchases++
		}
	}
	fmt.Println("more than one order each:", purchases > 1_000)
	fmt.Println("something to refuse:", refused > 0)
	// Output:
	// more than one order each: true
	// something to refuse: true
}
