"""`/openapi.json`: an OpenAPI 3.1 document made out of the same calls and structs that serve the requests.

Nothing is written down twice: paths, parameters and answers come from the `Call`s, schemas from the structs that read
and write the bodies, status and codes from `problems`. Each answer names the very codes that may come with it.
"""

import inspect
import re
from datetime import datetime, timedelta, timezone
from typing import Any, Final

import msgspec
from aiohttp import web

from flashsale.domain import ID_PATTERN, Everyone, Money
from flashsale.web.auth import Identity
from flashsale.web.console_rehearsals import RehearsalIn
from flashsale.web.console_schemas import FcodeSwitchIn, MoveIn, ResumeIn
from flashsale.web.context import Context
from flashsale.web.fcode_schemas import FcodesIn, RevokeIn
from flashsale.web.problems import CONTENT_TYPE, STATUS, TITLES
from flashsale.web.routing import Call, Param
from flashsale.web.schemas import (
    AllocationIn,
    AllocationPatch,
    ConfirmIn,
    DropIn,
    DropPatch,
    Problem,
    ReserveIn,
    ReturnIn,
    SwitchIn,
)

PATH: Final = "/openapi.json"
REF: Final = "#/components/schemas/{name}"
_ID: Final = {"type": "string", "pattern": ID_PATTERN}
_OPAQUE: Final = {"type": "string", "minLength": 1, "maxLength": 64}
_PATH_PARAMETERS: Final = {
    "snapshot": ("Name of the points snapshot.", _ID),
    "drop": ("Id of the drop.", _ID),
    "allocation": ("Id of the allocation.", _ID),
    "reservation": ("Id of the reservation, as it was answered.", _OPAQUE),
    "rehearsal": ("Id of the rehearsal, as it was answered.", _OPAQUE),
    "order": ("Id of the order, as it was answered.", _OPAQUE),
    "batch": ("Id of the batch of F-codes, as it was answered.", {"type": "string", "pattern": "^[1-9][0-9]{0,6}$"}),
}
_HEADERS: Final = {
    "Retry-After": ("Seconds after which to ask again.", {"type": "integer", "minimum": 1}),
    "WWW-Authenticate": ("How to authenticate.", {"type": "string"}),
}
_TAGS: Final = {
    "Shoppers": "What members do.",
    "Operators": "Set up and run drops; needs a token with the role `ops`; to look, `ops-read` is enough.",
    "Probes": "For the machines around the service; on the loopback only, unless a setting opens them.",
}
_NOON: Final = datetime(2011, 8, 29, 12, tzinfo=timezone(timedelta(hours=8)))
_MORNING: Final = AllocationIn(
    id="29-august",
    quantity=200,
    opens_at=_NOON,
    closes_at=_NOON + timedelta(hours=12),
    access=Everyone(),
    channel="own-site",
)
_EXAMPLES: Final[dict[object, object]] = {
    "text/csv": "member_id,points\n17,250\n23,99\n",
    AllocationIn: msgspec.structs.replace(
        _MORNING, id="30-august", opens_at=_NOON + timedelta(hours=24), closes_at=_NOON + timedelta(hours=36)
    ),
    AllocationPatch: AllocationPatch(quantity=250),
    DropIn: DropIn(
        id="engineering-edition",
        title="Engineering edition",
        price=Money(169_900, "CNY"),
        allocations=(_MORNING,),
        list_price=Money(199_900, "CNY"),
    ),
    ConfirmIn: ConfirmIn(),
    DropPatch: DropPatch(title="Engineering edition, second batch"),
    FcodesIn: FcodesIn(count=50, note="campus club"),
    FcodeSwitchIn: FcodeSwitchIn(stopped=True, reason="codes were seen for sale"),
    MoveIn: MoveIn(from_="29-august", to="30-august", count=20),
    RehearsalIn: RehearsalIn(members=1_000, over_s=10.0),
    ReserveIn: ReserveIn(quantity=1),
    ResumeIn: ResumeIn(),
    ReturnIn: ReturnIn(reason="scratched display", restock=False),
    RevokeIn: RevokeIn(reason="the list was stolen", serials=(3, 14)),
    SwitchIn: SwitchIn(reason="counting the stock again"),
}
_DESCRIPTION: Final = (
    "Sells limited quantities: fast, fairly, and never one unit too many. Errors are problem documents (RFC 9457): "
    "`code` is stable, `detail` says what to do. Times are RFC 3339 with zone, amounts are in minor units."
)

Json = dict[str, Any]


def openapi_call(calls: tuple[Call, ...]) -> Call:
    """The call that serves the document of `calls` and of itself."""

    async def serve(_request: web.Request, _context: Context, _caller: Identity) -> web.StreamResponse:
        return web.Response(body=body, content_type="application/json")

    call = Call(
        method="GET",
        path=PATH,
        handler=serve,
        summary="This document",
        access="probe",
        answers={200: dict},
    )
    body = msgspec.json.encode(document((*calls, call)))
    return call


def document(calls: tuple[Call, ...]) -> Json:
    """The OpenAPI document of `calls`."""
    paths: dict[str, Json] = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Flashsale",
            "version": "1",
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": _schemas(calls),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "`sub`: the member; `role`: `ops`, `ops-read`, `payments`, none; `tier`: number.",
                }
            },
        },
    }


