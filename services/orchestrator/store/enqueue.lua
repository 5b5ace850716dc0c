-- Goes before every other script, behind indexes.lua. Stores one job and queues it.
-- place: prefix of job keys, jobs, sequence, queues; job: id, queue, priority, owner, event, and
-- perhaps batch and idempotency; its fields are ARGV's items first to last, in pairs.
local function enqueue(place, job, first, last)
  local key, id = place.prefix .. job.id, job.id
  -- A higher priority goes first; within one, the earlier submission.
  local rank = string.format('%.0f', redis.call('INCR', place.sequence) - job.priority * 1e12)
  local time = redis.call('TIME')
  local now = time[1] .. string.format('%06d', time[2])
  redis.call('HSET', key, 'id', id, 'key', job.owner, 'created_at', now, 'attempt', 0,
    'queue', job.queue, 'rank', rank, 'idempotency', job.idempotency or '')
  if job.batch then
    redis.call('HSET', key, 'batch', job.batch)
  end
  for i = first, last, 2 do
    redis.call('HSET', key, ARGV[i], ARGV[i + 1])
  end
  redis.call('ZADD', job.queue, rank, id)
  for _, index in ipairs(indexes_of(place.jobs, key)) do
    redis.call('ZADD', index, 0, id)
  end
  set_status(place.jobs, key, id, 'queued')
  local seconds = redis.call('HGET', key, 'deadline')
  if seconds then
    redis.call('ZADD', place.jobs .. ':deadlines', milliseconds() + seconds * 1000, id)
  end
  redis.call('SADD', place.queues, job.queue)
  redis.call('XADD', key .. ':events', '*', 'event', job.event)
end

-- The owner's quota that so many more jobs of so much work together would exceed, if there is one:
-- 'queued' and the limit, or 'work', the limit and how much of it, in thousandths, is used up.
local function quota_exceeded(jobs, api_key, owner, more, work)
  local limits = redis.call('HMGET', api_key, 'queued', 'work')
  local queued = redis.call('ZCARD', jobs .. ':owner:' .. owner .. ':status:queued')
  if limits[1] and queued + more > tonumber(limits[1]) then
    return 'queued ' .. limits[1]
  end
  local used = redis.call('GET', work_key(jobs, owner)) or '0'
  if limits[2] and used + work > limits[2] * 1000 then
    return 'work ' .. limits[2] .. ' ' .. used
  end
  return nil
end

