"""Tables of decisions: what was done before, what is asked, what is answered, and what is left of it.

A row's columns are separated by `|`. Steps are separated by commas; a step is a verb with its arguments, then in any order `@till`
where it is not the verb's own, `37=...` for an element that is another (`-`: it is missing), `!51` for an answer other than 00:

    purchase 850 | void #1 2=card | 00 | 1000 500 -850

`#1` is the first message of the row. `cash`, `subsidy` and `class` say what the card's holder has and is; `card lost` changes the card
afterwards and `pin 1234` its PIN, which `48=pin:1234` sends; `prepare` makes a message that is sent later, or never. The last column of
money is what is available in both purses, and what the merchant of the till has got by what was asked; it is empty where nothing
changes. Under `then` stand further steps.

Always true here, of whatever is asked in a row:

- The reply is told whole: nothing is missing and nothing more is there.
- What is remembered has the journal's next position as its number and is answered byte for byte the same when it comes again, as a repeat
  too; its identity with another card is answered 94. None of this changes anything.
- What is declined changes nothing, and what is not remembered leaves no trace in the journal.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakKeyDictionary

import pytest

from switch.dialect import decode, encode
from tests.messages import ACTS, Fields, Messages
from tests.switch_process import CANTEEN, FAR_FUTURE, SHOP, Answer, Connection, Device, Switch, today

BUSINESS_DATE: Final = f"{today():%m%d}"

TILLS: Final[dict[str, tuple[str, str, str]]] = {
    "pos": ("pos", CANTEEN, ""),
    "pos2": ("pos", CANTEEN, ""),
    "shop": ("pos", SHOP, ""),
    "kiosk": ("kiosk", CANTEEN, ""),
    "counter": ("counter", CANTEEN, ""),
    "water": ("water", CANTEEN, ""),
    "shopwater": ("water", SHOP, ""),
    "gate": ("gate", CANTEEN, "EAST"),
    "gate2": ("gate", CANTEEN, "WEST"),
    "library": ("library", CANTEEN, ""),
    "meter": ("meter", CANTEEN, ""),
}
"""Kind, merchant and zone."""

Maker = Callable[..., Fields]


def _showing(act: str) -> Maker:
    return lambda device, *words, **changes: device.act(act, *words, **changes)


VERBS: Final[dict[str, tuple[Maker, str, str]]] = {
    "purchase": (Messages.purchase, "card amount", "pos"),
    "offline": (Messages.offline_sale, "card amount", "pos"),
    "void": (Messages.void, "number", "pos"),
    "refund": (Messages.refund, "number amount", "pos"),
    "balance": (Messages.balance, "card", "pos"),
    "load": (Messages.load, "card amount", "counter"),
    "bill": (Messages.bill, "card amount text", "kiosk"),
    "hold": (Messages.hold, "card amount", "water"),
    "complete": (Messages.completion, "number amount", "water"),
    "lose": (Messages.loss, "card", "kiosk"),
    "find": (Messages.found, "card", "kiosk"),
    "event": (Messages.event, "text text text", "meter"),
    "hotlist": (Messages.hotlist, "amount text", "pos"),
    "close": (lambda device, batch, **changes: device.batch_close(batch, (0,) * 8, **changes), "amount", "pos"),
    "echo": (Messages.echo, "", "pos"),
    **{act: (_showing(act), "card item", "library" if act in {"borrow", "return"} else "gate") for act in ACTS},
    "advise": (Messages.advice, "text card item", "gate"),
    "reverse": (Messages.reversal, "message", ""),
    "reverse-by-stan": (Messages.reversal_by_stan, "message", ""),
}
"""How a verb's message is made, from what, and at which till where none is named; a reversal's is its original's."""

HOLDER: Final[dict[str, Any]] = {"cash": 1000, "subsidy": 500}
"""What a card's holder has where a row says nothing else."""

UNKNOWN_CARD: Final = "6239999999999999"
ANOTHER_CARD: Final = "6238888888888888"
"""Neither is ever entered."""

BILL: Final = "3002013109ROOM 4711"
"""DE48 of a bill, before whatever more is in it."""

