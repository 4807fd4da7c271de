"""Checks an evidence report of the campus card switch. It needs this one file, Python 3.11 and the package `blake3`:

    python3 evidence.py REPORT [--follows EARLIER]... [--anchor HASH@POSITION]... [--json]

What a report is, line by line, stands in docs/evidence.md. This file shares no code with the switch: it was written against
that page, so what both of them say has been understood twice.

What it checks: every hash and every link of the chain; that each record's bytes are what was hashed, and that what is printed
beside them is what they say, to the character; positions and batches without gap; and what the report says of the books, as far
as the records in hand decide it (`Books`): who a number stands for, what purses hold, that each movement takes from one account
what it gives to another and is what was paid, that nothing is decided or given back twice. A report that reaches back to record
1, itself or by those that it follows, leaves nothing of that to belief.

Always true here: a report is read once, line by line, and what is held does not grow with it, but by the parties and the days
that a switch keeps itself. The first thing that is wrong ends the check and is named with its line and record.
"""

import argparse
import datetime
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import blake3

__all__ = ["Anchor", "Fault", "Finding", "add_arguments", "check", "run"]

FORMAT: Final = 1
BLOCK_BYTES: Final = 4096
HEAD_BYTES: Final = 112
PADDING: Final = b"\xa5"
BATCH_MAGIC: Final = b"SWJBATCH"
JOURNAL_VERSION: Final = 1
RECORD_BYTES_MAX: Final = 60_000
LINE_BYTES_MAX: Final = 4 << 20
FLOOR_FEN: Final = 0
"""The least that a subsidy purse holds, and what a holder is opened with: a subsidy is never owed."""
DEBT_FEN_MAX: Final = 999_999_999_999
"""The most that a cash purse owes: what was sold offline, or taken back after it was spent."""
IDENTITY_DAYS_MAX: Final = 60
"""Days for which a switch may remember decisions, at most; what is older can be forgotten here as well."""

RESPONSES: Final = (
    "30",
    "58",
    "63",
    "12",
    "94",
    "13",
    "14",
    "41",
    "62",
    "78",
    "54",
    "57",
    "51",
    "91",
    "96",
    "00",
    "75",
    "55",
    "25",
    "61",
    "65",
    "95",
)
CATEGORIES: Final = ("canteen", "shop", "clinic", "bath", "utility", "library", "gate", "office")
TERMINAL_KINDS: Final = ("pos", "kiosk", "counter", "gate", "water", "library", "meter")
CLASSES: Final = ("teacher", "student", "merchant", "family", "temporary")
STATUSES: Final = ("active", "inactive", "lost", "frozen", "cancelled", "blacklisted")
STANDINGS: Final = ("active", "suspended")
PAYEES: Final = ("tuition", "electricity", "water", "other")
ACTS: Final = ("verify", "enter", "leave", "borrow", "return", "attendance")
EVENTS: Final = ("overload", "tamper", "fire", "restored")
PINS: Final = ("absent", "right", "wrong")
RULES: Final = (
    *("transaction_max", "day_max", "day_count", "meal", "pin_above", "subsidy", "surcharge", "refuse", "door", "anti_passback"),
)
KEYS: Final = ("sign_on", "current", "previous")
PURSES: Final = ("policy", "cash", "subsidy")
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
    10: "policy",
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
"""Kinds of records by their number. What a card was shown for (`identity`, `late_advice`) and `card_report` are told by what they were."""
DEBITING: Final = frozenset({"purchase", "offline_sale", "completion", "bill_payment"})
CREDITING: Final = frozenset({"void", "refund", "load"})
FINANCIAL: Final = 0
"""The family of messages that reversals undo."""

EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
DAY_ZERO: Final = datetime.date(2000, 1, 1).toordinal()

Document = dict[str, Any]


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
        number = self.number(1) - first
        if not 0 <= number < len(names):
            raise Unreadable(f"the number {number + first} stands where one of {', '.join(names)} should")
        return names[number]

    def end(self) -> None:
        if self._at != len(self._content):
            raise Unreadable(f"{len(self._content) - self._at} bytes are left over")


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


