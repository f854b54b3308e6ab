#!lua flags=allow-oom
-- Records a command once, unless it cannot change its session's state or the backlog is full.
--
-- KEYS commands, outcome_key, session
-- ARGV command (JSON), wanted (the states that it changes, a space on either side of each), backlog_limit,
--      outcome_ms (life of the outcome), fingerprint (of the request; '' = none)
-- Returns {'known', outcome}  the same command was recorded before, or
--         {'reused'}  another request, by its fingerprint, was recorded under the same id; nothing recorded, or
--         {'moved', state, deadline, now}  the session is in another state (nil: gone) or overdue; nothing recorded, or
--         {'busy'}  the backlog is full; nothing recorded, or
--         {'recorded'}.
local kept = redis.call('GET', outcome_key)
if kept then
  local outcome, of = string.match(kept, '^(%S+) ?(.*)$')
  if of ~= '' and fingerprint ~= '' and of ~= fingerprint then return { 'reused' } end
  return { 'known', outcome }
end
local now, found = now_ms(), redis.call('HMGET', session, 'state', 'deadline')
local is_wanted = found[1] and string.find(wanted, ' ' .. found[1] .. ' ', 1, true)
if not is_wanted or now > tonumber(found[2]) then return { 'moved', found[1], found[2], now } end
if redis.call('XLEN', commands) >= tonumber(backlog_limit) then return { 'busy' } end
redis.call('SET', outcome_key, fingerprint == '' and 'pending' or 'pending ' .. fingerprint, 'PX', outcome_ms)
redis.call('XADD', commands, '*', 'command', command)
return { 'recorded' }
