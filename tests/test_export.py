"""`switch export-replay`: a day out of PostgreSQL, replayed against a fresh switch to the fen, with nobody's card in it."""

import datetime
import json
import stat
import subprocess
import zoneinfo
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from loadtests.till import Expectations, Till
from switch.campus import Campus, luhn_digit
from switch.export import Pseudonyms
from switch.replay import REPLAY_NAME, Entry, Operation, read_entries
from tests.conftest import fetch, run_asyncio
from tests.switch_process import (
    CANTEEN,
    CARDS_HEADER,
    FAR_FUTURE,
    MERCHANTS,
    PROGRAM,
    SHOP,
    ZONE,
    Device,
    Switch,
    in_thread,
    report_of,
    today,
    until,
)

if TYPE_CHECKING:
    from switch.terminal import Terminal

KEY = "5a" * 32
STRANGER = "6230999999999999"


class Day:
    """A small day at a real switch: the cards and what was asked, by terminals that the test holds."""

    def __init__(self, switch: Switch) -> None:
        self.switch = switch
        self.cards: dict[str, str] = {}
        self.devices: dict[str, Device] = {}
        self.terminals: dict[str, Terminal] = {}
        self.purses: dict[str, tuple[int, int]] = {}
        """Cash and subsidy at its end, by card."""

    async def buy(self, at: str, card: str, amount: int, answer: str, *, purse: str = "00") -> Any:
        reply = await self.terminals[at].purchase(self.cards.get(card, STRANGER), amount, purse=purse)
        assert reply.code == answer, (at, card, amount, reply.fields)
        return reply.request

    async def undo(self, at: str, request: Any) -> None:
        assert (await self.terminals[at].reversal(request)).approved

    async def enter(self, card: str, holder: str, status: str) -> None:
        await self.switch.enter(f"{CARDS_HEADER}\n{self.cards[card]},{holder},student,{status},{FAR_FUTURE},0,0\n")

    async def run(self) -> None:
        """Everything that a day may hold."""
        switch = self.switch
        await switch.enter(MERCHANTS)
        for name, merchant in (("first", CANTEEN), ("second", CANTEEN), ("shop", SHOP)):
            self.devices[name] = await switch.device(merchant=merchant)
        self.cards = {
            "rich": await switch.card(),
            "poor": await switch.card(cash=1000, subsidy=500),
            "lost": await switch.card(status="lost"),
            "frozen": await switch.card(status="frozen"),
            "cancelled": await switch.card(status="cancelled"),
            "expired": await switch.card(expires=str(today(-1))),
            "black": await switch.card(status="blacklisted"),
            "debtor": await switch.card(cash=100),
            "turning": await switch.card(),
            "found": await switch.card(status="lost"),
            "old": await switch.card(),
            "new": "6231000000000009",
            "idle": await switch.card(cash=4321, subsidy=12),
        }
        for name, device in self.devices.items():
            self.terminals[name] = switch.terminal(device)
            await self.terminals[name].sign_on()

        await self.buy("first", "rich", 850, "00")
        await self.undo("first", await self.buy("first", "rich", 450, "00"))
        await self.buy("second", "poor", 1200, "00")
        refused = await self.buy("second", "poor", 400, "51")
        await self.undo("second", refused)
        await self.buy("shop", "poor", 300, "00")
        for card, answer in (("lost", "41"), ("frozen", "62"), ("black", "62"), ("cancelled", "78"), ("expired", "54"), ("stranger", "14")):
            await self.buy("first", card, 500, answer)
        # A reversal of the last purchase but one, and once more.
        one = await self.buy("first", "rich", 100, "00")
        await self.buy("first", "rich", 200, "00")
        await self.undo("first", one)
        await self.undo("first", one)
        # A reversal that overtakes its purchase.
        overtaken = self.terminals["first"].protocol.purchase(datetime.datetime.now(zoneinfo.ZoneInfo(ZONE)), self.cards["rich"], 700)
        await self.undo("first", overtaken)
        assert (await self.terminals["first"].exchange(overtaken)).code == "12"
        await self.buy("shop", "rich", 100, "57", purse="20")
        await self.buy("shop", "rich", 0, "13")
        assert (await self.terminals["second"].balance(self.cards["rich"])).approved
        # One card is lost in the middle of the day, another one is replaced.
        await self.buy("second", "turning", 500, "00")
        await self.enter("turning", f"H{self.cards['turning']}", "lost")
        await self.buy("second", "turning", 500, "41")
        await self.buy("second", "found", 40, "41")
        await self.enter("found", f"H{self.cards['found']}", "active")
        await self.buy("second", "found", 40, "00")
        await self.buy("second", "old", 60, "00")
        await self.enter("old", f"H{self.cards['old']}", "lost")
        await self.enter("new", f"H{self.cards['old']}", "active")
        await self.buy("second", "new", 70, "00")
        # Told of afterwards: it leaves a debt.
        elements = {"2": self.cards["debtor"], "3": "000000", "4": "000000000900", "49": "156"}
        told = self.terminals["shop"].protocol.request("0220", datetime.datetime.now(zoneinfo.ZoneInfo(ZONE)), elements)
        assert (await self.terminals["shop"].exchange(told)).approved
        for terminal in self.terminals.values():
            terminal.close()


