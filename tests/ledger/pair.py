"""The real ledger and the model side by side, on one clock: stories told to both, faults planted in the real one."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import asyncpg

from flashsale.ledger import Ledger
from flashsale.ledger.migrate import migrate
from tests.ledger.commands import Command, Story, opening
from tests.ledger.model import ModelLedger
from tests.ledger.readout import ModelState, state_of_postgres
from tests.ledger.sides import ModelSide, RealSide, carry_out
from tests.ledger.support import new_database
from tests.ledger.world import World
from tests.support import TIMEOUT_S

DEFINITION = """
SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = $1
UNION ALL SELECT pg_get_indexdef(oid) FROM pg_class WHERE relname = $1
"""


CLOCK = """
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public, pg_catalog', current_database()); END $$;
CREATE TABLE public.clock AS SELECT timestamptz '2026-01-01 12:00+00' AS at;
CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT at FROM public.clock';
CREATE FUNCTION public.now() RETURNS timestamptz STABLE LANGUAGE sql AS 'SELECT at FROM public.clock';
"""


@asynccontextmanager
async def clocked_database(url: str) -> AsyncIterator[str]:
    """The URL of a migrated database whose clock is the row of table `clock`: no time passes there by itself.

    Its functions and defaults find ours under the names of Postgres's own, which would otherwise be looked up first.
    """
    async with new_database(url, migrated=False) as own:
        connection = await asyncpg.connect(own)
        await connection.execute(CLOCK)
        await connection.close()
        await migrate(own)
        yield own


class Differ(AssertionError):
    """The two ledgers said, or hold, different things."""


class Pair:
    """Both ledgers, on a loop of their own: Hypothesis calls a test that is not a coroutine many times."""

    def __init__(self, database_url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        self._loop.run_until_complete(self._open(database_url))

    async def _open(self, database_url: str) -> None:
        url = await self._stack.enter_async_context(clocked_database(database_url))
        real = await Ledger.connect(url, pool_max=1, timeout_s=TIMEOUT_S)
        self._stack.push_async_callback(real.aclose)
        for pool in real._pools:  # nothing of this must outlive a crash
            async with pool.connection() as connection:
                await connection.execute("SET synchronous_commit = off")
                await connection.execute("SET idle_in_transaction_session_timeout = 0")  # a stalled test is no fault
        own = asyncpg.create_pool(url, min_size=1, max_size=1, server_settings={"synchronous_commit": "off"})
        self._connections = await self._stack.enter_async_context(own)
        self._real = RealSide(real, self._connections)

    def close(self) -> None:
        """Close the connections and the loop."""
        self._loop.run_until_complete(self._stack.aclose())
        self._loop.close()

    def empty(self) -> None:
        """Nothing is left of the stories before."""
        self._loop.run_until_complete(self._real.begin())

    def functions(self) -> set[str]:
        """The functions of the schema."""
        query = "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        return {row["proname"] for row in self._loop.run_until_complete(self._connections.fetch(query))}

    @contextmanager
    def broken(self, name: str, sound: str, broken: str) -> Iterator[None]:
        """One function, or one index, of the schema is another."""

        def run(*statements: str) -> None:
            self._loop.run_until_complete(self._connections.execute(";".join(statements)))

        source = self._loop.run_until_complete(self._connections.fetchval(DEFINITION, name))
        assert source.count(sound) == 1, sound
        drop = (f"DROP INDEX {name}",) if " INDEX " in source.partition("\n")[0] else ()
        run(*drop, source.replace(sound, broken))
        try:
            yield
        finally:
            self.empty()
            run(*drop, source)

    def tell(self, story: Story) -> None:
        """Carry the story out on both and compare after each command."""
        self._loop.run_until_complete(self._tell(story))

    def tell_all(self, stories: Iterable[Story]) -> None:
        """One after the other."""
        for story in stories:
            self.tell(story)

    def ask(self, model: ModelLedger, question: Callable[[Ledger], Awaitable[object]]) -> tuple[object, object]:
        """The answers of the real ledger and of the model."""
        run = self._loop.run_until_complete
        return run(_answer(question, self._real.ledger)), run(_answer(question, model))

    async def _tell(self, story: Story) -> None:
        await self._real.begin()
        model, told = ModelSide(), list[Command]()
        world, state = World(model.ledger), ModelState(model.ledger)

        async def both(command: Command) -> None:
            told.append(command)
            _compare(told, await carry_out(self._real, command), await carry_out(model, command))

        async def same() -> None:
            _compare(told, await state_of_postgres(self._connections), state.read())

        for command in opening(story):
            await both(command)
        for dice in story.dice():
            await both(world.next(dice))
            await same()
        for look in world.looks(random.Random(story.seed)):
            await both(look)
        await same()


async def _answer(question: Callable[[Ledger], Awaitable[object]], of: Ledger) -> object:
    return await question(of)


def _compare(told: list[Command], ours: object, theirs: object) -> None:
    if ours != theirs:
        if isinstance(ours, dict) and isinstance(theirs, dict):  # only what differs
            names = [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]
            ours, theirs = ({name: each.get(name) for name in names} for each in (ours, theirs))
        story = "\n".join(map(str, told))
        raise Differ(f"after\n{story}\nPostgres:\n{ours}\nthe model:\n{theirs}")
