"""What a terminal keeps for itself: the totals of its batches, and its copy of the hotlist. No I/O, no clock.

What always holds:

- Totals are counted from answers alone, by what the terminal asked and was granted; of the switch's own totals they know nothing.
- The copy of the hotlist is as of one version. A reading changes it when its last piece is there, and only if all its pieces are of one
  version; otherwise nothing of it is taken and the reading begins again.

How it works: `Batches.count` is told each granted request once. `Hotlist` says what to ask for next, and `take` is told each piece.
"""

from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Final, Self

from switch.dialect import ProtocolViolation, sub_element_pairs

__all__ = ["Batches", "Hotlist", "HotlistPiece", "Totals"]


@dataclass(slots=True)
class Totals:
    """One batch in numbers and fen. What was undone stays counted, and counts a second time as a reversal."""

    credits: int = 0
    credit_reversals: int = 0
    debits: int = 0
    debit_reversals: int = 0
    credit_amount: int = 0
    credit_reversal_amount: int = 0
    debit_amount: int = 0
    debit_reversal_amount: int = 0

    @classmethod
    def read(cls, elements: Mapping[str, str]) -> Self | None:
        """From the elements of a message; nothing where it has not all of them."""
        values = [elements.get(element) for element in _TOTALS_ELEMENTS]
        return cls(*(int(value) for value in values if value is not None)) if None not in values else None

    def elements(self) -> dict[str, str]:
        """DE74 to 77 and 86 to 89."""
        values = (getattr(self, field.name) for field in fields(self))
        return {element: f"{value:0{_DIGITS[element]}}" for element, value in zip(_TOTALS_ELEMENTS, values, strict=True)}

    @property
    def net(self) -> tuple[int, int, int, int]:
        """Credits and debits that stand: their numbers, then their amounts.

        A terminal that reversed what it had no answer to cannot know whether there was anything to undo: the switch may have counted it
        and counted it back, or neither. These figures are the same either way.
        """
        return (
            self.credits - self.credit_reversals,
            self.debits - self.debit_reversals,
            self.credit_amount - self.credit_reversal_amount,
            self.debit_amount - self.debit_reversal_amount,
        )


_TOTALS_ELEMENTS: Final = ("74", "75", "76", "77", "86", "87", "88", "89")
_DIGITS: Final = {element: 10 if element < "80" else 16 for element in _TOTALS_ELEMENTS}


@dataclass(slots=True)
class _Moved:
    """A granted transaction, as far as it may still be undone."""

    debit: bool
    left: int
    """Fen that were not given back yet."""
    refunds: str | None = None
    """The transaction that it refunds."""
    undone: bool = False


class Batches:
    """The terminal's batches: which is open, and what each came to."""

    def __init__(self, first: int = 1) -> None:
        self.open = first
        """The number of the batch in which is counted what names none."""
        self._totals: defaultdict[int, Totals] = defaultdict(Totals)
        self._moved: dict[str, _Moved] = {}

    def totals(self, batch: int | None = None) -> Totals:
        """A batch's totals so far, by default those of the open one."""
        return self._totals[self.open if batch is None else batch]

    def closed(self, batch: int) -> None:
        """The switch has the same totals: the next batch opens, if it was not open already."""
        self.open = max(self.open, min(batch + 1, _BATCH_MAX))

    def count(self, mti: str, elements: Mapping[str, str], reference: str, undone: str | None) -> None:
        """A request that was granted as transaction `reference`.

        `undone` is the transaction number of what it reverses, where that is known; a void's and a refund's original stands in DE37. What
        was undone already, what was never granted and what moves nothing counts for nothing.
        """
        batch = int(elements["60"]) if "60" in elements else self.open
        code = elements.get("3", "")[:2]
        if mti[:2] == "04":
            self._give_back(batch, undone)
        elif (mti[:2], code) == ("02", "02"):
            # A sale of another terminal of the merchant's: what it came to stands in the void's own DE4, if anywhere.
            self._moved.setdefault(elements["37"], _Moved(debit=True, left=int(elements.get("4", "0"))))
            self._give_back(batch, elements["37"])
        elif mti[:2] == "02" and code in _CREDITS | _DEBITS:
            moved = _Moved(debit=code in _DEBITS, left=int(elements["4"]), refunds=elements["37"] if code == _REFUND else None)
            self._moved[reference] = moved
            self._add(batch, moved.left, debit=moved.debit, reversal=False)
            self._change_refunded(moved, -moved.left)

    def _give_back(self, batch: int, reference: str | None) -> None:
        moved = self._moved.get(reference) if reference is not None else None
        if moved is None or moved.undone:
            return
        moved.undone = True
        self._add(batch, moved.left, debit=moved.debit, reversal=True)
        self._change_refunded(moved, moved.left)

    def _change_refunded(self, refund: _Moved, amount: int) -> None:
        sale = self._moved.get(refund.refunds) if refund.refunds is not None else None
        if sale is not None:
            sale.left += amount

    def _add(self, batch: int, amount: int, *, debit: bool, reversal: bool) -> None:
        totals = self._totals[batch]
        name = ("debit" if debit else "credit") + ("_reversal" if reversal else "")
        for total, more in ((f"{name}s", 1), (f"{name}_amount", amount)):
            setattr(totals, total, getattr(totals, total) + more)


