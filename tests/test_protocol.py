"""The terminal protocol's sections 1 to 4 on the real switch: frames, elements, keys, MAC, sessions, concentrators."""

import random
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from switch.dialect import SPECIFICATION, MacKey, encode, frame, sub_elements
from tests.switch_process import CANTEEN, Answer, Connection, Device, Fields, Switch, now, today, until

TPDU = bytes.fromhex("6000030a07")
TPDU_OF_THE_REPLY = bytes.fromhex("600a070003")


@pytest.fixture
async def device(switch: Switch, connection: Connection) -> Device:
    """A canteen's terminal, signed on."""
    device = await switch.device()
    await device.sign_on(connection)
    return device


@pytest.fixture
async def card(switch: Switch) -> str:
    return await switch.card()


@pytest.fixture
async def bystander(switch: Switch) -> AsyncIterator[Callable[[], object]]:
    """An honest terminal on its own connection: called at the end, it is served as ever."""
    device = await switch.device()
    card = await switch.card()
    async with switch.connect() as connection:
        await device.sign_on(connection)

        async def pay() -> None:
            assert (await device.ask(connection, device.purchase(card, 1))).code == "00"

        yield pay


def bitmap(*elements: int) -> bytes:
    """One or two bitmaps."""
    bits = sum(1 << (128 - element) for element in elements)
    return (bits | 1 << 127).to_bytes(16, "big") if any(element > 64 for element in elements) else (bits >> 64).to_bytes(8, "big")


# --- section 1: transport ---


async def test_a_frame_may_arrive_byte_by_byte(device: Device, connection: Connection, card: str) -> None:
    request = device.purchase(card, 850)
    for byte in frame(encode(request, device.key), TPDU):
        await connection.send(bytes([byte]))
    answer = await connection.receive()
    assert (answer.code, answer.tpdu) == ("00", TPDU_OF_THE_REPLY)
    assert answer.proved_by(device.key)


async def test_frames_may_arrive_cut_anywhere(device: Device, connection: Connection, card: str, chance: random.Random) -> None:
    requests = [device.purchase(card, amount) for amount in range(1, 60)]
    stream = b"".join(frame(encode(request, device.key), TPDU * chance.getrandbits(1)) for request in requests)
    while stream:
        size = chance.randint(1, 200)
        await connection.send(stream[:size])
        stream = stream[size:]
    answers = [await connection.receive() for _ in requests]
    assert sorted(answer.fields["11"] for answer in answers) == [request["11"] for request in requests]
    assert {answer.code for answer in answers} == {"00"}


@pytest.mark.parametrize("tpdu", [b"", TPDU, bytes.fromhex("6000000000"), bytes.fromhex("60ffff0000")])
async def test_a_tpdu_comes_back_with_its_addresses_swapped(switch: Switch, connection: Connection, card: str, tpdu: bytes) -> None:
    device = await switch.device()
    swapped = tpdu[:1] + tpdu[3:] + tpdu[1:3]
    nonce = secrets.token_bytes(8)
    signed_on = await device.ask(connection, device.sign_on_message(nonce), device.sign_on_key, tpdu)
    device.session = device.session_of(nonce, signed_on)
    approved = await device.ask(connection, device.purchase(card, 850), tpdu=tpdu)
    malformed = await device.ask(connection, device.purchase(card, 850, de12=None), tpdu=tpdu)
    unproved = await device.ask(connection, device.purchase(card, 850), device.sign_on_key, tpdu=tpdu)
    unknown = await device.ask(connection, device.purchase(card, 850, de41="NOBODY  "), tpdu=tpdu)
    answers = [signed_on, approved, malformed, unproved, unknown]
    assert [answer.code for answer in answers] == ["00", "00", "30", "63", "58"]
    assert [answer.tpdu for answer in answers] == [swapped] * 5


