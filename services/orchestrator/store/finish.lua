-- Ends a job that its lease's owner ran. KEYS: job, leases, events, jobs
-- ARGV: id, token, status, error or ''. Returns 0 when the lease is another's, else 1.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] or not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  return 0
end
redis.call('ZREM', KEYS[2], ARGV[1])
set_status(KEYS[4], KEYS[1], ARGV[1], ARGV[3])
local event = {type = 'status', status = ARGV[3],
  attempt = tonumber(redis.call('HGET', KEYS[1], 'attempt'))}
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[1], 'error', ARGV[4])
  event.error = ARGV[4]
end
redis.call('XADD', KEYS[3], '*', 'event', cjson.encode(event))
return 1
