"""F-codes themselves: what reading one costs beside a bare HMAC, and forgeries like those of who has read the format.

The one room here that knows the library `fcodes`: it is what is measured, and a forger has it, too. The service is
known by its contract alone here as well; its key ring is the benchmark's own (`new_ring`), so that it can tell which
codes the service must honour.
"""

import hmac
import os
import time
from collections.abc import Callable, Iterator
from itertools import islice
from random import Random
from statistics import median

from fcodes import (
    BATCH_MAX,
    CODES_PER_BATCH_MAX,
    KEY_BYTES,
    MAC_MAX,
    SERIAL_MAX,
    Code,
    Keys,
    NotOurs,
    mint,
    new_master,
    read,
    spell,
)
from loadtests.bench.table import Row, Target

SEED = 20_110_831
BATCH = 7
TURN_CODES = 2_000
"""So few that a turn of either side, a few ms, is seldom interrupted."""
TURNS_A_ROUND = 20
MESSAGE_BYTES = 9
"""What a code's MAC is of: version, batch, serial."""


def new_ring() -> str:
    """A key ring that nobody else has."""
    return f"0:{new_master(os.urandom(KEY_BYTES))}"


def forgeries(random: Random) -> Iterator[str]:
    """Codes, well formed to the check symbol, that nobody made, without end.

    Each names a batch of its own, for which the service has to derive another key: the dearest that can be sent.
    """
    bits = random.getrandbits
    batch_bits, serial_bits, mac_bits = (most.bit_length() for most in (BATCH_MAX, SERIAL_MAX, MAC_MAX))
    while True:
        yield spell(Code(bits(batch_bits), bits(serial_bits), 0, bits(mac_bits)))


def genuine(ring: str, batch: str, serials: range) -> Iterator[str]:
    """The codes of a batch that the service minted."""
    return mint(Keys.parse(ring), int(batch), serials)


def measure(rounds: int) -> list[Row]:
    """Three rows: codes read and verified, bare HMACs of as many bytes, and their ratio.

    Both take turns, in an order that turns round each time; the ratio compares two turns that follow each other.
    """
    verified = Row("F-codes read and verified, one process", "codes/s")
    bare = Row(f"bare hmac.digest of {MESSAGE_BYTES} bytes, one process", "HMACs/s")
    ratio = Row("  the first to the second", "×", target=Target("at least", 0.35))
    rows = [verified, bare, ratio]
    keys, random = Keys.parse(new_ring()), Random(SEED)
    serials = random.sample(range(CODES_PER_BATCH_MAX), TURN_CODES)
    texts = [next(mint(keys, BATCH, range(serial, serial + 1))) for serial in serials]
    messages, key = [random.randbytes(MESSAGE_BYTES) for _ in range(TURN_CODES)], random.randbytes(KEY_BYTES)
    read_back = [found.serial for text in texts if isinstance(found := read(text, keys), Code)]
    taken_in = sum(not isinstance(read(text, keys), NotOurs) for text in islice(forgeries(random), TURN_CODES))
    if read_back != serials or taken_in:
        for row in rows:
            row.failed = f"of {TURN_CODES:,} codes each, {len(read_back):,} of ours are read, and {taken_in:,} forged"
        return rows

    def read_all() -> None:
        for text in texts:
            read(text, keys)

    def digest_all() -> None:
        for message in messages:
            hmac.digest(key, message, "sha256")

    sides = [(verified, read_all), (bare, digest_all)]
    for _ in range(rounds * TURNS_A_ROUND):
        for row, work in sides:
            row.samples.append(TURN_CODES / _seconds(work))
        ratio.samples.append(verified.samples[-1] / bare.samples[-1])
        sides.reverse()
    for row in (verified, bare):
        row.note = f"{1e6 / median(row.samples):.2f} µs each"
    ratio.note = f"median of {len(ratio.samples)} turns, {min(ratio.samples):.2f}–{max(ratio.samples):.2f}"
    return rows


def _seconds(work: Callable[[], None]) -> float:
    started_at = time.perf_counter()
    work()
    return time.perf_counter() - started_at
