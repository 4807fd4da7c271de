"""The examples of docs/protocol.md on a real switch: their campus is imported, their requests are sent, their replies compared. And
what the page tells terminals to do is done: with holds, with batches, with the hotlist.

What a reply says is compared element by element. Only what the page cannot know is put in the place of what it says: today's date, the
switch's nonce and what follows from it (MACs, the PIN block), and transaction numbers, which must rise as they do on the page.
"""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from switch.dialect import MacKey, encode, sub_element_pairs, sub_elements, write_sub_elements
from tests.documented import (
    FILES,
    KEYS_TERMINAL,
    NONCES,
    PIN_EXAMPLE,
    PROTOCOL,
    STORY,
    Exchange,
    pin_block,
)
from tests.switch_process import MERCHANTS, Answer, Connection, Device, Fields, Switch, in_thread, today

TODAY = f"{today():%m%d}"


class Campus:
    """The terminals of the page and what of it is otherwise here."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.numbers: dict[str, str] = {}
        """Transaction numbers of the page, and what they are here."""
        rows = [line.split(",") for line in FILES["terminals"].splitlines()[1:]]
        self.devices = {terminal: Device(terminal, merchant, bytes.fromhex(key)) for terminal, merchant, _, _, key in rows}

    async def sign_on(self, device: Device, message: Fields) -> Answer:
        """Sign on by the page's nonce."""
        answer = await device.ask(self.connection, message, device.sign_on_key)
        assert answer.code == "00", answer.fields
        mac_key, device.pin_key = device.keys_of(NONCES[0], answer)
        device.session = MacKey(mac_key)
        return answer

    def request(self, exchange: Exchange) -> Fields:
        """The request as it has to be sent here."""
        fields = exchange.request.fields | {"13": TODAY}
        if "37" in fields:
            fields["37"] = self.numbers[fields["37"]]
        if "90" in fields:
            fields["90"] = fields["90"][:10] + TODAY + fields["90"][14:]
        private = sub_elements(fields.get("48", ""))
        if "52" in private:
            random = bytes.fromhex(PIN_EXAMPLE["PIN field"])[8:]
            made = pin_block(self.devices[exchange.terminal].pin_key, PIN_EXAMPLE["PIN"], fields["2"], random)
            fields["48"] = write_sub_elements(private | {"52": made.block.hex().upper()})
        return fields

    async def ask(self, exchange: Exchange) -> Answer:
        device, fields = self.devices[exchange.terminal], self.request(exchange)
        if exchange.request.key() is None:
            return await self.connection.ask(encode(fields))
        if fields.get("70") == "001":
            return await self.sign_on(device, fields)
        return await device.ask(self.connection, fields)

    def expected(self, exchange: Exchange, answer: Answer) -> Fields:
        """The reply as it has to be here."""
        fields = exchange.reply.fields | {"13": TODAY, "15": TODAY}
        if "37" in fields:
            number = answer.fields["37"]
            assert number > max(self.numbers.values(), default=""), f"{exchange.name}: transaction numbers rise"
            self.numbers[fields["37"]] = number
            fields["37"] = number
        if "38" in fields:
            fields["38"] = fields["37"][-6:]
        if fields.get("70") == "001":
            nonce = sub_elements(answer.fields["48"])["02"]
            fields["48"] = write_sub_elements({"02": nonce, "03": f"{today():%Y%m%d}"})
        return fields


def documented_switch(make_switch: Callable[..., Switch]) -> Switch:
    """A switch that has imported the page's files, not started."""
    switch = make_switch()
    for name, content in FILES.items():
        file = switch.folder / f"{name}.csv"
        file.write_text(content, encoding="utf-8")
        imported = switch.command("import", "--config", switch.file, file)
        assert imported.returncode == 0, imported.stderr
    return switch


async def test_a_switch_answers_as_the_page_says(make_switch: Callable[..., Switch]) -> None:
    switch = documented_switch(make_switch)
    await in_thread(switch.start)
    async with switch.connect() as connection:
        campus = Campus(connection)
        for terminal, device in campus.devices.items():
            if terminal != KEYS_TERMINAL:
                await campus.sign_on(device, device.sign_on_message(NONCES[0]))
        assert len(STORY) > 25
        for exchange in STORY:
            answer = await campus.ask(exchange)
            assert answer.fields == campus.expected(exchange, answer), exchange.name
            assert (answer.mac is None) == (exchange.reply.key() is None), exchange.name


async def test_the_pin_of_the_example_is_asked_for(make_switch: Callable[..., Switch]) -> None:
    switch = documented_switch(make_switch)
    await in_thread(switch.start)
    async with switch.connect() as connection:
        campus = Campus(connection)
        device = campus.devices[KEYS_TERMINAL]
        await campus.sign_on(device, device.sign_on_message(NONCES[0]))
        (exchange,) = (exchange for exchange in STORY if exchange.name == "purchase with PIN")
        request = campus.request(exchange)
        without = {element: value for element, value in request.items() if element != "48"} | {"11": "000002"}
        wrong = request | {"11": "000003", "48": write_sub_elements({"52": "0" * 32})}
        answers = [await device.ask(connection, fields) for fields in (without, wrong, request)]
        assert [answer.code for answer in answers] == ["55", "55", "00"]


