package embedded

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Parts of a record batch on the wire (Kafka's message format 2).
const (
	batchPrefix    = 12 // base offset and length, which the length does not count
	batchChecked   = 21 // the checksum covers all from here
	codecMask      = 0x07
	attrAppendTime = 0x08
	attrTxn        = 0x10
	attrControl    = 0x20
)

// stampLogAppendTime makes the broker keep the promise of a topic with
// message.timestamp.type=LogAppendTime, which it accepts as a setting and
// otherwise ignores: every record of such a topic gets the time of its arrival.
// The batch is rewritten before the broker sees it. The batch attribute that
// says so to clients cannot be set: the broker would stamp once more and store
// the batch with a wrong checksum.
func stampLogAppendTime(c *kfake.Cluster) {
	s := stamper{decompressor: kgo.DefaultDecompressor()} // control functions run one at a time
	c.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		req, ok := r.(*kmsg.ProduceRequest)
		if !ok {
			return nil, nil, false
		}
		now := time.Now().UnixMilli()
		for i := range req.Topics {
			t := &req.Topics[i]
			var info *kfake.TopicInfo
			if req.Version >= 13 {
				info = c.TopicIDInfo(t.TopicID)
			} else {
				info = c.TopicInfo(t.Topic)
			}
			if info == nil {
				continue // the broker refuses it
			}
			if kind := info.Configs["message.timestamp.type"]; kind == nil || *kind != "LogAppendTime" {
				continue
			}
			for j := range t.Partitions {
				p := &t.Partitions[j]
				if stamped, ok := s.stamp(p.Records, now); ok {
					p.Records = stamped
				}
			}
		}
		return nil, nil, false // not handled: the broker goes on with it
	})
}

// stamper rewrites batches, one at a time.
type stamper struct {
	decompressor kgo.Decompressor
	compressors  [5]kgo.Compressor // by codec, made at the first use
}

// stamp gives every record of a batch one timestamp, in Unix milliseconds. It
// leaves alone what is not exactly one sound batch; the broker refuses that.
func (s *stamper) stamp(raw []byte, now int64) ([]byte, bool) {
	var b kmsg.RecordBatch
	if err := b.ReadFrom(raw); err != nil || b.Magic != 2 || len(raw) != batchPrefix+int(b.Length) ||
		b.CRC != int32(crc32.Checksum(raw[batchChecked:], castagnoli)) {
		return nil, false
	}
	codec := kgo.CompressionCodecType(b.Attributes & codecMask)
	records, err := s.decompressor.Decompress(b.Records, codec)
	if err != nil {
		return nil, false
	}
	text := make([]byte, 0, len(records))
	for range b.NumRecords {
		length, n := binary.Varint(records)
		if n <= 0 || length < 0 || int64(len(records)-n) < length {
			return nil, false
		}
		var r kmsg.Record
		if err := r.ReadFrom(records[:n+int(length)]); err != nil {
			return nil, false
		}
		records = records[n+int(length):]
		r.TimestampDelta, r.TimestampDelta64 = 0, 0
		// The length counts all after itself, so it is measured with a length of
		// zero, which takes one byte.
		r.Length = 0
		at := len(text)
		text = r.AppendTo(text)
		r.Length = int32(len(text) - at - 1)
		text = r.AppendTo(text[:at])
	}
	if len(records) != 0 {
		return nil, false
	}
	if codec != kgo.CodecNone {
		// In what the producer used, so that the batch keeps about its size,
		// which the broker limits.
		c, err := s.compressor(codec)
		if err != nil {
			return nil, false
		}
		text, codec = c.Compress(new(bytes.Buffer), text)
	}
	b.Records = text
	b.Attributes = b.Attributes&^(codecMask|attrAppendTime) | int16(codec)
	b.FirstTimestamp, b.MaxTimestamp = now, now
	return seal(&b), true
}

func (s *stamper) compressor(codec kgo.CompressionCodecType) (kgo.Compressor, error) {
	if int(codec) >= len(s.compressors) {
		return nil, fmt.Errorf("unknown compression %d", codec)
	}
	if c := s.compressors[codec]; c != nil {
		return c, nil
	}
	c, err := kgo.DefaultCompressor([...]kgo.CompressionCodec{
		kgo.CodecNone:   kgo.NoCompression(),
		kgo.CodecGzip:   kgo.GzipCompression(),
		kgo.CodecSnappy: kgo.SnappyCompression(),
		kgo.CodecLz4:    kgo.Lz4Compression(),
		kgo.CodecZstd:   kgo.ZstdCompression(),
	}[codec])
	s.compressors[codec] = c
	return c, err
}

// seal encodes a batch with its length and checksum.
func seal(b *kmsg.RecordBatch) []byte {
	raw := b.AppendTo(nil)
	b.Length = int32(len(raw) - batchPrefix)
	b.CRC = int32(crc32.Checksum(raw[batchChecked:], castagnoli))
	binary.BigEndian.PutUint32(raw[8:], uint32(b.Length))
	binary.BigEndian.PutUint32(raw[17:], uint32(b.CRC))
	return raw
}
