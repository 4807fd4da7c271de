"""What the switch decides where a card is shown and no money moves: doors, loans, attendance, verification, and their advices."""

import pytest

from switch.dialect import sub_elements
from tests.decision_table import Row, Scene, decisions, for_every_status, table, whatever_the_status

STATUSES = ("lost", "frozen", "blacklisted", "inactive", "cancelled", "expired")


def shown(act: str) -> list[Row]:
    """What holds of a door's and of a lecture hall's reader alike."""
    return [
        *table(
            f"""
            | {act} | 00
            | {act} 42=- 60=000001 24=003 | 00
            | {act} 13=-1 | 00
            {act} | {act} | 00
            card last-day | {act} | 00
            hold 1000 | {act} | 00
            offline 2000 | {act} | 00
            class teacher | {act} | 00
            | {act} 2=- | 30
            | {act} 60=000000 | 30
            | {act} 49=840 | 30
            | {act} 42=M2 | 58
            | {act} @pos | 58
            | {act} 13=-8 | (12)
            prepare {act}, reverse #1 | send #1 | 12
            | {act} 2=unknown | 14
            """
        ),
        *for_every_status(act),
    ]


@decisions([*shown("enter"), *shown("leave"), *shown("attendance")])
async def test_showing_a_card(scene: Scene, row: Row) -> None:
    await scene.decide(row)


BORROW = [
    *table(
        """
        | borrow BOOK | 00 | borrow BOOK !12, return BOOK
        | borrow BOOK 42=- 60=000001 24=003 | 00
        borrow BOOK | borrow MAP | 00
        borrow BOOK, return BOOK | borrow BOOK | 00
        borrow BOOK 2=other, return BOOK 2=other | borrow BOOK | 00
        card last-day | borrow BOOK | 00
        | borrow BOOK 2=- | 30
        | borrow BOOK 48=- | 30
        | borrow BOOK 48=1100 | 30
        | borrow BOOK 48=1204BOOK | 30
        | borrow BOOK 42=M2 | 58
        | borrow BOOK @gate | 58
        | borrow BOOK 13=-8 | (12)
        prepare borrow BOOK, reverse #1 | send #1 | 12
        | borrow BOOK 2=unknown | 14 | borrow BOOK
        borrow BOOK | borrow BOOK | 12
        borrow BOOK | borrow BOOK 2=other | 12 | return BOOK
        borrow BOOK 2=other | borrow BOOK | 12
        """,
        "then",
    ),
    *for_every_status("borrow BOOK"),
]


@decisions(BORROW)
async def test_borrowing(scene: Scene, row: Row) -> None:
    await scene.decide(row)


RETURN = [
    *table(
        """
        borrow BOOK | return BOOK | 00 | return BOOK !25, borrow BOOK
        borrow BOOK | return BOOK 42=- 60=000001 24=003 | 00
        borrow BOOK 2=other | return BOOK 2=other | 00
        borrow BOOK, borrow MAP | return MAP | 00 | return BOOK
        borrow BOOK, card last-day | return BOOK | 00
        borrow BOOK | return BOOK 2=- | 30
        borrow BOOK | return BOOK 48=- | 30
        borrow BOOK | return BOOK 48=1100 | 30
        borrow BOOK | return BOOK 42=M2 | 58
        borrow BOOK | return BOOK @gate | 58
        borrow BOOK | return BOOK 13=-8 | (12)
        borrow BOOK, prepare return BOOK, reverse #2 | send #2 | 12 | return BOOK
        borrow BOOK | return BOOK 2=unknown | 14 | return BOOK
        borrow BOOK | return BOOK 2=other | 57 | return BOOK
        borrow BOOK 2=other | return BOOK | 57 | return BOOK 2=other
        | return BOOK | 25
        borrow BOOK | return MAP | 25
        borrow BOOK, return BOOK | return BOOK | 25
        """,
        "then",
    ),
    *for_every_status("return BOOK", given="borrow BOOK"),
]


@decisions(RETURN)
async def test_returning(scene: Scene, row: Row) -> None:
    await scene.decide(row)


async def test_a_loan_is_its_holders_whatever_card_he_has_by_then(scene: Scene) -> None:
    await scene.do("borrow BOOK, card lost")
    holder, first = f"H{scene.card}", scene.card
    second = f"{first}9"
    await scene.switch.enter(f"card_number,holder_id,class,status,expires,cash,subsidy\n{second},{holder},student,active,2099-12-31,0,0\n")
    await scene.do(f"return BOOK !41, return BOOK 2={second}, return BOOK 2={second} !25")


VERIFY = [
    *table(
        """
        | verify | 00 | 2007student
        | verify @pos | 00 | 2007student
        | verify @kiosk | 00 | 2007student
        | verify @counter | 00 | 2007student
        | verify @library | 00 | 2007student
        | verify 42=- 60=000001 24=003 | 00 | 2007student
        class teacher | verify | 00 | 2007teacher
        class merchant | verify | 00 | 2008merchant
        class family | verify | 00 | 2006family
        class temporary | verify | 00 | 2009temporary
        card last-day | verify | 00 | 2007student
        offline 2000 | verify | 00 | 2007student
        card lost | verify | 41 | 2007student
        card frozen | verify | 62 | 2007student
        card blacklisted | verify | 62 | 2007student
        card inactive | verify | 78 | 2007student
        card cancelled | verify | 78 | 2007student
        card expired | verify | 54 | 2007student
        | verify 2=unknown | 14
        | verify 2=- | 30
        | verify 42=M2 | 58
        | verify @water | 58
        | verify @meter | 58
        | verify 13=-8 | (12)
        """,
        "48",
    )
]


