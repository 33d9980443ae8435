"""The operators' calls about orders: the queue and its health, replay, and returns."""

import re
import uuid
from functools import partial
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from flashsale.domain import ID_PATTERN, MEMBER_MAX, Event, OrderState
from flashsale.errors import Refused
from flashsale.ledger import ListedOrder
from flashsale.ledger.console import SKEW, OrdersWanted
from flashsale.web import hot
from flashsale.web.auth import Identity
from flashsale.web.console import number_param, query_number, query_time, time_param
from flashsale.web.context import Context
from flashsale.web.ops import actor_of
from flashsale.web.routing import PAGING, Call, Param, answer, page_after, page_limit, read_body
from flashsale.web.schemas import OrderList, OrderOut, QueueOut, ReplayOut, ReservationOut, ReturnIn

UUID_PATTERN: Final = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"

_return_in: Final = msgspec.json.Decoder(ReturnIn)
Word = TypeVar("Word", OrderState, Event)


def _chosen(request: web.Request, name: str, words: type[Word]) -> Word | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        return words(text)
    except ValueError:
        raise Refused("invalid_request", f"`{name}` is one of {', '.join(w.value for w in words)}.") from None


def uuid_of(request: web.Request, name: str, what: str) -> str:
    """An id in the path; `Refused` when nothing can be called that."""
    text = request.match_info[name]
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise Refused("not_found", f"There is no {what} {text[:64]!r}.") from None


def _order_out(o: ListedOrder) -> OrderOut:
    return OrderOut(
        order=o.id,
        event=o.event,
        state=o.state,
        reservation=o.reservation,
        drop=o.drop,
        allocation=o.allocation,
        member=o.member,
        quantity=o.quantity,
        money=o.money,
        payment_id=o.payment_id,
        created_at=o.created_at,
        settled_at=o.settled_at,
        due_at=o.due_at,
        tries=o.tries,
        reason=o.reason,
    )


def _uuid(text: str, name: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise Refused("invalid_request", f"`{name}` is an id as it was answered.") from None


async def _sooner(context: Context, wanted: OrdersWanted) -> OrdersWanted:
    """Of a drop, there are no orders from before it was set up: so no more is read than what came since."""
    drop = None if wanted.drop is None else await context.catalog.get(wanted.drop)
    if drop is None or (wanted.since is not None and wanted.since > drop.created_at):
        return wanted
    return msgspec.structs.replace(wanted, since=drop.created_at - SKEW)


async def list_orders(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/ops/orders`: newest first, with the state of the queue."""
    state, event = _chosen(request, "state", OrderState), _chosen(request, "event", Event)
    after, limit = page_after(request, UUID_PATTERN), page_limit(request)
    order, member = request.query.get("order"), query_number(request, "member", 1, MEMBER_MAX)
    drop = request.query.get("drop")
    if drop is not None and re.fullmatch(ID_PATTERN, drop) is None:
        raise Refused("invalid_request", "`drop` is the id of a drop: small letters, digits and hyphens.")
    wanted = OrdersWanted(
        state=state,
        event=event,
        order=None if order is None else _uuid(order, "order"),
        member=member,
        drop=drop,
        since=query_time(request, "since"),
        until=query_time(request, "until"),
    )
    if wanted == OrdersWanted(state=state, event=event):
        found = await context.ledger.orders.page(state, event, after, limit + 1)
    else:
        found = await context.ledger.console.orders(await _sooner(context, wanted), after, limit + 1)
    health = await context.ledger.orders.health(context.settings.fulfilment_url)
    queue = QueueOut(health.waiting, round(health.oldest_s, 3), health.tries_max, health.dead, health.disabled)
    items = tuple(_order_out(o) for o in found[:limit])
    return answer(OrderList(queue, items, items[-1].order if len(found) > limit else None))


async def replay(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`POST /v1/ops/orders/{order}/replay`: delivered (again) now, under its id."""
    order = uuid_of(request, "order", "order")
    was = await context.ledger.orders.replay(order, actor=actor_of(caller))
    if was is None:
        raise Refused("not_found", f"There is no order {order!r}; GET /v1/ops/orders lists them.")
    return answer(ReplayOut(order, OrderState.QUEUED, was))


async def take_back(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`POST /v1/ops/reservations/{reservation}/return`."""
    reservation = uuid_of(request, "reservation", "reservation")
    body = await read_body(request, _return_in)
    found = await context.operations.take_back(
        reservation, restock=body.restock, to=body.to_allocation, reason=body.reason, actor=actor_of(caller)
    )
    return answer(hot.reservation_out(found))


_STATE: Final = Param(
    "state", "Only those in this state.", {"type": "string", "enum": sorted(s.value for s in OrderState)}
)
_EVENT: Final = Param("event", "Only these events.", {"type": "string", "enum": sorted(e.value for e in Event)})
_SEARCH: Final = (
    Param("order", "Only this one.", {"type": "string", "format": "uuid"}),
    number_param("member", "Only of this member.", 1, MEMBER_MAX),
    Param("drop", "Only of this drop.", {"type": "string", "pattern": ID_PATTERN}),
    time_param("since", "Not made before this."),
    time_param("until", "Made before this."),
)
_call: Final = partial(Call, access="ops")

CALLS: Final = (
    _call(
        method="GET",
        path="/v1/ops/orders",
        handler=list_orders,
        summary="Orders on their way to the shop, newest first, and the state of their queue",
        params=(_STATE, _EVENT, *_SEARCH, *PAGING),
        answers={200: OrderList},
    ),
    _call(
        method="POST",
        path="/v1/ops/orders/{order}/replay",
        handler=replay,
        summary="Deliver an order again, or now, under its id",
        answers={200: ReplayOut},
        codes=("not_found",),
    ),
    _call(
        method="POST",
        path="/v1/ops/reservations/{reservation}/return",
        handler=take_back,
        summary="Mark a confirmed reservation returned",
        body=ReturnIn,
        answers={200: ReservationOut},
        codes=("not_found", "conflict"),
    ),
)
