"""The terminal protocol's operations and response codes, row by row, as they are on the wire of the real process.

What an operation answers in every case, and what it changes, stands in the tables of `test_decisions*.py`; frames, elements, keys and
MACs in `test_protocol.py`.
"""

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from switch.dialect import RESPONSES, MacKey, encode, sub_elements
from tests.decision_table import TILLS, UNKNOWN_CARD, Row, Scene, Step, decisions, steps, table
from tests.switch_process import CANTEEN, SHOP, TERMINALS_HEADER, Answer, Connection, Switch, today

BUSINESS_DATE = f"{today():%m%d}"

# --- each operation, approved ---

BEFORE = (1000, 500)
ECHO_OF_MONEY = "2 3 4 11 12 13 24 41 42 49 60"
ECHO_OF_ACTS = "2 3 11 12 13 24 41 42 60"
REMEMBERED = "15 37 38 39"

OPERATIONS: dict[str, tuple[str, str, str, str, tuple[int, int] | None, str | None]] = {
    # Given, asked, MTI of the reply, its elements, DE54, DE48.
    "purchase": ("", "purchase 850", "0210", f"{ECHO_OF_MONEY} {REMEMBERED} 54", (650, 0), None),
    "purchase, cash alone": ("", "purchase 850 3=001000", "0210", f"{ECHO_OF_MONEY} {REMEMBERED} 54", (150, 500), None),
    "purchase, subsidy alone": ("", "purchase 400 3=002000", "0210", f"{ECHO_OF_MONEY} {REMEMBERED} 54", (1000, 100), None),
    "purchase, sent again": ("", "purchase 850 t=0201", "0211", f"{ECHO_OF_MONEY} {REMEMBERED} 54", (650, 0), None),
    "void": ("purchase 850", "void #1", "0210", f"3 11 12 13 24 41 42 60 {REMEMBERED}", None, None),
    "void, card named": ("purchase 850", "void #1 2=card 4=850 49=156", "0210", f"{ECHO_OF_MONEY} {REMEMBERED} 54", BEFORE, None),
    "refund": ("purchase 850", "refund #1 400", "0210", f"3 4 11 12 13 24 41 42 60 {REMEMBERED}", None, None),
    "refund, card named": ("purchase 850", "refund #1 400 2=card 49=156", "0210", f"{ECHO_OF_MONEY} {REMEMBERED} 54", (1000, 50), None),
    "cash load": ("", "load 500 49=156", "0210", f"{ECHO_OF_MONEY} {REMEMBERED} 54", (1500, 500), None),
    "bill payment": ("", "bill 300 49=156", "0210", f"{ECHO_OF_MONEY} {REMEMBERED} 54", (700, 500), None),
    "balance": ("", "balance", "0110", f"{ECHO_OF_ACTS} 15 39 54", BEFORE, None),
    "balance, a debt": ("offline 2000", "balance", "0110", f"{ECHO_OF_ACTS} 15 39 54", (-500, 0), None),
    "hold": ("", "hold 400 49=156", "0110", f"{ECHO_OF_MONEY} {REMEMBERED} 54", (600, 500), None),
    "hold of more than there is": ("", "hold 4000 49=156", "0110", f"{ECHO_OF_MONEY} {REMEMBERED} 54", (0, 500), None),
    "completion": ("hold 400", "complete #1 300", "0230", f"3 4 11 12 13 24 41 42 60 {REMEMBERED}", None, None),
    "completion, card named": ("hold 400", "complete #1 0 2=card 49=156", "0230", f"{ECHO_OF_MONEY} {REMEMBERED} 54", BEFORE, None),
    "offline sale": ("", "offline 850", "0230", f"{ECHO_OF_MONEY} {REMEMBERED} 54", (650, 0), None),
    "offline sale, a debt": ("", "offline 2000 t=0221", "0231", f"{ECHO_OF_MONEY} {REMEMBERED} 54", (-500, 0), None),
    "reversal": ("purchase 850", "reverse #1", "0410", f"{ECHO_OF_MONEY} {REMEMBERED} 54", BEFORE, None),
    "reversal, sent again": ("purchase 850", "reverse #1 t=0421", "0431", f"{ECHO_OF_MONEY} {REMEMBERED} 54", BEFORE, None),
    "reversal as an advice": ("hold 400", "reverse #1 t=0420", "0430", f"2 3 4 11 12 13 24 41 42 60 {REMEMBERED} 54", BEFORE, None),
    "reversal by STAN": ("load 500", "reverse-by-stan #1", "0410", f"2 3 4 11 12 13 24 41 42 60 {REMEMBERED} 54", BEFORE, None),
    "reversal without a card": ("bill 300", "reverse #1 2=- 3=- 4=-", "0410", f"11 12 13 24 41 42 60 {REMEMBERED}", None, None),
    "enter": ("", "enter", "0110", f"{ECHO_OF_ACTS} {REMEMBERED}", None, None),
    "leave": ("", "leave", "0110", f"{ECHO_OF_ACTS} {REMEMBERED}", None, None),
    "borrow": ("", "borrow BOOK", "0110", f"{ECHO_OF_ACTS} {REMEMBERED}", None, None),
    "return": ("borrow BOOK", "return BOOK", "0110", f"{ECHO_OF_ACTS} {REMEMBERED}", None, None),
    "attendance": ("", "attendance", "0110", f"{ECHO_OF_ACTS} {REMEMBERED}", None, None),
    "verify": ("class teacher", "verify", "0110", f"{ECHO_OF_ACTS} 15 39 48", None, "2007teacher"),
    "advice of entering": ("", "advise enter", "0130", f"{ECHO_OF_ACTS} {REMEMBERED}", None, None),
    "advice of leaving": ("", "advise leave", "0130", f"{ECHO_OF_ACTS} {REMEMBERED}", None, None),
    "advice of borrowing": ("", "advise borrow BOOK @library", "0130", f"{ECHO_OF_ACTS} {REMEMBERED}", None, None),
    "advice of returning": ("borrow BOOK", "advise return BOOK @library t=0121", "0131", f"{ECHO_OF_ACTS} {REMEMBERED}", None, None),
    "advice of attendance": ("", "advise attendance", "0130", f"{ECHO_OF_ACTS} {REMEMBERED}", None, None),
    "advice of verification": ("", "advise verify", "0130", f"{ECHO_OF_ACTS} {REMEMBERED}", None, None),
    "loss": ("", "lose", "0310", "2 11 12 13 24 41 42 60 15 37 39", None, None),
    "found": ("lose", "find", "0310", "2 11 12 13 24 41 42 60 15 37 39", None, None),
    "batch close": ("", "close 999 60=000999", "0510", "11 12 13 24 41 42 60 15 37 39", None, None),
    "event": ("", "event 01 DORM-3-417 2350W", "0610", "11 12 13 24 41 42 60 15 37 39 48", None, "4304TRIP"),
    "event without a command": ("", "event 02", "0610", "11 12 13 24 41 42 60 15 37 39 48", None, "4304NONE"),
    "echo": ("", "echo 2=card", "0810", "11 12 13 24 41 42 60 70 15 39", None, None),
}


