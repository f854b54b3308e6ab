#!lua flags=allow-oom
-- Publishes a fact about a subject, once for each id as long as its mark lives.
--
-- KEYS audited (mark of the fact), events
-- ARGV mark_ms, retention_ms (of events), events_max, fields … (of the event, each with its value)
-- Returns 1, or 0 for a call that was sent again.
if not redis.call('SET', audited, 1, 'NX', 'PX', mark_ms) then return 0 end
local bound, threshold = 'MINID', string.format('%d', now_ms() - retention_ms)
if redis.call('XLEN', events) >= tonumber(events_max) then bound, threshold = 'MAXLEN', events_max end
redis.call('XADD', events, bound, '~', threshold, '*', unpack(fields))
return 1
