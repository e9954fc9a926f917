package produce

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// Checkpoint is how far a run has come, as kept in a file from one run to the
// next. What it covers is acknowledged; what was under way when a run was
// killed is sent again, under the same IDs.
type Checkpoint struct {
	// Cluster is the ID of the Kafka cluster sent to, Topics where.
	Cluster string   `json:"cluster"`
	Topics  []string `json:"topics"`

	// Next counts the messages that are acknowledged without a gap, and Last is
	// a hash of the last of them, by which another input is told.
	Next int64  `json:"next,omitempty"`
	Last uint64 `json:"last,omitempty"`

	// Offsets are those of a copy: by source topic and partition, the first
	// offset that is not covered. From is the source's cluster ID.
	From    string                     `json:"from,omitempty"`
	Offsets map[string]map[int32]int64 `json:"offsets,omitempty"`
}

// LoadCheckpoint reads a checkpoint. A file that does not exist is the zero
// Checkpoint: nothing was sent yet.
func LoadCheckpoint(path string) (c Checkpoint, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		return c, fmt.Errorf("reading checkpoint %s: %w", path, err)
	}
	return c, nil
}

// Save replaces the file, so that a reader finds the old or the new one.
func (c *Checkpoint) Save(path string) error {
	text, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("writing checkpoint %s: %w", path, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("writing checkpoint: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("writing checkpoint %s: %w", path, err)
	}
	return nil
}

// prefix follows what is acknowledged without a gap: acknowledgements of
// several partitions come in any order.
type prefix[T any] struct {
	mu      sync.Mutex
	n       int64 // acknowledged without a gap
	last    T     // mark of the last of them
	pending []pending[T]
}

type pending[T any] struct {
	mark T
	done bool
}

// add takes the next one under way. The returned function says that it is
// acknowledged.
func (p *prefix[T]) add(mark T) (done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.n + int64(len(p.pending))
	p.pending = append(p.pending, pending[T]{mark: mark})
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.pending[at-p.n].done = true
		k := 0
		for k < len(p.pending) && p.pending[k].done {
			p.last = p.pending[k].mark
			k++
		}
		p.n += int64(k)
		p.pending = p.pending[k:]
	}
}

func (p *prefix[T]) reached() (int64, T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n, p.last
}

func (p *prefix[T]) reset(n int64, last T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n, p.last, p.pending = n, last, nil
}
