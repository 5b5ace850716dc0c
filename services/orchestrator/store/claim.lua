-- Takes the first job of several queues under a lease.
-- KEYS: leases, fence, then the queues
-- ARGV: owner, lease in ms, prefix of job keys
-- Returns {id, token}, or nothing when all queues are empty.
local best, best_rank, best_queue
for i = 3, #KEYS do
  local head = redis.call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')
  if head[1] and (not best or tonumber(head[2]) < best_rank) then
    best, best_rank, best_queue = head[1], tonumber(head[2]), KEYS[i]
  end
end
if not best then
  return nil
end
redis.call('ZREM', best_queue, best)
local job = ARGV[3] .. best
local token = redis.call('INCR', KEYS[2])
local attempt = redis.call('HINCRBY', job, 'attempt', 1)
local time = redis.call('TIME')
redis.call('HSETNX', job, 'started_at', time[1] .. string.format('%06d', time[2]))
redis.call('HSET', job, 'status', 'running', 'owner', ARGV[1], 'token', token, 'step', 0)
redis.call('HDEL', job, 'waiting_for')
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[2]), best)
redis.call('XADD', job .. ':events', '*', 'event',
  cjson.encode({type = 'status', status = 'running', attempt = attempt}))
return {best, token}
