"""A college made up from a seed: its cardholders, merchants and terminals as files to import, and its lunch as a schedule.

Always true here: equal arguments give equal files and an equal lunch, byte for byte, on every machine. Every card number bears a
Luhn digit, every holder has one card, every payment names a terminal whose kind may take it.

The proportions are those of a college that was measured: 17,600 people, 47,500 payments a day of about 4 yuan, 46 % of them at lunch,
a third of these in the busiest canteen; the busiest half hour averages 7 a second and its peak second sees about 20. A few cards
are lost, frozen, expired, not yet active or too low, so that the lunch meets its declines. Loads at the finance office (3.3 % of the
day by place) are left out, because the switch does not take them yet; the other places share out the whole number.
"""

import csv
import datetime
import enum
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final

__all__ = ["CARDHOLDERS", "Campus", "Card", "Conduct", "Merchant", "Payment", "TerminalRow", "college", "luhn_digit", "lunch"]

CARDHOLDERS: Final = 17_600
PAYMENTS_A_DAY: Final = 47_500
LUNCH_SHARE: Final = 0.46

LUNCH_BEGINS: Final = datetime.time(11)
LUNCH_SECONDS: Final = 7200

TAP_SECONDS_MIN: Final = 3.0
"""Between two cards at one terminal: nobody serves faster."""


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


@dataclass(frozen=True, slots=True)
class Campus:
    """Everything that the switch is told before its first terminal signs on."""

    merchants: list[Merchant]
    terminals: list[TerminalRow]
    cards: list[Card]

    def write(self, folder: Path) -> list[Path]:
        """Writes merchants.csv, terminals.csv and cards.csv and returns their paths in the order of import."""
        merchants, terminals, cards = (folder / f"{name}.csv" for name in ("merchants", "terminals", "cards"))
        _write_rows(merchants, "merchant_id,name,category,fee_bp", ((m.merchant_id, m.name, m.category, m.fee_bp) for m in self.merchants))
        _write_rows(
            terminals,
            "terminal_id,merchant_id,kind,zone,key",
            ((t.terminal_id, t.merchant_id, t.kind, t.zone, t.key.hex()) for t in self.terminals),
        )
        _write_rows(
            cards,
            "card_number,holder_id,class,status,expires,cash,subsidy",
            ((c.card_number, c.holder_id, c.card_class, c.status, c.expires, c.cash, c.subsidy) for c in self.cards),
        )
        return [merchants, terminals, cards]


def _write_rows(path: Path, header: str, rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header.split(","))
        writer.writerows(rows)


class Conduct(enum.Enum):
    """What befalls a payment on its way. All but the first are mishaps, a small and deliberate share."""

    ORDINARY = "ordinary"
    DOUBLED = "doubled"
    """The network delivers the request twice."""
    REPEATED = "repeated"
    """The answer is lost; the terminal repeats the request."""
    RECONNECTED = "reconnected"
    """The connection breaks before the answer; the terminal repeats the request on a new one."""
    REVERSED = "reversed"
    """The answer is lost; the terminal reverses the purchase, naming it in DE90."""
    REVERSED_BARE = "reversed without DE90"
    """The same, by the purchase's own STAN and date."""
    OVERTAKEN = "overtaken"
    """The reversal arrives before the purchase, which must then take nothing."""


CONDUCT_SHARES: Final = {
    Conduct.DOUBLED: 0.010,
    Conduct.REPEATED: 0.005,
    Conduct.RECONNECTED: 0.003,
    Conduct.REVERSED: 0.004,
    Conduct.REVERSED_BARE: 0.003,
    Conduct.OVERTAKEN: 0.0005,
}

STRANGER_SHARE: Final = 0.001
"""Payments with a card that the campus does not know."""


@dataclass(frozen=True, slots=True)
class Payment:
    """One person taps. `at_seconds` counts from the beginning of lunch, `amount` is in fen."""

    at_seconds: float
    terminal_id: str
    card_number: str
    amount: int
    conduct: Conduct


