#!lua flags=allow-oom
-- Leaves a worker's sign of life: a SET alone would be refused when the server's memory is full.
--
-- KEYS worker
-- ARGV sign (JSON), life_ms
-- Returns OK.
return redis.call('SET', worker, sign, 'PX', life_ms)
