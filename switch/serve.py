"""`switch serve`: what runs, in which order it starts, and the mirror image of that when it ends.

Start: the core replays the journal; the admin's door opens; terminals are served; the database and its follower come up
beside them. End, on SIGTERM: no more connections, every message that was read is answered, the follower brings PostgreSQL to
the last record, everything closes, exit code 0. A second signal changes nothing.

Terminals never wait for PostgreSQL. Where the embedded database does not start, that is logged and tried again, and the switch
goes on authorizing.
"""

import functools
import json
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec
import trio

from switch import admin, gateway
from switch._core import Core
from switch.config import Config, ConfigError, Runtime
from switch.follow import Progress
from switch.postgres import EmbeddedPostgres, PostgresError

__all__ = ["open_core", "run"]

FOLLOWER_PAUSE_SECONDS: Final = (0.1, 5.0)
"""Pauses before a follower that ended is started again: the first, and the longest that they grow to."""

REFUSED: Final = 1
"""The exit code of a follower that will not go on without an operator."""

REFUSED_PAUSE_SECONDS: Final = 30.0

FOLLOWER_STOP_SECONDS: Final = 15.0
"""For the follower to reach the last record when the switch ends. The next start brings what is missing then."""

ENDING_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

DESCRIPTORS_BESIDE_CONNECTIONS: Final = 256
"""Files, pipes and the admin's connections."""

RUNTIME_PAUSE_SECONDS: Final = 5.0
"""Between two tries to write the runtime file."""

SECRET_PARAMETERS: Final = frozenset({"password", "passfile", "sslpassword"})
"""Of an address's query: what no log shows."""

log = logging.getLogger("switch")


@contextmanager
def open_core(config: Config, connections_max: int, accept_date: str | None = None) -> Iterator[Core]:
    """The core on the configuration's journal, closed at the end. Raises CoreError and ConfigError.

    `accept_date`: the campus's date, YYYY-MM-DD, confirmed after a long closure.
    """
    core = Core(
        journal=config.journal.folder,
        key_encryption_key=config.key_encryption_key(),
        timezone=config.campus.timezone,
        segment_bytes=config.journal.segment_bytes,
        amount_max=config.policy.amount_max,
        identity_days=config.policy.identity_days,
        hold_hours=config.policy.hold_hours,
        pin_tries_max=config.policy.pin_tries_max,
        mac_failures_max=config.terminals.mac_failures_max,
        connections_max=connections_max,
        accept_date=accept_date,
        progress=lambda record: log.info("replaying the journal: at record %d", record),
    )
    for remark in core.remarks:
        log.warning("%s; the start went on from what lies before", remark)
    try:
        yield core
    finally:
        core.close()


