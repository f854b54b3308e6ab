#!lua flags=allow-oom
-- Writes fields of an existing project, and the index of the origins that it allows.
--
-- KEYS project, allowed_origins
-- ARGV project_id, origins (separated by spaces; '=' as they are), fields … (of the project, each with its value)
-- Returns now in ms, or 0 when there is no such project.
local before = redis.call('HMGET', project, 'name', 'allowed_origins')
if not before[1] then return 0 end
if origins ~= '=' then
  local suffix = ' ' .. project_id
  for origin in string.gmatch(before[2] or '', '%S+') do redis.call('ZREM', allowed_origins, origin .. suffix) end
  for origin in string.gmatch(origins, '%S+') do redis.call('ZADD', allowed_origins, 0, origin .. suffix) end
  redis.call('HSET', project, 'allowed_origins', origins)
end
redis.call('HSET', project, unpack(fields))
return now_ms()
