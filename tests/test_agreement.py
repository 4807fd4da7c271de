"""Terminals, ledger and PostgreSQL side by side: equal sums leave nothing to say, and each fen that differs is found."""

import dataclasses
import datetime
import subprocess
from collections.abc import Callable

import pytest

from switch import agreement
from switch.agreement import Books, BooksUnread, differences, read_books, sums, verdict_of_command
from switch.campus import Campus, Card, Merchant
from switch.settlement import Account
from tests.switch_process import MERCHANTS, Switch

CARD = Card("6230000000000017", "H0000001", "student", "active", datetime.date(2030, 7, 31), 1000, 500)
CAMPUS = Campus([Merchant("M1", "First Canteen", "canteen", 0)], [], [CARD])


def books(
    merchant: int = 850, cash: int = 650, subsidy: int = 0, settled: int = 850, house: int = -1500, desk: int = 0, loaded: int = 0
) -> Books:
    accounts = [
        Account(0, "house", "cash_desk", desk, 0),
        Account(4, "house", "suspense", house, 0),
        Account(8, "merchant", "M1", merchant, 0),
        Account(9, "cash", "H0000001", cash, 0),
        Account(10, "subsidy", "H0000001", subsidy, 0),
    ]
    return Books(7, accounts, {"M1": settled}, {"6230000000000017": settled}, {"6230000000000017": loaded} if loaded else {})


@dataclasses.dataclass
class Count:
    """What terminals counted."""

    by_merchant: dict[str, int]
    by_card: dict[str, int]
    loaded: int = 0


def found(fen: int, others: Books, campus: Campus = CAMPUS) -> list[str]:
    """What is said where terminals counted so much at the one merchant, by the one card."""
    return differences(campus, Count({"M1": fen}, {CARD.card_number: fen}), others)


def test_equal_sums_leave_nothing_to_say() -> None:
    assert found(850, books()) == []


@pytest.mark.parametrize(
    ("fen", "others", "findings"),
    [
        (849, books(), 2),
        (850, books(settled=851), 2),
        (850, books(merchant=851, house=-1501), 1),
        (850, books(cash=649, house=-1499), 1),
        (850, books(house=-1501), 1),
        (0, books(), 2),
        (850, books(merchant=0, cash=1000, subsidy=500, settled=0), 2),
    ],
)
def test_each_difference_of_one_fen_is_found(fen: int, others: Books, findings: int) -> None:
    assert len(found(fen, others)) == findings


def test_purses_are_the_holders_whichever_card_paid() -> None:
    replaced = Campus(CAMPUS.merchants, [], [CARD, dataclasses.replace(CARD, card_number="6230000000000025", cash=0, subsidy=0)])
    by_both = {"6230000000000017": 500, "6230000000000025": 350}
    assert differences(replaced, Count({"M1": 850}, by_both), books()) == []
    (finding,) = differences(replaced, Count({"M1": 850}, by_both | {"6230000000000025": 351}), books())
    assert "6230000000000017" in finding


LOADED = books(cash=10_650, desk=-10_000, loaded=10_000)
"""One load beside the purchase."""


def test_what_was_loaded_is_no_spending_and_nobodys_takings() -> None:
    counted = Count({"M1": 850}, {CARD.card_number: 850 - 10_000}, 10_000)
    assert differences(CAMPUS, counted, LOADED) == []
    assert sums(CAMPUS, counted, LOADED) == [(name, 850, 850, 10_000) for name in ("terminals", "ledger", "PostgreSQL")]


@pytest.mark.parametrize(
    ("counted", "others", "parties"),
    [
        (Count({"M1": 850}, {CARD.card_number: 850}), LOADED, {"Card", "Cash"}),
        (Count({"M1": 850}, {CARD.card_number: -9_150}, 10_001), LOADED, {"Cash"}),
        (Count({"M1": 850}, {CARD.card_number: -9_150}, 10_000), dataclasses.replace(LOADED, loaded_by_card={}), {"Card", "Cash"}),
        (Count({"M1": 850}, {CARD.card_number: -9_150}, 10_000), books(cash=10_650, house=-11_500, loaded=10_000), {"Cash"}),
    ],
    ids=["the terminals forgot it", "a fen", "PostgreSQL has it not", "the ledger took it from elsewhere"],
)
def test_a_load_that_is_not_everywhere_is_found(counted: Count, others: Books, parties: set[str]) -> None:
    assert {finding.split()[0] for finding in differences(CAMPUS, counted, others)} == parties


def test_a_database_without_tables_is_one_that_is_behind(
    make_switch: Callable[..., Switch], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short exercise is over before the follower has come to make them."""
    switch = make_switch(database=database_url)
    file = switch.folder / "merchants.csv"
    file.write_text(MERCHANTS)
    assert switch.command("import", "--config", switch.file, file).returncode == 0
    monkeypatch.setattr(agreement, "SETTLE_SECONDS", 0.0)
    with pytest.raises(BooksUnread, match="still 5 records behind"):
        read_books(switch.folder / "journal", database_url)
    switch.start()
    monkeypatch.undo()
    assert read_books(switch.folder / "journal", database_url).position == 5


def test_a_command_is_believed_only_with_its_word_and_its_code() -> None:
    def verdict(code: int, said: bytes) -> str:
        return verdict_of_command("`switch verify`", subprocess.CompletedProcess([], code, said, b""), "the journal is not sound")

    assert verdict(0, b'{"ok": true}') == ""
    for code, said in ((1, b'{"ok": true}'), (0, b'{"ok": false}'), (0, b"{}"), (0, b"")):
        assert "the journal is not sound" in verdict(code, said)
