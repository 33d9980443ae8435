"""The demo: a drop that opens in a moment, a crowd that presses at the opening, and a visitor among it.

It is a customer of the HTTP contract: what it does, anybody with a token can do.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, Final, Protocol

import aiohttp
import msgspec

OPENS_IN_S: Final = 15.0
SECOND_AFTER_S: Final = 60.0
"""A second batch opens so long after the first; the crowd leaves it to visitors."""
OPEN_FOR_S: Final = 86_400.0
UNITS: Final = 200
CROWD: Final = 300
SECOND_UNITS: Final = 100
VISITOR_UNITS: Final = 20
SPREAD_S: Final = 2.0
"""The crowd presses within this time after the opening, as people do; a visitor who is quick gets a unit."""
VISITOR: Final = 1_000_000_000
OPERATOR: Final = 1
TIMEOUT_S: Final = 30.0
DROPS_MAX: Final = 100_000
PAGE: Final = 500

PRICE: Final = {"amount": 169_900, "currency": "CNY"}
TEXTS: Final = {
    "zh": {
        "title": "正午手机 工程版",
        "description": "六百台工程版，分批开售。与正式版同样的屏幕、同样的处理器，机身是第一批手工调色的赤陶橙。\n\n"
        "每位会员限购一台。抢到之后请在十五分钟内确认，未确认的会放回活动，让给下一位。",
    },
    "en": {
        "title": "Noon phone, engineering edition",
        "description": "A small first run, sold in batches. The same screen and the same processor as the phone that "
        "follows, in the first terracotta that was mixed by hand.\n\n"
        "One for each member. Confirm yours within fifteen minutes; what is not confirmed goes back to the sale, for "
        "whoever comes next.",
    },
}


class Failed(Exception):
    """The service did not do what the demo asked of it."""


class Token(Protocol):
    """Makes a token."""

    def __call__(self, member: int, *, ops: bool = False) -> str:
        """A token for this member, as a shopper or as an operator."""


class Press(msgspec.Struct, frozen=True):
    """What one member heard: a word, when (seconds after the opening), and how long it took."""

    word: str
    at_s: float
    took_s: float


async def run(
    url: str, *, token: Token, say: Callable[[str], None], now: Callable[[], float], rng: random.Random
) -> list[Press]:
    """Create the drop, tell the visitor, press at the opening, tell what happened. `Failed` if the service does not."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        url, connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)
    ) as session:
        opens_at_s = now() + OPENS_IN_S
        operator = token(OPERATOR, ops=True)
        drop = await _create(session, operator, opens_at_s)
        say(_invitation(url, drop, opens_at_s, token(VISITOR)))
        tokens = [token(VISITOR + n) for n in range(1, CROWD + 1)]
        waits_s = sorted(opens_at_s + rng.random() * SPREAD_S - now() for _ in tokens)
        presses = await asyncio.gather(
            *(
                _press(session, drop, member_token, wait_s=wait_s, opens_at_s=opens_at_s, now=now)
                for member_token, wait_s in zip(tokens, waits_s, strict=True)
            )
        )
    say(summary(drop, presses))
    say(_afterwards(url, drop))
    return presses


async def _picture(session: aiohttp.ClientSession, token: str) -> str:
    """Put in the picture of what is sold."""
    content = (files("flashsale") / "demo.webp").read_bytes()
    status, body = await _call(session, "POST", "/v1/ops/pictures", token, content)
    if status != 201:  # noqa: PLR2004
        raise Failed(f"the picture was refused: {body.get('detail', status)}")
    return str(body["picture"])


async def _create(session: aiohttp.ClientSession, token: str, opens_at_s: float) -> str:
    """A drop with the next free number."""
    number = await _last_number(session, token)
    picture = await _picture(session, token)
    while number < DROPS_MAX:
        number += 1
        wanted = _drop(f"demo-{number}", opens_at_s, picture)
        status, body = await _call(session, "POST", "/v1/ops/drops", token, wanted)
        if status == 201:  # noqa: PLR2004
            return f"demo-{number}"
        if body.get("code") != "conflict":
            raise Failed(f"the drop was refused: {body.get('detail', status)}")
    raise Failed("there are too many demo drops; begin with a new data directory.")


