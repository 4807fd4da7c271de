"""`make load`: a lunch, sent to a real switch with its database on this machine, and the proof that everybody's sums are equal.

    python -m loadtests.load --students 17600 --speed 20 --with locust

A college and its lunch are made up (`loadtests.generate`), or a replay is taken as it is (`--replay`). A switch is set up in an empty
folder and started as the process that it is in production; Locust or the native driver sends the replay over loopback; then terminals,
ledger and PostgreSQL are compared, and a report is written.

Always true here: it ends with 0 only if every request was answered, every answer was right, and all sums are equal, merchant by merchant
and card by card. What the switch needed is taken away; the report stays.
"""

import argparse
import contextlib
import csv
import datetime
import fcntl
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Final

import trio

from loadtests.answers import CSV_HEADER, Count, count, read_answers
from loadtests.generate import PARTS, generate
from loadtests.report import Result, write_report
from switch.agreement import differences, milliseconds
from switch.campus import CARDHOLDERS, Campus, CampusUnread
from switch.replay import REPLAY_NAME, ReplayUnread, read_entries
from switch.trial import Ready, TrialFailed, interruptible, on_trial, say, working_folder

ROOT: Final = Path(__file__).resolve().parent.parent
DRIVERS: Final = ("locust", "native")

TIMEZONE: Final = "UTC"
"""Of the switch and of the terminals: the native driver knows no other."""

OVERTIME_SECONDS: Final = 120.0
"""By which a driver may take longer than planned, before it is given up."""

PROGRESS_SECONDS: Final = 5.0
"""Between two lines of progress where they are kept; a terminal's one line is renewed every second."""

LAST_WORDS: Final = 5
"""Lines of a failed driver's log that are shown."""

FAILURES_NAME: Final = "locust_failures.csv"
REPORTS: Final = (
    *("report.html", "report.csv", "locust.html", "locust_stats.csv", "locust_stats_history.csv", FAILURES_NAME),
    *("locust_exceptions.csv", "locust.log", "native.log"),
)
"""What a load test writes: nobody is to take an earlier one's for that of one that failed."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the load test may be told."""

    driver: str = "locust"
    speed: float = 20.0
    students: int = CARDHOLDERS
    seed: int = 1
    part: str = "lunch"
    replay: Path | None = None
    """A folder with a campus and its replay; None: one is made up."""
    output: Path
    """Where the report goes."""
    native: Path
    """The native driver's program."""
    rehearsal: bool = False
    """The native driver may be a debug build, whose figures nobody looks at."""


async def load(options: Options) -> int:
    """Runs the load test to its verdict: 0 all well, 1 not, 130 interrupted. Leaves nothing but the report."""

    async def run() -> int:
        with _place_for_reports(options.output):
            async with working_folder(None, keep=False) as folder:
                return 0 if await _load(options, folder) else 1

    return await interruptible(run, "The load test failed")


@contextlib.contextmanager
def _place_for_reports(folder: Path) -> Iterator[None]:
    """One load test's at a time, without an earlier one's report."""
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, opened)
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for name in REPORTS:
                (folder / name).unlink(missing_ok=True)
        except BlockingIOError:
            raise TrialFailed(f"{folder}: another load test writes its report there; wait for its end or name another --output.") from None
        except OSError as error:
            raise TrialFailed(f"{error.filename or folder}: {error.strerror}.") from None
        yield


