#!lua
-- Writes fields of a project that there is, and with them the origins that may call for it.
--
-- KEYS  1 project  2 allowed origins
-- ARGV  1 project id  2 allowed origins, separated by spaces ('=' as they are)  3 … other fields and values
-- Returns now in ms, or 0 when there is no such project.
local before = redis.call('HMGET', KEYS[1], 'name', 'allowed_origins')
if not before[1] then return 0 end
if ARGV[2] ~= '=' then
  for origin in string.gmatch(before[2] or '', '%S+') do redis.call('ZREM', KEYS[2], origin .. ' ' .. ARGV[1]) end
  for origin in string.gmatch(ARGV[2], '%S+') do redis.call('ZADD', KEYS[2], 0, origin .. ' ' .. ARGV[1]) end
  redis.call('HSET', KEYS[1], 'allowed_origins', ARGV[2])
end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
return now_ms()
