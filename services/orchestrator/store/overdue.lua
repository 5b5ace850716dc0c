-- Ends queued jobs whose deadline is over; asks the owners of running ones to stop.
-- KEYS: jobs, delayed. ARGV: prefix of job keys, how many at most
-- Returns the ids of those that ended.
local ended = {}
local deadlines = KEYS[1] .. ':deadlines'
for _, id in ipairs(redis.call('ZRANGEBYSCORE', deadlines, '-inf', milliseconds(),
    'LIMIT', 0, ARGV[2])) do
  local job = ARGV[1] .. id
  local status = redis.call('HGET', job, 'status')
  local sentence = 'its deadline, ' .. redis.call('HGET', job, 'deadline')
    .. ' s after its submission, passed'
  redis.call('ZREM', deadlines, id)
  if status == 'running' then
    redis.call('HSETNX', job, 'cancel', sentence)
  -- A queued job with a cancel waits for nothing but to export what it learned.
  elseif status == 'queued' and redis.call('HEXISTS', job, 'cancel') == 0 then
    sentence = sentence .. ' while it was queued'
    local waiting = redis.call('HGET', job, 'waiting_for')
    if waiting then
      sentence = sentence .. ' and waited for ' .. waiting
    end
    leave_queue(KEYS[1], KEYS[2], job, id)
    redis.call('HSET', job, 'error', sentence)
    set_status(KEYS[1], job, id, 'failed')
    redis.call('XADD', job .. ':events', '*', 'event', cjson.encode({type = 'status',
      status = 'failed', error = sentence, attempt = tonumber(redis.call('HGET', job, 'attempt'))}))
    table.insert(ended, id)
  end
end
return ended
