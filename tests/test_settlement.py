import asyncio
import datetime
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from switch import settlement
from switch.settlement import PositionMoved, Settlement, SettlementRefused
from tests import journal_double as double
from tests.conftest import fetch, run_asyncio
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
        ]
        assert await fetch(database_url, "SELECT journal, position FROM journal_position") == [(JOURNAL, 0)]

    run_asyncio(run())


def test_a_schema_from_the_future_is_refused(database_url: str) -> None:
    async def run() -> None:
        await settle(database_url)
        await fetch(database_url, "INSERT INTO schema_migration (number, name) VALUES (9999, 'later')")
        await settle(database_url)

    with pytest.raises(SettlementRefused, match=r"schema version 9999.*knows 2"):
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
        assert rows == [
            *[(60, date, at[0], "purchase", "51", "T0000001", "M0", "620010", "H10", 60, noon, 0, 0, 0, None, 0, None, 1)],
            *[(99, date, at[1], "purchase", "00", "T0000005", "M4", "620049", "H49", 99, noon, 64, 64, 0, None, 0, None, 1)],
            *[(100, date, at[2], "reversal", "00", "T0000005", "M4", "620049", "H49", 100, noon, 64, 64, 0, 99, 0, None, 1)],
        ]
        assert await fetch(database_url, "SELECT * FROM posting WHERE position = 99") == [(99, date, 0, 104, 5, 64)]
        assert await fetch(database_url, "SELECT * FROM card WHERE card_number = '620049'") == [
            ("620049", "H49", "student", "active", date)
        ]
        assert await fetch(database_url, "SELECT * FROM merchant WHERE merchant_id = 'M4'") == [("M4", "食堂 4", "canteen", 0, 5)]
        assert await fetch(database_url, "SELECT * FROM cardholder WHERE holder_id = 'H49'") == [("H49", 104, 105)]
        epoch = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
        assert await fetch(database_url, "SELECT * FROM operator_action") == [(1, epoch, "import", "卡.csv: 50")]
        # The newest state wins: both chunks brought this account and this terminal.
        assert await fetch(database_url, "SELECT * FROM account WHERE account = 104") == [(104, "cash", "H49", 100_000, 0)]
        assert await fetch(database_url, "SELECT * FROM terminal") == [("T0000001", "M0", "pos", "north", False)]
        assert await fetch(database_url, "SELECT position FROM journal_position") == [(110,)]

    run_asyncio(run())


def test_each_business_date_has_its_partitions(database_url: str, replica: Replica) -> None:
    async def run() -> None:
        await settle(database_url, collect(replica, 1500), collect(replica, 1500))
        rows = await fetch(
            database_url,
            "SELECT tableoid::regclass::text, min(business_date), max(business_date), count(*) FROM transaction GROUP BY 1 ORDER BY 1",
        )
        dates = [datetime.date(2026, 11, day) for day in (22, 23, 24, 25)]
        names = ["transaction_2026_11_22", "transaction_2026_11_23", "transaction_2026_11_24", "transaction_2026_11_25"]
        counts = [999 - double.HOLDERS, 1000, 1000, 1]
        assert rows == list(zip(names, dates, dates, counts, strict=True))

    run_asyncio(run())


def test_a_reader_does_not_hold_up_a_new_business_date(database_url: str, replica: Replica) -> None:
    async def run() -> None:
        await settle(database_url, collect(replica, 100))
        reader = await asyncpg.connect(database_url)
        async with reader.transaction(isolation="repeatable_read"):
            before = await reader.fetchval("SELECT count(*) FROM transaction")
            async with asyncio.timeout(20):
                await settle(database_url, collect(replica, 2000))
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
        chunk = collect(replica, 2000)
        outcomes = await asyncio.gather(*(settle(database_url, chunk) for _ in range(3)), return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", "PositionMoved", "PositionMoved"]
        assert await fetch(database_url, "SELECT count(*) FROM transaction") == [(2000 - double.HOLDERS,)]

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
        chunk, statements = collect(replica, 1200), 1
        everything = (
            "SELECT (SELECT position FROM journal_position), (SELECT count(*) FROM transaction), (SELECT count(*) FROM posting),"
            " (SELECT count(*) FROM account), (SELECT count(*) FROM card), (SELECT count(*) FROM operator_action)"
        )
        while not await attempt(chunk, statements):
            assert await fetch(database_url, everything) == [(0, 0, 0, 0, 0, 0)]
            statements += 1
        assert statements > 15, "position, two dates, two streams, six staged tables in three steps each"
        transactions = 1200 - double.HOLDERS
        postings = sum(double.posting(position) is not None for position in range(1, 1201))
        assert await fetch(database_url, everything) == [
            (1200, transactions, postings, 1 + double.MERCHANTS + double.HOLDERS, double.HOLDERS, 1)
        ]

    run_asyncio(run())


def test_what_was_spent_is_told_by_merchant_card_and_terminal(database_url: str, replica: Replica) -> None:
    async def run() -> None:
        await settle(database_url, collect(replica, 3000))
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


def test_a_failure_is_one_sentence() -> None:
    assert settlement.reason(TimeoutError()) == "PostgreSQL: it does not answer."
    assert settlement.reason(asyncpg.PostgresError("no\nspace left.")) == "PostgreSQL: no space left."
    assert settlement.reason(ConnectionResetError()) == "PostgreSQL: ConnectionResetError."
