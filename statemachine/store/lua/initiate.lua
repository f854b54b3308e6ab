#!lua
-- Writes a new session, its login code, its deadline and its first event, unless a budget is used up.
--
-- KEYS session, login, deadlines, events, of_address (initiations of the address in the project),
--      of_project (all of it), live_sessions (of the project), live_of_address (of the address in the project)
-- ARGV session_id, project_id, polling_digest, sealing_key,
--      begun_by (the scope of an OAuth client, or a mark and an anonymous family; '' = by neither),
--      client (JSON), lifetime_ms, pickup_window_ms,
--      pending_ms (retention of the session, as it is), retention_ms (of events), events_max,
--      event_source, event_data,
--      window_ms, address_limit, project_limit, live_limit, live_of_address_limit,
--      facts … (other fields of the session, each with its value)
-- Returns {'initiated', expires_at in ms since the epoch}, {'taken'} (the login code is another session's: draw again)
--         or {'refused', budget, ms until it may be otherwise, now}; an address refused uses up no project.
local held = redis.call('GET', login)
if held then
  -- The same call again, re-sent after a lost reply, finds its own work done.
  if string.sub(held, 1, #session_id) ~= session_id then return { 'taken' } end
  return { 'initiated', tonumber(redis.call('HGET', session, 'expires_at')) }
end
local now = now_ms()
-- Returns how long to wait: a live session may end at any time, so never more than a minute.
local function ms_full(live)
  local first = redis.call('ZRANGE', live, 0, 0, 'WITHSCORES')[2]
  return math.min(60000, first and first - now or 60000)
end
-- Returns how many are live. Those that are forgotten are looked for at every 16th session, so that they are never many,
-- and before any refusal.
local function count_of(live, limit)
  local count = redis.call('ZCARD', live)
  if count % 16 == 15 or count >= tonumber(limit) then
    redis.call('ZREMRANGEBYSCORE', live, '-inf', '(' .. string.format('%d', now))
    count = redis.call('ZCARD', live)
  end
  return count
end
local of_address_count = count_of(live_of_address, live_of_address_limit)
if of_address_count >= tonumber(live_of_address_limit) then
  return { 'refused', 'live_sessions_of_address', ms_full(live_of_address), now }
end
local count = count_of(live_sessions, live_limit)
if count >= tonumber(live_limit) then return { 'refused', 'live_sessions', ms_full(live_sessions), now } end
local function ms_over(counter, limit)
  local count = redis.call('INCR', counter)
  if count == 1 then redis.call('PEXPIRE', counter, window_ms) end
  return count > tonumber(limit) and redis.call('PTTL', counter)
end
local wait = ms_over(of_address, address_limit)
if wait then return { 'refused', 'address', wait, now } end
wait = ms_over(of_project, project_limit)
if wait then return { 'refused', 'project', wait, now } end
local expires_at = now + lifetime_ms
redis.call('HSET', session, 'state', 'pending', 'version', 1, 'deadline', expires_at, 'project_id', project_id,
  'polling_digest', polling_digest, 'sealing_key', sealing_key, 'client', client, 'created_at', now,
  'expires_at', expires_at, unpack(facts))
-- What is remembered counts as live: sessions of a second do not leave the caps before they are forgotten.
local forgotten_at = expires_at + pending_ms
redis.call('PEXPIREAT', session, forgotten_at)
-- Beyond its deadline: a session that is completed at the last moment can be denied by its code as long as it is there.
redis.call('SET', login, session_id .. sealing_key .. begun_by, 'PXAT', expires_at + pickup_window_ms)
redis.call('ZADD', deadlines, expires_at, session_id)
-- A set ends when its last session is forgotten: each new address has a set of its own, and none may stay behind.
local function count_in(live, before)
  redis.call('ZADD', live, forgotten_at, session_id)
  if before == 0 then
    redis.call('PEXPIREAT', live, forgotten_at)
  else
    redis.call('PEXPIREAT', live, forgotten_at, 'GT')
  end
end
count_in(live_sessions, count)
count_in(live_of_address, of_address_count)
local bound, threshold = 'MINID', string.format('%d', now - retention_ms)
if redis.call('XLEN', events) >= tonumber(events_max) then bound, threshold = 'MAXLEN', events_max end
redis.call('XADD', events, bound, '~', threshold, '*', 'specversion', '1.0',
  'id', session_id .. '.1', 'source', event_source, 'type', 'session.initiated', 'subject', session_id,
  'time', rfc3339(now), 'version', 1, 'projectid', project_id, 'data', event_data)
return { 'initiated', expires_at }
