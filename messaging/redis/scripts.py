"""What must happen all at once or not at all, as Lua which the server runs. Redis 7.0 or newer.

An entry leaves a stream (XDEL) in the same breath in which it is acknowledged (XACK). Trimming up to the oldest
unacknowledged entry instead would keep everything behind one slow handler; deleted this way, the server frees each
block of a hundred entries as its last one goes, and nothing unacknowledged is ever in reach.
"""

from __future__ import annotations

from typing import Final

from messaging.redis.lua import Script

# KEYS bindings or '', streams; ARGV version of the bindings, handling key or '', its life in ms, fields.
# Returns how many streams took the message, or -1 when the bindings are not those the streams were chosen by.
PUBLISH: Final = Script.of("""
if KEYS[1] ~= '' and (redis.call('HGET', KEYS[1], 'version') or '') ~= ARGV[1] then return -1 end
local fields, targets = {}, {}
for i = 4, #ARGV do fields[#fields + 1] = ARGV[i] end
for i = 2, #KEYS do
  if is_stream(KEYS[i]) then targets[#targets + 1] = KEYS[i] end
end
if ARGV[2] ~= '' and #targets > 0 then
  fields[#fields + 1] = 'handling'
  fields[#fields + 1] = ARGV[2]
  redis.call('SET', ARGV[2], #targets, 'PX', ARGV[3])
end
for _, stream in ipairs(targets) do redis.call('XADD', stream, '*', unpack(fields)) end
return #targets
""")

# KEYS stream, about, dead, bindings...; ARGV owner, limit, expiry in ms or '', new version,
# then for each binding its kind and its field. Returns what is otherwise: {what, key, how}, or {}.
DECLARE: Final = Script.of("""
local owner = redis.call('HGET', KEYS[2], 'owner')
if ARGV[1] ~= '' and owner and owner ~= '' and owner ~= ARGV[1] then return {'owner', KEYS[1], owner} end
for i = 4, #KEYS do
  local kind = redis.call('HGET', KEYS[i], 'kind')
  if kind and kind ~= ARGV[2 * i - 3] then return {'kind', KEYS[i], kind} end
end
for _, key in ipairs({KEYS[1], KEYS[3]}) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'none' and kind ~= 'stream' then return {'type', key, kind} end
end
local failed = make_group(KEYS[1])
if failed then return failed end
if ARGV[1] ~= '' then redis.call('HSET', KEYS[2], 'owner', ARGV[1]) end
redis.call('HSET', KEYS[2], 'limit', ARGV[2])
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[2], 'expires', ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
else
  redis.call('HDEL', KEYS[2], 'expires')
  redis.call('PERSIST', KEYS[1])
  redis.call('PERSIST', KEYS[2])
  failed = make_group(KEYS[3])
  if failed then return failed end
end
for i = 4, #KEYS do
  redis.call('HSET', KEYS[i], 'kind', ARGV[2 * i - 3])
  if redis.call('HSETNX', KEYS[i], ARGV[2 * i - 2], '') == 1 then
    redis.call('HSET', KEYS[i], 'version', ARGV[4])
  end
end
return {}
""")

# KEYS bindings, streams; ARGV kind, version, fields. Puts back what a server has forgotten, if it still has.
REMEMBER: Final = Script.of("""
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'kind', ARGV[1], 'version', ARGV[2])
for i = 3, #ARGV do redis.call('HSET', KEYS[1], ARGV[i], '') end
for i = 2, #KEYS do make_group(KEYS[i]) end
return 1
""")

# KEYS stream, alive; ARGV me, who I was or ''. Returns whether there is such a queue.
JOIN: Final = Script.of("""
if not is_stream(KEYS[1]) then return 0 end
local failed = make_group(KEYS[1])
if failed then return failed end
if ARGV[2] ~= '' then depart(KEYS[1], KEYS[2], ARGV[2]) end
redis.call('XGROUP', 'CREATECONSUMER', KEYS[1], KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[2], now_ms(), ARGV[1])
return 1
""")

# KEYS stream, about, alive, delayed; ARGV me, how many delayed at most.
# Returns {whether I count as alive, ms until the next delayed message or -1}.
KEEP: Final = Script.of("""
local now = now_ms()
local heard = tonumber(redis.call('ZSCORE', KEYS[3], ARGV[1]) or 0)
if heard == 0 or not is_stream(KEYS[1]) then return {0, -1} end
redis.call('XPENDING', KEYS[1], KEYS[1]) -- fails when the group is gone, which nobody who has no room would notice
redis.call('ZADD', KEYS[3], now, ARGV[1])
for _, message in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, ARGV[2])) do
  redis.call('XADD', KEYS[1], '*', unpack(cmsgpack.unpack(message)))
  redis.call('ZREM', KEYS[4], message)
end
local expires = redis.call('HGET', KEYS[2], 'expires')
if expires then
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, expires) end
end
local nearest = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
return {1, nearest[2] and math.max(0, math.ceil(nearest[2] - now)) or -1}
""")

