"""The made-up college: the same from the same seed, whole, and in the proportions of a real one."""

import csv
import datetime
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from switch.campus import CARDHOLDERS, TAP_SECONDS_MIN, Campus, Conduct, Payment, college, luhn_digit, lunch

TODAY = datetime.date(2026, 11, 22)
SEED = 7


@pytest.fixture(scope="module")
def campus() -> Campus:
    return college(SEED, TODAY)


@pytest.fixture(scope="module")
def payments(campus: Campus) -> list[Payment]:
    return lunch(campus, SEED)


def test_the_same_seed_gives_the_same_college_and_lunch(campus: Campus, payments: list[Payment]) -> None:
    again = college(SEED, TODAY)
    assert again == campus
    assert lunch(again, SEED) == payments
    assert college(SEED + 1, TODAY) != campus
    assert lunch(campus, SEED + 1) != payments


def test_its_size(campus: Campus, payments: list[Payment]) -> None:
    assert (len(campus.cards), len(campus.merchants), len(campus.terminals)) == (CARDHOLDERS, 60, 230)
    assert len(payments) == 21_850


def test_a_luhn_digit_is_the_published_one() -> None:
    # ISO/IEC 7812-1, annex B, example.
    assert luhn_digit("7992739871") == "3"


def test_cards_are_well_formed_and_one_a_holder(campus: Campus) -> None:
    numbers = [card.card_number for card in campus.cards]
    assert len(set(numbers)) == len({card.holder_id for card in campus.cards}) == CARDHOLDERS
    assert all(len(number) == 16 and number.startswith("623") and luhn_digit(number[:-1]) == number[-1] for number in numbers)
    assert {card.card_class for card in campus.cards} == {"teacher", "student", "merchant", "family", "temporary"}
    assert {card.status for card in campus.cards} == {"active", "inactive", "lost", "frozen", "cancelled"}
    unusable = sum(card.status != "active" or card.expires < TODAY for card in campus.cards)
    assert 0.005 < unusable / CARDHOLDERS < 0.02
    assert any(card.expires < TODAY for card in campus.cards)
    assert all(card.cash >= 0 and card.subsidy >= 0 for card in campus.cards)
    assert 0.01 < sum(card.cash + card.subsidy < 400 for card in campus.cards) / CARDHOLDERS < 0.05


def test_merchants_and_terminals(campus: Campus) -> None:
    categories = {merchant.merchant_id: merchant.category for merchant in campus.merchants}
    assert len(categories) == 60
    assert set(categories.values()) == {"canteen", "shop", "clinic", "bath", "utility", "library", "gate", "office"}
    assert len({terminal.terminal_id for terminal in campus.terminals}) == 230
    assert len({terminal.key for terminal in campus.terminals}) == 230
    assert all(len(terminal.key) == 16 and terminal.merchant_id in categories for terminal in campus.terminals)
    assert {terminal.kind for terminal in campus.terminals} == {"pos", "kiosk", "counter", "gate", "water", "library", "meter"}


def test_the_files_have_the_headers_and_rows_of_an_import(campus: Campus, tmp_path: Path) -> None:
    merchants, terminals, cards = campus.write(tmp_path)
    assert merchants.read_text().splitlines()[0] == "merchant_id,name,category,fee_bp"
    assert terminals.read_text().splitlines()[0] == "terminal_id,merchant_id,kind,zone,key"
    lines = cards.read_text().splitlines()
    assert lines[0] == "card_number,holder_id,class,status,expires,cash,subsidy"
    (first,) = csv.DictReader(lines[:2])
    card = campus.cards[0]
    assert first == {
        "card_number": card.card_number,
        "holder_id": card.holder_id,
        "class": card.card_class,
        "status": card.status,
        "expires": card.expires.isoformat(),
        "cash": str(card.cash),
        "subsidy": str(card.subsidy),
    }
    assert [len(path.read_text().splitlines()) - 1 for path in (merchants, terminals, cards)] == [60, 230, CARDHOLDERS]


def test_the_rush(payments: list[Payment]) -> None:
    assert [payment.at_seconds for payment in payments] == sorted(payment.at_seconds for payment in payments)
    assert 0 <= payments[0].at_seconds <= payments[-1].at_seconds < 7200
    by_second = Counter(int(payment.at_seconds) for payment in payments)
    seconds = [by_second[second] for second in range(7200)]
    busiest_half_hour = max(sum(seconds[start : start + 1800]) for start in range(0, 5401, 60))
    assert 6.7 < busiest_half_hour / 1800 < 7.3
    assert 18 <= max(seconds) <= 24


def test_where_and_how_much(campus: Campus, payments: list[Payment]) -> None:
    terminals = {terminal.terminal_id: terminal for terminal in campus.terminals}
    categories = {merchant.merchant_id: merchant.category for merchant in campus.merchants}
    by_merchant = Counter(terminals[payment.terminal_id].merchant_id for payment in payments)
    by_category: Counter[str] = Counter()
    for merchant_id, count in by_merchant.items():
        by_category[categories[merchant_id]] += count
    total = len(payments)
    assert by_merchant.most_common(1)[0][1] / total == pytest.approx(1 / 3, abs=0.01)
    assert by_category["canteen"] / total == pytest.approx(0.876 / 0.967, abs=0.01)
    assert by_category["shop"] / total == pytest.approx(0.080 / 0.967, abs=0.01)
    assert by_category["office"] == by_category["gate"] == 0
    assert {terminals[payment.terminal_id].kind for payment in payments} == {"pos", "water", "library"}
    assert sum(payment.amount for payment in payments) / total == pytest.approx(400, abs=20)
    assert all(payment.amount > 0 for payment in payments)


def test_nobody_is_served_faster_than_a_till_can(payments: list[Payment]) -> None:
    times: defaultdict[str, list[float]] = defaultdict(list)
    for payment in payments:
        times[payment.terminal_id].append(payment.at_seconds)
    gaps = [later - earlier for moments in times.values() for earlier, later in pairwise(moments)]
    # Where every till of a place is busy, the next in the queue waits at the one that is free first.
    assert sum(gap < TAP_SECONDS_MIN for gap in gaps) / len(gaps) < 0.02


def test_mishaps_and_strangers_are_few_and_all_there(campus: Campus, payments: list[Payment]) -> None:
    conducts = Counter(payment.conduct for payment in payments)
    assert set(conducts) == set(Conduct)
    assert 0.02 < 1 - conducts[Conduct.ORDINARY] / len(payments) < 0.04
    known = {card.card_number for card in campus.cards}
    assert 5 < sum(payment.card_number not in known for payment in payments) < 60
    assert max(Counter(payment.card_number for payment in payments).values()) == 2


def test_a_smaller_college_eats_less() -> None:
    small = college(SEED, TODAY, cardholders=176)
    assert len(small.cards) == 176
    assert len(lunch(small, SEED)) == 218