# --- the places -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """What one merchant is made of. `weight` is its share of the lunch, in percent of a day's payments by place."""

    name: str
    category: str
    fee_bp: int
    weight: float
    kinds: tuple[str, ...]
    """Its terminals; the first kind named is the one that people pay at."""
    amount_mean: int = 0
    """Fen."""


_CANTEENS = ("First", "Second", "Third", "North", "South", "Garden", "Teachers'", "Halal", "Lakeside")
# The first takes a third of the lunch (96.7 % without the loads), the others the rest of the canteens' 87.6 % by their size.
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


def _places() -> list[_Place]:
    others = 87.6 - 96.7 / 3
    rest = sum(_CANTEEN_TERMINALS[1:])
    canteen_weights = [96.7 / 3, *(others * terminals / rest for terminals in _CANTEEN_TERMINALS[1:])]
    places = [
        _Place(f"{name} Canteen", "canteen", 0, weight, ("pos",) * terminals, 370)
        for name, weight, terminals in zip(_CANTEENS, canteen_weights, _CANTEEN_TERMINALS, strict=True)
    ]
    places += [
        _Place(name, "shop", 100, 8.0 / 30 * terminals, ("pos",) * terminals, 650)
        for name, terminals in zip(_SHOPS, (2,) * 8 + (1,) * 14, strict=True)
    ]
    places += [_Place("Clinic", "clinic", 0, 0.10, ("pos",) * 2, 1500), _Place("Dental Clinic", "clinic", 0, 0.05, ("pos",), 1500)]
    places += [
        _Place(f"Bath House {number}", "bath", 0, 0.04, ("water",) * terminals, 250)
        for number, terminals in enumerate((3, 3, 3, 3, 2, 2), start=1)
    ]
    places += [
        _Place(f"{name} Service", "utility", 0, 0.15, ("pos", "kiosk") + ("meter",) * meters, 2000)
        for name, meters in (("Electricity", 3), ("Water", 3), ("Network", 0), ("Heating", 0))
    ]
    places += [
        _Place("Main Library", "library", 0, 0.07, ("library",) * 3, 120),
        _Place("Science Library", "library", 0, 0.04, ("library",) * 2, 120),
    ]
    places += [_Place(name, "gate", 0, 0.0, ("gate",) * gates) for name, gates in zip(_GATES, (2,) * 6 + (1,) * 4, strict=True)]
    places += [
        _Place("Finance Office", "office", 0, 0.0, ("counter", "counter", "kiosk")),
        _Place("Information Centre", "office", 0, 0.0, ("counter",)),
        _Place("Student Affairs", "office", 0, 0.0, ("kiosk",)),
        _Place("Human Resources", "office", 0, 0.0, ("kiosk",)),
        _Place("Logistics", "office", 0, 0.0, ()),
    ]
    return places


_PLACES: Final = _places()

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


def _card_number(prefix: str, serial: int) -> str:
    digits = f"{prefix}{serial:012}"
    return digits + luhn_digit(digits)


def college(seed: int, today: datetime.date, cardholders: int = CARDHOLDERS) -> Campus:
    """The college of `seed`, whose cards are valid or expired as of `today`."""
    # Made to be the same again, not to be unguessable: these keys guard an imaginary campus.
    generator = random.Random(f"college {seed}")  # noqa: S311
    merchants: list[Merchant] = []
    terminals: list[TerminalRow] = []
    for number, place in enumerate(_PLACES, start=1):
        merchant = Merchant(f"M{number:014}", place.name, place.category, place.fee_bp)
        merchants.append(merchant)
        zone = place.name.lower().replace(" ", "-") if place.category == "gate" else ""
        for kind in place.kinds:
            terminals.append(TerminalRow(f"T{len(terminals) + 1:07}", merchant.merchant_id, kind, zone, generator.randbytes(16)))
    serials = generator.sample(range(10**12), cardholders)
    cards = [_card(generator, _card_number("623", serial), f"H{number:07}", today) for number, serial in enumerate(serials, start=1)]
    return Campus(merchants, terminals, cards)


