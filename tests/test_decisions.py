"""What the switch decides: purchase, balance, reversal, every response code that these can meet, and its memory of all of it."""

import datetime
from collections.abc import Callable
from typing import Any

import pytest

from switch.dialect import encode
from tests.switch_process import (
    AMOUNT_MAX,
    CANTEEN,
    FAR_FUTURE,
    SHOP,
    Answer,
    Connection,
    Device,
    Fields,
    Switch,
    now,
    today,
)

BUSINESS_DATE = f"{today():%m%d}"
YESTERDAY = today(-1).isoformat()
TODAY = today().isoformat()
PURCHASE_ECHO = ("2", "3", "4", "11", "12", "13", "41", "42", "49")


@pytest.fixture
async def device(switch: Switch, connection: Connection) -> Device:
    """A canteen's terminal, signed on."""
    return await signed_on(switch, connection)


async def signed_on(switch: Switch, connection: Connection, *, kind: str = "pos", merchant: str = CANTEEN) -> Device:
    device = await switch.device(kind=kind, merchant=merchant)
    await device.sign_on(connection)
    return device


async def position(switch: Switch) -> int:
    return (await switch.metrics()).value("switch_journal_position")


# --- the purchase ---


@pytest.mark.parametrize(
    ("merchant", "purse", "held", "amount", "code", "paid"),
    [
        # By policy: the subsidy first where the merchant takes it, then cash.
        (CANTEEN, "00", (1000, 500), 850, "00", (350, 500)),
        (CANTEEN, "00", (1000, 850), 850, "00", (0, 850)),
        (CANTEEN, "00", (1000, 900), 850, "00", (0, 850)),
        (CANTEEN, "00", (1000, 0), 850, "00", (850, 0)),
        (CANTEEN, "00", (350, 500), 850, "00", (350, 500)),
        (CANTEEN, "00", (349, 500), 850, "51", (0, 0)),
        (SHOP, "00", (1000, 500), 850, "00", (850, 0)),
        (SHOP, "00", (849, 500), 850, "51", (0, 0)),
        # Cash alone.
        (CANTEEN, "10", (1000, 500), 850, "00", (850, 0)),
        (CANTEEN, "10", (850, 500), 850, "00", (850, 0)),
        (CANTEEN, "10", (849, 500), 850, "51", (0, 0)),
        (SHOP, "10", (850, 500), 850, "00", (850, 0)),
        # Subsidy alone.
        (CANTEEN, "20", (1000, 850), 850, "00", (0, 850)),
        (CANTEEN, "20", (1000, 849), 850, "51", (0, 0)),
        (SHOP, "20", (1000, 1000), 850, "57", (0, 0)),
        # Amounts: 0 and above the ceiling are refused, what lies between is not.
        (CANTEEN, "00", (1000, 500), 0, "13", (0, 0)),
        (CANTEEN, "00", (1000, 500), 1, "00", (0, 1)),
        (CANTEEN, "00", (AMOUNT_MAX + 1, 0), AMOUNT_MAX, "00", (AMOUNT_MAX, 0)),
        (CANTEEN, "00", (AMOUNT_MAX + 1, 0), AMOUNT_MAX + 1, "13", (0, 0)),
        (CANTEEN, "00", (AMOUNT_MAX + 1, 0), 999_999_999_999, "13", (0, 0)),
        (CANTEEN, "00", (0, 0), 1, "51", (0, 0)),
    ],
)
async def test_a_purchase_takes_what_the_purses_named_hold(
    switch: Switch,
    connection: Connection,
    merchant: str,
    purse: str,
    held: tuple[int, int],
    amount: int,
    code: str,
    paid: tuple[int, int],
) -> None:
    device = await signed_on(switch, connection, merchant=merchant)
    card = await switch.card(cash=held[0], subsidy=held[1])
    earned_before = (await switch.show("merchant", merchant))["balance"]
    request = device.purchase(card, amount, de3=f"00{purse}00", de24="003", de60="000001")
    answer = await device.ask(connection, request)
    left = (held[0] - paid[0], held[1] - paid[1])
    number = f"{await position(switch):012}"
    expected = {**request, "t": "0210", "15": BUSINESS_DATE, "37": number, "39": code}
    if code == "00":
        expected |= {"38": number[6:], "54": f"1002156C{left[0]:012}2002156C{left[1]:012}"}
    assert answer.fields == expected
    assert await switch.purses(card) == left
    assert (await switch.show("merchant", merchant))["balance"] == earned_before + sum(paid)


