#!lua
-- Counts a wrong code against its budgets, up to the first that is used up: an address beyond its own budget does not
-- use up the others. A re-sent call counts twice, which errs on the safe side.
--
-- KEYS counters …
-- ARGV window_ms, limits … (one of each counter)
-- Returns {now in ms, which counter is over its limit (0 = none), ms until it starts again, its count}.
local now = now_ms()
for i, counter in ipairs(counters) do
  local count = redis.call('INCR', counter)
  if count == 1 then redis.call('PEXPIRE', counter, window_ms) end
  if count > tonumber(limits[i]) then return { now, i, redis.call('PTTL', counter), count } end
end
return { now, 0, 0, 0 }
