#!lua
-- Counts a wrong code against its budgets, up to the first that is used up: an address past its own budget uses up
-- nobody else's. A re-sent call counts twice, which errs on the safe side.
--
-- KEYS  1 … counters
-- ARGV  1 window ms  2 … limit of each counter
-- Returns {now in ms, which counter is over its limit (0 = none), ms until it starts again, its count}.
local now = now_ms()
for i, key in ipairs(KEYS) do
  local count = redis.call('INCR', key)
  if count == 1 then redis.call('PEXPIRE', key, ARGV[1]) end
  if count > tonumber(ARGV[i + 1]) then return { now, i, redis.call('PTTL', key), count } end
end
return { now, 0, 0, 0 }
