"""What a college (`switch.campus`) pays at its meals, as a schedule made up from a seed: breakfast, lunch, dinner, a whole day.

Always true here: equal arguments give an equal schedule, byte for byte, on every machine. Every payment names a terminal whose kind may
take it, and payments come in the order of their time.

The figures are those of a college that was measured: 2.7 payments a day each, 22 % of them at breakfast, 46 % at lunch and 32 % at
dinner, with their peaks at 7, 12 and 17 o'clock; about 4 yuan each, a third in the busiest canteen. At lunch the busiest half hour
averages 7 a second and its peak second sees about 20, for 17,600 people. Loads at the finance office's counters are 3.3 % of the day,
of 50 to 500 yuan.
"""

import datetime
import enum
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final

from switch.campus import CARDHOLDERS, PLACES, Campus, Place, card_number, colleges_of

__all__ = ["BREAKFAST", "DAY", "DINNER", "LOADS", "LUNCH", "TAP_SECONDS_MIN", "Conduct", "Meal", "Payment", "lunch", "payments"]

PAYMENTS_A_DAY: Final = 47_500
"""Of one college."""

TAP_SECONDS_MIN: Final = 3.0
"""Between two cards at one terminal: nobody serves faster."""


@dataclass(frozen=True, slots=True)
class Meal:
    """One of the three. `share` is its part of the day's payments."""

    name: str
    begins: datetime.time
    share: float
    rates: Sequence[tuple[int, float]]
    """How busy it is at so many minutes from its beginning, relative to each other; straight lines lead from one to the next."""

    @property
    def seconds(self) -> int:
        """How long it lasts."""
        return self.rates[-1][0] * 60


BREAKFAST: Final = Meal(
    "breakfast",
    datetime.time(6, 10),
    0.22,
    ((0, 0.4), (15, 0.9), (30, 2.0), (42, 3.8), (50, 4.6), (60, 3.8), (75, 2.6), (95, 1.8), (115, 0.9), (140, 0.2)),
)
LUNCH: Final = Meal(
    "lunch",
    datetime.time(11, 20),
    0.46,
    # Payments a second of 17,600 people; lessons end at ten to twelve.
    (
        *((0, 1.8), (10, 2.4), (20, 3.6), (25, 5.2), (30, 7.4), (32, 10.1), (34, 10.1), (37, 7.4)),
        *((45, 6.8), (50, 6.0), (55, 4.9), (60, 4.1), (70, 2.8), (80, 1.2)),
    ),
)
DINNER: Final = Meal(
    "dinner",
    datetime.time(16, 10),
    0.32,
    ((0, 0.4), (20, 1.4), (35, 3.2), (45, 5.0), (52, 5.6), (65, 5.0), (80, 3.6), (100, 2.2), (120, 1.2), (140, 0.6), (160, 0.2)),
)
DAY: Final[Sequence[Meal]] = (BREAKFAST, LUNCH, DINNER)


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

LOADS: Final = (5_000, 10_000, 10_000, 10_000, 20_000, 20_000, 30_000, 50_000)
"""What is handed in at a counter, in fen: banknotes, 193.75 yuan on average."""

STRANGER_SHARE: Final = 0.001
"""Payments with a card that the campus does not know."""


@dataclass(frozen=True, slots=True)
class Payment:
    """One person taps. `at_seconds` counts from the beginning of the first meal, `amount` is in fen."""

    at_seconds: float
    terminal_id: str
    card_number: str
    amount: int
    conduct: Conduct
    load: bool = False
    """At the finance office: money in, not out."""


# --- the schedule -----------------------------------------------------------------------------------------------------------------


def lunch(campus: Campus, seed: int) -> list[Payment]:
    """The payments of one lunch: 46 % of a day's, 21,850 for one college."""
    return list(payments(campus, seed, (LUNCH,)))


def payments(campus: Campus, seed: int, meals: Sequence[Meal]) -> Iterator[Payment]:
    """The payments of these meals of one day. Memory: that of the times of one meal."""
    first = meals[0].begins
    for meal in meals:
        # Made to be the same again, not to be unguessable.
        generator = random.Random(f"{meal.name} {seed}")  # noqa: S311
        after = (meal.begins.hour - first.hour) * 3600 + (meal.begins.minute - first.minute) * 60
        yield from _meal(campus, generator, meal, after)


