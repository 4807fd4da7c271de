"""The benchmark: durable purchases over TCP beside the limit of the machine, in one run.

For each number of connections and depth, round after round, the same driver first meets a bare echo and then a real `switch serve`
on a fresh folder. Client and server share this machine's cores, so a rate alone says little; the ratio is the figure.

Always true here: a figure is given only where every answer was right, the switch ended well, `switch verify` found its journal whole,
and the ledger holds exactly the purchases and the fen that the terminals counted.

How it works: `switch_benchmarks` (Rust, beside this file) is the echo, the driver and the core in process; this script makes the
campus, starts and stops the processes, and puts the figures together.
"""

import argparse
import contextlib
import datetime
import itertools
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from switch._core import Replica
from switch.campus import Campus, Card, Merchant, TerminalRow

ROOT: Final = Path(__file__).resolve().parent.parent
SWITCH: Final = [sys.executable, "-m", "switch"]
NOBODY: Final = "postgresql://switch@127.0.0.1:1/switch"
"""No database answers there: the follower waits, and the figures are those of authorization alone."""

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 60.0
QUIET_CORES: Final = 0.15
"""A round in which everything else on the machine took more than this is left out of the medians, as long as quieter ones are left."""

MERCHANTS: Final = 16
PURSE_FEN: Final = 99_999_999_999


class BenchmarkFailed(Exception):
    """One sentence: why there is no figure."""


class Scale(argparse.Namespace):
    """How much is measured."""

    cases: list[tuple[int, int]]
    """Connections and depth."""
    rounds: int
    seconds: float
    warm_up: float
    cards: int
    purchases: int
    """Of the core in process."""
    startup: tuple[int, int]
    """Records and cards of the journal on which starts are timed."""
    settling: bool
    """Whether the switch is also measured with its database at work on the same cores."""


FULL: Final = Scale(
    cases=[(64, 1), (512, 1), (64, 16), (512, 16)],
    rounds=7,
    seconds=1.0,
    warm_up=0.3,
    cards=10_000,
    purchases=2_000_000,
    startup=(10_000_000, 1_000_000),
    settling=True,
)
QUICK: Final = Scale(
    cases=[(64, 1), (512, 1)],
    rounds=2,
    seconds=1.0,
    warm_up=0.3,
    cards=10_000,
    purchases=500_000,
    startup=(1_000_000, 100_000),
    settling=False,
)
REHEARSAL: Final = Scale(
    cases=[(4, 1), (8, 4)], rounds=1, seconds=0.1, warm_up=0.05, cards=100, purchases=2_000, startup=(20_000, 1_000), settling=False
)


def make_campus(tills: int, cards: int) -> Campus:
    """Shops without subsidies, tills with random keys, and cards that never run out of money."""
    merchants = [Merchant(f"M{number:014}", f"Shop {number}", "shop", 0) for number in range(1, MERCHANTS + 1)]
    terminals = [
        TerminalRow(f"T{number:07}", merchants[number % MERCHANTS].merchant_id, "pos", "", os.urandom(16)) for number in range(1, tills + 1)
    ]
    expires = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=365)
    holders = range(1, cards + 1)
    return Campus(
        merchants,
        terminals,
        [Card(f"623{number:013}", f"H{number:08}", "student", "active", expires, PURSE_FEN, 0) for number in holders],
    )


class Server:
    """A process that says on its first line where it listens."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(STOP_SECONDS)
            raise BenchmarkFailed(f"{command[-1]} did not start: {self.last_words()}")
        self.ready: dict[str, Any] = json.loads(line)

    def last_words(self) -> str:
        return self._log.read_text().strip().rpartition("\n")[2]

    def cpu_seconds(self) -> float:
        """Of all its threads; children are not in it."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(STOP_SECONDS)


