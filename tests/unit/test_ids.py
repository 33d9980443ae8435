"""Ids of reservations."""

import uuid

import pytest

from flashsale.ids import new_ids


def test_ids_are_version_7_distinct_and_in_order_of_time() -> None:
    before, after = new_ids(1000), new_ids(1000)
    parsed = [uuid.UUID(i) for i in before + after]
    assert len(set(parsed)) == 2000
    assert [str(p) for p in parsed] == before + after
    assert before == sorted(before)
    assert {(p.version, p.variant) for p in parsed} == {(7, uuid.RFC_4122)}
    assert max(p.int >> 80 for p in parsed[:1000]) <= min(p.int >> 80 for p in parsed[1000:])


@pytest.mark.parametrize("noise", [bytes(10), b"\xff" * 10, b"\x12" * 8 + b"\xff\xf8"], ids=["least", "most", "carry"])
def test_counting_goes_on_where_the_last_digits_overflow(noise: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is counted is spelled for each: where that runs over, the digits before it move on by one."""
    monkeypatch.setattr("os.urandom", lambda _: noise)
    found = [uuid.UUID(i).int for i in new_ids(70_000)]
    assert found == list(range(found[0], found[0] + 70_000))
    assert {(uuid.UUID(int=i).version, uuid.UUID(int=i).variant) for i in found[::997]} == {(7, uuid.RFC_4122)}