async def _last_number(session: aiohttp.ClientSession, token: str) -> int:
    """The greatest N of all drops called demo-N; 0 when there is none."""
    last, after = 0, "demo-"
    while after.startswith("demo-"):
        status, body = await _call(session, "GET", f"/v1/ops/drops?limit={PAGE}&after={after}", token)
        if status != 200:  # noqa: PLR2004
            raise Failed(f"the drops could not be listed: {body.get('detail', status)}")
        numbers = [item["id"].removeprefix("demo-") for item in body["items"]]
        last = max([last, *(int(n) for n in numbers if n.isdecimal() and len(n) < len(str(DROPS_MAX)))])
        after = body["next"] or ""
    return last


def _drop(drop_id: str, opens_at_s: float, picture: str) -> dict[str, Any]:
    closes_at = _rfc3339(opens_at_s + OPEN_FOR_S)
    everyone = {"kind": "everyone"}
    return {
        "id": drop_id,
        "title": "Demo phone",
        "texts": TEXTS,
        "picture": picture,
        "price": PRICE,
        "list_price": {**PRICE, "amount": 199_900},
        "per_member": 1,
        "allocations": [
            {
                "id": "rush",
                "quantity": UNITS,
                "opens_at": _rfc3339(opens_at_s),
                "closes_at": closes_at,
                "access": everyone,
            },
            {
                "id": "second",
                "quantity": SECOND_UNITS,
                "opens_at": _rfc3339(opens_at_s + SECOND_AFTER_S),
                "closes_at": closes_at,
                "access": everyone,
            },
            {
                "id": "visitors",
                "quantity": VISITOR_UNITS,
                "opens_at": _rfc3339(opens_at_s - OPENS_IN_S),
                "closes_at": closes_at,
                "access": everyone,
                "channel": "terminal",
            },
        ],
    }


def _rfc3339(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")


async def _call(
    session: aiohttp.ClientSession, method: str, path: str, token: str, body: object = None
) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {token}"}
    sent: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body}
    try:
        async with session.request(method, path, headers=headers, **sent) as answer:
            return answer.status, json.loads(await answer.read())
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise Failed(f"{method} {path} came to nothing: {type(error).__name__} {error}") from None


async def _press(
    session: aiohttp.ClientSession, drop: str, token: str, *, wait_s: float, opens_at_s: float, now: Callable[[], float]
) -> Press:
    await asyncio.sleep(wait_s)
    began = now()
    try:
        status, body = await _call(session, "POST", f"/v1/drops/{drop}/reservations", token, {"allocation": "rush"})
    except Failed:
        word = "no answer"
    else:
        word = {201: "held", 200: "again"}.get(status) or str(body.get("code", status))
    return Press(word, now() - opens_at_s, now() - began)


def _invitation(url: str, drop: str, opens_at_s: float, token: str) -> str:
    opening = datetime.fromtimestamp(opens_at_s).astimezone().strftime("%H:%M:%S")
    return f"""\
Demo drop {drop}: {UNITS} phones at 1,699 CNY, one for each member. It opens at {opening}, in {OPENS_IN_S:g} seconds,
and {CROWD} simulated members press within {SPREAD_S:g} seconds after that. Press with them, in a browser:

{url}/en/d/{drop}   {url}/zh/d/{drop}

A second batch of {SECOND_UNITS} follows {SECOND_AFTER_S:g} seconds later. Or press from a terminal:

TOKEN={token}
{curl(url, drop, "rush")}

Before the opening you hear 403 not_open; then 201 and a reservation, if you are quick: {CROWD} others want the {UNITS}.
After the last one it is 409 sold_out, and {VISITOR_UNITS} more units are kept for visitors, from now on and for a day:

{curl(url, drop, "visitors")}

One for each member: whoever has a unit hears 409 member_limit. `flashsale token --member 7` makes you another member.
"""


def curl(url: str, drop: str, allocation: str) -> str:
    """The line for a shell in which TOKEN is set."""
    body = json.dumps({"allocation": allocation})
    return f"curl -i -X POST {url}/v1/drops/{drop}/reservations -H \"Authorization: Bearer $TOKEN\" -d '{body}'"


def summary(drop: str, presses: list[Press]) -> str:
    """One line of what happened."""
    words = Counter(press.word for press in presses)
    told = ", ".join(f"{count} {word}" for word, count in words.most_common())
    line = f"Demo drop {drop}: {len(presses)} presses, {told}"
    held = [press.at_s for press in presses if press.word == "held"]
    if held:
        line += f"; the last unit of the crowd went {max(held):.2f} s after the opening"
    slowest_ms = max((press.took_s for press in presses), default=0.0) * 1000
    return f"{line}; the slowest answer took {slowest_ms:.0f} ms."


def _afterwards(url: str, drop: str) -> str:
    return f"If you have none yet, there are units for visitors:\n\n{curl(url, drop, 'visitors')}\n"
