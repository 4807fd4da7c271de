"""What a journal's record says: its bytes taken apart, as docs/evidence.md describes them.

Always true here: a record that can be read has one meaning, and each of its bytes has been looked at or is hashed alone. Whether what it
says can have happened is the books' affair.
"""

import datetime
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

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
LATE: Final = {16: "offline_sale", 17: "completion", 18: "reversal", 19: "unknown"}
"""What may come too late beside the acts."""
EVENTS: Final = ("overload", "tamper", "fire", "restored")
TOTALS: Final = ("credits", "credit_reversals", "debits", "debit_reversals")
ACCOUNT_FEN_MAX: Final = 999_999_999_999
"""The most that an account that is not the campus's own holds, and the most that a cash purse owes."""
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
    32: "late",
}
FINANCIAL: Final = 0
"""The family of messages that reversals undo."""
FAMILIES: Final = {1: FINANCIAL, 2: FINANCIAL, 3: 1, 4: 2, 5: 3, 6: 4, 8: 5}
"""By the second digit of the MTI, where the first is 0; all others are 6."""
EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
DAY_ZERO: Final = datetime.date(2000, 1, 1).toordinal()
Document = dict[str, Any]


class Unreadable(Exception):
    """A record's bytes are not those of a record; why."""


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
        _MESSAGES.get(kind, _nothing)(rest, said)
        if "reversal" in {kind, said.get("told")}:
            undoes = Message.unpack(rest)
            said["undoes"] = {"terminal_number": undoes.terminal, "date": date_text(undoes.day), "stan": undoes.stan}
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
    said.update(business_date=date_text(rest.day()))


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
    said.update(status=rest.one_of(STATUSES), expires=date_text(rest.day()), opening_cash=rest.signed(), opening_subsidy=rest.signed())


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


def _late(rest: Bytes, said: Document) -> None:
    number = rest.number(1)
    said["told"] = LATE.get(number) or _name(number, ACTS, 1)
    if said["told"] in ACTS:
        said["item"] = rest.text() or None
    elif said["told"] == "completion":
        said["refers_to"] = rest.number(8)


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
    "late": _late,
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
        terminal_clock=f"{date_text(message.day)}T{time // 10_000:02}:{time // 100 % 100:02}:{time % 100:02}",
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


def date_text(ordinal: int) -> str:
    return datetime.date.fromordinal(ordinal).isoformat()


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
