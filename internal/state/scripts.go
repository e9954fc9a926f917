package state

import "github.com/redis/go-redis/v9"

// Every script takes the fence as KEYS[1]; other keys of the same slot are
// formed from the same hash tag by the caller and passed as arguments, already
// interleaved with their values: building MSET's argument list inside Lua
// costs more than the MSET (measured).
//
// ARGV[1..5] are the identity: epoch, owner, gen, seq, chain.
//
// Lua's unpack is limited (miniredis refuses above some 7,900 values), hence
// the chunks of 2,000 values.
const checkIdentity = `
local f = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'gen', 'seq', 'chain', 'lease')
for i = 1, 5 do if f[i] ~= ARGV[i] then return {0} end end
`

// checkLease follows checkIdentity where a script writes. An owner that
// overslept may find itself named, where Redis lost the epoch of who came
// since; only the lease tells it.
const checkLease = `
local t = redis.call('TIME')
if t[1] * 1000 + math.floor(t[2] / 1000) >= tonumber(f[6]) then return {0} end
`

var (
	// acquireScript takes a partition: a new epoch and owner, and the lease. A
	// partition without a fence gets one that is loading, in a generation of
	// which Redis holds nothing: only the fence may have been lost.
	// KEYS: fence, outbox, generations. ARGV: owner, lease in ms, key prefix.
	// Returns {fresh, fence, outbox, 2 where there are customers but no due set}.
	acquireScript = redis.NewScript(newGeneration + `
local fresh = 0
if redis.call('HEXISTS', KEYS[1], 'chain') == 0 then
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], 'gen', new_generation(KEYS[3], ARGV[3], 1), 'seq', '0', 'chain', 'loading')
  fresh = 1
end
redis.call('HINCRBY', KEYS[1], 'epoch', 1)
local t = redis.call('TIME')
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'lease', string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[2]))
local g = redis.call('HGET', KEYS[1], 'gen') or ''
local due = redis.call('EXISTS', ARGV[3] .. 'g' .. g .. ':due')
local d = redis.call('HMGET', KEYS[1], 'digest', 'chain')
if due == 0 and d[1] and string.match(d[1], '[^0]') and d[2] ~= 'loading' then
  redis.call('SADD', KEYS[3], g .. '*') -- its customers must be looked for, see abandonedScript
  due = 2
end
return {fresh, redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2]), due}`)

	// renewScript extends a lease that holds; it asks for epoch, owner and
	// generation only, because batches move seq and chain meanwhile. A lease
	// that is over is not renewed: Redis may have lost the epoch of who came
	// since, and nothing but the lease would tell the old owner.
	// ARGV: epoch, owner, gen, lease in ms. Returns {1} or {0}.
	renewScript = redis.NewScript(`
local f = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'gen', 'lease')
for i = 1, 3 do if f[i] ~= ARGV[i] then return {0} end end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if now >= tonumber(f[4]) then return {0} end
redis.call('HSET', KEYS[1], 'lease', string.format('%.0f', now + ARGV[4]))
return {1}`)

	// compareScript says whether the fence is still the expected one.
	compareScript = redis.NewScript(checkIdentity + `return {1}`)

	// loadScript reads values in the same atomic command that checks the
	// identity. A missing value of somebody who is in the due set says that
	// Redis does not hold what its fence says.
	// ARGV[6]: due key, or empty for no such check; ARGV[7]: how many bytes of
	// a key come before the customer; ARGV[8..]: keys. Returns {1, values in
	// chunks}, or {2, the customer whose record is gone}.
	loadScript = redis.NewScript(checkIdentity + `
local r = {1}
for i = 8, #ARGV, 2000 do
  local v = redis.call('MGET', unpack(ARGV, i, math.min(i + 1999, #ARGV)))
  if ARGV[6] ~= '' then
    for j = 1, #v do
      if not v[j] then
        local id = string.sub(ARGV[i + j - 1], ARGV[7] + 1)
        if redis.call('ZSCORE', ARGV[6], id) then return {2, id} end
      end
    end
  end
  r[#r + 1] = v
end
return r`)

	// dueScript reads the entries of the due set up to a due time, in (due,
	// customer) order: a sorted set orders equal scores by member bytes.
	// ARGV[6]: due key, ARGV[7]: highest due time, ARGV[8]: at most so many.
	dueScript = redis.NewScript(checkIdentity + `
return {1, redis.call('ZRANGE', ARGV[6], '-inf', ARGV[7], 'BYSCORE', 'LIMIT', 0, ARGV[8], 'WITHSCORES')}`)

	// applyScript writes one batch: all of it, or nothing.
	//
	// ARGV: identity (5), new chain, new lease in ms, then counted lists:
	//   fence fields and values; customer keys and values; due scores and
	//   members; waiting keys and values; waiting keys to delete; outbox seqs
	//   to drop; and last the outbox entry (seq, bytes) or nothing.
	// KEYS: fence, outbox, due set.
	//
	// Returns {1} accepted, {2} the same batch is already there, {0} rejected,
	// {3} rejected because the lease is over. "Already there" is tested before
	// the lease: it is a fact, not a permission. The chain of a step of loading
	// is always the same, so the seq, the first of the fence fields, is compared
	// as well. It still asks that the fence is
	// mine, or I would go on with what another owner has taken.
	//
	// Types are checked before the first write, because a script is not rolled
	// back on an error. Memory needs no check of its own: Redis decides at the
	// start of a script whether commands that need memory are refused, so the
	// first write fails and nothing is written.
	applyScript = redis.NewScript(`
local A = ARGV
local f = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'gen', 'seq', 'chain', 'lease')
if f[1] ~= A[1] or f[2] ~= A[2] or f[3] ~= A[3] then return {0} end
if f[5] == A[6] and f[4] == A[10] then return {2} end
if f[4] ~= A[4] or f[5] ~= A[5] then return {0} end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if now >= tonumber(f[6]) then return {3} end
local function typed(key, want)
  local is = redis.call('TYPE', key).ok
  if is ~= 'none' and is ~= want then return key .. ' is a ' .. is .. ', not a ' .. want end
end
local wrong = typed(KEYS[2], 'hash') or typed(KEYS[3], 'zset')
if wrong then return redis.error_reply('WRONGTYPE ' .. wrong) end
local at = 8
local function list(command, key)
  local n = tonumber(A[at])
  local last = at + n
  for i = at + 1, last, 2000 do
    if key then redis.call(command, key, unpack(A, i, math.min(i + 1999, last)))
    else redis.call(command, unpack(A, i, math.min(i + 1999, last))) end
  end
  at = last + 1
end
redis.call('HSET', KEYS[1], 'chain', A[6], 'lease', string.format('%.0f', now + A[7]))
list('HSET', KEYS[1])
list('MSET')
list('ZADD', KEYS[3])
list('MSET')
list('DEL')
list('HDEL', KEYS[2])
list('HSET', KEYS[2])
return {1}`)
)
