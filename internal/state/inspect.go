package state

import (
	"context"
	"fmt"
	"sort"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/tierstream/tierstream/internal/protocol"
)

// Sample is what a partition holds at one instant, read without owning it.
type Sample struct {
	Fence     *protocol.Fence // nil: the partition was never started
	Outbox    []*protocol.Entry
	Customers []Sampled // as asked for
}

// Sampled is one customer of a Sample.
type Sampled struct {
	Value   []byte // nil: there is no record
	Indexed bool   // the due set has the customer
	Due     int64  // there; NeverDue for never
}

// MaxSample bounds how long one sample holds Redis.
const MaxSample = 5000

// sampleScript reads fence, outbox and customers in one atomic command.
// ARGV: the keys' base, then customers.
var sampleScript = redis.NewScript(`
local f = redis.call('HGETALL', KEYS[1])
local g = redis.call('HGET', KEYS[1], 'gen')
if not g then return {0} end
local base = ARGV[1] .. 'g' .. g .. ':'
local values, due = {}, {}
for i = 2, #ARGV do
  values[i - 1] = redis.call('GET', base .. 'c:' .. ARGV[i])
  due[i - 1] = redis.call('ZSCORE', base .. 'due', ARGV[i])
end
return {1, f, redis.call('HGETALL', KEYS[2]), values, due}`)

// Sample reads at most MaxSample customers together with fence and outbox.
func (s *Store) Sample(ctx context.Context, customers []string) (*Sample, error) {
	if len(customers) > MaxSample {
		return nil, fmt.Errorf("sampling %d customers: at most %d at once", len(customers), MaxSample)
	}
	args := make([]any, 1, 1+len(customers))
	args[0] = s.keys.base
	for _, c := range customers {
		args = append(args, c)
	}
	v, err := s.run(ctx, sampleScript, []string{s.keys.Fence(), s.keys.Outbox()}, args)
	if err != nil {
		return nil, fmt.Errorf("reading fence and outbox: %w", err)
	}
	var o Sample
	if !accepted(v) {
		return &o, nil
	}
	m, err := hash(v[1])
	if err == nil {
		o.Fence, err = parseFence(m)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the fence: %w", err)
	}
	box, err := hash(v[2])
	if err != nil {
		return nil, fmt.Errorf("reading the outbox: %w", err)
	}
	for seq, b := range box {
		e, err := unpackEntry([]byte(b))
		if err == nil && u64(e.Seq) != seq {
			err = fmt.Errorf("it is entry %d", e.Seq)
		}
		if err != nil {
			return nil, fmt.Errorf("reading outbox entry %s: %w", seq, err)
		}
		o.Outbox = append(o.Outbox, e)
	}
	sort.Slice(o.Outbox, func(i, j int) bool { return o.Outbox[i].Seq < o.Outbox[j].Seq })
	values, ok1 := v[3].([]any)
	due, ok2 := v[4].([]any)
	if !ok1 || !ok2 || len(values) != len(customers) || len(due) != len(customers) {
		return nil, fmt.Errorf("reading %d customers: unexpected reply", len(customers))
	}
	o.Customers = make([]Sampled, len(customers))
	for i := range customers {
		c := &o.Customers[i]
		if text, ok := values[i].(string); ok {
			c.Value = []byte(text)
		}
		if text, ok := due[i].(string); ok {
			if c.Due, err = parseScore(text); err != nil {
				return nil, fmt.Errorf("customer %s: %w", customers[i], err)
			}
			c.Indexed = true
		}
	}
	return &o, nil
}

func parseScore(text string) (int64, error) {
	due, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("due time %q: %w", text, err)
	}
	if due >= 1<<63 { // +inf too
		return NeverDue, nil
	}
	return int64(due), nil
}

// EachSampled calls fn for every customer of key generation gen, in no order.
// A customer that is written meanwhile may come twice, and record and due time
// may then be of two instants; none that was there at the beginning is left
// out.
func (s *Store) EachSampled(ctx context.Context, gen uint64, fn func(customer string, c Sampled) error) error {
	for cursor := uint64(0); ; {
		page, next, err := s.rdb.ZScan(ctx, s.keys.Due(gen), cursor, "", 1000).Result()
		if err != nil {
			return fmt.Errorf("listing customers: %w", err)
		}
		keys := make([]string, 0, len(page)/2)
		for i := 0; i < len(page); i += 2 { // member, score
			keys = append(keys, s.keys.Customer(gen, page[i]))
		}
		if len(keys) > 0 {
			vs, err := s.rdb.MGet(ctx, keys...).Result()
			if err != nil {
				return fmt.Errorf("reading customers: %w", err)
			}
			for i, v := range vs {
				c := Sampled{Indexed: true}
				if c.Due, err = parseScore(page[2*i+1]); err != nil {
					return fmt.Errorf("customer %s: %w", page[2*i], err)
				}
				if text, ok := v.(string); ok {
					c.Value = []byte(text)
				}
				if err := fn(page[2*i], c); err != nil {
					return err
				}
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// Originals reads the original records of waiting returns without owning the
// partition; nil for those that are not there.
func (s *Store) Originals(ctx context.Context, gen uint64, ws []WaitingKey) ([][]byte, error) {
	out := make([][]byte, len(ws))
	if len(ws) == 0 {
		return out, nil
	}
	keys := make([]string, len(ws))
	for i, w := range ws {
		keys[i] = s.keys.Waiting(gen, w)
	}
	vs, err := s.rdb.MGet(ctx, keys...).Result()
	if err != nil {
		return nil, fmt.Errorf("reading waiting returns: %w", err)
	}
	for i, v := range vs {
		if text, ok := v.(string); ok {
			out[i] = []byte(text)
		}
	}
	return out, nil
}
