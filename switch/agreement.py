"""Terminals, ledger and PostgreSQL side by side, merchant by merchant and card by card, to the fen.

Always true here: the three are counted apart. The terminals' count knows nothing but answers, the ledger is replayed from the journal's
files and not asked of the running switch, and PostgreSQL adds up its own rows. A difference of one fen at one merchant, at one card or at
the cash desk is a finding.

How it works: `read_books` waits until PostgreSQL has everything that is durable and reads the other two as of that position; it blocks,
and so belongs on a thread. Everything else here is arithmetic and text.
"""

import asyncio
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import asyncpg
import msgspec

from switch import _core, settlement
from switch.campus import Campus
from switch.settlement import Account, Settlement, SettlementRefused

__all__ = [
    "Books",
    "BooksUnread",
    "Counted",
    "differences",
    "ledger_sums",
    "milliseconds",
    "read_books",
    "sums",
    "sums_in_words",
    "verdict_of_command",
    "yuan",
]

SETTLE_SECONDS: Final = 60.0
"""For PostgreSQL to have the last payment."""


class BooksUnread(Exception):
    """The ledger or PostgreSQL could not be read, or PostgreSQL stayed behind: one sentence for the one who started it."""


class Counted(Protocol):
    """What terminals counted, in fen."""

    @property
    def by_merchant(self) -> Mapping[str, int]:
        """Takings."""

    @property
    def by_card(self) -> Mapping[str, int]:
        """What its purses paid, less what was loaded."""

    @property
    def loaded(self) -> int:
        """Cash that was handed in at counters."""


@dataclass(frozen=True)
class Books:
    """The ledger, replayed from the journal, and PostgreSQL, both as of `position`. Amounts in fen."""

    position: int
    ledger: Sequence[Account]
    settled_by_merchant: Mapping[str, int]
    settled_by_card: Mapping[str, int]
    """What was paid at merchants."""
    loaded_by_card: Mapping[str, int]


def read_books(journal: Path, address: str) -> Books:
    """Blocks until PostgreSQL, at `address`, has all that is durable in the journal's folder. Raises `BooksUnread`."""
    return asyncio.run(_settled(journal, address))


async def _settled(journal: Path, address: str) -> Books:
    """Waits until PostgreSQL has everything that is durable. Under asyncio, on a thread of its own, because asyncpg knows nothing else."""
    try:
        # Apart from the running switch: it reads the journal's files.
        replica = _core.Replica(journal)
        until = time.monotonic() + SETTLE_SECONDS
        async with Settlement.connect(address) as database:
            while (position := await _position(database, replica.identity)) < (durable := replica.durable):
                if time.monotonic() > until:
                    raise BooksUnread(f"PostgreSQL is still {durable - position:,} records behind after {SETTLE_SECONDS:g} s.")
                await asyncio.sleep(0.05)
            by_merchant = await database.spent("merchant_id")
            by_card = await database.spent("card_number")
            loaded = await database.loaded()
        replica.advance(position)
        accounts = msgspec.json.decode(replica.accounts(), type=list[tuple[int, str, str, int, int]])
    except SettlementRefused as refusal:
        raise BooksUnread(str(refusal)) from None
    except _core.CoreError as error:
        raise BooksUnread(str(error)) from None
    except settlement.LOST as failure:
        raise BooksUnread(settlement.reason(failure)) from None
    return Books(position, [Account(*row) for row in accounts], by_merchant, by_card, loaded)


async def _position(database: Settlement, journal: str) -> int:
    try:
        return (await database.follow(journal)).position
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
        # A short exercise is over before the follower has made the tables, or all of their columns.
        return 0


def ledger_sums(campus: Campus, accounts: Sequence[Account]) -> tuple[dict[str, int], dict[str, int]]:
    """By merchant what it took, by card what its holder's purses lost since they were opened; less than nothing where more was loaded.

    A holder with more cards than one stands under the first of them: purses are the holder's.
    """
    takings = {account.owner: account.balance for account in accounts if account.kind == "merchant"}
    purses: Counter[str] = Counter()
    for account in accounts:
        if account.kind in ("cash", "subsidy"):
            purses[account.owner] += account.balance
    opened: Counter[str] = Counter()
    for card in campus.cards:
        opened[card.holder_id] += card.cash + card.subsidy
    first: dict[str, str] = {}
    for card in campus.cards:
        first.setdefault(card.holder_id, card.card_number)
    return takings, {number: opened[holder] - purses[holder] for holder, number in first.items()}


