"""What `switch demo` ends with: the sums of terminals, ledger and PostgreSQL side by side, and a verdict on them.

Always true here: the three are counted apart. The terminals' tally knows nothing but answers, the ledger is replayed from the journal's
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from switch import _core, settlement
from switch.campus import Campus
from switch.dialect import RESPONSES
from switch.settlement import Account, Settlement, SettlementRefused

__all__ = ["Books", "BooksUnread", "Tally", "ledger_sums", "milliseconds", "read_books", "report", "verdict_of_command", "verdicts"]

SETTLE_SECONDS: Final = 60.0
"""For PostgreSQL to have the last payment."""


class BooksUnread(Exception):
    """The ledger or PostgreSQL could not be read, or PostgreSQL stayed behind: one sentence for the one who started the demonstration."""


@dataclass
class Tally:
    """What the terminals know. Amounts in fen."""

    payments: int = 0
    """What was due at them."""
    lasted_seconds: float = 0.0
    """From the first payment's moment to the last one's answer, in real time."""
    approved: int = 0
    approved_fen: int = 0
    declined: Counter[str] = field(default_factory=Counter)
    """By DE39."""
    doubled: int = 0
    repeated: int = 0
    reconnected: int = 0
    reversed: int = 0
    given_back_fen: int = 0
    overtaken: int = 0
    remembered: int = 0
    """Answers that came again and were the same."""
    seconds: list[float] = field(default_factory=list)
    """From a purchase's first byte to its answer's last."""
    late_seconds_max: float = 0.0
    """The longest that a payment waited for its terminal, in real time."""
    by_merchant: Counter[str] = field(default_factory=Counter)
    by_card: Counter[str] = field(default_factory=Counter)
    surprises: list[str] = field(default_factory=list)
    """What should not have been answered, or was not answered; a sentence each."""


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
            while (position := (await database.follow(replica.identity)).position) < (durable := replica.durable):
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


def ledger_sums(campus: Campus, accounts: Sequence[Account]) -> tuple[dict[str, int], dict[str, int]]:
    """By merchant what it took, by card what its holder's purses lost since they were opened."""
    takings = {account.owner: account.balance for account in accounts if account.kind == "merchant"}
    purses: Counter[str] = Counter()
    for account in accounts:
        if account.kind in ("cash", "subsidy"):
            purses[account.owner] += account.balance
    return takings, {card.card_number: card.cash + card.subsidy - purses[card.holder_id] for card in campus.cards}


def _differences(what: str, terminals: Mapping[str, int], ledger: Mapping[str, int], settled: Mapping[str, int]) -> list[str]:
    return [
        f"{what} {owner}: terminals {terminals.get(owner, 0):,}, ledger {ledger.get(owner, 0):,}, PostgreSQL {settled.get(owner, 0):,} fen."
        for owner in sorted({*terminals, *ledger, *settled})
        if not terminals.get(owner, 0) == ledger.get(owner, 0) == settled.get(owner, 0)
    ]


def verdicts(campus: Campus, tally: Tally, books: Books) -> list[str]:
    """Every difference between the three, and every surprise; empty if all is well."""
    takings, spent = ledger_sums(campus, books.ledger)
    found = list(tally.surprises)
    found += _differences("Merchant", tally.by_merchant, takings, books.settled_by_merchant)
    found += _differences("Card", tally.by_card, spent, books.settled_by_card)
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


def report(campus: Campus, tally: Tally, books: Books, problems: Sequence[str]) -> str:
    """What is shown at the end: counts, times, the three sums, and that they agree or the first of the problems."""
    takings, spent = ledger_sums(campus, books.ledger)
    seconds = sorted(tally.seconds)
    percentiles = [f"{name} {milliseconds(seconds, share)}" for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))]
    lines = [
        "",
        f"Lunch of {tally.payments:,} payments in {tally.lasted_seconds:.1f} s.",
        "",
        _count_line("approved", tally.approved, _yuan(tally.approved_fen)),
        _count_line("declined", tally.declined.total()),
        *(_count_line(f"  {RESPONSES.get(code, 'unknown')}", count, f"({code})") for code, count in tally.declined.most_common()),
        _count_line("reversed", tally.reversed, f"{_yuan(tally.given_back_fen)} given back"),
        _count_line("  before the purchase arrived", tally.overtaken),
        _count_line("doubled by the network", tally.doubled),
        _count_line("repeated, answer lost", tally.repeated),
        _count_line("repeated, connection lost", tally.reconnected),
        _count_line("answered from memory", tally.remembered, "each the same as before"),
        "",
        f"  answers: {', '.join(percentiles)} (terminals and switch share this machine)",
        f"  longest wait for a free terminal {tally.late_seconds_max * 1e3:.0f} ms",
        "",
        f"  {'to the fen':14}{'taken by merchants':>24}{'spent by cards':>24}",
        _sum_line("terminals", tally.by_merchant, tally.by_card),
        _sum_line("ledger", takings, spent),
        _sum_line("PostgreSQL", books.settled_by_merchant, books.settled_by_card),
        "",
    ]
    if problems:
        shown = problems[:20]
        lines += [f"NOT EQUAL, or not as expected: {len(problems):,} findings.", *(f"  {problem}" for problem in shown)]
        lines += [f"  and {len(problems) - len(shown):,} more."] if len(problems) > len(shown) else []
    else:
        lines.append(
            f"Terminals, ledger and PostgreSQL agree to the fen, merchant by merchant ({len(campus.merchants)}) and card by card"
            f" ({len(campus.cards):,}), at journal position {books.position:,}; the switch drained and ended, its journal verifies."
        )
    return "\n".join(lines)


def _count_line(what: str, count: int, note: str = "") -> str:
    return f"  {what:34}{count:>8,}   {note}".rstrip()


def _sum_line(name: str, merchants: Mapping[str, int], cards: Mapping[str, int]) -> str:
    return f"  {name:14}{_yuan(sum(merchants.values())):>24}{_yuan(sum(cards.values())):>24}"


def _yuan(fen: int) -> str:
    return f"{'-' if fen < 0 else ''}{abs(fen) // 100:,}.{abs(fen) % 100:02} yuan"


def milliseconds(ordered: Sequence[float], share: float) -> str:
    """A percentile of values in seconds, in words."""
    value = ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
    return f"{value * 1e3:.1f} ms"