def elements_of(text: str) -> set[str]:
    return {"t", *text.split()}


async def ask(scene: Scene, text: str) -> tuple[dict[str, str], Answer]:
    """One step's message, as a terminal sends it with all that is not needed, and its answer."""
    (step,) = steps(text)
    till, request = await scene.message(step)
    request = {"60": "000001", **request, "24": "003", "7": f"{today():%m%d}040501", "22": "051", "25": "00"}
    return request, await (await scene.till(till)).ask(scene.connection, request)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_an_operation_is_answered_with_these_elements(scene: Scene, operation: str) -> None:
    given, asked, mti, elements, purses, private = OPERATIONS[operation]
    await scene.do(given)
    request, answer = await ask(scene, asked)
    reply = answer.fields
    assert (reply["t"], reply["39"]) == (mti, "00")
    assert set(reply) == elements_of(elements)
    assert answer.mac is not None, "it is proved, as every answer is that was asked for with proof"
    for element in elements.split():
        match element:
            case "15":
                assert reply[element] == BUSINESS_DATE
            case "37":
                assert re.fullmatch(r"\d{12}", reply[element])
            case "38":
                assert re.fullmatch(r"\d{6}", reply[element])
            case "39":
                pass
            case "48":
                assert reply[element] == private
            case "54":
                assert purses is not None
                signs = ["D" if purse < 0 else "C" for purse in purses]
                assert reply[element] == f"1002156{signs[0]}{abs(purses[0]):012}2002156{signs[1]}{abs(purses[1]):012}"
            case _:
                assert reply[element] == request[element], element
    if purses is not None:
        assert await scene.purses() == purses