@pytest.mark.parametrize(
    ("status", "expires", "code"),
    [
        ("active", FAR_FUTURE, "00"),
        ("active", TODAY, "00"),
        ("active", YESTERDAY, "54"),
        ("lost", FAR_FUTURE, "41"),
        ("lost", YESTERDAY, "41"),
        ("frozen", FAR_FUTURE, "62"),
        ("frozen", YESTERDAY, "62"),
        ("inactive", FAR_FUTURE, "78"),
        ("inactive", YESTERDAY, "78"),
        ("cancelled", FAR_FUTURE, "78"),
        ("cancelled", YESTERDAY, "78"),
        (None, None, "14"),
    ],
)
async def test_what_a_card_may_do(
    switch: Switch, device: Device, connection: Connection, status: str | None, expires: str | None, code: str
) -> None:
    unknown = "6239999999999999"
    card = unknown if status is None or expires is None else await switch.card(cash=1000, subsidy=50, status=status, expires=expires)
    answer = await device.ask(connection, device.purchase(card, 850))
    assert answer.code == code
    assert ("54" in answer.fields, "38" in answer.fields, "37" in answer.fields) == (code == "00", code == "00", True)
    balance = await device.ask(connection, device.balance(card))
    if card == unknown:
        assert (balance.code, balance.purses) == ("14", None)
    else:
        left = (200, 0) if code == "00" else (1000, 50)
        assert (balance.code, balance.purses) == ("00", left), "a balance is told whatever the card's status"
        reversal = await device.ask(connection, device.reversal(device.purchase(card, 1)))
        assert (reversal.code, reversal.purses) == ("00", left), "and so is a reversal's"


KINDS = {"pos": "PB", "counter": "PB", "water": "PB", "kiosk": "B", "library": "P", "gate": "", "meter": ""}


@pytest.mark.parametrize(("kind", "may"), KINDS.items())
async def test_what_a_kind_of_terminal_may_do(switch: Switch, connection: Connection, kind: str, may: str) -> None:
    device = await signed_on(switch, connection, kind=kind)
    card = await switch.card(cash=1000)
    purchase = await device.ask(connection, device.purchase(card, 100))
    balance = await device.ask(connection, device.balance(card))
    reversal = await device.ask(connection, device.reversal(device.purchase(card, 100)))
    assert (purchase.code, purchase.proved_by(device.key)) == ("00" if "P" in may else "58", True)
    assert (balance.code, balance.proved_by(device.key)) == ("00" if "B" in may else "58", True)
    assert reversal.code == "00", "every kind may reverse what it asked"
    if purchase.code == "58":
        assert "37" not in purchase.fields, "it is not remembered"
    assert await switch.purses(card) == (900 if "P" in may else 1000, 0)


# --- the order of decisions ---


async def use_up(device: Device, connection: Connection, stan: str, card: str) -> None:
    """Have an answer stored under this STAN."""
    assert (await device.ask(connection, device.purchase(card, 1, de11=stan))).code == "00"


LADDER: dict[str, Fields] = {
    "30 malformed": {"48": "no sub-elements"},
    "58 unknown": {"41": "NOBODY  "},
    "63": {},
    "30 missing": {"60": "000000"},
    "58 merchant": {"42": CANTEEN},
    "12": {"13": f"{today(-20):%m%d}"},
    "94": {},
    "13": {"4": "0" * 12},
    "14": {"2": "6239999999999999"},
    "57": {"3": "002000"},
    "51": {"4": f"{1000:012}"},
}
"""Every reason to refuse a purchase but the card's status, first to last, and what makes a message wrong in that way."""


