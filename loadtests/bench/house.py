"""The product under test: a `flashsale up` of its own in a folder of its own, with shipped defaults."""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from loadtests import service
from loadtests.api import Api, api_at, rfc3339
from loadtests.bench.codes import new_ring
from loadtests.bench.processes import program
from loadtests.bench.table import Failed
from loadtests.errors import SetupError
from loadtests.tokens import Minter

TOKENS_LIVE_S = 12 * 3600
CALL_TIMEOUT_S = 900.0
HOLD_S = 24 * 3600  # no hold may end while something is measured
OPEN_FOR_S = 24 * 3600
FCODE_KEYS = "FLASHSALE_FCODE_KEYS"
SERVE = ("flashsale", "serve")
ONE_CALL_EACH = {"FLASHSALE_GATE_BATCH_MAX": "1", "FLASHSALE_LEDGER_BATCH_MAX": "1"}
SETTLE_S = 30.0  # I16: what is disturbed settles within this
POLL_S = 0.05
IMPORT_CUTOFF = "2011-08-16T00:00:00+08:00"

Answer = TypeVar("Answer")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Plan:
    """How much is measured. `rounds` of `seconds` each; the sizes are those of the targets unless `quick`."""

    rounds: int
    seconds: int
    quick: bool
    folder: Path
    environ: Mapping[str, str]
    progress: Callable[[str], None]

    def size(self, full: int, quick: int) -> int:
        """A size of the targets, or that of a quick look, whose figures say nothing."""
        return quick if self.quick else full


@dataclass(frozen=True)
class House:
    """A running product: its URLs, its processes, and a customer's way in."""

    at: service.Service
    api: Api
    session: aiohttp.ClientSession
    minter: Minter
    pids: Mapping[str, int]
    folder: Path
    environ: Mapping[str, str]

    @property
    def ring(self) -> str:
        """The key ring of this product's F-codes."""
        return self.environ[FCODE_KEYS]

    @property
    def serving_pids(self) -> dict[str, int]:
        """The processes that have a part in answering a request."""
        return {name: self.pids[name] for name in ("web", "valkey", "postgres")}

    async def create_drop(self, drop: str, quantity: int, access: Mapping[str, object] | None = None) -> None:
        """A drop with one allocation, `all`, which is open; one unit a member."""
        now = time.time()
        allocation = {
            "id": "all", "quantity": quantity, "opens_at": rfc3339(now - 60), "closes_at": rfc3339(now + OPEN_FOR_S),
            "access": access or {"kind": "everyone"},
        }  # fmt: skip
        await self.api.create_drop(
            {
                "id": drop,
                "title": f"Measured: {drop}",
                "price": {"amount": 169_900, "currency": "CNY"},
                "per_member": 1,
                "hold_seconds": HOLD_S,
                "allocations": [allocation],
            }
        )

    async def press(self, drop: str, member: int, fcode: str | None = None) -> tuple[int, str]:
        """One press of the button, or with an F-code: status and body. `Failed` when no answer comes."""
        body = {"allocation": "all"} if fcode is None else {"fcode": fcode}
        headers = {"Authorization": f"Bearer {self.minter.shopper(member)}"}
        url = f"{self.at.url}/v1/drops/{drop}/reservations"
        async with _lost_is_failed(url), self.session.post(url, json=body, headers=headers) as answer:
            return answer.status, await answer.text()

    async def import_points(self, name: str, csv: Path) -> None:
        """Import a snapshot out of a file, which is never held in memory. `Failed` when it is refused."""
        headers = {"Authorization": f"Bearer {self.minter.operator()}", "Content-Type": "text/csv"}
        query = {"name": name, "cutoff": IMPORT_CUTOFF}
        url = f"{self.at.url}/v1/ops/points"
        with await asyncio.to_thread(csv.open, "rb") as file:
            async with (
                _lost_is_failed(url),
                self.session.post(url, params=query, data=file, headers=headers) as answer,
            ):
                if answer.status != 201:
                    raise Failed(f"the import was answered {answer.status} {(await answer.text())[:300]}")

    async def export_codes(self, batch: str) -> AsyncIterator[bytes]:
        """A batch's CSV, in the pieces in which it arrives. `Failed` when it is refused or cut off."""
        headers = {"Authorization": f"Bearer {self.minter.operator()}"}
        url = f"{self.at.url}/v1/ops/fcodes/{batch}.csv"
        async with _lost_is_failed(url), self.session.get(url, headers=headers) as answer:
            if answer.status != 200:
                raise Failed(f"the export was answered {answer.status} {(await answer.text())[:300]}")
            async for piece in answer.content.iter_any():
                yield piece

    async def settled(self, drop: str, taken_min: int) -> int:
        """How many units members hold or have confirmed, once gate and ledger agree; `Failed` when that does not come.

        So many must be taken at least: they were answered with 201.
        """

        def agree(balance: dict[str, Any]) -> int | None:
            [allocation] = balance["allocations"]
            taken = int(allocation["held"] + allocation["confirmed"])
            return taken if balance["balanced"] and taken >= taken_min else None

        what = f"{taken_min:,} reservations of {drop} were answered with 201; the balance is"
        return await eventually(lambda: self.api.balance(drop), agree, what)


