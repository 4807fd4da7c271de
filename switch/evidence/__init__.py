"""Checks an evidence report of the campus card switch. It needs this one folder, Python 3.11 and the package `blake3`:

    python3 -m evidence REPORT [--follows EARLIER]... [--anchor HASH@POSITION]... [--json]

What a report is, line by line, stands in docs/evidence.md. These files share no code with the switch: they were written against
that page, so what both of them say has been understood twice.

What is checked: every hash and every link of the chain; that each record's bytes are what was hashed, and that what is printed
beside them is what they say, to the character; positions and batches without gap; and what the report says of the books, as far
as the records in hand decide it: who a number stands for, what purses hold, that each movement takes from one account what it
gives to another and is what the operation pays to whom it pays, that nothing is decided, given back or completed twice, and that
whatever a card's status, an amount or a batch's totals decide was decided so. A report that reaches back to record 1, itself or
by those that it follows, leaves nothing of that to belief.

Always true here: a report is read once, line by line, and what is held does not grow with it. The first thing that is wrong ends
the check and is named with its line and record.

How it works: `report` reads the lines (`lines`) and makes the hashes again; `records` says what a record's bytes mean; `posting`
takes it into the `books`, where `answers` and `effects` hold it against what is known.
"""

from .command import add_arguments, run
from .lines import Fault
from .report import Anchor, Finding, check

__all__ = ["Anchor", "Fault", "Finding", "add_arguments", "check", "run"]
