"""Replays: the file and what is wrong with one; the generator's figures are those of a real college, and the same from the same seed."""

import datetime
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from loadtests import generate
from switch.campus import CARDHOLDERS, Campus, Merchant
from switch.meals import Conduct, Payment
from switch.replay import CSV_HEADER, REPLAY_NAME, Entry, Operation, ReplayUnread, read_entries, write_entries

TODAY = datetime.date(2026, 11, 22)
CARD = "6230000000000017"

# --- the file ---


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    entries = [
        Entry(0, "T1", CARD, Operation.PURCHASE, 850),
        Entry(0, "T2", "0012", Operation.BALANCE, 0),
        Entry(1500, "T1", CARD, Operation.REPEAT, 0),
        Entry(1500, "T1", CARD, Operation.REVERSAL, 0),
        Entry(1600, "T3", "0012", Operation.LOAD, 10_000),
    ]
    assert write_entries(tmp_path / REPLAY_NAME, iter(entries)) == 5
    assert list(read_entries(tmp_path / REPLAY_NAME)) == entries
    assert (tmp_path / REPLAY_NAME).read_text().splitlines()[:2] == [CSV_HEADER, f"0,T1,{CARD},purchase,850"]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ("x,T1,17,purchase,1", "row 2: offset_ms 'x' is not made of 1 to 12 digits"),
        ("5,T1,17,purchase,-1", "row 2: amount '-1' is not made of 1 to 12 digits"),
        ("5,T1,１７,purchase,1", "row 2: card_number '１７' is not made of 1 to 19 digits"),
        ("5,T1,,balance,1", "row 2: card_number '' is not made of 1 to 19 digits"),
        ("5,T1,12345678901234567890,balance,1", "row 2: card_number '12345678901234567890' is not made of 1 to 19 digits"),
        ("5,T1,17,purchase,1000000000000", "row 2: amount '1000000000000' is not made of 1 to 12 digits"),
        (f"{'9' * 5000},T1,17,purchase,1", f"row 2: offset_ms '{'9' * 40}' is not made of 1 to 12 digits"),
        ("5,T1,17,refund,1", "row 2: operation 'refund' is not one of purchase, balance, reversal, repeat, load"),
        ("5,T1,17,purchase,1\n4,T1,17,purchase,1", "row 3: offset_ms 4 comes after 5"),
        ("5,T1,17,purchase", "line 2: 4 fields where the header has 5"),
        ("5,T1,17,reversal,0", "row 2: a reversal with card 17, but the last purchase at T1 was with none"),
        ("5,T1,17,purchase,1\n6,T1,18,repeat,0", "row 3: a repeat with card 18, but the last purchase at T1 was with 17"),
        ("5,T1,17,purchase,1\n6,T2,17,reversal,0", "row 3: a reversal with card 17, but the last purchase at T2 was with none"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, rows: str, complaint: str) -> None:
    path = tmp_path / REPLAY_NAME
    path.write_text(f"{CSV_HEADER}\n{rows}\n", encoding="utf-8")
    with pytest.raises(ReplayUnread) as refused:
        list(read_entries(path))
    assert str(refused.value).startswith(f"{path} {complaint}")


def test_a_terminal_that_its_campus_has_not_is_named_where_the_campus_is_known(tmp_path: Path) -> None:
    write_entries(tmp_path / REPLAY_NAME, [Entry(0, "T1", CARD, Operation.PURCHASE, 1), Entry(0, "T9", CARD, Operation.PURCHASE, 1)])
    with pytest.raises(ReplayUnread, match="row 3: terminal T9 is not in its campus"):
        list(read_entries(tmp_path / REPLAY_NAME, {"T1"}))


