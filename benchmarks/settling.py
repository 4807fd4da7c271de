"""How fast the follower fills a new PostgreSQL from a journal that is there already, and where the time goes.

    benchmarks/settling.py                                        # ten million records of a college's 20,000 cards: some minutes
    benchmarks/settling.py --records 10000000 --cards 1000000     # each card hardly ever twice in a chunk

Always true here: a figure is given only where PostgreSQL then holds every record once, its balances are the sums of its postings, and the
questions that people ask of it are answered by its indexes.

How it works: the native driver makes a journal. The real `switch follow` settles it, from the first record on, into the embedded
PostgreSQL as the switch runs it. What the processes used is read from /proc, what was written from PostgreSQL's own statistics.
"""

import argparse
import asyncio
import functools
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec
import trio

from benchmarks.machine import file_system, machine
from benchmarks.processes import SWITCH, BenchmarkFailed, Figures, Process, command, descendants, progress, work_folder
from switch.follow import Progress
from switch.postgres import EmbeddedPostgres
from switch.settlement import Settlement

ROOT: Final = Path(__file__).resolve().parent.parent

QUESTIONS: Final[Mapping[str, tuple[str, str]]] = {
    "a card": ("SELECT * FROM transaction WHERE card_number = '6230000000000007'", "card_number_idx"),
    "what a card spent on a day": (
        "SELECT sum(amount) FROM spending WHERE card_number = '6230000000000007' AND business_date = '2026-11-24'",
        "card_number_idx",
    ),
    "a terminal": ("SELECT count(*) FROM transaction WHERE terminal_id = 'T0000001'", "terminal_id_idx"),
    "a transaction number": ("SELECT * FROM transaction WHERE position = (SELECT position FROM journal_position)", "pkey"),
}
"""What people ask, and the index that must answer. A merchant has an index too; in this campus there is but one."""


def settle(folder: Path, journal: Path) -> Figures:
    """Settle `journal` into a new database in `folder`, and give the figures."""
    data = folder / "data"
    command("init", str(data))
    config = data / "switch.toml"
    config.write_text(config.read_text().replace('folder = "journal"', f'folder = "{journal}"'))

    async def serve() -> Figures:
        postgres = EmbeddedPostgres(data / "database")
        async with trio.open_nursery() as nursery:
            url: str = await nursery.start(postgres.supervise)
            pid = postgres.statistics().pid
            assert pid is not None
            figures = await trio.to_thread.run_sync(functools.partial(_follow, config, url, pid))
            nursery.cancel_scope.cancel()
        return figures

    return trio.run(serve)


def _follow(config: Path, url: str, postmaster: int) -> Figures:
    """Run the follower from the first record to the last."""
    before = asyncio.run(_fetch(url, "SELECT pg_current_wal_lsn()::text"))[0][0]
    arguments = [*SWITCH, "follow", "--config", str(config), "--database", url]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        try:
            marks = []
            for line in follower.stdout:
                told = msgspec.json.decode(line, type=Progress)
                if told.connected:
                    marks.append((time.monotonic(), told.settled))
                if told.settled and told.settled == told.durable:
                    break
            else:
                raise BenchmarkFailed("the follower ended before it had settled everything")
            used = {"follow": Process(follower.pid, url).cpu_seconds()}
            (backend,) = asyncio.run(_fetch(url, "SELECT pid FROM pg_stat_activity WHERE application_name = 'campus card switch'"))
            used["backend"] = Process(backend[0], url).cpu_seconds()
            others = {postmaster, *descendants(postmaster)} - {backend[0]}
            used["the rest of PostgreSQL"] = sum(Process(pid, url).cpu_seconds() for pid in others)
        finally:
            follower.kill()
    seconds, records = marks[-1][0] - marks[0][0], marks[-1][1]
    return {
        "records": records,
        "seconds": seconds,
        "records_per_second": records / seconds,
        "cpu_us": {name: used_seconds * 1e6 / records for name, used_seconds in used.items()},
        **asyncio.run(_look(url, before, records)),
    }


