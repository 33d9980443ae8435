"""The auditor says yes to a true sale, and no to each contradiction that was planted in it, naming it."""

import re
from pathlib import Path

import pytest

from flashsale.audit import Report
from flashsale.gate import keys
from tests.audit.planting import HOUR_S, NEW, Plant, both, more
from tests.audit.plants import PLANTS
from tests.audit.world import World


def named(report: Report) -> set[str]:
    """The checks of a report, as plants name them; times that depend on options left out."""
    return {f"{c.invariant} {c.line}" for c in report.checks}


async def test_a_true_sale_is_true(world: World, tmp_path: Path) -> None:
    """Every check was made, looked at something, and found no contradiction; every unit has its place."""
    report = await world.audit(tmp_path / "journal")
    assert [f"{c.invariant} {c.line}: {c.contradiction}" for c in report.checks if c.contradiction] == []
    assert [c.line for c in report.checks if not c.judged] == []
    assert (report.contradiction, report.balanced, report.at_rest) == (None, True, True)
    assert [(b.id, b.quantity, b.available, b.pending, b.held, b.confirmed) for b in report.balance] == [
        ("public", 5, 0, 0, 3, 2),
        ("members", 3, 1, 0, 1, 1),
        ("vip", 6, 3, 0, 2, 1),
        ("later", 2, 2, 0, 0, 0),
    ]
    assert report.journal_lines == len(world.lines)
    assert [line.action for line in report.log][-3:] == ["drop.pause", "drop.resume", "allocation.edit"]


async def test_every_check_has_a_plant(world: World, tmp_path: Path) -> None:
    """No check is taken on trust."""
    report = await world.audit(tmp_path / "journal", unsold_s=-899.9)
    assert named(report) == {plant.check for plant in PLANTS}


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
async def test_a_planted_contradiction_is_named(plant: Plant, world: World, tmp_path: Path) -> None:
    """The check it was planted for says what contradicts; no invariant does that has nothing to do with it."""
    own = keys.stripe(world.drop.id)._asdict()
    batches = [code >> 22 for code in world.codes]
    [eligible_set] = [a.eligible_set for a in world.drop.allocations if a.eligible_set]
    less = "UPDATE allocations SET taken = taken - 1 WHERE id = 'public';"
    names = own | {"new": NEW, "less": less, "batch0": str(batches[0]), "code0": str(world.codes[0])} | world.ids
    names |= {"elig": keys.eligible(world.drop.id, 0, eligible_set), "bound": keys.bound(world.drop.id, 0, batches[-1])}
    if plant.sql:
        await world.postgres.execute(plant.sql.format_map(names))
    if plant.redis is not None:
        await plant.redis(world, names)
    lines = [dict(line) for line in world.lines]
    if plant.journal is not None:
        plant.journal(lines, world)
    report = await world.audit(tmp_path / "journal", lines, **plant.options)
    wrong = {f"{c.invariant} {c.line}": c.contradiction for c in report.checks if c.contradiction}
    assert plant.check in wrong, wrong
    assert re.search(plant.says, wrong[plant.check] or ""), wrong
    assert {check.split()[0] for check in wrong} == {plant.check.split()[0], *plant.also}, wrong
    assert report.contradiction is not None


async def test_a_code_that_others_are_after_may_be_said_to_be_spent(world: World, tmp_path: Path) -> None:
    """Two heard so an hour apart, each while somebody's press with it had not ended: not an hour in which it was."""
    lines = [dict(line) for line in world.lines]
    both(
        more("reserve", code_at=3, member=51, status=409, code="fcode_spent"),
        more("reserve", HOUR_S, code_at=3, member=53, status=503, code="unavailable"),
        more("reserve", code_at=3, member=52, status=409, code="fcode_spent"),
    )(lines, world)
    report = await world.audit(tmp_path / "journal", lines)
    assert [c.contradiction for c in report.checks if c.contradiction] == []
