"""A circuit breaker (Nygard, "Release It!"): after failures in a row, nothing is sent for a while; then one probe.

A library would do the counting, but what is paced here is the taking of jobs from a queue, before a call exists that
it could wrap; and the waiting must end at a shutdown.
"""

from collections.abc import Callable
from typing import Final

FAILURES_MAX: Final = 5
BASE_S: Final = 1.0
MAX_S: Final = 20.0
"""What comes back is noticed within this: everything settles within 30 s after a fault (I16)."""


class Circuit:
    """Counts how calls end. `now` is a monotonic clock in seconds; `jitter` gives numbers in [0, 1).

    It opens after `failures_max` failures in a row, for `base_s`; after each failed probe for twice as long, `max_s` at
    most, each time shortened by up to a quarter, so that the workers of an endpoint do not all probe it at once.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float],
        jitter: Callable[[], float],
        failures_max: int = FAILURES_MAX,
        base_s: float = BASE_S,
        max_s: float = MAX_S,
    ) -> None:
        self._now = now
        self._jitter = jitter
        self._failures_max = failures_max
        self._base_s = base_s
        self._max_s = max_s
        self._failures = 0
        self._opened = 0
        self._until: float | None = None
        self._probing = False

    def admit(self) -> bool:
        """Whether a call may be made now: any while it is closed, and after a pause one probe at a time.

        A probe that nobody hears of again is followed by another one after `base_s`.
        """
        if self._until is None:
            return True
        if self.wait_s > 0:
            return False
        self._until, self._probing = self._now() + self._base_s, True
        return True

    @property
    def closed(self) -> bool:
        """Whether calls may be made without restraint."""
        return self._until is None

    @property
    def wait_s(self) -> float:
        """How long until the next call, or probe, may be made; 0: now."""
        return 0.0 if self._until is None else max(0.0, self._until - self._now())

    def note(self, *, ok: bool) -> None:
        """A call ended well or not. Failures of calls that began before it opened change nothing any more."""
        probing, self._probing = self._probing, False
        if ok:
            self._failures, self._opened, self._until = 0, 0, None
            return
        self._failures += 1
        if self._failures >= self._failures_max and (probing or self.wait_s == 0):
            pause_s = min(self._max_s, self._base_s * 2**self._opened)
            self._opened = min(self._opened + 1, 32)
            self._until = self._now() + pause_s * (1 - self._jitter() / 4)
