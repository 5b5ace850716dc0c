-- How an attempt at a message ended. KEYS: job, webhooks
-- ARGV: id, attempt, status, error or '', pause in ms before the next attempt
-- Returns 0 when the message is another attempt's by now, or its job is gone, else 1.
if redis.call('HGET', KEYS[1], 'webhook_attempts') ~= ARGV[2]
    or redis.call('HGET', KEYS[1], 'webhook_status') ~= 'pending' then
  return 0
end
redis.call('HSET', KEYS[1], 'webhook_status', ARGV[3])
if ARGV[4] == '' then
  redis.call('HDEL', KEYS[1], 'webhook_error')
else
  redis.call('HSET', KEYS[1], 'webhook_error', ARGV[4])
end
if ARGV[3] == 'pending' then
  redis.call('ZADD', KEYS[2], milliseconds() + tonumber(ARGV[5]), ARGV[1])
else
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('HDEL', KEYS[1], 'webhook_secret')
end
return 1