@pytest.mark.parametrize("first", [*LADDER, "00"])
async def test_the_first_reason_is_the_answer(switch: Switch, connection: Connection, first: str) -> None:
    """The request is wrong in this way and in every way that is looked at later."""
    reasons = [*LADDER, "00"][[*LADDER, "00"].index(first) : -1]
    device = await signed_on(switch, connection, merchant=SHOP)
    card = await switch.card(cash=100, subsidy=100)
    request = device.purchase(card, 50)
    if "94" in reasons:
        await use_up(device, connection, request["11"], card)
    before = await switch.purses(card)
    for reason in reversed(reasons):
        request |= LADDER[reason]
    answer = await connection.ask(encode(request, device.sign_on_key if "63" in reasons else device.key))
    assert answer.code == first[:2]
    unproved = first in {"30 malformed", "58 unknown", "63"}
    assert (answer.mac is None, answer.proved_by(device.key)) == (unproved, not unproved)
    assert ("37" in answer.fields) == (first in {"13", "14", "57", "51", "00"}), "what is remembered has a number"
    assert await switch.purses(card) == ((50, 100) if first == "00" else before)


@pytest.mark.parametrize(
    ("status", "expires", "code"),
    [("lost", YESTERDAY, "41"), ("frozen", YESTERDAY, "62"), ("cancelled", YESTERDAY, "78"), ("active", YESTERDAY, "54")],
)
async def test_a_cards_status_comes_before_what_it_may_do_and_has(
    switch: Switch, connection: Connection, status: str, expires: str, code: str
) -> None:
    device = await signed_on(switch, connection, merchant=SHOP)
    card = await switch.card(cash=0, subsidy=0, status=status, expires=expires)
    assert (await device.ask(connection, device.purchase(card, 50, de3="002000"))).code == code
    assert (await device.ask(connection, device.purchase(card, 0, de3="002000"))).code == "13", "the amount is looked at before the card"


@pytest.mark.parametrize(
    "change",
    [
        {"de2": None},
        {"de4": None},
        {"de3": None},
        {"de42": None},
        {"de49": None},
        {"de49": "840"},
        {"de60": "000000"},
        {"de60": "00001"},
        {"de60": "00000A"},
        {"de12": "240000"},
        {"de12": "126000"},
        {"de12": "120060"},
        {"de13": "0000"},
        {"de13": "1301"},
        {"de13": "0230"},
        {"de13": "0431"},
    ],
    ids=str,
)
async def test_a_purchase_without_all_it_needs_is_answered_30(
    switch: Switch, device: Device, connection: Connection, change: dict[str, str | None]
) -> None:
    card = await switch.card(cash=1000)
    answer = await device.ask(connection, device.purchase(card, 850, **change))
    assert (answer.code, answer.proved_by(device.key), "37" in answer.fields) == ("30", True, False)
    assert await switch.purses(card) == (1000, 0)


# --- dates ---


@pytest.mark.parametrize(("days", "code"), [(-200, "12"), (-8, "12"), (-7, "00"), (-1, "00"), (0, "00"), (1, "00"), (2, "12"), (100, "12")])
async def test_a_request_is_taken_within_the_identity_window(
    switch: Switch, device: Device, connection: Connection, days: int, code: str
) -> None:
    card = await switch.card(cash=1000)
    date = f"{today(days):%m%d}"
    request = device.purchase(card, 850, de13=date)
    answer = await device.ask(connection, request)
    assert (answer.code, answer.fields["13"], answer.fields["15"]) == (code, date, BUSINESS_DATE)
    assert ("37" in answer.fields) == (code == "00")
    assert (await device.ask(connection, device.balance(card, de13=date))).code == code
    assert (await device.ask(connection, device.reversal(device.purchase(card, 1), de13=date))).code == code
    named = await device.ask(connection, device.reversal(request))
    assert named.code == code, "nor may a reversal name an original from outside"
    assert await switch.purses(card) == (1000, 0)


