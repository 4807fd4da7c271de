import asyncio
import datetime
import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from switch import settlement
from switch.settlement import PositionMoved, Settlement, SettlementRefused
from tests import journal_double as double
from tests.conftest import execute, fetch, run_asyncio
from tests.journal_double import Chunk, Replica

JOURNAL = "00112233445566778899aabbccddeeff"


@pytest.fixture
def replica(tmp_path: Path) -> Replica:
    folder = Replica.create(tmp_path / "journal", JOURNAL)
    Replica.make_durable(folder, 100_000)
    return Replica(folder)


def collect(replica: Replica, records: int) -> Chunk:
    chunk = replica.collect(records)
    assert chunk is not None
    return chunk


def collect_until(replica: Replica, position: int) -> list[Chunk]:
    """As many chunks as it takes; each is of one business date."""
    chunks = []
    while replica.position < position:
        chunks.append(collect(replica, position - replica.position))
    return chunks


async def settle(address: str, *chunks: Chunk) -> None:
    async with Settlement.connect(address) as database:
        await database.migrate()
        await database.follow(JOURNAL)
        for chunk in chunks:
            await database.commit(JOURNAL, chunk)


def test_two_processes_may_make_the_schema_at_once(database_url: str) -> None:
    async def run() -> None:
        await asyncio.gather(*(settle(database_url) for _ in range(4)))
        await settle(database_url)
        assert await fetch(database_url, "SELECT number, name FROM schema_migration") == [
            (1, "0001_settlement"),
            (2, "0002_history"),
            (3, "0003_slices"),
            (4, "0004_operations"),
        ]
        assert await fetch(database_url, "SELECT journal, position FROM journal_position") == [(JOURNAL, 0)]

    run_asyncio(run())


def test_a_schema_from_the_future_is_refused(database_url: str) -> None:
    async def run() -> None:
        await settle(database_url)
        await fetch(database_url, "INSERT INTO schema_migration (number, name) VALUES (9999, 'later')")
        await settle(database_url)

    with pytest.raises(SettlementRefused, match=r"schema version 9999.*knows 4"):
        run_asyncio(run())


def test_another_journal_is_refused(database_url: str) -> None:
    async def run() -> None:
        await settle(database_url)
        async with Settlement.connect(database_url) as database:
            await database.follow("ff" * 16)

    with pytest.raises(SettlementRefused, match=f"follows the journal {JOURNAL}, not this one, {'ff' * 16}"):
        run_asyncio(run())


def test_rows_arrive_as_they_were_encoded(database_url: str, replica: Replica) -> None:
    async def run() -> None:
        await settle(database_url, collect(replica, 60), collect(replica, 50))
        rows = await fetch(database_url, "SELECT * FROM transaction WHERE position IN (60, 99, 100) ORDER BY position")
        date, midnight = datetime.date(2026, 11, 22), datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC)
        noon = datetime.datetime(2026, 11, 22, 12)  # noqa: DTZ001 - the terminal's own clock
        at = [midnight + datetime.timedelta(microseconds=position) for position in (60, 99, 100)]
        plain, undone = (None, None, None, False), (None, "purchase", None, False)
        assert rows == [
            (60, date, at[0], "purchase", "51", "T0000001", "M0", "620010", "H10", 60, noon, 0, 0, 0, None, 0, None, 1, *plain),
            (99, date, at[1], "purchase", "00", "T0000005", "M4", "620049", "H49", 99, noon, 64, 64, 0, None, 0, None, 1, *plain),
            (100, date, at[2], "reversal", "00", "T0000005", "M4", "620049", "H49", 100, noon, 64, 64, 0, 99, 0, None, 1, *undone),
        ]
        assert await fetch(database_url, "SELECT * FROM posting WHERE position = 99") == [(99, date, 0, 104, 5, 64)]
        assert await fetch(database_url, "SELECT * FROM card WHERE card_number = '620049'") == [
            ("620049", "H49", "student", "active", date, False)
        ]
        assert await fetch(database_url, "SELECT * FROM merchant WHERE merchant_id = 'M4'") == [("M4", "食堂 4", "canteen", 0, 5)]
        assert await fetch(database_url, "SELECT * FROM cardholder WHERE holder_id = 'H49'") == [("H49", 104, 105)]
        epoch = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
        assert await fetch(database_url, "SELECT * FROM operator_action") == [(1, epoch, "import", "卡.csv: 50")]
        # The newest state wins: both chunks brought this account and this terminal.
        assert await fetch(database_url, "SELECT * FROM account WHERE account = 104") == [(104, "cash", "H49", 100_000, 0)]
        assert await fetch(database_url, "SELECT * FROM terminal") == [("T0000001", "M0", "pos", "north", False, 1, "active")]
        assert await fetch(database_url, "SELECT position FROM journal_position") == [(110,)]

    run_asyncio(run())


