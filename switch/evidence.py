"""Checks an evidence report of the campus card switch. It needs this one file, Python 3.11 and the package `blake3`:

    python3 evidence.py REPORT [--follows EARLIER]... [--anchor HASH@POSITION]... [--json]

What a report is, line by line, stands in docs/evidence.md. This file shares no code with the switch: it was written against
that page, so what both of them say has been understood twice.

What it checks: every hash and every link of the chain; that each record's bytes are what was hashed, and that what is printed
beside them is what they say, to the character; positions and batches without gap; and what the report says of the books, as far
as the records in hand decide it (`Books`): who a number stands for, what purses hold, that each movement takes from one account
what it gives to another and is what the operation pays to whom it pays, that nothing is decided, given back or completed twice,
and that whatever a card's status, an amount or a batch's totals decide was decided so. A report that reaches back to record 1,
itself or by those that it follows, leaves nothing of that to belief.

Always true here: a report is read once, line by line, and what is held does not grow with it, but by the parties, the days, the
holds, loans and batches that a switch keeps itself. The first thing that is wrong ends the check and is named with its line and
record.
"""

import argparse
import datetime
import hashlib
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import blake3

__all__ = ["Anchor", "Fault", "Finding", "add_arguments", "check", "run"]

FORMAT: Final = 2
OLDER: Final = {1: frozenset({"flag", "switch_totals", "pin"})}
"""Formats before, with the fields that a record did not have: there was nothing yet that they could say."""
BLOCK_BYTES: Final = 4096
HEAD_BYTES: Final = 112
PADDING: Final = b"\xa5"
BATCH_MAGIC: Final = b"SWJBATCH"
JOURNAL_VERSION: Final = 1
RECORD_BYTES_MAX: Final = 60_000
LINE_BYTES_MAX: Final = 4 << 20
ACCOUNT_FEN_MAX: Final = 999_999_999_999
"""The most that an account that is not the campus's own holds, and the most that a cash purse owes."""
PURSE_FEN_MAX: Final = 99_999_999_999
"""The most that a purse is opened with or loaded up to."""
IDENTITY_DAYS_MAX: Final = 60
"""Days for which a switch may remember decisions, at most; what is older can be forgotten here as well."""
HOUR_MICROSECONDS: Final = 3_600_000_000

RESPONSES: Final = (
    "30", "58", "63", "12", "94", "13", "14", "41", "62", "78", "54", "57", "51", "91", "96", "00", "75", "55", "25", "61", "65", "95",
)  # fmt: skip
CATEGORIES: Final = ("canteen", "shop", "clinic", "bath", "utility", "library", "gate", "office")
TERMINAL_KINDS: Final = ("pos", "kiosk", "counter", "gate", "water", "library", "meter")
STANDINGS: Final = ("active", "suspended")
CLASSES: Final = ("teacher", "student", "merchant", "family", "temporary")
STATUSES: Final = ("active", "inactive", "lost", "frozen", "cancelled", "blacklisted")
KEYS: Final = ("sign_on", "current", "previous")
PURSES: Final = ("policy", "cash", "subsidy")
PINS: Final = ("absent", "right", "wrong")
PAYEES: Final = ("tuition", "electricity", "water", "other")
ACTS: Final = ("verify", "enter", "leave", "borrow", "return", "attendance")
EVENTS: Final = ("overload", "tamper", "fire", "restored")
TOTALS: Final = ("credits", "credit_reversals", "debits", "debit_reversals")
KINDS: Final = {
    1: "policy",
    2: "cutover",
    3: "merchant",
    4: "terminal",
    5: "card",
    6: "import",
    7: "rules",
    8: "pin",
    9: "lapse",
    10: "limits",
    11: "standing",
    16: "sign_on",
    17: "sign_off",
    18: "purchase",
    19: "reversal",
    20: "unknown",
    21: "offline_sale",
    22: "hold",
    23: "completion",
    24: "void",
    25: "refund",
    26: "load",
    27: "bill_payment",
    28: "identity",
    29: "card_report",
    30: "batch_close",
    31: "event",
    32: "late_advice",
}
FINANCIAL: Final = 0
"""The family of messages that reversals undo."""
FAMILIES: Final = {1: FINANCIAL, 2: FINANCIAL, 3: 1, 4: 2, 5: 3, 6: 4, 8: 5}
"""By the second digit of the MTI, where the first is 0; all others are 6."""

EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
DAY_ZERO: Final = datetime.date(2000, 1, 1).toordinal()

Document = dict[str, Any]
Pair = tuple[int, int]
"""Fen of the cash and of the subsidy purse."""


class Fault(Exception):
    """What is wrong with a report: one sentence."""


class Unreadable(Exception):
    """A record's bytes are not those of a record; why."""


# --- records ---


class Bytes:
    """Takes a record's bytes apart: little-endian, without padding."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def take(self, count: int) -> bytes:
        taken = self._content[self._at : self._at + count]
        if len(taken) != count:
            raise Unreadable("it ends too early")
        self._at += count
        return taken

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def signed(self) -> int:
        return int.from_bytes(self.take(8), "little", signed=True)

    def text(self) -> str:
        try:
            return self.take(self.number(2)).decode("utf-8")
        except UnicodeDecodeError:
            raise Unreadable("a text in it is not UTF-8") from None

    def day(self) -> int:
        """A day as its ordinal."""
        return DAY_ZERO + self.number(2)

    def one_of(self, names: Sequence[str], *, first: int = 1) -> str:
        return _name(self.number(1), names, first)

    def one_or_none(self, names: Sequence[str]) -> str | None:
        """0 is none."""
        number = self.number(1)
        return _name(number, names, 1) if number else None

    def yes(self) -> bool:
        return self.one_of(("no", "yes"), first=0) == "yes"

    def totals(self) -> Document:
        return {name: {"number": self.number(8), "fen": self.number(8)} for name in TOTALS}

    def end(self) -> None:
        if self._at != len(self._content):
            raise Unreadable(f"{len(self._content) - self._at} bytes are left over")


def _name(number: int, names: Sequence[str], first: int) -> str:
    if not 0 <= number - first < len(names):
        raise Unreadable(f"the number {number} stands where one of {', '.join(names)} should")
    return names[number - first]


@dataclass(frozen=True, slots=True)
class Message:
    """What identifies a message: family, terminal's number, day of DE13 (ordinal), DE11."""

    family: int
    terminal: int
    day: int
    stan: int

    @classmethod
    def unpack(cls, content: Bytes) -> "Message":
        packed, day = content.number(8), content.day()
        return cls(packed >> 56, packed >> 20 & 0xFFFFFFFF, day, packed & 0xFFFFF)


@dataclass(frozen=True)
class Record:
    """One record, decoded."""

    said: Document
    """As the report prints it, but for `at`."""
    microseconds: int
    message: Message | None = None
    undoes: Message | None = None
    rules: Sequence["Rule"] = ()


def decode(content: bytes) -> Record:
    """Decode a record. Raises Unreadable."""
    rest = Bytes(content)
    kind = KINDS.get(rest.number(1))
    if kind is None:
        raise Unreadable(f"{content[0]} is no kind of record")
    said: Document = {"kind": kind}
    microseconds = rest.number(8)
    message = undoes = None
    rules: list[Rule] = []
    if kind == "rules":
        rules = _rules(rest)
        said["rules"] = [rule.row for rule in rules]
    elif kind in _OWN:
        _OWN[kind](rest, said)
    else:
        message = _request(rest, said)
        if kind == "reversal":
            undoes = Message.unpack(rest)
            said["undoes"] = {"terminal_number": undoes.terminal, "date": _date(undoes.day), "stan": undoes.stan}
        else:
            _MESSAGES.get(kind, _nothing)(rest, said)
    _outcome(rest, said)
    rest.end()
    return Record(said, microseconds, message, undoes, rules)


def _outcome(rest: Bytes, said: Document) -> None:
    said["response"] = rest.one_of(RESPONSES)
    present = rest.number(1)
    if present > 31:
        raise Unreadable("it announces parts that do not exist")
    said["paid_cash"], said["paid_subsidy"] = (rest.number(8), rest.number(8)) if present & 4 else (0, 0)
    said["cash_after"], said["subsidy_after"] = (rest.signed(), rest.signed()) if present & 1 else (None, None)
    said["original"] = rest.number(8) if present & 2 else None
    said["flag"] = rest.one_of(RESPONSES) if present & 8 else None
    said["switch_totals"] = rest.totals() if present & 16 else None


def _policy(rest: Bytes, said: Document) -> None:
    said.update(amount_max=rest.number(4), identity_days=rest.number(2))


def _limits(rest: Bytes, said: Document) -> None:
    _policy(rest, said)
    said.update(hold_hours=rest.number(2), pin_tries_max=rest.number(1))


def _cutover(rest: Bytes, said: Document) -> None:
    said.update(business_date=_date(rest.day()))


def _merchant(rest: Bytes, said: Document) -> None:
    said.update(merchant=rest.text(), name=rest.text(), category=rest.one_of(CATEGORIES), fee_bp=rest.number(2))


def _terminal_name(rest: Bytes) -> str:
    return rest.take(8).decode("utf-8", "replace").rstrip()


def _terminal(rest: Bytes, said: Document) -> None:
    said.update(terminal=_terminal_name(rest), merchant_number=rest.number(4), terminal_kind=rest.one_of(TERMINAL_KINDS), zone=rest.text())
    rest.take(24)  # the wrapped master key: hashed, and nothing to read


def _standing(rest: Bytes, said: Document) -> None:
    said.update(terminal=_terminal_name(rest), standing=rest.one_of(STANDINGS))


def _card(rest: Bytes, said: Document) -> None:
    said.update(card=_known_card(rest), holder=rest.text())
    said["class"] = rest.one_of(CLASSES)
    said.update(status=rest.one_of(STATUSES), expires=_date(rest.day()), opening_cash=rest.signed(), opening_subsidy=rest.signed())


