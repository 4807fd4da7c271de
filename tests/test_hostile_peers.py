"""What peers can take from the switch that mean harm: no more memory than is stated here, and none of an honest terminal's time that it
would notice.

Always true here: those who attack are a process of their own (tests/hostile_peers.py), and so are the honest terminals, driven by the
benchmarks' native driver, which believes no answer that does not prove itself. Memory is what the kernel says of the switch's process.
Figures are printed, and shown where a test fails; what a peer can take at most stands in docs/operating.md.
"""

import contextlib
import json
import resource
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from switch.dialect import FrameBuffer, decode, encode, frame
from tests.switch_process import (
    CANTEEN,
    CARDS_HEADER,
    DEADLINE_SECONDS,
    FAR_FUTURE,
    MERCHANTS,
    TERMINALS_HEADER,
    Answer,
    Connection,
    Device,
    Metrics,
    Switch,
    in_thread,
    until,
)

ROOT: Final = Path(__file__).resolve().parent.parent
KIBIBYTE: Final = 1 << 10
MEBIBYTE: Final = 1 << 20

TILLS: Final = 12_000
CONNECTIONS: Final = 10_000
DESCRIPTORS_BESIDE: Final = 300

HONEST: Final = 4
"""Terminals whose latency is looked at, one purchase after another."""
HONEST_SECONDS: Final = 1.0
P99_MAX_SECONDS: Final = 0.5
"""An honest terminal's, whatever happens beside it, on a small machine that attackers and honest ones share. On one of its own
it is some milliseconds."""
P99_RATIO_MAX: Final = 500
"""To the same terminals' without an attack, which is about half a millisecond; beside the worst of these peers it is thirty times that."""

SLOWEST_MAX_SECONDS: Final = 2.0

# What is kept for peers, by the bounds of core_rs/src/limits.rs. Vectors grow by doubling, so up to twice of each.
IDLE_BYTES_MAX: Final = 512
"""A connection that says nothing."""
HALF_FRAME_BYTES_MAX: Final = IDLE_BYTES_MAX + 2 * 2050
"""One with the longest frame begun."""
UNSENT_BYTES_MAX: Final = 2 * 64 * MEBIBYTE
"""All that do not read, together."""
REPLIES_BYTES_MAX: Final = 48 * MEBIBYTE
"""Replies that wait for the journal. The bounds allow 150 MiB where everything is at its worst at once; these floods take 5."""
SLACK_BYTES: Final = 24 * MEBIBYTE
"""The allocator's, and what Python takes for a page of metrics; measured: 2."""


@dataclass(frozen=True)
class Latency:
    """Of the honest terminals, in seconds."""

    p50: float
    p99: float
    slowest: float
    """Who pays one after another waits once where everybody stands still, so no percentile shows it; this does."""
    answers: int

    def __str__(self) -> str:
        milliseconds = ", ".join(
            f"{name} {value * 1000:.2f}" for name, value in zip(("p50", "p99", "slowest"), (self.p50, self.p99, self.slowest), strict=True)
        )
        return f"{milliseconds} ms over {self.answers} purchases"


def show(figures: str) -> None:
    """Where a test fails, or where pytest is asked for them (-s)."""
    print(figures)  # noqa: T201


