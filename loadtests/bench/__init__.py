"""The figures that the product promises, measured beside an empty handler, in one run, with shipped defaults.

    python -m loadtests.bench [--rounds N] [--seconds S] [--only NAME …] [--json FILE] [--keep] [--quick]

The product is a `flashsale up` of its own, with its Valkey and its Postgres (`house`). It is known by its contract, as
to every load test, and looked into from outside: `processes` reads what its processes cost, `memory` asks Valkey for
the size of a key. `run` says what is measured on which service, `table` is what all fill.

Requests a second: `presses` compares them (the load comes from wrk: `wrk`, `press.lua`, `tokenfile`; one run of it is
in `contest`; the empty handler is `empty`, served by `serving`); `ablation` takes one thing away (`redisoff`,
`unsynced`, `standardloop`); `confirms` is one of them and needs holds, which `customers` make; `overload` sells to a
hundred members a unit; `waiting` presses beside a full queue. Stores: `growth` asks the gate alone, through `atgate`,
what a decision costs as a sale grows, `hotrow` the ledger alone how fast one row lets wins through; `deliveries`
empties a queue into a `receiver`, `points` times an import, `memory` weighs the gate, `rebuild` empties it in the
middle of a sale. Of F-codes, `codes` measures the library and forges, `forged` floods the service with that, `minting`
makes a million. `connections` counts bytes on the wire; `sizing` computes from all that what more requests a second
would take; `figures` keeps each version's. Where a module knows more of the product than its contract, the import rules
name it, with the reason.

A missed target is told as missed; only what could not be measured is a failure. In all it takes about 20 minutes on two
cores that have nothing else to do; the table says how long it took.
"""
