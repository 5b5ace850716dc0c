-- Stores a job and queues it, once for each idempotency key and within its owner's quota.
-- KEYS: job, queue, jobs, sequence, events, queues, idempotency, API key of the owner
-- ARGV: id, priority, hash of the request or '', seconds to remember it, event, owner,
--   then the job's fields
-- Returns the id and request hash under which the idempotency key is known,
-- or 'queued' and the quota of queued jobs that is used up.
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
end
local limit = redis.call('HGET', KEYS[8], 'queued')
local owned = KEYS[3] .. ':owner:' .. ARGV[6]
if limit and redis.call('ZCARD', owned .. ':status:queued') >= tonumber(limit) then
  return 'queued ' .. limit
end
if ARGV[3] ~= '' then
  redis.call('SET', KEYS[7], id .. ' ' .. ARGV[3], 'EX', ARGV[4])
end
-- A higher priority goes first; within one, the earlier submission.
local rank = string.format('%.0f', redis.call('INCR', KEYS[4]) - tonumber(ARGV[2]) * 1e12)
local time = redis.call('TIME')
local now = time[1] .. string.format('%06d', time[2])
redis.call('HSET', KEYS[1], 'id', id, 'key', ARGV[6], 'created_at', now, 'attempt', 0,
  'queue', KEYS[2], 'rank', rank, 'idempotency', ARGV[3] ~= '' and KEYS[7] or '')
for i = 7, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('ZADD', KEYS[2], rank, id)
redis.call('ZADD', KEYS[3], 0, id)
redis.call('ZADD', owned, 0, id)
set_status(KEYS[3], KEYS[1], id, 'queued')
local seconds = redis.call('HGET', KEYS[1], 'deadline')
if seconds then
  redis.call('ZADD', KEYS[3] .. ':deadlines', milliseconds() + seconds * 1000, id)
end
redis.call('SADD', KEYS[6], KEYS[2])
redis.call('XADD', KEYS[5], '*', 'event', ARGV[5])
return id .. ' ' .. ARGV[3]
