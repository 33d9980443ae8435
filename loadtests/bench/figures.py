"""Keeps each version's figures in `loadtests/figures.txt`, oldest first, so that a change can be held against them.

An entry is a line `== <version> (<commit>) · <when> · <how long> · <which rows>`, what it was measured on, and the
table as it was printed. The file lies beside the tool that writes it; it is a text, so that diff compares two versions.
"""

import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from loadtests.bench.table import Row, table_text

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "loadtests" / "figures.txt"
MARK = "== "


def version(root: Path = ROOT) -> str:
    """What was measured: the project's version, and its commit where it can be told; `-dirty` with changes since."""
    declared = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    try:
        told = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--tags", "--dirty"],  # noqa: S607  # the system's own
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return f"{declared} (no commit known)"
    return f"{declared} ({told.stdout.strip()})"


def entry(
    *, what: str, at: datetime, how: str, names: Sequence[str], about: Mapping[str, str], rows: Sequence[Row]
) -> str:
    """One entry; `names` are the rows that were asked for, none when all were."""
    which = f"only {', '.join(names)}" if names else "all rows"
    when = at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    lines = [f"{MARK}{what} · {when} · {how} · {which}", *about.values(), "", table_text([*rows]).rstrip("\n")]
    return "\n".join(lines) + "\n"


def keep(path: Path, text: str) -> None:
    """Append an entry, an empty line before it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{text}")
