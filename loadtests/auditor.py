"""The product's own auditor, `flashsale audit`, in a process of its own: it reads both stores and the journal."""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtests.verify import Check

AUDITED = "the auditor has read both stores"
MORE_TIMEOUT_S = 600.0  # beyond its waiting for rest: it reads everything that there is


async def audited(
    drop: str, journals: Sequence[Path], *, redis_url: str, database_url: str, settle_s: float
) -> list[Check]:
    """Its lines. An auditor that cannot look makes a line that is not true. `settle_s`: how long it waits for rest."""
    environ = os.environ | {"FLASHSALE_REDIS_URL": redis_url, "FLASHSALE_DATABASE_URL": database_url}
    command = ["audit", drop, "--json", "--settle-s", f"{settle_s:g}"]
    for journal in journals:
        command += ["--journal", str(journal)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "flashsale", *command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environ,
    )
    try:
        async with asyncio.timeout(settle_s + MORE_TIMEOUT_S):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return [Check(AUDITED, "", f"it was not done within {settle_s + MORE_TIMEOUT_S:g} s")]
    return read(out, err.decode(errors="replace"))


def read(out: bytes, err: str) -> list[Check]:
    """The auditor's document as checks, and whether it really looked as one more."""
    try:
        found: dict[str, Any] = json.loads(out)
        checks = [
            Check(f"{c['invariant']} {c['line']}", c["found"], c["contradiction"], judged=c["judged"])
            for c in found["checks"]
        ]
        looked = found["stores_read"] and (found["true"] or not all(check.true for check in checks))
        why = None if looked else f"it says {found['true']}: {found['contradiction']}; {'; '.join(found['notes'])}"
    except (ValueError, KeyError, TypeError):
        said = (err or out.decode(errors="replace")).strip().splitlines() or ["it said nothing"]
        return [Check(AUDITED, "", said[-1])]
    return [*checks, Check(AUDITED, f"{len(checks)} checks", why)]
