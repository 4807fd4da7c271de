"""What the switch decides about cards themselves: lost, found, the list of those that are not to be taken, and PINs."""

import itertools
import secrets
from collections.abc import Callable

import pytest

from switch.dialect import write_sub_elements
from tests.decision_table import Row, Scene, decisions, reply_to, table
from tests.messages import pin_block
from tests.switch_process import MERCHANTS, PINS_HEADER, Answer, Connection, Device, Switch, in_thread

# --- lost and found ---

LOSS = table(
    """
    | lose | 00 | purchase 1 !41, enter !41, verify !41, balance, lose, find, purchase 1
    | lose @counter 42=- 60=000001 24=003 | 00 | purchase 1 !41
    card lost | lose | 00 | purchase 1 !41
    card expired | lose | 00 | purchase 1 !41, find, purchase 1 !54
    card frozen | lose | 62 | purchase 1 !62
    card blacklisted | lose | 62 | purchase 1 !62
    card inactive | lose | 78 | purchase 1 !78
    card cancelled | lose | 78 | purchase 1 !78
    hold 400 | lose | 00 | complete #1 400
    | lose 2=unknown | 14
    | lose 2=- | 30 | purchase 1
    | lose 91=- | 30
    | lose 91=0 | 30
    | lose 91=2 | 30
    | lose 91=4 | 30
    | lose 101=- | 30
    | lose 101=BLACKLIST | 30
    | lose 101=HOTLIST2 | 30
    | lose 60=000000 | 30
    | lose 42=M2 | 58 | purchase 1
    | lose @pos | 58
    | lose 13=-8 | (12) | purchase 1
    """,
    "then",
)


@decisions(LOSS)
async def test_loss(scene: Scene, row: Row) -> None:
    await scene.decide(row)


FOUND = table(
    """
    card lost | find | 00 | purchase 1, find, lose
    lose | find | 00 | purchase 1
    lose | find @counter 42=- 60=000001 24=003 | 00 | purchase 1
    | find | 00 | purchase 1
    card expired | find | 00 | purchase 1 !54
    card frozen | find | 62 | purchase 1 !62
    card blacklisted | find | 62 | purchase 1 !62
    card inactive | find | 78 | purchase 1 !78
    card cancelled | find | 78 | purchase 1 !78
    card lost | find 2=unknown | 14
    card lost | find 2=- | 30
    card lost | find 101=- | 30
    card lost | find 101=BLACKLIST | 30
    card lost | find 42=M2 | 58
    card lost | find @pos | 58
    card lost | find 13=-8 | (12) | purchase 1 !41
    """,
    "then",
)


@decisions(FOUND)
async def test_found(scene: Scene, row: Row) -> None:
    await scene.decide(row)


@decisions(table("| find | 78 | purchase 1 !41, lose", "then"))
async def test_a_lost_card_that_was_replaced_stays_lost(scene: Scene, row: Row) -> None:
    await scene.do("lose")
    rows = f"{scene.card}7,H{scene.card},student,active,2099-12-31,0,0"
    await scene.switch.enter(f"card_number,holder_id,class,status,expires,cash,subsidy\n{rows}\n")
    await scene.decide(row)


# --- the list ---


def piece(answer: Answer) -> tuple[int, bool, list[str]]:
    """Version, whether there is more, changes in their order. Sub-elements in this order, the last one as often as needed."""
    found: list[tuple[str, str]] = []
    text = answer.fields["48"]
    while text:
        length = int(text[2:4])
        found.append((text[:2], text[4 : 4 + length]))
        text = text[4 + length :]
    assert [tag for tag, _ in found] == ["50", "52", *["53"] * (len(found) - 2)], answer.fields
    version, more = found[0][1], found[1][1]
    assert len(version) == 10
    assert more in {"0", "1"}
    return int(version), more == "1", [change for _, change in found[2:]]


