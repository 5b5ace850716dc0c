-- Ends an attempt: the job is queued again after a pause, or fails when its attempts are used up.
-- KEYS: job, leases, events, delayed, causes, jobs, last look for leases that are over
-- ARGV: id, token, cause, attempts allowed, pause in ms, 'owner' or 'expired', blame,
--   lease in ms
-- 'owner' needs the lease; 'expired' needs it to be over, as expired.lua sees it. Only what is blamed
-- on the 'job' counts as an attempt; what may be a 'neighbour''s fault can happen once, since the job
-- runs alone from then on.
-- A job whose cancel is wanted is queued again only for what it learned: with checkpoints.
-- Returns the new status, or nothing.
local lease = redis.call('ZSCORE', KEYS[2], ARGV[1])
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] or not lease then
  return nil
end
local now = milliseconds()
local looked = redis.call('GET', KEYS[7]) or now
if ARGV[6] == 'expired' and (tonumber(lease) > now or now - looked > ARGV[8] / 2) then
  return nil
end
redis.call('ZREM', KEYS[2], ARGV[1])
local attempt = tonumber(redis.call('HGET', KEYS[1], 'attempt'))
local cause, counts = ARGV[3], ARGV[7] == 'job'
if ARGV[7] == 'neighbour' then
  counts = redis.call('HSETNX', KEYS[1], 'alone', 1) == 0
  if not counts then
    cause = cause .. ' (beside other jobs: this does not count, and it runs alone from now on)'
  end
end
cause = 'attempt ' .. attempt .. ': ' .. cause
-- A cause that is nobody's fault may repeat for hours; it is written once.
if ARGV[7] ~= 'nobody' or redis.call('LINDEX', KEYS[5], -1) ~= cause then
  redis.call('RPUSH', KEYS[5], cause)
end
if not counts then
  attempt = redis.call('HINCRBY', KEYS[1], 'attempt', -1)
end
local event = {type = 'status', attempt = attempt}
local used_up = attempt >= tonumber(ARGV[4])
if redis.call('HEXISTS', KEYS[1], 'cancel') == 1
    and (used_up or redis.call('HEXISTS', KEYS[1], 'checkpoints') == 0) then
  event.status = 'cancelled'
elseif used_up then
  event.status = 'failed'
  event.error = table.concat(redis.call('LRANGE', KEYS[5], 0, -1), '\n')
  redis.call('HSET', KEYS[1], 'error', event.error)
else
  event.status = 'queued'
  event.waiting_for = 'the next attempt; the last one ended: ' .. ARGV[3]
  redis.call('ZADD', KEYS[4], now + tonumber(ARGV[5]), ARGV[1])
end
set_status(KEYS[6], KEYS[1], ARGV[1], event.status)
if event.status == 'queued' then
  redis.call('HSET', KEYS[1], 'waiting_for', event.waiting_for)
end
redis.call('XADD', KEYS[3], '*', 'event', cjson.encode(event))
return event.status
