"""`switch export-replay`: a business day out of PostgreSQL as a replay (`switch.replay`), with nobody's card in it.

What always holds:

- A card or a person stands in the export under a pseudonym: HMAC-SHA256 under a key that is made for the export and forgotten, unless
  one is given. The same key gives the same pseudonyms again; without it no pseudonym leads back, and neither does the place of its row.
  Terminals get fresh keys, never their own.
- Money goes through as it went: a request whose decision the replay cannot have again is left out and counted. These are requests that
  were answered for what a terminal did before (12, 94), for a purse that it chose (57), for an amount out of bounds (13) or by the campus's
  rules (55, 57, 61, 65, 75); reversals of what is not in the export or was reversed before; requests of a card or a terminal that was
  another's, or in another state, at that time; and every operation but purchases and their reversals.
- Purses open with what they held at the day's end, plus what the exported requests took. So after the replay they hold that again; but
  for a debt, with which nobody can be imported: such a purse opens empty, and is counted.
- The database is only read, all of it as of one moment. What was written is taken away if the export fails.

How it works: temporary tables work out which requests stay and what a card's state must be; then rows stream through a cursor into the
files, however long the day was. A state is shown by the day's own decisions: who bought anything was active, else the first one tells.
"""

import asyncio
import contextlib
import datetime
import errno
import hmac
import secrets
from array import array
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec

from switch import settlement
from switch.campus import CARDS_HEADER, MERCHANTS_HEADER, TERMINALS_HEADER, RowWriter, luhn_digit
from switch.replay import CSV_HEADER, REPLAY_NAME, Operation

__all__ = ["KEY_BYTES", "ExportFailed", "Exported", "Pseudonyms", "export_day", "export_day_async"]

KEY_BYTES: Final = 32

DISK_ERRORS: Final = frozenset({errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EROFS})
"""Of the folder that is written, and not of the way to PostgreSQL."""

QUERY_SECONDS: Final = 3600.0
"""For one statement over a group's day; nobody waits for it."""

CURSOR_ROWS: Final = 10_000
"""Fetched at a time."""

VALID: Final = datetime.date(2099, 12, 31)
EXPIRED: Final = datetime.date(2000, 1, 1)
"""An export is replayed on any day; so a card is valid for good, or it is not."""

STATES: Final = {
    "00": ("active", VALID),
    "41": ("lost", VALID),
    "54": ("active", EXPIRED),
    "62": ("frozen", VALID),
    "78": ("cancelled", VALID),
}
"""By what a purchase with it is answered, a card's status and validity in the export."""


class ExportFailed(Exception):
    """One sentence for the operator."""


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What an export holds; amounts in fen."""

    day: str
    position: int
    """The last record that PostgreSQL had."""
    requests: int
    purchases: int
    approved: int
    reversals: int
    fen: int
    """What approved purchases took, less what reversals gave back."""
    left_out: dict[str, int]
    """Requests of the day that the replay cannot have, by operation and DE39."""
    debts: int
    """Purses that would have begun with a debt, and open empty."""
    cards: int
    terminals: int
    merchants: int
    lasts_ms: int
    """From the first request to the last."""


class Pseudonyms:
    """Cards and persons under a key of `KEY_BYTES` bytes. Two cards have one pseudonym with a chance of 1 in 10^17."""

    def __init__(self, key: bytes) -> None:
        assert len(key) == KEY_BYTES
        self._key = key

    def card(self, number: str) -> str:
        """Nineteen digits with a Luhn digit. They begin with 9 (ISO/IEC 7812-1: for national use)."""
        digest = hmac.digest(self._key, b"card " + number.encode(), "sha256")
        digits = f"9{int.from_bytes(digest) % 10**17:017}"
        return digits + luhn_digit(digits)

    def holder(self, holder_id: str) -> str:
        """Twenty characters."""
        return "H" + hmac.digest(self._key, b"holder " + holder_id.encode(), "sha256").hex()[:19]

    @property
    def order(self) -> str:
        """What rows are shuffled by: in the order of the real numbers, whoever has a list of these could count them off."""
        return hmac.digest(self._key, b"order", "sha256").hex()


def export_day(address: str, day: datetime.date, folder: Path, key: bytes | None) -> Exported:
    """Writes a business day of the database at `address` (`postgresql://...`) into a new or empty folder. Raises `ExportFailed`."""
    return asyncio.run(export_day_async(address, day, folder, key))


async def export_day_async(address: str, day: datetime.date, folder: Path, key: bytes | None) -> Exported:
    """`export_day` for a caller that runs asyncio itself."""
    try:
        with _new_files(folder):
            connection = await asyncpg.connect(
                address, timeout=settlement.CONNECT_SECONDS, command_timeout=QUERY_SECONDS, server_settings=settlement.SESSION
            )
            try:
                async with connection.transaction(isolation="repeatable_read"):
                    return await _Export(connection, day, folder, Pseudonyms(key or secrets.token_bytes(KEY_BYTES))).write()
            finally:
                await connection.close(timeout=settlement.CLOSE_SECONDS)
    except settlement.LOST as failure:
        if isinstance(failure, OSError) and failure.errno in DISK_ERRORS:
            raise ExportFailed(f"{folder}: {failure.strerror}.") from failure
        raise ExportFailed(settlement.reason(failure)) from failure


@contextlib.contextmanager
def _new_files(folder: Path) -> Iterator[None]:
    """An empty folder that only its owner may enter; empty again where the block fails."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        occupied = any(folder.iterdir())
        if not occupied:
            folder.chmod(0o700)
    except OSError as error:
        raise ExportFailed(f"{folder}: {error.strerror}.") from None
    if occupied:
        raise ExportFailed(f"{folder}: this folder is not empty; name a new or an empty one.")
    try:
        yield
    except BaseException:
        for file in folder.iterdir():
            file.unlink()
        raise


