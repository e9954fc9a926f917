package fold

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/vmihailenco/msgpack/v5"
)

// MsgpackType is the content type of changes that were transcoded.
const MsgpackType = "application/msgpack"

// Msgpack transcodes a JSON payload, for consumers that want MessagePack: the
// same names and values, map keys sorted, whole numbers as integers. The
// decision is the JSON text; this is another way to write it down.
func Msgpack(payload []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, fmt.Errorf("transcoding a change: %w", err)
	}
	v, err := numbers(v)
	if err != nil {
		return nil, fmt.Errorf("transcoding a change: %w", err)
	}
	var b bytes.Buffer
	enc := msgpack.NewEncoder(&b)
	enc.SetSortMapKeys(true)
	enc.UseCompactInts(true)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("transcoding a change: %w", err)
	}
	return b.Bytes(), nil
}

// numbers turns JSON numbers into int64 or float64.
func numbers(v any) (_ any, err error) {
	switch v := v.(type) {
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return v.Float64()
		}
		return v.Int64()
	case map[string]any:
		for k := range v {
			if v[k], err = numbers(v[k]); err != nil {
				return nil, err
			}
		}
	case []any:
		for i := range v {
			if v[i], err = numbers(v[i]); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}
