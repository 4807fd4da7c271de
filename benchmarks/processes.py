"""The processes of the benchmark: a real switch, the bare echo, the native driver, and what each of them and all others cost.

Always true here: whatever is started here is ended here, whether the figures came or not.
"""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from switch._core import Replica

__all__ = ["BenchmarkFailed", "Driver", "Figures", "Process", "Server", "Switch", "kernel_bytes", "progress", "work_folder"]

SWITCH: Final = [sys.executable, "-m", "switch"]
NOBODY: Final = "postgresql://switch@127.0.0.1:1/switch"
"""No database answers there: the follower waits, and the figures are those of authorization alone."""

STOP_SECONDS: Final = 60.0
NOTICED_SECONDS: Final = 0.1
KERNEL_THREADS: Final = 2
"""The process whose children they are; in a container there is none to be seen."""

Figures = dict[str, Any]
"""What was measured, as it goes into the JSON."""


class BenchmarkFailed(Exception):
    """One sentence: why there is no figure."""


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """A folder on the disk to measure, taken away at the end."""
    folder = Path(tempfile.mkdtemp(prefix="benchmark-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Process:
    """A server under measurement, and the terminals that it has met: a terminal's numbers are spent once a day."""

    def __init__(self, pid: int, address: str, *, tree: bool = False) -> None:
        self.pid = pid
        self.address = address
        self.terminals_spent = 0
        self._tree = tree

    def cpu_seconds(self) -> float:
        """Of all its threads; with `tree` of its children too, those that have ended included."""
        if self._tree:
            # A process that ends with its connection is counted as its parent's once that has noticed.
            time.sleep(NOTICED_SECONDS)
            return sum(_cpu_seconds(pid, ended_children=True) for pid in (self.pid, *descendants(self.pid)))
        return _cpu_seconds(self.pid)


def _cpu_seconds(pid: int, *, ended_children: bool = False) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, fields[11 : 15 if ended_children else 13])) / os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, task.read_text().split()):
                found += [child, *descendants(child)]
    return found


class Server(Process):
    """A process that says on its first line where it listens."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._log = log
        with log.open("ab") as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(STOP_SECONDS)
            raise BenchmarkFailed(f"{command[-1]} did not start: {self.last_words()}")
        self.ready: Figures = json.loads(line)
        super().__init__(self.process.pid, str(self.ready.get("address") or self.ready["terminals"]))

    def last_words(self) -> str:
        return self._log.read_text().strip().rpartition("\n")[2]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        if self.process.poll() is None:
            # As an operator would: what it started itself ends with it.
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_SECONDS)


class Switch(Server):
    """A real switch. `make` gives it a folder and a campus; it may be ended and opened again with another database."""

    def __init__(self, folder: Path, *, database: bool) -> None:
        self._folder = folder
        self._config = folder / "switch.toml"
        self._token = (folder / "keys" / "admin.token").read_text().strip()
        url = "embedded" if database else NOBODY
        self._config.write_text(re.sub(r'(?m)^url = ".*"$', f'url = "{url}"', self._config.read_text()))
        super().__init__([*SWITCH, "serve", "--config", str(self._config)], folder / "serve.log")
        at_start = self.statistics()
        if at_start["debug_build"]:
            raise BenchmarkFailed("switch._core is a debug build, whose figures would mislead; make build makes the other kind")
        self.position_at_start = int(at_start["position"])
        self._fen_at_start = _merchants_fen(folder)

    @staticmethod
    def make(folder: Path, campus: list[Path]) -> None:
        """A fresh data folder with the campus imported; the switch will take any free ports."""
        config = folder / "switch.toml"
        command("init", str(folder))
        text = config.read_text()
        for before, after in [("port = 8583", "port = 0"), ("port = 8580", "port = 0"), ('timezone = ""', 'timezone = "UTC"')]:
            assert before in text, before
            text = text.replace(before, after)
        config.write_text(text)
        command("import", "--config", str(config), *map(str, campus))

    def statistics(self) -> Figures:
        answer = httpx.get(
            f"http://{self.ready['admin']}/v1/statistics",
            headers={"authorization": f"Bearer {self._token}"},
            timeout=STOP_SECONDS,
            trust_env=False,
        )
        answer.raise_for_status()
        found: Figures = answer.json()
        return found

    def settlement(self) -> Figures:
        """How far PostgreSQL has come: `connected`, `settled` and `lag` (records)."""
        answer = httpx.get(f"http://{self.ready['admin']}/readyz", timeout=STOP_SECONDS, trust_env=False)
        found: Figures = answer.json()["settlement"]
        return found

    def cpu_by_process(self) -> dict[str, float]:
        """CPU seconds of `serve`, of `follow`, and of the embedded PostgreSQL."""
        used = {"serve": self.cpu_seconds(), "follow": 0.0, "postgresql": 0.0}
        for pid in descendants(self.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                called = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                used["follow" if b"follow" in called else "postgresql"] += _cpu_seconds(pid)
        return used

    def resident_bytes(self) -> int:
        """Memory of `serve` alone."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def reconcile(self) -> Figures:
        """Ledger and PostgreSQL, compared to the fen."""
        found: Figures = json.loads(command("reconcile", "--config", str(self._config)))
        return found

    def end(self, driven: list[Figures]) -> Figures:
        """End it by SIGTERM, and hold what it has on disk against what the driver counted since it was started."""
        statistics = self.statistics()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_SECONDS)
        if code != 0:
            raise BenchmarkFailed(f"the switch ended with code {code}: {self.last_words()}")
        verified = json.loads(command("verify", str(self._folder)))
        counted = {
            "approved": sum(run["answers_total"] for run in driven),
            "fen": sum(run["fen_total"] for run in driven),
            "records": self.position_at_start + sum(run["answers_total"] + run["connections"] for run in driven),
        }
        held = {
            "approved": sum(count for operation, code, count in statistics["requests"] if (operation, code) == ("purchase", "00")),
            "fen": _merchants_fen(self._folder) - self._fen_at_start,
            "records": verified["records"],
        }
        if counted != held or not verified["ok"] or verified["sum"] != 0:
            raise BenchmarkFailed(f"the terminals counted {counted}, the ledger holds {held}, and its journal is {verified}")
        return {**held, "state_digest": verified["state_digest"], "journal_mode": statistics["journal"]["mode"]}


