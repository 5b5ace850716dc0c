-- Claims whose lease is over. KEYS: leases, last look. ARGV: lease in ms, prefix of job keys
-- Returns {id, token, owner} of each. When nobody looked for half a lease, Redis may have been away,
-- and live owners with it: nothing is over then, and all have a whole lease to renew theirs in.
local now = milliseconds()
local looked = redis.call('GET', KEYS[2])
redis.call('SET', KEYS[2], now)
if looked and now - looked > ARGV[1] / 2 then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    redis.call('ZADD', KEYS[1], 'GT', now + ARGV[1], id)
  end
  return {}
end
local over = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  local claim = redis.call('HMGET', ARGV[2] .. id, 'token', 'owner')
  if claim[1] then
    table.insert(over, {id, claim[1], claim[2]})
  end
end
return over