class Reader:
    """A terminal that keeps the list."""

    def __init__(self, device: Device, connection: Connection) -> None:
        self.device = device
        self.connection = connection
        self.version = 0
        self.listed: set[str] = set()

    async def ask(self, after: str | None = None) -> tuple[int, bool, list[str]]:
        request = self.device.hotlist(self.version, after)
        answer = await self.device.ask(self.connection, request)
        assert answer.fields == {**reply_to(request, "00"), "48": answer.fields["48"]}
        return piece(answer)

    def apply(self, changes: list[str]) -> None:
        for change in changes:
            assert (change[1:] in self.listed) == (change[0] == "-"), change
            (self.listed.add if change[0] == "+" else self.listed.discard)(change[1:])

    async def read(self) -> list[str]:
        """Everything new, piece by piece."""
        if self.version == 0:
            self.listed.clear()
        version, more, changes = await self.ask()
        pieces = [changes]
        while more:
            assert 0 < len(pieces[-1]) <= 40
            again, more, changes = await self.ask(pieces[-1][-1][1:])
            assert again == version, "all pieces are of one reading"
            pieces.append(changes)
        self.version = version
        found = list(itertools.chain(*pieces))
        self.apply(found)
        return found


def in_order(numbers: list[str]) -> list[str]:
    """Shorter ones first, as `08` is another card than `8`."""
    return sorted(numbers, key=lambda number: (len(number), number))


@pytest.fixture
async def reader(switch: Switch, connection: Connection) -> Reader:
    """Has read everything."""
    device = await switch.device()
    await device.sign_on(connection)
    reader = Reader(device, connection)
    await reader.read()
    return reader


async def test_the_list_has_what_is_not_to_be_taken(switch: Switch, reader: Reader) -> None:
    assert await reader.read() == []
    before = reader.version
    cards = {status: await switch.card(status=status) for status in ("lost", "frozen", "blacklisted", "cancelled", "inactive", "active")}
    listed = [cards[status] for status in ("lost", "frozen", "blacklisted", "cancelled")]
    expired = await switch.card(expires="2001-01-01")
    assert await reader.read() == [f"+{number}" for number in in_order(listed)]
    assert reader.version == before + 4, "so many changes"
    assert reader.listed.isdisjoint({cards["inactive"], cards["active"], expired})
    assert await reader.read() == []


async def test_a_terminal_that_follows_the_list_has_the_list(switch: Switch, connection: Connection, reader: Reader, scene: Scene) -> None:
    one, two, three = await switch.cards(3)
    await switch.alter(three, status="lost")
    assert await reader.read() == [f"+{three}"]
    await scene.do(f"lose 2={two}, lose 2={one}, lose 2={one}, find 2={three}")
    assert await reader.read() == [f"+{one}", f"+{two}", f"-{three}"]
    version = reader.version
    # A change of what is listed already is none, and one and back is none on the whole.
    await switch.alter(one, status="frozen")
    await scene.do(f"find 2={two}, lose 2={two}")
    assert await reader.read() == []
    assert reader.version == version + 2
    await switch.alter(one, status="inactive")
    assert await reader.read() == [f"-{one}"]
    anew = Reader(reader.device, connection)
    await anew.read()
    assert anew.listed == reader.listed


async def test_a_piece_has_at_most_forty_cards(switch: Switch, reader: Reader) -> None:
    numbers = [f"623{secrets.randbelow(10**15):015}1" for _ in range(97)]
    await switch.alter(*numbers, status="lost")
    reader.version, kept = reader.version, reader.version
    sizes = []
    after = None
    more = True
    while more:
        _, more, changes = await reader.ask(after)
        sizes.append(len(changes))
        after = changes[-1][1:]
    assert sizes == [40, 40, 17]
    assert reader.version == kept
    assert await reader.read() == [f"+{number}" for number in in_order(numbers)]


async def test_the_list_is_in_the_order_of_the_numbers(switch: Switch, reader: Reader) -> None:
    await switch.alter("8", "08", "0008", "9", "81", "0000000000000000008", "8888888888888888888", "7999999999999999999", status="lost")
    numbers = ["8", "9", "08", "81", "0008", "0000000000000000008", "7999999999999999999", "8888888888888888888"]
    assert await reader.read() == [f"+{number}" for number in numbers]


async def test_what_changes_while_the_list_is_read_comes_with_the_next_reading(switch: Switch, reader: Reader, scene: Scene) -> None:
    numbers = in_order(await switch.cards(50))
    await switch.alter(*numbers[5:48], status="lost")
    version, more, first = await reader.ask()
    assert (more, [change[1:] for change in first]) == (True, numbers[5:45])
    # On both sides of the place that was reached, and of what is still to come.
    await scene.do(f"lose 2={numbers[0]}, lose 2={numbers[49]}, find 2={numbers[6]}, find 2={numbers[46]}")
    again, more, rest = await reader.ask(numbers[44])
    assert (again, more, rest) == (version, False, [f"+{number}" for number in numbers[45:48]])
    reader.apply(first + rest)
    reader.version = version
    assert await reader.read() == [f"+{numbers[0]}", f"-{numbers[6]}", f"-{numbers[46]}", f"+{numbers[49]}"]


