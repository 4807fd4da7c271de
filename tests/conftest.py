"""What several test modules need: one embedded database for the whole run, and an empty database in it for each test."""

import asyncio
import itertools
import os
import random
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest
import trio

from switch.postgres import EmbeddedPostgres
from tests.clock import Clock
from tests.decision_table import Scene
from tests.switch_process import MERCHANTS, Connection, Switch

ROOT = Path(__file__).resolve().parent.parent

Result = TypeVar("Result")


def run_asyncio(work: Coroutine[Any, Any, Result]) -> Result:
    """Run asyncpg's side of a test; from trio by `await trio.to_thread.run_sync(run_asyncio, ...)`."""
    return asyncio.run(work)


async def execute(url: str, *statements: str) -> None:
    """Run SQL statements, each in a transaction of its own."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def fetch(url: str, query: str) -> list[tuple[Any, ...]]:
    """The rows of one query."""
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def embedded_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """One server for all tests that do not harm it. It runs under a trio of its own, as each test has its own."""
    postgres = EmbeddedPostgres(tmp_path_factory.mktemp("database"))
    started = threading.Event()
    handles: list[tuple[trio.lowlevel.TrioToken, trio.CancelScope]] = []
    failures: list[BaseException] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(postgres.supervise)
            handles.append((trio.lowlevel.current_trio_token(), nursery.cancel_scope))
            started.set()

    def run() -> None:
        try:
            trio.run(main)
        except BaseException as failure:  # noqa: BLE001 - raised again by the fixture, in pytest's thread
            failures.append(failure)
        finally:
            started.set()

    thread = threading.Thread(target=run, name="embedded database")
    thread.start()
    started.wait()
    if handles:
        yield postgres
        token, scope = handles[0]
        trio.from_thread.run_sync(scope.cancel, trio_token=token)
    thread.join()
    if failures:
        raise failures[0]


_numbers = itertools.count(1)


@pytest.fixture
def database_url(embedded_postgres: EmbeddedPostgres) -> Iterator[str]:
    """The address of an empty database, dropped after the test whoever is still connected."""
    name = f"test_{next(_numbers)}"
    run_asyncio(execute(embedded_postgres.url, f"CREATE DATABASE {name}"))
    yield embedded_postgres.url.replace("/switch?", f"/{name}?")
    run_asyncio(execute(embedded_postgres.url, f"DROP DATABASE {name} WITH (FORCE)"))


@contextmanager
def running(folder: Path, **settings: Any) -> Iterator[Switch]:
    """A switch that knows two merchants."""
    switch = Switch(folder, **settings)
    (switch.folder / "merchants.csv").write_text(MERCHANTS, encoding="utf-8")
    imported = switch.command("import", "--config", switch.file, switch.folder / "merchants.csv")
    assert imported.returncode == 0, imported.stderr
    switch.start()
    with ExitStack() as stack:
        stack.callback(switch.close)
        yield switch


@pytest.fixture(scope="session")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switch]:
    """One running switch without a database, for all tests that leave it as it was but for their own terminals and cards."""
    with running(tmp_path_factory.mktemp("switch") / "data") as switch:
        yield switch


@pytest.fixture(scope="session")
def ruled_switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switch]:
    """Another one, for tests that set rules: each of them sets all that it needs."""
    with running(tmp_path_factory.mktemp("ruled") / "data") as switch:
        yield switch


@pytest.fixture
def make_switch(tmp_path: Path) -> Iterator[Callable[..., Switch]]:
    """Makes data folders for switches of the test's own; what still runs at the end is ended and checked."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Switch:
            switch = Switch(tmp_path / f"switch{next(_numbers)}", **settings)
            stack.callback(switch.close)
            return switch

        yield make


@pytest.fixture
async def connection(switch: Switch) -> AsyncIterator[Connection]:
    """A terminals' connection to the switch of the session."""
    async with switch.connect() as connection:
        yield connection


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Of the processes that the test starts."""
    return Clock(tmp_path, monkeypatch)


@pytest.fixture
async def scene(switch: Switch, connection: Connection) -> AsyncIterator[Scene]:
    """A row of a table on the switch of the session."""
    async with switch.operator():
        yield Scene(switch, connection)


@pytest.fixture
async def ruled(ruled_switch: Switch) -> AsyncIterator[Scene]:
    """A row of a table on the switch that has rules."""
    async with ruled_switch.connect() as connection, ruled_switch.operator():
        yield Scene(ruled_switch, connection)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, metavar="N", help="what random tests begin with, to see one of them again")
    parser.addoption("--model-examples", type=int, default=20, metavar="N", help="campuses in tests/test_campus_model.py (20)")
    parser.addoption("--chaos-rounds", type=int, default=20, metavar="N", help="kills in tests/test_chaos_kill.py (20)")
    parser.addoption("--chaos-wide", action="store_true", help="more faults in tests/test_chaos_*.py than an ordinary run has time for")


@pytest.fixture(scope="session")
def driver() -> Path:
    """The benchmarks' native side as a debug build, which `cargo test` has most of already."""
    subprocess.run(["cargo", "build", "--locked", "--quiet", "--package", "switch_benchmarks"], cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "switch_benchmarks"


@pytest.fixture
def chance(pytestconfig: pytest.Config) -> random.Random:
    chosen: int | None = pytestconfig.getoption("seed")
    seed = random.randrange(2**32) if chosen is None else chosen  # noqa: S311 - no secret
    print(f"seed {seed}")  # noqa: T201 - shown where the test fails
    return random.Random(seed)  # noqa: S311
