"""The command line: makes a key, reads a code for support staff, writes the test vectors. The one room with I/O.

Exit codes: 0 done or valid, 1 refused, 2 usage or set-up. Standard output carries the result and nothing else, with
`--json` as one JSON document, also when the result is a refusal (`{"code": …, "detail": …}`); remarks go to standard
error. Neither ever holds the text of a code or, but for the new key itself, of a key.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from fcodes.codec import TEXT_MAX_CHARS, Code, Typo, parse
from fcodes.keys import KEY_BYTES, RING_MAX_CHARS, BadKeys, Keys, new_master
from fcodes.vectors import document
from fcodes.verify import verify

DONE: Final = 0
REFUSED: Final = 1
SETUP: Final = 2

KEYS_VARIABLE: Final = "FLASHSALE_FCODE_KEYS"


def parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    top = argparse.ArgumentParser(
        prog="fcodes",
        description="F-codes: makes keys, reads codes. Needs no service.",
        epilog="Exit codes: 0 done or valid, 1 refused, 2 usage or set-up.",
        allow_abbrev=False,
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], summary: str, more: str
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=f"{summary}. {more}", allow_abbrev=False)
        added.set_defaults(run=run)
        added.add_argument("--json", action="store_true", help="write the result as one JSON document")
        return added

    command(
        "keygen",
        _keygen,
        "Make a new master key",
        f"{KEYS_VARIABLE}=0:KEY sets it up; to rotate, add a new one under the next number: 0:OLD,1:NEW.",
    )
    check = command(
        "check",
        _check,
        "Tell whether a code is well formed, its batch and serial, and with the keys whether it is ours",
        "Whether it is spent, revoked or expired, only the service knows.",
    )
    check.add_argument(
        "code",
        nargs="+",
        metavar="CODE",
        help="the code as it was typed, in one or several words; - reads it from standard input",
    )
    check.add_argument(
        "--keys-file", type=Path, metavar="FILE", help=f"file that holds the key ring (default: {KEYS_VARIABLE})"
    )
    command(
        "vectors", _vectors, "Write the test vectors", "For ports of the library; their keys are known to everybody."
    )
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command; the exit code."""
    args = parser().parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except BadKeys as error:
        return _failed(args, SETUP, "setup", str(error))
    except BrokenPipeError:  # whoever read our output has gone; nothing more can be said there
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return REFUSED
    except KeyboardInterrupt:
        _note("Interrupted.")
        return REFUSED
    return code


def _keygen(args: argparse.Namespace) -> int:
    key = new_master(os.urandom(KEY_BYTES))
    fingerprint = Keys.parse(key).fingerprint(0)
    _line(json.dumps({"key": key, "fingerprint": fingerprint}) if args.json else key)
    _note(f"Fingerprint {fingerprint}. Whoever has this key can make codes: keep it where you keep passwords.")
    return DONE


def _check(args: argparse.Namespace) -> int:
    keys = _keys(args.keys_file)
    code = parse(_typed() if args.code == ["-"] else " ".join(args.code))
    if isinstance(code, Typo):
        return _failed(args, REFUSED, "typo", code.detail, slip=code.slip)
    said = {"batch": code.batch, "serial": code.serial, "key_version": code.version}
    if keys is not None and not verify(code, keys):
        return _failed(args, REFUSED, "not_ours", _why_not(code, keys), **said)
    verdict = "well_formed" if keys is None else "valid"
    if args.json:
        _line(json.dumps({"verdict": verdict, **said}))
    elif keys is None:
        _line(f"Well formed: {_words(code)}.")
        _note(f"Whether it is ours, the keys would tell: set {KEYS_VARIABLE} or give --keys-file.")
    else:
        _line(f"Valid: {_words(code)}.")
        _note("Whether it is spent, revoked or expired, only the service knows.")
    return DONE


def _vectors(args: argparse.Namespace) -> int:
    _line(json.dumps(document(), indent=None if args.json else 2))
    return DONE


def _keys(file: Path | None) -> Keys | None:
    if file is None:
        ring = os.environ.get(KEYS_VARIABLE, "")
        return Keys.parse(ring) if ring else None
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            ring = opened.read(RING_MAX_CHARS + 1)
    except OSError as error:
        raise BadKeys(f"The key ring cannot be read from {file}: {error.strerror}.") from None
    return Keys.parse(ring)


def _typed() -> str:
    if sys.stdin.isatty():
        _note("The code, then Enter:")
    most_bytes = 4 * TEXT_MAX_CHARS + 2  # one more character than a code may have is enough to be refused
    return sys.stdin.buffer.readline(most_bytes).decode("utf-8", "replace").rstrip("\r\n")


def _why_not(code: Code, keys: Keys) -> str:
    if code.version not in keys.versions:
        return f"It reads as {_words(code)}, and the key ring has no key of that version."
    return f"It reads as {_words(code)}, but none of our keys made it: a guess, a forgery, or another shop's."


def _words(code: Code) -> str:
    return f"serial {code.serial} of batch {code.batch}, key version {code.version}"


def _failed(args: argparse.Namespace, exit_code: int, code: str, detail: str, **extra: object) -> int:
    if args.json:
        _line(json.dumps({"code": code, "detail": detail, **extra}))
    else:
        _note(f"fcodes: {detail}" if code == "setup" else f"fcodes: {code}: {detail}")
    return exit_code


def _line(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _note(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
