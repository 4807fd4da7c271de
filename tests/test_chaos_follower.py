"""The follower dies, loses its connection, or meets another one at every step of its work: each record reaches PostgreSQL exactly once."""

import contextlib
import random
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest
import trio

from tests.chaos import Campus
from tests.conftest import fetch, run_asyncio
from tests.postgres_door import COPY_DATA, STARTUP, Door, Trap
from tests.switch_process import DEADLINE_SECONDS, PROGRAM, Switch, in_thread, until

CONNECTING: Final = [((STARTUP,), False), ((STARTUP,), True)]
MIGRATING: Final = [
    (("pg_advisory_xact_lock",), False),
    (("CREATE TABLE schema_migration",), True),
    (("CREATE TABLE journal_position",), False),
    (("CREATE TABLE journal_position",), True),
    (("INSERT INTO schema_migration",), True),
    (("INSERT INTO schema_migration", "COMMIT;"), False),
    (("INSERT INTO schema_migration", "COMMIT;"), True),
]
ALIGNING: Final = [
    (("INSERT INTO journal_position",), False),
    (("INSERT INTO journal_position",), True),
    (("SELECT journal, position",), True),
    (("SELECT journal, position", "BEGIN"), False),
]
MOVED: Final = "UPDATE journal_position"
SLICING: Final = [
    # Before there is any slice. The first chunk has the policy and the date, and no rows by date.
    ((MOVED, "COMMIT;", MOVED, "open_slice"), True),
    ((MOVED, "open_slice", COPY_DATA), True),
    ((MOVED, "attach_slice"), False),
    ((MOVED, "attach_slice"), True),
    ((MOVED, "attach_slice", "COMMIT;"), False),
]
COMMITTING: Final = [
    ((MOVED,), False),
    ((MOVED,), True),
    ((MOVED, "open_slice"), True),
    ((MOVED, "COPY"), True),
    ((MOVED, COPY_DATA), False),
    ((MOVED, COPY_DATA), True),
    ((MOVED, "CREATE TEMPORARY TABLE"), True),
    ((MOVED, "UPDATE account"), False),
    ((MOVED, "UPDATE account"), True),
    # In the second commit of a connection: while the first one ran, this one was encoded.
    ((MOVED, "COMMIT;", MOVED, COPY_DATA), False),
    ((MOVED, "COMMIT;"), False),
]
COMMITTED: Final = ((MOVED, "COMMIT;"), True)
"""PostgreSQL has it, and the follower does not know."""


