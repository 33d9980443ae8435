"""The crowd before it comes: schedules, roles, and what no two processes may share."""

import dataclasses
import json
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from fcodes import Keys, NotOurs, Typo, mint, new_master, read
from flashsale.audit.codes import number_of as audited_number
from flashsale.web.problems import STATUS
from loadtests.crowd import contract
from loadtests.crowd.codes import ALPHABET, TYPO_EVERY, check_symbol, forgeries, number_of
from loadtests.crowd.gathering import Gathering, opened
from loadtests.crowd.guests import FAN_POINTS, HOSTILE, MIX, Guest, Sale, arrivals, roles
from loadtests.crowd.options import Options
from loadtests.crowd.roles import ROLES
from loadtests.crowd.staging import carried, read_tokens, seated
from loadtests.crowd.tally import Tally, bucket_of, percentile, seconds_of
from loadtests.errors import SetupError
from loadtests.shapes import LOOK_BEFORE_S, SHAPES, schedule, share

SECRET = "a secret of at least thirty-two bytes"
SALE = Sale("run", "drop", "http://127.0.0.1:1", "noon", 100, 10, 1e9, 10.0, 2.0, 5.0, 1)


@pytest.mark.parametrize("shoppers", [1, 7, 300, 10_000])
@pytest.mark.parametrize("seed", range(3))
def test_noon_has_sixty_percent_in_the_first_second_and_everybody_in_time(shoppers: int, seed: int) -> None:
    presses = SHAPES["noon"].presses(shoppers, 30.0, Random(seed))
    assert len(presses) == shoppers
    assert presses == sorted(presses)
    assert sum(at < 1.0 for at in presses) == round(0.6 * shoppers)
    assert all(0 <= at <= 30.0 for at in presses)


def test_the_tail_of_noon_thins_out() -> None:
    """In each later third of the tail far fewer come, and in the last some still do."""
    presses = SHAPES["noon"].presses(10_000, 31.0, Random(1))
    thirds = [sum(1 + 10 * part <= at < 11 + 10 * part for at in presses) for part in range(3)]
    assert sum(thirds) == 4_000
    assert thirds[0] > 2 * thirds[1] > 4 * thirds[2] > 0


def test_a_soak_has_the_same_number_every_second() -> None:
    presses = SHAPES["soak"].presses(1_200, 60.0, Random(1))
    assert {sum(second <= at < second + 1 for at in presses) for second in range(60)} == {20}


@pytest.mark.parametrize(("shoppers", "seconds"), [(0, 10.0), (10, 1.0)])
def test_a_schedule_that_cannot_be_is_refused(shoppers: int, seconds: float) -> None:
    with pytest.raises(ValueError, match="shoppers"):
        SHAPES["noon"].presses(shoppers, seconds, Random(1))


def test_who_presses_in_the_rush_has_looked_before_the_opening() -> None:
    drawn = schedule(SHAPES["noon"].presses(1_000, 30.0, Random(2)), 5.0, Random(2))
    rush = [arrival for arrival in drawn if arrival.press_at_s < 1]
    assert all(-5.0 <= arrival.look_at_s <= -0.5 for arrival in rush)
    for arrival in drawn[len(rush) :]:
        assert LOOK_BEFORE_S[0] <= arrival.press_at_s - arrival.look_at_s <= LOOK_BEFORE_S[1]


def test_the_same_seed_draws_the_same_schedule_and_another_one_another() -> None:
    assert arrivals("noon", 200, 10.0, 4.0, 5) == arrivals("noon", 200, 10.0, 4.0, 5)
    assert arrivals("noon", 200, 10.0, 4.0, 5) != arrivals("noon", 200, 10.0, 4.0, 6)