def _pin(rest: Bytes, said: Document) -> None:
    said.update(card=_known_card(rest))
    rest.take(16)  # what tells whether a PIN is right: hashed, and nothing to read


def _known_card(rest: Bytes) -> str:
    card = _card_number(rest.number(8))
    if card is None:
        raise Unreadable("it has no card number")
    return card


def _import(rest: Bytes, said: Document) -> None:
    said.update(file=rest.text(), rows=rest.number(4))


def _lapse(rest: Bytes, said: Document) -> None:
    said.update(hold=rest.number(8))


def _rules(rest: Bytes) -> "list[Rule]":
    rules = [Rule.unpack(rest) for _ in range(rest.number(2))]
    keys = [rule.key for rule in rules]
    if any(before >= after for before, after in itertools.pairwise(keys)):
        raise Unreadable("its rules are not in their order, each once")
    return rules


_OWN: Final[dict[str, Callable[[Bytes, Document], None]]] = {
    "policy": _policy,
    "limits": _limits,
    "cutover": _cutover,
    "merchant": _merchant,
    "terminal": _terminal,
    "standing": _standing,
    "card": _card,
    "pin": _pin,
    "import": _import,
    "lapse": _lapse,
}


def _nothing(_: Bytes, __: Document) -> None:
    """What needs nothing more than a message."""


def _sign_on(rest: Bytes, _: Document) -> None:
    rest.take(16)  # both nonces: hashed, and nothing to read


def _purchase(rest: Bytes, said: Document) -> None:
    both = rest.number(1)
    said.update(purses=_name(both & 15, PURSES, 0), pin=_name(both >> 4, PINS, 0))


def _offline_sale(rest: Bytes, said: Document) -> None:
    said.update(purses=rest.one_of(PURSES, first=0))


def _hold(rest: Bytes, said: Document) -> None:
    said.update(pin=rest.one_of(PINS, first=0))


def _referring(rest: Bytes, said: Document) -> None:
    said.update(refers_to=rest.number(8))


def _bill_payment(rest: Bytes, said: Document) -> None:
    said.update(payee=rest.one_of(PAYEES), reference=rest.text(), pin=rest.one_of(PINS, first=0))


def _identity(rest: Bytes, said: Document) -> None:
    said.update(act=rest.one_of(ACTS), item=rest.text() or None, is_advice=rest.yes())


def _card_report(rest: Bytes, said: Document) -> None:
    said.update(is_found=rest.yes())


def _batch_close(rest: Bytes, said: Document) -> None:
    said.update(totals=rest.totals())


def _event(rest: Bytes, said: Document) -> None:
    said.update(event=rest.one_of(EVENTS), place=rest.text() or None, value=rest.text() or None)


def _late_advice(rest: Bytes, said: Document) -> None:
    said.update(act=rest.one_or_none(ACTS), item=rest.text() or None, refers_to=rest.number(8) or None)


_MESSAGES: Final[dict[str, Callable[[Bytes, Document], None]]] = {
    "sign_on": _sign_on,
    "purchase": _purchase,
    "offline_sale": _offline_sale,
    "hold": _hold,
    "completion": _referring,
    "void": _referring,
    "refund": _referring,
    "bill_payment": _bill_payment,
    "identity": _identity,
    "card_report": _card_report,
    "batch_close": _batch_close,
    "event": _event,
    "late_advice": _late_advice,
}


