"""F-codes as cards to print, cut and hand out: a page of HTML that needs nothing else, in Chinese and English.

Ten cards a page, on A4 and on Letter alike, each with its code in groups of four and as a QR code. The sheet is made
piece by piece, so that ten thousand cards take no more memory than one. It loads nothing and runs no script.
"""
# ruff: noqa: RUF001 -- Chinese punctuation

from datetime import datetime
from html import escape
from typing import Final

import msgspec
import segno

CARDS_PER_PAGE: Final = 10
QUIET_MODULES: Final = 4
"""The white frame that ISO/IEC 18004 demands around a QR code, in modules."""


class About(msgspec.Struct, frozen=True):
    """What all cards of a sheet say. `expires_at` is shown in the zone it comes with; None: as long as the sale."""

    title: str
    drop: str
    allocation: str
    batch: str
    expires_at: datetime | None


class Card(msgspec.Struct, frozen=True):
    """One code; `member` is who alone can spend it, None for a code that is whoever's who has it."""

    code: str
    member: str | None = None
    note: str | None = None


class Sheet:
    """The sheet of one batch: `begin()`, then `add()` for each card, then `end()`; written one after the other."""

    def __init__(self, about: About) -> None:
        self._about = about
        self._cards = 0
        self._common = _common(about)

    def begin(self) -> str:
        """All that comes before the first card."""
        title = escape(f"{self._about.title} · F码 · {self._about.batch}")
        return f"""<!DOCTYPE html>
<html lang="zh-Hans">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<p>请按实际大小（100%）打印，A4 或 Letter 纸均可，沿虚线裁开。每张卡可购买一件商品，请妥善保管本文件。</p>
<p lang="en">Print at actual size (100 %) on A4 or Letter, and cut along the dashed lines. Each card is the right
to buy one unit: keep this file as you would keep them.</p>
</header>
"""

    def add(self, card: Card) -> str:
        """The next card."""
        before = "" if self._cards % CARDS_PER_PAGE else "<section>\n"
        self._cards += 1
        after = "" if self._cards % CARDS_PER_PAGE else "</section>\n"
        return f"{before}{_card(card, self._common)}{after}"

    def end(self) -> str:
        """All that comes after the last card."""
        open_section = "</section>\n" if self._cards % CARDS_PER_PAGE else ""
        return f"{open_section}</body>\n</html>\n"


def _common(about: About) -> tuple[str, str, str]:
    """Title, validity and origin, as HTML."""
    if about.expires_at is None:
        until = '活动期间有效 <span lang="en">Valid while the sale runs</span>'
    else:
        moment = about.expires_at.isoformat(timespec="minutes")
        shown = f"{about.expires_at:%Y-%m-%d %H:%M} ({_zone(about.expires_at)})"
        until = f'有效期至 <span lang="en">Valid until</span> <time datetime="{moment}">{shown}</time>'
    origin = escape(f"批次 Batch {about.batch} · {about.drop} / {about.allocation}")
    return f"<bdi>{escape(about.title)}</bdi>", until, origin


def _zone(moment: datetime) -> str:
    """The zone's offset, like UTC+08:00."""
    offset = f"{moment:%z}"
    return "UTC" if not offset or int(offset) == 0 else f"UTC{offset[:3]}:{offset[3:5]}"


def _card(card: Card, common: tuple[str, str, str]) -> str:
    title, until, origin = common
    whose = '限用一次，认码不认人 <span lang="en">One use, by whoever shows it</span>'
    if card.member is not None:
        member = escape(card.member)
        whose = f'仅限会员 <b>{member}</b> 使用 <span lang="en">For member <b>{member}</b> only</span>'
    note = f'<p class="note"><bdi>{escape(card.note)}</bdi></p>' if card.note else ""
    return f"""<article>
<div class="text">
<h2>{title}</h2>
<p class="what">F码 · 优先购买码 <span lang="en">Priority purchase code</span></p>
<p class="whose">{whose}</p>
<p class="until">{until}</p>
{note}
</div>
{_qr(card.code)}
<p class="code">{escape(card.code)}</p>
<p class="origin">{origin}</p>
</article>
"""


def _qr(code: str) -> str:
    """The code as it is printed, which fits the compact alphanumeric mode; a quarter of it may be lost to dirt."""
    drawn = segno.make_qr(code, error="q", boost_error=False)
    return drawn.svg_inline(border=QUIET_MODULES, omitsize=True)


_STYLE: Final = """
@page { margin: 11mm; }
* { box-sizing: border-box; margin: 0; }
body { font: 2.5mm/1.25 "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "Noto Sans SC", sans-serif; color: #000; }
header { max-width: 180mm; margin: 6mm auto; font-size: 4mm; }
section { display: grid; grid-template-columns: 90mm 90mm; grid-auto-rows: 50mm; width: 180mm; margin: 0 auto 8mm; }
article { position: relative; overflow: hidden; border: 0.2mm dashed #999; break-inside: avoid; background: #fff; }
article > * { position: absolute; }
.text { left: 4mm; top: 3.5mm; width: 54mm; height: 34mm; overflow: hidden; }
.text > * { overflow: hidden; overflow-wrap: anywhere; margin-bottom: 0.6mm; }
h2, .note { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; }
h2 { font-size: 3.8mm; line-height: 1.2; }
.what { font-weight: 700; }
p span { font-size: 2.2mm; }
.whose span, time { display: block; }
.what span { font-size: inherit; }
.segno { right: 0; top: 0; width: 32mm; height: 32mm; shape-rendering: crispEdges; }
.code, .origin { left: 3mm; right: 3mm; text-align: center; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; }
.code { bottom: 4.8mm; font: 700 5.6mm/1.35 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono",
  monospace; }
.origin { bottom: 1.4mm; color: #444; font-size: 2.2mm; line-height: 1.5; }
@media screen { body { background: #eee; } }
@media print {
  header { display: none; }
  section { margin-bottom: 0; break-after: page; }
  section:last-of-type { break-after: auto; }
}
"""
