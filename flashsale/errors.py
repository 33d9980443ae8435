"""One tree for faults. What a caller must handle is a value (`domain.Verdict`), not one of these.

The docstring of each class is the sentence a person reads when no better one is at hand.
"""


class FlashsaleError(Exception):
    """Something went wrong."""

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail or type(self).__doc__ or "")

    @property
    def detail(self) -> str:
        """What happened and what to do about it, for a person."""
        return str(self.args[0])


class SetupError(FlashsaleError):
    """The service cannot start as it is set up. Command lines end with exit code 2."""


class Refused(FlashsaleError):
    """The request cannot be carried out as it stands; `code` is one of the contract's stable codes.

    `extra` holds further members of the problem document (for example `line` or `opens_at`).
    """

    def __init__(self, code: str, detail: str, **extra: object) -> None:
        super().__init__(detail)
        self.code = code
        self.extra = extra


class Unauthenticated(FlashsaleError):
    """Send a valid token: `Authorization: Bearer <JWT>`."""


class Unavailable(FlashsaleError):
    """The service cannot answer just now; repeating the same request is safe.

    `retry_after_s` is what the answer's `Retry-After` says.
    """

    def __init__(self, detail: str | None = None, *, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class GateUnavailable(Unavailable):
    """Redis did not answer in time. The call may or may not have had its effect."""


class LedgerUnavailable(Unavailable):
    """Postgres did not answer in time. The call may or may not have had its effect."""


class Overloaded(Unavailable):
    """More requests are waiting than the queue may hold."""
