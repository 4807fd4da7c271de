"""What the switch decides about a terminal's batch, a meter's events, and the business day."""

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial

import pytest

from tests.clock import Clock
from tests.decision_table import Row, Scene, decisions, reply_to, table
from tests.messages import TOTALS
from tests.switch_process import MERCHANTS, Answer, Connection, Switch, in_thread, today, until

NOTHING = (0,) * 8
IMPOSSIBLE = (9_999_999_999, 0, 0, 0, 0, 0, 0, 0)
"""No batch has so many transactions."""


def totals_of(answer: Answer) -> tuple[int, ...]:
    return tuple(int(answer.fields[element]) for element in TOTALS)


async def totals(scene: Scene, till: str, batch: int) -> tuple[int, ...]:
    """The switch's own, as it tells them to a terminal that has others."""
    device = await scene.till(till)
    answer = await device.ask(scene.connection, device.batch_close(batch, IMPOSSIBLE))
    assert answer.code == "95"
    return totals_of(answer)


async def close(scene: Scene, till: str, batch: int, own: Sequence[int]) -> Answer:
    device = await scene.till(till)
    return await device.ask(scene.connection, device.batch_close(batch, own))


@pytest.fixture
async def scene(switch: Switch, connection: Connection) -> AsyncIterator[Scene]:
    """With tills of its own, whose batches nobody else has a part in."""
    async with switch.operator():
        yield Scene(switch, connection, shares_tills=False)


# What was done; then by number and amount: credits, credit reversals, debits, debit reversals.
COUNTED = """
    | 0 0 | 0 0 | 0 0 | 0 0
    purchase 850 | 0 0 | 0 0 | 1 850 | 0 0
    purchase 850, purchase 1 | 0 0 | 0 0 | 2 851 | 0 0
    purchase 850 2=other, purchase 400 3=002000 | 0 0 | 0 0 | 2 1250 | 0 0
    purchase 1501 !51, purchase 0 !13, purchase 1 2=unknown !14 | 0 0 | 0 0 | 0 0 | 0 0
    purchase 1 42=M2 !58, balance, verify | 0 0 | 0 0 | 0 0 | 0 0
    offline 2000 | 0 0 | 0 0 | 1 2000 | 0 0
    bill 300 | 0 0 | 0 0 | 1 300 | 0 0
    load 500 | 1 500 | 0 0 | 0 0 | 0 0
    purchase 850, refund #1 300 | 1 300 | 0 0 | 1 850 | 0 0
    purchase 850, refund #1 300, refund #1 550, refund #1 1 !61 | 2 850 | 0 0 | 1 850 | 0 0
    purchase 850, void #1 | 0 0 | 0 0 | 1 850 | 1 850
    purchase 850, void #1 4=1, void #1 !12 | 0 0 | 0 0 | 1 850 | 1 850
    purchase 850, reverse #1 | 0 0 | 0 0 | 1 850 | 1 850
    purchase 850, reverse #1, reverse #1 | 0 0 | 0 0 | 1 850 | 1 850
    purchase 850, refund #1 300, reverse #1 | 1 300 | 0 0 | 1 850 | 1 550
    purchase 850, refund #1 850, reverse #1 | 1 850 | 0 0 | 1 850 | 1 0
    purchase 850, refund #1 300, reverse #2 | 1 300 | 1 300 | 1 850 | 0 0
    offline 2000, reverse #1 | 0 0 | 0 0 | 1 2000 | 1 2000
    load 500, reverse #1 | 1 500 | 1 500 | 0 0 | 0 0
    bill 300, reverse #1 | 0 0 | 0 0 | 1 300 | 1 300
    purchase 850, void #1, reverse #2 | 0 0 | 0 0 | 1 850 | 1 850
    prepare purchase 850, reverse #1, send #1 !12 | 0 0 | 0 0 | 0 0 | 0 0
    purchase 1501 !51, reverse #1 | 0 0 | 0 0 | 0 0 | 0 0
    purchase 850, send #1, send #1 t=0201, send #1 2=other !94 | 0 0 | 0 0 | 1 850 | 0 0
    lose, lose, find | 0 0 | 0 0 | 0 0 | 0 0
    load 500, purchase 850, bill 70, refund #2 50, reverse #1, void #2 !12 | 2 550 | 1 500 | 2 920 | 0 0
    purchase 850 60=000002 | 0 0 | 0 0 | 0 0 | 0 0
    purchase 850 60=000002, purchase 1 60=000001 | 0 0 | 0 0 | 1 1 | 0 0
    purchase 850 60=000002, void #1 60=000001 | 0 0 | 0 0 | 0 0 | 1 850
    purchase 850, reverse #1 60=000002 | 0 0 | 0 0 | 1 850 | 0 0
"""

