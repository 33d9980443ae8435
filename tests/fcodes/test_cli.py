"""The command line, run for real: results, remarks, exit codes; and never a code or a key where none belongs."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

from fcodes import Keys, mint, new_master
from fcodes.cli import main

ROOT = Path(__file__).parents[2]
RING = "0:" + new_master(bytes(range(32)))
[CODE] = mint(Keys.parse(RING), 7, range(42, 43))
OTHERS = f"0:{new_master(bytes(range(1, 33)))}"
WRONG = CODE[:-1] + ("0" if CODE[-1] != "0" else "1")


class Ran(NamedTuple):
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str


def fcodes(*arguments: str, stdin: bytes = b"", ring: str | None = None) -> Ran:
    """Run `python -m fcodes`, with FLASHSALE_FCODE_KEYS if a ring is given."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FLASHSALE_")}
    if ring is not None:
        environ["FLASHSALE_FCODE_KEYS"] = ring
    command = [sys.executable, "-m", "fcodes", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environ, input=stdin, capture_output=True, check=False, timeout=60)
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_the_script_is_declared() -> None:
    """`fcodes` on the path is this module's `main`."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, function = scripts["fcodes"].split(":")
    assert getattr(import_module(module), function) is main


def test_keygen_makes_another_key_each_time_that_the_setting_takes_as_it_is() -> None:
    one, two = fcodes("keygen"), fcodes("keygen", "--json")
    assert (one.code, two.code) == (0, 0)
    first, second = one.out.removesuffix("\n"), json.loads(two.out)
    assert first != second["key"]
    assert Keys.parse(first).fingerprint(0) in one.err
    assert Keys.parse(f"0:{first},1:{second['key']}").fingerprint(1) == second["fingerprint"]
    assert first not in one.err
    assert second["key"] not in two.err


def test_without_keys_a_code_is_well_formed_and_no_more() -> None:
    text, document = fcodes("check", CODE), fcodes("check", CODE, "--json")
    assert (text.code, text.out) == (0, "Well formed: serial 42 of batch 7, key version 0.\n")
    assert "set FLASHSALE_FCODE_KEYS or give --keys-file" in text.err
    assert document == (0, document.out, "")
    assert json.loads(document.out) == {"verdict": "well_formed", "batch": 7, "serial": 42, "key_version": 0}


def test_with_keys_a_code_of_ours_is_valid(tmp_path: Path) -> None:
    """From the environment or a file; the file has the last word."""
    file = tmp_path / "keys"
    file.write_text(RING + "\n", encoding="utf-8")
    for ran in (
        fcodes("check", CODE, ring=RING),
        fcodes("check", CODE, "--keys-file", str(file)),
        fcodes("check", CODE, "--keys-file", str(file), ring=OTHERS),
    ):
        assert (ran.code, ran.out) == (0, "Valid: serial 42 of batch 7, key version 0.\n")
    assert json.loads(fcodes("check", CODE, "--json", ring=RING).out) == {
        "verdict": "valid",
        "batch": 7,
        "serial": 42,
        "key_version": 0,
    }


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        ([CODE.lower().replace("-", "")], b""),
        ([f" {CODE} "], b""),
        (CODE.split("-"), b""),
        (["-"], CODE.encode()),
        (["-"], f"{CODE}\r\nanything else".encode()),
        (["-"], CODE.translate({each: each + 0xFEE0 for each in range(0x21, 0x7F)}).encode()),
    ],
)
def test_a_code_is_read_as_people_type_it(arguments: list[str], stdin: bytes) -> None:
    """In several words, in full-width forms, or from standard input, where no shell remembers it."""
    ran = fcodes("check", *arguments, stdin=stdin, ring=RING)
    assert (ran.code, ran.out) == (0, "Valid: serial 42 of batch 7, key version 0.\n")


@pytest.mark.parametrize(
    ("arguments", "stdin", "slip"),
    [
        ([WRONG], b"", "check"),
        ([CODE[:-1]], b"", "length"),
        (["0" * 10_000], b"", "too_long"),
        ([""], b"", "empty"),
        (["-"], b"", "empty"),
        (["-"], b"\xff\xfe", "symbol"),
        (["-"], "\N{MATHEMATICAL BOLD DIGIT ZERO}".encode() * 65, "too_long"),
        (["-"], b"0" * 1_000_000, "too_long"),
        (["--", "-" + CODE[:-1] + "U"], b"", "symbol"),
    ],
)
def test_a_typo_is_refused_with_or_without_keys(arguments: list[str], stdin: bytes, slip: str) -> None:
    without, with_keys = (fcodes("check", "--json", *arguments, stdin=stdin, ring=ring) for ring in (None, RING))
    assert without == with_keys == (1, without.out, "")
    answer = json.loads(without.out)
    assert (answer["code"], answer["slip"]) == ("typo", slip)
    assert fcodes("check", *arguments, stdin=stdin) == (1, "", f"fcodes: typo: {answer['detail']}\n")


def test_a_code_that_is_not_ours_is_refused_with_what_it_claims() -> None:
    ran = fcodes("check", CODE, ring=OTHERS)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("fcodes: not_ours: It reads as serial 42 of batch 7, key version 0, but none of our keys")
    answer = json.loads(fcodes("check", CODE, "--json", ring=OTHERS).out)
    assert answer.pop("detail") in ran.err
    assert answer == {"code": "not_ours", "batch": 7, "serial": 42, "key_version": 0}
    rotated = fcodes("check", CODE, ring=OTHERS.replace("0:", "1:", 1))
    assert (rotated.code, rotated.out) == (1, "")
    assert "the key ring has no key of that version" in rotated.err


@pytest.mark.parametrize(
    ("ring", "file", "sentence"),
    [
        (RING[:-1], None, "Entry 1 of the key ring is no key"),
        (None, b"", "The key ring is empty"),
        (None, b"\xff\x00" * 9_000, "The key ring is longer than 4096 characters"),
        (None, None, "The key ring cannot be read from .*/missing: No such file or directory"),
    ],
)
def test_bad_keys_are_a_fault_of_the_set_up(
    ring: str | None, file: bytes | None, sentence: str, tmp_path: Path
) -> None:
    """Exit code 2, before the code is looked at; no part of the key is shown."""
    path = tmp_path / "missing"
    if file is not None:
        path = tmp_path / "keys"
        path.write_bytes(file)
    options = [] if ring else ["--keys-file", str(path)]
    ran = fcodes("check", CODE, *options, ring=ring)
    assert (ran.code, ran.out) == (2, "")
    assert re.match(f"fcodes: {sentence}", ran.err)
    answer = json.loads(fcodes("check", CODE, "--json", *options, ring=ring).out)
    assert answer["code"] == "setup"
    assert re.match(sentence, answer["detail"])
    assert RING[7:20] not in ran.err


@pytest.mark.parametrize("arguments", [[], ["check"], ["mint"], ["check", CODE, "--key", "x"], ["keygen", "x"]])
def test_usage_is_exit_code_2(arguments: list[str]) -> None:
    ran = fcodes(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("usage: fcodes")


@pytest.mark.parametrize("arguments", [[], ["keygen"], ["check"], ["vectors"]])
def test_help_is_complete(arguments: list[str]) -> None:
    """Each command explains itself on standard output; the setting it reads is named."""
    ran = fcodes(*arguments, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(" ".join(["usage: fcodes", *arguments]))
    assert arguments not in (["keygen"], ["check"]) or "FLASHSALE_FCODE_KEYS" in ran.out


def test_no_outcome_shows_the_code() -> None:
    """What is said of a code can be pasted into a ticket: nothing in it is the code."""
    for text, ring in ((CODE, None), (CODE, RING), (CODE, OTHERS), (WRONG, RING), (CODE[:-1], RING)):
        for options in ([], ["--json"]):
            ran = fcodes("check", text, *options, ring=ring)
            said = (ran.out + ran.err).upper()
            assert said
            assert [group for group in text.split("-")[2:] if group in said] == []


def test_vectors_writes_the_published_file() -> None:
    ran = fcodes("vectors")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (ROOT / "fcodes" / "vectors.json").read_text(encoding="utf-8")
    assert json.loads(fcodes("vectors", "--json").out) == json.loads(ran.out)


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    """`fcodes vectors | head -1`, with a pipe that nobody reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "fcodes", "vectors"]
        done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, check=False, timeout=60)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")
