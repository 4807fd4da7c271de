"""A switch of one's own on this machine, for a demonstration or a load test: an empty folder, the switch's own commands, its process.

Always true here: no process and, unless asked to, no file is left, whatever ends it; killed past asking (SIGKILL) it leaves its folder, but
no process where util-linux's setpriv is.

How it works: trio alone; whatever blocks (removing a folder, writing to the console) is on a thread. The switch alone is not started on
one: the kernel's signal on a parent's death comes with the end of the thread that forked, and an idle worker thread ends after some
seconds.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio

from switch.agreement import Books, BooksUnread, read_books, verdict_of_command

__all__ = ["Ready", "TrialFailed", "interruptible", "on_trial", "say", "working_folder"]

COMMAND_SECONDS: Final = 120.0
"""For `switch init`, `import`, `reconcile` or `verify`: far above what they take, so that a hang ends."""

READY_SECONDS: Final = 120.0
"""For the switch to be ready; the first time, that includes the making of a database."""

DRAIN_SECONDS: Final = 30.0
"""For the switch to end after SIGTERM."""

WITH_ITS_PARENT: Final = ("setpriv", "--pdeathsig", "TERM", "--")
"""Before a command: the kernel asks it to end when the thread that started it is gone, even killed."""

LOG_TAIL_LINES: Final = 20
INTERRUPTED: Final = 130


class TrialFailed(Exception):
    """One sentence, or several lines, for the one who started it."""


class Ready(msgspec.Struct, frozen=True):
    """The line by which `switch serve` says where it can be reached."""

    ready: bool
    terminals: str
    admin: str
    database: str


async def interruptible(work: Callable[[], Awaitable[int]], failed: str) -> int:
    """Runs `work` to its exit code: 1 behind the sentence that begins with `failed` where it raises `TrialFailed`, 130 interrupted."""
    exit_code = INTERRUPTED
    async with trio.open_nursery() as nursery:

        async def until_interrupted(task_status: trio.TaskStatus[None]) -> None:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                task_status.started()
                async for _ in signals:
                    nursery.cancel_scope.cancel()

        await nursery.start(until_interrupted)
        try:
            exit_code = await work()
        except TrialFailed as failure:
            await say(f"{failed}: {failure}", error=True)
            exit_code = 1
        nursery.cancel_scope.cancel()
    if exit_code == INTERRUPTED:
        await say("\nInterrupted; everything is stopped and taken away.", error=True)
    return exit_code


async def on_trial(
    data: Path, campus: Path, settings: Mapping[str, str], exercise: Callable[[Ready], Awaitable[None]]
) -> tuple[Books, list[str]]:
    """Makes a switch in the new folder `data`, imports the files in `campus`, serves, and lets `exercise` at it; then settles and ends it.

    Returns ledger and PostgreSQL as they stood after the exercise, and what was wrong with the switch itself, a sentence each: its own
    reconciliation, its end, its journal. Raises `TrialFailed` where it cannot be brought up, or ends in the middle.
    """
    config = data / "switch.toml"
    await command("init", str(data))
    configure(config, settings)
    await command("import", "--config", str(config), *(str(campus / f"{name}.csv") for name in ("merchants", "terminals", "cards")))
    async with TrialSwitch.serving(config, data.with_suffix(".log")) as switch:
        async with switch.watched():
            await exercise(switch.ready)
            try:
                books = await trio.to_thread.run_sync(read_books, data / "journal", switch.ready.database, abandon_on_cancel=True)
            except BooksUnread as failure:
                raise TrialFailed(str(failure)) from None
            reconciliation = await command("reconcile", "--config", str(config), check=False)
        ended = await switch.stop()
    found = [
        verdict_of_command("`switch reconcile`", reconciliation, "ledger and PostgreSQL differ"),
        "" if ended == 0 else f"The switch ended with {ended} after SIGTERM, not with 0.",
        verdict_of_command("`switch verify`", await command("verify", str(data), check=False), "the journal is not sound"),
    ]
    return books, [verdict for verdict in found if verdict]


def configure(config: Path, settings: Mapping[str, str]) -> None:
    """Sets every field of these names in a switch.toml: `{"port": "0"}`."""
    text = config.read_text(encoding="utf-8")
    for name, value in settings.items():
        text, found = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", text)
        assert found, f"{config} has no field {name}"
    config.write_text(text, encoding="utf-8")


def _empty_folder(directory: Path | None) -> Path:
    if directory is None:
        return Path(tempfile.mkdtemp(prefix="campus-card-switch-"))
    folder = directory.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = any(folder.iterdir())
    except OSError as error:
        raise TrialFailed(f"{directory}: {error.strerror}.") from None
    if occupied:
        raise TrialFailed(f"{directory}: this folder is not empty; name a new or an empty one.")
    return folder


@contextlib.asynccontextmanager
async def working_folder(directory: Path | None, *, keep: bool) -> AsyncIterator[Path]:
    """A new temporary folder, or `directory`, which must be new or empty. It is taken away at the end unless `keep`."""
    folder = await trio.to_thread.run_sync(_empty_folder, directory)
    try:
        yield folder
    finally:
        if not keep:
            with trio.CancelScope(deadline=trio.current_time() + DRAIN_SECONDS, shield=True):
                await trio.to_thread.run_sync(partial(shutil.rmtree, folder, ignore_errors=True))


def _arguments(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "switch", *arguments]


async def command(*arguments: str, check: bool = True) -> "subprocess.CompletedProcess[bytes]":
    """Runs one of the switch's own commands to its end. Raises `TrialFailed` with its last words if `check` and it failed."""
    with trio.move_on_after(COMMAND_SECONDS) as patience:
        done = await trio.run_process(_arguments(*arguments), capture_stdout=True, capture_stderr=True, check=False)
        if check and done.returncode:
            raise TrialFailed(f"`switch {arguments[0]}` ended with {done.returncode}: {done.stderr.decode(errors='replace').strip()}")
        return done
    assert patience.cancelled_caught
    raise TrialFailed(f"`switch {arguments[0]}` did not end within {COMMAND_SECONDS:g} s.")


