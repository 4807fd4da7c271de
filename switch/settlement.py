"""The settlement database: its tables, and how rows come into them and out again for a comparison (`switch.export` reads a day).

For what: PostgreSQL holds what happened in tables that people and other programs can ask, and follows the journal. It
decides nothing.

Always true here: rows and the journal position that they belong to are committed in one transaction, with the position
before as its condition. So every record arrives once and in order, whatever dies, and whoever else writes. A database
follows one journal for ever; another one's records are refused.

How it works: a chunk brings each table's rows as a complete binary COPY stream, encoded by the core. Rows that are only
ever added go straight into their table. What there is most of is kept by business date and slice of the journal: the first chunk of a
slice goes into tables that are still without indexes and become part of their day at its end, so that the indexes are built at one go;
while much is to be caught up with, every chunk is a slice. Rows that are the newest state of something go into a temporary table of
the same shape and from there over the old ones; one that has nothing but its key takes the old one away. A list that is in force as a whole
is replaced as a whole.

Asyncio, because asyncpg knows nothing else; the process that follows the journal and the offline commands use it, the
switch itself (trio) does not.
"""

import contextlib
import datetime
import importlib.resources
from collections.abc import AsyncIterator, Mapping
from typing import Final, Literal, NamedTuple, Protocol, Self

import asyncpg

__all__ = ["LOST", "Account", "Books", "Chunk", "Followed", "PositionMoved", "Settlement", "SettlementRefused", "reason"]

CONNECT_SECONDS: Final = 5.0
"""To reach PostgreSQL and to be let in; one that is frozen accepts and stays silent."""

COMMAND_SECONDS: Final = 120.0
"""For one statement. Far above the slowest chunk, because a chunk that is given up is sent again from its start."""

MIGRATION_SECONDS: Final = 3600.0
"""For one step of the schema, which may make an index of all that is there, and waits for whoever reads."""

CLOSE_SECONDS: Final = 2.0
"""For an orderly goodbye; after that the connection is dropped."""

SLICE_RECORDS: Final = 262_144
"""Positions of the journal in a slice. Fixed for ever: the tables of databases out there are cut so (migration 3)."""

COPY_BYTES: Final = 256 * 1024
"""Of a stream that are handed over at a time, so that the next ones need not be copied before the server has taken these."""

MIGRATION_LOCK: Final = 0x43414D505553
"""The advisory lock under which the schema is changed ("CAMPUS")."""

LOST: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""What the database or the way to it may raise at any time. The answer to all of them is a new connection."""


class SettlementRefused(Exception):
    """One sentence for the operator: this database and this journal or program do not belong together."""


class PositionMoved(Exception):
    """The database is not where the chunk begins; nothing of the chunk was kept."""


class Chunk(Protocol):
    """A run of records as rows, all in one slice. `tables` maps a table's name to its complete binary COPY stream."""

    @property
    def first(self) -> int:
        """The position of its first record."""

    @property
    def last(self) -> int:
        """The position of its last record, as of which its newest states are."""

    @property
    def business_date(self) -> str:
        """The business date (`YYYY-MM-DD`) that its rows belong to."""

    @property
    def tables(self) -> Mapping[str, bytes]:
        """The tables that get rows."""

    @property
    def rows(self) -> int:
        """Rows in all tables."""

    @property
    def hash(self) -> str:
        """Hash of the journal's batch that holds its last record."""


class Followed(NamedTuple):
    """How far the database has followed its journal."""

    position: int
    """The last record that it has; 0: none."""
    hash: str | None
    """Hash of the batch that holds that record; None where it was not kept yet."""


class Account(NamedTuple):
    """One account. `balance` and `holds` are in fen."""

    account: int
    kind: str
    owner: str
    balance: int
    holds: int


class Books(NamedTuple):
    """What the database holds at one moment; amounts in fen."""

    journal: str
    position: int
    hash: str | None
    """Hash of the batch that holds the record at `position`."""
    accounts: dict[int, Account]
    posted: dict[int, int]
    """What each account's postings add up to, by account."""
    held: dict[str, int]
    """What the open holds of each holder's cash purse add up to, by holder."""
    postings: int
    turnover: int
    """The sum of all postings."""
    transactions: int


class _Table(NamedTuple):
    columns: tuple[str, ...]
    key: tuple[str, ...] = ()
    """Of a table that holds newest states; empty: rows are only ever added."""
    is_sliced: bool = False
    """Whether it is kept by business date and slice."""
    is_list: bool = False
    """Whether a chunk that has it has all of it."""
    ends: bool = False
    """Whether a row whose first column behind the key is NULL takes the old one away."""
    kept: Mapping[str, str] = {}
    """Columns in which NULL leaves what stands there, with SQL for a row that is new."""


