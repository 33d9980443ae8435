"""`flashsale fcodes …` against a service that breaks off, answers something else, or sends a million lines in pieces.

What the commands do to a real service is tested beside the other commands.
"""

import asyncio
import io
import json
import os
import re
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from fcodes import Keys, mint, new_master
from flashsale.cli import main

CODES = list(mint(Keys.parse(new_master(bytes(range(32)))), 7, range(1_200)))
BEARER = "".join(f"{line}\n" for line in ["code", *CODES]).encode()
FEW = "".join(f"{line}\n" for line in ["code", *CODES[:120]]).encode()
BOUND = (
    "code,member_id,note\n"
    + "".join(f'{code},{member},"北京, ""club"" {member}"\n' for member, code in enumerate(CODES[:24], 1))
    + f"{CODES[24]},99,\n"
).encode()
CODES_PATH = "/v1/ops/fcodes/7.csv"
JSON = "application/json"
BATCH = {
    "batch": "7",
    "drop": "engineering",
    "allocation": "campus",
    "count": len(CODES),
    "bound": False,
    "created_at": "2026-01-01T00:00:00Z",
    "expires_at": "2026-12-31T16:00:00Z",
    "revoked_at": None,
    "note": "autumn",
    "counts": {"unspent": 1_197, "held": 1, "confirmed": 2, "returned": 0, "revoked": 0},
}


class Service:
    """Answers as the contract says, from what it is given; remembers what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.csv = BEARER
        self.piece_bytes = 1_000
        self.breaks_off = False
        self.instead: dict[str, list[tuple[int, str, str]]] = {}
        self.spent = [
            {"serial": n, "member": n, "state": "held", "at": "2026-01-02T00:00:00Z", "reservation": f"r{n}"}
            for n in range(1_300)
        ]

    def calls(self, path: str) -> int:
        """How often this was asked for."""
        return sum(1 for _, asked, _, _ in self.asked if asked == path)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Any call."""
        self.asked.append((request.method, request.path, dict(request.query), await request.read()))
        assert request.headers["Authorization"] == "Bearer t"
        if instead := self.instead.get(request.path):
            status, content_type, text = instead.pop(0)
            return web.Response(status=status, content_type=content_type, text=text)
        match request.method, request.path:
            case "GET", "/v1/ops/fcodes/7":
                return web.json_response({**BATCH, **self._page(request, "spent", self.spent)})
            case "GET", "/v1/ops/fcodes":
                return web.json_response(self._page(request, "items", [{**BATCH, "batch": str(n)} for n in range(800)]))
            case "GET", "/v1/ops/drops/engineering":
                return web.json_response({"id": "engineering", "title": "小米手机 <1>"})
            case "GET", "/v1/ops/fcodes/7.csv":
                return await self._stream(request)
            case "POST", "/v1/ops/fcodes/7/revoke":
                return web.json_response({"batch": "7", "revoked": 2, "counts": BATCH["counts"]})
            case "POST", _:
                return web.json_response(BATCH, status=201)
        raise AssertionError(request.path)

    def _page(self, request: web.Request, key: str, items: list[dict[str, Any]]) -> dict[str, Any]:
        first, limit = int(request.query.get("after", 0)), int(request.query["limit"])
        assert 1 <= limit <= 500
        end = first + limit
        return {key: items[first:end], "next": str(end) if end < len(items) else None}

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/csv; charset=utf-8"})
        await response.prepare(request)
        for at in range(0, len(self.csv), self.piece_bytes):
            if self.breaks_off and at > len(self.csv) // 2:
                assert request.transport is not None
                request.transport.close()
                break
            await response.write(self.csv[at : at + self.piece_bytes])
        await response.write_eof()
        return response


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """The service, as long as a test runs."""
    made = Service()
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", made.answer)
    async with TestServer(app, host="127.0.0.1") as server:
        made.url = str(server.make_url("/"))
        yield made


