package embedded

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/vmihailenco/msgpack/v5"
)

// A snapshot file:
//
//	offset  bytes
//	0       8      "tsredis" and the version of the format, 1
//	8       …      msgpack: the number of keys, then for each key
//	               key (bin), type (uint), time of expiry (Unix ms, 0 = never),
//	               and by type: 1 string: bin · 2 hash: array of field, value ·
//	               3 sorted set: array of member, score (float 64)
//	end−32  32     SHA-256 of all before
const snapshotMagic = "tsredis\x01"

const (
	kindString = 1
	kindHash   = 2
	kindZSet   = 3
)

// errBroken is what a snapshot with a wrong checksum or form gives.
var errBroken = errors.New("it is damaged")

// saveSnapshot writes all keys of database 0 to a file that appears whole or
// not at all. Keys of other types than strings, hashes and sorted sets are left
// out and named in the error.
func saveSnapshot(m *miniredis.Miniredis, path string) error {
	var skipped []error
	err := replaceFile(path, func(w io.Writer) error {
		sum := sha256.New()
		buffer := bufio.NewWriterSize(io.MultiWriter(w, sum), 1<<16)
		_, _ = buffer.WriteString(snapshotMagic) // an error stays until Flush
		var err error
		if skipped, err = encodeKeys(msgpack.NewEncoder(buffer), m); err != nil {
			return err
		}
		if err := buffer.Flush(); err != nil {
			return err
		}
		_, err = w.Write(sum.Sum(nil))
		return err
	})
	if err != nil {
		return fmt.Errorf("writing the snapshot: %w", err)
	}
	return errors.Join(skipped...)
}

func encodeKeys(e *msgpack.Encoder, m *miniredis.Miniredis) (skipped []error, err error) {
	kinds := map[string]uint64{"string": kindString, "hash": kindHash, "zset": kindZSet}
	keys := slices.DeleteFunc(m.Keys(), func(key string) bool {
		name := m.Type(key)
		if kinds[name] != 0 {
			return false
		}
		skipped = append(skipped, fmt.Errorf("the snapshot leaves out key %q: it cannot hold a %s", key, name))
		return true
	})
	if err := e.EncodeUint(uint64(len(keys))); err != nil {
		return nil, err
	}
	now := time.Now()
	for _, key := range keys {
		var expiry int64
		if ttl := m.TTL(key); ttl > 0 {
			expiry = now.Add(ttl).UnixMilli()
		}
		kind := kinds[m.Type(key)]
		if err := errors.Join(e.EncodeBytes([]byte(key)), e.EncodeUint(kind), e.EncodeInt(expiry)); err != nil {
			return nil, err
		}
		if err := encodeValue(e, m, key, kind); err != nil {
			return nil, fmt.Errorf("key %q: %w", key, err)
		}
	}
	return skipped, nil
}

func encodeValue(e *msgpack.Encoder, m *miniredis.Miniredis, key string, kind uint64) error {
	switch kind {
	case kindString:
		value, err := m.Get(key)
		if err != nil {
			return err
		}
		return e.EncodeBytes([]byte(value))
	case kindHash:
		fields, err := m.HKeys(key)
		if err != nil {
			return err
		}
		if err := e.EncodeArrayLen(2 * len(fields)); err != nil {
			return err
		}
		for _, field := range fields {
			if err := errors.Join(e.EncodeBytes([]byte(field)), e.EncodeBytes([]byte(m.HGet(key, field)))); err != nil {
				return err
			}
		}
	default:
		members, err := m.SortedSet(key)
		if err != nil {
			return err
		}
		if err := e.EncodeArrayLen(2 * len(members)); err != nil {
			return err
		}
		for member, score := range members {
			if err := errors.Join(e.EncodeBytes([]byte(member)), e.EncodeFloat64(score)); err != nil {
				return err
			}
		}
	}
	return nil
}

// loadSnapshot puts what the file holds into an empty m; no file, nothing.
func loadSnapshot(m *miniredis.Miniredis, path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = decodeSnapshot(m, text)
	}
	if err != nil {
		return fmt.Errorf("loading the Redis snapshot %s: %w; delete the file to go on: the state is rebuilt from the journal", path, err)
	}
	return nil
}

func decodeSnapshot(m *miniredis.Miniredis, text []byte) error {
	const name = len(snapshotMagic) - 1 // what stands before the version
	if len(text) < len(snapshotMagic)+sha256.Size || string(text[:name]) != snapshotMagic[:name] {
		return errBroken
	}
	if version := text[name]; version != snapshotMagic[name] {
		return fmt.Errorf("it has version %d, this program reads version %d", version, snapshotMagic[name])
	}
	body := text[:len(text)-sha256.Size]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], text[len(body):]) {
		return errBroken
	}
	in := bytes.NewReader(body[len(snapshotMagic):])
	if err := decodeKeys(msgpack.NewDecoder(in), m); err != nil {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	if in.Len() > 0 {
		return fmt.Errorf("%w: %d bytes after the last key", errBroken, in.Len())
	}
	return nil
}

func decodeKeys(d *msgpack.Decoder, m *miniredis.Miniredis) error {
	count, err := d.DecodeUint64()
	if err != nil {
		return err
	}
	now := time.Now()
	for range count {
		key, err := decodeString(d)
		if err != nil {
			return err
		}
		kind, err := d.DecodeUint64()
		if err != nil {
			return err
		}
		expiry, err := d.DecodeInt64()
		if err != nil {
			return err
		}
		if err := decodeValue(d, m, key, kind); err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
		if expiry != 0 {
			if ttl := time.UnixMilli(expiry).Sub(now); ttl > 0 {
				m.SetTTL(key, ttl)
			} else {
				m.Del(key)
			}
		}
	}
	return nil
}

func decodeValue(d *msgpack.Decoder, m *miniredis.Miniredis, key string, kind uint64) error {
	if kind == kindString {
		value, err := decodeString(d)
		if err != nil {
			return err
		}
		return m.Set(key, value)
	}
	n, err := d.DecodeArrayLen()
	if err != nil {
		return err
	}
	if n < 0 || n%2 != 0 {
		return fmt.Errorf("array of %d for pairs", n)
	}
	for range n / 2 {
		name, err := decodeString(d)
		if err != nil {
			return err
		}
		switch kind {
		case kindHash:
			value, err := decodeString(d)
			if err != nil {
				return err
			}
			m.HSet(key, name, value)
		case kindZSet:
			score, err := d.DecodeFloat64()
			if err != nil {
				return err
			}
			if _, err := m.ZAdd(key, score, name); err != nil {
				return err
			}
		default:
			return fmt.Errorf("unknown type %d", kind)
		}
	}
	return nil
}

func decodeString(d *msgpack.Decoder) (string, error) {
	b, err := d.DecodeBytes()
	return string(b), err
}
