"""Calling the service in tests: answers with their bodies, bodies that are right, and what a refusal must look like."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from aiohttp import ClientSession
from yarl import URL

Json = dict[str, Any]

# The contract's table, written down once more.
STATUS = {
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


class Answer(msgspec.Struct, frozen=True):
    """What came back."""

    status: int
    body: Json
    headers: dict[str, str]


async def call(
    http: ClientSession,
    method: str,
    path: str | URL,
    headers: Json | None = None,
    **request: Any,  # noqa: ANN401
) -> Answer:
    """Send one request and read its JSON answer; keywords as for aiohttp (`json`, `data`, `params`)."""
    async with http.request(method, path, headers=headers, **request) as response:
        raw = await response.read()
        body = msgspec.json.decode(raw) if raw else {}
        return Answer(response.status, body, {name.lower(): value for name, value in response.headers.items()})


def assert_refused(answer: Answer, code: str, *words: str) -> None:
    """The answer is the problem document of `code`, with a sentence that contains all `words`."""
    assert (answer.body.get("code"), answer.status) == (code, STATUS[code]), answer
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.body["status"] == answer.status
    assert answer.body["type"].endswith(code)
    assert answer.body["title"]
    detail = answer.body["detail"]
    assert detail[0].isupper() or detail[0] == "`" or detail[0].isdigit(), detail
    assert detail.endswith("."), detail
    assert " " in detail, detail
    for word in words:
        assert word in detail, (word, detail)
    assert ("retry-after" in answer.headers) == (answer.status in {429, 503} or code == "not_open")


def at(seconds: float) -> str:
    """A time from now, RFC 3339."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def allocation_body(name: str = "a", quantity: int = 10, **other: object) -> Json:
    """An allocation that is open since a minute, to everyone, unless said otherwise; None leaves a field out."""
    body = {
        "id": name,
        "quantity": quantity,
        "opens_at": at(-60),
        "closes_at": at(3600),
        "access": {"kind": "everyone"},
        **other,
    }
    return {field: value for field, value in body.items() if value is not None}


def drop_body(drop_id: str, *allocations: Json, **other: object) -> Json:
    """A drop to set up; None leaves a field out."""
    body = {
        "id": drop_id,
        "title": "Engineering edition",
        "price": {"amount": 169_900, "currency": "CNY"},
        "allocations": list(allocations) or [allocation_body()],
        **other,
    }
    return {field: value for field, value in body.items() if value is not None}
