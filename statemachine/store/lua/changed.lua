#!lua flags=no-writes
-- Reads which of many sessions have left `pending`.
--
-- KEYS sessions … (all of one partition)
-- Returns the positions (from 1) of those that are in another state or no longer exist.
local changed = {}
for i, session in ipairs(sessions) do
  if redis.call('HGET', session, 'state') ~= 'pending' then changed[#changed + 1] = i end
end
return changed
