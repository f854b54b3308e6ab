#!lua
-- Reads as read.lua does, and keeps the polls of a pending session apart. Only the holder of its polling code moves the
-- window, and a poll that is refused does not.
--
-- KEYS  1 session  2 polled
-- ARGV  1 polling digest  2 code challenge ('' = none)  3 least ms between two polls  4 this poll, to tell a re-send
-- Returns {ms until the next poll (0 = not too soon), what read.lua returns …}.
local found = redis.call('HMGET', KEYS[1], 'state', 'version', 'deadline', 'expires_at', 'project_id', 'polling_digest',
  'code_challenge')
local now = now_ms()
local wait = 0
if found[1] == 'pending' and now <= tonumber(found[3]) and found[6] == ARGV[1] and (found[7] or '') == ARGV[2] then
  local other = redis.call('SET', KEYS[2], ARGV[4], 'NX', 'GET', 'PX', ARGV[3])
  if other and other ~= ARGV[4] then wait = math.max(1, redis.call('PTTL', KEYS[2])) end
end
return { wait, now, unpack(found) }
