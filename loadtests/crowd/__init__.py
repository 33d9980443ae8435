"""The crowd that `loadtests.locustfile` lets in.

    load (command line) → locust → master: staging (sets the sale up) … verdict (audits, writes the report)
                             └→ worker processes: door → visits → book (journal and tally, a second at a time → master)

`guests` are the arrivals with what each carries: all of a sale, drawn before it begins. A `visit` is what one of them
does, by its role (`roles`), held against the `contract`; `book` keeps what was asked and heard, `tally` counts it.
`staging` and `verdict` are programs of their own, because locust's processes have their sockets patched by gevent.
Of these modules only `hands` imports locust.
"""
