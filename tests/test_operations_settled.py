"""Every operation of the protocol in PostgreSQL: one day of a small campus, asked for by card, merchant, terminal and day."""

import csv
import datetime
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest
import trio

from switch.postgres import EmbeddedPostgres
from switch.settlement import Settlement
from tests.clock import Clock
from tests.conftest import execute, fetch, run_asyncio
from tests.documented import BLOCK, blocks, own_text, rows
from tests.switch_process import (
    CARDS_HEADER,
    FAR_FUTURE,
    TERMINALS_HEADER,
    Answer,
    Connection,
    Device,
    Fields,
    Switch,
    in_thread,
    today,
    until,
)

MERCHANTS: Final = """merchant_id,name,category,fee_bp
CANTEEN,North canteen,canteen,0
SHOP,Corner shop,shop,0
BATH,Bath house,bath,0
OFFICE,Student office,office,0
LIBRARY,Library,library,0
GATES,Gates,gate,0
POWER,Power,utility,0
"""
TERMINALS: Final = {
    "POS": ("CANTEEN", "pos", "NORTH"),
    "SHOP": ("SHOP", "pos", ""),
    "COUNTER": ("OFFICE", "counter", ""),
    "KIOSK": ("OFFICE", "kiosk", ""),
    "WATER": ("BATH", "water", ""),
    "GATE": ("GATES", "gate", "DORM-3"),
    "LIBRARY": ("LIBRARY", "library", "HALL"),
    "METER": ("POWER", "meter", ""),
}
RULES: Final = """rule,class,category,zone,days,from,to,value
surcharge,student,shop,,,,,1000
surcharge,teacher,canteen,,,,,-2000
door,student,,DORM-3,,,,
day_max,*,*,,,,,900000
"""
STUDENT, TEACHER, POOR, LOST, STRANGER = (f"623000000000000{number}" for number in range(1, 6))
CARDS: Final = {
    STUDENT: ("student", "active", 100_000, 5_000),
    TEACHER: ("teacher", "active", 50_000, 0),
    POOR: ("student", "active", 100, 0),
    LOST: ("student", "lost", 10_000, 0),
}


def money(amount: int) -> str:
    return f"{amount:012}"


def tags(**elements: str) -> str:
    """DE48: `t40="01"` and so on."""
    return "".join(f"{tag[1:]}{len(value):02}{value}" for tag, value in elements.items())


async def found_campus(switch: Switch) -> dict[str, Device]:
    """Everybody who takes part, each terminal signed on."""
    await switch.enter(MERCHANTS)
    devices = {name: Device(name, merchant, bytes([number]) * 16) for number, (name, (merchant, _, _)) in enumerate(TERMINALS.items())}
    rows = [f"{name},{merchant},{kind},{zone},{devices[name].master_key.hex()}" for name, (merchant, kind, zone) in TERMINALS.items()]
    await switch.enter("\n".join([TERMINALS_HEADER, *rows]))
    rows = [
        f"{number},H{number[-1]},{card},{status},{FAR_FUTURE},{cash},{subsidy}" for number, (card, status, cash, subsidy) in CARDS.items()
    ]
    await switch.enter("\n".join([CARDS_HEADER, *rows]))
    return devices