async def test_the_hotlist_is_answered_with_these_elements(scene: Scene) -> None:
    await scene.do("lose")
    _, answer = await ask(scene, "hotlist 0")
    assert set(answer.fields) == elements_of("11 12 13 24 41 42 60 15 39 48")
    assert answer.fields["t"] == "0310"
    found = re.fullmatch(r"5010(\d{10})5201([01])(?:53\d\d[+-]\d{1,19})*", answer.fields["48"])
    assert found, answer.fields["48"]
    assert int(found[1]) > 0


async def test_sign_on_and_sign_off_are_answered_with_these_elements(switch: Switch, connection: Connection) -> None:
    device = await switch.device()
    signed_on = await device.sign_on(connection)
    assert set(signed_on.fields) == elements_of("11 12 13 15 37 39 41 42 48 70")
    private = sub_elements(signed_on.fields["48"])
    assert (list(private), private["03"]) == (["02", "03"], f"{today():%Y%m%d}")
    answer = await device.ask(connection, device.sign_off(de24="003"))
    assert set(answer.fields) == elements_of("11 12 13 15 24 37 39 41 42 70")
    assert (answer.fields["t"], answer.fields["70"]) == ("0810", "002")


# --- what a kind of terminal may do ---

KINDS = ("pos", "kiosk", "counter", "water", "gate", "library", "meter")
UNKNOWN = "999999999999"

