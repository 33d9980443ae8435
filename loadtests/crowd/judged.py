"""Whether a run was right: what the load test itself knows, as checks of the same kind as the auditor's."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from loadtests.crowd.tally import Tally, percentile
from loadtests.verify import Check

LATE_SHARE = 0.1
LATE_S_MIN = 0.02
BUSY_PERCENT = 90
BUSY_SECONDS = 2
CROWDED_PERCENT = 100
"""The generator is the bottleneck when of its requests one in a hundred leaves later than `LATE_SHARE` of what the
slowest hundredth takes (and than `LATE_S_MIN`), or one of its processes is busy for so many seconds."""


class Bottleneck(NamedTuple):
    """How late the generator itself was. `why`: None when the figures are the service's own."""

    late_p99_s: float
    late_max_s: float
    lag_p99_s: float
    cpu_percent_max: int
    load_percent_max: int
    """The machine's load average, of its processors: above 100, others wait for them, too."""
    why: str | None


def bottleneck(tally: Tally) -> Bottleneck:
    """What the generator's own lateness says of the figures."""
    late, lag = tally.by("late"), tally.by("lag")
    late_s, press_s = percentile(late, 0.99), percentile(_buckets(tally, "intent", "press"), 0.99)
    percents = [percent for share in tally.by("cpu") for second in tally.by("cpu", share)
                for percent in tally.by("cpu", share, second)]  # fmt: skip
    load = max(tally.by("load"), default=0)
    busy = sum(percent >= BUSY_PERCENT for percent in percents)
    why = None
    if late_s > max(LATE_S_MIN, LATE_SHARE * press_s):
        why = f"one request in a hundred left {late_s * 1000:.0f} ms or more after it was due"
    elif busy >= BUSY_SECONDS:
        why = f"a process of it was at {BUSY_PERCENT} % of a processor or more for {busy} s"
    if why is not None and load > CROWDED_PERCENT:
        why += f", on a machine whose load was {load} % of its processors"
    return Bottleneck(late_s, percentile(late, 1.0), percentile(lag, 0.99), max(percents, default=0), load, why)


def _buckets(tally: Tally, *prefix: str | int) -> Mapping[int, int]:
    return tally.by(*prefix)


def everybody_came(heard: Mapping[str, Any], tally: Tally) -> Check:
    """Every process sent all it had, and every arrival of the schedule came and left."""
    planned, came, left = sum(heard["roles"].values()), tally.total("came"), tally.total("left")
    missing = sorted(set(range(heard["processes"])) - set(heard["done"]))
    why = None
    if heard["interrupted"]:
        why = "the run was ended before its time"
    if missing:
        why = f"process {missing[0]} of {heard['processes']} did not send its last: its journal is not whole"
    elif not why and came < planned:
        why = f"{planned - came:,} of {planned:,} arrivals never came: the generator did not get to them"
    elif not why and left < came:
        why = f"{came - left:,} of {came:,} visits broke off; build/load/locust.log has their tracebacks"
    return Check("every arrival of the schedule came and left", f"{came:,} of {planned:,}", why)


def everybody_heard(tally: Tally) -> Check:
    """Nobody went home without a verdict."""
    given_up, verdicts = tally.total("unanswered"), tally.total("verdict")
    by = ", ".join(f"{times:,} {role}" for role, times in tally.by("unanswered").items())
    return Check(
        "everyone heard a verdict",
        f"{verdicts:,} verdicts",
        f"{given_up:,} had none in time: {by}" if given_up else None,
    )


def no_faults(tally: Tally, examples: Sequence[str]) -> list[Check]:
    """No 5xx but `unavailable` and `paused`, no word that the contract does not have, no answer that is not right."""
    lines = {
        "5xx": "no 5xx but unavailable and paused",
        "unknown": "no verdict that the contract does not have",
        "wrong": "no answer that is not right",
    }
    calls, found = tally.total("intent"), tally.by("fault")
    checks = []
    for kind, line in lines.items():
        times = found.get(kind, 0)
        first = next((text for text in examples if text.startswith(f"{kind}: ")), kind)
        checks.append(Check(line, f"{calls:,} answers", f"{times:,} times, first: {first}" if times else None))
    return checks


def own_checks(heard: Mapping[str, Any], tally: Tally) -> list[Check]:
    """All checks of the load test itself."""
    return [everybody_came(heard, tally), everybody_heard(tally), *no_faults(tally, heard["examples"])]
