"""The unit in which the gate counts time."""

from datetime import UTC, datetime, timedelta
from typing import Final

_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


def unix_ms(moment: datetime, *, up: bool) -> int:
    """Unix time in whole milliseconds: an opening is rounded up, a closing down: neither is early or late."""
    since = moment - _UNIX_EPOCH
    return -(-since // _MS) if up else since // _MS
