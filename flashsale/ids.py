"""Ids of reservations: UUID version 7 (RFC 9562), so that the ledger's primary key grows at its right end only."""

import os
import time


def new_ids(count: int) -> list[str]:
    """`count` fresh ids: 48 bits of Unix milliseconds, 74 random bits."""
    ms = int(time.time() * 1000) << 80 | 0x7 << 76 | 0x2 << 62
    noise = os.urandom(10 * count)
    ids = []
    for at in range(0, 10 * count, 10):
        random = int.from_bytes(noise[at : at + 10], "big")
        h = f"{ms | (random & 0xFFF) << 64 | random >> 18:032x}"
        ids.append(f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}")
    return ids
