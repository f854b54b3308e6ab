#!lua flags=allow-oom
-- Commits one decision: state, deadline, token, outcome, event, acknowledgement, reply and hint; all of it or none.
-- The entry is the ticket: who deletes it commits, so a late worker, a second worker or a re-send changes nothing.
--
-- KEYS session, token, outcome_key, commands, deadlines, events, replies (channel), hints (channel),
--      live_sessions (of the project), live_of_address (of the session's address in it),
--      claimable (what may be claimed while the session is pending),
--      opened … (by a hand-over that opens a family of tokens: family, families and cutoff of its subject)
-- ARGV session_id, state, version (both decided on), target ('' = the same state), decided_at (ms),
--      deadline (the next), login_subject ('' = none), sealed_token ('' = none), forgotten_at (ms),
--      live_until (ms; '' = it counts as live no more),
--      retention_ms (of events), events_max, replay_window_ms,
--      group, entry_id ('' = no entry, the sweeper's), command_id, outcome, last_ms (to commit in; 0 = no bound),
--      hint (the session id if polls may be held for it; '' = none), event_source, event_type, event_time, event_data,
--      opening … (of a completion: what its hand-over opens, JSON; of that hand-over: opened_at, dies_at, forgotten_at
--      and event data of the family, then its fields, each with its value; none = no family)
-- Returns {'committed'}, {'conflict'} (decided on a state that has changed), {'gone'} (the entry was decided before) or
--         {'late'} (no poll waits for this outcome any more; the entry is deleted, the session does not change) or
--         {'logged_out'} (the subject was logged out since the completion; nothing is done).
local stored = redis.call('HMGET', session, 'state', 'version', 'project_id', 'deadline')
if (stored[1] or '') ~= state or (stored[2] or '') ~= version then return { 'conflict' } end
local family, families, cutoff = unpack(opened)
if family and tonumber(opening[1]) <= tonumber(redis.call('GET', cutoff) or -1) then return { 'logged_out' } end
if entry_id ~= '' then
  if redis.call('XDEL', commands, entry_id) == 0 then return { 'gone' } end
  redis.call('XACK', commands, group, entry_id)
end
local handed_over = ''
if target ~= '' then
  if last_ms ~= '0' and now_ms() > tonumber(last_ms) then
    redis.call('DEL', outcome_key)
    return { 'late' }
  end
  local next_version = version + 1
  redis.call('HSET', session, 'state', target, 'version', next_version, 'deadline', deadline,
    target .. '_at', decided_at)
  if target ~= 'consumed' then redis.call('PEXPIREAT', session, forgotten_at) end -- a consumed one already is
  if state == 'pending' then redis.call('DEL', claimable) end
  for _, live in ipairs({ live_sessions, live_of_address }) do
    if live_until == '' then
      redis.call('ZREM', live, session_id)
    else
      redis.call('ZADD', live, 'XX', live_until, session_id)
    end
    -- A set ends with its last session. This one may have been the last, if it was to be forgotten when the set ends.
    if target == 'completed' then
      redis.call('PEXPIREAT', live, live_until, 'GT')
    elseif target ~= 'consumed' or redis.call('PEXPIRETIME', live) == tonumber(forgotten_at) then
      local ends_at = redis.call('ZRANGE', live, -1, -1, 'WITHSCORES')[2]
      if ends_at then redis.call('PEXPIREAT', live, ends_at) end
    end
  end
  if target == 'completed' then
    -- Beyond the deadline: a consume that was recorded in time may be committed after it.
    redis.call('SET', token, sealed_token, 'PXAT', deadline + replay_window_ms)
    if deadline ~= stored[4] then redis.call('ZADD', deadlines, deadline, session_id) end
    if login_subject ~= '' then redis.call('HSET', session, 'login_subject', login_subject) end
    if opening[1] then redis.call('HSET', session, 'opens', opening[1]) end
  else
    redis.call('ZREM', deadlines, session_id)
    if target == 'consumed' then
      handed_over = redis.call('GET', token) or ''
      redis.call('PEXPIRE', token, replay_window_ms)
    else
      redis.call('DEL', token)
    end
  end
  local bound, threshold = 'MINID', string.format('%d', decided_at - retention_ms)
  if redis.call('XLEN', events) >= tonumber(events_max) then bound, threshold = 'MAXLEN', events_max end
  redis.call('XADD', events, bound, '~', threshold, '*', 'specversion', '1.0',
    'id', session_id .. '.' .. next_version, 'source', event_source, 'type', event_type, 'subject', session_id,
    'time', event_time, 'version', next_version, 'projectid', stored[3], 'data', event_data)
  if family then
    local _, dies_at, family_forgotten_at, opened_data = unpack(opening)
    redis.call('HSET', family, 'client', redis.call('HGET', session, 'client') or '{}', unpack(opening, 5))
    redis.call('PEXPIREAT', family, family_forgotten_at)
    redis.call('ZREMRANGEBYSCORE', families, '-inf', '(' .. decided_at)
    redis.call('ZADD', families, dies_at, session_id)
    redis.call('PEXPIREAT', families, dies_at, redis.call('PTTL', families) < 0 and 'NX' or 'GT')
    redis.call('XADD', events, bound, '~', threshold, '*', 'specversion', '1.0', 'id', session_id .. '.family.1',
      'source', event_source, 'type', 'family.opened', 'subject', session_id, 'time', event_time,
      'projectid', stored[3], 'data', opened_data)
  end
  if hint ~= '' then redis.call('PUBLISH', hints, hint) end
end
if entry_id ~= '' then
  -- Kept at least as long as it can be replayed.
  local life = math.max(redis.call('PTTL', outcome_key), tonumber(replay_window_ms))
  local before = redis.call('SET', outcome_key, outcome, 'GET', 'PX', life)
  local fingerprint = before and string.match(before, ' .+$')
  if fingerprint then redis.call('SET', outcome_key, outcome .. fingerprint, 'PX', life) end
  redis.call('PUBLISH', replies, command_id .. ' ' .. outcome .. ' ' .. handed_over)
end
return { 'committed' }
