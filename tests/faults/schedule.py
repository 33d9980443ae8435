"""Which faults strike when: drawn from the seed, spread over rounds, so that several strike at once.

What belongs together (the gate's servers and the ways to them; the ledger's; the web processes; …) is a lane: its
faults strike one after the other, and the lanes go on side by side.
"""

from collections.abc import Collection
from random import Random
from typing import NamedTuple

from tests.faults import on_gate, on_ledger, on_processes, on_wires
from tests.faults.gates import Stage
from tests.faults.hit import KINDS, Kind

assert all((on_gate, on_ledger, on_processes, on_wires))  # imported for what they register

STAGES: tuple[Stage, ...] = ("single", "sentinel", "cluster")
STRIKES_A_LANE_MAX = 9
"""In one round: after about a minute, everything comes to rest and is audited."""
GAP_S = (0.4, 4.0)
COMPANY = 2
"""How often a fault that has its place on another stage strikes on this one, too."""


class Planned(NamedTuple):
    """A strike to come: its fault, how long after the one before it in its lane, and what its own chances come from."""

    kind: Kind
    after_s: float
    seed: int


Round = dict[str, list[Planned]]
"""By lane, what strikes."""


def plan(
    seed: int, stage: Stage, each: int, *, only: Collection[str] = (), without: Collection[str] = ()
) -> list[Round]:
    """The rounds of a stage: each fault that has its place there `each` times, others of it a few times."""
    random = Random(f"{seed} {stage}")
    lanes: dict[str, list[Kind]] = {}
    for kind in KINDS.values():
        if stage in kind.stages and kind.name not in without and (not only or kind.name in only):
            times = each if stage == kind.stages[0] else min(each, COMPANY)
            (lane,) = kind.needs
            lanes.setdefault(lane, []).extend([kind] * times)
    if not any(stage == kind.stages[0] for lane in lanes.values() for kind in lane):
        return []
    for deck in lanes.values():
        random.shuffle(deck)
    count = max(-(-len(deck) // STRIKES_A_LANE_MAX) for deck in lanes.values())
    rounds = []
    for number in range(count):
        strikes = {}
        for lane, deck in lanes.items():
            part = deck[len(deck) * number // count : len(deck) * (number + 1) // count]
            strikes[lane] = [Planned(kind, random.uniform(*GAP_S), random.getrandbits(64)) for kind in part]
        rounds.append(strikes)
    return rounds
