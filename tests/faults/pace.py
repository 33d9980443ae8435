"""Time that passes in the story, and words for whoever watches."""

import asyncio
import sys

LATE_MAX_S = 600.0


async def lasts(seconds: float) -> None:
    """A shopper thinks, a fault lasts, a link is slow; what is waited for is waited for by its name, not here."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    async with asyncio.timeout(max(0.0, seconds) + LATE_MAX_S):
        while (left_s := until - loop.time()) > 0:
            await asyncio.sleep(left_s)


def stderr(text: str) -> None:
    """How it goes."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def stdout(text: str) -> None:
    """What came of it."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