class Call:
    """Runs `flashsale fcodes …` for the service, in this process."""

    def __init__(self, service: Service, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        self._url = service.url
        self._capture = capfdbinary

    async def __call__(self, *arguments: str) -> tuple[int, bytes, str]:
        """Exit code, standard output, standard error."""
        options = ("--url", self._url, "--token", "t")
        try:
            code = await asyncio.to_thread(main, ["fcodes", *arguments, *options])
        except SystemExit as end:
            code = int(str(end.code))
        out, err = self._capture.readouterr()
        return code, out, err.decode()


@pytest.fixture
def call(service: Service, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Commands for the service, whatever settings the machine has."""
    for name in [name for name in os.environ if name.startswith("FLASHSALE_")]:
        monkeypatch.delenv(name)
    return Call(service, capfdbinary)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_codes_go_to_standard_output_as_they_come(service: Service, call: Call) -> None:
    """Byte for byte, and nothing else."""
    assert await call("export", "7") == (0, BEARER, "")
    assert service.asked[-1][1:3] == (CODES_PATH, {})


async def test_a_file_is_private_complete_and_in_its_place(service: Service, call: Call, tmp_path: Path) -> None:
    """Whatever the umask says; a file of an earlier export is replaced with its mode, and nothing is left beside it."""
    file = tmp_path / "codes.csv"
    file.write_text("old")
    file.chmod(0o644)
    code, out, err = await call("export", "7", "--out", str(file), "--reason", "lost & found, 再来")
    assert (code, out, err) == (0, f"Batch 7: 1,200 codes in {file}.\n".encode(), "")
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (BEARER, 0o600)
    assert left_in(tmp_path) == ["codes.csv"]
    assert service.asked[-1][2] == {"reason": "lost & found, 再来"}


async def test_a_link_stays_one(service: Service, call: Call, tmp_path: Path) -> None:
    """The file that it points to is written, in its own folder."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link.csv").symlink_to("real/codes.csv")
    assert (await call("export", "7", "--out", str(tmp_path / "link.csv")))[0] == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real" / "codes.csv").read_bytes() == BEARER


async def test_an_export_that_breaks_off_leaves_nothing(service: Service, call: Call, tmp_path: Path) -> None:
    """Half a batch must not look like one; what was there before is untouched."""
    service.csv, service.breaks_off = FEW, True
    (tmp_path / "codes.csv").write_text("old")
    code, out, err = await call("export", "7", *files(tmp_path))
    assert (code, out) == (1, b"")
    assert re.fullmatch(r"flashsale: unavailable: The answer of \S+ was lost \(\w+\).*\n", err)
    assert left_in(tmp_path) == ["codes.csv"]
    assert (tmp_path / "codes.csv").read_text() == "old"


async def test_half_a_line_at_the_end_is_no_complete_export(service: Service, call: Call, tmp_path: Path) -> None:
    """Even if whoever stands in between ended the transfer properly."""
    service.csv = FEW[:-3]
    code, _, err = await call("export", "7", *files(tmp_path))
    assert (code, left_in(tmp_path)) == (1, [])
    assert "in the middle of a line" in err


def files(folder: Path) -> list[str]:
    return ["--out", str(folder / "codes.csv"), "--cards", str(folder / "cards.html")]


async def test_codes_and_cards_come_from_one_export(
    service: Service, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit log has one act; the cards have the codes of the file, in its order, and the drop's title."""
    service.csv = FEW
    code, out, _ = await call("export", "7", *files(tmp_path), "--json")
    assert (code, service.calls(CODES_PATH)) == (0, 1)
    names = {name: str(tmp_path / file) for name, file in (("out", "codes.csv"), ("cards", "cards.html"))}
    assert json.loads(out) == {"batch": "7", "codes": 120, **names}
    cards = (tmp_path / "cards.html").read_text()
    assert re.findall(r'<p class="code">(.*?)</p>', cards) == CODES[:120]
    assert (tmp_path / "codes.csv").read_bytes() == FEW
    assert set(re.findall(r"<h2>(.*?)</h2>", cards)) == {"<bdi>小米手机 &lt;1&gt;</bdi>"}
    assert set(re.findall(r'<p class="note">(.*?)</p>', cards)) == {"<bdi>autumn</bdi>"}
    assert stat.S_IMODE((tmp_path / "cards.html").stat().st_mode) == 0o600
    assert cards.endswith("</html>\n")


@pytest.mark.parametrize("piece_bytes", [1, 7, 10_000])
async def test_bound_codes_make_cards_for_their_members(
    service: Service, call: Call, tmp_path: Path, piece_bytes: int
) -> None:
    """Wherever the pieces of the answer end: within a code, a quotation, a character. Without a note, the batch's."""
    service.csv, service.piece_bytes = BOUND, piece_bytes
    assert (await call("export", "7", "--cards", str(tmp_path / "cards.html")))[0] == 0
    cards = (tmp_path / "cards.html").read_text()
    assert left_in(tmp_path) == ["cards.html"]
    assert re.findall(r'<p class="code">(.*?)</p>', cards) == CODES[:25]
    assert re.findall(r"仅限会员 <b>(\d+)</b>", cards) == [*map(str, range(1, 25)), "99"]
    notes = re.findall(r'<p class="note"><bdi>(.*?)</bdi></p>', cards)
    assert notes == [*(f"北京, &quot;club&quot; {member}" for member in range(1, 25)), "autumn"]


async def test_cards_show_the_expiry_where_they_are_printed(tmp_path: Path) -> None:
    """In the machine's time zone, which a process reads when it starts."""
    show = (
        "from flashsale.cards import Sheet, Card\nfrom flashsale.cli.export import _about\n"
        f"print(Sheet(_about({BATCH!r}, 'x')).add(Card('c')))"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", show),
        env={**os.environ, "TZ": "Asia/Shanghai"},
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert '<time datetime="2027-01-01T00:00+08:00">2027-01-01 00:00 (UTC+08:00)</time>' in out.decode()


@pytest.mark.parametrize(
    "body", [b"code,secret\nA,B\n", b"code\nA,B\n", b"code,member_id,note\nA\n", b"\n\n", b"secret\n", b"code\n\nA\n"]
)
async def test_codes_in_an_unknown_form_make_no_cards(
    service: Service, call: Call, tmp_path: Path, body: bytes
) -> None:
    """Rather than cards with something else on them."""
    service.csv = body
    code, _, err = await call("export", "7", "--cards", str(tmp_path / "cards.html"))
    assert (code, left_in(tmp_path)) == (1, [])
    assert err.startswith("flashsale: unavailable: The service sent ")


@pytest.mark.parametrize(
    ("instead", "said"),
    [
        ((409, JSON, '{"code": "conflict", "detail": "No key."}'), "flashsale: conflict: No key.\n"),
        ((200, "text/html", "<html>"), "is not this service (status 200)"),
        ((200, JSON, '{"items": []}'), "is not this service (status 200)"),
        ((204, "text/csv", ""), "is not this service (status 204)"),
        ((502, "text/plain", "bad gateway"), "is not this service (status 502)"),
    ],
)
async def test_another_answer_than_codes_is_not_written(
    service: Service, call: Call, tmp_path: Path, instead: tuple[int, str, str], said: str
) -> None:
    """Neither a refusal nor a page of something in between becomes a file."""
    service.instead[CODES_PATH] = [instead]
    code, _, err = await call("export", "7", "--out", str(tmp_path / "codes.csv"))
    assert (code, left_in(tmp_path)) == (1, [])
    assert said in err


async def test_a_place_that_is_no_file_is_refused_before_any_code_is_asked_for(
    service: Service, call: Call, tmp_path: Path
) -> None:
    """A device is not replaced by a file, and no export is in the audit log that reached nobody."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for place in ("/dev/null", str(tmp_path / "folder"), str(tmp_path / "pipe")):
        code, _, err = await call("export", "7", "--out", place)
        assert (code, err) == (2, f"flashsale: {place} is no plain file; name another, or a new one.\n")
    missing = str(tmp_path / "missing" / "codes.csv")
    code, _, err = await call("export", "7", "--out", missing)
    assert (code, err) == (2, f"flashsale: {missing} cannot be written: No such file or directory.\n")
    same = str(tmp_path / "same")
    assert (await call("export", "7", "--out", same, "--cards", f"{tmp_path}/folder/../same"))[0] == 2
    assert (await call("export", "7", "--json"))[0] == 2
    assert service.calls(CODES_PATH) == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


async def test_a_service_that_comes_back_is_asked_again(
    service: Service, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with every other call that only reads; nothing of the first answer is in the result."""
    monkeypatch.setattr("flashsale.cli.client.REPEAT_EVERY_S", 0.01)
    service.instead[CODES_PATH] = [(503, JSON, '{"code": "unavailable", "detail": "Postgres is away."}')] * 2
    assert await call("export", "7") == (0, BEARER, "")
    assert service.calls(CODES_PATH) == 3


async def test_mint_sends_what_was_asked_for(service: Service, call: Call, tmp_path: Path) -> None:
    """A number as JSON; members as their file, streamed, with expiry and note beside it."""
    place = "/v1/ops/drops/engineering/allocations/campus/fcodes"
    code, out, _ = await call("mint", "engineering", "campus", "--count", "1200", "--note", "autumn")
    assert (code, out) == (0, b"Batch 7: 1,200 codes, in engineering/campus.\n")
    method, path, query, body = service.asked[-1]
    assert (method, path, query, json.loads(body)) == ("POST", place, {}, {"count": 1_200, "note": "autumn"})
    members = tmp_path / "members.csv"
    members.write_bytes(b"member_id,note\n" + b"7,x\n" * 100_000)
    when = "2027-01-01T00:00:00+08:00"
    bound = ("--members", str(members), "--expires", when, "--note", "秋", "--json")
    code, out, _ = await call("mint", "engineering", "campus", *bound)
    assert (code, json.loads(out)["batch"]) == (0, "7")
    assert service.asked[-1] == ("POST", place, {"expires_at": when, "note": "秋"}, members.read_bytes())


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--count", "0"),
        ("--count", "4194305"),
        ("--count", "x"),
        ("--count", "5", "--members", "m.csv"),
        ("--count", "5", "--expires", "tomorrow"),
        ("--count", "5", "--expires", "2027-01-01T00:00:00"),
        ("--members", "no/such.csv"),
    ],
)
async def test_mint_refuses_what_makes_no_sense(service: Service, call: Call, options: tuple[str, ...]) -> None:
    """Exit code 2, and no call."""
    assert (await call("mint", "engineering", "campus", *options))[0] == 2
    assert service.asked == []


async def test_list_and_show_read_as_many_pages_as_it_takes(service: Service, call: Call) -> None:
    """As many as asked for, and a remark when there are more."""
    code, out, err = await call("list", "--limit", "700")
    assert (code, len(out.splitlines()), err) == (0, 701, "There are more: give a larger --limit.\n")
    assert [query["limit"] for _, _, query, _ in service.asked] == ["500", "200"]
    code, out, err = await call("list", "--limit", "5000", "--json")
    assert (code, len(json.loads(out)["items"]), json.loads(out)["next"], err) == (0, 800, None, "")
    code, out, err = await call("show", "7")
    lines = out.decode().splitlines()
    assert lines[:6] == [
        "Batch 7: 1,200 codes for whoever has them, in engineering/campus",
        "created_at 2026-01-01T00:00:00Z",
        "expires_at 2026-12-31T16:00:00Z",
        "note autumn",
        "unspent  held  confirmed  returned  revoked",
        "   1197     1          2         0        0",
    ]
    assert (code, len(lines), err) == (0, 8 + 50, "There are more: give a larger --limit.\n")
    code, out, _ = await call("show", "7", "--limit", "1200", "--json")
    assert [item["serial"] for item in json.loads(out)["spent"]] == list(range(1_200))


async def test_revoke_sends_serials_place_and_reason(service: Service, call: Call) -> None:
    """All of the batch without serials; a reason always."""
    code, out, _ = await call("revoke", "7", "--reason", "lost")
    assert (code, json.loads(service.asked[-1][3])) == (0, {"reason": "lost"})
    assert out == b"Batch 7: 2 codes revoked; now 1,197 unspent, 1 held, 2 confirmed, 0 returned, 0 revoked.\n"
    several = ("--serial", "3", "0", "--serial", "5", "--to", "public", "--reason", "misprint", "--json")
    code, out, _ = await call("revoke", "7", *several)
    sent = {"serials": [3, 0, 5], "to_allocation": "public", "reason": "misprint"}
    assert (code, json.loads(service.asked[-1][3]), json.loads(out)["revoked"]) == (0, sent, 2)
    for wrong in (("--serial", "1"), ("--serial", "-1", "--reason", "x"), ("--serial", "4194304", "--reason", "x")):
        assert (await call("revoke", "7", *wrong))[0] == 2
    assert len(service.asked) == 2


async def test_progress_is_written_for_a_person_only(
    service: Service, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal, how far it is; an empty line at the end."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert (await call("export", "7", "--out", str(tmp_path / "codes.csv")))[0] == 0
    said = terminal.getvalue().split("\r\x1b[K")
    assert re.fullmatch(r"[\d,]+ of 1,200 codes", said[1])
    assert said[-1] == ""
