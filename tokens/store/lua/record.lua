#!lua flags=allow-oom
-- Records a command for a family once, unless the backlog is full.
--
-- KEYS commands, outcome_key
-- ARGV command (JSON), backlog_limit, outcome_ms (life of the outcome)
-- Returns {'recorded'}, also for a call that was sent again, or {'busy'}: nothing recorded.
if redis.call('EXISTS', outcome_key) == 1 then return { 'recorded' } end
if redis.call('XLEN', commands) >= tonumber(backlog_limit) then return { 'busy' } end
redis.call('SET', outcome_key, 'pending', 'PX', outcome_ms)
redis.call('XADD', commands, '*', 'command', command)
return { 'recorded' }