def decode(content: bytes) -> Record:
    """Decode a record. Raises Unreadable."""
    rest = Bytes(content)
    number = rest.number(1)
    kind = KINDS.get(number)
    if kind is None:
        raise Unreadable(f"{content[0]} is no kind of record")
    said: Document = {"kind": kind}
    microseconds = rest.number(8)
    message = undoes = None
    if kind in _PARTIES:
        _PARTIES[kind](rest, said)
        if kind == "policy":
            said.update(hold_hours=rest.number(2), pin_tries_max=rest.number(1)) if number == 10 else said.update(
                hold_hours=24, pin_tries_max=3
            )
    else:
        message = _request(rest, said)
        undoes = _message(kind, rest, said)
    said["response"] = rest.one_of(RESPONSES)
    present = rest.number(1)
    if present > 31:
        raise Unreadable("it announces parts that do not exist")
    said["paid_cash"], said["paid_subsidy"] = (rest.number(8), rest.number(8)) if present & 4 else (0, 0)
    said["cash_after"], said["subsidy_after"] = (rest.signed(), rest.signed()) if present & 1 else (None, None)
    said["original"] = rest.number(8) if present & 2 else None
    said["flag"] = rest.one_of(RESPONSES) if present & 8 else None
    said["switch_totals"] = _totals(rest) if present & 16 else None
    rest.end()
    return Record(said, microseconds, message, undoes)


def _message(kind: str, rest: Bytes, said: Document) -> Message | None:
    """What a terminal's message says beside what all of them say; gives what a reversal undoes."""
    if kind == "reversal":
        undoes = Message.unpack(rest)
        said["undoes"] = {"terminal_number": undoes.terminal, "date": _date(undoes.day), "stan": undoes.stan}
        return undoes
    if kind in _MESSAGES:
        _MESSAGES[kind](rest, said)
    return None


def _purchase(rest: Bytes, said: Document) -> None:
    both = rest.number(1)
    said.update(purses=_named(PURSES, both & 15), pin=_named(PINS, both >> 4))


def _referring(rest: Bytes, said: Document) -> None:
    said["refers_to"] = rest.number(8)


def _bill(rest: Bytes, said: Document) -> None:
    said.update(payee=rest.one_of(PAYEES), reference=rest.text(), pin=rest.one_of(PINS, first=0))


def _identity(rest: Bytes, said: Document) -> None:
    said.update(kind=rest.one_of(ACTS), item=rest.text(), is_advice=bool(_named((0, 1), rest.number(1))))


def _event(rest: Bytes, said: Document) -> None:
    said.update(event=rest.one_of(EVENTS), place=rest.text(), value=rest.text())


def _late(rest: Bytes, said: Document) -> None:
    act = rest.number(1)
    said.update(item=rest.text(), refers_to=rest.number(8), is_put_off=True)
    said["kind"] = _named(ACTS, act - 1) if act else ("completion" if said["refers_to"] else "offline_sale")


_MESSAGES: dict[str, Callable[[Bytes, Document], object]] = {
    "sign_on": lambda rest, _: rest.take(16),  # both nonces: hashed, and nothing to read
    "purchase": _purchase,
    "offline_sale": lambda rest, said: said.update(purses=rest.one_of(PURSES, first=0)),
    "hold": lambda rest, said: said.update(pin=rest.one_of(PINS, first=0)),
    "completion": _referring,
    "void": _referring,
    "refund": _referring,
    "bill_payment": _bill,
    "identity": _identity,
    "card_report": lambda rest, said: said.update(kind=rest.one_of(("loss", "found"), first=0)),
    "batch_close": lambda rest, said: said.update(totals=_totals(rest)),
    "event": _event,
    "late_advice": _late,
}


def _named(names: Sequence[Any], number: int) -> Any:
    if not 0 <= number < len(names):
        raise Unreadable(f"the number {number} stands where one of {', '.join(map(str, names))} should")
    return names[number]


