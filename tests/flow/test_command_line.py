"""The command line by itself: its commands, helps and exit codes, and the tokens it makes."""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest

from flashsale.cli import main, parser
from tests.flow.command import SECRET, run

CONTRACT = {
    "up": {"--host", "--port", "--data-dir", "--workers", "--no-demo", "--redis-url", "--database-url"},
    "serve": {"--host", "--port", "--workers", "--redis-url", "--database-url"},
    "worker": {"--redis-url", "--database-url"},
    "migrate": {"--database-url"},
    "token": {"--member", "--role", "--tier", "--hours", "--data-dir"},
    "drop create": {"--url", "--token", "--member", "--data-dir"},
    "drop show": {"--url", "--token", "--member", "--data-dir"},
    "drop pause": {"--url", "--token", "--member", "--data-dir", "--reason"},
    "drop resume": {"--url", "--token", "--member", "--data-dir", "--reason"},
    "drop close": {"--url", "--token", "--member", "--data-dir", "--reason"},
    "drop balance": {"--url", "--token", "--member", "--data-dir"},
    "points import": {"--url", "--token", "--member", "--data-dir", "--name", "--cutoff"},
    "fcodes mint": {
        *("--url", "--token", "--member", "--data-dir"),
        *("--count", "--members", "--expires", "--note"),
    },
    "fcodes list": {"--url", "--token", "--member", "--data-dir", "--limit"},
    "fcodes show": {"--url", "--token", "--member", "--data-dir", "--limit"},
    "fcodes export": {"--url", "--token", "--member", "--data-dir", "--out", "--cards", "--reason"},
    "fcodes revoke": {"--url", "--token", "--member", "--data-dir", "--serial", "--to", "--reason"},
    "orders list": {"--url", "--token", "--member", "--data-dir", "--state", "--limit"},
    "orders replay": {"--url", "--token", "--member", "--data-dir", "--dead"},
    "reservation return": {"--url", "--token", "--member", "--data-dir", "--reason", "--to", "--no-restock"},
    "receiver": {"--secret", "--host", "--port", "--fail", "--status", "--delay", "--twice"},
    "audit": {
        *("--url", "--token", "--member", "--data-dir"),
        *("--redis-url", "--database-url", "--journal", "--settle-s", "--unsold-s"),
    },
}
"""The contract's commands, as far as they are built, with their options."""


def commands(of: argparse.ArgumentParser, *names: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """All commands that do something, by their full names."""
    groups = [a for a in of._actions if isinstance(a, argparse._SubParsersAction)]
    if not groups:
        yield " ".join(names), of
    for group in groups:
        for name, one in group.choices.items():
            yield from commands(one, *names, name)


def test_commands_are_those_of_the_contract() -> None:
    """Each command has the options that the contract names, `--json`, and nothing else."""
    found = {name: {o for action in one._actions for o in action.option_strings} for name, one in commands(parser())}
    assert found == {name: options | {"--json", "-h", "--help"} for name, options in CONTRACT.items()}


@pytest.mark.parametrize("name", ["", "drop", "points", "fcodes", *CONTRACT])
def test_every_help_is_complete(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command explains itself and each of its options, on standard output."""
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    out, err = capsys.readouterr()
    assert (ended.value.code, err) == (0, "")
    assert out.startswith(f"usage: flashsale {name}".rstrip())
    one = dict(commands(parser())).get(name)
    if one is not None:
        assert one.description
        assert [action.dest for action in one._actions if not action.help] == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["drop"],
        ["nonsense"],
        ["token"],
        ["token", "--member", "0"],
        ["token", "--member", "x"],
        ["token", "--member", str(2**63)],
        ["token", "--member", "1", "--role", "root"],
        ["token", "--member", "1", "--tier", "-1"],
        ["token", "--member", "1", "--hours", "0"],
        ["points", "import", "a.csv", "--name", "a"],
        ["points", "import", "a.csv", "--name", "a", "--cutoff", "2011-08-16T00:00:00"],
        ["audit", "sale", "--settle-s", "-1"],
        ["audit", "sale", "--unsold-s", "soon"],
        ["up", "--port", "http"],
        ["up", "--dem"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be understood is said on standard error, with the usage."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.startswith("usage: flashsale")


def test_token_speaks_for_the_member(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an HS256 JWT with the contract's claims, valid for as long as was asked."""
    monkeypatch.setenv("FLASHSALE_JWT_SECRET", SECRET)
    assert main(["token", "--member", "9223372036854775807", "--role", "ops", "--tier", "2", "--hours", "0.5"]) == 0
    claims = jwt.decode(capsys.readouterr().out.strip(), SECRET, algorithms=["HS256"])
    assert claims.pop("exp") == pytest.approx(time.time() + 1800, abs=10)
    assert claims == {"sub": "9223372036854775807", "role": "ops", "tier": 2}
    assert main(["token", "--member", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"token", "expires_at"}
    claims = jwt.decode(found["token"], SECRET, algorithms=["HS256"])
    assert claims.pop("exp") == pytest.approx(time.time() + 12 * 3600, abs=10)
    assert claims == {"sub": "3"}


def test_without_a_secret_no_token_is_made(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A token that no service would take is not made up; the sentence says what to do."""
    monkeypatch.delenv("FLASHSALE_JWT_SECRET", raising=False)
    assert main(["token", "--member", "3", "--data-dir", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"flashsale: There is no secret to sign a token with: {tmp_path}/jwt_secret does not exist. Start "
        "`flashsale up` first, name its folder with --data-dir, or set FLASHSALE_JWT_SECRET.\n"
    )
    assert list(tmp_path.iterdir()) == []
    assert main(["token", "--member", "3", "--data-dir", str(tmp_path), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["code"] == "setup"


@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
async def test_parts_need_their_servers(command: str) -> None:
    """Without URLs the parts say which one is missing; only `up` brings servers along."""
    code, out, err = await run(command, jwt_secret=SECRET)
    assert (code, out) == (2, "")
    assert err.startswith("flashsale: FLASHSALE_")
    assert "_URL is not set" in err
    assert err.count("\n") == 1
