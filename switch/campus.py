"""A college made up from a seed: its cardholders, merchants and terminals as files to import.

Always true here: equal arguments give an equal college, byte for byte, on every machine. Every card number bears a Luhn digit, and every
holder has one card.

The proportions are those of a college that was measured: 17,600 people, 60 merchants, 230 terminals. A few cards are lost, frozen,
expired, not yet active or too low, so that a meal (`switch.meals`) meets its declines. More people than one college has are a group of
colleges, each with merchants and terminals of its own.
"""

import csv
import datetime
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

__all__ = [
    "CARDHOLDERS",
    "CARDS_HEADER",
    "MERCHANTS_HEADER",
    "PLACES",
    "TERMINALS_HEADER",
    "Campus",
    "CampusUnread",
    "Card",
    "Merchant",
    "Place",
    "RowWriter",
    "TerminalRow",
    "card_number",
    "college",
    "colleges_of",
    "luhn_digit",
    "read_rows",
    "write_rows",
]

CARDHOLDERS: Final = 17_600
"""Of one college."""

MERCHANTS_HEADER: Final = "merchant_id,name,category,fee_bp"
TERMINALS_HEADER: Final = "terminal_id,merchant_id,kind,zone,key"
CARDS_HEADER: Final = "card_number,holder_id,class,status,expires,cash,subsidy"


class CampusUnread(Exception):
    """One sentence: why a campus's files cannot be read."""


@dataclass(frozen=True, slots=True)
class Merchant:
    """A row of merchants.csv."""

    merchant_id: str
    name: str
    category: str
    fee_bp: int


@dataclass(frozen=True, slots=True)
class TerminalRow:
    """A row of terminals.csv."""

    terminal_id: str
    merchant_id: str
    kind: str
    zone: str
    key: bytes


@dataclass(frozen=True, slots=True)
class Card:
    """A row of cards.csv. Opening balances are in fen."""

    card_number: str
    holder_id: str
    card_class: str
    status: str
    expires: datetime.date
    cash: int
    subsidy: int

    def purchase_answers(self, today: datetime.date) -> frozenset[str]:
        """What a purchase with it may be answered (DE39), by what its file says. Whether its purses suffice is left to the sums."""
        return self._answers(today, "00", "51")

    def load_answers(self, today: datetime.date) -> frozenset[str]:
        """The same of a cash load, which no purse is too low for."""
        return self._answers(today, "00")

    def _answers(self, today: datetime.date, *otherwise: str) -> frozenset[str]:
        refused = _ANSWERS_BY_STATUS.get(self.status) or ("54" if self.expires < today else None)
        return frozenset({refused} if refused else otherwise)


_ANSWERS_BY_STATUS: Final = {"lost": "41", "frozen": "62", "blacklisted": "62", "inactive": "78", "cancelled": "78"}


