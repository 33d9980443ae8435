"""The live stream: what it shows, how old it is, how large, how many may look, and that it ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession, web

from flashsale import embedded
from flashsale.gate.sharing import Counted
from flashsale.settings import Settings
from flashsale.shares import WAITS_MS, Shares, quantile_ms, wait_field, waits_of
from flashsale.web.app import Runner, make_runner
from flashsale.web.console_frames import FRAME_MAX_BYTES, Frame, GateAllocation, GateFigures, Rates, event_of
from tests.support import PATIENT, TIMEOUT_S, unique, until
from tests.web.calls import Json, allocation_body, assert_refused, at, call, drop_body
from tests.web.conftest import FCODE_KEY, SECRET, Token


@pytest.fixture(scope="session")
def ops(token: Token) -> dict[str, str]:
    """An operator's headers."""
    return token(902, role="ops")


@contextlib.asynccontextmanager
async def another(urls: embedded.Servers, **more: Any) -> AsyncIterator[ClientSession]:  # noqa: ANN401 -- any setting
    """A client of another process over the same stores."""
    settings = Settings(
        redis_url=urls.redis_url,
        database_url=urls.database_url,
        jwt_secret=SECRET,
        fcode_keys=FCODE_KEY,
        shutdown_timeout_s=5.0,
        **(PATIENT | more),
    )
    runner = await make_runner(settings)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
        yield session
    await runner.cleanup()


@pytest.fixture(scope="session")
async def second(urls: embedded.Servers) -> AsyncIterator[ClientSession]:
    """Another process, in which two streams may be open."""
    async with another(urls, live_streams_max=2) as session:
        yield session


async def create(http: ClientSession, ops: dict[str, str], *allocations: Json, **other: object) -> str:
    """A new drop."""
    answer = await call(http, "POST", "/v1/ops/drops", ops, json=drop_body(unique("live"), *allocations, **other))
    assert answer.status == 201, answer
    return str(answer.body["id"])


@contextlib.asynccontextmanager
async def looking(http: ClientSession, ops: dict[str, str], drop: str) -> AsyncIterator[AsyncIterator[Any]]:
    """The frames of a drop, as they come."""
    async with http.get(f"/v1/ops/drops/{drop}/live", headers=ops) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        assert answer.headers["Cache-Control"] == "no-store"

        async def frames() -> AsyncIterator[Any]:
            event = b""
            async for line in answer.content:
                event += line
                if line == b"\n":
                    if event.startswith(b"event: frame\n"):
                        assert len(event) <= FRAME_MAX_BYTES
                        yield msgspec.json.decode(event.partition(b"\ndata: ")[2])
                    event = b""

        yield frames()


async def first(frames: AsyncIterator[Any], fits: Any) -> Any:  # noqa: ANN401
    """The first frame of which that is true."""
    async with asyncio.timeout(20):
        async for frame in frames:
            if fits(frame):
                return frame
    raise AssertionError("the stream ended before")


async def test_a_frame_shows_the_sale_as_all_processes_see_it(
    http: ClientSession, second: ClientSession, ops: dict[str, str], token: Token
) -> None:
    """Presses of two processes are summed; every figure is there, with the time at which it was read."""
    confirmed = ""
    drop = await create(http, ops, allocation_body("a", 3), allocation_body("b", 2, opens_at=at(600)), hold_seconds=200)
    for member in (1, 2, 3, 4, 5):
        client = http if member % 2 else second
        async with client.post(
            f"/v1/drops/{drop}/reservations", headers=token(member), json={"allocation": "a"}
        ) as got:
            assert got.status == (201 if member < 4 else 409)
            if member == 1:
                confirmed = (await got.json())["id"]
    assert (await call(http, "POST", f"/v1/reservations/{confirmed}/confirm", token(1))).status == 200

    def whole(frame: Any) -> bool:  # noqa: ANN401
        counted = (frame["verdicts"] or {"totals": {}})["totals"]
        groups = ("gate", "waiting", "ledger", "orders", "balance")
        return counted == {"held": 3, "sold_out": 2} and all(frame[name] for name in groups)

    async with looking(http, ops, drop) as frames:
        frame = await first(frames, whole)
    assert (frame["drop"], frame["paused"], frame["closed"], frame["allocations_more"]) == (drop, False, False, 0)
    assert frame["gate"]["armed"] is True
    assert [(a["id"], a["state"], a["available"], a["quantity"]) for a in frame["gate"]["allocations"]] == [
        ("a", "sold_out", 0, 3),
        ("b", "upcoming", 2, 2),
    ]
    assert (frame["ledger"]["held"], frame["ledger"]["confirmed"]) == (2, 1)
    assert (frame["ledger"]["ending_1m"], frame["ledger"]["ending_5m"], frame["ledger"]["ending_capped"]) == (
        0,
        2,
        False,
    )
    assert (frame["orders"]["waiting"], frame["orders"]["delivered"], frame["orders"]["dead"]) == (1, 0, 0)
    assert frame["orders"]["queue_waiting"] >= 1
    balance = frame["balance"]
    assert (balance["balanced"], balance["quantity"], balance["wrong"]) == (True, 5, [])
    assert balance["available"] + balance["pending"] + balance["held"] + balance["confirmed"] == 5
    assert frame["waiting"]["processes"] >= 2
    assert (frame["waiting"]["gate"], frame["waiting"]["ledger"]) == (0, 0)
    shown = datetime.fromisoformat(frame["at"])
    for name in ("gate", "verdicts", "verdict_ms", "waiting", "ledger", "orders", "balance"):
        age = shown - datetime.fromisoformat(frame[name]["at"])
        assert timedelta(seconds=-1) < age < timedelta(seconds=30), (name, age)


