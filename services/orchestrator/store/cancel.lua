-- Ends a queued job; asks the owner of a running one to stop.
-- KEYS: job, delayed, events, jobs. ARGV: id
-- Returns the status before, or nothing for an unknown job.
local status = redis.call('HGET', KEYS[1], 'status')
if status == 'queued' then
  local time = redis.call('TIME')
  redis.call('ZREM', redis.call('HGET', KEYS[1], 'queue'), ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('SREM', held_key(KEYS[4], owner_of(KEYS[1])), ARGV[1])
  set_status(KEYS[4], KEYS[1], ARGV[1], 'cancelled')
  redis.call('HSET', KEYS[1], 'finished_at', time[1] .. string.format('%06d', time[2]))
  redis.call('HDEL', KEYS[1], 'waiting_for')
  redis.call('XADD', KEYS[3], '*', 'event', cjson.encode({type = 'status', status = 'cancelled',
    attempt = tonumber(redis.call('HGET', KEYS[1], 'attempt'))}))
elseif status == 'running' then
  redis.call('HSET', KEYS[1], 'cancel', 1)
end
return status
