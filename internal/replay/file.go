package replay

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/tierstream/tierstream/internal/protocol"
)

// file is the output to a file of JSON lines. Partitions are written beside it
// and put together in their order at the end, so that two runs can be compared
// with diff.
type file struct {
	path string

	mu    sync.Mutex
	parts map[int32]*os.File
}

// ToFile writes tier changes and dead letters as lines of JSON, by partition
// and in the order in which they were decided. The file is there when the
// replay is done.
func ToFile(path string) Output { return &file{path: path, parts: map[int32]*os.File{}} }

// line is one output.
type line struct {
	Type      string            `json:"type"` // tier_change or dead_letter
	Partition int32             `json:"partition"`
	ID        string            `json:"id,omitempty"`
	Data      json.RawMessage   `json:"data,omitempty"` // of a change
	Key       string            `json:"key,omitempty"`  // of a dead letter
	Letter    map[string]string `json:"letter,omitempty"`
}

func (o *file) Open(_ context.Context, partition int32) (func(*protocol.Message) error, func() error, error) {
	f, err := os.Create(fmt.Sprintf("%s.%d.part", o.path, partition))
	if err != nil {
		return nil, nil, fmt.Errorf("writing the outputs: %w", err)
	}
	o.mu.Lock()
	o.parts[partition] = f
	o.mu.Unlock()
	w := bufio.NewWriterSize(f, 1<<16)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	emit := func(m *protocol.Message) error {
		l := line{Type: "tier_change", Partition: partition, Data: m.Value}
		if m.Stream == protocol.DeadLetters {
			l = line{Type: "dead_letter", Partition: partition, Key: string(m.Key), Letter: map[string]string{}}
		}
		for _, h := range m.Headers {
			switch {
			case h.Key == "ce_id" && m.Stream == protocol.Changes:
				l.ID = string(h.Value)
			case m.Stream == protocol.DeadLetters && len(h.Key) > 11 && h.Key[:11] == "tierstream-":
				l.Letter[h.Key[11:]] = string(h.Value)
			}
		}
		if err := enc.Encode(&l); err != nil {
			return fmt.Errorf("writing %s: %w", f.Name(), err)
		}
		return nil
	}
	return emit, w.Flush, nil
}

// Close puts the partitions together.
func (o *file) Close() (err error) {
	order := make([]int32, 0, len(o.parts))
	for p := range o.parts {
		order = append(order, p)
	}
	slices.Sort(order)
	all, err := os.Create(o.path + ".part")
	if err != nil {
		return fmt.Errorf("writing the outputs: %w", err)
	}
	for _, p := range order {
		f := o.parts[p]
		_, seek := f.Seek(0, io.SeekStart)
		_, copied := io.Copy(all, f)
		err = errors.Join(err, seek, copied, f.Close(), os.Remove(f.Name()))
	}
	err = errors.Join(err, all.Close())
	if err == nil {
		err = os.Rename(all.Name(), o.path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", o.path, err)
	}
	return nil
}
