-- All records at one moment. KEYS: jobs. ARGV: pattern of all keys, prefix of job keys,
--   then names, or beginnings of names, that are left out: they are only about live processes
-- Returns for each key: name, milliseconds that it has left or -1, DUMP, and what it says about files:
-- '<path> <description>' of each artifact; of a job, its status and its list of checkpoints.
local function is_left_out(name)
  for i = 3, #ARGV do
    if string.sub(name, 1, #ARGV[i]) == ARGV[i] then
      return true
    end
  end
  return false
end

local function said(name)
  if string.sub(name, 1, #ARGV[2]) ~= ARGV[2] then
    return {}
  end
  local rest = string.sub(name, #ARGV[2] + 1)
  if string.match(rest, ':artifacts$') then
    return redis.call('HVALS', name)
  end
  if string.find(rest, ':', 1, true) then
    return {}
  end
  return {redis.call('HGET', name, 'status') or '', redis.call('HGET', name, 'checkpoints') or ''}
end

local found = {}
for _, name in ipairs(redis.call('KEYS', ARGV[1])) do
  if not is_left_out(name) then
    table.insert(found, {name, redis.call('PTTL', name), redis.call('DUMP', name), said(name)})
  end
end
return found
