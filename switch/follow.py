"""The follower: `switch follow` brings every record of the journal into PostgreSQL, exactly once and in order.

For what: settlement, reports and operators' questions are answered by PostgreSQL, and neither its speed nor its faults may
reach an authorization. So this is a process of its own, which `switch serve` starts and watches; it writes nothing of the journal.

Always true here: the only memory of how far it has come is the position in PostgreSQL, committed together with the rows. So
it may be killed at any moment. At most two chunks are held, however far PostgreSQL is behind.

Where it is told to, it also looks after the journal: it makes snapshots of its replica, from which starts go on, and takes away the
segments that no start needs any more. A snapshot is made only of a record that PostgreSQL has, and nothing goes while one stands for
a record that PostgreSQL has still to come to: so whatever goes is settled.

How it works: a replica of the ledger (in the core) replays durable records and encodes their rows as chunks. While one chunk
commits, the next is encoded on a thread of its own, with Python's lock released. While the journal grows, settlement takes its time: what
PostgreSQL writes and syncs goes to the same disk, and a terminal whose record waits behind it would notice. When PostgreSQL fails, a new
connection is made with growing pauses, and the position read there says which of the chunks in hand comes next; if none does, a fresh
replica is replayed up to that position. When there is nothing to do, the journal's durable mark, a number in a file, is looked at.

Asyncio and not trio, because asyncpg knows nothing else. What it does it says on stdout, a `Progress` a line. It ends on SIGTERM,
once PostgreSQL has what was durable by then, and by itself when its parent, and with it the pipe on stdin, is gone.
"""

import asyncio
import collections
import contextlib
import fcntl
import functools
import logging
import os
import random
import signal
import stat
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Literal, Protocol, TypeVar

import msgspec

from switch import _core, config, settlement
from switch.priority import give_way
from switch.settlement import SLICE_RECORDS, Chunk, Followed, PositionMoved, Settlement, SettlementRefused

__all__ = ["Follower", "Journal", "Pace", "Progress", "Replica", "Upkeep", "main"]

CHUNKS_MAX: Final = 2
"""Chunks in memory: the one that commits and the one after it. A chunk has a slice's records at most: some 75 MB while catching up."""

CAUGHT_UP_RECORDS: Final = 8192
"""PostgreSQL is as good as up to date when it is no further behind."""

ADVANCE_MAX: Final = 262_144
"""Records replayed at a time while catching up with PostgreSQL, so that a signal to stop is seen in between."""

BESIDE_TERMINALS: Final = 50_000
"""Records a second that are settled at most while the journal grows, or twice what it grows by if that is more."""

POLL_SECONDS: Final = 0.5
"""Between two looks at the durable mark when all is settled; a record waits at most so long. At lunch some ten records share a commit
instead of having one each, which is what the follower's processor time hangs on then."""

REPORT_SECONDS: Final = 0.25
"""Between two lines of progress."""

BACKOFF_SECONDS: Final = (0.1, 5.0)
"""The first and the longest pause before a new connection."""

STOP_SECONDS: Final = 10.0
"""To reach the durable mark after SIGTERM; what is left then, the next start brings."""

UPKEEP_PAUSE_SECONDS: Final = 60.0
"""After a snapshot, or the removal of segments, that failed, mostly for want of room, before the next attempt."""

CLAIM_NAME: Final = "upkeep.lock"
"""Held by the one process that looks after the journal: a killed switch's follower may still be at it when the next one begins."""

STDIN: Final = 0
STDOUT: Final = 1

