package event

import (
	"fmt"
	"hash/crc32"
)

// Partitioner is the rule by which producers choose a record's partition. The
// consumer uses the same rule to tell a misrouted record.
type Partitioner interface {
	// Partition is the partition, 0 to n-1, of a key among n > 0, or
	// AnyPartition.
	Partition(key []byte, n int32) int32
	Name() string
}

// AnyPartition is the answer of the explicit partitioner: whichever partition
// a record lies in is right, as its producer says so.
const AnyPartition int32 = -1

// ParsePartitioner finds a partitioner by its name in the settings: murmur2
// (the Java client and franz-go), crc32 (librdkafka's consistent and
// consistent_random), fnv1a (sarama's HashPartitioner) or explicit.
func ParsePartitioner(name string) (Partitioner, error) {
	switch name {
	case "murmur2":
		return byMurmur2{}, nil
	case "crc32":
		return byCRC32{}, nil
	case "fnv1a":
		return byFNV1a{}, nil
	case "explicit":
		return byProducer{}, nil
	}
	return nil, fmt.Errorf("choosing partitioner %q: not one of murmur2, crc32, fnv1a, explicit", name)
}

type byMurmur2 struct{}

func (byMurmur2) Name() string { return "murmur2" }
func (byMurmur2) Partition(key []byte, n int32) int32 {
	return int32(murmur2(key)&0x7fffffff) % n
}

type byCRC32 struct{}

func (byCRC32) Name() string { return "crc32" }
func (byCRC32) Partition(key []byte, n int32) int32 {
	return int32(crc32.ChecksumIEEE(key) % uint32(n))
}

type byFNV1a struct{}

func (byFNV1a) Name() string { return "fnv1a" }

// Partition takes the remainder first and its absolute value then, as sarama
// does unless told to do it "the reference way".
func (byFNV1a) Partition(key []byte, n int32) int32 {
	h := uint32(2166136261)
	for _, c := range key {
		h = (h ^ uint32(c)) * 16777619
	}
	p := int32(h) % n
	if p < 0 {
		p = -p
	}
	return p
}

type byProducer struct{}

func (byProducer) Name() string                  { return "explicit" }
func (byProducer) Partition([]byte, int32) int32 { return AnyPartition }

// murmur2 is MurmurHash2 with the seed and the byte order of Kafka's
// org.apache.kafka.common.utils.Utils.
func murmur2(b []byte) uint32 {
	const (
		seed uint32 = 0x9747b28c
		m    uint32 = 0x5bd1e995
	)
	h := seed ^ uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
		k *= m
		k ^= k >> 24
		h = h*m ^ k*m
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(b[0])) * m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
