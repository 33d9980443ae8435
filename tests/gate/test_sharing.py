"""What the processes tell each other: counts add up, notes live as long as they are renewed, and everything ends."""

import asyncio

import pytest
import redis.asyncio

from flashsale.gate import Gate, keys
from flashsale.gate import sharing as module
from tests.support import unique, until

TTL_MS = 60_000


async def test_counts_of_all_processes_add_up(gate: Gate, valkey: "redis.asyncio.Redis") -> None:
    """Whoever counts, and at the same time; a drop of another name has its own."""
    drop, other = unique("counted"), unique("counted")
    shared = gate.sharing
    assert (await shared.counts(drop)).counts == {}
    await asyncio.gather(*(shared.tally(drop, {"held": 2, "w:3": n}, {"sold_out": 5}, ttl_ms=TTL_MS) for n in range(8)))
    await shared.tally(other, {"held": 1}, {}, ttl_ms=TTL_MS)
    counted = await shared.counts(drop)
    assert counted.counts == {"held": 16, "w:3": 28}
    seconds, micros = await valkey.time()
    assert abs(counted.at_ms - (seconds * 1000 + micros // 1000)) < 10_000
    for key in keys.counted(drop):
        assert 0 < await valkey.pttl(key) <= TTL_MS


async def test_refusals_are_kept_by_the_second(gate: Gate) -> None:
    """Each in the row of the second in which it was told of; their sum is what was told."""
    drop = unique("refused")
    first = await gate.sharing.tally(drop, {}, {"sold_out": 3, "not_open": 1}, ttl_ms=TTL_MS)

    async def later() -> bool:
        at = await gate.sharing.tally(drop, {}, {}, ttl_ms=TTL_MS)
        return at // 1000 > first // 1000

    await until(later, "the next second")
    second = await gate.sharing.tally(drop, {}, {"sold_out": 4}, ttl_ms=TTL_MS)
    rows = (await gate.sharing.refused(drop)).counts
    assert rows == {f"{first // 1000} sold_out": 3, f"{first // 1000} not_open": 1, f"{second // 1000} sold_out": 4}


async def test_a_sale_without_end_is_counted_by_the_minute(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that its rows stay few."""
    monkeypatch.setattr(module, "ROWS_MAX", 2)
    drop = unique("refused")
    at = await gate.sharing.tally(drop, {}, {"a": 1, "b": 1}, ttl_ms=TTL_MS)
    late = await gate.sharing.tally(drop, {}, {"a": 7}, ttl_ms=TTL_MS)
    minute = late // 60_000 * 60
    assert (await gate.sharing.refused(drop)).counts == {
        f"{at // 1000} a": 1,
        f"{at // 1000} b": 1,
        f"m{minute} a": 7,
    }


async def test_a_note_lives_as_long_as_it_is_renewed(gate: Gate, valkey: "redis.asyncio.Redis") -> None:
    """Others read it; one that nobody renews is gone, the others stay; it can be taken away."""
    board = unique("board")
    shared = gate.sharing
    await shared.notice(board, "one", "1 of 2", lives_ms=TTL_MS)
    _, notes = await shared.notice(board, "two", "with spaces\nand lines", lives_ms=TTL_MS)
    assert notes == {"one": "1 of 2", "two": "with spaces\nand lines"}
    assert 0 < await valkey.pttl(keys.board(board)) <= TTL_MS
    await shared.notice(board, "one", lives_ms=TTL_MS)
    assert (await shared.notice(board, lives_ms=TTL_MS))[1] == {"two": "with spaces\nand lines"}

    async def silent_is_gone() -> bool:
        _, left = await shared.notice(board, "three", "here", lives_ms=300)
        assert left["three"] == "here"
        return left == {"three": "here"}

    await until(silent_is_gone, "a note that was not renewed is gone")
