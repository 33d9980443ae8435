"""Counting, in a form that adds up over seconds and processes.

A tally is a bag of keys (tuples of words and whole numbers) with how often each was counted. Durations are counted in
buckets that grow by 5 %: their percentiles are exact to that, and those of several processes are those of the sum.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from math import floor, log10
from typing import Any

Key = tuple[str | int, ...]
FLOOR_S = 1e-4
"""Durations below it are counted as it."""
BUCKETS_A_DECADE = 50


def bucket_of(duration_s: float) -> int:
    """The bucket of a duration in seconds."""
    return round(BUCKETS_A_DECADE * log10(max(duration_s, FLOOR_S) / FLOOR_S))


def seconds_of(bucket: int) -> float:
    """What a bucket stands for, seconds."""
    return float(FLOOR_S * 10 ** (bucket / BUCKETS_A_DECADE))


def percentile(buckets: Mapping[int, int], share: float) -> float:
    """The duration within which this share of all was, seconds; 0 when nothing was counted."""
    left = max(1, floor(share * sum(buckets.values()) + 0.999_999))
    for bucket in sorted(buckets):
        left -= buckets[bucket]
        if left <= 0:
            return seconds_of(bucket)
    return 0.0


class Tally:
    """Counts by key."""

    def __init__(self, rows: Iterable[list[Any]] = ()) -> None:
        self._counts: Counter[Key] = Counter()
        self.merge(rows)

    def add(self, *key: str | int, times: int = 1) -> None:
        """Count once more, or `times`."""
        self._counts[key] += times

    def took(self, *key: str | int, seconds: float) -> None:
        """Count a duration."""
        self._counts[*key, bucket_of(seconds)] += 1

    def rows(self) -> list[list[Any]]:
        """Everything as `[*key, times]`, to be sent or written."""
        return [[*key, times] for key, times in self._counts.items()]

    def drain(self) -> list[list[Any]]:
        """`rows`, and begin again at nothing."""
        rows = self.rows()
        self._counts.clear()
        return rows

    def merge(self, rows: Iterable[list[Any]]) -> None:
        """Add the rows of another tally."""
        for row in rows:
            self._counts[tuple(row[:-1])] += row[-1]

    def total(self, *prefix: str | int) -> int:
        """How often keys that begin so were counted."""
        return sum(times for key, times in self._counts.items() if key[: len(prefix)] == prefix)

    def by(self, *prefix: str | int) -> dict[Any, int]:
        """By the part of the key that follows the prefix: how often."""
        found: Counter[Any] = Counter()
        for key, times in self._counts.items():
            if key[: len(prefix)] == prefix and len(key) > len(prefix):
                found[key[len(prefix)]] += times
        return dict(found)