class Day:
    """What was asked, by a name, with its answer and its transaction number."""

    def __init__(self, switch: Switch) -> None:
        self.switch = switch
        self.devices: dict[str, Device] = {}
        self.positions: dict[str, int] = {}
        self.asked: dict[str, Fields] = {}
        self.answered: list[tuple[dict[str, str], int]] = []
        """Of `switch_requests_total` at the end: labels, count."""
        self._connection: Connection | None = None

    async def ask(self, name: str, terminal: str, mti: str, code: str, **elements: str | None) -> Answer:
        return await self.send(name, terminal, self.devices[terminal].message(mti, **elements), code)

    async def send(self, name: str, terminal: str, fields: Fields, code: str) -> Answer:
        assert self._connection is not None
        answer = await self.devices[terminal].ask(self._connection, fields)
        assert answer.code == code, (name, answer.fields)
        self.asked[name] = fields
        if "37" in answer.fields:
            self.positions[name] = int(answer.fields["37"])
        return answer

    def number(self, name: str) -> str:
        """DE37 of what was asked before."""
        return f"{self.positions[name]:012}"

    async def settle(self) -> None:
        """Until PostgreSQL has all that was asked: what comes next is in another chunk, and finds it there."""
        last = max(self.positions.values())
        await until(self.switch.metrics, lambda metrics: metrics.value("switch_settled_position") >= last)

    async def undo(self, name: str, original: str, terminal: str) -> None:
        await self.send(name, terminal, self.devices[terminal].reversal(self.asked[original]), "00")

    async def run(self) -> None:
        self.devices = await found_campus(self.switch)
        await self.switch.enter(RULES)
        await self.switch.enter(f"card_number,pin\n{STUDENT},4711\n")
        async with self.switch.connect() as connection:
            self._connection = connection
            for device in self.devices.values():
                await device.sign_on(connection)
            await self.sales()
            await self.money()
            await self.water()
            await self.offline()
            await self.cards()
            await self.batches()
        requests = (await self.switch.metrics()).families["switch_requests"]
        self.answered = [(sample.labels, int(sample.value)) for sample in requests.samples]
        await self.switch.enter("terminal_id,standing\nMETER,suspended\n")

    async def sale(self, name: str, terminal: str, card: str, amount: int, code: str = "00", mti: str = "0200", **more: str) -> None:
        await self.ask(name, terminal, mti, code, **{"de2": card, "de3": "000000", "de4": money(amount), "de49": "156", **more})

    async def sales(self) -> None:
        await self.sale("lunch", "POS", STUDENT, 850)
        await self.sale("pens", "SHOP", STUDENT, 1000)
        await self.sale("dinner", "POS", TEACHER, 1000)
        await self.sale("too much", "POS", POOR, 300, "51")
        await self.ask("refund", "SHOP", "0200", "00", de3="200000", de4=money(500), de37=self.number("pens"))
        await self.ask("too much back", "SHOP", "0200", "61", de3="200000", de4=money(501), de37=self.number("pens"))
        await self.ask("void", "POS", "0200", "00", de3="020000", de4=money(77), de37=self.number("lunch"))
        await self.undo("dinner back", "dinner", "POS")
        await self.ask("nothing to void", "POS", "0200", "25", de3="020000", de37="000000000001")

    async def money(self) -> None:
        await self.ask("load", "COUNTER", "0200", "00", de2=STUDENT, de3="210000", de4=money(20_000))
        await self.ask("load in error", "COUNTER", "0200", "00", de2=POOR, de3="210000", de4=money(600))
        await self.undo("load back", "load in error", "COUNTER")
        for name, kind, bill, amount in (("tuition", "01", "2026-1", 3000), ("power", "02", "D3 412", 500)):
            elements = {"de2": STUDENT, "de3": "500000", "de4": money(amount), "de48": tags(t30=kind, t31=bill)}
            await self.ask(name, "KIOSK", "0200", "00", **elements)
        await self.undo("power back", "power", "KIOSK")

    async def water(self) -> None:
        for name, amount in (("bath", 2000), ("open hold", 700), ("hold in error", 300)):
            await self.ask(name, "WATER", "0100", "00", de2=STUDENT, de3="000000", de4=money(amount))
        await self.settle()
        await self.ask("bath taken", "WATER", "0220", "00", de3="000000", de4=money(1500), de37=self.number("bath"))
        await self.ask("bath again", "WATER", "0220", "12", de3="000000", de4=money(1500), de37=self.number("bath"))
        await self.undo("hold back", "hold in error", "WATER")

    async def offline(self) -> None:
        await self.sale("by a lost card", "POS", LOST, 300, mti="0220")
        await self.sale("into debt", "POS", POOR, 400, mti="0220", de60="000002")
        await self.sale("by a stranger", "POS", STRANGER, 200, "14", mti="0220")
        await self.sale("late", "POS", STUDENT, 100, "12", mti="0220", de13=f"{today(-40):%m%d}")
        assert "late" not in self.positions
        await self.sale("of a newer terminal", "POS", STUDENT, 300, "12", mti="0220", de3="770000")
        back = {**self.devices["POS"].reversal(self.asked["late"]), "13": f"{today():%m%d}"}
        await self.send("late back", "POS", back, "12")
        assert "late back" not in self.positions

    async def cards(self) -> None:
        await self.ask("in", "GATE", "0100", "00", de2=STUDENT, de3="910000")
        await self.ask("not in", "GATE", "0100", "57", de2=TEACHER, de3="910000")
        await self.ask("was in", "GATE", "0120", "00", de2=LOST, de3="910000")
        await self.ask("out", "GATE", "0100", "00", de2=STUDENT, de3="920000")
        # It was before that, and is told of behind it.
        await self.ask("was in before", "GATE", "0120", "00", de2=STUDENT, de3="910000", de13=f"{today(-1):%m%d}")
        await self.ask("present", "GATE", "0100", "00", de2=STUDENT, de3="950000")
        await self.ask("present at seven", "GATE", "0120", "00", de2=STUDENT, de3="950000", de12="070000")
        await self.ask("present before", "GATE", "0120", "00", de2=TEACHER, de3="950000", de12="080000", de13=f"{today(-1):%m%d}")
        await self.ask("not known", "GATE", "0120", "14", de2=STRANGER, de3="910000")
        await self.ask("seen", "GATE", "0120", "00", de2=TEACHER, de3="900000")
        loans = (
            *(("borrow", "0100", "00", STUDENT, "930000", "QA76"), ("lent", "0100", "12", TEACHER, "930000", "QA76")),
            *(("not his", "0100", "57", TEACHER, "940000", "QA76"), ("return", "0120", "00", STUDENT, "940000", "QA76")),
            *(("keep", "0120", "00", STUDENT, "930000", "PR9199"), ("no loan", "0120", "25", STUDENT, "940000", "ZZ1")),
        )
        for name, mti, code, card, processing, item in loans:
            if name == "return":
                await self.settle()
            await self.ask(name, "LIBRARY", mti, code, de2=card, de3=processing, de48=tags(t11=item))
        for name, kind in (("lost", "1"), ("found", "3"), ("lost again", "1")):
            await self.ask(name, "KIOSK", "0300", "00", de2=TEACHER, de91=kind, de101="HOTLIST")
        for name, report in (
            ("overload", tags(t40="01", t41="D3-412", t42="4500 W")),
            ("fire", tags(t40="03", t41='the "old" hall')),
            ("restored", tags(t40="04", t42="230")),
        ):
            await self.ask(name, "METER", "0600", "00", de48=report)

    async def batches(self) -> None:
        def totals(*numbers: int, **amounts: int) -> Fields:
            counted = {f"de{74 + place}": f"{number:010}" for place, number in enumerate(numbers)}
            return counted | {f"de{element}": f"{amounts.get(f'a{element}', 0):016}" for element in (86, 87, 88, 89)}

        await self.settle()
        await self.ask("water batch", "WATER", "0500", "00", de60="000001", **totals(0, 0, 1, 0, a88=1500))
        await self.ask("wrong batch", "POS", "0500", "95", de60="000001", **totals(0, 0, 3, 0, a88=2150))
        await self.ask("next bath", "WATER", "0100", "00", de2=STUDENT, de3="000000", de4=money(100))
        await self.ask("next bath taken", "WATER", "0220", "00", de3="000000", de4=money(0), de37=self.number("next bath"))


class Asked:
    """PostgreSQL after the day."""

    def __init__(self, day: Day, url: str) -> None:
        self.day = day
        self.url = url

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return run_asyncio(fetch(self.url, query))

    def column(self, query: str) -> list[Any]:
        return [row[0] for row in self.rows(query)]

    def by_name(self, query: str) -> dict[str, tuple[Any, ...]]:
        """Rows whose first column is the position, by what was asked."""
        names = {position: name for name, position in self.day.positions.items()}
        return {names[row[0]]: row[1:] for row in self.rows(query) if row[0] in names}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, embedded_postgres: EmbeddedPostgres) -> Iterator[Asked]:
    name = "operations_settled"
    run_asyncio(execute(embedded_postgres.url, f"CREATE DATABASE {name}"))
    url = embedded_postgres.url.replace("/switch?", f"/{name}?")
    day = Day(Switch(tmp_path_factory.mktemp("campus") / "data", database=url))
    day.switch.start()
    trio.run(day.run)
    trio.run(settled, day.switch)
    day.switch.stop()
    yield Asked(day, url)
    day.switch.close()
    run_asyncio(execute(embedded_postgres.url, f"DROP DATABASE {name} WITH (FORCE)"))


async def settled(switch: Switch) -> None:
    """Until PostgreSQL is followed; the end of the switch brings the rest."""
    await until(switch.metrics, lambda metrics: metrics.value("switch_settled_position") >= 1)


