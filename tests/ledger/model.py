"""The ledger in plain Python: what the SQL functions must do, said once more without any of their means.

`ModelLedger` has the stores, methods, arguments and results of `flashsale.ledger.Ledger`. It is driven beside the real
ledger, and stands in for it where a test wants a ledger without a server. `tables` and `queue.jobs` are there to look
at: every row, and the states that every reservation has been in.
"""

import itertools
from collections.abc import Callable
from datetime import datetime

from flashsale.ledger import Ledger
from tests.ledger.model_drops import ModelDrops
from tests.ledger.model_fcodes import ModelFcodes, ModelPoints
from tests.ledger.model_orders import ModelOrders
from tests.ledger.model_queue import ModelQueue
from tests.ledger.model_reservations import ModelReservations
from tests.ledger.model_rows import BrokenRule, Tables


class ModelLedger(Ledger):
    """A ledger in memory. `now` is the server's clock; each call is one atomic step, and an act is one at its end.

    A row that the schema's constraints would refuse raises `BrokenRule`, and leaves nothing of its call behind.
    """

    def __init__(self, *, now: Callable[[], datetime]) -> None:
        self.tables = Tables(now)
        self.queue = ModelQueue(self.tables)
        self.drops: ModelDrops = ModelDrops(self.tables, itertools.count(1))
        self.reservations: ModelReservations = ModelReservations(self.tables)
        self.orders: ModelOrders = ModelOrders(self.tables, self.queue)
        self.fcodes: ModelFcodes = ModelFcodes(self.tables)
        self.points: ModelPoints = ModelPoints(self.tables)

    async def ping(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


__all__ = ["BrokenRule", "ModelLedger", "Tables"]