# KEYS stream, about, alive, dead; ARGV me, ms after which the silent are dead, how many at most, now in ISO 8601.
# Takes over what the dead have left. Returns {id, delivery count, fields} of each.
CLAIM: Final = Script.of("""
local limit = tonumber(redis.call('HGET', KEYS[2], 'limit') or '')
local room, claimed = tonumber(ARGV[3]), {}
for _, consumer in ipairs(gone(KEYS[1], KEYS[3], ARGV[1], tonumber(ARGV[2]))) do
  while #claimed < room do
    local pending = redis.call('XPENDING', KEYS[1], KEYS[1], '-', '+', room - #claimed, consumer[1])
    if #pending == 0 then
      depart(KEYS[1], KEYS[3], consumer[1])
      break
    end
    for _, entry in ipairs(pending) do
      local moved = redis.call('XCLAIM', KEYS[1], KEYS[1], ARGV[1], 0, entry[1])[1]
      if moved and limit and entry[4] > limit then
        local detail = 'came back ' .. entry[4] .. ' times'
        local handling = bury(KEYS[1], KEYS[4], moved[2], 'delivery-limit', detail, ARGV[4], entry[4])
        settle(KEYS[1], entry[1], handling)
      elseif moved then
        claimed[#claimed + 1] = {entry[1], entry[4] + 1, moved[2]}
      end
    end
  end
end
return claimed
""")

# KEYS stream; ARGV id and handling key of each. Returns how many were still to be settled.
ACK: Final = Script.of("""
local count = 0
for i = 1, #ARGV, 2 do count = count + settle(KEYS[1], ARGV[i], ARGV[i + 1]) end
return count
""")

# KEYS stream, delayed; ARGV me, id, next attempt, delay in ms, fields of a part. Returns whether it was in hand.
PUT_OFF: Final = Script.of("""
local fields, is_part = meant(KEYS[1], ARGV[1], ARGV[2], 5)
if not fields then return 0 end
local message = without(fields, {attempt = true, ['put-off'] = true})
message[#message + 1] = 'attempt'
message[#message + 1] = ARGV[3]
local delay = tonumber(ARGV[4])
if delay > 0 then
  -- The id, and of a part its number, tell equal messages apart.
  message[#message + 1] = 'put-off'
  message[#message + 1] = ARGV[2] .. (is_part and value_of(fields, 'put-off') or '')
  redis.call('ZADD', KEYS[2], now_ms() + delay, cmsgpack.pack(message))
  inherit_expiry(KEYS[1], KEYS[2])
else
  redis.call('XADD', KEYS[1], '*', unpack(message))
end
if not is_part then settle(KEYS[1], ARGV[2], '') end
return 1
""")

# KEYS stream, dead; ARGV me, id, reason, detail, now in ISO 8601, fields of a part. Returns whether it was in hand.
BURY: Final = Script.of("""
local fields, is_part = meant(KEYS[1], ARGV[1], ARGV[2], 6)
if not fields then return 0 end
local handling = bury(KEYS[1], KEYS[2], fields, ARGV[3], ARGV[4], ARGV[5], 1)
if not is_part then settle(KEYS[1], ARGV[2], handling) end
return 1
""")

# KEYS dead, stream; ARGV id. Moves a dead letter to its queue as a first attempt, without the notes.
# Returns whether it was there still, or -1 when there is no such queue.
REPLAY: Final = Script.of("""
if not is_stream(KEYS[2]) then return -1 end
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if not found[1] then return 0 end
local message = without(found[1][2], NOTES)
redis.call('XADD', KEYS[2], '*', unpack(message))
redis.call('XACK', KEYS[1], KEYS[1], ARGV[1])
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
""")

# KEYS dead; ARGV id. Deletes a dead letter, in somebody's hands or not. Returns whether it was there still.
REMOVE: Final = Script.of("""
redis.call('XACK', KEYS[1], KEYS[1], ARGV[1])
return redis.call('XDEL', KEYS[1], ARGV[1])
""")

# KEYS stream, alive; ARGV me, nobody, ids that I keep. Gives back the rest, as if it had not been delivered.
GIVE_BACK: Final = Script.of("""
local kept = {}
for i = 3, #ARGV do kept[ARGV[i]] = true end
local start = '-'
while true do
  local pending = redis.call('XPENDING', KEYS[1], KEYS[1], start, '+', 500, ARGV[1])
  if #pending == 0 then break end
  for _, entry in ipairs(pending) do
    if not kept[entry[1]] then
      redis.call('ZADD', KEYS[2], 0, ARGV[2])
      redis.call('XCLAIM', KEYS[1], KEYS[1], ARGV[2], 0, entry[1], 'RETRYCOUNT', entry[4] - 1, 'JUSTID')
    end
  end
  start = '(' .. pending[#pending][1]
end
if #ARGV == 2 then depart(KEYS[1], KEYS[2], ARGV[1]) end
""")

# KEYS stream, alive; ARGV me. All that I have is anybody's.
DEPART: Final = Script.of("""
if is_stream(KEYS[1]) then depart(KEYS[1], KEYS[2], ARGV[1]) end
""")

# KEYS stream, alive; ARGV ms after which the silent are dead.
# Returns how many entries are in nobody's hands and how many consumers are left; nothing where there is no such queue.
STATE: Final = Script.of("""
if not is_stream(KEYS[1]) then return {} end
local count = redis.call('XLEN', KEYS[1]) - redis.call('XPENDING', KEYS[1], KEYS[1])[1]
local dead = gone(KEYS[1], KEYS[2], '', tonumber(ARGV[1]))
for _, consumer in ipairs(dead) do count = count + consumer[2] end
return {count, #redis.call('XINFO', 'CONSUMERS', KEYS[1], KEYS[1]) - #dead}
""")