SALES: Final = {
    # name: operation, response, merchant, card, amount, cash, subsidy, surcharge, flag, original
    "lunch": ("purchase", "00", "CANTEEN", STUDENT, 850, 0, 850, None, None, None),
    "pens": ("purchase", "00", "SHOP", STUDENT, 1000, 1100, 0, 100, None, None),
    "dinner": ("purchase", "00", "CANTEEN", TEACHER, 1000, 800, 0, -200, None, None),
    "too much": ("purchase", "51", "CANTEEN", POOR, 300, 0, 0, None, None, None),
    "refund": ("refund", "00", "SHOP", STUDENT, 500, 550, 0, 50, None, "pens"),
    "too much back": ("refund", "61", "SHOP", STUDENT, 501, 0, 0, None, None, "pens"),
    "void": ("void", "00", "CANTEEN", STUDENT, 850, 0, 850, None, None, "lunch"),
    "dinner back": ("reversal", "00", "CANTEEN", TEACHER, 1000, 800, 0, -200, None, "dinner"),
    "nothing to void": ("void", "25", "CANTEEN", None, 0, 0, 0, None, None, 1),
    "load": ("load", "00", "OFFICE", STUDENT, 20_000, 20_000, 0, None, None, None),
    "load in error": ("load", "00", "OFFICE", POOR, 600, 600, 0, None, None, None),
    "load back": ("reversal", "00", "OFFICE", POOR, 600, 600, 0, None, None, "load in error"),
    "tuition": ("bill_payment", "00", "OFFICE", STUDENT, 3000, 3000, 0, None, None, None),
    "power": ("bill_payment", "00", "OFFICE", STUDENT, 500, 500, 0, None, None, None),
    "power back": ("reversal", "00", "OFFICE", STUDENT, 500, 500, 0, None, None, "power"),
    "bath": ("hold", "00", "BATH", STUDENT, 2000, 2000, 0, None, None, None),
    "open hold": ("hold", "00", "BATH", STUDENT, 700, 700, 0, None, None, None),
    "hold in error": ("hold", "00", "BATH", STUDENT, 300, 300, 0, None, None, None),
    "bath taken": ("completion", "00", "BATH", STUDENT, 1500, 1500, 0, None, None, "bath"),
    "bath again": ("completion", "12", "BATH", STUDENT, 1500, 0, 0, None, None, "bath"),
    "hold back": ("reversal", "00", "BATH", STUDENT, 300, 300, 0, None, None, "hold in error"),
    "by a lost card": ("offline_sale", "00", "CANTEEN", LOST, 300, 300, 0, None, "41", None),
    "of a newer terminal": ("unknown", "12", "CANTEEN", STUDENT, 300, 0, 0, None, None, None),
    "into debt": ("offline_sale", "00", "CANTEEN", POOR, 400, 400, 0, None, "51", None),
    "by a stranger": ("offline_sale", "14", "CANTEEN", STRANGER, 200, 0, 0, None, None, None),
    "next bath": ("hold", "00", "BATH", STUDENT, 100, 100, 0, None, None, None),
    "next bath taken": ("completion", "00", "BATH", STUDENT, 0, 0, 0, None, None, "next bath"),
}
OTHERS: Final = {
    # name: operation, response, terminal, card, is_advice, flag, detail
    "in": ("enter", "00", "GATE", STUDENT, False, None, "DORM-3"),
    "not in": ("enter", "57", "GATE", TEACHER, False, None, "DORM-3"),
    "was in": ("enter", "00", "GATE", LOST, True, "41", "DORM-3"),
    "was in before": ("enter", "00", "GATE", STUDENT, True, None, "DORM-3"),
    "out": ("leave", "00", "GATE", STUDENT, False, None, "DORM-3"),
    "present": ("attendance", "00", "GATE", STUDENT, False, None, "DORM-3"),
    "present at seven": ("attendance", "00", "GATE", STUDENT, True, None, "DORM-3"),
    "present before": ("attendance", "00", "GATE", TEACHER, True, None, "DORM-3"),
    "not known": ("enter", "14", "GATE", STRANGER, True, None, "DORM-3"),
    "seen": ("verify", "00", "GATE", TEACHER, True, None, "DORM-3"),
    "borrow": ("borrow", "00", "LIBRARY", STUDENT, False, None, "QA76"),
    "lent": ("borrow", "12", "LIBRARY", TEACHER, False, None, "QA76"),
    "not his": ("return", "57", "LIBRARY", TEACHER, False, None, "QA76"),
    "return": ("return", "00", "LIBRARY", STUDENT, True, None, "QA76"),
    "keep": ("borrow", "00", "LIBRARY", STUDENT, True, None, "PR9199"),
    "no loan": ("return", "25", "LIBRARY", STUDENT, True, None, "ZZ1"),
    "lost": ("loss", "00", "KIOSK", TEACHER, False, None, None),
    "found": ("found", "00", "KIOSK", TEACHER, False, None, None),
    "lost again": ("loss", "00", "KIOSK", TEACHER, False, None, None),
    "overload": ("event", "00", "METER", None, False, None, "overload D3-412 4500 W"),
    "fire": ("event", "00", "METER", None, False, None, 'fire "the ""old"" hall"'),
    "restored": ("event", "00", "METER", None, False, None, 'restored "" 230'),
    "water batch": ("batch_close", "00", "WATER", None, False, None, None),
    "wrong batch": ("batch_close", "95", "POS", None, False, None, None),
}


def test_each_operation_is_a_row(asked: Asked) -> None:
    rows = asked.by_name(
        "SELECT position, operation, response, merchant_id, card_number, amount, cash, subsidy, surcharge, flag, original FROM transaction"
    )
    expected = {
        name: (*row[:-1], asked.day.positions.get(row[-1], row[-1]) if isinstance(row[-1], str) else row[-1]) for name, row in SALES.items()
    }
    assert {name: rows[name] for name in expected} == expected
    others = asked.by_name("SELECT position, operation, response, terminal_id, card_number, is_advice, flag, detail FROM transaction")
    assert {name: others[name] for name in OTHERS} == OTHERS
    assert set(rows) == set(SALES) | set(OTHERS) == set(asked.day.positions)
    dates = asked.column("SELECT DISTINCT business_date FROM transaction")
    assert dates == [today()]
    (signed_on,) = asked.column("SELECT count(*) FROM transaction WHERE operation = 'sign_on'")
    assert signed_on == len(TERMINALS)


def test_what_a_sale_was_and_what_undid_it_have_the_same_holder(asked: Asked) -> None:
    rows = asked.by_name("SELECT position, card_number, holder_id FROM transaction WHERE card_number IS NOT NULL")
    for card, holder in rows.values():
        assert holder == (None if card == STRANGER else f"H{card[-1]}")
    advices = asked.by_name("SELECT position FROM transaction WHERE is_advice")
    told = {"of a newer terminal", "by a lost card", "into debt", "by a stranger", "bath taken", "bath again", "next bath taken"}
    assert set(advices) == told | {name for name, row in OTHERS.items() if row[4]}


def test_operations_are_found_by_card_merchant_terminal_and_day(asked: Asked) -> None:
    for column, value, names in (
        ("card_number", LOST, {"by a lost card", "was in"}),
        ("merchant_id", "SHOP", {"pens", "refund", "too much back"}),
        ("terminal_id", "METER", {"overload", "fire", "restored"}),
        ("business_date", str(today()), set(asked.day.positions)),
        ("original", str(asked.day.positions["pens"]), {"refund", "too much back"}),
    ):
        assert set(asked.by_name(f"SELECT position FROM transaction WHERE {column} = '{value}'")) == names  # noqa: S608
    (refunds,) = asked.column(f"SELECT count(*) FROM transaction WHERE original = {asked.day.positions['pens']} AND response = '00'")  # noqa: S608
    assert refunds == 1


