"""Flashsale sells limited quantities: fast, fairly, and never one unit too many.

The way of a request::

    HTTP → web → reservations → eligibility → gate (Lua) → ledger (Postgres, fsync) → 201
                                                 confirm → order + job, one transaction → worker → the shop
                       reconcile: compares gate with ledger, returns what is lost, rebuilds the gate

- `web` reads the request: token, body, drop.
- `reservations.reserve` asks the **gate**: one Lua call decides a list of requests with the
  server's clock. Who is refused is answered at once; losers never touch Postgres.
- Who is granted a unit goes to the **ledger**: one transaction commits a list of grants, fenced
  by the epoch under which each was granted. Only then does the shopper hear "yes".
- `reservations.confirm` makes an order of a hold; the state, the order and its job in the queue are
  one transaction. `orders` delivers it to the shop as a signed webhook, at least once, under its id.
- `reconcile` mends whatever a crash left behind: it expires holds, returns units, voids grants
  that nobody committed, and rebuilds the gate from the ledger when the gate was lost.

The gate is fast and disposable; the ledger is the truth. Words: see `domain`.
"""
