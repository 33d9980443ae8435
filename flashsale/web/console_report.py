"""`GET /v1/ops/drops/{drop}/report`: what happened when, and how far it was first come, first served."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec
from aiohttp import web

from flashsale.domain import Drop, Timestamp
from flashsale.errors import Unavailable
from flashsale.fairness import Fairness, Orders
from flashsale.ledger.console import Happened, asked_ms
from flashsale.said import said
from flashsale.shares import quantile_ms, waits_of
from flashsale.web import language
from flashsale.web.auth import Identity
from flashsale.web.console import READER, number_param, query_number
from flashsale.web.console_drops import the_drop
from flashsale.web.context import Context
from flashsale.web.routing import Call, answer

STEPS_S: Final = (1, 5, 15, 60, 300, 900, 3_600, 86_400)
ROWS_MAX: Final = 3_600
PART_MAX: Final = 5_000
JUDGED_MAX: Final = 500_000
ARRIVAL: Final = said(
    "Arrival: the millisecond in which the web process sent the press to the gate, by that machine's clock; before it "
    "the press waited in its process for one call of the gate at most (see wait_ms)."
)
GRANT: Final = said(
    "Grant: when the ledger wrote the reservation down, by its clock. Pairs of one millisecond are not judged."
)
KEPT: Final = said(
    "Counted by each process once a second, in the gate's server; what one had not told when it died is missing."
)
NOT_KEPT: Final = said(
    "Not kept: the gate's server has no counts of this drop (any more); the ledger never hears of refusals."
)


class Step(msgspec.Struct, frozen=True):
    """Units granted, confirmed and given back from `at` on, for a step; and presses refused, by word."""

    at: Timestamp
    granted: int
    confirmed: int
    cancelled: int
    expired: int
    returned: int
    refused: dict[str, int]


class Totals(msgspec.Struct, frozen=True):
    """The same in all."""

    granted: int
    confirmed: int
    cancelled: int
    expired: int
    returned: int
    refused: dict[str, int]


class Refusals(msgspec.Struct, frozen=True):
    """Whether refusals were counted, and how far that can be trusted."""

    kept: bool
    note: str


class Displacement(msgspec.Struct, frozen=True):
    """By how many ms presses were granted before one that had come earlier; 0 for those that overtook nobody."""

    p50: float
    p90: float
    p99: float
    max: float


class WaitOut(msgspec.Struct, frozen=True):
    """How long presses waited in their process for the gate's answer, ms: upper ends of classes."""

    p50: float
    p99: float


class FairnessOut(msgspec.Struct, frozen=True):
    """Order of arrival against order of grant. `capped`: only the first so many were judged."""

    judged: int
    pairs: int
    out_of_order: int
    share_out_of_order: float
    overtaking: int
    ties: int
    displacement_ms: Displacement
    capped: bool
    arrival: str
    grant: str
    wait_ms: WaitOut | None


class ReportOut(msgspec.Struct, frozen=True):
    """What happened in a drop, by steps of `step_s` seconds; `more`: there are further steps."""

    drop: str
    at: Timestamp
    step_s: Annotated[int, msgspec.Meta(ge=1)]
    seconds: tuple[Step, ...]
    more: bool
    totals: Totals
    refusals: Refusals
    fairness: FairnessOut


async def _span(context: Context, drop: Drop) -> tuple[datetime, datetime]:
    """Within which time its reservations were made: until its last window ended, or was made to end."""
    lines = await context.operations.audit(drop.id, None, 1)
    latest = max([drop.ends_at, *(line.at for line in lines)])
    return drop.created_at, min(latest, context.now())


async def _steps(
    context: Context, drop: Drop, span: tuple[datetime, datetime], wanted: int | None
) -> tuple[int, list[Happened]]:
    """By the smallest step with which they are few enough, or by the one that is wanted."""
    found: list[Happened] = []
    step_s = wanted or STEPS_S[0]
    for step_s in STEPS_S if wanted is None else (wanted,):
        found = await context.ledger.console.happened(drop.id, step_s, span, ROWS_MAX + 1)
        if len(found) <= ROWS_MAX:
            break
    return step_s, found


