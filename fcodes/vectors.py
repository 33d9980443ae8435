"""Test vectors for ports: one document with keys, codes, every step between them, and what must be refused.

`fcodes vectors` writes it, and `fcodes/vectors.json` is its output.
"""

from hashlib import sha256
from typing import Any, Final

from fcodes.alphabet import ALPHABET, SYMBOLS, digits_of
from fcodes.check import times_generator
from fcodes.codec import (
    BATCH_MAX,
    BATCH_SHIFT,
    MAC_SHIFT,
    SERIAL_MAX,
    SERIAL_SHIFT,
    VERSION_SHIFT,
    Code,
    Typo,
    parse,
    spell,
)
from fcodes.keys import SALT, Keys, derived, mac_in, message, new_master
from fcodes.mac import Mac, hkdf_extract

MASTERS: Final = {
    0: bytes(range(32)),
    1: sha256(b"fcodes test vectors, key 1").digest(),
    7: sha256(b"fcodes test vectors, key 7").digest(),
}
"""Known to everybody: no key for a shop."""

FIELDS: Final = (  # version, batch, serial
    (0, 0, 0),
    (0, 0, 1),
    (0, 1, 0),
    (0, 0, SERIAL_MAX),
    (0, BATCH_MAX, 0),
    (0, 0b1010_1010_1010_1010_1010, 0b01_0101_0101_0101_0101_0101),
    (1, 0, 0),
    (1, 7, 42),
    (7, BATCH_MAX, SERIAL_MAX),
)
LOOK_ALIKE_BATCH: Final = 0b00000_00001_00001_00000
"""Its codes begin with 0110."""


def document() -> dict[str, Any]:
    """The whole document, as JSON has it."""
    ring = ",".join(f"{version}:{new_master(master)}" for version, master in MASTERS.items())
    keys = Keys.parse(ring)
    return {
        "format": "fcodes/1",
        "about": "Test vectors of F-codes. The docstring of fcodes/__init__.py specifies the format; bytes are hex.",
        "ring": ring,
        "newest": keys.newest,
        "keys": [
            {
                "version": version,
                "master": master.hex(),
                "text": new_master(master),
                "prk": hkdf_extract(SALT, master).hex(),
                "fingerprint": keys.fingerprint(version),
            }
            for version, master in MASTERS.items()
        ],
        "valid": [_valid(*fields) for fields in (*FIELDS, (0, 1, _serial_with_low_mac()))],
        "forgiving": _forgiving(_code(0, LOOK_ALIKE_BATCH, 1)),
        "typos": _typos(_code(1, 7, 42)),
        "not_ours": _not_ours(_parts(1, 7, 42)),
        "check_steps": _check_steps(_code(1, 7, 42)),
    }


def _mac_key(version: int, batch: int) -> bytes:
    return derived(Mac(hkdf_extract(SALT, MASTERS[version])), version, batch)


def _digest(version: int, batch: int, serial: int) -> bytes:
    return Mac(_mac_key(version, batch)).digest(message(version, batch, serial))


def _parts(version: int, batch: int, serial: int) -> Code:
    return Code(batch, serial, version, mac_in(_digest(version, batch, serial)))


def _code(version: int, batch: int, serial: int) -> str:
    return spell(_parts(version, batch, serial))


def _serial_with_low_mac() -> int:
    """A serial whose MAC begins with ten zero bits, so that a port that loses them in front is found out."""
    return next(serial for serial in range(SERIAL_MAX) if mac_in(_digest(0, 1, serial)) >> 40 == 0)


def _valid(version: int, batch: int, serial: int) -> dict[str, Any]:
    digest = _digest(version, batch, serial)
    unchecked = batch << BATCH_SHIFT | serial << SERIAL_SHIFT | version << VERSION_SHIFT | mac_in(digest) << MAC_SHIFT
    code = _code(version, batch, serial)
    return {
        "version": version,
        "batch": batch,
        "serial": serial,
        "mac_key": _mac_key(version, batch).hex(),
        "message": message(version, batch, serial).hex(),
        "hmac": digest.hex(),
        "bits_without_check": f"{unchecked >> MAC_SHIFT:095b}",
        "check": code[-1],
        "code": code,
    }