TABLES: Final = {
    "transaction": _Table(
        (
            *("position", "business_date", "at", "operation", "response", "terminal_id", "merchant_id", "card_number", "holder_id"),
            *("stan", "local_time", "amount", "cash", "subsidy", "original", "cash_after", "subsidy_after", "batch_number"),
            *("flag", "detail", "surcharge", "is_advice"),
        ),
        is_sliced=True,
    ),
    "posting": _Table(("position", "business_date", "line", "debit_account", "credit_account", "amount"), is_sliced=True),
    "exception": _Table(
        (
            *("position", "business_date", "at", "kind", "operation", "response", "terminal_id", "merchant_id", "card_number"),
            *("stan", "local_time", "amount", "detail"),
        ),
    ),
    "operator_action": _Table(("position", "at", "action", "detail")),
    "account": _Table(("account", "kind", "owner", "balance", "holds"), key=("account",)),
    "cardholder": _Table(("holder_id", "cash_account", "subsidy_account"), key=("holder_id",)),
    "card": _Table(("card_number", "holder_id", "class", "status", "expires", "has_pin"), key=("card_number",)),
    "merchant": _Table(("merchant_id", "name", "category", "fee_bp", "account"), key=("merchant_id",)),
    "terminal": _Table(("terminal_id", "merchant_id", "kind", "zone", "signed_on", "open_batch", "standing"), key=("terminal_id",)),
    "hold": _Table(("position", "at", "terminal_id", "merchant_id", "card_number", "holder_id", "amount"), key=("position",), ends=True),
    "loan": _Table(("item", "position", "business_date", "card_number", "holder_id"), key=("item",), ends=True),
    "batch": _Table(
        (
            *("terminal_id", "number", "status", "closed_position", "closed_at", "credit_count", "credit_amount"),
            *("credit_reversal_count", "credit_reversal_amount", "debit_count", "debit_amount"),
            *("debit_reversal_count", "debit_reversal_amount"),
        ),
        key=("terminal_id", "number"),
        # Totals are not known of a batch that was closed again when the ledger had forgotten it.
        kept={"status": "'open'", "closed_position": "NULL", "closed_at": "NULL"}
        | {f"{side}_{what}": "0" for side in ("credit", "credit_reversal", "debit", "debit_reversal") for what in ("count", "amount")},
    ),
    "rule": _Table(("number", "position", "rule", "class", "category", "zone", "days", "begins", "ends", "value"), is_list=True),
}

SESSION: Final = {
    "application_name": "campus card switch",
    # Whatever the server's default is: by the position that it tells, segments of the journal are taken away.
    "synchronous_commit": "on",
    "timezone": "UTC",
    # The network's or our own sudden end must not keep the position locked for the follower that comes next.
    "idle_in_transaction_session_timeout": "60s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "client_min_messages": "warning",
    # Room for the newest states of a whole slice.
    "temp_buffers": "32MB",
}


