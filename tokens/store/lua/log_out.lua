#!lua flags=allow-oom
-- Logs a subject out everywhere in one partition: families opened until now, and sessions completed until now, are dead.
--
-- KEYS cutoff (of the subject)
-- ARGV life_ms (as long as a family can live)
-- Returns the time of the cut-off in ms.
local at = math.max(now_ms(), tonumber(redis.call('GET', cutoff) or 0))
redis.call('SET', cutoff, string.format('%d', at), 'PX', life_ms)
return at
