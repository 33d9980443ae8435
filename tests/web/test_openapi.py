"""`/openapi.json`: valid, complete, and true: what it says of every call is what the running service does."""

import asyncio
import copy
import re
from collections import Counter
from collections.abc import AsyncIterator

import asyncpg
import jsonschema_rs
import msgspec
import pytest
import schemathesis
from aiohttp import ClientSession, web
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, StopReason, events, from_schema

from flashsale import embedded
from flashsale.ledger.migrate import migrate
from flashsale.settings import Settings
from flashsale.web.app import Runner, make_runner
from tests.support import PATIENT
from tests.web.calls import STATUS, Json, allocation_body, call, drop_body
from tests.web.conftest import FCODE_KEY, SECRET, Token

EXAMPLES_MAX = 6
SOLD = 20
SEED = 20110816
CHECKS = [
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "ignored_auth",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
]
PAGES = re.compile(r"/$|/(zh|en|assets|pictures|sign-in|sign-out)(/|\{|$)")
STREAMS = "/(events|live)$"
"""They have no end, which the machine that tries every call would wait for; they have tests of their own."""
OUR_FAULT = "Something went wrong on our side"


@pytest.fixture(scope="module")
async def document(http: ClientSession) -> Json:
    """The document, as served."""
    answer = await call(http, "GET", "/openapi.json")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/json")
    return answer.body


@pytest.fixture(scope="module")
async def apart(urls: embedded.Servers) -> AsyncIterator[ClientSession]:
    """A client of a service with a database of its own, which the many drops made here do not leave full."""
    connection = await asyncpg.connect(urls.database_url)
    await connection.execute("CREATE DATABASE openapi")
    await connection.close()
    database_url = re.sub(r"/[^/?]+(?=\?|$)", "/openapi", urls.database_url)
    await migrate(database_url)
    settings = Settings(
        redis_url=urls.redis_url,
        database_url=database_url,
        jwt_secret=SECRET,
        fcode_keys=FCODE_KEY,
        live_stream_s=0.2,
        **PATIENT,
    )
    runner = await make_runner(settings)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
        yield session
    await runner.cleanup()


def test_the_document_is_valid_openapi(document: Json) -> None:
    """By the schema of OpenAPI 3.1 itself; a broken document is found."""
    assert document["openapi"].startswith("3.1")
    schemathesis.openapi.from_dict(document).validate()
    broken = copy.deepcopy(document)
    broken["paths"]["/v1/drops"]["get"]["responses"] = []
    with pytest.raises(jsonschema_rs.ValidationError):
        schemathesis.openapi.from_dict(broken).validate()


def test_schemas_are_valid_json_schema_and_none_is_missing_or_idle(document: Json) -> None:
    """Every reference has its schema, every schema is referred to, every pattern is one for JSON Schema."""
    text = msgspec.json.encode(document).decode()
    referred = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert referred == set(document["components"]["schemas"])
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)
    assert "\\Z" not in text


def test_every_route_is_in_the_document_and_nothing_else(document: Json, runner: Runner) -> None:
    """The document lists what the router serves, but for the pages, which answer people."""
    served = {
        (route.method.lower(), route.resource.canonical)
        for route in runner.app.router.routes()
        if route.resource is not None and route.method != "HEAD" and not PAGES.match(route.resource.canonical)
    }
    told = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert told == served


def test_examples_fit_their_schemas(document: Json) -> None:
    """Whoever copies an example has a request that the service takes."""
    schemas = {"components": document["components"]}
    bodies = [
        operation["requestBody"]["content"]["application/json"]
        for methods in document["paths"].values()
        for operation in methods.values()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    ]
    assert len(bodies) >= 8
    for body in bodies:
        jsonschema_rs.validator_for({**schemas, **body["schema"]}).validate(body["example"])


def test_operations_are_told_apart_and_name_their_codes(document: Json) -> None:
    """Unique ids; each problem answer names codes of the contract, under their status."""
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    ids = Counter(operation["operationId"] for operation in operations)
    assert ids.most_common(1)[0][1] == 1
    for operation in operations:
        for status, answer in operation["responses"].items():
            if int(status) < 400:
                continue
            narrowed = answer["content"]["application/problem+json"]["schema"]["allOf"][1]["properties"]
            codes = narrowed["code"]["enum"]
            assert codes
            assert {STATUS[code] for code in codes} == {int(status)} == {narrowed["status"]["const"]}


