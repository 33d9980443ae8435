"""Files of requests that are ready to be sent: one member each, with a token that no server has seen."""

from pathlib import Path
from typing import NamedTuple

from loadtests.tokens import Minter

BODY = b'{"allocation":"all"}'
REQUESTS_PER_WRITE = 1_000


class Requests(NamedTuple):
    """`number` requests of `length_bytes` each, one after the other, by the members from `first_member` on."""

    path: Path
    length_bytes: int
    number: int
    first_member: int


def request(drop: str, token: str) -> bytes:
    """One press of the button. The host's port is left out, so that every server gets the same bytes."""
    head = (
        f"POST /v1/drops/{drop}/reservations HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    return head.encode() + BODY


def write_requests(path: Path, minter: Minter, drop: str, first_member: int, number: int) -> Requests:
    """Write the file. All members must have the same number of digits, else `ValueError`: all requests are as long."""
    if len(str(first_member)) != len(str(first_member + number)):
        raise ValueError(f"{number} members from {first_member} on have ids of different lengths")
    length = len(request(drop, minter.shopper(first_member)))
    with path.open("wb") as file:
        for start in range(first_member, first_member + number, REQUESTS_PER_WRITE):
            end = min(start + REQUESTS_PER_WRITE, first_member + number)
            file.write(b"".join(request(drop, minter.shopper(member)) for member in range(start, end)))
    return Requests(path, length, number, first_member)
