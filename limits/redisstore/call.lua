-- One call of a replica to one owner's limits: first what it gives back and holds,
-- then what it wants to take, each take all or nothing. Amounts are microseconds
-- of a bucket's rate, computed by the caller, so that nothing is rounded here and
-- every number stays far below 2^53. See call.go for the arguments.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local at = 0
local function text() at = at + 1; return ARGV[at] end
local function num() at = at + 1; return tonumber(ARGV[at]) end
local function int(x) return string.format('%.0f', x) end

local replica, seq, lease, channel, group, mark_life = text(), num(), num(), text(), text(), num()
local limits, takes = num(), num()

-- A call that is sent again, or comes late, changes nothing. What the last one
-- granted is told, in case its reply was lost.
local last, granted = -1, ''
local mark = redis.call('GET', KEYS[1])
if mark then
  local s, g = string.match(mark, '^(%d+) (.*)$')
  last, granted = tonumber(s), g
end
local again = seq <= last

-- A budget's window that the caller's clock has put where it is not.
for i = 1, limits do
  local first = at + (i - 1) * 8
  local from, to = tonumber(ARGV[first + 5]), tonumber(ARGV[first + 6])
  if ARGV[first + 1] == 'm' and (from > now + 1000000 or to < now - 1000000) then return {now} end
end

-- The limits, with what the replica gives back.
local L = {}
for i = 1, limits do
  local l = {key = KEYS[2 + i], kind = text(), a = num(), b = num(), c = num(), floor = num(), life = num(), chunk = num(), most = num(), got = 0}
  if l.kind == 'b' then
    local tat, till = string.match(redis.call('GET', l.key) or '0 0', '^(%d+) (%d+)$')
    l.tat, l.till = tonumber(tat), tonumber(till)
    l.was = l.tat
    if not again then
      if l.a > 0 then
        -- No lower than the floor while a chunk may be unspent; see chunk.go.
        local least = l.till > now and math.min(l.tat, now + l.floor) or 0
        l.tat = math.max(l.tat - l.a, least)
      end
      if l.b > 0 then l.tat = math.max(l.tat, now) + l.b end
      if l.c > 0 then l.tat = math.max(l.tat, now + l.c) end
      l.freed = l.tat < l.was and l.was > now
    end
  elseif l.kind == 'm' then
    local start, spent = string.match(redis.call('GET', l.key) or '0 0', '^(%d+) (-?%d+)$')
    l.start, l.spent = tonumber(start), tonumber(spent)
    if l.start < l.floor then l.start, l.spent = l.floor, 0 end
    l.was = l.spent
    if not again and l.start == l.floor then
      l.spent = math.max(l.spent - l.a + l.b, l.c, 0)
    end
  else
    l.others, l.spare, l.was, l.mine = 0, 0, 0, l.a
    local h = redis.call('HGETALL', l.key)
    for j = 1, #h, 2 do
      local n, till, spare = string.match(h[j + 1], '^(%d+) (%d+) (%d+)$')
      n, till = tonumber(n), tonumber(till)
      if h[j] == replica then
        l.was = n
      elseif till > now then
        l.others, l.spare = l.others + n, l.spare + tonumber(spare)
      elseif not again then
        redis.call('HDEL', l.key, h[j])
      end
    end
    if again then l.mine = l.was end
    l.freed = l.mine < l.was
  end
  L[i] = l
end

-- The fair queue of those who were refused: the virtual time v, the finish tags f
-- of the teams, and the waiters w with the time until which they keep their place.
local Q = {v = 0, f = {}, w = {}, exists = false, live = 0, changed = {}}
local function note(name, value) Q.changed[name] = value end
do
  local h = redis.call('HGETALL', KEYS[2])
  local waits = {}
  for j = 1, #h, 2 do
    local name, value = h[j], h[j + 1]
    local first = string.sub(name, 1, 1)
    Q.exists = true
    if first == 'v' then
      Q.v = tonumber(value)
    elseif first == 'f' then
      Q.f[string.sub(name, 2)] = tonumber(value)
    else
      local till, ready = string.match(value, '^(%d+) (%d+)$')
      if tonumber(till) > now then
        local r, class, team, key = string.match(name, '^w(%S+) (%d) (%S+) (.*)$')
        Q.w[name] = {replica = r, class = tonumber(class), team = team, key = key, ready = tonumber(ready)}
        Q.live = Q.live + 1
        waits[team] = true
      else
        note(name, false)
      end
    end
  end
  for team, f in pairs(Q.f) do
    if f <= Q.v and not waits[team] then
      Q.f[team] = nil
      note('f' .. team, false)
    end
  end
