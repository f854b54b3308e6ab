#!lua flags=no-writes
-- Reads the backlog of a partition, at one instant.
--
-- KEYS commands, dead_letters
-- ARGV group
-- Returns {entries, pending, id of the oldest unread, id of the oldest pending, dead letters, now in ms}; an id is ''
--         where there is none.
local pending, read, first_unread, first_pending = 0, '0-0', '', ''
if redis.call('EXISTS', commands) == 1 then
  for _, row in ipairs(redis.call('XINFO', 'GROUPS', commands)) do
    local found = {}
    for i = 1, #row, 2 do found[row[i]] = row[i + 1] end
    if found.name == group then
      local summary = redis.call('XPENDING', commands, group)
      pending, first_pending, read = summary[1], summary[2] or '', found['last-delivered-id']
    end
  end
  local unread = redis.call('XRANGE', commands, '(' .. read, '+', 'COUNT', 1)
  if unread[1] then first_unread = unread[1][1] end
end
local entries, letters = redis.call('XLEN', commands), redis.call('XLEN', dead_letters)
return { entries, pending, first_unread, first_pending, letters, now_ms() }
