"""The auditor: reads both stores, and a journal of what was heard, on its own, and says whether all of it is true.

It is independent of the code that it checks: it imports nothing of this product, has statements and a reading of the
gate's keys of its own, and asks neither the service nor its libraries. So a fault in a statement, a script or a rule
cannot hide itself. What it knows of the product is the contract, the tables' columns and the gate's layout; a test
ties the last two to their home.

The invariants, and what each is judged by (`Check.invariant` names them as the design does):

- I1   per allocation: what the gate has left and its entries make the quantity; entry by entry, gate and ledger agree
- I2   held and confirmed units never exceeded the quantity, at any instant; the ledger's counter is true
- I3   what was acknowledged is in the ledger, as it was said, and its state has a cause
- I4   nobody went on hearing `sold_out`, for longer than a hold and some seconds, while units lay free and unsold
- I5   the member's limit, at every instant, over all allocations
- I6   a code is spent once, by whom it belongs to, never after it was revoked; the gate's bits say the same
- I7   who has a unit was let in by the snapshot; who was not let in is not in it; the gate has the same list
- I8   one key, one reservation, one member, in every answer
- I9   a hold ends once; nothing is confirmed after its end; money for what had ended is owed back
- I10  nothing is held before the opening or after the close; the gate has the windows and limits of the ledger
- I11  nobody heard `sold_out` before the opening
- I13  one order for each confirmation, one for each return, a job for each that waits; the shop knows them all
- I14  nothing is held while the drop is paused
- I15  every operator's act is in the audit log, and the log accounts for what the tables say
- I16  nothing is left under way: grants, returns, expired holds, epochs, the queue

(I12 is about deposits, which there are none of.)

The order of work: wait until nothing moves, for so long as the caller allows; read the ledger in one snapshot between
two readings of the gate; then read the journal line by line against that. A contradiction between the stores counts
only when it is there a second time, or nothing moved; what changes while it is being read is said to be in motion, and
not judged. Ledger rows and orders are kept in memory, about 1 KB each; of the journal's lines only what was
acknowledged leaves something behind.

Times: the ledger's are compared with one another exactly, since whatever it writes is written under the drop's lock.
Between the ledger's clock and the gate's lies what is measured just now; between the journal's and the ledger's what
the acknowledgements themselves show (a reservation is made between its request and its answer).
"""

from flashsale.audit.report import BadJournal, Balance, Check, LogLine, Report, UnknownDrop, Unreadable
from flashsale.audit.run import UNSOLD_S, audit

__all__ = [
    "UNSOLD_S",
    "BadJournal",
    "Balance",
    "Check",
    "LogLine",
    "Report",
    "UnknownDrop",
    "Unreadable",
    "audit",
]