async def test_the_same_stan_on_another_day_is_another_message(switch: Switch, device: Device, connection: Connection) -> None:
    card = await switch.card(cash=1000)
    answers = [await device.ask(connection, device.purchase(card, 100, de11="000777", de13=f"{today(-day):%m%d}")) for day in range(3)]
    assert [answer.code for answer in answers] == ["00"] * 3
    assert len({answer.fields["37"] for answer in answers}) == 3
    assert await switch.purses(card) == (700, 0)


async def test_the_window_is_the_configured_one(make_switch: Callable[..., Switch]) -> None:
    switch = make_switch(policy_identity_days=2, policy_amount_max=100)
    switch.start()
    await switch.enter(f"merchant_id,name,category,fee_bp\n{CANTEEN},Canteen,canteen,0\n")
    card = await switch.card()
    async with switch.connect() as connection:
        device = await signed_on(switch, connection)
        found = {day: (await device.ask(connection, device.purchase(card, 100, de13=f"{today(day):%m%d}"))).code for day in (-2, -1, 0)}
        assert found == {-2: "12", -1: "00", 0: "00"}
        assert (await device.ask(connection, device.purchase(card, 101))).code == "13"


# --- duplicates ---


@pytest.mark.parametrize(("amount", "code"), [(850, "00"), (0, "13"), (5000, "51")])
async def test_a_repeated_message_gets_the_stored_answer_and_changes_nothing(
    switch: Switch, device: Device, connection: Connection, amount: int, code: str
) -> None:
    card = await switch.card(cash=2000, subsidy=200)
    request = device.purchase(card, amount)
    first = await device.ask(connection, request)
    assert first.code == code
    for _ in range(2):
        assert (await device.ask(connection, device.purchase(card, 10))).code == "00"
    after, reached = await switch.purses(card), await position(switch)
    assert (await device.ask(connection, request)).message == first.message
    for mti, reply in (("0201", "0211"), ("0220", "0230"), ("0221", "0231")):
        answer = await device.ask(connection, {**request, "t": mti})
        assert (answer.fields["t"], answer.content) == (reply, first.content), mti
    await device.sign_on(connection)
    renewed = await device.ask(connection, request)
    assert (renewed.content, renewed.proved_by(device.key)) == (first.content, True), "under the new session's key"
    assert await switch.purses(card) == after
    assert await position(switch) == reached + 1, "the sign-on alone was journaled"


async def test_the_stored_answer_echoes_the_first_message(switch: Switch, device: Device, connection: Connection) -> None:
    card = await switch.card()
    request = device.purchase(card, 850, de24="003", de60="000007")
    first = await device.ask(connection, request)
    others: list[dict[str, str | None]] = [
        {"12": "000000"},
        {"24": "004"},
        {"24": None},
        {"60": "000008"},
        {"60": None},
        {"22": "051", "25": "00", "37": "000000000001"},
    ]
    for change in others:
        changed: Fields = {name: value for name, value in {**request, **change}.items() if value is not None}
        assert (await device.ask(connection, changed)).message == first.message, change
    reversal = device.reversal(request)
    undone = await device.ask(connection, reversal)
    del reversal["42"]
    assert (await device.ask(connection, reversal)).message == undone.message


@pytest.mark.parametrize(("element", "value"), [("2", "6230999999999999"), ("3", "001000"), ("4", f"{851:012}"), ("4", "0" * 12)])
async def test_the_same_identity_with_other_content_is_answered_94(
    switch: Switch, device: Device, connection: Connection, element: str, value: str
) -> None:
    card = await switch.card(cash=1000)
    request = device.purchase(card, 850)
    first = await device.ask(connection, request)
    reached = await position(switch)
    for mti in ("0200", "0201"):
        changed = {**request, "t": mti, element: value}
        answer = await device.ask(connection, changed)
        assert answer.fields == {**changed, "t": f"021{mti[3]}", "15": BUSINESS_DATE, "39": "94"}
    assert (await device.ask(connection, request)).message == first.message
    assert await switch.purses(card) == (150, 0)
    assert await position(switch) == reached


