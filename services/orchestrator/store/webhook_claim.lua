-- Takes the message that is due first under a lease. KEYS: webhooks. ARGV: prefix of job keys,
-- lease in ms. Returns {id, attempt, url, secret}, or nothing when none is due.
local now = milliseconds()
local id = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 1)[1]
if not id then
  return nil
end
-- While the lease lasts, the message is not due.
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), id)
local job = ARGV[1] .. id
local attempt = redis.call('HINCRBY', job, 'webhook_attempts', 1)
local hook = redis.call('HMGET', job, 'webhook_url', 'webhook_secret')
return {id, attempt, hook[1], hook[2]}
