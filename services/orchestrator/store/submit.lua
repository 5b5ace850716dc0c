-- Stores a job and queues it, once for each idempotency key and within its owner's quota.
-- KEYS: job, queue, jobs, sequence, events, queues, idempotency, API key of the owner
-- ARGV: id, priority, hash of the request or '', seconds to remember it, event, owner,
--   work in thousandths, then the job's fields
-- Returns the id and request hash under which the idempotency key is known,
-- or what quota_exceeded returns.
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
local place = {prefix = string.sub(KEYS[1], 1, -1 - #id), jobs = KEYS[3], sequence = KEYS[4],
  queues = KEYS[6]}
local exceeded = quota_exceeded(place, KEYS[8], ARGV[6], 1, ARGV[7])
if exceeded then
  return exceeded
end
if ARGV[3] ~= '' then
  redis.call('SET', KEYS[7], id .. ' ' .. ARGV[3], 'EX', ARGV[4])
end
enqueue(place, {id = id, queue = KEYS[2], priority = tonumber(ARGV[2]), owner = ARGV[6],
  event = ARGV[5], idempotency = ARGV[3] ~= '' and KEYS[7] or ''}, 8, #ARGV)
return id .. ' ' .. ARGV[3]
