#!lua flags=allow-oom
-- Commits one decision about a family: its fields, successor, outcome, event, acknowledgement and reply; all or none.
-- The entry is the ticket: who deletes it commits, so a late worker, a second worker or a re-send changes nothing.
--
-- KEYS family, successor, families (of its subject), cutoff (of its subject), commands, outcome_key, events,
--      replies (channel)
-- ARGV family_id, state, version, cutoff_at (all decided on; '' = none), target ('' = nothing changes),
--      sealed_successor ('' = no rotation), grace_ms, last_ms (to commit a rotation in; 0 = no bound), dies_at (ms),
--      forgotten_at (ms), retention_ms (of events), events_max, group, entry_id, command_id, outcome, outcome_ms,
--      event_source, event_type ('' = no event), event_id, event_time, event_data, project_id,
--      fields … (that change, each with its value)
-- Returns {'committed'}, {'conflict'} (decided on what has changed), {'gone'} (the entry was decided before) or
--         {'late'} (no request waits for the successor any more; the entry is deleted, the token stays the newest).
local stored = redis.call('HMGET', family, 'state', 'version')
if (stored[1] or '') ~= state or (stored[2] or '') ~= version
  or (redis.call('GET', cutoff) or '') ~= cutoff_at then return { 'conflict' } end
if redis.call('XDEL', commands, entry_id) == 0 then return { 'gone' } end
redis.call('XACK', commands, group, entry_id)
local now, last, answer = now_ms(), tonumber(last_ms), sealed_successor
if last > 0 and now > last then
  redis.call('DEL', outcome_key)
  return { 'late' }
end
if target ~= '' then
  redis.call('HSET', family, unpack(fields))
  redis.call('PEXPIREAT', family, forgotten_at)
  if target == 'revoked' then
    redis.call('DEL', successor)
    redis.call('ZREM', families, family_id)
  elseif sealed_successor ~= '' then
    redis.call('HSET', family, 'rotated_at', now)
    redis.call('SET', successor, sealed_successor, 'PX', grace_ms)
    redis.call('ZADD', families, dies_at, family_id)
    redis.call('PEXPIREAT', families, dies_at, redis.call('PTTL', families) < 0 and 'NX' or 'GT')
  end
  if event_type ~= '' then
    local bound, threshold = 'MINID', string.format('%d', now - retention_ms)
    if redis.call('XLEN', events) >= tonumber(events_max) then bound, threshold = 'MAXLEN', events_max end
    redis.call('XADD', events, bound, '~', threshold, '*', 'specversion', '1.0', 'id', event_id,
      'source', event_source, 'type', event_type, 'subject', family_id, 'time', event_time,
      'projectid', project_id, 'data', event_data)
  end
elseif outcome == 'repeated' then
  answer = redis.call('GET', successor) or ''
end
redis.call('SET', outcome_key, outcome, 'PX', outcome_ms)
redis.call('PUBLISH', replies, command_id .. ' ' .. outcome .. ' ' .. answer)
return { 'committed' }