async def _death_wrapper() -> tuple[str, ...]:
    """`WITH_ITS_PARENT` where it works: other makes of setpriv do not know the option."""
    if shutil.which(WITH_ITS_PARENT[0]) is None:
        return ()
    tried = await trio.run_process([*WITH_ITS_PARENT, "true"], capture_stdout=True, capture_stderr=True, check=False)
    return WITH_ITS_PARENT if tried.returncode == 0 else ()


class TrialSwitch:
    """The switch as a process of its own, in a process group of its own, so that Ctrl-C reaches the trial alone."""

    def __init__(self, wrapper: Sequence[str], config: Path, log: Path) -> None:
        """Forks in the thread that runs trio, which outlives the switch: see `WITH_ITS_PARENT`. Hence no `trio.open_process`."""
        self.ready = Ready(ready=False, terminals="", admin="", database="")
        self._log = log
        reading, writing = os.pipe()
        self._stdout = trio.lowlevel.FdStream(reading)
        try:
            with log.open("wb") as log_file:
                self._process = subprocess.Popen(
                    [*wrapper, *_arguments("serve", "--config", str(config))],
                    stdin=subprocess.DEVNULL,
                    stdout=writing,
                    stderr=log_file,
                    start_new_session=True,
                )
        finally:
            os.close(writing)

    @classmethod
    @contextlib.asynccontextmanager
    async def serving(cls, config: Path, log: Path) -> AsyncIterator["TrialSwitch"]:
        """Started and ready. At the end of the block it is stopped, by force if need be."""
        switch = cls(await _death_wrapper(), config, log)
        try:
            await switch._wait_until_ready()
            yield switch
        finally:
            with trio.CancelScope(deadline=trio.current_time() + DRAIN_SECONDS, shield=True):
                switch._process.terminate()
                await switch._wait()
            # Whoever is left of the group is past asking. Its database and follower end by themselves without it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(switch._process.pid, signal.SIGKILL)
            with trio.CancelScope(deadline=trio.current_time() + DRAIN_SECONDS, shield=True):
                await switch._wait()
                await switch._stdout.aclose()

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Raises `TrialFailed` as soon as the switch ends within the block."""
        ended: int | None = None
        failure: TrialFailed | None = None
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                nonlocal ended
                ended = await self._wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            try:
                yield
            except TrialFailed as raised:
                # Carried past the nursery, which would wrap it.
                failure = raised
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if ended is not None:
            raise TrialFailed(f"the switch ended with {ended} in the middle.{await self._last_words()}")

    async def stop(self) -> int | None:
        """SIGTERM, and the exit code; None if it does not end in time."""
        self._process.terminate()
        with trio.move_on_after(DRAIN_SECONDS):
            return await self._wait()
        return None

    async def _wait(self) -> int:
        """Until the process has ended: its exit code."""
        if self._process.poll() is None:
            descriptor = os.pidfd_open(self._process.pid)
            try:
                await trio.lowlevel.wait_readable(descriptor)
            finally:
                os.close(descriptor)
        return self._process.wait()

    async def _wait_until_ready(self) -> None:
        line = b""
        with trio.move_on_after(READY_SECONDS):
            while b"\n" not in line and (data := await self._stdout.receive_some()):
                line += data
        try:
            self.ready = msgspec.json.decode(line.partition(b"\n")[0], type=Ready)
        except msgspec.DecodeError:
            raise TrialFailed(f"the switch did not get ready.{await self._last_words()}") from None

    async def _last_words(self) -> str:
        lines = (await trio.to_thread.run_sync(partial(self._log.read_text, errors="replace"))).splitlines()
        return "".join(f"\n  | {line}" for line in lines[-LOG_TAIL_LINES:])


async def say(text: str, *, end: str = "\n", error: bool = False) -> None:
    """Writes to the console on a thread: a console that does not take it must not hold the terminals up."""
    await trio.to_thread.run_sync(
        partial(print, text, end=end, file=sys.stderr if error else sys.stdout, flush=True), abandon_on_cancel=True
    )