@pytest.mark.parametrize(
    ("content", "complaint"), [("", "its first line is not"), ("a,b\n", "its first line is not"), (None, "cannot be read")]
)
def test_what_is_no_replay_is_refused(tmp_path: Path, content: str | None, complaint: str) -> None:
    if content is not None:
        (tmp_path / REPLAY_NAME).write_text(content)
    with pytest.raises(ReplayUnread, match=complaint):
        list(read_entries(tmp_path / REPLAY_NAME))


# --- the generator ---


@pytest.fixture(scope="module")
def lunch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lunch")
    generate.generate(folder, CARDHOLDERS, 7, "lunch", TODAY)
    return folder


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("day")
    generate.generate(folder, CARDHOLDERS, 7, "day", TODAY)
    return folder


def first_asked(folder: Path) -> Iterator[Entry]:
    """What people came for: payments, without what their terminals asked again."""
    return (entry for entry in read_entries(folder / REPLAY_NAME) if entry.operation in (Operation.PURCHASE, Operation.LOAD))


def merchants_of(folder: Path) -> dict[str, Merchant]:
    """By terminal."""
    campus = Campus.read(folder)
    merchants = {merchant.merchant_id: merchant for merchant in campus.merchants}
    return {terminal.terminal_id: merchants[terminal.merchant_id] for terminal in campus.terminals}


def test_the_same_seed_gives_the_same_files(lunch: Path, tmp_path: Path) -> None:
    for name, seed in (("again", "7"), ("other", "8")):
        assert generate.main([str(tmp_path / name), "--seed", seed, "--today", str(TODAY)]) == 0
    files = sorted(path.name for path in lunch.iterdir())
    assert files == ["cards.csv", "merchants.csv", "replay.csv", "terminals.csv"]
    assert all((tmp_path / "again" / name).read_bytes() == (lunch / name).read_bytes() for name in files)
    assert (tmp_path / "other" / REPLAY_NAME).read_bytes() != (lunch / REPLAY_NAME).read_bytes()


