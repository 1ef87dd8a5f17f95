"""The Lua of states in Redis.

Of each state `name`: its manifest under <prefix>m:<name>, its parts under <prefix>p:<name>:<nonce>:<n>. The tables in
KEYS are: used (name -> time of the last use), held (name -> "bytes parts nonce"), sums ("bytes" -> of all together),
pins (name -> until when). ARGV[1] is the prefix wherever one is needed. A state that is held without a manifest is
being sent.
"""

from __future__ import annotations

__all__ = ["ADMIT", "DROP", "FETCH", "HELD", "PART", "PIN", "PRUNE", "PUBLISH", "SEND"]

_FORGET = """
local prefix = ARGV[1]
local function part(name, nonce, n) return prefix .. 'p:' .. name .. ':' .. nonce .. ':' .. n end
local function facts(name)
  local told = redis.call('HGET', KEYS[2], name)
  if not told then return nil end
  local size, parts, nonce = string.match(told, '^(%d+) (%d+) (%S+)$')
  return tonumber(size), tonumber(parts), nonce
end
local function total() return tonumber(redis.call('HGET', KEYS[3], 'bytes') or '0') end
local function forget(name)
  local size, parts, nonce = facts(name)
  redis.call('DEL', prefix .. 'm:' .. name)
  if size then
    for n = 0, parts - 1 do redis.call('DEL', part(name, nonce, n)) end
    redis.call('HINCRBY', KEYS[3], 'bytes', '-' .. size)
    redis.call('HDEL', KEYS[2], name)
  end
  redis.call('ZREM', KEYS[1], name)
  return size or 0
end
local function by_use(now)
  local first, last = {}, {}
  for _, name in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    local pin = redis.call('ZSCORE', KEYS[4], name)
    if pin and tonumber(pin) > now then last[#last + 1] = name else first[#first + 1] = name end
  end
  for _, name in ipairs(last) do first[#first + 1] = name end
  return first
end
"""

ADMIT = (
    _FORGET
    + """
local name, nonce, size, parts = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local now, limit, pending, lifetime = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - lifetime)) do forget(old) end
local used = redis.call('ZSCORE', KEYS[1], name)
if used then
  if redis.call('EXISTS', prefix .. 'm:' .. name) == 1 then return 0 end
  if tonumber(used) > now - pending then return 0 end
  forget(name)
end
if total() + size > limit then
  for _, old in ipairs(by_use(now)) do
    forget(old)
    if total() + size <= limit then break end
  end
end
if total() + size > limit then return 0 end
redis.call('HSET', KEYS[2], name, ARGV[4] .. ' ' .. parts .. ' ' .. nonce)
redis.call('HINCRBY', KEYS[3], 'bytes', ARGV[4])
redis.call('ZADD', KEYS[1], now, name)
return 1
"""
)
"""prefix, name, nonce, bytes, parts, now, limit, seconds to send, lifetime: makes room; 1 where it is to be sent."""

SEND = """
redis.call('SET', ARGV[1] .. 'p:' .. ARGV[2] .. ':' .. ARGV[3] .. ':' .. ARGV[4], ARGV[5], 'EX', tonumber(ARGV[6]))
return 1
"""
"""prefix, name, nonce, n, bytes, seconds to send."""

PUBLISH = (
    _FORGET
    + """
local name, nonce, now, lifetime = ARGV[2], ARGV[3], tonumber(ARGV[5]), tonumber(ARGV[6])
local size, parts, booked = facts(name)
if booked ~= nonce then
  return 0
end
for n = 0, parts - 1 do
  if redis.call('EXPIRE', part(name, nonce, n), lifetime) == 0 then
    forget(name)
    return 0
  end
end
redis.call('SET', prefix .. 'm:' .. name, ARGV[4], 'EX', lifetime)
redis.call('ZADD', KEYS[1], now, name)
return 1
"""
)
"""prefix, name, nonce, manifest, now, lifetime: makes a state of the parts; 0 where its place was taken meanwhile."""

FETCH = (
    _FORGET
    + """
local name, now, lifetime = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local manifest = redis.call('GET', prefix .. 'm:' .. name)
local size, parts, nonce = facts(name)
if not manifest or not size then return nil end
redis.call('EXPIRE', prefix .. 'm:' .. name, lifetime)
for n = 0, parts - 1 do redis.call('EXPIRE', part(name, nonce, n), lifetime) end
redis.call('ZADD', KEYS[1], now, name)
return manifest
"""
)
"""prefix, name, now, lifetime: the manifest, whose state counts as used."""

PART = "return redis.call('GET', ARGV[1] .. 'p:' .. ARGV[2] .. ':' .. ARGV[3] .. ':' .. ARGV[4])"
"""prefix, name, nonce, n."""

DROP = _FORGET + "forget(ARGV[2]) return 1"
"""prefix, name."""

PIN = """
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', tonumber(ARGV[2]))
for n = 3, #ARGV do
  local until_ = redis.call('ZSCORE', KEYS[4], ARGV[n])
  if not until_ or tonumber(until_) < tonumber(ARGV[1]) then redis.call('ZADD', KEYS[4], ARGV[1], ARGV[n]) end
end
return 1
"""
"""until, now, names."""

HELD = "return {redis.call('ZCARD', KEYS[1]), tonumber(redis.call('HGET', KEYS[3], 'bytes') or '0')}"
"""How many states, and their bytes."""

PRUNE = (
    _FORGET
    + """
local now, limit, before, batch = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local count, freed = 0, 0
for _, name in ipairs(by_use(now)) do
  if count == batch then break end
  local old = tonumber(redis.call('ZSCORE', KEYS[1], name)) < before
  if old or total() > limit then
    freed = freed + forget(name)
    count = count + 1
  end
end
return {count, freed}
"""
)
"""prefix, now, limit, time before which a last use is too old, how many at most: count and bytes of what went."""
