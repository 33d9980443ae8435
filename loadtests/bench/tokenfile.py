"""Files of requests that are ready to be sent: one member each, with a token that no server has seen."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from loadtests.tokens import Minter

BODY = b'{"allocation":"all"}'
BYTES_PER_WRITE = 1 << 18


class Requests(NamedTuple):
    """`number` requests of `length_bytes` each, one after the other."""

    path: Path
    length_bytes: int
    number: int


class Hold(NamedTuple):
    """A reservation that is held, and whose it is."""

    member: int
    reservation: str


def press(drop: str, token: str, body: bytes = BODY) -> bytes:
    """One press of the button. The host's port is left out, so that every server gets the same bytes."""
    head = (
        f"POST /v1/drops/{drop}/reservations HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def confirm(reservation: str, token: str) -> bytes:
    """The member's word that a held reservation shall become an order."""
    return (
        f"POST /v1/reservations/{reservation}/confirm HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        "Content-Length: 0\r\n\r\n"
    ).encode()


def write_presses(path: Path, minter: Minter, drop: str, first_member: int, number: int) -> Requests:
    """Write the presses of the members from `first_member` on, whose ids have the same number of digits."""
    members = range(first_member, first_member + number)
    return _write(path, (press(drop, minter.shopper(member)) for member in members))


def write_fcode_presses(
    path: Path, minter: Minter, drop: str, members: Iterable[int], codes: Iterator[str]
) -> Requests:
    """Write a press of each member with the next F-code; the members' ids have the same number of digits."""
    return _write(
        path, (press(drop, minter.shopper(member), b'{"fcode":"%b"}' % next(codes).encode()) for member in members)
    )


def write_confirms(path: Path, minter: Minter, holds: Iterable[Hold]) -> Requests:
    """Write the confirms of these holds, in their order; the ids of their members have the same number of digits."""
    return _write(path, (confirm(hold.reservation, minter.shopper(hold.member)) for hold in holds))


def _write(path: Path, requests: Iterable[bytes]) -> Requests:
    """`ValueError` when the requests are not all as long: who sends them reads as many bytes for each."""
    number = length = 0
    with path.open("wb", buffering=BYTES_PER_WRITE) as file:
        for number, request in enumerate(requests, 1):
            length = length or len(request)
            if len(request) != length:
                raise ValueError(f"request {number} has another length than those before it")
            file.write(request)
    return Requests(path, length, number)
