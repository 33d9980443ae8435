"""What was asked and heard, one JSON object a line, for the auditor to hold against the stores."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from loadtests.api import unix_s

LOST = 0  # the status of an answer that never came: its effect is unknown


class Asked(NamedTuple):
    """One press: by whom, under which key, for which allocation. Both may be None."""

    member: int
    key: str | None
    allocation: str | None


class Journal:
    """Keeps lines in memory while a sale is in its rush, and writes them when there is time.

    Presses are timed by `time.monotonic`; `unix_s` is what has to be added to make it Unix time, seconds.
    """

    def __init__(self, drop: str, unix_s: float) -> None:
        self._drop = drop
        self._unix_s = unix_s
        self._lines: list[tuple[Asked, float, float | None, int, str, dict[str, Any]]] = []

    def __len__(self) -> int:
        return len(self._lines)

    def answered(
        self, asked: Asked, sent_at: float, *, at: float, status: int, word: str, document: dict[str, Any]
    ) -> None:
        """An answer: when it was asked for and when it came, its status, its word, its document."""
        self._lines.append((asked, sent_at, at, status, word, document))

    def lost(self, asked: Asked, sent_at: float) -> None:
        """An answer that never came."""
        self._lines.append((asked, sent_at, None, LOST, "", {}))

    def write(self, path: Path) -> None:
        """Write all lines."""
        with path.open("w", encoding="utf-8") as file:
            for asked, sent_at, at, status, word, document in self._lines:
                line: dict[str, Any] = {"call": "reserve", "drop": self._drop, **asked._asdict(), "quantity": 1}
                line |= {"sent_at": sent_at + self._unix_s, "status": status}
                if at is not None:
                    line["heard_at"] = at + self._unix_s
                if status in {200, 201}:
                    line |= {"reservation": document.get("id"), "state": document.get("state")}
                    line |= {"in": document.get("allocation"), "expires_at": _ends(document.get("expires_at"))}
                elif word:
                    line["code"] = word
                file.write(json.dumps(line) + "\n")


def _ends(told: object) -> float | None:
    try:
        return unix_s(str(told))
    except ValueError:
        return None