MAY: list[tuple[str, str, str]] = [
    # What is asked, by which kinds, and what it is answered there.
    ("purchase 1", "pos counter water library", "00"),
    ("purchase 1 3=001000", "pos counter water library", "00"),
    (f"void {UNKNOWN}", "pos counter", "25"),
    (f"refund {UNKNOWN} 1", "pos counter", "25"),
    ("offline 1", "pos counter water", "00"),
    ("balance", "pos kiosk counter water", "00"),
    ("load 1", "counter", "00"),
    ("bill 1", "kiosk counter", "00"),
    ("hold 1", "water", "00"),
    (f"complete {UNKNOWN} 1", "water", "25"),
    ("verify", "pos kiosk counter gate library", "00"),
    ("enter", "gate", "00"),
    ("leave", "gate", "00"),
    ("attendance", "gate", "00"),
    ("borrow BOOK", "library", "00"),
    ("return BOOK", "library", "00"),
    ("advise enter", "gate", "00"),
    ("advise leave", "gate", "00"),
    ("advise attendance", "gate", "00"),
    ("advise verify", "gate library", "00"),
    ("advise borrow BOOK", "library", "00"),
    ("advise return BOOK", "library", "00"),
    ("event 04", "meter", "00"),
    ("lose", "kiosk counter", "00"),
    ("find", "kiosk counter", "00"),
    ("hotlist 0", " ".join(KINDS), "00"),
    ("close 999", " ".join(KINDS), "00"),
    ("echo", " ".join(KINDS), "00"),
]


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_kind_may_do(scene: Scene, kind: str) -> None:
    assert TILLS[kind][0] == kind
    device = await scene.till(kind)
    for asked, kinds, code in MAY:
        (step,) = steps(asked, kind)
        position = await scene.record()
        _, request = await scene.message(step)
        answer = await device.ask(scene.connection, request)
        assert answer.code == (code if kind in kinds.split() else "58"), asked
        if answer.code == "58":
            assert answer.proved_by(device.key)
            assert "37" not in answer.fields
            assert await scene.record() == position + 1, "and it leaves no trace"
            again = await device.ask(scene.connection, device.reversal(request)) if request["t"][:2] in {"01", "02"} else None
            assert again is None or again.code == "00", "it may reverse whatever it asked"


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_signs_on_and_off(switch: Switch, connection: Connection, kind: str) -> None:
    device = await switch.device(kind=kind)
    await device.sign_on(connection)
    assert (await device.ask(connection, device.sign_off())).code == "00"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_suspended_terminal_may_do_nothing(switch: Switch, connection: Connection, kind: str) -> None:
    scene = Scene(switch, connection, shares_tills=False)
    device = await scene.till(kind)
    asked = [step for step, kinds, code in MAY if kind in kinds.split() and code == "00"]
    requests = [(await scene.message(step))[1] for text in asked for step in steps(text, kind)]
    remembered = device.batch_close(7, (0,) * 8)
    stored = await device.ask(connection, remembered)
    await switch.enter(f"terminal_id,standing\n{device.terminal_id},suspended\n")
    position = await scene.record()
    for request in (*requests, remembered, device.sign_off(), device.reversal(device.purchase(scene.card, 1))):
        answer = await device.ask(connection, request)
        assert (answer.code, answer.proved_by(device.key), "37" in answer.fields) == ("58", True, False), request
    refused = await device.ask(connection, device.sign_on_message(bytes(8)), device.sign_on_key)
    assert (refused.code, refused.proved_by(device.sign_on_key)) == ("58", True)
    assert (await device.ask(connection, device.echo(de60="0"))).code == "30", "what is incomplete comes before"
    assert (await connection.ask(encode(requests[0], device.sign_on_key))).code == "63"
    assert (await scene.record(), await switch.purses(scene.card)) == (position + 1, (1000, 500))

    await switch.enter(f"terminal_id,standing\n{device.terminal_id},active\n")
    assert (await device.ask(connection, remembered)).message == stored.message
    for request in requests:
        assert (await device.ask(connection, request)).code in {"00", "25"}, request


# --- the rules beneath the table of operations ---

RULES = [
    *table(
        """
        prepare purchase 850 | reverse #1 | 00 | 1000 500 0 | send #1 !12, reverse #1, purchase 850
        purchase 850, reverse #1, reverse #1 | reverse #1 t=0420 | 00 | 1000 500 0
        purchase 850, card lost | reverse #1 | 00 | 1000 500 -850

        purchase 850 | void #1 @shop | 25
        purchase 850 | refund #1 1 @shop | 25
        hold 400 | complete #1 1 @shopwater | 25
        purchase 850 | void #1 2=other | 25
        purchase 850 | refund #1 1 2=other | 25
        hold 400 | complete #1 1 2=other | 25
        purchase 850, void #1 | void #1 | 12
        purchase 850, reverse #1 | refund #1 1 | 12
        hold 400, complete #1 1 | complete #1 1 | 12
        purchase 850, refund #1 850 | refund #1 1 | 61
        hold 400 | complete #1 401 | 61

        offline 1001 3=001000 | purchase 1 3=001000 | 51
        offline 1001 3=001000 | purchase 1 3=002000 | 51
        offline 1001 3=001000 | bill 1 | 51
        offline 1001 3=001000 | hold 1 | 51
        offline 1001 3=001000, load 1 | purchase 1 3=002000 | 00 | 0 499 1

        purchase 850, refund #1 300 | reverse #1 | 00 | 1000 500 -550
        hold 400, complete #1 300 | reverse #2 | 00 | 1000 500 -300 | complete #1 300 !12
        hold 400, complete #1 300 | reverse #1 | 00 | 700 500 0
        purchase 850, void #1 | reverse #2 | 00 | 1000 500 0
        purchase 850, refund #1 850 | reverse #2 | 00 | 650 0 850 | refund #1 850
        """,
        "left",
        "then",
    ),
    *(
        row
        for asked in ("purchase 1", "hold 1", "load 1", "bill 1", "enter", "leave", "borrow BOOK", "return BOOK", "attendance")
        for row in table(f"card lost | {asked} | 41")
    ),
    *table(
        """
        card lost | balance | 00 | 1000 500 0
        purchase 850, card lost | void #1 | 00 | 1000 500 -850
        purchase 850, card lost | refund #1 850 | 00 | 1000 500 -850
        hold 400, card lost | complete #1 1 | 00 | 999 500 1
        card lost | offline 850 | 00 | 650 0 850
        card lost | advise enter | 00
        """,
        "left",
    ),
]


