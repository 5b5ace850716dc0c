-- Ends an attempt: the job is queued again after a pause, or fails when its attempts are used up.
-- KEYS: job, leases, events, delayed, causes, jobs
-- ARGV: id, token, cause, attempts allowed, pause in ms, 'owner' or 'expired', counted 1 or 0
-- 'owner' needs the lease; 'expired' needs it to be over. Returns the new status, or nothing.
local lease = redis.call('ZSCORE', KEYS[2], ARGV[1])
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] or not lease then
  return nil
end
local now = milliseconds()
if ARGV[6] == 'expired' and tonumber(lease) > now then
  return nil
end
redis.call('ZREM', KEYS[2], ARGV[1])
local attempt = tonumber(redis.call('HGET', KEYS[1], 'attempt'))
redis.call('RPUSH', KEYS[5], 'attempt ' .. attempt .. ': ' .. ARGV[3])
if ARGV[7] == '0' then
  attempt = redis.call('HINCRBY', KEYS[1], 'attempt', -1)
end
local event = {type = 'status', attempt = attempt}
if redis.call('HEXISTS', KEYS[1], 'cancel') == 1 then
  event.status = 'cancelled'
elseif attempt >= tonumber(ARGV[4]) then
  event.status = 'failed'
  event.error = table.concat(redis.call('LRANGE', KEYS[5], 0, -1), '\n')
  redis.call('HSET', KEYS[1], 'error', event.error)
else
  event.status = 'queued'
  event.waiting_for = 'the next attempt; the last one ended: ' .. ARGV[3]
  redis.call('ZADD', KEYS[4], now + tonumber(ARGV[5]), ARGV[1])
end
set_status(KEYS[6], KEYS[1], ARGV[1], event.status)
if event.status == 'queued' then
  redis.call('HSET', KEYS[1], 'waiting_for', event.waiting_for)
end
redis.call('XADD', KEYS[3], '*', 'event', cjson.encode(event))
return event.status
