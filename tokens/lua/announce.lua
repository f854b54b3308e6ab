#!lua flags=allow-oom
-- Says what an API process has, in place of what it said before, and forgets processes that have ended.
--
-- KEYS announcements
-- ARGV announcement (JSON), previous (JSON; empty: none), life_ms
-- Returns the number of announcements.
local now = now_ms()
redis.call('ZREM', announcements, previous)
redis.call('ZADD', announcements, now, announcement)
redis.call('ZREMRANGEBYSCORE', announcements, '-inf', now - tonumber(life_ms))
redis.call('PEXPIRE', announcements, life_ms)
return redis.call('ZCARD', announcements)