async def _fetch(url: str, query: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def _look(url: str, lsn_before: str, records: int) -> Figures:
    """What PostgreSQL holds now, that it is right, and how long it takes to answer."""
    ((wal_bytes,),) = await _fetch(url, f"SELECT (pg_current_wal_lsn() - '{lsn_before}'::pg_lsn)::bigint")
    async with Settlement.connect(url) as database:
        books = await database.books()
    balances = {number: account.balance for number, account in books.accounts.items()}
    # An account that nothing was posted to has no sum.
    if any(balance != books.posted.get(number, 0) for number, balance in balances.items()) or sum(balances.values()) != 0:
        raise BenchmarkFailed("the balances are not the sums of the postings")
    ((distinct,),) = await _fetch(url, "SELECT count(DISTINCT position) FROM transaction")
    if (books.position, distinct) != (records, books.transactions):
        raise BenchmarkFailed(
            f"of {records} records PostgreSQL has {books.position}, and {distinct} of {books.transactions} rows are different"
        )
    await _analyze(url)
    sizes = await _fetch(
        url,
        "SELECT CASE relkind WHEN 'i' THEN 'indexes' ELSE 'tables' END, sum(pg_relation_size(oid))::bigint FROM pg_class"
        " WHERE relname ~ '^(transaction|posting)_2' AND relkind IN ('r', 'i') GROUP BY 1",
    )
    return {
        "transactions": books.transactions,
        "postings": books.postings,
        "wal_bytes": wal_bytes / records,
        "held_bytes": {name: size / records for name, size in sizes},
        "answers_ms": {name: await _ask(url, *question) for name, question in QUESTIONS.items()},
    }


async def _analyze(url: str) -> None:
    # As autovacuum does, sooner or later.
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


async def _ask(url: str, query: str, index: str) -> float:
    """Milliseconds of one answer, the plan included; the first one, which finds less in memory, is not counted."""
    plan = "\n".join(row[0] for row in await _fetch(url, f"EXPLAIN {query}"))
    if index not in plan:
        raise BenchmarkFailed(f"{query} is answered without {index}:\n{plan}")
    connection = await asyncpg.connect(url)
    try:
        await connection.fetch(query)
        began = time.monotonic()
        await connection.fetch(query)
        return (time.monotonic() - began) * 1e3
    finally:
        await connection.close()


def measure(driver: list[str], folder: Path, records: int, cards: int) -> Figures:
    """Make a journal in `folder`, settle it, and give the figures. `driver`: the native side's command."""
    journal = folder / "journal"
    arguments = [*driver, "startup", "--folder", str(journal), "--records", str(records), "--cards", str(cards)]
    made = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise BenchmarkFailed(made.stderr.strip())
    return {"cards": cards, **settle(folder, journal)}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks/settling.py", description="Records a second into a new PostgreSQL.")
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--cards", type=int, default=20_000)
    parser.add_argument("--rehearsal", action="store_true", help="with any build: a test that it runs; figures mean nothing")
    parser.add_argument("--driver", type=Path, default=ROOT / "target" / "release" / "switch_benchmarks", metavar="FILE")
    parser.add_argument("--folder", type=Path, default=ROOT / "target", help="where all data goes: on the disk to measure")
    options = parser.parse_args(arguments)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not options.rehearsal and file_system(folder) in {"tmpfs", "ramfs"}:
        parser.error(f"{folder} is in memory, where nothing is durable; name a folder on a disk with --folder")
    driver = [str(options.driver), *(["--rehearsal"] if options.rehearsal else [])]
    try:
        with work_folder(folder) as work:
            figures = measure(driver, work, options.records, options.cards)
    except BenchmarkFailed as failure:
        progress(f"benchmarks/settling.py: {failure}")
        return 1
    print(json.dumps({"machine": machine(folder), **figures}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
