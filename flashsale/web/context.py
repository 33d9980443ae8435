"""What a handler has at hand: the parts of one web process, put together in `app`."""

from collections.abc import Callable
from datetime import datetime

import msgspec

from flashsale.batches import Batches
from flashsale.catalog import Catalog
from flashsale.drops import Operations
from flashsale.gate import Gate
from flashsale.ledger import Ledger
from flashsale.reconcile import Arming
from flashsale.rehearsals import Rehearsals
from flashsale.reservations import Reservations
from flashsale.settings import Settings
from flashsale.shares import Shares
from flashsale.spending import Spending
from flashsale.tries import Tries
from flashsale.web.auth import Authenticator
from flashsale.web.board import Board
from flashsale.web.console_live import Live
from flashsale.web.session import Sessions


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of one web process. `now` is this machine's clock: display only, never a decision."""

    settings: Settings
    auth: Authenticator
    ledger: Ledger
    gate: Gate
    catalog: Catalog
    arming: Arming
    board: Board
    live: Live
    shares: Shares
    rehearsals: Rehearsals
    reservations: Reservations
    operations: Operations
    batches: Batches
    spending: Spending
    tries: Tries
    sessions: Sessions | None
    """None when there is no secret to sign them with."""
    now: Callable[[], datetime]
