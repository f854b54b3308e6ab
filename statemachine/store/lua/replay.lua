#!lua flags=allow-oom
-- Puts a dead letter's command back on the stream as a new entry, once.
--
-- KEYS dead_letters, commands
-- ARGV letter_id
-- Returns the id of the new entry, or nil when there is no such dead letter any more.
local letter = redis.call('XRANGE', dead_letters, letter_id, letter_id)[1]
if not letter then return nil end
local fields = {}
for i = 1, #letter[2], 2 do fields[letter[2][i]] = letter[2][i + 1] end
redis.call('XDEL', dead_letters, letter_id)
return redis.call('XADD', commands, '*', 'command', fields.command)