async def test_a_decline_stays_what_it_was_when_the_card_has_changed(switch: Switch, device: Device, connection: Connection) -> None:
    card = await switch.card(cash=1000, status="lost")
    request = device.purchase(card, 850)
    declined = await device.ask(connection, request)
    assert declined.code == "41"
    await switch.enter(f"card_number,holder_id,class,status,expires,cash,subsidy\n{card},H{card},student,active,{FAR_FUTURE},0,0\n")
    assert (await device.ask(connection, request)).message == declined.message
    assert (await device.ask(connection, device.purchase(card, 850))).code == "00"


async def test_every_class_has_its_own_identities(switch: Switch, device: Device, connection: Connection) -> None:
    card = await switch.card(cash=1000)
    purchase = await device.ask(connection, device.purchase(card, 1, de11="000500"))
    assert (await device.ask(connection, device.message("0800", de11="000500", de70="002"))).code == "00"
    await device.sign_on(connection)
    assert (await device.ask(connection, device.reversal(device.purchase(card, 9), de11="000500"))).code == "00"
    totals = (0, 0, 0, 0, 1, 1, 0, 0)
    assert (await device.ask(connection, device.batch_close(1, totals, de11="000500"))).code == "00"
    again = await device.ask(connection, {**purchase.without("15", "37", "38", "39", "54"), "t": "0200"})
    assert again.content == purchase.content


# --- balance ---


@pytest.mark.parametrize(("cash", "subsidy"), [(0, 0), (1, 2), (99_999_999_999, 99_999_999_999)])
async def test_a_balance_tells_both_purses(switch: Switch, device: Device, connection: Connection, cash: int, subsidy: int) -> None:
    card = await switch.card(cash=cash, subsidy=subsidy)
    request = device.balance(card, de24="003")
    answer = await device.ask(connection, request)
    assert answer.fields == {**request, "t": "0110", "15": BUSINESS_DATE, "39": "00", "54": f"1002156C{cash:012}2002156C{subsidy:012}"}


async def test_a_balance_is_answered_afresh_and_leaves_no_trace(switch: Switch, device: Device, connection: Connection) -> None:
    card = await switch.card(cash=1000)
    request = device.balance(card)
    reached = await position(switch)
    assert (await device.ask(connection, request)).purses == (1000, 0)
    assert await position(switch) == reached
    purchase = await device.ask(connection, device.purchase(card, 300, de11=request["11"]))
    assert purchase.code == "00", "its identity is free for a purchase"
    assert (await device.ask(connection, request)).purses == (700, 0)
    assert (await device.ask(connection, {**request, "t": "0101"})).fields["t"] == "0111"


async def test_a_balance_without_what_it_needs(switch: Switch, device: Device, connection: Connection) -> None:
    card = await switch.card()
    assert (await device.ask(connection, device.balance(card, de2=None))).code == "30"
    assert (await device.ask(connection, device.balance(card, de3=None))).code == "30"
    assert (await device.ask(connection, device.balance(card, de42=None))).code == "00"
    assert (await device.ask(connection, device.balance(card, de42=SHOP))).code == "58"


# --- reversal ---

BY: dict[str, Callable[..., Fields]] = {"DE90": Device.reversal, "its own STAN": Device.reversal_by_stan}


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("mti", ["0400", "0420", "0401", "0421"])
async def test_a_reversal_gives_back_what_was_paid_to_the_purses_that_paid_it(
    switch: Switch, device: Device, connection: Connection, by: str, mti: str
) -> None:
    card = await switch.card(cash=1000, subsidy=500)
    earned = (await switch.show("merchant", CANTEEN))["balance"]
    purchase = device.purchase(card, 850)
    paid = await device.ask(connection, purchase)
    assert paid.purses == (650, 0)
    reversal = BY[by](device, purchase, t=mti, de60="000001")
    undone = await device.ask(connection, reversal)
    number = f"{await position(switch):012}"
    expected = {name: value for name, value in reversal.items() if name != "90"}
    expected |= {"t": f"{mti[:2]}{int(mti[2]) + 1}{mti[3]}", "15": BUSINESS_DATE, "37": number, "38": number[6:], "39": "00"}
    assert undone.fields == {**expected, "54": f"1002156C{1000:012}2002156C{500:012}"}
    assert await switch.purses(card) == (1000, 500)
    assert (await switch.show("merchant", CANTEEN))["balance"] == earned

    # Sent again it is a duplicate; asked again under another identity there is nothing left to undo.
    assert (await device.ask(connection, {**reversal, "t": f"{mti[:3]}1"})).content == undone.content
    again = await device.ask(connection, device.reversal(purchase))
    assert (again.code, again.purses) == ("00", (1000, 500))
    assert (await device.ask(connection, purchase)).message == paid.message, "the original's answer stays what it was"
    assert await switch.purses(card) == (1000, 500)


