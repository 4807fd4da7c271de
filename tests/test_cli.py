"""The commands: what each prints, and that its errors are one sentence on stderr and a non-zero exit code."""

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.switch_process import (
    CANTEEN,
    CARDS_HEADER,
    DEADLINE_SECONDS,
    MERCHANTS,
    PROGRAM,
    TERMINALS_HEADER,
    Switch,
    in_thread,
    report_of,
    until_gone,
)

TERMINALS = f"{TERMINALS_HEADER}\nT1,{CANTEEN},pos,Hall 1,{'0a' * 16}\nT2,M2,kiosk,,{'0b' * 16}\n"
CARDS = f"{CARDS_HEADER}\n6230000000000017,H1,student,active,2099-12-31,1000,250\n42,H2,teacher,lost,2030-01-31,0,0\n"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """The three files, in an order in which they could not be taken one after another."""
    contents = {"cards.csv": CARDS, "terminals.csv": TERMINALS, "merchants.csv": MERCHANTS}
    for name, content in contents.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    return [tmp_path / name for name in contents]


def run(*arguments: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *arguments], check=False, capture_output=True, text=True, timeout=DEADLINE_SECONDS, cwd=folder)


def refusal(completed: subprocess.CompletedProcess[str], command: str) -> str:
    """The one sentence of a command that failed."""
    assert completed.returncode == 1, completed
    assert completed.stdout == ""
    found = re.fullmatch(rf"switch {command}: (.+)\n", completed.stderr)
    assert found, completed.stderr
    return found[1]


def reports(completed: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert completed.returncode == 0, completed.stderr
    return [json.loads(line) for line in completed.stdout.splitlines()]


# --- init ---


def test_init_makes_a_folder_that_everything_else_works_with(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    completed = run("init", folder)
    assert completed.returncode == 0, completed.stderr
    assert str(folder / "switch.toml") in completed.stdout
    assert {path.name for path in folder.iterdir()} == {"switch.toml", "keys", "journal", "database", "run"}
    assert [path.name for path in folder.rglob("*.key")] == ["key-encryption.key"]
    checked = report_of(run("verify", folder))
    assert (checked["ok"], checked["records"], checked["sum"]) == (True, 0, 0)
    assert run("import", "--config", folder / "switch.toml", folder / "none.csv").returncode == 1
    assert run("show", "card", "1", folder=folder).stderr == "switch show: there is no card 1\n", (
        "switch.toml is found in the folder one is in"
    )


def test_init_refuses_a_folder_that_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "something").write_text("precious")
    assert "not empty" in refusal(run("init", tmp_path), "init")
    assert "not a folder" in refusal(run("init", tmp_path / "something"), "init")
    assert [path.name for path in tmp_path.iterdir()] == ["something"]
    assert (tmp_path / "something").read_text() == "precious"


# --- calls that are no calls ---


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["nothing"], ["init"], ["import"], ["show", "card"], ["show", "person", "1"], ["verify"], ["serve", "--port", "1"]),
        *(["audit"], ["audit", "--from", "1"], ["audit", "--to", "1"], ["check-evidence"]),
    ],
    ids=str,
)
def test_a_wrong_call_is_refused_with_its_usage(arguments: list[str]) -> None:
    completed = run(*arguments)
    assert (completed.returncode, completed.stdout) == (2, "")
    assert completed.stderr.startswith("usage: switch")


@pytest.mark.parametrize(
    "command", [["serve"], ["import", "x.csv"], ["reconcile"], ["show", "card", "1"], ["follow"], ["audit", "--from", "1", "--to", "2"]]
)
def test_without_a_configuration_the_commands_say_how_to_make_one(tmp_path: Path, command: list[str]) -> None:
    assert "`switch init DIR` makes one" in refusal(run(*command, "--config", tmp_path / "switch.toml"), command[0])


# --- import ---


