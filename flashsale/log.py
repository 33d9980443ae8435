"""Structured logs on standard error: one line an event, no secrets.

Wins come by the thousand a second, so their lines are encoded in one go and written in one call per batch;
refusals are counted and told once a second.
"""

import logging
import sys
from collections import Counter
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec
import structlog

from flashsale import metrics
from flashsale.domain import Decision, Grant, Refusal, Withheld

_encode: Final = msgspec.json.Encoder().encode


def configure(form: Literal["json", "console"]) -> None:
    """Send all log lines to standard error, as JSON or for a terminal."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _word(answer: Decision) -> str:
    match answer:
        case Refusal(verdict=verdict):
            return verdict.value
        case Withheld():
            return "withheld"
        case Grant(again=again):
            return "again" if again else "held"


class _Win(msgspec.Struct, frozen=True):
    event: str
    timestamp: datetime
    drop: str
    allocation: str
    member: int
    reservation: str
    quantity: int


class Tally:
    """Counts verdicts per batch; `flush` (each second) hands them to the metrics and logs the refusals."""

    def __init__(self, form: Literal["json", "console"]) -> None:
        self._verdicts: Counter[tuple[str, str]] = Counter()
        self._json = form == "json"
        self._log = structlog.get_logger()

    def decided(self, drop_id: str, results: list[Decision]) -> None:
        """A batch of the gate."""
        counts: dict[str, int] = {}
        last, word = None, ""
        for result in results:
            if result is not last:  # a refusal is a prepared object, and a crowd's are one and the same
                last, word = result, _word(result)
            counts[word] = counts.get(word, 0) + 1
        for word, count in counts.items():
            self._verdicts[drop_id, word] += count

    def committed(self, drop_id: str, grants: list[Grant]) -> None:
        """A batch of the ledger: one line a reservation."""
        if not grants:
            return
        metrics.reservations.labels(drop_id).inc(len(grants))
        now = datetime.now(UTC)
        wins = [_Win("reservation.held", now, drop_id, g.allocation, g.member, g.id, g.quantity) for g in grants]
        if self._json:
            sys.stderr.buffer.write(b"".join([_encode(w) + b"\n" for w in wins]))
            sys.stderr.buffer.flush()
        else:
            for w in wins:
                self._log.info(
                    w.event, drop=w.drop, allocation=w.allocation, member=w.member, reservation=w.reservation
                )

    def flush(self) -> Counter[tuple[str, str]]:
        """Hand on what was counted since the last time, by drop and word; returns it."""
        counted, self._verdicts = self._verdicts, Counter()
        refused: dict[str, dict[str, int]] = {}
        for (drop_id, word), count in counted.items():
            metrics.verdicts.labels(drop_id, word).inc(count)
            if word not in {"held", "again"}:
                refused.setdefault(drop_id, {})[word] = count
        for drop_id, words in refused.items():
            self._log.info("reservation.refused", drop=drop_id, **words)
        return counted
