"""The native driver, tiny: what it asks of a real switch and counts, that it believes no wrong answer, and that a switch which stands still
is not spared what would have come meanwhile.
"""

import contextlib
import datetime
import itertools
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

import pytest

from switch.campus import Campus, Card, Merchant, TerminalRow
from switch.dialect import FrameBuffer, MacKey, decode, encode, frame, session_keys, sign_on_key, sub_elements, write_sub_elements
from tests.switch_process import Switch, in_thread

MERCHANTS: Final = [Merchant("M00000000000001", "First Canteen", "canteen", 0), Merchant("M00000000000002", "Shop", "shop", 0)]
TILLS: Final = [
    TerminalRow(f"T{number:07}", MERCHANTS[number % 2].merchant_id, "pos", "", bytes([number] * 16)) for number in range(1, 201)
]
KIOSK: Final = TerminalRow("K1", "M00000000000002", "kiosk", "", bytes(16))
VALID: Final = datetime.date(2099, 12, 31)
CARDS: Final = [Card(f"623{number:013}", f"H{number}", "student", "active", VALID, 99_999_999, 5_000) for number in range(1, 51)]
POOR: Final = Card("6239999999999999", "H51", "student", "active", VALID, 900, 0)
LOST: Final = Card("6239999999999998", "H52", "student", "lost", VALID, 900, 0)

Figures = dict[str, Any]
Fields = dict[str, str]