def test_lunch_has_its_rush(lunch: Path) -> None:
    by_second = Counter(entry.offset_ms // 1000 for entry in first_asked(lunch))
    assert by_second.total() == 21_850
    assert max(by_second) < 4800
    seconds = [by_second[second] for second in range(4800)]
    assert max(sum(seconds[start : start + 1800]) for start in range(0, 3001, 60)) / 1800 == pytest.approx(7, abs=0.3)
    assert 18 <= max(seconds) <= 24


def test_a_third_goes_to_the_busiest_canteen_for_about_four_yuan(lunch: Path) -> None:
    merchant_of = merchants_of(lunch)
    bought = [entry for entry in first_asked(lunch) if entry.operation is Operation.PURCHASE]
    by_name = Counter(merchant_of[entry.terminal_id].name for entry in bought)
    name, most = by_name.most_common(1)[0]
    assert name == "First Canteen"
    assert most / len(bought) == pytest.approx(1 / 3, abs=0.01)
    assert statistics.mean(entry.amount for entry in bought) == pytest.approx(400, abs=20)


def test_a_day_is_2_7_payments_each_by_meal_and_place(day: Path) -> None:
    merchant_of = merchants_of(day)
    asked = list(first_asked(day))
    assert len(asked) / CARDHOLDERS == pytest.approx(2.7, abs=0.01)
    # The day begins at ten past six; meals are parted at ten and at three.
    by_meal = Counter((entry.offset_ms / 3_600_000 > 3.9) + (entry.offset_ms / 3_600_000 > 8.9) for entry in asked)
    assert [100 * by_meal[meal] / len(asked) for meal in range(3)] == pytest.approx([22, 46, 32], abs=0.01)
    by_hour = Counter(6 + (entry.offset_ms // 60_000 + 10) // 60 for entry in asked)
    assert by_hour.most_common(1)[0][0] in (11, 12)
    assert max(range(6, 10), key=lambda hour: by_hour[hour]) in (6, 7)
    assert max(range(15, 20), key=lambda hour: by_hour[hour]) in (16, 17)
    by_category = Counter(merchant_of[entry.terminal_id].category for entry in asked)
    shares = {category: 100 * count / len(asked) for category, count in by_category.items()}
    assert shares["canteen"] == pytest.approx(87.6, abs=0.4)
    assert shares["shop"] == pytest.approx(8.0, abs=0.4)
    assert shares["office"] == pytest.approx(3.3, abs=0.3)
    assert shares["utility"] == pytest.approx(0.6, abs=0.15)
    assert shares["clinic"] == pytest.approx(0.15, abs=0.07)
    loads = [entry for entry in asked if merchant_of[entry.terminal_id].category == "office"]
    assert {entry.operation for entry in loads} == {Operation.LOAD}
    assert Counter(entry.operation for entry in asked)[Operation.LOAD] == len(loads)
    assert statistics.mean(entry.amount for entry in loads) == pytest.approx(19_375, rel=0.05)
    kinds = {terminal.terminal_id: terminal.kind for terminal in Campus.read(day).terminals}
    assert {kinds[entry.terminal_id] for entry in loads} == {"counter"}


def test_what_terminals_ask_again_comes_before_their_next_customer(day: Path) -> None:
    entries = list(read_entries(day / REPLAY_NAME))
    again = Counter(entry.operation for entry in entries)
    assert again[Operation.REPEAT] / len(entries) == pytest.approx(0.018, abs=0.003)
    assert again[Operation.REVERSAL] / len(entries) == pytest.approx(0.007, abs=0.002)
    by_terminal: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_terminal[entry.terminal_id].append(entry)
    for own in by_terminal.values():
        for before, entry in pairwise(own):
            if entry.operation in (Operation.REPEAT, Operation.REVERSAL):
                assert before.operation is Operation.PURCHASE
                assert entry.offset_ms - before.offset_ms <= generate.SECOND_THOUGHT_MS
    assert [entry.offset_ms for entry in entries] == sorted(entry.offset_ms for entry in entries)


def test_a_hurried_customer_does_not_come_between() -> None:
    schedule = [
        Payment(1.0, "T1", "17", 100, Conduct.REVERSED),
        Payment(1.5, "T1", "18", 100, Conduct.REPEATED),
        Payment(9.0, "T2", "19", 5_000, Conduct.ORDINARY, load=True),
        Payment(9.5, "T2", "20", 50, Conduct.OVERTAKEN),
    ]
    assert list(generate.entries(schedule)) == [
        Entry(1000, "T1", "17", Operation.PURCHASE, 100),
        Entry(1500, "T1", "17", Operation.REVERSAL, 0),
        Entry(1500, "T1", "18", Operation.PURCHASE, 100),
        Entry(2500, "T1", "18", Operation.REPEAT, 0),
        Entry(9000, "T2", "19", Operation.LOAD, 5_000),
        Entry(9500, "T2", "20", Operation.PURCHASE, 50),
    ]


@pytest.mark.parametrize("students", [1, 176, 2 * CARDHOLDERS])
def test_any_number_of_students(students: int, tmp_path: Path) -> None:
    assert generate.main([str(tmp_path), "--students", str(students), "--today", str(TODAY)]) == 0
    assert len(Campus.read(tmp_path).cards) == students
    assert sum(1 for _ in first_asked(tmp_path)) == pytest.approx(21_850 * students / CARDHOLDERS, abs=1)


def test_what_the_generator_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").touch()
    for arguments, complaint in (
        ([str(tmp_path)], "is not empty"),
        ([str(tmp_path / "mine")], "mine: File exists"),
        ([str(tmp_path / "new"), "--students", "0"], "has nobody"),
    ):
        assert generate.main(arguments) == 1
        assert complaint in capsys.readouterr().err
    for day in ("2026-13-01", "9999-12-31"):
        with pytest.raises(SystemExit):
            generate.main([str(tmp_path / "new"), "--today", day])
        assert f"'{day}' is no day of 2000 to 2099; write it as YYYY-MM-DD" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