async def _load(options: Options, folder: Path) -> bool:
    today = datetime.datetime.now(datetime.UTC).date()
    files = options.replay or folder / "campus"
    campus, requests, last_ms = await trio.to_thread.run_sync(_prepare, options, files, today)
    planned = last_ms / 1000 / options.speed
    await say(
        f"{requests:,} requests of {len(campus.cards):,} cards at {len(campus.terminals):,} terminals, {options.speed:g} times as fast as"
        f" life: {planned:.0f} s by {options.driver}. Setting up the switch in {folder}."
    )
    answers = folder / "answers.csv"
    findings: list[str] = []
    lasted = 0.0

    async def exercise(switch: Ready) -> None:
        nonlocal lasted
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_show_progress, answers, requests)
            findings.extend(await _drive(options, switch, files, answers, planned))
            nursery.cancel_scope.cancel()
        lasted = trio.current_time() - began
        if sys.stdout.isatty():
            await say("")

    books, wrong = await on_trial(folder / "switch", files, {"port": "0", "timezone": f'"{TIMEZONE}"'}, exercise)
    counted = await trio.to_thread.run_sync(_count, campus, files, answers, today)
    findings += [*counted.findings, *differences(campus, counted, books), *wrong]
    total = counted.requests.total()
    result = Result(
        title=f"{total:,} requests at {options.speed:g} times the speed of life in {lasted:.0f} s, by {options.driver}",
        campus=campus,
        counted=counted,
        books=books,
        findings=findings,
    )
    reports = await trio.to_thread.run_sync(write_report, result, options.output)
    await say(result.text())
    beside = [options.output / "locust.html", options.output / "locust_stats.csv"] if options.driver == "locust" else []
    await say(f"Report: {', '.join(str(path) for path in [*reports, *beside])}")
    return not findings


def _prepare(options: Options, files: Path, today: datetime.date) -> tuple[Campus, int, int]:
    """On a thread: the campus, how many requests its replay has, and the last one's offset."""
    if not 0 < options.speed < math.inf:
        raise TrialFailed(f"a speed of {options.speed:g} is none; name a number above 0, such as 20.")
    if options.students < 1:
        raise TrialFailed(f"a college of {options.students} has nobody; name 1 or more students.")
    if options.driver == "native" and not options.native.exists():
        raise TrialFailed(f"{options.native}: the native driver is missing; make load WITH=native builds it.")
    try:
        if options.replay is None:
            files.mkdir()
            generate(files, options.students, options.seed, options.part, today)
        campus = Campus.read(files)
        requests = last_ms = 0
        for entry in read_entries(files / REPLAY_NAME, {terminal.terminal_id for terminal in campus.terminals}):
            requests, last_ms = requests + 1, entry.offset_ms
    except (CampusUnread, ReplayUnread) as unread:
        raise TrialFailed(str(unread)) from None
    except OSError as error:
        raise TrialFailed(f"{error.filename or files}: {error.strerror}.") from None
    if not requests:
        raise TrialFailed(f"{files / REPLAY_NAME}: there is nothing to replay.")
    return campus, requests, last_ms


def _count(campus: Campus, files: Path, answers: Path, today: datetime.date) -> Count:
    """On a thread."""
    if not answers.exists():
        return count(campus, read_entries(files / REPLAY_NAME), (), today)
    try:
        return count(campus, read_entries(files / REPLAY_NAME), read_answers(answers), today)
    except CampusUnread as unread:
        raise TrialFailed(str(unread)) from None


# --- the drivers ------------------------------------------------------------------------------------------------------------------


def _command(options: Options, switch: Ready, files: Path, answers: Path) -> list[str]:
    speed = f"{options.speed:.9g}"
    if options.driver == "native":
        command = [str(options.native), *(["--rehearsal"] if options.rehearsal else []), "replay", "--allow-declines"]
        return [
            *command,
            *("--address", switch.terminals, "--campus", str(files), "--replay", str(files / REPLAY_NAME)),
            *("--speed", speed, "--answers", str(answers)),
        ]
    return [
        *(sys.executable, "-m", "locust", "--headless", "--only-summary", "-f", str(ROOT / "loadtests" / "locustfile.py")),
        *("--host", switch.terminals, "--replay", str(files), "--speed", speed, "--answers", str(answers), "--timezone", TIMEZONE),
        *("--html", str(options.output / "locust.html"), "--csv", str(options.output / "locust")),
    ]


