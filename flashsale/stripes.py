"""One drop over several stripes of the gate, as one process sees it: claims at home, units from wherever one is left.

Each stripe has keys of its own in a slot of its own, so that the primaries of a cluster share the rush of one drop. A
member has a **home** among them (`domain.home_stripe`), which alone knows what the member has: "the same one again" and
the limit are decided there, in the same call as ever. The free units are spread evenly, and as long as home has some,
nothing else is asked. When it has too few,

- **nobody is told `sold_out` by home alone.** It holds when every other stripe was seen with too few as well, by a call
  that began after the press was submitted. A look is for all claims of a batch, and the next call to the other stripe
  answers it, whatever that is for: under load it costs no call at all, and after the sell-out the stripes refuse side
  by side as they sold.
- **where another has enough**, the claim is written at home without a unit, and the unit is fetched from there
  (`take`). The claim comes first: two units for one member would pass the limit, a claim without a unit harms nobody.
  Both go under one id and one epoch, which the stripe compares: of another epoch, nothing is taken. When nothing could
  be had, the claim goes, and home is asked again, with what was learnt meanwhile.

What other stripes have left is remembered as they last told it (any reply of theirs tells), less what is being fetched
from there. That is a hint and decides nothing: a hint too high costs a claim that has to go again, one too low a look.
A call promises no more units than there are hinted, or at the end of a sale thousands would fetch the last ten.

**A claim whose unit is being fetched** is heard of by its own member, who pressed twice. It is no answer yet: it may
come to nothing. So the second press waits a little, asks again, and is told to repeat when that takes too long. Who
leaves such a claim behind (a process that died, a reply that was lost) leaves it to the janitor, like any grant that
nobody committed: home's and the other stripe's are voided under one id, in either order.

**F-codes** are spent on stripe 0, where their units are. Their batches, and whose they are, are known to every stripe,
so that home can judge in the contract's order; only whether one is spent is not, so that is looked up first for
who is at home elsewhere: then it comes before the member's limit there, too.

Two edges: several units in one reservation come from one stripe, so that two single units left on two stripes are
sold out to who wants a pair; and who names no allocation may get one further down the list in the moment in which only
another stripe, not heard of since, has the last units of the first.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

import msgspec

from flashsale import metrics
from flashsale.combining import Lane
from flashsale.domain import CODES_STRIPE, SOLD_OUT, Claim, Decision, Drop, Fcode, Grant, Refusal, Verdict, home_stripe
from flashsale.errors import Unavailable
from flashsale.gate import UNARMED, Fetched, Gate, Unarmed
from flashsale.looks import Dry, Seen, Turn, are_dry

SETTLED_PER_CALL_MAX: Final = 1_000
BUSY_TRIES_MAX: Final = 5
BUSY_PAUSE_S: Final = 0.25
"""Before a press is asked again whose member's claim is being served: first a fifth of that, in the end all of it."""


class Press(msgspec.Struct):
    """A claim at its home. `spent`: its code was seen spent."""

    claim: Claim
    spent: bool = False


class Look(msgspec.Struct, frozen=True):
    """What a stripe has left; and whether a code is spent there."""

    code: int | None = None


class Back(msgspec.Struct, frozen=True):
    """A claim that found no unit: it goes again."""

    grant: Grant


class Decided(msgspec.Struct, frozen=True):
    """What home said of a press, and in which turn. `short`: these allocations refused it for want of units alone."""

    decision: Decision
    epoch: int
    short: tuple[str, ...]
    turn: Turn


Item = Press | Grant | Look | Back
"""A `Grant` is one whose unit is to be fetched from the stripe that is asked."""
Told = Decided | Fetched | Seen | int | Unarmed
Settle = Callable[[int], list[Grant]]


_LOOK: Final = Look()


def _pass_on(look: "asyncio.Future[Seen | Unarmed]", done: "asyncio.Future[Told]") -> None:
    """The look's own place in the lane has been reached; by then an earlier call may have answered."""
    fault = None if done.cancelled() else done.exception()
    if look.done():
        return
    if fault is not None:
        look.set_exception(fault)
    else:
        told = UNARMED if done.cancelled() else done.result()
        look.set_result(told if isinstance(told, Seen) else UNARMED)