class Settlement:
    """One connection to the settlement database. Not for two tasks at once."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection
        # What earlier transactions on this connection have made already.
        self._open_slices: set[tuple[str, int]] = set()
        self._staged: set[str] = set()

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, address: str) -> AsyncIterator[Self]:
        """Connect to `address` (`postgresql://...`) for the length of the block.

        Raises one of `LOST` where that fails, then or later.
        """
        connection = await asyncpg.connect(address, timeout=CONNECT_SECONDS, command_timeout=COMMAND_SECONDS, server_settings=SESSION)
        try:
            yield cls(connection)
        finally:
            try:
                await connection.close(timeout=CLOSE_SECONDS)
            except LOST:
                connection.terminate()

    @property
    def lost(self) -> bool:
        """Whether the connection is known to be gone."""
        return self._connection.is_closed()

    async def migrate(self) -> None:
        """Bring the schema up to this version of the switch.

        Each step is a transaction, under a lock, so that two processes may start at once and a death leaves whole steps.
        Raises `SettlementRefused` where the database is newer than this version.
        """
        migrations = _migrations()
        known = len(migrations)
        for number in range(1, known + 1):
            async with self._connection.transaction():
                await self._connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK)
                applied = await self._schema_version()
                if applied > known:
                    raise SettlementRefused(
                        f"The settlement database has schema version {applied}, but this version of the switch knows"
                        f" {known}: run the newer version of the switch."
                    )
                if applied < number:
                    name, script = migrations[number - 1]
                    await self._connection.execute(script, timeout=MIGRATION_SECONDS)
                    await self._connection.execute("INSERT INTO schema_migration (number, name) VALUES ($1, $2)", number, name)

    async def _schema_version(self) -> int:
        if await self._connection.fetchval("SELECT to_regclass('schema_migration') IS NULL"):
            await self._connection.execute(
                "CREATE TABLE schema_migration"
                " (number integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
            )
        version = await self._connection.fetchval("SELECT coalesce(max(number), 0) FROM schema_migration")
        assert isinstance(version, int)
        return version

    async def follow(self, journal: str) -> Followed:
        """Tie the database to the journal with this identity, once, and return how far it has followed it.

        Raises `SettlementRefused` where it follows another journal.
        """
        query = "SELECT journal, position, hash FROM journal_position"
        row = await self._connection.fetchrow(query)
        if row is None:
            await self._connection.execute(
                "INSERT INTO journal_position (journal, position) VALUES ($1, 0) ON CONFLICT DO NOTHING", journal
            )
            row = await self._connection.fetchrow(query)
        if row is None or row["journal"] != journal:
            raise SettlementRefused(
                f"The settlement database follows the journal {row and row['journal']}, not this one, {journal}: name this"
                " journal's own database in the configuration, or an empty one."
            )
        # Newest states are put over old ones by the key, whatever the planner believes: with a million cards it would be dear to read all
        # accounts for some thousands of them.
        await self._connection.execute("SET enable_hashjoin = off; SET enable_mergejoin = off")
        return Followed(row["position"], row["hash"])

    async def commit(self, journal: str, chunk: Chunk) -> None:
        """Add a chunk's rows and move the position from before its first record to its last: both or nothing.

        Raises `PositionMoved` where the database is elsewhere. Raised by anything in `LOST` while it commits, it leaves open
        whether it did; the position tells.
        """
        slice_number = chunk.first // SLICE_RECORDS
        assert chunk.last // SLICE_RECORDS == slice_number, "a chunk lies in one slice"
        opened = (chunk.business_date, slice_number)
        is_sliced = any(TABLES[name].is_sliced for name in chunk.tables)
        async with self._connection.transaction():
            # First, so that of two followers the second waits here and then finds the position moved.
            moved = await self._connection.execute(
                "UPDATE journal_position SET position = $1, hash = $2, moved_at = now() WHERE journal = $3 AND position = $4",
                chunk.last,
                chunk.hash,
                journal,
                chunk.first - 1,
            )
            if moved != "UPDATE 1":
                raise PositionMoved(f"Somebody else moved the settlement database away from record {chunk.first - 1}; reading where it is.")
            date = datetime.date.fromisoformat(chunk.business_date)
            is_new = False
            if is_sliced and opened not in self._open_slices:
                is_new = await self._connection.fetchval("SELECT open_slice($1, $2)", date, slice_number)
            for name, rows in chunk.tables.items():
                table = TABLES[name]
                if table.key:
                    await self._overwrite(name, table, rows)
                elif table.is_list:
                    await self._connection.execute(f"DELETE FROM {name}")  # noqa: S608
                    await self._copy(name, table, rows)
                elif table.is_sliced and is_new:
                    # Frozen, because nobody can have seen the table yet: its pages are then written once, and not again by a vacuum.
                    await self._copy(f"{name}_{date:%Y_%m_%d}_{slice_number}", table, rows, freeze=True)
                else:
                    await self._copy(name, table, rows)
            if is_new:
                await self._connection.execute("SELECT attach_slice($1, $2)", date, slice_number)
        if is_sliced:
            self._open_slices.add(opened)
        self._staged.update(chunk.tables)

    async def _overwrite(self, name: str, table: _Table, rows: bytes) -> None:
        """Put rows over those with the same key, take away those that have ended, and add those whose key is new."""
        changed = f"changed_{name}"
        columns, key = ", ".join(table.columns), ", ".join(table.key)
        if name not in self._staged:
            # Emptied in place by every commit: a TRUNCATE would leave dead rows in the system catalogue each time. No column is NOT
            # NULL there.
            await self._connection.execute(
                f"CREATE TEMPORARY TABLE IF NOT EXISTS {changed} ON COMMIT DELETE ROWS AS SELECT {columns} FROM {name} WITH NO DATA"  # noqa: S608
            )
        copied = _rows(await self._copy(changed, table, rows, schema="pg_temp"))
        others = [column for column in table.columns if column not in table.key]
        same = " AND ".join(f"{name}.{column} = {changed}.{column}" for column in table.key)
        there = f"{changed}.{others[0]} IS NOT NULL" if table.ends else "true"
        values = {column: f"{changed}.{column}" for column in table.columns}
        updates = {
            column: f"coalesce({changed}.{column}, {name}.{column})" if column in table.kept else values[column] for column in others
        }
        assignments = ", ".join(f"{column} = {value}" for column, value in updates.items())
        updated = await self._connection.execute(
            f"UPDATE {name} SET {assignments} FROM pg_temp.{changed} WHERE {same} AND {there}"  # noqa: S608
        )
        if _rows(updated) < copied:
            if table.ends:
                await self._connection.execute(f"DELETE FROM {name} USING pg_temp.{changed} WHERE {same} AND NOT {there}")  # noqa: S608
            values |= {column: f"coalesce({values[column]}, {default})" for column, default in table.kept.items()}
            await self._connection.execute(
                f"INSERT INTO {name} ({columns}) SELECT {', '.join(values.values())} FROM pg_temp.{changed}"  # noqa: S608
                f" WHERE {there} ON CONFLICT ({key}) DO NOTHING"
            )

    async def _copy(self, name: str, table: _Table, rows: bytes, schema: str | None = None, *, freeze: bool = False) -> str:
        async def stream() -> AsyncIterator[bytes]:
            for start in range(0, len(rows), COPY_BYTES):
                yield rows[start : start + COPY_BYTES]

        return await self._connection.copy_to_table(
            name, source=stream(), columns=table.columns, schema_name=schema, format="binary", freeze=freeze
        )

    async def books(self) -> Books:
        """Everything that a reconciliation compares, all of one moment. Reads every posting."""
        async with self._connection.transaction(isolation="repeatable_read", readonly=True):
            made = await self._connection.fetchval("SELECT to_regclass('journal_position') IS NOT NULL")
            where = await self._connection.fetchrow("SELECT * FROM journal_position") if made else None
            if where is None:
                raise SettlementRefused("The settlement database follows no journal yet: start the switch once.")
            accounts = await self._connection.fetch("SELECT account, kind, owner, balance, holds FROM account")
            posted = await self._connection.fetch(
                "SELECT account, sum(amount)::bigint FROM ("
                " SELECT credit_account AS account, sum(amount) AS amount FROM posting GROUP BY 1"
                " UNION ALL SELECT debit_account, -sum(amount) FROM posting GROUP BY 1"
                ") AS side GROUP BY 1"
            )
            sums = await self._connection.fetchrow(
                "SELECT count(*), coalesce(sum(amount), 0)::bigint, (SELECT count(*) FROM transaction) FROM posting"
            )
            assert sums is not None
            # A database of an earlier version that no follower has brought up to date has no such table, and no hold.
            keeps_holds = await self._connection.fetchval("SELECT to_regclass('hold') IS NOT NULL")
            held = await self._connection.fetch("SELECT holder_id, sum(amount)::bigint FROM hold GROUP BY 1") if keeps_holds else []
        return Books(
            journal=where["journal"],
            position=where["position"],
            # Nor, of one earlier still, such a column.
            hash=where.get("hash"),
            accounts={row[0]: Account(*row) for row in accounts},
            posted={row[0]: row[1] for row in posted},
            held={row[0]: row[1] for row in held},
            postings=sums[0],
            turnover=sums[1],
            transactions=sums[2],
        )

    async def spent(self, by: Literal["terminal_id", "merchant_id", "card_number"]) -> dict[str, int]:
        """What was paid at merchants less what was given back, in fen.

        By terminal or by merchant: what the merchants got. By card: what the holders paid, surcharges with it and discounts not. Those who
        never paid are left out.
        """
        fen = "amount" if by == "card_number" else "earned"
        rows = await self._connection.fetch(f"SELECT {by}, sum({fen})::bigint FROM spending GROUP BY 1")  # noqa: S608
        return {row[0]: row[1] for row in rows}

    async def loaded(self) -> dict[str, int]:
        """By card, in fen: the cash that was handed in at counters, less what was given back. Those who never loaded are left out."""
        rows = await self._connection.fetch(
            "SELECT card_number, sum(CASE debit_account WHEN 0 THEN posting.amount ELSE -posting.amount END)::bigint"
            " FROM posting JOIN transaction USING (business_date, position) WHERE 0 IN (debit_account, credit_account) GROUP BY 1"
        )
        return {row[0]: row[1] for row in rows}


def _rows(status: str) -> int:
    """How many rows a statement was about, by what the server says at its end, such as `COPY 12`."""
    return int(status.rpartition(" ")[2])


def reason(error: BaseException) -> str:
    """A failure in one sentence."""
    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, TimeoutError):
        text = "it does not answer"
    return f"PostgreSQL: {text or type(error).__name__}."


def _migrations() -> list[tuple[str, str]]:
    """The schema's steps, name and script, in order; the first has number 1."""
    files = importlib.resources.files("switch").joinpath("migrations").iterdir()
    steps = sorted((file.name, file) for file in files if file.name.endswith(".sql"))
    for number, (name, _) in enumerate(steps, start=1):
        assert name.startswith(f"{number:04}_"), f"{name} is not migration {number}"
    return [(name.removesuffix(".sql"), file.read_text(encoding="utf-8")) for name, file in steps]