def _forgiving(code: str) -> list[dict[str, str]]:
    wide = code.translate({ord(each): ord(each) + 0xFEE0 for each in code})
    written = {
        "canonical": code,
        "lower case": code.lower(),
        "no dashes": code.replace("-", ""),
        "spaces, tab, line break": f" {code.replace('-', ' ', 2).replace('-', chr(9))}\r\n",
        "O for 0, I and l for 1": code.replace("0", "O", 1).replace("0", "o", 1).replace("1", "I", 1).replace("1", "l"),
        "i and L for 1": code.replace("1", "i", 1).replace("1", "L"),
        "full-width": wide,
        "full-width, lower case": wide.translate({each: each + 32 for each in range(0xFF21, 0xFF3B)}),
        "ideographic spaces": code.replace("-", "\N{IDEOGRAPHIC SPACE}"),
        "no-break and thin spaces": code.replace("-", "\N{NO-BREAK SPACE}", 2).replace("-", "\N{THIN SPACE}"),
        "line and paragraph separators": code.replace("-", "\u2028", 2).replace("-", "\u2029"),
        "hyphens": code.replace("-", "\N{HYPHEN}", 2).replace("-", "\N{NON-BREAKING HYPHEN}"),
        "en and em dashes": code.replace("-", "\N{EN DASH}", 2).replace("-", "\N{EM DASH}"),
        "minus, hyphen bullet, modifier": code.replace("-", "\u2212", 1)
        .replace("-", "\u2043", 1)
        .replace("-", "\u02d7"),
        "long vowel mark": code.replace("-", "\u30fc", 2).replace("-", "\uff70"),
        "underscores": code.replace("-", "_", 2).replace("-", "\N{FULLWIDTH LOW LINE}"),
        "zero-width spaces and soft hyphens": code.replace("-", "\u200b", 2).replace("-", "\u00ad"),
        "invisible marks around it": f"\ufeff\u200e{code}\u2060",
        "mathematical digits": "".join(chr(0x1D7CE + int(each)) if each in "0123456789" else each for each in code),
        "64 characters": code.ljust(64),
    }
    return [{"what": what, "text": text, "code": code} for what, text in written.items()]


def _typos(code: str) -> list[dict[str, Any]]:
    other = ALPHABET[(ALPHABET.index(code[-1]) + 1) % len(ALPHABET)]
    swap = next(at for at in range(18) if code[at] != code[at + 1] and "-" not in code[at : at + 2])
    written = {
        "nothing": "",
        "only separators": " -\N{EM DASH}\N{IDEOGRAPHIC SPACE}",
        "65 characters": code.ljust(65),
        "a character that NFKC makes 18": "\ufdfa" * 4,
        "100 symbols": "0" * 100,
        "19 symbols": code[:-1],
        "21 symbols": code + "0",
        "the letter U": code[:-1] + "U",
        "a sign": code.replace("-", ".", 1),
        "a sign, and too short": code[:9].replace("-", ".", 1),
        "a letter of another script": "\N{CYRILLIC CAPITAL LETTER A}" + code[1:],
        "another check symbol": code[:-1] + other,
        "another first symbol": ("1" if code[0] != "1" else "2") + code[1:],
        "neighbours swapped": code[:swap] + code[swap + 1] + code[swap] + code[swap + 2 :],
    }
    found = []
    for what, text in written.items():
        typo = parse(text)
        assert isinstance(typo, Typo)
        found.append({"what": what, "text": text, "slip": typo.slip, "symbols": typo.symbols, "at": typo.at})
    return found


def _not_ours(code: Code) -> list[dict[str, str]]:
    altered = {
        "the MAC's lowest bit": Code(code.batch, code.serial, code.version, code.mac ^ 1),
        "the MAC's highest bit": Code(code.batch, code.serial, code.version, code.mac ^ 1 << 49),
        "the next serial": Code(code.batch, code.serial + 1, code.version, code.mac),
        "another batch": Code(code.batch + 1, code.serial, code.version, code.mac),
        "another version": Code(code.batch, code.serial, 0, code.mac),
        "a version without a key": Code(code.batch, code.serial, 3, code.mac),
        "all zero": Code(0, 0, 0, 0),
    }
    return [{"what": what, "code": spell(each)} for what, each in altered.items()]


def _check_steps(code: str) -> dict[str, Any]:
    steps = []
    total = 0
    for digit, symbol in zip(digits_of(code)[: SYMBOLS - 1], code.replace("-", ""), strict=False):
        value = int(chr(digit), 32)
        total = times_generator(total ^ value)
        steps.append({"symbol": symbol, "value": value, "sum": total})
    return {"code": code, "steps": steps, "check": ALPHABET[total]}
