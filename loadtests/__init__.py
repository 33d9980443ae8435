"""Load tests: customers of the HTTP contract, strict ones.

They know the product by its contract alone and import nothing of it (but where the import rules say so, for figures
that no customer could take): `tokens` mints what a customer carries, `client`
presses (in the bytes of `http1`), `api` makes the calls that are not in a hurry, `service` finds or starts the service.
`replay` runs a sale that really took place (`sale`) and tells it (`report`): `verify` holds what was heard against what
the replay knows of it, and `auditor` asks the product's auditor, with the `journal` of all answers, about the rest.
`load` lets a crowd in, by locust (`locustfile`): it arrives in `shapes`, and `crowd` is who comes and what they do.
`bench` measures, beside an empty handler in the same run; `stores` looks whether what it measured really happened.
"""
