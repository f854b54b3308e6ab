#!lua flags=allow-oom
-- Moves an entry that no worker could decide to the dead letters.
--
-- KEYS commands, dead_letters
-- ARGV group, entry_id, command, reason, deliveries, kept (how many dead letters)
-- Returns 1, or 0 when the entry is gone.
if redis.call('XDEL', commands, entry_id) == 0 then return 0 end
redis.call('XACK', commands, group, entry_id)
redis.call('XADD', dead_letters, 'MAXLEN', '~', kept, '*', 'entry', entry_id, 'command', command, 'reason', reason,
  'deliveries', deliveries)
return 1
