"""What shoppers see: the album of drops, a drop, my reservations, my F-codes."""

from typing import Final

import msgspec
from aiohttp import web

from flashsale.domain import Allocation, Drop, Fcode, Money, Points, Text, Tier
from flashsale.drops import unknown_drop
from flashsale.web.context import Context
from flashsale.web.pages.serving import send
from flashsale.web.pages.site import Site
from flashsale.web.pages.words import TAGS, Language
from flashsale.web.routing import check_id

PAGE_CACHE: Final = "public, max-age=5"
SHELL_CACHE: Final = "public, max-age=60"
ALBUM_MAX: Final = 60
CHOICES_MAX: Final = 50
"""Who may have more presses again."""


class Told(msgspec.Struct, frozen=True):
    """A drop's words in one language."""

    title: str
    paragraphs: list[str]
    notice: str | None
    language: str
    """In which the words are, where a language has none of its own."""


def told(drop: Drop, language: Language) -> Told:
    """What is said of a drop: in this language, else in the other one, else its plain title."""
    mine, other = (drop.texts.zh, drop.texts.en) if language == "zh" else (drop.texts.en, drop.texts.zh)
    title = mine.title or other.title or drop.title
    description = mine.description or other.description or ""
    paragraphs = [" ".join(p.split("\n")) for p in description.split("\n\n") if p.strip()]
    foreign = mine == Text() and other != Text()
    spoken = TAGS["en" if language == "zh" else "zh"] if foreign else ""
    return Told(title, paragraphs, mine.notice or other.notice, spoken)


def sold_here(drop: Drop, channel: str | None) -> list[Allocation]:
    """The allocations that the pages sell: those of no channel, or of the pages' own."""
    return [a for a in drop.allocations if a.channel is None or a.channel == channel]


def _batch(a: Allocation) -> dict[str, object]:
    rule = a.access
    return {
        "id": a.id,
        "opens_at": a.opens_at,
        "closes_at": a.closes_at,
        "kind": rule.__struct_config__.tag,
        "at_least": rule.at_least if isinstance(rule, Points | Tier) else None,
    }


def _choices(drop: Drop) -> list[tuple[int, Money]]:
    """How many one may ask for at once, and what they cost; none where there is nothing to choose."""
    if drop.per_member == 1:
        return []
    numbers = range(1, min(drop.per_member, CHOICES_MAX) + 1)
    return [(n, Money(n * drop.price.amount, drop.price.currency)) for n in numbers]


def picture_of(picture: str | None) -> dict[str, object] | None:
    """Where a picture is and how large; its name tells."""
    if picture is None:
        return None
    width, _, height = picture.partition("-")[2].partition(".")[0].partition("x")
    return {"src": f"/pictures/{picture}", "width": int(width), "height": int(height)}


async def drop_page(request: web.Request, context: Context, site: Site, language: Language) -> web.StreamResponse:
    """`GET /{language}/d/{drop}`."""
    drop_id = check_id(request.match_info["drop"])
    drop = await context.catalog.get(drop_id)
    if drop is None:
        raise unknown_drop(drop_id)
    here = sold_here(drop, context.settings.channel)
    body = site.kept(
        "drop.html",
        language,
        (drop.id, drop.epoch),
        {
            "drop": drop,
            "channel": context.settings.channel,
            "confirm_by": context.settings.confirm_by,
            "pay_url": context.settings.pay_url,
            "choices": _choices(drop),
            "told": told(drop, language),
            "picture": picture_of(drop.picture),
            "batches": [_batch(a) for a in here if not isinstance(a.access, Fcode)],
            "lanes": [_batch(a) for a in here if isinstance(a.access, Fcode)],
        },
    )
    return send(request, body, site.headers, cache=PAGE_CACHE)


async def album(request: web.Request, context: Context, site: Site, language: Language) -> web.StreamResponse:
    """`GET /{language}/`: the drops that run or will run, the next opening first, then those of before."""
    drops = await context.catalog.page(None, ALBUM_MAX)
    now = context.now()

    def place(drop: Drop) -> tuple[bool, float]:
        over = drop.closed or drop.ends_at <= now
        first = min((a.opens_at for a in sold_here(drop, context.settings.channel)), default=drop.created_at)
        return over, (-1 if over else 1) * first.timestamp()

    cards = []
    for drop in sorted(drops, key=place):
        here = sold_here(drop, context.settings.channel)
        if not here:
            continue
        upcoming = [a.opens_at for a in here if a.opens_at > now]
        running = any(a.opens_at <= now < a.closes_at for a in here)
        cards.append(
            {
                "drop": drop,
                "told": told(drop, language),
                "picture": picture_of(drop.picture),
                "state": "over"
                if drop.closed or drop.ends_at <= now
                else "paused"
                if drop.paused
                else "open"
                if running
                else "upcoming",
                "opens_at": min(upcoming, default=None),
            }
        )
    body = site.render("album.html", language, cards=cards)
    return send(request, body, site.headers, cache=PAGE_CACHE)


async def shell(
    template: str, request: web.Request, context: Context, site: Site, language: Language
) -> web.StreamResponse:
    """A page without content of its own: what is personal comes by the API."""
    values = {"confirm_by": context.settings.confirm_by, "pay_url": context.settings.pay_url}
    return send(request, site.kept(template, language, None, values), site.headers, cache=SHELL_CACHE)
