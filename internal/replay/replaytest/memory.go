package replaytest

import (
	"context"
	"io"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/replay"
)

// Memory is a log of one partition in memory, by topic.
type Memory map[string][]*kgo.Record

// Partitions implements replay.Source: an input is there also when it is empty.
func (m Memory) Partitions(_ context.Context, topic string) (int32, error) {
	if _, ok := m[topic]; ok {
		return 1, nil
	}
	return 0, nil
}

// Span implements replay.Source.
func (m Memory) Span(_ context.Context, topic string, _ int32) (start, end int64, err error) {
	return 0, int64(len(m[topic])), nil
}

// After implements replay.Source.
func (m Memory) After(_ context.Context, topic string, _ int32, ms int64) (int64, error) {
	for i, r := range m[topic] {
		if r.Timestamp.UnixMilli() >= ms {
			return int64(i), nil
		}
	}
	return int64(len(m[topic])), nil
}

// Open implements replay.Source.
func (m Memory) Open(topic string, _ int32, from, to int64) (replay.Cursor, error) {
	return &memoryCursor{m[topic][from:min(to, int64(len(m[topic])))]}, nil
}

type memoryCursor struct{ left []*kgo.Record }

func (c *memoryCursor) Next(context.Context) (*kgo.Record, error) {
	if len(c.left) == 0 {
		return nil, io.EOF
	}
	r := c.left[0]
	c.left = c.left[1:]
	return r, nil
}

func (c *memoryCursor) Close() {}