@pytest.mark.parametrize("by", BY)
async def test_a_reversal_that_overtakes_its_original_leaves_a_tombstone(
    switch: Switch, device: Device, connection: Connection, by: str
) -> None:
    card = await switch.card(cash=1000)
    purchase = device.purchase(card, 850)
    reversed_first = await device.ask(connection, BY[by](device, purchase))
    assert (reversed_first.code, reversed_first.purses) == ("00", (1000, 0))
    late = await device.ask(connection, purchase)
    assert (late.code, "37" in late.fields, "54" in late.fields) == ("12", True, False)
    assert (await device.ask(connection, {**purchase, "t": "0201"})).content == late.content
    assert (await device.ask(connection, {**purchase, "4": f"{1:012}"})).code == "94"
    again = await device.ask(connection, device.reversal(purchase))
    assert (again.code, again.purses) == ("00", (1000, 0))
    assert await switch.purses(card) == (1000, 0)
    assert (await device.ask(connection, device.purchase(card, 850))).code == "00", "the next one is not held up"


async def test_a_tombstone_does_not_hide_that_the_original_was_wrong(device: Device, connection: Connection) -> None:
    purchase = device.purchase("6239999999999999", 850)
    reversal = await device.ask(connection, device.reversal(purchase))
    assert (reversal.code, "54" in reversal.fields) == ("00", False), "an unknown card has no purses to tell"
    assert (await device.ask(connection, {**purchase, "42": SHOP})).code == "58"
    assert (await device.ask(connection, purchase)).code == "12"


async def test_a_stored_answer_is_the_same_when_its_card_has_become_known(switch: Switch, device: Device, connection: Connection) -> None:
    card = "6238000000000001"
    purchase = device.purchase(card, 850)
    requests = [device.reversal(purchase), purchase]
    answers = [await device.ask(connection, request) for request in requests]
    assert [answer.code for answer in answers] == ["00", "12"]
    await switch.enter(f"card_number,holder_id,class,status,expires,cash,subsidy\n{card},H{card},student,active,{FAR_FUTURE},900,0\n")
    for request, answer in zip(requests, answers, strict=True):
        assert (await device.ask(connection, request)).message == answer.message


async def test_reversing_what_was_declined_changes_nothing(switch: Switch, device: Device, connection: Connection) -> None:
    card = await switch.card(cash=100)
    purchase = device.purchase(card, 850)
    declined = await device.ask(connection, purchase)
    assert declined.code == "51"
    reversal = await device.ask(connection, device.reversal(purchase))
    assert (reversal.code, reversal.purses) == ("00", (100, 0))
    assert (await device.ask(connection, purchase)).message == declined.message


@pytest.mark.parametrize(("element", "value"), [("2", "6230999999999999"), ("4", f"{849:012}")])
async def test_a_reversal_of_something_else_than_it_names_is_answered_94(
    switch: Switch, device: Device, connection: Connection, element: str, value: str
) -> None:
    card = await switch.card(cash=1000)
    purchase = device.purchase(card, 850)
    await device.ask(connection, purchase)
    wrong = {**device.reversal(purchase), element: value}
    assert (await device.ask(connection, wrong)).code == "94"
    assert await switch.purses(card) == (150, 0)
    assert (await device.ask(connection, device.reversal(purchase))).code == "00"
    assert await switch.purses(card) == (1000, 0)