@pytest.mark.parametrize(
    ("reason", "stream"),
    [
        ("length_zero", bytes(2)),
        ("length_over", (2049).to_bytes(2, "big")),
        ("length_over", b"\xff\xff" + bytes(10)),
        ("tpdu_cut", frame(bytes.fromhex("60000000"))),
        ("mti", frame(b"", TPDU)),
        ("mti", frame(b"\x08")),
        ("mti", frame(bytes.fromhex("0a00") + bitmap(11))),
        ("mti", frame(bytes.fromhex("080f") + bitmap(11), TPDU)),
        ("bitmap", frame(bytes.fromhex("0800"))),
        ("bitmap", frame(bytes.fromhex("0800") + bitmap(11)[:7])),
        ("bitmap", frame(bytes.fromhex("0800") + bitmap(70)[:15])),
        ("mti", frame(b"GET / HTTP/1.1\r\n\r\n".replace(b"GE", b"\xaa"))),
    ],
)
async def test_what_cannot_be_read_closes_the_connection_and_is_counted(
    switch: Switch, connection: Connection, bystander: Callable[[], object], reason: str, stream: bytes
) -> None:
    before = await switch.metrics()
    await connection.send(stream)
    assert await connection.until_closed() == []
    after = await until(switch.metrics, lambda metrics: metrics.closed(reason) > before.closed(reason))
    assert after.closed(reason) == before.closed(reason) + 1
    assert after.sum("switch_connections_closed_total") == before.sum("switch_connections_closed_total") + 1
    await bystander()  # type: ignore[misc]


async def test_what_was_asked_before_the_garbage_is_answered(device: Device, connection: Connection, switch: Switch, card: str) -> None:
    requests = [device.purchase(card, 850) for _ in range(3)]
    await connection.send(b"".join(frame(encode(request, device.key)) for request in requests) + bytes(2))
    answers = await connection.until_closed()
    assert [answer.code for answer in answers] == ["00"] * 3
    assert await switch.purses(card) == (100_000 - 3 * 850, 0)


@pytest.mark.parametrize("tpdu", [b"", TPDU])
async def test_the_longest_frame_is_served_and_one_byte_more_is_not(switch: Switch, connection: Connection, tpdu: bytes) -> None:
    device = await switch.device()
    fields = device.message("0800", de70="301", de111="w" * 900, de112="x" * 900)
    missing = 2048 - len(tpdu) - len(encode({**fields, "113": ""}))
    longest = encode({**fields, "113": "y" * missing})
    assert len(tpdu + longest) == 2048
    assert (await connection.ask(longest, tpdu)).code == "00"
    await connection.send(frame(encode({**fields, "113": "y" * (missing + 1)}), tpdu))
    assert await connection.until_closed() == []


# --- section 2: encoding, and answer 30 ---


async def test_every_element_of_1987_is_skipped_where_there_is_no_use_for_it(switch: Switch, connection: Connection) -> None:
    device = await switch.device()

    def value(element: str) -> str:
        spec = SPECIFICATION[element]
        length = int(spec["max_len"])
        if element in {"28", "29", "30", "31", "97"}:
            return "C" + "7" * (2 * (length - 1))
        if element == "35":
            return "6230000000000001=2912"
        if element == "48":
            return "0116" + "0" * 16 + "9903abc"
        if spec["data_enc"] == "b" and spec["len_enc"] == "b":
            return "a5" * length
        return ("8" if spec["data_enc"] == "b" else "x") * length

    used = {"t", "h", "p", "1", "11", "12", "13", "41", "42", "49", "60", "64", "70", "128"}
    elements = [element for element in SPECIFICATION if element not in used]
    assert len(elements) == 128 - len(used - {"t", "h", "p"}) - 1, "all but those used and DE65"
    for element in elements:
        # Without a MAC, because an echo test may be: then it is the message's reading alone that is tried.
        answer = await connection.ask(encode(device.message("0800", de70="301", **{f"de{element}": value(element)})))
        assert answer.code == "00", f"DE{element}: {answer.fields}"