def _meal(campus: Campus, generator: random.Random, meal: Meal, after: int) -> Iterator[Payment]:
    count = round(PAYMENTS_A_DAY * meal.share * len(campus.cards) / CARDHOLDERS)
    cumulative = list(accumulate(_rate_by_second(meal)))
    seconds = generator.choices(range(meal.seconds), cum_weights=cumulative, k=count)
    times = sorted(after + second + generator.random() for second in seconds)
    colleges = colleges_of(len(campus.cards))
    places = [index for index, place in enumerate(PLACES) if place.weight]
    shares = list(accumulate(PLACES[index].weight for index in places))
    conducts = [*CONDUCT_SHARES, Conduct.ORDINARY]
    conduct_shares = list(accumulate([*CONDUCT_SHARES.values(), 1 - sum(CONDUCT_SHARES.values())]))
    tills = _Tills(campus, generator)
    people = _People(campus, generator, colleges)
    for at in times:
        at_college = generator.randrange(colleges)
        (index,) = generator.choices(places, cum_weights=shares)
        place = PLACES[index]
        terminal = tills.choose(at_college * len(PLACES) + index, at)
        card = people.choose(at_college)
        if place.category == "office":
            yield Payment(at, terminal, card, generator.choice(LOADS), Conduct.ORDINARY, load=True)
        else:
            (conduct,) = generator.choices(conducts, cum_weights=conduct_shares)
            yield Payment(at, terminal, card, _amount(generator, place), conduct)


def _rate_by_second(meal: Meal) -> list[float]:
    rates: list[float] = []
    for (minute, rate), (next_minute, next_rate) in pairwise(meal.rates):
        seconds = (next_minute - minute) * 60
        rates += [rate + (next_rate - rate) * second / seconds for second in range(seconds)]
    return rates


def _amount(generator: random.Random, place: Place) -> int:
    spread = 0.45
    # A lognormal variable with median 1 has the mean exp(spread² / 2), which is 1.107.
    return max(50, round(place.amount_mean / 1.107 * generator.lognormvariate(0, spread) / 10) * 10)


class _Tills:
    """Gives each payment a terminal of its merchant that is free, or will be first."""

    def __init__(self, campus: Campus, generator: random.Random) -> None:
        self._generator = generator
        self._free_at: dict[str, float] = {}
        merchants = {merchant.merchant_id: index for index, merchant in enumerate(campus.merchants)}
        self._by_merchant: dict[int, list[str]] = defaultdict(list)
        for terminal in campus.terminals:
            index = merchants[terminal.merchant_id]
            if terminal.kind == PLACES[index % len(PLACES)].kinds[0]:
                self._by_merchant[index].append(terminal.terminal_id)

    def choose(self, merchant: int, at: float) -> str:
        terminals = self._by_merchant[merchant]
        free = [terminal for terminal in terminals if self._free_at.get(terminal, 0.0) <= at]
        chosen = self._generator.choice(free) if free else min(terminals, key=lambda terminal: self._free_at[terminal])
        self._free_at[chosen] = max(at, self._free_at.get(chosen, 0.0)) + TAP_SECONDS_MIN
        return chosen


class _People:
    """Deals out a college's cards: everybody eats once before anybody eats twice."""

    def __init__(self, campus: Campus, generator: random.Random, colleges: int) -> None:
        self._generator = generator
        self._cards = campus.cards
        self._bounds = [len(campus.cards) * number // colleges for number in range(colleges + 1)]
        self._decks: list[list[int]] = [[] for _ in range(colleges)]

    def choose(self, at_college: int) -> str:
        if self._generator.random() < STRANGER_SHARE:
            return card_number("629", self._generator.randrange(10**12))
        deck = self._decks[at_college]
        if not deck:
            own = range(*self._bounds[at_college : at_college + 2])
            deck += self._generator.sample(own, len(own))
        return self._cards[deck.pop()].card_number