def test_import_before_the_first_start(make_switch: Callable[..., Switch], files: list[Path]) -> None:
    switch = make_switch()
    found = reports(switch.command("import", "--config", switch.file, *files))
    kinds = [(report["kind"], report["rows"], report["added"], report["changed"], report["unchanged"]) for report in found]
    assert kinds == [("merchants", 2, 2, 0, 0), ("terminals", 2, 2, 0, 0), ("cards", 2, 2, 0, 0)], "in the order that they need"
    assert [report["position"] for report in found] == sorted(report["position"] for report in found)
    again = reports(switch.command("import", "--config", switch.file, *files))
    assert [(report["added"], report["changed"], report["unchanged"]) for report in again] == [(0, 0, 2)] * 3
    assert {report["position"] for report in again} == {found[-1]["position"]}, "nothing was written"
    checked = report_of(switch.command("verify", switch.folder))
    assert (checked["ok"], checked["records"]) == (True, found[-1]["position"])


async def test_import_into_the_running_switch(make_switch: Callable[..., Switch], files: list[Path]) -> None:
    switch = make_switch()
    await in_thread(switch.start)
    found = reports(await in_thread(lambda: switch.command("import", "--config", switch.file, *files)))
    assert [report["added"] for report in found] == [2, 2, 2]
    assert await switch.purses("6230000000000017") == (1000, 250)
    position = (await switch.metrics()).value("switch_journal_durable_position")
    assert position == found[-1]["position"], "it is durable when the command says so"
    changed = files[0].with_name("changed.csv")
    changed.write_text(CARDS.replace("active", "frozen"), encoding="utf-8")
    (report,) = reports(await in_thread(lambda: switch.command("import", "--config", switch.file, changed)))
    assert (report["added"], report["changed"], report["unchanged"]) == (0, 1, 1)
    shown = await switch.show("card", "6230000000000017")
    assert (shown["status"], shown["cash"], shown["subsidy"]) == ("frozen", 1000, 250), "an opening balance is posted once"
    again = reports(await in_thread(lambda: switch.command("import", "--config", switch.file, changed)))
    assert (again[0]["unchanged"], again[0]["position"]) == (2, report["position"])


def test_pins_follow_their_cards_and_rules_come_last(make_switch: Callable[..., Switch], files: list[Path]) -> None:
    switch = make_switch()
    pins, rules = files[0].with_name("a-pins.csv"), files[0].with_name("a-rules.csv")
    pins.write_text("card_number,pin\n6230000000000017,4821\n", encoding="utf-8")
    rules.write_text("rule,class,category,zone,days,from,to,value\npin_above,*,*,,,,,0\nday_max,*,*,,,,,5\n", encoding="utf-8")
    found = reports(switch.command("import", "--config", switch.file, rules, pins, *files))
    assert [report["kind"] for report in found] == ["merchants", "terminals", "cards", "pins", "policy"]
    assert [report["added"] for report in found[3:]] == [1, 2]
    rules.write_text("rule,class,category,zone,days,from,to,value\npin_above,*,*,,,,,1\n", encoding="utf-8")
    (report,) = reports(switch.command("import", "--config", switch.file, rules))
    assert [report[name] for name in ("rows", "added", "changed", "unchanged", "removed")] == [1, 0, 1, 0, 1]
    pins.write_text("card_number,pin\n6230000000000017,48x1\n", encoding="utf-8")
    error = refusal(switch.command("import", "--config", switch.file, pins), "import")
    assert error == f"{pins} line 2, field pin: the PIN is not 4 to 12 digits"
    checked = report_of(switch.command("verify", switch.folder))
    assert (checked["ok"], checked["records"]) == (True, report["position"])


def test_import_of_several_files_stops_at_the_first_wrong_one(make_switch: Callable[..., Switch], files: list[Path]) -> None:
    switch = make_switch()
    files[0].write_text(CARDS + "17,H3,student,active,2099-12-31,x,0\n", encoding="utf-8")
    completed = switch.command("import", "--config", switch.file, *files)
    assert completed.returncode == 1
    assert [json.loads(line)["kind"] for line in completed.stdout.splitlines()] == ["merchants", "terminals"]
    assert completed.stderr.startswith(f"switch import: {files[0]} line 4, field cash: ")
    assert switch.command("show", "--config", switch.file, "terminal", "T1").returncode == 0
    assert switch.command("show", "--config", switch.file, "card", "42").returncode == 1