def cut(message: bytes, fields: Fields, element: str, replacement: bytes) -> bytes:
    """`message` with the bytes of one element replaced."""
    kept = {name: value for name, value in fields.items() if name == "t" or int(name) < int(element)}
    start = len(encode(kept)) + (8 if message[2] & 0x80 and not any(int(name) > 64 for name in kept if name != "t") else 0)
    through = encode({**kept, element: fields[element]})
    length = len(through) - len(encode(kept)) - (8 if int(element) > 64 and not encode(kept)[2] & 0x80 else 0)
    return message[:start] + replacement + message[start + length :]


AMOUNT = "000000000850"
ALL = {"2", "3", "4", "11", "12", "13", "41", "42", "49"}


FAULTS: dict[str, tuple[str, str, Fields, set[str]]] = {
    "no decimal digit in DE4": ("4", "00000000085a", {}, ALL - {"4"}),
    "no decimal digit in DE2": ("2", "16623000000000000f", {}, ALL - {"2"}),
    "DE2 with 20 digits": ("2", "2062300000000000000001", {}, set()),
    "DE2 without digits": ("2", "00", {}, set()),
    "DE2's length no number": ("2", "1a6230000000000001", {}, set()),
    "DE2 odd and not padded with zero": ("2", "1562300000000000aa", {}, ALL - {"2"}),
    "DE3 no number": ("3", "0000f0", {}, ALL - {"3"}),
    "DE22 padded with another digit": ("22", "1051", {"de22": "051"}, ALL),
    "DE49 not printable": ("49", "313500", {}, ALL - {"49"}),
    "DE42 not printable": ("42", "ff" * 15, {}, ALL - {"42"}),
    "DE60's length above 999": ("60", "1000" + "30" * 6, {"de60": "000001"}, ALL),
    "DE60's length no number": ("60", "00a6" + "30" * 6, {"de60": "000001"}, ALL),
    "DE48 no sub-elements": ("48", "0005" + b"01xx9".hex(), {"de48": "0101x"}, ALL),
    "DE48's sub-element cut short": ("48", "0005" + b"0102x".hex(), {"de48": "0101x"}, ALL),
    "DE28 without sign": ("28", "2000000001", {"de28": "C00000001"}, ALL),
    "DE54 longer than 120": ("54", "0121" + "30" * 121, {"de54": "0"}, ALL),
    "DE11 no number": ("11", "00000a", {}, ALL - {"11"}),
    "DE12 no number": ("12", "1200a0", {}, ALL - {"12"}),
    "DE13 no number": ("13", "11a2", {}, ALL - {"13"}),
    "DE41 not printable": ("41", "54310000000000ff", {}, ALL - {"41"}),
}
"""What is wrong: the element, its bytes, elements besides a purchase's own, what can be echoed."""


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_malformed_element_is_answered_30_with_what_could_be_read(
    switch: Switch, device: Device, connection: Connection, card: str, fault: str
) -> None:
    element, wire, more, echoed = FAULTS[fault]
    request = device.purchase(card, 850, **more)
    whole = encode(request)
    message = cut(whole, request, element, bytes.fromhex(wire))
    assert message != whole
    answer = await connection.ask(message)
    assert answer.fields == {
        "t": "0210",
        "15": f"{today():%m%d}",
        "39": "30",
        **{name: request[name] for name in echoed},
    }
    assert answer.mac is None
    assert await switch.purses(card) == (100_000, 0)
    assert (await device.ask(connection, request)).code == "00", "the same request, well-formed, was not remembered"


def signed(device: Device, fields: Fields) -> bytes:
    return encode(fields, device.key)


