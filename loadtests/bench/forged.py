"""A flood of forged F-codes: each request another member's, with a code that is well formed and that nobody made.

Two rows: with shipped defaults, where the one address that it comes from is soon at its limit, and through a second
web process that has no limit by address, which is what a flood from very many addresses costs. In both, the MAC is
computed before a code is refused. How often Redis is called meanwhile is what its own statistics tell. At the end
nobody may have got anything, and a member with a genuine code, at that very address, must be served.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import NamedTuple

import redis.asyncio as redis

from loadtests.bench import codes
from loadtests.bench.contest import Contestant, Members
from loadtests.bench.house import House, Plan, beside
from loadtests.bench.table import Failed, Row, Target, number
from loadtests.bench.tokenfile import Requests, write_fcode_presses
from loadtests.bench.wrk import Expected

UNITS = 1_000
SEED = 20_110_831
SCRIPT_CALLS = ("eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro")
NO_ADDRESS_LIMIT = {"FLASHSALE_FCODE_TRIES_ADDRESS_MAX": str(2**31 - 1)}
LIMITED = Expected(422, '"fcode_invalid"', (429, '"rate_limited"'))
INVALID = Expected(422, '"fcode_invalid"')


class Counted(NamedTuple):
    """What a Redis server has carried out so far: scripts, and all commands, those inside scripts included."""

    scripts: int
    commands: int


class Calls:
    """Counts what Redis is asked while the blocks of `watched` last, by whomever."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self.seconds = 0.0
        self.scripts = self.commands = 0

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Count what is asked during the block. `Failed` when the server does not say."""
        try:
            async with redis.from_url(self._redis_url) as client:
                before, began_at = await _counted(client), time.monotonic()
                yield
                self.seconds += time.monotonic() - began_at
                after = await _counted(client)
        except redis.RedisError as fault:
            raise Failed(f"Redis did not tell how often it was asked: {fault!r}") from None
        self.scripts += after.scripts - before.scripts
        self.commands += after.commands - before.commands - 1  # the counting itself

    @property
    def scripts_a_second(self) -> float:
        """How often a script was called: the service calls Redis with nothing else."""
        return self.scripts / self.seconds

    @property
    def commands_a_second(self) -> float:
        """All commands; what is asked without a script would show here."""
        return self.commands / self.seconds


async def _counted(client: redis.Redis) -> Counted:
    found = await client.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in found.items()}
    return Counted(sum(calls.get(name, 0) for name in SCRIPT_CALLS), sum(calls.values()))


@dataclass(frozen=True)
class Flood:
    """Forged presses on a drop whose units all wait for the holders of a batch, and what Redis is asked meanwhile."""

    house: House
    drop: str
    batch: str
    members: Members
    calls: Calls
    rest: Calls

    async def prepare(self, count: int) -> Requests:
        """So many members who have never pressed, each with another forged code."""
        members, path = self.members.take(count), self.house.folder / "requests.bin"
        forged = codes.forgeries(Random(SEED + members.start))
        return write_fcode_presses(path, self.house.minter, self.drop, members, forged)

    async def check(self, each: Contestant) -> None:
        """A genuine code is honoured, and nothing else was; else `Failed`. Notes what was counted."""
        [genuine] = codes.genuine(self.house.ring, self.batch, range(1))
        [holder] = self.members.take(1)
        status, body = await self.house.press(self.drop, holder, fcode=genuine)
        if status != 201:
            raise Failed(f"after {each.answered:,} forged codes, a genuine one was answered {status} {body}")
        if (taken := await self.house.settled(self.drop, 1)) != 1:
            raise Failed(f"one genuine code was spent among the forged ones, and {taken:,} units are taken")
        invalid = each.answered - each.second
        split = f"{invalid:,} of {each.answered:,} fcode_invalid, the others rate_limited; " if each.second else ""
        each.row.note = (
            f"{split}Redis calls a second: {number(self.calls.scripts_a_second)} "
            f"({number(self.rest.scripts_a_second)} at rest), with those inside scripts "
            f"{number(self.calls.commands_a_second)} ({number(self.rest.commands_a_second)})"
        )


async def _flood(house: House, drop: str, members: Members, rest: Calls) -> Flood:
    await house.create_drop(drop, UNITS, {"kind": "fcode"})
    batch = await house.api.mint_codes(drop, "all", UNITS)
    return Flood(house, drop, batch, members, Calls(house.at.redis_url or ""), rest)


def _contestant(flood: Flood, name: str, url: str, pids: Mapping[str, int], expected: Expected) -> Contestant:
    row = Row(name, "req/s", target=Target("at least", 0.8))
    each = Contestant(row, url, pids, expected, flood.prepare, watch=flood.calls.watched)
    each.check = partial(flood.check, each)
    return each


@contextlib.asynccontextmanager
async def contestants(plan: Plan, house: House, members: Members) -> AsyncIterator[dict[str, Contestant]]:
    """Both rows, until the block ends; to be opened when all else is running, for the figures at rest."""
    rest = Calls(house.at.redis_url or "")
    one, many = [await _flood(house, drop, members, rest) for drop in ("forged", "forged-everywhere")]
    async with beside(house, "no-address-limit", NO_ADDRESS_LIMIT) as (url, web_pid):
        pids = house.serving_pids
        found = {
            "forged": _contestant(one, "forged F-codes, from one address", house.at.url, pids, LIMITED),
            "forged, no limit": _contestant(
                many, "forged F-codes, no limit by address", url, {**pids, "web": web_pid}, INVALID
            ),
        }
        async with rest.watched():
            await asyncio.sleep(plan.size(2, 1))
        yield found