async def test_a_reversals_own_identity_with_other_content_is_answered_94(switch: Switch, device: Device, connection: Connection) -> None:
    card = await switch.card(cash=1000)
    purchase, other = device.purchase(card, 100), device.purchase(card, 200)
    for request in (purchase, other):
        assert (await device.ask(connection, request)).code == "00"
    reversal = device.reversal(purchase)
    assert (await device.ask(connection, reversal)).code == "00"
    assert (await device.ask(connection, device.reversal(other, de11=reversal["11"]))).code == "94"
    assert (await device.ask(connection, {name: value for name, value in reversal.items() if name != "49"})).code == "94"
    assert await switch.purses(card) == (800, 0)


async def test_a_reversal_may_name_little(switch: Switch, device: Device, connection: Connection) -> None:
    card = await switch.card(cash=1000)
    purchase = device.purchase(card, 850)
    await device.ask(connection, purchase)
    bare = device.reversal(purchase, de2=None, de3=None, de4=None, de42=None, de49=None)
    answer = await device.ask(connection, bare)
    assert (answer.code, "54" in answer.fields, "38" in answer.fields) == ("00", False, True), "balances only where the card is named"
    assert await switch.purses(card) == (1000, 0)


async def test_a_terminal_reverses_only_its_own(switch: Switch, device: Device, connection: Connection) -> None:
    other = await signed_on(switch, connection)
    card = await switch.card(cash=1000)
    purchase = device.purchase(card, 850, de11="000900")
    await device.ask(connection, purchase)
    answer = await other.ask(connection, other.reversal(purchase))
    assert answer.code == "00", "to it, that original is unknown"
    assert await switch.purses(card) == (150, 0)


@pytest.mark.parametrize("change", [{"de42": SHOP}, {"de42": CANTEEN.lower()}])
async def test_a_reversal_for_another_merchant_is_answered_58(
    switch: Switch, device: Device, connection: Connection, change: dict[str, str]
) -> None:
    card = await switch.card(cash=1000)
    purchase = device.purchase(card, 850)
    await device.ask(connection, purchase)
    answer = await device.ask(connection, device.reversal(purchase, **change))
    assert (answer.code, answer.proved_by(device.key)) == ("58", True)
    assert await switch.purses(card) == (150, 0)


@pytest.mark.parametrize(
    "original",
    ["0400", "0800", "0300", "9999"],
)
async def test_only_financial_messages_have_reversals(device: Device, connection: Connection, original: str) -> None:
    at = now()
    named = f"{original}000001{at:%m%d%H%M%S}".ljust(42, "0")
    assert (await device.ask(connection, device.message("0400", de90=named))).code == "30"


@pytest.mark.parametrize("date", ["0000", "1301", "0230"])
async def test_a_reversals_original_has_a_date(device: Device, connection: Connection, date: str) -> None:
    assert (await device.ask(connection, device.message("0400", de90=f"0200000001{date}120000".ljust(42, "0")))).code == "30"


async def test_a_reversal_works_for_a_card_that_was_lost_since(switch: Switch, device: Device, connection: Connection) -> None:
    card = await switch.card(cash=1000)
    purchase = device.purchase(card, 850)
    await device.ask(connection, purchase)
    await switch.enter(f"card_number,holder_id,class,status,expires,cash,subsidy\n{card},H{card},student,lost,2000-01-01,0,0\n")
    answer = await device.ask(connection, device.reversal(purchase))
    assert (answer.code, answer.purses) == ("00", (1000, 0))


# --- any other message ---


