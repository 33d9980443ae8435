"""Ctrl-C ends the run, and nothing but the run.

Python raises `KeyboardInterrupt` in whichever greenlet is running at that moment. When that is locust's listener, which
catches it and ends, the processes' last parcels are read by nobody; when it is reading one, that one is half counted.
"""

import signal

import gevent


def to_who_waits() -> None:
    """From now on a Ctrl-C is raised in the main greenlet alone, when the others have finished their turn."""
    gevent.signal_handler(signal.SIGINT, lambda: gevent.kill(gevent.get_hub().parent, KeyboardInterrupt))
