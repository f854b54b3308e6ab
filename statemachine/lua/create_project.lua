#!lua
-- Writes a project unless another one has its name.
--
-- KEYS  1 names  2 project
-- ARGV  1 project id  2 name  3 … fields and values of the project
-- Returns 1, or 0 when the name is taken.
local holder = redis.call('HGET', KEYS[1], ARGV[2])
if holder and holder ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], 'name', ARGV[2], 'created_at', time[1] * 1000 + math.floor(time[2] / 1000), unpack(ARGV, 3))
return 1
