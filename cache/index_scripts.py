"""The Lua scripts of the index.

They use only commands that every embedded Redis has in scripts (ZADD without options, ZREM, ZSCORE, ZCARD, ZRANGE,
ZRANGEBYSCORE, ZREMRANGEBYSCORE, HSET, HGET, HGETALL, HDEL, SET, GET, DEL, EXISTS, EXPIRE), and take the time as an
argument. Numbers that must not lose digits are formatted: Lua's own conversion keeps 14.

Keys of a replica and epoch: `ix` ZSET hash -> expiry; `fw` HASH request -> "deadline at uncached out" and, after a
line feed, its packed hashes, with the end of the last call in the field "."; `sl` HASH slot -> "deadline used held
owner"; `ch` HASH held -> packed chain. Of all: `boot` STRING, `pins` ZSET held -> deadline, `pinned` HASH held ->
"count tokens", `reps` ZSET. Hashes are 16 raw bytes, packed without separators; `held` is the last of a chain, as
hexadecimal digits, "-" for nothing known.
"""

from __future__ import annotations

from coa.cache.index_functions import BOOK_FUNCTION, SLOTS, VIEWS
from coa.cache.router import BOUND, LATE_SHARE, MAX_CROWD, TIE_SHARE

__all__ = [
    "BOOK",
    "DROPPED",
    "DUMP",
    "HELD",
    "LOAD",
    "PIN",
    "RELEASE",
    "RENEW",
    "RESERVE",
    "SEAT",
    "STATS",
    "UNPIN",
    "UNSEAT",
]

RESERVE = (
    SLOTS
    + BOOK_FUNCTION
    + VIEWS
    + f"""
local TIE, LATE, CROWD, BOUND = {TIE_SHARE!r}, {LATE_SHARE!r}, {MAX_CROWD!r}, {BOUND!r}
"""
    + """
local boot = redis.call('GET', KEYS[1])
if not boot then return {''} end
local now, deadline, request, ttl = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local n_prompt, n_out, state, restore = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local block, wanted, packed, sizes = tonumber(ARGV[9]), ARGV[10], ARGV[11], ARGV[12]
local shared, n, count = ARGV[13] == '1', #packed / 16, (#ARGV - 13) / 9
local views, in_flight, occupied = {}, 0, 0
local function tokens_of(depth) return depth > 0 and tonumber(string.sub(sizes, 8 * depth - 7, 8 * depth)) or 0 end
for r = 1, count do
  local k, a = 3 + 4 * (r - 1), 13 + 9 * (r - 1)
  local ix, fw, sl, ch = KEYS[k + 1], KEYS[k + 2], KEYS[k + 3], KEYS[k + 4]
  local view = load_of(fw, packed, n, now)
  view.prefill, view.decode, view.trust = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
  view.slots, view.capacity, view.owned = tonumber(ARGV[a + 4]), tonumber(ARGV[a + 5]), ARGV[a + 6] == 'owned'
  view.rank, view.hold, view.work = tonumber(ARGV[a + 7]), tonumber(ARGV[a + 8]), tonumber(ARGV[a + 9])
  view.occupied = redis.call('ZCARD', ix) * block
  local held = depth_held(ix, packed, n, now)
  view.hit, view.held = tokens_of(math.max(view.depth, held)), tokens_of(held)
  if view.owned then
    view.evict = evicted_slot(sl, ch, KEYS[2], view.slots, wanted, now, block)
  elseif view.capacity > 0 then
    view.evict = evicted_blocks(ix, KEYS[2], KEYS[3], view.capacity, n_prompt + n_out - view.hit, now, block)
  else
    view.evict = 0
  end
  in_flight, occupied = in_flight + view.calls, occupied + view.occupied
  views[r] = view
end
local crowd, limit = math.min(CROWD, in_flight / count), nil
for _, view in ipairs(views) do
  local hit = shared and 0 or view.trust * view.hit
  local computed, again = (n_prompt - hit) / view.prefill, shared and 0 or 1.0 / view.prefill
  if view.owned and state > 0 then
    computed = math.min(computed, restore + (n_prompt - state) / view.prefill)
    again = math.min(again, restore / state)
  end
  view.own = math.max(0, computed)
  local work = view.uncached / view.prefill + view.out / (view.decode * view.slots)
  local queue, wait = math.max(work * LATE, work - view.busy), 0
  if view.calls >= view.slots then
    local hold = view.hold > 0 and view.hold or view.out / view.decode / view.calls
    wait = (view.calls - view.slots + 1) / view.slots * hold
  end
  view.cost = queue + wait + (1.0 + crowd) * view.own + view.evict * again
  limit = math.min(limit or view.cost, view.cost)
end
limit = limit * (1.0 + TIE)
local least, best, place, best_key
local bound = BOUND * (occupied + n_prompt) / count
for _, view in ipairs(views) do
  if view.cost <= limit then least = math.min(least or view.own, view.own) end
end
for r, view in ipairs(views) do
  local equal = view.cost <= limit and view.own <= least + TIE * n_prompt / view.prefill
  local over = view.occupied > bound
  local key = over and {1, view.occupied, view.rank} or {0, 0, view.rank}
  if shared then key = {0, view.work + view.uncached, view.rank} end
  local before = best_key and (key[1] < best_key[1] or key[1] == best_key[1]
    and (key[2] < best_key[2] or key[2] == best_key[2] and key[3] < best_key[3]))
  if equal and (not best or before) then best, place, best_key = view, r, key end
end
local uncached = math.max(0, n_prompt - (shared and 0 or best.hit))
if best.owned then uncached = math.min(uncached, math.max(0, n_prompt - state)) end
book(KEYS[3 + 4 * (place - 1) + 2], request, deadline, now, uncached, n_out, packed, ttl)
local told = {boot, place, best.hit, string.format('%.17g', best.cost), uncached, best.held}
for _, view in ipairs(views) do
  told[#told + 1] = string.format('%.17g %.0f %.0f %.0f %.0f %.17g %.17g %.0f',
    view.cost, view.hit, view.calls, view.uncached, view.out, view.busy, view.evict, view.occupied)
end
return told
"""
)