@dataclass(frozen=True, slots=True)
class Campus:
    """Everything that the switch is told before its first terminal signs on."""

    merchants: list[Merchant]
    terminals: list[TerminalRow]
    cards: list[Card]

    def write(self, folder: Path) -> list[Path]:
        """Writes merchants.csv, terminals.csv and cards.csv and returns their paths in the order of import."""
        merchants, terminals, cards = (folder / f"{name}.csv" for name in ("merchants", "terminals", "cards"))
        write_rows(merchants, MERCHANTS_HEADER, ((m.merchant_id, m.name, m.category, m.fee_bp) for m in self.merchants))
        write_rows(terminals, TERMINALS_HEADER, ((t.terminal_id, t.merchant_id, t.kind, t.zone, t.key.hex()) for t in self.terminals))
        write_rows(
            cards,
            CARDS_HEADER,
            ((c.card_number, c.holder_id, c.card_class, c.status, c.expires, c.cash, c.subsidy) for c in self.cards),
        )
        return [merchants, terminals, cards]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads back what `write` wrote, as far as a terminal needs it checked: the switch's own import is stricter.

        Raises `CampusUnread`.
        """
        try:
            return cls(
                [
                    Merchant(name, called, kind, int(fee))
                    for name, called, kind, fee in read_rows(folder / "merchants.csv", MERCHANTS_HEADER)
                ],
                [
                    TerminalRow(terminal, merchant, kind, zone, bytes.fromhex(key))
                    for terminal, merchant, kind, zone, key in read_rows(folder / "terminals.csv", TERMINALS_HEADER)
                ],
                [
                    Card(number, holder, for_whom, status, datetime.date.fromisoformat(expires), int(cash), int(subsidy))
                    for number, holder, for_whom, status, expires, cash, subsidy in read_rows(folder / "cards.csv", CARDS_HEADER)
                ],
            )
        except ValueError as error:
            raise CampusUnread(f"{folder}: a number, date or key in its files cannot be read: {error}.") from None


class RowWriter:
    """A file as `switch import` takes it, row by row. Resource handling: a context manager, which closes it."""

    def __init__(self, path: Path, header: str) -> None:
        self.rows = 0
        """Written so far."""
        self._file = path.open("w", encoding="utf-8", newline="")
        self._csv = csv.writer(self._file, lineterminator="\n")
        self._csv.writerow(header.split(","))

    def write(self, row: Iterable[object]) -> None:
        self._csv.writerow(row)
        self.rows += 1

    def flush(self) -> None:
        """So that whoever reads it meanwhile sees what is written."""
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def write_rows(path: Path, header: str, rows: Iterable[Iterable[object]]) -> int:
    """Writes such a file and returns how many rows there were."""
    with RowWriter(path, header) as file:
        for row in rows:
            file.write(row)
        return file.rows


def read_rows(path: Path, header: str) -> Iterator[list[str]]:
    """The rows of a file with this header, each with as many fields. Raises `CampusUnread`."""
    names = header.split(",")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            if next(reader, None) != names:
                raise CampusUnread(f"{path}: its first line is not {header}.")
            for row in reader:
                if len(row) != len(names):
                    raise CampusUnread(f"{path} line {reader.line_num}: {len(row)} fields where the header has {len(names)}.")
                yield row
    except OSError as error:
        raise CampusUnread(f"{path}: the file cannot be read: {error.strerror}.") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise CampusUnread(f"{path}: this is no CSV file: {error}.") from None


# --- the places -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """What one merchant is made of. `weight` is its share of a day's payments, in percent."""

    name: str
    category: str
    fee_bp: int
    weight: float
    kinds: tuple[str, ...]
    """Its terminals; the first kind named is the one that people pay at."""
    amount_mean: int = 0
    """Fen."""


_CANTEENS = ("First", "Second", "Third", "North", "South", "Garden", "Teachers'", "Halal", "Lakeside")
# The first takes a third of what is bought (96.7 %; the rest are loads), the others the rest of the canteens' 87.6 % by their size.
_CANTEEN_TERMINALS = (46, 18, 16, 14, 12, 11, 9, 8, 6)
_SHOPS = (
    *("Supermarket", "Bookshop", "Bakery", "Fruit Shop", "Tea Bar", "Coffee Corner", "Copy Shop", "Stationer"),
    *("Laundry", "Hairdresser", "Optician", "Bicycle Repair", "Florist", "Phone Shop", "Print Room", "Sports Shop"),
    *("Noodle Bar", "Juice Bar", "Night Shop", "Snack Kiosk East", "Snack Kiosk West", "Gift Shop"),
)
_GATES = (
    "North Gate",
    "South Gate",
    "East Gate",
    "West Gate",
    "Dormitory 1",
    "Dormitory 2",
    "Dormitory 3",
    "Dormitory 4",
    "Gym",
    "Laboratory",
)


def _places() -> list[Place]:
    others = 87.6 - 96.7 / 3
    rest = sum(_CANTEEN_TERMINALS[1:])
    canteen_weights = [96.7 / 3, *(others * terminals / rest for terminals in _CANTEEN_TERMINALS[1:])]
    places = [
        Place(f"{name} Canteen", "canteen", 0, weight, ("pos",) * terminals, 370)
        for name, weight, terminals in zip(_CANTEENS, canteen_weights, _CANTEEN_TERMINALS, strict=True)
    ]
    places += [
        Place(name, "shop", 100, 8.0 / 30 * terminals, ("pos",) * terminals, 650)
        for name, terminals in zip(_SHOPS, (2,) * 8 + (1,) * 14, strict=True)
    ]
    places += [Place("Clinic", "clinic", 0, 0.10, ("pos",) * 2, 1500), Place("Dental Clinic", "clinic", 0, 0.05, ("pos",), 1500)]
    places += [
        Place(f"Bath House {number}", "bath", 0, 0.04, ("water",) * terminals, 250)
        for number, terminals in enumerate((3, 3, 3, 3, 2, 2), start=1)
    ]
    places += [
        Place(f"{name} Service", "utility", 0, 0.15, ("pos", "kiosk") + ("meter",) * meters, 2000)
        for name, meters in (("Electricity", 3), ("Water", 3), ("Network", 0), ("Heating", 0))
    ]
    places += [
        Place("Main Library", "library", 0, 0.07, ("library",) * 3, 120),
        Place("Science Library", "library", 0, 0.04, ("library",) * 2, 120),
    ]
    places += [Place(name, "gate", 0, 0.0, ("gate",) * gates) for name, gates in zip(_GATES, (2,) * 6 + (1,) * 4, strict=True)]
    places += [
        Place("Finance Office", "office", 0, 3.3, ("counter", "counter", "kiosk")),
        Place("Information Centre", "office", 0, 0.0, ("counter",)),
        Place("Student Affairs", "office", 0, 0.0, ("kiosk",)),
        Place("Human Resources", "office", 0, 0.0, ("kiosk",)),
        Place("Logistics", "office", 0, 0.0, ()),
    ]
    return places