@decisions(RULES)
async def test_a_rule_beneath_the_table(scene: Scene, row: Row) -> None:
    await scene.decide(row)


async def test_a_reversal_dated_outside_the_window_undoes_nothing(scene: Scene) -> None:
    await scene.do("purchase 850, reverse #1 13=-8 !12, reverse #1 13=2 !12")
    assert await scene.purses() == (650, 0)
    await scene.do("reverse #1")
    assert await scene.purses() == (1000, 500)


async def test_messages_of_one_class_share_their_identities(scene: Scene) -> None:
    """01xx and 02xx are one class, reversals another, each other family its own."""
    pos, counter = await scene.till("pos"), await scene.till("counter")
    await scene.do("purchase 100")
    stan = scene.messages[0][1]["11"]
    assert (await pos.ask(scene.connection, pos.offline_sale(scene.card, 200, de11=stan))).code == "94"
    assert (await pos.ask(scene.connection, pos.reversal(pos.purchase(scene.card, 9), de11=stan))).code == "00"
    water = await scene.till("water")
    await scene.do("hold 100")
    stan = scene.messages[1][1]["11"]
    assert (await water.ask(scene.connection, water.purchase(scene.card, 100, de11=stan))).code == "94"
    assert (await water.ask(scene.connection, water.purchase(scene.card, 100, de11=stan, de49=None, t="0220"))).code == "30"
    assert (await counter.ask(scene.connection, counter.load(scene.card, 100, de11="700001"))).code == "00"
    assert (await counter.ask(scene.connection, counter.bill(scene.card, 100, de11="700001"))).code == "94"
    assert (await counter.ask(scene.connection, counter.loss(scene.other, de11="700001"))).code == "00"
    assert (await counter.ask(scene.connection, counter.found(scene.other, de11="700001"))).code == "00", "of the same content: stored"
    assert (await counter.ask(scene.connection, counter.found(scene.card, de11="700001"))).code == "94"
    assert (await scene.switch.show("card", scene.other))["status"] == "lost"


async def test_a_terminal_of_another_merchant_by_now(switch: Switch, connection: Connection) -> None:
    """What it did before is its former merchant's."""
    scene = Scene(switch, connection, shares_tills=False)
    await scene.do("purchase 100, purchase 200, purchase 300, purchase 5 2=other, purchase 6 2=other")
    device = await scene.till("pos")
    before = [(await switch.show("merchant", merchant))["balance"] for merchant in (CANTEEN, SHOP)]
    row = f"{device.terminal_id},{SHOP},pos,,{device.master_key.hex()}"
    await switch.enter(f"{TERMINALS_HEADER}\n{row}\n")
    await scene.do(f"void #1 !58, void #1 42=- !25, refund #2 1 42=- !25, purchase 7 2=other !58, purchase 7 2=other 42={SHOP}")
    await scene.do(f"reverse #1, reverse #2 42=-, reverse #3 42={SHOP}, reverse #4 42=M3 !58")
    assert await switch.purses(scene.card) == (1000, 500)
    after = [(await switch.show("merchant", merchant))["balance"] for merchant in (CANTEEN, SHOP)]
    assert after == [before[0] - 600, before[1] + 7]


