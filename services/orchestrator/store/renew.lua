-- Prolongs a lease. KEYS: job, leases. ARGV: id, token, lease in ms
-- Returns 0 when the lease is another's, 1 when it is renewed, 2 when a cancel is wanted as well.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] or not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  return 0
end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[2], time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[3]), ARGV[1])
return redis.call('HEXISTS', KEYS[1], 'cancel') + 1
