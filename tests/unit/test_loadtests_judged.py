"""What a run is found to be: its checks, its exit code, its report; and the command line's own refusals."""

import asyncio
import json
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from loadtests import load
from loadtests.crowd.charts import nice_top
from loadtests.crowd.gathering import HEARD
from loadtests.crowd.guests import Sale
from loadtests.crowd.judged import own_checks
from loadtests.crowd.options import Options
from loadtests.crowd.tally import Tally
from loadtests.crowd.verdict import JOURNAL, REPORT, RESULT, judge, main, merge, write
from loadtests.errors import SetupError
from loadtests.service import Service

SALE = Sale("run", "drop", "http://x", "noon", 3, 2, 1e9, 10.0, 2.0, 5.0, 1)


def heard(**changes: object) -> dict[str, Any]:
    """A run in which three shoppers came, over two processes, and all was well."""
    tally = Tally()
    tally.add("came", "shopper", times=3)
    tally.add("left", "shopper", times=3)
    for second, word, took_s in ((0, "held", 0.02), (0, "held", 0.03), (2, "sold_out", 0.2)):
        tally.add("verdict", second, word)
        tally.add("final", "shopper", word)
        tally.add("heard", "press", word)
        for kind in ("intent", "wire"):
            tally.took(kind, "press", seconds=took_s)
        tally.took("press from intent", second, seconds=took_s)
        tally.took("press on the wire", second, seconds=took_s / 2)
        tally.took("late", seconds=0.001)
    tally.add("did", "hammered <b>", times=4)
    document: dict[str, Any] = {
        "sale": SALE.to_dict(),
        "processes": 2,
        "done": [0, 1],
        "interrupted": False,
        "roles": {"shopper": 3},
    }
    return document | {"tally": tally.rows(), "examples": []} | changes


def options(tmp_path: Path, **changes: object) -> Options:
    """Options of a run whose stores nobody knows."""
    given: dict[str, Any] = dict.fromkeys(Options.__dataclass_fields__, "")
    return Options(**(given | {"page": False, "settle_seconds": 1.0, "out": str(tmp_path / "out")} | changes))


