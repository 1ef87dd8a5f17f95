-- Goes on where redis_ledger_records.lua ends: one script.
local operations = {}

function operations.add()
  local ids, n_new = {}, 0
  for i = 1, number() do ids[i] = interned(given(), given()) end
  for _ = 1, number() do n_new = n_new + add_entry(ids) end
  return n_new
end

function operations.known()
  local raw = call('HGET', sources, given())
  if not raw then return nil end
  local seq, stamp = unpack(unpacked(raw))
  return {load(seq)[DIGEST], stamp}
end

function operations.lease()
  local owner, seconds = given(), number()
  if call('HGET', meta, 'control') == 'cancelled' then return nil end
  expire(AT_ONCE, false)
  for _, seq in ipairs(call('ZRANGEBYSCORE', waiting, '-inf', now(), 'LIMIT', 0, AT_ONCE)) do
    call('ZREM', waiting, seq)
    place(tonumber(seq), load(seq))
  end
  for _ = 1, AT_ONCE do
    local seq = next_in_turn()
    if not seq then return nil end
    local doc = load(seq)
    local lease = doc and lease_of(seq, doc, owner, seconds)
    if lease then return lease end
  end
  return 'again'
end

function operations.heartbeat()
  local seq, holder = lease_given()
  local seconds, progress = number(), number()
  if not seq then return 0 end
  call('ZADD', leased, now() + seconds, seq)
  if progress == 1 and holder[PROGRESS] == 0 then
    holder[PROGRESS] = 1
    call('HSET', holders, seq, pack(holder))
  end
  return 1
end

function operations.reserve()
  local seq, holder = lease_given()
  local wanted = spending()
  if not seq then return 'never' end
  local function sum(prefix, field) return tonumber(call('HGET', counts, prefix .. SUMS[field]) or 0) end
  local verdict = 'granted'
  add_up('reserved:', holder[RESERVED], -1)
  holder[RESERVED] = {}
  for name, fields in pairs({max_calls = {CALLS}, max_tokens = {PROMPT, COMPLETION}, max_cost_usd = {COST}}) do
    local limit = tonumber(call('HGET', meta, name) or '')
    if limit then
      local alone, others = 0, 0
      for _, field in ipairs(fields) do
        alone = alone + sum('spent:', field) + wanted[field]
        others = others + sum('reserved:', field)
      end
      if alone > limit then
        verdict = 'never'
      elseif alone + others > limit and verdict == 'granted' then
        verdict = 'later'
      end
    end
  end
  if verdict == 'granted' then
    add_up('reserved:', wanted, 1)
    holder[RESERVED] = wanted
  end
  call('HSET', holders, seq, pack(holder))
  if verdict == 'later' then expire(AT_ONCE, false) end
  return verdict
end

function operations.record()
  local seq, holder, lost_seq = lease_given()
  local id, outcomes = number(), {}
  for i = 1, number() do
    local key = given()
    outcomes[i] = {key = key, state = number(), cause = given(), kind = given(), seconds = number(), spent = spending()}
  end
  if not seq then
    for _, outcome in ipairs(outcomes) do
      if not ended_before(lost_seq, outcome.key, id) then return 0 end
    end
    return 1
  end
  local doc, by_key, n_left = load(seq), {}, 0
  for _, item in ipairs(doc[ITEMS]) do by_key[item[KEY]] = item end
  for _, outcome in ipairs(outcomes) do
    local item = by_key[outcome.key]
    if item and state_of(item) == LEASED then
      end_item(seq, doc, item, id, outcome.state, outcome.cause, outcome.kind, outcome.seconds)
      for i = 1, #SUMS do item[SPENT][i] = (item[SPENT][i] or 0) + outcome.spent[i] end
      add_up('spent:', outcome.spent, 1)
      holder[PROGRESS] = 1
    end
  end
  for _, item in ipairs(doc[ITEMS]) do
    if state_of(item) == LEASED then n_left = n_left + 1 end
  end
  if n_left == 0 then doc[LOST] = 0 end
  save(seq, doc)
  note_faulty(seq, doc)
  if n_left > 0 then
    call('HSET', holders, seq, pack(holder))
  else
    end_lease(seq, holder)
    place(seq, doc)
  end
  return 1