def test_what_was_not_posted_waits_for_a_person(asked: Asked) -> None:
    rows = asked.rows(
        "SELECT kind, operation, response, terminal_id, merchant_id, card_number, amount, detail FROM exception ORDER BY position"
    )
    first, last = today(-7), today(1)
    none = "0 credits of 0 fen, 0 credit reversals of 0 fen"
    stan = asked.day.asked["late"]["11"]
    terminal = f"terminal: 3 debits of 2150 fen, 0 debit reversals of 0 fen, {none}"
    own = f"switch: 3 debits of 2150 fen, 2 debit reversals of 1850 fen, {none}"
    assert rows == [
        (
            *("advice_not_posted", "completion", "12", "WATER", "BATH", STUDENT, 1500),
            "completion of 1500 fen: the hold was completed or reversed, or has lapsed; or this completion was reversed before it came",
        ),
        ("advice_not_posted", "offline_sale", "14", "POS", "CANTEEN", STRANGER, 200, "offline sale of 200 fen: no such card"),
        (
            *("advice_outside_window", "offline_sale", "12", "POS", "CANTEEN", STUDENT, 100),
            f"offline sale of 100 fen, dated {today(-40)}: taken are {first} to {last}",
        ),
        (
            *("advice_not_posted", "unknown", "12", "POS", "CANTEEN", STUDENT, 300),
            "operation 770000 of 300 fen: the switch knows no such operation",
        ),
        (
            *("reversal_outside_window", "reversal", "12", "POS", "CANTEEN", STUDENT, 100),
            f"reversal of 100 fen, of the message with DE11 {stan} of {today(-40)}, dated {today()}: taken are {first} to {last}",
        ),
        ("advice_not_posted", "enter", "14", "GATE", "GATES", STRANGER, None, "enter: no such card"),
        ("advice_not_posted", "return", "25", "LIBRARY", "LIBRARY", STUDENT, None, "return of ZZ1: the item is not on loan"),
        (
            *("batch_totals_differ", "batch_close", "95", "POS", "CANTEEN", None, None),
            f"batch 1; {terminal}; {own}",
        ),
    ]
    ((date, local, stan),) = asked.rows("SELECT business_date, local_time, stan FROM exception WHERE kind = 'advice_outside_window'")
    late = asked.day.asked["late"]
    assert (date, local.date(), f"{local:%H%M%S}", f"{stan:06}") == (today(), today(-40), late["12"], late["11"])
    # Both are transactions too, which no terminal knows by a number.
    told = asked.rows(f"SELECT operation, response, is_advice FROM transaction WHERE local_time < '{today(-7)}'")  # noqa: S608
    assert told == [("offline_sale", "12", True)]


def test_open_holds_and_what_they_hold(asked: Asked) -> None:
    holds = asked.rows("SELECT position, terminal_id, merchant_id, card_number, holder_id, amount FROM hold")
    assert holds == [(asked.day.positions["open hold"], "WATER", "BATH", STUDENT, "H1", 700)]
    (decided,) = asked.column(f"SELECT at FROM transaction WHERE position = {holds[0][0]}")  # noqa: S608
    assert asked.column("SELECT at FROM hold") == [decided]
    assert asked.rows("SELECT kind, owner, holds FROM account WHERE holds <> 0") == [("cash", "H1", 700)]


def test_open_loans_and_an_items_history(asked: Asked) -> None:
    assert asked.rows("SELECT item, position, business_date, card_number, holder_id FROM loan") == [
        ("PR9199", asked.day.positions["keep"], today(), STUDENT, "H1")
    ]
    history = asked.by_name("SELECT position, operation, response, card_number, zone, is_advice FROM identity_event WHERE item = 'QA76'")
    assert history == {
        "borrow": ("borrow", "00", STUDENT, "HALL", False),
        "lent": ("borrow", "12", TEACHER, "HALL", False),
        "not his": ("return", "57", TEACHER, "HALL", False),
        "return": ("return", "00", STUDENT, "HALL", True),
    }
    (borrowed,) = asked.column(f"SELECT original FROM transaction WHERE position = {asked.day.positions['return']}")  # noqa: S608
    assert borrowed == asked.day.positions["borrow"]


def test_who_passed_a_door(asked: Asked) -> None:
    passed = asked.by_name(
        "SELECT position, operation, response, flag, is_advice, card_number, holder_id, item FROM identity_event WHERE zone = 'DORM-3'"
    )
    assert passed == {
        "in": ("enter", "00", None, False, STUDENT, "H1", None),
        "not in": ("enter", "57", None, False, TEACHER, "H2", None),
        "was in": ("enter", "00", "41", True, LOST, "H4", None),
        "was in before": ("enter", "00", None, True, STUDENT, "H1", None),
        "out": ("leave", "00", None, False, STUDENT, "H1", None),
        "present": ("attendance", "00", None, False, STUDENT, "H1", None),
        "present at seven": ("attendance", "00", None, True, STUDENT, "H1", None),
        "present before": ("attendance", "00", None, True, TEACHER, "H2", None),
        "not known": ("enter", "14", None, True, STRANGER, None, None),
        "seen": ("verify", "00", None, True, TEACHER, "H2", None),
    }


def test_bills_by_payee_and_reference(asked: Asked) -> None:
    assert asked.by_name("SELECT position, payee, reference, amount, undone, card_number FROM bill_payment") == {
        "tuition": ("tuition", "2026-1", 3000, None, STUDENT),
        "power": ("electricity", "D3 412", 500, asked.day.positions["power back"], STUDENT),
    }
    payees = asked.rows("SELECT owner, balance FROM account WHERE kind = 'payee' ORDER BY 1")
    assert payees == [("electricity", 0), ("tuition", 3000)]


def test_what_meters_reported(asked: Asked) -> None:
    assert asked.by_name("SELECT position, terminal_id, kind, place, value, is_tripped FROM meter_event") == {
        "overload": ("METER", "overload", "D3-412", "4500 W", True),
        "fire": ("METER", "fire", 'the "old" hall', None, True),
        "restored": ("METER", "restored", None, "230", False),
    }


def test_a_day_in_sums(asked: Asked) -> None:
    merchants = "('CANTEEN', 'SHOP', 'OFFICE', 'BATH')"
    rows = asked.rows(
        "SELECT merchant_id, operation, undone, response, sum(count)::int, sum(amount)::int, sum(cash)::int, sum(subsidy)::int,"  # noqa: S608
        f" sum(surcharge)::int FROM day_total WHERE business_date = '{today()}' AND merchant_id IN {merchants}"
        " AND operation NOT IN ('sign_on', 'batch_close', 'loss', 'found') GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
    )
    assert rows == [
        ("BATH", "completion", None, "00", 2, 1500, 1500, 0, 0),
        ("BATH", "completion", None, "12", 1, 1500, 0, 0, 0),
        ("BATH", "hold", None, "00", 4, 3100, 3100, 0, 0),
        ("BATH", "reversal", "hold", "00", 1, 300, 300, 0, 0),
        ("CANTEEN", "offline_sale", None, "00", 2, 700, 700, 0, 0),
        ("CANTEEN", "offline_sale", None, "12", 1, 100, 0, 0, 0),
        ("CANTEEN", "offline_sale", None, "14", 1, 200, 0, 0, 0),
        ("CANTEEN", "purchase", None, "00", 2, 1850, 800, 850, -200),
        ("CANTEEN", "purchase", None, "51", 1, 300, 0, 0, 0),
        ("CANTEEN", "reversal", "purchase", "00", 1, 1000, 800, 0, -200),
        ("CANTEEN", "reversal", None, "12", 1, 0, 0, 0, 0),
        ("CANTEEN", "unknown", None, "12", 1, 300, 0, 0, 0),
        ("CANTEEN", "void", None, "00", 1, 850, 0, 850, 0),
        ("CANTEEN", "void", None, "25", 1, 0, 0, 0, 0),
        ("OFFICE", "bill_payment", None, "00", 2, 3500, 3500, 0, 0),
        ("OFFICE", "load", None, "00", 2, 20_600, 20_600, 0, 0),
        ("OFFICE", "reversal", "bill_payment", "00", 1, 500, 500, 0, 0),
        ("OFFICE", "reversal", "load", "00", 1, 600, 600, 0, 0),
        ("SHOP", "purchase", None, "00", 1, 1000, 1100, 0, 100),
        ("SHOP", "refund", None, "00", 1, 500, 550, 0, 50),
        ("SHOP", "refund", None, "61", 1, 501, 0, 0, 0),
    ]


