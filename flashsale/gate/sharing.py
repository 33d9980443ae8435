"""What the processes tell each other through Redis beside what they decide: counts of a drop, and notes on boards.

Nothing of it decides anything, and losing it loses a figure on an operator's page. Counts are sums of all processes of
all machines; what a process had counted in its last second when it died, or while Redis was away, is missing.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from flashsale.gate import keys
from flashsale.gate.calling import Caller

ROWS_MAX: Final = 10_000
"""Rows of refusals by the second: an hour and a half with two words; a longer sale is counted by the minute then."""

_pack: Final = msgspec.msgpack.Encoder().encode


class Counted(msgspec.Struct, frozen=True):
    """What all processes have counted, as of `at_ms` by the gate's clock."""

    at_ms: int
    counts: dict[str, int]


class Sharing(Caller):
    """Through the gate's own client."""

    async def tally(self, drop_id: str, more: Mapping[str, int], refused: Mapping[str, int], *, ttl_ms: int) -> int:
        """Add to everybody's counts of a drop; the gate's time, ms. Not to be repeated: it would count twice."""
        reply = await self._run("tally", keys.counted(drop_id), _pack(more), _pack(refused), ttl_ms, ROWS_MAX)
        assert isinstance(reply, int)
        return reply

    async def counts(self, drop_id: str) -> Counted:
        """Everybody's counts of a drop."""
        return await self._counted(keys.counted(drop_id)[0])

    async def refused(self, drop_id: str) -> Counted:
        """By `second word` (Unix time), or `mminute word` where there were too many seconds, how many were refused."""
        return await self._counted(keys.counted(drop_id)[1])

    async def _counted(self, key: str) -> Counted:
        reply = await self._run("counts", (key,))
        assert isinstance(reply, list)
        return Counted(reply[0], {f.decode(): int(n) for f, n in zip(reply[1::2], reply[2::2], strict=True)})

    async def notice(self, board: str, name: str = "", text: str = "", *, lives_ms: int) -> tuple[int, dict[str, str]]:
        """Put a note on a board, renew it, or take it away; the gate's time, ms, and all notes that live, by name."""
        reply = await self._run("notice", (keys.board(board),), name, text, lives_ms)
        assert isinstance(reply, list)
        notes = zip(reply[1::2], reply[2::2], strict=True)
        return reply[0], {found.decode(): said.decode() for found, said in notes}