async def test_verdicts_a_second_follow_the_presses(http: ClientSession, ops: dict[str, str], token: Token) -> None:
    """Who looks while people press sees a rate by word, and how long they waited."""
    drop = await create(http, ops, allocation_body("a", 1))
    async with looking(http, ops, drop) as frames:
        await first(frames, lambda frame: frame["verdicts"] is not None)
        for member in range(1, 9):
            await call(http, "POST", f"/v1/drops/{drop}/reservations", token(member), json={})
        words = set[str]()

        def all_are_told(frame: Json) -> bool:
            words.update(word for word, rate in frame["verdicts"]["per_s"].items() if rate > 0)
            return bool(words == {"held", "sold_out"} and frame["verdict_ms"]["n"] == 8)

        frame = await first(frames, all_are_told)
        assert frame["verdict_ms"]["p99"] in WAITS_MS
        assert frame["verdict_ms"]["p50"] <= frame["verdict_ms"]["p99"]


async def test_an_operators_act_shows_in_the_next_frames(http: ClientSession, ops: dict[str, str]) -> None:
    """Paused, more units, closed."""
    drop = await create(http, ops, allocation_body("a", 3))
    async with looking(http, ops, drop) as frames:
        await first(frames, lambda frame: frame["gate"] is not None)
        await call(http, "POST", f"/v1/ops/drops/{drop}/pause", ops)
        frame = await first(frames, lambda frame: frame["paused"])
        await call(http, "PATCH", f"/v1/ops/drops/{drop}/allocations/a", ops, json={"quantity": 7})
        frame = await first(frames, lambda frame: frame["gate"]["allocations"][0]["available"] == 7)
        assert frame["gate"]["allocations"][0]["state"] == "paused"


async def test_many_streams_have_one_reader_and_no_more_than_may_be(
    second: ClientSession, http: ClientSession, ops: dict[str, str]
) -> None:
    """Beyond the limit 503 with Retry-After; a place that is free again is given again."""
    drop = await create(http, ops)
    async with looking(second, ops, drop) as one, looking(second, ops, drop) as two:
        assert (await first(one, bool))["drop"] == (await first(two, bool))["drop"] == drop
        refused = await call(second, "GET", f"/v1/ops/drops/{drop}/live", ops)
        assert_refused(refused, "unavailable", "2 live streams")

    async def given_again() -> bool:
        async with second.get(f"/v1/ops/drops/{drop}/live", headers=ops) as answer:
            return answer.status == 200

    await until(given_again, "a place is free")
    async with looking(second, ops, drop) as again:
        await first(again, bool)


async def test_a_stream_ends_by_itself(urls: embedded.Servers, ops: dict[str, str]) -> None:
    """After its time; its page opens the next."""
    async with another(urls, live_stream_s=0.5) as brief:
        drop = await create(brief, ops)
        async with looking(brief, ops, drop) as frames, asyncio.timeout(TIMEOUT_S):
            assert all([frame["drop"] == drop async for frame in frames])


