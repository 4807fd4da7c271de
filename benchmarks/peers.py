"""PostgreSQL and Redis doing the same debit with the same duplicate check, from the same disk, over the same loopback.

Always true here: each is set up as well as it can be for this one thing, and what was in its favour is said; each forces every
purchase to disk before it answers, unless its mode says that it does not. At the end its books must hold exactly the purchases and
the fen that the terminals counted, and must balance.

How it works: PostgreSQL is the embedded one that the switch brings along, with more memory and a TCP port. Redis is the machine's
own, where it is installed. The debits are `peers/purchase.sql` and `peers/purchase.lua`; the native driver sends the purchases and
checks every answer.
"""

import asyncio
import contextlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg
import trio

from benchmarks.processes import BenchmarkFailed, Figures, Process
from switch.campus import Campus
from switch.postgres import SETTINGS, EmbeddedPostgres

DEBITS: Final = Path(__file__).resolve().parent / "peers"
READY_SECONDS: Final = 30.0

POSTGRESQL_SETTINGS: Final = {
    **SETTINGS,
    "listen_addresses": "127.0.0.1",
    "max_connections": "100",
    # All of it fits, no checkpoint falls into a measurement, and files of the log are used again, not made anew.
    "shared_buffers": "1GB",
    "wal_buffers": "64MB",
    "min_wal_size": "2GB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    # The switch's own PostgreSQL is gentle to the journal's disk; here there is nobody else.
    "backend_flush_after": "0",
    # What makes it durable, said once more.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
}
WAL_FILES_AHEAD: Final = 16
"""Of 16 MiB: made before anything is measured, as the switch's journal makes its own ahead of use."""
REDIS_SETTINGS: Final = {
    "bind": "127.0.0.1",
    "protected-mode": "no",
    "appendonly": "yes",
    # No snapshots and no rewriting beside the measurement.
    "save": "",
    "auto-aof-rewrite-percentage": "0",
    "maxclients": "4096",
    "daemonize": "no",
}
REDIS_MISSING: Final = "Redis is not installed, so its rows are left out (Debian, Ubuntu: apt install redis-server)"