@pytest.mark.parametrize(
    ("fault", "make"),
    [
        ("trailing byte", lambda device, fields: signed(device, fields) + b"\x00"),
        ("MAC cut short", lambda device, fields: signed(device, fields)[:-1]),
        ("DE49 cut short", lambda _, fields: encode(fields)[:-1]),
        ("DE65", lambda _, fields: encode(fields)[:2] + with_second_bitmap(encode(fields), 65) + b"\x00"),
        ("DE64 beside a second bitmap", lambda _, fields: encode({**fields, "64": "00" * 8, "70": "001"})),
        ("DE64 and DE128", lambda _, fields: encode({**fields, "64": "00" * 8, "128": "00" * 8})),
        ("a bit set and nothing there", lambda _, fields: encode(fields)[:2] + with_second_bitmap(encode(fields), 127)),
    ],
)
async def test_a_message_wrong_as_a_whole_is_answered_30(
    switch: Switch, device: Device, connection: Connection, card: str, fault: str, make: Callable[[Device, Fields], bytes]
) -> None:
    request = device.purchase(card, 850)
    answer = await connection.ask(make(device, request))
    assert answer.code == "30", fault
    assert answer.mac is None
    assert answer.fields["11"] == request["11"]
    assert answer.fields["41"] == request["41"]
    assert await switch.purses(card) == (100_000, 0)


def with_second_bitmap(message: bytes, element: int) -> bytes:
    """What follows the MTI, with a second bitmap in which this element's bit is set."""
    return bytes([message[2] | 0x80]) + message[3:10] + (1 << (128 - element)).to_bytes(8, "big") + message[10:]


@pytest.mark.parametrize("missing", ["11", "12", "13", "41"])
@pytest.mark.parametrize("mti", ["0800", "0200", "0100", "0400", "0300"])
async def test_an_identity_that_is_not_whole_is_answered_30(device: Device, connection: Connection, missing: str, mti: str) -> None:
    fields = device.message(mti, de3="310000", de70="301", **{f"de{missing}": None})
    answer = await connection.ask(encode(fields, device.key))
    assert (answer.code, answer.mac) == ("30", None)
    assert answer.fields["t"] == f"{mti[:2]}10"
    assert missing not in answer.fields


async def test_card_numbers_of_every_length(switch: Switch, device: Device, connection: Connection) -> None:
    numbers = ["7", "07", "123", "2864434397", "6230000000000000017", "0000000000000000001", "9" * 19]
    rows = [f"{number},L{number},student,active,2099-12-31,{1000 + len(number)},0" for number in numbers]
    await switch.enter("card_number,holder_id,class,status,expires,cash,subsidy\n" + "\n".join(rows))
    for number in numbers:
        answer = await device.ask(connection, device.balance(number))
        assert (answer.fields["2"], answer.purses) == (number, (1000 + len(number), 0))


# --- section 4: unknown terminals and MACs ---


@pytest.mark.parametrize("mti", ["0800", "0200", "0100", "0400"])
async def test_an_unknown_terminal_is_answered_58_without_mac(device: Device, connection: Connection, mti: str) -> None:
    for code, key in (("001", device.sign_on_key), ("301", None), ("301", device.key)):
        fields = device.message(mti, de41="NOBODY", de48="0116" + "0" * 16, de70=code)
        answer = await connection.ask(encode(fields, key))
        assert answer.without("12", "13", "11") == {
            "t": f"{mti[:2]}10",
            "15": f"{today():%m%d}",
            "39": "58",
            "41": "NOBODY  ",
            "42": device.merchant_id.ljust(15),
            "70": code,
        }
        assert answer.mac is None


def flipped(message: bytes, bit: int) -> bytes:
    changed = bytearray(message)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


async def test_a_message_that_proves_nothing_is_answered_63_and_has_no_effect(switch: Switch, card: str, chance: random.Random) -> None:
    device, other = await switch.devices(2)
    before = await switch.metrics()
    async with switch.connect() as connection:
        await device.sign_on(connection)
        await other.sign_on(connection)
        request = device.purchase(card, 850)
        message = encode(request, device.key)
        amount_at = message.index(bytes.fromhex(AMOUNT))
        wrong = [
            encode(request),
            encode(request, device.sign_on_key),
            encode(request, other.key),
            encode(request, MacKey(device.master_key)),
            encode({**request, "64": "00" * 8}),
            flipped(message, (amount_at + 5) * 8),
            *(flipped(message, (len(message) - 8 + byte) * 8 + chance.randrange(8)) for byte in range(8)),
        ]
        for attempt in wrong:
            answer = await connection.ask(attempt)
            expected = {name: value for name, value in request.items() if name not in {"t", "4"}}
            assert answer.without("4") == {**expected, "t": "0210", "15": f"{today():%m%d}", "39": "63"}
            assert answer.mac is None
            # A good message between the wrong ones, or they would close the connection.
            assert (await device.ask(connection, device.message("0800", de70="301"))).code == "00"
        after = await switch.metrics()
        assert after.value("switch_mac_failures_total") - before.value("switch_mac_failures_total") == len(wrong)
        assert await switch.purses(card) == (100_000, 0)
        assert (await device.ask(connection, request)).code == "00", "the identity was free still"
    assert await switch.purses(card) == (100_000 - 850, 0)


