"""The switch ends in the middle of its work, by order or by force, and comes back: nothing lost, nothing twice, nobody signs on again."""

import random
import signal
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trio

from switch.dialect import encode, frame
from switch.terminal import Terminal
from tests.switch_process import CANTEEN, MERCHANTS, Device, Fields, Switch, in_thread, now, until

if TYPE_CHECKING:
    from switch.terminal_protocol import Reply, Request

OPENING = 1_000_000


@pytest.fixture
async def own(make_switch: Callable[..., Switch]) -> Switch:
    """A switch of the test's own, running, on a port that it keeps when it is started again."""
    switch = make_switch()
    await in_thread(switch.start)
    await switch.enter(MERCHANTS)
    switch.configure(terminals_port=switch.port)
    return switch


class Till:
    """A terminal that remembers what it asked and what it was answered."""

    def __init__(self, terminal: Terminal, cards: list[str], chance: random.Random) -> None:
        self.terminal = terminal
        self.asked: list[tuple[Request, Reply]] = []
        self._cards = cards
        self._chance = chance

    async def pay(self, count: int, counter: list[int]) -> None:
        for _ in range(count):
            card, amount = self._chance.choice(self._cards), self._chance.randint(1, 900)
            request = self.terminal.protocol.purchase(now(), card, amount)
            self.asked.append((request, await self.terminal.exchange(request)))
            counter[0] += 1


async def spent(tills: list[Till]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for till in tills:
        for request, reply in till.asked:
            assert reply.code == "00", reply.meaning
            assert request.card_number is not None
            found[request.card_number] += request.amount
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=str)
async def test_a_restart_in_the_middle_of_a_thousand_purchases(own: Switch, chance: random.Random, number: signal.Signals) -> None:
    devices, cards = await own.devices(20), await own.cards(40, cash=OPENING)
    paid = [0]
    async with AsyncExitStack() as stack:
        terminals = [await stack.enter_async_context(own.terminal(device)) for device in devices]
        tills = [Till(terminal, cards, chance) for terminal in terminals]
        for till in tills:
            await till.terminal.sign_on()
        async with trio.open_nursery() as nursery:
            for till in tills:
                nursery.start_soon(till.pay, 50, paid)
            # Twice, at moments that nothing in the switch knows of.
            for moment in sorted(chance.sample(range(100, 900), 2)):

                async def answered() -> int:
                    return paid[0]

                await until(answered, lambda count, moment=moment: count >= moment)  # type: ignore[misc]
                own.signal(number)
                await in_thread(own.stop if number == signal.SIGTERM else own.kill)
                before = [own.verify() for _ in range(2)]
                assert before[0] == before[1]
                assert before[0]["ok"], before[0]
                await in_thread(own.start)

        # Balances are what the terminals hold.
        sums = await spent(tills)
        assert sum(len(till.asked) for till in tills) == 1000
        for card in cards:
            assert await own.purses(card) == (OPENING - sums[card], 0)
        assert (await own.show("merchant", CANTEEN))["balance"] == sum(sums.values())

        # Sessions are as before: nobody had to sign on again. (The counters began anew with the process.)
        metrics = await own.metrics()
        assert metrics.sum("switch_requests_total", operation="sign_on") == 0
        assert metrics.value("switch_mac_failures_total") == 0
        assert metrics.answered("purchase", "00") > 0

        # Duplicates are as before: the terminal's protocol compares the answers.
        reached = metrics.value("switch_journal_position")
        for till in tills:
            for request, reply in till.asked:
                again = await till.terminal.exchange(request, repeat=True)
                assert (again.again or request.answers <= 1, again.fields) == (True, reply.fields)
        assert (await own.metrics()).value("switch_journal_position") == reached
    await in_thread(own.stop)
    digests = [own.verify() for _ in range(2)]
    assert digests[0] == digests[1]
    assert digests[0]["ok"]
    assert (digests[0]["records"], digests[0]["sum"]) == (reached, 0)


async def test_after_a_restart_the_switch_knows_what_it_knew(own: Switch) -> None:
    device, unsigned, cut_off = await own.devices(3)
    card, lost = await own.card(cash=1000, subsidy=100), await own.card(status="lost")
    async with own.connect() as connection:
        await device.sign_on(connection)
        await cut_off.sign_on(connection)
        previous = cut_off.key
        await cut_off.sign_on(connection)
        purchase, declined, late = device.purchase(card, 200), device.purchase(lost, 200), device.purchase(card, 300)
        reversed_one = device.purchase(card, 50)
        requests = [purchase, declined, reversed_one, device.reversal(reversed_one), device.reversal(late), device.message("0700")]
        answers = [await device.ask(connection, request) for request in requests]
    assert [answer.code for answer in answers] == ["00", "41", "00", "00", "00", "12"]
    for end in (own.stop, own.kill):
        shown = [await own.show(*who) for who in (("card", card), ("card", lost), ("terminal", device.terminal_id), ("merchant", CANTEEN))]
        await in_thread(end)
        await in_thread(own.start)
        again = [await own.show(*who) for who in (("card", card), ("card", lost), ("terminal", device.terminal_id), ("merchant", CANTEEN))]
        assert [{**was, "position": 0} for was in again] == [{**was, "position": 0} for was in shown]
        async with own.connect() as connection:
            for request, answer in zip(requests, answers, strict=True):
                assert (await device.ask(connection, request)).message == answer.message
            assert (await device.ask(connection, {**purchase, "4": f"{1:012}"})).code == "94"
            assert (await device.ask(connection, late)).code == "12", "the tombstone stands"
            assert (await cut_off.ask(connection, cut_off.balance(card), previous)).code == "00", "so does the previous session's key"
            assert (await unsigned.ask(connection, unsigned.balance(card), unsigned.sign_on_key)).code == "63"
    assert await own.purses(card) == (900, 0)