ECHOED: Final = ("2", "3", "4", "11", "12", "13", "24", "41", "42", "49", "60", "70")
NOT_REMEMBERED: Final = frozenset({"30", "58", "63", "91", "96"})
AFTER_THE_PIN: Final = frozenset({"61", "65", "51"})
MONEY_CODES: Final = frozenset({"00", "01", "02", "20", "21", "31", "50"})
"""First two digits of DE3 in money operations."""

STATUSES: Final = ("lost", "frozen", "blacklisted", "inactive", "cancelled", "active")


@dataclass(frozen=True)
class Row:
    """One decision of a table."""

    given: str
    asked: str
    code: str
    remembered: bool
    left: tuple[int, ...] | None
    private: str | None
    then: str

    def __str__(self) -> str:
        return f"{self.given or 'nothing'} > {self.asked} = {self.code}".replace(" ", "-")


def table(text: str, *columns: str) -> list[Row]:
    """The rows of a table. `columns` after given, asked and 39 are of `left`, `48`, `then`; a code in parentheses is not remembered."""
    rows = []
    for line in filter(str.strip, text.splitlines()):
        given, asked, code, *more = (column.strip() for column in line.split("|"))
        assert len(more) <= len(columns), line
        named = dict(zip(columns, more, strict=False))
        left = tuple(int(number) for number in named.get("left", "").split())
        assert len(left) in {0, 3}, line
        bare = code.strip("()")
        rows.append(
            Row(
                given,
                asked,
                bare,
                remembered=bare == code and bare not in NOT_REMEMBERED,
                left=left or None,
                private=named.get("48") or None,
                then=named.get("then", ""),
            )
        )
    return rows


def reply_to(request: Fields, code: str) -> Fields:
    """What a reply has of its request, and its code; without number, approval and what the operation adds."""
    asked = decode(encode(request))
    echoed: Fields = {name: asked[name] for name in ECHOED if name in asked and (name != "2" or request["t"][:2] != "08")}
    return {**echoed, "t": f"{int(request['t']) + 10:04}", "15": BUSINESS_DATE, "39": code}


def balances(cash: int, subsidy: int) -> str:
    """DE54."""
    told = (("10", cash), ("20", subsidy))
    return "".join(f"{purse}02156{'D' if amount < 0 else 'C'}{abs(amount):012}" for purse, amount in told)


def is_inquiry(request: Fields) -> bool:
    """Answered afresh each time, and never remembered."""
    return (request["t"][:3], request.get("3", "")[:2]) in {("010", "31"), ("010", "90")} or request.get("91") == "5"


def tells_balances(request: Fields) -> bool:
    """Approved, it has DE54."""
    money = request["t"][:2] in {"01", "02"} and request["t"][:3] != "012" and request["3"][:2] in MONEY_CODES
    return (money or request["t"][:2] == "04") and request.get("2", UNKNOWN_CARD) != UNKNOWN_CARD


@dataclass(frozen=True)
class Step:
    """A verb, and how its message is other than usual."""

    verb: str
    arguments: list[str]
    till: str
    """Empty: the verb's own."""
    changes: dict[str, str]
    code: str

    @classmethod
    def read(cls, text: str, till: str = "") -> "Step":
        verb, *words = text.split()
        code, arguments, changes = "00", [], {}
        for word in words:
            if word[0] == "@":
                till = word[1:]
            elif word[0] == "!":
                code = word[1:]
            elif found := re.fullmatch(r"(t|\d+)=(.*)", word):
                changes[found[1]] = found[2]
            else:
                arguments.append(word)
        return cls(verb, arguments, till, changes, code)


def steps(text: str, till: str = "") -> Iterator[Step]:
    return (Step.read(part, till) for part in text.split(",") if part.strip())


@dataclass
class Parties:
    """What every row on one switch may use."""

    tills: dict[str, Device] = field(default_factory=dict)
    cards: dict[str, list[str]] = field(default_factory=dict)
    """Not used yet, by what their holders have and are."""


_parties: WeakKeyDictionary[Switch, Parties] = WeakKeyDictionary()