def _by_holder(campus: Campus, by_card: Mapping[str, int]) -> Mapping[str, int]:
    """Each holder's cards as one, under the first. A card that the campus does not know stays."""
    first: dict[str, str] = {}
    shown = {card.card_number: first.setdefault(card.holder_id, card.card_number) for card in campus.cards}
    together: Counter[str] = Counter()
    for number, fen in by_card.items():
        together[shown.get(number, number)] += fen
    return together


def _handed_in(accounts: Sequence[Account]) -> int:
    """What the cash desk owes for loads."""
    return -sum(account.balance for account in accounts if (account.kind, account.owner) == ("house", "cash_desk"))


def _lost_by_card(books: Books) -> Mapping[str, int]:
    """By PostgreSQL: what each card's purses paid, less what was loaded."""
    lost = Counter(books.settled_by_card)
    lost.subtract(books.loaded_by_card)
    return lost


def _differences(what: str, terminals: Mapping[str, int], ledger: Mapping[str, int], settled: Mapping[str, int]) -> list[str]:
    return [
        f"{what} {owner}: terminals {terminals.get(owner, 0):,}, ledger {ledger.get(owner, 0):,}, PostgreSQL {settled.get(owner, 0):,} fen."
        for owner in sorted({*terminals, *ledger, *settled})
        if not terminals.get(owner, 0) == ledger.get(owner, 0) == settled.get(owner, 0)
    ]


def differences(campus: Campus, counted: Counted, books: Books) -> list[str]:
    """A sentence for each merchant and card whose three sums are not one, and for the cash desk."""
    takings, lost = ledger_sums(campus, books.ledger)
    handed_in, settled = _handed_in(books.ledger), sum(books.loaded_by_card.values())
    found = _differences("Merchant", counted.by_merchant, takings, books.settled_by_merchant)
    found += _differences("Card", _by_holder(campus, counted.by_card), lost, _by_holder(campus, _lost_by_card(books)))
    found += _differences("Cash", {"desk": counted.loaded}, {"desk": handed_in}, {"desk": settled})
    if total := sum(account.balance for account in books.ledger):
        found.append(f"All accounts of the ledger together make {total} fen, not zero.")
    return found


def verdict_of_command(command: str, done: subprocess.CompletedProcess[bytes], otherwise: str) -> str:
    """An empty sentence if a command's JSON says `"ok": true` and it ended with 0."""
    try:
        found = msgspec.json.decode(done.stdout)
        sound = done.returncode == 0 and found["ok"] is True
    except (msgspec.DecodeError, KeyError, TypeError):
        sound = False
    said = (done.stdout + done.stderr).decode(errors="replace").strip()
    return "" if sound else f"{command} ended with {done.returncode}, {otherwise}: {said}"


def sums(campus: Campus, counted: Counted, books: Books) -> list[tuple[str, int, int, int]]:
    """For terminals, ledger and PostgreSQL in turn: its name, and in fen what merchants took, what cards spent, what was loaded."""
    takings, lost = ledger_sums(campus, books.ledger)
    handed_in, settled = _handed_in(books.ledger), sum(books.loaded_by_card.values())
    return [
        ("terminals", sum(counted.by_merchant.values()), sum(counted.by_card.values()) + counted.loaded, counted.loaded),
        ("ledger", sum(takings.values()), sum(lost.values()) + handed_in, handed_in),
        ("PostgreSQL", sum(books.settled_by_merchant.values()), sum(books.settled_by_card.values()), settled),
    ]


def sums_in_words(of: Sequence[tuple[str, int, int, int]]) -> list[str]:
    """A table of them, for the console."""
    return [
        f"  {'to the fen':14}{'taken by merchants':>24}{'spent by cards':>24}{'loaded at counters':>24}",
        *(f"  {name:14}" + "".join(f"{yuan(sum_):>24}" for sum_ in fen) for name, *fen in of),
    ]


def yuan(fen: int) -> str:
    """An amount in words."""
    return f"{'-' if fen < 0 else ''}{abs(fen) // 100:,}.{abs(fen) % 100:02} yuan"


def milliseconds(ordered: Sequence[float], share: float) -> str:
    """A percentile of values in seconds, in words."""
    value = ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
    return f"{value * 1e3:.1f} ms"
