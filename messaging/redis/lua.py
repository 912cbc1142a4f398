"""Scripts in Lua that the server keeps and runs, and the functions that all of them share.

A consumer is dead when it has said so (score 0 among the living) or was not heard of for too long; one that never
registers, such as a client in another language, is judged by the idle time that the server itself keeps of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any, Final

from redis.exceptions import NoScriptError, ResponseError

from messaging.redis.server import Client, Command, Word

_COMMON: Final = """
local MOST_VALUES = 2000

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function is_stream(key)
  return redis.call('TYPE', key).ok == 'stream'
end

local function make_group(stream)
  local made = redis.pcall('XGROUP', 'CREATE', stream, stream, '0', 'MKSTREAM')
  if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
end

local function inherit_expiry(from, key)
  local left = redis.call('PTTL', from)
  if left > 0 then redis.call('PEXPIRE', key, left) end
end

-- What was asked to be told of its handling has one copy less to wait for.
local function handled(key)
  if key and key ~= '' and redis.call('EXISTS', key) == 1 then redis.call('DECR', key) end
end

local function settle(stream, id, handling)
  if redis.call('XACK', stream, stream, id) == 0 then return 0 end
  redis.call('XDEL', stream, id)
  handled(handling)
  return 1
end

-- The fields of an entry that this consumer has in hand.
local function in_hand(stream, consumer, id)
  if #redis.call('XPENDING', stream, stream, id, id, 1, consumer) == 0 then return nil end
  local found = redis.call('XRANGE', stream, id, id)
  return found[1] and found[1][2]
end

-- The same, or of a part of it the fields that came as arguments from the nth on; and whether it is a part.
local function meant(stream, consumer, id, n)
  local fields = in_hand(stream, consumer, id)
  if not fields or #ARGV < n then return fields, false end
  return {unpack(ARGV, n)}, true
end

-- The fields but for some, and the one that tells whom to count down.
local function without(fields, names)
  local kept, handling = {}, ''
  for i = 1, math.min(#fields, MOST_VALUES), 2 do
    if fields[i] == 'handling' then handling = fields[i + 1] end
    if not names[fields[i]] then
      kept[#kept + 1] = fields[i]
      kept[#kept + 1] = fields[i + 1]
    end
  end
  if #fields > MOST_VALUES then
    kept[#kept + 1] = 'lost-fields'
    kept[#kept + 1] = (#fields - MOST_VALUES) / 2
  end
  return kept, handling
end

local function value_of(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
end

local NOTES = {['dead-letter-reason'] = true, ['dead-letter-detail'] = true, ['dead-letter-time'] = true,
  ['dead-letter-attempts'] = true, ['dead-letter-queue'] = true, ['dead-letter-exchange'] = true,
  ['dead-letter-routing-key'] = true, attempt = true, handling = true}

-- Leaves the entry itself as it is; returns whom to count down when that is settled.
local function bury(stream, dead, fields, reason, detail, time, deliveries)
  local letter, handling = without(fields, NOTES)
  local put_off = (tonumber(value_of(fields, 'attempt') or '') or 1) - 1
  for _, word in ipairs({'dead-letter-reason', reason, 'dead-letter-detail', detail, 'dead-letter-time', time,
      'dead-letter-attempts', put_off + deliveries, 'dead-letter-queue', stream,
      'dead-letter-exchange', value_of(fields, 'exchange') or '',
      'dead-letter-routing-key', value_of(fields, 'routing-key') or stream}) do
    letter[#letter + 1] = word
  end
  redis.call('XADD', dead, '*', unpack(letter))
  inherit_expiry(stream, dead)
  return handling
end

-- The consumers that are no more, with how many deliveries each left behind.
local function gone(stream, alive, me, dead_after)
  local since, found = now_ms() - dead_after, {}
  for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', stream, stream)) do
    local about = {}
    for i = 1, #info, 2 do about[info[i]] = info[i + 1] end
    local heard = redis.call('ZSCORE', alive, about.name)
    local dead
    if heard then dead = tonumber(heard) < since else dead = about.idle > dead_after end
    if dead and about.name ~= me then found[#found + 1] = {about.name, about.pending} end
  end
  return found
end

local function depart(stream, alive, consumer)
  if #redis.call('XPENDING', stream, stream, '-', '+', 1, consumer) > 0 then
    redis.call('ZADD', alive, 0, consumer)
  else
    redis.call('XGROUP', 'DELCONSUMER', stream, stream, consumer)
    redis.call('ZREM', alive, consumer)
  end
end
"""


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the name under which the server keeps it."""

    source: bytes
    sha: str

    @classmethod
    def of(cls, body: str) -> Script:
        """The script with the functions that all share."""
        source = (_COMMON + body).encode()
        return cls(source, sha1(source, usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True)
class Call:
    """A script with what it works on."""

    script: Script
    keys: Sequence[str]
    arguments: Sequence[Word] = field(default=())

    def command(self) -> Command:
        """The command that runs it."""
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.arguments)


async def run(client: Client, script: Script, keys: Sequence[str], *arguments: Word) -> Any:
    """Run a script and return its raw answer.

    Raises:
        NotSent: there is no connection.
        RedisError: the server refuses, or the connection was lost after sending.
    """
    (answer,) = await run_all(client, [Call(script, keys, arguments)])
    if isinstance(answer, ResponseError):
        raise answer
    return answer


async def run_all(client: Client, calls: Sequence[Call]) -> list[Any]:
    """Run scripts one after the other in one go and return their raw answers, a refusal as the error it is.

    Raises:
        NotSent: there is no connection.
        RedisError: the connection was lost after sending: each may have run.
    """
    answers = await client.commands([call.command() for call in calls])
    unknown = [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
    if unknown:
        # A server that was started again has forgotten them.
        sources = {calls[index].script.sha: calls[index].script.source for index in unknown}
        loads: list[Command] = [("SCRIPT", "LOAD", source) for source in sources.values()]
        again = await client.commands([*loads, *(calls[index].command() for index in unknown)])
        for index, answer in zip(unknown, again[len(loads) :], strict=True):
            answers[index] = answer
    return answers