BOOK = (
    BOOK_FUNCTION
    + """
book(KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], ARGV[7])
return 1
"""
)

RELEASE = """
if redis.call('HDEL', KEYS[1], ARGV[1]) == 1 then
  redis.call('HSET', KEYS[1], '.', string.format('%.6f', tonumber(ARGV[2])))
end
return 1
"""

# What was given back meanwhile stays so; a slot that an emptied Redis has lost is leased anew.
RENEW = """
local request, booked_until, now, leased_until, number, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local booking = redis.call('HGET', KEYS[1], request)
if booking then
  redis.call('HSET', KEYS[1], request, (string.gsub(booking, '^%S+', booked_until, 1)))
  redis.call('EXPIRE', KEYS[1], ttl)
end
if number == '-' then return 1 end
local deadline, used, held, owner = string.match(redis.call('HGET', KEYS[2], number) or '', '^(%S+) (%S+) (%S+) (.*)$')
if not deadline or owner == request then
  redis.call('HSET', KEYS[2], number, string.format('%s %s %s %s', leased_until, used or now, held or '-', request))
  redis.call('EXPIRE', KEYS[2], ttl)
end
return 1
"""

# Of one chain the later blocks expire, and are taken for evicted, before the earlier ones: what is left of it stays
# a prefix. A microsecond for each block is far below what tells two chains apart.
HELD = """
local now, expiry, ttl, capacity, owned = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), ARGV[5]
local packed, ix = ARGV[6], KEYS[1]
local n, pairs_told = #packed / 16, {}
for i = 1, n do
  pairs_told[#pairs_told + 1] = string.format('%.6f', expiry - i * 0.000001)
  pairs_told[#pairs_told + 1] = string.sub(packed, 16 * i - 15, 16 * i)
  if #pairs_told >= 500 or i == n then
    redis.call('ZADD', ix, unpack(pairs_told))
    pairs_told = {}
  end
end
redis.call('EXPIRE', ix, ttl)
redis.call('ZREMRANGEBYSCORE', ix, '-inf', now)
if owned == '1' and n > 0 then
  redis.call('HSET', KEYS[2], ARGV[7], packed)
  redis.call('EXPIRE', KEYS[2], ttl)
end
local over = capacity > 0 and redis.call('ZCARD', ix) - capacity or 0
while over > 0 do
  local oldest = redis.call('ZRANGE', ix, 0, math.min(over, 1000) - 1)
  redis.call('ZREM', ix, unpack(oldest))
  over = over - #oldest
end
redis.call('ZADD', KEYS[3], ARGV[1], ARGV[8])
return 1
"""

DROPPED = (
    SLOTS
    + """
local packed = ARGV[1]
if packed == '*' then
  redis.call('DEL', KEYS[1], KEYS[2])
  for number, slot in pairs(slots_of(KEYS[3])) do
    redis.call('HSET', KEYS[3], number, string.format('%.6f %.6f - %s', slot.deadline, slot.used, slot.owner))
  end
  return 1
end
local gone = {}
for i = 1, #packed / 16 do
  gone[#gone + 1] = string.sub(packed, 16 * i - 15, 16 * i)
  if #gone >= 1000 then
    redis.call('ZREM', KEYS[1], unpack(gone))
    gone = {}
  end
end
if #gone > 0 then redis.call('ZREM', KEYS[1], unpack(gone)) end
return 1
"""
)

