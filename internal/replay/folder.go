package replay

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Manifest says what a folder of a dumped log holds. It is written last: a
// folder without one is not whole.
type Manifest struct {
	Version    int                 `json:"version"` // 1
	Namespace  string              `json:"namespace,omitempty"`
	Inputs     []string            `json:"inputs"`
	Journal    string              `json:"journal,omitempty"`
	Rules      string              `json:"rules,omitempty"`
	Dumped     time.Time           `json:"dumped"`
	Partitions map[string][]Extent `json:"partitions"` // by topic
}

// Extent is the offsets of one partition: from Start up to, and without, End.
type Extent struct {
	Start int64 `json:"start"`
	End   int64 `json:"end"`
}

const manifestName = "manifest.json"

// Line is one record of a dumped log. Key, value and headers are text where
// they are UTF-8, else base64 under the other name; what is absent is null.
type Line struct {
	Topic       string       `json:"topic"`
	Partition   int32        `json:"partition"`
	Offset      int64        `json:"offset"`
	Timestamp   int64        `json:"timestamp"` // Unix ms
	Key         *string      `json:"key,omitempty"`
	KeyBase64   []byte       `json:"key_base64,omitempty"`
	Value       *string      `json:"value,omitempty"`
	ValueBase64 []byte       `json:"value_base64,omitempty"`
	Headers     []LineHeader `json:"headers,omitempty"`
}

// LineHeader is one header of a Line.
type LineHeader struct {
	Key         string  `json:"key"`
	Value       *string `json:"value,omitempty"`
	ValueBase64 []byte  `json:"value_base64,omitempty"`
}

func split(b []byte) (*string, []byte) {
	if b == nil {
		return nil, nil
	}
	if utf8.Valid(b) {
		s := string(b)
		return &s, nil
	}
	return nil, b
}

func join(s *string, b []byte) []byte {
	if s != nil {
		return []byte(*s)
	}
	return b
}

// NewLine is the line of a record.
func NewLine(r *kgo.Record) *Line {
	l := &Line{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli()}
	l.Key, l.KeyBase64 = split(r.Key)
	l.Value, l.ValueBase64 = split(r.Value)
	for _, h := range r.Headers {
		x := LineHeader{Key: h.Key}
		x.Value, x.ValueBase64 = split(h.Value)
		l.Headers = append(l.Headers, x)
	}
	return l
}

// Record is the record of a line.
func (l *Line) Record() *kgo.Record {
	r := &kgo.Record{
		Topic: l.Topic, Partition: l.Partition, Offset: l.Offset, Timestamp: time.UnixMilli(l.Timestamp), LeaderEpoch: -1,
		Key: join(l.Key, l.KeyBase64), Value: join(l.Value, l.ValueBase64),
	}
	for _, h := range l.Headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: join(h.Value, h.ValueBase64)})
	}
	return r
}

func partitionFile(dir, topic string, partition int32) string {
	return filepath.Join(dir, fmt.Sprintf("%s-%d.ndjson", topic, partition))
}

// Writer writes a folder. Its folder must not hold a log yet.
type Writer struct {
	dir      string
	manifest Manifest
}

