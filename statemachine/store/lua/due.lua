#!lua flags=no-writes
-- Reads which sessions are past their deadline.
--
-- KEYS deadlines
-- ARGV limit
-- Returns {now in ms, session id, …}.
local now = now_ms()
local due = redis.call('ZRANGEBYSCORE', deadlines, '-inf', '(' .. string.format('%d', now), 'LIMIT', 0, limit)
table.insert(due, 1, now)
return due