class Switch(Server):
    """A real switch on a fresh folder, with the campus imported."""

    def __init__(self, folder: Path, campus: list[Path], *, database: bool) -> None:
        config = folder / "switch.toml"
        _command("init", str(folder))
        text = config.read_text()
        for before, after in [
            ("port = 8583", "port = 0"),
            ("port = 8580", "port = 0"),
            ('timezone = ""', 'timezone = "UTC"'),
            *([] if database else [('url = "embedded"', f'url = "{NOBODY}"')]),
        ]:
            assert before in text, before
            text = text.replace(before, after)
        config.write_text(text)
        _command("import", "--config", str(config), *map(str, campus))
        self._folder = folder
        self._token = (folder / "keys" / "admin.token").read_text().strip()
        super().__init__([*SWITCH, "serve", "--config", str(config)], folder / "serve.log")
        at_start = self.statistics()
        if at_start["debug_build"]:
            raise BenchmarkFailed("switch._core is a debug build, whose figures would mislead; make build makes the other kind")
        self.position_at_start = int(at_start["position"])

    def statistics(self) -> dict[str, Any]:
        answer = httpx.get(
            f"http://{self.ready['admin']}/v1/statistics",
            headers={"authorization": f"Bearer {self._token}"},
            timeout=STOP_SECONDS,
            trust_env=False,
        )
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def end(self, driven: list[dict[str, Any]]) -> dict[str, Any]:
        """End it by SIGTERM, and hold what it has on disk against what the driver counted."""
        statistics = self.statistics()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_SECONDS)
        if code != 0:
            raise BenchmarkFailed(f"the switch ended with code {code}: {self.last_words()}")
        verified = json.loads(_command("verify", str(self._folder)))
        replica = Replica(str(self._folder / "journal"))
        replica.advance(replica.durable)
        counted = {
            "approved": sum(run["answers_total"] for run in driven),
            "fen": sum(run["fen_total"] for run in driven),
            "records": self.position_at_start + sum(run["answers_total"] + run["connections"] for run in driven),
        }
        held = {
            "approved": sum(count for operation, code, count in statistics["requests"] if (operation, code) == ("purchase", "00")),
            "fen": sum(balance for _, kind, _, balance, _ in json.loads(replica.accounts()) if kind == "merchant"),
            "records": verified["records"],
        }
        if counted != held or not verified["ok"] or verified["sum"] != 0:
            raise BenchmarkFailed(f"the terminals counted {counted}, the ledger holds {held}, and its journal is {verified}")
        return {**held, "state_digest": verified["state_digest"], "journal_mode": statistics["journal"]["mode"]}


