"""What a press is on the wire, and what a connection that nobody presses on costs a web process.

Bytes are those of a press and its answer on one connection that stays open, with the headers of every packet in both
directions, acknowledgements too, as the system counts them on the socket (Linux; elsewhere: one packet each). Memory
is what a fresh web process gains while many connections stand open, each of which has had one answer.
"""

import asyncio
import socket
import struct
import sys
from collections.abc import Sequence
from typing import NamedTuple

from loadtests.bench.contest import ENDLESS_UNITS, FIRST_MEMBER, LAST_UNIT_MEMBER
from loadtests.bench.house import House, Plan, beside
from loadtests.bench.processes import rss_bytes
from loadtests.bench.table import KIB, Failed, Row
from loadtests.bench.tokenfile import press
from loadtests.errors import SetupError
from loadtests.http1 import Malformed, parse_answer

PRESSES = 200
HEADERS_BYTES = 20 + 32
"""Of a packet: IP, and TCP with its timestamps. What carries packets has headers of its own, which are not counted."""
TCP_INFO_BYTES = 232
SENT_AT, RECEIVED_AT = 136, 140
"""Where Linux tells how many segments went either way."""
READ_BYTES = 1 << 16
OPENING_AT_ONCE = 100
FIRST_CONNECTIONS = 500
"""These fill what the process had at hand when it started; the next ones are counted."""
ANSWER_TIMEOUT_S = 30.0
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


async def measure_wire(_: Plan, house: House) -> list[Row]:
    """Bytes of a press, of a refusal, and of a win's answer."""
    pressed = Row("a press on the wire", "bytes", key="wire-press")
    refused = Row("  the answer that refuses it", "bytes", key="wire-refusal")
    won = Row("  the answer that holds a unit", "bytes", key="wire-win")
    try:
        await house.create_drop("wire-sold-out", 1)
        await house.create_drop("wire", ENDLESS_UNITS)
        if (await house.press("wire-sold-out", LAST_UNIT_MEMBER))[0] != 201:
            raise Failed("the last unit could not be sold")
        for drop, row, status in (("wire-sold-out", refused, 409), ("wire", won, 201)):
            presses = [press(drop, house.minter.shopper(FIRST_MEMBER + nth)) for nth in range(PRESSES)]
            sent, received = await asyncio.to_thread(_exchanged, house.at.url, presses, status)
            row.samples.append(received.bytes / PRESSES)
            row.note = f"{received.payload / PRESSES:,.0f} without headers of packets"
            if row is refused:
                pressed.samples.append(sent.bytes / PRESSES)
                pressed.note = f"{sent.payload / PRESSES:,.0f} without headers of packets"
    except (Failed, SetupError, OSError, Malformed) as failed:
        for row in (pressed, refused, won):
            row.failed = str(failed)
    return [pressed, refused, won]


class Way(NamedTuple):
    """What went one way: bytes of HTTP, and packets."""

    payload: int
    packets: int

    @property
    def bytes(self) -> int:
        """All of it, with the packets' headers."""
        return self.payload + self.packets * HEADERS_BYTES


def _exchanged(url: str, presses: Sequence[bytes], status: int) -> tuple[Way, Way]:
    """Press on one connection, one after the other; what was sent and what came. `Failed` at another status."""
    host, _, port = url.removeprefix("http://").partition(":")
    received = 0
    with socket.create_connection((host, int(port)), timeout=ANSWER_TIMEOUT_S) as connection:
        for each in presses:
            connection.sendall(each)
            data = b""
            while (found := parse_answer(data, 0.0)) is None:
                if not (more := connection.recv(READ_BYTES)):
                    raise Failed("the connection was closed")
                data += more
            if found[0].status != status:
                raise Failed(f"a press was answered {found[0].status} {found[0].body[:200]!r}, not {status}")
            received += len(data)
        packets_sent, packets_received = _packets(connection) or (len(presses), len(presses))
    return Way(sum(map(len, presses)), packets_sent), Way(received, packets_received)


def _packets(connection: socket.socket) -> tuple[int, int] | None:
    """How many packets went either way; None where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return None
    told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    if len(told) < RECEIVED_AT + 4:
        return None
    return struct.unpack_from("I", told, SENT_AT)[0], struct.unpack_from("I", told, RECEIVED_AT)[0]


async def measure_connections(plan: Plan, house: House) -> list[Row]:
    """What a web process that was just started gains with so many connections, by connection."""
    count = plan.size(2_000, 500)
    row = Row(f"web: one of {count:,} connections that stand idle", "KiB each", key="connection")
    writers: list[asyncio.StreamWriter] = []
    try:
        async with beside(house, "connections", {}) as (url, pid):
            host, _, port = url.removeprefix("http://").partition(":")
            slots = asyncio.Semaphore(OPENING_AT_ONCE)

            async def opened() -> None:
                async with slots, asyncio.timeout(ANSWER_TIMEOUT_S):
                    reader, writer = await asyncio.open_connection(host, int(port))
                    writers.append(writer)
                    writer.write(HEALTH)
                    if not (await reader.readline()).startswith(b"HTTP/1.1 200"):
                        raise Failed("a connection was not answered")

            try:
                await asyncio.gather(*(opened() for _ in range(FIRST_CONNECTIONS)))
                before = rss_bytes(pid)
                await asyncio.gather(*(opened() for _ in range(count)))
                row.samples.append((rss_bytes(pid) - before) / count / KIB)
            finally:
                for writer in writers:
                    writer.close()
    except (Failed, SetupError, OSError, TimeoutError) as failed:
        row.failed = str(failed) or repr(failed)
    return [row]
