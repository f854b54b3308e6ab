#!lua
-- Moves an entry that no worker could decide to the dead letters.
--
-- KEYS  1 commands  2 dead letters
-- ARGV  1 group  2 entry id  3 command bytes  4 reason  5 delivery count  6 length to keep
-- Returns 1, or 0 when the entry is not there any more.
if redis.call('XDEL', KEYS[1], ARGV[2]) == 0 then return 0 end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], '*', 'entry', ARGV[2], 'command', ARGV[3], 'reason', ARGV[4],
  'deliveries', ARGV[5])
return 1
