"""What one frame of the live page says, and how it is kept below `FRAME_MAX_BYTES`. Pure: figures in, bytes out."""

from collections import deque
from typing import Final

import msgspec

from flashsale.domain import Timestamp
from flashsale.gate.sharing import Counted
from flashsale.shares import quantile_ms, waits_of
from flashsale.web.schemas import DropState

FRAME_MAX_BYTES: Final = 4_096
ALLOCATIONS_MAX: Final = 24
WRONG_MAX: Final = 5
RATE_OVER_S: Final = 5.0
WAITS_OVER_S: Final = 10.0

_encode: Final = msgspec.json.Encoder().encode


class GateAllocation(msgspec.Struct, frozen=True):
    """What is left of an allocation, by the gate; null while it cannot be asked."""

    id: str
    state: DropState
    available: int | None
    quantity: int


class GateFigures(msgspec.Struct, frozen=True):
    """The gate: whether it is armed, how far its clock is ahead of this machine's, what is left."""

    at: Timestamp
    armed: bool
    clock_ahead_ms: int | None
    allocations: tuple[GateAllocation, ...]


class VerdictFigures(msgspec.Struct, frozen=True):
    """Verdicts of all processes, a second over the last `over_s`, and in all."""

    at: Timestamp
    over_s: float
    per_s: dict[str, float]
    totals: dict[str, int]


class WaitFigures(msgspec.Struct, frozen=True):
    """From the press in its process's queue to the gate's answer, of the longest wait of each call, ms."""

    at: Timestamp
    over_s: float
    p50: float | None
    p99: float | None
    n: int


class WaitingFigures(msgspec.Struct, frozen=True):
    """Presses that wait in all processes, before the gate and before the ledger."""

    at: Timestamp
    gate: int
    ledger: int
    processes: int


class LedgerFigures(msgspec.Struct, frozen=True):
    """Units held and confirmed, and holds that end soon. `ending_capped`: there are more than were counted."""

    at: Timestamp
    took_ms: float
    held: int
    confirmed: int
    ending_1m: int
    ending_5m: int
    ending_capped: bool


class OrderFigures(msgspec.Struct, frozen=True):
    """The drop's orders, and the queue of all drops."""

    at: Timestamp
    took_ms: float
    waiting: int
    delivered: int
    dead: int
    queue_waiting: int
    queue_oldest_s: float


class BalanceFigures(msgspec.Struct, frozen=True):
    """Whether gate and ledger account for every unit (I1), and where they are; `wrong`: allocations that do not."""

    at: Timestamp
    took_ms: float
    balanced: bool
    quantity: int
    available: int
    pending: int
    held: int
    confirmed: int
    wrong: tuple[str, ...]


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One frame. Each group says when it was read, by the server's clock, as `at` of the frame itself."""

    drop: str
    at: Timestamp
    epoch: int
    paused: bool
    held: bool
    closed: bool
    fcodes_stopped: bool
    gate: GateFigures | None = None
    verdicts: VerdictFigures | None = None
    verdict_ms: WaitFigures | None = None
    waiting: WaitingFigures | None = None
    ledger: LedgerFigures | None = None
    orders: OrderFigures | None = None
    balance: BalanceFigures | None = None
    allocations_more: int = 0


def event_of(frame: Frame, number: int) -> bytes:
    """The frame as a server-sent event of `FRAME_MAX_BYTES` at most: allocations at the end are left out if need be."""
    gate, keep = frame.gate, ALLOCATIONS_MAX
    while True:
        if gate is not None and len(gate.allocations) > keep:
            kept = msgspec.structs.replace(gate, allocations=gate.allocations[:keep])
            frame = msgspec.structs.replace(frame, gate=kept, allocations_more=len(gate.allocations) - keep)
        event = b"event: frame\nid: %d\ndata: %b\n\n" % (number, _encode(frame))
        if len(event) <= FRAME_MAX_BYTES or keep == 0:
            return event
        keep -= 1


class Rates:
    """Sums read one after the other, as rates. A sum that shrinks was lost with its server: from then on anew."""

    def __init__(self) -> None:
        self._seen: deque[Counted] = deque()

    def add(self, counted: Counted) -> None:
        """What was read just now."""
        if self._seen and any(counted.counts.get(field, 0) < n for field, n in self._seen[-1].counts.items()):
            self._seen.clear()
        self._seen.append(counted)
        while len(self._seen) > 2 and counted.at_ms - self._seen[1].at_ms >= WAITS_OVER_S * 1_000:  # noqa: PLR2004
            self._seen.popleft()

    def _since(self, over_s: float) -> tuple[Counted, Counted, float]:
        last = self._seen[-1]
        first = next((c for c in reversed(self._seen) if last.at_ms - c.at_ms >= over_s * 1_000), self._seen[0])
        return first, last, (last.at_ms - first.at_ms) / 1_000

    def verdicts(self, at: Timestamp) -> VerdictFigures:
        """By word: how many a second lately, and how many in all."""
        first, last, over_s = self._since(RATE_OVER_S)
        totals = {word: n for word, n in sorted(last.counts.items()) if not word.startswith("w:")}
        more = {word: n - first.counts.get(word, 0) for word, n in totals.items()}
        per_s = {word: round(n / over_s, 1) for word, n in more.items()} if over_s > 0 else {}
        return VerdictFigures(at, over_s, per_s, totals)

    def waits(self, at: Timestamp) -> WaitFigures:
        """How long presses waited lately."""
        first, last, over_s = self._since(WAITS_OVER_S)
        waits = [now - then for now, then in zip(waits_of(last.counts), waits_of(first.counts), strict=True)]
        return WaitFigures(at, over_s, quantile_ms(waits, 0.5), quantile_ms(waits, 0.99), sum(waits))
