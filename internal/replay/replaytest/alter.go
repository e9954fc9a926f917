package replaytest

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/replay"
)

// Alter says what a reader finds in a record's place.
type Alter func(topic string, p int32, r *kgo.Record) []*kgo.Record

// Altered is a log with something changed in it that only its readers see.
type Altered struct {
	replay.Source
	Alter Alter
}

// Open implements replay.Source.
func (a Altered) Open(topic string, p int32, from, to int64) (replay.Cursor, error) {
	c, err := a.Source.Open(topic, p, from, to)
	return &altered{Cursor: c, alter: func(r *kgo.Record) []*kgo.Record { return a.Alter(topic, p, r) }}, err
}

type altered struct {
	replay.Cursor
	alter func(*kgo.Record) []*kgo.Record
	queue []*kgo.Record
}

func (c *altered) Next(ctx context.Context) (*kgo.Record, error) {
	for len(c.queue) == 0 {
		r, err := c.Cursor.Next(ctx)
		if err != nil {
			return nil, err
		}
		c.queue = c.alter(r)
	}
	r := c.queue[0]
	c.queue = c.queue[1:]
	return r, nil
}

// Once alters the n-th record (from 0) for which pick says yes, whenever it is
// read, and no other.
func Once(pick func(topic string, p int32, r *kgo.Record) bool, n int, alter func(r *kgo.Record) []*kgo.Record) Alter {
	type place struct {
		topic  string
		p      int32
		offset int64
	}
	var mu sync.Mutex
	var chosen *place
	return func(topic string, p int32, r *kgo.Record) []*kgo.Record {
		mu.Lock()
		defer mu.Unlock()
		if chosen == nil && pick(topic, p, r) {
			if n--; n < 0 {
				chosen = &place{topic, p, r.Offset}
			}
		}
		if chosen != nil && *chosen == (place{topic, p, r.Offset}) {
			return alter(r)
		}
		return []*kgo.Record{r}
	}
}
