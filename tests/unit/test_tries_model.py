"""Whatever two processes and their store go through, a plain record of the failures explains who is blocked."""

import contextlib

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flashsale.errors import Unavailable
from flashsale.tries import Blocked
from tests.unit.failed_tries import Clock, Store, fail, process

LIMIT = 4
SPAN_S = 10.0
MEMBERS = (1, 2, 3)


class Windows(RuleBasedStateMachine):
    """Two processes and a store, beside a record of every failure: who, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = Store(self.clock)
        self.processes = [process(self.store, member_max=LIMIT, window_s=SPAN_S) for _ in range(2)]
        self.failures: list[tuple[int, float]] = []
        self.some_count_twice = False

    @rule(at=st.integers(0, 1), member=st.sampled_from(MEMBERS), times=st.integers(1, 4))
    def fails(self, at: int, member: int, times: int) -> None:
        fail(self.processes[at], times, member, None)
        self.failures += [(member, self.clock())] * times

    @rule(seconds=st.sampled_from([0.5, 3.0, 9.5, 10.0, 25.0]))
    def waits(self, seconds: float) -> None:
        self.clock.now_s += seconds

    @rule(at=st.integers(0, 1))
    def exchanges(self, at: int) -> None:
        step = self.processes[at].run_once()
        with contextlib.suppress(StopIteration, Unavailable):
            step.send(None)  # this store answers at once, and `Tries` itself waits for nothing
            raise AssertionError("run_once() waits for something")

    @rule(at=st.integers(0, 1))
    def exchanges_while_the_store_is_away(self, at: int) -> None:
        self.store.away = True
        self.exchanges(at)
        self.store.away = False

    @rule(at=st.integers(0, 1))
    def exchanges_and_loses_the_reply(self, at: int) -> None:
        calls = len(self.store.calls)
        self.store.reply_is_lost = True
        self.exchanges(at)
        self.store.reply_is_lost = False
        self.some_count_twice |= len(self.store.calls) > calls

    def failed_within(self, member: int, seconds: float) -> int:
        return sum(1 for who, at_s in self.failures if who == member and at_s > self.clock() - seconds)

    @invariant()
    def nobody_is_blocked_without_reason_or_for_longer_than_a_window(self) -> None:
        """A failure may be told late in its process's window, and then counts in one of the store's that ends later."""
        for one in self.processes:
            for member in MEMBERS:
                found = one.blocked_s(member, None)
                assert found is None or 0 < found.member_s <= SPAN_S
                assert found is None or self.some_count_twice or self.failed_within(member, 2 * SPAN_S) >= LIMIT

    @rule()
    def all_agree_after_two_exchanges_of_each(self) -> None:
        """Nothing was lost, and whoever is at the limit is blocked wherever it came near, until the same moment."""
        for at in (0, 1, 0, 1):
            self.exchanges(at)
        for member in MEMBERS:
            total, ends_s = self.store.windows.get(f"m:{member}", (0, 0.0))
            now_s, ever = self.clock(), self.failed_within(member, float("inf"))
            if ever == self.failed_within(member, SPAN_S):
                assert total >= min(LIMIT, ever)
                assert total <= ever or self.some_count_twice
            for one in self.processes:
                found, known = one.blocked_s(member, None), one._members.known.get(member)
                if known is None or known.ends_s <= now_s:
                    assert found is None
                elif ends_s > now_s and not known.full:
                    assert (found, known.count < LIMIT) == (None, True)
                    assert known.count == total or known.count < LIMIT / 2
                elif ends_s > now_s:
                    assert found == Blocked(member_s=ends_s - now_s, address_s=0)


TestWindows = Windows.TestCase
TestWindows.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