@decisions(VERIFY)
async def test_verifying(scene: Scene, row: Row) -> None:
    await scene.decide(row)


async def test_a_verification_is_answered_afresh(scene: Scene) -> None:
    await scene.do("prepare verify, send #1, card lost, send #1 !41, card active, send #1")
    told = [sub_elements(answer.fields["48"]) for _, _, answer in scene.messages if answer is not None]
    assert told == [{"20": "student"}] * 3
    request = scene.messages[0][1]
    device = await scene.till("gate")
    assert (await device.ask(scene.connection, device.act("enter", scene.card, de11=request["11"]))).code == "00", "its identity is free"


def advised(act: str, till: str, *, item: str = "") -> list[Row]:
    """An event that happened while the terminal was alone."""
    asked = f"advise {act}{item} @{till}"
    return [
        *table(
            f"""
            | {asked} | 00
            | {asked} t=0121 | 00
            | {asked} 42=- 60=000001 24=003 | 00
            | {asked} 13=-7 | 00
            | {asked} 2=- | 30
            | {asked} 60=000000 | 30
            | {asked} 42=M2 | 58
            | {asked} 2=unknown | 14
            prepare {asked}, reverse #1 | send #1 | 12
            """
        ),
        *whatever_the_status(asked, ""),
    ]


ADVICES = [
    *advised("enter", "gate"),
    *advised("leave", "gate"),
    *advised("attendance", "gate"),
    *advised("verify", "gate"),
    *advised("verify", "library"),
    *advised("borrow", "library", item=" BOOK"),
    *table(
        """
        | advise enter @library | 58
        | advise verify @pos | 58
        | advise borrow BOOK @gate | 58
        | advise borrow BOOK @library | 00 | borrow BOOK !12, return BOOK
        borrow BOOK | advise return BOOK @library | 00 | borrow BOOK
        borrow BOOK, card lost | advise return BOOK @library | 00 | borrow BOOK 2=other
        | advise borrow BOOK 48=- @library | 30
        | advise borrow BOOK 48=1100 @library | 30
        borrow BOOK | advise return BOOK 48=- @library | 30
        borrow BOOK | advise return BOOK 2=unknown @library | 14
        borrow BOOK | advise borrow BOOK @library | 12
        borrow BOOK 2=other | advise borrow BOOK @library | 12 | return BOOK 2=other
        borrow BOOK, card lost | advise borrow BOOK @library | 12
        borrow BOOK 2=other | advise return BOOK @library | 57 | return BOOK 2=other
        borrow BOOK 2=other, card lost | advise return BOOK @library | 57
        | advise return BOOK @library | 25
        card expired | advise return BOOK @library | 25
        """,
        "then",
    ),
]


@decisions(ADVICES)
async def test_advices(scene: Scene, row: Row) -> None:
    await scene.decide(row)


LATE = [
    "advise enter",
    "advise borrow BOOK @library",
    "offline 850",
    "offline 0",
    "complete 000000000001 300",
    "reverse #1",
    "offline 850 3=770000",
    "advise enter 3=770000",
]


@pytest.mark.parametrize("asked", LATE)
@pytest.mark.parametrize("days", [-8, -100, 2])
async def test_what_has_happened_outside_the_window_is_kept_once(scene: Scene, asked: str, days: int) -> None:
    """Advices, and reversals, of which nobody knows what they would undo."""
    await scene.do("prepare purchase 850")
    await scene.do(f"prepare {asked} 13={days}")
    await kept_once(scene)


async def test_a_reversal_of_what_lies_outside_the_window_is_kept_once(scene: Scene) -> None:
    await scene.do("prepare purchase 850 13=-8, prepare reverse #1 13=0")
    await kept_once(scene)


async def kept_once(scene: Scene) -> None:
    """The message that was prepared last is answered 12 and written down for a person, however often it comes."""
    till, request, _ = scene.messages[-1]
    device = await scene.till(till)
    position = await scene.record()
    answer = await device.ask(scene.connection, request)
    assert (answer.code, "37" in answer.fields, await scene.purses()) == ("12", False, (1000, 500))
    assert await scene.record() == position + 2, "it is in the journal"
    for mti in (request["t"], request["t"][:3] + "1"):
        again = await device.ask(scene.connection, {**request, "t": mti})
        assert again.content == answer.content
    assert await scene.record() == position + 3, "and nothing more"
    await scene.do("borrow BOOK")


async def test_what_is_asked_online_from_outside_the_window_leaves_no_trace(scene: Scene) -> None:
    position = await scene.record()
    await scene.do("purchase 850 13=-8 !12, enter 13=-8 !12, hold 400 13=-8 !12")
    assert await scene.record() == position + 1
