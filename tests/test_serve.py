"""The whole of `switch serve` with PostgreSQL: whatever of the settling side is killed, terminals are served and all is settled."""

import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterable

import trio

from tests.conftest import fetch, run_asyncio
from tests.switch_process import CANTEEN, MERCHANTS, Device, Metrics, Switch, in_thread, report_of, until, until_gone

OPENING = 1_000_000


class Lunch:
    """Terminals that pay on and on, each purchase approved or the test fails."""

    def __init__(self, switch: Switch, devices: list[Device], cards: list[str], chance: random.Random) -> None:
        self.spent = dict.fromkeys(cards, 0)
        self.paid = 0
        self._switch = switch
        self._devices = devices
        self._chance = chance
        self._over = trio.Event()

    async def serve(self) -> None:
        async with trio.open_nursery() as nursery:
            for device in self._devices:
                nursery.start_soon(self._pay, device)

    async def _pay(self, device: Device) -> None:
        async with self._switch.connect() as connection:
            await device.sign_on(connection)
            while not self._over.is_set():
                card, amount = self._chance.choice(list(self.spent)), self._chance.randint(1, 100)
                answer = await device.ask(connection, device.purchase(card, amount))
                assert answer.code == "00", answer.fields
                self.spent[card] += amount
                self.paid += 1
                # A person eats more slowly than this; without the pause the database has nothing but a backlog to show.
                await trio.sleep(0.01)

    async def goes_on(self, purchases: int = 100) -> None:
        """Wait until so many more are paid."""
        wanted = self.paid + purchases

        async def paid() -> int:
            await trio.lowlevel.checkpoint()
            return self.paid

        await until(paid, lambda paid: paid >= wanted)

    def end(self) -> None:
        self._over.set()


def postmaster(switch: Switch) -> int:
    """The embedded database's first process."""
    (file,) = (switch.folder / "database").rglob("postmaster.pid")
    return int(file.read_text().splitlines()[0])


async def kill(pids: Iterable[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        await until_gone(pid)


async def settled(switch: Switch, position: int) -> Metrics:
    return await until(
        switch.metrics,
        lambda now: now.value("switch_settled_position") >= position and now.value("switch_settlement_connected") == 1,
    )


async def test_terminals_are_served_whatever_becomes_of_postgresql_and_the_follower(
    make_switch: Callable[..., Switch], chance: random.Random
) -> None:
    switch = make_switch(database="embedded")
    await in_thread(switch.start)
    await switch.enter(MERCHANTS)
    devices, cards = await switch.devices(10), await switch.cards(20, cash=OPENING)

    async def the_database() -> list[int]:
        return [postmaster(switch)]

    async def the_follower() -> list[int]:
        return [await switch.follower()]

    async def both() -> list[int]:
        return [postmaster(switch), await switch.follower()]

    victims: list[Callable[[], Awaitable[list[int]]]] = [the_database, the_follower, both]
    async with trio.open_nursery() as nursery:
        lunch = Lunch(switch, devices, cards, chance)
        nursery.start_soon(lunch.serve)
        for victim in victims:
            await lunch.goes_on()
            await settled(switch, 1)
            await kill(await victim())
            await lunch.goes_on()
            reached = (await switch.metrics()).value("switch_journal_durable_position")
            await settled(switch, reached)
        lunch.end()

    metrics = await switch.metrics()
    assert metrics.answered("purchase", "00") == lunch.paid
    position = metrics.value("switch_journal_durable_position")
    await settled(switch, position)
    ready = await switch.http("GET", "/readyz", token="")
    assert ready.json()["settlement"] == {"connected": True, "settled": position, "lag": 0, "error": None}

    # Ledger, terminals and PostgreSQL agree to the fen: while it runs, and when it has ended.
    reconciled = report_of(await in_thread(lambda: switch.command("reconcile", "--config", switch.file)))
    assert (reconciled["ok"], reconciled["position"], reconciled["differences"]) == (True, position, [])
    assert (reconciled["ledger_sum"], reconciled["settlement_sum"]) == (0, 0)
    query = """SELECT card_number, sum(amount)::bigint, count(*)::int FROM transaction
               WHERE operation = 'purchase' AND response = '00' GROUP BY card_number"""
    rows = await in_thread(lambda: run_asyncio(fetch(switch.ready["database"], query)))
    assert {card: spent for card, spent, _ in rows} == {card: spent for card, spent in lunch.spent.items() if spent}
    assert sum(count for _, _, count in rows) == lunch.paid, "every one of them, once"
    balances = await in_thread(lambda: run_asyncio(fetch(switch.ready["database"], "SELECT kind, owner, balance FROM account")))
    assert ("merchant", CANTEEN, sum(lunch.spent.values())) in balances
    for card, spent in lunch.spent.items():
        assert await switch.purses(card) == (OPENING - spent, 0)

    server = postmaster(switch)
    await in_thread(switch.stop)
    await until_gone(server)
    reconciled = report_of(await in_thread(lambda: switch.command("reconcile", "--config", switch.file)))
    assert (reconciled["ok"], reconciled["position"]) == (True, position)
    assert switch.verify()["records"] == position


async def test_the_end_brings_postgresql_to_the_last_record(make_switch: Callable[..., Switch], database_url: str) -> None:
    switch = make_switch(database=database_url)
    await in_thread(switch.start)
    await switch.enter(MERCHANTS)
    device, card = await switch.device(), await switch.card()
    async with switch.connect() as connection:
        await device.sign_on(connection)
        for _ in range(50):
            assert (await device.ask(connection, device.purchase(card, 1))).code == "00"
    await settled(switch, 1)
    await in_thread(switch.stop)
    position = switch.verify()["records"]
    assert await in_thread(lambda: run_asyncio(fetch(database_url, "SELECT position FROM journal_position"))) == [(position,)]

    reconciled = report_of(await in_thread(lambda: switch.command("reconcile", "--config", switch.file)))
    assert (reconciled["ok"], reconciled["position"]) == (True, position)
    await in_thread(lambda: run_asyncio(fetch(database_url, "UPDATE account SET balance = balance + 1 WHERE kind = 'merchant'")))
    completed = await in_thread(lambda: switch.command("reconcile", "--config", switch.file))
    assert completed.returncode == 1
    found = report_of(completed)
    assert found["ok"] is False
    assert any(CANTEEN in difference for difference in found["differences"])


async def test_a_database_that_comes_up_after_all_is_settled_into(make_switch: Callable[..., Switch]) -> None:
    switch = make_switch(database="embedded")
    obstacle = switch.folder / "database"
    obstacle.rmdir()
    obstacle.write_text("in the way, as a full disk or another server would be")
    await in_thread(switch.start)
    assert switch.ready["database"] is None
    await switch.enter(MERCHANTS)
    device, card = await switch.device(), await switch.card()
    async with switch.connect() as connection:
        await device.sign_on(connection)
        assert (await device.ask(connection, device.purchase(card, 1))).code == "00"
        obstacle.unlink()
        await settled(switch, (await switch.metrics()).value("switch_journal_position"))
        assert (await device.ask(connection, device.purchase(card, 1))).code == "00"
    await settled(switch, (await switch.metrics()).value("switch_journal_position"))
    # Commands reach it, too.
    reconciled = report_of(await in_thread(lambda: switch.command("reconcile", "--config", switch.file)))
    assert (reconciled["ok"], reconciled["transactions"]) == (True, 3)
