"""Settings: `FLASHSALE_*` environment variables, read once into one struct."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from fcodes import BadKeys, Keys
from flashsale.errors import SetupError

PREFIX = "FLASHSALE_"
SWITCHES = frozenset({"public_probes", "fulfilment_allow_private", "sign_in_demo"})

Positive = Annotated[int, msgspec.Meta(ge=1)]
Site = Annotated[str, msgspec.Meta(pattern=r"^https?://[^/?#@\s]+\Z")]
Address = Annotated[str, msgspec.Meta(pattern=r"^https?://[^#\s]+\Z")]
PayAddress = Annotated[str, msgspec.Meta(pattern=r"^https?://[^#\s]*\{reservation\}[^#\s]*\Z")]
HeaderName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]{1,64}\Z")]
PositiveSeconds = Annotated[float, msgspec.Meta(gt=0)]


def _is(doc: str) -> msgspec.Meta:
    return msgspec.Meta(description=doc)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting, its default and its unit. The README's table is tested against this struct."""

    redis_url: Annotated[
        str | None,
        _is(
            "Redis or Valkey: `redis://`, `rediss://`, `redis+cluster://host:port,…` or "
            "`redis+sentinel://host:port,…/service`. Unset: an embedded Valkey."
        ),
    ] = None
    database_url: Annotated[str | None, _is("Postgres: `postgresql://…`. Unset: an embedded Postgres.")] = None
    data_dir: Annotated[str, _is("Where the embedded servers keep their data and `run.json`.")] = ".flashsale"
    host: Annotated[str, _is("Address the HTTP server listens on.")] = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535), _is("Port the HTTP server listens on.")] = 8080
    workers: Annotated[Positive, _is("Web processes.")] = 1
    jwt_secret: Annotated[str | None, _is("HS256 secret, at least 32 bytes. Unset: `flashsale up` makes one.")] = None
    jwks: Annotated[str | None, _is("JWKS for EdDSA, RS256, ES256 tokens: a URL or a file.")] = None
    public_probes: Annotated[
        bool, _is("Answer `/healthz`, `/readyz`, `/metrics`, `/openapi.json` to any address, not only the loopback.")
    ] = False
    gate_batch_max: Annotated[Positive, _is("Requests decided by one Lua call at most.")] = 1_024
    gate_queue_max: Annotated[Positive, _is("Requests waiting for the gate in one process; beyond it 503.")] = 20_000
    gate_timeout_s: Annotated[PositiveSeconds, _is("One call to Redis, seconds.")] = 2.0
    ledger_batch_max: Annotated[Positive, _is("Reservations committed by one transaction at most.")] = 512
    ledger_queue_max: Annotated[Positive, _is("Reservations waiting for the ledger in one process; beyond it 503.")] = (
        20_000
    )
    ledger_timeout_s: Annotated[PositiveSeconds, _is("One call to Postgres, seconds.")] = 4.0
    ledger_pool_max: Annotated[
        Positive, _is("Postgres connections of one process at most, twice: for deciding, for reading.")
    ] = 6
    answer_max_s: Annotated[
        PositiveSeconds,
        _is("A press is answered within this, seconds: with 503 when the stores do not answer. Clients wait longer."),
    ] = 10.0
    leases_from: Annotated[
        Positive,
        _is(
            "Refusals in 200 ms, in one process, from which it refuses the sold out by itself for 200 ms at a time; "
            "meanwhile a yes is kept back until that has ended."
        ),
    ] = 64
    body_max_bytes: Annotated[Positive, _is("Largest JSON body, bytes; beyond it 413.")] = 65_536
    points_body_max_bytes: Annotated[Positive, _is("Largest points CSV, bytes; beyond it 413.")] = 4_294_967_296
    confirm_by: Annotated[
        Literal["member", "payment"],
        _is("Who confirms a hold: its `member`, or a `payment` (a token with the role `payments`)."),
    ] = "member"
    pay_url: Annotated[
        PayAddress | None,
        _is(
            "Where pages send who holds a unit to pay for it, like `https://pay.example/{reservation}`. "
            "Only where a `payment` confirms; unset: the shop tells its members itself."
        ),
    ] = None
    fulfilment_url: Annotated[str | None, _is("Where orders are sent as webhooks. Unset: they wait in the queue.")] = (
        None
    )
    fulfilment_secret: Annotated[
        str | None, _is("Signs the webhooks: `whsec_` and 24 to 64 bytes in base64. Needed with the URL.")
    ] = None
    fulfilment_allow_private: Annotated[
        bool, _is("Send to private and loopback addresses, too (a shop's system in the same network).")
    ] = False
    fulfilment_timeout_s: Annotated[PositiveSeconds, _is("One try to deliver an order, seconds.")] = 10.0
    fulfilment_at_once_max: Annotated[
        int, msgspec.Meta(ge=2, le=1_000), _is("Orders that one worker delivers at the same time at most.")
    ] = 64
    fulfilment_retry_s: Annotated[
        str,
        msgspec.Meta(pattern=r"^[0-9]{1,7}(\.[0-9]{1,3})?(,[0-9]{1,7}(\.[0-9]{1,3})?)*\Z"),
        _is("Seconds before each further try of an order, growing; after the last it is `dead` until it is replayed."),
    ] = "5,60,300,1800,7200,18000,36000,50400,72000,86400"
    queue_log_kept_s: Annotated[Positive, _is("How long the queue's log of finished jobs is kept, seconds.")] = 86_400
    fcode_keys: Annotated[
        str | None,
        _is(
            "Key ring of the F-codes, of what `fcodes keygen` prints: `0:fck1_…,1:fck1_…`. Unset: `flashsale up` "
            "makes one, elsewhere codes are refused."
        ),
    ] = None
    fcode_tries_member_max: Annotated[Positive, _is("Failed F-codes of one member a minute; beyond it 429.")] = 5
    fcode_tries_address_max: Annotated[
        Positive, _is("Failed F-codes from one address a minute; beyond it 429, but genuine codes pass.")
    ] = 20
    fcode_alert_max: Annotated[Positive, _is("Failed F-codes of everybody a minute; beyond it a line in the log.")] = (
        1_000
    )
    fcodes_body_max_bytes: Annotated[
        Positive, _is("Largest CSV of members to bind codes to, bytes; beyond it 413.")
    ] = 268_435_456
    gate_ttl_after_close_s: Annotated[Positive, _is("How long a drop's keys outlive its last window, seconds.")] = (
        86_400
    )
    live_streams_max: Annotated[Positive, _is("Live streams of operators in one process; beyond it 503.")] = 16
    live_stream_s: Annotated[
        PositiveSeconds, _is("How long one live stream lasts before its page opens the next, seconds.")
    ] = 600.0
    shutdown_timeout_s: Annotated[
        PositiveSeconds, _is("How long accepted requests may take to finish at shutdown, seconds.")
    ] = 15.0
    public_url: Annotated[
        Site | None,
        _is("Where shoppers reach the pages, like `https://shop.example`. Unset: wherever a request says it went."),
    ] = None
    zone: Annotated[str, _is("Time zone in which pages tell times.")] = "Asia/Shanghai"
    channel: Annotated[
        str | None, _is("Pages sell allocations of this channel and those without one. Unset: only the latter.")
    ] = None
    sign_in_url: Annotated[
        Address | None,
        _is(
            "The forum's sign-in page. It sends the browser back to `return_to` with `token` (a JWT) and `state` added."
        ),
    ] = None
    sign_in_header: Annotated[
        HeaderName | None,
        _is("Request header in which a proxy in front of the pages hands on the forum's token (a JWT)."),
    ] = None
    sign_in_demo: Annotated[bool, _is("Let anybody sign in as anybody, operators included: only for trying out.")] = (
        False
    )
    session_secret: Annotated[
        Annotated[str, msgspec.Meta(min_length=32)] | None,
        _is("Signs the pages' session cookies, at least 32 characters. Unset: derived from the HS256 secret."),
    ] = None
    session_s: Annotated[Positive, _is("A session ends this long after its last visit, seconds.")] = 43_200
    session_max_s: Annotated[Positive, _is("And this long after signing in, whatever happens, seconds.")] = 604_800
    status_poll_s: Annotated[
        PositiveSeconds, _is("Pages ask for a drop's status this often, seconds, each spread by as much again.")
    ] = 4.0
    streams_max: Annotated[int, msgspec.Meta(ge=0), _is("Pages that one process sends events to; all others poll.")] = (
        200
    )
    picture_max_bytes: Annotated[Positive, _is("Largest picture of a drop, bytes; beyond it 413.")] = 262_144
    log_format: Annotated[Literal["json", "console"], _is("Log lines as JSON or for a terminal.")] = "json"

    @property
    def fcode_ring(self) -> Keys | None:
        """`fcode_keys`, read; None when there are none, `SetupError` when they cannot be read."""
        if self.fcode_keys is None:
            return None
        try:
            return Keys.parse(self.fcode_keys)
        except BadKeys as fault:
            raise SetupError(f"FLASHSALE_FCODE_KEYS is wrong. {fault}") from None

    @property
    def retry_delays_s(self) -> tuple[float, ...]:
        """`fulfilment_retry_s`, read."""
        return tuple(float(delay) for delay in self.fulfilment_retry_s.split(","))


def load(environ: Mapping[str, str]) -> Settings:
    """Read the settings out of `environ`; an unknown `FLASHSALE_*` name or a wrong value is a `SetupError`."""
    known = {PREFIX + name.upper(): name for name in Settings.__struct_fields__}
    found: dict[str, object] = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX):
            continue
        name = known.get(variable)
        if name is None:
            raise SetupError(f"{variable} is not a setting; the README lists them all.")
        if text == "":
            continue
        found[name] = {"1": "true", "0": "false"}.get(text, text) if name in SWITCHES else text
    try:
        return msgspec.convert(found, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SetupError(f"A setting is wrong: {error}. The README lists names, units and defaults.") from None
