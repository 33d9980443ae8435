"""Cards to print: each code in letters and as a QR code that a reader reads, ten a page, whatever a title holds."""

import re
import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser
from itertools import pairwise

import msgspec
import pytest
import zxingcpp

from fcodes import Keys, mint, new_master, parse
from flashsale.cards import CARDS_PER_PAGE, QUIET_MODULES, About, Card, Sheet

KEYS = Keys.parse(new_master(bytes(range(32))))
CODES = list(mint(KEYS, 7, range(25)))
ABOUT = About("小米手机 · Engineering edition", "engineering", "campus", "7", None)
EVIL = "<script>alert('x')</script>&\"'</style><h1>"
PIXELS = 3
VOID = {"meta", "path"}


def html(cards: list[Card], about: About = ABOUT) -> str:
    """The whole sheet."""
    sheet = Sheet(about)
    return "".join([sheet.begin(), *(sheet.add(card) for card in cards), sheet.end()])


class Outline(HTMLParser):
    """What a browser would make of it: elements by name, with their classes, and text by the class it stands in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        name = f"{tag}.{dict(attrs).get('class')}"
        self.names.append(name)
        if tag not in VOID:
            self.open.append(name)
            self.texts.setdefault(name, []).append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop().startswith(f"{tag}.")

    def handle_data(self, data: str) -> None:
        for name in self.open:
            self.texts[name][-1] += data


def read_qr(svg: str) -> str:
    """What a reader sees: the drawing's own lines, painted black on white, with nothing around but what it brings."""
    found = re.search(r'viewBox="0 0 (\d+) \1".*? d="([^"]+)"', svg)
    assert found is not None, svg
    side = int(found[1])
    modules = [bytearray(b"\xff" * side) for _ in range(side)]
    x = y = 0.0
    for command, dx, dy, length in re.findall(r"([Mm])(-?\d+) (-?[\d.]+)|h(\d+)", found[2]):
        if length:
            modules[int(y)][int(x) : int(x) + int(length)] = bytes(int(length))
            x += int(length)
        else:
            x, y = (float(dx), float(dy)) if command == "M" else (x + float(dx), y + float(dy))
    rows = [bytes(value for value in row for _ in range(PIXELS)) for row in modules for _ in range(PIXELS)]
    image = memoryview(b"".join(rows)).cast("B", (side * PIXELS, side * PIXELS))
    (read,) = zxingcpp.read_barcodes(image)
    assert read.format == zxingcpp.BarcodeFormat.QRCode
    assert all(row[:QUIET_MODULES] == b"\xff" * QUIET_MODULES == row[-QUIET_MODULES:] for row in modules)
    return str(read.text)


def test_every_qr_code_is_read_as_the_code_printed_below_it() -> None:
    """Both are the very code that was minted."""
    text = html([Card(code) for code in CODES])
    printed = Outline(text).texts["p.code"]
    assert [read_qr(svg) for svg in re.findall(r"<svg.*?</svg>", text)] == printed == CODES
    assert parse(printed[3]) == parse(CODES[3])


@pytest.mark.parametrize(("count", "pages"), [(0, 0), (1, 1), (10, 1), (11, 2), (20, 2), (25, 3)])
def test_ten_cards_a_page(count: int, pages: int) -> None:
    """Full pages, and what is left on the last one; well formed in any case."""
    outline = Outline(html([Card(code) for code in CODES[:count]]))
    assert (outline.names.count("section.None"), outline.names.count("article.None")) == (pages, count)
    starts = [at for at, name in enumerate(outline.names) if name == "section.None"]
    cards = [outline.names[a:b].count("article.None") for a, b in pairwise([*starts, len(outline.names)])]
    assert cards[:-1] == [CARDS_PER_PAGE] * (pages - 1 if pages else 0)


def test_what_people_wrote_stays_text() -> None:
    """Title, ids, member and note: none of them becomes an element, and all of them are there as they were written."""
    about = About(EVIL, EVIL, EVIL, EVIL, None)
    outline = Outline(html([Card(EVIL, EVIL, EVIL)], about))
    plain = Outline(html([Card(CODES[0], "7", "x")]))
    assert outline.names == plain.names
    assert outline.texts["h2.None"] == outline.texts["p.note"] == outline.texts["p.code"] == [EVIL]
    assert outline.texts["p.origin"] == [f"批次 Batch {EVIL} · {EVIL} / {EVIL}"]
    assert outline.texts["p.whose"][0].count(EVIL) == 2


def test_a_sheet_loads_nothing_and_runs_nothing() -> None:
    """It can be opened from a disk years later, and tells nobody: no address but the drawing's own name space."""
    text = html([Card(CODES[0], "7", "x")])
    assert "default-src 'none'" in text
    assert not re.search(r"<script|<link|<img|@import|url\(|src=|href=|https?:", text)


def test_a_card_says_whose_it_is() -> None:
    """A bound code names its member; another says that it is whoever's who shows it."""
    anybody, member = Outline(html([Card(CODES[0]), Card(CODES[1], "9223372036854775807")])).texts["p.whose"]
    assert (anybody, member) == (
        "限用一次，认码不认人 One use, by whoever shows it",
        "仅限会员 9223372036854775807 使用 For member 9223372036854775807 only",
    )


@pytest.mark.parametrize(
    ("expires_at", "said"),
    [
        (None, "活动期间有效 Valid while the sale runs"),
        (datetime(2026, 12, 31, 16, 0, tzinfo=UTC), "有效期至 Valid until 2026-12-31 16:00 (UTC)"),
        (
            datetime(2026, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=8))),
            "有效期至 Valid until 2026-12-31 23:59 (UTC+08:00)",
        ),
        (
            datetime(2026, 1, 2, 3, 4, tzinfo=timezone(-timedelta(hours=3, minutes=30))),
            "有效期至 Valid until 2026-01-02 03:04 (UTC-03:30)",
        ),
    ],
)
def test_a_card_says_until_when(expires_at: datetime | None, said: str) -> None:
    """In the zone that it is given in, which it names; never later than it is."""
    about = msgspec.structs.replace(ABOUT, expires_at=expires_at)
    assert Outline(html([Card(CODES[0])], about)).texts["p.until"] == [said]


def test_a_note_is_there_when_there_is_one() -> None:
    """No empty line otherwise."""
    assert Outline(html([Card(CODES[0], None, "北京大学")])).texts["p.note"] == ["北京大学"]
    assert "p.note" not in Outline(html([Card(CODES[0], None, "")])).texts


def test_memory_stays_flat() -> None:
    """A sheet keeps nothing of what it has handed out."""
    sheet = Sheet(ABOUT)
    sheet.begin()
    for code in CODES[:5]:
        sheet.add(Card(code))
    tracemalloc.start()
    try:
        written = sum(len(sheet.add(Card(code))) for code in CODES * 4)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert written > 100_000
    assert peak < 100_000
