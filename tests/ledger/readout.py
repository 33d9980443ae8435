"""All that a ledger holds, row by row: of Postgres by plain SQL, of the model under the same names."""

from collections.abc import Iterable
from datetime import datetime
from enum import Enum
from typing import Any

import asyncpg
import msgspec

from flashsale.domain import Money
from tests.ledger.model import ModelLedger

State = dict[str, list[dict[str, object]]]

ORDERED_BY = {
    "drops": "id",
    "allocations": "drop_id, id",
    "reservations": "id",
    "orders": "id",
    "payments": "id",
    "pgqueuer": "dedupe_key",
    "pgqueuer_log": "created",
    "fcode_batches": "id",
    "fcode_bound": "batch_id, serial",
    "fcode_revoked": "batch_id, serial",
    "audit": "id",
    "disabled_endpoints": "url",
    "fcode_stop": "one",
}
LEFT_OUT = {
    "pgqueuer": ("id", "created", "updated", "queue_manager_id", "entrypoint", "payload", "headers", "slot"),
    "pgqueuer_log": ("id", "job_id", "status", "priority", "entrypoint", "traceback", "aggregated"),
    "fcode_revoked": ("at",),
    "disabled_endpoints": ("at",),
}
"""Columns that nobody reads."""


def _table(name: str, order: str) -> str:
    left_out = ", ".join(f"'{column}'" for column in LEFT_OUT.get(name, ()))
    row = f"to_jsonb(t) - ARRAY[{left_out}]::text[]" if left_out else "t"
    return f"'{name}', coalesce((SELECT json_agg({row} ORDER BY {order}) FROM {name} t), '[]')"  # noqa: S608


# One statement, one snapshot, one round trip.
READ = f"SELECT json_build_object({', '.join(_table(*each) for each in ORDERED_BY.items())})"


async def state_of_postgres(connections: asyncpg.Pool) -> State:
    """What is in its tables; times as Postgres writes them."""
    return msgspec.json.decode(await connections.fetchval(READ), type=State)


class ModelState:
    """The same of the model. Its rows never change: each is converted once."""

    def __init__(self, ledger: ModelLedger) -> None:
        self._ledger = ledger
        self._known: dict[int, tuple[msgspec.Struct, dict[str, object]]] = {}

    def read(self) -> State:
        """What is in its tables now."""
        t, queue = self._ledger.tables, self._ledger.queue
        of_drop = {"drop": "drop_id", "allocation": "allocation_id"}
        of_reservation = {"key": "idempotency_key", "code": "fcode", "released": "gate_released", "order": "order_id"}
        of_reservation |= {"home": "home_stripe", "unit": "unit_stripe"}
        of_job = {"order": "dedupe_key", "due_at": "execute_after", "beat_at": "heartbeat", "number": ""}
        return {
            "drops": self._rows(t.drops, {}),
            "allocations": self._rows(t.allocations, {"drop": "drop_id"}),
            "reservations": self._rows(t.reservations, of_drop | of_reservation),
            "orders": self._rows(t.orders, {"reservation": "reservation_id", "payment": "payment_id"}),
            "payments": self._rows(t.payments, {"reservation": "reservation_id"}),
            "pgqueuer": self._rows(queue.jobs, of_job),
            "pgqueuer_log": [{"created": _text(at)} for at in sorted(queue.log.values())],
            "fcode_batches": self._rows(t.batches, of_drop),
            "fcode_bound": [
                {"batch_id": batch} | msgspec.structs.asdict(owner) for (batch, _), owner in sorted(t.bound.items())
            ],
            "fcode_revoked": [{"batch_id": batch, "serial": serial} for batch, serial in sorted(t.revoked)],
            "audit": self._rows(t.audit, {}),
            "fcode_stop": self._rows(t.fcode_stop, {}),
            "disabled_endpoints": [{"url": url} for url in sorted(t.disabled)],
        }

    def _rows(self, table: dict[Any, Any], names: dict[str, str]) -> list[dict[str, object]]:
        """By their keys, under Postgres's names; what is named "" is the model's own."""
        rows = []
        for _, row in sorted(table.items()):
            if id(row) not in self._known:
                self._known[id(row)] = row, dict(_columns(row, names))
            rows.append(self._known[id(row)][1])
        return rows


def _columns(row: msgspec.Struct, names: dict[str, str]) -> Iterable[tuple[str, object]]:
    for name, value in msgspec.structs.asdict(row).items():
        match name, value:
            case "price", Money(amount, currency):
                yield from (("price_amount", amount), ("currency", currency))
            case "list_price", _:
                yield "list_price_amount", value.amount if value else None
                yield "list_price_currency", value.currency if value else None
            case "money", Money(amount, currency):
                yield from (("amount", amount), ("currency", currency))
            case "access", _:
                yield name, msgspec.to_builtins(value)
            case _ if column := names.get(name, name):
                yield column, _text(value) if isinstance(value, datetime) else _word(value)


def _word(value: object) -> object:
    return value.value if isinstance(value, Enum) else value


def _text(at: datetime) -> str:
    """As Postgres writes it: no zeros at the end of a second's fraction."""
    whole, dot, fraction = at.replace(tzinfo=None).isoformat().partition(".")
    return f"{whole}{dot}{fraction.rstrip('0')}+00:00"