async def test_a_terminal_that_goes_on_with_what_nobody_began_ends_with_the_list(
    switch: Switch, connection: Connection, reader: Reader
) -> None:
    """So it is after the switch's restart in the middle of a reading."""
    await switch.cards(60, status="lost")
    device = await switch.device()
    await device.sign_on(connection)
    other = Reader(device, connection)
    other.version, other.listed = reader.version, set(reader.listed)
    version, more, _ = await other.ask(in_order(list(other.listed) or ["1"])[0])
    assert version <= other.version, "it has reached nothing new by that"
    if not more:
        other.version = version
    await other.read()
    await reader.read()
    assert other.listed == reader.listed


@pytest.mark.parametrize(
    "private",
    [
        None,
        "",
        "5009000000000",
        "501100000000000",
        "5010000000000X",
        "51010",
        "501000000000005100",
        "5010000000000051021X",
        "5010000000000051019" + "1" * 20,
    ],
)
async def test_a_reading_without_what_it_needs_is_answered_30(reader: Reader, private: str | None) -> None:
    request = reader.device.hotlist(0, de48=private)
    assert (await reader.device.ask(reader.connection, request)).fields == reply_to(request, "30")


async def test_a_version_that_is_not_there_yet_is_answered_30(switch: Switch, reader: Reader) -> None:
    for ahead in (1, 2, 10**9):
        assert (await reader.device.ask(reader.connection, reader.device.hotlist(reader.version + ahead))).code == "30"
    await switch.card(status="lost")
    assert (await reader.device.ask(reader.connection, reader.device.hotlist(reader.version + 1))).code == "00"


async def test_a_reading_is_answered_afresh_and_leaves_no_trace(switch: Switch, scene: Scene, reader: Reader) -> None:
    request = reader.device.hotlist(reader.version)
    position = await scene.record()
    first = await reader.device.ask(scene.connection, request)
    assert piece(first)[2] == []
    assert await scene.record() == position + 1
    card = await switch.card(status="lost")
    assert piece(await reader.device.ask(scene.connection, {**request, "t": "0301"}))[2] == [f"+{card}"]


# --- PINs ---

PIN_ABOVE = "pin_above,*,*,,,,,300"

WRONG = "purchase 301 48=pin:1111 !55"
RIGHT = "purchase 1501 48=pin:1234 !51"
"""It is told by what is looked at later."""
NO_PIN = "52320123456789ABCDEF0123456789ABCDEF"
THRICE = f"pin 1234, {WRONG}, {WRONG}, {WRONG}"

