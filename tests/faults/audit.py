"""The auditor's verdict on drops: `flashsale audit`, run as its users run it, on a product that nobody broke."""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from flashsale.supervise import Program
from tests.faults.world import World

AT_ONCE_MAX: Final = 2
TIMEOUT_S: Final = 120.0
UNSOLD_S: Final = 45.0
"""Faults that overlap keep the gate from hearing of free units for longer than a sale without faults ever would."""


class Finding(NamedTuple):
    """Contradictions to one invariant: the first of them in words, and how many there are."""

    invariant: str
    what: str
    times: int = 1


async def drops(world: World, auditor: Program, names: list[str], journal: Path, *, settle_s: float) -> list[Finding]:
    """What the auditor finds against these drops, after waiting for rest for `settle_s` at most."""
    slots = asyncio.Semaphore(AT_ONCE_MAX)

    async def one(name: str) -> list[Finding]:
        async with slots:
            return await _audited(world, auditor, name, journal, settle_s)

    return [finding for found in await asyncio.gather(*(one(name) for name in names)) for finding in found]


async def _audited(world: World, auditor: Program, drop: str, journal: Path, settle_s: float) -> list[Finding]:
    stores = ("--redis-url", world.gates.url, "--database-url", world.database_url)
    limits = ("--settle-s", str(settle_s), "--unsold-s", str(UNSOLD_S))
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            *auditor.argv,
            "audit",
            drop,
            *("--journal", str(journal), *stores, *limits, "--json"),
            env=dict(auditor.env),
            cwd=auditor.cwd,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode not in {0, 1}:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()
            return [Finding("audit", f"{drop}: exit code {process.returncode}: {said[-500:]}")]
    findings = [
        Finding(check["invariant"], f"{drop}: {check['line']}: {check['contradiction']}", check["contradictions"])
        for check in json.loads(output)["checks"]
        if check["contradictions"]
    ]
    if bool(findings) != bool(process.returncode):
        findings.append(Finding("audit", f"{drop}: exit code {process.returncode} with {len(findings)} contradictions"))
    return findings
