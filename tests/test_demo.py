"""The demonstration: it proves equal sums, and it is not satisfied with unequal ones."""

import datetime
import signal
from collections import Counter
from pathlib import Path

import pytest
import trio

from switch import demo, demo_report
from switch.campus import Campus, Card, Merchant
from switch.demo import DemoOptions, run_demo
from switch.demo_report import Books, Tally, verdicts
from switch.meals import Conduct
from switch.settlement import Account

TODAY = datetime.date(2026, 11, 22)
SMALL = {"cardholders": 176, "speed": 3600.0, "seed": 5}


def card(status: str = "active", expires: datetime.date = TODAY) -> Card:
    return Card("6230000000000017", "H0000001", "student", status, expires, 1000, 500)


CAMPUS = Campus([Merchant("M1", "First Canteen", "canteen", 0)], [], [card()])


def books(merchant: int = 850, cash: int = 650, subsidy: int = 0, settled: int = 850, house: int = -1500) -> Books:
    accounts = [
        Account(0, "house", "cash_desk", house, 0),
        Account(8, "merchant", "M1", merchant, 0),
        Account(9, "cash", "H0000001", cash, 0),
        Account(10, "subsidy", "H0000001", subsidy, 0),
    ]
    return Books(7, accounts, {"M1": settled}, {"6230000000000017": settled})


def tally(fen: int = 850) -> Tally:
    return Tally(by_merchant=Counter({"M1": fen}), by_card=Counter({"6230000000000017": fen}))


def test_equal_sums_leave_nothing_to_say() -> None:
    assert verdicts(CAMPUS, tally(), books()) == []


@pytest.mark.parametrize(
    ("mine", "others", "findings"),
    [
        (tally(849), books(), 2),
        (tally(), books(settled=851), 2),
        (tally(), books(merchant=851, house=-1501), 1),
        (tally(), books(cash=649, house=-1499), 1),
        (tally(), books(house=-1501), 1),
        (Tally(), books(), 2),
        (tally(), books(merchant=0, cash=1000, subsidy=500, settled=0), 2),
    ],
)
def test_each_difference_of_one_fen_is_found(mine: Tally, others: Books, findings: int) -> None:
    assert len(verdicts(CAMPUS, mine, others)) == findings


@pytest.mark.parametrize(
    ("asked", "conduct", "codes"),
    [
        (card(), Conduct.ORDINARY, {"00", "51"}),
        (card(expires=TODAY - datetime.timedelta(days=1)), Conduct.DOUBLED, {"54"}),
        (card("lost"), Conduct.REPEATED, {"41"}),
        (card("frozen"), Conduct.REVERSED, {"62"}),
        (card("inactive"), Conduct.ORDINARY, {"78"}),
        (card("cancelled"), Conduct.ORDINARY, {"78"}),
        (None, Conduct.ORDINARY, {"14"}),
        (card("lost"), Conduct.OVERTAKEN, {"12"}),
    ],
)
def test_what_a_purchase_may_be_answered(asked: Card | None, conduct: Conduct, codes: set[str]) -> None:
    assert demo._expected_codes(asked, conduct, TODAY) == codes


async def test_a_small_lunch_from_empty_folder_to_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = await run_demo(DemoOptions(directory=tmp_path / "demo", **SMALL))  # type: ignore[arg-type]
    shown = capsys.readouterr()
    assert exit_code == 0, shown
    assert "agree to the fen" in shown.out
    assert not (tmp_path / "demo").exists()


async def test_a_terminal_that_counted_wrong_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger_sums = demo_report.ledger_sums

    def one_fen_more(campus: Campus, accounts: list[Account]) -> tuple[dict[str, int], dict[str, int]]:
        takings, spent = ledger_sums(campus, accounts)
        return takings | {"M00000000000001": takings["M00000000000001"] + 1}, spent

    monkeypatch.setattr(demo_report, "ledger_sums", one_fen_more)
    assert await run_demo(DemoOptions(directory=tmp_path / "demo", **SMALL)) == 1  # type: ignore[arg-type]
    assert "NOT EQUAL" in capsys.readouterr().out


async def test_an_occupied_folder_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").touch()
    assert await run_demo(DemoOptions(directory=tmp_path)) == 1
    assert "not empty" in capsys.readouterr().err
    assert (tmp_path / "mine").exists()


async def test_interrupted_it_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupt(_: object) -> None:
        signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()

    # In the middle of the lunch: the switch and its database are up, the terminals are connected.
    monkeypatch.setattr(demo._Replay, "_lunch", interrupt)
    assert await run_demo(DemoOptions(directory=tmp_path / "demo", **SMALL)) == 130  # type: ignore[arg-type]
    assert not (tmp_path / "demo").exists()
