#!lua flags=allow-oom
-- Removes a consumer from the group unless entries are pending for it: XGROUP DELCONSUMER would destroy them.
--
-- KEYS commands
-- ARGV group, consumer, inactive_ms (the least since it was last active; 0 = whenever)
-- Returns 1 removed, 0 no such consumer or active too lately, -1 entries are pending.
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', commands, group)) do
  local found = {}
  for i = 1, #row, 2 do found[row[i]] = row[i + 1] end
  if found.name == consumer then
    if found.pending > 0 then return -1 end
    if found.idle < tonumber(inactive_ms) then return 0 end
    redis.call('XGROUP', 'DELCONSUMER', commands, group, consumer)
    return 1
  end
end
return 0