class Settling:
    """Followers of one journal, one after another, started as the switch starts its own."""

    def __init__(self, campus: Campus, door: Door, database: str) -> None:
        self.campus = campus
        self.door = door
        self.database = database

    @contextlib.asynccontextmanager
    async def follower(self, address: str | None = None) -> AsyncIterator[trio.Process]:
        """One follower; killed at the end if it still runs."""
        command = [str(PROGRAM), "follow", "--config", str(self.campus.switch.file), "--database", address or self.door.url]
        process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert process.stdin is not None
        async with process.stdin:
            try:
                yield process
            finally:
                if process.returncode is None:
                    process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()

    async def position(self) -> int:
        """Where PostgreSQL stands; 0 while it has no tables."""
        made = await self._fetch("SELECT to_regclass('journal_position') IS NOT NULL")
        rows = await self._fetch("SELECT position FROM journal_position") if made == [(True,)] else []
        return int(rows[0][0]) if rows else 0

    async def slices(self) -> int:
        """Tables that hold a part of a day."""
        ((count,),) = await self._fetch("SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname LIKE 'transaction_2%'")
        return int(count)

    async def waiting(self) -> int:
        """Followers that wait for another one's commit."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ((count,),) = await self._fetch(query)
        return int(count)

    async def moves(self) -> None:
        """Wait until PostgreSQL has got further."""
        before = await self.position()
        await until(self.position, lambda now: now > before)

    async def dies(self, steps: tuple[str, ...], answered: bool) -> None:
        """A follower is killed at the last of these steps."""
        trap = self.door.trap(*steps, answered=answered)
        async with self.follower() as process:
            await _sprung(trap)
            process.kill()
            await process.wait()
        self.door.cut()

    async def _fetch(self, query: str) -> list[tuple[Any, ...]]:
        return await in_thread(lambda: run_asyncio(fetch(self.database, query)))


async def _sprung(trap: Trap) -> None:
    with trio.move_on_after(DEADLINE_SECONDS):
        await trap.sprung.wait()
    assert trap.sprung.is_set(), f"the follower never came to {trap.steps}"


@pytest.fixture
async def settling(make_switch: Callable[..., Switch], database_url: str, chance: random.Random) -> AsyncIterator[Settling]:
    campus = await Campus.open(make_switch(), database_url, chance, tills=6)
    door = Door(database_url)
    async with trio.open_nursery() as nursery:
        await nursery.start(door.serve)
        async with campus.open_tills():
            await campus.goes_on()
            yield (settling := Settling(campus, door, database_url))
            await campus.goes_on()
        # The rest, and the comparison.
        await in_thread(campus.switch.stop)
        async with settling.follower() as process:
            wanted = campus.switch.verify()["records"]
            await until(settling.position, lambda now: now == wanted)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        campus.switch.configure(database_url=database_url)
        await campus.verdict()
        nursery.cancel_scope.cancel()


async def test_killed_at_every_step(settling: Settling) -> None:
    for steps, answered in [*CONNECTING, *MIGRATING, *ALIGNING]:
        await settling.dies(steps, answered)
        assert await settling.position() == 0
    for steps, answered in SLICING:
        await settling.dies(steps, answered)
        assert await settling.slices() == 0
    for steps, answered in COMMITTING:
        before = await settling.position()
        await settling.dies(steps, answered)
        assert await settling.position() == before or steps.count(MOVED) > 1, steps
        await settling.dies(*COMMITTED)
        assert await settling.position() > before


async def test_its_connection_is_cut_at_every_step(settling: Settling) -> None:
    async with settling.follower() as process:
        await settling.moves()
        for steps, answered in [*CONNECTING, *ALIGNING[2:], *COMMITTING, COMMITTED]:
            trap = settling.door.trap(*steps, answered=answered)
            # A new connection comes to the steps that each makes once, too.
            settling.door.cut()
            await _sprung(trap)
            settling.door.cut()
            await settling.moves()
        assert process.returncode is None, "one process all along"


async def test_two_at_once(settling: Settling) -> None:
    """As after a `kill -9` of the switch whose follower hangs in a commit while the next switch starts its own."""
    async with settling.follower() as first:
        trap = settling.door.trap(MOVED, "COMMIT;", answered=False)
        await _sprung(trap)
        async with settling.follower(settling.database) as second:
            await until(settling.waiting, lambda waiting: waiting == 1)
            trap.released.set()
            for _ in range(5):
                await settling.moves()
            assert (first.returncode, second.returncode) == (None, None)


async def test_killed_while_it_replays_or_ends_or_at_any_moment(settling: Settling, chance: random.Random) -> None:
    async with settling.follower():
        await settling.moves()
    for _ in range(3):
        trap = settling.door.trap("SELECT journal, position", answered=True)
        async with settling.follower() as process:
            await _sprung(trap)
            trap.released.set()
            await trio.sleep(chance.uniform(0, 0.02))
            process.kill()
    for last_step, answered in (((MOVED,), True), ((MOVED, "COMMIT;"), False), COMMITTED):
        trap = settling.door.trap(MOVED, "COMMIT;", answered=False)
        async with settling.follower() as process:
            await _sprung(trap)
            # What becomes durable while it is held up is what it still owes when it is told to end.
            await settling.campus.goes_on()
            process.send_signal(signal.SIGTERM)
            last = settling.door.trap(*last_step, answered=answered)
            trap.released.set()
            await _sprung(last)
            process.kill()
        settling.door.cut()
    for _ in range(4):
        async with settling.follower() as process:
            await trio.sleep(chance.uniform(0, 1))
            process.kill()