def _request(rest: Bytes, said: Document) -> Message:
    message = Message.unpack(rest)
    card, content, echo = rest.number(8), rest.number(8), rest.number(8)
    time = echo & 0xFFFFF

    def optional(shift: int, bits: int) -> int | None:
        return echo >> shift + 1 & (1 << bits) - 1 if echo >> shift & 1 else None

    key, mti = rest.one_of(KEYS, first=0), rest.number(2)
    if message.family != (FAMILIES.get(mti // 100, 6) if mti < 1000 else 6):
        raise Unreadable("its identity is not of its message's family")
    said.update(
        terminal_number=message.terminal,
        stan=message.stan,
        terminal_clock=f"{_date(message.day)}T{time // 10_000:02}:{time // 100 % 100:02}:{time % 100:02}",
        card=_card_number(card),
        processing=f"{content >> 40 & 0xFFFFF:06}" if content >> 61 & 1 else None,
        amount=content & (1 << 40) - 1 if content >> 60 & 1 else None,
        currency="156" if content >> 62 & 1 else None,
        nii=optional(20, 10),
        batch_number=optional(31, 20),
        network=optional(52, 10),
        names_merchant=bool(echo >> 63),
        key=key,
        mti=f"{mti:04}",
    )
    return message


def _card_number(packed: int) -> str | None:
    """The digits: a number's value is counted on from that of the first number of its length."""
    first = 0
    for length in range(1, 20):
        if packed < first + 10**length:
            return f"{packed - first:0{length}}"
        first += 10**length
    return None


def _date(ordinal: int) -> str:
    return datetime.date.fromordinal(ordinal).isoformat()


# --- rules ---

RULES: Final = {
    "transaction_max": ("class category value", 0, (1 << 32) - 1),
    "day_max": ("class category value", 0, ACCOUNT_FEN_MAX),
    "day_count": ("class category value", 0, 10_000),
    "meal": ("class category period value", 0, 10_000),
    "pin_above": ("class category value", 0, (1 << 32) - 1),
    "subsidy": ("class category value", 0, 1),
    "surcharge": ("class category value", -10_000, 10_000),
    "refuse": ("class category period", 0, 0),
    "door": ("class zone period", 0, 0),
    "anti_passback": ("zone value", 1, 10_080),
}
"""Which fields each uses, and which values it may have."""
ALL_DAYS: Final = 0x7F
DAY_MINUTES: Final = 1440


@dataclass(frozen=True)
class Rule:
    """A rule of the campus's policy."""

    key: tuple[object, ...]
    """By which rules are ordered."""
    row: str
    """As a policy file has it."""
    name: str
    card_class: str | None
    category: str | None
    value: int

    @classmethod
    def unpack(cls, content: Bytes) -> "Rule":
        number = content.number(1)
        name = _name(number, tuple(RULES), 1)
        class_number, category_number = content.number(1), content.number(1)
        card_class = _name(class_number, CLASSES, 1) if class_number else None
        category = _name(category_number, CATEGORIES, 1) if category_number else None
        zone, days, start, end, value = content.text(), content.number(1), content.number(2), content.number(2), content.signed()
        uses, least, most = RULES[name]
        period = (days, start, end)
        unused = [
            ("class", card_class is not None),
            ("category", category is not None),
            ("zone", bool(zone)),
            ("period", period != (ALL_DAYS, 0, 0)),
        ]
        if any(said and used not in uses for used, said in unused) or ("zone" in uses and not zone) or not least <= value <= most:
            raise Unreadable(f"its rule {name} says what such a rule does not")
        if not 1 <= days <= ALL_DAYS or max(start, end) >= DAY_MINUTES:
            raise Unreadable("one of its rules holds at a time that there is not")
        fields = [
            name,
            (card_class or "*") if "class" in uses else "",
            (category or "*") if "category" in uses else "",
            zone,
            _days(days),
            *((f"{minute // 60:02}:{minute % 60:02}" for minute in (start, end)) if start or end else ("", "")),
            ("no", "yes")[value] if name == "subsidy" else str(value) if "value" in uses else "",
        ]
        return cls((number, len(zone), zone, class_number, category_number, *period), ",".join(fields), name, card_class, category, value)

    def fits(self, card_class: str, category: str) -> bool:
        return self.card_class in {None, card_class} and self.category in {None, category}


def _days(days: int) -> str:
    """1 is Monday; three or more in a row as the first, a dash and the last; nothing for all."""
    if days == ALL_DAYS:
        return ""
    digits = "".join(str(day + 1) for day in range(7) if days >> day & 1)
    return re.sub("|".join("1234567"[start : start + count] for count in range(7, 2, -1) for start in range(8 - count)), _shortened, digits)


def _shortened(found: re.Match[str]) -> str:
    return f"{found[0][0]}-{found[0][-1]}"


@dataclass(frozen=True)
class Terms:
    """What rules say of a class of cards at merchants of a category."""

    transaction_max: int
    pin_above: int
    surcharge_bp: int
    takes_subsidy: bool

    @classmethod
    def of(cls, rules: Sequence[Rule], card_class: str, category: str) -> "Terms":
        fitting = [rule for rule in rules if rule.fits(card_class, category)]
        # Later ones are more specific: neither, category, class, both.
        fitting.sort(key=lambda rule: (rule.card_class is not None, rule.category is not None))
        last = {rule.name: rule.value for rule in fitting}
        ceilings = [rule.value for rule in fitting if rule.name == "transaction_max"]
        return cls(
            min(ceilings, default=(1 << 32) - 1),
            last.get("pin_above", (1 << 32) - 1),
            last.get("surcharge", 0),
            bool(last.get("subsidy", category == "canteen")),
        )

    def price(self, amount: int) -> int:
        """With the surcharge, rounded half up."""
        return amount + (amount * self.surcharge_bp + 5_000) // 10_000


# --- books ---

SALES: Final = {"purchase", "offline_sale", "completion"}
"""What can be refunded."""
SPENT: Final = {"purchase", "hold", "bill_payment"}
"""What rules are asked for."""
REFERRING: Final = {"completion", "void", "refund"}
MONEY: Final = {*SALES, *SPENT, *REFERRING, "load"}
"""What, where approved, says what the purses hold afterwards."""
PAID_INTO: Final = {"load", "refund", "reversal", "void"}
ASKED_OF_CARDS: Final = {"14", "41", "62", "78", "54"}
STATUS_CODES: Final = {"lost": "41", "frozen": "62", "blacklisted": "62", "inactive": "78", "cancelled": "78"}
LIVE: Final = {"active", "inactive", "frozen", "blacklisted"}
FLAGS: Final = {
    "offline_sale": {"41", "62", "78", "54", "57", "75", "55", "61", "65", "51"},
    "identity": {"41", "62", "78", "54", "57"},
}
SOLD: Final = "00 12 13 14 41 62 78 54 57 75 55 61 65 51"
POSSIBLE: Final = {
    "purchase": SOLD,
    "hold": SOLD,
    "bill_payment": SOLD,
    "offline_sale": "00 12 13 14",
    "load": "00 12 13 14 41 62 78 54 61",
    "void": "00 12 14 25",
    "refund": "00 12 13 14 25 61",
    "completion": "00 12 13 14 25 61",
    "identity": "00 12 14 41 62 78 54 57 25",
    "card_report": "00 14 62 78",
    "reversal": "00 94",
    "batch_close": "00 95",
    "event": "00",
    "sign_on": "00",
    "sign_off": "00",
    "unknown": "12",
}
"""The responses that each kind may have."""
KINDS_THAT_MAY: Final = {
    "purchase": "pos counter water library",
    "offline_sale": "pos counter water",
    "void": "pos counter",
    "refund": "pos counter",
    "load": "counter",
    "bill_payment": "kiosk counter",
    "card_report": "kiosk counter",
    "hold": "water",
    "completion": "water",
    "event": "meter",
    "enter": "gate",
    "leave": "gate",
    "attendance": "gate",
    "borrow": "library",
    "return": "library",
    "verify": "gate library",
}
"""Terminals by the operation, an identity event's by its act; all others are every terminal's."""


@dataclass(slots=True)
class Card:
    """A card, as far as it is known."""

    holder: str
    card_class: str | None = None
    status: str | None = None
    expires: str | None = None


@dataclass(slots=True)
class Decision:
    """What a later record may refer to."""

    position: int
    said: Document
    """Of it no more than kind, response, processing, amount, payee are used."""
    card: str | None
    """Whose purses it touched, or whom its message named."""
    holder: str | None
    merchant: str
    business_date: str
    paid: Pair
    stands: bool
    """Approved and not undone, completed or lapsed since."""
    refers_to: int | None = None
    refunded: int = 0
    """Of its amount."""
    given_back: Pair = (0, 0)
    """What its refunds gave the purses."""

    @property
    def kind(self) -> str:
        return str(self.said["kind"])

    @property
    def amount(self) -> int:
        return int(self.said["amount"] or 0)

    @property
    def left(self) -> int:
        return self.amount - self.refunded

    def share(self, amount: int) -> Pair:
        """What the purses get where so much of the amount is given back: the same part of what they paid, cash first."""
        if not self.amount:
            return (0, 0)
        due = sum(self.paid) * (self.refunded + amount) // self.amount
        given = max(due - sum(self.given_back), 0)
        cash = min(given, self.paid[0] - self.given_back[0])
        return (cash, given - cash)


@dataclass(slots=True)
class Hold:
    """An open hold."""

    holder: str | None
    terminal: int
    merchant: str
    fen: int
    microseconds: int


@dataclass(slots=True)
class Batch:
    """What a terminal's batch adds up to."""

    totals: dict[str, list[int]] = field(default_factory=lambda: {name: [0, 0] for name in TOTALS})
    touched: int = 0
    """The business date (ordinal) on which it was counted or closed last."""

    def count(self, name: str, fen: int) -> None:
        number, sum_ = self.totals[name]
        self.totals[name] = [number + 1, sum_ + fen]

    def document(self) -> Document:
        return {name: {"number": number, "fen": fen} for name, (number, fen) in self.totals.items()}


@dataclass
class Effect:
    """What an approved decision does."""

    movements: list[Document] = field(default_factory=list)
    paid: Pair = (0, 0)
    available: Pair | None = (0, 0)
    """By how much what is available in the purses changes; None: what it was before is not known."""
    stands: bool = False
    counted: tuple[str, int] | None = None
    """In which of a batch's totals, with how many fen."""
    original: int | None = None
    refers_to: int | None = None


@dataclass
class Taken:
    """A terminal's message on its way into the books."""

    position: int
    record: Record
    message: Message
    terminal: str
    merchant: str
    holder: str | None
    original: Decision | None
    """What it refers to, as far as it is in the books."""
    stated: list[Document]

    @property
    def said(self) -> Document:
        return self.record.said

    @property
    def kind(self) -> str:
        return str(self.said["kind"])

    @property
    def amount(self) -> int:
        return int(self.said["amount"] or 0)

    @property
    def paid(self) -> Pair:
        return (self.said["paid_cash"], self.said["paid_subsidy"])

    @property
    def after(self) -> Pair | None:
        return None if self.said["cash_after"] is None else (self.said["cash_after"], self.said["subsidy_after"])

    @property
    def purses(self) -> tuple[str, str]:
        return (f"cash:{self.holder}", f"subsidy:{self.holder}")

    @property
    def shop(self) -> str:
        return f"merchant:{self.merchant}"

    @property
    def operation(self) -> str:
        return str(self.said.get("act") or self.kind)


@dataclass
class Books:
    """What the records so far tell of everything that a record alone does not say."""

    complete: bool
    """Whether they are all records from the first on. Else what is new is believed at its first mention and held to from then on."""
    first: int = 1
    """The first of them."""
    business_date: str | None = None
    amount_max: int | None = None
    identity_days: int | None = None
    hold_hours: int | None = None
    remembered_from: int = DAY_ZERO
    """The first day (ordinal) that is remembered; exact where complete."""
    rules: list[Rule] = field(default_factory=list)
    """Those in force; used where complete."""
    merchants: list[str] = field(default_factory=list)
    """By number; used where complete."""
    category_of: dict[str, str] = field(default_factory=dict)
    """By merchant."""
    terminals: dict[int, str] = field(default_factory=dict)
    merchant_of: dict[str, str] = field(default_factory=dict)
    """By terminal."""
    kind_of: dict[str, str] = field(default_factory=dict)
    """By terminal."""
    suspended: set[str] = field(default_factory=set)
    """Terminals."""
    cards: dict[str, Card] = field(default_factory=dict)
    live_card: dict[str, str] = field(default_factory=dict)
    """By holder."""
    purses: dict[str, Pair] = field(default_factory=dict)
    """By holder, what is available: what is held of the cash purse is not."""
    takings: dict[str, int] = field(default_factory=dict)
    """Of merchants and payees, by account; used where complete."""
    decisions: dict[int, dict[Message, Decision]] = field(default_factory=dict)
    """By day of DE13."""
    numbers: dict[int, Message] = field(default_factory=dict)
    """Of the decisions, by position."""
    reversed_before: set[Message] = field(default_factory=set)
    """Messages that were undone before they came."""
    holds: dict[int, Hold] = field(default_factory=dict)
    """By position."""
    loans: dict[str, tuple[str | None, int]] = field(default_factory=dict)
    """By item: the holder, and the position."""
    batches: dict[tuple[int, int], Batch] = field(default_factory=dict)
    """By terminal's number and number; used where complete."""
    open_batch: dict[int, int] = field(default_factory=dict)
    """By terminal's number."""
    late: dict[Message, int] = field(default_factory=dict)
    """Advices that came too late, with the business date (ordinal) of each."""

    def take(self, position: int, record: Record, ledger: Document) -> int:
        """Check what a report says of the books beside a record, and go on to the state after it. Gives the fen that moved.

        Raises Fault, without line and position.
        """
        said = record.said
        is_anybodys = record.message is not None or said["kind"] == "lapse"
        names = {"business_date", "movements"} | ({"terminal", "merchant", "holder"} if is_anybodys else set())
        if ledger.keys() != names:
            raise Fault(f"under ledger stand {_listed(ledger)} where {_listed(names)} should")
        self._take_date(said, ledger["business_date"])
        if said["kind"] in {"policy", "limits"}:
            self.amount_max, self.identity_days = said["amount_max"], said["identity_days"]
            # Before they could be set, holds lapsed after a day.
            self.hold_hours = said.get("hold_hours", 24)
            self._forget()
        if record.message is not None:
            expected = self._take_message(position, record, record.message, ledger)
        elif said["kind"] == "lapse":
            expected = self._take_lapse(record, ledger)
        else:
            expected = self._take_own(record, ledger["movements"])
        if _canonical(ledger["movements"]) != _canonical(expected):
            raise Fault(
                f"the movements {_canonical(ledger['movements'])} are not those that follow from the record: {_canonical(expected)}"
            )
        self._post(expected)
        return sum(movement["fen"] for movement in expected)

    def _post(self, movements: Sequence[Document]) -> None:
        """Take note of what merchants and payees take and give back."""
        if not self.complete:
            return
        for movement in movements:
            for account, fen in ((movement["debit"], -movement["fen"]), (movement["credit"], movement["fen"])):
                if account.startswith(("merchant:", "payee:")):
                    self.takings[account] = self.takings.get(account, 0) + fen
                    if not 0 <= self.takings[account] <= ACCOUNT_FEN_MAX:
                        raise Fault(f"the account {account} holds {self.takings[account]} fen, which it cannot")

    # Days.

    def _take_date(self, said: Document, stated: object) -> None:
        before, now = self.business_date, self.business_date
        if said["kind"] == "cutover":
            now = said["business_date"]
            if before is not None and now <= before:
                raise Fault(f"the business date goes from {before} to {now}")
        elif before is None:
            now = "2000-01-01" if self.complete else str(stated)
        if now is None or stated != now or not re.fullmatch(r"\d{4}-\d\d-\d\d", str(stated)):
            raise Fault(f"the business date is given as {stated}, but it is {now}")
        if now != before:
            self.business_date = now
            self._forget()

    @property
    def _today(self) -> int:
        assert self.business_date is not None
        return datetime.date.fromisoformat(self.business_date).toordinal()

    def _forget(self) -> None:
        """Forget what the switch forgets, as far as it is known how long it remembers."""
        days = self.identity_days
        oldest = max(self._today - max(days or 1, 1) + 1, DAY_ZERO)
        self.late = {message: noted for message, noted in self.late.items() if noted >= oldest}
        if not self.complete:
            oldest = self._today - (IDENTITY_DAYS_MAX if days is None else days)
        self.remembered_from = max(self.remembered_from, oldest)
        for day in [day for day in self.decisions if day < self.remembered_from]:
            for decision in self.decisions.pop(day).values():
                del self.numbers[decision.position]
        self.reversed_before = {message for message in self.reversed_before if message.day >= self.remembered_from}
        self.batches = {
            key: batch
            for key, batch in self.batches.items()
            if batch.touched >= self.remembered_from or self.open_batch.get(key[0], 1) == key[1]
        }

    # What no terminal sent.

    def _take_own(self, record: Record, stated: object) -> list[Document]:
        """A record that no terminal caused; gives the movements that follow."""
        said = record.said
        if (said["response"], said["cash_after"], said["original"], said["flag"], said["switch_totals"]) != ("00", *(None,) * 4):
            raise Fault(f"a {said['kind']} record with a terminal's outcome")
        if said["paid_cash"] or said["paid_subsidy"]:
            raise Fault(f"a {said['kind']} record says that something was paid")
        if said["kind"] == "merchant":
            if self.complete and said["merchant"] not in self.category_of:
                self.merchants.append(said["merchant"])
            self.category_of[said["merchant"]] = said["category"]
        elif said["kind"] == "terminal":
            self._take_terminal(said["terminal"], said["merchant_number"], said["terminal_kind"])
        elif said["kind"] == "card":
            return self._take_card(said, stated)
        elif said["kind"] == "rules":
            self.rules = list(record.rules)
        elif said["kind"] in {"pin", "standing"}:
            self._take_change(said)
        return []

    def _take_terminal(self, terminal: str, merchant: int, kind: str) -> None:
        self.kind_of[terminal] = kind
        if not self.complete:
            # A merchant's number says nothing without the records that entered it: the next message is believed again.
            self.merchant_of.pop(terminal, None)
            return
        if merchant >= len(self.merchants):
            raise Fault(f"terminal {terminal} belongs to merchant number {merchant}, which there is not")
        if terminal not in self.merchant_of:
            self.terminals[len(self.terminals)] = terminal
        self.merchant_of[terminal] = self.merchants[merchant]

    def _take_change(self, said: Document) -> None:
        """A PIN, or a terminal that may work no more, or again."""
        if said["kind"] == "pin":
            if self.complete and said["card"] not in self.cards:
                raise Fault(f"card {said['card']} has a PIN, but there is no such card")
            return
        if self.complete and said["terminal"] not in self.merchant_of:
            raise Fault(f"terminal {said['terminal']} is {said['standing']}, but there is no such terminal")
        (self.suspended.discard if said["standing"] == "active" else self.suspended.add)(said["terminal"])

    def _take_card(self, said: Document, stated: object) -> list[Document]:
        number, holder = said["card"], said["holder"]
        card = self.cards.setdefault(number, Card(holder))
        if card.holder != holder:
            raise Fault(f"card {number} goes from holder {card.holder} to {holder}")
        card.card_class, card.expires = said["class"], said["expires"]
        self._set_status(number, card, said["status"])
        opening = (said["opening_cash"], said["opening_subsidy"])
        movements = _movements(
            ("house:suspense", f"cash:{holder}", opening[0]),
            ("house:grants", f"subsidy:{holder}", opening[1]),
        )
        if holder in self.purses or (not self.complete and stated == []):
            return []
        if min(opening) < 0 or max(opening) > PURSE_FEN_MAX:
            raise Fault(f"holder {holder} is opened with {opening} fen")
        self.purses[holder] = opening
        return movements

    def _set_status(self, number: str, card: Card, status: str) -> None:
        card.status = status
        live = self.live_card.get(card.holder)
        if status not in LIVE:
            if live == number:
                del self.live_card[card.holder]
        elif live not in {None, number}:
            raise Fault(f"holder {card.holder} has the cards {live} and {number} at once")
        else:
            self.live_card[card.holder] = number

    def _take_lapse(self, record: Record, ledger: Document) -> list[Document]:
        said = record.said
        position = said["hold"]
        hold = self.holds.pop(position, None)
        paid, after = (said["paid_cash"], said["paid_subsidy"]), (said["cash_after"], said["subsidy_after"])
        if (said["response"], said["original"], said["flag"], said["switch_totals"]) != ("00", position, None, None) or None in after:
            raise Fault("a lapse is approved, refers to its hold and says what the purses hold afterwards")
        if hold is None:
            if self.complete or position >= self.first:
                raise Fault(f"hold {position} lapses, but it is not open")
            return []
        if any(open_ < position for open_ in self.holds):
            raise Fault(f"hold {position} lapses before an older one")
        if self.hold_hours is not None and record.microseconds - hold.microseconds < self.hold_hours * HOUR_MICROSECONDS:
            raise Fault(f"hold {position} lapses before {self.hold_hours} hours have passed")
        decision = self._at(position)
        terminal = self.terminals.get(hold.terminal)
        merchant = decision.merchant if decision is not None else self.merchant_of.get(str(terminal))
        due = (terminal, merchant if self.complete else ledger["merchant"], hold.holder)
        if (ledger["terminal"], ledger["merchant"], ledger["holder"]) != due or paid != (hold.fen, 0):
            raise Fault(f"hold {position} of {hold.fen} fen at {due[0]} for {due[1]} by {due[2]} lapses as {paid} of somebody else")
        if decision is not None:
            decision.stands = False
        self._take_purses(hold.holder, after, (hold.fen, 0), least=-ACCOUNT_FEN_MAX)
        return []

    # What terminals sent.

    def _take_message(self, position: int, record: Record, message: Message, ledger: Document) -> list[Document]:
        """A record that a terminal's message caused; gives the movements that follow."""
        said = record.said
        self._check_day(message, is_late=said["kind"] == "late_advice")
        taken = self._named(position, record, message, ledger)
        self._check_terminal(taken)
        if taken.kind == "late_advice":
            return self._put_off(taken)
        self._check_response(taken)
        approved = said["response"] == "00"
        effect = self._effect(taken) if approved else Effect()
        if not approved:
            self._check_decline(taken)
        elif taken.paid != effect.paid or said["original"] != effect.original:
            raise Fault(
                f"a {taken.kind} pays {taken.paid} and refers to record {said['original']}, but it should be {effect.paid}"
                f" and record {effect.original}"
            )
        self._check_flag(taken)
        self._check_after(taken, effect)
        card = said["card"]
        if approved and taken.kind in {"completion", "refund"} and taken.original is not None:
            card = taken.original.card
        self.numbers[position] = message
        self.decisions.setdefault(message.day, {})[message] = Decision(
            position, said, card, taken.holder, taken.merchant, str(self.business_date), taken.paid, effect.stands, effect.refers_to
        )
        if taken.original is None or taken.kind != "reversal":
            self.merchant_of.setdefault(taken.terminal, taken.merchant)
        if effect.counted is not None and self.complete:
            self._batch(message.terminal, said["batch_number"]).count(*effect.counted)
        return effect.movements

    def _check_day(self, message: Message, *, is_late: bool) -> None:
        known = self.decisions.get(message.day, {}).get(message)
        if known is not None:
            raise Fault(f"it decides again what record {known.position} decided")
        today = self._today
        is_kept = self.remembered_from <= message.day <= today + 1
        if not self.complete and is_late:
            # How long the switch remembers may not have been said; what is dated today is remembered.
            is_kept = today <= message.day <= today + 1
        if not is_late and not is_kept:
            raise Fault(f"the terminal's date {_date(message.day)} is outside the days that are kept on {self.business_date}")
        if is_late and is_kept:
            raise Fault(f"it puts off an advice of {_date(message.day)}, a day that is kept on {self.business_date}")

    def _at(self, position: int | None) -> Decision | None:
        message = self.numbers.get(position or 0)
        return self.decisions[message.day][message] if message else None

    def _named(self, position: int, record: Record, message: Message, ledger: Document) -> Taken:
        """The message with the names that the report gives, which are held against what is known of them."""
        said = record.said
        number, terminal, merchant, holder = said["terminal_number"], ledger["terminal"], ledger["merchant"], ledger["holder"]
        if not (isinstance(terminal, str) and isinstance(merchant, str) and isinstance(holder, str | None)):
            raise Fault("terminal, merchant and holder are no texts")
        known = self.terminals.get(number) if self.complete else self.terminals.setdefault(number, terminal)
        if known != terminal:
            raise Fault(f"terminal number {number} is given as {terminal}, but it is {known}")
        own = self.merchant_of.get(terminal, None if self.complete else merchant)
        original = self._original(record, own)
        due = original.merchant if original else own
        # Without the whole past, what a reversal undoes may be another merchant's than the terminal's is now.
        if merchant != due and (original or self.complete or said["kind"] != "reversal"):
            raise Fault(f"the merchant is given as {merchant}, but it is {due}")
        card = said["card"] or (original.card if original else None)
        if card and holder is not None and not self.complete:
            self.cards.setdefault(card, Card(holder))
        owner = self.cards[card].holder if card in self.cards else None
        is_told = card or original or self.complete or (said["kind"] not in REFERRING and said["kind"] != "reversal")
        if holder != owner and is_told:
            raise Fault(f"the holder of card {card} is given as {holder}, but it is {owner}")
        return Taken(position, record, message, terminal, merchant, holder, original, ledger["movements"])

    def _original(self, record: Record, own: str | None) -> Decision | None:
        """What a message refers to: of a reversal by the message that it names, of others by number, and of this merchant alone."""
        if record.undoes is not None:
            return self.decisions.get(record.undoes.day, {}).get(record.undoes)
        if record.said["kind"] not in REFERRING:
            return None
        found = self._at(record.said["refers_to"])
        return found if found is not None and found.merchant == own else None

    def _check_terminal(self, taken: Taken) -> None:
        if taken.terminal in self.suspended:
            raise Fault(f"terminal {taken.terminal} is suspended, and decides nothing")
        kind = self.kind_of.get(taken.terminal)
        operation = taken.operation
        if taken.kind == "late_advice" and operation == "late_advice":
            operation = "completion" if taken.said["refers_to"] else "offline_sale"
        if kind is not None and kind not in KINDS_THAT_MAY.get(operation, kind):
            raise Fault(f"terminal {taken.terminal} is a {kind}, for which {operation} is no operation")

    def _put_off(self, taken: Taken) -> list[Document]:
        """An advice that came too late: nothing is done."""
        if taken.said["response"] != "12":
            raise Fault("an advice that came too late is answered 12")
        self._check_decline(taken)
        self._check_flag(taken)
        self._check_after(taken, Effect())
        if taken.message in self.late:
            raise Fault("it puts an advice off a second time")
        self.late[taken.message] = self._today
        return []

    # The answer, as far as it follows from what is known.

    def _check_response(self, taken: Taken) -> None:
        """Hold the response against the first reasons in their order; and no response is one that has no reason."""
        response = taken.said["response"]
        if taken.message in self.reversed_before:
            if response != "12":
                raise Fault("it decides otherwise than 12 what was undone before it came")
            return
        excluded: set[str] = set()
        for reason in (self._amount_reason, self._card_reason):
            due, others = reason(taken)
            if due is not None and response != due:
                raise Fault(f"a {taken.kind} should be answered {due}, and is answered {response}")
            if due is not None:
                return
            excluded |= others
        if self.complete and taken.kind in {*SPENT, "load", "offline_sale"}:
            excluded.add("12")
        if response in excluded or response not in POSSIBLE[taken.kind].split():
            raise Fault(f"a {taken.kind} is answered {response}, for which there is no reason")

    def _amount_reason(self, taken: Taken) -> tuple[str | None, set[str]]:
        if taken.kind not in MONEY - {"void"}:
            return None, {"13"}
        if self.amount_max is None:
            return None, set()
        is_wrong = taken.amount > self.amount_max or (taken.amount == 0 and taken.kind != "completion")
        return ("13" if is_wrong else None), {"13"}

    def _card_reason(self, taken: Taken) -> tuple[str | None, set[str]]:
        """Status and expiry, where they are asked of the card; of the others whether there is such a card."""
        said, kind = taken.said, taken.kind
        if kind not in {*MONEY, "identity", "card_report"}:
            return None, ASKED_OF_CARDS
        if said["card"] and taken.holder is None:
            return "14", ASKED_OF_CARDS
        if kind == "card_report":
            return self._report_reason(taken)
        is_asked = kind in {*SPENT, "load"} or (kind == "identity" and not said["is_advice"])
        is_known, code = self._card_code(said["card"])
        if is_asked:
            return code, ASKED_OF_CARDS if is_known else {"14"}
        return None, ASKED_OF_CARDS

    def _card_code(self, number: str | None) -> tuple[bool, str | None]:
        """Whether it is known what stands against a card, and that."""
        card = self.cards.get(number or "")
        if card is None or card.status is None:
            return False, None
        if card.status != "active":
            return True, STATUS_CODES[card.status]
        is_expired = card.expires is not None and card.expires < str(self.business_date)
        return card.expires is not None, "54" if is_expired else None

    def _report_reason(self, taken: Taken) -> tuple[str | None, set[str]]:
        """Lost and found; what is approved changes the card."""
        said = taken.said
        card = self.cards[said["card"]]
        if card.status is not None:
            code = None if card.status == "lost" else STATUS_CODES.get(card.status)
            live = self.live_card.get(card.holder)
            if card.status == "lost" and said["is_found"] and live is not None:
                code = "78"
            if code is None and said["response"] != "00":
                return "00", set()
            if code is not None:
                return code, set()
        if said["response"] == "00":
            self._set_status(said["card"], card, "active" if said["is_found"] else "lost")
        return None, set()

    def _check_decline(self, taken: Taken) -> None:
        said = taken.said
        if any(taken.paid):
            raise Fault(f"{sum(taken.paid)} fen are paid by a {taken.kind} that was answered {said['response']}")
        if taken.kind == "reversal":
            if said["response"] != "94" or self._differs(taken) is False:
                raise Fault(f"a reversal is answered {said['response']}, for which there is no reason")
            if taken.original is not None and said["original"] != taken.original.position:
                raise Fault(f"it refers to record {said['original']}, but what it names is record {taken.original.position}")
        elif said["original"] is not None:
            raise Fault(f"a {taken.kind} that was answered {said['response']} refers to record {said['original']}")
        if taken.kind == "batch_close":
            self._close_batch(taken)

    def _check_flag(self, taken: Taken) -> None:
        said = taken.said
        flag = said["flag"]
        if flag is not None and (said["response"] != "00" or flag not in FLAGS.get(taken.kind, ()) or said.get("is_advice") is False):
            raise Fault(f"a {taken.kind} that was answered {said['response']} is flagged {flag}")
        if said["response"] == "00" and (taken.kind == "offline_sale" or said.get("is_advice") is True):
            is_known, code = self._card_code(said["card"])
            if is_known and ((code is not None and flag != code) or (code is None and flag in ASKED_OF_CARDS)):
                raise Fault(f"it is flagged {flag}, but for its card it would have been answered {code or 'otherwise'}")
        if said["switch_totals"] is not None and (taken.kind, said["response"]) != ("batch_close", "95"):
            raise Fault(f"a {taken.kind} that was answered {said['response']} has a batch's totals")

    def _check_after(self, taken: Taken, effect: Effect) -> None:
        """What purses hold afterwards is said where they are concerned, and is what they held before and what moved."""
        after, approved = taken.after, taken.said["response"] == "00"
        is_due = approved and taken.kind in MONEY
        if approved and taken.kind == "reversal":
            is_due = bool(taken.said["card"] and taken.holder) or effect.paid != (0, 0) or effect.available != (0, 0)
            # What it undid may have moved nothing of the purses', or be before the beginning of the report.
            is_due = is_due or (after is not None and taken.original is not None and effect.original is not None)
        if is_due != (after is not None) and not (taken.original is None and taken.kind == "reversal" and not self.complete):
            raise Fault("it does not say what the purses hold afterwards" if is_due else "it says what purses hold that it is not about")
        if after is not None:
            if taken.holder is None:
                raise Fault("it says what purses hold that nobody has")
            least = 0 if taken.kind in SPENT else -ACCOUNT_FEN_MAX
            self._take_purses(taken.holder, after, effect.available, least=least)
            if taken.kind == "load" and after[0] > PURSE_FEN_MAX:
                raise Fault(f"the cash purse of holder {taken.holder} is loaded up to {after[0]} fen")

    def _take_purses(self, holder: str | None, after: Pair, change: Pair | None, *, least: int) -> None:
        before = self.purses.get(holder or "")
        if before is not None and change is not None and after != (before[0] + change[0], before[1] + change[1]):
            raise Fault(f"the purses of holder {holder} held {before} fen, and after a change of {change} they are said to hold {after}")
        if after[0] < least or after[1] < 0 or max(after) > ACCOUNT_FEN_MAX:
            raise Fault(f"the purses of holder {holder} hold {after} fen, below their floor or above their ceiling")
        self.purses[str(holder)] = after

    # What is done where it was approved.

    def _effect(self, taken: Taken) -> Effect:
        effects: dict[str, Callable[[Taken], Effect]] = {
            "purchase": self._sell,
            "offline_sale": self._sell,
            "hold": self._hold,
            "completion": self._complete,
            "void": self._void,
            "refund": self._refund,
            "load": self._load,
            "bill_payment": self._pay_bill,
            "identity": self._identify,
            "batch_close": self._close_batch,
            "reversal": self._reverse,
        }
        found = effects.get(taken.kind)
        return found(taken) if found else Effect()

    def _terms(self, taken: Taken) -> Terms | None:
        """What the rules say of it; None where they, the card's class or the merchant's category are not known."""
        card = self.cards.get(taken.said["card"] or "")
        category = self.category_of.get(taken.merchant)
        if not self.complete or card is None or card.card_class is None or category is None:
            return None
        return Terms.of(self.rules, card.card_class, category)

    def _check_terms(self, taken: Taken, terms: Terms | None) -> None:
        """What is approved, or not flagged, was within the amount of one operation, and had the PIN that it needed."""
        if terms is None or (taken.kind == "offline_sale" and taken.said["flag"] is not None):
            return
        if taken.amount > terms.transaction_max:
            raise Fault(f"{taken.amount} fen are approved, above the {terms.transaction_max} of one operation")
        if taken.amount > terms.pin_above and taken.said.get("pin") != "right":
            raise Fault(f"{taken.amount} fen are approved without a PIN, which is needed above {terms.pin_above}")

    def _sell(self, taken: Taken) -> Effect:
        said, paid, after = taken.said, taken.paid, taken.after
        terms = self._terms(taken)
        if not said["card"] or after is None:
            raise Fault(f"a {taken.kind} of nobody's is approved")
        price = terms.price(taken.amount) if terms else sum(paid)
        if sum(paid) != price or not 0 <= price <= 2 * taken.amount:
            raise Fault(f"{sum(paid)} fen are paid for a {taken.kind} of {taken.amount} fen by card {said['card']}")
        if {"cash": paid[1], "subsidy": 0, "policy": 0}[said["purses"]]:
            raise Fault(f"a purse paid that the terminal did not ask for: it asked for {said['purses']}")
        if terms is not None:
            from_subsidy = min(price, after[1] + paid[1]) if terms.takes_subsidy and said["purses"] != "cash" else 0
            if paid[1] != from_subsidy:
                raise Fault(f"of {price} fen the subsidy purse pays {from_subsidy}, but it is said to have paid {paid[1]}")
        # Only a purse that is enough alone is asked alone; nothing is sold where there is a debt.
        is_covered = after[0] >= 0 and not (said["purses"] == "subsidy" and paid[0])
        if not is_covered and (taken.kind == "purchase" or said["flag"] is None):
            raise Fault(f"the purses pay {paid}, asked for {said['purses']}, and hold {after} afterwards, below their floor")
        self._check_terms(taken, terms)
        movements = _paid(taken.purses, taken.shop, taken.amount, paid)
        return Effect(movements, paid, (-paid[0], -paid[1]), stands=True, counted=("debits", taken.amount))

    def _hold(self, taken: Taken) -> Effect:
        held, after = taken.paid[0], taken.after
        if after is None or not 1 <= held <= taken.amount or (held < taken.amount and after[0] != 0):
            raise Fault(f"of {taken.amount} fen {held} are held, and {after} are left")
        self._check_terms(taken, self._terms(taken))
        self.holds[taken.position] = Hold(
            taken.holder, taken.message.terminal, taken.merchant, held, taken.record.microseconds
        )  # fmt: skip
        return Effect(paid=(held, 0), available=(-held, 0), stands=True)

    def _load(self, taken: Taken) -> Effect:
        fen = taken.amount
        movements = _movements(("house:cash_desk", taken.purses[0], fen))
        return Effect(movements, (fen, 0), (fen, 0), stands=True, counted=("credits", fen))

    def _pay_bill(self, taken: Taken) -> Effect:
        fen = taken.amount
        self._check_terms(taken, self._terms(taken))
        movements = _movements((taken.purses[0], f"payee:{taken.said['payee']}", fen))
        return Effect(movements, (fen, 0), (-fen, 0), stands=True, counted=("debits", fen))

    def _referred(self, taken: Taken, kinds: set[str]) -> Decision | None:
        """What is completed, undone or refunded: it stands, and is one of these. None: it is before the beginning of the report."""
        said, original = taken.said, taken.original
        if original is None:
            if self.complete or said["refers_to"] >= self.first:
                raise Fault(f"it refers to record {said['refers_to']}, which is nothing of this merchant's that is remembered")
            return None
        if original.kind not in kinds or not original.stands or said["card"] not in {None, original.card}:
            raise Fault(f"it refers to record {original.position}, a {original.kind} that is undone, or another's, or no {_listed(kinds)}")
        return original

    def _complete(self, taken: Taken) -> Effect:
        fen, number = taken.amount, taken.said["refers_to"]
        hold = self._referred(taken, {"hold"})
        movements = _movements((taken.purses[0], taken.shop, fen))
        effect = Effect(movements, (fen, 0), None, stands=True, counted=("debits", fen), original=number, refers_to=number)
        if hold is not None:
            if fen > hold.paid[0]:
                raise Fault(f"{fen} fen are taken of a hold of {hold.paid[0]}")
            effect.available = (hold.paid[0] - fen, 0)
            hold.stands = False
        self.holds.pop(number, None)
        return effect

    def _void(self, taken: Taken) -> Effect:
        number = taken.said["refers_to"]
        sale = self._referred(taken, {"purchase", "offline_sale"})
        if sale is None:
            return self._believed(taken, number, gives_back=True)
        if sale.business_date != self.business_date or sale.refunded:
            raise Fault(f"it undoes record {number}, of another day or refunded in part")
        return self._give_all_back(taken, sale, number)

    def _refund(self, taken: Taken) -> Effect:
        fen, number = taken.amount, taken.said["refers_to"]
        sale = self._referred(taken, SALES)
        if sale is None:
            return self._believed(taken, number, gives_back=True)
        if fen > sale.left:
            raise Fault(f"{fen} fen are given back of record {number}, of which {sale.left} are left")
        share = sale.share(fen)
        sale.refunded += fen
        sale.given_back = (sale.given_back[0] + share[0], sale.given_back[1] + share[1])
        movements = _given_back(taken.purses, taken.shop, fen, share)
        return Effect(movements, share, share, stands=True, counted=("credits", fen), original=number, refers_to=number)

    def _give_all_back(self, taken: Taken, sale: Decision, number: int) -> Effect:
        """What is left of a sale; its refunds are undone with it."""
        left = sale.left
        share = sale.share(left)
        sale.stands = False
        if sale.refunded:
            for decisions in self.decisions.values():
                for refund in decisions.values():
                    if refund.kind == "refund" and refund.refers_to == sale.position:
                        refund.stands = False
        movements = _given_back(taken.purses, f"merchant:{sale.merchant}", left, share)
        return Effect(movements, share, share, counted=("debit_reversals", left), original=number)

    def _reverse(self, taken: Taken) -> Effect:
        undoes, original = taken.record.undoes, taken.original
        assert undoes is not None
        if original is None:
            return self._reverse_unknown(taken, undoes)
        if self._differs(taken):
            raise Fault(f"it is approved as a reversal of record {original.position}, whose card or amount is another")
        if not original.stands:
            return Effect(original=original.position)
        if original.kind in SALES:
            return self._give_all_back(taken, original, original.position)
        if original.kind == "refund":
            return self._take_back(taken, original)
        return self._undo(taken, original)

    def _undo(self, taken: Taken, original: Decision) -> Effect:
        """A hold, a load or a bill undone."""
        original.stands = False
        cash, fen, number = taken.purses[0], original.paid[0], original.position
        if original.kind == "hold":
            self.holds.pop(number, None)
            return Effect(paid=(fen, 0), available=(fen, 0), original=number)
        if original.kind == "load":
            movements = _movements((cash, "house:cash_desk", fen))
            return Effect(movements, (fen, 0), (-fen, 0), counted=("credit_reversals", fen), original=number)
        movements = _movements((f"payee:{original.said['payee']}", cash, fen))
        return Effect(movements, (fen, 0), (fen, 0), counted=("debit_reversals", fen), original=number)

    def _take_back(self, taken: Taken, refund: Decision) -> Effect:
        """A refund undone: from the subsidy purse what is left there of what it got, and the rest from the cash purse."""
        after, paid = taken.after, taken.paid
        is_shared = sum(paid) == sum(refund.paid) and paid[1] <= refund.paid[1]
        if after is None or not is_shared or (paid[1] < refund.paid[1] and after[1] != 0):
            raise Fault(f"a refund that gave {refund.paid} is taken back by {paid}, which leaves {after}")
        refund.stands = False
        sale = self._at(refund.refers_to)
        if sale is not None:
            sale.refunded -= refund.amount
            sale.given_back = (sale.given_back[0] - refund.paid[0], sale.given_back[1] - refund.paid[1])
        movements = _paid(taken.purses, f"merchant:{refund.merchant}", refund.amount, paid)
        counted = ("credit_reversals", refund.amount)
        return Effect(movements, paid, (-paid[0], -paid[1]), counted=counted, original=refund.position)

    def _reverse_unknown(self, taken: Taken, undoes: Message) -> Effect:
        """A reversal of what has not come, or of what is before the beginning of the report."""
        before = taken.said["original"]
        is_known_here = self.complete or (before is not None and before >= self.first)
        if (is_known_here and (before is not None or any(taken.paid))) or (before is None and any(taken.paid)):
            raise Fault(f"it says that it undoes record {before} and gives back {sum(taken.paid)} fen, but no such decision is before it")
        if before is None:
            self.reversed_before.add(undoes)
            return Effect()
        self.holds.pop(before, None)
        return self._believed(taken, before, gives_back=None)

    def _differs(self, taken: Taken) -> bool | None:
        """Whether a reversal names another card or amount than what it would undo; None: that is before the beginning of the report.

        Its card is the one that it touched, where its message named none. The amount of a void means nothing.
        """
        original, said = taken.original, taken.said
        if original is None:
            return False if self.complete else None
        pairs = [(said["card"], original.card)]
        if original.said["processing"] != "020000":
            pairs.append((said["amount"], original.said["amount"]))
        if any(None not in pair and pair[0] != pair[1] for pair in pairs):
            return True
        is_card_untold = original.said["response"] == "00" and original.kind in {"completion", "refund"} and original.card is None
        return None if is_card_untold and said["card"] else False

    def _believed(self, taken: Taken, original: int, *, gives_back: bool | None) -> Effect:
        """What undoes or refunds something that is before the beginning of the report: each movement is one that such a thing makes,
        and the purses get, or lose, what is said to be paid. `gives_back` None: either.
        """
        cash, subsidy = taken.purses
        there = [(cash, taken.shop), (subsidy, taken.shop), (cash, "house:fees"), (subsidy, "house:fees"), ("house:grants", taken.shop)]
        back = [(credit, debit) for debit, credit in there]
        back[:2] = [(taken.shop, cash), (taken.shop, subsidy)]
        groups = [back] if gives_back else [back, there, [(cash, "house:cash_desk")], *([(f"payee:{payee}", cash)] for payee in PAYEES)]
        try:
            moved = [(str(one["debit"]), str(one["credit"]), int(one["fen"])) for one in taken.stated]
        except (TypeError, KeyError, ValueError):
            raise Fault("its movements cannot be read") from None
        ends = [(debit, credit) for debit, credit, _ in moved]
        if not any(ends == [pair for pair in group if pair in ends] for group in groups) or any(fen <= 0 for *_, fen in moved):
            raise Fault("its movements are none by which something is given back")
        change = [sum(fen * ((credit == purse) - (debit == purse)) for debit, credit, fen in moved) for purse in (cash, subsidy)]
        is_hold = not moved and gives_back is None
        if not is_hold and (abs(change[0]), abs(change[1])) != taken.paid:
            raise Fault(f"its movements change the purses by {change}, but {taken.paid} are said to be paid")
        available = None if is_hold else (change[0], change[1])
        movements = [{"debit": debit, "credit": credit, "fen": fen} for debit, credit, fen in moved]
        stands = taken.kind == "refund"
        return Effect(movements, taken.paid, available, stands=stands, original=original, refers_to=original if stands else None)

    def _identify(self, taken: Taken) -> Effect:
        said, item = taken.said, taken.said["item"]
        if (said["act"] in {"borrow", "return"}) != (item is not None):
            raise Fault(f"{said['act']} is about the item {item}")
        if said["act"] == "borrow":
            if item in self.loans:
                raise Fault(f"item {item} is lent, but it is on loan since record {self.loans[item][1]}")
            self.loans[item] = (taken.holder, taken.position)
        if said["act"] != "return":
            return Effect()
        loan = self.loans.pop(item, None)
        if loan is None and (self.complete or said["original"] is None or said["original"] >= self.first):
            raise Fault(f"item {item} comes back, but it is not on loan")
        if loan is not None and loan[0] != taken.holder:
            raise Fault(f"item {item} comes back from holder {taken.holder}, but it was lent to {loan[0]}")
        return Effect(original=loan[1] if loan else said["original"])

    # Batches.

    def _batch(self, terminal: int, named: int | None) -> Batch:
        """The batch that a message belongs to: the one that it names, else the terminal's open one."""
        number = self.open_batch.get(terminal, 1) if named is None else named
        batch = self.batches.setdefault((terminal, number), Batch())
        batch.touched = self._today
        return batch

    def _close_batch(self, taken: Taken) -> Effect:
        said, terminal, number = taken.said, taken.message.terminal, taken.said["batch_number"]
        told, own = said["totals"], said["switch_totals"]
        if number is None or (said["response"] == "95") != (own is not None) or own == told or said["response"] not in {"00", "95"}:
            raise Fault(f"batch {number} is answered {said['response']}, for which there is no reason")
        if not self.complete:
            return Effect()
        known = self.batches.get((terminal, number), Batch()).document()
        if (own or told) != known:
            raise Fault(f"batch {number} of terminal {taken.terminal} adds up to {_canonical(known)}, not to {_canonical(own or told)}")
        open_ = self.open_batch.get(terminal, 1)
        if own is None and number >= open_:
            self.batches.setdefault((terminal, open_), Batch()).touched = self._today
            self.open_batch[terminal] = number + 1
        return Effect()


def _movements(*movements: tuple[str, str, int]) -> list[Document]:
    return [{"debit": debit, "credit": credit, "fen": fen} for debit, credit, fen in movements if fen]


def _paid(purses: tuple[str, str], shop: str, amount: int, paid: Pair) -> list[Document]:
    """The merchant gets the amount: what the purses pay more goes to the fees, what they pay less comes from the grants."""
    subsidy = min(paid[1], amount)
    cash = min(paid[0], amount - subsidy)
    return _movements(
        (purses[0], shop, cash),
        (purses[1], shop, subsidy),
        (purses[0], "house:fees", paid[0] - cash),
        (purses[1], "house:fees", paid[1] - subsidy),
        ("house:grants", shop, amount - cash - subsidy),
    )


def _given_back(purses: tuple[str, str], shop: str, amount: int, paid: Pair) -> list[Document]:
    """The same in the other direction."""
    subsidy = min(paid[1], amount)
    cash = min(paid[0], amount - subsidy)
    return _movements(
        (shop, purses[0], cash),
        (shop, purses[1], subsidy),
        ("house:fees", purses[0], paid[0] - cash),
        ("house:fees", purses[1], paid[1] - subsidy),
        (shop, "house:grants", amount - cash - subsidy),
    )


# --- lines ---


def _canonical(document: object) -> str:
    """The one text of a document: keys in order, no spaces, nothing escaped that need not be."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _listed(names: object) -> str:
    return ", ".join(sorted(map(str, names))) if isinstance(names, dict | set) else str(names)


class Lines:
    """A report's lines, each in its one text, with the hash over them."""

    def __init__(self, report: BinaryIO) -> None:
        self._report = report
        self.number = 0
        self.sha256 = hashlib.sha256()
        """Over the lines before the last one read."""
        self._last = b""

    def next(self) -> Document:
        """The next line. Raises Fault where it is none."""
        self.sha256.update(self._last)
        self.number += 1
        self._last = self._report.readline(LINE_BYTES_MAX)
        if not self._last:
            raise Fault("the report ends here without its end; it was cut, or was never finished")
        if not self._last.endswith(b"\n"):
            raise Fault("the line does not end")
        try:
            text = self._last[:-1].decode("utf-8")
            document = json.loads(text)
            canonical = isinstance(document, dict) and _canonical(document) == text
        except (ValueError, RecursionError):
            raise Fault("the line is not JSON") from None
        if not canonical:
            raise Fault("the line is not written as reports are written: keys in order, each once, no spaces")
        assert isinstance(document, dict)
        return document

    def end(self) -> None:
        self.number += 1
        if self._report.read(1):
            raise Fault("something stands behind the seal")


def _expect(document: Document, kind: str, **fields: type | tuple[type, ...]) -> None:
    """See that a line is of this kind and has exactly these fields, of these types. Raises Fault."""
    if document.get("line") != kind:
        raise Fault(f"a line of the kind {document.get('line')!r} stands where one of the kind {kind!r} should")
    _expect_fields(document, line=str, **fields)


def _expect_fields(document: object, **fields: type | tuple[type, ...]) -> None:
    if not isinstance(document, dict) or document.keys() != fields.keys():
        raise Fault(f"it has the fields {_listed(document)} where {_listed(fields)} should stand")
    for name, types in fields.items():
        value = document[name]
        # To Python True is a number as well.
        if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
            raise Fault(f"the field {name} is {value!r}, which it cannot be")


def _hex(text: str, count: int | None, what: str) -> bytes:
    try:
        content = bytes.fromhex(text)
    except ValueError:
        content = b""
    if content.hex() != text or count not in {None, len(content)}:
        raise Fault(f"{what} is not {'bytes' if count is None else f'{count} bytes'} in hexadecimal digits")
    return content


# --- a report ---


@dataclass(frozen=True)
class Anchor:
    """A chain hash that was noted elsewhere: that of the batch that ends with the record at `position`."""

    hash: str
    position: int

    @classmethod
    def parse(cls, text: str) -> "Anchor":
        """HASH@POSITION. Raises ValueError."""
        found = re.fullmatch(r"([0-9a-f]{64})@(\d{1,18})", text)
        if found is None:
            raise ValueError(f"{text!r} is not 64 hexadecimal digits, an @ and the number of a record")
        return cls(found[1], int(found[2]))


@dataclass
class Finding:
    """What was found; as JSON the result of the check."""

    ok: bool = False
    file: str = ""
    problem: str | None = None
    line: int | None = None
    """The line on which it is."""
    record: int | None = None
    """The record that it is about."""
    journal: str | None = None
    first: int = 0
    last: int = 0
    """The records in it."""
    asked_from: int | str = 0
    asked_to: int | str = 0
    asked: int = 0
    """How many of the records were asked for."""
    batches: int = 0
    last_batch: int = 0
    """The number of the last one in the journal."""
    fen: int = 0
    """Moved by them."""
    hash_before: str = ""
    hash: str = ""
    """Of the last batch."""
    state_digest_before: str = ""
    state_digest: str = ""
    complete: bool = False
    """Whether it reaches back to record 1, itself or by those that it follows."""
    anchors: int = 0
    """Chain hashes noted elsewhere that were found to be those of the report."""


class Check:
    """One report while it is being checked."""

    def __init__(self, file: Path, books: Books | None, before: Finding | None, anchors: Sequence[Anchor]) -> None:
        self.finding = Finding(file=str(file))
        self.books = books or Books(complete=False)
        self._absent: frozenset[str] = frozenset()
        self._before = before
        self._wanted = {anchor.position: anchor for anchor in anchors}

    def run(self, report: BinaryIO) -> None:
        lines = Lines(report)
        found = self.finding
        try:
            self._header(lines.next())
            document = lines.next()
            while document.get("line") == "batch":
                self._take_batch(document, lines)
                document = lines.next()
            found.record = None
            self._end(document)
            self._seal(lines.next(), lines)
            lines.end()
        except Fault as fault:
            found.problem, found.line = str(fault), lines.number
        else:
            found.ok, found.record = True, None

    def _header(self, header: Document) -> None:
        found = self.finding
        moment = (str, type(None))
        _expect(
            header, "evidence", format=int, journal=str, **{"from": (int, str)}, to=(int, str), before=dict, timezone=str,
            made_at=moment, made_by=str,
        )  # fmt: skip
        if header["format"] not in {FORMAT, *OLDER}:
            raise Fault(f"the report has format {header['format']}; this program checks format {FORMAT} and before")
        self._absent = OLDER.get(header["format"], frozenset())
        identity = _hex(header["journal"], 16, "the journal's identity")
        before = header["before"]
        _expect_fields(before, position=int, batch=int, hash=str, state_digest=str)
        _hex(before["hash"], 32, "the hash before the first batch")
        _hex(before["state_digest"], 32, "the state's digest")
        if (type(header["from"]), type(header["to"])) not in {(int, int), (str, str)} or header["from"] > header["to"]:
            raise Fault(f"the report is of {header['from']} to {header['to']}, which is no range")
        found.journal, found.asked_from, found.asked_to = header["journal"], header["from"], header["to"]
        found.first, found.last = before["position"] + 1, before["position"]
        found.hash = found.hash_before = before["hash"]
        found.state_digest_before = before["state_digest"]
        found.last_batch = before["batch"]
        if before["position"] == 0:
            if before["batch"] or before["hash"] != blake3.blake3(identity).hexdigest():
                raise Fault("before record 1 there is no batch, and the hash is that of the journal's identity; here it is another")
            self.books = Books(complete=True)
        elif self._before is None:
            self.books = Books(complete=False, first=found.first)
        if self._before is not None:
            self._follow(self._before, before)
        found.complete = self.books.complete
        self._anchored()

    def _follow(self, earlier: Finding, before: Document) -> None:
        if earlier.journal != self.finding.journal:
            raise Fault(f"it is of another journal than {earlier.file}")
        if before["position"] != earlier.last:
            raise Fault(
                f"it begins with record {before['position'] + 1}, but {earlier.file} ends with record {earlier.last};"
                f" make it from record {earlier.last + 1} on"
            )
        if (before["batch"], before["hash"]) != (earlier.last_batch, earlier.hash):
            raise Fault(f"the batch and the hash before it are not those with which {earlier.file} ends: two different histories")
        if before["state_digest"] != earlier.state_digest:
            raise Fault(f"the state's digest before it is not the one with which {earlier.file} ends")

    def _anchored(self) -> None:
        """Hold the chain's hash at this position against one that was noted elsewhere, if there is one."""
        anchor = self._wanted.pop(self.finding.last, None)
        if anchor is not None:
            if anchor.hash != self.finding.hash:
                raise Fault(f"the hash after record {anchor.position} is not the one that was noted: {anchor.hash}")
            self.finding.anchors += 1

    @property
    def wanted(self) -> list[Anchor]:
        """Anchors whose positions did not come."""
        return list(self._wanted.values())

    def _take_batch(self, document: Document, lines: Lines) -> None:
        found = self.finding
        found.record = found.last + 1
        _expect(document, "batch", batch=int, first=int, last=int, previous=str, hash=str, head=str)
        head = _hex(document["head"], HEAD_BYTES, "the head")
        if head[40:48] != blake3.blake3(head[32:40] + head[48:]).digest()[:8]:
            raise Fault("the head's own check does not match")
        version, records = (int.from_bytes(head[at : at + 4], "little") for at in (48, 52))
        payload, batch, first = (int.from_bytes(head[at : at + 8], "little") for at in (56, 64, 72))
        if head[32:40] != BATCH_MAGIC or version != JOURNAL_VERSION or not records:
            raise Fault("the head is not that of a batch of records")
        printed = {"batch": batch, "first": first, "last": first + records - 1, "previous": head[80:].hex(), "hash": head[:32].hex()}
        for name, value in printed.items():
            if document[name] != value:
                raise Fault(f"the field {name} is {document[name]}, but the head says {value}")
        if (batch, first) != (found.last_batch + 1, found.last + 1):
            raise Fault(f"batch {batch} with record {first} does not follow batch {found.last_batch} with record {found.last}")
        if head[80:].hex() != found.hash:
            raise Fault(f"the batch does not follow the one before it, whose hash is {found.hash}")
        hasher = blake3.blake3(head[32:])
        length = 0
        for position in range(first, first + records):
            found.record = position
            content = self._take_record(lines.next(), position)
            hasher.update(len(content).to_bytes(2, "little") + content)
            length += 2 + len(content)
        hasher.update(PADDING * (-(HEAD_BYTES + length) % BLOCK_BYTES))
        if length != payload or hasher.digest() != head[:32]:
            found.record = first
            raise Fault(
                f"the hash of batch {batch}, records {first} to {first + records - 1}, is not the one in its head: a byte of it was altered"
            )
        found.last_batch, found.hash = batch, head[:32].hex()
        found.batches += 1
        self._anchored()

    def _take_record(self, document: Document, position: int) -> bytes:
        found = self.finding
        _expect(document, "record", position=int, asked=bool, record=dict, ledger=dict, bytes=str)
        if document["position"] != position:
            raise Fault(f"record {document['position']} stands where record {position} should")
        content = _hex(document["bytes"], None, "the record")
        if not 1 <= len(content) <= RECORD_BYTES_MAX:
            raise Fault(f"a record has 1 to {RECORD_BYTES_MAX} bytes, not {len(content)}")
        try:
            record = decode(content)
        except Unreadable as error:
            raise Fault(f"its bytes are no record: {error}") from None
        self._compare(document["record"], record)
        found.fen += self.books.take(position, record, document["ledger"])
        asked = self._asked(position, document["ledger"]["business_date"])
        if document["asked"] != asked:
            raise Fault(f"the field asked is {document['asked']}, but {found.asked_from} to {found.asked_to} was asked for")
        if position == found.first > 1 and asked and isinstance(found.asked_from, str) and record.said["kind"] != "cutover":
            raise Fault(f"the records of {document['ledger']['business_date']} before it are missing")
        found.asked += asked
        found.last = position
        return content

    def _asked(self, position: int, business_date: str) -> bool:
        first, last = self.finding.asked_from, self.finding.asked_to
        if isinstance(first, int) and isinstance(last, int):
            return first <= position <= last
        return str(first) <= business_date <= str(last)

    def _compare(self, printed: Document, record: Record) -> None:
        said = {name: value for name, value in record.said.items() if name not in self._absent}
        expected = {**said, "at": _moment(record.microseconds, printed.get("at"))}
        if printed.keys() != expected.keys():
            raise Fault(f"under record stand {_listed(printed)} where {_listed(expected)} should")
        if _canonical(printed) == _canonical(expected):
            return
        for name, value in expected.items():
            if _canonical(printed[name]) != _canonical(value):
                raise Fault(f"the field {name} is {_canonical(printed[name])}, but the record's bytes say {_canonical(value)}")

    def _end(self, end: Document) -> None:
        found = self.finding
        numbers = dict.fromkeys(("first", "last", "records", "asked", "batches", "debits", "credits"), int)
        _expect(end, "end", **numbers, hash=str, state_digest=str)
        _hex(end["state_digest"], 32, "the state's digest")
        counted = {
            "first": found.first,
            "last": found.last,
            "records": found.last - found.first + 1,
            "asked": found.asked,
            "batches": found.batches,
            "hash": found.hash,
            "debits": found.fen,
            "credits": found.fen,
        }
        for name, value in counted.items():
            if end[name] != value:
                raise Fault(f"the field {name} is {end[name]}, but the lines before make {value}")
        if not found.asked or (isinstance(found.asked_to, int) and found.last < found.asked_to):
            raise Fault(
                f"the report ends with record {found.last} and does not hold what was asked for: {found.asked_from} to {found.asked_to}"
            )
        if isinstance(found.asked_from, int) and found.first > found.asked_from:
            raise Fault(f"the report begins with record {found.first}, but {found.asked_from} was asked for")
        found.state_digest = end["state_digest"]

    def _seal(self, seal: Document, lines: Lines) -> None:
        _expect(seal, "seal", sha256=str)
        if seal["sha256"] != lines.sha256.hexdigest():
            raise Fault("the seal is not the SHA-256 of the lines before it: the report was altered after it was made")


def _moment(microseconds: int, printed: object) -> str | None:
    """The moment in the offset from UTC in which it is printed, so that any campus's may be right."""
    try:
        offset = datetime.datetime.fromisoformat(str(printed)).utcoffset() or datetime.timedelta()
        at = (EPOCH + datetime.timedelta(microseconds=microseconds)).astimezone(datetime.timezone(offset))
    except (ValueError, OverflowError):
        offset = datetime.timedelta()
        try:
            at = EPOCH + datetime.timedelta(microseconds=microseconds)
        except OverflowError:
            return None
    return at.isoformat(timespec="microseconds")


def check(file: Path, follows: Sequence[Path] = (), anchors: Sequence[Anchor] = ()) -> Finding:
    """Check a report, and before it those that it follows, the earliest first. Raises OSError where one cannot be read."""
    books: Books | None = None
    found: Finding | None = None
    wanted = list(anchors)
    met = 0
    for each in (*follows, file):
        one = Check(each, books, found, wanted)
        with each.open("rb") as report:
            one.run(report)
        found, books, wanted = one.finding, one.books, one.wanted
        met += found.anchors
        if not found.ok:
            return found
    assert found is not None
    found.anchors = met
    if wanted:
        found.ok = False
        found.problem = (
            f"no batch ends with record {wanted[0].position}, for which a hash was noted; "
            f"a note can be held against the batches from record {found.first} to {found.last}"
        )
    return found


# --- the command ---


def sentences(found: Finding) -> Iterator[str]:
    """What was found, in words."""
    if not found.ok:
        place = "".join(
            f"{sep}{name} {number}" for sep, name, number in ((" ", "line", found.line), (", ", "record", found.record)) if number
        )
        yield f"{found.file}{place}: {found.problem}."
        return
    yield (
        f"{found.file} is sound: records {found.first} to {found.last} in {found.batches} batches of journal {found.journal}, of which"
        f" {found.asked} were asked for ({found.asked_from} to {found.asked_to}). Debits and credits are {found.fen} fen each."
    )
    if found.complete:
        yield "It reaches back to record 1: every name, purse and movement in it follows from the records themselves."
    else:
        yield (
            f"It begins after record {found.first - 1}: names of terminals, merchants and holders that no record in it says are the"
            " switch's statement, consistent throughout; what purses held before their first mention is too."
        )
    if found.anchors:
        yield f"{found.anchors} of its hashes are those that were noted elsewhere, so its history up to there is the one of that time."
    else:
        yield (
            "Whether it is the journal's one history, only a hash that was noted at the time can tell:"
            f" hold it against --anchor HASH@POSITION. Its own is {found.hash}@{found.last}."
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("file", metavar="FILE", type=Path, help="the report")
    parser.add_argument(
        "--follows",
        metavar="EARLIER",
        type=Path,
        action="append",
        default=[],
        help="a report that ends where it begins; the earliest first",
    )
    parser.add_argument(
        "--anchor",
        metavar="HASH@POSITION",
        action="append",
        default=[],
        help="a chain hash noted earlier, elsewhere, of a batch's last record",
    )
    parser.add_argument("--json", action="store_true", help="the result as JSON")


def run(options: argparse.Namespace) -> int:
    """Check, say what was found on stdout, and give the exit code: 0 sound, 1 not, or it could not be read."""
    try:
        found = check(options.file, options.follows, [Anchor.parse(text) for text in options.anchor])
    except OSError as error:
        print(f"{error.filename}: the file cannot be read: {error.strerror}.", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"{error}.", file=sys.stderr)
        return 1
    print(json.dumps(vars(found), ensure_ascii=False) if options.json else "\n".join(sentences(found)))
    return 0 if found.ok else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="evidence.py", description="Check an evidence report of the campus card switch.")
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
