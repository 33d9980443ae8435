"""The product with one line of its own source broken: to show that schedules notice it.

A module's source is read, one line of it replaced, and the whole loaded as an edition of its own; the parts that it
defines take the places of the sound ones in a `Build`. The product's modules themselves stay as they are.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from tests.simulation.processes import Build

PARTS: Final = {
    "flashsale.reservations": {"reservations": "Reservations"},
    "flashsale.reconcile": {"arming": "Arming", "reconciler": "Reconciler"},
    "flashsale.drops": {"operations": "Operations"},
    "flashsale.orders": {"deliveries": "Deliveries"},
    "flashsale.batches": {"batches": "Batches"},
    "flashsale.catalog": {"catalog": "Catalog"},
}


USED: Final = {
    "flashsale.stripes": ("Stripes", ("flashsale.reservations",)),
    "flashsale.leases": ("Leases", ("flashsale.reservations",)),
    "flashsale.gate.whole": ("whole", ("flashsale.reservations", "flashsale.reconcile", "flashsale.drops")),
}
"""What is no part by itself: under which name, and by which modules, it is used."""


@dataclass(frozen=True)
class Broken:
    """A line of a module, and what stands there instead."""

    module: str
    line: str
    instead: str


def edition(broken: Broken) -> ModuleType:
    """The module with that line broken. The line must be there, once, as a whole; an empty one: as it is."""
    spec = importlib.util.find_spec(broken.module)
    assert spec is not None
    assert spec.origin is not None
    lines = Path(spec.origin).read_text(encoding="utf-8").splitlines()
    if broken.line:
        at = [number for number, line in enumerate(lines) if line.strip() == broken.line]
        assert len(at) == 1, f"{broken.module} has {len(at)} times the line {broken.line!r}"
        indent = lines[at[0]][: -len(lines[at[0]].lstrip())]
        lines[at[0]] = indent + broken.instead
    module = ModuleType(broken.module)
    module.__file__ = spec.origin
    exec(compile("\n".join(lines), f"{spec.origin} (broken)", "exec"), module.__dict__)  # noqa: S102 -- our own source
    return module


def build_with(broken: Broken) -> Build:
    """The product put together with that edition of one module; what uses it is an edition of its own, too."""
    module, build = edition(broken), Build()
    if broken.module not in USED:
        _take_parts(build, module, broken.module)
        return build
    name, users = USED[broken.module]
    for user in users:
        again = edition(Broken(user, "", ""))
        assert name in again.__dict__, f"{user} does not use {name}"
        again.__dict__[name] = module if broken.module.endswith(f".{name}") else module.__dict__[name]
        _take_parts(build, again, user)
    return build


def _take_parts(build: Build, module: ModuleType, name: str) -> None:
    for place, part in PARTS[name].items():
        found: Any = getattr(module, part)
        setattr(build, place, found)