class Scene:
    """One row's card, and the tills of its switch over one connection."""

    def __init__(self, switch: Switch, connection: Connection, *, shares_tills: bool = True) -> None:
        """Without `shares_tills` nobody else has a part in what its terminals remember."""
        self.switch = switch
        self.connection = connection
        self.holder = HOLDER
        self.card = ""
        self.other = ""
        """Another holder's, who has the same."""
        self.messages: list[tuple[str, Fields, Answer | None]] = []
        """Each with the till that it belongs to."""
        parties = _parties.setdefault(switch, Parties())
        self._cards = parties.cards
        self._tills: dict[str, Device] = parties.tills if shares_tills else {}

    async def till(self, name: str) -> Device:
        """A terminal that is signed on: to all rows of its switch the same one."""
        if name not in self._tills:
            kind, merchant, zone = TILLS[name]
            self._tills[name] = await self.switch.device(kind=kind, merchant=merchant, zone=zone)
            await self._tills[name].sign_on(self.connection)
        return self._tills[name]

    async def parties(self) -> None:
        """Enter the cards, once what their holders have is told."""
        if not self.card:
            unused = self._cards.setdefault(str(self.holder), [])
            if not unused:
                unused += await self.switch.cards(40 if self.holder == HOLDER else 2, **self.holder)
            self.card, self.other = unused.pop(), unused.pop()

    # Steps.

    async def do(self, text: str, till: str = "") -> None:
        """All of these steps, each answered as it says, at this till where they name none."""
        for step in steps(text, till):
            if step.verb in {"cash", "subsidy"}:
                self.holder = {**self.holder, step.verb: int(step.arguments[0])}
            elif step.verb == "class":
                self.holder = {**self.holder, "card_class": step.arguments[0]}
            elif step.verb == "card":
                await self.parties()
                await self.change_card(*step.arguments)
            elif step.verb == "pin":
                await self.parties()
                await self.switch.set_pins({self.card: step.arguments[0]})
            elif step.verb == "prepare":
                await self.message(Step(step.arguments[0], step.arguments[1:], step.till, step.changes, ""))
            else:
                till, request = await self.message(step)
                answer = await (await self.till(till)).ask(self.connection, request)
                assert answer.code == step.code, f"{step}: {answer.fields}"
                self.messages[-1] = (till, request, answer)

    async def change_card(self, *how: str) -> None:
        """Another status, or `expired`, or `last-day`, or both."""
        dates = {"expired": today(-1).isoformat(), "last-day": today().isoformat()}
        status = next((word for word in how if word in STATUSES), "active")
        expires = next((dates[word] for word in how if word in dates), FAR_FUTURE)
        await self.switch.alter(self.card, status=status, expires=expires, **{**self.holder, "cash": 0, "subsidy": 0})

    def _referred(self, word: str) -> tuple[str, Fields, Answer | None]:
        return self.messages[int(word[1:]) - 1]

    def _number(self, word: str) -> str:
        """The transaction number of a message of this row, or one as it stands."""
        if word[0] != "#":
            return word
        answer = self._referred(word)[2]
        assert answer is not None
        return answer.fields["37"]

    def _value(self, element: str, text: str) -> str | None:
        if text == "-":
            return None
        if element == "13":
            return f"{today(int(text)):%m%d}"
        if element == "4":
            return f"{int(text):012}"
        return {"card": self.card, "other": self.other, "unknown": UNKNOWN_CARD}.get(text, text)

    async def message(self, step: Step) -> tuple[str, Fields]:
        """The step's message, with its till; it is the row's next one."""
        await self.parties()
        changes = {element: self._value(element, text) for element, text in step.changes.items() if text[:4] != "pin:"}
        if step.verb == "send":
            till, sent, _ = self._referred(step.arguments[0])
            request = {element: text for element, text in {**sent, **changes}.items() if text is not None}
        else:
            make, parts, usual = VERBS[step.verb]
            till = step.till or usual or self._referred(step.arguments[0])[0]
            device = await self.till(till)
            if "48" in step.changes and "48" not in changes:
                private = BILL if step.verb == "bill" else ""
                changes["48"] = private + device.pin(self.card, step.changes["48"].removeprefix("pin:"))
            named = {f"de{element}": value for element, value in changes.items()}
            request = make(device, *self._arguments(parts.split(), step.arguments), **named)
        self.messages.append((till, request, None))
        return till, request

    def _arguments(self, parts: list[str], words: list[str]) -> Iterator[Any]:
        """What a message is made of. An item is this row's own."""
        left = iter(words)
        for part in parts:
            word = "" if part == "card" else next(left, None)
            match part:
                case "card":
                    yield self.card
                case _ if word is None:
                    return
                case "amount":
                    yield int(word)
                case "number":
                    yield self._number(word)
                case "message":
                    yield self._referred(word)[1]
                case "item":
                    yield f"{word} {self.card[-6:]}"
                case _:
                    yield word

    # What holds of every decision.

    async def earned(self, device: Device) -> int:
        """What the terminal's merchant has."""
        balance: int = (await self.switch.show("merchant", device.merchant_id))["balance"]
        return balance

    async def card_shown(self) -> dict[str, Any]:
        """All that is known of the card; that it was shown somewhere is no change."""
        return {**await self.switch.show("card", self.card), "position": None, "last_activity": None}

    async def record(self) -> int:
        """The position of a record more: a purchase of nothing, declined."""
        await self.parties()
        device = await self.till("shop")
        return int((await device.ask(self.connection, device.purchase(self.other, 0))).fields["37"])

    async def purses(self) -> tuple[int, int]:
        """What is available, by a balance inquiry."""
        device = await self.till("pos")
        told = (await device.ask(self.connection, device.balance(self.card))).purses
        assert told is not None
        return told

    async def decide(self, row: Row) -> Answer:
        """Ask what the row asks, and see that everything is as it says."""
        await self.do(row.given)
        (step,) = steps(row.asked)
        name, request = await self.message(step)
        device = await self.till(name)
        purses = await self.purses()
        approved = row.code == "00"
        shown, earned = ({}, await self.earned(device)) if approved else (await self.card_shown(), 0)
        position = await self.record()

        answer = await device.ask(self.connection, request)
        self.messages[-1] = (name, request, answer)
        assert answer.code == row.code, answer.fields
        left, gain = (row.left[:2], row.left[2]) if row.left else (purses, 0)
        assert await self.purses() == left
        if approved:
            assert await self.earned(device) - earned == gain
        else:
            # But for the wrong PINs in a row, when it has come to the PIN.
            counts = {"pin", "pin_tries"} if "48" in step.changes and row.code in {"55", *AFTER_THE_PIN} else set()
            after = await self.card_shown()
            assert {name: after[name] for name in after.keys() - counts} == {name: shown[name] for name in shown.keys() - counts}, (
                "a decline changes nothing"
            )

        expected = reply_to(request, row.code)
        if row.private is not None:
            expected["48"] = row.private
        if approved and tells_balances(request):
            expected["54"] = balances(*left)
        remembered = row.remembered and not is_inquiry(request)
        if remembered:
            position += 1
            expected["37"] = f"{position:012}"
            if approved and request["t"][:2] in {"01", "02", "04"}:
                expected["38"] = f"{position:012}"[6:]
        assert answer.fields == expected
        if remembered:
            await self.again(device, request, answer)
            assert await self.purses() == left, "nothing of this changes anything"
        assert await self.record() == position + 1, "one record, or none"
        await self.do(row.then)
        return answer

    async def again(self, device: Device, request: Fields, answer: Answer) -> None:
        """The stored answer comes again, and to another content 94."""
        assert (await device.ask(self.connection, request)).message == answer.message
        repeated = await device.ask(self.connection, {**request, "t": f"{request['t'][:3]}1"})
        assert (repeated.fields["t"], repeated.content) == (f"{answer.fields['t'][:3]}1", answer.content)
        other = {**request, "2": ANOTHER_CARD}
        assert (await device.ask(self.connection, other)).fields == reply_to(other, "94")


def for_every_status(asked: str, given: str = "") -> list[Row]:
    """What is asked of a card that is not to be served, and of one on its last day."""
    codes = {"lost": "41", "frozen": "62", "blacklisted": "62", "inactive": "78", "cancelled": "78", "expired": "54"}
    before = f"{given}, " if given else ""
    return table("\n".join(f"{before}card {status} | {asked} | {code}" for status, code in codes.items()))


def whatever_the_status(asked: str, left: str, given: str = "", code: str = "00") -> list[Row]:
    """What is not refused for it."""
    before = f"{given}, " if given else ""
    statuses = ("lost", "frozen", "blacklisted", "inactive", "cancelled", "expired")
    return table("\n".join(f"{before}card {status} | {asked} | {code} | {left}" for status in statuses), "left")


def decisions(rows: list[Row]) -> pytest.MarkDecorator:
    """A test for each row."""
    return pytest.mark.parametrize("row", rows, ids=str)
