"""The rules in sentences, and the compact form of a list of members."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsale.domain import MEMBER_MAX, Access, Everyone, Fcode, Points, Tier
from flashsale.eligibility import Eligible, NotEligible, contains, encode_chunk, gate_field, judge

CUTOFF = datetime(2011, 8, 16, tzinfo=timezone(timedelta(hours=8)))
RULE = Points(snapshot="forum-2011", at_least=100)

los = st.integers(0, 999)


@pytest.mark.parametrize(
    ("access", "tier", "points", "detail"),
    [
        (Everyone(), 0, None, None),
        (RULE, 0, 100, None),
        (RULE, 0, MEMBER_MAX, None),
        (RULE, 0, 99, "You had 99 points on 16 Aug 2011; this sale asks for 100."),
        (RULE, 0, 1, "You had 1 point on 16 Aug 2011; this sale asks for 100."),
        (RULE, 9, 0, "You had 0 points on 16 Aug 2011; this sale asks for 100."),
        (RULE, 0, None, "You were not in the points list on 16 Aug 2011; this sale asks for 100 points."),
        (
            Points("forum-2011", 1),
            0,
            None,
            "You were not in the points list on 16 Aug 2011; this sale asks for 1 point.",
        ),
        (Points("forum-2011", 0), 0, 0, None),
        (
            Points("forum-2011", 0),
            0,
            None,
            "You were not in the points list on 16 Aug 2011; this sale asks for an entry in it.",
        ),
        (Tier(at_least=2), 2, None, None),
        (Tier(at_least=2), 3, None, None),
        (Tier(at_least=2), 1, None, "Your tier is 1; this sale asks for tier 2 or higher."),
        (Tier(at_least=0), 0, None, None),
        (Fcode(), 9, 10**6, "This sale asks for an F-code: send yours with the reservation."),
    ],
)
def test_each_rule_lets_in_or_says_why_not(access: Access, tier: int, points: int | None, detail: str | None) -> None:
    """The threshold itself is enough; one less is refused with a sentence that has both figures and the day."""
    expected = Eligible() if detail is None else NotEligible(detail)
    assert judge(access, tier=tier, points=points, cutoff=CUTOFF) == expected


def test_the_day_is_told_in_the_cut_offs_own_zone() -> None:
    """Midnight of 16 August in Beijing is still the 15th in UTC; the operator said the 16th."""
    assert CUTOFF.astimezone(UTC).day == 15
    verdict = judge(RULE, tier=0, points=80, cutoff=CUTOFF)
    assert verdict == NotEligible("You had 80 points on 16 Aug 2011; this sale asks for 100.")


def test_without_a_day_the_cut_off_is_named() -> None:
    """A sentence is possible before the snapshot's own row was read."""
    assert judge(RULE, tier=0, points=80) == NotEligible("You had 80 points at the cut-off; this sale asks for 100.")


@given(st.sets(los, min_size=1))
def test_a_chunk_holds_whom_it_was_made_of_and_nobody_else(members: set[int]) -> None:
    """Over every density, `contains` answers for all thousand numbers."""
    value = encode_chunk(members)
    assert {lo for lo in range(1000) if contains(value, lo)} == members


@given(st.sets(los, min_size=1))
def test_a_chunk_is_the_shorter_form_whatever_the_order(members: set[int]) -> None:
    """A list takes two bytes a member, a bitmap a bit up to its last one; order and repetition change nothing."""
    value = encode_chunk(members)
    as_list, as_bitmap = 1 + 2 * len(members), 1 + max(members) // 8 + 1
    assert len(value) == min(as_list, as_bitmap)
    assert value[:1] == (b"s" if as_list < as_bitmap else b"b")
    assert encode_chunk([*sorted(members, reverse=True), *members]) == value


def test_the_two_forms_byte_by_byte() -> None:
    """The layout that the gate's script reads, spelled out."""
    assert encode_chunk([0, 1, 8]) == b"b\x03\x01"
    assert encode_chunk([999]) == b"s\x03\xe7"
    assert encode_chunk([258, 7]) == b"s\x00\x07\x01\x02"
    assert encode_chunk(range(1000)) == b"b" + b"\xff" * 125


@pytest.mark.parametrize("wrong", [[], [-1], [1000], [5, 1000]])
def test_a_chunk_of_nobody_or_of_numbers_beyond_a_thousand_is_refused(wrong: list[int]) -> None:
    """A field without members is left out instead; larger numbers belong to another field."""
    with pytest.raises(ValueError, match="a chunk holds"):
        encode_chunk(wrong)


@given(st.integers(1, MEMBER_MAX))
def test_field_and_lo_are_the_digits_cut_before_the_last_three(member: int) -> None:
    """What Python divides, the gate's script cuts as text: both find the same field."""
    assert gate_field(member) == (str(member)[:-3], int(str(member)[-3:]))


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        (1, ("", 1)),
        (999, ("", 999)),
        (1000, ("1", 0)),
        (123456, ("123", 456)),
        (MEMBER_MAX, ("9223372036854775", 807)),
    ],
)
def test_the_edges_of_fields(member: int, expected: tuple[str, int]) -> None:
    """The first thousand has the empty name; the last one has sixteen digits."""
    assert gate_field(member) == expected


@pytest.mark.parametrize("wrong", [0, -1, MEMBER_MAX + 1])
def test_what_is_no_member_id_has_no_field(wrong: int) -> None:
    """Zero, negative numbers and more than 63 bits are faults of the caller."""
    with pytest.raises(ValueError, match="a member id is"):
        gate_field(wrong)
