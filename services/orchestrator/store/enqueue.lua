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

-- The work of an owner's jobs that have not ended, in thousandths. It is added up each time, since a
-- stored sum could become wrong. A job of a version that did not count work has none.
local function unfinished_work(jobs, owner, prefix)
  local work = 0
  for _, status in ipairs({'queued', 'running'}) do
    local index = jobs .. ':owner:' .. owner .. ':status:' .. status
    for _, id in ipairs(redis.call('ZRANGE', index, 0, -1)) do
      work = work + tonumber(redis.call('HGET', prefix .. id, 'work') or 0)
    end
  end
  return work
end

-- The quota that the owner would exceed with this many more jobs and this much more work, or nil:
-- 'queued' and the limit; or 'work', the limit and how much of it, in thousandths, is used.
local function quota_exceeded(place, api_key, owner, more, work)
  local limits = redis.call('HMGET', api_key, 'queued', 'work')
  local queued = redis.call('ZCARD', place.jobs .. ':owner:' .. owner .. ':status:queued')
  if limits[1] and queued + more > tonumber(limits[1]) then
    return 'queued ' .. limits[1]
  end
  local used = limits[2] and unfinished_work(place.jobs, owner, place.prefix)
  if used and used + work > limits[2] * 1000 then
    return 'work ' .. limits[2] .. string.format(' %.0f', used)
  end
  return nil
end