def test_each_business_date_has_its_partitions(database_url: str, replica: Replica) -> None:
    async def run() -> None:
        await settle(database_url, *collect_until(replica, 1500), *collect_until(replica, 3000))
        rows = await fetch(
            database_url,
            "SELECT tableoid::regclass::text, min(business_date), max(business_date), count(*) FROM transaction GROUP BY 1 ORDER BY 1",
        )
        dates = [datetime.date(2026, 11, day) for day in (22, 23, 24, 25)]
        names = ["transaction_2026_11_22_0", "transaction_2026_11_23_0", "transaction_2026_11_24_0", "transaction_2026_11_25_0"]
        counts = [999 - double.HOLDERS, 1000, 1000, 1]
        assert rows == list(zip(names, dates, dates, counts, strict=True))

    run_asyncio(run())


TREE = (
    "SELECT relid::regclass::text, pg_get_expr(relpartbound, relid) FROM pg_partition_tree('transaction') JOIN pg_class ON oid = relid"
    " WHERE isleaf ORDER BY 1"
)


def test_a_slice_is_full_at_its_last_position(database_url: str, replica: Replica, tmp_path: Path) -> None:
    async def run() -> None:
        border = settlement.SLICE_RECORDS
        Replica.make_durable(tmp_path / "journal", border + 500)
        await settle(database_url)
        replica.advance(border - 101)
        await execute(database_url, f"UPDATE journal_position SET position = {border - 101}")  # noqa: S608
        chunks = [collect(replica, 100), *collect_until(replica, border + 300)]
        assert chunks[0].last == border - 1
        await settle(database_url, *chunks)
        await settle(database_url, *collect_until(replica, border + 500))
        (one, _), (other, bounds) = await fetch(database_url, TREE)
        assert (one[-2:], other[-2:]) == ("_0", "_1")
        assert bounds == f"FOR VALUES FROM ('{border}') TO ('{2 * border}')"
        held = "SELECT tableoid::regclass::text, min(position), max(position), count(*) FROM transaction GROUP BY 1 ORDER BY 1"
        assert await fetch(database_url, held) == [(one, border - 100, border - 1, 100), (other, border, border + 500, 501)]
        with pytest.raises(AssertionError, match="one slice"):
            await settle(database_url, chunks[0]._replace(last=border))

    run_asyncio(run())


INDEXED = {
    "card_number = '620049'": "card_number_idx",
    "merchant_id = 'M4'": "merchant_id_idx",
    "terminal_id = 'T0000005'": "terminal_id_idx",
    "business_date = '2026-11-23' AND position = 1500": "pkey",
}


def test_every_slice_has_the_indexes_that_questions_need(database_url: str, replica: Replica) -> None:
    async def run() -> None:
        # Slices that were filled before they had indexes, and afterwards too.
        await settle(database_url, *collect_until(replica, 1500), *collect_until(replica, 1600), *collect_until(replica, 2500))
        await execute(database_url, "VACUUM ANALYZE")
        for condition, index in INDEXED.items():
            connection = await asyncpg.connect(database_url, server_settings={"enable_seqscan": "off"})
            lines = [row[0] for row in await connection.fetch(f"EXPLAIN SELECT * FROM transaction WHERE {condition}")]  # noqa: S608
            await connection.close()
            slices = ["transaction_2026_11_23_0"] if "date" in condition else [f"transaction_2026_11_{day}_0" for day in (22, 23, 24)]
            for name in slices:
                assert any(f"{name}_{index}" in line for line in lines), lines
            assert not any("Seq Scan" in line for line in lines), lines
        invalid = "SELECT count(*) FROM pg_index WHERE NOT (indisvalid AND indisready)"
        assert await fetch(database_url, invalid) == [(0,)]
        persistence = "SELECT DISTINCT relpersistence FROM pg_class WHERE relname LIKE 'transaction%' OR relname LIKE 'posting%'"
        assert await fetch(database_url, persistence) == [(b"p",)], "all is kept as well as anything"

    run_asyncio(run())