@pytest.mark.parametrize("what", ["missing.csv", "."])
def test_import_of_what_is_no_file(make_switch: Callable[..., Switch], files: list[Path], what: str) -> None:
    switch = make_switch()
    sentence = refusal(switch.command("import", "--config", switch.file, *files, what), "import")
    assert sentence.startswith(f"{what}: the file cannot be read: ")
    assert switch.verify()["records"] == 0, "the other files were not taken either"


# --- show ---

SHOWN: dict[tuple[str, str], dict[str, Any]] = {
    ("card", "6230000000000017"): {
        "card": "6230000000000017",
        "holder": "H1",
        "class": "student",
        "status": "active",
        "expires": "2099-12-31",
    }
    | {"cash": 1000, "subsidy": 250, "holds": 0, "last_activity": None},
    ("card", "42"): {"card": "42", "holder": "H2", "class": "teacher", "status": "lost", "expires": "2030-01-31", "cash": 0, "subsidy": 0},
    ("terminal", "T1"): {"terminal": "T1", "merchant": CANTEEN, "kind": "pos", "zone": "Hall 1", "signed_on": False, "last_activity": None},
    ("merchant", "M2"): {"merchant": "M2", "name": "Corner shop", "category": "shop", "fee_bp": 0, "balance": 0},
    ("merchant", CANTEEN): {"name": "第一食堂", "category": "canteen", "fee_bp": 120},
}


@pytest.mark.parametrize("running", [False, True])
async def test_show(make_switch: Callable[..., Switch], files: list[Path], running: bool) -> None:
    switch = make_switch()
    reports(switch.command("import", "--config", switch.file, *files))
    if running:
        await in_thread(switch.start)
    for (kind, identifier), expected in SHOWN.items():
        arguments = ("show", "--config", switch.file, kind, identifier)
        shown = report_of(await in_thread(lambda arguments=arguments: switch.command(*arguments, "--json")))  # type: ignore[misc]
        assert expected.items() <= shown.items(), shown
        table = (await in_thread(lambda arguments=arguments: switch.command(*arguments))).stdout  # type: ignore[misc]
        lines = dict(line.split(maxsplit=1) for line in table.splitlines())
        assert lines.keys() == shown.keys()
        for name, value in expected.items():
            assert lines[name] == ("-" if value is None else str(value))
    for kind, identifier in (
        ("card", "43"),
        ("card", "x"),
        ("card", "9" * 40),
        ("terminal", "T3"),
        ("merchant", "a/b?c=d#e"),
        ("merchant", "食"),
    ):
        arguments = ("show", "--config", switch.file, kind, identifier)
        completed = await in_thread(lambda arguments=arguments: switch.command(*arguments))  # type: ignore[misc]
        assert refusal(completed, "show") == f"there is no {kind} {identifier}"


# --- serve, verify ---


async def test_the_ready_line_and_the_end(make_switch: Callable[..., Switch]) -> None:
    switch = make_switch()
    for number in (signal.SIGTERM, signal.SIGINT):
        await in_thread(switch.start)
        assert switch.ready.keys() == {"ready", "terminals", "admin", "database"}
        assert re.fullmatch(r"127\.0\.0\.1:[1-9]\d*", switch.ready["terminals"])
        assert re.fullmatch(r"127\.0\.0\.1:[1-9]\d*", switch.ready["admin"])
        assert switch.ready["database"].startswith("postgresql://")
        assert (switch.folder / "run" / "serve.json").exists()
        follower = await switch.follower()
        await in_thread(lambda number=number: switch.stop(number))  # type: ignore[misc]
        assert not (switch.folder / "run" / "serve.json").exists()
        await until_gone(follower)


def test_signals_that_come_again_change_nothing(make_switch: Callable[..., Switch]) -> None:
    switch = make_switch()
    switch.start()
    for _ in range(20):
        switch.signal(signal.SIGTERM)
        switch.signal(signal.SIGINT)
    switch.stop()


async def test_a_follower_does_not_outlive_a_switch_that_was_killed(make_switch: Callable[..., Switch]) -> None:
    switch = make_switch()
    await in_thread(switch.start)
    follower = await switch.follower()
    await in_thread(switch.kill)
    await until_gone(follower)
    assert (switch.folder / "run" / "serve.json").exists(), "left behind, and in nobody's way:"
    shown = await in_thread(lambda: switch.command("show", "--config", switch.file, "card", "1"))
    assert refusal(shown, "show") == "there is no card 1"
    await in_thread(switch.start)


