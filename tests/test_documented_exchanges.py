"""The examples of docs/protocol.md on a real switch: their campus is imported, their requests are sent, their replies compared.

What a reply says is compared element by element. Only what the page cannot know is put in the place of what it says: today's date, the
switch's nonce and what follows from it (MACs, the PIN block), and transaction numbers, which must rise as they do on the page.
"""

from collections.abc import Callable

from switch.dialect import encode, session_keys, sub_elements, write_sub_elements
from tests.documented import FILES, KEYS_TERMINAL, MASTER_KEY, NONCES, PIN_EXAMPLE, STORY, Exchange, pin_block
from tests.switch_process import Answer, Connection, Device, Fields, Switch, in_thread, today

TODAY = f"{today():%m%d}"


class Campus:
    """The terminals of the page and what of it is otherwise here."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.numbers: dict[str, str] = {}
        """Transaction numbers of the page, and what they are here."""
        self.pin_keys: dict[str, bytes] = {}
        rows = [line.split(",") for line in FILES["terminals"].splitlines()[1:]]
        self.devices = {terminal: Device(terminal, merchant, bytes.fromhex(key)) for terminal, merchant, _, _, key in rows}

    async def sign_on(self, device: Device, message: Fields) -> Answer:
        """Sign on by the page's nonce."""
        answer = await device.ask(self.connection, message, device.sign_on_key)
        assert answer.code == "00", answer.fields
        device.session = device.session_of(NONCES[0], answer)
        switch_nonce = bytes.fromhex(sub_elements(answer.fields["48"])["02"])
        _, self.pin_keys[device.terminal_id] = session_keys(MASTER_KEY, device.terminal_id, NONCES[0], switch_nonce)
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
            made = pin_block(self.pin_keys[exchange.terminal], PIN_EXAMPLE["PIN"], fields["2"], random)
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


async def test_a_switch_answers_as_the_page_says(make_switch: Callable[..., Switch]) -> None:
    switch = make_switch()
    for name, content in FILES.items():
        file = switch.folder / f"{name}.csv"
        file.write_text(content, encoding="utf-8")
        imported = switch.command("import", "--config", switch.file, file)
        assert imported.returncode == 0, imported.stderr
    await in_thread(switch.start)
    async with switch.connect() as connection:
        campus = Campus(connection)
        for terminal, device in campus.devices.items():
            if terminal != KEYS_TERMINAL:
                await campus.sign_on(device, device.sign_on_message(NONCES[0]))
        for exchange in STORY:
            answer = await campus.ask(exchange)
            assert answer.fields == campus.expected(exchange, answer), exchange.name
            assert (answer.mac is None) == (exchange.reply.key() is None), exchange.name
    assert len(campus.numbers) > 30
