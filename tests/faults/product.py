"""The product as it runs here: a copy of it, in which one line may be another one (a control).

A copy, so that all processes of a run are of one piece, whatever happens to the checkout meanwhile.
"""

import re
import shutil
from pathlib import Path
from typing import NamedTuple

import fcodes
import flashsale


class Broken(NamedTuple):
    """One line of the product replaced by another, in a file below `flashsale/`; what that must lead to.

    Of several files that `file` matches it is the last one: a migration may define a function anew.
    """

    file: str
    line: str
    instead: str
    shows: str


BROKEN = {
    "release": Broken(
        "gate/lua/release.lua",
        "redis.call('HINCRBY', KEYS[1], 'n:' .. allocation, quantity)",
        "redis.call('HINCRBY', KEYS[1], 'n:' .. allocation, 0)",
        "a unit that was cancelled is never sold again",
    ),
    "release-id": Broken(
        "gate/lua/release.lua",
        "if found ~= '' and string.sub(line, 1, #id + 1) == id .. '\\t' then",
        "if found ~= '' then",
        "a release that is repeated takes the member's next unit as well",
    ),
    "fencing": Broken(
        "ledger/migrations/*.sql",
        "IF v_drop.per_member = 1 AND v_drop.epoch = ALL (p_epochs) AND NOT EXISTS (",
        "IF v_drop.per_member = 1 AND NOT EXISTS (",
        "what a gate granted that was lost since is sold a second time",
    ),
    "outbox": Broken(
        "ledger/sql/outbox.sql",
        "WHERE drop_id = $1 AND NOT gate_released LIMIT $2",
        "WHERE drop_id = $1 AND NOT gate_released AND false LIMIT $2",
        "a unit whose return the gate did not hear of is never sold again",
    ),
}


def copy(to: Path, broken: str | None = None) -> Path:
    """Put the product into `to`, with that line of `BROKEN` replaced; returns `to`."""
    for package in (flashsale, fcodes):
        source = Path(next(iter(package.__path__)))
        shutil.copytree(source, to / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    if broken is not None:
        replace(to / "flashsale", BROKEN[broken])
    return to


def replace(package: Path, broken: Broken) -> None:
    """Replace that one line where it stands last."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(package.glob(broken.file))}
    having = [path for path, text in texts.items() if broken.line in text]
    assert having, f"{broken.file} no longer has the line {broken.line!r}"
    path, text = having[-1], texts[having[-1]]
    found = [m.start() for m in re.finditer(re.escape(broken.line), text)]
    path.write_text(text[: found[-1]] + broken.instead + text[found[-1] + len(broken.line) :], encoding="utf-8")
