"""The books: what the records so far tell of everything that a record alone does not say.

Always true here: what is held does not grow with the journal, but by the parties, the days, the holds, loans and batches that a switch
keeps itself. `posting` takes records into the books; `answers` and `effects` hold them against what stands here.
"""

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from .lines import Fault
from .records import ACCOUNT_FEN_MAX, DAY_ZERO, TOTALS, Document, Message, Record, Rule

IDENTITY_DAYS_MAX: Final = 60
"""Days for which a switch may remember decisions, at most; what is older can be forgotten here as well."""
PURSE_FEN_MAX: Final = 99_999_999_999
BATCH_MAX: Final = 999_999
"""No number follows it: that batch stays open."""
"""The most that a purse is opened with or loaded up to."""
HOUR_MICROSECONDS: Final = 3_600_000_000
Pair = tuple[int, int]
"""Fen of the cash and of the subsidy purse."""
SALES: Final = {"purchase", "offline_sale", "completion"}
"""What can be refunded."""
SPENT: Final = {"purchase", "hold", "bill_payment"}
"""What rules are asked for."""
REFERRING: Final = {"completion", "void", "refund"}
MONEY: Final = {*SALES, *SPENT, *REFERRING, "load"}
"""What, where approved, says what the purses hold afterwards."""
STATUS_CODES: Final = {"lost": "41", "frozen": "62", "blacklisted": "62", "inactive": "78", "cancelled": "78"}
LIVE: Final = {"active", "inactive", "frozen", "blacklisted"}


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
        # Where refunds were taken back, others may have got ahead; what is beside the amount changes sides never.
        given = min(given, amount) if sum(self.paid) < self.amount else max(given, amount)
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
        return str(self.said.get("act") or self.said.get("told") or self.kind)


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
    late: dict[tuple[object, ...], int] = field(default_factory=dict)
    """Advices and reversals that came too late, by message and content, with the business date (ordinal) of each."""

    def note_takings(self, movements: Sequence[Document]) -> None:
        """Take note of what merchants and payees take and give back."""
        if not self.complete:
            return
        for movement in movements:
            for account, fen in ((movement["debit"], -movement["fen"]), (movement["credit"], movement["fen"])):
                if account.startswith(("merchant:", "payee:")):
                    self.takings[account] = self.takings.get(account, 0) + fen
                    if not 0 <= self.takings[account] <= ACCOUNT_FEN_MAX:
                        raise Fault(f"the account {account} holds {self.takings[account]} fen, which it cannot")

    def take_date(self, said: Document, stated: object) -> None:
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
            self.forget()

    @property
    def today(self) -> int:
        assert self.business_date is not None
        return datetime.date.fromisoformat(self.business_date).toordinal()

    def forget(self) -> None:
        """Forget what the switch forgets, as far as it is known how long it remembers."""
        days = self.identity_days
        oldest = max(self.today - max(days or 1, 1) + 1, DAY_ZERO)
        self.late = {message: noted for message, noted in self.late.items() if noted >= oldest}
        if not self.complete:
            oldest = self.today - (IDENTITY_DAYS_MAX if days is None else days)
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

    def set_status(self, number: str, card: Card, status: str) -> None:
        card.status = status
        live = self.live_card.get(card.holder)
        if status not in LIVE:
            if live == number:
                del self.live_card[card.holder]
        elif live not in {None, number}:
            raise Fault(f"holder {card.holder} has the cards {live} and {number} at once")
        else:
            self.live_card[card.holder] = number

    def at(self, position: int | None) -> Decision | None:
        message = self.numbers.get(position or 0)
        return self.decisions[message.day][message] if message else None

    def card_code(self, number: str | None) -> tuple[bool, str | None]:
        """Whether it is known what stands against a card, and that."""
        card = self.cards.get(number or "")
        if card is None or card.status is None:
            return False, None
        if card.status != "active":
            return True, STATUS_CODES[card.status]
        is_expired = card.expires is not None and card.expires < str(self.business_date)
        return card.expires is not None, "54" if is_expired else None

    def take_purses(self, holder: str | None, after: Pair, change: Pair | None, *, least: int) -> None:
        before = self.purses.get(holder or "")
        if before is not None and change is not None and after != (before[0] + change[0], before[1] + change[1]):
            raise Fault(f"the purses of holder {holder} held {before} fen, and after a change of {change} they are said to hold {after}")
        if after[0] < least or after[1] < 0 or max(after) > ACCOUNT_FEN_MAX:
            raise Fault(f"the purses of holder {holder} hold {after} fen, below their floor or above their ceiling")
        self.purses[str(holder)] = after

    def batch_of(self, terminal: int, named: int | None) -> Batch:
        """The batch that a message belongs to: the one that it names, else the terminal's open one."""
        number = self.open_batch.get(terminal, 1) if named is None else named
        batch = self.batches.setdefault((terminal, number), Batch())
        batch.touched = self.today
        return batch


def transfers(*movements: tuple[str, str, int]) -> list[Document]:
    """Movements by debit, credit and fen; what moves nothing is none."""
    return [{"debit": debit, "credit": credit, "fen": fen} for debit, credit, fen in movements if fen]
