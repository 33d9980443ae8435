"""What the calls of the operators' console have in common."""

import re
from datetime import datetime
from typing import Final

import msgspec
from aiohttp import web

from flashsale.domain import Drop, Timestamp
from flashsale.drops import EARLIEST, LATEST, tag_of
from flashsale.errors import Refused
from flashsale.web.routing import Access, Param

READER: Final[Access] = "ops"
"""Who may read all that the console shows."""

TAGS_MAX_CHARS: Final = 2_000
TAGS_PATTERN: Final = r'^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$'
"""What `If-Match` may be: the tags of RFC 9110, those in ASCII."""

IF_MATCH: Final = Param(
    "If-Match",
    "Only if the drop is still as it was read: its `ETag`. Otherwise `precondition_failed`, and nothing is changed.",
    {"type": "string", "maxLength": TAGS_MAX_CHARS, "pattern": TAGS_PATTERN},
    where="header",
)


def tag(drop: Drop) -> dict[str, str]:
    """The header that names what is set up of a drop, whatever is sold meanwhile."""
    return {"ETag": f'"{tag_of(drop)}"'}


def if_match(request: web.Request) -> frozenset[str] | None:
    """The tags of `If-Match`; None when any will do. A weak one matches nothing (RFC 9110, 13.1.1)."""
    text = request.headers.get("If-Match")
    if text is None:
        return None
    if len(text) > TAGS_MAX_CHARS or re.fullmatch(TAGS_PATTERN, text) is None:
        raise Refused("invalid_request", "`If-Match` is the `ETag` of the drop as you read it, in its quotes.")
    if text == "*":
        return None
    return frozenset(found for weak, found in re.findall(r'(W/)?"([!#-~]*)"', text) if not weak)


def query_time(request: web.Request, name: str) -> datetime | None:
    """A time in the query."""
    text = request.query.get(name)
    if text is None:
        return None
    try:
        found: datetime = msgspec.convert(text, Timestamp)
    except msgspec.ValidationError:
        raise Refused(
            "invalid_request",
            f"`{name}` is a time in RFC 3339 with its zone, like 2026-12-31T00:00:00%2B08:00 (a `+` as `%2B`).",
        ) from None
    if not EARLIEST <= found <= LATEST:
        raise Refused("invalid_request", f"`{name}` must lie between {EARLIEST.year} and {LATEST.year}; correct it.")
    return found


def query_number(request: web.Request, name: str, least: int, most: int) -> int | None:
    """A whole number in the query."""
    text = request.query.get(name)
    if text is None:
        return None
    if re.fullmatch("-?[0-9]{1,19}", text) is None or not least <= int(text) <= most:
        raise Refused("invalid_request", f"`{name}` is a whole number from {least} to {most}.")
    return int(text)


def query_switch(request: web.Request, name: str) -> bool:
    """A switch in the query, off when it is not there."""
    text = request.query.get(name, "false")
    if text not in {"true", "false"}:
        raise Refused("invalid_request", f"`{name}` is `true` or `false`.")
    return text == "true"


def time_param(name: str, description: str) -> Param:
    """Declares a time in the query."""
    return Param(name, description, {"type": "string", "format": "date-time"})


def number_param(name: str, description: str, least: int, most: int, *, required: bool = False) -> Param:
    """Declares a whole number in the query."""
    return Param(name, description, {"type": "integer", "minimum": least, "maximum": most}, required=required)
