"""Ids of reservations: UUID version 7 (RFC 9562), so that the ledger's primary key grows at its right end only."""

import os
import time
from typing import Final

COUNTED_BITS: Final = 16
COUNTED: Final = 1 << COUNTED_BITS


def new_ids(count: int) -> list[str]:
    """`count` fresh ids, ascending: 48 bits of Unix milliseconds, then 74 random bits of which the last are counted up.

    Counting within a batch (section 6.2, method 2) costs less than randomness for each, and most ids of a rush are
    never used: they belong to claims that are refused. So only what is counted is spelled for each.
    """
    noise = os.urandom(10)
    head = f"{int(time.time() * 1000):012x}"
    start = f"{head[:8]}-{head[8:]}-7{noise.hex()[:3]}-"
    # The variant's two bits, then 61 random bits: the 62nd stays free for counting.
    first = 0b10 << 62 | int.from_bytes(noise[2:], "big") >> 3
    ids: list[str] = []
    while count > 0:
        upper, low = f"{first >> COUNTED_BITS:012x}", first % COUNTED
        high = min(COUNTED, low + count)
        same = f"{start}{upper[:4]}-{upper[4:]}"
        ids += [f"{same}{number:04x}" for number in range(low, high)]
        first, count = first + high - low, count - (high - low)
    return ids