async def test_wrong_macs_in_a_row_close_the_connection(switch: Switch, card: str) -> None:
    device = await switch.device()
    async with switch.connect() as connection:
        await device.sign_on(connection)
        for _ in range(4):
            assert (await connection.ask(encode(device.purchase(card, 1)))).code == "63"
        assert (await device.ask(connection, device.purchase(card, 1))).code == "00"
        for _ in range(4):
            assert (await connection.ask(encode(device.purchase(card, 1)))).code == "63"
        before = await switch.metrics()
        await connection.send(frame(encode(device.purchase(card, 1))) * 3)
        answers = await connection.until_closed()
        assert [answer.code for answer in answers] == ["63"], "the fifth is answered, and nothing after it"
        after = await until(switch.metrics, lambda metrics: metrics.closed("mac_failures") > before.closed("mac_failures"))
        assert after.closed("mac_failures") == before.closed("mac_failures") + 1
    async with switch.connect() as connection:
        assert (await device.ask(connection, device.purchase(card, 1))).code == "00", "the session is the terminal's, not the connection's"


async def test_how_many_wrong_macs_close_a_connection_is_configured(make_switch: Callable[..., Switch]) -> None:
    switch = make_switch(terminals_mac_failures_max=2)
    switch.start()
    await switch.enter(f"merchant_id,name,category,fee_bp\n{CANTEEN},Canteen,canteen,0\n")
    device = await switch.device()
    async with switch.connect() as connection:
        await connection.send(frame(encode(device.purchase("1", 1))) * 3)
        assert [answer.code for answer in await connection.until_closed()] == ["63", "63"]


async def test_without_a_session_everything_but_sign_on_and_echo_is_answered_63(switch: Switch, connection: Connection, card: str) -> None:
    device = await switch.device()
    for fields in (device.purchase(card, 1), device.balance(card), device.message("0800", de70="301"), device.message("0800", de70="002")):
        assert (await device.ask(connection, fields, device.sign_on_key)).code == "63"
        assert (await connection.ask(encode(device.message("0800", de70="301")))).code == "00"


# --- section 4: sign-on, sessions, echo ---


async def test_a_sign_on_and_its_answer(switch: Switch, connection: Connection) -> None:
    device = await switch.device()
    nonce = bytes(range(8))
    request = device.sign_on_message(nonce)
    answer = await device.ask(connection, request, device.sign_on_key)
    private = sub_elements(answer.fields["48"])
    position = (await switch.metrics()).value("switch_journal_position")
    assert answer.fields == {
        **{name: request[name] for name in ("11", "12", "13", "41", "42", "70")},
        "t": "0810",
        "15": f"{today():%m%d}",
        "37": f"{position:012}",
        "39": "00",
        "48": answer.fields["48"],
    }
    assert list(private) == ["02", "03"]
    assert len(bytes.fromhex(private["02"])) == 8
    assert private["03"] == f"{today():%Y%m%d}"
    assert answer.proved_by(device.sign_on_key)

    repeated = await device.ask(connection, request, device.sign_on_key)
    marked = await device.ask(connection, {**request, "t": "0801"}, device.sign_on_key)
    assert (repeated.message, marked.fields["t"], marked.content) == (answer.message, "0811", answer.content)
    again = await device.ask(connection, device.sign_on_message(nonce), device.sign_on_key)
    assert sub_elements(again.fields["48"])["02"] != private["02"], "another sign-on has another nonce"


