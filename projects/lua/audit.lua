#!lua
-- Publishes an audit event: once per window for the same cause, and at most `most` times for a project and type.
--
-- KEYS audited (the mark of the cause), told (count of the project's events of this type), events
-- ARGV window_ms, most (events a window), retention_ms, now (ms), event_id, event_source, event_type,
--      event_time, event_data, subject, project_id
-- Returns 1, or 0 when it was published before or the limit is reached.
if not redis.call('SET', audited, 1, 'NX', 'PX', window_ms) then return 0 end
local count = redis.call('INCR', told)
if count == 1 then redis.call('PEXPIRE', told, window_ms) end
if count > tonumber(most) then return 0 end
redis.call('XADD', events, 'MINID', '~', string.format('%d', now - retention_ms), '*', 'specversion', '1.0',
  'id', event_id, 'source', event_source, 'type', event_type, 'subject', subject, 'time', event_time,
  'projectid', project_id, 'data', event_data)
return 1