COUNTED_AT_THE_TAP = """
    hold 400 | 0 0 | 0 0 | 0 0 | 0 0
    hold 400, complete #1 300 | 0 0 | 0 0 | 1 300 | 0 0
    hold 400, complete #1 0 | 0 0 | 0 0 | 1 0 | 0 0
    hold 400, complete #1 300, reverse #2 | 0 0 | 0 0 | 1 300 | 1 300
    hold 400, reverse #1 | 0 0 | 0 0 | 0 0 | 0 0
    hold 400, complete #1 300, reverse #1 | 0 0 | 0 0 | 1 300 | 0 0
    hold 400, complete #1 401 !61 | 0 0 | 0 0 | 0 0 | 0 0
    purchase 850, offline 20 | 0 0 | 0 0 | 2 870 | 0 0
"""


def counted(text: str) -> list[tuple[str, tuple[int, ...]]]:
    rows = [[column.strip() for column in line.split("|")] for line in text.splitlines() if line.strip()]
    return [(done, tuple(int(number) for column in columns for number in column.split())) for done, *columns in rows]


@pytest.mark.parametrize(
    ("till", "done", "expected"),
    [
        *(("counter", done, expected) for done, expected in counted(COUNTED)),
        *(("water", done, expected) for done, expected in counted(COUNTED_AT_THE_TAP)),
    ],
)
async def test_what_a_batch_counts(scene: Scene, till: str, done: str, expected: tuple[int, ...]) -> None:
    await scene.do(done, till)
    assert await totals(scene, till, 1) == expected
    for place in range(8):
        wrong = [total + (at == place) for at, total in enumerate(expected)]
        answer = await close(scene, till, 1, wrong)
        assert (answer.code, totals_of(answer)) == ("95", expected)
    assert (await close(scene, till, 1, expected)).code == "00"
    # The next batch is open: what names none is in it.
    before = await totals(scene, till, 2)
    await scene.do("purchase 7 2=other 3=001000", till)
    number, amount = before[4:6]
    assert await totals(scene, till, 2) == (*before[:4], number + 1, amount + 7, *before[6:])
    assert await totals(scene, till, 1) == expected


async def test_what_a_batch_close_answers(scene: Scene) -> None:
    device = await scene.till("pos")
    await scene.do("purchase 850, purchase 1")
    request = device.batch_close(1, IMPOSSIBLE, de24="003")
    position = await scene.record()
    differs = await device.ask(scene.connection, request)
    none = {**dict.fromkeys(("74", "75", "76", "77"), "0" * 10), **dict.fromkeys(("86", "87", "88", "89"), "0" * 16)}
    own = {**none, "76": f"{2:010}", "88": f"{851:016}"}
    assert differs.fields == {**reply_to(request, "95"), **own, "37": f"{position + 1:012}"}
    # It stays what it was, whatever happens in the meantime.
    await scene.do("purchase 100 3=001000")
    assert (await device.ask(scene.connection, request)).message == differs.message
    assert (await device.ask(scene.connection, {**request, "t": "0501"})).content == differs.content
    other = {**request, "2": scene.other}
    assert (await device.ask(scene.connection, other)).fields == reply_to(other, "94")

    request = device.batch_close(1, (0, 0, 0, 0, 3, 951, 0, 0))
    position = await scene.record()
    equal = await device.ask(scene.connection, request)
    assert equal.fields == {**reply_to(request, "00"), "37": f"{position + 1:012}"}, "no totals, no approval code"
    await scene.do("purchase 9 3=001000 60=000001")
    assert (await device.ask(scene.connection, request)).message == equal.message
    assert await totals(scene, "pos", 1) == (0, 0, 0, 0, 4, 960, 0, 0), "what comes late for a batch is counted there"
    assert (await close(scene, "pos", 1, (0, 0, 0, 0, 4, 960, 0, 0))).code == "00", "and it can be closed again"


async def test_the_open_batch_is_the_one_after_the_last_that_was_closed(scene: Scene) -> None:
    assert (await close(scene, "pos", 7, NOTHING)).code == "00"
    await scene.do("purchase 850")
    assert await totals(scene, "pos", 8) == (0, 0, 0, 0, 1, 850, 0, 0)
    assert (await close(scene, "pos", 3, NOTHING)).code == "00"
    await scene.do("purchase 1 3=001000")
    assert await totals(scene, "pos", 8) == (0, 0, 0, 0, 2, 851, 0, 0), "an older one does not open another"
    assert (await close(scene, "pos", 8, NOTHING)).code == "95"
    await scene.do("purchase 1 3=001000")
    assert await totals(scene, "pos", 8) == (0, 0, 0, 0, 3, 852, 0, 0), "nor does one that differs"