async def eventually(ask: Callable[[], Awaitable[Answer]], good: Callable[[Answer], Found | None], what: str) -> Found:
    """What `good` finds in an answer; `Failed` with `what` and the last answer when it has found nothing in time."""
    give_up_at = time.monotonic() + SETTLE_S
    while True:
        answer = await ask()
        if (found := good(answer)) is not None:
            return found
        if time.monotonic() > give_up_at:
            raise Failed(f"{what} {answer}")
        await asyncio.sleep(POLL_S)


@contextlib.asynccontextmanager
async def _lost_is_failed(url: str) -> AsyncIterator[None]:
    try:
        yield
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Failed(f"{url} gave no answer: {error!r}") from None


def shipped(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment with no setting of the product but a key for F-codes: its defaults are what is measured."""
    others = {name: value for name, value in environ.items() if not name.startswith("FLASHSALE_")}
    return others | {FCODE_KEYS: new_ring()}


@contextlib.asynccontextmanager
async def opened(plan: Plan, name: str) -> AsyncIterator[House]:
    """Start a product with empty stores; it is gone when the block ends."""
    plan.progress(f"starting a service for {name}")
    folder = plan.folder / name
    folder.mkdir()
    folder.chmod(0o711)  # as root, the servers run as another user
    data_dir = folder / "data"
    environ = shipped(plan.environ)
    timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
    async with (
        service.started(data_dir, port=service.free_port(), workers=None, secret=None, environ=environ) as at,
        aiohttp.ClientSession(timeout=timeout) as session,
    ):
        minter = Minter(at.secret, expires_at=int(time.time()) + TOKENS_LIVE_S)
        run = json.loads((data_dir / "run.json").read_text())
        missing = {"web", "valkey", "postgres"} - set(run["pids"])
        if missing:
            raise SetupError(f"{data_dir / 'run.json'} does not name the processes {', '.join(sorted(missing))}.")
        async with api_at(at.url, minter.operator()) as api:
            yield House(at, api, session, minter, run["pids"], folder, environ)


@contextlib.asynccontextmanager
async def beside(
    house: House, name: str, settings: Mapping[str, str], module: Sequence[str] = SERVE
) -> AsyncIterator[tuple[str, int]]:
    """A second web process on the same stores, with settings of its own; gives its URL and process id."""
    port = service.free_port()
    url = f"http://127.0.0.1:{port}"
    environ = {**same_stores(house), **settings, "FLASHSALE_PORT": str(port)}
    command = [sys.executable, "-m", *module]
    async with program(command, environ=environ, log=house.folder / f"{name}.log", url=f"{url}/readyz") as pid:
        yield url, pid


@contextlib.asynccontextmanager
async def worker(house: House, fulfilment_url: str, secret: str) -> AsyncIterator[tuple[int, Path]]:
    """A second worker on the same stores that delivers orders (the first has no endpoint); its process id and log."""
    environ = {
        **same_stores(house),
        "FLASHSALE_FULFILMENT_URL": fulfilment_url,
        "FLASHSALE_FULFILMENT_SECRET": secret,
        "FLASHSALE_FULFILMENT_ALLOW_PRIVATE": "1",
    }
    log = house.folder / "worker.log"
    async with program([sys.executable, "-m", "flashsale", "worker"], environ=environ, log=log, url=None) as pid:
        yield pid, log


def same_stores(house: House) -> dict[str, str]:
    """The environment of a process beside this product's own."""
    return {
        **house.environ,
        "FLASHSALE_REDIS_URL": house.at.redis_url or "",
        "FLASHSALE_DATABASE_URL": house.at.database_url or "",
        "FLASHSALE_JWT_SECRET": house.at.secret,
    }


@contextlib.asynccontextmanager
async def empty_handler(house: House) -> AsyncIterator[tuple[str, int]]:
    """What everything is compared with; gives its URL and process id."""
    port = service.free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "loadtests.bench.empty", str(port)]
    async with program(command, environ=house.environ, log=house.folder / "empty.log", url=url) as pid:
        yield url, pid
