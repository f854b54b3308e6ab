#!lua flags=allow-oom
-- Notes when a family that does not rotate was refreshed. Neither state nor version changes.
--
-- KEYS family, families (of its subject)
-- ARGV family_id, version (as it was read), refreshed_at (ms), dies_at (ms), forgotten_at (ms)
-- Returns 1, or 0 when the family has changed or is gone.
local stored = redis.call('HMGET', family, 'state', 'version')
if stored[1] ~= 'active' or stored[2] ~= version then return 0 end
redis.call('HSET', family, 'refreshed_at', refreshed_at)
redis.call('PEXPIREAT', family, forgotten_at)
redis.call('ZADD', families, 'XX', dies_at, family_id)
redis.call('PEXPIREAT', families, dies_at, 'GT')
return 1