LEFT_OUT = {
    "offline_sale 00": 1,
    "purchase 00": 1,
    "purchase 12": 1,
    "purchase 13": 1,
    "purchase 41": 2,
    "purchase 57": 1,
    "reversal 00": 2,
}
"""Told of afterwards, of a replaced card, overtaken, of nothing, of one card lost at noon and one found, subsidy at a shop; what cannot
be reversed again."""

TAKEN = {CANTEEN: 850 + 1200 + 200 + 500 + 40 + 70, SHOP: 300}
"""By what is in the export."""


async def followed(switch: Switch) -> None:
    """Until PostgreSQL is followed at all; the end of the switch brings the rest."""
    await until(switch.metrics, lambda metrics: metrics.value("switch_settled_position") >= 1)


@pytest.fixture
async def day(make_switch: Callable[..., Switch], database_url: str) -> Day:
    """It is over: its switch has ended, PostgreSQL has all of it."""
    day = Day(make_switch(database=database_url))
    await in_thread(day.switch.start)
    await day.run()
    day.purses = {name: await day.switch.purses(card) for name, card in day.cards.items()}
    await followed(day.switch)
    await in_thread(day.switch.stop)
    return day


def export(day: Day, folder: Path, *more: str | Path, on: str | None = None) -> dict[str, Any]:
    done = day.switch.command("export-replay", "--config", day.switch.file, "--day", on or str(today()), "--output", folder, *more)
    assert done.returncode == 0, done.stderr
    return dict(report_of(done))


def key_file(folder: Path, text: str = KEY) -> Path:
    path = folder / "pseudonyms.key"
    path.write_text(text)
    path.chmod(0o600)
    return path


def replayed(campus: Campus, entries: list[Entry], port: int) -> Counter[str]:
    """Sends it line by line, in order, and gives the fen that moved by merchant."""
    tills = {row.terminal_id: Till(row, ("127.0.0.1", port), zoneinfo.ZoneInfo(ZONE), 10.0) for row in campus.terminals}
    merchants = {row.terminal_id: row.merchant_id for row in campus.terminals}
    expectations = Expectations({card.card_number: card for card in campus.cards}, today())
    taken: Counter[str] = Counter()
    for till in tills.values():
        till.sign_on()
    for entry in entries:
        _, moved = tills[entry.terminal_id].ask(entry, expectations.answers(entry.operation, entry.card_number))
        taken[merchants[entry.terminal_id]] += -moved if entry.operation is Operation.REVERSAL else moved
    for till in tills.values():
        till.close()
    return taken