log = logging.getLogger(__name__)
Result = TypeVar("Result")


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One line on stdout: where the follower stands."""

    settled: int = 0
    """The last position committed in PostgreSQL; 0 until it was read."""
    durable: int = 0
    """The last durable position, when it was last looked at."""
    connected: bool = False
    error: str | None = None
    """Why it is not connected; one sentence."""
    rows: int = 0
    """Rows committed since this process started."""
    snapshot: int = 0
    """The record of the newest snapshot; 0: there is none yet."""
    upkeep_error: str | None = None
    """Why the last snapshot, or the removal of segments after it, failed; one sentence."""


class Replica(Protocol):
    """What the follower needs of `switch._core.Replica`."""

    @property
    def position(self) -> int: ...
    @property
    def durable(self) -> int: ...
    @property
    def business_date(self) -> str: ...
    @property
    def hash(self) -> str: ...
    @property
    def remarks(self) -> list[str]: ...
    def advance(self, until: int) -> None: ...
    def collect(self, records_max: int) -> Chunk | None: ...
    def snapshot(self) -> int: ...
    def retire(self, *, segments: bool, archive: Path | None) -> int: ...


class Journal(Protocol):
    """The journal to follow."""

    @property
    def identity(self) -> str:
        """Which one it is."""

    def replica(self, until: int) -> Replica:
        """A replica at or before the record `until`, as near as snapshots allow."""

    def claim(self) -> bool:
        """Take the one right to look after the journal, for as long as this process lives. False: another process has it."""


class JournalFolder:
    """The journal in a folder, through the core; segments that were moved to the archive are read there.

    Resource handling: the claim is a locked file, released when the process ends, however that is.
    """

    def __init__(self, folder: Path, archive: Path) -> None:
        self._folder = folder
        self._archive = archive
        self._claim: int | None = None

    @property
    def identity(self) -> str:
        return _core.journal_identity(self._folder)

    def replica(self, until: int) -> Replica:
        return _core.Replica(self._folder, archive=self._archive, until=until)

    def claim(self) -> bool:
        if self._claim is None:
            claim = os.open(self._folder / CLAIM_NAME, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(claim)
                return False
            self._claim = claim
        return True


class Upkeep(msgspec.Struct, frozen=True, kw_only=True):
    """How the journal is looked after."""

    snapshot_records: int
    """A snapshot is made after so many records, and when the business date has moved on."""
    old_segments: Literal["keep", "archive", "remove"]
    archive: Path


class Pace:
    """How long to wait between chunks, so that terminals do not notice. Times are in seconds, by any clock."""

    def __init__(self, now: float, durable: int) -> None:
        self._looked, self._durable = now, durable
        self._began = now
        self._records = 0

    def settled(self, records: int) -> None:
        """The chunk that was begun after the last pause had so many records."""
        self._records = records

    def pause(self, now: float, durable: int) -> float:
        """The pause before the next chunk, with the journal durable up to `durable`; 0 while it does not grow."""
        grown, elapsed = durable - self._durable, now - self._looked
        spent, records = now - self._began, self._records
        self._looked, self._durable, self._records = now, durable, 0
        pause = 0.0
        if grown > 0 and elapsed > 0:
            pause = max(0.0, records / max(BESIDE_TERMINALS, 2 * grown / elapsed) - spent)
        self._began = now + pause
        return pause


class Follower:
    """Brings one journal into one database.

    Resource handling: `run` opens and closes its connections and its thread. Error handling: whatever PostgreSQL does, `run`
    tries again; it raises `SettlementRefused` where database and journal do not belong together, and what the replica raises.
    """

    def __init__(self, address: str, journal: Journal, upkeep: Upkeep | None, report: Callable[[Progress], None]) -> None:
        self._address = address
        self._journal = journal
        self._upkeep = upkeep
        self._report = report
        self._progress = Progress()
        self._moved = asyncio.Event()
        self._stopping = asyncio.Event()
        self._catch_up = True
        # The replica belongs to this thread while a call runs on it; asked from here meanwhile, it would hold up everything.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="replica")
        self._replica: Replica | None = None
        self._identity = ""
        # Of the newest snapshot; what was behind it when it was made may still have to go.
        self._snapshot_date = ""
        self._retire_is_due = False
        self._next_upkeep = 0.0
        # Encoded, oldest first. One is encoded only while the one before it commits, so in between the replica may be asked.
        self._chunks: collections.deque[Chunk] = collections.deque()
        self._encoding: asyncio.Future[Chunk | None] | None = None

    def stop(self, *, catch_up: bool) -> None:
        """Let `run` return: after what is durable by then is committed too, or at the next chunk's end.

        Where PostgreSQL is away, it returns after the attempt that is being made.
        """
        self._catch_up = self._catch_up and catch_up
        self._stopping.set()

    async def run(self) -> None:
        """Follow until told to stop."""
        self._report(self._progress)
        reporter = asyncio.create_task(self._report_moves())
        try:
            self._identity = await self._on_thread(lambda: self._journal.identity)
            pause, pause_max = BACKOFF_SECONDS
            while not self._stopping.is_set():
                settled = self._progress.settled
                try:
                    async with Settlement.connect(self._address) as database:
                        await database.migrate()
                        await self._align(await database.follow(self._identity))
                        self._note(connected=True, error=None)
                        await self._settle(database)
                except (*settlement.LOST, PositionMoved) as failure:
                    error = str(failure) if isinstance(failure, PositionMoved) else settlement.reason(failure)
                    if error != self._progress.error:
                        log.warning("%s", error)
                    self._note(connected=False, error=error)
                if self._progress.settled > settled:
                    pause = BACKOFF_SECONDS[0]
                # Jitter, so that followers that lost the same server do not come back at once.
                await self._unless_stopped(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                pause = min(pause * 2, pause_max)
        except (SettlementRefused, _core.CoreError) as refusal:
            self._note(error=str(refusal))
            raise
        finally:
            reporter.cancel()
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._progress = msgspec.structs.replace(self._progress, connected=False)
            self._report(self._progress)

    async def _settle(self, database: Settlement) -> None:
        """Commit chunk after chunk on one connection, until told to stop."""
        until: int | None = None
        replica = self._held()
        pace = Pace(asyncio.get_running_loop().time(), replica.durable)
        while True:
            if self._encoding is None and replica.position == self._progress.settled and self._upkeep_is_due(replica):
                await self._look_after_journal(replica)
            chunk = await self._next_chunk()
            self._note(durable=replica.durable)
            if self._stopping.is_set():
                if until is None:
                    until = self._progress.durable if self._catch_up else 0
                if chunk is None or chunk.first > until:
                    return
            if chunk is None:
                await self._wait_for_records(database)
                continue
            if not self._upkeep_is_due(replica):
                # Otherwise the replica stays where PostgreSQL will be, and its snapshot is made there.
                self._encode()
            await self._unless_stopped(pace.pause(asyncio.get_running_loop().time(), self._progress.durable))
            await database.commit(self._identity, chunk)
            pace.settled(chunk.last - chunk.first + 1)
            self._chunks.popleft()
            self._note(settled=chunk.last, rows=self._progress.rows + chunk.rows)

    async def _unless_stopped(self, seconds: float) -> None:
        """Wait so long, or until told to stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _upkeep_is_due(self, replica: Replica) -> bool:
        """Whether there is something to do for the journal. To be asked only while the replica is not at work."""
        if self._upkeep is None or self._stopping.is_set() or asyncio.get_running_loop().time() < self._next_upkeep:
            return False
        return self._retire_is_due or self._snapshot_is_due(self._upkeep, replica)

    def _snapshot_is_due(self, upkeep: Upkeep, replica: Replica) -> bool:
        since = self._progress.settled - self._progress.snapshot
        # While it catches up with many days, each would make a snapshot that the next one replaces.
        is_caught_up = self._progress.durable - self._progress.settled < CAUGHT_UP_RECORDS
        return since >= upkeep.snapshot_records or (since > 0 and is_caught_up and replica.business_date > self._snapshot_date)

    async def _look_after_journal(self, replica: Replica) -> None:
        """Make a snapshot if one is due, and take away what it makes superfluous. What fails is told and tried again later."""
        assert self._upkeep is not None, "it is due only where it is wanted"
        upkeep = self._upkeep
        archive = upkeep.archive if upkeep.old_segments == "archive" else None
        retire = functools.partial(replica.retire, segments=upkeep.old_segments != "keep", archive=archive)
        try:
            if not self._journal.claim():
                self._next_upkeep = asyncio.get_running_loop().time() + UPKEEP_PAUSE_SECONDS
                return
            if self._snapshot_is_due(upkeep, replica):
                newest = await self._on_thread(replica.snapshot)
                self._snapshot_date, self._retire_is_due = replica.business_date, True
                self._note(snapshot=newest)
                if newest == replica.position:
                    log.info("a snapshot of record %d was made", newest)
            retired = await self._on_thread(retire)
            self._retire_is_due = False
            self._note(upkeep_error=None)
            if retired and archive:
                log.info("%d segments were moved to the archive", retired)
            elif retired:
                log.info("%d segments were removed", retired)
        except (_core.CoreError, OSError) as failure:
            self._next_upkeep = asyncio.get_running_loop().time() + UPKEEP_PAUSE_SECONDS
            log.warning("%s", failure)
            self._note(upkeep_error=str(failure))

    def _held(self) -> Replica:
        assert self._replica is not None, "a replica is opened when PostgreSQL has told where it is"
        return self._replica

    async def _wait_for_records(self, database: Settlement) -> None:
        """Wait until there is something to do again."""
        replica = self._held()
        while replica.durable <= replica.position and not self._stopping.is_set() and not self._upkeep_is_due(replica):
            if database.lost:
                raise ConnectionResetError("it closed the connection")
            await self._unless_stopped(POLL_SECONDS)

    async def _align(self, followed: Followed) -> None:
        """See to it that the next chunk begins right behind where PostgreSQL is, on the history that it has."""
        settled = followed.position
        await self._encoded()
        while self._chunks and self._chunks[0].last <= settled:
            # It had been committed; only the answer was lost.
            self._chunks.popleft()
        replica = self._replica
        ready = self._chunks[0].first - 1 if self._chunks else (replica.position if replica else -1)
        if replica is None or ready != settled:
            self._chunks.clear()
            if replica is None or replica.position > settled:
                replica = self._replica = await self._open_replica(settled)
            durable = replica.durable
            if settled > durable:
                raise SettlementRefused(
                    f"PostgreSQL has this journal up to record {settled}, but the journal ends at {durable}: its folder is an"
                    " older copy or has lost records. Put back the right folder, or settle into a new database."
                )
            while replica.position < settled:
                await self._on_thread(replica.advance, min(settled, replica.position + ADVANCE_MAX))
            if settled and followed.hash not in (None, replica.hash):
                raise SettlementRefused(
                    f"Up to record {settled} PostgreSQL has another history than this journal: its folder was put back from an older"
                    " copy and has gone on differently. Put back the right folder, or settle into a new database."
                )
        self._note(settled=settled, durable=replica.durable)

    async def _open_replica(self, settled: int) -> Replica:
        replica = await self._on_thread(self._journal.replica, settled)
        for remark in replica.remarks:
            log.warning("%s", remark)
        self._snapshot_date = replica.business_date
        self._note(snapshot=replica.position)
        return replica

    async def _next_chunk(self) -> Chunk | None:
        """The chunk to commit next, which stays at the head of the queue; None: all that is durable is settled."""
        if not self._chunks:
            await self._encoded()
        if not self._chunks:
            # Records may have become durable since the last look, while the last chunk committed.
            self._encode()
            await self._encoded()
        return self._chunks[0] if self._chunks else None

    def _encode(self) -> None:
        """Begin to encode the next chunk, where there is one, unless two are in hand."""
        replica = self._held()
        if self._encoding is None and len(self._chunks) < CHUNKS_MAX and replica.durable > replica.position:
            next_record = replica.position + 1
            self._encoding = self._on_thread(replica.collect, SLICE_RECORDS - next_record % SLICE_RECORDS)

    async def _encoded(self) -> None:
        """Wait for the chunk that is being encoded, if any, and queue it."""
        if self._encoding is not None:
            chunk = await self._encoding
            self._encoding = None
            if chunk is not None:
                self._chunks.append(chunk)

    def _on_thread(self, call: Callable[..., Result], *arguments: object) -> asyncio.Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    def _note(self, **changes: object) -> None:
        before, self._progress = self._progress, msgspec.structs.replace(self._progress, **changes)
        told = ("connected", "error", "snapshot", "upkeep_error")
        if any(getattr(before, name) != getattr(self._progress, name) for name in told):
            self._report(self._progress)
        elif before.settled != self._progress.settled:
            self._moved.set()

    async def _report_moves(self) -> None:
        """Report a position that moved, at bounded pace; the last one of a run is never left out."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            self._report(self._progress)
            await asyncio.sleep(REPORT_SECONDS)


def main(journal: config.Journal, address: str, *, upkeep: bool) -> int:
    """Run the follower as this process and return its exit status: 0, or 1 where an operator is needed.

    `upkeep`: it looks after the journal too. Not where it follows into another database than the switch's own: what that one has is
    no measure of what may go.
    """
    give_way(os.getpid())
    kept = Upkeep(snapshot_records=journal.snapshot_records, old_segments=journal.old_segments, archive=journal.archive)
    return asyncio.run(serve(JournalFolder(journal.folder, journal.archive), kept if upkeep else None, address))


async def serve(journal: Journal, upkeep: Upkeep | None, address: str) -> int:
    """Run a follower that ends on signals and with its parent, and return the exit status."""
    follower = Follower(address, journal, upkeep, _print)
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    def stop(*, catch_up: bool) -> None:
        follower.stop(catch_up=catch_up)
        stopped.set()

    def listen_to_parent() -> None:
        if not os.read(STDIN, 4096):
            loop.remove_reader(STDIN)
            # There is nobody to catch up for, and another follower may be at work already.
            stop(catch_up=False)

    supervised = _is_pipe(STDIN)
    if supervised:
        loop.add_reader(STDIN, listen_to_parent)
    loop.add_signal_handler(signal.SIGTERM, lambda: stop(catch_up=True))
    # Control-C reaches the parent too, which lets the switch finish first and then sends SIGTERM.
    loop.add_signal_handler(signal.SIGINT, lambda: None if supervised else stop(catch_up=True))
    following = asyncio.create_task(follower.run())
    stopping = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait({following, stopping}, return_when=asyncio.FIRST_COMPLETED)
        async with asyncio.timeout(STOP_SECONDS):
            await following
    except TimeoutError:
        log.warning("PostgreSQL has not taken all that is durable within %s seconds; the next start goes on.", STOP_SECONDS)
    except (SettlementRefused, _core.CoreError) as refusal:
        sys.stderr.write(f"switch follow: {refusal}\n")
        return 1
    finally:
        stopping.cancel()
    return 0


def _is_pipe(descriptor: int) -> bool:
    """Whether a parent holds the other end. A terminal or /dev/null says nothing about one."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _print(progress: Progress) -> None:
    # Past Python's buffer, so that each line leaves whole. A reader that is gone is noticed by the end of stdin.
    with contextlib.suppress(BrokenPipeError):
        os.write(STDOUT, msgspec.json.encode(progress) + b"\n")