class Settling:
    """PostgreSQL and the follower that fills it, both supervised.

    Resource handling: `run` owns both processes. Error handling: whatever becomes of them is logged and they are started again;
    nothing of it reaches an authorization.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._progress = Progress()
        self._follower: trio.Process | None = None
        self._address = ""
        self._up = trio.Event()
        self._ending = trio.Event()

    def progress(self) -> Progress:
        """What the follower said last."""
        return self._progress

    async def shown_address(self) -> str:
        """Wait until the database is up, and give its address without a password."""
        await self._up.wait()
        return _without_password(self._address)

    async def run(self, *, task_status: trio.TaskStatus[str | None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run both until cancelled. Says the database's address once it is up, or None when the first try failed."""
        async with trio.open_nursery() as nursery:
            if self._config.database.embedded:
                self._address = await self._start_postgres(nursery, task_status)
            else:
                self._address = str(self._config.database.url)  # JSON's encoder wants a plain one
                task_status.started(_without_password(self._address))
            self._up.set()
            await self._follow(self._address)

    async def _start_postgres(self, nursery: trio.Nursery, task_status: trio.TaskStatus[str | None]) -> str:
        pause, pause_max = FOLLOWER_PAUSE_SECONDS
        while True:
            postgres = EmbeddedPostgres(self._config.database.folder)
            try:
                address: str = await nursery.start(postgres.supervise)
            except PostgresError as error:
                log.error("%s Terminals are served; the database is tried again.", error)  # noqa: TRY400 - the sentence says it all
                self._progress = Progress(error=str(error))
                task_status.started(None)
                # It is said once: the try that succeeds has nobody to tell any more.
                task_status = trio.TASK_STATUS_IGNORED
                await trio.sleep(pause)
                pause = min(2 * pause, pause_max)
            else:
                task_status.started(_without_password(address))
                return address

    async def _follow(self, address: str) -> None:
        pause, pause_max = FOLLOWER_PAUSE_SECONDS
        command = [sys.executable, "-m", "switch", "follow", "--config", str(self._config.file), "--upkeep"]
        if self._config.database.embedded:
            # An address of the site's own stays in the configuration: it may hold a password, and arguments are everybody's to see.
            command += ["--database", address]
        while not self._ending.is_set():
            began = trio.current_time()
            code = None
            try:
                code = await self._run_follower(command)
            except OSError as failure:
                error = f"the follower cannot be started: {failure.strerror or failure}"
                log.error("%s; it is tried again", error)  # noqa: TRY400 - the sentence says it all
            else:
                if self._ending.is_set():
                    return
                error = f"the follower ended with code {code}"
                log.error("the follower ended with code %d and is started again", code)
            self._progress = msgspec.structs.replace(self._progress, connected=False, error=error)
            if trio.current_time() - began > pause_max:
                pause = FOLLOWER_PAUSE_SECONDS[0]
            await trio.sleep(REFUSED_PAUSE_SECONDS if code == REFUSED else pause)
            pause = min(2 * pause, pause_max)

    async def _run_follower(self, command: list[str]) -> int:
        """Run it to its end and give its exit code. Raises OSError where it cannot be started."""
        follower = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._follower = follower
        try:
            assert follower.stdout is not None
            await self._read_progress(follower.stdout)
            return await follower.wait()
        finally:
            self._follower = None
            await _end(follower)

    async def _read_progress(self, stdout: trio.abc.ReceiveStream) -> None:
        line = b""
        async for data in stdout:
            *lines, line = (line + data).split(b"\n")
            if lines:
                before = self._progress
                try:
                    self._progress = msgspec.json.decode(lines[-1], type=Progress)
                except msgspec.DecodeError as error:
                    log.warning("a line of the follower is no progress and is ignored: %s", error)
                    continue
                if self._progress.error and self._progress.error != before.error:
                    log.warning("settlement waits: %s", self._progress.error)
                if self._progress.upkeep_error and self._progress.upkeep_error != before.upkeep_error:
                    log.warning("the journal is not looked after: %s", self._progress.upkeep_error)

    async def finish(self) -> None:
        """Have the follower bring PostgreSQL to the last record, and end."""
        self._ending.set()
        follower = self._follower
        if follower is None:
            return
        with trio.move_on_after(FOLLOWER_STOP_SECONDS) as deadline:
            follower.terminate()
            await follower.wait()
        if deadline.cancelled_caught:
            log.warning("the follower did not end within %s seconds and is ended", FOLLOWER_STOP_SECONDS)
            follower.kill()


def _without_password(address: str) -> str:
    """The address as it may stand in a log."""
    parts = urlsplit(address)
    shown = address
    if parts.password is not None:
        user, _, host = parts.netloc.rpartition("@")
        shown = shown.replace(parts.netloc, f"{user.partition(':')[0]}@{host}", 1)
    parameters = parts.query.split("&")
    harmless = [parameter for parameter in parameters if unquote(parameter.partition("=")[0]).strip().lower() not in SECRET_PARAMETERS]
    if harmless != parameters:
        before, _, _ = shown.partition("?")
        shown = f"{before}?{'&'.join(harmless)}" if harmless else before
    return shown


async def _end(process: trio.Process) -> None:
    """Leave nothing of a process behind. One that has ended already only has its pipes closed."""
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with trio.CancelScope(shield=True):
            # A pipe's close does not wait for anybody.
            await pipe.aclose()
    if process.returncode is None:
        process.kill()
        with trio.CancelScope(shield=True):
            # After SIGKILL the wait is the kernel's own time.
            await process.wait()


