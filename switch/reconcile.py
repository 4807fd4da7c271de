"""Reconciliation: the ledger and the settlement database, compared account by account to the fen.

Always true here: both sides stand at the same record. The database is read in one transaction, its own position with it, and the
ledger is replayed from the journal, or from a snapshot on, up to exactly that position, by a replica that shares nothing with the
running switch. So it may run at any time, beside the switch or without it, and a difference is never merely something on its way.

What is compared: the history, by the hash of the batch that holds that record; every account's kind, owner, balance and holds; each
balance in the database with the sum of its postings there, what is held of each purse with its open holds; and on either side the sum
over all accounts with zero, because money only ever moves from one account to another.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, Protocol

import msgspec

from switch import _core, settlement
from switch.settlement import Account, Books, Settlement, SettlementRefused

__all__ = ["Ledger", "ReconcileFailed", "Reconciliation", "compare", "reconcile", "reconcile_async"]

DIFFERENCES_MAX: Final = 20
"""Differences put into words; more only make the first harder to see."""


class ReconcileFailed(Exception):
    """One sentence for the operator: the two could not be compared at all."""


class Ledger(Protocol):
    """What a reconciliation needs of `switch._core.Replica`."""

    @property
    def identity(self) -> str: ...
    @property
    def durable(self) -> int: ...
    @property
    def hash(self) -> str: ...
    def advance(self, until: int) -> None: ...
    def accounts(self) -> bytes: ...
    def digest(self) -> str: ...
    def sum(self) -> int: ...


class Reconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; amounts in fen. `ok` means: no difference."""

    ok: bool
    journal: str
    position: int
    """The record as of which both sides were compared."""
    accounts: int
    """Accounts compared."""
    transactions: int
    postings: int
    turnover: int
    """The sum of all postings."""
    ledger_sum: int
    """The sum over all accounts of the ledger; zero, or it is broken."""
    settlement_sum: int
    """The same in PostgreSQL."""
    state_digest: str
    """The ledger's, at this position."""
    difference_count: int
    differences: list[str]
    """The first of them, a sentence each."""


def reconcile(journal: Path, archive: Path, address: str) -> Reconciliation:
    """Compare the journal in a folder, and what was moved from there to an archive, with the database at `postgresql://...`.

    Raises `ReconcileFailed` where the database cannot be read or is not this journal's, `switch._core.CoreError` where the
    journal cannot be read.
    """
    return asyncio.run(reconcile_async(lambda until: _core.Replica(journal, archive=archive, until=until), address))


async def reconcile_async(open_ledger: Callable[[int], Ledger], address: str) -> Reconciliation:
    """`reconcile` for a caller that runs asyncio itself."""
    try:
        async with Settlement.connect(address) as database:
            books = await database.books()
    except SettlementRefused as refusal:
        raise ReconcileFailed(str(refusal)) from None
    except settlement.LOST as failure:
        raise ReconcileFailed(settlement.reason(failure)) from failure
    return await asyncio.to_thread(_replay_and_compare, open_ledger, books)


def _replay_and_compare(open_ledger: Callable[[int], Ledger], books: Books) -> Reconciliation:
    ledger = open_ledger(books.position)
    if ledger.identity != books.journal:
        raise ReconcileFailed(f"The settlement database follows the journal {books.journal}, but this folder holds {ledger.identity}.")
    if ledger.durable < books.position:
        raise ReconcileFailed(
            f"The settlement database is at record {books.position}, but this journal ends at {ledger.durable}: its folder is"
            " an older copy or has lost records."
        )
    ledger.advance(books.position)
    return compare(ledger, books)


def compare(ledger: Ledger, books: Books) -> Reconciliation:
    """Compare a ledger that stands at the books' position with them."""
    accounts = [Account(*row) for row in msgspec.json.decode(ledger.accounts(), type=list[tuple[int, str, str, int, int]])]
    ledger_sum = ledger.sum()
    settlement_sum = sum(account.balance for account in books.accounts.values())
    differences = [
        *_parted_history(ledger, books),
        *_unequal_accounts(accounts, books),
        *_underived_balances(books),
        *_underived_holds(books),
        *_open_sums((("ledger", ledger_sum), ("settlement database", settlement_sum))),
    ]
    return Reconciliation(
        ok=not differences,
        journal=books.journal,
        position=books.position,
        accounts=len(accounts),
        transactions=books.transactions,
        postings=books.postings,
        turnover=books.turnover,
        ledger_sum=ledger_sum,
        settlement_sum=settlement_sum,
        state_digest=ledger.digest(),
        difference_count=len(differences),
        differences=differences[:DIFFERENCES_MAX],
    )


def _parted_history(ledger: Ledger, books: Books) -> Iterator[str]:
    if books.hash is not None and books.position and books.hash != ledger.hash:
        yield (
            f"Up to record {books.position} PostgreSQL has another history than this journal: its folder was put back from an"
            " older copy and has gone on differently."
        )


def _unequal_accounts(accounts: Iterable[Account], books: Books) -> Iterator[str]:
    unmatched = dict(books.accounts)
    for held in accounts:
        settled = unmatched.pop(held.account, None)
        if settled is None:
            # An account that nothing has touched yet has no row, and no money.
            if held.balance or held.holds:
                yield f"{_named(held)} holds {held.balance} fen in the ledger and is missing in PostgreSQL."
        elif settled != held:
            yield from _unequal_fields(held, settled)
    for settled in unmatched.values():
        yield f"{_named(settled)} holds {settled.balance} fen in PostgreSQL and is unknown to the ledger."


def _unequal_fields(held: Account, settled: Account) -> Iterator[str]:
    if (held.kind, held.owner) != (settled.kind, settled.owner):
        yield f"{_named(held)} belongs to {settled.kind} {settled.owner} in PostgreSQL."
    if held.balance != settled.balance:
        yield f"{_named(held)} has the balance {held.balance} fen in the ledger and {settled.balance} fen in PostgreSQL."
    if held.holds != settled.holds:
        yield f"{_named(held)} has {held.holds} fen on hold in the ledger and {settled.holds} fen in PostgreSQL."


def _underived_balances(books: Books) -> Iterator[str]:
    for number in sorted(books.accounts.keys() | books.posted.keys()):
        posted = books.posted.get(number, 0)
        account = books.accounts.get(number)
        if account is None:
            yield f"Account {number} has postings of {posted} fen in PostgreSQL but no balance there."
        elif account.balance != posted:
            yield f"{_named(account)} has the balance {account.balance} fen in PostgreSQL, but its postings make {posted}."


def _underived_holds(books: Books) -> Iterator[str]:
    for account in books.accounts.values():
        held = books.held.get(account.owner, 0) if account.kind == "cash" else 0
        if account.holds != held:
            yield f"{_named(account)} has {account.holds} fen on hold in PostgreSQL, but its open holds make {held}."


def _open_sums(sums: Iterable[tuple[str, int]]) -> Iterator[str]:
    for name, total in sums:
        if total:
            yield f"All accounts of the {name} together make {total} fen, not zero."


def _named(account: Account) -> str:
    return f"Account {account.account} ({account.kind} {account.owner})"
