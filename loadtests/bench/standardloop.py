"""The product's web process on asyncio's own event loop: what uvloop is worth.

    python -m loadtests.bench.standardloop        (the settings are the product's, in the environment)

Composed of the product's own parts, because no setting of the product chooses the loop, and none should for the sake of
a benchmark. All else is as `flashsale serve` has it: server program, counts shared through files, log lines.
"""

import os

from aiohttp import web

from flashsale.settings import load
from loadtests.bench.serving import STANDARD_LOOP, Served


def main() -> None:
    """Serve until stopped by a signal."""
    settings = load(os.environ)

    async def make() -> web.AppRunner:
        from flashsale.log import configure  # noqa: PLC0415 -- as in `flashsale serve`: after the fork
        from flashsale.web.app import make_runner  # noqa: PLC0415 -- as said

        configure(settings.log_format)
        return await make_runner(settings)

    Served(settings.port, make, STANDARD_LOOP).run()


if __name__ == "__main__":
    main()