# The day stands in the text, because a partition is only found alone where the planner sees it.
_TERMINALS: Final = """
CREATE TEMPORARY TABLE replayed_terminal ON COMMIT DROP AS
SELECT terminal_id, coalesce(that_day.merchant_id, terminal.merchant_id) AS merchant_id, kind, zone
FROM terminal LEFT JOIN (
    SELECT DISTINCT ON (terminal_id) terminal_id, merchant_id
    FROM transaction WHERE business_date = '{day}' AND operation = 'purchase' ORDER BY terminal_id, position
) AS that_day USING (terminal_id)
"""

# Of a holder's cards one can be live. Where more were used as if they were, the one that bought last is; the others are lost.
_CARDS: Final = """
CREATE TEMPORARY TABLE replayed_card ON COMMIT DROP AS
WITH decided AS (
    SELECT card_number, max(position) FILTER (WHERE response = '00') AS bought, (array_agg(response ORDER BY position))[1] AS first
    FROM transaction
    WHERE business_date = '{day}' AND operation = 'purchase' AND response IN ('00', '14', '41', '51', '54', '62', '78')
    GROUP BY card_number
), answered AS (
    SELECT card_number, holder_id, class, bought, CASE
        WHEN bought IS NOT NULL OR first = '51' THEN '00'
        WHEN first IS NOT NULL THEN first
        WHEN status = 'lost' THEN '41'
        WHEN status IN ('frozen', 'blacklisted') THEN '62'
        WHEN status IN ('inactive', 'cancelled') THEN '78'
        WHEN expires < '{day}' THEN '54'
        ELSE '00' END AS answer
    FROM card LEFT JOIN decided USING (card_number)
), ranked AS (
    SELECT *, answer IN ('00', '54', '62') AS live, row_number() OVER (
        PARTITION BY holder_id, answer IN ('00', '54', '62') ORDER BY bought DESC NULLS LAST, answer, card_number
    ) AS rank
    FROM answered WHERE answer <> '14'
)
SELECT card_number, holder_id, class, CASE WHEN live AND rank > 1 THEN '41' ELSE answer END AS answer FROM ranked
"""

_PURCHASES: Final = """
CREATE TEMPORARY TABLE replayed_purchase ON COMMIT DROP AS
SELECT position, at, terminal_id, card_number, replayed_card.holder_id, amount, response, cash, subsidy,
    lead(position) OVER (PARTITION BY terminal_id ORDER BY position) AS next
FROM transaction JOIN replayed_terminal USING (terminal_id, merchant_id) LEFT JOIN replayed_card USING (card_number)
WHERE business_date = '{day}' AND operation = 'purchase' AND card_number IS NOT NULL
    AND CASE response WHEN '51' THEN '00' ELSE response END = coalesce(answer, '14')
"""