def _totals(rest: Bytes) -> Document:
    names = ("credits", "credit_reversals", "debits", "debit_reversals")
    return {name: {"number": rest.number(8), "fen": rest.number(8)} for name in names}


def _rules(rest: Bytes, said: Document) -> None:
    said["rules"] = [_rule(rest) for _ in range(rest.number(2))]


def _rule(rest: Bytes) -> str:
    """A rule as its row in a policy file."""
    kind, about, category = rest.one_of(RULES), rest.number(1), rest.number(1)
    zone, days, begin, end, value = rest.text(), rest.number(1), rest.number(2), rest.number(2), rest.signed()
    window = ("", "") if begin == end == 0 else tuple(f"{minute // 60:02}:{minute % 60:02}" for minute in (begin, end))
    of_class = "" if kind == "anti_passback" else _named(("*", *CLASSES), about)
    of_category = "" if kind in {"door", "anti_passback"} else _named(("*", *CATEGORIES), category)
    text = "" if kind in {"refuse", "door"} else ("yes" if value else "no") if kind == "subsidy" else str(value)
    return ",".join((kind, of_class, of_category, zone, _days(days), *window, text))


def _days(days: int) -> str:
    """Days as a policy file has them: nothing for all of them, three or more in a row as `1-5`."""
    if days == 0x7F:
        return ""
    has = [days >> day - 1 & 1 == 1 if 1 <= day <= 7 else False for day in range(9)]
    text = ""
    for day in range(1, 8):
        if has[day]:
            within = has[day - 1] and has[day + 1]
            text += ("" if text.endswith("-") else "-") if within else str(day)
    return text


def _pin(rest: Bytes, said: Document) -> None:
    card = _card_number(rest.number(8))
    if card is None:
        raise Unreadable("it has no card number")
    said["card"] = card
    rest.take(16)  # what tells whether a PIN is right: hashed, and nothing to read


def _lapse(rest: Bytes, said: Document) -> None:
    said["hold"] = rest.number(8)


def _standing(rest: Bytes, said: Document) -> None:
    said.update(terminal=rest.take(8).decode("utf-8", "replace").rstrip(), standing=rest.one_of(STANDINGS))


def _policy(rest: Bytes, said: Document) -> None:
    said.update(amount_max=rest.number(4), identity_days=rest.number(2))


def _cutover(rest: Bytes, said: Document) -> None:
    said.update(business_date=_date(rest.day()))


def _merchant(rest: Bytes, said: Document) -> None:
    said.update(merchant=rest.text(), name=rest.text(), category=rest.one_of(CATEGORIES), fee_bp=rest.number(2))


def _terminal(rest: Bytes, said: Document) -> None:
    name = rest.take(8).decode("utf-8", "replace").rstrip()
    said.update(terminal=name, merchant_number=rest.number(4), terminal_kind=rest.one_of(TERMINAL_KINDS), zone=rest.text())
    rest.take(24)  # the wrapped master key: hashed, and nothing to read


def _card(rest: Bytes, said: Document) -> None:
    card = _card_number(rest.number(8))
    if card is None:
        raise Unreadable("it has no card number")
    said.update(card=card, holder=rest.text())
    said["class"] = rest.one_of(CLASSES)
    said.update(status=rest.one_of(STATUSES), expires=_date(rest.day()), opening_cash=rest.signed(), opening_subsidy=rest.signed())


def _import(rest: Bytes, said: Document) -> None:
    said.update(file=rest.text(), rows=rest.number(4))


_PARTIES = {
    "policy": _policy,
    "cutover": _cutover,
    "merchant": _merchant,
    "terminal": _terminal,
    "card": _card,
    "import": _import,
    "rules": _rules,
    "pin": _pin,
    "lapse": _lapse,
    "standing": _standing,
}


