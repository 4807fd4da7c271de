"""The embedded PostgreSQL: it starts as any user, comes back from any death, and its folder is nobody else's."""

import logging
import os
import signal
import stat
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from switch import postgres as module
from switch.postgres import EmbeddedPostgres, PostgresError, binaries
from tests.conftest import execute, fetch, run_asyncio

AS_ROOT = os.geteuid() == 0


async def query(url: str, text: str) -> list[tuple[object, ...]]:
    return await trio.to_thread.run_sync(run_asyncio, fetch(url, text))


async def do(url: str, *statements: str) -> None:
    await trio.to_thread.run_sync(run_asyncio, execute(url, *statements))


def pid_of(postgres: EmbeddedPostgres) -> int:
    pid = postgres.statistics().pid
    assert pid is not None
    return pid


def there_is(pid: int) -> bool:
    """Whether it runs; one that has ended and waits for its parent to notice has no program any more."""
    return Path(f"/proc/{pid}/exe").exists()


def there_is_folder(path: Path) -> bool:
    return path.is_dir()


def owner(path: Path) -> int:
    return path.stat().st_uid


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def user_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("Uid:"))
    return int(line.split()[2])


@pytest.fixture
def said() -> Iterator[trio.MemoryReceiveChannel[str]]:
    """What the module logs, as it comes."""
    send, receive = trio.open_memory_channel[str](1000)

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            send.send_nowait(record.getMessage())

    handler = Handler()
    module.logger.addHandler(handler)
    yield receive
    module.logger.removeHandler(handler)


