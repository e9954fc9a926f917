package state

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/tierstream/tierstream/internal/protocol"
)

// Pending is the due time of a customer whom a rebase has gathered and not
// visited yet: before everybody, so that the due set is the list of what is
// left to do, in customer order.
const Pending = math.MinInt64

// ErrDamaged means: the due set, which every customer is in, names one whose
// record is gone. Redis does not hold what its fence says it holds.
var ErrDamaged = errors.New("Redis holds the customer's due time, but not the record")

var (
	// raiseScript abandons the current key generation: the next one is empty
	// and loading. What it takes from the abandoned one, for a rebase, is named
	// by base and base_next. A generation of which Redis still holds keys is
	// never taken again.
	// KEYS: fence, outbox, generations. ARGV[6..]: key prefix, base, base_next.
	// Returns {1, gen}.
	raiseScript = redis.NewScript(checkIdentity + checkLease + newGeneration + `
redis.call('SADD', KEYS[3], ARGV[3])
local g = new_generation(KEYS[3], ARGV[6], ARGV[3] + 1)
redis.call('HSET', KEYS[1], 'gen', g, 'seq', '0', 'chain', 'loading')
redis.call('HDEL', KEYS[1], 'base', 'base_next', 'rebase_seq', 'rebase_cause', 'rebase_open')
if ARGV[7] ~= '0' then redis.call('HSET', KEYS[1], 'base', ARGV[7], 'base_next', ARGV[8]) end
redis.call('DEL', KEYS[2])
return {1, g}`)

	// aimScript says what readers must wait for. ARGV[6]: the sequence of K.
	aimScript = redis.NewScript(checkIdentity + checkLease + `
redis.call('HSET', KEYS[1], 'target', ARGV[6])
return {1}`)

	// membersScript lists customers of a generation that nobody writes.
	// ARGV[6..]: due key, first rank, last rank. Returns {1, customers}.
	membersScript = redis.NewScript(checkIdentity + `
return {1, redis.call('ZRANGE', ARGV[6], ARGV[7], ARGV[8])}`)

	// abandonedScript finds something to delete: some customers of a
	// generation that is neither the fence's nor its base. A generation of
	// which nothing is left is forgotten. One that lost its due set, the index,
	// is marked with a star, and its keys are looked for among all.
	// KEYS: fence, generations. ARGV[6..]: key prefix, at most so many, cursor.
	// Returns {1}, {1, gen, customers, their records}, or {2, next cursor}.
	abandonedScript = redis.NewScript(checkIdentity + checkLease + `
local base = redis.call('HGET', KEYS[1], 'base')
for _, m in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local g = string.match(m, '%d+')
  if g ~= ARGV[3] and g ~= base then
    if g ~= m then
      local page = redis.call('SCAN', ARGV[8], 'COUNT', ARGV[7])
      local prefix = ARGV[6] .. 'g' .. g .. ':'
      for _, key in ipairs(page[2]) do
        if string.sub(key, 1, #prefix) == prefix then redis.call('DEL', key) end
      end
      if page[1] == '0' then redis.call('SREM', KEYS[2], m) end
      return {2, page[1]}
    end
    local prefix = ARGV[6] .. 'g' .. g .. ':'
    local ids = redis.call('ZRANGE', prefix .. 'due', 0, ARGV[7] - 1)
    if #ids > 0 then
      local keys = {}
      for i, id in ipairs(ids) do keys[i] = prefix .. 'c:' .. id end
      return {1, g, ids, redis.call('MGET', unpack(keys))}
    end
    redis.call('SREM', KEYS[2], g)
  end
end
return {1}`)

	// forgetScript deletes customers of an abandoned generation, and never of
	// the fence's own or its base.
	// ARGV[6..]: gen, due key, number of customers, customers, keys.
	forgetScript = redis.NewScript(checkIdentity + checkLease + `
if ARGV[6] == ARGV[3] or ARGV[6] == redis.call('HGET', KEYS[1], 'base') then return {0} end
local last = 8 + ARGV[8]
redis.call('ZREM', ARGV[7], unpack(ARGV, 9, last))
for i = last + 1, #ARGV, 2000 do
  redis.call('DEL', unpack(ARGV, i, math.min(i + 1999, #ARGV)))
end
return {1}`)
)

// newGeneration is a generation of which Redis holds nothing: above all that
// are known, and above any that are not but have customers.
const newGeneration = `
local function new_generation(known, prefix, g)
  for _, m in ipairs(redis.call('SMEMBERS', known)) do g = math.max(g, string.match(m, '%d+') + 1) end
  local function text() return string.format('%.0f', g) end
  while redis.call('EXISTS', prefix .. 'g' .. text() .. ':due') == 1 do
    redis.call('SADD', known, text())
    g = g + 1
  end
  redis.call('SADD', known, text())
  return text()
end
`

// number reads an integer that a script returned as text.
func number(v any) (uint64, error) {
	text, _ := v.(string)
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("unexpected reply %v: %w", v, err)
	}
	return n, nil
}

func texts(v any) ([]string, error) {
	l, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("unexpected reply %T", v)
	}
	out := make([]string, len(l))
	for i := range l {
		out[i], _ = l[i].(string)
	}
	return out, nil
}

// appendValues appends the values of a reply, nil for those that are not
// there.
func appendValues(out [][]byte, v any) ([][]byte, error) {
	l, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("unexpected reply %T", v)
	}
	for _, x := range l {
		if text, ok := x.(string); ok {
			out = append(out, []byte(text))
		} else {
			out = append(out, nil)
		}
	}
	return out, nil
}