def codes_of(call: Call) -> tuple[str, ...]:
    """Every problem code that a call may answer with: its own and the general ones, in the order of `STATUS`."""
    codes = {"unavailable", *call.codes}
    if _needs_token(call):
        codes.add("unauthenticated")
    if call.access in {"ops", "probe"}:
        codes.add("forbidden")
    if call.body is not None or call.params:
        codes.add("invalid_request")
    if call.body is not None:
        codes.add("too_large")
    return tuple(code for code in STATUS if code in codes)


def _needs_token(call: Call) -> bool:
    return call.access in {"member", "ops"} or "unauthenticated" in call.codes


def _operation(call: Call) -> Json:
    slug = re.sub(r"[^a-z0-9]+", "_", call.path.lower()).strip("_")
    operation: Json = {
        "operationId": f"{call.method.lower()}_{slug}",
        "summary": call.summary,
        "tags": ["Operators" if call.access == "ops" else "Probes" if call.access == "probe" else "Shoppers"],
    }
    names = re.findall(r"\{(\w+)\}", call.path)
    parameters = [*map(_path_parameter, names), *map(_parameter, call.params)]
    if parameters:
        operation["parameters"] = parameters
    if call.body is not None:
        operation["requestBody"] = _request_body(call.body)
    operation["responses"] = _responses(call)
    operation["security"] = [{"token": []}] if _needs_token(call) else []
    return operation


def _path_parameter(name: str) -> Json:
    description, schema = _PATH_PARAMETERS[name]
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def _parameter(param: Param) -> Json:
    return {
        "name": param.name,
        "in": param.where,
        "required": param.required,
        "description": param.description,
        "schema": param.schema,
    }


def _request_body(body: type | str) -> Json:
    if body == "application/octet-stream":
        return {"required": True, "content": {body: {"schema": {"type": "string", "format": "binary"}}}}
    example = msgspec.to_builtins(_EXAMPLES[body], str_keys=True)
    if isinstance(body, str):
        return {"required": True, "content": {body: {"schema": {"type": "string"}, "example": example}}}
    required = any(field.required for field in msgspec.structs.fields(body)) or _is_patch(body)
    return {"required": required, "content": {"application/json": {"schema": _ref(body), "example": example}}}


def _is_patch(body: type) -> bool:
    """Whether every field may be left out as "stays as it is", so that one at least must be named."""
    return all(field.default is msgspec.UNSET for field in msgspec.structs.fields(body))


def _responses(call: Call) -> Json:
    responses = {str(status): _good_answer(status, shown) for status, shown in call.answers.items()}
    by_status: dict[int, list[str]] = {}
    for code in codes_of(call):
        by_status.setdefault(STATUS[code], []).append(code)
    for status, codes in sorted(by_status.items()):
        responses[str(status)] = _problem_answer(status, codes)
    return responses


def _good_answer(status: int, shown: type | str) -> Json:
    description = {201: "Done: this is new.", 202: "It has begun.", 304: "Not modified."}.get(status, "Done.")
    if shown == "":
        return {"description": description}
    if isinstance(shown, str):
        return {"description": description, "content": {shown: {"schema": {"type": "string"}}}}
    schema = {"type": "object"} if shown is dict else _ref(shown)
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _problem_answer(status: int, codes: list[str]) -> Json:
    narrowed = {"properties": {"status": {"const": status}, "code": {"enum": codes}}}
    headers = [
        *(["Retry-After"] if status in {429, 503} or "not_open" in codes else []),
        *(["WWW-Authenticate"] if "unauthenticated" in codes else []),
    ]
    answer: Json = {
        "description": " · ".join(f"`{code}`: {TITLES[code]}" for code in codes),
        "content": {CONTENT_TYPE: {"schema": {"allOf": [_ref(Problem), narrowed]}}},
    }
    if headers:
        answer["headers"] = {name: {"description": _HEADERS[name][0], "schema": _HEADERS[name][1]} for name in headers}
    return answer


def _ref(struct: type) -> Json:
    return {"$ref": REF.format(name=struct.__name__)}


def _schemas(calls: tuple[Call, ...]) -> Json:
    shown = [body for call in calls for body in (call.body, *call.answers.values())]
    structs = dict.fromkeys(s for s in (*shown, Problem) if isinstance(s, type) and issubclass(s, msgspec.Struct))
    _, components = msgspec.json.schema_components(structs, ref_template=REF)
    for struct in structs:
        if _is_patch(struct):
            components[struct.__name__]["minProperties"] = 1
    return {name: _portable(component) for name, component in sorted(components.items())}


def _portable(schema: Any) -> Any:  # noqa: ANN401 -- JSON
    r"""The same schema in the words of JSON Schema: its regular expressions end with `$`, where Python needs `\Z`."""
    match schema:
        case dict():
            plain = {key: _portable(value) for key, value in schema.items()}
            if isinstance(plain.get("pattern"), str):
                plain["pattern"] = re.sub(r"\\Z$", "$", plain["pattern"])
            if isinstance(plain.get("description"), str):
                plain["description"] = inspect.cleandoc(plain["description"])
            return plain
        case list():
            return [_portable(item) for item in schema]
        case _:
            return schema