def test_spending_is_what_merchants_got_and_what_purses_paid(asked: Asked) -> None:
    async def spent() -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
        async with Settlement.connect(asked.url) as database:
            return (
                await database.spent("merchant_id"),
                await database.spent("terminal_id"),
                await database.spent("card_number"),
            )

    merchants, terminals, cards = run_asyncio(spent())
    assert {name: fen for name, fen in merchants.items() if fen} == {"CANTEEN": 700, "SHOP": 500, "BATH": 1500}
    assert {name: fen for name, fen in terminals.items() if fen} == {"POS": 700, "SHOP": 500, "WATER": 1500}
    assert {card: fen for card, fen in cards.items() if fen} == {STUDENT: 550 + 1500, POOR: 400, LOST: 300}
    balances = dict(asked.rows("SELECT owner, balance FROM account WHERE kind = 'merchant' AND balance <> 0"))
    assert balances == {name: fen for name, fen in merchants.items() if fen}
    # The rest of what the student's purses lost, or got, is the bill and the load.
    (purses,) = asked.column("SELECT sum(balance)::int FROM account WHERE owner = 'H1'")
    assert purses == 105_000 - cards[STUDENT] + 20_000 - 3000


def test_batches_as_they_stand(asked: Asked) -> None:
    rows = asked.rows(
        "SELECT terminal_id, number, status, closed_position, debit_count, debit_amount, debit_reversal_count, debit_reversal_amount,"
        " credit_count, credit_amount, credit_reversal_count, credit_reversal_amount FROM batch ORDER BY 1, 2"
    )
    positions = asked.day.positions
    assert rows == [
        ("COUNTER", 1, "open", None, 0, 0, 0, 0, 2, 20_600, 1, 600),
        ("KIOSK", 1, "open", None, 2, 3500, 1, 500, 0, 0, 0, 0),
        ("POS", 1, "differs", positions["wrong batch"], 3, 2150, 2, 1850, 0, 0, 0, 0),
        ("POS", 2, "open", None, 1, 400, 0, 0, 0, 0, 0, 0),
        ("SHOP", 1, "open", None, 1, 1000, 0, 0, 1, 500, 0, 0),
        ("WATER", 1, "closed", positions["water batch"], 1, 1500, 0, 0, 0, 0, 0, 0),
        ("WATER", 2, "open", None, 1, 0, 0, 0, 0, 0, 0, 0),
    ]
    (at,) = asked.column("SELECT closed_at FROM batch WHERE status = 'closed'")
    assert [at] == asked.column(f"SELECT at FROM transaction WHERE position = {positions['water batch']}")  # noqa: S608
    # Each transaction stands in the batch that it was counted to.
    held = asked.by_name("SELECT position FROM transaction WHERE terminal_id = 'POS' AND batch_number = 2 AND response = '00'")
    assert set(held) == {"into debt"}
    counted = asked.rows(
        "SELECT count(*) FILTER (WHERE operation IN ('purchase', 'offline_sale', 'completion', 'bill_payment'))::int,"
        " count(*) FILTER (WHERE operation IN ('refund', 'load'))::int FROM transaction"
        " WHERE terminal_id = 'POS' AND batch_number = 1 AND response = '00'"
    )
    assert counted == [(3, 0)]


def test_parties_are_as_they_stand(asked: Asked) -> None:
    assert dict(asked.rows("SELECT card_number, status FROM card")) == {STUDENT: "active", TEACHER: "lost", POOR: "active", LOST: "lost"}
    assert asked.column("SELECT card_number FROM card WHERE has_pin") == [STUDENT]
    assert asked.column("SELECT terminal_id FROM terminal WHERE standing = 'suspended'") == ["METER"]
    batches = dict(asked.rows("SELECT terminal_id, open_batch FROM terminal"))
    assert batches == {name: 2 if name == "WATER" else 1 for name in TERMINALS}


def test_rules_in_force_and_who_set_them(asked: Asked) -> None:
    rows = asked.rows("SELECT number, rule, class, category, zone, days, begins, ends, value FROM rule ORDER BY 1")
    assert rows == [
        (1, "day_max", "*", "*", "", "", "", "", "900000"),
        (2, "surcharge", "teacher", "canteen", "", "", "", "", "-2000"),
        (3, "surcharge", "student", "shop", "", "", "", "", "1000"),
        (4, "door", "student", "", "DORM-3", "", "", "", ""),
    ]
    actions = asked.rows("SELECT position, action, detail FROM operator_action ORDER BY 1")
    (position,) = asked.column("SELECT DISTINCT position FROM rule")
    assert (
        position,
        "rules",
        "4 rules: day_max,*,*,,,,,900000; surcharge,teacher,canteen,,,,,-2000; surcharge,student,shop,,,,,1000; door,student,,DORM-3,,,,",
    ) in actions
    said = [(action, detail) for _, action, detail in actions]
    assert ("policy", "amount_max 5000000 fen, identity_days 8, hold_hours 24, pin_tries_max 3") in said
    assert ("standing", "METER suspended") in said
    assert said.count(("import", "test.csv, 1 rows")) == 2, "of the PIN, and of the standing"
    assert "4711" not in str(said), "nobody can read a PIN there"


def test_ledger_and_postgresql_agree(asked: Asked) -> None:
    switch = asked.day.switch
    done = switch.command("reconcile", "--config", switch.file)
    found = json.loads(done.stdout)
    assert (done.returncode, found["ok"], found["differences"]) == (0, True, [])
    assert found["transactions"] == len(asked.day.positions) + 2 + len(TERMINALS)


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("UPDATE account SET holds = 1 WHERE owner = 'H2' AND kind = 'cash'", "has 0 fen on hold in the ledger and 1 fen in PostgreSQL."),
        ("UPDATE hold SET amount = 699", "has 700 fen on hold in PostgreSQL, but its open holds make 699."),
        ("UPDATE account SET balance = 1 WHERE kind = 'payee' AND balance = 0", "(payee electricity) has the balance 0 fen in the ledger"),
    ],
)
def test_a_hold_or_a_payee_that_is_wrong_is_found(asked: Asked, statement: str, sentence: str) -> None:
    switch = asked.day.switch
    saved = ("CREATE TABLE saved_account AS TABLE account", "CREATE TABLE saved_hold AS TABLE hold")
    back = (
        "DELETE FROM account",
        "INSERT INTO account TABLE saved_account",
        "DELETE FROM hold",
        "INSERT INTO hold TABLE saved_hold",
        "DROP TABLE saved_account, saved_hold",
    )
    run_asyncio(execute(asked.url, *saved, statement))
    try:
        done = switch.command("reconcile", "--config", switch.file)
    finally:
        run_asyncio(execute(asked.url, *back))
    assert done.returncode == 1
    assert any(sentence in difference for difference in json.loads(done.stdout)["differences"]), done.stdout


