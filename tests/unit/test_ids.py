"""Ids of reservations."""

import uuid

from flashsale.ids import new_ids


def test_ids_are_version_7_distinct_and_in_order_of_time() -> None:
    before, after = new_ids(1000), new_ids(1000)
    parsed = [uuid.UUID(i) for i in before + after]
    assert len(set(parsed)) == 2000
    assert [str(p) for p in parsed] == before + after
    assert before == sorted(before)
    assert {(p.version, p.variant) for p in parsed} == {(7, uuid.RFC_4122)}
    assert max(p.int >> 80 for p in parsed[:1000]) <= min(p.int >> 80 for p in parsed[1000:])
