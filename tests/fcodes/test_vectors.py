"""The published test vectors: made by the command that says so, and right by a second reading of the specification."""

import hashlib
import hmac
import json
from importlib.resources import files
from typing import Any

from fcodes import Code, Keys, NotOurs, Typo, parse, read
from fcodes.vectors import document
from tests.fcodes import reference

VECTORS: dict[str, Any] = json.loads(files("fcodes").joinpath("vectors.json").read_text(encoding="ascii"))
MASTERS = {each["version"]: bytes.fromhex(each["master"]) for each in VECTORS["keys"]}


def test_the_file_is_what_the_command_writes() -> None:
    """After a change of the format: `python -m fcodes vectors`, its output into fcodes/vectors.json."""
    text = files("fcodes").joinpath("vectors.json").read_text(encoding="ascii")
    assert text == json.dumps(document(), indent=2) + "\n"


def test_keys() -> None:
    """Text, PRK and fingerprint of each key; the ring is made of them."""
    for each in VECTORS["keys"]:
        master = bytes.fromhex(each["master"])
        assert each["text"] == reference.key_text(master)
        assert each["prk"] == hmac.new(b"fcodes/1", master, hashlib.sha256).hexdigest()
        assert each["fingerprint"] == reference.fingerprint(master)
    assert VECTORS["ring"] == ",".join(f"{each['version']}:{each['text']}" for each in VECTORS["keys"])
    assert VECTORS["newest"] == max(MASTERS) == Keys.parse(VECTORS["ring"]).newest


def test_valid_codes_with_every_step() -> None:
    keys = Keys.parse(VECTORS["ring"])
    for each in VECTORS["valid"]:
        fields = (each["version"], each["batch"], each["serial"])
        master = MASTERS[each["version"]]
        assert each["mac_key"] == reference.mac_key(master, *fields[:2]).hex()
        assert each["hmac"] == reference.tag(master, *fields).hex()
        key, message = bytes.fromhex(each["mac_key"]), bytes.fromhex(each["message"])
        assert each["hmac"] == hmac.new(key, message, hashlib.sha256).hexdigest()
        assert each["code"] == reference.code(master, *fields)
        values = [reference.SYMBOLS.index(symbol) for symbol in each["code"].replace("-", "")]
        assert each["bits_without_check"] == "".join(f"{value:05b}" for value in values[:19])
        assert each["check"] == each["code"][-1]
        code = read(each["code"], keys)
        assert isinstance(code, Code)
        assert (code.version, code.batch, code.serial) == fields
    macs = [bin(int(each["bits_without_check"][45:], 2)) for each in VECTORS["valid"]]
    assert min(map(len, macs)) <= len("0b") + 40  # one with zeros in front


def test_forgiving_reading() -> None:
    keys = Keys.parse(VECTORS["ring"])
    assert len({each["text"] for each in VECTORS["forgiving"]}) == len(VECTORS["forgiving"]) >= 15
    for each in VECTORS["forgiving"]:
        code = read(each["text"], keys)
        assert isinstance(code, Code), each["what"]
        assert code == parse(each["code"]), each["what"]


def test_typos() -> None:
    """Every way to go wrong is there."""
    for each in VECTORS["typos"]:
        typo = parse(each["text"])
        assert isinstance(typo, Typo), each["what"]
        assert (typo.slip, typo.symbols, typo.at) == (each["slip"], each["symbols"], each["at"]), each["what"]
    assert {each["slip"] for each in VECTORS["typos"]} == {"too_long", "empty", "symbol", "length", "check"}


def test_codes_that_are_not_ours() -> None:
    keys = Keys.parse(VECTORS["ring"])
    for each in VECTORS["not_ours"]:
        assert isinstance(read(each["code"], keys), NotOurs), each["what"]


def test_the_steps_of_the_check_symbol() -> None:
    """Each sum is what the symbols so far make of it."""
    steps = VECTORS["check_steps"]
    total = 0
    for symbol, step in zip(steps["code"].replace("-", ""), steps["steps"], strict=False):
        assert step["symbol"] == symbol
        assert step["value"] == reference.SYMBOLS.index(symbol)
        total = reference.times(total ^ step["value"], 2)
        assert step["sum"] == total
    assert len(steps["steps"]) == 19
    assert steps["check"] == reference.SYMBOLS[total] == steps["code"][-1]
