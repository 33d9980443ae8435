"""Faults of the ways between: cut, slow, silent, losing replies; and of the shop at the far end."""

from tests.faults.gates import Stage
from tests.faults.hit import Hit, fault
from tests.faults.moments import Moment
from tests.faults.proxy import Proxy

EVERYWHERE: tuple[Stage, ...] = ("single", "sentinel", "cluster")
TO_GATE: tuple[Moment, ...] = ("press", "grant")
TO_LEDGER: tuple[Moment, ...] = ("commit", "committed")


def _cut(hit: Hit, proxies: list[Proxy]) -> None:
    cut = sum(proxy.cut(clients_only=True) for proxy in proxies)
    hit.details.append(f"{cut} connections")


@fault("gate cut", "gate", stages=EVERYWHERE)
async def gate_cut(hit: Hit) -> None:
    """All connections to the gate are reset, and for a while there may be no new ones."""
    await hit.moment(*TO_GATE)
    away = hit.world.stage == "single" and hit.random.random() < 0.5
    for proxy in hit.world.gates.proxies:
        proxy.closed = away
    _cut(hit, hit.world.gates.proxies)
    try:
        if away:
            await hit.hold(0.5, 4.0)
    finally:
        _heal(hit.world.gates.proxies)


@fault("gate late", "gate")
async def gate_late(hit: Hit) -> None:
    """What goes to the gate, or comes from it, is late: by milliseconds, or by more than anyone waits."""
    await hit.moment(*TO_GATE)
    await _late(hit, hit.world.gates.proxies)


@fault("gate silent", "gate")
async def gate_silent(hit: Hit) -> None:
    """Nothing arrives, in neither direction; then everything does, late."""
    await hit.moment(*TO_GATE)
    await _silent(hit, hit.world.gates.proxies)


@fault("gate replies lost", "gate", stages=EVERYWHERE)
async def gate_replies_lost(hit: Hit) -> None:
    """The gate decides, and nobody hears of it."""
    await hit.moment("press")
    await _lossy(hit, hit.world.gates.proxies)


@fault("ledger cut", "ledger", stages=EVERYWHERE)
async def ledger_cut(hit: Hit) -> None:
    """All connections to the ledger are reset, and for a while there may be no new ones."""
    await hit.moment(*TO_LEDGER)
    hit.world.ledger.closed = away = hit.random.random() < 0.5
    _cut(hit, [hit.world.ledger])
    try:
        if away:
            await hit.hold(0.5, 5.0)
    finally:
        _heal([hit.world.ledger])


@fault("ledger late", "ledger")
async def ledger_late(hit: Hit) -> None:
    """What goes to the ledger, or comes from it, is late."""
    await hit.moment(*TO_LEDGER)
    await _late(hit, [hit.world.ledger])


@fault("ledger silent", "ledger")
async def ledger_silent(hit: Hit) -> None:
    """Nothing arrives, in neither direction; then everything does, late."""
    await hit.moment(*TO_LEDGER)
    await _silent(hit, [hit.world.ledger])


@fault("ledger replies lost", "ledger", stages=EVERYWHERE)
async def ledger_replies_lost(hit: Hit) -> None:
    """The ledger has committed, and nobody hears of it."""
    await hit.moment(*TO_LEDGER)
    await _lossy(hit, [hit.world.ledger])


@fault("shoppers cut", "door")
async def shoppers_cut(hit: Hit) -> None:
    """All shoppers' connections are reset: what they asked for may have happened."""
    await hit.moment("press", "grant", "commit", "committed")
    _cut(hit, [hit.world.door])


@fault("shoppers' answers lost", "door")
async def shoppers_answers_lost(hit: Hit) -> None:
    """Answers are lost on the way back to the shoppers."""
    await hit.moment("press", "committed")
    await _lossy(hit, [hit.world.door])


async def _late(hit: Hit, proxies: list[Proxy]) -> None:
    requests_s, replies_s = hit.random.choice([(0.02, 0.02), (0.3, 0.0), (0.0, 0.6), (1.5, 1.5), (0.0, 6.0)])
    hit.details.append(f"{requests_s:g} s there, {replies_s:g} s back")
    for proxy in proxies:
        proxy.requests_late_s, proxy.replies_late_s = requests_s, replies_s
    try:
        await hit.hold(1.5, 6.0)
    finally:
        _heal(proxies)


async def _silent(hit: Hit, proxies: list[Proxy]) -> None:
    for proxy in proxies:
        proxy.silence()
    try:
        await hit.hold(1.0, 8.0)
    finally:
        _heal(proxies)


async def _lossy(hit: Hit, proxies: list[Proxy]) -> None:
    replies = hit.random.choice([1, 2, 5, 20, 100])
    before = sum(proxy.lost for proxy in proxies)
    for proxy in proxies:
        proxy.lose_replies(replies)
    try:
        await hit.hold(0.3, 2.0)
    finally:
        _heal(proxies)
    hit.details.append(f"{sum(proxy.lost for proxy in proxies) - before} replies")


def _heal(proxies: list[Proxy]) -> None:
    for proxy in proxies:
        proxy.heal()


@fault("shop down", "shop")
async def shop_down(hit: Hit) -> None:
    """The shop's system takes no order."""
    hit.world.shop.mood = "down"
    await _moody(hit)


@fault("shop slow", "shop")
async def shop_slow(hit: Hit) -> None:
    """It takes orders, and says so when nobody waits any more."""
    hit.world.shop.mood = "slow"
    await _moody(hit)


@fault("shop failing", "shop")
async def shop_failing(hit: Hit) -> None:
    """It answers with every kind of failure."""
    hit.world.shop.mood = "failing"
    await _moody(hit)


@fault("shop answers twice", "shop")
async def shop_answers_twice(hit: Hit) -> None:
    """Each of its answers comes with another one that contradicts it."""
    hit.world.shop.mood = "twice"
    await _moody(hit)


@fault("shop forgetful", "shop")
async def shop_forgetful(hit: Hit) -> None:
    """It takes orders, and the connection breaks before it can say so."""
    hit.world.shop.mood = "forgetful"
    await _moody(hit)


async def _moody(hit: Hit) -> None:
    hit.struck()
    try:
        await hit.hold(2.0, 6.0)
    finally:
        hit.world.shop.mood = "good"