def test_what_people_ask_is_answered_by_indexes(asked: Asked) -> None:
    async def plan(query: str) -> str:
        connection = await asyncpg.connect(asked.url, server_settings={"enable_seqscan": "off"})
        try:
            return "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {query}"))
        finally:
            await connection.close()

    for query, index in (
        ("SELECT * FROM transaction WHERE original = 7", "original_idx"),
        ("SELECT * FROM identity_event WHERE item = 'QA76'", "operation_detail_idx"),
        ("SELECT * FROM identity_event WHERE zone = 'DORM-3'", "operation_detail_idx"),
        ("SELECT * FROM meter_event", "operation_detail_idx"),
        ("SELECT * FROM bill_payment WHERE card_number = '1'", "original_idx"),
        ("SELECT * FROM bill_payment WHERE detail = 'electricity D3 412'", "operation_detail_idx"),
        (as_asked(asked, question("a door")), "operation_detail_idx"),
        (as_asked(asked, question("inside")), "operation_detail_idx"),
        (as_asked(asked, question("loans")), "loan_holder"),
        ("SELECT sum(amount) FROM spending WHERE card_number = '1'", "card_number_idx"),
        ("SELECT * FROM exception WHERE card_number = '1'", "exception_card"),
        ("SELECT * FROM hold WHERE holder_id = '1'", "hold_holder"),
        ("SELECT * FROM loan WHERE holder_id = '1'", "loan_holder"),
    ):
        assert index in run_asyncio(plan(query)), query


DOCS: Final = Path(__file__).parent.parent / "docs"
OPERATING: Final = (DOCS / "operating.md").read_text(encoding="utf-8")
QUESTIONS: Final = [
    (f"{page.name}: {match['name'] or number}", match["text"])
    for page in sorted(DOCS.glob("*.md"))
    for number, match in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8")))
    if match["kind"] == "sql"
]
"""Every query that is written down."""


@pytest.mark.parametrize("query", [query for _, query in QUESTIONS], ids=[name for name, _ in QUESTIONS])
def test_questions_that_are_written_down_have_answers(asked: Asked, query: str) -> None:
    assert answers(asked, query)


def test_questions_that_add_up_and_conclude_are_answered_rightly(asked: Asked) -> None:
    positions = asked.day.positions

    def ask(title: str, day: datetime.date | None = None, **ours: str) -> list[tuple[Any, ...]]:
        return answers(asked, question(title), day or today(), **ours)

    def at(name: str) -> datetime.datetime:
        return told_at(asked.day.asked[name])

    # The student left; that she had gone in a day before was told behind it.
    assert ask("inside") == [("H4", at("was in"))]
    assert [row[0] for row in ask("a door")] == sorted(at(name) for name in DOOR if name not in {"was in before", "present before"})
    assert ask("a door", today(-1)) == [
        (at("present before"), "attendance", "00", None, True, TEACHER, "H2"),
        (at("was in before"), "enter", "00", None, True, STUDENT, "H1"),
    ]
    assert ask("attendance") == [("DORM-3", "GATE", "H1", at("present at seven"))]
    assert ask("attendance", today(-1)) == [("DORM-3", "GATE", "H2", at("present before"))]
    assert ask("turned away") == [("DORM-3", "57", at("not in"), "enter", TEACHER, "H2")]
    assert ask("turned away by door") == [("DORM-3", "GATE", "enter", "57", 1)]
    assert ask("a meal") == [(at("pens"), "SHOP", STUDENT, "H1", 1000, None)]
    meals = {row[2:] for row in ask("a meal", merchant="CANTEEN")}
    assert meals == {
        (STUDENT, "H1", 850, positions["void"]),
        (TEACHER, "H2", 1000, positions["dinner back"]),
        (LOST, "H4", 300, None),
        (POOR, "H3", 400, None),
    }
    assert ask("a meal", today(-1), merchant="CANTEEN") == []
    assert ask("loads") == [("COUNTER", 20_000)]
    assert ask("payees") == [(today(), "electricity", 0), (today(), "tuition", 3000)]
    assert [row[1:] for row in ask("bills")] == [(STUDENT, "tuition", "2026-1", 3000)]
    assert ask("a room's bills") == [(at("power"), STUDENT, 500, "00", positions["power back"])]
    assert ask("merchants by day") == [(today(), "BATH", 1500, 1500), (today(), "CANTEEN", 700, 700), (today(), "SHOP", 500, 550)]
    assert ask("a merchant's terminals") == [("SHOP", 500)]
    assert ask("debts") == [("H3", 300)]
    assert [row[1:] for row in ask("holds")] == [("WATER", STUDENT, 700, 114_950, 700)]
    assert [row[:2] for row in ask("batches that differ")] == [("POS", 1)]
    in_it = ("lunch", "dinner", "void", "dinner back", "by a lost card")
    assert [row[0] for row in ask("a batch")] == [positions[name] for name in in_it]
    assert [(*row[:2], *row[3:]) for row in ask("batches")] == [(1, "differs", 3, 2150, 0, 0), (2, "open", 1, 400, 0, 0)]
    assert [row[0] for row in ask("what became of it")] == [positions[name] for name in ("refund", "too much back")]
    assert [(row[0], *row[2:]) for row in ask("flagged")] == [
        (at("by a lost card"), "POS", LOST, 300, "41"),
        (at("into debt"), "POS", POOR, 400, "51"),
    ]
    assert ask("loans") == [("PR9199", at("keep"))]
    assert ask("who has an item") == [(STUDENT, "H1", at("keep"))]
    assert [(row[0], *row[2:]) for row in ask("an item")] == [
        (at("borrow"), "borrow", "00", False, STUDENT, "H1"),
        (at("lent"), "borrow", "12", False, TEACHER, "H2"),
        (at("not his"), "return", "57", False, TEACHER, "H2"),
        (at("return"), "return", "00", True, STUDENT, "H1"),
    ]
    assert ask("a room") == [(at("overload"), "METER", "overload", "4500 W", True)]
    assert ask("switched off") == [
        (at("overload"), "METER", "overload", "D3-412", "4500 W"),
        (at("fire"), "METER", "fire", 'the "old" hall', None),
    ]
    assert [row[1:3] for row in ask("losses")] == [(at(name), operation) for name, operation in LOSSES]
    assert ask("hotlist") == [(TEACHER, "H2", "lost"), (LOST, "H4", "lost")]
    assert ask("cards without a PIN") == [(POOR, "H3")]
    assert ask("terminals") == [("METER", "Power", "meter", "", "suspended", True)]
    last = ask("a card on a day")[-1]
    assert (last[0], *last[10:12]) == (positions["next bath taken"], 114_950 - 700, 5000)