async def test_every_operation_outlives_a_kill(own: Switch) -> None:
    counter, water, library, gate = [await own.device(kind=kind) for kind in ("counter", "water", "library", "gate")]
    card, lost = await own.card(cash=10_000, subsidy=0), await own.card()
    asked: list[tuple[Device, Fields, bytes]] = []

    async with own.connect() as connection:
        for device in (counter, water, library, gate):
            await device.sign_on(connection)

        async def grant(device: Device, request: Fields) -> str:
            answer = await device.ask(connection, request)
            assert answer.code == "00", request
            asked.append((device, request, answer.message))
            return answer.fields["37"]

        sale = await grant(counter, counter.purchase(card, 1_000))
        await grant(counter, counter.refund(sale, 300))
        await grant(counter, counter.void(await grant(counter, counter.purchase(card, 50))))
        await grant(counter, counter.load(card, 500))
        await grant(counter, counter.bill(card, 200))
        await grant(counter, counter.offline_sale(card, 100))
        await grant(counter, counter.loss(lost))
        hold = await grant(water, water.hold(card, 400))
        await grant(library, library.act("borrow", card, "QA76.1"))
        await grant(gate, gate.act("enter", card))
        await grant(counter, counter.batch_close(1, (2, 800, 0, 0, 4, 1_350, 1, 50)))
    left = 10_000 - 1_000 + 300 + 500 - 200 - 100
    assert (await own.show("card", card))["available_cash"] == left - 400

    await in_thread(own.kill)
    await in_thread(own.start)
    async with own.connect() as connection:
        for device, request, message in asked:
            assert (await device.ask(connection, request)).message == message
        assert (await own.show("card", card))["available_cash"] == left - 400
        assert (await counter.ask(connection, counter.purchase(lost, 1))).code == "41"
        assert (await counter.ask(connection, counter.refund(sale, 701))).code == "61"
        assert (await library.ask(connection, library.act("borrow", lost, "QA76.1"))).code == "41"
        assert (await library.ask(connection, library.act("return", card, "QA76.1"))).code == "00"
        assert (await water.ask(connection, water.completion(hold, 150))).code == "00"
        assert (await counter.ask(connection, counter.batch_close(2, (0,) * 8))).code == "00"
    assert await own.purses(card) == (left - 150, 0)


async def test_what_was_read_before_sigterm_is_answered(own: Switch) -> None:
    device, card = await own.device(), await own.card()
    async with own.connect() as connection, own.connect() as idle:
        await device.sign_on(connection)
        requests = [device.purchase(card, 1) for _ in range(200)]
        await connection.send(b"".join(frame(encode(request, device.key)) for request in requests))
        await connection.receive()
        await in_thread(own.stop)
        answers = await connection.until_closed()
        assert await idle.until_closed() == []
    assert all(answer.code == "00" for answer in answers)
    await in_thread(own.start)
    taken = OPENING // 10 - (await own.purses(card))[0]
    assert taken == 1 + len(answers), "an answer for every debit, and a debit for every answer"


async def test_a_hundred_terminals_at_once_each_purchase_doubled(own: Switch, chance: random.Random) -> None:
    devices, cards = await own.devices(100), await own.cards(100, cash=OPENING)
    taken: Counter[str] = Counter()

    async def pay_doubled(device: Device, card: str) -> None:
        async with own.terminal(device) as terminal:
            await terminal.sign_on()
            for _ in range(5):
                reply = await terminal.purchase(card, amount := chance.randint(1, 900), copies=2)
                assert (reply.code, reply.request.answers) == ("00", 2)
                taken[card] += amount
            # And by two ways at once, as after a connection that was taken for lost.
            async with own.connect() as one, own.connect() as other:
                await device.sign_on(one)
                request = device.purchase(card, amount := chance.randint(1, 900), de11=f"9{chance.randrange(10**5):05}")
                message = frame(encode(request, device.key))
                await one.send(message)
                await other.send(message)
                answers = [await one.receive(), await other.receive()]
                assert answers[0].message == answers[1].message
                assert answers[0].code == "00"
                taken[card] += amount

    async with trio.open_nursery() as nursery:
        for device, card in zip(devices, cards, strict=True):
            # The reference terminal counts its STANs from 1; the device goes on far behind it.
            device.skip(500)
            nursery.start_soon(pay_doubled, device, card)
    for card in cards:
        assert await own.purses(card) == (OPENING - taken[card], 0)
    metrics = await own.metrics()
    assert metrics.answered("purchase", "00") == 100 * 6 * 2
    assert (await own.show("merchant", CANTEEN))["balance"] == taken.total()
