#!lua flags=no-writes
-- Reads which sessions are past their deadline.
--
-- KEYS  1 deadlines
-- ARGV  1 how many at most
-- Returns {now in ms, session id, …}.
local now = now_ms()
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. string.format('%d', now), 'LIMIT', 0, ARGV[1])
table.insert(due, 1, now)
return due
