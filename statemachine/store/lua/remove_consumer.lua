#!lua
-- Removes a consumer from the group unless entries are pending for it: XGROUP DELCONSUMER would destroy them.
--
-- KEYS  1 commands
-- ARGV  1 group  2 consumer  3 least ms since it was last active (0 = whenever)
-- Returns 1 removed, 0 no such consumer or active too lately, -1 entries are pending.
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #row, 2 do consumer[row[i]] = row[i + 1] end
  if consumer.name == ARGV[2] then
    if consumer.pending > 0 then return -1 end
    if consumer.idle < tonumber(ARGV[3]) then return 0 end
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
    return 1
  end
end
return 0
