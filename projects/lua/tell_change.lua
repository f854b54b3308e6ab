#!lua flags=allow-oom
-- Publishes a change to a project. A key must also be rotated when the server's memory is full, where XADD alone would
-- be refused. A re-sent call publishes it twice, under one event id.
--
-- KEYS events
-- ARGV fields … (of the entry, each with its value)
-- Returns the id of the entry.
return redis.call('XADD', events, '*', unpack(fields))
