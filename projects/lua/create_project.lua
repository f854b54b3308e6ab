#!lua
-- Writes a new project, unless another one has its name.
--
-- KEYS names, project, allowed_origins
-- ARGV project_id, name, origins (separated by spaces), fields … (of the project, each with its value)
-- Returns now in ms, or 0 when the name is taken.
local holder = redis.call('HGET', names, name)
if holder and holder ~= project_id then return 0 end
local now = now_ms()
redis.call('HSET', names, name, project_id)
redis.call('HSET', project, 'name', name, 'created_at', now, 'allowed_origins', origins, unpack(fields))
for origin in string.gmatch(origins, '%S+') do redis.call('ZADD', allowed_origins, 0, origin .. ' ' .. project_id) end
return now