_BATCH_MAX: Final = 999_999
"""No number follows it: that batch stays open."""
_REFUND: Final = "20"
_CREDITS: Final = frozenset({_REFUND, "21"})
_DEBITS: Final = frozenset({"00", "50"})
"""The first digits of DE3 in a 02xx: a purchase, an offline sale and a completion are all 00."""


@dataclass(frozen=True, slots=True)
class HotlistPiece:
    """One reply to a reading of the hotlist."""

    version: int
    more: bool
    """Another piece follows."""
    changes: tuple[tuple[str, str], ...]
    """`+` or `-` and the card number."""

    @classmethod
    def read(cls, text: str) -> Self:
        """From the reply's DE48. Raises `ProtocolViolation`."""
        pairs = sub_element_pairs(text)
        (version,), (more,) = ([value for tag, value in pairs if tag == wanted] or [""] for wanted in ("50", "52"))
        changes = tuple((value[:1], value[1:]) for tag, value in pairs if tag == "53")
        if not (version.isdigit() and len(version) == 10 and more in {"0", "1"}):
            raise ProtocolViolation(f"a piece of the hotlist without version or end: {text[:60]!r}")
        if any(sign not in {"+", "-"} or not number.isdigit() for sign, number in changes):
            raise ProtocolViolation(f"a piece of the hotlist with something else than cards: {text[:60]!r}")
        return cls(int(version), more == "1", changes)


class Hotlist:
    """A copy of the list of cards that are lost, frozen, blacklisted or cancelled."""

    def __init__(self) -> None:
        self.version = 0
        """Of which `cards` are; 0: of before the first."""
        self.cards: AbstractSet[str] = frozenset()
        self.reading = False
        """A reading has begun and is not over: there is more to ask for."""
        self._reads_whole = False
        self._begin()

    def _begin(self) -> None:
        self._reached: int | None = None
        self._after: str | None = None
        self._changes: dict[str, str] = {}

    @property
    def _held(self) -> tuple[int, AbstractSet[str]]:
        """The version and the cards from which a reading goes on."""
        return (0, frozenset()) if self._reads_whole else (self.version, self.cards)

    def next(self) -> dict[str, str]:
        """The sub-elements that ask for what comes next."""
        return {"50": f"{self._held[0]:010}", **({"51": self._after} if self._after is not None else {})}

    def unknown(self, asked: Mapping[str, str]) -> None:
        """The switch was set back and does not have the version that was asked for (30): the whole list is to be read.

        Until it is there, `cards` stay as they are. Nothing changes where version 0 was asked for.
        """
        if asked == self.next() and self._held[0]:
            self._begin()
            self._reads_whole = self.reading = True

    def take(self, asked: Mapping[str, str], piece: HotlistPiece) -> None:
        """A piece, and the sub-elements that asked for it. Raises `ProtocolViolation`, and then nothing of it is taken."""
        if asked != self.next():
            # The answer to a request of another reading, which is over.
            return
        if self._reached is not None and piece.version != self._reached:
            # The switch started again meanwhile and knows nothing of this reading: it says version 0, and that this is all.
            self._begin()
            return
        self._check(piece)
        self.reading = True
        self._reached = piece.version
        self._changes |= {number: sign for sign, number in piece.changes}
        if piece.more:
            self._after = piece.changes[-1][1]
            return
        added = {number for number, sign in self._changes.items() if sign == "+"}
        self.cards = (self._held[1] | added) - (self._changes.keys() - added)
        self.version = piece.version
        self.reading = self._reads_whole = False
        self._begin()

    def _check(self, piece: HotlistPiece) -> None:
        after = [] if self._after is None else [_place(self._after)]
        places = [*after, *(_place(number) for _, number in piece.changes)]
        version, cards = self._held
        if piece.version < version or (piece.more and not piece.changes):
            raise ProtocolViolation(f"a piece of the hotlist that goes back or nowhere: version {piece.version} after {version}")
        if any(later <= earlier for earlier, later in pairwise(places)):
            raise ProtocolViolation("a piece of the hotlist whose cards are not in their order")
        if any((sign == "+") == (number in cards) for sign, number in piece.changes):
            raise ProtocolViolation(f"a piece of the hotlist that changes nothing for a card: since version {version}")


def _place(card_number: str) -> tuple[int, int]:
    """Card numbers come in the order of their value, and of the same value the shorter one first."""
    return int(card_number), len(card_number)