@pytest.mark.parametrize(
    "private",
    [None, "", "0116001122334455667", "011400112233445566", "0116001122334455667G", "02160011223344556677", "0116+0112233445566 7"],
)
async def test_a_sign_on_without_a_nonce_is_answered_30(switch: Switch, connection: Connection, private: str | None) -> None:
    device = await switch.device()
    answer = await device.ask(connection, device.sign_on_message(bytes(8), de48=private), device.sign_on_key)
    assert answer.code == "30"
    malformed = private == "0116001122334455667"  # its sub-element is cut short, so that it is not even asked who it is
    assert answer.proved_by(device.sign_on_key) != malformed
    assert (await switch.show("terminal", device.terminal_id))["signed_on"] is False


async def test_the_previous_session_is_good_until_the_first_message_under_the_new_one(
    switch: Switch, connection: Connection, card: str
) -> None:
    device = await switch.device()
    for first_under_the_new in ("purchase", "balance", "echo", "declined"):
        await device.sign_on(connection)
        previous = device.key
        await device.sign_on(connection)
        for _ in range(2):
            answer = await device.ask(connection, device.purchase(card, 1), previous)
            assert (answer.code, answer.proved_by(previous)) == ("00", True)
        assert (await device.ask(connection, device.balance(card), previous)).code == "00"
        request = {
            "purchase": device.purchase(card, 1),
            "balance": device.balance(card),
            "echo": device.message("0800", de70="301"),
            "declined": device.purchase(card, 0),
        }[first_under_the_new]
        assert (await device.ask(connection, request)).proved_by(device.key)
        assert (await device.ask(connection, device.purchase(card, 1), previous)).code == "63", first_under_the_new
        assert (await device.ask(connection, device.purchase(card, 1))).code == "00"


async def test_a_sign_on_whose_answer_was_lost_leaves_the_terminal_working(switch: Switch, connection: Connection, card: str) -> None:
    device = await switch.device()
    await device.sign_on(connection)
    nonce = secrets.token_bytes(8)
    request = device.sign_on_message(nonce)
    async with switch.connect() as lost:
        await lost.send(frame(encode(request, device.sign_on_key)))
        await lost.receive()
    assert (await device.ask(connection, device.purchase(card, 1))).code == "00"
    answer = await device.ask(connection, {**request, "t": "0801"}, device.sign_on_key)
    renewed = device.session_of(nonce, answer)
    assert (await device.ask(connection, device.purchase(card, 1), renewed)).code == "00"
    assert (await device.ask(connection, device.purchase(card, 1))).code == "63"


async def test_sign_off_ends_the_session(switch: Switch, connection: Connection, card: str) -> None:
    device = await switch.device()
    await device.sign_on(connection)
    request = device.message("0800", de70="002")
    answer = await device.ask(connection, request)
    assert answer.without("37") == {**request, "t": "0810", "15": f"{today():%m%d}", "39": "00"}
    assert answer.proved_by(device.key)
    assert (await switch.show("terminal", device.terminal_id))["signed_on"] is False
    assert (await device.ask(connection, device.purchase(card, 1))).code == "63"
    assert (await device.ask(connection, device.message("0800", de70="301"))).code == "63"
    assert (await connection.ask(encode(device.message("0800", de70="301")))).code == "00"
    await device.sign_on(connection)
    assert (await device.ask(connection, device.purchase(card, 1))).code == "00"


async def test_a_sign_off_under_the_identity_of_the_sign_on_gets_its_answer_and_changes_nothing(
    switch: Switch, connection: Connection, card: str
) -> None:
    device = await switch.device()
    signed_on = await device.sign_on(connection)
    fields = device.message("0800", de11=signed_on.fields["11"], de70="002")
    assert (await device.ask(connection, fields)).content == signed_on.content
    assert (await switch.show("terminal", device.terminal_id))["signed_on"] is True
    assert (await device.ask(connection, device.purchase(card, 1))).code == "00"


