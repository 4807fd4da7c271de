"""A real switch goes on from a snapshot: the state is the same, old files go to the archive, and a damaged snapshot costs nothing."""

import shutil
from collections.abc import Callable
from pathlib import Path

import trio
from blake3 import blake3

from switch._core import Core, Replica
from tests.conftest import fetch, run_asyncio
from tests.switch_process import CARDS_HEADER, FAR_FUTURE, MERCHANTS, Device, Fields, Switch, in_thread, report_of, until

MANY = 90_000
"""Cards of one file: more than half a segment of the journal."""

OPENING = 10_000
AMOUNT = 7


def files(folder: Path, ending: str) -> list[str]:
    return sorted(file.name for file in folder.glob(f"*.{ending}"))


async def found(folder: Path, ending: str) -> list[str]:
    await trio.lowlevel.checkpoint()
    return files(folder, ending)


class Customer:
    """One card at one till, and every answer it was given."""

    def __init__(self, switch: Switch, device: Device, card: str) -> None:
        self.switch = switch
        self.device = device
        self.card = card
        self.asked: list[tuple[Fields, bytes]] = []

    async def pay(self) -> None:
        async with self.switch.connect() as connection:
            if self.device.session is None:
                await self.device.sign_on(connection)
            for _ in range(5):
                request = self.device.purchase(self.card, AMOUNT)
                answer = await self.device.ask(connection, request)
                assert answer.code == "00"
                self.asked.append((request, answer.message))

    async def check(self) -> None:
        """Every answer is remembered, and the card holds what is left."""
        async with self.switch.connect() as connection:
            for request, answer in self.asked:
                assert (await self.device.ask(connection, request)).message == answer
        assert await self.switch.purses(self.card) == (self.left, 0)

    @property
    def left(self) -> int:
        return OPENING - AMOUNT * len(self.asked)


async def positions(switch: Switch) -> tuple[int, int, int]:
    """The last record decided, that in PostgreSQL, that of the newest snapshot."""
    metrics = await switch.metrics()
    assert metrics.value("switch_snapshot_failing") == 0
    decided, settled, snapshot = (metrics.value(f"switch_{name}_position") for name in ("journal", "settled", "snapshot"))
    return decided, settled, snapshot


async def grow(switch: Switch, customer: Customer) -> list[str]:
    """Have the journal outgrow some segments, and give those that are in the archive."""
    for number in range(5):
        rows = (f"7{number}{card:06},P{number}{card:06},student,active,{FAR_FUTURE},100,0" for card in range(MANY))
        await switch.enter("\n".join([CARDS_HEADER, *rows]))
        await customer.pay()
        await until(lambda: positions(switch), lambda seen: seen[0] == seen[1] and seen[0] - seen[2] < MANY)
        # What a snapshot makes superfluous goes right after it.
        await until(lambda: found(switch.journal, "snapshot"), lambda snapshots: len(snapshots) <= 2)

    async def archived() -> tuple[list[str], list[str]]:
        return await found(switch.folder / "archive", "segment"), await found(switch.journal, "segment")

    gone, _ = await until(archived, lambda seen: bool(seen[0]) and int(seen[1][0][:8]) == len(seen[0]) + 1)
    return gone


async def test_a_switch_goes_on_from_its_snapshots(make_switch: Callable[..., Switch], database_url: str) -> None:
    switch = make_switch(database=database_url, journal_snapshot_records=MANY // 2, journal_old_segments="archive")
    archive = switch.folder / "archive"
    # `switch init` has made a first segment of the default's size, which would take long to fill.
    shutil.rmtree(switch.journal)
    Core.create(switch.journal, segment_bytes=8_388_608)
    await in_thread(switch.start)
    await switch.enter(MERCHANTS)
    customer = Customer(switch, await switch.device(), await switch.card(cash=OPENING))
    gone = await grow(switch, customer)
    left = files(switch.journal, "segment")
    assert (gone[0], set(gone) & set(left)) == ("00000001.segment", set())
    assert int(left[0][:8]) == len(gone) + 1, "no gap between archive and journal"

    # Killed and started again.
    await in_thread(switch.kill)
    await in_thread(switch.start)
    await customer.check()
    assert (await switch.show("card", f"70{0:06}"))["cash"] == 100
    reconciled = await in_thread(lambda: switch.command("reconcile", "--config", switch.file))
    assert reconciled.returncode == 0, reconciled.stdout + reconciled.stderr

    # A damaged snapshot is passed over.
    await in_thread(switch.stop)
    newest = files(switch.journal, "snapshot")[1]
    with (switch.journal / newest).open("r+b") as file:
        file.seek(5_000)
        file.write(b"damage")
    shown = switch.command("show", "--config", switch.file, "card", customer.card, "--json")
    assert report_of(shown)["cash"] == customer.left
    await in_thread(switch.start)
    assert f"{newest} cannot be used: " in switch.log
    await customer.check()
    await customer.pay()
    await until(lambda: positions(switch), lambda seen: seen[0] == seen[1])
    rows = await in_thread(lambda: run_asyncio(fetch(database_url, "SELECT count(*), count(DISTINCT position) FROM transaction")))
    assert rows == [(len(customer.asked) + 1, len(customer.asked) + 1)], "one sign-on and every purchase, once"

    # With both damaged and the beginning in the archive there is nothing to begin with, until it is put back.
    await in_thread(switch.stop)
    for name in files(switch.journal, "snapshot"):
        with (switch.journal / name).open("r+b") as file:
            file.truncate(1_000)
    refused = switch.command("serve", "--config", switch.file)
    assert refused.returncode == 1
    assert "put back the removed segments from the archive" in refused.stderr
    for name in files(archive, "segment"):
        (archive / name).rename(switch.journal / name)
    await in_thread(switch.start)
    await customer.check()

    # What is wrong with them is told, and deleting them is all that it takes.
    await in_thread(switch.stop)
    for name in files(switch.journal, "snapshot"):
        checked = switch.verify()
        if not checked["ok"]:
            assert f"{name} cannot be used: it ends too early; delete it" in checked["problem"]
            (switch.journal / name).unlink()
    assert switch.verify()["ok"]


HEAD_BYTES_COVERED = 108
"""Of a snapshot's head, by the checksum behind them."""


async def test_a_snapshot_of_an_earlier_format_is_passed_over(make_switch: Callable[..., Switch]) -> None:
    switch = make_switch()
    await in_thread(switch.start)
    await switch.enter(MERCHANTS)
    customer = Customer(switch, await switch.device(), await switch.card(cash=OPENING))
    await customer.pay()
    await in_thread(switch.stop)
    replica = Replica(switch.journal)
    replica.advance(replica.durable)
    replica.snapshot()
    (name,) = files(switch.journal, "snapshot")
    checked = switch.verify()
    assert (checked["ok"], checked["snapshots"]) == (True, 1)

    with (switch.journal / name).open("r+b") as file:
        head = file.read(HEAD_BYTES_COVERED)
        assert file.read(32) == blake3(head).digest()
        earlier = head[:8] + (1).to_bytes(4, "little") + head[12:]
        file.seek(0)
        file.write(earlier + blake3(earlier).digest())
    complaint = f"{name} cannot be used: its format is not one that this program reads"
    checked = switch.verify()
    assert not checked["ok"]
    assert complaint in checked["problem"]
    await in_thread(switch.start)
    assert complaint in switch.log
    await customer.check()
    await customer.pay()
    await in_thread(switch.stop)
    (switch.journal / name).unlink()
    assert switch.verify()["ok"]
