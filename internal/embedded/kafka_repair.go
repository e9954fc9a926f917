package embedded

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// repair brings the log of a broker that was killed into a state from which the
// broker opens it rightly. The broker's own recovery has three gaps (each with
// a test):
//
//   - A transaction open at the kill is given up in memory only. At the next
//     kill its records would be read as part of that producer's next
//     transaction, and come back as committed.
//   - The markers of one commit are written partition by partition. A kill in
//     between would commit some partitions and give up the others.
//   - Which records belong to transactions stands in the index file alone,
//     matched by position. An entry lost between the two writes would shift all
//     that follow.
//
// So the index files are made anew where they differ, and every open
// transaction gets its marker: commit if its commit had begun (another
// partition has the marker), else abort. Producer ID and epoch name one
// transaction, because every client since Kafka 4 (transaction version 2) has a
// new epoch for each; the broker and the consumer's own producers do.
//
// The layout is that of the version of kfake in go.mod:
// partitions/<topic>-<partition>/<base offset>.dat, record batches as on the
// wire, and .idx, one entry of 15 bytes for each batch.
func repair(data string, log *slog.Logger) error {
	dirs, err := os.ReadDir(filepath.Join(data, "partitions"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var partitions []*logPartition
	committed := map[txn]bool{}
	for _, d := range dirs {
		p := &logPartition{dir: filepath.Join(data, "partitions", d.Name()), open: map[int64]openTxn{}}
		if err := p.scan(committed); err != nil {
			return fmt.Errorf("partition %s: %w", d.Name(), err)
		}
		partitions = append(partitions, p)
	}
	for _, p := range partitions {
		var pids []int64
		for pid := range p.open {
			pids = append(pids, pid)
		}
		slices.SortFunc(pids, func(a, b int64) int { return cmp.Compare(p.open[a].first, p.open[b].first) })
		for _, pid := range pids {
			t := p.open[pid]
			commit := committed[t.txn]
			if err := p.end(t.txn, commit); err != nil {
				return fmt.Errorf("partition %s: ending a transaction: %w", filepath.Base(p.dir), err)
			}
			log.Warn("Kafka was killed in a transaction, ended it", "partition", filepath.Base(p.dir),
				"first_offset", t.first, "producer_id", t.pid, "committed", commit)
		}
	}
	return nil
}

// txn names a transaction.
type txn struct {
	pid   int64
	epoch int16
}

// openTxn is a transaction without an end in one partition.
type openTxn struct {
	txn
	first int64 // offset of its first record
}

// logPartition is what the files of one partition say.
type logPartition struct {
	dir     string
	active  string // path of the last segment without its ending, "" for none
	next    int64  // offset after the last record
	leader  int32  // leader epoch of the last batch
	maxTime int64  // largest timestamp so far, Unix ms
	open    map[int64]openTxn
}

// scan reads all segments, corrects their index files and adds the
// transactions with a commit marker to committed.
func (p *logPartition) scan(committed map[txn]bool) error {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return err
	}
	var bases []int64
	for _, e := range entries {
		if text, ok := strings.CutSuffix(e.Name(), ".dat"); ok {
			base, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return fmt.Errorf("segment %s: %w", e.Name(), err)
			}
			bases = append(bases, base)
		}
	}
	slices.Sort(bases)
	for i, base := range bases {
		p.active = filepath.Join(p.dir, strconv.FormatInt(base, 10))
		raw, err := os.ReadFile(p.active + ".dat")
		if err != nil {
			return err
		}
		var index []byte
		at := 0
		for at < len(raw) {
			h, ok := readBatch(raw[at:])
			if !ok {
				break // what a power cut leaves of the last write
			}
			if err := p.add(h, raw[at:at+h.size], committed); err != nil {
				return fmt.Errorf("segment %d, byte %d: %w", base, at, err)
			}
			index = appendIndex(index, h, p.maxTime)
			at += h.size
		}
		if at < len(raw) {
			if i < len(bases)-1 {
				return fmt.Errorf("segment %d is damaged at byte %d of %d: this is no trace of a crash; restore the folder or delete it", base, at, len(raw))
			}
			if err := os.Truncate(p.active+".dat", int64(at)); err != nil {
				return err
			}
		}
		old, err := os.ReadFile(p.active + ".idx")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if !bytes.Equal(old, index) {
			if err := writeFile(p.active+".idx", index); err != nil {
				return err
			}
		}
	}
	return nil
}

// batch is the header of a record batch.
type batch struct {
	size    int
	first   int64
	last    int64 // offset
	leader  int32
	attrs   int16
	maxTime int64
	txn     txn
}

func (b batch) control() bool { return b.attrs&attrControl != 0 }

