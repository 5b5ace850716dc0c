-- Deletes everything that Redis knows of an ended job. Its files are to be deleted from then on.
-- KEYS: job, events, artifacts, causes, jobs, deleted. ARGV: id
-- Returns the job's status before; nothing is deleted unless that is a final one.
local status = redis.call('HGET', KEYS[1], 'status')
if not status or not FINAL[status] then
  return status
end
local jobs, id = KEYS[5], ARGV[1]
for _, index in ipairs(indexes_of(jobs, KEYS[1])) do
  redis.call('ZREM', index, id)
  redis.call('ZREM', index .. ':status:' .. status, id)
end
for _, index in ipairs({':finished', ':finished:events', ':webhooks'}) do
  redis.call('ZREM', jobs .. index, id)
end
-- What a record's idempotency key stood for is gone. One that was forgotten may stand for another.
local function forget_key(record, whose)
  local idempotency = redis.call('HGET', record, 'idempotency')
  if idempotency and idempotency ~= '' then
    local known = redis.call('GET', idempotency)
    if known and string.sub(known, 1, #whose) == whose then
      redis.call('DEL', idempotency)
    end
  end
end
forget_key(KEYS[1], id)
-- A batch goes with the last of its jobs.
local batch = redis.call('HGET', KEYS[1], 'batch')
if batch and redis.call('EXISTS', batch_index(jobs, batch)) == 0 then
  local record = batch_index(jobs, batch) .. ':record'
  forget_key(record, batch)
  redis.call('DEL', record)
end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
redis.call('SADD', KEYS[6], id)
return status
