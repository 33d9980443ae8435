"""What a load test was asked to do, as its programs hand it to each other: a file that nobody else may read."""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "LOADTEST_OPTIONS"
"""Where locust's processes find the file. Not `FLASHSALE_…`: those are the service's settings, and no others."""


@dataclass(frozen=True)
class Options:
    """One load test. `folder`: where its runs keep what they need; `out`: where the report goes."""

    url: str
    secret: str
    operator_token: str
    tokens: str
    redis_url: str
    database_url: str
    shape: str
    shoppers: int
    units: int
    seconds: float
    hold_seconds: int
    lead_seconds: float
    patience_seconds: float
    settle_seconds: float
    seed: int
    processes: int
    page: bool
    folder: str
    out: str

    def write(self, path: Path) -> None:
        """Write the file. It holds the secret."""
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(dataclasses.asdict(self), file)

    @classmethod
    def read(cls, path: Path) -> "Options":
        """What `write` wrote."""
        return cls(**json.loads(path.read_text()))
