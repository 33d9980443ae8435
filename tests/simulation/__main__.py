"""The product's own flow, over model stores, under faults that a seed decides: thousands of schedules in seconds.

`python -m tests.simulation 17` tells the story of schedule 17, `python -m tests.simulation 0 10000` runs that range
(`--jobs 2`: on two cores) and exits with 1 when an invariant was broken, `--off RULE` does either without a safeguard.

What is real: `Reservations` with its combining lanes, `Operations`, `Batches`, `Arming`, `Reconciler`, `Catalog`,
`Deliveries`, their circuits and time-outs, put together in `processes` as the composition roots do. What is a model:
the gate and the ledger, proved equal to the Lua and to the SQL by tests of their own; the order queue's table; HTTP and
the shop's endpoint. Time is the loop's, and nobody waits for it.

A schedule has a storm of a few seconds and a calm. In the storm members press (twice, from two processes, with and
without keys, again after a 503), confirm, pay, cancel, let holds lapse; operators pause, resize, move windows, revoke
codes, take units back; calls to the stores are late, fail before their effect or after it, or have it seconds later,
when nobody waits any more; and faults strike, of the kinds that `plan` draws: gates that are emptied, lose a key, come
back empty or older or as a replica that lagged while some processes still reach the old primary, stand still, are full;
a ledger that is away, stands still, commits slowly, has a locked row or a full disk; clocks that step; processes that
are killed or stopped for longer than a hold; a shop that refuses, dawdles, lies, or says that it is gone.

In the calm everything must be at rest within 30 s, and members who come late must be able to buy all that is left. What
must hold at every moment is in `checker` and `gatecheck`, what must hold in the end in `rest`; none of them asks the
product. That they would notice, `test_controls` shows: every safeguard off is found, by a seed that `seeds` names.

A drop has one, two or three stripes, each on a server of its own, and a fault strikes one of these.

Not here: a Postgres standby, several drops at once, and what the models leave out. Those are for the real fault runs.
"""

import sys

from tests.simulation.runner import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
