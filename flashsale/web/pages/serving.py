"""Sending bytes that are the same for everybody: with a tag, compressed once, and 304 to who has them already."""

import gzip
import hashlib
from collections.abc import Mapping

import msgspec
from aiohttp import web

COMPRESS_MIN_BYTES = 512


class Body(msgspec.Struct, frozen=True):
    """What is sent: `packed` is the same by gzip, None where that saves nothing. `tag` goes by the content."""

    content: bytes
    packed: bytes | None
    content_type: str
    tag: str


def body_of(content: bytes, content_type: str) -> Body:
    """Prepare what is to be sent any number of times."""
    packed = None
    if len(content) >= COMPRESS_MIN_BYTES and not content_type.startswith(("image/png", "image/jpeg", "image/webp")):
        packed = gzip.compress(content, 9, mtime=0)
    return Body(content, packed, content_type, hashlib.blake2b(content, digest_size=12).hexdigest())


def send(
    request: web.Request, body: Body, headers: Mapping[str, str], *, cache: str, status: int = 200
) -> web.Response:
    """The answer to this request."""
    packed = body.packed if "gzip" in request.headers.get("Accept-Encoding", "") else None
    tag = f'"{body.tag}"' if packed is None else f'"{body.tag}-gzip"'
    known = {t.strip().removeprefix("W/") for t in request.headers.get("If-None-Match", "").split(",")}
    own = {**headers, "Cache-Control": cache, "ETag": tag, "Vary": "Accept-Encoding"}
    if status == 200 and (tag in known or "*" in known):  # noqa: PLR2004
        return web.Response(status=304, headers=own)
    if packed is not None:
        own["Content-Encoding"] = "gzip"
    own["Content-Type"] = body.content_type
    return web.Response(status=status, body=body.content if packed is None else packed, headers=own)
