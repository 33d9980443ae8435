"""By which seed each safeguard is found missing, and as which broken invariant.

A change of the product, or of what schedules are made of, changes every schedule: `python -m tests.simulation
--controls` looks for these invariants anew, and prints this table.
"""

from typing import Final

SEEDS: Final[dict[str, tuple[int, str]]] = {
    "replid": (6, "I1"),
    "sentinel": (16, "I1"),
    "arm_verify": (526, "I1"),
    "release_by_id": (1, "I1"),
    "rebuild_wipes_pending": (609, "I1"),
    "fence": (16, "I1"),
    "second_lock": (122, "I2"),
    "fence_atomic": (30, "I14"),
    "epoch_from_gate": (62, "I14"),
    "bump_first": (289, "I14"),
    "one_snapshot": (761, "I1"),
    "done_if_epoch": (235, "I1"),
    "tombstone": (12, "I1"),
    "again_via_ledger": (16, "I3"),
    "unknown_retry": (96, "I1"),
    "unknown_not_released": (2, "I1"),
    "confirm_guard": (2, "I9"),
    "pause_bump": (30, "I14"),
    "resize_bump": (2, "I1"),
    "janitor": (1, "I16"),
    "outbox": (1, "I16"),
    "rearm": (0, "I16"),
    "ledger_first": (1, "I1"),
    "min_epoch": (0, "I11"),
    "keeps_place": (18, "I1"),
    "sent_before_settled": (13, "I13"),
    "job_in_transaction": (2, "I13"),
    "id_once": (332, "I8"),
    "gate_clock": (4, "I10"),
    "release line: the janitor releases what lives": (2, "I1"),
    "release line: the janitor settles what is void": (12, "I1"),
    "release line: a return frees place and code": (18, "I1"),
    "fencing line: a rebuild takes no new epoch": (16, "I1"),
    "fencing line: a cancel is done under any epoch": (363, "I1"),
    "outbox line: nothing is ever done": (1, "I16"),
    "outbox line: a return frees its place": (244, "I1"),
    "outbox line: a return frees its code": (121, "I6"),
    "outbox line: done before the gate was told": (1, "I1"),
    "answer line: a hold that has ended is the same one again": (37, "I8"),
    "answer line: another payload under the same key": (46, "I8"),
    "order line: a delivery is not written down": (0, "I13"),
}
