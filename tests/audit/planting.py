"""How a contradiction is planted: by a statement, by commands of Redis, by a change of the journal."""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tests.audit.world import Json, World

Redis = Callable[[World, dict[str, str]], Awaitable[object]]
Find = Callable[[Json, World], bool]
Journal = Callable[[list[Json], World], None]
NEW: Final = str(uuid.UUID(int=0x0198F000_0000_7000_8000_000000000001))
HOUR_S: Final = 3600.0


@dataclass(frozen=True)
class Plant:
    """`check` is the invariant and the line that must contradict; `also` the other invariants that do so, too."""

    name: str
    check: str
    says: str
    sql: str = ""
    redis: Redis | None = None
    journal: Journal | None = None
    also: frozenset[str] = frozenset()
    options: dict[str, Any] = field(default_factory=dict)


def edit(find: Find, **changes: object) -> Journal:
    """Change the first line that is so."""

    def edit(lines: list[Json], world: World) -> None:
        line = next(line for line in lines if find(line, world))
        line.update(changes)

    return edit


def won(member: int) -> Find:
    """The answer that made a member's reservation."""
    return lambda line, _: (line["call"], line.get("member"), line["status"]) == ("reserve", member, 201)


def heard_when_won(call: str, member: int) -> Journal:
    """An operator hears of what was done no sooner than a member's reservation is made."""

    def put_off(lines: list[Json], world: World) -> None:
        late = next(line["heard_at"] for line in lines if won(member)(line, world))
        line = next(line for line in lines if line["call"] == call)
        line["heard_at"] = max(late, line["heard_at"])

    return put_off


def again(line: Json, _: World) -> bool:
    """The answer to who asked again with the same key."""
    return bool(line["call"] == "reserve" and line["status"] == 200 and line["member"] == 1)


def without(find: Find) -> Journal:
    """Leave lines out."""

    def remove(lines: list[Json], world: World) -> None:
        lines[:] = [line for line in lines if not find(line, world)]

    return remove


def of(call: str, name: str) -> Find:
    """The lines of a call about a reservation."""
    return lambda line, world: line["call"] == call and line.get("reservation") == world.ids[name]


def more(
    call: str, after_s: float = 0.1, *, of: str = "", of_order: str = "", code_at: int | None = None, **given: object
) -> Journal:
    """One more line, so long after the last one."""

    def add(lines: list[Json], world: World) -> None:
        at = max(line["heard_at"] for line in lines if line.get("heard_at")) + after_s
        line: Json = {"call": call, "drop": world.drop.id, "sent_at": at, "heard_at": at + 0.001, "status": 200}
        line |= {"reservation": world.ids[of]} if of else {}
        line |= {"order": world.ids[of_order]} if of_order else {}
        line |= {"fcode": world.codes[code_at]} if code_at is not None else {}
        lines.append(line | given)

    return add


def both(*those: Journal) -> Journal:
    """All of these changes."""

    def all_of_them(lines: list[Json], world: World) -> None:
        for each in those:
            each(lines, world)

    return all_of_them


def sold_out_for_long(lines: list[Json], world: World) -> None:
    """It was heard again and again after the last unit of an allocation had been sold that was not the last one."""
    last = next(line["heard_at"] for line in lines if line.get("reservation") == world.ids["r1b"])
    word: Json = {"call": "reserve", "drop": world.drop.id, "member": 50, "status": 409, "code": "sold_out"}
    for after_s in (0.01, 0.2):
        times = {"sent_at": last + after_s, "heard_at": last + after_s + 0.001}
        lines.append({**word, **times, "allocation": "members"})


def won_in_the_pause(lines: list[Json], _: World) -> None:
    """A 201 between the answer to the pause and the request to resume."""
    paused = next(line["heard_at"] for line in lines if line["call"] == "pause")
    resumed = next(line["sent_at"] for line in lines if line["call"] == "resume")
    line = next(line for line in lines if (line["call"], line.get("member"), line["status"]) == ("reserve", 14, 201))
    line["sent_at"] = line["heard_at"] = (paused + resumed) / 2


def command(*words: str | bytes | int) -> Redis:
    """One command of Redis; `{ent}` and the like are the gate's keys, `{r1}` reservations."""

    async def run(world: World, names: dict[str, str]) -> object:
        spelled = [w.format_map(names) if isinstance(w, str) else w for w in words]
        return await world.redis.execute_command(*spelled)  # type: ignore[no-untyped-call]

    return run


def entry(member: int, change: Callable[[str], str]) -> Redis:
    """The gate's entries of a member, changed."""

    async def run(world: World, names: dict[str, str]) -> None:
        lines = await world.redis.hget(names["ent"], str(member))
        assert isinstance(lines, bytes)
        await world.redis.hset(names["ent"], str(member), change(lines.decode()))

    return run


def commands(*those: Redis) -> Redis:
    """Several of them."""

    async def run(world: World, names: dict[str, str]) -> None:
        for each in those:
            await each(world, names)

    return run


def also(*invariants: str) -> frozenset[str]:
    """The other invariants that a plant contradicts."""
    return frozenset(invariants)
