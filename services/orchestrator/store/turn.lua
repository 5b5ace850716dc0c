-- Takes a turn, if the owner has one left. KEYS: turns of the owner
-- ARGV: id of the turn, how many there are, how long it lasts in ms. Returns 1, or 0 for none.
local now = milliseconds()
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
-- The client sends a command again when the connection broke before the answer came.
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
  return 0
end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
-- Longer than any turn lasts.
redis.call('EXPIRE', KEYS[1], 3600)
return 1