// Raise abandons the key generation: the next is empty and loading. base is a
// generation that must be kept for the rebase that follows, at the positions
// next; 0 when there is none.
func (s *Store) Raise(ctx context.Context, id protocol.Identity, base uint64, next []protocol.Position) (gen uint64, err error) {
	args := append(appendIdentity(nil, id), s.keys.base, u64(base), positionsText(next))
	v, err := s.run(ctx, raiseScript, []string{s.keys.Fence(), s.keys.Outbox(), s.keys.Generations()}, args)
	if err != nil {
		return 0, fmt.Errorf("raising the key generation: %w", err)
	}
	if !accepted(v) {
		return 0, ErrFenced
	}
	return number(v[1])
}

// Aim tells readers that what is here is older than what was published, until
// the fence has reached the sequence.
func (s *Store) Aim(ctx context.Context, id protocol.Identity, target uint64) error {
	v, err := s.run(ctx, aimScript, []string{s.keys.Fence()}, append(appendIdentity(nil, id), u64(target)))
	if err != nil {
		return fmt.Errorf("noting the target: %w", err)
	}
	if !accepted(v) {
		return ErrFenced
	}
	return nil
}

// Fill writes customers into a generation that is loading: one step, which
// moves the identity's Seq by one. They are pending, whatever their Due. It
// asks for the same as Apply.
func (s *Store) Fill(ctx context.Context, id protocol.Identity, customers []Put, wait []WaitingValue, unwait []WaitingKey) (protocol.Answer, error) {
	for i := range customers {
		customers[i].Due, customers[i].DueMoved = Pending, true
	}
	return s.Apply(ctx, &Batch{
		Identity: id, Point: protocol.Point{Seq: id.Seq + 1}, Customers: customers, Wait: wait, Unwait: unwait,
	})
}

// Members lists at most n customers of a generation that nobody writes, from a
// rank on, each once.
func (s *Store) Members(ctx context.Context, id protocol.Identity, gen uint64, from, n int) ([]string, error) {
	v, err := s.run(ctx, membersScript, []string{s.keys.Fence()}, append(appendIdentity(nil, id), s.keys.Due(gen), from, from+n-1))
	if err != nil {
		return nil, fmt.Errorf("listing customers of generation %d: %w", gen, err)
	}
	if !accepted(v) {
		return nil, ErrFenced
	}
	return texts(v[1])
}

// LoadFrom reads customers' records of another generation than the fence's.
func (s *Store) LoadFrom(ctx context.Context, id protocol.Identity, gen uint64, customers []string) ([][]byte, error) {
	return s.load(ctx, id, len(customers), "", 0, func(i int) string { return s.keys.Customer(gen, customers[i]) })
}

// LoadWaitingFrom reads the originals of waiting returns of another generation.
func (s *Store) LoadWaitingFrom(ctx context.Context, id protocol.Identity, gen uint64, ws []WaitingKey) ([][]byte, error) {
	return s.load(ctx, id, len(ws), "", 0, func(i int) string { return s.keys.Waiting(gen, ws[i]) })
}

// Abandoned is a piece of a key generation that is to be deleted.
type Abandoned struct {
	Gen       uint64 // 0: nothing was found
	Customers []string
	Records   [][]byte // nil where none is left
	// Cursor is where the next look among all keys goes on; More says that
	// there is one.
	Cursor string
	More   bool
}

// Abandoned finds at most n customers of generations that are not needed any
// more. Where a generation's index is lost, it looks for its keys among n of
// all, deletes what it finds, and says More; cursor is "0" at first.
func (s *Store) Abandoned(ctx context.Context, id protocol.Identity, n int, cursor string) (a Abandoned, err error) {
	v, err := s.run(ctx, abandonedScript, []string{s.keys.Fence(), s.keys.Generations()}, append(appendIdentity(nil, id), s.keys.base, n, cursor))
	if err != nil {
		return a, fmt.Errorf("looking for abandoned generations: %w", err)
	}
	switch answer, _ := v[0].(int64); {
	case answer == 2:
		a.Cursor, _ = v[1].(string)
		a.More = true
		return a, nil
	case answer != 1:
		return a, ErrFenced
	case len(v) == 1:
		return a, nil
	}
	if a.Gen, err = number(v[1]); err != nil {
		return a, err
	}
	if a.Customers, err = texts(v[2]); err != nil {
		return a, err
	}
	a.Records, err = appendValues(nil, v[3])
	return a, err
}

// Forget deletes what Abandoned found, with the originals of the customers'
// waiting returns.
func (s *Store) Forget(ctx context.Context, id protocol.Identity, a Abandoned, waiting []WaitingKey) error {
	args := append(appendIdentity(nil, id), u64(a.Gen), s.keys.Due(a.Gen), len(a.Customers))
	for _, c := range a.Customers {
		args = append(args, c)
	}
	for _, c := range a.Customers {
		args = append(args, s.keys.Customer(a.Gen, c))
	}
	for _, w := range waiting {
		args = append(args, s.keys.Waiting(a.Gen, w))
	}
	v, err := s.run(ctx, forgetScript, []string{s.keys.Fence()}, args)
	if err != nil {
		return fmt.Errorf("deleting customers of generation %d: %w", a.Gen, err)
	}
	if !accepted(v) {
		return ErrFenced
	}
	return nil
}