async def test_a_day_comes_out_and_is_replayed_with_the_same_totals(day: Day, make_switch: Callable[..., Switch], tmp_path: Path) -> None:
    folder = tmp_path / "export"
    said = await in_thread(lambda: export(day, folder, "--key", key_file(tmp_path)))
    assert said["left_out"] == LEFT_OUT
    assert (said["purchases"], said["approved"], said["reversals"], said["fen"]) == (16, 9, 3, sum(TAKEN.values()))
    assert said["requests"] == 19
    assert (said["day"], said["cards"], said["debts"], said["terminals"], said["merchants"]) == (str(today()), 13, 1, 3, 2)

    # The accounts of the day itself: the export lacks what the replaced card paid and what was told of afterwards, and nothing else.
    database = day.switch.file.read_text().split('url = "')[1].split('"')[0]
    spent = dict(await in_thread(lambda: run_asyncio(fetch(database, "SELECT merchant_id, sum(amount)::bigint FROM spending GROUP BY 1"))))
    assert spent == {CANTEEN: TAKEN[CANTEEN] + 60, SHOP: TAKEN[SHOP] + 900}

    entries = list(read_entries(folder / REPLAY_NAME))
    assert entries[0].offset_ms == 0
    assert entries[-1].offset_ms == said["lasts_ms"]
    campus = Campus.read(folder)
    fresh = make_switch()
    imported = await in_thread(
        lambda: fresh.command("import", "--config", fresh.file, *(folder / f"{name}.csv" for name in ("merchants", "terminals", "cards")))
    )
    assert imported.returncode == 0, imported.stderr
    await in_thread(fresh.start)
    assert await in_thread(lambda: replayed(campus, entries, fresh.port)) == Counter(TAKEN)

    # Purses end as they ended. They are opened once, by the first of a holder's cards.
    pseudonyms = Pseudonyms(bytes.fromhex(KEY))
    replaced = [card for card in campus.cards if card.card_number in {pseudonyms.card(day.cards[name]) for name in ("old", "new")}]
    assert len({card.holder_id for card in replaced}) == 1
    assert sorted(card.cash for card in replaced) == [0, 100_000 - 60]
    assert day.purses["debtor"] == (-800, 0)
    for name, purses in (day.purses | {"debtor": (0, 0)}).items():
        assert await fresh.purses(pseudonyms.card(day.cards[name])) == purses, name


async def test_nobody_is_in_it(day: Day, tmp_path: Path) -> None:
    def exports() -> dict[str, Path]:
        key = key_file(tmp_path)
        export(day, tmp_path / "keyed", "--key", key)
        export(day, tmp_path / "again", "--key", key)
        (tmp_path / "other").mkdir(mode=0o755)
        export(day, tmp_path / "other")
        export(day, tmp_path / "another")
        return {name: tmp_path / name for name in ("keyed", "again", "other", "another")}

    folders = await in_thread(exports)
    secret = [*day.cards.values(), STRANGER, *(f"H{card}" for card in day.cards.values())]
    secret += [device.master_key.hex() for device in day.devices.values()]
    for folder in folders.values():
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for file in folder.iterdir():
            text = file.read_text()
            assert not [known for known in secret if known in text], file

    def cards(name: str) -> list[str]:
        return [card.card_number for card in Campus.read(folders[name]).cards]

    # Whoever has a list of the people and their cards cannot count them off.
    pseudonyms = Pseudonyms(bytes.fromhex(KEY))
    listed = sorted((f"H{day.cards['old' if name == 'new' else name]}", number) for name, number in day.cards.items())
    assert cards("keyed") != [pseudonyms.card(number) for _, number in listed]
    for number in cards("keyed"):
        assert len(number) == 19
        assert luhn_digit(number[:-1]) == number[-1]
    # The same key, the same cards; without one nobody can be followed from export to export.
    for name in (REPLAY_NAME, "cards.csv", "merchants.csv"):
        assert (folders["keyed"] / name).read_bytes() == (folders["again"] / name).read_bytes()
    assert not set(cards("keyed")) & set(cards("other")) | set(cards("other")) & set(cards("another"))
    keys = [row.key for name in folders for row in Campus.read(folders[name]).terminals]
    assert len(set(keys)) == len(keys)
    # Within an export a card stays the same card.
    asked = Counter(entry.card_number for entry in read_entries(folders["other"] / REPLAY_NAME))
    assert sorted(asked.values()) == sorted([6, 4, 1, 1, 1, 1, 1, 1, 1, 1, 1])