DOOR: Final = [name for name, row in OTHERS.items() if row[-1] == "DORM-3"]
LOSSES: Final = (("lost", "loss"), ("found", "found"), ("lost again", "loss"))


def told_at(fields: Fields) -> datetime.datetime:
    """DE13 and DE12 of a message of these days."""
    days = {f"{date:%m%d}": date for date in map(today, range(-7, 2))}
    return datetime.datetime.combine(days[fields["13"]], datetime.datetime.strptime(fields["12"], "%H%M%S").time())  # noqa: DTZ007


def question(title: str) -> str:
    """One of docs/operating.md."""
    return dict(QUESTIONS)[f"operating.md: {title}"]


def as_asked(asked: Asked, query: str, day: datetime.date | None = None, merchant: str = "SHOP") -> str:
    """A question of docs/operating.md about what is here."""
    day = day or today()
    ours = {
        "'2026-11-24 11:00' AND '2026-11-24 13:30'": f"'{day}' AND '{day} 23:59:59'",
        "6230000000000017": STUDENT,
        "'2026-11-24'": f"'{day}'",
        "'2026-11-01' AND '2026-11-30'": f"'{day - datetime.timedelta(1)}' AND '{day}'",
        "CURRENT_DATE": f"'{day}'",
        "T0000001": "POS",
        "M00000000000001": merchant,
        "20260001": "H1",
        "1217": str(asked.day.positions.get("pens")),
    }
    for written, here in ours.items():
        query = query.replace(written, here)
    return query


def answers(asked: Asked, query: str, day: datetime.date | None = None, merchant: str = "SHOP") -> list[tuple[Any, ...]]:
    return asked.rows(as_asked(asked, query, day, merchant))


