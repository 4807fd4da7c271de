"""The benchmark: durable purchases over TCP beside the limit of the machine and beside others, in one run.

Round after round the same driver meets a bare echo, a real `switch serve`, Redis and PostgreSQL, so that what else the machine does
falls on all of them. Client and server share this machine's cores, so a rate alone says little; the ratios are the figures.

Always true here: a figure is given only where every answer was right, the switch ended well, `switch verify` found its journal whole,
and every peer's books hold exactly the purchases and the fen that the terminals counted.

How it works: `switch_benchmarks` (Rust, in `src`) is the echo, the driver and the core in process; `processes.py` and `peers.py`
start, stop and check the servers; this file is the order of it all. `targets.py` judges, `report.py` and `plot.py` show.
"""

import argparse
import contextlib
import datetime
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.figures import summary
from benchmarks.machine import file_system, machine
from benchmarks.peers import POSTGRESQL_SETTINGS, REDIS_MISSING, REDIS_SETTINGS, PostgreSQL, Redis
from benchmarks.processes import BenchmarkFailed, Driver, Figures, Process, Switch, kernel_bytes, progress, work_folder
from benchmarks.report import report
from benchmarks.targets import judge
from switch.campus import Campus, Card, Merchant, TerminalRow

ROOT: Final = Path(__file__).resolve().parent.parent

MERCHANTS: Final = 16
PURSE_FEN: Final = 99_999_999_999
CATCH_UP_SECONDS_MAX: Final = 600.0
SETTLED_DOWN_SECONDS: Final = 0.5
"""After terminals have signed on, so that it is no part of what is measured then."""
CONNECTION_STEPS: Final = 8
"""Numbers of idle connections at which their memory is looked at."""
SIGN_ONS_PER_SECOND: Final = 500
"""Far fewer than are possible: the first idle connections are held until the last have come, and for `IDLE_SECONDS`."""
IDLE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    rounds: int
    seconds: float
    warm_up: float
    cases: tuple[tuple[int, int], ...]
    """Connections and depth of echo and switch."""
    redis: tuple[tuple[int, int], ...]
    """The same of Redis, in each of its modes."""
    postgresql: tuple[int, ...]
    """Clients."""
    open_loop: tuple[int, int, float]
    """Purchases a second, connections, and seconds of one round."""
    lunch: tuple[int, int, float]
    """The same of a real lunch."""
    cards: int
    purchases: int
    """Of the core in process."""
    growth: tuple[int, ...]
    """Numbers of cards with which the core in process is measured again."""
    startup: tuple[int, int]
    """Records and cards of the journal on which starts are timed."""
    backlog: int
    """Records, about, that PostgreSQL has to catch up on; 0 leaves settling out."""
    memory: tuple[int, int, int] | None
    """Cards, remembered identities and idle connections whose memory is measured."""

    @property
    def tills(self) -> int:
        """Terminals that one server meets, at most: a terminal's numbers are spent once a day."""
        rounds = self.rounds * (sum(connections for connections, _ in self.cases) + self.open_loop[1])
        settling = 2 * (self.rounds * self.open_loop[1] + self.cases[-1][0])
        return max(rounds, 2 * sum(connections for connections, _ in self.redis), settling, self.memory[2] if self.memory else 0)


