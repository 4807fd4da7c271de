"""Load tests run, tiny, for real: Locust and the native driver against real switches; what they count, and that wrong answers are found."""

import contextlib
import csv
import datetime
import fcntl
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loadtests import answers, report
from loadtests.answers import Answer, count, read_answers
from loadtests.generate import generate
from loadtests.load import Options, load
from loadtests.report import Result, percentile
from loadtests.till import STANS_A_SECOND, Expectations, Till, WrongAnswer
from switch import agreement
from switch.agreement import Books
from switch.campus import Campus, CampusUnread, Card, Merchant, TerminalRow, write_rows
from switch.dialect import (
    FrameBuffer,
    MacKey,
    ProtocolViolation,
    decode,
    encode,
    frame,
    session_keys,
    sign_on_key,
    sub_elements,
    write_sub_elements,
)
from switch.replay import REPLAY_NAME, Entry, Operation, read_entries
from switch.settlement import Account
from switch.terminal_protocol import NoAnswer
from tests.switch_process import Switch, in_thread

ROOT = Path(__file__).resolve().parent.parent
TODAY = datetime.date(2026, 11, 22)
CARD = Card("6230000000000017", "H1", "student", "active", datetime.date(2030, 7, 31), 10_000, 0)
LOST = Card("6230000000000025", "H2", "student", "lost", datetime.date(2030, 7, 31), 10_000, 0)
TILL = TerminalRow("T1", "M1", "pos", "", bytes(16))
CAMPUS = Campus([Merchant("M1", "First Canteen", "canteen", 0)], [TILL], [CARD, LOST])
PURCHASE = Entry(0, "T1", CARD.card_number, Operation.PURCHASE, 850)
STUDENTS = 90
SPEED = 1500.0


# --- whole load tests ---