def _command(*arguments: str) -> str:
    done = subprocess.run([*SWITCH, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkFailed(f"switch {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Driver:
    """The native side."""

    def __init__(self, program: Path, campus: Path, scale: Scale, *, rehearsal: bool) -> None:
        self.command = [str(program), *(["--rehearsal"] if rehearsal else [])]
        self._campus = campus
        self._scale = scale
        self._spent = 0

    def echo(self, folder: Path) -> Server:
        return Server([*self.command, "echo"], folder / "echo.log")

    def in_process(self) -> dict[str, Any]:
        return self._ask("in-process", "--purchases", str(self._scale.purchases))

    def startup(self, folder: Path) -> dict[str, Any]:
        records, cards = self._scale.startup
        try:
            return self._ask("startup", "--folder", str(folder), "--records", str(records), "--cards", str(cards))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def drive(self, server: Server, address: str, connections: int, depth: int, *, echo: bool = False) -> dict[str, Any]:
        """One run; against the switch with terminals that have not been used yet."""
        before, own, all_busy, began = server.cpu_seconds(), _children_cpu_seconds(), _busy_seconds(), time.monotonic()
        figures = self._ask(
            *("drive", "--address", address, "--connections", str(connections), "--depth", str(depth)),
            *("--seconds", str(self._scale.seconds), "--warm-up", str(self._scale.warm_up)),
            *(["--echo"] if echo else ["--first-terminal", str(self._spent)]),
        )
        served = server.cpu_seconds() - before
        others = _busy_seconds() - all_busy - served - (_children_cpu_seconds() - own)
        figures["others_cpu"] = max(0.0, others) / (time.monotonic() - began)
        figures["server_cpu_us"] = served * 1e6 / figures["answers_total"]
        figures["client_cpu_us"] = figures["client_cpu_ns"] / 1e3 / figures["answers"]
        figures["per_second"] = figures["answers"] * 1e9 / figures["window_ns"]
        if not echo:
            self._spent += connections
        return figures

    def _ask(self, *arguments: str) -> dict[str, Any]:
        done = subprocess.run([*self.command, *arguments, "--campus", str(self._campus)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchmarkFailed(done.stderr.strip())
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures


def _busy_seconds() -> float:
    """CPU time that this whole machine has spent on anything, and that its host has kept from it."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _, _, interrupts, soft_interrupts, steal = map(int, fields[1:9])
    return (user + nice + system + interrupts + soft_interrupts + steal) / os.sysconf("SC_CLK_TCK")


def _children_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(scale: Scale, driver: Driver, folder: Path, campus: list[Path]) -> dict[str, Any]:
    """All of it. Echo and switch take turns, so that what else the machine does falls on both."""
    results: dict[str, Any] = {"in_process": driver.in_process(), "cases": []}
    progress(f"in process: {results['in_process']['nanoseconds']['p50']} ns a purchase")
    results["startup"] = driver.startup(folder / "startup")
    progress(f"startup: {results['startup']['replay']['records_per_second']:,} records a second replayed")
    runs: dict[tuple[int, int], list[dict[str, Any]]] = {case: [] for case in scale.cases}
    with driver.echo(folder) as echo, Switch(folder / "switch", campus, database=False) as switch:
        for number, (connections, depth) in itertools.product(range(scale.rounds), scale.cases):
            limit = driver.drive(echo, echo.ready["address"], connections, depth, echo=True)
            purchases = _drive_switch(driver, switch, connections, depth)
            runs[connections, depth].append({"echo": limit, "purchases": purchases})
            progress(
                f"round {number + 1}: {connections} connections, depth {depth}: "
                f"echo {limit['per_second']:,.0f}/s, purchases {purchases['per_second']:,.0f}/s"
            )
        results["ledger"] = switch.end([run["purchases"] for case in runs.values() for run in case])
    for (connections, depth), rounds in runs.items():
        results["cases"].append({"connections": connections, "depth": depth, **_summary(rounds), "rounds": rounds})
    if scale.settling:
        connections, depth = scale.cases[0]
        with Switch(folder / "settling", campus, database=True) as switch:
            run = _drive_switch(driver, switch, connections, depth)
            progress(f"settling at the same time: {connections} connections, depth {depth}: {run['per_second']:,.0f}/s")
            results["settling"] = {"connections": connections, "depth": depth, "purchases": run, "ledger": switch.end([run])}
    return results


def _drive_switch(driver: Driver, switch: Switch, connections: int, depth: int) -> dict[str, Any]:
    before = switch.statistics()["journal"]
    run = driver.drive(switch, switch.ready["terminals"], connections, depth)
    after = switch.statistics()["journal"]
    batches = max(1, after["sync"]["count"] - before["sync"]["count"])
    run["batch_records"] = (after["batch_records"]["sum"] - before["batch_records"]["sum"]) / batches
    run["sync_us"] = (after["sync"]["sum"] - before["sync"]["sum"]) / batches
    return run


def _summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the quiet rounds. What makes a round quiet is other work alone, never its result."""
    quiet = [run for run in rounds if max(run["echo"]["others_cpu"], run["purchases"]["others_cpu"]) <= QUIET_CORES]
    counted = quiet or rounds
    ratios = [run["purchases"]["per_second"] / run["echo"]["per_second"] for run in counted]
    summary: dict[str, Any] = {
        "rounds_quiet": len(quiet),
        "ratio": statistics.median(ratios),
        "ratio_least": min(ratios),
        "ratio_most": max(ratios),
    }
    for peer in ("echo", "purchases"):
        figures = [run[peer] for run in counted]
        summary[peer] = {
            **{
                name: statistics.median(run[name] for run in figures)
                for name in ("per_second", "server_cpu_us", "client_cpu_us", "others_cpu", "batch_records", "sync_us")
                if name in figures[0]
            },
            **{name: statistics.median(run["latency_ns"][name] for run in figures) / 1e3 for name in ("p50", "p99")},
        }
    return summary


def machine(folder: Path) -> dict[str, Any]:
    """What the figures hang on."""
    cpu = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    models = {key.strip(): value.strip() for key, value in cpu.items()}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    rust = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S607
    return {
        "cpu": models.get("model name", platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "kernel": platform.release(),
        "file_system": file_system(folder),
        "rust": rust,
        "python": platform.python_version(),
        "switch": version("campus-card-switch"),
        "load_before": os.getloadavg()[0],
    }


def file_system(folder: Path) -> str:
    """The type of the file system that `folder` lies on."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    holding = [(len(point), kind) for _, point, kind, *_ in mounts if folder.is_relative_to(point)]
    return max(holding)[1] if holding else "unknown"


def table(results: dict[str, Any]) -> Iterator[str]:
    """The figures as Markdown."""
    head = ["connections", "depth", "echo /s", "purchases /s", "ratio", "echo p50 / p99", "purchase p50 / p99"]
    head += ["server CPU", "client CPU", "records a batch", "sync", "quiet rounds"]
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---:|" * len(head)
    for case in results["cases"]:
        echo, purchases = case["echo"], case["purchases"]
        cells = [
            case["connections"],
            case["depth"],
            f"{echo['per_second']:,.0f}",
            f"{purchases['per_second']:,.0f}",
            f"{case['ratio']:.2f} ({case['ratio_least']:.2f} to {case['ratio_most']:.2f})",
            f"{echo['p50'] / 1e3:.2f} / {echo['p99'] / 1e3:.2f} ms",
            f"{purchases['p50'] / 1e3:.2f} / {purchases['p99'] / 1e3:.2f} ms",
            f"{echo['server_cpu_us']:.1f} / {purchases['server_cpu_us']:.1f} µs",
            f"{echo['client_cpu_us']:.1f} / {purchases['client_cpu_us']:.1f} µs",
            f"{purchases['batch_records']:.0f}",
            f"{purchases['sync_us'] / 1e3:.2f} ms",
            f"{case['rounds_quiet']} of {len(case['rounds'])}",
        ]
        yield "| " + " | ".join(map(str, cells)) + " |"
    nanoseconds = results["in_process"]["nanoseconds"]
    yield ""
    yield f"In process, one thread, no disk: {nanoseconds['p50']} ns a purchase (p10 {nanoseconds['p10']}, p90 {nanoseconds['p90']})."
    startup, replay, snapshot = (results["startup"], results["startup"]["replay"], results["startup"]["snapshot"])
    yield (
        f"Starting on {startup['records']:,} records with {startup['cards']:,} cards: {replay['seconds']:.2f} s from the first record on "
        f"({replay['records_per_second']:,} a second); {snapshot['seconds_to_start']:.2f} s from a snapshot of the last, which took "
        f"{snapshot['seconds_to_write']:.2f} s to write."
    )
    if "settling" in results:
        run = results["settling"]["purchases"]
        yield (
            f"With the embedded PostgreSQL settling on the same cores, {run['connections']} connections, depth {run['depth']}: "
            f"{run['per_second']:,.0f} purchases a second, p99 {run['latency_ns']['p99'] / 1e6:.2f} ms."
        )
    found, ledger = results["machine"], results["ledger"]
    yield (
        f"{found['cpu']}, {found['cores']} cores, {found['memory_gib']} GiB, Linux {found['kernel']}, {found['file_system']}, journal "
        f"{ledger['journal_mode']}; {found['rust']}, Python {found['python']}, switch {found['switch']}; "
        f"load before {found['load_before']:.1f}; {results['date']}; {results['command']}"
    )
    others = statistics.median(
        run[peer]["others_cpu"] for case in results["cases"] for run in case["rounds"] for peer in ("echo", "purchases")
    )
    yield f"CPU taken from this machine by others during a run: {others:.2f} cores (median)."
    yield f"{ledger['approved']:,} purchases of {ledger['fen']:,} fen: terminals, ledger and journal agree."


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks/run.py", description="Durable purchases a second beside a bare echo.")
    parser.add_argument("--quick", action="store_true", help="about 20 seconds instead of two minutes")
    parser.add_argument("--rehearsal", action="store_true", help="tiny, and with any build: a test that it runs; figures mean nothing")
    parser.add_argument("--driver", type=Path, default=ROOT / "target" / "release" / "switch_benchmarks", metavar="FILE")
    parser.add_argument("--folder", type=Path, default=ROOT / "target", help="where the switch's data goes: on the disk to measure")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="also write all figures there")
    options = parser.parse_args(arguments)
    scale = REHEARSAL if options.rehearsal else QUICK if options.quick else FULL
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not options.rehearsal and file_system(folder) in {"tmpfs", "ramfs"}:
        parser.error(f"{folder} is in memory, where nothing is durable; name a folder on a disk with --folder")
    try:
        results = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "command": " ".join(["benchmarks/run.py", *(sys.argv[1:] if arguments is None else arguments)]),
            "machine": machine(folder),
        }
        with _work_folder(folder) as work:
            tills = scale.rounds * sum(connections for connections, _ in scale.cases) + scale.cases[0][0]
            files = make_campus(tills, scale.cards).write(work)
            results |= measure(scale, Driver(options.driver, work, scale, rehearsal=options.rehearsal), work, files)
    except BenchmarkFailed as failure:
        print(f"benchmarks/run.py: {failure}", file=sys.stderr)
        return 1
    print("\n".join(table(results)))
    if options.output is not None:
        options.output.write_text(json.dumps(results, indent=1) + "\n")
    return 0


@contextlib.contextmanager
def _work_folder(parent: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="benchmark-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
