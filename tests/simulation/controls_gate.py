"""Gates without one of their safeguards: to show that schedules need it, and find it missing."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal

from flashsale.domain import Drop, Grant
from flashsale.gate import Decisions, Unarmed, keys
from tests.gate.model import Staging
from tests.gate.model_rules import Armed, Codes, Entry, Meta
from tests.simulation.processes import Build
from tests.simulation.stores import GateServer

Finish = Literal["ok", "lost", "superseded"]


class _AnyServer(GateServer):
    """Takes every run of a server for the same one."""

    def __init__(self, *args: Any) -> None:  # noqa: ANN401 -- as GateServer
        super().__init__(*args)
        self._replid = 1


class NoReplid(Build):
    """Scripts do not compare the server's replication id with the one that they were armed on."""

    gate_server = _AnyServer


class _NoSentinels(GateServer):
    def _armed(self, drop_id: str, stripe: int, min_epoch: int = 0) -> Armed | None:
        names = keys.stripe(drop_id, stripe)
        if names.meta in self._keys:
            for name, empty in ((names.ent, {}), (names.pend, {}), (names.codes, Codes())):
                if name not in self._keys:
                    self._keys[name] = empty
        return super()._armed(drop_id, stripe, min_epoch)


class NoSentinels(Build):
    """A key that is missing is taken for one that is empty."""

    gate_server = _NoSentinels


class _UnverifiedRebuild(GateServer):
    def _stage(self, name: str, fields: Sequence[bytes], *others: str) -> bool:
        for each in (name, *others):
            if self._find(each, Staging) is None:
                self._put(each, Staging(self._replid), 60_000)
        return super()._stage(name, fields, *others)

    async def arm_finish(
        self,
        drop: Drop,
        members: int,  # noqa: ARG002 -- that is the point
        free: dict[str, int],
        **named: Any,  # noqa: ANN401 -- as the gate's
    ) -> Finish:
        brought = []
        for name in self._stagings(drop.id, named.get("stripe", 0), drop.epoch):
            staging = self._find(name, Staging) or Staging(self._replid)
            staging.replid = self._replid
            self._put(name, staging, 60_000)
            brought.append(len(staging.fields))
        named["codes"] = brought[1]
        return await super().arm_finish(drop, brought[0], free, **named)


class NoArmVerify(Build):
    """The last step of a rebuild does not count what came, nor look whether all of it came to this server."""

    gate_server = _UnverifiedRebuild


class _ReleasesAnything(GateServer):
    """Gives a unit back whether or not its entry is there."""

    def __init__(self, *args: Any) -> None:  # noqa: ANN401 -- as GateServer
        super().__init__(*args)
        self._units: dict[str, tuple[str, int]] = {}

    async def decide(self, *args: Any, **named: Any) -> Decisions | Unarmed:  # noqa: ANN401 -- as the gate's
        decided = await super().decide(*args, **named)
        if isinstance(decided, Decisions):
            for result in decided.results:
                if isinstance(result, Grant) and not result.elsewhere:
                    self._units[result.id] = (result.allocation, result.quantity)
        return decided

    async def release(
        self,
        drop_id: str,
        ended: Iterable[tuple[str, int]],
        *,
        keep: Collection[str] = (),
        spent: Collection[str] = (),
        stripe: int = 0,
    ) -> int | Unarmed:
        ended = [*ended]
        armed = self._armed(drop_id, stripe)
        for entry_id, member in ended:
            if armed is not None and armed.entry(entry_id, member) is None and entry_id in self._units:
                allocation, quantity = self._units[entry_id]
                armed.meta.left[allocation] += quantity
        return await super().release(drop_id, ended, keep=keep, spent=spent, stripe=stripe)


class NoReleaseById(Build):
    """A release does not look for the entry that it takes away."""

    gate_server = _ReleasesAnything


class _KeepsPending(GateServer):
    async def arm_finish(self, drop: Drop, members: int, free: dict[str, int], **named: Any) -> Finish:  # noqa: ANN401
        stripe = named.get("stripe", 0)
        names = keys.stripe(drop.id, stripe)
        before, pending = self._find(names.meta, Meta), self._find(names.pend, dict)
        kept = [self._entry(drop.id, stripe, *each) for each in pending or ()] if before is not None else []
        answer = await super().arm_finish(drop, members, free, **named)
        meta = self._find(names.meta, Meta)
        entries, waiting = self._find(names.ent, dict), self._find(names.pend, dict)
        if answer == "ok" and meta is not None and entries is not None and waiting is not None:
            for e in kept:
                if e is not None and e.id not in {each.id for each in entries.get(e.member, [])}:
                    entries.setdefault(e.member, []).append(e)
                    waiting[e.id, e.member] = self.clock_ms()
                    meta.left[e.allocation] -= 0 if e.elsewhere else e.quantity
        return answer

    def _entry(self, drop_id: str, stripe: int, entry_id: str, member: int) -> Entry | None:
        entries: dict[int, list[Entry]] = self._find(keys.stripe(drop_id, stripe).ent, dict) or {}
        return next((e for e in entries.get(member, []) if e.id == entry_id), None)


class KeepsPending(Build):
    """A rebuild carries over the grants that were pending in the gate before."""

    gate_server = _KeepsPending


CONTROLS = {
    "replid": NoReplid,
    "sentinel": NoSentinels,
    "arm_verify": NoArmVerify,
    "release_by_id": NoReleaseById,
    "rebuild_wipes_pending": KeepsPending,
}
