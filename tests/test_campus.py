"""The made-up college: the same from the same seed, whole, and of a real one's size."""

import csv
import datetime
from pathlib import Path

import pytest

from switch.campus import CARDHOLDERS, Campus, CampusUnread, college, luhn_digit

TODAY = datetime.date(2026, 11, 22)
SEED = 7


@pytest.fixture(scope="module")
def campus() -> Campus:
    return college(SEED, TODAY)


def test_the_same_seed_gives_the_same_college(campus: Campus) -> None:
    assert college(SEED, TODAY) == campus
    assert college(SEED + 1, TODAY) != campus


def test_its_size(campus: Campus) -> None:
    assert (len(campus.cards), len(campus.merchants), len(campus.terminals)) == (CARDHOLDERS, 60, 230)


def test_more_people_than_one_college_has_are_a_group(campus: Campus) -> None:
    group = college(SEED, TODAY, cardholders=3 * CARDHOLDERS)
    assert (len(group.merchants), len(group.terminals)) == (180, 690)
    assert len({terminal.terminal_id for terminal in group.terminals}) == 690
    assert len({merchant.name for merchant in group.merchants}) == 180
    assert [terminal.terminal_id for terminal in group.terminals[:230]] == [terminal.terminal_id for terminal in campus.terminals]


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


def test_what_was_written_is_read_back(campus: Campus, tmp_path: Path) -> None:
    campus.write(tmp_path)
    assert Campus.read(tmp_path) == campus


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("cards.csv", None, "cannot be read"),
        ("merchants.csv", "terminal_id\n", "its first line is not merchant_id,name,category,fee_bp"),
        ("merchants.csv", "merchant_id,name,category,fee_bp\nM1,Shop\n", "line 2: 2 fields where the header has 4"),
        ("merchants.csv", "merchant_id,name,category,fee_bp\nM1,Shop,shop,x\n", "cannot be read: invalid literal"),
    ],
)
def test_files_that_are_no_campus_are_refused(tmp_path: Path, name: str, content: str | None, complaint: str) -> None:
    college(SEED, TODAY, cardholders=3).write(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(CampusUnread, match=complaint):
        Campus.read(tmp_path)
