"""The circuit: open after failures in a row, then one probe at a time, each pause longer, and closed by a success."""

import pytest

from flashsale.circuit import Circuit


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def circuit(clock: Clock) -> Circuit:
    """Opens after two failures, for 1, 2 and then 4 seconds at most."""
    return Circuit(now=clock, jitter=lambda: 0.0, failures_max=2, base_s=1.0, max_s=4.0)


def fail(circuit: Circuit, times: int = 1) -> None:
    for _ in range(times):
        circuit.note(ok=False)


def test_single_failures_between_successes_change_nothing(circuit: Circuit) -> None:
    for _ in range(10):
        fail(circuit)
        circuit.note(ok=True)
    assert circuit.closed
    assert circuit.admit()


def test_failures_in_a_row_open_it_for_a_while(circuit: Circuit, clock: Clock) -> None:
    fail(circuit, 2)
    assert not circuit.closed
    assert circuit.wait_s == 1.0
    assert not circuit.admit()
    clock.at += 1.0
    assert circuit.admit()


def test_one_probe_at_a_time(circuit: Circuit, clock: Clock) -> None:
    """Of a crowd that waits for the pause to end, one goes; when nothing is heard of it, another one after a while."""
    fail(circuit, 2)
    clock.at += 1.0
    assert [circuit.admit() for _ in range(3)] == [True, False, False]
    clock.at += 1.0
    assert [circuit.admit() for _ in range(3)] == [True, False, False]


def test_each_failed_probe_makes_the_pause_longer_up_to_a_limit(circuit: Circuit, clock: Clock) -> None:
    fail(circuit, 2)
    pauses = []
    for _ in range(5):
        pauses.append(circuit.wait_s)
        clock.at += circuit.wait_s
        assert circuit.admit()
        fail(circuit)
    assert pauses == [1.0, 2.0, 4.0, 4.0, 4.0]


def test_calls_that_began_before_it_opened_make_no_pause_longer(circuit: Circuit) -> None:
    fail(circuit, 10)
    assert circuit.wait_s == 1.0


def test_a_success_closes_it_and_the_pauses_begin_anew(circuit: Circuit, clock: Clock) -> None:
    fail(circuit, 2)
    clock.at += 1.0
    assert circuit.admit()
    fail(circuit)
    clock.at += 2.0
    assert circuit.admit()
    circuit.note(ok=True)
    assert circuit.closed
    assert [circuit.admit() for _ in range(3)] == [True, True, True]
    fail(circuit, 2)
    assert circuit.wait_s == 1.0


def test_pauses_are_spread(clock: Clock) -> None:
    """Processes that lost their store together do not all probe it at once."""
    circuit = Circuit(now=clock, jitter=lambda: 1.0, failures_max=1, base_s=1.0, max_s=4.0)
    fail(circuit)
    assert circuit.wait_s == 0.75
