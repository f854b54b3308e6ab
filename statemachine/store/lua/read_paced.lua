#!lua flags=allow-oom
-- Reads as read.lua does, and enforces a pause between the polls of a pending session. Only a poll with the right
-- polling code starts the pause, and a refused poll does not.
--
-- KEYS session, polled
-- ARGV polling_digest, code_challenge ('' = none), pause_ms (the least between two polls), poll (to tell a re-send)
-- Returns {ms until the next poll (0 = not too soon), what read.lua returns …}.
local found = redis.call('HMGET', session, 'state', 'version', 'deadline', 'expires_at', 'project_id',
  'polling_digest', 'code_challenge')
local now, wait = now_ms(), 0
local is_pending = found[1] == 'pending' and now <= tonumber(found[3])
if is_pending and found[6] == polling_digest and (found[7] or '') == code_challenge then
  local other = redis.call('SET', polled, poll, 'NX', 'GET', 'PX', pause_ms)
  if other and other ~= poll then wait = math.max(1, redis.call('PTTL', polled)) end
end
return { wait, now, unpack(found) }