PIN = table(
    f"""
    pin 1234 | purchase 300 | 00 | 1000 200 300
    pin 1234 | purchase 301 48=pin:1234 | 00 | 1000 199 301
    pin 1234 | bill 301 48=pin:1234 | 00 | 699 500 0
    pin 1234 | hold 301 48=pin:1234 | 00 | 699 500 0
    pin 0000 | purchase 301 48=pin:0000 | 00 | 1000 199 301
    pin 123456789012 | purchase 301 48=pin:123456789012 | 00 | 1000 199 301
    pin 1234, pin 4321 | purchase 301 48=pin:4321 | 00 | 1000 199 301
    pin 1234, pin 4321 | purchase 301 48=pin:1234 | 55
    pin 1234 | purchase 301 | 55
    pin 1234 | bill 301 | 55
    pin 1234 | hold 301 | 55
    pin 1234 | purchase 301 @shop | 55
    | purchase 301 | 55
    | purchase 301 48=pin:1234 | 55
    pin 1234 | purchase 301 48=pin:1235 | 55
    pin 1234 | purchase 301 48=pin:12345 | 55
    pin 12345 | purchase 301 48=pin:1234 | 55
    pin 1234 | bill 301 48=pin:4321 | 55
    pin 1234 | hold 301 48=pin:4321 | 55
    pin 1234 | purchase 301 2=other 48=pin:1234 | 55
    pin 1234 | purchase 301 48={NO_PIN} | 55
    pin 1234 | purchase 301 48=5204ABCD | 30
    pin 1234 | purchase 301 48=52320123456789ABCDEF0123456789ABCDEG | 30

    pin 1234 | offline 301 | 00 | 1000 199 301
    pin 1234 | load 301 | 00 | 1301 500 0
    pin 1234, hold 301 48=pin:1234 | complete #1 301 | 00 | 699 500 301
    pin 1234, purchase 301 48=pin:1234 | refund #1 301 | 00 | 1000 500 -301
    pin 1234, purchase 301 48=pin:1234 | void #1 | 00 | 1000 500 -301
    pin 1234, purchase 301 48=pin:1234 | reverse #1 | 00 | 1000 500 -301
    pin 1234 | enter | 00
    pin 1234 | purchase 1501 48=pin:1235 | 55
    pin 1234 | purchase 1501 48=pin:1234 | 51
    pin 1234, card lost | purchase 301 48=pin:1235 | 41

    pin 1234, {WRONG}, {WRONG} | purchase 301 48=pin:1234 | 00 | 1000 199 301
    pin 1234, {WRONG}, bill 302 48=pin:2222 !55, hold 301 48=pin:3333 !55 | purchase 301 48=pin:1234 | 75
    {THRICE} | bill 301 48=pin:1234 | 75
    {THRICE} | hold 301 | 75
    {THRICE} | purchase 1501 48=pin:1111 | 75
    {THRICE} | purchase 300 | 00 | 1000 200 300
    {THRICE} | offline 301 | 00 | 1000 199 301
    """,
    "left",
)

TRIES = table(
    f"""
    pin 1234, {WRONG} | purchase 301 48=pin:1111 | 55 | {WRONG}, purchase 301 48=pin:1234 !75
    pin 1234, {WRONG} | purchase 301 48=pin:1111 | 55 | send #1 !55, send #1 t=0201 !55, {RIGHT}
    pin 1234, {WRONG}, {WRONG} | purchase 301 | 55 | purchase 301 !55, {RIGHT}
    pin 1234, {WRONG}, {WRONG}, purchase 300 48=pin:1111 | purchase 1501 48=pin:1234 | 51
    pin 1234, {WRONG}, {WRONG}, card lost, purchase 301 48=pin:1111 !41, card active | enter | 00 | {RIGHT}
    pin 1234, {WRONG}, {WRONG}, {RIGHT}, {WRONG} | purchase 301 48=pin:1111 | 55 | {RIGHT}
    {THRICE}, pin 1234 | purchase 1501 48=pin:1234 | 51
    {THRICE} | purchase 301 | 75 | card lost, purchase 301 !41, card active, purchase 301 48=pin:1234 !75
    pin 1234, purchase 301 48={NO_PIN} !55, {WRONG} | purchase 301 48=pin:1111 | 55 | purchase 301 48=pin:1234 !75
    """,
    "then",
)


@decisions([*PIN, *TRIES])
async def test_a_pin(ruled: Scene, row: Row) -> None:
    await ruled.switch.rule(PIN_ABOVE)
    await ruled.decide(row)


MOST_SPECIFIC = {
    "pin_above,*,*,,,,,300": "pin 1234, purchase 301 !55, purchase 300",
    "pin_above,*,*,,,,,300\npin_above,*,shop,,,,,400": "pin 1234, purchase 301 !55, purchase 400 @shop, purchase 401 @shop !55",
    "pin_above,*,*,,,,,300\npin_above,*,shop,,,,,200\npin_above,student,*,,,,,400": "pin 1234, purchase 400 @shop, purchase 401 !55",
    "pin_above,student,*,,,,,100\npin_above,student,shop,,,,,400": "pin 1234, purchase 400 @shop, purchase 101 !55",
    "pin_above,teacher,*,,,,,0": "pin 1234, purchase 850",
    "pin_above,*,*,,,,,0": "pin 1234, purchase 1 !55, purchase 1 48=pin:1234",
}


@pytest.mark.parametrize("policy", MOST_SPECIFIC)
async def test_the_most_specific_rule_says_from_which_amount_on(ruled: Scene, policy: str) -> None:
    await ruled.switch.rule(*policy.split("\n"))
    await ruled.do(MOST_SPECIFIC[policy])


