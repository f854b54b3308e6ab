#!lua flags=no-writes
-- Reads a session and the time. One round trip, nothing written: all that a pending poll costs.
--
-- KEYS session
-- Returns {now in ms, state, version, deadline, expires_at, project id, polling digest, code challenge or nil}; nil
--         from the second on when there is no such session.
local found = redis.call('HMGET', session, 'state', 'version', 'deadline', 'expires_at', 'project_id',
  'polling_digest', 'code_challenge')
table.insert(found, 1, now_ms())
return found
