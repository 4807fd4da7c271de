"""What settles gives way to terminals: on the real processes, as the kernel sees them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
import trio

from switch.postgres import EmbeddedPostgres
from switch.priority import NICE, _must_be_told, give_way
from tests.conftest import run_asyncio
from tests.switch_process import Switch, in_thread, until

IDLE = [sys.executable, "-c", "print(flush=True); input()"]


@pytest.fixture
def started() -> Iterator[Callable[..., int]]:
    """Starts processes that do nothing until the test's end."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(*, session: bool) -> int:
        process = subprocess.Popen(IDLE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=session)
        processes.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process.pid

    yield start
    for process in processes:
        process.communicate(b"\n")


def nice(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


def group(pid: int | str) -> tuple[str, int]:
    """Name and nice value of a process's group; where it is in none, nothing can keep it from giving way."""
    try:
        name, _, value = Path(f"/proc/{pid}/autogroup").read_text().partition(" nice ")
    except FileNotFoundError:
        # A kernel without groups.
        return "", NICE
    return name, int(value) if name else NICE


def children(pid: int) -> list[int]:
    return [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]


def threads(pid: int) -> list[int]:
    return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]


def program(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def test_a_process_and_its_own_group_give_way(started: Callable[..., int]) -> None:
    pid = started(session=True)
    while not give_way(pid):
        pass
    assert (nice(pid), group(pid)[1]) == (NICE, NICE)


def test_the_group_that_it_shares_with_us_stays(started: Callable[..., int]) -> None:
    pid, before = started(session=False), group("self")
    assert group(pid) == before
    assert give_way(pid)
    assert (nice(pid), group("self")) == (NICE, before)
    assert nice(os.getpid()) < NICE


@pytest.mark.parametrize(
    ("its", "own", "must"),
    [
        ("/autogroup-7 nice 0\n", "/autogroup-3 nice 0\n", True),
        ("/autogroup-7 nice 10\n", "/autogroup-3 nice 19\n", True),
        ("/autogroup-7 nice 0\n", "", True),
        ("/autogroup-7 nice 19\n", "/autogroup-3 nice 0\n", False),
        ("/autogroup-3 nice 0\n", "/autogroup-3 nice 0\n", False),
        ("", "/autogroup-3 nice 0\n", False),
        ("", "", False),
    ],
)
def test_a_group_is_told_where_it_is_one_and_not_ours(its: str, own: str, must: bool) -> None:
    assert _must_be_told(its, own) is must


def test_who_is_gone_is_no_matter(started: Callable[..., int]) -> None:
    pid = started(session=True)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert give_way(pid)


async def test_every_process_of_the_database_gives_way_new_ones_too(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path / "database")
    async with trio.open_nursery() as nursery:
        url: str = await nursery.start(postgres.supervise)
        postmaster = postgres.statistics().pid
        assert postmaster is not None

        async def behind() -> int:
            processes = [postmaster, *children(postmaster)]
            assert len(processes) > 4
            return sum(nice(pid) < NICE or group(pid)[1] < NICE for pid in processes)

        await until(behind, lambda left: left == 0)
        connection = await in_thread(lambda: run_asyncio(_backend_beside(url)))
        assert connection == (NICE, NICE)
        nursery.cancel_scope.cancel()


async def _backend_beside(url: str) -> tuple[int, int]:
    """The values of a new connection's process, once they are what they should be."""
    connection = await asyncpg.connect(url)
    pid = connection.get_server_pid()
    while (found := (nice(pid), group(pid)[1])) != (NICE, NICE):
        await connection.execute("SELECT pg_sleep(0.05)")
    await connection.close()
    return found


async def test_the_follower_gives_way_and_the_switch_does_not(make_switch: Callable[..., Switch], database_url: str) -> None:
    switch = make_switch(database=database_url)
    await in_thread(switch.start)
    assert switch.process is not None
    pid = switch.process.pid

    async def settled() -> int:
        return (await switch.metrics()).value("switch_settlement_connected")

    # By then all its threads have begun.
    await until(settled, bool)
    (follower,) = [child for child in children(pid) if " follow " in program(child)]
    assert {nice(thread) for thread in threads(follower)} == {NICE}
    assert nice(pid) == nice(os.getpid())
