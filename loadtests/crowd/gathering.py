"""What all processes send, put together by the one that leads: figures added up, journals kept apart until the end."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from loadtests.crowd.contract import LOST
from loadtests.crowd.guests import Guest, Sale
from loadtests.crowd.tally import Tally
from loadtests.shapes import share

HEARD = "heard.json"


class Gathering:
    """One run of a sale, over `of` processes. Errors: `ValueError` for a parcel of a share that there is not."""

    def __init__(self, run: Path, of: int) -> None:
        self._run = run
        self._of = of
        self.sale = Sale(**json.loads((run / "sale.json").read_text()))
        self._guests: list[dict[str, Any]] = json.loads((run / "guests.json").read_text())
        self.tally = Tally()
        self.examples: list[str] = []
        self.done: set[int] = set()
        self._inside: dict[int, int] = {}
        self._files = [(run / f"journal-{index}.jsonl").open("wb") for index in range(of)]

    @property
    def of(self) -> int:
        """Over how many processes."""
        return self._of

    @property
    def all_done(self) -> bool:
        """Whether every process has sent its last."""
        return len(self.done) == self._of

    def envelope(self, index: int) -> dict[str, Any]:
        """What process `index` needs: the sale and its guests, nobody else's tokens and codes."""
        return {"share": index, "sale": self.sale.to_dict(), "guests": list(share(self._guests, index, self._of))}

    def take(self, parcel: Mapping[str, Any]) -> None:
        """A parcel of a process."""
        index = parcel["share"]
        if not 0 <= index < self._of:
            raise ValueError(f"There is no share {index} of {self._of}.")
        self._files[index].write(parcel["lines"])
        self.tally.merge(parcel["tally"])
        self.examples += parcel["examples"]
        self._inside[index] = parcel["inside"]
        if parcel["done"]:
            self.done.add(index)

    def progress(self, now_s: float) -> str:
        """Where the sale is, in a line. `now_s`: Unix time, as near to the server's as this machine's is."""
        at_s = now_s - self.sale.opens_at_s
        came, verdicts = self.tally.total("came"), self.tally.by("heard", "press")
        held = sum(self.tally.by("heard", name).get("held", 0) for name in self.tally.by("heard"))
        return (
            f"{self.sale.shape} {at_s:+.0f} s: {came:,} of {self.sale.shoppers:,} came, {sum(self._inside.values()):,} "
            f"inside, {held:,} held, {verdicts.get('sold_out', 0):,} sold_out, {self.tally.total('fault'):,} faults, "
            f"{sum(self.tally.by('heard', name).get(LOST, 0) for name in self.tally.by('heard')):,} answers lost"
        )

    def close(self, *, interrupted: bool) -> None:
        """Write everything down for who judges it."""
        for file in self._files:
            file.close()
        document = {
            "sale": self.sale.to_dict(),
            "processes": self._of,
            "done": sorted(self.done),
            "interrupted": interrupted,
            "roles": _counts(self._guests),
            "tally": self.tally.rows(),
            "examples": self.examples,
        }
        (self._run / HEARD).write_text(json.dumps(document))


def _counts(guests: list[dict[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for guest in guests:
        counts[guest["role"]] = counts.get(guest["role"], 0) + 1
    return counts


def opened(envelope: Mapping[str, Any]) -> tuple[int, Sale, list[Guest]]:
    """What an envelope holds: the share's number, the sale, its guests."""
    guests = [Guest(**guest) for guest in envelope["guests"]]
    return envelope["share"], Sale(**envelope["sale"]), guests


def tell(stream: TextIO, line: str, *, last: bool = False) -> None:
    """Show progress: over the line before on a terminal, else one line after the other."""
    if stream.isatty():
        stream.write(f"\r{line}\x1b[K" + ("\n" if last else ""))
    else:
        stream.write(line + "\n")
    stream.flush()
