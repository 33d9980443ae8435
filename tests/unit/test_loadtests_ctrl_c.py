"""A Ctrl-C that comes while a greenlet is at work: in processes of their own, whose sockets gevent may patch."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]

PROGRAM = """
import json, os, signal, sys
import gevent
from loadtests.crowd import ctrl_c

signal.signal(signal.SIGINT, signal.default_int_handler)
if sys.argv[1] == "safe":
    ctrl_c.to_who_waits()
read, waited = [], False

def listen():
    for parcel in range(4):
        gevent.sleep(0)
        if parcel == 1:
            os.kill(os.getpid(), signal.SIGINT)
        read.append(parcel)

listener = gevent.spawn(listen)
try:
    gevent.sleep(60)
except KeyboardInterrupt:
    waited = True
listener.join()
print(json.dumps([waited, read]))
"""


@pytest.mark.parametrize(("how", "read"), [("plain", [0]), ("safe", [0, 1, 2, 3])])
async def test_who_waits_hears_of_it_and_who_reads_reads_on(how: str, read: list[int]) -> None:
    """Without the safeguard the listener dies over its second parcel."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, how),
        cwd=TOP,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    said, _ = await process.communicate()
    assert json.loads(said) == [True, read]
