"""Pictures of drops: operators put them in, everybody sees them under a name that is made of their content."""

import asyncio
import hashlib
import re
import struct
from collections import OrderedDict
from functools import partial
from typing import Final

from aiohttp import web

from flashsale.domain import PICTURE_PATTERN
from flashsale.errors import Refused
from flashsale.web.auth import Identity
from flashsale.web.context import Context
from flashsale.web.ops import actor_of
from flashsale.web.page_schemas import PictureOut
from flashsale.web.routing import Call, answer

KEPT_MAX: Final = 64
SIDE_MAX: Final = 4_096
TYPES: Final = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
_FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""Of a JPEG, the segments that tell its size."""


def size_of(content: bytes) -> tuple[str, int, int] | None:
    """Kind, width and height of a picture, read from its first bytes; None: it is none that pages can show."""
    try:
        if content.startswith(b"\x89PNG\r\n\x1a\n") and content[12:16] == b"IHDR":
            return "png", *struct.unpack(">II", content[16:24])
        if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
            return _webp(content)
        if content.startswith(b"\xff\xd8"):
            return _jpeg(content)
    except (struct.error, IndexError):
        pass
    return None


def _webp(content: bytes) -> tuple[str, int, int] | None:
    match content[12:16]:
        case b"VP8 ":
            width, height = struct.unpack("<HH", content[26:30])
            return "webp", width & 0x3FFF, height & 0x3FFF
        case b"VP8L":
            (bits,) = struct.unpack("<I", content[21:25])
            return "webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            width, height = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27))
            return "webp", width, height
        case _:
            return None


def _jpeg(content: bytes) -> tuple[str, int, int] | None:
    at = 2
    while at < len(content):
        mark, kind, length = struct.unpack(">BBH", content[at : at + 4])
        if mark != 0xFF:  # noqa: PLR2004 -- every segment begins with it
            return None
        if kind in _FRAMES:
            height, width = struct.unpack(">HH", content[at + 5 : at + 9])
            return "jpg", width, height
        at += 2 + length
    return None


async def post_picture(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`POST /v1/ops/pictures`: PNG, JPEG or WebP. The same content again is the same picture."""
    most = context.settings.picture_max_bytes
    content = await request.content.read(most + 1) if (request.content_length or 0) <= most else b"x" * (most + 1)
    while len(content) <= most and not request.content.at_eof():
        content += await request.content.read(most + 1 - len(content))
    if len(content) > most:
        raise Refused("too_large", f"The picture has over {most} bytes; send a smaller one, as WebP for example.")
    found = size_of(content)
    if found is None:
        raise Refused("invalid_request", "This is no picture that pages can show; send a PNG, a JPEG or a WebP.")
    kind, width, height = found
    if not (1 <= width <= SIDE_MAX and 1 <= height <= SIDE_MAX):
        raise Refused("invalid_request", f"A picture has at most {SIDE_MAX} pixels a side; this has {width}×{height}.")
    name = f"{hashlib.sha256(content).hexdigest()[:20]}-{width}x{height}.{kind}"
    if not await context.ledger.pages.has_picture(name):
        await context.ledger.pages.put_picture(name, content)
        await context.ledger.drops.note(
            actor=actor_of(caller), action="picture.put", subject=name, detail={"bytes": len(content)}
        )
    return answer(PictureOut(name, width, height, len(content)), 201, {"Location": f"/pictures/{name}"})


class Pictures:
    """The pictures that were asked for last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, asyncio.Future[bytes | None]] = OrderedDict()

    async def get(self, context: Context, name: str) -> bytes | None:
        """A picture; a crowd that asks for the same one costs one look."""
        if re.fullmatch(PICTURE_PATTERN, name) is None:
            return None
        asked = self._kept.get(name)
        if asked is None or (asked.done() and (asked.exception() is not None or asked.result() is None)):
            asked = asyncio.ensure_future(context.ledger.pages.picture(name))
            asked.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._kept[name] = asked
            if len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
        self._kept.move_to_end(name)
        return await asyncio.shield(asked)


PICTURES: Final = web.AppKey("pictures", Pictures)

_call: Final = partial(Call, access="ops")

CALLS: Final = (
    _call(
        method="POST",
        path="/v1/ops/pictures",
        handler=post_picture,
        summary="Put in a picture (PNG, JPEG, WebP), for drops to show",
        body="application/octet-stream",
        answers={201: PictureOut},
    ),
)
