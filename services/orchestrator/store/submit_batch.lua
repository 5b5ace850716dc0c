-- Stores a batch and queues all its jobs, or nothing: once for each idempotency key and within its
-- owner's quota. What a script writes goes to the append-only file as one transaction, so that a
-- Redis that dies meanwhile comes back with the whole batch or without any of it.
-- KEYS: batch, jobs, sequence, queues, idempotency, API key of the owner
-- ARGV: id, priority, hash of the request or '', seconds to remember it, event, owner, name or '',
--   prefix of job keys, how many jobs, their work in thousandths; then for each job: id, queue,
--   how many items, the items: its fields in pairs
-- Returns the id and request hash under which the idempotency key is known,
-- or what quota_exceeded returns.
local id, digest, owner, size = ARGV[1], ARGV[3], ARGV[6], tonumber(ARGV[9])
-- The client sends a command again when the connection broke before the answer came.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return id .. ' ' .. digest
end
local known = digest ~= '' and redis.call('GET', KEYS[5])
if known then
  return known
end
local place = {prefix = ARGV[8], jobs = KEYS[2], sequence = KEYS[3], queues = KEYS[4]}
local exceeded = quota_exceeded(place, KEYS[6], owner, size, ARGV[10])
if exceeded then
  return exceeded
end
if digest ~= '' then
  redis.call('SET', KEYS[5], id .. ' ' .. digest, 'EX', ARGV[4])
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'id', id, 'key', owner, 'name', ARGV[7], 'size', size, 'work', ARGV[10],
  'created_at', time[1] .. string.format('%06d', time[2]),
  'idempotency', digest ~= '' and KEYS[5] or '')
local at = 11
for _ = 1, size do
  local items = tonumber(ARGV[at + 2])
  enqueue(place, {id = ARGV[at], queue = ARGV[at + 1], priority = tonumber(ARGV[2]),
    owner = owner, event = ARGV[5], batch = id}, at + 3, at + 2 + items)
  at = at + 3 + items
end
return id .. ' ' .. digest