def test_a_position_is_never_there_twice(database_url: str, replica: Replica) -> None:
    """Whatever a follower believes: the key holds in a slice that got its rows before it had one, too."""

    async def run() -> None:
        chunk = collect(replica, 100)
        await settle(database_url, chunk)
        for table in ("transaction", "posting"):
            with pytest.raises(asyncpg.UniqueViolationError):
                await execute(database_url, f"INSERT INTO {table} SELECT * FROM {table} WHERE position = 99")  # noqa: S608
        await execute(database_url, "TRUNCATE transaction, posting", "DROP TABLE transaction_2026_11_22, posting_2026_11_22")
        await execute(database_url, "UPDATE journal_position SET position = 0")
        header, trailer = 19, 2
        rows = chunk.tables["transaction"]
        doubled = rows[:-trailer] + rows[header:]
        with pytest.raises(asyncpg.UniqueViolationError):
            await settle(database_url, chunk._replace(tables={**chunk.tables, "transaction": doubled}))
        assert await fetch(database_url, "SELECT position FROM journal_position") == [(0,)]

    run_asyncio(run())


ADDED_LATER = {"transaction": 4, "card": 1, "terminal": 2}
"""Columns that tables got by migration 4."""


async def settle_as_before(connection: "asyncpg.Connection[asyncpg.Record]", version: int, chunk: Chunk) -> None:
    """Add a chunk as versions 2 and 3 did."""
    date, slice_number = datetime.date.fromisoformat(chunk.business_date), chunk.first // settlement.SLICE_RECORDS
    is_new = version == 3 and await connection.fetchval("SELECT open_slice($1, $2)", date, slice_number)
    if version == 2:
        await connection.execute("SELECT open_business_date($1)", date)
    for name, rows in chunk.tables.items():
        table, old = settlement.TABLES[name], ADDED_LATER.get(name, 0)
        if table.key and chunk.first > 1:
            continue
        await connection.copy_to_table(
            f"{name}_{date:%Y_%m_%d}_{slice_number}" if table.is_sliced and is_new else name,
            source=io.BytesIO(double.without_last(rows, old)),
            columns=table.columns[: len(table.columns) - old],
            format="binary",
        )
    if is_new:
        await connection.execute("SELECT attach_slice($1, $2)", date, slice_number)