def _merchants_fen(folder: Path) -> int:
    replica = Replica(str(folder / "journal"))
    replica.advance(replica.durable)
    return sum(balance for _, kind, _, balance, _ in json.loads(replica.accounts()) if kind == "merchant")


def command(*arguments: str) -> str:
    """What one command of the switch prints."""
    done = subprocess.run([*SWITCH, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkFailed(f"switch {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Driver:
    """The native side."""

    def __init__(self, program: Path, campus: Path, *, rehearsal: bool) -> None:
        self._command = [str(program), *(["--rehearsal"] if rehearsal else [])]
        self._campus = campus

    def echo(self, folder: Path) -> Server:
        return Server([*self._command, "echo"], folder / "echo.log")

    def ask(self, *arguments: str, on_campus: bool = True) -> Figures:
        """The figures that one command prints; `on_campus`: a command that takes a campus, and not one that makes its own."""
        campus = ["--campus", str(self._campus)] if on_campus else []
        done = subprocess.run([*self._command, *arguments, *campus], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchmarkFailed(done.stderr.strip())
        figures: Figures = json.loads(done.stdout)
        return figures

    @contextlib.contextmanager
    def under_way(self, server: Process, connections: int, rate: int, seconds: float) -> Iterator[Figures]:
        """So many terminals that have signed on and pay at a rate, 0 included, beside what the caller does for so long.

        The figures are filled in at the end.
        """
        command = [
            *(*self._command, "drive", "--address", server.address, "--connections", str(connections)),
            *(
                "--first-terminal",
                str(server.terminals_spent),
                "--rate",
                str(rate),
                "--arrivals",
                "poisson",
                "--warm-up",
                "0",
                "--seconds",
                str(seconds),
            ),
            *("--announce", "--campus", str(self._campus)),
        ]
        server.terminals_spent += connections
        figures: Figures = {}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as terminals:
            assert terminals.stdout is not None
            try:
                if terminals.stdout.readline():
                    yield figures
                said, failed = terminals.communicate(timeout=STOP_SECONDS + seconds)
            finally:
                terminals.kill()
        if terminals.returncode != 0:
            raise BenchmarkFailed(failed.strip())
        figures.update(json.loads(said))

    def drive(
        self,
        server: Process,
        connections: int,
        depth: int,
        seconds: float,
        warm_up: float,
        *,
        by: str = "drive",
        more: tuple[str, ...] = (),
    ) -> Figures:
        """One run, with terminals that this server has not met yet."""
        before, own, all_busy, began = server.cpu_seconds(), _children_cpu_seconds(), _busy_seconds(), time.monotonic()
        figures = self.ask(
            *(by, "--address", server.address, "--connections", str(connections), "--depth", str(depth)),
            *("--seconds", str(seconds), "--warm-up", str(warm_up), "--first-terminal", str(server.terminals_spent)),
            *more,
        )
        served = server.cpu_seconds() - before
        others = _busy_seconds() - all_busy - served - (_children_cpu_seconds() - own)
        # The sums of each merchant are not what is measured here.
        figures.pop("merchants", None)
        figures["others_cpu"] = max(0.0, others) / (time.monotonic() - began)
        figures["server_cpu_us"] = served * 1e6 / figures["answers_total"]
        figures["client_cpu_us"] = figures["client_cpu_ns"] / 1e3 / figures["answers"]
        figures["per_second"] = figures["answers"] * 1e9 / figures["window_ns"]
        server.terminals_spent += connections
        return figures


def kernel_bytes() -> int:
    """Memory that the kernel cannot give back: its own tables, and what waits in sockets."""
    kernel = re.search(r"(?m)^SUnreclaim: +(\d+) kB$", Path("/proc/meminfo").read_text())
    sockets = re.search(r"(?m)^TCP: .* mem (\d+)$", Path("/proc/net/sockstat").read_text())
    assert kernel is not None
    assert sockets is not None
    return int(kernel[1]) * 1024 + int(sockets[1]) * os.sysconf("SC_PAGE_SIZE")


def _busy_seconds() -> float:
    """CPU time that this machine has spent on any program, and that its host has kept from it.

    The kernel's own threads are left out: what they do for whoever writes to the disk is not others' work.
    """
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _, _, interrupts, soft_interrupts, steal = map(int, fields[1:9])
    busy = user + nice + system + interrupts + soft_interrupts + steal
    return busy / os.sysconf("SC_CLK_TCK") - sum(map(_cpu_seconds, descendants(KERNEL_THREADS)))


def _children_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
