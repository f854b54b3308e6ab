#!lua flags=allow-oom
-- Creates a partition's stream and group if missing, so that the group begins with the stream's first entry. A worker
-- must also be able to start when the server's memory is full, where XGROUP CREATE alone would be refused.
--
-- KEYS commands
-- ARGV group
-- Returns 1, or 0 when the group existed.
local reply = redis.pcall('XGROUP', 'CREATE', commands, group, '0', 'MKSTREAM')
if not reply.err then return 1 end
if string.find(reply.err, 'BUSYGROUP', 1, true) then return 0 end
return reply
