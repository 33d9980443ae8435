"""Confirming a hold: by its member, or by a payment, as the setting `confirm_by` says.

Like the press of the button it is dispatched before routing and middleware: at noon every buyer does it, soon after.
"""

import uuid
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.web_request import BaseRequest

from flashsale.domain import Confirmation, Payment, Reservation, State
from flashsale.errors import Refused
from flashsale.ledger import Confirmed
from flashsale.web import hot, problems
from flashsale.web.auth import Identity
from flashsale.web.context import Context
from flashsale.web.prepared import Prepared, Template
from flashsale.web.routing import caller_of, decode_body
from flashsale.web.schemas import ConfirmIn

PREFIX: Final = "/v1/reservations/"
SUFFIX: Final = "/confirm"

_body: Final = msgspec.json.Decoder(ConfirmIn)
_encode: Final = msgspec.json.Encoder().encode
_ok: Final = Template(200, "application/json")


def reservation_of_path(path: str) -> str | None:
    """The reservation in `/v1/reservations/{reservation}/confirm`, or None when the path is not exactly that."""
    if path.startswith(PREFIX) and path.endswith(SUFFIX):
        reservation_id = path[len(PREFIX) : -len(SUFFIX)]
        if "/" not in reservation_id and "%" not in reservation_id and "?" not in reservation_id:
            return reservation_id
    return None


async def confirm(request: BaseRequest, context: Context, reservation_id: str) -> web.StreamResponse:
    """`POST /v1/reservations/{reservation}/confirm`: 200 with the reservation and its order, also when repeated."""
    try:
        identity = caller_of(request, context)
        given = decode_body(await hot.read_at_once(request, context.settings.body_max_bytes), _body)
        payment = _payment(identity, given, by=context.settings.confirm_by)
        known_id = _uuid(reservation_id)
        found = await context.reservations.confirm(known_id, member=identity.member, payment=payment)
        answer = _answer(found, reservation_id, payment)
    except Exception as error:  # noqa: BLE001 -- the last line before the client: nothing may leave without an answer
        return problems.answer_to(request, error)
    return answer if request.keep_alive else answer.closing()


def _unknown(reservation_id: str) -> Refused:
    return Refused("not_found", f"You have no reservation {reservation_id[:64]!r}.")


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise _unknown(text) from None


def _payment(identity: Identity, given: ConfirmIn, *, by: str) -> Payment | None:
    """What was paid, where payments confirm; `Refused` for who may not confirm here."""
    if by == "member":
        if identity.role == "payments":
            raise Refused("forbidden", "Here members confirm what they hold; send the member's own token.")
        if given != ConfirmIn():
            raise Refused("invalid_request", "Here members confirm, and the body is empty; leave the payment out.")
        return None
    if identity.role != "payments":
        raise Refused(
            "forbidden", "A hold is confirmed by its payment: this call needs a token with the role `payments`."
        )
    match given:
        case ConfirmIn(payment_id=str(payment_id), amount=int(amount), currency=str(currency)):
            return Payment(payment_id, amount, currency)
        case _:
            raise Refused("invalid_request", "Say what was paid: `payment_id`, `amount` and `currency`, all three.")


def _answer(found: Confirmed, reservation_id: str, payment: Payment | None) -> Prepared:
    match found:
        case Confirmed(outcome=Confirmation.CONFIRMED | Confirmation.AGAIN, reservation=Reservation() as reservation):
            return _ok.answer(_encode(hot.reservation_out(reservation)))
        case Confirmed(outcome=Confirmation.WRONG_AMOUNT, due=due):
            assert due is not None
            raise Refused(
                "invalid_request",
                f"The amount due is {due.amount} {due.currency} in minor units; nothing was recorded. "
                "Send the payment's true amount, or give the money back.",
                due=due,
            )
        case Confirmed(outcome=Confirmation.PAYMENT_TAKEN):
            raise Refused("conflict", "This `payment_id` stands for another payment already; each needs its own.")
        case Confirmed(outcome=Confirmation.EXPIRED | Confirmation.CONFLICT as outcome, reservation=Reservation() as r):
            raise Refused(outcome.value, _ended(r, payment))
        case _:
            raise _unknown(reservation_id)


def _ended(reservation: Reservation, payment: Payment | None) -> str:
    expired = reservation.state in {State.HELD, State.EXPIRED}
    why = "The hold has expired" if expired else f"The reservation is {reservation.state.value}"
    if payment is None:
        return f"{why}; only a hold can be confirmed."
    return f"{why}. The payment is recorded, and `payment.refund_due` tells the shop to give it back."
