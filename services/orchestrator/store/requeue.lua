-- Ends an attempt: the job is queued again after a pause, or fails when its attempts are used up.
-- KEYS: job, leases, events, delayed, causes, jobs, last look for leases that are over
-- ARGV: id, token, cause, attempts allowed, pause in ms, 'owner' or 'expired', blame,
--   lease in ms, device to blame or ''
-- 'owner' needs the lease; 'expired' needs it to be over, as expired.lua sees it. Only the blame 'job'
-- counts as an attempt. What may be a 'neighbour''s fault can happen once, since the job runs alone
-- from then on. What may be a 'device''s fault does not count either, and the job is left to another
-- device; the second time in a row without a newer checkpoint, the job fails.
-- 'spent' counts the attempts in a row without a newer checkpoint, and 'reached' is the step of the
-- newest checkpoint. The pause doubles with each of these attempts.
-- A job that was cancelled is queued again only if it has checkpoints, to export what it learned.
-- Returns the new status, or nothing.
local function got_further(job)
  local checkpoints = cjson.decode(redis.call('HGET', job, 'checkpoints') or '[]')
  local newest = checkpoints[1] and checkpoints[1].step or 0
  if newest <= tonumber(redis.call('HGET', job, 'reached') or 0) then
    return false
  end
  redis.call('HSET', job, 'reached', newest)
  return true
end

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
local progress = got_further(KEYS[1])
if progress then
  redis.call('HDEL', KEYS[1], 'failed_on')
end
local cause, counts = ARGV[3], ARGV[7] == 'job'
if ARGV[7] == 'neighbour' then
  counts = redis.call('HSETNX', KEYS[1], 'alone', 1) == 0
  if not counts then
    cause = cause .. ' (beside other jobs: this does not count, and it runs alone from now on)'
  end
end
local failed_on = {}
if ARGV[7] == 'device' then
  failed_on = cjson.decode(redis.call('HGET', KEYS[1], 'failed_on') or '[]')
  table.insert(failed_on, ARGV[9])
  redis.call('HSET', KEYS[1], 'failed_on', cjson.encode(failed_on))
  if #failed_on == 1 then
    cause = cause .. ' (on the device ' .. ARGV[9]
      .. ': this does not count, and another device is to do it if there is one)'
  else
    cause = cause .. ' (on the device ' .. ARGV[9] .. ', after ' .. failed_on[1] .. ')'
  end
end
cause = 'attempt ' .. attempt .. ': ' .. cause
-- Workers may be too old for a job for hours, so that cause is written once.
if ARGV[7] ~= 'old worker' or redis.call('LINDEX', KEYS[5], -1) ~= cause then
  redis.call('RPUSH', KEYS[5], cause)
end
if not counts then
  attempt = redis.call('HINCRBY', KEYS[1], 'attempt', -1)
end
local spent = tonumber(redis.call('HGET', KEYS[1], 'spent') or 0)
if progress then
  spent = 0
elseif counts then
  spent = spent + 1
end
redis.call('HSET', KEYS[1], 'spent', spent)
local event = {type = 'status', attempt = attempt}
local used_up = spent >= tonumber(ARGV[4]) or #failed_on > 1
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
  redis.call('ZADD', KEYS[4], now + ARGV[5] * 2 ^ math.max(spent - 1, 0), ARGV[1])
end
set_status(KEYS[6], KEYS[1], ARGV[1], event.status)
if event.status == 'queued' then
  redis.call('HSET', KEYS[1], 'waiting_for', event.waiting_for)
end
redis.call('XADD', KEYS[3], '*', 'event', cjson.encode(event))
return event.status