@pytest.mark.parametrize("version", [2, 3])
def test_a_database_of_a_version_before_goes_on_where_it_is(
    database_url: str, replica: Replica, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    async def run() -> None:
        steps = settlement._migrations()
        old = collect_until(replica, 1200)
        with monkeypatch.context() as before:
            before.setattr(settlement, "_migrations", lambda: steps[:version])
            await settle(database_url)
        connection = await asyncpg.connect(database_url)
        for chunk in old:
            await settle_as_before(connection, version, chunk)
        for account, balance in enumerate(replica._balances):
            await connection.execute("UPDATE account SET balance = $2 WHERE account = $1", account, balance)
        await connection.execute("UPDATE journal_position SET position = 1200")
        kept = "SELECT position, operation, response, card_number, amount, cash, batch_number FROM transaction ORDER BY position"
        rows = await connection.fetch(kept)
        await connection.close()
        async with Settlement.connect(database_url) as database:
            # A reconciliation may come before any follower.
            assert (await database.books()).held == {}
        await settle(database_url, *collect_until(replica, 3000))
        slices = [name for name, _ in await fetch(database_url, TREE)]
        first = "" if version == 2 else "_0"
        assert slices == [
            f"transaction_2026_11_22{first}",
            f"transaction_2026_11_23{first}",
            *("transaction_2026_11_24_0", "transaction_2026_11_25_0"),
        ]
        assert await fetch(database_url, f"SELECT * FROM ({kept}) AS kept WHERE position <= 1200") == [tuple(row) for row in rows]  # noqa: S608
        counted = "SELECT count(*), count(DISTINCT position), min(position), max(position) FROM transaction"
        assert await fetch(database_url, counted) == [(3000 - double.HOLDERS, 3000 - double.HOLDERS, double.HOLDERS + 1, 3000)]
        new = "SELECT count(detail), count(*) FILTER (WHERE is_advice) FROM transaction WHERE operation = 'reversal'"
        # Rows of before have nothing in the new columns; of a reversal, from then on, what it undid stands there.
        assert await fetch(database_url, new) == [(18, 0)]
        async with Settlement.connect(database_url) as database:
            books = await database.books()
            assert await database.spent("merchant_id") == double.spent(3000)
        assert {number: account.balance for number, account in books.accounts.items()} == books.posted
        # Every slice, of before and from now on, has every index that the whole has.
        indexes = (
            "SELECT count(*) FILTER (WHERE indexdef LIKE '%(original)%'), count(*) FILTER (WHERE indexdef LIKE '%(operation, detail)%'),"
            " count(DISTINCT tablename) FROM pg_indexes WHERE tablename = ANY($1)"
        )
        connection = await asyncpg.connect(database_url)
        assert tuple(await connection.fetchrow(indexes, slices) or ()) == (4, 4, 4)
        await connection.close()

    run_asyncio(run())


def loan(item: str, position: int | None) -> tuple[bytes | None, ...]:
    """A row of `loan`; without a position one that has ended."""
    if position is None:
        return (item.encode(), None, None, None, None)
    return (item.encode(), double.int8(position), double.date(double.FIRST_DATE), b"62", b"H1")


def test_what_has_ended_is_taken_away_and_what_is_a_list_is_replaced(database_url: str, replica: Replica) -> None:
    async def run() -> None:
        def chunk(**tables: list[tuple[bytes | None, ...]]) -> Chunk:
            return collect(replica, 1)._replace(tables={name: double.copy_stream(rows) for name, rows in tables.items()})

        def rule(number: int, name: str) -> tuple[bytes, ...]:
            return (double.int4(number), double.int8(1), name.encode(), *[b""] * 7)

        def batch(number: int, status: bytes | None, closed: int | None, count: int | None) -> tuple[bytes | None, ...]:
            counted = None if count is None else double.int8(count)
            at = None if closed is None else double.int8(0)
            return (b"T1", double.int4(number), status, None if closed is None else double.int8(closed), at, *[counted] * 8)

        look = "SELECT (SELECT array_agg(item || position ORDER BY item) FROM loan), (SELECT array_agg(rule ORDER BY number) FROM rule)"
        batches = "SELECT number, status, closed_position, debit_count FROM batch ORDER BY 1"
        await settle(
            database_url,
            chunk(
                loan=[loan("A", 7), loan("B", 8), loan("C", None)], rule=[rule(1, "one"), rule(2, "two")], batch=[batch(1, None, None, 4)]
            ),
        )
        assert await fetch(database_url, look) == [(["A7", "B8"], ["one", "two"])]
        assert await fetch(database_url, batches) == [(1, "open", None, 4)]
        await settle(
            database_url, chunk(loan=[loan("A", None), loan("B", 9)], batch=[batch(1, b"closed", 5, 6), batch(2, b"differs", 7, 1)])
        )
        assert await fetch(database_url, look) == [(["B9"], ["one", "two"])]
        assert await fetch(database_url, batches) == [(1, "closed", 5, 6), (2, "differs", 7, 1)]
        # What is counted to a closed batch leaves it closed.
        await settle(
            database_url, chunk(loan=[loan("A", 11)], rule=[rule(1, "three")], batch=[batch(1, None, None, 7), batch(2, b"closed", 8, 2)])
        )
        assert await fetch(database_url, look) == [(["A11", "B9"], ["three"])]
        assert await fetch(database_url, batches) == [(1, "closed", 5, 7), (2, "closed", 8, 2)]
        # The totals of one that the ledger has forgotten stay as they were.
        await settle(database_url, chunk(batch=[batch(2, b"differs", 9, None), batch(3, b"differs", 10, None)]))
        assert await fetch(database_url, batches) == [(1, "closed", 5, 7), (2, "differs", 9, 2), (3, "differs", 10, 0)]
        await settle(database_url, chunk(rule=[]))
        assert await fetch(database_url, look) == [(["A11", "B9"], None)]

    run_asyncio(run())


def test_a_reader_does_not_hold_up_a_new_business_date(database_url: str, replica: Replica) -> None:
    async def run() -> None:
        await settle(database_url, collect(replica, 100))
        reader = await asyncpg.connect(database_url)
        async with reader.transaction(isolation="repeatable_read"):
            before = await reader.fetchval("SELECT count(*) FROM transaction")
            async with asyncio.timeout(20):
                await settle(database_url, *collect_until(replica, 2000))
            assert await reader.fetchval("SELECT count(*) FROM transaction") == before
        await reader.close()

    run_asyncio(run())


def test_a_chunk_that_does_not_follow_the_position_leaves_nothing(database_url: str, replica: Replica) -> None:
    async def run() -> None:
        first, second, third = (collect(replica, 100) for _ in range(3))
        await settle(database_url, first)
        for wrong in (first, third):
            with pytest.raises(PositionMoved):
                await settle(database_url, wrong)
        await settle(database_url, second, third)
        assert await fetch(database_url, "SELECT count(*), count(DISTINCT position), max(position) FROM transaction") == [(250, 250, 300)]

    run_asyncio(run())


def test_of_two_followers_with_the_same_chunk_one_succeeds(database_url: str, replica: Replica) -> None:
    async def run() -> None:
        await settle(database_url)
        chunk = collect(replica, 900)
        outcomes = await asyncio.gather(*(settle(database_url, chunk) for _ in range(3)), return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", "PositionMoved", "PositionMoved"]
        assert await fetch(database_url, "SELECT count(*) FROM transaction") == [(900 - double.HOLDERS,)]

    run_asyncio(run())


class CutConnection:
    """A connection whose server process is killed before its n-th statement."""

    def __init__(self, connection: Any, kill: Callable[[int], Awaitable[object]], statements: int) -> None:
        self._connection, self._kill, self._left = connection, kill, statements

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._connection, name)
        if name not in {"execute", "copy_to_table", "fetchval", "fetchrow", "fetch"}:
            return method

        async def counted(*arguments: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                await self._kill(self._connection.get_server_pid())
            return await method(*arguments, **options)

        return counted

    @property
    def left(self) -> int:
        return self._left


def test_a_connection_killed_before_any_statement_leaves_all_or_nothing(database_url: str, replica: Replica) -> None:
    async def attempt(chunk: Chunk, statements: int) -> int:
        """Commit a chunk with a kill on the way; returns how many statements were left when it was through, 0 where it was not."""
        killer = await asyncpg.connect(database_url)

        async def kill(pid: int) -> None:
            await killer.execute("SELECT pg_terminate_backend($1, 10000)", pid)

        try:
            async with Settlement.connect(database_url) as database:
                cut = CutConnection(database._connection, kill, statements)
                database._connection = cut  # type: ignore[assignment]
                await database.commit(JOURNAL, chunk)
                return cut.left
        except settlement.LOST:
            return 0
        finally:
            await killer.close()

    async def run() -> None:
        await settle(database_url)
        chunk, statements = collect(replica, 900), 1
        slices = "SELECT count(*) FROM pg_class WHERE relname LIKE '%2026%'"
        everything = (
            "SELECT (SELECT position FROM journal_position), (SELECT count(*) FROM transaction), (SELECT count(*) FROM posting),"
            " (SELECT count(*) FROM account), (SELECT count(*) FROM card), (SELECT count(*) FROM operator_action)"
        )
        while not await attempt(chunk, statements):
            assert await fetch(database_url, everything) == [(0, 0, 0, 0, 0, 0)]
            assert await fetch(database_url, slices) == [(0,)]
            statements += 1
        assert statements > 25, "position, slice, three streams, five staged tables in four steps each, slice"
        transactions = 900 - double.HOLDERS
        postings = sum(double.posting(position) is not None for position in range(1, 901))
        assert await fetch(database_url, everything) == [
            (900, transactions, postings, 1 + double.MERCHANTS + double.HOLDERS, double.HOLDERS, 1)
        ]

    run_asyncio(run())


def test_what_was_spent_is_told_by_merchant_card_and_terminal(database_url: str, replica: Replica) -> None:
    async def run() -> None:
        await settle(database_url, *collect_until(replica, 3000))
        async with Settlement.connect(database_url) as database:
            expected = double.spent(3000)
            assert await database.spent("merchant_id") == expected
            assert await database.spent("terminal_id") == {f"T{int(name[1:]) + 1:07}": amount for name, amount in expected.items()}
            by_card = await database.spent("card_number")
            books = await database.books()
        left = {
            f"62{int(account.owner[1:]):04}": 100_000 - account.balance for account in books.accounts.values() if account.kind == "cash"
        }
        assert by_card == {card: amount for card, amount in left.items() if amount}
        assert {number: account.balance for number, account in books.accounts.items()} == books.posted
        assert (books.journal, books.position, sum(books.posted.values())) == (JOURNAL, 3000, 0)

    run_asyncio(run())


def test_a_commit_is_on_disk_whatever_the_server_does_for_others(database_url: str) -> None:
    async def run() -> None:
        name = await fetch(database_url, "SELECT current_database()")
        await execute(database_url, f"ALTER DATABASE {name[0][0]} SET synchronous_commit = off")
        assert await fetch(database_url, "SHOW synchronous_commit") == [("off",)]
        async with Settlement.connect(database_url) as database:
            assert await database._connection.fetchval("SHOW synchronous_commit") == "on"

    run_asyncio(run())


def test_a_failure_is_one_sentence() -> None:
    assert settlement.reason(TimeoutError()) == "PostgreSQL: it does not answer."
    assert settlement.reason(asyncpg.PostgresError("no\nspace left.")) == "PostgreSQL: no space left."
    assert settlement.reason(ConnectionResetError()) == "PostgreSQL: ConnectionResetError."
