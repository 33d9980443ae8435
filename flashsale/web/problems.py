"""Problem documents (RFC 9457): every refusal and fault as the answer a client reads."""

import random
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web
from aiohttp.web_request import BaseRequest

from flashsale import metrics
from flashsale.errors import Refused, Unauthenticated, Unavailable
from flashsale.web.prepared import Prepared, Template

log = structlog.get_logger()

STATUS: Final = {
    "invalid_request": 422,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_eligible": 403,
    "not_open": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "sold_out": 409,
    "fcode_spent": 409,
    "member_limit": 409,
    "expired": 409,
    "conflict": 409,
    "closed": 410,
    "precondition_failed": 412,
    "too_large": 413,
    "fcode_invalid": 422,
    "idempotency_mismatch": 422,
    "rate_limited": 429,
    "paused": 503,
    "unavailable": 503,
}
"""The contract's codes and their HTTP status."""

TITLES: Final = {
    "invalid_request": "The request is not valid",
    "unauthenticated": "No valid token",
    "forbidden": "Not allowed with this token",
    "not_eligible": "Not eligible",
    "not_open": "Not open yet",
    "not_found": "Not found",
    "method_not_allowed": "Method not allowed",
    "sold_out": "Sold out",
    "fcode_spent": "F-code already used",
    "member_limit": "Member limit reached",
    "expired": "The hold has expired",
    "conflict": "Conflict",
    "closed": "Closed",
    "precondition_failed": "Changed since it was read",
    "too_large": "Too large",
    "fcode_invalid": "F-code not valid",
    "idempotency_mismatch": "Key used for another request",
    "rate_limited": "Too many tries",
    "paused": "Paused",
    "unavailable": "Unavailable for the moment",
}

CONTENT_TYPE: Final = "application/problem+json"
_encode: Final = msgspec.json.Encoder().encode


def document(code: str, detail: str, **extra: object) -> bytes:
    """The problem document of a code."""
    known = {"type": f"urn:flashsale:problem:{code}", "title": TITLES[code], "status": STATUS[code]}
    return _encode({**known, "detail": detail, "code": code, **extra})


def spread_s(retry_after_s: int) -> int:
    """When to come back: a crowd that was turned away together must not return together."""
    return retry_after_s + random.randrange(retry_after_s + 1)  # noqa: S311 -- spreads, and keeps nothing secret


def problem(code: str, detail: str, retry_after_s: int | None = None, **extra: object) -> web.Response:
    """The answer for a code. With `retry_after_s`, or for a 429 or 503, it says when to come back."""
    response = web.Response(status=STATUS[code], body=document(code, detail, **extra), content_type=CONTENT_TYPE)
    if retry_after_s is None and STATUS[code] in {429, 503}:
        retry_after_s = 1
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(retry_after_s)
    if code == "unauthenticated":
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def of_error(error: Exception) -> web.Response:
    """The answer for an exception that a handler let through."""
    match error:
        case Refused(code=code, detail=detail, extra=extra):
            return problem(code, detail, None, **extra)
        case Unauthenticated(detail=detail):
            return problem("unauthenticated", detail)
        case Unavailable(detail=detail, retry_after_s=retry_after_s):
            metrics.unavailable.labels(type(error).__name__).inc()
            return problem("unavailable", detail, retry_after_s=spread_s(retry_after_s))
        case web.HTTPException():
            return _of_http(error)
        case web.RequestPayloadError():
            return problem("invalid_request", "The body broke off or is not packed as its headers say; send it again.")
        case _:
            log.error("request.failed", exc_info=error)
            return problem("unavailable", "Something went wrong on our side; repeating the same request is safe.")


def prepared(error: Exception) -> Prepared:
    """The same as bytes, for who answers without aiohttp's response."""
    response = of_error(error)
    headers = {name: value for name, value in response.headers.items() if name != "Content-Type"}
    assert isinstance(response.body, bytes)
    return Template(response.status, response.headers["Content-Type"], **headers).answer(response.body)


def _of_http(error: web.HTTPException) -> web.Response:
    match error:
        case web.HTTPRequestEntityTooLarge():
            return problem("too_large", "The body is larger than this call takes; send less.")
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            response = problem("method_not_allowed", f"{error.method} does not work here; use {allowed}.")
            response.headers["Allow"] = allowed
            return response
        case web.HTTPNotFound():
            return problem("not_found", "There is nothing at this address; /openapi.json lists all calls.")
        case _:
            return problem("invalid_request", f"{error.reason}.")


def answer_to(request: BaseRequest, error: Exception) -> web.Response:
    """The same, for this very request."""
    response = of_error(error)
    if isinstance(error, web.RequestPayloadError):  # where the next request begins cannot be told: read no further
        response.force_close()
        request.content.feed_eof()
    return response


Handler = Any


@web.middleware
async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The one place where faults and refusals become HTTP."""
    try:
        response: web.StreamResponse = await handler(request)
    except Exception as error:  # noqa: BLE001 -- the last line before the client: nothing may leave without an answer
        return answer_to(request, error)
    return response