class Driver:
    """The program, with a campus."""

    def __init__(self, program: Path, campus: Path) -> None:
        self._program = program
        self.campus = campus

    def command(self, name: str, address: str, *arguments: object) -> list[str]:
        return [str(self._program), "--rehearsal", name, "--address", address, "--campus", str(self.campus), *map(str, arguments)]

    def run(self, name: str, address: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = self.command(name, address, *arguments)
        return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=120)

    def figures(self, name: str, address: str, *arguments: object) -> Figures:
        done = self.run(name, address, *arguments)
        assert done.returncode == 0, done.stderr
        found: Figures = json.loads(done.stdout)
        return found

    @contextlib.contextmanager
    def echo(self) -> Iterator[str]:
        with subprocess.Popen([self._program, "--rehearsal", "echo"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as echo:
            assert echo.stdout is not None
            assert echo.stdin is not None
            yield json.loads(echo.stdout.readline())["address"]
            echo.stdin.close()
            assert echo.wait(10) == 0


@pytest.fixture
def native(driver: Path, tmp_path: Path) -> Driver:
    campus = tmp_path / "campus"
    campus.mkdir()
    Campus(MERCHANTS, [*TILLS, KIOSK], CARDS).write(campus)
    return Driver(driver, campus)


@pytest.fixture
def served(native: Driver, make_switch: Callable[..., Switch]) -> Switch:
    """A switch with the campus, and with two cards besides that the driver draws none of."""
    switch = make_switch()
    others = switch.folder / "others"
    others.mkdir()
    files = [*sorted(native.campus.iterdir(), key=lambda path: ["merchants", "terminals", "cards"].index(path.stem))]
    files += Campus([], [], [POOR, LOST]).write(others)[2:]
    imported = switch.command("import", "--config", switch.file, *files)
    assert imported.returncode == 0, imported.stderr
    switch.start()
    return switch


async def agree(switch: Switch, *runs: Figures) -> None:
    """Hold what the terminals counted against the switch's ledger and its counters."""
    shown = {merchant.merchant_id: (await switch.show("merchant", merchant.merchant_id))["balance"] for merchant in MERCHANTS}
    counted = {
        merchant.merchant_id: sum(run["merchants"].get(merchant.merchant_id, {"fen": 0})["fen"] for run in runs) for merchant in MERCHANTS
    }
    assert shown == counted
    assert sum(run["fen_total"] for run in runs) == sum(shown.values())
    answered: dict[tuple[str, str], int] = {}
    for run in runs:
        for operation, figures in run["operations"].items():
            for code, count in figures["answers"].items():
                # To the switch's counters a repeat is a purchase; to its ledger it is not.
                key = ("purchase" if operation == "repeat" else operation, code)
                answered[key] = answered.get(key, 0) + count
    metrics = await switch.metrics()
    assert {key: metrics.answered(*key) for key in answered} == answered
    assert metrics.sum("switch_requests_total") == sum(answered.values()) + sum(run["terminals"] for run in runs)


# --- what it asks and counts ---


async def test_a_mix_of_operations_in_a_closed_loop(native: Driver, served: Switch) -> None:
    mix = "purchase=6,balance=2,reversal=1,repeat=1"
    arguments = ("--connections", 8, "--depth", 3, "--mix", mix, "--popularity", "zipf:1", "--warm-up", 0.05, "--seconds", 0.4)
    run = await in_thread(lambda: native.figures("drive", served.ready["terminals"], *arguments))
    assert set(run["operations"]) == {"purchase", "balance", "reversal", "repeat"}
    assert all(set(figures["answers"]) == {"00"} for figures in run["operations"].values())
    ledger = run["ledger"]
    assert ledger["approved"] == run["operations"]["purchase"]["answers"]["00"]
    assert ledger["reversed"] == run["operations"]["reversal"]["answers"]["00"] > 0
    assert 0 < ledger["reversed_fen"] < ledger["approved_fen"]
    assert ledger["records"] == ledger["approved"] + ledger["reversed"] + 8
    latency = run["latency_ns"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p999"] <= latency["p9999"] <= latency["max"]
    await agree(served, run)


async def test_an_open_loop_sends_what_was_set_and_tells_how_late_it_was(native: Driver, served: Switch) -> None:
    arguments = ("--connections", 20, "--rate", 400, "--warm-up", 0.25, "--seconds", 0.5, "--histogram")
    constant = await in_thread(lambda: native.figures("drive", served.ready["terminals"], *arguments))
    assert (constant["answers"], constant["answers_total"]) == (200, 300)
    assert constant["window_ns"] >= 500_000_000
    assert constant["lateness_ns"]["p50"] > 0
    assert sum(count for _, count in constant["histogram"]) == 200
    assert max(value for value, _ in constant["histogram"]) == constant["latency_ns"]["max"]
    poisson = await in_thread(
        lambda: native.figures("drive", served.ready["terminals"], "--first-terminal", 20, "--arrivals", "poisson", *arguments)
    )
    # Sixty is more than four times the deviation of such a process.
    assert 140 < poisson["answers"] < 260
    await agree(served, constant, poisson)


async def test_many_terminals_share_a_connection(native: Driver, served: Switch) -> None:
    arguments = ("--terminals", 50, "--connections", 3, "--warm-up", 0.05, "--seconds", 0.3, "--mix", "purchase=2,repeat=1")
    closed = await in_thread(lambda: native.figures("drive", served.ready["terminals"], *arguments))
    assert (closed["terminals"], closed["connections"]) == (50, 3)
    further: tuple[object, ...] = (
        "--first-terminal",
        50,
        "--terminals",
        90,
        "--connections",
        2,
        "--rate",
        500,
        "--warm-up",
        0,
        "--seconds",
        0.4,
    )
    opened = await in_thread(lambda: native.figures("drive", served.ready["terminals"], *further))
    assert opened["answers"] == 200
    await agree(served, closed, opened)


async def test_idle_connections_are_held_and_told_of(native: Driver, served: Switch) -> None:
    arguments = ("--connections", 150, "--rate", 0, "--warm-up", 0, "--seconds", 0.2, "--announce")
    done = await in_thread(lambda: native.run("drive", served.ready["terminals"], *arguments))
    assert done.returncode == 0, done.stderr
    ready, figures = map(json.loads, done.stdout.splitlines())
    assert (ready["ready"], ready["connections"], ready["terminals"]) == (True, 150, 150)
    assert (figures["answers_total"], figures["latency_ns"], figures["ledger"]["records"]) == (0, None, 150)


def test_the_echo_takes_all_of_it(native: Driver) -> None:
    with native.echo() as address:
        for arguments in (
            ("--connections", 200, "--rate", 2000),
            ("--terminals", 100, "--connections", 7, "--depth", 2),
            ("--connections", 5, "--mix", "purchase=1,balance=1,reversal=1,repeat=1"),
        ):
            figures = native.figures("drive", address, "--echo", "--warm-up", 0.05, "--seconds", 0.2, *arguments)
            assert figures["answers"] > 0


# --- replays ---


def replay_file(folder: Path, *rows: str) -> Path:
    path = folder / "replay.csv"
    path.write_text("\n".join(["offset_ms,terminal_id,card_number,operation,amount", *rows, ""]))
    return path


async def test_a_replay_asks_what_the_file_says(native: Driver, served: Switch, tmp_path: Path) -> None:
    path = replay_file(
        tmp_path,
        f"0,T0000001,{CARDS[0].card_number},purchase,850",
        f"0,T0000002,{POOR.card_number},purchase,800",
        f"100,T0000001,{CARDS[0].card_number},reversal,0",
        f"200,T0000001,{CARDS[1].card_number},purchase,300",
        f"200,T0000001,{CARDS[1].card_number},balance,0",
        f"250,T0000002,{POOR.card_number},purchase,200",
        f"300,T0000002,{POOR.card_number},reversal,0",
        f"300,K1,{LOST.card_number},balance,0",
        f"400,T0000003,{LOST.card_number},purchase,100",
        "400,T0000003,6230000000000000,purchase,100",
        "500,T0000003,,repeat,0",
        "600,T0000003,,reversal,0",
    )
    began = time.monotonic()
    run = await in_thread(lambda: native.figures("replay", served.ready["terminals"], "--replay", path, "--speed", 4, "--allow-declines"))
    assert time.monotonic() - began >= 0.15
    assert {operation: figures["answers"] for operation, figures in run["operations"].items()} == {
        "purchase": {"00": 3, "14": 1, "41": 1, "51": 1},
        "balance": {"00": 2},
        "reversal": {"00": 3},
        "repeat": {"14": 1},
    }
    # One reversal is of a purchase that stands; the others find nothing to give back.
    assert (run["ledger"]["approved_fen"], run["ledger"]["reversed"], run["ledger"]["reversed_fen"]) == (1950, 1, 850)
    assert {merchant: figures["fen"] for merchant, figures in run["merchants"].items()} == {
        MERCHANTS[0].merchant_id: 800,
        MERCHANTS[1].merchant_id: 300,
    }
    assert (run["answers"], run["terminals"], run["speed"]) == (12, 4, 4.0)
    await agree(served, run)


async def test_a_card_that_is_refused_ends_a_replay_unless_that_is_allowed(native: Driver, served: Switch, tmp_path: Path) -> None:
    path = replay_file(tmp_path, f"0,T0000001,{LOST.card_number},purchase,850")
    done = await in_thread(lambda: native.run("replay", served.ready["terminals"], "--replay", path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "an answer to a purchase is not good, it is not approved" in done.stderr
    assert "response code 41" in done.stderr


async def test_a_terminal_of_a_replay_asks_one_thing_at_a_time(native: Driver, served: Switch, tmp_path: Path) -> None:
    """Everything is due at once; the switch, which the driver's terminals do not wait for otherwise, never has two of theirs."""
    path = replay_file(tmp_path, *(f"0,T000000{1 + number % 2},{CARDS[0].card_number},purchase,1" for number in range(40)))
    run = await in_thread(lambda: native.figures("replay", served.ready["terminals"], "--replay", path))
    assert (run["answers"], run["held"]) == (40, 38)
    await agree(served, run)


def test_a_wrong_line_is_named_before_anything_is_sent(native: Driver, tmp_path: Path) -> None:
    path = replay_file(tmp_path, f"0,T0000001,{CARDS[0].card_number},purchase,850", f"5,T0000009,{CARDS[0].card_number},refund,850")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = native.run("replay", f"127.0.0.1:{listener.getsockname()[1]}", "--replay", path)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert (done.returncode, done.stdout) == (1, "")
    assert f'{path} line 3: operation "refund" is not one of purchase, balance, reversal, repeat, load; nothing was sent' in done.stderr


# --- what it does not believe ---


class FalseSwitch:
    """Another end for the terminals, with their own codec, which says what a test wants. `change` gets the number of the request (sign-ons
    are not counted), the request, and the answer that would be right; it gives the answers to send. `proof` gets the session's key, and
    gives the one by which answers are proved; `sign_on_proof` does so for sign-ons.
    """

    def __init__(
        self,
        change: Callable[[int, Fields, Fields], list[Fields]],
        *,
        proof: Callable[[MacKey], MacKey | None] = lambda key: key,
        sign_on_proof: Callable[[MacKey], MacKey | None] = lambda key: key,
    ) -> None:
        self._change = change
        self._proof = proof
        self._sign_on_proof = sign_on_proof
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(30)
        self._listener.close()

    def _serve(self) -> None:
        keys: dict[str, MacKey] = {}
        masters = {till.terminal_id: till.key for till in TILLS}
        numbers = itertools.count(1)
        decided: dict[str, Fields] = {}
        connection, _ = self._listener.accept()
        frames = FrameBuffer()
        with connection, contextlib.suppress(ConnectionError):
            while data := connection.recv(4096):
                for _, message in frames.feed(data):
                    request = decode(message)
                    terminal = request["41"]
                    reply = {
                        "t": f"{int(request['t']) + 10:04}",
                        **{at: request[at] for at in request if at in ECHOED},
                        "15": request["13"],
                    }
                    if request["t"] == "0800":
                        nonce = bytes(8)
                        sent = bytes.fromhex(sub_elements(request["48"])["01"])
                        keys[terminal] = MacKey(session_keys(masters[terminal], terminal, sent, nonce)[0])
                        reply |= {"37": "000000000001", "39": "00", "48": write_sub_elements({"02": nonce.hex().upper()})}
                        key = self._sign_on_proof(MacKey(sign_on_key(masters[terminal], terminal)))
                        connection.sendall(frame(encode(reply, key)))
                        continue
                    number = next(numbers)
                    reply |= {"39": "00", "54": PURSES}
                    if request["t"] != "0100":
                        reply |= {"37": f"{number:012}", "38": f"{number:06}"}
                    # A repeat has the first request's numbers, which a terminal uses for nothing else.
                    reply = decided.setdefault(request["11"], reply) | {"t": reply["t"]}
                    for answer in self._change(number, request, reply):
                        connection.sendall(frame(encode(answer, self._proof(keys[terminal]))))


ECHOED: Final = frozenset({"2", "3", "4", "11", "12", "13", "41", "42", "49"})
PURSES: Final = "1002156C0000000099992002156D000000000100"


def right(_number: int, _request: Mapping[str, str], reply: Fields) -> list[Fields]:
    return [reply]


def fifth(change: Callable[[Fields], list[Fields]]) -> Callable[[int, Fields, Fields], list[Fields]]:
    """All answers but the fifth are right."""
    return lambda number, _, reply: change(reply) if number == 5 else [reply]


def repeated(change: Callable[[Fields], Fields]) -> Callable[[int, Fields, Fields], list[Fields]]:
    """All answers but those to repeats are right."""
    seen: set[str] = set()

    def answer(_number: int, request: Fields, reply: Fields) -> list[Fields]:
        known = request["11"] in seen
        seen.add(request["11"])
        return [change(reply) if known else reply]

    return answer


def without(*elements: str) -> Callable[[Fields], list[Fields]]:
    return lambda reply: [{element: value for element, value in reply.items() if element not in elements}]


MIX: Final = ("--mix", "purchase=4,balance=2,reversal=2,repeat=2")
ONE: Final = ("--connections", 1, "--warm-up", 0, "--seconds", 1, "--patience", 1)


def test_right_answers_are_believed(native: Driver) -> None:
    """Without which the tests below would say nothing."""
    with FalseSwitch(right) as peer:
        figures = native.figures("drive", peer.address, *ONE, *MIX)
    assert figures["answers"] > 10
    assert set(figures["operations"]) == {"purchase", "balance", "reversal", "repeat"}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (fifth(lambda _: []), "1 answers have not come within 1 s"),
        (fifth(lambda reply: [reply, reply]), "an answer came that nobody had asked for"),
        (fifth(lambda reply: [reply | {"11": "999998"}]), "an answer came that nobody had asked for"),
        (fifth(lambda reply: [reply | {"41": "T0000002"}]), "an answer came that nobody had asked for"),
        (fifth(lambda reply: [reply | {"t": "0410"}]), "it is no reply to such a request"),
        (fifth(lambda reply: [reply | {"4": "000000999999"}]), "it has another content"),
        (fifth(lambda reply: [reply | {"2": "6230000000000999"}]), "it has another content"),
        (fifth(lambda reply: [reply | {"3": "002000"}]), "it has another content"),
        (fifth(lambda reply: [reply | {"13": "0101"}]), "it answers another request"),
        (fifth(lambda reply: [reply | {"12": "000000"}]), "its time or currency is another"),
        (fifth(lambda reply: [reply | {"42": "M00000000000009"}]), "it is for another terminal"),
        (fifth(without("38")), "its numbers do not agree"),
        (fifth(lambda reply: [reply | {"38": "999999"}]), "its numbers do not agree"),
        (fifth(lambda reply: [reply | {"37": "000000000004", "38": "000004"}]), "its transaction number does not rise"),
        (fifth(without("15")), "date or balances are missing or wrong"),
        (fifth(without("54")), "date or balances are missing or wrong"),
        (fifth(lambda reply: [reply | {"54": PURSES.replace("D", "X")}]), "date or balances are missing or wrong"),
        (fifth(lambda reply: without("38", "54")(reply | {"39": "51"})), "it is not approved: Message"),
        (fifth(lambda reply: [reply | {"39": "ZZ"}]), "its response code is none"),
        (fifth(lambda reply: without("37", "38", "54")(reply | {"39": "91"})), "it is not approved: Message"),
    ],
)
def test_a_wrong_or_missing_answer_ends_the_run(
    native: Driver, change: Callable[[int, Fields, Fields], list[Fields]], complaint: str
) -> None:
    with FalseSwitch(change) as peer:
        done = native.run("drive", peer.address, *ONE)
    assert (done.returncode, done.stdout) == (1, "")
    assert complaint in done.stderr


@pytest.mark.parametrize(
    "change",
    [lambda reply: reply | {"54": PURSES.replace("9999", "9998")}, lambda reply: reply | {"37": "000000999999", "38": "999999"}],
)
def test_a_repeat_that_is_answered_otherwise_ends_the_run(native: Driver, change: Callable[[Fields], Fields]) -> None:
    """Another balance, another transaction number: the customer has paid twice."""
    with FalseSwitch(repeated(change)) as peer:
        done = native.run("drive", peer.address, *ONE, "--mix", "purchase=1,repeat=1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "a repeat is answered otherwise than the first" in done.stderr


@pytest.mark.parametrize("proof", [lambda _: None, lambda _: MacKey(bytes(16))], ids=["no MAC", "another key's"])
@pytest.mark.parametrize(("which", "complaint"), [("proof", "its MAC proves nothing"), ("sign_on_proof", "response code 00, MAC wrong")])
def test_an_answer_that_is_not_proved_ends_the_run(
    native: Driver, which: str, complaint: str, proof: Callable[[MacKey], MacKey | None]
) -> None:
    with FalseSwitch(right, **{which: proof}) as peer:
        done = native.run("drive", peer.address, *ONE)
    assert (done.returncode, done.stdout) == (1, "")
    assert complaint in done.stderr


# --- no coordinated omission ---


async def test_a_switch_that_stands_still_is_not_spared_what_would_have_come(native: Driver, served: Switch) -> None:
    """Frozen for a tenth of the window, it owes a tenth of the answers late: the tail of all, not of one."""
    command = native.command("drive", served.ready["terminals"], "--connections", 2, "--depth", 1, "--rate", 250, "--announce")
    frozen_seconds = 0.2

    def run() -> tuple[str, float]:
        with subprocess.Popen([*command, "--warm-up", "0", "--seconds", "2"], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["ready"]
            # The measurement has begun; half a second of it is of a switch that runs.
            time.sleep(0.5)
            served.signal(signal.SIGSTOP)
            began = time.monotonic()
            time.sleep(frozen_seconds)
            stood = time.monotonic() - began
            served.signal(signal.SIGCONT)
            figures = process.stdout.read()
            assert process.wait(60) == 0
        return figures, stood

    text, stood = await in_thread(run)
    figures: Figures = json.loads(text)
    assert figures["answers"] == 500, "the schedule was kept"
    # The two terminals had but one request each under way while it stood; what waited at them counts too.
    assert figures["held"] >= 30
    assert figures["latency_ns"]["max"] > 0.95 * stood * 1e9
    # Of what was due while it stood, a tenth of all, the half waited for more than half of that.
    assert figures["latency_ns"]["p99"] > 0.6 * stood * 1e9
    # The driver itself was not what was late.
    assert figures["lateness_ns"]["p90"] < figures["latency_ns"]["p99"] / 4
    await agree(served, figures)


# --- sentences for users ---


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--connections", 4, "--terminals", 3), "3 terminals cannot have 4 connections"),
        (("--connections", 400), "there are not 400 terminals from number 0 on"),
        (("--depth", 0), "is no whole number above 0"),
        (("--rate", -1), "is no such number"),
        (("--arrivals", "bursts"), "arrivals are constant or poisson"),
        (("--popularity", "hot:2:1"), "does not say which cards come how often"),
        (("--mix", "refund=1"), "is no operation with its weight"),
        (("--no-such-option",), "there is no option --no-such-option"),
        (("--speed", 2), "drive takes no --speed"),
        (("--seconds", 0), "--seconds: "),
        (("--seconds", 0), "is no number of seconds from 0.001 to 1000000"),
        (("--warm-up", "1e300"), "is no number of seconds"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(native: Driver, arguments: tuple[object, ...], sentence: str) -> None:
    done = native.run("drive", "127.0.0.1:1", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert sentence in done.stderr


@pytest.mark.parametrize(
    ("command", "arguments", "sentence"),
    [
        ("drive-postgresql", ("--rate", 100), "drive-postgresql takes no --rate"),
        ("drive-redis", ("--script", "0" * 40, "--mix", "purchase=1,balance=1"), "drive-redis takes no --mix"),
        ("drive-redis", ("--script", "0123"), "--script: "),
        ("drive-redis", (), "drive-redis needs --script"),
        ("memory", ("--cards", 0), "is no whole number above 0"),
        ("startup", (), "startup needs --folder"),
        ("replay", ("--rate", 100), "replay takes no --rate"),
        ("dive", (), "which command?"),
    ],
)
def test_what_a_command_does_not_take_is_refused(driver: Path, command: str, arguments: tuple[object, ...], sentence: str) -> None:
    """A closed loop's figures must not come out where a rate was asked for."""
    words = [str(driver), "--rehearsal", command, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert sentence in done.stderr


@pytest.mark.parametrize(("offset", "speed"), [("18446744073709551615", 1), ("1000", 1e-300)])
def test_a_replay_that_would_not_end_is_refused(native: Driver, tmp_path: Path, offset: str, speed: float) -> None:
    path = replay_file(tmp_path, f"{offset},T0000001,{CARDS[0].card_number},purchase,850")
    done = native.run("replay", "127.0.0.1:1", "--replay", path, "--speed", speed)
    assert (done.returncode, done.stdout) == (1, "")
    assert "would take more than a year" in done.stderr


def test_the_limit_of_open_files_is_raised_where_it_may_be_and_told_of_where_not(native: Driver) -> None:
    with native.echo() as address:
        command = native.command("drive", address, "--echo", "--connections", 100, "--warm-up", 0, "--seconds", 0.1)
        soft = subprocess.run(["prlimit", "--nofile=50:4096", *command], capture_output=True, text=True, check=False, timeout=60)
        assert soft.returncode == 0, soft.stderr
        # Root may raise what is a limit to others, unless that right is taken away.
        humble = ["setpriv", "--bounding-set=-sys_resource"] if os.geteuid() == 0 else []
        hard = subprocess.run(["prlimit", "--nofile=50:50", *humble, *command], capture_output=True, text=True, check=False, timeout=60)
    assert (hard.returncode, hard.stdout) == (1, "")
    assert "100 connections need 132 open files, and this process may have 50" in hard.stderr
    assert "ulimit -Hn 132" in hard.stderr
