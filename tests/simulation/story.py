"""Short words for what goes over the wire: a story of a thousand calls is read by a person."""

from datetime import datetime
from enum import Enum
from typing import Any

import msgspec

from flashsale.domain import Claim, Drop, Grant, Refusal, Reservation
from flashsale.gate import Decisions, Status, Unarmed
from flashsale.ledger import Committed, Existing, SecondLock, Stale
from tests.simulation.stores import NOON


def brief(value: Any) -> str:  # noqa: ANN401, C901, PLR0912 -- one line for each kind of value
    """The value in a few words."""
    match value:
        case None | bool() | int() | float() | str():
            return str(value)
        case tuple() | list():
            inner = ", ".join(brief(each) for each in value)
            return f"({inner})" if isinstance(value, tuple) else f"[{inner}]"
        case set() | frozenset():
            return "{" + ", ".join(sorted(brief(each) for each in value)) + "}"
        case dict():
            return "{" + ", ".join(f"{k}: {brief(v)}" for k, v in value.items()) + "}"
        case datetime():
            return f"@{(value - NOON).total_seconds():.3f}"
        case Drop():
            return f"drop@{value.epoch}{' paused' if value.paused else ''}{' closed' if value.closed else ''}"
        case Claim():
            code = "" if value.code is None else f" code {value.code}"
            return f"m{value.member} wants {value.quantity} of {value.allocation or 'any'} key {value.key}{code}"
        case Grant():
            word = "again" if value.again else "grant"
            if value.elsewhere:
                word += " without its unit" if value.unit is None else f" with a unit of stripe {value.unit}"
            return f"{word} {value.id} m{value.member} {value.quantity} {value.allocation}@{value.epoch}"
        case Refusal():
            return value.verdict.value
        case Decisions():
            return f"@{value.epoch} {brief(value.results)}"
        case Unarmed():
            return "UNARMED"
        case Status():
            return f"@{value.epoch} {value.available}"
        case Committed():
            return "committed"
        case Existing():
            return f"exists {brief(value.reservation)}"
        case Stale():
            return f"stale, ledger@{value.epoch}"
        case SecondLock():
            return f"second lock: {value.verdict.value}"
        case Reservation():
            return f"{value.id} m{value.member} {value.allocation} {value.state.value}"
        case msgspec.Struct():
            fields = {name: getattr(value, name) for name in value.__struct_fields__}
            told = ", ".join(f"{k} {brief(v)}" for k, v in fields.items() if v not in (None, [], ()))
            return f"{type(value).__name__}({told})"
        case Enum():
            return str(value.value)
    return type(value).__name__
