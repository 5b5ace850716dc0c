-- Deletes everything that Redis knows of an ended job. Its files are to be deleted from then on.
-- KEYS: job, events, artifacts, causes, jobs, deleted. ARGV: id
-- Returns the job's status before; nothing is deleted unless that is a final one.
local status = redis.call('HGET', KEYS[1], 'status')
if not status or not FINAL[status] then
  return status
end
local jobs, id, owned = KEYS[5], ARGV[1], KEYS[5] .. ':owner:' .. owner_of(KEYS[1])
for _, index in ipairs({jobs, owned, jobs .. ':status:' .. status, owned .. ':status:' .. status,
    jobs .. ':finished', jobs .. ':finished:events', jobs .. ':webhooks'}) do
  redis.call('ZREM', index, id)
end
local idempotency = redis.call('HGET', KEYS[1], 'idempotency')
-- A key that was forgotten may stand for another job by now.
if idempotency and idempotency ~= '' then
  local known = redis.call('GET', idempotency)
  if known and string.sub(known, 1, #id) == id then
    redis.call('DEL', idempotency)
  end
end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
redis.call('SADD', KEYS[6], id)
return status
