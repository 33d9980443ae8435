"""Sales at the gate itself, without web and ledger, and what they cost Valkey.

The product's own client of the gate, armed as a rebuild arms it, because over HTTP the web's own work would hide what
is looked for, and because only it knows what the gate is asked. Processor time is Valkey's own count of its main
thread, around the calls that are measured and nothing else.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import redis.asyncio as redis

from flashsale.domain import Access, Allocation, Claim, Drop, Everyone, Grant, Money, Points, Refusal, Verdict
from flashsale.eligibility import encode_chunk
from flashsale.errors import Unavailable
from flashsale.gate import Gate, Unarmed, connect, keys
from flashsale.gate.codes import pack_fields
from flashsale.ids import new_ids
from loadtests.bench.table import Failed

CALL = 256
"""Requests in one call: what the product's web processes send at most, as it is shipped."""
TIMEOUT_S = 30.0
TTL_MS = 3_600_000
FIELDS_AT_ONCE = 2_000
ALLOCATION = "all"
ELIGIBLE = "every-other"
OPEN_FOR = timedelta(days=1)


NOT_ELIGIBLE, SOLD_OUT = Verdict.NOT_ELIGIBLE, Verdict.SOLD_OUT


@dataclass
class Spent:
    """What calls cost: Valkey's processor seconds for so many decisions; seconds from asking to hearing, by call.

    `finished`: what they were a part of was whole with them.
    """

    cpu_s: float = 0.0
    decisions: int = 0
    calls_s: list[float] = field(default_factory=list)
    finished: bool = False

    @property
    def us(self) -> float:
        """Microseconds of the processor a decision."""
        return self.cpu_s / self.decisions * 1e6

    def add(self, other: "Spent") -> None:
        """These, too."""
        self.cpu_s += other.cpu_s
        self.decisions += other.decisions
        self.calls_s += other.calls_s


