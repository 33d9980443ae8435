"""What a page weighs, compressed, and how much of it a browser must fetch before it shows."""

import re

import pytest
from aiohttp import ClientSession

from flashsale.domain import Fcode, Text, Texts
from tests.pages.conftest import NewSale
from tests.support import allocation

KB = 1000
LONG = Texts(zh=Text(description="六百台工程版，分批开售。" * 40), en=Text(description="A small first run. " * 40))
PACKED = {"Accept-Encoding": "gzip"}


async def weight(http: ClientSession, path: str) -> tuple[int, str]:
    """How many bytes come, and what they say."""
    async with http.get(path, headers=PACKED) as answer:
        assert answer.status == 200, path
        text = await answer.text()
        return int(answer.headers["Content-Length"]), text


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("page", ["", "d/{drop}", "reservations", "fcodes", "sign-in"])
async def test_a_page_is_light(http: ClientSession, new_sale: NewSale, page: str, language: str) -> None:
    """HTML ≤ 10 kB, CSS ≤ 8 kB, JS ≤ 20 kB; at most eight modules, each announced; nothing from elsewhere."""
    drop = await new_sale(allocation(), allocation("v", access=Fcode()), texts=LONG)
    size, html = await weight(http, f"/{language}/{page.format(drop=drop.id)}")
    assert size <= 10 * KB
    styles = re.findall(r'rel="stylesheet" href="([^"]+)"', html)
    assert sum([(await weight(http, path))[0] for path in styles]) <= 8 * KB
    modules = re.findall(r'rel="modulepreload" href="([^"]+)"', html)
    loaded = [await weight(http, path) for path in modules]
    assert 1 <= len(modules) <= 8
    assert sum(each[0] for each in loaded) <= 20 * KB
    names = {path.rpartition("/")[2] for path in modules}
    for _, source in loaded:
        assert set(re.findall(r'from "\./([^"]+)"', source)) <= names
        assert "import(" not in source
    everything = re.findall(r'(?:src|href|action)="([^"]+)"', html)
    assert all(each.startswith(("/", "#")) for each in everything)
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! type=\"module\" src=)", html)
