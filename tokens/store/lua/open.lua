#!lua
-- Opens a family that no login hands over, once.
--
-- KEYS family, families (of its subject), events
-- ARGV family_id, dies_at (ms), forgotten_at (ms), retention_ms (of events), events_max, event_source, event_type,
--      event_id, event_time, event_data, project_id, fields … (each with its value)
-- Returns 1, or 0 for a call that was sent again.
if redis.call('EXISTS', family) == 1 then return 0 end
local now = now_ms()
redis.call('HSET', family, unpack(fields))
redis.call('PEXPIREAT', family, forgotten_at)
redis.call('ZREMRANGEBYSCORE', families, '-inf', '(' .. string.format('%d', now))
redis.call('ZADD', families, dies_at, family_id)
redis.call('PEXPIREAT', families, dies_at, redis.call('PTTL', families) < 0 and 'NX' or 'GT')
local bound, threshold = 'MINID', string.format('%d', now - retention_ms)
if redis.call('XLEN', events) >= tonumber(events_max) then bound, threshold = 'MAXLEN', events_max end
redis.call('XADD', events, bound, '~', threshold, '*', 'specversion', '1.0', 'id', event_id,
  'source', event_source, 'type', event_type, 'subject', family_id, 'time', event_time,
  'projectid', project_id, 'data', event_data)
return 1