async def test_a_tiny_lunch_by_locust(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "report"
    options = Options(driver="locust", speed=SPEED, students=STUDENTS, seed=3, output=output, native=tmp_path)
    assert await load(options) == 0, capsys.readouterr()
    shown = capsys.readouterr().out
    assert "agree to the fen" in shown
    assert str(output / "report.html") in shown
    with (output / "locust_stats.csv").open() as file:
        stats = {row["Name"]: row for row in csv.DictReader(file)}
    with (output / "report.csv").open() as file:
        figures = {row["operation"]: row for row in csv.DictReader(file)}
    for operation in ("purchase", "load"):
        assert stats[operation]["Type"] == "ISO 8583"
        assert stats[operation]["Request Count"] == figures[operation]["answers"]
        assert stats[operation]["Failure Count"] == "0"
        # Locust and the report were told of the same latencies.
        assert round(float(stats[operation]["Max Response Time"]) * 1000) == int(figures[operation]["max_us"])
    assert int(figures["all"]["answers"]) > 110
    assert int(stats["sign-on"]["Request Count"]) > 20
    assert "<html" in (output / "locust.html").read_text()[:500].lower()
    assert "Every answer was right" in (output / "report.html").read_text()


async def test_a_tiny_lunch_by_the_native_driver(driver: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a folder, as an exported day would be."""
    generate(tmp_path, STUDENTS, 3, "lunch", datetime.datetime.now(datetime.UTC).date())
    options = Options(driver="native", speed=SPEED, replay=tmp_path, output=tmp_path / "report", native=driver, rehearsal=True)
    assert await load(options) == 0, capsys.readouterr()
    assert "agree to the fen" in capsys.readouterr().out
    with (tmp_path / "report" / "report.csv").open() as file:
        figures = {row["operation"]: int(row["answers"]) for row in csv.DictReader(file)}
    assert figures["all"] == sum(1 for _ in read_entries(tmp_path / REPLAY_NAME))
    assert figures["load"] > 0


async def test_terminals_that_counted_wrong_are_found(
    driver: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger_sums = agreement.ledger_sums

    def one_fen_more(campus: Campus, accounts: list[Account]) -> tuple[dict[str, int], dict[str, int]]:
        takings, spent = ledger_sums(campus, accounts)
        return takings | {"M00000000000001": takings["M00000000000001"] + 1}, spent

    monkeypatch.setattr(agreement, "ledger_sums", one_fen_more)
    options = Options(driver="native", speed=SPEED, students=30, output=tmp_path / "report", native=driver, rehearsal=True)
    assert await load(options) == 1
    assert "NOT EQUAL" in capsys.readouterr().out
    assert "Not as expected" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"speed": 0.0}, "a speed of 0 is none"),
        ({"speed": float("inf")}, "a speed of inf is none"),
        ({"students": 0}, "has nobody"),
        ({"replay": Path("/nowhere")}, "/nowhere/merchants.csv: the file cannot be read"),
        ({"driver": "native", "native": Path("/nowhere/driver")}, "the native driver is missing"),
    ],
)
async def test_what_a_load_test_refuses(
    change: dict[str, object], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = Options(**{"output": tmp_path / "report", "native": tmp_path, **change})  # type: ignore[arg-type]
    assert await load(options) == 1
    assert complaint in capsys.readouterr().err


async def test_a_replay_of_another_campus_is_refused_and_no_earlier_report_stands_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_replay(tmp_path / "replay", PURCHASE, PURCHASE._replace(terminal_id="T9"))
    output = tmp_path / "report"
    output.mkdir()
    for name in ("report.html", "locust.html", "mine.txt"):
        (output / name).write_text("Every answer was right")
    assert await load(Options(driver="locust", replay=folder, output=output, native=tmp_path)) == 1
    assert "row 3: terminal T9 is not in its campus's terminals.csv" in capsys.readouterr().err
    assert [path.name for path in output.iterdir()] == ["mine.txt"]


@contextlib.contextmanager
def _place_for_reports_of_another(folder: Path) -> Iterator[None]:
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


async def test_two_load_tests_do_not_share_a_place_for_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.html").write_text("of the other one")
    with _place_for_reports_of_another(tmp_path):
        assert await load(Options(output=tmp_path, native=tmp_path)) == 1
    assert "another load test writes its report there" in capsys.readouterr().err
    assert (tmp_path / "report.html").read_text() == "of the other one"
    (tmp_path / "file").touch()
    assert await load(Options(output=tmp_path / "file", native=tmp_path)) == 1
    assert "file: File exists" in capsys.readouterr().err


async def test_what_a_driver_failed_of_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One request is over before the database has its tables. That the terminal is a kiosk, only the switch minds."""
    campus = Campus(CAMPUS.merchants, [TerminalRow("T1", "M1", "kiosk", "", bytes(16))], [CARD])
    folder = write_replay(tmp_path / "replay", PURCHASE, campus=campus)
    assert await load(Options(driver="locust", replay=folder, output=tmp_path / "report", native=tmp_path)) == 1
    shown = capsys.readouterr().out
    assert "locust ended with 1: purchase (1 in all): WrongAnswer('a purchase was answered 58," in shown
    assert "T1: 1 of its purchases were not answered." in shown


# --- Locust ---


def locust(folder: Path, *arguments: str | Path, host: str = "127.0.0.1:1", written_every: float = 1.0) -> subprocess.CompletedProcess[str]:
    """`written_every`: seconds between Locust's turns to write its tables."""
    program = f"import locust.stats; locust.stats.CSV_STATS_INTERVAL_SEC = {written_every}; import locust.main; locust.main.main()"
    command = [sys.executable, "-c", program, "--headless", "--only-summary", "-f", str(ROOT / "loadtests" / "locustfile.py")]
    command += ["--host", host, "--replay", str(folder), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=folder)


def write_replay(folder: Path, *entries: Entry, campus: Campus = CAMPUS) -> Path:
    folder.mkdir()
    campus.write(folder)
    write_rows(folder / REPLAY_NAME, "offset_ms,terminal_id,card_number,operation,amount", entries)
    return folder


async def test_locust_fails_where_a_card_is_answered_otherwise_than_its_file_says(
    make_switch: Callable[..., Switch], tmp_path: Path
) -> None:
    """The switch knows another campus: the lost card is active there, and the second terminal has another key.

    Locust has written its tables at its start only when the run ends: what came since then is in them all the same.
    """
    other = TerminalRow("T2", "M1", "pos", "", bytes([1] * 16))
    known = Campus(
        CAMPUS.merchants,
        [TILL, other],
        [CARD, Card(LOST.card_number, "H2", "student", "active", LOST.expires, 10_000, 0)],
    )
    believed = Campus(CAMPUS.merchants, [TILL, TerminalRow("T2", "M1", "pos", "", bytes([2] * 16))], CAMPUS.cards)
    lost = Entry(5, "T1", LOST.card_number, Operation.PURCHASE, 100)
    folder = write_replay(tmp_path / "replay", PURCHASE, lost, Entry(9, "T2", CARD.card_number, Operation.PURCHASE, 1), campus=believed)
    switch = make_switch(campus_timezone="UTC")
    (tmp_path / "known").mkdir()
    files = known.write(tmp_path / "known")
    assert (await in_thread(lambda: switch.command("import", "--config", switch.file, *files))).returncode == 0
    await in_thread(switch.start)
    address = f"127.0.0.1:{switch.port}"
    done = await in_thread(lambda: locust(folder, "--speed", "10", "--csv", tmp_path / "found", host=address, written_every=8.0))
    assert done.returncode == 1, done
    with (tmp_path / "found_failures.csv").open() as file:
        failures = {(row["Name"], row["Error"]): int(row["Occurrences"]) for row in csv.DictReader(file)}
    assert failures == {
        ("purchase", "WrongAnswer('a purchase was answered 00, approved; expected was 41')"): 1,
        ("sign-on", "Refused('terminal T2: 0800 answered 63, MAC wrong, sign on again')"): 1,
        ("purchase", "NoSession('terminal T2 has no session')"): 1,
    }


def test_what_locust_refuses(tmp_path: Path) -> None:
    folder = write_replay(tmp_path / "replay", PURCHASE)
    empty = write_replay(tmp_path / "empty")
    strange = write_replay(tmp_path / "strange", PURCHASE._replace(terminal_id="T9"))
    for done, complaint in (
        (locust(folder, "--speed", "0"), "a speed of 0 is none"),
        (locust(folder, "--timezone", "Nowhere"), "'Nowhere' is no time zone"),
        (locust(folder, host="somewhere"), "name it: --host HOST:PORT"),
        (locust(empty), "there is nothing to replay"),
        (locust(strange), "terminal T9 is not in its campus's terminals.csv"),
        (locust(tmp_path), "merchants.csv: the file cannot be read"),
        (locust(folder, "--processes", "2"), "a replay is sent by one process"),
    ):
        assert done.returncode == 1, done
        assert complaint in done.stderr


# --- the till ---


class FalseSwitch:
    """One terminal's other end, which signs it on properly and then says what a test wants. Its codec is the terminals' own."""

    def __init__(self, change: Callable[[dict[str, str]], dict[str, str] | None], *, mac: bool = True) -> None:
        self._change = change
        self._mac = mac
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        nonce = bytes(8)
        key = MacKey(sign_on_key(TILL.key, "T1"))
        connection, _ = self._listener.accept()
        frames = FrameBuffer()
        with connection:
            while data := connection.recv(4096):
                for _, message in frames.feed(data):
                    asked = decode(message)
                    for element in ("64", "128"):
                        asked.pop(element, None)
                    mti = asked.pop("t")
                    reply = {"t": f"{int(mti) + 10:04}", **asked, "39": "00"}
                    if mti == "0800":
                        sent = bytes.fromhex(sub_elements(asked["48"])["01"])
                        reply["48"] = write_sub_elements({"02": nonce.hex().upper(), "03": "20261122"})
                        connection.sendall(frame(encode(reply, key)))
                        key = MacKey(session_keys(TILL.key, "T1", sent, nonce)[0])
                        continue
                    reply |= {"37": "000000000007", "38": "000007", "54": "1002156C0000000009502002156D000000000100"}
                    changed = self._change(reply)
                    if changed is None:
                        return
                    connection.sendall(frame(encode(changed, key if self._mac else None)))

    def close(self) -> None:
        self._thread.join()
        self._listener.close()


@contextlib.contextmanager
def till_at(change: Callable[[dict[str, str]], dict[str, str] | None], *, mac: bool = True) -> Iterator[Till]:
    switch = FalseSwitch(change, mac=mac)
    till = Till(TILL, switch.address, datetime.UTC, 5.0)
    try:
        till.sign_on()
        yield till
    finally:
        till.close()
        switch.close()


EXPECTED = Expectations({card.card_number: card for card in CAMPUS.cards}, TODAY)


def without(element: str) -> Callable[[dict[str, str]], dict[str, str]]:
    return lambda reply: {name: value for name, value in reply.items() if name != element}


def test_a_good_answer_is_taken_with_what_it_moved() -> None:
    with till_at(dict) as till:
        reply, moved = till.ask(PURCHASE, frozenset({"00"}))
        assert (reply.code, moved) == ("00", 850)
        assert till.ask(PURCHASE._replace(operation=Operation.REPEAT), frozenset({"00"}))[1] == 0
        assert till.ask(PURCHASE._replace(operation=Operation.REVERSAL), frozenset({"00"}))[1] == 850
        assert till.ask(PURCHASE._replace(operation=Operation.REVERSAL), frozenset({"00"}))[1] == 0
        assert till.ask(PURCHASE._replace(operation=Operation.BALANCE), frozenset({"00"}))[1] == 0
        assert till.ask(PURCHASE._replace(operation=Operation.LOAD), frozenset({"00"}))[1] == 850
    with till_at(lambda reply: reply | {"39": "51"}) as till:
        assert till.ask(PURCHASE, frozenset({"00", "51"}))[1] == 0


@pytest.mark.parametrize(
    ("change", "mac", "failure", "words"),
    [
        (lambda reply: reply | {"39": "41"}, True, WrongAnswer, "answered 41, card lost; expected was 00 or 51"),
        (lambda reply: reply | {"39": "63"}, False, WrongAnswer, "answered 63"),
        (dict, False, ProtocolViolation, "without MAC"),
        (lambda reply: reply | {"4": "000000000851"}, True, ProtocolViolation, "echoes DE4"),
        (without("37"), True, WrongAnswer, "without DE37"),
        (without("38"), True, WrongAnswer, "without DE38"),
        (without("54"), True, WrongAnswer, "without DE54"),
        (lambda reply: reply | {"54": "1002156C000000000950"}, True, WrongAnswer, "with the purses 10, not with 10 and 20"),
        (lambda _: None, True, NoAnswer, "no answer to 0200"),
    ],
)
def test_an_answer_that_is_not_good_is_not_taken(
    change: Callable[[dict[str, str]], dict[str, str] | None], mac: bool, failure: type[Exception], words: str
) -> None:
    with till_at(change, mac=mac) as till, pytest.raises(failure, match=words):
        till.ask(PURCHASE, EXPECTED.answers("purchase", CARD.card_number))


def test_a_tills_numbers_go_on_with_the_day() -> None:
    """So that it may come back on the same day: a number that it has used stands for what it asked then."""
    hours = [datetime.timezone(datetime.timedelta(hours=hour)) for hour in (0, 1)]
    now, later = (int(Till(TILL, ("127.0.0.1", 1), hour, 1.0)._protocol.balance(datetime.datetime.now(hour), "17").stan) for hour in hours)
    assert (later - now) % (86_400 * STANS_A_SECOND) == pytest.approx(3600 * STANS_A_SECOND, abs=2 * STANS_A_SECOND)


def test_what_may_be_answered() -> None:
    for operation, card, codes in (
        ("purchase", CARD.card_number, {"00", "51"}),
        ("purchase", LOST.card_number, {"41"}),
        ("repeat", LOST.card_number, {"41"}),
        ("purchase", "1", {"14"}),
        ("load", CARD.card_number, {"00"}),
        ("load", LOST.card_number, {"41"}),
        ("load", "1", {"14"}),
        ("balance", LOST.card_number, {"00"}),
        ("balance", "1", {"14"}),
        ("reversal", LOST.card_number, {"00"}),
    ):
        assert EXPECTED.answers(operation, card) == codes, (operation, card)


# --- what they bring home ---


def answer(entry: Entry, response: str = "00", moved: int | None = None, latency_us: int = 1000) -> Answer:
    return Answer(*entry[:4], entry.amount if moved is None else moved, response, latency_us)


def test_answers_are_added_up_by_merchant_and_card() -> None:
    reversal = PURCHASE._replace(offset_ms=61_000, operation=Operation.REVERSAL, amount=0)
    load = PURCHASE._replace(operation=Operation.LOAD, amount=10_000)
    entries = [PURCHASE, PURCHASE, PURCHASE._replace(card_number=LOST.card_number), load, reversal]
    found = [
        answer(entries[0]),
        answer(entries[1], latency_us=3000),
        answer(entries[2], "41", 0),
        answer(load),
        answer(reversal, moved=850),
    ]
    counted = count(CAMPUS, entries, found, TODAY)
    assert counted.findings == []
    assert counted.by_merchant == {"M1": 850}
    assert counted.by_card == {CARD.card_number: 850 - 10_000}
    assert counted.loaded == 10_000
    assert counted.responses == {("purchase", "00"): 2, ("purchase", "41"): 1, ("load", "00"): 1, ("reversal", "00"): 1}
    assert {minute: list(latencies) for minute, latencies in counted.by_minute.items()} == {0: [1000, 3000, 1000, 1000], 1: [1000]}


@pytest.mark.parametrize(
    ("found", "finding"),
    [
        ([], "T1: 1 of its purchases were not answered."),
        ([answer(PURCHASE), answer(PURCHASE)], "T1: 1 purchases were answered that nobody asked for."),
        ([answer(PURCHASE, "41", 0)], "T1 at 0 ms: a purchase was answered 41, card lost; expected was 00 or 51."),
    ],
)
def test_missing_and_wrong_answers_are_found(found: list[Answer], finding: str) -> None:
    assert count(CAMPUS, [PURCHASE], found, TODAY).findings == [finding]


def test_an_answer_file_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    write_rows(path, answers.CSV_HEADER, [answer(PURCHASE)])
    assert list(read_answers(path)) == [answer(PURCHASE)]
    write_rows(path, answers.CSV_HEADER, [("x", "T1", "17", "purchase", 1, "00", 5)])
    with pytest.raises(CampusUnread, match="an answer cannot be read"):
        list(read_answers(path))


# --- the report ---


@pytest.mark.parametrize(("share", "value"), [(0.5, 500), (0.9, 900), (0.99, 990), (0.999, 999), (1.0, 1000), (0.0005, 1), (0.0011, 2)])
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(share: float, value: int) -> None:
    assert percentile(list(range(1000, 0, -1)), share) == value


def test_a_percentile_of_few_or_none() -> None:
    assert percentile([], 0.5) == 0
    assert percentile([7], 0.01) == percentile([7], 1.0) == 7


def test_the_report_tells_what_was_found(tmp_path: Path) -> None:
    counted = count(CAMPUS, [PURCHASE], [answer(PURCHASE, latency_us=1234)], TODAY)
    books = Books(5, [], {"M1": 850}, {CARD.card_number: 850}, {})
    result = Result(title="A <test>", campus=CAMPUS, counted=counted, books=books, findings=["Something & more."])
    page, table = report.write_report(result, tmp_path)
    text = page.read_text()
    assert "A &lt;test&gt;" in text
    assert "Something &amp; more." in text
    assert "1.23" in text
    assert "http" not in text.replace("http://www.w3.org", ""), "it needs nothing from elsewhere"
    assert table.read_text().splitlines() == [report.CSV_HEADER, "purchase,1" + ",1234" * 5, "all,1" + ",1234" * 5]
    assert "NOT EQUAL" in result.text()
    assert "8.50 yuan" in result.text()
