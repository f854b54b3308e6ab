#!lua flags=allow-oom
-- Records a command, once, unless its session is in no state that it changes or the backlog is full.
--
-- KEYS commands, outcome_key, session
-- ARGV command (JSON), wanted (the states that it changes, a space on either side of each), backlog_limit, outcome_ms (life of the outcome)
-- Returns {'known', outcome}  the same command was recorded before, or
--         {'moved', state, deadline, now}  the session is in another state (nil: gone) or overdue; nothing recorded, or
--         {'busy'}  the backlog is full; nothing recorded, or
--         {'recorded'}.
local outcome = redis.call('GET', outcome_key)
if outcome then return { 'known', outcome } end
local now, found = now_ms(), redis.call('HMGET', session, 'state', 'deadline')
if not found[1] or not string.find(wanted, ' ' .. found[1] .. ' ', 1, true) or now > tonumber(found[2]) then return { 'moved', found[1], found[2], now } end
if redis.call('XLEN', commands) >= tonumber(backlog_limit) then return { 'busy' } end
redis.call('SET', outcome_key, 'pending', 'PX', outcome_ms)
redis.call('XADD', commands, '*', 'command', command)
return { 'recorded' }