async def test_an_echo_test_may_come_with_or_without_mac(switch: Switch, device: Device, connection: Connection) -> None:
    position = (await switch.metrics()).value("switch_journal_position")
    request = device.message("0800", de24="003", de70="301")
    expected = {**request, "t": "0810", "15": f"{today():%m%d}", "39": "00"}
    without = await connection.ask(encode(request))
    assert (without.fields, without.mac) == (expected, None)
    with_mac = await device.ask(connection, request)
    assert (with_mac.fields, with_mac.proved_by(device.key)) == (expected, True)
    marked = await device.ask(connection, {**request, "t": "0801"})
    assert marked.fields == {**expected, "t": "0811"}
    assert (await switch.metrics()).value("switch_journal_position") == position, "an inquiry is not journaled"


async def test_terminal_and_merchant_are_padded_with_spaces(switch: Switch, connection: Connection, card: str) -> None:
    master_key = secrets.token_bytes(16)
    short, inner = f"P{secrets.token_hex(2)}", f"P{secrets.token_hex(1)} 1"
    rows = "\n".join(f"{name},M2,pos,,{master_key.hex()}" for name in (short, inner))
    await switch.enter(f"terminal_id,merchant_id,kind,zone,key\n{rows}\n")
    for name in (short, inner):
        device = Device(name, "M2", master_key)
        answer = await device.sign_on(connection)
        assert (answer.fields["41"], answer.fields["42"]) == (name.ljust(8), "M2".ljust(15))
        assert (await device.ask(connection, device.purchase(card, 1))).fields["42"] == "M2".ljust(15)
        for wrong in (name.rjust(8), name.lower().ljust(8), name[:-1].ljust(8)):
            assert (await connection.ask(encode(device.message("0800", de41=wrong, de70="301")))).code == "58"
        assert (await device.ask(connection, device.purchase(card, 1, de42="M2".rjust(15)))).code == "58"


# --- section 1: many terminals on one connection, one terminal on many ---


async def test_a_concentrator_carries_many_terminals_and_pipelined_requests(
    switch: Switch, connection: Connection, chance: random.Random
) -> None:
    devices = await switch.devices(20)
    cards = await switch.cards(20, cash=10_000)
    for device in devices:
        await device.sign_on(connection)
    asked: dict[tuple[str, str], tuple[Device, str, int]] = {}
    frames = []
    for device, card in zip(devices, cards, strict=True):
        for _ in range(10):
            amount = chance.randint(1, 1000)
            request = device.purchase(card, amount)
            asked[request["41"], request["11"]] = (device, card, amount)
            frames.append(frame(encode(request, device.key), TPDU))
    chance.shuffle(frames)
    await connection.send(b"".join(frames))
    answers: list[Answer] = [await connection.receive() for _ in frames]
    assert len({(answer.fields["41"], answer.fields["11"]) for answer in answers}) == len(asked)
    for answer in answers:
        device, card, amount = asked[answer.fields["41"], answer.fields["11"]]
        assert (answer.fields["2"], int(answer.fields["4"]), answer.code) == (card, amount, "00")
        assert answer.proved_by(device.key)
    assert len({answer.fields["37"] for answer in answers}) == len(answers)
    for card in cards:
        spent = sum(amount for _, of, amount in asked.values() if of == card)
        assert await switch.purses(card) == (10_000 - spent, 0)


async def test_a_terminal_is_tied_to_no_connection(switch: Switch, card: str) -> None:
    device = await switch.device()
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(switch.connect()) for _ in range(5)]
        await device.sign_on(connections[0])
        request = device.purchase(card, 850)
        answers = [await device.ask(connection, request) for connection in connections]
    assert len({answer.message for answer in answers}) == 1
    assert await switch.purses(card) == (100_000 - 850, 0)


async def test_dates_are_the_campus_own(switch: Switch, device: Device, connection: Connection, card: str) -> None:
    answer = await device.ask(connection, device.purchase(card, 1))
    assert answer.fields["15"] == f"{now():%m%d}"
    assert (await switch.show("terminal", device.terminal_id))["last_activity"] is not None