// NewWriter begins a folder.
func NewWriter(dir string, m Manifest) (*Writer, error) {
	if _, err := os.Stat(filepath.Join(dir, manifestName)); err == nil {
		return nil, fmt.Errorf("%s holds a dumped log already", dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("writing the log: %w", err)
	}
	m.Version, m.Dumped, m.Partitions = 1, time.Now().UTC(), map[string][]Extent{}
	return &Writer{dir, m}, nil
}

// Partition writes one partition; those of a topic are written in their order.
// records calls its argument for each record.
func (w *Writer) Partition(topic string, e Extent, records func(func(*kgo.Record) error) error) error {
	p := int32(len(w.manifest.Partitions[topic]))
	f, err := os.Create(partitionFile(w.dir, topic, p))
	if err != nil {
		return fmt.Errorf("writing the log: %w", err)
	}
	b := bufio.NewWriterSize(f, 1<<16)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	err = records(func(r *kgo.Record) error { return enc.Encode(NewLine(r)) })
	if err = errors.Join(err, b.Flush(), f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", f.Name(), err)
	}
	w.manifest.Partitions[topic] = append(w.manifest.Partitions[topic], e)
	return nil
}

// Close makes the folder whole.
func (w *Writer) Close() error {
	b, err := json.MarshalIndent(&w.manifest, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(w.dir, manifestName), append(b, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("writing the log: %w", err)
	}
	return nil
}

// Dump writes the topics that the manifest names into a folder, the inputs
// within the range.
func Dump(ctx context.Context, s Source, dir string, m Manifest, from, to Edge, progress *Progress) error {
	w, err := NewWriter(dir, m)
	if err != nil {
		return err
	}
	topics := append([]string{}, m.Inputs...)
	for _, t := range []string{m.Journal, m.Rules} {
		if t != "" {
			topics = append(topics, t)
		}
	}
	for i, t := range topics {
		n, err := s.Partitions(ctx, t)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("there is no topic %s", t)
		}
		for p := range n {
			var e Extent
			if e.Start, e.End, err = s.Span(ctx, t, p); err != nil {
				return err
			}
			if i < len(m.Inputs) {
				a, err1 := from.offset(ctx, s, t, p, e.Start)
				b, err2 := to.offset(ctx, s, t, p, e.End)
				if err := errors.Join(err1, err2); err != nil {
					return err
				}
				e.Start, e.End = max(e.Start, a), min(e.End, b)
			}
			if progress != nil {
				progress.total.Add(max(0, e.End-e.Start))
			}
			err := w.Partition(t, e, func(write func(*kgo.Record) error) error {
				return Each(ctx, s, t, p, e.Start, e.End, func(r *kgo.Record) error {
					progress.add(1)
					return write(r)
				})
			})
			if err != nil {
				return err
			}
		}
	}
	return w.Close()
}

// Folder is a log in files: one file of lines per topic and partition, and a
// manifest.
type Folder struct {
	dir      string
	Manifest Manifest
}

// OpenFolder reads from what Dump wrote.
func OpenFolder(dir string) (*Folder, error) {
	b, err := os.ReadFile(filepath.Join(dir, manifestName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s has no %s: it is no dumped log, or the dump was not finished", dir, manifestName)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the log: %w", err)
	}
	f := &Folder{dir: dir}
	if err := json.Unmarshal(b, &f.Manifest); err != nil {
		return nil, fmt.Errorf("reading %s: %w", filepath.Join(dir, manifestName), err)
	}
	if f.Manifest.Version != 1 {
		return nil, fmt.Errorf("%s has version %d of the dump, this binary reads version 1", dir, f.Manifest.Version)
	}
	return f, nil
}

// Partitions implements Source.
func (f *Folder) Partitions(_ context.Context, topic string) (int32, error) {
	return int32(len(f.Manifest.Partitions[topic])), nil
}

// Span implements Source.
func (f *Folder) Span(_ context.Context, topic string, partition int32) (start, end int64, err error) {
	es := f.Manifest.Partitions[topic]
	if partition < 0 || int(partition) >= len(es) {
		return 0, 0, fmt.Errorf("%s has no partition %d of topic %s", f.dir, partition, topic)
	}
	return es[partition].Start, es[partition].End, nil
}

// After implements Source. It reads the file up to there.
func (f *Folder) After(ctx context.Context, topic string, partition int32, ms int64) (int64, error) {
	start, end, err := f.Span(ctx, topic, partition)
	if err != nil {
		return 0, err
	}
	found := end
	enough := errors.New("enough")
	err = Each(ctx, f, topic, partition, start, end, func(r *kgo.Record) error {
		if r.Timestamp.UnixMilli() >= ms {
			found = r.Offset
			return enough
		}
		return nil
	})
	if err != nil && !errors.Is(err, enough) {
		return 0, err
	}
	return found, nil
}

// Open implements Source.
func (f *Folder) Open(topic string, partition int32, from, to int64) (Cursor, error) {
	path := partitionFile(f.dir, topic, partition)
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the log: %w", err)
	}
	return &fileCursor{file: file, decoder: json.NewDecoder(bufio.NewReaderSize(file, 1<<16)), from: from, to: to}, nil
}

type fileCursor struct {
	file     *os.File
	decoder  *json.Decoder
	from, to int64
	last     *Line
}

func (c *fileCursor) Close() { c.file.Close() }

func (c *fileCursor) Next(ctx context.Context) (*kgo.Record, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var l Line
		err := c.decoder.Decode(&l)
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", c.file.Name(), err)
		}
		if c.last != nil && l.Offset <= c.last.Offset {
			return nil, fmt.Errorf("reading %s: offset %d comes after %d", c.file.Name(), l.Offset, c.last.Offset)
		}
		c.last = &l
		if l.Offset >= c.to {
			return nil, io.EOF
		}
		if l.Offset >= c.from {
			return l.Record(), nil
		}
	}
}