// inTxn says that the batch has records of a transaction, not its marker.
func (b batch) inTxn() bool { return b.attrs&attrTxn != 0 && !b.control() }

// readBatch reads the header of the batch that raw begins with; not ok when it
// is cut short or its checksum is wrong.
func readBatch(raw []byte) (batch, bool) {
	const header = 61
	if len(raw) < header {
		return batch{}, false
	}
	size := batchPrefix + int(int32(binary.BigEndian.Uint32(raw[8:])))
	if size < header || size > len(raw) || crc32.Checksum(raw[batchChecked:size], castagnoli) != binary.BigEndian.Uint32(raw[17:]) {
		return batch{}, false
	}
	first := int64(binary.BigEndian.Uint64(raw))
	return batch{
		size:    size,
		first:   first,
		last:    first + int64(int32(binary.BigEndian.Uint32(raw[23:]))),
		leader:  int32(binary.BigEndian.Uint32(raw[12:])),
		attrs:   int16(binary.BigEndian.Uint16(raw[21:])),
		maxTime: int64(binary.BigEndian.Uint64(raw[35:])),
		txn: txn{
			pid:   int64(binary.BigEndian.Uint64(raw[43:])),
			epoch: int16(binary.BigEndian.Uint16(raw[51:])),
		},
	}, true
}

// add follows the partition over one batch.
func (p *logPartition) add(b batch, raw []byte, committed map[txn]bool) error {
	p.next, p.leader, p.maxTime = b.last+1, b.leader, max(p.maxTime, b.maxTime)
	switch {
	case b.inTxn():
		if _, ok := p.open[b.txn.pid]; !ok {
			p.open[b.txn.pid] = openTxn{b.txn, b.first}
		}
	case b.control():
		commit, err := isCommit(raw)
		if err != nil {
			return err
		}
		if commit {
			committed[b.txn] = true
		}
		delete(p.open, b.txn.pid)
	}
	return nil
}

// isCommit tells a commit marker from an abort marker.
func isCommit(raw []byte) (bool, error) {
	var (
		b   kmsg.RecordBatch
		r   kmsg.Record
		key kmsg.ControlRecordKey
	)
	if err := errors.Join(b.ReadFrom(raw), r.ReadFrom(b.Records), key.ReadFrom(r.Key)); err != nil {
		return false, fmt.Errorf("reading a transaction marker: %w", err)
	}
	return key.Type == kmsg.ControlRecordKeyTypeCommit, nil
}

// appendIndex appends a batch's index entry:
//
//	0   1  version, 1
//	1   1  low byte of the CRC-32C of what follows
//	2   4  leader epoch, little-endian
//	6   8  largest timestamp of the partition up to here, little-endian
//	14  1  1 when the batch belongs to a transaction
func appendIndex(index []byte, b batch, maxTime int64) []byte {
	entry := [15]byte{0: 1}
	binary.LittleEndian.PutUint32(entry[2:], uint32(b.leader))
	binary.LittleEndian.PutUint64(entry[6:], uint64(maxTime))
	if b.inTxn() {
		entry[14] = 1
	}
	entry[1] = byte(crc32.Checksum(entry[2:], castagnoli))
	return append(index, entry[:]...)
}

// end appends the marker that ends a transaction.
func (p *logPartition) end(t txn, commit bool) error {
	key := kmsg.ControlRecordKey{Type: kmsg.ControlRecordKeyTypeAbort}
	if commit {
		key.Type = kmsg.ControlRecordKeyTypeCommit
	}
	record := kmsg.Record{Key: key.AppendTo(nil), Value: (&kmsg.EndTxnMarker{}).AppendTo(nil)}
	record.Length = int32(len(record.AppendTo(nil)) - 1) // it takes one byte itself
	now := time.Now().UnixMilli()
	raw := seal(&kmsg.RecordBatch{
		FirstOffset:          p.next,
		PartitionLeaderEpoch: p.leader,
		Magic:                2,
		Attributes:           attrTxn | attrControl,
		FirstTimestamp:       now,
		MaxTimestamp:         now,
		ProducerID:           t.pid,
		ProducerEpoch:        t.epoch,
		FirstSequence:        -1,
		NumRecords:           1,
		Records:              record.AppendTo(nil),
	})
	b, _ := readBatch(raw) // sound: just sealed
	p.next, p.maxTime = b.last+1, max(p.maxTime, b.maxTime)
	// A crash between the two leaves an index that is short, as after any kill.
	return errors.Join(
		appendFile(p.active+".dat", raw),
		appendFile(p.active+".idx", appendIndex(nil, b, p.maxTime)),
	)
}

// appendFile appends to a file and waits until it is on disk.
func appendFile(path string, text []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	if _, err = io.Copy(file, bytes.NewReader(text)); err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}
