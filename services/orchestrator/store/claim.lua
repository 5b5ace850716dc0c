-- Takes the first job of several queues under a lease, of those whose owners may run one more.
-- KEYS: leases, fence, jobs, devices that were seen of late, then the queues
-- ARGV: worker, lease in ms, prefix of job keys, prefix of API keys, 1 if the worker runs no job,
--   the worker's device, for how long in seconds one that was seen is believed to come back
-- Returns {id, token, 1 if it must run alone}, or nothing when all queues are empty. While the first
-- job must run alone, nothing is there for a worker that runs others: so its turn comes. A job that
-- the worker's device failed is passed over while another device, which is there or will be back, could do it.
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
  if not failed_on[ARGV[6]] then
    return false
  end
  local since = milliseconds() / 1000 - ARGV[7]
  for _, text in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], since, '+inf')) do
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
  for i = 5, #KEYS do
    local head = head_of(KEYS[i])
    if head[1] and (not best or tonumber(head[2]) < best_rank) then
      best, best_rank, best_queue = head[1], tonumber(head[2]), KEYS[i]
    end
  end
  if best and ARGV[5] ~= '1' and redis.call('HEXISTS', ARGV[3] .. best, 'alone') == 1 then
    return nil
  end
  if best then
    redis.call('ZREM', best_queue, best)
  end
  return best
end

-- A job that must wait leaves its queue, so that nobody looks at it again before it can run.
local function held(id)
  local job = ARGV[3] .. id
  local owner = owner_of(job)
  local limit = redis.call('HGET', ARGV[4] .. owner, 'running')
  local running = redis.call('ZCARD', KEYS[3] .. ':owner:' .. owner .. ':status:running')
  if not limit or running < tonumber(limit) then
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
local token = redis.call('INCR', KEYS[2])
local attempt = redis.call('HINCRBY', job, 'attempt', 1)
local time = redis.call('TIME')
set_status(KEYS[3], job, best, 'running')
redis.call('HSETNX', job, 'started_at', time[1] .. string.format('%06d', time[2]))
redis.call('HSET', job, 'owner', ARGV[1], 'token', token, 'step', 0)
redis.call('HDEL', job, 'waiting_for', 'skipped')
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[2]), best)
redis.call('XADD', job .. ':events', '*', 'event',
  cjson.encode({type = 'status', status = 'running', attempt = attempt}))
return {best, token, redis.call('HEXISTS', job, 'alone')}