async def _fairness(context: Context, drop: Drop, span: tuple[datetime, datetime]) -> tuple[Fairness, bool]:
    orders, after, count = Orders(), None, 0
    while count < JUDGED_MAX:
        part = await context.ledger.console.grants(drop.id, after, span, PART_MAX)
        orders.add((asked_ms(found), created) for found, created in part)
        count += len(part)
        if len(part) < PART_MAX:
            return orders.told(), False
        after = part[-1][0]
        await asyncio.sleep(0)
    return orders.told(), True


def _by_step(rows: dict[str, int], step_s: int) -> dict[int, Counter[str]]:
    """Rows `second word`, or `mminute word`, by the steps in which they begin."""
    steps: dict[int, Counter[str]] = {}
    for row, count in rows.items():
        at, _, word = row.partition(" ")
        second = int(at.removeprefix("m"))
        steps.setdefault(second // step_s * step_s, Counter())[word] += count
    return steps


def _time(second: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)


async def report(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/ops/drops/{drop}/report`."""
    wanted, words = query_number(request, "step", 1, 86_400), language.of(request)
    drop = await the_drop(request, context)
    span = await _span(context, drop)
    step_s, found = await _steps(context, drop, span, wanted)
    judged, capped = await _fairness(context, drop, span)
    refused: dict[int, Counter[str]] = {}
    waits, kept = [0], False
    try:
        refused = _by_step((await context.gate.sharing.refused(drop.id)).counts, step_s)
        counts = (await context.gate.sharing.counts(drop.id)).counts
        waits, kept = waits_of(counts), bool(counts)
    except Unavailable:
        pass
    ledger = {h.at: h for h in found}
    nothing = Happened(0, 0, 0, 0, 0, 0)
    names = Happened.__struct_fields__[1:]
    seconds = [
        Step(_time(at), **{n: getattr(ledger.get(at, nothing), n) for n in names}, refused=dict(refused.get(at, {})))
        for at in sorted(ledger.keys() | refused.keys())
    ]
    p50, p99 = quantile_ms(waits, 0.5), quantile_ms(waits, 0.99)
    out = ReportOut(
        drop=drop.id,
        at=context.now(),
        step_s=step_s,
        seconds=tuple(seconds[:ROWS_MAX]),
        more=len(seconds) > ROWS_MAX,
        totals=Totals(
            **{name: sum(getattr(h, name) for h in found) for name in names},
            refused=dict(sum(refused.values(), Counter())),
        ),
        refusals=Refusals(kept, words(KEPT if kept else NOT_KEPT)),
        fairness=FairnessOut(
            judged=judged.judged,
            pairs=judged.pairs,
            out_of_order=judged.out_of_order,
            share_out_of_order=round(judged.out_of_order / judged.pairs, 9) if judged.pairs else 0.0,
            overtaking=judged.overtaking,
            ties=judged.ties,
            displacement_ms=Displacement(judged.p50_ms, judged.p90_ms, judged.p99_ms, judged.max_ms),
            capped=capped,
            arrival=words(ARRIVAL),
            grant=words(GRANT),
            wait_ms=None if p50 is None or p99 is None else WaitOut(p50, p99),
        ),
    )
    return answer(out, headers=words.headers)


CALLS: Final = (
    Call(
        method="GET",
        path="/v1/ops/drops/{drop}/report",
        handler=report,
        summary="What happened when in the drop, and order of arrival against order of grant",
        access=READER,
        params=(number_param("step", "Seconds of a step; absent: 1, or more when there are too many.", 1, 86_400),),
        answers={200: ReportOut},
        codes=("not_found",),
    ),
)
