"""A shop's endpoint that costs little: it verifies each webhook and notes when which order came first.

A benchmark has its own, because what is measured is the way to it, and the product's own receiver writes each order
down before it answers. Source: Standard Webhooks 1.0.
"""

import asyncio
import base64
import binascii
import contextlib
import hmac
import secrets
from collections.abc import AsyncIterator, Mapping
from time import monotonic

from aiohttp import web
from aiohttp.web_request import BaseRequest

from loadtests.bench.table import Failed

SECRET_BYTES = 32
PREFIX = "whsec_"


def new_secret() -> str:
    """A secret as both sides are told it."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


class Receiver:
    """Accepts what is signed. `arrived` tells when each id came first, by `time.monotonic`, in their order."""

    def __init__(self, secret: str) -> None:
        self._key = base64.b64decode(secret.removeprefix(PREFIX))
        self._wanted = 0
        self._reached = asyncio.Event()
        self.arrived: dict[str, float] = {}
        self.repeated = 0
        self.refused = 0

    async def __call__(self, request: BaseRequest) -> web.Response:
        """One webhook: 204, or 401 when the signature is not its own."""
        body = await request.read()
        message_id = request.headers.get("webhook-id", "")
        if not self._signed(message_id, request.headers, body):
            self.refused += 1
            self._reached.set()
            return web.Response(status=401)
        if message_id in self.arrived:
            self.repeated += 1
        else:
            self.arrived[message_id] = monotonic()
            if len(self.arrived) == self._wanted:
                self._reached.set()
        return web.Response(status=204)

    def _signed(self, message_id: str, headers: Mapping[str, str], body: bytes) -> bool:
        signed = b"%s.%s.%s" % (message_id.encode(), headers.get("webhook-timestamp", "").encode(), body)
        expected = hmac.digest(self._key, signed, "sha256")
        for signature in headers.get("webhook-signature", "").split():
            version, _, text = signature.partition(",")
            with contextlib.suppress(binascii.Error, ValueError):
                if version == "v1" and hmac.compare_digest(base64.b64decode(text), expected):
                    return True
        return False

    async def wait_for(self, count: int, stall_s: float) -> None:
        """Return when so many ids have come; `Failed` when one is not signed, or none comes for `stall_s`."""
        self._wanted = count
        while len(self.arrived) < count and not self.refused:
            came = len(self.arrived)
            self._reached.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(stall_s):
                    await self._reached.wait()
            if len(self.arrived) == came and not self.refused:
                raise Failed(f"{came:,} of {count:,} orders came, then none for {stall_s:g} s")
        if self.refused:
            raise Failed(f"{self.refused:,} webhooks were not signed with the secret")


@contextlib.asynccontextmanager
async def listening(receiver: Receiver) -> AsyncIterator[str]:
    """The URL at which it receives, until the block ends."""
    runner = web.ServerRunner(web.Server(receiver, access_log=None))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()