@pytest.mark.parametrize(
    ("mti", "more"),
    [
        *(("0200", {"de3": code}) for code in ("003000", "000001", "020001", "200001", "210001", "310000", "500001", "900000", "999999")),
        *(("0100", {"de3": code}) for code in ("001000", "020000", "210000", "310001", "900001", "910001", "960000", "990000")),
        *(("0120", {"de3": code}) for code in ("000000", "310000", "960000")),
        *(("0220", {"de3": code}) for code in ("020000", "200000", "210000", "910000")),
        ("0220", {"de3": "001000", "de37": "000000000001"}),
        ("0802", {"de70": "301"}),
        *(("0800", {"de70": code}) for code in ("000", "003", "300", "999")),
        *(
            (mti, {"de3": "000000"})
            for mti in ("0202", "0208", "0210", "0230", "0110", "0102", "0122", "0302", "0310", "0410", "0402", "0422", "0502", "0510")
        ),
        *(
            (mti, {"de3": "000000"})
            for mti in ("0602", "0610", "0620", "0810", "0000", "0140", "0240", "0320", "0520", "0700", "1200", "9999")
        ),
    ],
)
async def test_any_other_message_is_answered_12(
    switch: Switch, device: Device, connection: Connection, mti: str, more: dict[str, Any]
) -> None:
    card = await switch.card(cash=1000)
    request = device.message(mti, **{"de2": card, "de4": f"{100:012}", "de49": "156", **more})
    answer = await device.ask(connection, request)
    number = f"{await position(switch):012}"
    echoed = {name: request[name] for name in (*PURCHASE_ECHO, "60", "70") if name in request and not (name == "2" and mti[:2] == "08")}
    assert answer.fields == {**echoed, "t": f"{(int(mti) + 10) % 10_000:04}", "15": BUSINESS_DATE, "37": number, "39": "12"}
    assert (await device.ask(connection, request)).message == answer.message
    changed = await device.ask(connection, {**request, "4": f"{101:012}"})
    assert (changed.code, "37" in changed.fields) == ("12", False), "what the operation is comes before what was remembered"
    assert await position(switch) == int(number), "what was sent again changed nothing"
    assert await switch.purses(card) == (1000, 0)


async def test_a_message_for_another_merchant_or_without_its_code_is_refused_before(device: Device, connection: Connection) -> None:
    assert (await device.ask(connection, device.message("0100"))).code == "30"
    assert (await device.ask(connection, device.message("0200"))).code == "30"
    assert (await device.ask(connection, device.message("0800"))).code == "30"
    assert (await device.ask(connection, device.message("0300"))).code == "30"
    assert (await device.ask(connection, device.message("0700", de42=SHOP))).code == "58"


# --- the whole ---


async def test_a_day_of_one_card_adds_up(switch: Switch, connection: Connection) -> None:
    """The sums that the terminals hold are the ledger's."""
    canteen, shop = await signed_on(switch, connection), await signed_on(switch, connection, merchant=SHOP)
    card = await switch.card(cash=3000, subsidy=1000)
    earned = [(await switch.show("merchant", merchant))["balance"] for merchant in (CANTEEN, SHOP)]
    taken = {canteen: 0, shop: 0}
    answers: list[Answer] = []
    for device, amount, undone in [
        (canteen, 850, False),
        (shop, 400, False),
        (canteen, 500, True),
        (canteen, 500, False),
        (shop, 9000, False),
    ]:
        request = device.purchase(card, amount)
        answers.append(await device.ask(connection, request))
        if answers[-1].code == "00":
            taken[device] += amount
        if undone:
            assert (await device.ask(connection, device.reversal(request))).code == "00"
            taken[device] -= amount
    assert [(answer.code, answer.purses) for answer in answers] == [
        ("00", (3000, 150)),
        ("00", (2600, 150)),
        ("00", (2250, 0)),
        ("00", (2250, 0)),
        ("51", None),
    ]
    assert await switch.purses(card) == (2250, 0)
    assert [(await switch.show("merchant", merchant))["balance"] for merchant in (CANTEEN, SHOP)] == [
        earned[0] + taken[canteen],
        earned[1] + taken[shop],
    ]
    assert sum(taken.values()) == 4000 - 2250
    shown = await switch.show("card", card)
    assert abs(shown["last_activity"] - datetime.datetime.now(datetime.UTC).timestamp()) < 3600
