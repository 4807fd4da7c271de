"""Terminals, ledger and PostgreSQL side by side, merchant by merchant and card by card, to the fen.

Always true here: the three are counted apart. The terminals' count knows nothing but answers, the ledger is replayed from the journal's
files and not asked of the running switch, and PostgreSQL adds up its own rows. A difference of one fen at one merchant or one card
is a finding.

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
from typing import Final

import asyncpg
import msgspec

from switch import _core, settlement
from switch.campus import Campus
from switch.settlement import Account, Settlement, SettlementRefused

__all__ = ["Books", "BooksUnread", "differences", "ledger_sums", "milliseconds", "read_books", "sums", "verdict_of_command", "yuan"]

SETTLE_SECONDS: Final = 60.0
"""For PostgreSQL to have the last payment."""


class BooksUnread(Exception):
    """The ledger or PostgreSQL could not be read, or PostgreSQL stayed behind: one sentence for the one who started it."""


@dataclass(frozen=True)
class Books:
    """The ledger, replayed from the journal, and PostgreSQL, both as of `position`. Amounts in fen."""

    position: int
    ledger: Sequence[Account]
    settled_by_merchant: Mapping[str, int]
    settled_by_card: Mapping[str, int]


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
        replica.advance(position)
        accounts = msgspec.json.decode(replica.accounts(), type=list[tuple[int, str, str, int, int]])
    except SettlementRefused as refusal:
        raise BooksUnread(str(refusal)) from None
    except _core.CoreError as error:
        raise BooksUnread(str(error)) from None
    except settlement.LOST as failure:
        raise BooksUnread(settlement.reason(failure)) from None
    return Books(position, [Account(*row) for row in accounts], by_merchant, by_card)


async def _position(database: Settlement, journal: str) -> int:
    try:
        return (await database.follow(journal)).position
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
        # A short exercise is over before the follower has made the tables, or all of their columns.
        return 0


def ledger_sums(campus: Campus, accounts: Sequence[Account]) -> tuple[dict[str, int], dict[str, int]]:
    """By merchant what it took, by card what its holder's purses lost since they were opened.

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


def _differences(what: str, terminals: Mapping[str, int], ledger: Mapping[str, int], settled: Mapping[str, int]) -> list[str]:
    return [
        f"{what} {owner}: terminals {terminals.get(owner, 0):,}, ledger {ledger.get(owner, 0):,}, PostgreSQL {settled.get(owner, 0):,} fen."
        for owner in sorted({*terminals, *ledger, *settled})
        if not terminals.get(owner, 0) == ledger.get(owner, 0) == settled.get(owner, 0)
    ]


def differences(campus: Campus, by_merchant: Mapping[str, int], by_card: Mapping[str, int], books: Books) -> list[str]:
    """A sentence for each merchant and card whose three sums are not one; `by_merchant` and `by_card` are the terminals' count, in fen."""
    takings, spent = ledger_sums(campus, books.ledger)
    found = _differences("Merchant", by_merchant, takings, books.settled_by_merchant)
    found += _differences("Card", _by_holder(campus, by_card), spent, _by_holder(campus, books.settled_by_card))
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


def sums(campus: Campus, by_merchant: Mapping[str, int], by_card: Mapping[str, int], books: Books) -> list[tuple[str, int, int]]:
    """For terminals, ledger and PostgreSQL in turn: its name, what merchants took and what cards spent, in fen."""
    takings, spent = ledger_sums(campus, books.ledger)
    return [
        ("terminals", sum(by_merchant.values()), sum(by_card.values())),
        ("ledger", sum(takings.values()), sum(spent.values())),
        ("PostgreSQL", sum(books.settled_by_merchant.values()), sum(books.settled_by_card.values())),
    ]


def yuan(fen: int) -> str:
    """An amount in words."""
    return f"{'-' if fen < 0 else ''}{abs(fen) // 100:,}.{abs(fen) % 100:02} yuan"


def milliseconds(ordered: Sequence[float], share: float) -> str:
    """A percentile of values in seconds, in words."""
    value = ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
    return f"{value * 1e3:.1f} ms"
