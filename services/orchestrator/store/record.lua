-- What the lease's owner has to say: an event, fields of the job, an artifact.
-- KEYS: job, leases, events, artifacts, causes
-- ARGV: id, token, events kept, event or '', artifact name or '', artifact, cause or '',
--   id of this write, then fields
-- A field with an empty value is removed. Returns as renew.lua does.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] or not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  return 0
end
-- The client sends a command again when the connection broke before the answer came. An owner
-- writes one thing after another.
if redis.call('HGET', KEYS[1], 'write') == ARGV[8] then
  return redis.call('HEXISTS', KEYS[1], 'cancel') + 1
end
redis.call('HSET', KEYS[1], 'write', ARGV[8])
for i = 9, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[i])
  else
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[4], ARGV[5], ARGV[6])
end
if ARGV[7] ~= '' then
  redis.call('RPUSH', KEYS[5],
    'attempt ' .. redis.call('HGET', KEYS[1], 'attempt') .. ': ' .. ARGV[7])
end
if ARGV[4] ~= '' then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], '*', 'event', ARGV[4])
end
return redis.call('HEXISTS', KEYS[1], 'cancel') + 1
