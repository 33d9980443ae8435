"""What the service counts, in Prometheus' form. Hot counters are increased per batch, never per request."""

from prometheus_client import Counter, Gauge, Histogram

_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

verdicts = Counter("flashsale_verdicts", "Answers of the gate, by word.", ["drop", "verdict"])
reservations = Counter("flashsale_reservations_committed", "Reservations committed to the ledger.", ["drop"])
gate_batch = Histogram("flashsale_gate_batch_requests", "Requests decided by one Lua call.", buckets=_BATCH)
gate_seconds = Histogram("flashsale_gate_call_seconds", "Duration of one decide call.", buckets=_SECONDS)
ledger_batch = Histogram("flashsale_ledger_batch_grants", "Grants committed by one transaction.", buckets=_BATCH)
ledger_seconds = Histogram("flashsale_ledger_commit_seconds", "Duration of one commit.", buckets=_SECONDS)
confirm_batch = Histogram("flashsale_confirm_batch_holds", "Holds confirmed by one transaction.", buckets=_BATCH)
confirm_seconds = Histogram("flashsale_confirm_seconds", "Duration of one transaction of confirms.", buckets=_SECONDS)
deliveries = Counter("flashsale_deliveries", "Tries to deliver an order to the shop, by how they ended.", ["result"])
delivery_seconds = Histogram("flashsale_delivery_seconds", "Duration of one try to deliver.", buckets=_SECONDS)
circuit_open = Gauge(
    "flashsale_fulfilment_circuit_open",
    "The last worker that said so waits (1) for the endpoint.",
    multiprocess_mode="mostrecent",
)
orders_waiting = Gauge("flashsale_orders_waiting", "Orders not delivered yet.", multiprocess_mode="mostrecent")
orders_oldest_s = Gauge(
    "flashsale_orders_oldest_seconds", "How long the oldest of them has waited.", multiprocess_mode="mostrecent"
)
orders_tries_max = Gauge(
    "flashsale_orders_tries_max", "Most tries that one of them has had.", multiprocess_mode="mostrecent"
)
orders_dead = Gauge("flashsale_orders_dead", "Orders given up until they are replayed.", multiprocess_mode="mostrecent")
fcode_failures = Counter("flashsale_fcode_failures", "F-codes that were not honoured, by kind.", ["kind"])
fcode_guessing = Gauge(
    "flashsale_fcode_failures_per_minute", "Failed F-codes of everybody, as one process knows.", multiprocess_mode="max"
)
rebuilds = Counter("flashsale_gate_rebuilds", "Rebuilds of a drop's gate, by how they ended.", ["drop", "result"])
second_lock = Counter(
    "flashsale_second_lock_refusals", "Grants of the gate that the ledger refused.", ["drop", "verdict"]
)
repaired = Counter("flashsale_repairs", "What reconcile mended, by kind.", ["kind"])
unavailable = Counter("flashsale_unavailable", "Requests answered 503, by cause.", ["cause"])
waiting = Gauge(
    "flashsale_waiting_requests", "Requests waiting for gate or ledger.", ["lane"], multiprocess_mode="livesum"
)
