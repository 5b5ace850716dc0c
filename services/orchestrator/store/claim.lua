-- Takes the first job of several queues under a lease, of those whose owners may run one more.
-- KEYS: leases, fence, jobs, last claim of this worker, waiting workers, recently seen devices, then
--   the queues
-- ARGV: worker, lease in ms, prefix of job keys, prefix of API keys, how many jobs the worker runs,
--   a random name of this call, how many ms a worker counts as waiting after it asked, the worker's
--   device, for how many seconds a device that went away is expected back
-- Returns {id, token, 1 if it must run alone}, or nothing when all queues are empty. While the first
-- job must run alone, a worker that runs others gets nothing, so that the job's turn comes. While a
-- worker that runs fewer jobs waits for the same queue, the first job is left to it. A job that failed
-- on the worker's device is skipped while another device, present or expected back, could do it.
local now, running = milliseconds(), tonumber(ARGV[5])

-- The client sends a command again if the connection broke before the answer came.
local claimed = redis.call('HMGET', KEYS[4], 'call', 'id', 'token')
if claimed[1] == ARGV[6] and redis.call('ZSCORE', KEYS[1], claimed[2])
    and redis.call('HGET', ARGV[3] .. claimed[2], 'token') == claimed[3] then
  return {claimed[2], claimed[3], redis.call('HEXISTS', ARGV[3] .. claimed[2], 'alone')}
end
redis.call('DEL', KEYS[4])

local function waits(jobs)
  local queues = {}
  for i = 7, #KEYS do
    queues[KEYS[i]] = true
  end
  redis.call('HSET', KEYS[5], ARGV[1],
    cjson.encode({running = jobs, till = now + ARGV[7], queues = queues}))
end
waits(running)

local function a_freer_one_waits(queue)
  local waiting = redis.call('HGETALL', KEYS[5])
  local found = false
  for i = 1, #waiting, 2 do
    local other = cjson.decode(waiting[i + 1])
    if other.till < now then
      redis.call('HDEL', KEYS[5], waiting[i])
    elseif other.running < running and other.queues[queue] then
      found = true
    end
  end
  return found
end

-- A waiting worker may be unable to take this job, so the job is left to it for a short time only.
local function is_left_to_another(job, queue)
  if running == 0 or not a_freer_one_waits(queue) then
    return false
  end
  redis.call('HSETNX', job, 'left_since', now)
  return now - redis.call('HGET', job, 'left_since') < tonumber(ARGV[7])
end

local function among(list)
  local found = {}
  for _, one in ipairs(list) do
    found[one] = true
  end
  return found
end

local function could_do(worker, generator, vlms)
  local reached = among(worker.vlms)
  for vlm in string.gmatch(vlms, '[^,]+') do
    if not reached[vlm] then
      return false
    end
  end
  return generator == '' or worker.generator == generator
end

local function for_others(id)
  local job = redis.call('HMGET', ARGV[3] .. id, 'failed_on', 'generator', 'vlms')
  local failed_on = among(cjson.decode(job[1] or '[]'))
  if not failed_on[ARGV[8]] then
    return false
  end
  local since = now / 1000 - ARGV[9]
  for _, text in ipairs(redis.call('ZRANGEBYSCORE', KEYS[6], since, '+inf')) do
    local worker = cjson.decode(text)
    if not failed_on[worker.device] and could_do(worker, job[2], job[3]) then
      return true
    end
  end
  return false
end

local function head_of(queue)
  local place, head = 0, nil
  repeat
    head = redis.call('ZRANGE', queue, place, place, 'WITHSCORES')
    place = place + 1
  until not head[1] or not for_others(head[1])
  return head
end

local function first()
  local best, best_rank, best_queue
  for i = 7, #KEYS do
    local head = head_of(KEYS[i])
    if head[1] and (not best or tonumber(head[2]) < best_rank) then
      best, best_rank, best_queue = head[1], tonumber(head[2]), KEYS[i]
    end
  end
  if not best then
    return nil
  end
  local job = ARGV[3] .. best
  if running > 0 and redis.call('HEXISTS', job, 'alone') == 1 or is_left_to_another(job, best_queue) then
    return nil
  end
  redis.call('ZREM', best_queue, best)
  return best
end

-- A job that must wait leaves its queue, so that nobody looks at it again before it can run.
local function held(id)
  local job = ARGV[3] .. id
  local owner = owner_of(job)
  local limit = redis.call('HGET', ARGV[4] .. owner, 'running')
  local count = redis.call('ZCARD', KEYS[3] .. ':owner:' .. owner .. ':status:running')
  if not limit or count < tonumber(limit) then
    return false
  end
  redis.call('SADD', held_key(KEYS[3], owner), id)
  redis.call('HSET', job, 'waiting_for',
    'one of its key\'s running jobs to end; the quota is ' .. limit .. ' running at once')
  return true
end

local best = first()
while best and held(best) do
  best = first()
end
if not best then
  return nil
end
local job = ARGV[3] .. best
-- Redis may lose the count when a replica takes over, so the name of the call makes the token unique.
local token = redis.call('INCR', KEYS[2]) .. '-' .. ARGV[6]
local attempt = redis.call('HINCRBY', job, 'attempt', 1)
local time = redis.call('TIME')
set_status(KEYS[3], job, best, 'running')
redis.call('HSETNX', job, 'started_at', time[1] .. string.format('%06d', time[2]))
redis.call('HSET', job, 'owner', ARGV[1], 'token', token, 'step', 0)
redis.call('HDEL', job, 'waiting_for', 'skipped', 'left_since')
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), best)
redis.call('XADD', job .. ':events', '*', 'event',
  cjson.encode({type = 'status', status = 'running', attempt = attempt}))
redis.call('HSET', KEYS[4], 'call', ARGV[6], 'id', best, 'token', token)
redis.call('PEXPIRE', KEYS[4], ARGV[2])
waits(running + 1)
return {best, token, redis.call('HEXISTS', job, 'alone')}
