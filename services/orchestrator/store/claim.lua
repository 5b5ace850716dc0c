-- Takes the first job of several queues under a lease, of those whose owners may run one more.
-- KEYS: leases, fence, jobs, last claim of this worker, who waits for jobs, then the queues
-- ARGV: worker, lease in ms, prefix of job keys, prefix of API keys, how many jobs the worker runs,
--   a random name of this call, how long a worker counts as waiting after it asked in ms
-- Returns {id, token, 1 if it must run alone, how long it waited in ms}, or nothing when all queues
-- are empty. While the first
-- job must run alone, nothing is there for a worker that runs others: so its turn comes. While a
-- worker that runs fewer jobs waits for the same queue, the first job is left to it.
local now, running = milliseconds(), tonumber(ARGV[5])

local function claimed_as(id, token)
  local job = ARGV[3] .. id
  -- One that an earlier version queued has no such moment.
  local since = redis.call('HGET', job, 'queued_at') or now
  return {id, token, redis.call('HEXISTS', job, 'alone'), now - since}
end

-- The client sends a command again when the connection broke before the answer came.
local claimed = redis.call('HMGET', KEYS[4], 'call', 'id', 'token')
if claimed[1] == ARGV[6] and redis.call('ZSCORE', KEYS[1], claimed[2])
    and redis.call('HGET', ARGV[3] .. claimed[2], 'token') == claimed[3] then
  return claimed_as(claimed[2], claimed[3])
end

local function waits(jobs)
  local queues = {}
  for i = 6, #KEYS do
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

-- A worker that waits may still be unable to take this very job: nobody waits for it for long.
local function is_left_to_another(job, queue)
  if running == 0 or not a_freer_one_waits(queue) then
    return false
  end
  redis.call('HSETNX', job, 'left_since', now)
  return now - redis.call('HGET', job, 'left_since') < tonumber(ARGV[7])
end

local function first()
  local best, best_rank, best_queue
  for i = 6, #KEYS do
    local head = redis.call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')
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
-- Redis may lose the count when a replica takes over: the name of the call makes the token unique.
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
return claimed_as(best, token)