# --- what the page tells terminals to do ---


async def signed_on(switch: Switch, connection: Connection, kind: str) -> Device:
    device = await switch.device(kind=kind)
    await device.sign_on(connection)
    return device


@pytest.mark.parametrize(
    ("cash", "asked", "shown", "held"), [(1000, 400, 600, 400), (1000, 1000, 0, 1000), (1000, 1500, 0, 1000), (1, 5, 0, 1)]
)
async def test_what_a_hold_holds_follows_from_its_reply(
    switch: Switch, connection: Connection, cash: int, asked: int, shown: int, held: int
) -> None:
    device = await signed_on(switch, connection, "water")
    card = await switch.card(cash=cash)
    hold = await device.ask(connection, device.hold(card, asked))
    assert (hold.code, hold.purses, int(hold.fields["4"])) == ("00", (shown, 0), asked)
    completions = [device.completion(hold.fields["37"], amount, de2=card) for amount in (held + 1, held)]
    assert [(await device.ask(connection, completion)).code for completion in completions] == ["61", "00"]


async def test_a_batch_counts_what_the_page_says(switch: Switch, connection: Connection) -> None:
    """A purchase of 8.50 yuan, refunded by 2.00 and then reversed."""
    assert "is a debit of 850, a credit of 200 and a debit reversal of 650." in " ".join(PROTOCOL.split())
    device = await signed_on(switch, connection, "pos")
    card = await switch.card()
    purchase = device.purchase(card, 850)
    bought = await device.ask(connection, purchase)
    refund = device.refund(bought.fields["37"], 200, de2=card)
    answers = [bought, *[await device.ask(connection, fields) for fields in (refund, device.reversal(purchase), device.reversal(purchase))]]
    assert [answer.code for answer in answers] == ["00"] * 4
    counted = {"74": 1, "75": 0, "76": 1, "77": 1, "86": 200, "87": 0, "88": 850, "89": 650}
    totals = {f"de{element}": f"{value:0{10 if int(element) < 80 else 16}}" for element, value in counted.items()}
    differs = await device.ask(connection, device.message("0500", de60="000001", **(totals | {"de76": "0" * 10})))
    assert differs.code == "95"
    assert {element: int(differs.fields[element]) for element in counted} == counted
    assert (await device.ask(connection, device.message("0500", de60="000001", **totals))).code == "00"


class Reader:
    """A terminal that keeps the hotlist as the page tells it to."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.held = "0" * 10
        self.listed: set[str] = set()
        self.pieces = 0

    async def read(self, connection: Connection, between: Callable[[], Awaitable[Connection]]) -> None:
        """Read until a reading is whole. `between` is called before each piece but the first and gives the connection to go on with."""
        aside: list[str] = []
        version = after = ""
        while True:
            answer = await self.device.ask(connection, self.device.hotlist(int(self.held), after or None))
            assert answer.code == "00", answer.fields
            self.pieces += 1
            told = sub_element_pairs(answer.fields["48"])
            (reached,) = (value for tag, value in told if tag == "50")
            changes = [value for tag, value in told if tag == "53"]
            if after and reached != version:
                aside, version, after = [], "", ""
                continue
            version = reached
            aside += changes
            if ("52", "0") in told:
                break
            after = changes[-1][1:]
            connection = await between()
        if self.held == "0" * 10:
            self.listed = set()
        for change in aside:
            (self.listed.add if change[0] == "+" else self.listed.discard)(change[1:])
        self.held = version


async def test_a_terminal_that_reads_as_the_page_says_has_the_list(make_switch: Callable[..., Switch]) -> None:
    """While the list changes between the pieces, and while the switch is started anew between them."""
    switch = make_switch()
    await in_thread(switch.start)
    await switch.enter(MERCHANTS)
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(switch.connect())
        reader = Reader(await signed_on(switch, connection, "gate"))
        counter = await signed_on(switch, connection, "counter")
        frozen = set(await switch.cards(95, status="frozen"))
        lost, found = await switch.cards(2)

        async def report(card: str, code: str) -> None:
            answer = await counter.ask(connection, counter.loss(card, de91=code))
            assert answer.code == "00"

        async def change() -> Connection:
            await report(lost, "1")
            await report(found, "1" if reader.pieces == 1 else "3")
            return connection

        await report(found, "1")
        await reader.read(connection, change)
        assert (reader.pieces, reader.listed) == (3, frozen | {found})
        await reader.read(connection, change)
        assert (reader.pieces, reader.listed) == (4, frozen | {lost})

        restarts = 0

        async def restart() -> Connection:
            nonlocal connection, restarts
            restarts += 1
            if restarts == 1:
                await in_thread(switch.stop)
                await in_thread(switch.start)
                connection = await stack.enter_async_context(switch.connect())
            return connection

        more = set(await switch.cards(60, status="frozen"))
        await reader.read(connection, restart)
        assert (restarts, reader.listed) == (2, frozen | more | {lost})