@pytest.mark.parametrize("count", [len(MIX), 18, 100, 301, 5_000])
def test_every_role_comes_in_its_share_and_early(count: int) -> None:
    """Totals are exact, no role is missing, and each is among the first: whoever comes early wins something."""
    given = roles(count)
    counts = Counter(given)
    assert len(given) == count
    assert set(counts) == set(MIX) == set(ROLES)
    if count >= 100:
        for role, portion in MIX.items():
            assert abs(counts[role] - portion * count) <= 1
        assert set(given[: count // 5]) == set(MIX)


def test_hostile_roles_are_roles_and_the_mix_is_whole() -> None:
    assert set(MIX) > HOSTILE
    assert sum(MIX.values()) == pytest.approx(1)


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_shares_have_everybody_once_and_each_the_whole_shape(of: int) -> None:
    presses = SHAPES["noon"].presses(1_001, 30.0, Random(3))
    shares = [share(presses, index, of) for index in range(of)]
    assert sorted(at for each in shares for at in each) == presses
    for each in shares:
        assert sum(at < 1 for at in each) == pytest.approx(0.6 * len(each), abs=1)


@pytest.mark.parametrize("index", [-1, 2])
def test_a_share_that_there_is_not_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match="share"):
        share([1, 2, 3], index, 2)


def options(**changes: object) -> Options:
    """Options of a run that nothing is started for."""
    given = {field.name: "" for field in dataclasses.fields(Options)} | {"secret": SECRET, "shoppers": 120} | changes
    return Options(**given)  # type: ignore[arg-type]


def guests(count: int = 120) -> list[Guest]:
    """Guests with members, tokens and codes of their own."""
    codes = [f"code-{number}" for number in range(count)]
    return seated(arrivals("noon", count, 10.0, 4.0, 1), carried(options(shoppers=count), now_s=1e9), codes)


def test_no_two_processes_share_a_member_a_token_a_key_or_a_code(tmp_path: Path) -> None:
    """As they are sent to three processes."""
    everybody = guests()
    (tmp_path / "sale.json").write_text(json.dumps(SALE.to_dict()))
    (tmp_path / "guests.json").write_text(json.dumps([dataclasses.asdict(guest) for guest in everybody]))
    gathering = Gathering(tmp_path, 3)
    parts = [opened(json.loads(json.dumps(gathering.envelope(index))))[2] for index in range(3)]
    gathering.close(interrupted=True)
    assert sorted((guest for part in parts for guest in part), key=lambda guest: guest.number) == everybody
    assert len({guest.member for guest in everybody}) == len({guest.token for guest in everybody}) == 120
    assert len({SALE.key(guest.number, press) for guest in everybody for press in (1, 2)}) == 240
    codes = [guest.fcode for guest in everybody if guest.fcode]
    assert len(codes) == len(set(codes)) == Counter(guest.role for guest in everybody)["coded"]


def test_every_second_fan_has_the_points_and_nobody_else_is_in_the_snapshot() -> None:
    fans = [guest.points for guest in guests() if guest.role == "fan"]
    assert len(fans) > 4
    assert {*fans[::2]} == {FAN_POINTS + 50}
    assert {*fans[1::2]} == {FAN_POINTS - 50}
    assert all(guest.points is None for guest in guests() if guest.role != "fan")


def test_two_runs_have_no_member_in_common() -> None:
    first, second = (carried(options(shoppers=5_000), now_s=now) for now in (1e9, 1e9 + 1))
    assert not {member for member, _ in first} & {member for member, _ in second}


def test_given_tokens_are_used_in_order_and_too_few_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "tokens.csv"
    file.write_text("member_id,token\n7,abc\n9,def\n8,ghi\n")
    assert carried(options(tokens=str(file), shoppers=2), now_s=0) == [(7, "abc"), (9, "def")]
    with pytest.raises(SetupError, match="3 tokens; 4 shoppers"):
        carried(options(tokens=str(file), shoppers=4), now_s=0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("member,token\n", "header"),
        ("member_id,token\nx,abc\n", "line 2"),
        ("member_id,token\n7\n", "line 2"),
        ("member_id,token\n7,a\n8,b\n7,c\n", "line 4: member 7 is there twice"),
    ],
)
def test_a_bad_file_of_tokens_is_told_by_its_line(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "tokens.csv"
    file.write_text(text)
    with pytest.raises(SetupError, match=why):
        read_tokens(file)
    with pytest.raises(SetupError, match="cannot be read"):
        read_tokens(tmp_path / "none.csv")


def test_options_are_kept_from_others(tmp_path: Path) -> None:
    options(url="http://x").write(tmp_path / "o.json")
    assert (tmp_path / "o.json").stat().st_mode & 0o077 == 0
    assert Options.read(tmp_path / "o.json").url == "http://x"


def test_the_crowd_knows_the_contracts_words_and_no_others() -> None:
    """Every refusal with its status, and the three good answers."""
    own = {contract.OK, "held", "again"}
    assert {word: status for word, status in contract.STATUS.items() if word not in own} == dict(STATUS)


def test_forged_codes_are_told_from_genuine_ones_by_the_key_alone() -> None:
    """One in four has a typo; the others are well formed, and not ours. A genuine one has the number that we read."""
    keys = Keys.parse(f"0:{new_master(bytes(range(32)))}")
    made = forgeries(Random(4))
    found = [read(next(made), keys) for _ in range(40 * TYPO_EVERY)]
    assert sum(isinstance(each, Typo) for each in found) == 40
    assert sum(isinstance(each, NotOurs) for each in found) == 120
    for genuine in mint(keys, 77, range(1_000, 1_005)):
        signs = [ALPHABET.index(sign) for sign in genuine if sign in ALPHABET]
        assert check_symbol(signs[:-1]) == signs[-1]
        assert number_of(genuine) == audited_number(genuine)
    assert number_of("no code") is None


def test_percentiles_of_a_sum_are_those_of_all() -> None:
    """Within the width of a bucket, over what several processes have counted."""
    random, parts = Random(6), [Tally() for _ in range(3)]
    durations = sorted(random.expovariate(5.0) for _ in range(3_000))
    for at, seconds in enumerate(durations):
        parts[at % 3].took("d", seconds=seconds)
    whole = Tally()
    for part in parts:
        whole.merge(json.loads(json.dumps(part.drain())))
        assert part.rows() == []
    for portion in (0.5, 0.9, 0.99, 1.0):
        exact = durations[max(0, -(-int(portion * 3_000 * 1_000) // 1_000) - 1)]
        assert percentile(whole.by("d"), portion) == pytest.approx(exact, rel=0.05)
    assert whole.total("d") == 3_000
    assert percentile({}, 0.5) == 0


def test_a_bucket_holds_what_it_stands_for() -> None:
    for bucket in range(300):
        assert bucket_of(seconds_of(bucket)) == bucket
    assert bucket_of(0.0) == bucket_of(-1.0) == 0


def test_figures_are_found_by_the_beginning_of_their_key() -> None:
    tally = Tally([["heard", "press", "held", 2], ["heard", "press", "sold_out", 1], ["heard", "look", "ok", 5]])
    assert tally.by("heard") == {"press": 3, "look": 5}
    assert tally.by("heard", "press") == {"held": 2, "sold_out": 1}
    assert tally.total("heard") == 8
    assert tally.by("nothing") == {}


def test_the_crowds_parts_are_imported_without_locust() -> None:
    """Which would patch the sockets of every other test."""
    assert "locust" not in sys.modules
    assert "gevent" not in sys.modules
