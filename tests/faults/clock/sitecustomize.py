"""Steps the clock of the Python process that finds this on its path: `time.time` reads its offset from a file.

The file is eight bytes, the offset in seconds as a little-endian double; who writes it sets the clocks of all processes
that were started with its name in FAULTS_CLOCK, at once. Monotonic clocks go on, as they do on a machine whose clock is
set. (`datetime.now` cannot be replaced; the service asks it only for what it displays.)
"""

import mmap
import os
import struct
import time


def _step(name: str) -> None:
    with open(name, "rb") as file:  # noqa: PTH123 -- pathlib would be loaded into every process
        shared = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    offset_of, real, real_ns = struct.Struct("<d").unpack_from, time.time, time.time_ns
    time.time = lambda: real() + offset_of(shared)[0]
    time.time_ns = lambda: real_ns() + int(offset_of(shared)[0] * 1e9)


if "FAULTS_CLOCK" in os.environ:
    _step(os.environ["FAULTS_CLOCK"])