def _card(generator: random.Random, card_number: str, holder_id: str, today: datetime.date) -> Card:
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
    return Card(card_number, holder_id, card_class, status, expires, cash, subsidy)


# --- the lunch --------------------------------------------------------------------------------------------------------------------

# Payments a second at minutes after eleven; lessons end at ten to twelve.
_RATES: Final = (
    *((0, 0.5), (10, 0.9), (20, 1.2), (30, 1.8), (40, 3.0), (45, 5.2), (50, 7.4), (52, 10.4), (54, 10.4), (57, 7.6)),
    *((65, 7.0), (70, 6.2), (75, 4.6), (80, 3.6), (90, 2.2), (100, 1.2), (110, 0.8), (120, 0.4)),
)


def _rate_by_second() -> list[float]:
    rates: list[float] = []
    for (minute, rate), (next_minute, next_rate) in pairwise(_RATES):
        seconds = (next_minute - minute) * 60
        rates += [rate + (next_rate - rate) * second / seconds for second in range(seconds)]
    return rates


def lunch(campus: Campus, seed: int) -> list[Payment]:
    """The payments of one lunch in the order of their time: 46 % of a day's, 21,850 for the whole college."""
    # Made to be the same again, not to be unguessable.
    generator = random.Random(f"lunch {seed}")  # noqa: S311
    count = round(PAYMENTS_A_DAY * LUNCH_SHARE * len(campus.cards) / CARDHOLDERS)
    cumulative = list(accumulate(_rate_by_second()))
    times = sorted(second + generator.random() for second in generator.choices(range(LUNCH_SECONDS), cum_weights=cumulative, k=count))
    places = generator.choices(_PLACES, [place.weight for place in _PLACES], k=count)
    conducts = generator.choices([*CONDUCT_SHARES, Conduct.ORDINARY], [*CONDUCT_SHARES.values(), 1 - sum(CONDUCT_SHARES.values())], k=count)
    tills = _Tills(campus, generator)
    people = _People(campus, generator)
    return [
        Payment(at, tills.choose(place, at), people.choose(), _amount(generator, place), conduct)
        for at, place, conduct in zip(times, places, conducts, strict=True)
    ]


def _amount(generator: random.Random, place: _Place) -> int:
    spread = 0.45
    # A lognormal variable with median 1 has the mean exp(spread² / 2), which is 1.107.
    return max(50, round(place.amount_mean / 1.107 * generator.lognormvariate(0, spread) / 10) * 10)


class _Tills:
    """Gives each payment a terminal of its place that is free, or will be first."""

    def __init__(self, campus: Campus, generator: random.Random) -> None:
        self._generator = generator
        self._free_at: dict[str, float] = {}
        names = {merchant.merchant_id: merchant.name for merchant in campus.merchants}
        self._by_place: dict[str, list[str]] = defaultdict(list)
        paying = {place.name: place.kinds[0] for place in _PLACES if place.weight}
        for terminal in campus.terminals:
            name = names[terminal.merchant_id]
            if terminal.kind == paying.get(name):
                self._by_place[name].append(terminal.terminal_id)

    def choose(self, place: _Place, at: float) -> str:
        terminals = self._by_place[place.name]
        free = [terminal for terminal in terminals if self._free_at.get(terminal, 0.0) <= at]
        chosen = self._generator.choice(free) if free else min(terminals, key=lambda terminal: self._free_at[terminal])
        self._free_at[chosen] = max(at, self._free_at.get(chosen, 0.0)) + TAP_SECONDS_MIN
        return chosen


class _People:
    """Deals out cards: everybody eats once before anybody eats twice."""

    def __init__(self, campus: Campus, generator: random.Random) -> None:
        self._generator = generator
        self._numbers = [card.card_number for card in campus.cards]
        self._deck: list[str] = []

    def choose(self) -> str:
        if self._generator.random() < STRANGER_SHARE:
            return _card_number("629", self._generator.randrange(10**12))
        if not self._deck:
            self._deck = self._generator.sample(self._numbers, len(self._numbers))
        return self._deck.pop()
