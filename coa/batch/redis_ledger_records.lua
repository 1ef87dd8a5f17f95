-- The operations of coa.batch.redis_ledger on one batch; each is one call of this script, and so all or nothing.
-- ARGV: operation, the time ("" for the server's own), MAX_LOST, then what the operation takes.
--
--   docs        number -> packed document; numbers are in the order of adding
--   digests     digest -> number                  sources     digest of a source's name -> packed {number, stamp}
--   texts       number -> payload or config, and its digest -> number
--   queue       numbers of documents that were leased before, by their turn; one that never was is above the cursor
--   waiting     number -> when it may be leased   leased      number -> when its lease runs out
--   holders     number -> packed holder           faulty      numbers with items that are failed or partial
--   unreported  item -> number of its document    slowest     packed {item, source} -> seconds
--   counts, causes, owners: counters              meta        last number, cursor, last token, control, limits
local docs, digests, sources, texts, queue, waiting, leased, holders, faulty, unreported, slowest, counts, causes,
  owners, meta = unpack(KEYS)
local call, pack, unpacked = redis.call, cmsgpack.pack, cmsgpack.unpack

local PENDING, LEASED, DONE, PARTIAL, FAILED = 0, 1, 2, 3, 4
local STATES = {[0] = 'pending', 'leased', 'done', 'partial', 'failed'}
local SUMS = {'calls', 'prompt_tokens', 'completion_tokens', 'cached_tokens', 'cost_usd', 'unpriced', 'reused'}
local CALLS, PROMPT, COMPLETION, COST = 1, 2, 3, 5
-- Fields of a packed document, item and holder. An item's later fields are left out until it has been tried.
-- A document's place in the queue is its number, until its lease is lost.
local DIGEST, BYTES, LOST, SOURCES, ITEMS, PLACE = 1, 2, 3, 4, 5, 6
local KEY, PAYLOAD, CONFIG, STATE, TRIES, GENERATION, SECONDS, CAUSE, KIND, SPENT, ENDED_BY = 1, 2, 3, 4, 5, 6, 7, 8, 9,
  10, 11
local TOKEN, OWNER, PROGRESS, RESERVED = 1, 2, 3, 4
-- Work of one call that is not its own: leases that ran out, waits that are over, numbers without a document.
local AT_ONCE = 64
local LATE = 2 ^ 20
local N_SLOWEST = 10

local argument = 3
local function given()
  argument = argument + 1
  return ARGV[argument]
end
local function number()
  return tonumber(given())
end
local function spending()
  local found = {}
  for i = 1, #SUMS do found[i] = number() end
  return found
end

local function now()
  if ARGV[2] ~= '' then return tonumber(ARGV[2]) end
  local time = call('TIME')
  return time[1] + time[2] / 1e6
end

local function load(seq)
  local raw = call('HGET', docs, seq)
  return raw and unpacked(raw)
end
local function save(seq, doc)
  call('HSET', docs, seq, pack(doc))
end
local function held(seq)
  local raw = call('HGET', holders, seq)
  return raw and unpacked(raw)
end
local function setting(name)
  return tonumber(call('HGET', meta, name) or 0)
end
local function state_of(item)
  return item[STATE] or PENDING
end
local function filled(item)
  if not item[ENDED_BY] then
    item[STATE], item[TRIES], item[GENERATION] = state_of(item), 0, 0
    item[SECONDS], item[CAUSE], item[KIND], item[SPENT], item[ENDED_BY] = 0, '', '', {}, 0
  end
  return item
end

local function kind_of(item)
  return item[KIND] ~= '' and item[KIND] or 'unknown'
end

local function count(state, by)
  call('HINCRBY', counts, STATES[state], by)
end
local function counted_down(key, field)
  if call('HINCRBY', key, field, -1) <= 0 then call('HDEL', key, field) end
end
local function add_up(prefix, sums, sign)
  for i, name in ipairs(SUMS) do
    local by = (sums[i] or 0) * sign
    if by ~= 0 then
      call(i == COST and 'HINCRBYFLOAT' or 'HINCRBY', counts, prefix .. name, string.format('%.17g', by))
    end
  end
end

local function interned(digest, text)
  local id = call('HGET', texts, digest)
  if not id then
    id = string.format('%.0f', call('HINCRBY', meta, 'texts', 1))
    call('HSET', texts, digest, id, id, text)
  end
  return tonumber(id)
end
local known_texts = {}
local function text_of(id)
  known_texts[id] = known_texts[id] or call('HGET', texts, id)
  return known_texts[id]
end

-- The document takes its turn again if any of its items is pending.
local function place(seq, doc)
  for _, item in ipairs(doc[ITEMS]) do
    if state_of(item) == PENDING then
      call('ZADD', queue, doc[PLACE] or seq, seq)
      return
    end
  end
end
-- As `place`, for a document that may have its turn, or wait for it, already.
local function place_new(seq, doc)
  if seq > setting('cursor') or call('HEXISTS', holders, seq) == 1 or call('ZSCORE', waiting, seq) then return end
  call('ZREM', queue, seq)
  place(seq, doc)
end

local function note_faulty(seq, doc)
  for _, item in ipairs(doc[ITEMS]) do
    local state = state_of(item)
    if state == PARTIAL or state == FAILED then
      call('ZADD', faulty, seq, seq)
      return
    end
  end
  call('ZREM', faulty, seq)
end

local function end_lease(seq, holder)
  call('HDEL', holders, seq)
  call('ZREM', leased, seq)
  add_up('reserved:', holder[RESERVED], -1)
  counted_down(owners, holder[OWNER])
  if call('ZCARD', leased) == 0 then call('HDEL', counts, 'reserved:' .. SUMS[COST]) end -- what rounding has left
end

-- The leased items are pending again.
local function give_back(doc)
  for _, item in ipairs(doc[ITEMS]) do
    if state_of(item) == LEASED then
      item[STATE] = PENDING
      count(LEASED, -1)
      count(PENDING, 1)
    end
  end
end

local function end_item(seq, doc, item, id, state, cause, kind, seconds)
  filled(item)
  count(item[STATE], -1)
  count(state, 1)
  item[STATE], item[CAUSE], item[KIND], item[SECONDS], item[ENDED_BY] = state, cause, kind, seconds, id
  if state ~= DONE then call('HINCRBY', causes, kind_of(item), 1) end
  call('ZADD', unreported, seq, item[KEY])
  if seconds > 0 then
    call('ZADD', slowest, seconds, pack({item[KEY], doc[SOURCES][1]}))
    call('ZREMRANGEBYRANK', slowest, 0, -N_SLOWEST - 1)
  end
end

-- What an ended item was counted as is forgotten.
local function uncount(item)
  local state = state_of(item)
  count(state, -1)
  if state == PARTIAL or state == FAILED then counted_down(causes, kind_of(item)) end
  call('ZREM', unreported, item[KEY])
end

local function take_back(seq)
  local holder, doc = held(seq), load(seq)
  end_lease(seq, holder)
  doc[LOST] = holder[PROGRESS] == 1 and 0 or doc[LOST] + 1
  if doc[LOST] > 0 then -- behind all that are there, and those that were lost before
    doc[PLACE] = setting('seq') + call('HINCRBY', meta, 'late', 1) % LATE / LATE
  end
  if doc[LOST] >= tonumber(ARGV[3]) then
    local cause = string.format('whoever worked on it died %d times before anything was done.', doc[LOST])
    for _, item in ipairs(doc[ITEMS]) do
      if state_of(item) == LEASED then end_item(seq, doc, item, 0, FAILED, cause, 'lost', 0) end
    end
    doc[LOST] = 0
    note_faulty(seq, doc)
  else
    give_back(doc)
  end
  save(seq, doc)
  place(seq, doc)
end

local function expire(most, everyone)
  local found = call('ZRANGEBYSCORE', leased, '-inf', everyone and '+inf' or now(), 'LIMIT', 0, most)
  for i, seq in ipairs(found) do found[i] = tonumber(seq) end
  table.sort(found)
  for _, seq in ipairs(found) do take_back(seq) end
  return #found
end

local function remove(seq, doc)
  local holder = held(seq)
  if holder then end_lease(seq, holder) end
  for _, item in ipairs(doc[ITEMS]) do uncount(item) end
  for _, key in ipairs({queue, waiting, faulty}) do call('ZREM', key, seq) end
  call('HDEL', digests, doc[DIGEST])
  call('HDEL', docs, seq)
  call('HINCRBY', counts, 'documents', -1)
end

-- The source is of another document from now on.
local function leave(seq, source)
  local doc = load(seq)
  if not doc then return end
  local left = {}
  for _, name in ipairs(doc[SOURCES]) do
    if name ~= source then left[#left + 1] = name end
  end
  if #left == 0 then return remove(seq, doc) end
  doc[SOURCES] = left
  save(seq, doc)
end

local function add_entry(ids)
  local digest, source, source_digest, stamp, n_bytes = given(), given(), given(), given(), number()
  local seq = tonumber(call('HGET', digests, digest) or 0)
  local was = call('HGET', sources, source_digest)
  local before = was and unpacked(was)[1]
  if before and before ~= seq then leave(before, source) end
  local doc = load(seq)
  if not doc then
    seq = call('HINCRBY', meta, 'seq', 1)
    doc = {digest, n_bytes, 0, {}, {}}
    call('HSET', digests, digest, seq)
    call('HINCRBY', counts, 'documents', 1)
  end
  if before ~= seq then doc[SOURCES][#doc[SOURCES] + 1] = source end
  call('HSET', sources, source_digest, pack({seq, stamp}))
  local known, n_new = {}, 0
  for _, item in ipairs(doc[ITEMS]) do known[item[KEY]] = true end
  for _ = 1, number() do
    local key, payload, config = given(), number(), number()
    if not known[key] then
      known[key], n_new = true, n_new + 1
      doc[ITEMS][#doc[ITEMS] + 1] = {key, ids[payload], ids[config]}
    end
  end
  if n_new > 0 then count(PENDING, n_new) end
  save(seq, doc)
  if n_new > 0 then place_new(seq, doc) end
  return n_new
end

-- The number of the next document whose turn it is; nil where there is none.
local function next_in_turn()
  local head, cursor = call('ZRANGE', queue, 0, 0, 'WITHSCORES'), setting('cursor')
  local has_new = cursor < setting('seq')
  if head[1] and (tonumber(head[2]) < cursor + 1 or not has_new) then
    call('ZREM', queue, head[1])
    return tonumber(head[1])
  end
  return has_new and call('HINCRBY', meta, 'cursor', 1) or nil
end

local function sums_of(spent)
  local found = {}
  for i = 1, #SUMS do found[i] = string.format('%.17g', spent and spent[i] or 0) end
  return found
end

local function lease_of(seq, doc, owner, seconds)
  local items = {}
  for _, item in ipairs(doc[ITEMS]) do
    if state_of(item) == PENDING then
      item[STATE] = LEASED
      items[#items + 1] = {
        item[KEY], text_of(item[PAYLOAD]), text_of(item[CONFIG]), item[TRIES] or 0, item[GENERATION] or 0,
        sums_of(item[SPENT]),
      }
    end
  end
  if #items == 0 then return nil end
  local token = call('HINCRBY', meta, 'token', 1)
  count(PENDING, -#items)
  count(LEASED, #items)
  save(seq, doc)
  call('HSET', holders, seq, pack({token, owner, 0, {}}))
  call('ZADD', leased, now() + seconds, seq)
  call('HINCRBY', owners, owner, 1)
  return {token, doc[DIGEST], doc[BYTES], doc[LOST], doc[SOURCES], items}
end

-- The number of the lease's document and its holder; nil, nil and the number where the lease is lost.
local function lease_given()
  local seq, token = tonumber(call('HGET', digests, given()) or 0), number()
  local holder = held(seq)
  if holder and holder[TOKEN] == token then return seq, holder end
  return nil, nil, seq
end

-- Whether the document's item was ended by this very call, whose reply was lost and which is made again.
local function ended_before(seq, key, id)
  local doc = load(seq)
  for _, item in ipairs(doc and doc[ITEMS] or {}) do
    if item[KEY] == key then return item[ENDED_BY] == id end
  end
  return false
end

local function row_of(doc, item, owner)
  return {
    item[KEY], doc[DIGEST], doc[SOURCES], text_of(item[PAYLOAD]), text_of(item[CONFIG]), state_of(item),
    item[TRIES] or 0, item[GENERATION] or 0, sums_of(item[SPENT]), item[CAUSE] or '', item[KIND] or '',
    string.format('%.17g', item[SECONDS] or 0), state_of(item) == LEASED and owner or '',
  }
end

-- Numbers above `after`, of all documents or of those in `index`, in order.
local function page(after, most, index)
  if index then return call('ZRANGEBYSCORE', index, '(' .. after, '+inf', 'LIMIT', 0, most) end
  local found = {}
  for seq = after + 1, math.min(after + most, setting('seq')) do found[#found + 1] = seq end
  return found
end

local function wanted_states()
  local wanted, faulty_only = {}, true
  for _ = 1, number() do
    local state = number()
    wanted[state] = true
    faulty_only = faulty_only and state >= PARTIAL
  end
  return wanted, faulty_only and faulty or nil
end