async def _drive(options: Options, switch: Ready, files: Path, answers: Path, planned: float) -> list[str]:
    """Runs the driver to its end: a sentence if that was no good one."""
    log = options.output / f"{options.driver}.log"
    with _written(log) as file, trio.move_on_after(planned + OVERTIME_SECONDS) as patience:
        run = partial(trio.run_process, check=False, stdout=file, stderr=subprocess.STDOUT)
        done = await run(_command(options, switch, files, answers))
    if patience.cancelled_caught:
        return [f"{options.driver} did not end within {OVERTIME_SECONDS:g} s after the time that the replay takes."]
    if done.returncode:
        words = await trio.to_thread.run_sync(_last_words, log)
        return [f"{options.driver} ended with {done.returncode}: {words} (all of it: {log})"]
    return []


def _last_words(log: Path) -> str:
    """On a thread: what a driver failed of. Locust's log ends with its tables; what failed stands in a file of its own."""
    with contextlib.suppress(OSError), (log.parent / FAILURES_NAME).open(newline="") as file:
        failures = [f"{row['Name']} ({row['Occurrences']} in all): {row['Error']}" for row in csv.DictReader(file)]
        if failures:
            return " / ".join(failures[:LAST_WORDS])
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "/ERROR/" in line]
    return " / ".join((errors or lines)[-LAST_WORDS:])


@contextlib.contextmanager
def _written(path: Path) -> Iterator[IO[bytes]]:
    with path.open("wb") as file:
        yield file


async def _show_progress(answers: Path, requests: int) -> None:
    one_line = sys.stdout.isatty()
    tail = _Tail(answers)
    seen_at = trio.current_time()
    while True:
        await trio.sleep(1.0 if one_line else PROGRESS_SECONDS)
        recent = sorted(await trio.to_thread.run_sync(tail.latencies))
        now = trio.current_time()
        clock = datetime.timedelta(seconds=tail.offset_ms // 1000)
        text = (
            f"{clock}  {tail.rows:7,} of {requests:,}  {len(recent) / (now - seen_at):6,.0f}/s"
            f"  p50 {milliseconds(recent, 0.5)}  p99 {milliseconds(recent, 0.99)}"
        )
        seen_at = now
        await say(f"\r{text}\x1b[K" if one_line else text, end="" if one_line else "\n")


class _Tail:
    """Reads what a driver has written down since the last look."""

    def __init__(self, path: Path) -> None:
        self.rows = 0
        self.offset_ms = 0
        self._path = path
        self._at = 0

    def latencies(self) -> Sequence[float]:
        """In seconds."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._at)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        rows = [row for row in csv.reader(whole.decode().splitlines()) if row and row[0].isdigit()]
        self._at += len(whole)
        self.rows += len(rows)
        self.offset_ms = int(rows[-1][0]) if rows else self.offset_ms
        place = CSV_HEADER.split(",").index("latency_us")
        return [int(row[place]) / 1e6 for row in rows]


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(prog="loadtests.load", description="Send a lunch to a real switch and compare everybody's sums.")
    parser.add_argument("--with", dest="driver", choices=DRIVERS, default="locust", help="who sends it (default: locust)")
    parser.add_argument("--speed", type=float, metavar="X", default=20.0, help="times as fast as life (default: 20)")
    parser.add_argument("--students", type=int, metavar="N", default=CARDHOLDERS, help=f"cardholders (default: {CARDHOLDERS})")
    parser.add_argument("--seed", type=int, metavar="N", default=1, help="another seed, another college (default: 1)")
    parser.add_argument("--part", choices=PARTS, default="lunch", help="of the day (default: lunch)")
    parser.add_argument("--replay", type=Path, metavar="FOLDER", help="a campus and its replay, instead of one that is made up")
    parser.add_argument("--output", type=Path, metavar="FOLDER", default=ROOT / "target" / "load", help="where the report goes")
    parser.add_argument(
        "--native",
        type=Path,
        metavar="FILE",
        default=ROOT / "target" / "release" / "switch_benchmarks",
        help="the native driver's program",
    )
    parser.add_argument("--rehearsal", action="store_true", help="take a debug build of it, whose figures mislead")
    return trio.run(load, Options(**vars(parser.parse_args(arguments))))


if __name__ == "__main__":
    sys.exit(main())
