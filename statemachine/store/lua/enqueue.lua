#!lua flags=allow-oom
-- Records a command once, unless it cannot change its session's state or the backlog is full. The entry also has what
-- the session was just now, so that a worker need not read it: a JSON array of the fields in `reading.DECIDED_ON`, '' for
-- one that it does not have.
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
local now = now_ms()
local found = redis.call('HMGET', session, 'state', 'version', 'deadline', 'expires_at', 'project_id',
  'login_subject', 'created_at', 'completed_at', 'address', 'opens')
local is_wanted = found[1] and string.find(wanted, ' ' .. found[1] .. ' ', 1, true)
if not is_wanted or now > tonumber(found[3]) then return { 'moved', found[1], found[3], now } end
if redis.call('XLEN', commands) >= tonumber(backlog_limit) then return { 'busy' } end
redis.call('SET', outcome_key, fingerprint == '' and 'pending' or 'pending ' .. fingerprint, 'PX', outcome_ms)
for i = 6, #found do found[i] = found[i] or '' end
redis.call('XADD', commands, '*', 'command', command, 'session', cjson.encode(found))
return { 'recorded' }
