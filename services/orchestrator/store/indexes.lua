-- Goes before every other script. Who belongs to which index: all jobs, those of one owner and those
-- of one batch, each as a whole (made in enqueue.lua) and by status. Score 0, so ordered by id, that
-- is by creation.
-- A job's owner: the id of the API key that made it.
local function owner_of(job)
  return redis.call('HGET', job, 'key') or 'anonymous'
end

local function batch_index(jobs, batch)
  return jobs .. ':batch:' .. batch
end

-- The indexes that a job is in, each as a whole.
local function indexes_of(jobs, job)
  local indexes = {jobs, jobs .. ':owner:' .. owner_of(job)}
  local batch = redis.call('HGET', job, 'batch')
  if batch then
    table.insert(indexes, batch_index(jobs, batch))
  end
  return indexes
end

-- Jobs that wait only because their owner has enough running ones.
local function held_key(jobs, owner)
  return jobs .. ':owner:' .. owner .. ':held'
end

local FINAL = {succeeded = true, failed = true, cancelled = true}

-- Redis's clock, in milliseconds.
local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- What the end of a job sets off: its webhook is due, and one day its events and it itself go.
local function set_ended(jobs, job, id, status)
  local time, now = redis.call('TIME'), milliseconds()
  redis.call('HSET', job, 'finished_at', time[1] .. string.format('%06d', time[2]))
  redis.call('HDEL', job, 'waiting_for')
  -- A user's wish is a 1, anything else's a sentence.
  local cancel = redis.call('HGET', job, 'cancel')
  if status == 'cancelled' and cancel and cancel ~= '1' then
    redis.call('HSET', job, 'stopped_because', cancel)
  end
  redis.call('ZREM', jobs .. ':deadlines', id)
  redis.call('ZADD', jobs .. ':finished', now, id)
  redis.call('ZADD', jobs .. ':finished:events', now, id)
  if redis.call('HEXISTS', job, 'webhook_url') == 1 then
    redis.call('HSET', job, 'webhook_status', 'pending')
    redis.call('ZADD', jobs .. ':webhooks', now, id)
  end
end

-- A queued job leaves wherever it waits.
local function leave_queue(jobs, delayed, job, id)
  redis.call('ZREM', redis.call('HGET', job, 'queue'), id)
  redis.call('ZREM', delayed, id)
  redis.call('SREM', held_key(jobs, owner_of(job)), id)
end

-- The only way to change a status. When an owner's job stops running, the held ones queue again.
local function set_status(jobs, job, id, status)
  local owner, before = owner_of(job), redis.call('HGET', job, 'status')
  for _, index in ipairs(indexes_of(jobs, job)) do
    if before then
      redis.call('ZREM', index .. ':status:' .. before, id)
    end
    redis.call('ZADD', index .. ':status:' .. status, 0, id)
  end
  redis.call('HSET', job, 'status', status)
  if status == 'queued' then
    redis.call('HSET', job, 'queued_at', milliseconds())
  end
  if before == 'running' and status ~= 'running' then
    local held, prefix = held_key(jobs, owner), string.sub(job, 1, -1 - #id)
    for _, waiting in ipairs(redis.call('SMEMBERS', held)) do
      local place = redis.call('HMGET', prefix .. waiting, 'queue', 'rank')
      redis.call('HDEL', prefix .. waiting, 'waiting_for')
      redis.call('ZADD', place[1], place[2], waiting)
    end
    redis.call('DEL', held)
  end
  if FINAL[status] then
    set_ended(jobs, job, id, status)
  end
end