def test_asking_as_it_is_written_down_reads_only_and_makes_a_file(asked: Asked, tmp_path: Path) -> None:
    (block,) = blocks(own_text(OPERATING, "What people ask"), "console").values()
    lines = block.replace(".venv/bin/python", sys.executable).replace("ADDRESS", asked.url).splitlines()
    assert all(line.startswith("$ ") for line in lines)
    script = "\n".join(line.removeprefix("$ ") for line in lines)
    written = "UPDATE account SET balance = balance + 1"
    done = subprocess.run(
        ["sh", "-eu", "-c", f"{script}\n\"$psql\" '{asked.url}' -c '{written}'"],
        input=b"TABLE journal_position;",
        capture_output=True,
        check=False,
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == 1
    assert b"cannot execute UPDATE in a read-only transaction" in done.stderr
    assert b"(1 row)" in done.stdout, "of what was typed"
    with (tmp_path / "exceptions.csv").open(newline="", encoding="utf-8") as file:
        found = [row["detail"] for row in csv.DictReader(file)]
    assert found == asked.column("SELECT detail FROM exception ORDER BY position")


def test_the_alarm_about_what_waits_for_a_person_counts_what_does(asked: Asked) -> None:
    (alarms,) = blocks(OPERATING, "promql").values()
    _, _, rest = alarms.partition("# Something waits for a person")
    selectors = re.findall(r"^(increase\(|)switch_requests_total\{(.*?)\}", rest.partition("\n#")[0], re.MULTILINE)
    rising = [conditions for begins, conditions in selectors if begins]
    assert rising == [conditions for begins, conditions in selectors if not begins], "each once more, for the first of its kind"
    counted = sum(sum(holds(conditions, **labels) * count for labels, count in asked.day.answered) for conditions in rising)
    assert asked.column("SELECT count(*)::int FROM exception") == [counted]


def holds(conditions: str, **labels: str) -> bool:
    """Whether a series with these labels is selected, as Prometheus matches: the whole value."""
    found = re.findall(r'(\w+)(=~|!~|=)"([^"]*)"', conditions)
    assert ",".join(f'{label}{how}"{value}"' for label, how, value in found) == conditions
    return all((re.fullmatch(value, labels[label]) is None) == (how == "!~") for label, how, value in found)


def test_the_questions_are_about_every_table() -> None:
    asked_of = set(re.findall(r"(?:FROM|JOIN) (\w+)", " ".join(query for _, query in QUESTIONS)))
    # What accounts a holder has is in `account` too, and what steps the schema has is nobody's question.
    assert set(described_columns()) - {"cardholder", "schema_migration"} <= asked_of


def described_columns() -> dict[str, list[str]]:
    """By table or view, as docs/operating.md has them."""
    described = [row for title in ("What the tables hold", "Views") for row in rows(own_text(OPERATING, title))]
    return {row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in described}


def test_tables_and_views_have_the_columns_that_are_described(asked: Asked) -> None:
    found = asked.rows(
        "SELECT relname::text, array_agg(attname::text ORDER BY attnum) FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid"
        " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v') AND NOT relispartition AND attnum > 0"
        " AND NOT attisdropped GROUP BY 1"
    )
    described = described_columns()
    assert {name: set(columns) for name, columns in found} == {name: set(columns) for name, columns in described.items()}
    assert all(len(columns) == len(set(columns)) for columns in described.values())


def test_show_tells_holds_loans_pin_and_batches(asked: Asked) -> None:
    switch = asked.day.switch

    def show(*what: str) -> dict[str, Any]:
        done = switch.command("show", "--config", switch.file, *what, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    card = show("card", STUDENT)
    (hold,) = card["open_holds"]
    assert (hold["position"], hold["amount"], hold["terminal"]) == (asked.day.positions["open hold"], 700, "WATER")
    (since,) = asked.column("SELECT at FROM hold")
    assert hold["since"] == int(since.timestamp())
    assert (card["holds"], card["available_cash"]) == (700, card["cash"] - 700)
    assert card["loans"] == [{"item": "PR9199", "position": asked.day.positions["keep"], "business_date": str(today())}]
    assert (card["pin"], card["pin_tries"]) == ("set", 0)
    poor = show("card", POOR)
    assert (poor["open_holds"], poor["loans"], poor["pin"]) == ([], [], "none")
    counter, water = show("terminal", "COUNTER"), show("terminal", "WATER")
    assert (counter["open_batch"], counter["credits"], counter["credit_reversals"]) == (
        *(1, {"number": 2, "amount": 20_600}),
        {"number": 1, "amount": 600},
    )
    assert (water["open_batch"], water["debits"]) == (2, {"number": 1, "amount": 0})
    assert set(show("merchant", "CANTEEN")["takes_subsidy"].values()) == {True}
    assert show("merchant", "SHOP")["takes_subsidy"] == dict.fromkeys(("teacher", "student", "merchant", "family", "temporary"), False)
    table = switch.command("show", "--config", switch.file, "card", STUDENT).stdout
    assert f"loans              business_date {today()}, item PR9199, position {asked.day.positions['keep']}\n" in table
    assert show("card", POOR)["loans"] == []


@pytest.mark.parametrize(("identity_days", "days"), [(2, 2), (8, 1)])
async def test_a_hold_that_lapses_is_a_row_even_where_it_is_forgotten(
    clock: Clock, make_switch: Callable[..., Switch], database_url: str, identity_days: int, days: int
) -> None:
    """The first is forgotten when it lapses, because the clock moves on by two days at once."""
    switch = make_switch(database=database_url, policy_hold_hours=1, policy_identity_days=identity_days)
    await in_thread(switch.start)
    day = Day(switch)
    day.devices = await found_campus(switch)
    async with switch.connect() as day._connection:
        water = day.devices["WATER"]
        await water.sign_on(day._connection)
        await day.ask("hold", "WATER", "0100", "00", de2=STUDENT, de3="000000", de4=money(2000))

        async def held() -> int:
            shown = await switch.show("card", STUDENT)
            return int(shown["holds"])

        assert await held() == 2000
        await until(switch.metrics, lambda metrics: metrics.value("switch_settled_position") >= day.positions["hold"])
        rows = await in_thread(lambda: run_asyncio(fetch(database_url, "SELECT position, amount FROM hold")))
        assert rows == [(day.positions["hold"], 2000)]
        # The terminal is another merchant's by now.
        await switch.enter(f"{TERMINALS_HEADER}\nWATER,SHOP,water,,{water.master_key.hex()}\n")
        clock.set(days)
        await until(held, lambda fen: fen == 0)
    await in_thread(switch.stop)
    found = Asked(day, database_url)

    def look() -> None:
        merchant = "SHOP" if days == identity_days else "BATH"
        assert found.rows(
            "SELECT business_date, response, terminal_id, merchant_id, card_number, holder_id, stan, local_time, amount, cash, subsidy,"
            " original, cash_after, subsidy_after, batch_number, flag, detail, surcharge, is_advice"
            " FROM transaction WHERE operation = 'lapse'"
        ) == [
            (
                *(today(days), "00", "WATER", merchant, STUDENT, "H1", None, None, 2000, 2000, 0),
                *(day.positions["hold"], 100_000, 5_000, None, None, None, None, False),
            )
        ]
        assert found.rows("SELECT * FROM hold") == []
        assert found.rows("SELECT * FROM account WHERE holds <> 0") == []
        done = switch.command("reconcile", "--config", switch.file)
        assert json.loads(done.stdout)["ok"], done.stdout

    await in_thread(look)


async def test_a_night_in_rows(clock: Clock, make_switch: Callable[..., Switch], database_url: str) -> None:
    """What is sold, repeated, told of late and given back on both sides of midnight, and what becomes of it in sums."""
    switch = make_switch(database=database_url)
    await in_thread(switch.start)
    day = Day(switch)
    day.devices = await found_campus(switch)
    till = day.devices["SHOP"]
    supper = [till.offline_sale(STUDENT, amount, de12=at) for amount, at in ((30, "235000"), (40, "235500"))]
    async with switch.connect() as connection:
        day._connection = connection
        await till.sign_on(connection)
        await day.sale("before", "SHOP", STUDENT, 100, de12="235930")

        clock.set(1)
        tomorrow = f"{today(1):%m%d}"
        balance = {"de2": STUDENT, "de3": "310000", "de13": tomorrow}

        async def business_date() -> str:
            return (await till.ask(connection, till.message("0100", **balance))).fields["15"]

        await until(business_date, lambda date: date == tomorrow)
        again = await till.ask(connection, {**day.asked["before"], "t": "0201"})
        assert (again.code, again.fields["15"], int(again.fields["37"])) == ("00", f"{today():%m%d}", day.positions["before"])
        # The later one first.
        await day.send("supper late", "SHOP", supper[1], "00")
        await day.send("supper", "SHOP", supper[0], "00")
        await day.sale("after", "SHOP", STUDENT, 500, de12="000500", de13=tomorrow)
        refund = {"de3": "200000", "de4": money(60), "de37": day.number("before"), "de12": "001000", "de13": tomorrow}
        await day.ask("refund", "SHOP", "0200", "00", **refund)
        await day.settle()
    await in_thread(switch.stop)
    found = Asked(day, database_url)

    def look() -> None:
        rows = found.by_name("SELECT position, business_date, local_time::text, operation, amount FROM transaction")
        assert rows == {
            "before": (today(), f"{today()} 23:59:30", "purchase", 100),
            "supper late": (today(1), f"{today()} 23:55:00", "offline_sale", 40),
            "supper": (today(1), f"{today()} 23:50:00", "offline_sale", 30),
            "after": (today(1), f"{today(1)} 00:05:00", "purchase", 500),
            "refund": (today(1), f"{today(1)} 00:10:00", "refund", 60),
        }
        # Who was there that evening, whenever it was told of.
        assert [row[4] for row in answers(found, question("a meal"), today())] == [30, 40, 100]
        assert [row[4] for row in answers(found, question("a meal"), today(1))] == [500]
        sums = "SELECT business_date, operation, count, amount FROM day_total WHERE operation <> 'sign_on' ORDER BY 1, 2"
        assert found.rows(sums) == [
            (today(), "purchase", 1, 100),
            (today(1), "offline_sale", 2, 70),
            (today(1), "purchase", 1, 500),
            (today(1), "refund", 1, 60),
        ]
        earned = "SELECT business_date, sum(earned) FROM spending WHERE merchant_id = 'SHOP' GROUP BY 1 ORDER BY 1"
        assert found.rows(earned) == [(today(), 100), (today(1), 510)]
        moved_on = "SELECT detail FROM operator_action WHERE action = 'cutover' ORDER BY position"
        assert found.column(moved_on)[-1] == str(today(1))
        done = switch.command("reconcile", "--config", switch.file)
        assert json.loads(done.stdout)["ok"], done.stdout

    await in_thread(look)


async def test_rules_are_replaced_as_a_whole(make_switch: Callable[..., Switch], database_url: str) -> None:
    switch = make_switch(database=database_url)
    await in_thread(switch.start)

    async def settle_rules(rules: str) -> list[tuple[Any, ...]]:
        position = (await switch.enter(f"rule,class,category,zone,days,from,to,value\n{rules}"))["position"]
        await until(switch.metrics, lambda metrics: metrics.value("switch_settled_position") >= position)
        return await in_thread(lambda: run_asyncio(fetch(database_url, "SELECT rule, days, begins, ends, value FROM rule ORDER BY number")))

    both = "refuse,student,shop,,1-5,08:00,12:00,\nsubsidy,*,shop,,,,,yes\n"
    assert await settle_rules(both) == [("subsidy", "", "", "", "yes"), ("refuse", "1-5", "08:00", "12:00", "")]
    assert await settle_rules("subsidy,*,shop,,,,,yes\n") == [("subsidy", "", "", "", "yes")]
    assert await settle_rules("") == []
    actions = await in_thread(
        lambda: run_asyncio(fetch(database_url, "SELECT detail FROM operator_action WHERE action = 'rules' ORDER BY 1"))
    )
    assert actions == [
        ("0 rules",),
        ("1 rule: subsidy,*,shop,,,,,yes",),
        ("2 rules: subsidy,*,shop,,,,,yes; refuse,student,shop,,1-5,08:00,12:00,",),
    ]
