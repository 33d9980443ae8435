"""What a press with an F-code goes through before any store is asked: reading, the MAC, the limit on guessing.

A typo that the check symbol finds is answered at once, and does not count. A code that we did not make counts, for its
member and for its address. A genuine one goes to the gate under its number. All three sound the same to who guesses.
"""

import msgspec
import structlog

from fcodes import Code, Keys, NotOurs, Typo, read
from flashsale import metrics
from flashsale.tries import Tries

log = structlog.get_logger()

_typo, _forged, _refused = (metrics.fcode_failures.labels(kind) for kind in ("typo", "forged", "refused"))


class Limited(msgspec.Struct, frozen=True):
    """Too many guesses; after so many seconds there may be more."""

    seconds: float


class Spending:
    """Reads what members type. `keys` None: every code is refused, and a line in the log says why, once."""

    def __init__(self, *, keys: Keys | None, tries: Tries) -> None:
        self._keys = keys
        self._tries = tries
        self._told = False

    def read(self, text: str, *, member: int, address: str | None) -> int | Limited | None:
        """The number of a genuine code; None for any other text; `Limited` for who has guessed too often.

        From an address at its limit a genuine code still passes: honest members may sit behind it, too.
        """
        blocked = self._tries.blocked_s(member, address)
        if blocked is not None and blocked.member_s > 0:
            return Limited(blocked.member_s)
        if self._keys is None:
            self._tell_once()
            return None
        found = read(text, self._keys)
        match found:
            case Code():
                return found.number
            case Typo():
                _typo.inc()
                return None
            case NotOurs():
                _forged.inc()
                if blocked is not None:
                    return Limited(blocked.address_s)
                self._tries.failed(member, address)
                return None

    def refused(self, *, member: int, address: str | None) -> None:
        """The gate did not honour a genuine code (another's, revoked, expired, of another sale): that counts, too."""
        _refused.inc()
        self._tries.failed(member, address)

    def _tell_once(self) -> None:
        if not self._told:
            self._told = True
            log.warning("fcodes.no_key", detail="FLASHSALE_FCODE_KEYS is not set: every F-code is refused.")
