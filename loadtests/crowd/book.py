"""What a process has asked and heard: lines for the auditor and figures for the report, handed on every second."""

import json
from collections import deque
from math import floor
from typing import Any

from loadtests.api import unix_s
from loadtests.crowd.contract import LOST, Call, Heard
from loadtests.crowd.tally import Tally

EXAMPLES_MAX = 20
REMEMBERED = 200


class Book:
    """Journal, tally, and what visits of this process know of each other.

    `unix_s` is what has to be added to `time.monotonic` to make it Unix time; `opening` is the opening by
    `time.monotonic`, as well as it is known.
    """

    def __init__(self, drop: str, unix_s: float, opening: float = 0.0) -> None:
        self._drop = drop
        self._unix_s = unix_s
        self.opening = opening
        self.tally = Tally()
        self._lines: list[bytes] = []
        self._examples: list[str] = []
        self._told = 0
        self.strangers: deque[tuple[int, str]] = deque(maxlen=REMEMBERED)
        """(member, reservation) of holds that this process has seen: what an attacker may have overheard."""
        self.spent: deque[str] = deque(maxlen=REMEMBERED)
        """F-codes that are spent for good."""

    def second(self, at: float) -> int:
        """The second of the sale: 0 begins with the opening."""
        return floor(at - self.opening)

    def line(self, call: str, answer: Heard, **asked: object) -> None:
        """A line of the journal; without `at` an answer that never came. Source: `flashsale audit --journal`."""
        line: dict[str, Any] = {"call": call, "drop": self._drop, **asked}
        line |= {"sent_at": answer.sent_at + self._unix_s, "status": answer.status}
        if answer.word != LOST:
            line["heard_at"] = answer.at + self._unix_s
        document = answer.document
        if answer.status in {200, 201}:
            line |= {"reservation": document.get("id"), "state": document.get("state")}
            line |= {"in": document.get("allocation"), "order": document.get("order")}
            line["expires_at"] = _unix(document.get("expires_at"))
        elif answer.word != LOST:
            line["code"] = answer.word
        self._lines.append(json.dumps({name: value for name, value in line.items() if value is not None}).encode())

    def timed(self, call: Call, answer: Heard, free_at: float) -> None:
        """Count an answer: how long it took, from the intent and on the wire, and what made it leave late.

        `free_at`: when its guest had the hands free for it.
        """
        tally, second = self.tally, self.second(call.due)
        tally.took("late", seconds=answer.sent_at - max(call.due, free_at))
        if free_at > call.due:
            tally.took("held up", seconds=free_at - call.due)
        tally.took("intent", call.name, seconds=answer.at - call.due)
        tally.took("wire", call.name, seconds=answer.at - answer.sent_at)
        tally.add("heard", call.name, answer.word)
        if call.name == "press":
            tally.took("press from intent", second, seconds=answer.at - call.due)
            tally.took("press on the wire", second, seconds=answer.at - answer.sent_at)

    def wrong(self, kind: str, why: str) -> None:
        """Count what a customer can have something against; the first of them are told in words."""
        self.tally.add("fault", kind)
        if self._told < EXAMPLES_MAX:
            self._told += 1
            self._examples.append(f"{kind}: {why}")

    def drain(self) -> dict[str, Any]:
        """What has come since the last time, as it is sent to who gathers it."""
        lines, self._lines = self._lines, []
        examples, self._examples = self._examples, []
        return {"lines": b"".join(line + b"\n" for line in lines), "tally": self.tally.drain(), "examples": examples}


def _unix(told: object) -> float | None:
    try:
        return unix_s(str(told)) if told is not None else None
    except ValueError:
        return None