end

function operations.release()
  local seq, holder = lease_given()
  local cause, kind, wait_s, is_try = given(), given(), number(), number()
  if not seq then return 0 end
  local doc = load(seq)
  end_lease(seq, holder)
  if is_try == 1 then
    for _, item in ipairs(doc[ITEMS]) do
      if state_of(item) == LEASED then
        filled(item)
        item[TRIES], item[CAUSE], item[KIND] = item[TRIES] + 1, cause, kind
      end
    end
  end
  doc[LOST] = 0
  give_back(doc)
  save(seq, doc)
  if wait_s > 0 then call('ZADD', waiting, now() + wait_s, seq) else place(seq, doc) end
  return 1
end

function operations.expire()
  return expire(number(), number() == 1)
end

function operations.expire_owner()
  local owner, mine = given(), {}
  for _, seq in ipairs(call('ZRANGE', leased, 0, -1)) do
    if held(seq)[OWNER] == owner then mine[#mine + 1] = tonumber(seq) end
  end
  table.sort(mine)
  for _, seq in ipairs(mine) do take_back(seq) end
  return #mine
end

function operations.status()
  local slow = call('ZREVRANGE', slowest, 0, -1, 'WITHSCORES')
  for i = 1, #slow, 2 do slow[i] = unpacked(slow[i]) end
  return {
    call('HGETALL', counts), call('HGETALL', causes), call('HGETALL', owners), slow, call('HGET', meta, 'control'),
  }
end

function operations.rows()
  local after, most = number(), number()
  local wanted, index = wanted_states()
  local seqs, rows = page(after, most, index), {}
  for _, seq in ipairs(seqs) do
    local doc, holder = load(seq), held(seq)
    for _, item in ipairs(doc and doc[ITEMS] or {}) do
      if wanted[state_of(item)] then rows[#rows + 1] = row_of(doc, item, holder and holder[OWNER]) end
    end
  end
  return {tonumber(seqs[#seqs]) or -1, rows}
end

function operations.reopen()
  local after, most, fresh, config_digest, config = number(), number(), number() == 1, given(), given()
  local wanted, index = wanted_states()
  local kinds, n_kinds, n_opened = {}, number(), 0
  for _ = 1, n_kinds do kinds[given()] = true end
  local seqs = page(after, most, index)
  for _, seq in ipairs(seqs) do
    local doc, n, idle = load(seq), 0, true
    for _, item in ipairs(doc and doc[ITEMS] or {}) do
      idle = idle and state_of(item) >= DONE
    end
    for _, item in ipairs(doc and doc[ITEMS] or {}) do
      if wanted[state_of(item)] and state_of(item) >= DONE and (n_kinds < 0 or kinds[item[KIND]]) then
        uncount(item)
        count(PENDING, 1)
        item[STATE], item[TRIES], item[SECONDS], item[CAUSE], item[KIND], n = PENDING, 0, 0, '', '', n + 1
        if config_digest ~= '' then item[CONFIG] = interned(config_digest, config) end
        if fresh then item[GENERATION], item[SPENT] = item[GENERATION] + 1, {} end
      end
    end
    if n > 0 then
      if idle then doc[LOST] = 0 end
      save(seq, doc)
      note_faulty(seq, doc)
      place_new(tonumber(seq), doc)
      n_opened = n_opened + n
    end
  end
  return {tonumber(seqs[#seqs]) or -1, n_opened}
end

function operations.unreported()
  local rows = {}
  local found = call('ZRANGE', unreported, number(), number(), 'WITHSCORES')
  for i = 1, #found, 2 do
    local doc = load(found[i + 1])
    for _, item in ipairs(doc[ITEMS]) do
      if item[KEY] == found[i] then rows[#rows + 1] = row_of(doc, item) end
    end
  end
  return rows
end

local READING = {known = true, status = true, rows = true, unreported = true}
-- Where memory is full this fails, before anything is changed.
if not READING[ARGV[1]] then call('HINCRBY', meta, 'operations', 1) end
return operations[ARGV[1]]()