class AtGate:
    """One drop in one gate, which nobody else knows of. Errors: `Failed`."""

    def __init__(self, redis_url: str, name: str) -> None:
        self._gate = Gate(connect(redis_url, timeout_s=TIMEOUT_S), timeout_s=TIMEOUT_S, new_ids=new_ids)
        self._redis = redis.from_url(redis_url)
        self._name = name
        self._epoch = 0
        self._drop = self._as_drop(0, Everyone())
        self._unsettled: list[Grant] = []

    async def aclose(self) -> None:
        """Take the drop out of the gate, and close the connections."""
        tag = keys.eligible(self._name, 0, ELIGIBLE)
        await self._redis.unlink(*keys.stripe(self._name), tag)
        await self._redis.aclose()
        await self._gate.aclose()

    def _as_drop(self, quantity: int, access: Access) -> Drop:
        now = datetime.now(UTC)
        points = isinstance(access, Points)
        allocation = Allocation(
            id=ALLOCATION,
            quantity=quantity,
            opens_at=now - OPEN_FOR,
            closes_at=now + OPEN_FOR,
            access=access,
            eligible_set=ELIGIBLE if points else None,
        )
        return Drop(
            id=self._name,
            title="Measured at the gate",
            price=Money(169_900, "CNY"),
            list_price=None,
            per_member=1,
            hold_seconds=900,
            epoch=self._epoch,
            paused=False,
            closed=False,
            allocations=(allocation,),
            created_at=now,
        )

    async def arm(self, units: int, *, among: int | None = None) -> None:
        """So many free units and no holder; for everyone, or for every other id, `among` of them."""
        self._epoch += 1
        self._unsettled = []
        access = Everyone() if among is None else Points(snapshot=ELIGIBLE, at_least=100)
        self._drop = self._as_drop(units, access)
        try:
            if among is not None:
                await self._bring_eligible(among)
            if (
                await self._gate.arm_begin(self._name, self._epoch) != "ok"
                or await self._gate.arm_finish(self._drop, 0, {ALLOCATION: units}, ttl_ms=TTL_MS) != "ok"
            ):
                raise Failed("the gate could not be armed")
        except Unavailable as fault:
            raise Failed(f"the gate could not be armed: {fault}") from fault

    async def _bring_eligible(self, count: int) -> None:
        """Even ids, so many of them, from 2 on; whoever is odd is a neighbour in the same field, and not eligible."""
        last = 2 * count
        whole = encode_chunk(range(0, 1_000, 2))
        fields: list[tuple[str, bytes]] = [("", encode_chunk(range(2, 1_000, 2)))]
        fields += [(str(thousand), whole) for thousand in range(1, last // 1_000)]
        fields += [(str(last // 1_000), encode_chunk(range(0, last % 1_000 + 1, 2)))]
        staging = await self._gate.eligible_begin(self._name)
        for at in range(0, len(fields), FIELDS_AT_ONCE):
            part = pack_fields([each for field in fields[at : at + FIELDS_AT_ONCE] for each in field])
            await self._gate.eligible_chunk(staging, part)
        if not await self._gate.eligible_finish(self._name, ELIGIBLE, staging, fields=len(fields), ttl_ms=TTL_MS):
            raise Failed(f"the gate did not take {count:,} eligible members")

    async def press(self, spent: Spent, members: Sequence[int], *, won: int, otherwise: Verdict) -> list[Grant]:
        """One press of each, `CALL` at a time, what was granted before settled as the product does it; the grants.

        What it cost is added to `spent`. `Failed` unless so many won and every other verdict is `otherwise`.
        """
        claims = [Claim(member, ALLOCATION, 1, None, 0) for member in members]
        decided: list[object] = []
        before_s = await self._cpu_s()
        for at in range(0, len(claims), CALL):
            settled, self._unsettled = self._unsettled, []
            began_at = time.perf_counter()
            answer = await self._decide(claims[at : at + CALL], settled)
            spent.calls_s.append(time.perf_counter() - began_at)
            self._unsettled = [each for each in answer if isinstance(each, Grant)]
            decided += answer
        spent.cpu_s += await self._cpu_s() - before_s
        spent.decisions += len(claims)
        grants = [each for each in decided if isinstance(each, Grant)]
        refused = decided.count(Refusal(otherwise))
        if (len(grants), refused) != (won, len(claims) - won):
            raise Failed(
                f"of {len(claims):,} presses {len(grants):,} won and {refused:,} were {otherwise.value}; "
                f"{won:,} should have won, and all others have been that"
            )
        return grants

    async def _decide(self, claims: Sequence[Claim], settled: Sequence[Grant]) -> Sequence[object]:
        try:
            answer = await self._gate.decide(self._drop, self._epoch, claims, settled)
        except Unavailable as fault:
            raise Failed(f"the gate did not decide: {fault}") from fault
        if isinstance(answer, Unarmed):
            raise Failed("the gate was lost while it was measured")
        return answer.results

    async def release(self, grants: Iterable[Grant]) -> None:
        """Who won has never been there."""
        self._unsettled = []
        try:
            await self._gate.release(self._name, [(grant.id, grant.member) for grant in grants])
        except Unavailable as fault:
            raise Failed(f"the gate did not take units back: {fault}") from fault

    async def holders_bytes(self) -> int:
        """What Valkey keeps of all who hold a unit, every field counted."""
        found = keys.stripe(self._name)
        sizes = [await self._redis.memory_usage(key, samples=0) for key in (found.ent, found.pend)]
        return sum(size or 0 for size in sizes)

    async def _cpu_s(self) -> float:
        """Processor seconds of the thread that runs scripts, or, of a server that does not tell, of all."""
        found = await self._redis.info("cpu")
        names = [f"used_cpu_{kind}" for kind in ("user", "sys")]
        return sum(float(found.get(f"{name}_main_thread", found[name])) for name in names)
