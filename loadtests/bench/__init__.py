"""The figures that the product promises, measured beside an empty handler, in one run, with shipped defaults.

    python -m loadtests.bench [--rounds N] [--seconds S] [--only NAME …] [--json FILE] [--quick]

The product is a `flashsale up` of its own, with its Valkey and its Postgres (`house`). It is known by its contract
alone, as to every load test, and looked into from outside: `processes` reads what its processes cost, `memory` asks
Valkey for the size of a key. `presses` compares requests a second (the load comes from wrk: `wrk`, `press.lua`,
`tokenfile`; one run of it is in `contest`; the empty handler is `empty`), `confirms` is one of them and needs holds,
which `customers` make, `waiting` presses beside a full queue, `deliveries` empties one into a `receiver`, `points`
times an import, `memory` weighs the gate, `rebuild` empties it in the middle of a sale; `table` is what they fill.
Of F-codes, `codes` measures the library and forges, `forged` floods the service with that, `minting` makes a million.
A missed target is told as missed; only what could not be measured is a failure.
"""
