#!lua
-- Writes a new session, its login code, its deadline and its first event, unless a budget is used up. Redis time decides
-- when it ends.
--
-- KEYS  1 session  2 login  3 deadlines  4 events  5 initiations of the address  6 of the project  7 its live sessions
-- ARGV  1 session id  2 project id  3 polling digest  4 sealing key  5 client facts (JSON)  6 lifetime ms
--       7 retention ms  8 event source  9 event data (JSON)  10 code challenge ('' = none)
--       11 window ms and 12, 13 limits of KEYS 5 and 6  14 limit of KEYS 7  15 longest life of a session in ms
-- Returns {'initiated', expires_at in ms since the epoch}, {'taken'} (the login code is another session's: draw again) or
--         {'refused', which of KEYS 5 … 7, ms until it may be otherwise, now}; an address refused uses up no project.
local held = redis.call('GET', KEYS[2])
if held then
  -- The same call again, re-sent after a lost reply, finds its own work done.
  if string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then return { 'taken' } end
  return { 'initiated', tonumber(redis.call('HGET', KEYS[1], 'expires_at')) }
end
local now = now_ms()
redis.call('ZREMRANGEBYSCORE', KEYS[7], '-inf', '(' .. string.format('%d', now))
if redis.call('ZCARD', KEYS[7]) >= tonumber(ARGV[14]) then
  return { 'refused', 7, redis.call('ZRANGE', KEYS[7], 0, 0, 'WITHSCORES')[2] - now, now }
end
for i, key in ipairs({ KEYS[5], KEYS[6] }) do
  local count = redis.call('INCR', key)
  if count == 1 then redis.call('PEXPIRE', key, ARGV[11]) end
  if count > tonumber(ARGV[11 + i]) then return { 'refused', 4 + i, redis.call('PTTL', key), now } end
end
local expires_at = now + tonumber(ARGV[6])
redis.call('HSET', KEYS[1], 'state', 'pending', 'version', 1, 'deadline', expires_at, 'project_id', ARGV[2],
  'polling_digest', ARGV[3], 'client', ARGV[5], 'created_at', now, 'expires_at', expires_at)
if ARGV[10] ~= '' then redis.call('HSET', KEYS[1], 'code_challenge', ARGV[10]) end
redis.call('PEXPIREAT', KEYS[1], expires_at + tonumber(ARGV[7]))
redis.call('SET', KEYS[2], ARGV[1] .. ARGV[4], 'PXAT', expires_at)
redis.call('ZADD', KEYS[3], expires_at, ARGV[1])
redis.call('ZADD', KEYS[7], expires_at, ARGV[1])
redis.call('PEXPIRE', KEYS[7], ARGV[15])
redis.call('XADD', KEYS[4], 'MINID', '~', string.format('%d', now - tonumber(ARGV[7])), '*', 'specversion', '1.0',
  'id', ARGV[1] .. '.1', 'source', ARGV[8], 'type', 'session.initiated', 'subject', ARGV[1], 'time', rfc3339(now),
  'version', 1, 'data', ARGV[9])
return { 'initiated', expires_at }
