#!lua flags=no-writes
-- Reads how a partition's commands stand, at one instant.
--
-- KEYS  1 commands  2 dead letters
-- ARGV  1 group
-- Returns {entries, pending, id of the oldest unread, id of the oldest pending, dead letters, now in ms}; an id is ''
--         where there is none.
local pending, read, first_unread, first_pending = 0, '0-0', '', ''
if redis.call('EXISTS', KEYS[1]) == 1 then
  for _, row in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local group = {}
    for i = 1, #row, 2 do group[row[i]] = row[i + 1] end
    if group.name == ARGV[1] then
      local summary = redis.call('XPENDING', KEYS[1], ARGV[1])
      pending, first_pending, read = summary[1], summary[2] or '', group['last-delivered-id']
    end
  end
  local unread = redis.call('XRANGE', KEYS[1], '(' .. read, '+', 'COUNT', 1)
  if unread[1] then first_unread = unread[1][1] end
end
return { redis.call('XLEN', KEYS[1]), pending, first_unread, first_pending, redis.call('XLEN', KEYS[2]), now_ms() }
