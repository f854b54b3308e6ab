-- The time functions of all scripts: `Script.of` inserts this text after the first line of each.

-- Returns Redis' time in ms since the epoch.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Returns a time (ms since the epoch) as `2026-01-01T00:15:00.000Z` (RFC 3339), from days since the epoch: the civil
-- calendar has a 400-year cycle of 146 097 days.
local function rfc3339(ms)
  local days = math.floor(ms / 86400000) + 719468
  local era = math.floor(days / 146097)
  local doe = days - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, doy - math.floor((153 * mp + 2) / 5) + 1,
    math.floor(ms / 3600000) % 24, math.floor(ms / 60000) % 60, math.floor(ms / 1000) % 60, ms % 1000)
end
