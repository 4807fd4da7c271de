import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import asyncpg
import msgspec
import pytest

from switch import follow
from switch._core import CoreError
from switch.follow import BESIDE_TERMINALS, Follower, JournalFolder, Pace, Progress, Upkeep
from switch.settlement import Settlement, SettlementRefused
from tests import journal_double as double
from tests.conftest import execute, fetch, run_asyncio
from tests.journal_double import Chunk, Journal, Replica

DEADLINE_SECONDS = 60
SMALL_CHUNK = double.SMALL_CHUNK


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return Replica.create(tmp_path / "journal")


@pytest.fixture
def chance() -> random.Random:
    seed = random.randrange(2**32)  # noqa: S311 - no secret
    print(f"seed {seed}")  # noqa: T201 - shown where the test fails
    return random.Random(seed)  # noqa: S311


class Watched:
    """A follower in this process, its replicas counted, its progress awaited."""

    def __init__(self, address: str, journal: Path, upkeep: Upkeep | None) -> None:
        self.replicas = 0
        self.seen: list[Progress] = []
        self.journal = Journal(journal, SMALL_CHUNK)
        self._news = asyncio.Condition()
        self.follower = Follower(address, self, upkeep, self._report)

    @property
    def identity(self) -> str:
        return self.journal.identity

    def replica(self, until: int) -> Replica:
        self.replicas += 1
        return self.journal.replica(until)

    def claim(self) -> bool:
        return self.journal.claim()

    def _report(self, progress: Progress) -> None:
        self.seen.append(progress)
        self._tell = asyncio.ensure_future(self._notify())

    async def _notify(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def until(self, reached: Callable[[Progress], bool]) -> Progress:
        async with asyncio.timeout(DEADLINE_SECONDS), self._news:
            await self._news.wait_for(lambda: bool(self.seen) and reached(self.seen[-1]))
            return self.seen[-1]

    async def until_settled(self, position: int) -> Progress:
        return await self.until(lambda progress: progress.settled >= position)


@contextlib.asynccontextmanager
async def following(address: str, journal: Path, upkeep: Upkeep | None = None) -> AsyncIterator[Watched]:
    watched = Watched(address, journal, upkeep)
    task = asyncio.create_task(watched.follower.run())
    try:
        yield watched
    finally:
        watched.follower.stop(catch_up=True)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await task


async def assert_settled(address: str, position: int) -> None:
    """Every record up to `position` is there, once, and the balances are what the postings and a replay make them."""
    transactions = position - double.HOLDERS
    assert await fetch(address, "SELECT position FROM journal_position") == [(position,)]
    rows = await fetch(address, "SELECT count(*), count(DISTINCT position), min(position), max(position) FROM transaction")
    assert rows == [(transactions, transactions, double.HOLDERS + 1, position)]
    async with Settlement.connect(address) as database:
        books = await database.books()
    postings = [double.posting(number) for number in range(1, position + 1)]
    balances = dict.fromkeys(books.posted, 0)
    for posting in postings:
        if posting:
            balances[posting[0]] -= posting[2]
            balances[posting[1]] += posting[2]
    assert books.posted == balances
    assert {account.account: account.balance for account in books.accounts.values()} == balances
    assert books.postings == sum(posting is not None for posting in postings)


def test_records_are_settled_as_they_become_durable(database_url: str, journal: Path) -> None:
    async def run() -> None:
        async with following(database_url, journal) as watched:
            started = await watched.until(lambda progress: progress.connected)
            assert (started.settled, started.error, started.rows) == (0, None, 0)
            for durable in (1, 2, 100, 101, 1500):
                Replica.make_durable(journal, durable)
                await watched.until_settled(durable)
            assert watched.replicas == 1
        assert watched.seen[0] == Progress()
        last = watched.seen[-1]
        assert (last.settled, last.durable, last.connected, last.error) == (1500, 1500, False, None)
        (counted,) = await fetch(
            database_url, "SELECT (SELECT count(*) FROM transaction) + (SELECT count(*) FROM posting), (SELECT count(*) FROM account)"
        )
        assert last.rows > counted[0] + counted[1]
        await assert_settled(database_url, 1500)

    run_asyncio(run())


def test_a_stop_leaves_postgresql_at_the_last_durable_record(database_url: str, journal: Path) -> None:
    async def run() -> None:
        Replica.make_durable(journal, 5000)
        async with following(database_url, journal) as watched:
            await watched.until(lambda progress: progress.connected)
        assert watched.seen[-1].settled == 5000
        await assert_settled(database_url, 5000)

    run_asyncio(run())


def test_a_stop_brings_what_became_durable_during_the_last_commit(
    database_url: str, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Settlement.commit
    followers: list[Follower] = []

    async def commit_while_more_comes(self: Settlement, identity: str, chunk: Chunk) -> None:
        await commit(self, identity, chunk)
        (follower,) = followers
        if chunk.last == 300:
            # The look for the next chunk has found nothing, and is over.
            assert follower._encoding is None
            Replica.make_durable(journal, 600)
            follower.stop(catch_up=True)

    async def run() -> None:
        Replica.make_durable(journal, 300)
        watched = Watched(database_url, journal, None)
        followers.append(watched.follower)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await watched.follower.run()
        assert watched.seen[-1].settled == 600
        await assert_settled(database_url, 600)

    monkeypatch.setattr(Settlement, "commit", commit_while_more_comes)
    run_asyncio(run())


def test_killed_connections_lose_and_double_nothing(database_url: str, journal: Path, chance: random.Random) -> None:
    async def run() -> None:
        async with following(database_url, journal) as watched:
            for durable in range(1000, 20_000, 1000):
                Replica.make_durable(journal, durable)
                await watched.until_settled(durable - chance.randrange(1000))
                await execute(
                    database_url,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'campus card switch' AND datname = current_database()",
                )
            await watched.until(lambda progress: progress.settled == 19_000)
            # The chunks in hand were enough each time.
            assert watched.replicas == 1
        await assert_settled(database_url, 19_000)

    run_asyncio(run())


def test_a_connection_lost_while_there_is_nothing_to_do_is_noticed(database_url: str, journal: Path) -> None:
    async def run() -> None:
        Replica.make_durable(journal, 60)
        async with following(database_url, journal) as watched:
            await watched.until_settled(60)
            await execute(
                database_url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'campus card switch'"
            )
            await watched.until(lambda progress: progress.error == "PostgreSQL: it closed the connection.")
            await watched.until(lambda progress: progress.connected and progress.error is None)

    run_asyncio(run())


def test_a_commit_whose_answer_is_lost_is_not_repeated(database_url: str, journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = Settlement.commit
    lost = {SMALL_CHUNK, SMALL_CHUNK * 4}

    async def commit_and_lose(self: Settlement, identity: str, chunk: Chunk) -> None:
        await commit(self, identity, chunk)
        if chunk.last in lost:
            lost.remove(chunk.last)
            raise ConnectionResetError("lost on the way back")

    async def run() -> None:
        Replica.make_durable(journal, 1000)
        async with following(database_url, journal) as watched:
            await watched.until_settled(1000)
            assert watched.replicas == 1
        assert not lost
        await assert_settled(database_url, 1000)

    monkeypatch.setattr(Settlement, "commit", commit_and_lose)
    run_asyncio(run())


def test_no_more_than_two_chunks_are_in_hand(database_url: str, journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = Settlement.commit
    followers: list[Follower] = []
    held: list[int] = []

    async def commit_and_count(self: Settlement, identity: str, chunk: Chunk) -> None:
        (follower,) = followers
        held.append(len(follower._chunks) + (follower._encoding is not None))
        if len(held) == 2:
            # Both are encoded when the first of them fails.
            assert follower._encoding is not None
            await asyncio.wait([follower._encoding])
            raise ConnectionResetError
        await commit(self, identity, chunk)

    async def run() -> None:
        Replica.make_durable(journal, SMALL_CHUNK * 10)
        async with following(database_url, journal) as watched:
            followers.append(watched.follower)
            await watched.until_settled(SMALL_CHUNK * 10)
        assert (len(held), max(held)) == (11, 2)

    monkeypatch.setattr(Settlement, "commit", commit_and_count)
    run_asyncio(run())


@pytest.mark.parametrize("other_chunk", [SMALL_CHUNK, 150, 500])
def test_a_position_moved_by_another_follower_is_taken_over(
    database_url: str, journal: Path, monkeypatch: pytest.MonkeyPatch, other_chunk: int
) -> None:
    commit = Settlement.commit
    other = Replica(journal)

    async def commit_after_another(self: Settlement, identity: str, chunk: Chunk) -> None:
        if chunk.first > SMALL_CHUNK * 2 and other.position == 0:
            other.advance(chunk.first - 1)
            moved = other.collect(other_chunk)
            assert moved is not None
            async with Settlement.connect(database_url) as database:
                await commit(database, identity, moved)
        await commit(self, identity, chunk)

    async def run() -> None:
        Replica.make_durable(journal, 1500)
        async with following(database_url, journal) as watched:
            await watched.until_settled(1500)
        assert other.position
        await assert_settled(database_url, 1500)

    monkeypatch.setattr(Settlement, "commit", commit_after_another)
    run_asyncio(run())


def test_a_database_restored_from_a_backup_is_caught_up(database_url: str, journal: Path) -> None:
    async def run() -> None:
        Replica.make_durable(journal, 2000)
        async with Settlement.connect(database_url) as database:
            await database.migrate()
            replica = Replica(journal)
            await database.follow(replica.identity)
            backup = replica.collect(500)
            assert backup is not None
            await database.commit(replica.identity, backup)
        await execute(
            database_url,
            "CREATE TABLE saved AS TABLE account",
            "CREATE TABLE saved_position AS SELECT hash AS saved_hash FROM journal_position",
        )
        async with following(database_url, journal) as watched:
            await watched.until_settled(2000)
            replicas = watched.replicas
            await execute(
                database_url,
                "BEGIN; DELETE FROM transaction WHERE position > 500; DELETE FROM posting WHERE position > 500; DELETE FROM account;"
                " INSERT INTO account TABLE saved;"
                " UPDATE journal_position SET position = 500, hash = saved_hash FROM saved_position; COMMIT",
            )
            Replica.make_durable(journal, 2500)
            await watched.until_settled(2500)
            assert watched.replicas == replicas + 1
        await assert_settled(database_url, 2500)

    run_asyncio(run())


async def start_proxy(address: str, port: int = 0) -> asyncio.Server:
    """A TCP door to the embedded server that can be shut."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        folder = address.partition("host=")[2].partition("&")[0]
        behind = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.5432")
        await asyncio.gather(pump(reader, behind[1]), pump(behind[0], writer))

    return await asyncio.start_server(connect, "127.0.0.1", port)


def test_while_postgresql_is_away_it_says_so_and_then_catches_up(database_url: str, journal: Path) -> None:
    async def run() -> None:
        proxy = await start_proxy(database_url)
        port = proxy.sockets[0].getsockname()[1]
        proxy.close()
        await proxy.wait_closed()
        address = f"{database_url.partition('?')[0].replace('@/', f'@127.0.0.1:{port}/')}?sslmode=disable"
        Replica.make_durable(journal, 300)
        async with following(address, journal) as watched:
            away = await watched.until(lambda progress: progress.error is not None)
            assert not away.connected
            assert away.error is not None
            assert away.error.startswith("PostgreSQL: ")
            proxy = await start_proxy(database_url, port)
            back = await watched.until_settled(300)
            assert (back.connected, back.error) == (True, None)
        proxy.close()
        await proxy.wait_closed()
        await assert_settled(database_url, 300)

    run_asyncio(run())


def test_a_stop_does_not_wait_for_a_database_that_is_away(journal: Path) -> None:
    async def run() -> None:
        Replica.make_durable(journal, 300)
        async with following("postgresql://switch@127.0.0.1:1/switch?sslmode=disable", journal) as watched:
            await watched.until(lambda progress: progress.error is not None)
        assert watched.seen[-1].settled == 0

    run_asyncio(run())


def test_a_journal_that_lost_records_is_refused(database_url: str, journal: Path) -> None:
    async def run() -> None:
        Replica.make_durable(journal, 300)
        async with following(database_url, journal) as watched:
            await watched.until_settled(300)
        Replica.make_durable(journal, 299)
        async with following(database_url, journal) as watched:
            await watched.until(lambda progress: progress.error is not None)

    with pytest.raises(SettlementRefused, match="up to record 300, but the journal ends at 299"):
        run_asyncio(run())


# --- terminals first ---


def test_beside_terminals_a_chunk_takes_its_time() -> None:
    pace = Pace(100.0, 5000)
    # Nothing was settled yet.
    assert pace.pause(100.5, 6000) == 0
    pace.settled(BESIDE_TERMINALS)
    assert pace.pause(100.7, 7000) == pytest.approx(0.8)
    # The pause itself counts as time in which the journal grew, not as time that the chunk took.
    pace.settled(BESIDE_TERMINALS // 10)
    assert pace.pause(101.55, 8000) == pytest.approx(0.05)
    pace.settled(BESIDE_TERMINALS // 10)
    assert pace.pause(109.0, 9000) == 0


def test_settlement_is_quicker_than_what_it_follows_however_quick_that_is() -> None:
    pace = Pace(0.0, 0)
    assert pace.pause(1.0, 400_000) == 0
    pace.settled(400_000)
    assert pace.pause(1.2, 480_000) == pytest.approx(0.3)


def test_while_no_terminal_pays_there_is_no_pause() -> None:
    pace = Pace(0.0, 10_000_000)
    for second in range(1, 10):
        assert pace.pause(float(second), 10_000_000) == 0
        pace.settled(262_144)
    assert pace.pause(9.0, 10_000_001) == 0, "no time has passed to judge by"


def test_it_takes_its_time_only_while_the_journal_grows(database_url: str, journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = Settlement.commit
    growing = True

    async def commit_while_more_comes(self: Settlement, identity: str, chunk: Chunk) -> None:
        await commit(self, identity, chunk)
        if growing:
            Replica.make_durable(journal, Replica(journal).durable + 1)

    async def run() -> None:
        nonlocal growing
        # One chunk more, and at this pace it would take half an hour.
        monkeypatch.setattr(follow, "BESIDE_TERMINALS", SMALL_CHUNK / 1800)
        Replica.make_durable(journal, SMALL_CHUNK * 4)
        async with following(database_url, journal) as watched:
            await watched.until_settled(SMALL_CHUNK)
            # A stop does not wait.
        assert watched.seen[-1].settled >= SMALL_CHUNK * 4
        growing = False
        Replica.make_durable(journal, SMALL_CHUNK * 9)
        async with following(database_url, journal) as watched:
            await watched.until_settled(SMALL_CHUNK * 9)
        await assert_settled(database_url, SMALL_CHUNK * 9)

    monkeypatch.setattr(Settlement, "commit", commit_while_more_comes)
    run_asyncio(run())


# --- looking after the journal ---


def upkeep(folder: Path, every: int = 10**9, old_segments: Literal["keep", "archive", "remove"] = "keep") -> Upkeep:
    return Upkeep(snapshot_records=every, old_segments=old_segments, archive=folder / "archive")


def snapshots(journal: Path) -> list[int]:
    return sorted(int(file.stem) for file in journal.glob("*.snapshot"))


def test_a_snapshot_is_made_only_of_what_postgresql_has(database_url: str, journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[int] = []
    snapshot = Replica.snapshot

    def snapshot_and_look(self: Replica) -> int:
        newest = snapshot(self)
        # On the replica's thread, which has no event loop of its own.
        ((position,),) = run_asyncio(fetch(database_url, "SELECT position FROM journal_position"))
        settled.append(position)
        return newest

    async def run() -> None:
        Replica.make_durable(journal, SMALL_CHUNK * 10)
        async with following(database_url, journal, upkeep(journal, every=SMALL_CHUNK * 2)) as watched:
            await watched.until_settled(SMALL_CHUNK * 10)
            await watched.until(lambda progress: progress.snapshot > SMALL_CHUNK * 7)
        await assert_settled(database_url, SMALL_CHUNK * 10)

    monkeypatch.setattr(Replica, "snapshot", snapshot_and_look)
    run_asyncio(run())
    assert snapshots(journal) == settled
    assert len(settled) >= 3
    assert all(later - earlier >= SMALL_CHUNK * 2 for earlier, later in pairwise(settled))


def test_a_snapshot_that_became_due_with_the_last_record_is_made(database_url: str, journal: Path) -> None:
    async def run() -> None:
        Replica.make_durable(journal, SMALL_CHUNK)
        async with following(database_url, journal, upkeep(journal, every=SMALL_CHUNK // 2)) as watched:
            await watched.until(lambda progress: progress.snapshot == SMALL_CHUNK)

    run_asyncio(run())


def test_a_new_business_date_makes_a_snapshot(database_url: str, journal: Path) -> None:
    async def run() -> None:
        Replica.make_durable(journal, 600)
        async with following(database_url, journal, upkeep(journal)) as watched:
            await watched.until_settled(600)
            assert watched.seen[-1].snapshot == 0
            Replica.make_durable(journal, 1200)
            last = await watched.until(lambda progress: progress.snapshot > 0)
            assert 1000 <= last.snapshot <= 1200
            Replica.make_durable(journal, 1300)
            await watched.until_settled(1300)
        assert snapshots(journal) == [last.snapshot]

    run_asyncio(run())


@pytest.mark.parametrize("old_segments", ["keep", "archive", "remove"])
def test_old_segments_go_where_they_are_told_to(
    database_url: str, journal: Path, old_segments: Literal["keep", "archive", "remove"]
) -> None:
    async def run() -> None:
        Replica.make_durable(journal, 500)
        async with following(database_url, journal, upkeep(journal, 100, old_segments)) as watched:
            await watched.until(lambda progress: progress.snapshot == 500)
        retired = journal / "retired"
        if old_segments == "keep":
            assert retired.read_text().startswith("500 False ")
        else:
            assert retired.read_text() == f"500 True {journal / 'archive' if old_segments == 'archive' else None}"

    run_asyncio(run())


def test_a_snapshot_that_fails_is_told_and_settlement_goes_on(database_url: str, journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Replica) -> None:
        raise CoreError("cannot write a snapshot: the disk is full")

    async def run() -> None:
        Replica.make_durable(journal, 1500)
        async with following(database_url, journal, upkeep(journal, 100)) as watched:
            last = await watched.until_settled(1500)
            assert (last.upkeep_error, last.snapshot) == ("cannot write a snapshot: the disk is full", 0)
            assert (last.error, last.connected) == (None, True)
        await assert_settled(database_url, 1500)

    monkeypatch.setattr(Replica, "snapshot", fail)
    run_asyncio(run())


def test_who_has_not_claimed_the_upkeep_leaves_it_alone(database_url: str, journal: Path) -> None:
    async def run() -> None:
        Replica.make_durable(journal, 1500)
        (journal / "claimed").touch()
        async with following(database_url, journal, upkeep(journal, 100, "remove")) as watched:
            last = await watched.until_settled(1500)
            assert (last.snapshot, last.upkeep_error) == (0, None)
        assert snapshots(journal) == []
        assert not (journal / "retired").exists()

    run_asyncio(run())


def test_one_process_at_a_time_may_claim_the_upkeep(tmp_path: Path) -> None:
    one, other = JournalFolder(tmp_path, tmp_path), JournalFolder(tmp_path, tmp_path)
    assert (one.claim(), one.claim(), other.claim()) == (True, True, False)


def test_a_database_with_another_history_is_refused(database_url: str, journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        Replica.make_durable(journal, 500)
        async with following(database_url, journal) as watched:
            await watched.until_settled(500)
        monkeypatch.setattr(Replica, "hash", property(lambda self: f"{self.position:064x}"[::-1]))
        Replica.make_durable(journal, 900)
        watched = Watched(database_url, journal, None)
        with pytest.raises(SettlementRefused, match="another history"):
            await watched.follower.run()
        assert await fetch(database_url, "SELECT position FROM journal_position") == [(500,)]

    run_asyncio(run())


# The process: journal_double.py runs `follow.serve` on the double.


class Process:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self.process, self.stdin, self.stdout, self.stderr = process, process.stdin, process.stdout, process.stderr

    async def progress(self) -> Progress | None:
        line = await self.stdout.readline()
        return msgspec.json.decode(line, type=Progress) if line else None

    async def until(self, reached: Callable[[Progress], bool]) -> Progress:
        while progress := await self.progress():
            if reached(progress):
                return progress
        raise AssertionError(f"the follower ended: {(await self.stderr.read()).decode()}")

    async def end(self, number: signal.Signals | None = None) -> tuple[int, Progress, str]:
        """Send a signal, or close stdin; returns exit status, last progress and stderr."""
        if number is None:
            self.stdin.close()
        else:
            self.process.send_signal(number)
        *_, last = (await self.stdout.read()).splitlines()
        said = (await self.stderr.read()).decode()
        return await self.process.wait(), msgspec.json.decode(last, type=Progress), said


@contextlib.asynccontextmanager
async def process(address: str, journal: Path, **options: Any) -> AsyncIterator[Process]:
    root = str(Path(__file__).parent.parent)
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.journal_double", str(journal), address),
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), root])},
        **{"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE, **options},
    )
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            yield Process(started)
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()
        started._transport.close()  # type: ignore[attr-defined]


def test_a_killed_process_loses_and_doubles_nothing(database_url: str, journal: Path, chance: random.Random) -> None:
    async def run() -> None:
        durable, settled = 0, 0
        for _ in range(8):
            durable += 2000
            Replica.make_durable(journal, durable)
            async with process(database_url, journal) as follower:
                await follower.until(lambda progress: progress.connected)
                # Killed by what PostgreSQL has, which moves between two lines of progress, so that any phase of a chunk may be met.
                goal = settled + chance.randrange(durable - settled)
                connection = await asyncpg.connect(database_url)
                while (settled := await connection.fetchval("SELECT position FROM journal_position")) < goal:
                    pass
                follower.process.kill()
                await connection.close()
                await follower.process.wait()
        async with process(database_url, journal) as follower:
            await follower.until(lambda progress: progress.settled == durable)
            assert (await follower.end(signal.SIGTERM))[0] == 0
        await assert_settled(database_url, durable)

    run_asyncio(run())


def test_sigterm_settles_what_is_durable_and_exits_0(database_url: str, journal: Path) -> None:
    async def run() -> None:
        Replica.make_durable(journal, 3000)
        async with process(database_url, journal) as follower:
            assert await follower.progress() == Progress()
            await follower.until(lambda progress: progress.connected)
            status, last, _ = await follower.end(signal.SIGTERM)
        assert (status, last.settled, last.connected) == (0, 3000, False)
        await assert_settled(database_url, 3000)

    run_asyncio(run())


def test_it_ends_when_its_parent_is_gone(database_url: str, journal: Path) -> None:
    async def run() -> None:
        async with process(database_url, journal) as follower:
            await follower.until(lambda progress: progress.connected)
            assert (await follower.end())[0] == 0

    run_asyncio(run())


def test_without_a_parents_pipe_it_goes_on(database_url: str, journal: Path) -> None:
    async def run() -> None:
        reading, writing = os.pipe()
        with open(os.devnull, "rb") as nothing:  # noqa: ASYNC230, PTH123 - opens at once
            started = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.journal_double", str(journal), database_url),
                stdin=nothing,
                stdout=writing,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        os.close(writing)
        with open(reading, "rb") as lines:  # noqa: ASYNC230, PTH123
            while not msgspec.json.decode(await asyncio.to_thread(lines.readline), type=Progress).connected:
                pass
            Replica.make_durable(journal, 60)
            while msgspec.json.decode(await asyncio.to_thread(lines.readline), type=Progress).settled < 60:
                pass
            started.send_signal(signal.SIGINT)
            assert await started.wait() == 0
        started._transport.close()  # type: ignore[attr-defined]

    run_asyncio(run())


def test_a_foreign_database_ends_it_with_one_sentence(database_url: str, journal: Path, tmp_path: Path) -> None:
    async def run() -> None:
        async with process(database_url, journal) as follower:
            await follower.until(lambda progress: progress.connected)
        other = Replica.create(tmp_path / "other", "ff" * 16)
        async with process(database_url, other) as follower:
            *_, last = (await follower.stdout.read()).splitlines()
            said = (await follower.stderr.read()).decode()
            assert await follower.process.wait() == 1
        error = msgspec.json.decode(last, type=Progress).error
        assert error is not None
        assert error.startswith("The settlement database follows the journal 0011")
        assert said == f"switch follow: {error}\n"

    run_asyncio(run())