async def test_after_the_last_number_no_other_batch_opens(scene: Scene) -> None:
    assert (await close(scene, "pos", 999_999, NOTHING)).code == "00"
    await scene.do("purchase 850")
    assert (await close(scene, "pos", 999_999, (0, 0, 0, 0, 1, 850, 0, 0))).code == "00"
    await scene.do("purchase 1 3=001000")
    assert await totals(scene, "pos", 999_999) == (0, 0, 0, 0, 2, 851, 0, 0)


async def test_a_batch_is_its_terminals_own(scene: Scene) -> None:
    await scene.do("purchase 850, purchase 1 @pos2 3=001000, void #1 @pos2")
    assert await totals(scene, "pos", 1) == (0, 0, 0, 0, 1, 850, 0, 0)
    assert await totals(scene, "pos2", 1) == (0, 0, 0, 0, 1, 1, 1, 850)


@pytest.mark.parametrize("missing", ["60", *TOTALS])
async def test_a_batch_close_without_what_it_needs_is_answered_30(scene: Scene, missing: str) -> None:
    device = await scene.till("pos")
    request = device.batch_close(1, NOTHING, **{f"de{missing}": None})
    position = await scene.record()
    assert (await device.ask(scene.connection, request)).fields == reply_to(request, "30")
    assert await scene.record() == position + 1


BATCH_CODES: list[tuple[dict[str, str | None], str]] = [
    ({"de60": "000000"}, "30"),
    ({"de60": "00001"}, "30"),
    ({"de60": "00000A"}, "30"),
    ({"de42": "M2"}, "58"),
    ({"de13": f"{today(-8):%m%d}"}, "12"),
]


@pytest.mark.parametrize(("change", "code"), BATCH_CODES)
async def test_a_batch_close_that_is_not_decided(scene: Scene, change: dict[str, str | None], code: str) -> None:
    device = await scene.till("pos")
    request = device.batch_close(1, NOTHING, **change)
    assert (await device.ask(scene.connection, request)).fields == reply_to(request, code)


@pytest.mark.parametrize("till", ["pos", "kiosk", "counter", "water", "gate", "library", "meter"])
async def test_every_kind_closes_its_batch(scene: Scene, till: str) -> None:
    assert (await close(scene, till, 1, NOTHING)).code == "00"
    assert (await close(scene, till, 2, (0, 0, 0, 0, 0, 0, 0, 1))).code == "95"


# --- events ---

EVENTS = table(
    """
    | event 01 | 00 | 4304TRIP
    | event 02 | 00 | 4304NONE
    | event 03 | 00 | 4304TRIP
    | event 04 | 00 | 4304NONE
    | event 01 DORM-3-417 | 00 | 4304TRIP
    | event 01 DORM-3-417 2350W | 00 | 4304TRIP
    | event 02 DORM-3-417 42=- 60=000001 24=003 | 00 | 4304NONE
    | event 02 48=400202420523.5A | 00 | 4304NONE
    event 01 | event 01 | 00 | 4304TRIP
    | event 01 13=-1 | 00 | 4304TRIP
    | event 00 | 30
    | event 05 | 30
    | event 1 | 30
    | event 0A | 30
    | event 01 48=- | 30
    | event 01 48=4103ABC | 30
    | event 01 60=000000 | 30
    | event 01 42=M2 | 58
    | event 01 @pos | 58
    | event 01 13=-8 | (12)
    """,
    "48",
)


@decisions(EVENTS)
async def test_events(scene: Scene, row: Row) -> None:
    await scene.decide(row)


# --- the business day ---


async def test_a_new_business_day(clock: Clock, make_switch: Callable[..., Switch]) -> None:
    """What a sale of yesterday can no more, and what happens to a hold that nobody completes."""
    switch = make_switch(policy_hold_hours=36)
    await in_thread(switch.start)
    await switch.enter(MERCHANTS)
    async with switch.connect() as connection:
        scene = Scene(switch, connection)
        await scene.do("hold 400, purchase 500 3=001000, hold 500, offline 20, purchase 30 3=002000")
        assert await scene.purses() == (0, 450)

        clock.set(1)
        await until(partial(business_date, switch), lambda date: date == today(1).isoformat())
        device = await scene.till("pos")
        told = await device.ask(connection, device.balance(scene.card))
        assert (told.fields["15"], told.purses) == (f"{today(1):%m%d}", (0, 450)), "the holds are not old enough"
        await scene.do("void #2 !12, void #4 !12, refund #2 500, refund #4 20, reverse #5")
        assert await scene.purses() == (500, 500)

        clock.set(2)
        await until(scene.purses, lambda purses: purses == (1000, 500))
        await scene.do("complete #1 400 !12, complete #3 0 !12, reverse #1")
        assert await scene.purses() == (1000, 500), "they were free already"


async def business_date(switch: Switch) -> str:
    found: str = (await switch.http("GET", "/v1/statistics")).json()["business_date"]
    return found