def _request(rest: Bytes, said: Document) -> Message:
    message = Message.unpack(rest)
    card, content, echo = rest.number(8), rest.number(8), rest.number(8)
    time = echo & 0xFFFFF

    def optional(shift: int, bits: int) -> int | None:
        return echo >> shift + 1 & (1 << bits) - 1 if echo >> shift & 1 else None

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
        key=rest.one_of(KEYS, first=0),
        mti=f"{rest.number(2):04}",
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


# --- books ---


@dataclass(slots=True)
class Decision:
    """What a later record may refer to."""

    position: int
    card: str | None
    amount: int | None
    paid: tuple[int, int]
    merchant: str
    stands: bool
    """An approved purchase that was not given back."""
    is_plain: bool
    """Whether what its reversal gives back follows from it alone: it moved just its amount, to a merchant, and nothing refers to it."""


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
    merchants: list[str] = field(default_factory=list)
    """By number; used where complete."""
    terminals: dict[int, str] = field(default_factory=dict)
    merchant_of: dict[str, str] = field(default_factory=dict)
    """By terminal."""
    holder_of: dict[str, str] = field(default_factory=dict)
    """By card."""
    purses: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By holder, cash and subsidy."""
    decisions: dict[int, dict[Message, Decision]] = field(default_factory=dict)
    """By day of DE13."""
    by_position: dict[int, Decision] = field(default_factory=dict)
    """The same decisions by their record."""
    reversed_before: set[Message] = field(default_factory=set)
    """Messages that were undone before they came."""

    def take(self, position: int, record: Record, ledger: Document) -> int:
        """Check what a report says of the books beside a record, and go on to the state after it. Gives the fen that moved.

        Raises Fault, without line and position.
        """
        said = record.said
        names = {"business_date", "movements"} | ({"terminal", "merchant", "holder"} if record.message else set())
        if ledger.keys() != names:
            raise Fault(f"under ledger stand {_listed(ledger)} where {_listed(names)} should")
        self._take_date(said, ledger["business_date"])
        if said["kind"] == "policy":
            self.amount_max, self.identity_days = said["amount_max"], said["identity_days"]
        if record.message is None:
            if said["kind"] == "lapse":
                if (said["response"], said["original"], ledger["movements"]) != ("00", said["hold"], []) or not 0 < said["hold"] < position:
                    raise Fault(f"a lapse of hold {said['hold']} with another outcome")
                return 0
            if (said["response"], said["cash_after"], said["original"]) != ("00", None, None):
                raise Fault(f"a {said['kind']} record with a terminal's outcome")
            expected = self._take_party(said, ledger["movements"])
        else:
            expected = self._take_message(position, record, record.message, ledger)
        if _canonical(ledger["movements"]) != _canonical(expected):
            raise Fault(
                f"the movements {_canonical(ledger['movements'])} are not those that follow from the record: {_canonical(expected)}"
            )
        return sum(movement["fen"] for movement in expected)

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
            oldest = datetime.date.fromisoformat(now).toordinal() - self._days_kept
            for day in [day for day in self.decisions if day < oldest]:
                for decision in self.decisions.pop(day).values():
                    self.by_position.pop(decision.position, None)
            self.reversed_before = {message for message in self.reversed_before if message.day >= oldest}

    @property
    def _days_kept(self) -> int:
        return IDENTITY_DAYS_MAX if self.identity_days is None else self.identity_days

    def _take_party(self, said: Document, stated: object) -> list[Document]:
        """A record that no terminal caused; gives the movements that follow."""
        if said["paid_cash"] or said["paid_subsidy"]:
            raise Fault(f"a {said['kind']} record says that something was paid")
        if said["kind"] == "merchant":
            if self.complete and said["merchant"] not in self.merchants:
                self.merchants.append(said["merchant"])
        elif said["kind"] == "terminal":
            self._take_terminal(said["terminal"], said["merchant_number"])
        elif said["kind"] == "card":
            return self._take_card(said, stated)
        return []

    def _take_terminal(self, terminal: str, merchant: int) -> None:
        if not self.complete:
            # A merchant's number says nothing without the records that entered it: the next message is believed again.
            self.merchant_of.pop(terminal, None)
            return
        if merchant >= len(self.merchants):
            raise Fault(f"terminal {terminal} belongs to merchant number {merchant}, which there is not")
        if terminal not in self.merchant_of:
            self.terminals[len(self.terminals)] = terminal
        self.merchant_of[terminal] = self.merchants[merchant]

    def _take_card(self, said: Document, stated: object) -> list[Document]:
        card, holder = said["card"], said["holder"]
        if self.holder_of.setdefault(card, holder) != holder:
            raise Fault(f"card {card} goes from holder {self.holder_of[card]} to {holder}")
        opening = (said["opening_cash"], said["opening_subsidy"])
        movements = _movements(
            ("house:suspense", f"cash:{holder}", opening[0]),
            ("house:grants", f"subsidy:{holder}", opening[1]),
        )
        if holder in self.purses or (not self.complete and stated == []):
            return []
        if min(opening) < FLOOR_FEN:
            raise Fault(f"holder {holder} is opened with {opening} fen")
        self.purses[holder] = opening
        return movements

    def _take_message(self, position: int, record: Record, message: Message, ledger: Document) -> list[Document]:
        """A record that a terminal's message caused; gives the movements that follow."""
        said = record.said
        if said.get("is_put_off"):
            return self._take_late(said, ledger)
        self._check_message(message)
        original = self.decisions.get(record.undoes.day, {}).get(record.undoes) if record.undoes else None
        terminal, merchant, holder = (ledger[name] for name in ("terminal", "merchant", "holder"))
        self._check_names(said, ledger, original)
        paid = (said["paid_cash"], said["paid_subsidy"])
        if any(paid) and (said["kind"] not in DEBITING | CREDITING | {"hold", "reversal"} or said["response"] != "00"):
            raise Fault(f"{sum(paid)} fen are paid by a {said['kind']} that was answered {said['response']}")
        if said["original"] is not None and not 0 < said["original"] < position:
            raise Fault(f"it refers to record {said['original']}, which does not stand before it")
        self._check_reference(position, record, message, original, paid)
        moved = self._check_movements(said, ledger["movements"], paid)
        self._take_purses(said, moved[0] or holder, moved[1])
        decision = _decision(position, said, str(merchant), paid)
        self.decisions.setdefault(message.day, {})[message] = self.by_position[position] = decision
        if record.undoes is None:
            self.merchant_of.setdefault(terminal, merchant)
        purses = (f"cash:{holder}", f"subsidy:{holder}")
        shop = f"merchant:{merchant}"
        if said["kind"] == "reversal" and (original is None or original.is_plain):
            return _movements((shop, purses[0], paid[0]), (shop, purses[1], paid[1]))
        if said["kind"] in {"purchase", "offline_sale"} and said["response"] == "00":
            return _payment(purses, shop, said["amount"], paid)
        return list(ledger["movements"])

    def _check_reference(self, position: int, record: Record, message: Message, original: Decision | None, paid: tuple[int, int]) -> None:
        """See that what a message refers to can be what it says, and take note that it is referred to."""
        said = record.said
        if said["kind"] == "purchase":
            self._check_purchase(said, message, paid)
        elif record.undoes is not None:
            self._check_reversal(position, said, original, paid)
            if original is None and said["response"] == "00":
                self.reversed_before.add(record.undoes)
            elif original is not None and said["response"] == "00":
                original.stands = False
        elif said["original"] is not None:
            if said["kind"] not in {"completion", "void", "refund", "return"}:
                raise Fault(f"a {said['kind']} refers to record {said['original']}")
            if said["kind"] != "return" and said["original"] in self.by_position:
                self.by_position[said["original"]].is_plain = False

    def _take_late(self, said: Document, ledger: Document) -> list[Document]:
        """An advice that came too late to be posted; it moves nothing and is not remembered as a decision."""
        if said["response"] != "12" or said["cash_after"] is not None or said["paid_cash"] or said["paid_subsidy"]:
            raise Fault(f"an advice that came too late is answered {said['response']}")
        self._check_names(said, ledger, None)
        return []

    def _check_movements(self, said: Document, movements: object, paid: tuple[int, int]) -> tuple[str | None, tuple[int, int]]:
        """See that money went the way of the operation, and is what the record tells of. Gives whose purses, and what reached them."""
        reached, owners = [0, 0], set()
        if not isinstance(movements, list):
            raise Fault("the movements are no list")
        for movement in movements:
            _expect_fields(movement, debit=str, credit=str, fen=int)
            if movement["fen"] <= 0 or movement["debit"] == movement["credit"]:
                raise Fault(f"{movement['fen']} fen go from {movement['debit']} to {movement['credit']}")
            for side, sign in (("debit", -1), ("credit", 1)):
                kind, _, owner = movement[side].partition(":")
                if kind in {"cash", "subsidy"}:
                    owners.add(owner)
                    reached[kind == "subsidy"] += sign * movement["fen"]
        if len(owners) > 1:
            raise Fault(f"the purses of {_listed(owners)} are touched by one message")
        kind = said["kind"]
        wrong = (kind in DEBITING and max(reached) > 0) or (kind in CREDITING and min(reached) < 0)
        wrong = wrong or (bool(movements) and kind not in DEBITING | CREDITING | {"reversal"})
        if wrong or (movements and (abs(reached[0]), abs(reached[1])) != paid):
            raise Fault(f"{reached} fen reach the purses by a {kind} of {paid}")
        return (owners.pop() if owners else None), (reached[0], reached[1])

    def _check_message(self, message: Message) -> None:
        known = self.decisions.get(message.day, {}).get(message)
        if known is not None:
            raise Fault(f"it decides again what record {known.position} decided")
        assert self.business_date is not None
        today = datetime.date.fromisoformat(self.business_date).toordinal()
        if not today - self._days_kept < message.day <= today + 1:
            raise Fault(f"the terminal's date {_date(message.day)} is outside the days that are kept on {self.business_date}")

    def _check_names(self, said: Document, ledger: Document, original: Decision | None) -> None:
        number, terminal, merchant, holder = said["terminal_number"], ledger["terminal"], ledger["merchant"], ledger["holder"]
        if not (isinstance(terminal, str) and isinstance(merchant, str) and isinstance(holder, str | None)):
            raise Fault("terminal, merchant and holder are no texts")
        known = self.terminals.get(number) if self.complete else self.terminals.setdefault(number, terminal)
        if known != terminal:
            raise Fault(f"terminal number {number} is given as {terminal}, but it is {known}")
        due = original.merchant if original else self.merchant_of.get(terminal)
        # Without the whole past, what a reversal undoes may be another merchant's than the terminal's is now.
        if due is not None and merchant != due and (original or self.complete or said["kind"] != "reversal"):
            raise Fault(f"the merchant is given as {merchant}, but it is {due}")
        card = said["card"] or (original.card if original else None)
        owner = self.holder_of.get(card) if card else None
        if card and owner is None and holder is not None and not self.complete:
            owner = self.holder_of[card] = holder
        if holder != owner and (card or original or self.complete or said["kind"] != "reversal"):
            raise Fault(f"the holder of card {card} is given as {holder}, but it is {owner}")

    def _check_purchase(self, said: Document, message: Message, paid: tuple[int, int]) -> None:
        if said["original"] is not None:
            raise Fault(f"a purchase refers to record {said['original']}")
        if said["response"] != "00":
            return
        if message in self.reversed_before:
            raise Fault("it approves a purchase that was undone before it came")
        # A surcharge is no more than the amount, and a discount too.
        if not said["card"] or not said["amount"] or not 0 <= sum(paid) <= 2 * said["amount"]:
            raise Fault(f"{sum(paid)} fen are paid for a purchase of {said['amount']} fen by card {said['card']}")
        if self.amount_max is not None and said["amount"] > self.amount_max:
            raise Fault(f"a purchase of {said['amount']} fen is approved, above the highest amount of {self.amount_max}")
        if {"cash": paid[1], "subsidy": paid[0], "policy": 0}[said["purses"]]:
            raise Fault(f"a purse paid that the terminal did not ask for: it asked for {said['purses']}")

    def _check_reversal(self, position: int, said: Document, original: Decision | None, paid: tuple[int, int]) -> None:
        if original is None:
            before = said["original"]
            known_here = self.complete or (before is not None and before >= self.first)
            if (known_here and (before is not None or any(paid))) or (before is None and any(paid)) or (before or 0) >= position:
                raise Fault(f"it says that it undoes record {before} and gives back {sum(paid)} fen, but no such decision stands before it")
            return
        if not original.is_plain:
            if said["original"] != original.position or said["response"] not in {"00", "94"}:
                raise Fault(
                    f"as a reversal of record {original.position} it names record {said['original']} and is answered {said['response']}"
                )
            return
        differs = any(said[name] not in {None, value} and value is not None for name, value in _content(original))
        expected = ("94", (0, 0)) if differs else ("00", original.paid if original.stands else (0, 0))
        if (said["response"], paid) != expected or said["original"] != original.position:
            raise Fault(
                f"as a reversal of record {original.position} it should be answered {expected[0]} and give back {sum(expected[1])} fen,"
                f" but it names record {said['original']}, is answered {said['response']} and gives back {sum(paid)}"
            )

    def _take_purses(self, said: Document, holder: str | None, reached: tuple[int, int]) -> None:
        after = (said["cash_after"], said["subsidy_after"])
        if after == (None, None):
            if any(reached):
                raise Fault("it does not say what the purses hold afterwards")
            return
        if said["kind"] not in DEBITING | CREDITING | {"hold", "reversal"}:
            raise Fault("it says what purses hold that nobody has")
        if holder is None:
            return
        before = self.purses.get(holder)
        # What is held, or free again, is told by the hold's own records: available is less, or more, and nothing has moved.
        holds = said["kind"] in {"hold", "completion"} or (said["kind"] == "reversal" and not any(reached))
        if before is not None and not holds and after != (before[0] + reached[0], before[1] + reached[1]):
            raise Fault(
                f"the purses of holder {holder} held {before} fen, and after a {said['kind']} of {reached} they are said to hold {after}"
            )
        if after[0] < -DEBT_FEN_MAX or after[1] < FLOOR_FEN:
            raise Fault(f"the purses of holder {holder} hold {after} fen, below their floor")
        self.purses[holder] = after