@pytest.mark.parametrize(
    "number", ["7", "1234567", "12345678901", "123456789012", "1234567890123", "1234567890123456789", "0000000000000000001"]
)
async def test_a_pin_block_is_for_card_numbers_of_every_length(ruled: Scene, number: str) -> None:
    await ruled.switch.rule(PIN_ABOVE)
    await ruled.switch.alter(number)
    await ruled.switch.set_pins({number: "2580"})
    device = await ruled.till("pos")
    for pin, code in (("2581", "55"), ("2580", "00")):
        answer = await device.ask(ruled.connection, device.purchase(number, 301, de48=device.pin(number, pin)))
        assert answer.code == code


async def test_a_pin_block_is_of_the_session_that_proves_its_message(ruled_switch: Switch) -> None:
    await ruled_switch.rule(PIN_ABOVE)
    card, device = await ruled_switch.card(), await ruled_switch.device()
    await ruled_switch.set_pins({card: "1234"})
    async with ruled_switch.connect() as connection:
        await device.sign_on(connection)
        previous, private = device.key, device.pin(card, "1234")
        await device.sign_on(connection)
        # Until the first message under the new one both sessions are good, each with its own keys.
        assert (await device.ask(connection, device.purchase(card, 301, de48=device.pin(card, "1234")), previous)).code == "55"
        assert (await device.ask(connection, device.purchase(card, 301, de48=private), previous)).code == "00"
        assert (await device.ask(connection, device.purchase(card, 301, de48=private))).code == "55"
        assert (await device.ask(connection, device.purchase(card, 301, de48=device.pin(card, "1234")))).code == "00"


@pytest.mark.parametrize("fill", ["0", "F", "B"])
async def test_a_block_that_is_filled_otherwise_holds_no_pin(ruled: Scene, fill: str) -> None:
    await ruled.switch.rule(PIN_ABOVE)
    await ruled.do("pin 1234")
    device = await ruled.till("pos")
    private = write_sub_elements({"52": pin_block(device.pin_key, ruled.card, "1234", fill=fill)})
    assert (await device.ask(ruled.connection, device.purchase(ruled.card, 301, de48=private))).code == "55"


async def test_a_pin_block_may_be_in_small_letters_too(ruled: Scene) -> None:
    await ruled.switch.rule(PIN_ABOVE)
    await ruled.do("pin 1234")
    device = await ruled.till("pos")
    private = device.pin(ruled.card, "1234").lower()
    assert (await device.ask(ruled.connection, device.purchase(ruled.card, 301, de48=private))).code == "00"


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ("{card},123", "pin"),
        ("{card},1234567890123", "pin"),
        ("{card},12a4", "pin"),
        ("{card},", "pin"),
        ("6239999999999999,1234", "card_number"),
    ],
)
async def test_a_wrong_pin_file_is_named_without_the_pin_and_changes_nothing(ruled: Scene, row: str, field: str) -> None:
    await ruled.switch.rule(PIN_ABOVE)
    await ruled.do("pin 5678")
    content = f"{PINS_HEADER}\n{ruled.card},8765\n{row.format(card=ruled.other)}\n"
    response = await ruled.switch.http("POST", "/v1/import", params={"name": "pins.csv"}, content=content.encode())
    assert response.status_code == 422
    error = response.json()["error"]
    assert f"pins.csv line 3, field {field}: " in error
    assert "8765" not in error
    assert row.rpartition(",")[2] == "" or row.rpartition(",")[2] not in error
    await ruled.do("purchase 301 48=pin:8765 !55, purchase 301 48=pin:5678")


async def test_how_many_tries_is_configured(make_switch: Callable[..., Switch]) -> None:
    switch = make_switch(policy_pin_tries_max=1)
    await in_thread(switch.start)
    await switch.enter(MERCHANTS)
    await switch.rule(PIN_ABOVE)
    async with switch.connect() as connection:
        scene = Scene(switch, connection)
        await scene.do("pin 1234, purchase 301 48=pin:1234, purchase 301 48=pin:1111 !55, purchase 301 48=pin:1234 !75")
    # It is in the journal, as is the PIN, though not as it is.
    await in_thread(switch.stop)
    await in_thread(switch.start)
    async with switch.connect() as connection:
        again = Scene(switch, connection)
        again.card = scene.card
        await again.do("purchase 301 48=pin:1234 !75")
