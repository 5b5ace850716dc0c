-- Ends a queued job; asks the owner of a running one to stop.
-- KEYS: job, delayed, events, jobs. ARGV: id
-- Returns the status before, or nothing for an unknown job.
local status = redis.call('HGET', KEYS[1], 'status')
if status == 'queued' then
  leave_queue(KEYS[4], KEYS[2], KEYS[1], ARGV[1])
  set_status(KEYS[4], KEYS[1], ARGV[1], 'cancelled')
  redis.call('XADD', KEYS[3], '*', 'event', cjson.encode({type = 'status', status = 'cancelled',
    attempt = tonumber(redis.call('HGET', KEYS[1], 'attempt'))}))
elseif status == 'running' then
  redis.call('HSETNX', KEYS[1], 'cancel', 1)
end
return status
