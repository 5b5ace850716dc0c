-- Goes before every other script. Who belongs to which index: all jobs and those of one owner,
-- each as a whole (made in submit.lua) and by status. Score 0, so ordered by id, that is by creation.
-- A job's owner: the id of the API key that made it.
local function owner_of(job)
  return redis.call('HGET', job, 'key') or 'anonymous'
end

-- Jobs that wait only because their owner has enough running ones.
local function held_key(jobs, owner)
  return jobs .. ':owner:' .. owner .. ':held'
end

-- The only way to change a status. When an owner's job stops running, the held ones queue again.
local function set_status(jobs, job, id, status)
  local owner, before = owner_of(job), redis.call('HGET', job, 'status')
  for _, index in ipairs({jobs, jobs .. ':owner:' .. owner}) do
    if before then
      redis.call('ZREM', index .. ':status:' .. before, id)
    end
    redis.call('ZADD', index .. ':status:' .. status, 0, id)
  end
  redis.call('HSET', job, 'status', status)
  if before == 'running' and status ~= 'running' then
    local held, prefix = held_key(jobs, owner), string.sub(job, 1, -1 - #id)
    for _, waiting in ipairs(redis.call('SMEMBERS', held)) do
      local place = redis.call('HMGET', prefix .. waiting, 'queue', 'rank')
      redis.call('HDEL', prefix .. waiting, 'waiting_for')
      redis.call('ZADD', place[1], place[2], waiting)
    end
    redis.call('DEL', held)
  end
end