_REVERSALS: Final = """
CREATE TEMPORARY TABLE replayed_reversal ON COMMIT DROP AS
SELECT DISTINCT ON (original) back.position, back.at, back.original
FROM transaction AS back JOIN replayed_purchase AS bought ON bought.position = back.original AND bought.terminal_id = back.terminal_id
WHERE back.business_date = '{day}' AND back.operation = 'reversal' AND back.response = '00'
ORDER BY original, back.position
"""

_INDEXES: Final = """
CREATE UNIQUE INDEX ON replayed_card (card_number);
ANALYZE replayed_terminal, replayed_card
"""

# A replay reverses a terminal's last purchase. Where another came between, the reversal stands right behind what it undoes.
_ENTRIES: Final = """
SELECT position AS place, position, at, terminal_id, card_number, 'purchase' AS operation, amount, response FROM replayed_purchase
UNION ALL
SELECT
    CASE WHEN next < back.position THEN bought.position ELSE back.position END,
    back.position,
    CASE WHEN next < back.position THEN bought.at ELSE back.at END,
    terminal_id, card_number, 'reversal', CASE response WHEN '00' THEN amount ELSE 0 END, '00'
FROM replayed_reversal AS back JOIN replayed_purchase AS bought ON bought.position = back.original
ORDER BY place, position
"""

_OPENINGS: Final = """
WITH later AS (
    SELECT account, sum(amount)::bigint AS amount FROM (
        SELECT credit_account AS account, amount FROM posting WHERE business_date > '{day}'
        UNION ALL SELECT debit_account, -amount FROM posting WHERE business_date > '{day}'
    ) AS side GROUP BY account
), spent AS (
    SELECT holder_id, sum(cash)::bigint AS cash, sum(subsidy)::bigint AS subsidy
    FROM replayed_purchase AS bought LEFT JOIN replayed_reversal AS back ON back.original = bought.position
    WHERE response = '00' AND back.position IS NULL GROUP BY holder_id
)
SELECT card_number, holder_id, class, answer,
    cash.balance - coalesce(cash_later.amount, 0) + coalesce(spent.cash, 0) AS cash,
    subsidy.balance - coalesce(subsidy_later.amount, 0) + coalesce(spent.subsidy, 0) AS subsidy
FROM replayed_card
JOIN cardholder USING (holder_id)
JOIN account AS cash ON cash.account = cash_account
JOIN account AS subsidy ON subsidy.account = subsidy_account
LEFT JOIN later AS cash_later ON cash_later.account = cash_account
LEFT JOIN later AS subsidy_later ON subsidy_later.account = subsidy_account
LEFT JOIN spent USING (holder_id)
ORDER BY sha256(convert_to($1 || holder_id, 'UTF8')), sha256(convert_to($1 || card_number, 'UTF8'))
"""

_ASKED: Final = """
SELECT operation, response, count(*) FROM transaction
WHERE business_date = '{day}' AND operation NOT IN ('sign_on', 'sign_off', 'lapse') GROUP BY 1, 2
"""

_KEPT: Final = """
SELECT 'purchase', response, count(*) FROM replayed_purchase GROUP BY 2
UNION ALL SELECT 'reversal', '00', count(*) FROM replayed_reversal
"""