async def heard(said: trio.MemoryReceiveChannel[str], part: str) -> str:
    with trio.fail_after(60):
        async for message in said:
            if part in message:
                return message
    raise AssertionError


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new cluster is a thousand files; that they are synced matters to one test, and would cost each of them seconds."""

    async def no_sync(self: EmbeddedPostgres, launch: module._Launch, cluster: Path) -> None:
        pass

    if request.node.get_closest_marker("synced") is None:
        monkeypatch.setattr(EmbeddedPostgres, "_sync", no_sync)


@pytest.mark.synced
async def test_it_starts_serves_both_kinds_of_client_and_stops(tmp_path: Path) -> None:
    folder = tmp_path / "database"
    postgres = EmbeddedPostgres(folder)
    await postgres.start()
    try:
        assert postgres.statistics().starts == 1
        pid = pid_of(postgres)
        assert mode(folder) == 0o700
        shown = (
            "SELECT current_user::text, current_database()::text, current_setting('server_encoding'),"
            " current_setting('listen_addresses'), current_setting('synchronous_commit'), current_setting('fsync')"
        )
        expected = ("switch", "switch", "UTF8", "", "on", "on")
        assert await query(postgres.url, shown) == [expected]
        # libpq reads the same address in its own way.
        psql = await trio.run_process(
            [str(binaries() / "psql"), "--no-psqlrc", "--tuples-only", "--no-align", "--field-separator=|", "-c", shown, postgres.url],
            capture_stdout=True,
        )
        assert psql.stdout.decode().strip() == "|".join(expected)
        await do(postgres.url, "CREATE TABLE kept AS SELECT '食堂' AS name")
    finally:
        await postgres.stop()
    assert not there_is(pid)
    assert postgres.statistics() == module.PostgresStatistics(pid=None, starts=1, last_exit=0)

    again = EmbeddedPostgres(folder)
    await again.start()
    try:
        assert await query(again.url, "SELECT name FROM kept") == [("食堂",)]
    finally:
        await again.stop()


@pytest.mark.parametrize(
    "launches",
    [
        pytest.param(list(module._launches()), id="as here"),
        pytest.param(
            # As in a container that refuses user namespaces; pytest's folder is closed to other users, too.
            [module._Launch(0, 0, ("false",)), module._as_nobody(), module._as_nobody(*module.PASS_THROUGH)]
            if AS_ROOT
            else [module._Launch(os.geteuid(), os.getegid(), ())],
            id="the last way",
        ),
    ],
)
async def test_every_way_to_start_can_follow_every_other(tmp_path: Path, launches: list[module._Launch]) -> None:
    for way in (launches, None, launches):
        postgres = EmbeddedPostgres(tmp_path / "database", launches=way)
        await postgres.start()
        try:
            assert await query(postgres.url, "SELECT 1") == [(1,)]
            if AS_ROOT:
                assert user_of(pid_of(postgres)) == owner(tmp_path / "database" / "cluster")
        finally:
            await postgres.stop()


async def test_no_way_to_start_is_one_sentence(tmp_path: Path) -> None:
    none = [
        module._Launch(os.geteuid(), os.getegid(), ("no-such-program",)),
        module._Launch(os.geteuid(), os.getegid(), ("sh", "-c", "echo refused by the kernel >&2; exit 1")),
    ]
    with pytest.raises(PostgresError, match=r"there is no way to run .* \(refused by the kernel\); run the switch as an ordinary user"):
        await EmbeddedPostgres(tmp_path / "database", launches=none).start()
    with pytest.raises(PostgresError, match=r"\(no-such-program is not installed"):
        await EmbeddedPostgres(tmp_path / "database", launches=none[:1]).start()


@pytest.mark.parametrize("name", ["x" * 120, "with a space, and a comma"])
async def test_a_path_that_no_socket_address_can_hold_gets_a_private_folder_instead(tmp_path: Path, name: str) -> None:
    postgres = EmbeddedPostgres(tmp_path / name)
    await postgres.start()
    try:
        (host,) = urllib.parse.parse_qs(urllib.parse.urlsplit(postgres.url).query)["host"]
        assert not host.startswith(str(tmp_path))
        assert mode(Path(host)) == 0o700
        assert await query(postgres.url, "SELECT 1") == [(1,)]
    finally:
        await postgres.stop()
    assert not there_is_folder(Path(host))


async def test_a_killed_server_comes_back_at_the_same_address_with_what_was_committed(
    tmp_path: Path, said: trio.MemoryReceiveChannel[str]
) -> None:
    postgres = EmbeddedPostgres(tmp_path / "database")
    async with trio.open_nursery() as nursery:
        url: str = await nursery.start(postgres.supervise)
        await do(url, "CREATE TABLE kept (number int)", "INSERT INTO kept VALUES (7)")
        for deaths in (1, 2):
            os.kill(pid_of(postgres), signal.SIGKILL)
            await heard(said, "ended with code -9")
            await heard(said, "runs again")
            assert postgres.statistics().starts == 1 + deaths
            assert postgres.statistics().last_exit == -9
            assert postgres.url == url
            assert await query(url, "SELECT number FROM kept") == [(7,)]
        pid = pid_of(postgres)
        nursery.cancel_scope.cancel()
    assert not there_is(pid)


async def test_a_server_that_cannot_come_back_yet_is_tried_again(tmp_path: Path, said: trio.MemoryReceiveChannel[str]) -> None:
    postgres = EmbeddedPostgres(tmp_path / "database")
    async with trio.open_nursery() as nursery:
        await nursery.start(postgres.supervise)
        version = tmp_path / "database" / "cluster" / "PG_VERSION"
        version.rename(version.with_suffix(".away"))
        os.kill(pid_of(postgres), signal.SIGKILL)
        assert "is not a valid data directory" in await heard(said, "at its start")
        version.with_suffix(".away").rename(version)
        await heard(said, "runs again")
        nursery.cancel_scope.cancel()


async def test_a_first_start_that_fails_says_why_in_the_servers_words(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path / "database")
    await postgres.start()
    await postgres.stop()
    (tmp_path / "database" / "cluster" / "PG_VERSION").write_text("9\n")
    with pytest.raises(PostgresError, match=r"ended with code 1 at its start: .*FATAL: .* incompatible with server"):
        await postgres.start()
    assert postgres.statistics().pid is None


async def test_a_cluster_that_was_not_finished_is_made_anew(tmp_path: Path) -> None:
    unfinished = tmp_path / "database" / "cluster.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    postgres = EmbeddedPostgres(tmp_path / "database")
    await postgres.start()
    await postgres.stop()
    assert not unfinished.exists()


async def test_a_second_launcher_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    first, second = EmbeddedPostgres(tmp_path / "database"), EmbeddedPostgres(tmp_path / "database")
    await first.start()
    try:
        with pytest.raises(PostgresError, match=r"is run by another switch; stop that one first\.$"):
            await second.start()
        assert await query(first.url, "SELECT 1") == [(1,)]
    finally:
        await first.stop()


async def test_a_stale_pid_file_that_names_a_stranger_does_not_block(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path / "database")
    await postgres.start()
    pid_file = tmp_path / "database" / "cluster" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    await postgres.stop()
    # Not our own process: PostgreSQL looks past the one that started it.
    pid_file.write_text("\n".join([str(os.getppid()), *lines[1:]]) + "\n")
    (tmp_path / "database" / "socket" / ".s.PGSQL.5432.lock").write_text(f"{os.getppid()}\n")
    await postgres.start()
    await postgres.stop()


LAUNCHER = """
import sys, trio
from pathlib import Path
from switch.postgres import EmbeddedPostgres, _Launch, _launches