end

-- A waiter keeps its place until a little after it is to ask again.
local function wait_for(t, key, wait)
  local name = 'w' .. replica .. ' ' .. t.class .. ' ' .. t.team .. ' ' .. key
  if not Q.w[name] then Q.live = Q.live + 1 end
  Q.w[name] = {replica = replica, class = t.class, team = t.team, key = key, ready = now + wait}
  Q.exists = true
  local again = wait > 0 and math.min(wait, 250000) or 250000
  note(name, int(now + again + 250000) .. ' ' .. int(now + wait))
end

-- The waiter in front of a take, if there is one, for a limit that both need.
local function in_front(t)
  local best
  for _, w in pairs(Q.w) do
    if t.needs[w.key] and (w.class < t.class or w.class == t.class and w.team ~= t.team and (Q.f[w.team] or Q.v) < Q.f[t.team]) then
      if not best or w.class < best.class or w.class == best.class and (Q.f[w.team] or Q.v) < (Q.f[best.team] or Q.v) then
        best = w
      end
    end
  end
  return best
end

local out = {now, again and 1 or 0, last, granted}
local results, bits, refused = {}, '', false

for _ = 1, takes do
  local t = {mode = num(), team = text(), class = num(), weight = num(), price = num(), owed = num(), more = num(), needs = {}}
  local charges = {}
  for i = 1, num() do
    local c = {l = L[num()], shadow = num(), x = num(), y = num(), z = num()}
    charges[i] = c
    t.needs[c.l.key] = i
  end
  local ok, wait, by, last, over, turn = not again, 0, 0, 0, '', ''

  if ok and t.mode == 2 and Q.exists then
    -- A team that was away is brought up to the present, which is where the next
    -- of those who wait stands: the past earns it nothing.
    local waits, present = false, nil
    for _, w in pairs(Q.w) do
      local f = Q.f[w.team] or Q.v
      waits, present = waits or w.team == t.team, math.min(present or f, f)
    end
    local f = Q.f[t.team] or 0
    if not waits then f = math.max(f, present or Q.v) end
    Q.f[t.team] = f + t.owed / t.weight
    local w = in_front(t)
    if w then
      ok, turn, by, last = false, w.team, t.needs[w.key], t.needs[w.key]
      wait = math.min(math.max(w.ready - now, 0) + 2000, 200000)
      wait_for(t, w.key, wait)
    end
  end

  if ok then
    for i, c in ipairs(charges) do
      local short, miss = 0, false
      if c.l.kind == 'b' then
        short = math.max(c.l.tat, now) + c.x - c.y - now
        miss = short > 0
      elseif c.l.kind == 'm' then
        miss = c.l.spent + c.x > c.y
        short = math.max(c.l.life - now, 0)
      else
        miss = c.l.others + c.l.mine + 1 > c.x or c.l.mine + 1 > c.y
        if miss and c.shadow == 0 and c.l.spare > 0 then c.l.recall = true end
      end
      if miss and c.shadow == 1 then
        over = over .. '1'
      else
        over = over .. '0'
        if miss then
          if by == 0 then by = i end
          if last == 0 or short > wait then last = i end
          ok, wait = false, math.max(wait, short)
        end
      end
    end
    if not ok and t.mode > 0 then wait_for(t, charges[by].l.key, wait) end
  end

  if ok then
    for i, c in ipairs(charges) do
      if string.sub(over, i, i) == '0' then
        if c.l.kind == 'b' then
          c.l.tat = math.max(c.l.tat, now) + c.z
        elseif c.l.kind == 'm' then
          c.l.spent = c.l.spent + c.x
        else
          c.l.mine = c.l.mine + 1
        end
      end
    end
    if t.mode == 2 and Q.exists then
      Q.v = math.max(Q.v, Q.f[t.team])
      Q.f[t.team] = Q.f[t.team] + t.price / t.weight
      local last = charges[#charges].l.key
      if t.more == 1 and Q.live > 0 then wait_for(t, last, 0) end -- the next one asks at once
      for name, w in pairs(Q.w) do
        if w.replica == replica and w.team == t.team and w.class == t.class and t.needs[w.key] then
          if t.more == 1 then
            note(name, int(now + 250000) .. ' ' .. int(now))
          else
            Q.w[name] = nil
            Q.live = Q.live - 1
            note(name, false)
          end
        end
      end
    end
  end
  if t.mode == 2 and Q.exists and not again then note('f' .. t.team, string.format('%.17g', Q.f[t.team] or Q.v)) end
  bits = bits .. (ok and '1' or '0')
  refused = refused or not ok
  results[#results + 1] = ok and 1 or 0
  results[#results + 1] = math.max(0, math.ceil(wait))
  results[#results + 1] = by
  results[#results + 1] = last
  results[#results + 1] = over
  results[#results + 1] = turn
end

-- Chunks, while nobody waits.
if not again and not refused and Q.live == 0 then
  for _, l in ipairs(L) do
    if l.chunk > 0 then
      if l.kind == 'b' then
        local tat = math.max(l.tat, now) + l.chunk
        if tat - now <= l.most then l.tat, l.got, l.till = tat, l.chunk, math.max(l.till, now + l.life) end
      elseif l.kind == 'm' then
        if l.start == l.floor and l.spent + l.chunk <= l.most then l.spent, l.got = l.spent + l.chunk, l.chunk end
      elseif l.others + l.mine + l.chunk <= l.most then
        l.mine, l.got = l.mine + l.chunk, l.chunk
      end
    end
  end
end

-- Write back, and wake those who wait for what has come free.
if not again then
  for _, l in ipairs(L) do bits = bits .. ' ' .. int(l.got) end
  redis.call('SET', KEYS[1], int(seq) .. ' ' .. bits, 'PX', mark_life)
  local wake, recall = false, false
  for _, l in ipairs(L) do
    if l.kind == 'b' then
      if l.tat <= now then
        if l.was > 0 then redis.call('DEL', l.key) end
      elseif l.tat ~= l.was then
        redis.call('SET', l.key, int(l.tat) .. ' ' .. int(l.till), 'PX', math.ceil((l.tat - now) / 1000) + 1000)
      end
    elseif l.kind == 'm' then
      if l.spent ~= l.was then
        redis.call('SET', l.key, int(l.start) .. ' ' .. int(l.spent), 'PX', math.max(math.ceil((l.life - now) / 1000), 0) + 60000)
      end
    elseif l.mine > 0 then
      redis.call('HSET', l.key, replica, int(l.mine) .. ' ' .. int(now + lease) .. ' ' .. int(l.b + l.got))
      redis.call('PEXPIRE', l.key, math.ceil(lease / 1000) + 1000)
    elseif l.was > 0 then
      redis.call('HDEL', l.key, replica)
    end
    recall = recall or l.recall
    if l.freed then
      for _, w in pairs(Q.w) do wake = wake or w.replica ~= replica and w.key == l.key end
    end
  end
  if next(Q.changed) then
    note('v', string.format('%.17g', Q.v))
    for name, value in pairs(Q.changed) do
      if value then redis.call('HSET', KEYS[2], name, value) else redis.call('HDEL', KEYS[2], name) end
    end
    redis.call('PEXPIRE', KEYS[2], 2000)
  end
  if recall then redis.call('PUBLISH', channel, 'recall ' .. replica .. ' ' .. group) end
  if wake then redis.call('PUBLISH', channel, 'wake ' .. replica .. ' ' .. group) end
end

for _, l in ipairs(L) do
  if l.kind == 'b' then
    out[#out + 1] = l.tat
    out[#out + 1] = 0
  elseif l.kind == 'm' then
    out[#out + 1] = l.spent
    out[#out + 1] = l.start
  else
    out[#out + 1] = l.others
    out[#out + 1] = l.mine
  end
  out[#out + 1] = l.got
end
for _, v in ipairs(results) do out[#out + 1] = v end
return out