# --- the order of the response codes ---

ORDER = (
    "30",
    "58",
    "63",
    "30",
    "58",
    "12",
    "94",
    "12",
    "13",
    "14",
    *("41", "62", "78", "54"),
    "57",
    "75",
    "55",
    "25",
    "12",
    "61",
    "65",
    "51",
    "95",
)
"""Of what is decided. The first 12 is the date, the next one that its reversal came before; then 00."""

UNDECIDED = {"91", "96"}
"""Their rows stand in `test_decisions_undecided.py`, also that 91 comes after 94 and before all that is remembered."""


@dataclass(frozen=True)
class Fault:
    """A reason to refuse a message: what is other in it, or what has happened before."""

    code: str
    change: str = ""
    given: str = ""
    remembered: bool = field(default=True)


MALFORMED = Fault("30", "48=malformed", remembered=False)
NOBODY = Fault("58", "41=NOBODY", remembered=False)
UNPROVED = Fault("63", remembered=False)
INCOMPLETE = Fault("30", "60=000000", remembered=False)
ANOTHERS = Fault("58", "42=M3", remembered=False)
OUT_OF_DATE = Fault("12", "13=-20", remembered=False)
USED = Fault("94", remembered=False)
FIRST = (MALFORMED, NOBODY, UNPROVED, INCOMPLETE, ANOTHERS, OUT_OF_DATE)
REVERSED = Fault("12")
ONCE = (USED, REVERSED)
AMOUNT = Fault("13", "4=0")
NO_CARD = Fault("14", "2=unknown")
LOST = Fault("41", given="card lost expired")
EXPIRED = Fault("54", given="card expired")
SERVED = (NO_CARD, LOST, EXPIRED)

Ladder = tuple[str, str, tuple[Fault, ...]]

LADDERS: dict[str, Ladder] = {
    # Given, asked, every reason to refuse it, from the first that is looked at to the last.
    "purchase": ("", "purchase 50 @shop", (*ONCE, AMOUNT, *SERVED, Fault("57", "3=002000"), Fault("51", "4=2000"))),
    "void": ("purchase 850", "void #1", (*ONCE, NO_CARD, Fault("25", f"37={UNKNOWN}"), Fault("12", given="reverse #1"))),
    "refund": (
        "purchase 850",
        "refund #1 50",
        (*ONCE, AMOUNT, NO_CARD, Fault("25", f"37={UNKNOWN}"), Fault("12", given="void #1"), Fault("61", "4=851")),
    ),
    "cash load": ("", "load 50", (*ONCE, AMOUNT, *SERVED, Fault("61", given="cash 99999999999"))),
    "bill payment": ("", "bill 50", (*ONCE, AMOUNT, *SERVED, Fault("51", "4=2000"))),
    "balance": ("", "balance", (NO_CARD,)),
    "hold": ("", "hold 50", (*ONCE, AMOUNT, *SERVED, Fault("51", given="hold 1000"))),
    "completion": (
        "hold 400",
        "complete #1 50",
        (*ONCE, Fault("13", "4=5000001"), NO_CARD, Fault("25", f"37={UNKNOWN}"), Fault("12", given="reverse #1"), Fault("61", "4=401")),
    ),
    "offline sale": ("", "offline 50", (*ONCE, AMOUNT, NO_CARD)),
    "reversal": ("purchase 850", "reverse #1", (USED, Fault("94", "4=849"))),
    "enter": ("", "enter", (*ONCE, *SERVED)),
    "leave": ("", "leave", (*ONCE, *SERVED)),
    "attendance": ("", "attendance", (*ONCE, *SERVED)),
    "borrow": ("", "borrow BOOK", (*ONCE, *SERVED, Fault("12", given="borrow BOOK 2=other"))),
    "return": ("", "return BOOK", (*ONCE, *SERVED, Fault("57", given="borrow BOOK 2=other"))),
    "return of what is not on loan": ("", "return BOOK", (*ONCE, *SERVED, Fault("25"))),
    "verify": ("", "verify", SERVED),
    "advice of attendance": ("", "advise attendance", (*ONCE, NO_CARD)),
    "advice of borrowing": ("", "advise borrow BOOK @library", (*ONCE, NO_CARD, Fault("12", given="borrow BOOK"))),
    "loss": ("", "lose", (USED, NO_CARD, Fault("62", given="card frozen"))),
    "found": ("", "find", (USED, NO_CARD, Fault("78", given="card cancelled"))),
    "hotlist": ("", "hotlist 0", ()),
    "batch close": ("", "close 999", (USED, Fault("95", "76=0000000001"))),
    "event": ("", "event 01", (USED,)),
}
INQUIRIES = {"balance", "verify", "hotlist"}

