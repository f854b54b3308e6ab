#!lua
-- Records a command, once, unless its session is not in the state that it asks for or the backlog is full.
--
-- KEYS  1 commands  2 outcome  3 session
-- ARGV  1 command (JSON)  2 state asked for  3 backlog limit  4 life of the outcome in ms
-- Returns {'known', outcome}  the same command was recorded before, or
--         {'moved', state, deadline, now}  the session is in another state (nil: gone) or overdue; nothing recorded, or
--         {'busy'}  the backlog is full; nothing recorded, or
--         {'recorded'}.
local outcome = redis.call('GET', KEYS[2])
if outcome then return { 'known', outcome } end
local session = redis.call('HMGET', KEYS[3], 'state', 'deadline')
local now = now_ms()
if session[1] ~= ARGV[2] or now > tonumber(session[2]) then return { 'moved', session[1], session[2], now } end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[3]) then return { 'busy' } end
redis.call('SET', KEYS[2], 'pending', 'PX', ARGV[4])
redis.call('XADD', KEYS[1], '*', 'command', ARGV[1])
return { 'recorded' }