@pytest.fixture
def running(make_switch: Callable[..., Switch]) -> Iterator[Switch]:
    switch = make_switch()
    switch.start()
    yield switch
    switch.stop()


def test_a_second_switch_on_the_same_folder_is_refused(running: Switch) -> None:
    sentence = refusal(running.command("serve", "--config", running.file), "serve")
    assert str(running.journal) in sentence
    assert re.search(r"\b(open|use|lock|runs)", sentence), sentence
    assert running.command("show", "--config", running.file, "card", "1").stderr == "switch show: there is no card 1\n", "the first goes on"


def test_verify_is_refused_while_the_switch_runs(running: Switch) -> None:
    assert "stop it first" in refusal(running.command("verify", running.folder), "verify")


def test_verify_tells_the_same_digest_twice_and_what_is_damaged(make_switch: Callable[..., Switch], files: list[Path]) -> None:
    switch = make_switch()
    reports(switch.command("import", "--config", switch.file, *files))
    first, second = (switch.command("verify", switch.folder) for _ in range(2))
    assert first.stdout == second.stdout
    checked = report_of(first)
    assert (first.returncode, checked["ok"], checked["sum"], len(checked["state_digest"])) == (0, True, 0, 64)
    assert {"problem", "first_bad_record"}.isdisjoint(checked)

    segment = switch.journal / "00000001.segment"
    content = bytearray(segment.read_bytes())
    at = content.index("第一食堂".encode())
    content[at] ^= 1
    segment.write_bytes(content)
    completed = switch.command("verify", switch.folder)
    found = report_of(completed)
    assert (completed.returncode, found["ok"]) == (1, False)
    assert "00000001.segment" in found["problem"]
    assert found["first_bad_record"] == found["records"] + 1
    sentence = refusal(switch.command("serve", "--config", switch.file), "serve")
    assert "00000001.segment" in sentence
    assert segment.read_bytes() == content, "nothing was repaired by guesswork"
    content[at] ^= 1
    segment.write_bytes(content)
    assert switch.command("verify", switch.folder).stdout == first.stdout


def test_verify_of_what_is_no_data_folder(tmp_path: Path) -> None:
    assert "there is no such file" in refusal(run("verify", tmp_path), "verify")


@pytest.mark.parametrize("section", ["terminals", "admin"])
def test_a_port_that_is_taken_is_named(make_switch: Callable[..., Switch], running: Switch, section: str) -> None:
    other = make_switch(**{f"{section}_port": running.port})
    sentence = refusal(other.command("serve", "--config", other.file), "serve")
    assert f"[{section}] cannot listen on 127.0.0.1 port {running.port}" in sentence


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda key: key.unlink(), "missing"),
        (lambda key: key.write_text("00"), "64 hexadecimal digits"),
        (lambda key: key.chmod(0o644), "chmod 600"),
        (lambda key: key.write_text("5a" * 32), "not the key that this journal was written with"),
    ],
)
def test_without_its_key_the_switch_does_not_start(
    make_switch: Callable[..., Switch], files: list[Path], spoil: Callable[[Path], None], words: str
) -> None:
    switch = make_switch()
    reports(switch.command("import", "--config", switch.file, *files))
    key = switch.folder / "keys" / "key-encryption.key"
    kept = key.read_text().strip()
    spoil(key)
    completed = switch.command("serve", "--config", switch.file)
    sentence = refusal(completed, "serve")
    assert words in sentence
    assert kept not in completed.stderr


# --- reconcile, follow ---


def test_reconcile_without_a_database(running: Switch) -> None:
    sentence = refusal(running.command("reconcile", "--config", running.file), "reconcile")
    assert "127.0.0.1" in sentence or "PostgreSQL" in sentence


def test_follow_is_for_other_databases(make_switch: Callable[..., Switch]) -> None:
    switch = make_switch(database="embedded")
    assert "--database" in refusal(switch.command("follow", "--config", switch.file), "follow")