STRICT = [
    "pin_above,*,*,,,,,0",
    "transaction_max,*,*,,,,,5000",
    "day_max,*,*,,,,,4000",
    "day_count,*,*,,,,,3",
    "refuse,*,*,,,03:00,03:01,",
    "door,*,,EAST,,03:01,03:00,",
]
"""Rules under which a payment can be refused for every reason at once: each fits at any time but the minute of `AT_NIGHT`."""

AT_NIGHT = Fault("57", "12=030030")
TRIED = Fault("75", given=", ".join(["purchase 1 48=pin:0000 !55"] * 3))
WRONG_PIN = Fault("55", "48=pin:0000")
TOO_MUCH = Fault("61", "4=5001")
TOO_MUCH_TODAY = Fault("61", given="offline 3990")
TOO_OFTEN = Fault("65", given=", ".join(["offline 1"] * 3))
RULED = (*ONCE, AMOUNT, *SERVED, AT_NIGHT, TRIED, WRONG_PIN, TOO_MUCH, TOO_MUCH_TODAY, TOO_OFTEN)

RULED_LADDERS: dict[str, Ladder] = {
    "purchase": ("pin 1234", "purchase 50 48=pin:1234", (*RULED, Fault("51", "4=2000"))),
    "purchase without the PIN": ("pin 1234", "purchase 50 48=pin:1234", (AMOUNT, AT_NIGHT, TRIED, Fault("55", "48=-"), TOO_MUCH)),
    "bill payment": ("pin 1234", "bill 50 48=pin:1234", (*RULED, Fault("51", "4=2000"))),
    "hold": ("pin 1234", "hold 50 48=pin:1234", (*RULED, Fault("51", given="cash 0"))),
    "enter": ("", "enter", (*ONCE, *SERVED, AT_NIGHT)),
    "leave": ("", "leave", (*ONCE, *SERVED, AT_NIGHT)),
}


def in_order(faults: Iterable[Fault]) -> bool:
    """Whether these reasons stand in the order of the codes; there may be two for the same one."""
    codes = iter(ORDER)
    return all(code in codes for code, _ in itertools.groupby(fault.code for fault in faults))


def test_every_code_stands_in_a_ladder_and_all_ladders_in_one_order() -> None:
    ladders = [(*FIRST, *own) for _, _, own in (*LADDERS.values(), *RULED_LADDERS.values())]
    assert {fault.code for ladder in ladders for fault in ladder} | UNDECIDED | {"00"} == set(RESPONSES)
    assert not [ladder for ladder in ladders if not in_order(ladder)]


async def refused(scene: Scene, given: str, asked: str, faults: tuple[Fault, ...]) -> Answer:
    """The answer to what is wrong in all these ways."""
    # Opening balances first: cards are entered with them.
    for part in sorted([given, *(fault.given for fault in reversed(faults))], key=lambda part: not part.startswith("cash")):
        await scene.do(part)
    (step,) = steps(asked)
    changes = dict(step.changes)
    for fault in reversed(faults):
        changes |= dict(change.split("=", 1) for change in fault.change.split() if "=" in change)
    till, request = await scene.message(Step(step.verb, step.arguments, step.till, changes, ""))
    device = await scene.till(till)
    if USED in faults:
        before = {**(await scene.message(step))[1], "11": request["11"], "2": scene.other}
        assert "37" in (await device.ask(scene.connection, before)).fields
    elif REVERSED in faults:
        assert (await device.ask(scene.connection, device.reversal(request))).code == "00"
    key = device.sign_on_key if UNPROVED in faults else device.key
    return await scene.connection.ask(encode(request, key))


