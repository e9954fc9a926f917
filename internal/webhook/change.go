package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/vmihailenco/msgpack/v5"
)

// change is a tier change as it was published.
type change struct {
	id       string // ce_id, the webhook-id
	customer string
	sequence uint64 // per customer
	at       time.Time
	headers  []kgo.RecordHeader // of the record
	body     []byte
}

// content is what filters look at.
type content struct {
	New struct {
		ID string `json:"id"`
	} `json:"new_tier"`
	Direction string `json:"direction"`
	Reason    string `json:"reason"`
	Mode      string `json:"mode"`
}

// overhead is what a held change costs in memory beside its texts, in bytes.
const overhead = 512

func (c *change) size() int {
	n := overhead + len(c.id) + len(c.customer) + len(c.body)
	for _, h := range c.headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}

func (c *change) header(name string) string {
	for _, h := range c.headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

// readChange reads a record of the topic of tier changes.
func readChange(r *kgo.Record) (change, error) {
	c := change{customer: string(r.Key), at: r.Timestamp, headers: r.Headers, body: r.Value}
	c.id = c.header("ce_id")
	n, err := strconv.ParseUint(c.header("ce_customerseq"), 10, 64)
	switch {
	case c.id == "" || strings.Contains(c.id, ".") || err != nil || c.customer == "" || c.body == nil:
		return c, fmt.Errorf("%s/%d@%d is no tier change", r.Topic, r.Partition, r.Offset)
	}
	c.sequence = n
	return c, nil
}

func (c *change) content() (out content, err error) {
	if strings.HasSuffix(c.header("content-type"), "msgpack") {
		d := msgpack.NewDecoder(bytes.NewReader(c.body))
		d.SetCustomStructTag("json")
		err = d.Decode(&out)
	} else {
		err = json.Unmarshal(c.body, &out)
	}
	if err != nil {
		return out, fmt.Errorf("change %s of %s: %w", c.id, c.customer, err)
	}
	return out, nil
}
