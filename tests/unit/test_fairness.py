"""Order of arrival against order of grant, against a count of all pairs."""

import random
from itertools import combinations

import pytest

from flashsale.fairness import Orders


def of(presses: list[tuple[int, int]]) -> Orders:
    """Judged in one go."""
    orders = Orders()
    orders.add(sorted(presses))
    return orders


def test_who_came_first_was_served_first() -> None:
    """Nothing is out of order; those of one millisecond are not judged by each other."""
    found = of([(1, 100), (2, 200), (2, 150), (3, 300)]).told()
    assert (found.judged, found.pairs, found.ties, found.out_of_order, found.overtaking) == (4, 5, 1, 0, 0)
    assert (found.p50_ms, found.max_ms) == (0.0, 0.0)
    nothing = Orders().told()
    assert (nothing.judged, nothing.pairs, nothing.max_ms) == (0, 0, 0.0)


def test_who_overtook_is_told_by_how_much() -> None:
    """The last to come was granted 7 ms before the first."""
    found = of([(1, 10_000), (2, 11_000), (3, 12_000), (9, 3_000)]).told()
    assert (found.pairs, found.out_of_order, found.overtaking) == (6, 3, 1)
    assert (found.p50_ms, found.max_ms) == (0.0, 9.0)


@pytest.mark.parametrize("seed", range(20))
def test_it_agrees_with_a_count_of_all_pairs(seed: int) -> None:
    """In whatever pieces the presses come."""
    dice = random.Random(seed)
    presses = sorted((dice.randrange(40), dice.randrange(60_000)) for _ in range(dice.randrange(2, 120)))
    orders, at = Orders(), 0
    while at < len(presses):
        count = dice.randrange(1, 30)
        orders.add(presses[at : at + count])
        at += count
    found = orders.told()
    pairs = [(a, b) for a, b in combinations(presses, 2) if a[0] != b[0]]
    ahead = [max([0, *(g - b[1] for c, g in presses if c < b[0])]) for b in presses]
    assert found.pairs == len(pairs)
    assert found.ties == len(presses) * (len(presses) - 1) // 2 - len(pairs)
    assert found.out_of_order == sum(a[1] > b[1] for a, b in pairs)
    assert found.overtaking == sum(us > 0 for us in ahead)
    assert found.max_ms == max(ahead) / 1_000
