-- Puts jobs whose pause is over back into their queues. KEYS: delayed. ARGV: prefix of job keys
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ready = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 100)
for _, id in ipairs(ready) do
  redis.call('ZREM', KEYS[1], id)
  local place = redis.call('HMGET', ARGV[1] .. id, 'queue', 'rank')
  redis.call('HDEL', ARGV[1] .. id, 'waiting_for')
  if place[1] then
    redis.call('ZADD', place[1], place[2], id)
  end
end
return #ready
