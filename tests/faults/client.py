"""Calls to the service over HTTP, each of them noted in the journal: with its answer, or with none."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import datetime
from random import Random
from typing import Any, Final, NamedTuple

import aiohttp
import msgspec

from loadtests.tokens import Minter
from tests.faults.journal import LOST, Journal, Line
from tests.faults.pace import lasts

CLIENT_TIMEOUT_S: Final = 12.0
"""When a shopper's program gives an answer up: later than the service gives up its stores."""
OPERATOR: Final = 1
LOST_PAUSE_S: Final = 0.5
LOST_PAUSE_MAX_S: Final = 4.0
"""After an answer that never came, nobody says when to come again: a shopper's program waits longer each time."""


class Asked(NamedTuple):
    """A call: what it is, and how it goes over the wire."""

    line: Line
    """The journal's line as far as it is known before the answer."""
    method: str
    path: str
    body: dict[str, Any] | None = None


class Answer(NamedTuple):
    """An answer; status 0 and an empty document when none came."""

    status: int
    document: dict[str, Any]
    retry_after_s: float | None

    @property
    def code(self) -> str | None:
        """The problem's code."""
        found = self.document.get("code")
        return found if isinstance(found, str) else None

    @property
    def worth_repeating(self) -> bool:
        """Whether nobody knows the outcome, or the service asks to come again."""
        return self.status in {LOST, 429, 503}


def unix_s(text: object) -> float | None:
    """Unix time of an answer's time."""
    return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else None


class Client:
    """Speaks for all shoppers and operators. Each call is in the journal when it returns."""

    def __init__(self, session: aiohttp.ClientSession, url: str, secret: str, journal: Journal, random: Random) -> None:
        self._session = session
        self._url = url
        self._minter = Minter(secret, expires_at=4_000_000_000)
        self._tokens: dict[tuple[int, bool], str] = {}
        self._journal = journal
        self._random = random

    def _token(self, member: int, *, ops: bool) -> str:
        token = self._tokens.get((member, ops))
        if token is None:
            token = self._minter.operator(member) if ops else self._minter.shopper(member)
            self._tokens[member, ops] = token
        return token

    async def call(self, asked: Asked) -> Answer:
        """One try."""
        line = asked.line
        ops = line.member is None
        headers = {"Authorization": f"Bearer {self._token(line.member or OPERATOR, ops=ops)}"}
        if line.key is not None:
            headers["Idempotency-Key"] = line.key
        sent_at = time.time()
        try:
            async with self._session.request(
                asked.method, self._url + asked.path, json=asked.body, headers=headers
            ) as found:
                document = json.loads(await found.read() or b"{}")
                wait = found.headers.get("Retry-After")
                answer = Answer(found.status, document, float(wait) if wait else None)
        except (aiohttp.ClientError, TimeoutError, ValueError, ConnectionError):
            answer = Answer(LOST, {}, None)
        self._journal.write(_heard(line, answer, sent_at, time.time()))
        return answer

    async def until_answered(self, asked: Asked, patience_s: float, *, also: Callable[[Answer], bool]) -> Answer:
        """The same call again, as often as the service asks for it and patience lasts; the last answer.

        `also` names answers other than those that a shopper takes for a reason to come again.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + patience_s
        pause_s = LOST_PAUSE_S
        while True:
            answer = await self.call(asked)
            if not (answer.worth_repeating or also(answer)):
                return answer
            if answer.retry_after_s is None:
                wait_s, pause_s = pause_s, min(2 * pause_s, LOST_PAUSE_MAX_S)
            else:
                wait_s = answer.retry_after_s
            wait_s *= 1 + self._random.random() / 2
            if loop.time() + wait_s >= until:
                return answer
            await lasts(wait_s)

    async def plain(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """An operator's call outside any run, which must succeed; the document, or the text under `text`."""
        headers = {"Authorization": f"Bearer {self._token(OPERATOR, ops=True)}"}
        async with self._session.request(method, self._url + path, json=body, headers=headers) as found:
            text = await found.text()
            assert found.status in {200, 201}, (method, path, found.status, text)
            if "json" not in (found.content_type or ""):
                return {"text": text}
            document: dict[str, Any] = json.loads(text)
            return document


def _heard(line: Line, answer: Answer, sent_at: float, now: float) -> Line:
    document = answer.document
    held = answer.status in {200, 201} and line.member is not None
    return msgspec.structs.replace(
        line,
        sent_at=sent_at,
        heard_at=None if answer.status == LOST else now,
        status=answer.status,
        code=answer.code,
        reservation=document.get("id") if held else line.reservation,
        quantity=document.get("quantity", line.quantity) if held else line.quantity,
        state=document.get("state") if held else None,
        answered_in=document.get("allocation") if held else None,
        expires_at=unix_s(document.get("expires_at")) if held else None,
        order=document.get("order") if held else None,
    )


def never(_answer: Answer) -> bool:
    """Nothing else is worth another try."""
    return False
