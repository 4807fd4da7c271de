"""The demonstration: it proves equal sums, and it is not satisfied with unequal ones."""

import datetime
import re
import signal
from pathlib import Path

import pytest
import trio

from switch import agreement, demo
from switch.campus import Campus, Card
from switch.demo import DemoOptions, run_demo
from switch.meals import Conduct, Payment
from switch.settlement import Account

TODAY = datetime.date(2026, 11, 22)
SMALL = {"cardholders": 176, "speed": 3600.0, "seed": 5}


def card(status: str = "active", expires: datetime.date = TODAY) -> Card:
    return Card("6230000000000017", "H0000001", "student", status, expires, 1000, 500)


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
    purchase = Payment(0.0, "T1", "6230000000000017", 850, conduct)
    assert demo._expected_codes(asked, purchase, TODAY) == codes
    load = Payment(0.0, "T1", "6230000000000017", 850, conduct, load=True)
    assert demo._expected_codes(asked, load, TODAY) == codes - {"51"}


async def test_a_small_lunch_from_empty_folder_to_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = await run_demo(DemoOptions(directory=tmp_path / "demo", **SMALL))  # type: ignore[arg-type]
    shown = capsys.readouterr()
    assert exit_code == 0, shown
    assert "agree to the fen" in shown.out
    loaded = re.search(r"loaded at the finance office +(\d+)", shown.out)
    assert loaded is not None
    assert int(loaded[1]) > 0
    assert not (tmp_path / "demo").exists()


async def test_a_terminal_that_counted_wrong_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger_sums = agreement.ledger_sums

    def one_fen_more(campus: Campus, accounts: list[Account]) -> tuple[dict[str, int], dict[str, int]]:
        takings, spent = ledger_sums(campus, accounts)
        return takings | {"M00000000000001": takings["M00000000000001"] + 1}, spent

    monkeypatch.setattr(agreement, "ledger_sums", one_fen_more)
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