def test_calls_that_need_a_token_say_so(document: Json) -> None:
    """Operators' and members' calls, and no others."""
    open_to_all = {
        f"{method} {path}"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if not operation["security"]
    }
    assert {name for name in open_to_all if "/v1/" in name} == {
        "get /v1/drops",
        "get /v1/drops/{drop}",
        "get /v1/drops/{drop}/clock",
        "get /v1/drops/{drop}/events",
        "get /v1/drops/{drop}/status",
        "get /v1/me/session",
    }


def config(token: dict[str, str], drops: list[str], sold: dict[str, str], batches: list[str]) -> SchemathesisConfig:
    """What is checked, how much, and with which drops that exist."""
    return SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "headers": token,
            "checks": {
                "enabled": False,
                "not_a_server_error": {"enabled": True, "expected-statuses": ["2xx", "3xx", "4xx", 503]},
                **{check: {"enabled": True} for check in CHECKS},
                # As usual, and 413: what is too long for its field may be too long for a body.
                "negative_data_rejection": {
                    "enabled": True,
                    "expected-statuses": [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, "5xx"],
                },
            },
            "generation": {"deterministic": True, "max-examples": EXAMPLES_MAX, "database": "none"},
            "phases": {"stateful": {"generation": {"max-examples": EXAMPLES_MAX}}},
            "dictionaries": {
                "drops": {"values": drops},
                "allocations": {"values": ["a", "b", "v"]},
                "batches": {"values": batches},
                "reservations": {"values": list(sold)},
                "tags": {"values": ["*"]},
                "orders": {"values": [order for order in sold.values() if order]},
            },
            "parameters": {
                "path.drop": {"dictionary": "drops", "probability": 0.7},
                "path.allocation": {"dictionary": "allocations", "probability": 0.7},
                "path.reservation": {"dictionary": "reservations", "probability": 0.7},
                "path.batch": {"dictionary": "batches", "probability": 0.7},
                "path.order": {"dictionary": "orders", "probability": 0.7},
                "header.If-Match": {"dictionary": "tags", "probability": 0.9},
                "query.drop": {"dictionary": "drops", "probability": 0.7},
            },
            "cache": {"enabled": False},
            "suppress-health-check": ["all"],
            "continue-on-failure": True,
        }
    )


class Heard(msgspec.Struct):
    """What came of a run: answers by operation and status, and what was wrong."""

    answers: Counter[tuple[str, int]]
    wrong: list[str]
    stopped: StopReason | None = None


def run(document: Json, base_url: str, configuration: SchemathesisConfig, excluded: str | None) -> Heard:
    """Drive the service with all that schemathesis makes out of the document."""
    heard = Heard(Counter(), [])
    schema = schemathesis.openapi.from_dict(document, config=configuration)
    schema.config.update(base_url=base_url)
    chosen = schema.exclude(path_regex=STREAMS if excluded is None else f"{STREAMS}|{excluded}")
    for event in from_schema(chosen).execute():
        match event:
            case events.ScenarioFinished(recorder=recorder):
                for case_id, interaction in recorder.interactions.items():
                    response = interaction.response
                    if response is None:
                        heard.wrong.append(f"{recorder.label}: no answer to {interaction.request.uri}")
                        continue
                    case = recorder.cases[case_id].value
                    heard.answers[f"{case.method} {case.path}", response.status_code] += 1
                    if OUR_FAULT.encode() in response.content or response.status_code == 500:
                        heard.wrong.append(f"{case.as_curl_command()}\n{response.content!r}")
                heard.wrong += [
                    f"{check.failure_info.code_sample}\n{check.failure_info.failure}"
                    for checks in recorder.checks.values()
                    for check in checks
                    if check.status is Status.FAILURE and check.failure_info is not None
                ]
            case events.NonFatalError(value=value, label=label):
                heard.wrong.append(f"{label}: {value!r}")
            case events.FatalError(exception=exception):
                raise exception
            case events.EngineFinished(stop_reason=stop_reason):
                heard.stopped = stop_reason
            case _:
                pass
    return heard


