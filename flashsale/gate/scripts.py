"""The Lua scripts, sent by hash, with their source when the server does not know them yet."""

import hashlib
from importlib.resources import files
from typing import Final

from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from flashsale.gate.client import Client

PASSING: Final = (RedisError, RedisClusterException, OSError)
"""What Redis, its client or the way to it can do wrong (the client's cluster faults are a tree of their own)."""


class Script:
    """One verb of the gate: `lua/<name>.lua`. The hash of the source is its version."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.source = (files(__package__) / "lua" / f"{name}.lua").read_text(encoding="utf-8")
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, client: Client, keys: tuple[str, ...], *args: object) -> object:
        """Run the script.

        NOSCRIPT says that nothing ran, so that sending the source with the same arguments is safe.
        """
        try:
            return await client.execute_command("EVALSHA", self.sha, len(keys), *keys, *args)
        except NoScriptError:
            return await client.execute_command("EVAL", self.source, len(keys), *keys, *args)


NAMES: Final = (
    "decide",
    "take",
    "release",
    "settle",
    "pending",
    "status",
    "arm_begin",
    "arm_chunk",
    "arm_finish",
    "elig_begin",
    "elig_finish",
    "tries",
    "tally",
    "counts",
    "notice",
)
