"""Lua functions that the index's scripts share (see `coa.cache.index_scripts` for keys and the dialect).

SLOTS reads a replica's slots, BOOK books a call, VIEWS says what a replica holds, has under way, and would push out.
"""

from __future__ import annotations

from coa.cache.router import EVICTED_SHARE

__all__ = ["BOOK_FUNCTION", "SLOTS", "VIEWS"]

SLOTS = """
local function slots_of(key)
  local flat, slots = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do
    local deadline, used, held, owner = string.match(flat[i + 1], '^(%S+) (%S+) (%S+) (.*)$')
    if deadline then
      slots[tonumber(flat[i])] = {deadline = tonumber(deadline), used = tonumber(used), held = held, owner = owner}
    end
  end
  return slots
end
local function pinned(pins, held, now)
  local deadline = held ~= '-' and redis.call('ZSCORE', pins, held)
  return deadline and tonumber(deadline) > now
end
"""

BOOK_FUNCTION = """
local function book(fw, request, deadline, now, uncached, out, packed, ttl)
  redis.call('HSET', fw, request, string.format('%.6f %.6f %.0f %.0f\\n', deadline, now, uncached, out) .. packed)
  redis.call('EXPIRE', fw, ttl)
end
"""

VIEWS = (
    f"""
local EVICTED = {EVICTED_SHARE!r}
"""
    + """
local function depth_held(ix, packed, n, now)
  local function has(i)
    local expiry = redis.call('ZSCORE', ix, string.sub(packed, 16 * i - 15, 16 * i))
    return expiry and tonumber(expiry) > now
  end
  if n == 0 or not has(1) then return 0 end
  local low, high = 1, n
  if has(n) then low = n end
  while low < n and high - low > 1 do
    local middle = math.floor((low + high) / 2)
    if has(middle) then low = middle else high = middle end
  end
  for i = math.max(1, low - 2), low - 1 do
    if not has(i) then
      low = 0
      while low < n and has(low + 1) do low = low + 1 end
      return low
    end
  end
  return low
end
local function depth_shared(other, packed, n)
  local function same(i) return string.sub(other, 16 * i - 15, 16 * i) == string.sub(packed, 16 * i - 15, 16 * i) end
  local low, high = 0, math.min(n, #other / 16) + 1
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    if same(middle) then low = middle else high = middle end
  end
  return low
end
local function load_of(fw, packed, n, now)
  local load = {calls = 0, uncached = 0, out = 0, depth = 0, began = nil, ended = 0}
  local flat = redis.call('HGETALL', fw)
  for i = 1, #flat, 2 do
    if flat[i] == '.' then
      load.ended = tonumber(flat[i + 1])
    else
      local deadline, at, uncached, out, rest = string.match(flat[i + 1], '^(%S+) (%S+) (%S+) (%S+)\\n()')
      if not deadline or tonumber(deadline) <= now then
        redis.call('HDEL', fw, flat[i])
      else
        load.calls = load.calls + 1
        load.uncached = load.uncached + tonumber(uncached)
        load.out = load.out + tonumber(out)
        load.began = math.min(load.began or tonumber(at), tonumber(at))
        load.depth = math.max(load.depth, depth_shared(string.sub(flat[i + 1], rest), packed, n))
      end
    end
  end
  load.busy = load.began and math.max(0, now - math.max(load.began, load.ended)) or 0
  return load
end
local function evicted_slot(sl, ch, pins, slots, wanted, now, block)
  local count, latest, oldest = 0, nil, nil
  for _, slot in pairs(slots_of(sl)) do
    count = count + 1
    if slot.held == wanted then return 0 end
    if not pinned(pins, slot.held, now) then
      if not oldest or slot.used < oldest.used then oldest = slot end
    elseif not latest or slot.used > latest.used then
      latest = slot
    end
  end
  if count < slots then return 0 end
  local size = #(redis.call('HGET', ch, (oldest or latest).held) or '') / 16 * block
  return oldest and size * EVICTED or size
end
local function evicted_blocks(ix, pins, pin_sizes, capacity, new, now, block)
  local used = redis.call('ZCARD', ix) * block
  local over = used + new - capacity
  if over <= 0 then return 0 end
  local kept = 0
  for _, held in ipairs(redis.call('ZRANGEBYSCORE', pins, now, '+inf', 'LIMIT', 0, 256)) do
    local raw = string.gsub(held, '..', function(pair) return string.char(tonumber(pair, 16)) end)
    if redis.call('ZSCORE', ix, raw) then
      kept = kept + tonumber(string.match(redis.call('HGET', pin_sizes, held) or '0 0', ' (%d+)'))
    end
  end
  kept = math.min(kept, used)
  local free = math.min(over, used - kept)
  return math.min(kept, over - free) + free * EVICTED
end
"""
)
