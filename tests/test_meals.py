"""What a college pays at its meals: the same from the same seed, and in the proportions of a real one."""

import datetime
from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from switch.campus import CARDHOLDERS, Campus, college
from switch.meals import BREAKFAST, DAY, DINNER, LOADS, LUNCH, TAP_SECONDS_MIN, Conduct, Meal, Payment, lunch, payments

TODAY = datetime.date(2026, 11, 22)
SEED = 7


@pytest.fixture(scope="module")
def campus() -> Campus:
    return college(SEED, TODAY)


@pytest.fixture(scope="module")
def noon(campus: Campus) -> list[Payment]:
    return lunch(campus, SEED)


@pytest.fixture(scope="module")
def day(campus: Campus) -> list[Payment]:
    return list(payments(campus, SEED, DAY))


def test_the_same_seed_gives_the_same_lunch(campus: Campus, noon: list[Payment]) -> None:
    assert lunch(college(SEED, TODAY), SEED) == noon
    assert lunch(campus, SEED + 1) != noon
    assert len(noon) == 21_850


def test_the_day_is_2_7_payments_each_in_three_meals(day: list[Payment]) -> None:
    assert len(day) == 47_500
    assert len(day) / CARDHOLDERS == pytest.approx(2.7, abs=0.01)
    assert [payment.at_seconds for payment in day] == sorted(payment.at_seconds for payment in day)
    begins = [(meal.begins.hour - BREAKFAST.begins.hour) * 3600 + (meal.begins.minute - BREAKFAST.begins.minute) * 60 for meal in DAY]
    for meal, after, share in zip(DAY, begins, (0.22, 0.46, 0.32), strict=True):
        own = [payment for payment in day if after <= payment.at_seconds < after + meal.seconds]
        assert len(own) / len(day) == pytest.approx(share, abs=0.0001)


@pytest.mark.parametrize(("meal", "hour"), [(BREAKFAST, 7), (LUNCH, 12), (DINNER, 17)])
def test_a_meals_peak_is_at_its_hour(campus: Campus, meal: Meal, hour: int) -> None:
    began = meal.begins.hour * 60 + meal.begins.minute
    by_minute = Counter(began + int(payment.at_seconds) // 60 for payment in payments(campus, SEED, (meal,)))
    busiest = max(range(began, began + meal.seconds // 60 - 20), key=lambda minute: sum(by_minute[minute + step] for step in range(20)))
    # The busiest twenty minutes hold the hour, or end with it.
    assert busiest - 5 <= hour * 60 <= busiest + 25


def test_where_the_day_is_paid(campus: Campus, day: list[Payment]) -> None:
    categories = {merchant.merchant_id: merchant.category for merchant in campus.merchants}
    category_of = {terminal.terminal_id: categories[terminal.merchant_id] for terminal in campus.terminals}
    by_category = Counter(category_of[payment.terminal_id] for payment in day)
    for category, percent in {"canteen": 87.6, "shop": 8.0, "office": 3.3, "utility": 0.6, "clinic": 0.15}.items():
        assert 100 * by_category[category] / len(day) == pytest.approx(percent, abs=0.35 if percent > 1 else 0.12), category
    assert all(payment.load == (category_of[payment.terminal_id] == "office") for payment in day)
    bought = [payment.amount for payment in day if not payment.load]
    assert sum(bought) / len(bought) == pytest.approx(400, abs=15)


def test_a_group_of_colleges_eats_at_home(campus: Campus) -> None:
    group = college(SEED, TODAY, cardholders=2 * CARDHOLDERS)
    first = {terminal.terminal_id for terminal in campus.terminals}
    home = {card.card_number for card in group.cards[:CARDHOLDERS]}
    known = {card.card_number for card in group.cards}
    eaten = [payment for payment in payments(group, SEED, (LUNCH,)) if payment.card_number in known]
    assert len(eaten) == pytest.approx(43_700, abs=100)
    assert all((payment.terminal_id in first) == (payment.card_number in home) for payment in eaten)


def test_the_rush(noon: list[Payment]) -> None:
    assert [payment.at_seconds for payment in noon] == sorted(payment.at_seconds for payment in noon)
    assert 0 <= noon[0].at_seconds <= noon[-1].at_seconds < 4800
    by_second = Counter(int(payment.at_seconds) for payment in noon)
    seconds = [by_second[second] for second in range(4800)]
    busiest_half_hour = max(sum(seconds[start : start + 1800]) for start in range(0, 3001, 60))
    assert 6.7 < busiest_half_hour / 1800 < 7.3
    assert 18 <= max(seconds) <= 24


def test_where_and_how_much(campus: Campus, noon: list[Payment]) -> None:
    terminals = {terminal.terminal_id: terminal for terminal in campus.terminals}
    categories = {merchant.merchant_id: merchant.category for merchant in campus.merchants}
    bought = [payment for payment in noon if not payment.load]
    by_merchant = Counter(terminals[payment.terminal_id].merchant_id for payment in bought)
    by_category: Counter[str] = Counter()
    for merchant_id, count in by_merchant.items():
        by_category[categories[merchant_id]] += count
    total = len(bought)
    assert total / len(noon) == pytest.approx(0.967, abs=0.003)
    assert by_merchant.most_common(1)[0][1] / total == pytest.approx(1 / 3, abs=0.01)
    assert by_category["canteen"] / total == pytest.approx(0.876 / 0.967, abs=0.01)
    assert by_category["shop"] / total == pytest.approx(0.080 / 0.967, abs=0.01)
    assert by_category["office"] == by_category["gate"] == 0
    assert {terminals[payment.terminal_id].kind for payment in bought} == {"pos", "water", "library"}
    assert {terminals[payment.terminal_id].kind for payment in noon if payment.load} == {"counter"}
    assert {payment.amount for payment in noon if payment.load} == set(LOADS)
    assert sum(payment.amount for payment in bought) / total == pytest.approx(400, abs=20)
    assert all(payment.amount > 0 for payment in noon)


def test_nobody_is_served_faster_than_a_till_can(noon: list[Payment]) -> None:
    times: defaultdict[str, list[float]] = defaultdict(list)
    for payment in noon:
        times[payment.terminal_id].append(payment.at_seconds)
    gaps = [later - earlier for moments in times.values() for earlier, later in pairwise(moments)]
    # Where every till of a place is busy, the next in the queue waits at the one that is free first.
    assert sum(gap < TAP_SECONDS_MIN for gap in gaps) / len(gaps) < 0.02


def test_mishaps_and_strangers_are_few_and_all_there(campus: Campus, noon: list[Payment]) -> None:
    conducts = Counter(payment.conduct for payment in noon)
    assert set(conducts) == set(Conduct)
    assert 0.02 < 1 - conducts[Conduct.ORDINARY] / len(noon) < 0.04
    known = {card.card_number for card in campus.cards}
    assert 5 < sum(payment.card_number not in known for payment in noon) < 60
    assert max(Counter(payment.card_number for payment in noon).values()) == 2


def test_a_smaller_college_eats_less() -> None:
    small = college(SEED, TODAY, cardholders=176)
    assert len(small.cards) == 176
    assert len(lunch(small, SEED)) == 218
