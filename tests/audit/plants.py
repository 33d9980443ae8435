"""Contradictions, each planted for one check: what is done to the stores or the journal, and what the auditor says."""

from typing import Final

from tests.audit.planting import (
    HOUR_S,
    NEW,
    Plant,
    again,
    also,
    both,
    command,
    commands,
    edit,
    entry,
    heard_when_won,
    more,
    of,
    sold_out_for_long,
    without,
    won,
    won_in_the_pause,
)

GONE = commands(command("HDEL", "{ent}", "14"), command("HINCRBY", "{meta}", "n:public", 1))
SUMS = "I1 what is left and what is held make the quantity"
SAME = "I1 gate and ledger have the same reservations"
COUNTER = "I2 the ledger's counter is what is held, and no more than there is"
EVER = "I2 no more was held than there was, at any instant"
KEPT = "I3 what was acknowledged is in the ledger, and its state has a cause"
TOLD = "I3 every answer tells the reservation as the ledger has it"
LIMIT = "I5 no member over the limit, at any instant"
ONCE = "I6 a code is spent once, by its member, while it is valid"
BITS = "I6 the gate knows what is spent, revoked and whose it is"
HONOURED = "I6 a code that is valid is honoured"
LIST = "I7 the gate lets in whom the snapshot lets in"
LET_IN = "I7 who has a unit was let in by the snapshot"
NOT_LET_IN = "I7 who was not let in is not in the snapshot"
KEYS = "I8 a key names one reservation of its member"
ANSWERS = "I8 every answer names the reservation of its member, key and request"
STATES = "I9 a hold ends once: confirmed in time, or expired when it was due"
MONEY = "I9 no money is kept silently"
ORDER = "I9 what was heard of a hold follows in order, and nothing was confirmed after its end"
RULES = "I10 the gate has the limits, windows and rules of the ledger"
OPENING = "I10 nothing is held before its opening"
CLOSE = "I10 nothing is held after the close"
WORDS = "I11 no sold_out before the opening, no not_open after it"
ORDERS = "I13 one order for each confirmation and each return, and a job for each that waits"
RECEIVED = "I13 what counts as delivered was received under its id"
PAUSE = "I14 nothing is held between a pause and the resumption, by the log"
PAUSE_HEARD = "I14 no 201 between an acknowledged pause and the request to resume"
ACCOUNT = "I15 the audit log accounts for what the tables say"
WRITTEN = "I15 every acknowledged act is in the audit log"
REST = "I16 nothing is left under way"
QUEUE = "I16 no order is passed over by the queue"
UNSOLD = "I4 no sold_out for longer than 0.1 s while units lie free and unsold"


