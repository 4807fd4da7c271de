"""What hashes cannot tell: the books' own rules of the program that checks evidence, on records that no switch wrote.

A story is told step by step to books that begin with the campus's parties. Each step says what its record says and which money moves;
what a step leaves out is as it should be. A story is sound, or its last step is the one at which it is found out.
"""

import datetime
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from switch.evidence import Fault
from switch.evidence.books import HOUR_MICROSECONDS, Books, Decision
from switch.evidence.effects import Terms
from switch.evidence.posting import post
from switch.evidence.records import TOTALS, Message, Record, Rule, Unreadable, decode

DATE = "2026-11-22"
DAY = datetime.date.fromisoformat(DATE).toordinal()

TERMINALS = ("pos", "water", "counter", "gate", "library", "meter", "pos")
"""All of merchant M, a canteen; the last of merchant S, a shop."""

FAMILY = {"reversal": 2, "card_report": 1, "batch_close": 3, "event": 4, "sign_on": 5}
OPERATED_BY = {
    "hold": 1, "completion": 1, "load": 2, "bill_payment": 2, "card_report": 2, "identity": 3, "event": 5,
}  # fmt: skip
NOTHING = {name: {"number": 0, "fen": 0} for name in TOTALS}

Step = Callable[["Story"], None]


class Story:
    """Books of one canteen and one shop, and what is told to them."""

    def __init__(self, *rules: Rule) -> None:
        self.books = Books(complete=True)
        self.position = 0
        self.stans = itertools.count(1)
        self.messages: dict[str, Message] = {}
        self.positions: dict[str, int] = {}
        self.now = 0
        self.own("limits", amount_max=1000, identity_days=3, hold_hours=24, pin_tries_max=3)
        date(DATE)(self)
        self.own("merchant", merchant="M", category="canteen")
        self.own("merchant", merchant="S", category="shop")
        for number, kind in enumerate(TERMINALS):
            self.own("terminal", terminal=f"T{number}", merchant_number=int(number == len(TERMINALS) - 1), terminal_kind=kind)
        for card, status in (("1", "active"), ("2", "lost"), ("3", "active")):
            self.card(card, status, cash=500)
        if rules:
            self.own("rules", rules=[rule.row for rule in rules], parsed=rules)

    def card(self, card: str, status: str, *, cash: int = 0, holder: str | None = None) -> None:
        holder = holder or f"H{card}"
        moved = f"house:suspense>cash:{holder} {cash}" if cash else ""
        said: dict[str, Any] = {"class": "student", "card": card, "holder": holder, "status": status, "expires": DATE}
        self.own("card", moved, **said, opening_cash=cash, opening_subsidy=0)

    def own(self, kind: str, moved: str = "", parsed: tuple[Rule, ...] = (), **said: Any) -> None:
        self.position += 1
        self.now += 1
        record = Record({"kind": kind, **outcome(), **said}, self.now, rules=parsed)
        names = {name: said.pop(name) for name in ("terminal", "merchant", "holder") if kind == "lapse"}
        post(
            self.books,
            self.position,
            record,
            {"business_date": self.books.business_date or "2000-01-01", "movements": movements(moved), **names},
        )

    def tell(
        self,
        kind: str,
        moved: str = "",
        *,
        name: str = "",
        undoes: str = "",
        of: str = "",
        terminal: int | None = None,
        ledger: dict[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        """A terminal's message; `name` names it for later, `of` and `undoes` say to what it refers."""
        self.position += 1
        self.now += 1
        terminal = OPERATED_BY.get(kind, 0) if terminal is None else terminal
        message = Message(FAMILY.get(fields.get("told", kind), 0), terminal, fields.pop("day", DAY), fields.pop("stan", next(self.stans)))
        said = {
            "kind": kind, **outcome(), "terminal_number": terminal, "card": "1", "amount": 100, "currency": None, "processing": None,
            "batch_number": None, "purses": "policy", "pin": "absent", "item": None, "is_advice": False, "is_found": False,
        }  # fmt: skip
        if kind != "identity":
            del said["is_advice"]
        if of:
            said["refers_to"] = self.positions.get(of, 0)
        said |= fields
        undone = self.messages.get(undoes, Message(0, terminal, DAY, 999_999)) if undoes else None
        record = Record(said, self.now, message, undone)
        card = said["card"] or "1"
        names = {"terminal": f"T{terminal}", "merchant": "S" if terminal == len(TERMINALS) - 1 else "M", "holder": f"H{card}"}
        post(
            self.books,
            self.position,
            record,
            {"business_date": self.books.business_date or DATE, "movements": movements(moved), **names, **(ledger or {})},
        )
        self.messages[name], self.positions[name] = message, self.position


def outcome() -> dict[str, Any]:
    none = dict.fromkeys(("cash_after", "subsidy_after", "original", "flag", "switch_totals"))
    return {"response": "00", "paid_cash": 0, "paid_subsidy": 0, **none}


def movements(text: str) -> list[dict[str, Any]]:
    """`cash:H1>merchant:M 100, ...`"""
    found = []
    for one in filter(None, text.split(", ")):
        ends, _, fen = one.rpartition(" ")
        debit, _, credit = ends.partition(">")
        found.append({"debit": debit, "credit": credit, "fen": int(fen)})
    return found


def tell(kind: str, moves: str = "", **of: Any) -> Step:
    """`moved` in the place of what should have moved."""
    return lambda story: story.tell(kind, **{"moved": moves, **of})


def own(kind: str, **said: Any) -> Step:
    return lambda story: story.own(kind, **said)


def buy(paid: int = 100, *, after: int = 400, **of: Any) -> Step:
    shop = "S" if of.get("terminal") == len(TERMINALS) - 1 else "M"
    moved = f"cash:H1>merchant:{shop} {paid}" if paid else ""
    return tell("purchase", moved, **{"name": "sale", "paid_cash": paid, "cash_after": after, "subsidy_after": 0, **of})


def give_back(kind: str, fen: int, after: int, **of: Any) -> Step:
    moved = f"merchant:M>cash:H1 {fen}" if fen else ""
    said: dict[str, Any] = {"paid_cash": fen, "cash_after": after, "subsidy_after": 0}
    return tell(kind, moved, **{**said, **of})


def undo(fen: int, after: int, original: int | None, **of: Any) -> Step:
    return give_back("reversal", fen, after, **{"undoes": "sale", "original": original, **of})


def refund(fen: int, after: int, **of: Any) -> Step:
    return give_back("refund", fen, after, **{"of": "sale", "name": "refund", "original": FIRST, "amount": fen, **of})


def hold(fen: int = 100, after: int = 400, **of: Any) -> Step:
    return tell("hold", **{"name": "hold", "paid_cash": fen, "cash_after": after, "subsidy_after": 0, **of})


def complete(fen: int, after: int, **of: Any) -> Step:
    moved = f"cash:H1>merchant:M {fen}" if fen else ""
    said = {"of": "hold", "amount": fen, "paid_cash": fen, "cash_after": after, "subsidy_after": 0, "original": FIRST}
    return tell("completion", moved, **{**said, **of})


def lapse(fen: int = 100, after: int = 500, hold: int | None = None, **of: Any) -> Step:
    names = {"terminal": "T1", "merchant": "M", "holder": "H1"}
    number = FIRST if hold is None else hold
    said = {"hold": number, "original": number, "paid_cash": fen, "cash_after": after, "subsidy_after": 0}
    return lambda story: story.own("lapse", **{**said, **names, **of})


def wait(hours: int) -> Step:
    def pass_(story: Story) -> None:
        story.now += hours * HOUR_MICROSECONDS

    return pass_


def identity(act: str, **of: Any) -> Step:
    terminal = 4 if act in {"borrow", "return"} else 3
    return tell("identity", **{"act": act, "terminal": terminal, "amount": None, **of})


def close(told: dict[str, Any], own_: dict[str, Any] | None = None, **of: Any) -> Step:
    response = "00" if own_ is None else "95"
    said = {"totals": told, "switch_totals": own_, "batch_number": 1, "response": response, "card": None}
    return tell("batch_close", ledger={"holder": None}, **{**said, **of})


def totals(**named: tuple[int, int]) -> dict[str, Any]:
    return NOTHING | {name: {"number": number, "fen": fen} for name, (number, fen) in named.items()}


def declined(kind: str, code: str, **of: Any) -> Step:
    return tell(kind, **{"response": code, **of})


def load(fen: int = 100, after: int = 600, **of: Any) -> Step:
    said = {"name": "load", "amount": fen, "paid_cash": fen, "cash_after": after, "subsidy_after": 0}
    return tell("load", f"house:cash_desk>cash:H1 {fen}", **{**said, **of})


def bill(payee: str = "water", **of: Any) -> Step:
    said = {"name": "bill", "payee": payee, "paid_cash": 100, "cash_after": 400, "subsidy_after": 0}
    return tell("bill_payment", f"cash:H1>payee:{payee} 100", **{**said, **of})


def offline(fen: int = 100, after: int = 400, **of: Any) -> Step:
    card = of.get("card", "1")
    said = {"name": "sale", "amount": fen, "paid_cash": fen, "cash_after": after, "subsidy_after": 0, "flag": None}
    return tell("offline_sale", f"cash:H{card}>merchant:M {fen}", **{**said, **of})


def void(fen: int = 100, after: int = 500, **of: Any) -> Step:
    return give_back("void", fen, after, **{"name": "void", "of": "sale", "original": FIRST, "amount": None, "processing": "020000", **of})


def late(**of: Any) -> Step:
    return tell("late", **{"response": "12", "told": "offline_sale", "day": DAY - 3, "stan": 7, **of})


def undo_late(**of: Any) -> Step:
    return late(**{"told": "reversal", "undoes": "none", **of})


def rule(name: str, value: int, category: str | None = None) -> Rule:
    return Rule((), name, name, None, category, value)


def date(day: str) -> Step:
    def cut_over(story: Story) -> None:
        record = Record({"kind": "cutover", **outcome(), "business_date": day}, story.now)
        story.position += 1
        post(story.books, story.position, record, {"business_date": day, "movements": []})

    return cut_over


FIRST = 2 + 2 + len(TERMINALS) + 3 + 1
"""The position of a story's first step."""

SHOP = len(TERMINALS) - 1
TAKEN_BACK = "cash:H1>merchant:M 40"
BACK = {"paid_cash": 40, "cash_after": 400, "subsidy_after": 0}
COUNTED = totals(debits=(1, 100))

SOUND: dict[str, list[Step]] = {
    "a purchase undone twice": [buy(), undo(100, 500, FIRST), undo(0, 500, FIRST)],
    "a void, whose amount means nothing": [buy(), void(amount=7), undo(0, 500, FIRST + 1, undoes="void", amount=9, name="")],
    "refunds of all of it": [buy(), refund(40, 440), refund(60, 500), undo(0, 500, FIRST)],
    "the rest of a sale, with its refunds": [
        buy(),
        refund(40, 440),
        undo(60, 500, FIRST),
        undo(0, 500, FIRST + 1, undoes="refund", amount=40),
    ],
    "a refund taken back": [
        buy(),
        refund(40, 440),
        tell("reversal", TAKEN_BACK, undoes="refund", amount=40, original=FIRST + 1, **BACK),
        refund(100, 500),
    ],
    "a refund whose message names no card, which a reversal takes for another's": [
        buy(),
        refund(40, 440, card=None),
        declined("reversal", "94", undoes="refund", card="3", amount=40, original=FIRST + 1),
    ],
    "a hold completed, and the completion undone": [
        hold(),
        complete(30, 470, name="sale"),
        undo(30, 500, FIRST + 1, terminal=1, amount=30),
        declined("completion", "12", of="hold"),
    ],
    "as much as there is, held": [
        hold(500, 0, amount=900),
        declined("purchase", "51"),
        undo(500, 500, FIRST, undoes="hold", terminal=1, amount=900, moved=""),
    ],
    "a lapse": [hold(), wait(24), lapse(), declined("completion", "12", of="hold")],
    "a load and its reversal, after it was spent": [
        load(),
        buy(600, after=0, amount=600),
        tell(
            "reversal",
            "cash:H1>house:cash_desk 100",
            undoes="load",
            terminal=2,
            paid_cash=100,
            cash_after=-100,
            subsidy_after=0,
            original=FIRST,
        ),
        declined("purchase", "51"),
    ],
    "a bill and its reversal": [
        bill(),
        tell(
            "reversal", "payee:water>cash:H1 100", undoes="bill", terminal=2, paid_cash=100, cash_after=500, subsidy_after=0, original=FIRST
        ),
    ],
    "offline sales, flagged": [
        offline(700, -200, flag="51"),
        offline(card="2", after=400, flag="41"),
        declined("offline_sale", "13", amount=0),
    ],
    "loans": [
        identity("borrow", item="Q", name="loan"),
        identity("borrow", item="Q", response="12", card="3"),
        identity("return", item="Q", response="57", card="3"),
        identity("return", item="Q", original=FIRST),
        identity("return", item="Q", response="25"),
    ],
    "doors": [
        identity("enter"),
        identity("enter", response="57"),
        identity("enter", is_advice=True, flag="57"),
        identity("enter", is_advice=True, flag="41", card="2"),
    ],
    "lost and found": [
        tell("card_report"),
        declined("purchase", "41"),
        tell("card_report", is_found=True),
        buy(),
        tell("card_report", card="2"),
        tell("card_report", card="2", is_found=True),
        declined("card_report", "14", card="9", ledger={"holder": None}),
    ],
    "batches": [
        buy(),
        undo(100, 500, FIRST),
        buy(batch_number=2),
        close(totals(debits=(1, 100)), totals(debits=(1, 100), debit_reversals=(1, 100))),
        close(totals(debits=(1, 100), debit_reversals=(1, 100))),
        refund(40, 440, original=FIRST + 2),
        close(totals(debits=(1, 100), credits=(1, 40)), batch_number=2),
        close(NOTHING, batch_number=9),
        buy(after=340, batch_number=3),
        buy(after=240),
        close(totals(debits=(1, 100)), batch_number=10),
    ],
    "advices that came too late": [
        late(),
        late(stan=8, day=DAY + 2, told="enter", terminal=3),
        late(told="unknown", stan=9),
        date("2026-11-25"),
        late(),
    ],
    "two advices that came too late under one number": [late(), late(amount=101), late(card="3"), undo_late()],
    "a reversal that came too late for what stands": [buy(), undo_late(undoes="sale"), undo_late(undoes="sale", stan=8, day=DAY + 2)],
    "a reversal of what was too long ago": [
        buy(day=DAY - 1),
        date("2026-11-24"),
        undo_late(undoes="sale", day=DAY + 1),
        undo(0, 400, None, undoes="none"),
    ],
    "a terminal that is stolen and found": [
        own("standing", terminal="T0", standing="suspended"),
        own("standing", terminal="T0", standing="active"),
        buy(),
    ],
    "tombstones": [undo(0, 500, None, undoes="none"), declined("purchase", "12", stan=999_999), undo(0, 500, FIRST + 1, undoes="none")],
}


@pytest.mark.parametrize("steps", SOUND.values(), ids=SOUND)
def test_what_a_switch_may_write_is_sound(steps: list[Step]) -> None:
    story = Story()
    for step in steps:
        step(story)


WRONG: list[tuple[str, list[Step]]] = [
    ("decides again", [buy(stan=5), buy(stan=5, after=300)]),
    ("are paid for a purchase", [buy(99, after=401, amount=100)]),
    ("they are said to hold", [buy(after=401)]),
    ("below their floor", [buy(600, after=-100, amount=600)]),
    ("should be answered 13", [buy(1001, after=-501, amount=1001)]),
    ("should be answered 13", [buy(0, after=500, amount=0)]),
    ("should be answered 14", [buy(card="9", ledger={"holder": None})]),
    ("should be answered 41", [tell("purchase", "cash:H2>merchant:M 100", card="2", paid_cash=100, cash_after=400, subsidy_after=0)]),
    ("for which there is no reason", [declined("purchase", "41")]),
    ("for which there is no reason", [declined("purchase", "12")]),
    ("for which there is no reason", [declined("load", "13")]),
    ("a purse paid", [tell("purchase", "subsidy:H1>merchant:M 100", purses="cash", paid_subsidy=100, cash_after=500, subsidy_after=-100)]),
    ("paid by a purchase that was answered", [buy(response="51", after=400)]),
    ("is flagged", [buy(flag="51")]),
    ("has a batch's totals", [buy(switch_totals=NOTHING)]),
    ("refers to record 3", [buy(original=3)]),
    ("outside the days", [buy(day=DAY - 3)]),
    ("outside the days", [buy(day=DAY + 2)]),
    ("the movements", [buy(moved="")]),
    ("the merchant is given as S", [buy(ledger={"merchant": "S"})]),
    ("is a gate, for which", [buy(terminal=3)]),
    ("is suspended", [own("standing", terminal="T0", standing="suspended"), buy()]),
    # Given back.
    ("it should be \\(0, 0\\)", [buy(), undo(100, 500, FIRST), undo(100, 600, FIRST)]),
    ("it should be \\(100, 0\\)", [buy(), undo(101, 501, FIRST)]),
    ("whose card or amount is another", [buy(), undo(100, 500, FIRST, amount=101)]),
    (
        "whose card or amount is another",
        [
            buy(),
            refund(40, 440, card=None),
            tell("reversal", TAKEN_BACK, undoes="refund", card="3", amount=40, original=FIRST + 1, **BACK),
        ],
    ),
    ("for which there is no reason", [buy(), declined("reversal", "94", undoes="sale", original=FIRST)]),
    ("no such decision", [undo(100, 600, FIRST - 1, undoes="none")]),
    ("undone before it came", [undo(0, 500, None, undoes="none"), buy(stan=999_999)]),
    ("is undone, or another's", [buy(), undo(100, 500, FIRST), void()]),
    ("is undone, or another's", [buy(), void(card="3", ledger={"holder": "H3"})]),
    ("is undone, or another's", [load(), refund(10, 610, of="load")]),
    ("is undone, or another's", [buy(), void(), refund(10, 510)]),
    ("of another day", [buy(), date("2026-11-23"), void(day=DAY + 1)]),
    ("of another day", [buy(), refund(10, 410), void(90, 500)]),
    ("nothing of this merchant's", [buy(), void(terminal=SHOP, ledger={"merchant": "S"})]),
    ("nothing of this merchant's", [void(of="none", original=0)]),
    ("of which 60 are left", [buy(), refund(40, 440), refund(61, 501)]),
    ("it should be \\(40, 0\\)", [buy(), refund(40, 441, paid_cash=41)]),
    (
        "is taken back by",
        [
            buy(),
            refund(40, 440),
            tell("reversal", "cash:H1>merchant:M 39", undoes="refund", amount=40, original=FIRST + 1, **(BACK | {"paid_cash": 39})),
        ],
    ),
    # Held.
    ("are held", [hold(101, 399, amount=100)]),
    ("are held", [hold(50, 450, amount=100)]),
    ("taken of a hold", [hold(), complete(101, 499)]),
    ("is undone, or another's", [hold(), complete(30, 470), complete(30, 440)]),
    ("lapses before 24 hours", [hold(), wait(23), lapse()]),
    ("it is not open", [hold(), wait(24), lapse(), lapse()]),
    ("before an older one", [hold(), hold(after=300), wait(25), lapse(hold=FIRST + 1, after=400)]),
    ("of somebody else", [hold(), wait(24), lapse(99, 499)]),
    ("they are said to hold", [hold(), wait(24), lapse(after=501)]),
    ("of somebody else", [hold(), wait(24), lapse(holder="H3")]),
    # Other accounts.
    ("the movements", [load(moved="house:suspense>cash:H1 100")]),
    ("they are said to hold", [load(after=500)]),
    ("the movements", [bill(moved="cash:H1>payee:tuition 100")]),
    ("below their floor", [bill(amount=501, paid_cash=501, cash_after=-1, moved="cash:H1>payee:water 501")]),
    # What happened offline.
    ("below their floor", [offline(700, -200)]),
    ("it is flagged None", [offline(card="2")]),
    ("it is flagged 41", [offline(flag="41")]),
    ("is flagged 12", [offline(flag="12")]),
    ("for which there is no reason", [declined("offline_sale", "51")]),
    ("is flagged 57", [identity("enter", flag="57")]),
    ("puts off a message of", [late(day=DAY)]),
    ("puts off a message of", [undo_late(day=DAY)]),
    ("puts off a message of", [buy(), undo_late(undoes="sale", day=DAY)]),
    ("outside the days", [buy(day=DAY - 1), date("2026-11-25"), undo(0, 400, None, undoes="sale", day=DAY + 3)]),
    ("a second time", [undo_late(), undo_late()]),
    ("fen are paid by a late", [buy(), undo_late(undoes="sale", paid_cash=100)]),
    ("refers to record", [buy(), undo_late(undoes="sale", original=FIRST)]),
    ("is answered 12", [undo_late(response="00")]),
    ("a second time", [late(), late()]),
    ("a second time", [late(), date("2026-11-24"), late()]),
    ("is answered 12", [late(response="00")]),
    # Cards and items.
    ("should be answered 00", [declined("card_report", "41")]),
    (
        "should be answered 78",
        [tell("card_report", card="1"), lambda story: story.card("11", "active", holder="H1"), tell("card_report", is_found=True)],
    ),
    ("at once", [lambda story: story.card("11", "active", holder="H1")]),
    ("from holder H1 to H3", [lambda story: story.card("1", "active", holder="H3")]),
    ("on loan since", [identity("borrow", item="Q"), identity("borrow", item="Q", card="3")]),
    ("not on loan", [identity("return", item="Q")]),
    ("lent to H1", [identity("borrow", item="Q"), identity("return", item="Q", card="3", original=FIRST)]),
    ("it should be", [identity("borrow", item="Q"), identity("return", item="Q", original=FIRST - 1)]),
    ("about the item", [identity("enter", item="Q")]),
    ("about the item", [identity("borrow")]),
    ("there is no such card", [own("pin", card="9")]),
    ("there is no such terminal", [own("standing", terminal="T9", standing="active")]),
    # Batches.
    ("adds up to", [buy(), close(NOTHING)]),
    ("adds up to", [buy(), close(NOTHING, totals(debits=(1, 99)))]),
    ("no reason", [buy(), close(COUNTED, COUNTED)]),
    ("no reason", [buy(), close(COUNTED, response="51")]),
    ("adds up to", [buy(), close(COUNTED), close(COUNTED, batch_number=2)]),
    ("answered 51", [declined("event", "51", card=None, ledger={"holder": None})]),
    # Days, and what no terminal sends.
    ("the business date goes from", [date("2026-11-21")]),
    ("with a terminal's outcome", [own("pin", card="1", response="12")]),
    ("something was paid", [own("pin", card="1", paid_cash=1)]),
]


def hear(story: Story, steps: list[Step], words: str | None) -> None:
    """Tell a story: its last step is found out with these words, or, where there are none, is sound."""
    for step in steps[:-1]:
        step(story)
    if words is None:
        steps[-1](story)
        return
    with pytest.raises(Fault, match=words):
        steps[-1](story)


@pytest.mark.parametrize(("words", "steps"), WRONG, ids=[f"{number} {words}" for number, (words, _) in enumerate(WRONG)])
def test_what_no_switch_writes_is_found(words: str, steps: list[Step]) -> None:
    hear(Story(), steps, words)


LATER: list[tuple[str | None, list[Step]]] = [
    # What was undone before the report begins, and what is above a highest amount that was set before.
    (None, [tell("card_report"), declined("purchase", "12")]),
    (None, [tell("card_report"), declined("purchase", "13", amount=7000)]),
    (None, [tell("card_report"), declined("purchase", "13", amount=0)]),
    ("should be answered 13", [tell("card_report"), declined("purchase", "41", amount=0)]),
    ("should be answered 41", [tell("card_report"), declined("purchase", "51")]),
    ("for which there is no reason", [declined("event", "12", card=None, ledger={"holder": None})]),
]


@pytest.mark.parametrize(("words", "steps"), LATER)
def test_what_was_before_the_beginning_may_be_the_reason(words: str | None, steps: list[Step]) -> None:
    story = Story()
    story.books = Books(complete=False, first=FIRST)
    hear(story, steps, words)


GRANTS = "cash:H1>merchant:M 75, house:grants>merchant:M 25"
FEES = "cash:H1>merchant:M 100, cash:H1>house:fees 15"


@pytest.mark.parametrize(
    ("words", "rules", "steps"),
    [
        (
            None,
            [rule("surcharge", 1500)],
            [
                buy(115, after=385, amount=100, moved=FEES),
                give_back("refund", 46, 431, of="sale", amount=40, original=FIRST + 1, moved="merchant:M>cash:H1 40, house:fees>cash:H1 6"),
            ],
        ),
        (
            None,
            [rule("surcharge", -2500)],
            [
                buy(75, after=425, amount=100, moved=GRANTS),
                void(75, original=FIRST + 1, moved="merchant:M>cash:H1 75, merchant:M>house:grants 25"),
            ],
        ),
        ("are paid for a purchase", [rule("surcharge", 1500)], [buy()]),
        ("are paid for a purchase", [rule("surcharge", 1500, "shop")], [buy(115, after=385, amount=100, moved=FEES)]),
        ("the movements", [rule("surcharge", 1500)], [buy(115, after=385, amount=100, moved="cash:H1>merchant:M 115")]),
        ("above the 99 of one operation", [rule("transaction_max", 99)], [buy()]),
        (None, [rule("transaction_max", 100)], [buy()]),
        ("without a PIN", [rule("pin_above", 99)], [buy(pin="wrong")]),
        (None, [rule("pin_above", 99)], [buy(pin="right")]),
        ("without a PIN", [rule("pin_above", 99)], [offline()]),
        (None, [rule("pin_above", 99)], [offline(flag="55")]),
        ("without a PIN", [rule("pin_above", 99)], [hold()]),
        ("above the 99 of one operation", [rule("transaction_max", 99)], [bill()]),
        (
            "the subsidy purse pays 0",
            [rule("subsidy", 0, "canteen")],
            [tell("purchase", "subsidy:H1>merchant:M 100", paid_subsidy=100, cash_after=500, subsidy_after=0)],
        ),
    ],
)
def test_rules_are_asked_of_what_is_sold(words: str | None, rules: list[Rule], steps: list[Step]) -> None:
    story = Story(*rules)
    hear(story, steps, words)


@pytest.mark.parametrize(
    ("amount", "paid", "refunded", "given_back", "back", "share"),
    [
        (4, 6, 0, 0, 1, 1),
        (4, 6, 1, 1, 1, 2),
        # Of a surcharge of 2 the refunds that stand have given back all: no more than the amount is left.
        (4, 6, 2, 4, 1, 1),
        (8, 4, 1, 0, 1, 1),
        # Of a discount of 4 the refunds that stand have given back all to the grants.
        (8, 4, 4, 0, 1, 1),
        (8, 4, 4, 0, 4, 4),
    ],
)
def test_what_a_refund_gives(amount: int, paid: int, refunded: int, given_back: int, back: int, share: int) -> None:
    sale = Decision(1, {"amount": amount}, "1", "H", "M", "2026-11-22", (paid, 0), True, refunded=refunded, given_back=(given_back, 0))
    assert sale.share(back) == (share, 0)


def test_the_most_specific_rule_holds_and_the_lowest_ceiling() -> None:
    def of(card_class: str | None, category: str | None, name: str, value: int) -> Rule:
        return Rule((), name, name, card_class, category, value)

    rules = [
        of(None, None, "pin_above", 1), of(None, "shop", "pin_above", 2),
        of("student", None, "pin_above", 3), of("student", "shop", "pin_above", 4),
        of("student", "shop", "transaction_max", 50), of(None, None, "transaction_max", 40), of(None, "canteen", "subsidy", 0),
    ]  # fmt: skip
    for order in (rules, rules[::-1]):
        terms = [Terms.of(order, *whom) for whom in (("student", "shop"), ("student", "bath"), ("teacher", "shop"), ("teacher", "canteen"))]
        assert [one.pin_above for one in terms] == [4, 3, 2, 1]
        assert [one.transaction_max for one in terms] == [40] * 4
        assert [one.takes_subsidy for one in terms] == [False] * 4
    assert Terms.of([], "student", "canteen").takes_subsidy
    for amount, surcharge, price in ((333, 1500, 383), (850, -2500, 638), (1, -5000, 1), (1, 5000, 2), (777, -10_000, 0)):
        assert Terms(0, 0, surcharge, takes_subsidy=False).price(amount) == price


# --- bytes ---


def rule_bytes(
    kind: int, value: int, *, who: tuple[int, int] = (0, 0), zone: str = "", period: tuple[int, int, int] = (127, 0, 0)
) -> bytes:
    days, start, end = period
    times = bytes([days]) + start.to_bytes(2, "little") + end.to_bytes(2, "little")
    return bytes([kind, *who, len(zone), 0]) + zone.encode() + times + value.to_bytes(8, "little", signed=True)


def rules_record(*rules: bytes) -> bytes:
    return b"\x07" + bytes(8) + len(rules).to_bytes(2, "little") + b"".join(rules) + b"\x10\x00"


def test_rules_are_read_as_rows_of_a_policy_file() -> None:
    record = rules_record(
        rule_bytes(2, 20_000, who=(2, 0)),
        rule_bytes(4, 1, who=(2, 1), period=(0b1010111, 630, 810)),
        rule_bytes(6, 1, who=(0, 2)),
        rule_bytes(7, -2_500),
        rule_bytes(8, 0, period=(0b1100000, 0, 1)),
        rule_bytes(9, 0, zone="B", period=(1, 0, 0)),
        rule_bytes(9, 0, zone="AA", who=(1, 0)),
        rule_bytes(10, 10, zone="AA"),
    )
    assert decode(record).said["rules"] == [
        "day_max,student,*,,,,,20000",
        "meal,student,canteen,,1-357,10:30,13:30,1",
        "subsidy,*,shop,,,,,yes",
        "surcharge,*,*,,,,,-2500",
        "refuse,*,*,,67,00:00,00:01,",
        "door,*,,B,1,,,",
        "door,teacher,,AA,,,,",
        "anti_passback,,,AA,,,,10",
    ]
    for wrong, words in (
        ([rule_bytes(2, 2), rule_bytes(1, 1)], "order"),
        ([rule_bytes(2, 2), rule_bytes(2, 1)], "order"),
        ([rule_bytes(9, 0, zone="AA"), rule_bytes(9, 0, zone="B")], "order"),
        ([rule_bytes(11, 1)], "the number 11"),
        ([rule_bytes(0, 1)], "the number 0"),
        ([rule_bytes(1, 1, who=(6, 0))], "the number 6"),
        ([rule_bytes(1, 1 << 32)], "does not"),
        ([rule_bytes(1, 1, zone="A")], "does not"),
        ([rule_bytes(9, 0)], "does not"),
        ([rule_bytes(9, 1, zone="A")], "does not"),
        ([rule_bytes(10, 0, zone="A")], "does not"),
        ([rule_bytes(1, 1, period=(1, 0, 0))], "does not"),
        ([rule_bytes(4, 1, period=(0, 0, 0))], "a time"),
        ([rule_bytes(4, 1, period=(128, 0, 0))], "a time"),
        ([rule_bytes(4, 1, period=(1, 1440, 0))], "a time"),
    ):
        with pytest.raises(Unreadable, match=words):
            decode(rules_record(*wrong))


def test_limits_of_the_first_kind_say_nothing_of_holds() -> None:
    said = decode(b"\x01" + bytes(8) + (5_000).to_bytes(4, "little") + b"\x08\x00" + b"\x10\x00").said
    assert (said["kind"], said["amount_max"], said["identity_days"], "hold_hours" in said) == ("policy", 5_000, 8, False)
