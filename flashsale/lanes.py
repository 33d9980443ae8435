"""One drop's way through a process: the lanes in which claims go to the gate and grants to the ledger."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import msgspec

from flashsale import metrics
from flashsale.circuit import Circuit
from flashsale.combining import Lane
from flashsale.domain import Claim, Decision, Grant
from flashsale.gate import Unarmed
from flashsale.ledger import Commit
from flashsale.stripes import Stripes

# Shares of `answer_max_s`.
GATE_SHARE: Final = 0.25
LEDGER_SHARE: Final = 0.5
WAIT_SHARE: Final = 0.2
"""For a call to begin; who has waited longer could not be answered in time."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Limits(msgspec.Struct, frozen=True):
    """Sizes of batches and queues, per drop and process, and how long anybody waits for an answer, seconds."""

    gate_batch_max: int = 1_024
    gate_queue_max: int = 20_000
    ledger_batch_max: int = 512
    ledger_queue_max: int = 20_000
    answer_max_s: float = 10.0


class Lanes:
    """One drop's way through this process: claims to the gate, grants to the ledger, settled grants riding along."""

    def __init__(
        self, commit: Callable[[list[Grant]], Awaitable[list[Commit]]], limits: Limits, keeps: Circuit
    ) -> None:
        self.keeps = keeps
        """Closed: what is granted is kept by the ledger."""
        self.ledger: Lane[Grant, Commit] = ledger_lane(commit, limits, LEDGER_SHARE, metrics.ledger_batch.observe)
        self.gate: Lane[Claim, Decision | Unarmed] | Stripes
        """A lane of calls to the one stripe that most drops have; or one for each, and the ways between them."""
        self.settle: Callable[[Grant], None]

    def grants_max(self) -> int | None:
        """How many may be granted in the next call; None: any number."""
        return None if self.keeps.closed else int(self.keeps.admit())


def gate_lane(
    call: Callable[[list[Item]], Awaitable[Sequence[Result]]],
    limits: Limits,
    answered: Callable[[float, int], None] | None = None,
) -> Lane[Item, Result]:
    """A lane of calls to the gate; `answered` hears how long its oldest item waited for each."""
    return Lane(
        call,
        batch_max=limits.gate_batch_max,
        queue_max=limits.gate_queue_max,
        wait_max_s=WAIT_SHARE * limits.answer_max_s,
        answer_max_s=GATE_SHARE * limits.answer_max_s,
        observe=metrics.gate_batch.observe,
        answered=answered,
    )


def ledger_lane(
    call: Callable[[list[Item]], Awaitable[Sequence[Result]]],
    limits: Limits,
    share: float,
    observe: Callable[[int], None] | None = None,
) -> Lane[Item, Result]:
    """A lane of calls to the ledger, whose answers may take this share of `answer_max_s`."""
    return Lane(
        call,
        batch_max=limits.ledger_batch_max,
        queue_max=limits.ledger_queue_max,
        wait_max_s=WAIT_SHARE * limits.answer_max_s,
        answer_max_s=share * limits.answer_max_s,
        observe=observe,
    )