def run_folder(tmp_path: Path, document: dict[str, Any]) -> Path:
    """A run's folder as locust's master leaves it."""
    run = tmp_path / "run"
    run.mkdir()
    (run / HEARD).write_text(json.dumps(document))
    for index in range(2):
        stamps = [{"call": "reserve", "sent_at": at, "status": 0} for at in (10 + index, 3 + index, 20 + index)]
        (run / f"journal-{index}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in stamps))
    return run


def more(*key: str | int) -> list[list[Any]]:
    """The rows of a good run, and one key counted once more."""
    return [*heard()["tally"], [*key, 1]]


@pytest.mark.parametrize(
    ("changes", "line", "why"),
    [
        ({}, "", ""),
        ({"done": [0]}, "every arrival", "process 1 of 2 did not send its last"),
        ({"interrupted": True}, "every arrival", "ended before its time"),
        ({"roles": {"shopper": 4}}, "every arrival", "1 of 4 arrivals never came"),
        ({"tally": more("came", "fan"), "roles": {"shopper": 3, "fan": 1}}, "every arrival", "1 of 4 visits broke off"),
        ({"tally": more("unanswered", "coded")}, "everyone heard", "1 had none in time: 1 coded"),
        ({"tally": more("fault", "5xx"), "examples": ["5xx: press: 500"]}, "no 5xx", "1 times, first: 5xx: press: 500"),
        ({"tally": more("fault", "unknown")}, "no verdict that", "1 times"),
        ({"tally": more("fault", "wrong"), "examples": ["5xx: a", "wrong: b"]}, "no answer that", "first: wrong: b"),
    ],
)
def test_each_thing_that_can_be_wrong_is_found_and_named(
    tmp_path: Path, changes: dict[str, Any], line: str, why: str
) -> None:
    """By the checks, and by the exit code of the program that judges."""
    document = heard(**changes)
    wrong = [check for check in own_checks(document, Tally(document["tally"])) if not check.true]
    assert [check.line.startswith(line) and why in str(check.contradiction) for check in wrong] == [True] * bool(line)
    options(tmp_path).write(tmp_path / "options.json")
    assert main([str(tmp_path / "options.json"), str(run_folder(tmp_path, document))]) == (1 if line else 0)
    told = json.loads((tmp_path / "out" / RESULT).read_text())
    assert told["true"] is not bool(line)
    assert why in str(told["contradiction"])


def test_what_cannot_be_judged_ends_with_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options(tmp_path).write(tmp_path / "options.json")
    assert main([str(tmp_path / "options.json"), str(tmp_path)]) == 2
    assert HEARD in capsys.readouterr().err


def test_journals_of_all_processes_become_one_in_the_order_of_asking(tmp_path: Path) -> None:
    run = run_folder(tmp_path, heard())
    assert merge([run / "journal-0.jsonl", run / "journal-1.jsonl"], run / JOURNAL) == 6
    asked = [json.loads(line)["sent_at"] for line in (run / JOURNAL).read_text().splitlines()]
    assert asked == [3, 4, 10, 11, 20, 21]


class Page(HTMLParser):
    """What a page loads, and whether its elements are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in {"src", "href", "data", "action"}]
        if tag not in {"meta", "br", "line", "rect", "circle", "polyline"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert (
            self.open.pop() == tag
            if tag not in {"line", "rect", "circle", "polyline"} or self.open[-1:] == [tag]
            else 1
        )


async def test_the_page_has_the_figures_and_loads_nothing(tmp_path: Path) -> None:
    run = run_folder(tmp_path, heard())
    result = await judge(options(tmp_path), run)
    write(result, run, tmp_path / "out")
    text = (tmp_path / "out" / REPORT).read_text()
    parsed = Page()
    parsed.feed(text)
    assert parsed.open == []
    assert parsed.loads == ["locust.html"]
    assert "<script" not in text
    assert "url(" not in text
    assert "@import" not in text
    for shown in (
        "second 0: 2 held",
        "second 2: 1 sold_out",
        "hammered &lt;b&gt;",
        "Everything is true",
        "not audited",
    ):
        assert shown in text
    assert "<b>" not in text.split("hammered")[1][:9]
    assert re.search(r"second 1: p99", text) is None
    assert "The generator was the bottleneck" not in text


async def test_the_second_in_which_nobody_pressed_has_its_place(tmp_path: Path) -> None:
    seconds = (await judge(options(tmp_path), run_folder(tmp_path, heard()))).to_dict()["seconds"]
    assert [(row["second"], row["presses"]) for row in seconds] == [(0, 2), (1, 0), (2, 1)]
    assert seconds[2]["from_intent_ms"]["p99"] == pytest.approx(200, rel=0.05)
    assert seconds[2]["on_the_wire_ms"]["p99"] == pytest.approx(100, rel=0.05)


@pytest.mark.parametrize(("most", "top"), [(0, 1), (1, 1), (1.5, 2), (3, 5), (51, 100), (100, 100), (101, 200)])
def test_an_axis_ends_at_a_round_figure(most: float, top: float) -> None:
    assert nice_top(most) == top


@pytest.mark.parametrize(
    ("arguments", "environ", "why"),
    [
        (["--shoppers", "5"], {}, "--shoppers"),
        (["--seconds", "0.5"], {}, "--seconds"),
        (["--tokens", "none.csv"], {}, "LOADTEST_OPERATOR_TOKEN"),
        (["--tokens", "none.csv"], {"LOADTEST_OPERATOR_TOKEN": "t"}, "none.csv cannot be read"),
    ],
)
def test_what_cannot_be_run_says_what_to_do(
    tmp_path: Path, arguments: list[str], environ: dict[str, str], why: str
) -> None:
    asked = load.parser().parse_args(arguments)
    with pytest.raises(SetupError, match=why):
        load.options_of(asked, Service("http://127.0.0.1:1", "s"), tmp_path, environ)


def test_figures_that_are_not_named_come_from_the_shape(tmp_path: Path) -> None:
    """Units in proportion; more shoppers have longer to look before the opening."""
    asked = load.parser().parse_args(["--shape", "noon", "--shoppers", "6000", "--processes", "2"])
    options_ = load.options_of(asked, Service("http://127.0.0.1:1/", "s", "redis://x"), tmp_path, {})
    assert (options_.units, options_.seconds, options_.hold_seconds) == (1_200, 30.0, 8)
    assert options_.lead_seconds == pytest.approx(7.2)
    assert (options_.url, options_.redis_url, options_.database_url) == ("http://127.0.0.1:1", "redis://x", "")
    command = load.command_of(asked, options_)
    assert "--headless" in command
    assert command[command.index("--processes") + 1] == "2"
    assert command[command.index("--master-bind-host") + 1] == "127.0.0.1"
    assert "s" not in command


async def test_a_service_that_is_not_there_ends_with_two_and_its_name(tmp_path: Path) -> None:
    """The whole command, locust included: nobody listens on that port."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FLASHSALE_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "loadtests.load", "--shape", "smoke", "--url", "http://127.0.0.1:9"),
        *("--secret", "a secret of at least thirty-two bytes", "--out", str(tmp_path / "out")),
        cwd=Path(__file__).parents[2],
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert "http://127.0.0.1:9 cannot be reached" in errors.decode()
    assert "Traceback" not in errors.decode()