FULL: Final = Scale(
    rounds=5,
    seconds=1.0,
    warm_up=0.3,
    cases=((64, 1), (512, 1), (5000, 1), (64, 16), (512, 16)),
    redis=((50, 1), (64, 1), (512, 1), (50, 16), (64, 16), (512, 16)),
    postgresql=(1, 4, 8, 16, 32, 64),
    open_loop=(10_000, 2_000, 4.0),
    lunch=(20, 230, 10.0),
    cards=10_000,
    purchases=2_000_000,
    growth=(10_000, 100_000, 1_000_000, 10_000_000),
    startup=(10_000_000, 1_000_000),
    backlog=10_000_000,
    memory=(1_000_000, 20_000_000, 10_000),
)
QUICK: Final = Scale(
    rounds=1,
    seconds=0.7,
    warm_up=0.2,
    cases=((64, 1), (512, 1), (512, 16)),
    redis=((64, 1), (512, 1), (512, 16)),
    postgresql=(8, 16, 32),
    open_loop=(10_000, 2_000, 2.0),
    lunch=(20, 230, 4.0),
    cards=10_000,
    purchases=500_000,
    growth=(10_000, 1_000_000),
    startup=(1_000_000, 100_000),
    backlog=0,
    memory=None,
)
REHEARSAL: Final = Scale(
    rounds=1,
    seconds=0.1,
    warm_up=0.05,
    cases=((4, 1), (8, 4)),
    redis=((4, 1), (8, 4)),
    postgresql=(1, 2),
    open_loop=(200, 8, 0.3),
    lunch=(20, 4, 0.3),
    cards=100,
    purchases=2_000,
    growth=(100, 1_000),
    startup=(20_000, 1_000),
    backlog=2_000,
    memory=(1_000, 2_000, 16),
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


class Measuring:
    """One run of the benchmark in a folder on the disk to measure."""

    def __init__(self, scale: Scale, driver: Driver, folder: Path, campus: Campus, files: list[Path]) -> None:
        self._scale = scale
        self._driver = driver
        self._folder = folder
        self._campus = campus
        self._files = files

    def all(self) -> Figures:
        """The figures of everything, in the order in which they are measured."""
        return {**self._core(), **self._rounds(), **self._lunch(), **self._settling(), **self._memory()}

    def _core(self) -> Figures:
        """Without sockets: a purchase in process, for few and for many cards; starts."""
        in_process = self._driver.ask("in-process", "--purchases", str(self._scale.purchases))
        progress(f"in process: {in_process['nanoseconds']['p50']} ns a purchase")
        growth = []
        for cards in self._scale.growth:
            growth.append(self._driver.ask("in-process", "--purchases", str(self._scale.purchases), "--cards", str(cards)))
            progress(f"in process with {cards:,} cards: {growth[-1]['nanoseconds']['p50']} ns a purchase")
        records, cards = self._scale.startup
        scale = ("--records", str(records), "--cards", str(cards))
        startup = self._driver.ask("startup", "--folder", str(self._folder / "startup"), *scale, on_campus=False)
        progress(f"startup: {startup['replay']['records_per_second']:,} records a second replayed")
        return {"in_process": in_process, "growth": growth, "startup": startup}

    def _rounds(self) -> Figures:
        """Whatever is compared takes turns, round after round."""
        cases: dict[tuple[int, int], list[Figures]] = {case: [] for case in self._scale.cases}
        open_loop: list[Figures] = []
        clients: dict[int, list[Figures]] = {count: [] for count in self._scale.postgresql}
        modes: dict[tuple[str, int, int], list[Figures]] = {}
        postgresql = PostgreSQL(self._folder / "postgresql", self._campus)
        redis = Redis(self._folder / "redis", self._campus) if Redis.is_installed() else None
        if redis is None:
            progress(REDIS_MISSING)
        Switch.make(self._folder / "switch", self._files)
        with self._driver.echo(self._folder) as echo, Switch(self._folder / "switch", database=False) as switch:
            for number in range(1, self._scale.rounds + 1):
                for (connections, depth), runs in cases.items():
                    limit = self._drive(echo, connections, depth, more=("--echo",))
                    purchases = self._drive_switch(switch, connections, depth)
                    runs.append({"echo": limit, "purchases": purchases})
                    progress(
                        f"round {number}: {connections} connections, depth {depth}: "
                        f"echo {limit['per_second']:,.0f}/s, purchases {purchases['per_second']:,.0f}/s"
                    )
                open_loop.append(self._drive_open(switch))
                if redis is not None:
                    self._drive_redis(redis, modes)
                self._drive_postgresql(postgresql, clients)
                progress(f"round {number}: PostgreSQL {max(runs[-1]['per_second'] for runs in clients.values()):,.0f}/s at its best")
            ledger = switch.end([*(run["purchases"] for runs in cases.values() for run in runs), *open_loop])
        rate, connections, _ = self._scale.open_loop
        return {
            "cases": [{"connections": case[0], "depth": case[1], **summary(runs)} for case, runs in cases.items()],
            "open_loop": {"rate": rate, "connections": connections, **summary([{"purchases": run} for run in open_loop])},
            "postgresql": {
                "version": postgresql.version,
                "settings": POSTGRESQL_SETTINGS,
                "clients": [{"connections": count, **summary([{"purchases": run} for run in runs])} for count, runs in clients.items()],
            },
            "redis": None
            if redis is None
            else {
                "version": redis.version,
                "settings": REDIS_SETTINGS,
                "cases": [
                    {"appendfsync": mode, "connections": connections, "depth": depth, **summary([{"purchases": run} for run in runs])}
                    for (mode, connections, depth), runs in modes.items()
                ],
            },
            "ledger": ledger,
        }

    def _drive_redis(self, redis: Redis, modes: dict[tuple[str, int, int], list[Figures]]) -> None:
        with redis.serving() as server:
            for mode in ("always", "everysec"):
                redis.sync(mode)
                for connections, depth in self._scale.redis:
                    run = self._drive(server, connections, depth, by="drive-redis", more=redis.driving)
                    redis.count(run)
                    modes.setdefault((mode, connections, depth), []).append(run)
                    progress(f"Redis, appendfsync {mode}: {connections} connections, depth {depth}: {run['per_second']:,.0f}/s")

    def _drive_postgresql(self, postgresql: PostgreSQL, clients: dict[int, list[Figures]]) -> None:
        with postgresql.serving() as server:
            # A server that was just started has nothing in its memory, and each of its processes plans each statement afresh five
            # times. Neither is part of its speed: the first run is only counted in the books, and all warm up for longer.
            for place, count in enumerate((max(clients), *clients)):
                run = self._drive(server, count, 1, by="drive-postgresql", more=postgresql.driving, warm_up=2 * self._scale.warm_up)
                postgresql.count(run)
                if place > 0:
                    clients[count].append(run)

    def _drive_open(self, switch: Switch) -> Figures:
        rate, connections, seconds = self._scale.open_loop
        run = self._drive_switch(switch, connections, 1, seconds=seconds, more=("--rate", str(rate), "--arrivals", "poisson"))
        latency = run["latency_ns"]
        p99, p999 = (latency[name] / 1e6 for name in ("p99", "p999"))
        progress(f"open loop, {rate:,}/s over {connections} connections: p99 {p99:.2f} ms, p99.9 {p999:.2f} ms")
        return run

    def _lunch(self) -> Figures:
        """What a real lunch costs: the CPU of the switch's own processes, its database at work."""
        rate, connections, seconds = self._scale.lunch
        folder = self._folder / "lunch"
        Switch.make(folder, self._files)
        with Switch(folder, database=True) as switch:
            _until(lambda: bool(switch.settlement()["connected"] and switch.settlement()["lag"] == 0), "the database is not there")
            with self._driver.under_way(switch, connections, rate, seconds + 2 * SETTLED_DOWN_SECONDS) as run:
                time.sleep(SETTLED_DOWN_SECONDS)
                before, began = switch.cpu_by_process(), time.monotonic()
                time.sleep(seconds)
                elapsed, after = time.monotonic() - began, switch.cpu_by_process()
            cpu = {name: (used - before[name]) / elapsed for name, used in after.items()}
            shown = ", ".join(f"{name} {share:.1%}" for name, share in cpu.items())
            progress(f"{rate}/s over {connections} connections: of one core {shown}")
            ledger = switch.end([run])
        return {"lunch": {"rate": rate, "connections": connections, "seconds": elapsed, "cpu": cpu, "purchases": run, "ledger": ledger}}

    def _settling(self) -> Figures:
        """PostgreSQL catches up on a backlog while terminals pay: how fast, and what they notice of it."""
        if self._scale.backlog == 0:
            return {"settling": None}
        folder = self._folder / "settling"
        connections, depth = self._scale.cases[-1]
        Switch.make(folder, self._files)
        with Switch(folder, database=False) as switch:
            first = self._drive_switch(switch, connections, depth)
            left = max(0, self._scale.backlog - first["answers_total"])
            second = self._drive_switch(switch, connections, depth, seconds=left / first["per_second"] + self._scale.seconds)
            alone = [self._drive_open(switch) for _ in range(self._scale.rounds)]
            spent = switch.terminals_spent
            backlog = switch.end([first, second, *alone])["records"]
        with Switch(folder, database=True) as switch:
            switch.terminals_spent = spent
            _until(lambda: bool(switch.settlement()["connected"]), "the database is not there")
            began, settled = time.monotonic(), int(switch.settlement()["settled"])

            def so_far() -> Figures:
                seconds, records = time.monotonic() - began, int(switch.settlement()["settled"]) - settled
                return {"seconds": seconds, "records": records, "records_per_second": records / seconds}

            driven: list[Figures] = []
            beside: list[Figures] = []
            in_drive: Figures | None = None
            while len(beside) == len(driven) < self._scale.rounds:
                driven.append(self._drive_open(switch))
                # A round counts where there was something to catch up with until its end.
                if lag := int(switch.settlement()["lag"]):
                    beside.append(driven[-1])
                    in_drive = {**so_far(), "lag_after": lag}
            _until(lambda: switch.settlement()["lag"] == 0, "PostgreSQL has not caught up", CATCH_UP_SECONDS_MAX)
            whole = so_far()
            reconciled = switch.reconcile()
            if not reconciled["ok"]:
                raise BenchmarkFailed(f"ledger and PostgreSQL differ: {reconciled['differences']}")
            ledger = switch.end(driven)
        progress(f"settling: {whole['records_per_second']:,.0f} records a second")
        return {
            "settling": {
                "backlog": backlog,
                "catching_up": whole,
                "catching_up_beside_purchases": in_drive,
                "alone": summary([{"purchases": run} for run in alone]),
                "beside": summary([{"purchases": run} for run in beside]) if beside else None,
                "reconciled": {name: reconciled[name] for name in ("position", "accounts", "postings", "difference_count")},
                "ledger": ledger,
            }
        }

    def _memory(self) -> Figures:
        """What a card, a remembered identity and an idle connection take, in bytes."""
        if self._scale.memory is None:
            return {"memory": None}
        cards, identities, connections = self._scale.memory
        grown = self._driver.ask("memory", "--cards", str(cards), "--identities", str(identities), on_campus=False)
        folder = self._folder / "memory"
        Switch.make(folder, self._files)
        idle: list[Figures] = []
        with Switch(folder, database=False) as switch, contextlib.ExitStack() as terminals:
            before, kernel_before, count = switch.resident_bytes(), kernel_bytes(), 0
            # Until the last of them have signed on.
            seconds = IDLE_SECONDS + connections / SIGN_ONS_PER_SECOND
            steps = CONNECTION_STEPS if connections > 1_000 else 1
            for step in range(1, steps + 1):
                more = connections * step // steps - count
                terminals.enter_context(self._driver.under_way(switch, more, 0, seconds))
                count += more
                if switch.statistics()["connections"]["open"] != count:
                    raise BenchmarkFailed(f"{count} terminals did not sign on within {seconds:.0f} seconds")
                idle.append({"count": count, "resident": switch.resident_bytes() - before, "kernel": kernel_bytes() - kernel_before})
            held, kernel_held = idle[-1]["resident"], idle[-1]["kernel"]
        a_card, an_identity = (
            grown[kind]["steps"][-1]["allocated"] / grown[kind]["steps"][-1]["count"] for kind in ("cards", "identities")
        )
        progress(f"memory: {a_card:.0f} bytes a card, {an_identity:.0f} an identity, {held / connections:,.0f} an idle connection")
        return {
            "memory": {
                "cards": cards,
                "card_bytes": a_card,
                "identities": identities,
                "identity_bytes": an_identity,
                "connections": connections,
                "connection_bytes": held / connections,
                "connection_kernel_bytes": kernel_held / connections,
                "grown": {**grown, "connections": {"steps": idle}},
            }
        }

    def _drive(
        self,
        server: Process,
        connections: int,
        depth: int,
        *,
        by: str = "drive",
        seconds: float | None = None,
        warm_up: float | None = None,
        more: tuple[str, ...] = (),
    ) -> Figures:
        return self._driver.drive(
            server,
            connections,
            depth,
            self._scale.seconds if seconds is None else seconds,
            self._scale.warm_up if warm_up is None else warm_up,
            by=by,
            more=("--histogram", *more),
        )

    def _drive_switch(
        self, switch: Switch, connections: int, depth: int, *, seconds: float | None = None, more: tuple[str, ...] = ()
    ) -> Figures:
        before = switch.statistics()["journal"]
        run = self._drive(switch, connections, depth, seconds=seconds, more=more)
        after = switch.statistics()["journal"]
        batches = max(1, after["sync"]["count"] - before["sync"]["count"])
        run["batch_records"] = (after["batch_records"]["sum"] - before["batch_records"]["sum"]) / batches
        run["sync_us"] = (after["sync"]["sum"] - before["sync"]["sum"]) / batches
        return run


def _until(reached: Callable[[], bool], otherwise: str, seconds: float = 60.0) -> None:
    patience = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > patience:
            raise BenchmarkFailed(f"{otherwise} within {seconds:.0f} s")
        time.sleep(0.02)


def _command(options: argparse.Namespace) -> str:
    """What to type for the same figures, and nothing that does not change them."""
    if options.rehearsal or options.quick:
        return f"benchmarks/run.py {'--rehearsal' if options.rehearsal else '--quick'}"
    return "make bench"


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/run.py", description="Durable purchases a second beside a bare echo, PostgreSQL and Redis."
    )
    parser.add_argument("--quick", action="store_true", help="about 40 seconds instead of eight minutes")
    parser.add_argument("--rehearsal", action="store_true", help="tiny, and with any build: a test that it runs; figures mean nothing")
    parser.add_argument("--driver", type=Path, default=ROOT / "target" / "release" / "switch_benchmarks", metavar="FILE")
    parser.add_argument("--folder", type=Path, default=ROOT / "target", help="where all data goes: on the disk to measure")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="also write all figures there")
    options = parser.parse_args(arguments)
    scale = REHEARSAL if options.rehearsal else QUICK if options.quick else FULL
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not options.rehearsal and file_system(folder) in {"tmpfs", "ramfs"}:
        parser.error(f"{folder} is in memory, where nothing is durable; name a folder on a disk with --folder")
    try:
        results: Figures = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "command": _command(options),
            "machine": machine(folder),
        }
        with work_folder(folder) as work:
            campus = make_campus(scale.tills, scale.cards)
            files = campus.write(work)
            driver = Driver(options.driver, work, rehearsal=options.rehearsal)
            results |= Measuring(scale, driver, work, campus, files).all()
    except BenchmarkFailed as failure:
        print(f"benchmarks/run.py: {failure}", file=sys.stderr)
        return 1
    results["targets"] = judge(results)
    print("\n".join(report(results)))
    if options.output is not None:
        options.output.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