PLACES: Final[Sequence[Place]] = _places()
"""The places of one college, in the order of its merchants."""

_CLASS_SHARES: Final = {"student": 0.905, "teacher": 0.055, "family": 0.015, "merchant": 0.010, "temporary": 0.015}
_STATUS_SHARES: Final = {"lost": 0.002, "frozen": 0.001, "inactive": 0.003, "cancelled": 0.001}
_EXPIRED_SHARE: Final = 0.003
_LOW_SHARE: Final = 0.025
_SUBSIDY_SHARES: Final = {"student": 0.25, "teacher": 0.60}


def luhn_digit(digits: str) -> str:
    """The check digit that follows `digits` (ISO/IEC 7812-1, annex B)."""
    total = 0
    for index, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if index % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def card_number(prefix: str, serial: int) -> str:
    """Sixteen digits: three of `prefix`, twelve of `serial`, and their Luhn digit."""
    digits = f"{prefix}{serial:012}"
    return digits + luhn_digit(digits)


def colleges_of(cardholders: int) -> int:
    """How many colleges so many people make."""
    return max(1, round(cardholders / CARDHOLDERS))


def college(seed: int, today: datetime.date, cardholders: int = CARDHOLDERS) -> Campus:
    """The college of `seed`, whose cards are valid or expired as of `today`; of more people than one has, the group of colleges."""
    # Made to be the same again, not to be unguessable: these keys guard an imaginary campus.
    generator = random.Random(f"college {seed}")  # noqa: S311
    merchants: list[Merchant] = []
    terminals: list[TerminalRow] = []
    for index in range(colleges_of(cardholders) * len(PLACES)):
        which, within = divmod(index, len(PLACES))
        place = PLACES[within]
        name = f"{place.name}, Campus {which + 1}" if which else place.name
        merchant = Merchant(f"M{index + 1:014}", name, place.category, place.fee_bp)
        merchants.append(merchant)
        zone = place.name.lower().replace(" ", "-") if place.category == "gate" else ""
        for kind in place.kinds:
            terminals.append(TerminalRow(f"T{len(terminals) + 1:07}", merchant.merchant_id, kind, zone, generator.randbytes(16)))
    serials = generator.sample(range(10**12), cardholders)
    cards = [_card(generator, card_number("623", serial), f"H{number:07}", today) for number, serial in enumerate(serials, start=1)]
    return Campus(merchants, terminals, cards)


def _card(generator: random.Random, number: str, holder_id: str, today: datetime.date) -> Card:
    (card_class,) = generator.choices(list(_CLASS_SHARES), list(_CLASS_SHARES.values()))
    (status,) = generator.choices([*_STATUS_SHARES, "active"], [*_STATUS_SHARES.values(), 1 - sum(_STATUS_SHARES.values())])
    if status == "active" and generator.random() < _EXPIRED_SHARE:
        expires = today - datetime.timedelta(days=generator.randrange(1, 400))
    else:
        expires = today + datetime.timedelta(days=generator.randrange(60, 1400))
    if generator.random() < _LOW_SHARE:
        cash, subsidy = generator.randrange(300), 0
    else:
        # Half of the purses hold more than 90 yuan; nobody carries more than 2,000.
        cash = min(int(9000 * generator.lognormvariate(0, 0.9)), 200_000)
        subsidy = generator.randrange(12_001) if generator.random() < _SUBSIDY_SHARES.get(card_class, 0.0) else 0
    return Card(number, holder_id, card_class, status, expires, cash, subsidy)