async def walk(switch: Switch, connection: Connection, operation: str, ladder: Ladder) -> None:
    """Down the ladder: of all that is wrong the first is told, then it is put right, and so on."""
    given, asked, own = ladder
    faults = (*FIRST, *own)
    for first, fault in enumerate(faults):
        scene = Scene(switch, connection)
        answer = await refused(scene, given, asked, faults[first:])
        assert answer.code == fault.code, f"{first}: {answer.fields}"
        remembered = fault.remembered and operation not in INQUIRIES
        assert ("37" in answer.fields) == remembered, answer.fields
        assert (answer.mac is None) == (fault in {MALFORMED, NOBODY, UNPROVED})
    if operation != "return of what is not on loan":
        assert (await refused(Scene(switch, connection), given, asked if operation != "return" else "borrow BOOK", ())).code == "00"


@pytest.mark.parametrize("operation", LADDERS)
async def test_the_first_reason_is_the_answer(switch: Switch, connection: Connection, operation: str) -> None:
    await walk(switch, connection, operation, LADDERS[operation])


@pytest.mark.parametrize("operation", RULED_LADDERS)
async def test_the_first_reason_is_the_answer_under_rules(ruled: Scene, operation: str) -> None:
    await ruled.switch.rule(*STRICT)
    await walk(ruled.switch, ruled.connection, operation, RULED_LADDERS[operation])


STATUSES = [
    *(
        row
        for asked in ("purchase 1", "hold 1", "load 1", "bill 1", "enter", "leave", "borrow BOOK", "return BOOK", "attendance", "verify")
        for status, code in {"lost": "41", "frozen": "62", "blacklisted": "62", "inactive": "78", "cancelled": "78"}.items()
        for row in table(f"card {status} expired | {asked} | {code} | | {'2007student' if asked == 'verify' else ''}", "left", "48")
    )
]


@decisions(STATUSES)
async def test_of_an_expired_card_the_status_is_told_first(scene: Scene, row: Row) -> None:
    await scene.decide(row)


@pytest.mark.parametrize("operation", ["sign-on", "sign-off", "echo"])
async def test_the_first_reason_is_the_answer_to_a_terminals_own(switch: Switch, connection: Connection, operation: str) -> None:
    device = await switch.device()
    # An echo test is asked for no day and remembered by nobody.
    faults = (*FIRST[:-1], *(() if operation == "echo" else (OUT_OF_DATE, USED)))
    days_old = {"de13": f"{today(-20):%m%d}"} if operation == "echo" else {}
    for first in range(len(faults) + 1):
        await device.sign_on(connection)
        match operation:
            case "sign-on":
                key, request = device.sign_on_key, device.sign_on_message(bytes(8))
            case "sign-off":
                key, request = device.key, device.sign_off()
            case _:
                key, request = device.key, device.echo(**days_old)
        left = faults[first:]
        if USED in left:
            # Another sign-on under the same number. The session before is not over by that.
            before = await device.ask(connection, device.sign_on_message(bytes(8), de11=request["11"]), device.sign_on_key)
            assert before.code == "00"
            request["2"] = UNKNOWN_CARD
        changes = [fault.change.split("=") for fault in reversed(left) if fault.change]
        request |= {element: f"{today(-20):%m%d}" if element == "13" else value for element, value in changes}
        answer = await connection.ask(encode(request, MacKey(bytes(16)) if UNPROVED in left else key))
        code, remembered = (left[0].code, False) if left else ("00", operation != "echo")
        assert (answer.code, "37" in answer.fields) == (code, remembered), f"{first}: {answer.fields}"
        assert (answer.mac is None) == bool({*left[:1]} & {MALFORMED, NOBODY, UNPROVED})
