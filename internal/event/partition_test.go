package event

import (
	"hash/fnv"
	"testing"

	"pgregory.net/rapid"
)

// The values of testMurmur2 in Kafka's UtilsTest.
func TestMurmur2IsKafkas(t *testing.T) {
	for key, want := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("%q: %d, want %d", key, got, want)
		}
	}
}

func TestPartitionersKnownAnswers(t *testing.T) {
	for _, c := range []struct {
		name, key string
		n, want   int32
	}{
		{"murmur2", "21", 1000, (-973932308 & 0x7fffffff) % 1000},
		{"murmur2", "abc", 12, 479470107 % 12},
		{"crc32", "123456789", 1000, 0xcbf43926 % 1000},  // the check value of CRC-32/ISO-HDLC
		{"fnv1a", "", 1000, (1<<32 - 0x811c9dc5) % 1000}, // the offset basis, negative as int32
		{"fnv1a", "a", 7, (1<<32 - 0xe40c292c) % 7},      // published hash 0xe40c292c, negative as int32
		{"fnv1a", "foobar", 12, (1<<32 - 0xbf9cf968) % 12},
		{"explicit", "abc", 12, AnyPartition},
	} {
		p, err := ParsePartitioner(c.name)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Partition([]byte(c.key), c.n); got != c.want || p.Name() != c.name {
			t.Errorf("%s of %q among %d: %d, want %d", p.Name(), c.key, c.n, got, c.want)
		}
	}
	if p, err := ParsePartitioner("random"); err == nil {
		t.Errorf("random is %s", p.Name())
	}
}

func TestPartitionersStayInRangeAndAgreeWithFNV(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOf(rapid.Byte()).Draw(t, "key")
		n := rapid.Int32Range(1, 1<<20).Draw(t, "n")
		for _, name := range []string{"murmur2", "crc32", "fnv1a"} {
			p, err := ParsePartitioner(name)
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Partition(key, n); got < 0 || got >= n {
				t.Fatalf("%s: %d of %d", name, got, n)
			}
		}
		h := fnv.New32a()
		h.Write(key)
		want := int32(h.Sum32()) % n
		if got := (byFNV1a{}).Partition(key, n); got != want && got != -want {
			t.Fatalf("fnv1a: %d, want %d", got, want)
		}
	})
}
