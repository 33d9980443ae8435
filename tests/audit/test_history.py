"""What was in force when, and when units lay free: out of steps, by hand."""

import pytest

from flashsale.audit.codes import number_of
from flashsale.audit.history import Free, Steps
from flashsale.audit.report import clock, uuid_bytes, uuid_text


def test_a_value_changes_at_known_times() -> None:
    """Before its first step it is what it began with; unknown stays unknown until it is set."""
    steps = Steps(5)
    steps.step(100, None)
    steps.step(200, 7)
    assert [steps.at(when) for when in (-10, 99, 100, 199, 200, 1_000)] == [5, 5, None, None, 7, 7]
    assert (steps.last, steps.all) == (7, None)
    assert Steps(5).all == [5]


def test_free_units_are_counted_from_the_opening_and_anew_after_each_sale() -> None:
    """Spans that touch are one; before the opening there are none; a sale ends one and begins the next."""
    free = Free(opened=100)
    free.add(0, 50)
    free.add(80, 120)
    free.add(120, 130)
    free.sold()
    free.add(130, 150)
    free.add(200, 210)
    spans = [free.span(when) for when in (90, 100, 129, 130, 149, 150, 205, 210)]
    assert spans == [None, (100, 130), (100, 130), (130, 150), (130, 150), None, (200, 210), None]
    assert free.longest() == 30


@pytest.mark.parametrize(
    ("given", "number"),
    [
        (None, None),
        (29_360_129, 29_360_129),
        ("29360129", 29_360_129),
        ("0000-0000-0000-0000-0000", 0),
        ("0007-0000-8W96-TQ6S-4D8C", 29_360_129),
        ("ooo7 oooo 8w96 tq6s 4d8c", 29_360_129),
        ("ZZZZ-ZZZZ-RCH8-8AY9-V348", 2**42 - 1),
        ("no code", None),
    ],
)
def test_a_code_is_read_as_a_number_or_as_it_was_typed(given: int | str | None, number: int | None) -> None:
    """The upper 42 of its hundred bits are batch and serial."""
    assert number_of(given) == number


def test_ids_and_times_are_spelled_as_everybody_does() -> None:
    name = "0198f000-0000-7000-8000-000000000001"
    assert uuid_bytes(name.replace("-", "").upper()) == uuid_bytes(name)
    assert uuid_text(uuid_bytes(name) or b"") == name
    assert (uuid_bytes("nonsense"), uuid_bytes("00")) == (None, None)
    assert clock(1_700_000_000_000_001) == "2023-11-14T22:13:20.000001Z"