def _heard(done: "asyncio.Future[Any]") -> None:
    if not done.cancelled():
        done.exception()  # seen, also when nobody waits for it


class Stripes:
    """The way of a striped drop's claims through this process.

    `drop()` is the drop as it is known now, `min_epoch()` the least epoch of a gate that may answer, `heard_epoch` is
    told of later ones; `grants_max()` limits a call's grants (None: it does not); `lane` makes a lane of calls to one
    stripe. `heard(now_ms)` hears the gate's clock, `told(decisions)` what was answered. `now` is a monotonic clock in
    seconds; no press is asked again when it is `patience_s` old.
    """

    def __init__(
        self,
        gate: Gate,
        stripes: int,
        *,
        drop: Callable[[], Drop],
        min_epoch: Callable[[], int],
        heard_epoch: Callable[[int], None],
        grants_max: Callable[[], int | None],
        lane: Callable[[Callable[[list[Item]], Coroutine[Any, Any, list[Told]]]], Lane[Item, Told]],
        heard: Callable[[int], None],
        told: Callable[[list[Decision]], None],
        now: Callable[[], float],
        jitter: Callable[[], float],
        patience_s: float,
    ) -> None:
        self._gate = gate
        self._drop = drop
        self._min_epoch = min_epoch
        self._heard_epoch = heard_epoch
        self._grants_max = grants_max
        self._heard = heard
        self._told = told
        self._now = now
        self._jitter = jitter
        self._patience_s = patience_s
        self._answers: list[Decision] = []
        self._seen: list[Seen | None] = [None] * stripes
        """By the latest call; None: it was not armed."""
        self._left: list[dict[str, int]] = [{} for _ in range(stripes)]
        self._fetching: list[Counter[str]] = [Counter() for _ in range(stripes)]
        self._settled: list[list[Grant]] = [[] for _ in range(stripes)]
        self._looking: list[list[asyncio.Future[Seen | Unarmed]]] = [[] for _ in range(stripes)]
        self._lanes = [lane(self._call_of(stripe)) for stripe in range(stripes)]

    @property
    def depth(self) -> int:
        """How many wait for a call."""
        return sum(lane.depth for lane in self._lanes)

    def settle(self, grant: Grant) -> None:
        """The grant is in the ledger: home, and the stripe of its unit, may forget that it was pending.

        Where a unit was fetched, home hears of it at once: until then its member would be asked to wait.
        """
        self._settled[grant.stripe].append(grant)
        if grant.elsewhere and grant.unit is not None:
            self._settled[grant.unit].append(grant)
            self._later(grant.stripe, _LOOK)

    async def submit(self, claim: Claim) -> Decision | Unarmed:
        """A decision on `claim`: a refusal that holds for all stripes, or a grant that has its unit.

        (Here and below, `type(…) is …` is four times as fast as isinstance() with these types, when it is another one.)
        """
        home, press = home_stripe(claim.member, len(self._lanes)), Press(claim)
        if claim.code is not None and home != CODES_STRIPE:
            seen = await self._lanes[CODES_STRIPE].submit(Look(claim.code))
            if not isinstance(seen, Seen):
                return UNARMED
            press.spent = seen.spent
        lane, until = self._lanes[home], self._now() + self._patience_s
        busy = BUSY_TRIES_MAX
        while busy:
            decided = await lane.submit(press)
            if type(decided) is not Decided:
                return UNARMED
            found: Decision | Unarmed | None = decided.decision
            if decided.short:
                found = await self._short(press, decided, home)
            elif type(found) is Grant and found.elsewhere and found.pending:
                if found.again:
                    await asyncio.sleep(BUSY_PAUSE_S / busy * (0.5 + self._jitter()))
                    busy -= 1
                    continue
                found = await self._fetch(found)
            if found is not None:
                return self._told_of(found)
            if self._now() > until:
                break
        raise Unavailable("Another request of yours is being served, or units change hands; repeat the same request.")

    def _told_of(self, answer: Decision | Unarmed) -> Decision | Unarmed:
        """What is answered is told of together, afterwards."""
        if answer is not UNARMED:
            if not self._answers:
                asyncio.get_running_loop().call_soon(self._tell)
            self._answers.append(answer)
        return answer

    def _tell(self) -> None:
        answers, self._answers = self._answers, []
        self._told(answers)

    async def _short(self, press: Press, decided: Decided, home: int) -> Decision | Unarmed | None:
        """What home said, if no other stripe has what it was short of. None: one has; home may be asked again."""
        claim = press.claim
        if claim.code is None:
            await decided.turn.answered()
            dry = decided.turn.others_are_dry(decided.epoch, decided.short, claim.quantity)
        else:
            dry = home == CODES_STRIPE or await self._code_is_dry(press, claim.code, decided)
        if dry is True:
            return decided.decision
        if dry is False:
            return None
        self._heard_epoch(dry if isinstance(dry, int) else decided.epoch)
        return UNARMED

    async def _code_is_dry(self, press: Press, code: int, decided: Decided) -> Dry:
        """Whether the stripe that has all units for F-codes has none left for who shows a code that is not spent.

        The code is looked up again there: the last unit may have gone to who showed this very code.
        """
        seen = await self._lanes[CODES_STRIPE].submit(Look(code))
        told = seen if isinstance(seen, Seen) else UNARMED
        dry = are_dry([told], decided.epoch, decided.short, press.claim.quantity)
        press.spent = isinstance(seen, Seen) and seen.spent
        return False if dry is True and press.spent else dry

    def _look_around(self, home: int) -> list[asyncio.Future[Seen | Unarmed]]:
        """A look at each other stripe. It need not wait its turn there: any call will do that begins after this."""
        looks = []
        for stripe, lane in enumerate(self._lanes):
            if stripe != home:
                look: asyncio.Future[Seen | Unarmed] = asyncio.get_running_loop().create_future()
                self._looking[stripe].append(look)
                lane.submit(_LOOK).add_done_callback(partial(_pass_on, look))
                looks.append(look)
        return looks

    def _later(self, stripe: int, item: Item) -> None:
        """Let a stripe hear of something; nobody waits for it."""
        with contextlib.suppress(Unavailable):
            self._lanes[stripe].submit(item).add_done_callback(_heard)

    async def _fetch(self, claim: Grant) -> Decision | Unarmed | None:
        """The unit for a claim that stands at home; without one the claim goes. None: home may be asked again."""
        tries = 0
        while (stripe := self._richest(claim)) is not None and tries < len(self._lanes):
            tries += 1
            self._fetching[stripe][claim.allocation] += claim.quantity
            try:
                answer = await self._lanes[stripe].submit(claim)
            except Unavailable:  # perhaps it was fetched: it is nobody's, and the janitor finds it there
                self._later(claim.stripe, Back(claim))
                raise
            finally:
                self._fetching[stripe][claim.allocation] -= claim.quantity
            if answer is Fetched.TOOK:
                return msgspec.structs.replace(claim, unit=stripe)
            if answer is not Fetched.SOLD_OUT:
                await self._lanes[claim.stripe].submit(Back(claim))
                return Refusal(Verdict.FCODE_SPENT) if answer is Fetched.FCODE_SPENT else UNARMED
        await self._lanes[claim.stripe].submit(Back(claim))
        return None

    def _richest(self, claim: Grant) -> int | None:
        """The stripe that has most left of what is claimed, as far as is known; None: none has enough."""
        name, best, most = claim.allocation, None, claim.quantity - 1
        for stripe, left in enumerate(self._left):
            free = left.get(name, 0) - self._fetching[stripe][name]
            if stripe != claim.stripe and free > most:
                best, most = stripe, free
        return best

    def _elsewhere(self, home: int) -> dict[str, tuple[int, int]]:
        """By allocation, how many units the others may have, and the most of one of them."""
        found: dict[str, tuple[int, int]] = {}
        for stripe, left in enumerate(self._left):
            if stripe == home:
                continue
            for name, units in left.items():
                free = units - self._fetching[stripe][name]
                if free > 0:
                    total, most = found.get(name, (0, 0))
                    found[name] = total + free, max(most, free)
        return found

    def _call_of(self, stripe: int) -> Callable[[list[Item]], Coroutine[Any, Any, list[Told]]]:
        async def call(items: list[Item]) -> list[Told]:
            """Whatever is to be asked of one stripe; what gives units back comes first, what claims them last."""
            answers: dict[int, Told] = {}
            presses: list[tuple[int, Press]] = []
            grants: list[tuple[int, Grant]] = []
            looks: list[tuple[int, Look]] = []
            backs: list[tuple[int, Back]] = []
            for n, item in enumerate(items):
                kind = type(item)
                where: list[Any] = (
                    presses if kind is Press else looks if kind is Look else grants if kind is Grant else backs
                )
                where.append((n, item))
            if backs:
                ids = [(back.grant.id, back.grant.member) for _, back in backs]
                epoch = await self._gate.release(self._drop().id, ids, stripe=stripe)
                answers.update((n, epoch) for n, _ in backs)
            looking: list[asyncio.Future[Seen | Unarmed]] = []
            if presses or grants or looks:  # what only gives units back tells nothing of what is left
                looking, self._looking[stripe] = self._looking[stripe], []
            if grants or (looks and not presses) or any(look.code is not None for _, look in looks):
                await self._take(stripe, grants, looks, answers)
            if presses:
                await self._decide(stripe, presses, looks, answers)
            seen = self._seen[stripe]
            for look in looking:
                if seen is not None and not look.done():
                    look.set_result(seen)
            return [answers[n] for n in range(len(items))]

        return call

    async def _take(
        self, stripe: int, grants: list[tuple[int, Grant]], looks: list[tuple[int, Look]], answers: dict[int, Told]
    ) -> None:
        codes = [look.code for _, look in looks if look.code is not None]
        asked = [grant for _, grant in grants]
        taken = await self._gate.take(
            self._drop().id, self._min_epoch(), asked, self._settled_of(stripe), codes=codes, stripe=stripe
        )
        if isinstance(taken, Unarmed):
            self._seen[stripe] = None
            answers.update((n, UNARMED) for n, _ in (*grants, *looks))
            return
        self._left[stripe] = taken.left
        seen = self._seen[stripe] = Seen(taken.epoch, taken.left)
        answers.update((n, result) for (n, _), result in zip(grants, taken.results, strict=True))
        spent = dict(zip(codes, taken.spent, strict=True))
        for n, look in looks:
            answers[n] = seen if look.code is None else Seen(taken.epoch, taken.left, spent[look.code])

    async def _decide(
        self, stripe: int, presses: list[tuple[int, Press]], looks: list[tuple[int, Look]], answers: dict[int, Told]
    ) -> None:
        drop, turn = self._drop(), Turn(partial(self._look_around, stripe))
        claims = [press.claim for _, press in presses]
        if self._is_short(drop, stripe):
            turn.ask()
        with metrics.gate_seconds.time():
            decided = await self._gate.decide(
                drop,
                self._min_epoch(),
                claims,
                self._settled_of(stripe),
                grants_max=self._grants_max(),
                stripe=stripe,
                elsewhere=self._elsewhere(stripe),
                spent={at for at, (_, press) in enumerate(presses) if press.spent},
            )
        plain = [(n, look) for n, look in looks if look.code is None]
        if isinstance(decided, Unarmed):
            self._seen[stripe] = None
            answers.update((n, UNARMED) for n, _ in (*presses, *plain))
            return
        self._heard(decided.now_ms)
        self._left[stripe] = decided.left
        seen = self._seen[stripe] = Seen(decided.epoch, decided.left)
        answers.update((n, seen) for n, _ in plain)
        public = tuple(a.id for a in drop.allocations if not isinstance(a.access, Fcode))
        for at, ((n, press), result) in enumerate(zip(presses, decided.results, strict=True)):
            short = decided.short.get(at, ())
            if result == SOLD_OUT and not short:
                short = public if press.claim.allocation is None else (press.claim.allocation,)
            answers[n] = Decided(result, decided.epoch, short, turn)

    def _settled_of(self, stripe: int) -> list[Grant]:
        settled, self._settled[stripe] = (
            self._settled[stripe][:SETTLED_PER_CALL_MAX],
            self._settled[stripe][SETTLED_PER_CALL_MAX:],
        )
        return settled

    def _is_short(self, drop: Drop, stripe: int) -> bool:
        """Whether claims are likely to be refused at home: then the others are looked at in the same moment."""
        left = self._left[stripe]
        return any(left.get(a.id) == 0 for a in drop.allocations if not isinstance(a.access, Fcode))
