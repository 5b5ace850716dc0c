-- Stores a job and queues it, once for each idempotency key.
-- KEYS: job, queue, jobs, sequence, events, queues, idempotency
-- ARGV: id, priority, hash of the request or '', seconds to remember it, event, then the job's fields
-- Returns the id and request hash under which the idempotency key is known.
local id = ARGV[1]
-- The client sends a command again when the connection broke before the answer came.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return id .. ' ' .. ARGV[3]
end
if ARGV[3] ~= '' then
  local known = redis.call('GET', KEYS[7])
  if known then
    return known
  end
  redis.call('SET', KEYS[7], id .. ' ' .. ARGV[3], 'EX', ARGV[4])
end
-- A higher priority goes first; within one, the earlier submission.
local rank = string.format('%.0f', redis.call('INCR', KEYS[4]) - tonumber(ARGV[2]) * 1e12)
local time = redis.call('TIME')
local now = time[1] .. string.format('%06d', time[2])
redis.call('HSET', KEYS[1], 'id', id, 'status', 'queued', 'created_at', now, 'attempt', 0,
  'queue', KEYS[2], 'rank', rank)
for i = 6, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('ZADD', KEYS[2], rank, id)
redis.call('ZADD', KEYS[3], 0, id)
redis.call('SADD', KEYS[6], KEYS[2])
redis.call('XADD', KEYS[5], '*', 'event', ARGV[5])
return id .. ' ' .. ARGV[3]