async def test_the_reader_stops_when_nobody_looks(runner: Runner, http: ClientSession, ops: dict[str, str]) -> None:
    """And begins anew for the next."""
    live = runner._context.live
    drop = await create(http, ops)
    for _ in range(2):
        async with looking(http, ops, drop) as frames:
            await first(frames, bool)
            assert set(live.feeds) >= {drop}
        async with asyncio.timeout(20):
            while drop in live.feeds:
                await asyncio.sleep(0.02)
    async with http.head(f"/v1/ops/drops/{drop}/live", headers=ops) as answer:
        assert (answer.status, await answer.read()) == (200, b"")


async def test_looking_needs_the_role(http: ClientSession, ops: dict[str, str], token: Token) -> None:
    """A shopper is told so; an unknown drop is."""
    assert_refused(await call(http, "GET", "/v1/ops/drops/none/live", ops), "not_found", "'none'")
    assert_refused(await call(http, "GET", "/v1/ops/drops/none/live", token(1)), "forbidden", "ops")


def test_a_frame_never_outgrows_its_limit() -> None:
    """With the longest names there are, allocations at the end are left out, and their number is told."""
    now = datetime.now(UTC)
    allocations = tuple(GateAllocation("x" * 60 + f"{n:03}", "sold_out", 2**31 - 1, 2**31 - 1) for n in range(200))
    frame = Frame(
        drop="d" * 63,
        at=now,
        epoch=2**62,
        paused=False,
        held=False,
        closed=False,
        fcodes_stopped=False,
        gate=GateFigures(now, True, 0, allocations),
    )
    event = event_of(frame, 10**9)
    shown = msgspec.json.decode(event.partition(b"\ndata: ")[2])
    assert 3_000 < len(event) <= FRAME_MAX_BYTES
    assert len(shown["gate"]["allocations"]) + shown["allocations_more"] == 200
    few = event_of(msgspec.structs.replace(frame, gate=GateFigures(now, True, 0, allocations[:3])), 1)
    assert msgspec.json.decode(few.partition(b"\ndata: ")[2])["allocations_more"] == 0


def test_rates_are_told_by_what_came_lately() -> None:
    """Of the last seconds; after the counts were lost, from what came since, and never below nothing."""
    rates, now = Rates(), datetime.now(UTC)
    rates.add(Counted(1_000, {"held": 100, "w:0": 4}))
    assert (rates.verdicts(now).per_s, rates.verdicts(now).totals) == ({}, {"held": 100})
    for second in range(1, 9):
        rates.add(Counted(1_000 + second * 1_000, {"held": 100 + second * 10, "sold_out": 2 * second, "w:0": 4}))
    assert rates.verdicts(now).per_s == {"held": 10.0, "sold_out": 2.0}
    assert rates.waits(now).n == 0
    rates.add(Counted(10_000, {"held": 3}))
    assert rates.verdicts(now).per_s == {}
    rates.add(Counted(11_000, {"held": 5}))
    assert rates.verdicts(now).per_s == {"held": 2.0}


def test_a_wait_is_never_told_better_than_it_was() -> None:
    """The class of a wait ends at or after it, but for what is longer than all; quantiles are ends of classes."""
    for seconds in (0.0, 0.001, 0.0011, 0.05, 9.9, 10.0):
        end_ms = quantile_ms(waits_of({wait_field(seconds): 1}), 0.99)
        assert end_ms is not None
        assert end_ms >= seconds * 1_000
    waits = waits_of({wait_field(0.001): 98, wait_field(0.9): 2})
    assert (quantile_ms(waits, 0.5), quantile_ms(waits, 0.98), quantile_ms(waits, 0.99)) == (1.0, 1.0, 1000.0)
    assert quantile_ms(waits_of({}), 0.5) is None
    assert quantile_ms(waits_of({wait_field(99): 1}), 0.5) == 10_000.0


async def test_what_cannot_be_handed_on_is_dropped_and_not_told_twice(runner: Runner) -> None:
    """Each second's counts are told once; the next second begins at nothing."""
    sharing, drop = runner._context.gate.sharing, unique("shares")
    shares = Shares(sharing, name="test", ttl_s=60)
    shares.decided({(drop, "held"): 2, (drop, "sold_out"): 5})
    shares.waited(drop, 0.004, 7)
    await shares.publish((3, 4))
    await shares.publish((3, 4))
    assert (await sharing.counts(drop)).counts == {"held": 2, "sold_out": 5, wait_field(0.004): 7}
    assert [int(n) for n in (await sharing.refused(drop)).counts.values()] == [5]
    assert shares.everybody is not None
    assert shares.everybody.gate >= 3
    assert shares.everybody.ledger >= 4