def free_port() -> int:
    """A port of loopback that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _check(peer: str, counted: tuple[int, int], held: tuple[int, int], difference: int) -> None:
    """Both of purchases and fen."""
    if counted != held or difference != 0:
        raise BenchmarkFailed(f"the terminals counted {counted} (purchases, fen), {peer} holds {held}, its books differ by {difference}")


class PostgreSQL:
    """The embedded PostgreSQL with the campus and the function, kept in `folder` from one serving to the next."""

    def __init__(self, folder: Path, campus: Campus) -> None:
        self._folder = folder
        self._campus = campus
        self._counted = (0, 0)
        self._terminals_spent = 0
        self.version = ""

    @property
    def driving(self) -> tuple[str, ...]:
        """What the driver has to be told beside the address: nothing."""
        return ()

    @contextlib.contextmanager
    def serving(self) -> Iterator[Process]:
        """Start it; stopped at the end. Nothing of it runs while others are measured."""
        is_new = not self._folder.exists()
        port = free_port()
        postgres = EmbeddedPostgres(self._folder, settings={**POSTGRESQL_SETTINGS, "port": str(port)})
        trio.run(postgres.start)
        try:
            pid = postgres.statistics().pid
            assert pid is not None
            asyncio.run(self._prepare(port, is_new=is_new))
            process = Process(pid, f"127.0.0.1:{port}", tree=True)
            process.terminals_spent = self._terminals_spent
            yield process
            self._terminals_spent = process.terminals_spent
            asyncio.run(self._agree(port))
        finally:
            trio.run(postgres.stop)

    def count(self, run: Figures) -> None:
        """Take note of what terminals were answered."""
        self._counted = (self._counted[0] + run["answers_total"], self._counted[1] + run["fen_total"])

    async def _prepare(self, port: int, *, is_new: bool) -> None:
        connection = await _connect(port)
        try:
            self.version = str(connection.get_server_version().major) + "." + str(connection.get_server_version().minor)
            if not is_new:
                return
            await connection.execute((DEBITS / "purchase.sql").read_text())
            merchants = [(merchant.merchant_id, number) for number, merchant in enumerate(self._campus.merchants)]
            terminals = [(terminal.terminal_id, terminal.merchant_id) for terminal in self._campus.terminals]
            cards = [(int(card.card_number), card.status, card.expires, number) for number, card in enumerate(self._campus.cards)]
            purses = [(number, card.cash, card.cash) for number, card in enumerate(self._campus.cards)]
            for table, rows in (("merchant", merchants), ("terminal", terminals), ("card", cards), ("purse", purses)):
                await connection.copy_records_to_table(table, records=rows)
            await connection.execute("VACUUM ANALYZE")
            for _ in range(WAL_FILES_AHEAD):
                await connection.execute("SELECT pg_logical_emit_message(false, 'ahead', repeat('x', 16 << 20))")
            await connection.execute("CHECKPOINT")
        finally:
            await connection.close()

    async def _agree(self, port: int) -> None:
        connection = await _connect(port)
        try:
            approved = "FROM transaction WHERE response = '00'"
            count, fen = await connection.fetchrow(f"SELECT count(*), coalesce(sum(amount), 0)::bigint {approved}")
            debited = await connection.fetchval("SELECT (sum(opening) - sum(balance))::bigint FROM purse")
            credited = await connection.fetchval("SELECT coalesce(sum(amount), 0)::bigint FROM transaction WHERE credit IS NOT NULL")
        finally:
            await connection.close()
        _check("PostgreSQL", self._counted, (count, fen), debited - credited)


async def _connect(port: int) -> Any:
    return await asyncpg.connect(host="127.0.0.1", port=port, user="switch", database="switch", timeout=READY_SECONDS)


class Redis:
    """A Redis of this machine with the campus and the script, anew in `folder` each time that it serves."""

    def __init__(self, folder: Path, campus: Campus) -> None:
        self._folder = folder
        self._campus = campus
        self._counted = (0, 0)
        self._port = 0
        self._script = ""
        self.version = ""

    @staticmethod
    def is_installed() -> bool:
        return shutil.which("redis-server") is not None and shutil.which("redis-cli") is not None

    @property
    def driving(self) -> tuple[str, ...]:
        """What the driver has to be told beside the address."""
        return ("--script", self._script)

    @contextlib.contextmanager
    def serving(self) -> Iterator[Process]:
        """Start it; ended at the end, when its books have been looked at."""
        self._folder.mkdir()
        self._port = free_port()
        self._counted = (0, 0)
        settings = {**REDIS_SETTINGS, "port": str(self._port), "dir": str(self._folder)}
        command = ["redis-server", *(word for name, value in settings.items() for word in (f"--{name}", value))]
        try:
            with (self._folder / "redis.log").open("wb") as log:
                server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
            try:
                self._prepare(server)
                yield Process(server.pid, f"127.0.0.1:{self._port}", tree=True)
                self._agree()
            finally:
                server.terminate()
                server.wait(READY_SECONDS)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def sync(self, mode: str) -> None:
        """`always`: before each answer. `everysec`: once a second, so that a power cut takes back what was answered."""
        self._ask("CONFIG", "SET", "appendfsync", mode)

    def count(self, run: Figures) -> None:
        """Take note of what terminals were answered."""
        self._counted = (self._counted[0] + run["answers_total"], self._counted[1] + run["fen_total"])

    def _ask(self, *words: str, commands: str | None = None) -> str:
        command = ["redis-cli", "-p", str(self._port), *words]
        done = subprocess.run(command, input=commands, capture_output=True, text=True, check=False, timeout=READY_SECONDS)
        if done.returncode != 0 or "ERR" in done.stdout:
            raise BenchmarkFailed(f"redis-cli {words[0] if words else ''}: {(done.stderr or done.stdout).strip()}")
        return done.stdout.strip()

    def _prepare(self, server: subprocess.Popen[bytes]) -> None:
        patience = time.monotonic() + READY_SECONDS
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                break
            if server.poll() is not None or time.monotonic() > patience:
                said = (self._folder / "redis.log").read_text(errors="replace").strip().rpartition("\n")[2]
                raise BenchmarkFailed(f"Redis did not start: {said}")
            time.sleep(0.01)
        lines = [f"SET merchant:{merchant.merchant_id} 0" for merchant in self._campus.merchants]
        lines += [f"SET terminal:{terminal.terminal_id} {terminal.merchant_id}" for terminal in self._campus.terminals]
        lines += [
            f"HSET card:{card.card_number} status {card.status} expires {card.expires:%Y%m%d} cash {card.cash}"
            for card in self._campus.cards
        ]
        self._ask("--pipe", commands="".join(f"{line}\r\n" for line in lines))
        self._script = self._ask("-x", "SCRIPT", "LOAD", commands=(DEBITS / "purchase.lua").read_text())
        found = re.search(r"redis_version:([\d.]+)", self._ask("INFO", "server"))
        self.version = found[1] if found else "unknown"

    def _agree(self) -> None:
        opening = sum(card.cash for card in self._campus.cards)
        purses = "local sum = 0 for _, key in ipairs(redis.call('KEYS', 'card:*')) do sum = sum + redis.call('HGET', key, 'cash') end"
        merchants = "local sum = 0 for _, key in ipairs(redis.call('KEYS', 'merchant:*')) do sum = sum + redis.call('GET', key) end"
        # As text: a number of Lua becomes an answer of 64 bits only up to 2^53, and its own text has 14 digits.
        text = "return string.format('%.0f', sum)"
        debited = opening - int(self._ask("EVAL", f"{purses} {text}", "0"))
        credited = int(self._ask("EVAL", f"{merchants} {text}", "0"))
        count = int(self._ask("GET", "position") or 0)
        _check("Redis", self._counted, (count, credited), debited - credited)
