"""`GET /v1/ops/drops/{drop}/live`: server-sent events, a frame for each look at the drop."""

import asyncio
import contextlib
from typing import Final

from aiohttp import web

from flashsale.web.auth import Identity
from flashsale.web.console import READER
from flashsale.web.console_drops import the_drop
from flashsale.web.context import Context
from flashsale.web.routing import Call

AGAIN_MS: Final = 1_000
"""So soon the reader comes back when a stream has ended."""


async def live(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/ops/drops/{drop}/live`. It ends after a while, so that who may no longer read is out by then."""
    drop = await the_drop(request, context)
    async with context.live.joined(drop) as frames:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        with contextlib.suppress(TimeoutError, ConnectionError):  # it is time to end, or nobody is there any more
            async with asyncio.timeout(context.settings.live_stream_s):
                await response.write(b"retry: %d\n\n" % AGAIN_MS)
                async for frame in frames:
                    await response.write(frame)
        return response


CALLS: Final = (
    Call(
        method="GET",
        path="/v1/ops/drops/{drop}/live",
        handler=live,
        summary="The drop as it sells: two frames a second, as server-sent events; it ends after a while, come again",
        access=READER,
        answers={200: "text/event-stream"},
        codes=("not_found",),
    ),
)
