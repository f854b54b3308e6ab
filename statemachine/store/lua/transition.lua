#!lua
-- Commits one decision: state, deadline, token, outcome, event, acknowledgement, reply and hint; all of it or none of it.
-- The entry is the ticket: who deletes it commits, so a late worker, a second worker or a re-send changes nothing.
--
-- KEYS  1 session  2 token  3 outcome  4 commands  5 deadlines  6 events  7 replies channel  8 hints channel  9 live sessions
-- ARGV  1 session id  2 state and 3 version that were decided on  4 next state ('' = the same)  5 time of the decision in ms
--       6 next deadline in ms  7 retention ms  8 sealed token ('' = none)  9 replay window ms
--       10 group  11 entry id ('' = no entry, the sweeper's)  12 command id  13 outcome  14 last ms to commit in (0 = no bound)
--       15 event source  16 event type  17 event time  18 event data  19 login subject ('' = none)
-- Returns {'committed'}, {'conflict'} (decided on a state that has changed), {'gone'} (the entry was decided before) or
--         {'late'} (nobody waits for this outcome any more; the entry is done with, the session as it was).
local session = redis.call('HMGET', KEYS[1], 'state', 'version')
if (session[1] or '') ~= ARGV[2] or (session[2] or '') ~= ARGV[3] then return { 'conflict' } end
local now = now_ms()
local state, entry, last = ARGV[4], ARGV[11], tonumber(ARGV[14])
if entry ~= '' then
  if redis.call('XDEL', KEYS[4], entry) == 0 then return { 'gone' } end
  redis.call('XACK', KEYS[4], ARGV[10], entry)
end
if state ~= '' and last > 0 and now > last then
  redis.call('DEL', KEYS[3])
  return { 'late' }
end
local token = ''
if state ~= '' then
  redis.call('HSET', KEYS[1], 'state', state, 'version', ARGV[3] + 1, 'deadline', ARGV[6], state .. '_at', ARGV[5])
  redis.call('PEXPIREAT', KEYS[1], ARGV[6] + ARGV[7])
  if state == 'completed' then
    redis.call('SET', KEYS[2], ARGV[8], 'PXAT', ARGV[6] + ARGV[9]) -- a consume recorded in time may be committed after
    redis.call('ZADD', KEYS[5], ARGV[6], ARGV[1])
    if ARGV[19] ~= '' then redis.call('HSET', KEYS[1], 'login_subject', ARGV[19]) end
  else
    redis.call('ZREM', KEYS[5], ARGV[1])
    redis.call('ZREM', KEYS[9], ARGV[1])
    if state == 'consumed' then
      token = redis.call('GET', KEYS[2]) or ''
      redis.call('PEXPIRE', KEYS[2], ARGV[9])
    else
      redis.call('DEL', KEYS[2])
    end
  end
  redis.call('XADD', KEYS[6], 'MINID', '~', string.format('%d', now - ARGV[7]), '*', 'specversion', '1.0',
    'id', ARGV[1] .. '.' .. (ARGV[3] + 1), 'source', ARGV[15], 'type', ARGV[16], 'subject', ARGV[1], 'time', ARGV[17],
    'version', ARGV[3] + 1, 'data', ARGV[18])
  redis.call('PUBLISH', KEYS[8], ARGV[1])
end
if entry ~= '' then
  local life = redis.call('PTTL', KEYS[3])
  redis.call('SET', KEYS[3], ARGV[13], 'PX', math.max(life, tonumber(ARGV[9]))) -- known for as long as it can be replayed
  redis.call('PUBLISH', KEYS[7], ARGV[12] .. ' ' .. ARGV[13] .. ' ' .. token)
end
return { 'committed' }