class _Export:
    """One day on its way into its files."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]", day: datetime.date, folder: Path, pseudonyms: Pseudonyms) -> None:
        self._connection = connection
        self._day = day
        self._folder = folder
        self._pseudonyms = pseudonyms

    async def write(self) -> Exported:
        position = await self._look()
        for statement in (_TERMINALS, _CARDS, _INDEXES, _PURCHASES, _REVERSALS, "ANALYZE replayed_purchase, replayed_reversal"):
            await self._connection.execute(statement.format(day=self._day))
        left_out = await self._left_out()
        if not await self._connection.fetchval("SELECT EXISTS (SELECT FROM replayed_purchase)"):
            raise ExportFailed(f"On {self._day} nothing was bought that a replay could have again.")
        merchants = await self._copy(
            "merchants.csv", MERCHANTS_HEADER, "SELECT merchant_id, name, category, fee_bp FROM merchant ORDER BY 1"
        )
        terminals = await self._terminals()
        cards, debts = await self._cards()
        counted = await self._entries()
        return Exported(
            day=str(self._day),
            position=position,
            left_out=left_out,
            debts=debts,
            cards=cards,
            terminals=terminals,
            merchants=merchants,
            **counted,
        )

    async def _look(self) -> int:
        """The position of PostgreSQL, which must have the day."""
        made = await self._connection.fetchval("SELECT to_regclass('journal_position') IS NOT NULL")
        position = await self._connection.fetchval("SELECT position FROM journal_position") if made else None
        if position is None:
            raise ExportFailed("The settlement database follows no journal yet: start the switch once.")
        days = await self._connection.fetchrow("SELECT min(business_date), max(business_date) FROM transaction")
        assert days is not None
        if days[0] is None:
            raise ExportFailed("The settlement database holds no transaction of any day yet.")
        if not days[0] <= self._day <= days[1]:
            raise ExportFailed(f"PostgreSQL knows no business day {self._day}; it has {days[0]} to {days[1]}.")
        assert isinstance(position, int)
        return position

    async def _left_out(self) -> dict[str, int]:
        asked = {(row[0], row[1]): row[2] for row in await self._connection.fetch(_ASKED.format(day=self._day))}
        for operation, response, count in await self._connection.fetch(_KEPT):
            asked[operation, response] = asked.get((operation, response), 0) - count
        return {f"{operation} {response}": left for (operation, response), left in sorted(asked.items()) if left}

    async def _rows(self, query: str, *arguments: str) -> AsyncIterator[Any]:
        async for row in self._connection.cursor(query.format(day=self._day), *arguments, prefetch=CURSOR_ROWS):
            yield row

    async def _copy(self, name: str, header: str, query: str) -> int:
        with RowWriter(self._folder / name, header) as file:
            async for row in self._rows(query):
                file.write(row)
            return file.rows

    async def _terminals(self) -> int:
        with RowWriter(self._folder / "terminals.csv", TERMINALS_HEADER) as file:
            async for row in self._rows("SELECT terminal_id, merchant_id, kind, zone FROM replayed_terminal ORDER BY 1"):
                file.write((*row, secrets.token_hex(16)))
            return file.rows

    async def _cards(self) -> tuple[int, int]:
        """Write the cards; gives how many, and how many purses are in debt."""
        taken = array("Q")
        before = None
        debts = 0
        with RowWriter(self._folder / "cards.csv", CARDS_HEADER) as file:
            async for number, holder_id, card_class, answer, cash, subsidy in self._rows(_OPENINGS, self._pseudonyms.order):
                card = self._pseudonyms.card(number)
                taken.append(int(card))
                # Purses are opened once, by the first of a holder's cards.
                opening = (max(cash, 0), max(subsidy, 0)) if holder_id != before else (0, 0)
                debts += holder_id != before and cash < 0
                before = holder_id
                file.write((card, self._pseudonyms.holder(holder_id), card_class, *STATES[answer], *opening))
        if len(set(taken)) < len(taken):
            raise ExportFailed("Two cards would have one pseudonym; run the export again with another key.")
        return len(taken), debts

    async def _entries(self) -> dict[str, int]:
        purchases = approved = reversals = fen = offset = 0
        begins: datetime.datetime | None = None
        with RowWriter(self._folder / REPLAY_NAME, CSV_HEADER) as file:
            async for _, _, at, terminal_id, number, operation, amount, response in self._rows(_ENTRIES):
                begins = begins or at
                # A clock that was set back must not turn the order around.
                offset = max(offset, (at - begins) // datetime.timedelta(milliseconds=1))
                if operation == Operation.REVERSAL:
                    reversals += 1
                    fen -= amount
                    amount = 0  # noqa: PLW2901 - in a replay a reversal has none
                else:
                    purchases += 1
                    approved += response == "00"
                    fen += amount if response == "00" else 0
                file.write((offset, terminal_id, self._pseudonyms.card(number), operation, amount))
            requests = file.rows
        return {
            "requests": requests,
            "purchases": purchases,
            "approved": approved,
            "reversals": reversals,
            "fen": fen,
            "lasts_ms": offset,
        }
