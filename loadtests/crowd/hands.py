"""Hands for a visit made of locust: its client, its statistics, its greenlets. To be imported by locust's processes."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import gevent
from locust.contrib.fasthttp import FastHttpUser, LocustBadStatusCode

from loadtests.crowd.contract import Call
from loadtests.http1 import Answer


class Hands:
    """What `FastHttpUser` adds to be the hands of a visit."""

    def __init__(self, user: FastHttpUser) -> None:
        self._user = user

    def now(self) -> float:
        """The time."""
        return time.monotonic()

    def wait_until(self, at: float) -> None:
        """Wait; when the time is past, go on at once.

        Even a sleep of nothing lets everybody else go first, which in a rush takes a second: door and guests would fall
        behind the schedule by it.
        """
        left_s = at - time.monotonic()
        if left_s > 0:
            gevent.sleep(left_s)

    def ask(self, call: Call, judged: Callable[[Answer | None, float, float], str | None]) -> None:
        """Send a request over a connection of this shopper's own."""
        headers = {"Accept-Encoding": "identity"}
        if call.token is not None:
            headers["Authorization"] = f"Bearer {call.token}"
        if call.key is not None:
            headers["Idempotency-Key"] = call.key
        if call.body:
            headers["Content-Type"] = "application/json"
        sent_at = time.monotonic()
        with self._user.client.request(
            call.method,
            call.path,
            name=call.name,
            data=call.body.decode() or None,
            headers=headers,
            catch_response=True,
        ) as response:
            at = time.monotonic()
            failed = judged(_answer(response, at), sent_at, at)
            # Locust has timed it from when it was sent; what counts is when it was to be sent.
            response.request_meta["response_time"] = 1000 * (at - call.due)
            if failed is None:
                response.success()
            else:
                response.failure(failed)

    def together(self, acts: Sequence[Callable[[], None]]) -> None:
        """Each act in a greenlet; when this visit is ended, so are they."""
        greenlets = [gevent.spawn(act) for act in acts]
        try:
            for greenlet in greenlets:
                greenlet.get()
        finally:
            gevent.killall(greenlets)


def _answer(response: Any, at: float) -> Answer | None:  # noqa: ANN401 -- locust's response has no type of its own
    """The answer in our terms; None when none came, or half of one."""
    broken = response.request_meta["exception"]
    if not response.status_code or (broken is not None and not isinstance(broken, LocustBadStatusCode)):
        return None
    wait = response.headers.get("retry-after")
    retry_after_s = float(wait) if wait and wait.isdigit() else None
    return Answer(response.status_code, response.content, retry_after_s, keep_alive=True, at=at)