def _payment(purses: tuple[str, str], receiver: str, amount: int, paid: tuple[int, int]) -> list[Document]:
    """How purses pay: a surcharge goes to the fees, and a discount comes from the grants."""
    subsidy = min(paid[1], amount)
    cash = min(paid[0], amount - subsidy)
    return _movements(
        (purses[0], receiver, cash),
        (purses[1], receiver, subsidy),
        (purses[0], "house:fees", paid[0] - cash),
        (purses[1], "house:fees", paid[1] - subsidy),
        ("house:grants", receiver, amount - cash - subsidy),
    )


def _decision(position: int, said: Document, merchant: str, paid: tuple[int, int]) -> Decision:
    is_sale = said["kind"] in {"purchase", "offline_sale"} and said["response"] == "00"
    is_plain = said["response"] != "00" or (is_sale and sum(paid) == said["amount"]) or not any(paid)
    return Decision(position, said["card"], said["amount"], paid, merchant, is_sale, is_plain and said["kind"] not in {"hold", "void"})


def _content(decision: Decision) -> tuple[tuple[str, object], ...]:
    return (("card", decision.card), ("amount", decision.amount))


def _movements(*movements: tuple[str, str, int]) -> list[Document]:
    return [{"debit": debit, "credit": credit, "fen": fen} for debit, credit, fen in movements if fen]


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
        if header["format"] != FORMAT:
            raise Fault(f"the report has format {header['format']}; this program checks format {FORMAT}")
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
        expected = {**record.said, "at": _moment(record.microseconds, printed.get("at"))}
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