class Besieged:
    """A switch of its own, with a campus that the native driver knows."""

    def __init__(self, switch: Switch, folder: Path, driver: Path) -> None:
        self.switch = switch
        self._folder = folder
        self._driver = driver
        self._next_till = 0
        self.devices: list[Device] = []
        self.quiet: Latency | None = None

    async def furnish(self) -> None:
        rows = [f"T{number:07},{CANTEEN},pos,,{secrets.token_hex(16)}" for number in range(TILLS)]
        cards = [f"6230{number:012},H{number},student,active,{FAR_FUTURE},99999999999,0" for number in range(1000)]
        for name, content in (("terminals", [TERMINALS_HEADER, *rows]), ("cards", [CARDS_HEADER, *cards])):
            text = "\n".join(content) + "\n"
            (self._folder / f"{name}.csv").write_text(text)
            await self.switch.enter(text)
        self.devices = [Device(row[:8], CANTEEN, bytes.fromhex(row[-32:])) for row in rows]

    def tills(self, count: int) -> int:
        """The first of so many terminals that nobody else uses: a terminal's numbers are spent once a day."""
        first = self._next_till
        self._next_till += count
        assert self._next_till <= TILLS, "enter more terminals"
        return first

    def drive(self, connections: int, seconds: float) -> dict[str, Any]:
        """Honest terminals pay as fast as they are answered. Fails where one answer is missing or wrong."""
        first = self.tills(connections)
        done = subprocess.run(
            [
                *(self._driver, "--rehearsal", "drive", "--address", f"127.0.0.1:{self.switch.port}", "--campus", self._folder),
                *("--first-terminal", str(first), "--connections", str(connections), "--warm-up", "0.1", "--seconds", str(seconds)),
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures

    def pay(self) -> Latency:
        figures = self.drive(HONEST, HONEST_SECONDS)
        latency = figures["latency_ns"]
        return Latency(latency["p50"] / 1e9, latency["p99"] / 1e9, latency["max"] / 1e9, figures["answers"])

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.switch.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * KIBIBYTE

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[int]]:
        """The most memory of the switch meanwhile, once this has ended."""
        most, ended = [self.resident_bytes()], threading.Event()

        def watch() -> None:
            while not ended.wait(0.02):
                most[0] = max(most[0], self.resident_bytes())

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield most
        finally:
            ended.set()
            thread.join()

    @asynccontextmanager
    async def under_attack(self, kind: str, count: int, *, rounds: int = 3, terminals: int = 1) -> AsyncIterator[dict[str, int]]:
        """The body runs while peers of this kind are at work; what they counted is in what it gives, once it has ended."""
        first = self.tills(terminals)
        devices = [(device.terminal_id, device.merchant_id, device.master_key.hex()) for device in self.devices[first : first + terminals]]
        seed = secrets.randbits(32)
        show(f"seed of {kind}: {seed}")
        order = {"port": self.switch.port, "count": count, "terminals": devices, "rounds": rounds, "seed": seed}
        counted: dict[str, int] = {}
        command = [sys.executable, "-m", "tests.hostile_peers", kind]
        process = await in_thread(lambda: subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(json.dumps(order).encode() + b"\n")
                process.stdin.flush()
                assert await in_thread(process.stdout.readline) == b"ready\n", "the peers have ended"
                yield counted
                process.stdin.close()
                counted.update(json.loads(await in_thread(process.stdout.readline)))
                assert await in_thread(lambda: process.wait(DEADLINE_SECONDS)) == 0
            finally:
                process.kill()

    async def settled(self) -> Metrics:
        """Once nobody is connected any more."""
        return await until(self.switch.metrics, lambda now: now.value("switch_connections") == 0)


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory, driver: Path) -> Iterator[Besieged]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = CONNECTIONS + DESCRIPTORS_BESIDE
    assert hard == resource.RLIM_INFINITY or hard >= needed, (
        f"this system allows a process {hard} descriptors, and these tests hold {CONNECTIONS} connections: raise its hard limit of open "
        f"files to {needed} at least (ulimit -Hn, or LimitNOFILE of the service that runs them)"
    )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    folder = tmp_path_factory.mktemp("besieged")
    switch = Switch(folder / "data", terminals_connections_max=CONNECTIONS)
    (folder / "merchants.csv").write_text(MERCHANTS, encoding="utf-8")
    imported = switch.command("import", "--config", switch.file, folder / "merchants.csv")
    assert imported.returncode == 0, imported.stderr
    switch.start()
    with contextlib.ExitStack() as stack:
        stack.callback(switch.close)
        besieged = Besieged(switch, folder, driver)
        trio.run(besieged.furnish)
        besieged.pay()
        besieged.quiet = besieged.pay()
        yield besieged


@dataclass(frozen=True)
class Siege:
    """One kind of peers, and what they may take."""

    kind: str
    count: int
    grown_bytes_max: int
    """By which the switch's memory may grow beyond the allocator's slack."""
    reason: str | None
    """Of the connections that the switch closes; None: it closes none."""
    rounds: int = 3
    terminals: int = 1


# In the order of what they take: memory that one has given back to the allocator alone would hide what the next one takes.
SIEGES: Final = [
    Siege("idle", CONNECTIONS - 100, (CONNECTIONS - 100) * IDLE_BYTES_MAX, None, rounds=1),
    Siege("half_frames", 5_000, 5_000 * HALF_FRAME_BYTES_MAX, None, rounds=1),
    Siege("connection_storm", 1, 0, "reset"),
    Siege("sign_on_storm", 200, REPLIES_BYTES_MAX, "mac_failures", terminals=200),
    Siege("garbage", 100, REPLIES_BYTES_MAX, "length_over", rounds=10),
    Siege("echo_flood", 100, REPLIES_BYTES_MAX, None, rounds=10),
    Siege("byte_readers", 200, UNSENT_BYTES_MAX + REPLIES_BYTES_MAX, "slow_reader", rounds=120),
    Siege("never_readers", 400, UNSENT_BYTES_MAX + REPLIES_BYTES_MAX, "slow_reader", rounds=120),
]


@pytest.mark.parametrize("siege", SIEGES, ids=lambda siege: siege.kind)
async def test_honest_terminals_beside_hostile_peers(besieged: Besieged, siege: Siege) -> None:
    before = await besieged.settled()
    resident, log = besieged.resident_bytes(), besieged.switch.log
    with besieged.watched() as most:
        async with besieged.under_attack(siege.kind, siege.count, rounds=siege.rounds, terminals=siege.terminals) as counted:
            honest = await in_thread(besieged.pay)
            during = await besieged.switch.metrics()
        # Those who were reset before they were accepted are accepted all the same.
        accepted = before.value("switch_connections_accepted_total") + counted["connected"] + HONEST
        await until(besieged.switch.metrics, lambda now: now.value("switch_connections_accepted_total") == accepted)
        after = await besieged.settled()
    grown = most[0] - resident
    kept, replies = (during.value("switch_memory_bytes", part=part) for part in ("connections", "replies"))
    show(
        f"{siege.kind}: {siege.count} peers; honest {honest} (quiet {besieged.quiet}); grew by {grown / MEBIBYTE:.1f} MiB, "
        f"{grown // siege.count} bytes a peer; for connections {kept} bytes, for replies {replies}; "
        f"after it {(besieged.resident_bytes() - resident) / MEBIBYTE:.1f} MiB; peers {counted}"
    )
    assert grown < siege.grown_bytes_max + SLACK_BYTES
    assert kept < siege.grown_bytes_max + CONNECTIONS * IDLE_BYTES_MAX
    assert during.value("switch_connections") <= CONNECTIONS
    closed = after.sum("switch_connections_closed_total") - before.sum("switch_connections_closed_total")
    assert closed == counted["connected"] + HONEST, "every end is counted by its reason"
    if siege.reason is not None:
        assert after.closed(siege.reason) > before.closed(siege.reason)
    assert besieged.switch.log == log, "what peers do is counted, not logged"
    assert besieged.quiet is not None
    assert honest.p99 < P99_MAX_SECONDS
    assert honest.p99 < besieged.quiet.p99 * P99_RATIO_MAX
    assert honest.slowest < SLOWEST_MAX_SECONDS


async def test_a_storm_of_sign_ons_leaves_a_hundred_sessions_a_terminal(besieged: Besieged) -> None:
    before = await besieged.settled()
    async with besieged.under_attack("sign_on_storm", 0, rounds=300, terminals=20) as counted:
        pass
    after = await besieged.settled()
    approved = after.answered("sign_on", "00") - before.answered("sign_on", "00")
    remembered = after.value("switch_entries", kind="identities") - before.value("switch_entries", kind="identities")
    assert (approved, remembered) == (10 * 100, 10 * 100), "ten of the twenty have a right key"
    assert after.answered("sign_on", "91") > before.answered("sign_on", "91")
    assert counted["asked"] >= 2000


async def test_strangers_who_take_every_place_keep_no_terminal_out(besieged: Besieged) -> None:
    """More connections than there are places, and more all the time: who is in stays, and a terminal that comes gets in."""
    before = await besieged.settled()
    resident = besieged.resident_bytes()
    first = besieged.tills(2)
    inside, comes = besieged.devices[first : first + 2]
    card = "6230000000000000"
    took: list[float] = []

    async def pay(device: Device, connection: Connection, times: int) -> None:
        for _ in range(times):
            began = time.perf_counter()
            answer = await device.ask(connection, device.purchase(card, 1))
            took.append(time.perf_counter() - began)
            assert answer.code == "00"

    async with besieged.switch.connect() as connection:
        await inside.sign_on(connection)
        async with besieged.under_attack("too_many", CONNECTIONS + 200, rounds=5) as counted:
            full = await until(besieged.switch.metrics, lambda now: now.value("switch_connections") == CONNECTIONS)
            await pay(inside, connection, 150)
            async with besieged.switch.connect() as late:
                await comes.sign_on(late)
                await pay(comes, late, 150)
            await pay(inside, connection, 1)
    p99 = sorted(took)[len(took) * 99 // 100]
    show(f"too_many: p99 {p99 * 1000:.1f} ms; peers {counted}")
    accepted = before.value("switch_connections_accepted_total") + counted["connected"] + 2
    await until(besieged.switch.metrics, lambda now: now.value("switch_connections_accepted_total") == accepted)
    after = await besieged.settled()
    assert full.closed("displaced") > before.closed("displaced")
    assert after.closed("displaced") - before.closed("displaced") >= counted["refused"] >= 200
    assert after.closed("full") == before.closed("full")
    assert p99 < P99_MAX_SECONDS
    assert besieged.resident_bytes() - resident < CONNECTIONS * IDLE_BYTES_MAX + SLACK_BYTES


async def test_ten_thousand_terminals_sign_on_and_pay(besieged: Besieged) -> None:
    before = await besieged.settled()
    resident = besieged.resident_bytes()
    with besieged.watched() as most:
        figures = await in_thread(lambda: besieged.drive(CONNECTIONS, 0.1))
    grown = most[0] - resident
    after = await besieged.settled()
    paid = after.answered("purchase", "00") - before.answered("purchase", "00")
    show(f"{CONNECTIONS} terminals: {paid} purchases, {figures['latency_ns']}; grew by {grown / MEBIBYTE:.1f} MiB")
    assert after.answered("sign_on", "00") - before.answered("sign_on", "00") == CONNECTIONS
    assert paid == figures["answers_total"] >= CONNECTIONS
    # The memory of decisions is no peer's doing: a hundred bytes of each, and twice that where its vectors have just grown.
    assert grown < (paid + CONNECTIONS) * 300 + CONNECTIONS * IDLE_BYTES_MAX + REPLIES_BYTES_MAX + SLACK_BYTES


async def test_one_connection_carries_a_whole_campus(besieged: Besieged) -> None:
    """A concentrator: every terminal's requests, end to end, before the first answer is read."""
    first = besieged.tills(500)
    devices = besieged.devices[first : first + 500]
    by_id = {device.terminal_id.ljust(8): device for device in devices}
    nonces = {device.terminal_id: secrets.token_bytes(8) for device in devices}

    async def exchange(requests: list[bytes]) -> list[bytes]:
        answers: list[bytes] = []

        async def read() -> None:
            buffer = FrameBuffer()
            with trio.fail_after(DEADLINE_SECONDS):
                while len(answers) < len(requests):
                    data = await connection.stream.receive_some()
                    assert data, "the switch closed the connection"
                    answers.extend(message for _, message in buffer.feed(data))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await connection.send(b"".join(map(frame, requests)))
        return answers

    async with besieged.switch.connect() as connection:
        began = time.perf_counter()
        sign_ons = [encode(device.sign_on_message(nonces[device.terminal_id]), device.sign_on_key) for device in devices]
        for message in await exchange(sign_ons):
            fields = decode(message)
            device = by_id[fields["41"]]
            assert fields["39"] == "00"
            assert device.sign_on_key.verifies(message[:-8], message[-8:])
            device.session = device.session_of(nonces[device.terminal_id], Answer.read(b"", message))
        purchases = [encode(device.purchase(f"6230{number:012}", 1), device.key) for device in devices for number in range(4)]
        answers = await exchange(purchases)
        for message in answers:
            fields = decode(message)
            assert fields["39"] == "00"
            assert by_id[fields["41"]].key.verifies(message[:-8], message[-8:])
        assert len({decode(message)["37"] for message in answers}) == 2000, "each is a record of its own"
        show(f"one connection, {len(devices)} terminals: {time.perf_counter() - began:.2f} s")
    await besieged.settled()