async def run(config: Config, announce: Callable[[str], None], accept_date: str | None = None) -> None:
    """Run the switch until SIGTERM or SIGINT; `announce` gets the ready line. For `accept_date` see `open_core`.

    Raises CoreError where the journal cannot be opened, ConfigError where a listener or a key cannot be had.
    """
    with open_core(config, _raise_descriptor_limit(config.terminals.connections_max), accept_date) as core:
        # Only now: until the journal is replayed, a signal may simply end the process.
        stopping = _end_on_signals()
        with _refusal(config, "terminals", config.terminals.host, config.terminals.port):
            listeners, terminals_address = await gateway.listen(config.terminals.host, config.terminals.port)
        with _refusal(config, "admin", config.admin.host, config.admin.port):
            admin_listener, admin_address = admin.listen(config.admin.host, config.admin.port)
        terminals = gateway.Gateway(core)
        settling = Settling(config)
        routes = admin.Door(core, terminals, settling.progress, config.admin_token()).application()
        async with trio.open_nursery() as background:
            await background.start(functools.partial(admin.serve, routes, admin_listener))
            async with trio.open_nursery() as foreground:
                await foreground.start(terminals.serve, listeners)
                database = None
                with trio.CancelScope() as starting:
                    foreground.start_soon(_cancel_on, stopping, starting)
                    database = await background.start(settling.run)
                    runtime = Runtime(pid=os.getpid(), terminals=terminals_address, admin=admin_address, database=database or "")
                    written = _tell(runtime, config.runtime_file)
                    foreground.start_soon(_keep_telling, runtime, config.runtime_file, settling, written)
                    ready = {"ready": True, "terminals": terminals_address, "admin": admin_address, "database": database}
                    announce(json.dumps(ready))
                    await stopping.wait()
                foreground.cancel_scope.cancel()
            log.info("told to end: answering what has been read")
            if not await terminals.drain():
                log.warning("some terminals did not take their answers in time; they find them again by repeating")
            await settling.finish()
            config.runtime_file.unlink(missing_ok=True)
            background.cancel_scope.cancel()
    for number in ENDING_SIGNALS:
        # The interpreter's own end would bring back the default, which kills.
        signal.signal(number, signal.SIG_IGN)
    log.info("ended")


@contextmanager
def _refusal(config: Config, section: str, host: str, port: int) -> Iterator[None]:
    """Turns the system's refusal to listen into a sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{config.file}: [{section}] cannot listen on {host} port {port}: {reason}; choose another.") from None


def _tell(runtime: Runtime, file: Path) -> bool:
    """Write how to reach the switch. False: it cannot be written now. Terminals do not need it, commands do."""
    try:
        runtime.write(file)
    except OSError as error:
        log.warning("%s cannot be written and is tried again: %s", file, error.strerror or error)
        with suppress(OSError):
            # One that a killed switch left behind would lead commands, and the token with them, to whoever has its port now.
            file.unlink(missing_ok=True)
        return False
    return True


async def _keep_telling(runtime: Runtime, file: Path, settling: Settling, written: bool) -> None:
    """Write it at last where it could not be written, and again when a database that was not up is."""
    await _tell_later(runtime, file, written)
    if not runtime.database:
        runtime = msgspec.structs.replace(runtime, database=await settling.shown_address())
        await _tell_later(runtime, file, _tell(runtime, file))


async def _tell_later(runtime: Runtime, file: Path, written: bool) -> None:
    while not written:
        await trio.sleep(RUNTIME_PAUSE_SECONDS)
        written = _tell(runtime, file)


def _raise_descriptor_limit(connections_max: int) -> int:
    """Have so many connections allowed and give how many are. Raises ConfigError where not even one is.

    Every connection is a descriptor; the usual soft limit of 1,024 is for programs that use select.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections_max + DESCRIPTORS_BESIDE_CONNECTIONS
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return connections_max
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    served = allowed - DESCRIPTORS_BESIDE_CONNECTIONS
    if served < 1:
        raise ConfigError(
            f"this system allows {hard} descriptors, and the switch needs {DESCRIPTORS_BESIDE_CONNECTIONS} beside its connections; "
            "raise its limit of open files."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if served < connections_max:
        log.warning(
            "this system allows %d descriptors, too few for %d connections: %d are served; raise its limit of open files",
            hard,
            connections_max,
            served,
        )
    return served


async def _cancel_on(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _end_on_signals() -> trio.Event:
    """An event that the first SIGTERM or SIGINT sets. Later ones change nothing, up to the process's end and through it."""
    stopping = trio.Event()
    trio_token = trio.lowlevel.current_trio_token()

    def note(*_: object) -> None:
        with suppress(trio.RunFinishedError):
            trio_token.run_sync_soon(stopping.set, idempotent=True)

    for number in ENDING_SIGNALS:
        signal.signal(number, note)
    return stopping
