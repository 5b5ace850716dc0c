-- Who tells what is true of the whole service: the first that asks, until it is silent for long.
-- KEYS: reporter. ARGV: who asks, for how long in ms; 0 to leave it to others. Returns 1 if it is it.
local reporter = redis.call('GET', KEYS[1])
if reporter and reporter ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