# A slot holds one sequence. Once it is given to a call that wants another one, what only it held is as good as gone.
# Of slots that all hold pinned prefixes the last used one goes: over prefixes that are read in turns, the least
# recently used one is the one that is needed next.
SEAT = (
    SLOTS
    + """
local sl, ix, ch, pins = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local now, deadline, owner, count = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local prefer, patient, forced, ttl = ARGV[5], ARGV[6] == '1', tonumber(ARGV[7]), ARGV[8]
local slots = slots_of(sl)
local function lease(number, held, used)
  redis.call('HSET', sl, number, string.format('%.6f %.6f %s %s', deadline, used, held, owner))
  redis.call('EXPIRE', sl, ttl)
  return number
end
local function forget(number, old)
  local kept = {[prefer] = true}
  for other, slot in pairs(slots) do
    if other ~= number then kept[slot.held] = true end
  end
  if old == '-' or kept[old] then return end
  local chain, needed = redis.call('HGET', ch, old), {}
  if not chain then return end
  redis.call('HDEL', ch, old)
  for held, _ in pairs(kept) do
    local other = held ~= '-' and redis.call('HGET', ch, held) or ''
    for i = 1, #other / 16 do needed[string.sub(other, 16 * i - 15, 16 * i)] = true end
  end
  for i = 1, #chain / 16 do
    local hash = string.sub(chain, 16 * i - 15, 16 * i)
    if not needed[hash] then redis.call('ZREM', ix, hash) end
  end
end
local best, rank
for number = 0, count - 1 do
  local slot = slots[number] or {deadline = 0, used = 0, held = '-', owner = ''}
  local busy = slot.deadline > now
  if busy and slot.owner == owner then return lease(number, slot.held, slot.used) end
  local mine = prefer ~= '-' and slot.held == prefer
  if busy and mine and patient then return -1 end
  if not busy or number == forced then
    local order
    if number == forced then order = {0, 0}
    elseif mine then order = {1, 0}
    elseif slot.held == '-' then order = {2, slot.used}
    elseif not pinned(pins, slot.held, now) then order = {3, slot.used}
    else order = {4, -slot.used} end
    if not rank or order[1] < rank[1] or (order[1] == rank[1] and order[2] < rank[2]) then
      best, rank = number, order
    end
  end
end
if not best then return -1 end
forget(best, slots[best] and slots[best].held or '-')
return lease(best, prefer, now)
"""
)

# A question that was answered too late may have leased another slot than the one that was used then.
UNSEAT = (
    SLOTS
    + """
for number, slot in pairs(slots_of(KEYS[1])) do
  if slot.owner == ARGV[2] then
    local held = number == tonumber(ARGV[1]) and ARGV[4] or '-'
    redis.call('HSET', KEYS[1], number, string.format('0 %.6f %s -', tonumber(ARGV[3]), held))
  end
end
return 1
"""
)

PIN = """
local now, deadline = tonumber(ARGV[1]), tonumber(ARGV[2])
for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  redis.call('ZREM', KEYS[1], old)
  redis.call('HDEL', KEYS[2], old)
end
for i = 3, #ARGV, 2 do
  local held, count = ARGV[i], tonumber(string.match(redis.call('HGET', KEYS[2], ARGV[i]) or '0 0', '^%d+'))
  local until_now = tonumber(redis.call('ZSCORE', KEYS[1], held) or '0')
  redis.call('ZADD', KEYS[1], string.format('%.6f', math.max(until_now, deadline)), held)
  redis.call('HSET', KEYS[2], held, string.format('%.0f %.0f', count + 1, tonumber(ARGV[i + 1])))
end
return 1
"""

UNPIN = """
for i = 1, #ARGV do
  local count, tokens = string.match(redis.call('HGET', KEYS[2], ARGV[i]) or '0 0', '^(%d+) (%d+)')
  if tonumber(count) > 1 then
    redis.call('HSET', KEYS[2], ARGV[i], string.format('%.0f %s', tonumber(count) - 1, tokens))
  else
    redis.call('ZREM', KEYS[1], ARGV[i])
    redis.call('HDEL', KEYS[2], ARGV[i])
  end
end
return 1
"""

STATS = """
local load = {0, 0, 0}
local flat = redis.call('HGETALL', KEYS[2])
for i = 1, #flat, 2 do
  local deadline, uncached, out = string.match(flat[i + 1], '^(%S+) %S+ (%S+) (%S+)\\n')
  if deadline and tonumber(deadline) > tonumber(ARGV[1]) then
    load = {load[1] + 1, load[2] + tonumber(uncached), load[3] + tonumber(out)}
  end
end
return {redis.call('ZCARD', KEYS[1]), load[1], load[2], load[3]}
"""

DUMP = """
return {redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), redis.call('HGETALL', KEYS[2]),
  redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[4])}
"""

# Told what this process knows of a replica, into a Redis that has lost it. Slots and bookings that somebody else has
# told since are the newer ones.
LOAD = """
local kind, ttl = ARGV[1], ARGV[2]
if kind == 'zset' then
  local told = {}
  for i = 3, #ARGV, 2 do
    told[#told + 1] = ARGV[i + 1]
    told[#told + 1] = ARGV[i]
  end
  if #told > 0 then redis.call('ZADD', KEYS[1], unpack(told)) end
else
  for i = 3, #ARGV, 2 do
    if not redis.call('HGET', KEYS[1], ARGV[i]) then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
  end
end
redis.call('EXPIRE', KEYS[1], ttl)
return 1
"""