async def test_what_is_refused(day: Day, tmp_path: Path) -> None:
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "mine").touch()
    bad = tmp_path / "bad"
    bad.mkdir()

    def refusal(*arguments: str | Path) -> str:
        done = day.switch.command("export-replay", "--config", day.switch.file, *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("switch export-replay: ")
        assert done.stderr.count("\n") == 1
        return done.stderr

    def refusals() -> dict[str, str]:
        out = tmp_path / "out"
        on = ["--day", str(today())]
        found = {
            "no date": refusal("--day", "yesterday", "--output", out),
            "no such day": refusal("--day", "2001-01-01", "--output", out),
            "occupied": refusal(*on, "--output", occupied),
            "a file": refusal(*on, "--output", occupied / "mine"),
            "short key": refusal(*on, "--output", out, "--key", key_file(bad, "5a5a")),
        }
        # As where the disk is full, but for the words.
        command = [str(part) for part in (PROGRAM, "export-replay", "--config", day.switch.file, *on, "--output", out)]
        found["full"] = subprocess.run(["prlimit", "--fsize=300", *command], capture_output=True, text=True, check=False).stderr
        key = key_file(bad)
        key.chmod(0o644)
        found["open key"] = refusal(*on, "--output", out, "--key", key)
        return found

    found = await in_thread(refusals)
    assert "'yesterday' is no day; write it as YYYY-MM-DD" in found["no date"]
    assert f"knows no business day 2001-01-01; it has {today()} to {today()}" in found["no such day"]
    assert "not empty" in found["occupied"]
    assert [path.name for path in occupied.iterdir()] == ["mine"]
    assert "mine: File exists" in found["a file"]
    assert "out: File too large." in found["full"]
    assert "a key is 64 hex digits" in found["short key"]
    assert "other users may read this secret" in found["open key"]
    assert not list((tmp_path / "out").iterdir())


async def test_a_day_on_which_nothing_was_bought(make_switch: Callable[..., Switch], database_url: str, tmp_path: Path) -> None:
    switch = make_switch(database=database_url)

    async def refusal() -> str:
        done = await in_thread(
            lambda: switch.command("export-replay", "--config", switch.file, "--day", str(today()), "--output", tmp_path / "out")
        )
        assert done.returncode == 1
        assert not list((tmp_path / "out").iterdir())
        return done.stderr

    assert "follows no journal yet" in await refusal()
    await in_thread(switch.start)
    await switch.enter(MERCHANTS)
    await followed(switch)
    assert "holds no transaction of any day" in await refusal()
    async with switch.terminal(await switch.device()) as terminal:
        await terminal.sign_on()
    await in_thread(switch.stop)
    assert f"On {today()} nothing was bought" in await refusal()
    switch.configure(database_url="postgresql://nobody@127.0.0.1:1/none")
    assert "PostgreSQL: " in await refusal()


def test_a_pseudonym_is_the_same_under_the_same_key_alone() -> None:
    ours, others = Pseudonyms(bytes(32)), Pseudonyms(bytes(31) + b"\1")
    numbers = [f"{number:016}" for number in range(1000)]
    assert [ours.card(number) for number in numbers] == [Pseudonyms(bytes(32)).card(number) for number in numbers]
    assert len({*map(ours.card, numbers), *map(others.card, numbers)}) == 2000
    # Leading zeros count, and a card is no holder.
    assert ours.card("12") != ours.card("012")
    assert len(ours.holder("20260001")) == 20
    assert json.dumps(ours.holder("张三")).isascii()
