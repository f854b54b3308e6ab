#!lua
-- Puts a dead letter's command back on the stream, as a new entry; nobody can do it twice.
--
-- KEYS  1 dead letters  2 commands
-- ARGV  1 id of the dead letter
-- Returns the id of the new entry, or nil when there is no such dead letter any more.
local letter = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not letter then return nil end
local fields = {}
for i = 1, #letter[2], 2 do fields[letter[2][i]] = letter[2][i + 1] end
redis.call('XDEL', KEYS[1], ARGV[1])
return redis.call('XADD', KEYS[2], '*', 'command', fields.command)
