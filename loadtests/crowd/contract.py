"""What may be heard: every verdict with its status, and which of them a call can rightly have as its answer."""

import json
from typing import Any, NamedTuple

from loadtests.http1 import Answer

OK = "ok"
LOST = "no answer"
STATUS = {
    OK: 200,
    "held": 201,
    "again": 200,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_eligible": 403,
    "not_open": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "fcode_spent": 409,
    "member_limit": 409,
    "sold_out": 409,
    "expired": 409,
    "conflict": 409,
    "closed": 410,
    "precondition_failed": 412,
    "too_large": 413,
    "fcode_invalid": 422,
    "invalid_request": 422,
    "idempotency_mismatch": 422,
    "rate_limited": 429,
    "paused": 503,
    "unavailable": 503,
}
REPEATED = frozenset({"not_open", "rate_limited", "paused", "unavailable"})
"""Not verdicts but requests to come again: they say when (Retry-After)."""
BUSY = frozenset({"paused", "unavailable", LOST})
"""What any call may hear while the service or the way to it is in trouble; it is safe to repeat."""


class Call(NamedTuple):
    """One request. `expect`: the words that are right; `name`: under what it is counted; times by `time.monotonic`."""

    name: str
    method: str
    path: str
    expect: frozenset[str]
    due: float
    """When it is meant to be sent: its answer is timed from then, however late it leaves."""
    token: str | None = None
    key: str | None = None
    body: bytes = b""
    lapses_at: float | None = None
    """When what it rests on, a hold, may be over: what is heard from then on is right whatever the word."""


class Heard(NamedTuple):
    """An answer, or that none came (`LOST`). `at`: when it was heard, `sent_at`: when it left, by `time.monotonic`."""

    status: int
    word: str
    document: dict[str, Any]
    retry_after_s: float | None
    sent_at: float
    at: float


def heard(call: Call, answer: Answer | None, sent_at: float, at: float) -> Heard:
    """What an answer says. A 200 is `again` to a press and `ok` to everything else."""
    if answer is None:
        return Heard(0, LOST, {}, None, sent_at, at)
    try:
        found = json.loads(answer.body)
    except ValueError:
        found = None
    document: dict[str, Any] = found if isinstance(found, dict) else {}
    if answer.status in {200, 201}:
        press = call.method == "POST" and call.path.endswith("/reservations")
        word = ("held" if answer.status == 201 else "again") if press else OK
    else:
        word = str(document.get("code", f"http_{answer.status}"))
    return Heard(answer.status, word, document, answer.retry_after_s, sent_at, at)


class Fault(NamedTuple):
    """Why an answer is not right. `kind`: `5xx`, `unknown` or `wrong`."""

    kind: str
    why: str


def fault(call: Call, answer: Heard) -> Fault | None:
    """What is wrong with an answer; None when a customer can have nothing against it. A lost one is not judged."""
    status, word = answer.status, answer.word
    if word == LOST:
        return None
    if status >= 500 and (status != 503 or word not in {"paused", "unavailable"}):
        return Fault("5xx", f"{call.name}: {status} {word}")
    if STATUS.get(word) != status and not (status == 201 and word == OK):
        return Fault("unknown", f"{call.name}: {status} {word} is not in the contract")
    if word in REPEATED and answer.retry_after_s is None:
        return Fault("wrong", f"{call.name}: {word} without Retry-After")
    in_time = call.lapses_at is None or answer.at < call.lapses_at
    if in_time and word not in call.expect and word not in BUSY:
        return Fault("wrong", f"{call.name}: {word} instead of {', '.join(sorted(call.expect))}")
    return None
