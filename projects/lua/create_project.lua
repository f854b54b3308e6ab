#!lua
-- Writes a project unless another one has its name.
--
-- KEYS  1 names  2 project  3 allowed origins
-- ARGV  1 project id  2 name  3 allowed origins, separated by spaces  4 … other fields and values of the project
-- Returns now in ms, or 0 when the name is taken.
local holder = redis.call('HGET', KEYS[1], ARGV[2])
if holder and holder ~= ARGV[1] then return 0 end
local now = now_ms()
redis.call('HSET', KEYS[1], ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], 'name', ARGV[2], 'created_at', now, 'allowed_origins', ARGV[3], unpack(ARGV, 4))
for origin in string.gmatch(ARGV[3], '%S+') do redis.call('ZADD', KEYS[3], 0, origin .. ' ' .. ARGV[1]) end
return now
