"""Orders a second from the queue to an endpoint on this machine, by one worker that finds them waiting."""

from itertools import pairwise

from loadtests import stores
from loadtests.bench.contest import FIRST_MEMBER
from loadtests.bench.customers import confirm_all, reserve
from loadtests.bench.house import House, Plan, eventually, worker
from loadtests.bench.processes import cpu_s, log_end
from loadtests.bench.receiver import Receiver, listening, new_secret
from loadtests.bench.table import Failed, Row, Target, number
from loadtests.errors import SetupError
from loadtests.stores import Orders

DROP = "delivered"
STALL_S = 20.0
PARTS = 3


async def measure(plan: Plan, house: House) -> list[Row]:
    """One row: from the first order that arrives to the last; and what worker and Postgres spend on each."""
    wanted = plan.size(15_000, 200)
    row = Row(f"delivery of {wanted:,} waiting orders, one worker", "orders/s", target=Target("at least", 1_500))
    try:
        plan.progress(f"{wanted:,} orders for a worker")
        await house.create_drop(DROP, wanted)
        holds = await reserve(house.at.url, house.minter, DROP, range(FIRST_MEMBER, FIRST_MEMBER + wanted))
        await confirm_all(house.at.url, house.minter, holds)
        queue = await house.api.order_queue()
        if queue["waiting"] != wanted:
            raise Failed(f"{wanted:,} reservations were confirmed; the queue says {queue}")
        await _deliver(house, row, wanted)
        plan.progress(f"  {row.samples[0]:,.0f} orders a second")
    except (Failed, SetupError, stores.Unreadable) as failed:
        row.failed = str(failed)
    return [row]


async def _deliver(house: House, row: Row, wanted: int) -> None:
    secret = new_secret()
    receiver = Receiver(secret)
    async with listening(receiver) as url, worker(house, url, secret) as (pid, log):
        try:
            pids = {"worker": pid, "postgres": house.pids["postgres"]}
            await receiver.wait_for(1, STALL_S)
            before = {name: cpu_s(of) for name, of in pids.items()}
            already = len(receiver.arrived)
            await receiver.wait_for(wanted, STALL_S)
            spent = {name: cpu_s(of) - before[name] for name, of in pids.items()}
        except Failed as failed:
            raise Failed(f"{failed}; the worker said: {log_end(log)}") from None
        await _check(house, receiver, wanted)
    times = list(receiver.arrived.values())
    row.samples.append((wanted - 1) / (times[-1] - times[0]))
    row.cpu_us = {name: [used / (wanted - already) * 1e6] for name, used in spent.items()}
    edges = [times[part * (wanted - 1) // PARTS] for part in range(PARTS + 1)]
    parts = [(wanted - 1) / PARTS / (end - begin) for begin, end in pairwise(edges)]
    row.note = f"by thirds {', '.join(map(number, parts))}; {receiver.repeated:,} came twice"


async def _check(house: House, receiver: Receiver, wanted: int) -> None:
    """Orders and jobs end as they should, and what arrived is what the ledger counts as delivered; else `Failed`."""
    url, all_done = house.at.database_url or "", Orders(confirmed=wanted, waiting=0, wrong=0)
    await eventually(
        lambda: stores.orders(url, DROP),
        lambda found: found == all_done or None,
        f"{wanted:,} orders arrived; the ledger has",
    )
    delivered = await stores.delivered_orders(url, DROP)
    if delivered != receiver.arrived.keys():
        raise Failed(f"{len(receiver.arrived):,} orders arrived, not the {len(delivered):,} that were delivered")
    queue = await house.api.order_queue()
    if queue["waiting"] or queue["dead"]:
        raise Failed(f"{wanted:,} orders were delivered; the queue says {queue}")
