"""The calls that are not in a hurry: an operator's set-up, the balance, and what the server's clock says."""

import asyncio
import contextlib
import csv
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp

from loadtests.errors import SetupError

CALL_TIMEOUT_S = 60.0
REPEAT_FOR_S = 30.0


class ApiError(SetupError):
    """The service refused a call; `status` and `code` are the contract's."""

    def __init__(self, what: str, status: int, code: str, detail: str) -> None:
        super().__init__(f"{what}: {status} {code}: {detail}")
        self.status = status
        self.code = code


class Api:
    """The service at `url` through an operator's token. 503 and 429 are repeated as their Retry-After says.

    Errors: `ApiError` for a refusal, `SetupError` when the service cannot be reached.
    `date` is the last answer's `Date` header: the server's clock, cut to whole seconds.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._url = url.rstrip("/")
        self._session = session
        self.date: datetime | None = None

    async def import_points(self, name: str, cutoff: str, file: Path) -> dict[str, Any]:
        """Import a points snapshot from a file, whole."""
        body = await asyncio.to_thread(file.read_bytes)
        query = {"name": name, "cutoff": cutoff}
        return await self._call("POST", "/v1/ops/points", query=query, data=body, content_type="text/csv")

    async def create_drop(self, drop: dict[str, Any]) -> dict[str, Any]:
        """Create a drop; its answer is the drop as the service understood it."""
        return await self._call("POST", "/v1/ops/drops", data=json.dumps(drop).encode())

    async def mint_codes(self, drop: str, allocation: str, count: int) -> str:
        """Mint so many F-codes for whoever has them; the batch's number."""
        body = json.dumps({"count": count}).encode()
        minted = await self._call("POST", f"/v1/ops/drops/{drop}/allocations/{allocation}/fcodes", data=body)
        return str(minted["batch"])

    async def codes(self, batch: str) -> list[str]:
        """The F-codes of a batch, exported."""
        path = f"/v1/ops/fcodes/{batch}.csv"
        try:
            async with self._session.get(self._url + path) as answer:
                status, text = answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise SetupError(f"{self._url} cannot be reached: {error!r}.") from None
        rows = list(csv.reader(text.splitlines()))
        if status != 200 or not rows or rows[0][:1] != ["code"]:
            raise ApiError(f"GET {path}", status, "no F-codes", text[:200])
        return [row[0] for row in rows[1:]]

    async def drop(self, drop: str) -> dict[str, Any]:
        """The drop as shoppers see it, with `server_time`."""
        return await self._call("GET", f"/v1/drops/{drop}")

    async def balance(self, drop: str) -> dict[str, Any]:
        """What the gate and the ledger hold, per allocation."""
        return await self._call("GET", f"/v1/ops/drops/{drop}/balance")

    async def order_queue(self) -> dict[str, Any]:
        """How the order queue is: `waiting`, `oldest_seconds`, `tries_max`, `dead`, `disabled`."""
        found = await self._call("GET", "/v1/ops/orders", query={"limit": "1"})
        queue: dict[str, Any] = found["queue"]
        return queue

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        data: bytes | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        headers = {"Content-Type": content_type} if data is not None else {}
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + REPEAT_FOR_S
        while True:
            try:
                async with self._session.request(
                    method, self._url + path, params=query, data=data, headers=headers
                ) as answer:
                    text = await answer.text()
                    if date := answer.headers.get("Date"):
                        self.date = parsedate_to_datetime(date)
                    status, wait = answer.status, answer.headers.get("Retry-After", "1")
            except (aiohttp.ClientError, TimeoutError) as error:
                raise SetupError(f"{self._url} cannot be reached: {error!r}.") from None
            if status not in {429, 503} or loop.time() >= give_up_at:
                return _document(f"{method} {path}", status, text)
            await asyncio.sleep(float(wait) if wait.isdigit() else 1.0)


@contextlib.asynccontextmanager
async def api_at(url: str, token: str) -> AsyncIterator[Api]:
    """An `Api` whose connections last as long as the block."""
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)) as session:
        yield Api(session, url)


def _document(what: str, status: int, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ApiError(what, status, "no JSON object", text[:200])
    if status >= 400:
        raise ApiError(what, status, str(found.get("code", "no code")), str(found.get("detail", text[:200])))
    return found


def unix_s(rfc3339: str) -> float:
    """Unix time in seconds of an RFC 3339 time with zone; `ValueError` without one."""
    at = datetime.fromisoformat(rfc3339)
    if at.tzinfo is None:
        raise ValueError(f"{rfc3339} has no zone")
    return at.timestamp()


def rfc3339(at_s: float) -> str:
    """An RFC 3339 time in UTC, to the microsecond, of Unix time in seconds."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


async def server_ahead_s(api: Api, drop: str, *, samples: int = 25, spacing_s: float = 0.05) -> float:
    """How far the server's clock is ahead of ours, at least, in seconds.

    A `server_time` that has arrived is in the server's past, also when it was cached or cut to whole seconds: each
    sample is a lower bound, and the greatest is the best. Acting on it can only be late by as much as an answer's way,
    never early. The samples span the second for which the contract lets the answer be cached.
    """
    best = float("-inf")
    for _ in range(samples):
        said = unix_s((await api.drop(drop))["server_time"])
        best = max(best, said - time.time())
        await asyncio.sleep(spacing_s)
    return best