PLANTS: Final = [
    Plant("a unit too many", SUMS, "public: 1 left and 5 in entries",
          redis=command("HINCRBY", "{meta}", "n:public", 1)),
    Plant("a unit lost", SUMS, "members: 0 left and 2 in", redis=command("HINCRBY", "{meta}", "n:members", -1)),
    Plant("an allocation forgotten", SUMS, "how many units of later", redis=command("HDEL", "{meta}", "n:later")),
    Plant("an entry lost", SAME, "the gate has no entry of it", redis=GONE),
    Plant("an entry of nobody", SAME, f"{NEW} of member 99 in later is an entry of the gate: the ledger does not know",
          redis=commands(command("HSET", "{ent}", "99", f"{NEW}\tlater\t1\t1\t\tlater|1\t"),
                         command("HINCRBY", "{meta}", "n:later", -1))),
    Plant("an entry that is none", SAME, "member 14 has the entry 'rubbish', which is none",
          redis=commands(command("HSET", "{ent}", "14", "rubbish"), command("HINCRBY", "{meta}", "n:public", 1)),
          ),
    Plant("an entry twice", SAME, "the gate has 2 entries of it",
          redis=commands(entry(15, lambda lines: f"{lines}\n{lines}"), command("HINCRBY", "{meta}", "n:public", -1))),
    Plant("another slot", SAME, "slot is 2 in the gate and 1 in the ledger",
          redis=entry(14, lambda line: line.replace("\t1\t1\t", "\t1\t2\t"))),
    Plant("another key", SAME, "key is 'k9' in the gate and 'k2' in the ledger",
          redis=entry(2, lambda line: line.replace("\tk2\t", "\tk9\t"))),
    Plant("a unit that never came back", SAME, "is cancelled since .* in the ledger, and its unit never came back",
          sql="{less} UPDATE reservations SET state = 'cancelled', ended_at = now(), gate_released = true"
          " WHERE id = '{r14}'", also=also("I3")),
    Plant("a place that a return gave up", SAME, "is returned in the ledger, and the gate has no entry of it",
          redis=command("HDEL", "{ent}", "5")),
    Plant("a counter too high", COUNTER, "public: 6 counted as taken, and 5 are",
          sql="UPDATE allocations SET taken = taken + 1 WHERE id = 'public'"),
    Plant("more than there is", COUNTER, "public: 5 of 4 units are held",
          sql="UPDATE allocations SET quantity = 4 WHERE id = 'public'", also=also("I1", "I15")),
    Plant("more than there was", EVER, "public at .*: 5 of 4 units were held when",
          sql="UPDATE audit SET at = (SELECT created_at + interval '1 ms' FROM reservations WHERE id = '{r20}')"
          " WHERE action = 'allocation.edit'", journal=heard_when_won("resize", 20)),
    Plant("a reservation lost", KEPT, "of member 14 in public was acknowledged at .*, and the ledger has no such",
          sql="{less} DELETE FROM reservations WHERE id = '{r14}'", redis=GONE),
    Plant("a reservation void", KEPT, "is void in the ledger, and was acknowledged",
          sql="{less} UPDATE reservations SET state = 'void', ended_at = now(), gate_released = true"
          " WHERE id = '{r14}'", redis=GONE),
    Plant("a confirmation lost", KEPT, "is held in the ledger, and was said to be confirmed at",
          journal=more("confirm", of="r14", member=14, state="confirmed")),
    Plant("a cancellation lost", KEPT, "is held in the ledger, and was said to be cancelled at",
          journal=more("cancel", of="r14", member=14, state="cancelled")),
    Plant("cancelled by nobody", KEPT, "is cancelled in the ledger, and nobody asked",
          journal=without(of("cancel", "r3"))),
    Plant("confirmed by nobody", KEPT, "is confirmed in the ledger, and nobody asked",
          journal=without(of("confirm", "r10"))),
    Plant("told another allocation", TOLD, "was said to be in later", journal=edit(won(14), **{"in": "later"})),
    Plant("asked for another one", TOLD, "was given to who asked for later",
          journal=edit(won(14), allocation="later")),
    Plant("told another end", TOLD, "was said to end at 2001-", journal=edit(won(14), expires_at=1e9)),
    Plant("told another order", TOLD, f"was said to be order {NEW}", journal=edit(of("confirm", "r1"), order=NEW)),
    Plant("told of two units", TOLD, "has 1 units, and 2 were asked for", journal=edit(won(14), quantity=2)),
    Plant("sold out, and it was not", UNSOLD, "member 50 heard sold_out for members at .*, as others since .*; units",
          journal=sold_out_for_long, options={"unsold_s": -899.9}),
    Plant("three of two", LIMIT, "3 units, 2 allowed", sql="UPDATE reservations SET member = 1 WHERE id = '{r14}'",
          also=also("I1", "I8")),
    Plant("two in one slot", LIMIT, "has slot 1, as another of that member has",
          sql="UPDATE reservations SET slot = 1 WHERE id = '{r1b}'", also=also("I1")),
    Plant("a slot too high", LIMIT, "has 1 units and slot 3, 2 allowed",
          sql="UPDATE reservations SET slot = 3 WHERE id = '{r14}'", also=also("I1")),
    Plant("a code twice", ONCE, "is spent by .* of member 8", also=also("I1", "I8"),
          sql="UPDATE reservations SET fcode = {code0} WHERE id = '{r10}'"),
    Plant("a code of nobody", ONCE, "was never minted for this drop",
          sql="UPDATE fcode_batches SET count = 1 WHERE id = {batch0}"),
    Plant("a code of somebody else", ONCE, "belongs to member 12",
          sql="UPDATE fcode_bound SET member = 12 WHERE member = 11"),
    Plant("a code for elsewhere", ONCE, "is for public", also=also("I15"),
          sql="UPDATE fcode_batches SET allocation_id = 'public' WHERE id = {batch0};"
          "UPDATE audit SET detail = detail - 'batch' WHERE action = 'fcodes.mint' AND detail ->> 'count' = '4'"),
    Plant("a code that was over", ONCE, "was valid until",
          sql="UPDATE fcode_batches SET expires_at = created_at - interval '1 s' WHERE id = {batch0}"),
    Plant("a code that was revoked", ONCE, "code 0 of batch .* was revoked at", also=also("I15"),
          sql="INSERT INTO fcode_revoked SELECT {batch0}, 0, created_at - interval '1 ms' FROM reservations"
          " WHERE id = '{r8}'"),
    Plant("a spent code is free", BITS, "free in the gate, and spent by",
          redis=command("HDEL", "{codes}", "s:{batch0}:0")),
    Plant("a free code is spent", BITS, "code 1000 of batch .* is spent in the gate, and no reservation names it",
          redis=command("HSET", "{codes}", "s:{batch0}:1", b"\x01")),
    Plant("revoked in the gate only", BITS, "code 7 of batch .* is revoked in the gate, and not in the ledger",
          redis=command("HSET", "{codes}", "r:{batch0}:0", b"\x84")),
    Plant("a batch forgotten", BITS, "is None in the gate", redis=command("HDEL", "{codes}", "b:{batch0}")),
    Plant("owners mixed up", BITS, "whose the codes of batch .* from serial 0 on are, differs",
          redis=command("HSET", "{bound}", "0", b"\0" * 7 + b"\x0d" + b"\0" * 7 + b"\x0b")),
    Plant("a valid code called invalid", HONOURED, "showed code 3 of batch .* heard fcode_invalid: it was valid",
          journal=more("reserve", 20.0, code_at=3, member=51, status=422, code="fcode_invalid")),
    Plant("a free code called spent", HONOURED, "heard fcode_spent, as others since .*: nobody had spent it",
          journal=both(more("reserve", code_at=3, member=51, status=409, code="fcode_spent"),
                       more("reserve", HOUR_S, code_at=3, member=52, status=409, code="fcode_spent"))),
    Plant("no unit for a code", HONOURED, "member 51 showed an F-code at .* and heard sold_out",
          journal=more("reserve", code_at=3, member=51, status=409, code="sold_out")),
    Plant("not let in by the gate", LIST,
          "member 1 in members: the gate does not let in who, by 100 points in august, is let",
          redis=command("HSET", "{elig}", "", b"s" + b"".join(m.to_bytes(2, "big") for m in range(2, 30)))),
    Plant("let in by the gate", LIST,
          "member 40 in members: the gate lets in who, by 100 points in august, is not let in",
          redis=command("HSET", "{elig}", "", b"s" + b"".join(m.to_bytes(2, "big") for m in [*range(1, 30), 40]))),
    Plant("half a list", LIST, "says b'1' and has 2 fields", redis=command("HSET", "{elig}", "#", 1)),
    Plant("too few points", LET_IN, "of member 40 in members: the member is not among those with 100 points",
          sql="UPDATE reservations SET member = 40 WHERE id = '{r6}'", also=also("I1", "I8")),
    Plant("a lane without a code", LET_IN, "shows no F-code, and the allocation is for fcode",
          also=also("I1", "I6", "I8"),
          sql="UPDATE reservations SET fcode = NULL WHERE id = '{r8}'"),
    Plant("refused for points", NOT_LET_IN, "member 6 heard not_eligible for members at .* and is among those",
          journal=more("reserve", allocation="members", member=6, status=403, code="not_eligible")),
    Plant("a key of two", KEYS, "2 reservations of member 1 have the key 'k1'", also=also("I1"),
          sql="UPDATE reservations SET idempotency_key = 'k1' WHERE id = '{r1b}'"),
    Plant("an answer of another member", ANSWERS, "was given to member 15", journal=edit(won(14), member=15)),
    Plant("an answer of another key", ANSWERS, "has the key None, and was asked for with 'other'",
          journal=edit(won(14), key="other")),
    Plant("an answer of another request", ANSWERS, "is of the request 'public|1', and '|1' was asked",
          journal=edit(again, allocation=None)),
    Plant("an answer of another code", ANSWERS, "was given for code 1 of batch .*, and code 4000000 of batch",
          journal=edit(won(9), fcode=(1 << 22) + 4_000_000)),
    Plant("made twice", ANSWERS, "was made by two requests",
          journal=lambda lines, world: lines.append(dict(next(line for line in lines if won(14)(line, world))))),
    Plant("one for two members", ANSWERS, f"{NEW} was given to member 61 and to member 62", also=also("I3"),
          journal=both(more("reserve", member=61, status=201, reservation=NEW),
                        more("reserve", member=62, status=201, reservation=NEW))),
    Plant("expired too early", STATES, "expired at .*, due at",
          sql="UPDATE reservations SET ended_at = expires_at - interval '500 us' WHERE id = '{r4}'"),
    Plant("held too long", STATES, "is held for longer than 900 s", also=also("I3"),
          sql="UPDATE reservations SET expires_at = expires_at + interval '1 h' WHERE id = '{r14}'"),
    Plant("confirmed too late", STATES, "was confirmed at .*, after its end at",
          sql="UPDATE orders SET created_at = created_at + interval '1 day' WHERE id = '{o1}'"),
    Plant("money kept", MONEY, "payment pay-19 .*: it came too late, and 0 orders say", also=also("I13"),
          sql="DELETE FROM orders WHERE event = 'payment.refund_due'"),
    Plant("too little paid", MONEY, "it is 1 CNY, and the price is 169900 CNY",
          sql="UPDATE payments SET amount = 1 WHERE id = 'pay-6'"),
    Plant("paid back too little", MONEY, "what is owed back is 1 CNY",
          sql="UPDATE orders SET amount = 1 WHERE event = 'payment.refund_due'"),
    Plant("money of nobody paid back", MONEY, "owes payment pay-19 back, which nobody received",
          sql="DELETE FROM payments WHERE id = 'pay-19'"),
    Plant("money for nothing", MONEY, "it was applied, and the reservation is expired", also=also("I9"),
          sql="DELETE FROM orders WHERE event = 'payment.refund_due' AND false;"
          "UPDATE payments SET applied = true, reservation_id = '{r4}' WHERE id = 'pay-6'"),
    Plant("held again after its end", ORDER, "was said to be cancelled at .*, and held to who asked after that",
          journal=more("get", of="r3", member=3, state="held")),
    Plant("held again after it was confirmed", ORDER,
          "was said to be confirmed at .*, and held to who asked after that",
          journal=more("get", of="r1", member=1, state="held")),
    Plant("confirmed after its end", ORDER, "was confirmed for who asked at .* for the first time, after its end",
          journal=both(without(of("confirm", "r1")),
                        more("confirm", HOUR_S, of="r1", of_order="o1", member=1, state="confirmed"))),
    Plant("cancelled and confirmed", ORDER, "was said to be confirmed, and to be cancelled", also=also("I3"),
          journal=both(without(of("cancel", "r3")), more("confirm", of="r3", member=3, state="confirmed"),
                        more("cancel", 0.0, of="r3", member=3, state="cancelled"))),
    Plant("another limit", RULES, "limit is b'3' in the gate, stripe 0, and by the ledger it is b'2'",
          redis=command("HSET", "{meta}", "limit", "3")),
    Plant("another window", RULES, "a:public is",
          redis=command("HSET", "{meta}", "a:public", b"\x94\x01\x02\xa8everyone\x00")),
    Plant("paused in the gate only", RULES, "paused is b'1' in the gate",
          redis=command("HSET", "{meta}", "paused", "1")),
    Plant("held before the opening", OPENING, "was held at .*, [0-9.]+ s before public opened", also=also("I9"),
          sql="UPDATE reservations SET created_at = created_at - interval '100 s' WHERE id = '{r14}'"),
    Plant("held after the close", CLOSE, "was held at .*; public had closed at",
          sql="UPDATE reservations SET created_at = created_at + interval '2 h' WHERE id = '{r14}'"),
    Plant("held after the drop was closed", CLOSE, "was held at .*; the drop was closed at", also=also("I15"),
          sql="INSERT INTO audit (at, actor, action, subject) OVERRIDING SYSTEM "
          "VALUE SELECT created_at - interval '1 ms',"
          " 'member:1', 'drop.close', drop_id FROM reservations WHERE id = '{r20}'"),
    Plant("sold out too early", WORDS, "member 50 heard sold_out for later at .*, before the opening",
          journal=more("reserve", allocation="later", member=50, status=409, code="sold_out")),
    Plant("not open too late", WORDS, "member 50 asked for public at .* and heard not_open; it had opened at",
          journal=more("reserve", allocation="public", member=50, status=403, code="not_open")),
    Plant("an order lost", ORDERS, "is confirmed, and has 0 order.confirmed",
          sql="DELETE FROM orders WHERE id = '{o1}'"),
    Plant("an order twice", ORDERS, "is confirmed, and has 2 order.confirmed",
          sql="INSERT INTO orders (id, reservation_id, event, amount, currency, state, settled_at) SELECT '{new}',"
          " reservation_id, event, amount, currency, state, settled_at FROM orders WHERE id = '{o1}'"),
    Plant("another order", ORDERS, f"names order {NEW}, and its order is",
          sql="UPDATE reservations SET order_id = '{new}' WHERE id = '{r10}'", also=also("I3")),
    Plant("a return that nobody is told of", ORDERS, "is returned, and has 1 order.confirmed and 0 order.returned",
          sql="DELETE FROM orders WHERE event = 'order.returned'"),
    Plant("an order for a hold", ORDERS, "is held, and has 1 order.confirmed",
          sql="INSERT INTO orders (id, reservation_id, event, amount, currency, state, settled_at)"
          " SELECT '{new}', '{r14}', event, amount, currency, 'dead', settled_at FROM orders WHERE id = '{o1}'"),
    Plant("another price", ORDERS, "says 1 CNY a unit", sql="UPDATE orders SET amount = 1 WHERE id = '{o1}'"),
    Plant("a job lost", ORDERS, "waits since .*, and has no job in the queue", sql="DELETE FROM pgqueuer"),
    Plant("a job left over", ORDERS, "is delivered since .*, and has a job in the queue",
          sql="UPDATE orders SET settled_at = now() - interval '1 min' WHERE id = '{o1}';"
          "INSERT INTO pgqueuer (id, priority, status, entrypoint, dedupe_key, execute_after)"
          " SELECT id + 1, priority, 'queued', entrypoint, '{o1}', now() FROM pgqueuer"),
    Plant("a job twice", ORDERS, "has 2 jobs in the queue",
          sql="INSERT INTO pgqueuer (id, priority, status, entrypoint, dedupe_key) SELECT id + 1, priority, status,"
          " entrypoint, dedupe_key FROM pgqueuer"),
    Plant("a job for nothing", ORDERS, f"the queue has a job for order {NEW}, which is nowhere",
          sql="INSERT INTO pgqueuer (id, priority, status, entrypoint, dedupe_key) SELECT id + 1, priority, status,"
          " entrypoint, '{new}' FROM pgqueuer"),
    Plant("never received", RECEIVED, "counts as delivered at .*, and the shop never accepted it",
          journal=without(lambda line, world: line.get("order") == world.ids["o1"] and line["call"] == "delivery")),
    Plant("received, and refused", RECEIVED, "and the shop never accepted it",
          journal=edit(lambda line, _: line["call"] == "delivery", status=500)),
    Plant("received from nowhere", RECEIVED, f"the shop received order {NEW}, which is nowhere",
          journal=more("delivery", order=NEW, event="order.confirmed")),
    Plant("received under no id", RECEIVED, "under the id nonsense, which is none",
          journal=more("delivery", order="nonsense", event="order.confirmed")),
    Plant("received as something else", RECEIVED, "received order.returned under order .*, which is order.confirmed",
          journal=more("delivery", of_order="o1", event="order.returned")),
    Plant("received for somebody else", RECEIVED, "received order .* for .*; it is for",
          journal=more("delivery", of="r2", of_order="o1", event="order.confirmed")),
    Plant("held in the pause", PAUSE, "was held at .*; the drop was paused at",
          sql="UPDATE audit SET at = (SELECT created_at + interval '1 ms' FROM reservations WHERE id = '{r14}')"
          " WHERE action = 'drop.resume'", journal=heard_when_won("resume", 14)),
    Plant("won in the pause", PAUSE_HEARD, "acknowledged with 201; the pause had been acknowledged",
          journal=won_in_the_pause),
    Plant("paused by nobody", ACCOUNT, "the drop is paused, and the log says otherwise",
          sql="UPDATE drops SET paused = true", also=also("I10")),
    Plant("units from nowhere", ACCOUNT, "quantity of later is 3, and the log accounts for 2", also=also("I1"),
          sql="UPDATE allocations SET quantity = 3 WHERE id = 'later'"),
    Plant("a window that nobody moved", ACCOUNT, "closes_at of later is", also=also("I10"),
          sql="UPDATE allocations SET closes_at = closes_at + interval '1 h' WHERE id = 'later'"),
    Plant("returned by nobody", ACCOUNT, "was returned at .*, and the log does not say so",
          sql="DELETE FROM audit WHERE action = 'reservation.return'"),
    Plant("minted by nobody", ACCOUNT, "was minted at .*, and the log does not say so",
          sql="DELETE FROM audit WHERE action = 'fcodes.mint' AND detail ->> 'count' = '4'"),
    Plant("revoked by nobody", ACCOUNT, "code 2 of batch .* was revoked at .*, and the log does not say so",
          sql="DELETE FROM audit WHERE action = 'fcodes.revoke'"),
    Plant("a batch revoked by nobody", ACCOUNT, "was revoked at .*, and the log does not say so", also=also("I6"),
          sql="UPDATE fcode_batches SET revoked_at = clock_timestamp() WHERE id = {batch0}"),
    Plant("an act that is not in the log", WRITTEN,
          "close by member:1 was acknowledged at .*, and the log has no drop.close",
          journal=more("close", actor="member:1")),
    Plant("an act of another operator", WRITTEN, "pause by member:2 was acknowledged",
          journal=edit(lambda line, _: line["call"] == "pause", actor="member:2")),
    Plant("a grant left pending", REST, "of member 14 is pending in the gate since 1970-",
          redis=command("ZADD", "{pend}", 1000, "{r14}|14")),
    Plant("a unit left on its way", REST, "1 ended reservation whose unit the gate may not have back",
          sql="UPDATE reservations SET gate_released = false WHERE id = '{r3}'"),
    Plant("a hold left over", REST, "1 hold that is over and has not expired", also=also("I3"),
          sql="UPDATE reservations SET expires_at = now() - interval '1 s' WHERE id = '{r14}'"),
    Plant("another epoch", REST, "is of epoch .*, and the ledger's is", sql="UPDATE drops SET epoch = epoch + 1"),
    Plant("half a gate", REST, "lacks codes: it was not armed", redis=command("DEL", "{codes}")),
    Plant("no gate", REST, "lacks meta, ent, pend, codes",
          redis=command("DEL", "{meta}", "{ent}", "{pend}", "{codes}")),
    Plant("a gate of another server", REST, "was armed on another server, or before a restart",
          redis=command("HSET", "{meta}", "replid", "0" * 40)),
    Plant("an order passed over", QUEUE, "is due since .*, and one of .* was delivered",
          sql="UPDATE pgqueuer SET execute_after = (SELECT min(queued_at) FROM orders) - interval '1 min'"),
    Plant("an order taken and forgotten", QUEUE, "is taken by a worker that is silent since",
          sql="UPDATE pgqueuer SET status = 'picked', heartbeat = (SELECT min(queued_at) "
          "FROM orders) - interval '1 min'"),
]  # fmt: skip