async def main():
    way = next(_launches())
    if sys.argv[2] == "without a death signal":
        way = _Launch(way.uid, way.gid, way.wrapper[: way.wrapper.index("setpriv")])
    server = EmbeddedPostgres(Path(sys.argv[1]), launches=[way])
    await server.start()
    print(server.statistics().pid, flush=True)
    await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.parametrize("how", ["with a death signal", "without a death signal"])
async def test_the_server_of_a_killed_launcher_does_not_block_its_successor(tmp_path: Path, how: str) -> None:
    command = [sys.executable, "-c", LAUNCHER, str(tmp_path / "database"), how]
    launcher = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    try:
        assert launcher.stdout is not None
        with trio.fail_after(60):
            pid = int(await launcher.stdout.receive_some())
        await launcher.stdout.aclose()
        assert there_is(pid)
    finally:
        launcher.kill()
        await launcher.wait()
    if how == "with a death signal":
        with trio.fail_after(60):
            await module._gone(pid)
    else:
        assert there_is(pid)
    postgres = EmbeddedPostgres(tmp_path / "database")
    await postgres.start()
    try:
        assert not there_is(pid)
        assert await query(postgres.url, "SELECT 1") == [(1,)]
    finally:
        await postgres.stop()


async def test_a_frozen_server_is_stopped_the_hard_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIT_SECONDS", 0.05)
    postgres = EmbeddedPostgres(tmp_path / "database", stop_seconds=0.05)
    await postgres.start()
    pid = pid_of(postgres)
    os.kill(pid, signal.SIGSTOP)
    await postgres.stop()
    assert not there_is(pid)
    assert postgres.statistics().last_exit == -signal.SIGKILL
    # What it had left of its processes is met and ended by the next start.
    await postgres.start()
    await postgres.stop()


async def test_what_a_killed_server_left_frozen_is_ended_by_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIT_SECONDS", 0.2)
    postgres = EmbeddedPostgres(tmp_path / "database", stop_seconds=0.05)
    await postgres.start()
    left = set(postgres._processes()) - {pid_of(postgres)}
    for pid in left:
        os.kill(pid, signal.SIGSTOP)
    os.kill(pid_of(postgres), signal.SIGKILL)
    await postgres.stop()
    assert all(map(there_is, left))
    await postgres.start()
    assert not any(map(there_is, left))
    await postgres.stop()


async def test_each_test_gets_an_empty_database(database_url: str) -> None:
    await do(database_url, "CREATE TABLE mine (number int)")
    assert await query(database_url, "SELECT count(*) FROM mine") == [(0,)]
