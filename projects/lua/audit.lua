#!lua
-- Tells what a stranger caused in an event: once a window for the same cause, and so often for a project and type.
--
-- KEYS  1 mark of the cause  2 count of the project's events of this type  3 events
-- ARGV  1 window ms  2 most events a window  3 retention ms  4 now in ms
--       5 event id  6 source  7 type  8 subject  9 time  10 data
-- Returns 1, or 0 when it was told before or too much was told.
if not redis.call('SET', KEYS[1], 1, 'NX', 'PX', ARGV[1]) then return 0 end
local told = redis.call('INCR', KEYS[2])
if told == 1 then redis.call('PEXPIRE', KEYS[2], ARGV[1]) end
if told > tonumber(ARGV[2]) then return 0 end
redis.call('XADD', KEYS[3], 'MINID', '~', string.format('%d', ARGV[4] - ARGV[3]), '*', 'specversion', '1.0',
  'id', ARGV[5], 'source', ARGV[6], 'type', ARGV[7], 'subject', ARGV[8], 'time', ARGV[9], 'data', ARGV[10])
return 1