async def some_sold(http: ClientSession, headers: dict[str, str], drop_id: str) -> dict[str, str]:
    """Reservations and their orders: some are held, some confirmed."""
    sold = {}
    for number in range(SOLD):
        answer = await call(http, "POST", f"/v1/drops/{drop_id}/reservations", headers, json={"allocation": "a"})
        reservation = answer.body["id"]
        if number % 2:
            answer = await call(http, "POST", f"/v1/reservations/{reservation}/confirm", headers)
        sold[reservation] = answer.body.get("order", "")
    return sold


def calls_of(document: Json, excluded: str | None) -> set[str]:
    """Method and path of every call."""
    return {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
        if not re.search(STREAMS if excluded is None else f"{STREAMS}|{excluded}", path)
    }


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("role", "excluded"), [("ops", None), (None, "^/v1/ops")])
async def test_the_service_does_what_the_document_says(
    apart: ClientSession, document: Json, token: Token, role: str | None, excluded: str | None
) -> None:
    """Every call, with right and with wrong input: only documented answers, wrong input refused, no fault of ours."""
    ops, drops = token(990, role="ops"), [f"{role or 'shopper'}-{number}" for number in range(6)]
    for drop_id in drops:
        lane = allocation_body("v", 2_000_000_000, access={"kind": "fcode"})
        body = drop_body(drop_id, allocation_body("a", 1_000), allocation_body("b", 0), lane, per_member=500)
        assert (await call(apart, "POST", "/v1/ops/drops", ops, json=body)).status == 201
    sold = await some_sold(apart, token(991, role=role), drops[0])
    minted = [
        await call(apart, "POST", f"/v1/ops/drops/{drop_id}/allocations/v/fcodes", ops, json={"count": 10})
        for drop_id in drops
    ]
    configuration = config(token(991, role=role), drops, sold, [answer.body["batch"] for answer in minted])
    heard = await asyncio.to_thread(run, document, str(apart._base_url), configuration, excluded)
    assert not heard.wrong, f"{len(heard.wrong)} wrong\n\n" + "\n\n".join(list(dict.fromkeys(heard.wrong))[:10])
    assert heard.stopped is StopReason.COMPLETED
    # Whether a drop is closed before it is paused or resumed, and whether codes are asked of the one allocation that is
    # for codes (which minted above), is left to chance; otherwise the answer is a conflict. That a move names two
    # allocations that exist is too rare.
    done = {200, 201, 202, 204, 304}
    succeeded = {
        name
        for name, status in heard.answers
        if status in done
        or (status == 409 and name.endswith(("/pause", "/resume", "/fcodes")))
        or (status in {404, 409} and name.endswith("/moves"))
        or (status == 422 and name.endswith("/pictures"))  # no chance makes a picture
    }
    assert succeeded >= calls_of(document, excluded), heard.answers


async def test_a_document_that_is_not_true_is_found_out(apart: ClientSession, document: Json, token: Token) -> None:
    """The negative control: another schema, a code left out, a check that is not made."""
    lies = copy.deepcopy(document)
    lies["paths"]["/healthz"]["get"]["responses"]["200"]["content"]["application/json"]["schema"] = {"type": "array"}
    del lies["paths"]["/v1/drops/{drop}"]["get"]["responses"]["404"]
    lies["components"]["schemas"]["FcodeSwitchIn"]["properties"]["reason"]["maxLength"] = 2
    others = "^(?!(/healthz|/v1/drops/{drop}|/v1/ops/drops/{drop}/fcode-switch)$)"
    configuration = config(token(991, role="ops"), ["ops-0"], {"x": "y"}, ["1"])
    heard = await asyncio.to_thread(run, lies, str(apart._base_url), configuration, others)
    text = "\n".join(heard.wrong)
    for finding in ('is not of type "array"', "Undocumented status code", "Schema-violating request accepted"):
        assert finding in text
