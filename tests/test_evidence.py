"""Evidence reports: what `switch audit` writes is whole and true, and whatever is altered in it is found by a program that shares
nothing with the switch, on a machine that has nothing but that one folder of it.

The records come from a real switch that served every kind of message. Two kinds of forger are played: one who alters a report, and
one who also puts the seal right. What the second cannot be caught at stands in `BELIEVED`, and in docs/evidence.md.
"""

import copy
import datetime
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from blake3 import blake3

from switch import evidence
from switch.evidence.records import ACTS, EVENTS, KEYS, KINDS, PAYEES, PINS, PURSES, RESPONSES, STANDINGS, TOTALS
from tests.clock import Clock
from tests.messages import Fields
from tests.switch_process import (
    CANTEEN,
    CARDS_HEADER,
    DEADLINE_SECONDS,
    MERCHANTS,
    SHOP,
    Connection,
    Device,
    Switch,
    in_thread,
    today,
    until,
)

Lines = list[dict[str, Any]]
Path_ = tuple[str | int, ...]


RULES = (
    "transaction_max,*,shop,,,,,60000",
    "meal,student,canteen,,1-46,06:00,09:30,3",
    "pin_above,*,shop,,,,,5000",
    "subsidy,*,shop,,,,,yes",
    "surcharge,student,canteen,,,,,1500",
    "surcharge,teacher,*,,,,,-2500",
    "refuse,temporary,*,,,,,",
    "door,student,,NORTH,,05:00,23:30,",
    "anti_passback,,,NORTH,,,,30",
)


async def serve_a_day(switch: Switch, chance: random.Random, clock: Clock) -> None:
    """Every kind of record, day's end included: purchases of each choice of purses, declines, reversals of each kind, new parties,
    and then all operations under rules.
    """
    await in_thread(switch.start)
    await switch.enter(MERCHANTS)
    tills = [await switch.device(), await switch.device(), await switch.device(merchant=SHOP)]
    cards = await switch.cards(6, cash=20_000, subsidy=3_000)
    lost = await switch.card(status="lost")
    async with switch.connect() as connection:
        for till in tills:
            await till.sign_on(connection)
        for _ in range(12):
            await pay(connection, chance.choice(tills), chance, cards)
        till, card = tills[0], cards[0]
        await till.ask(connection, till.purchase(lost, 100))
        await till.ask(connection, till.purchase("4711", 100))
        await till.ask(connection, till.purchase(card, 4_999_999))
        await till.ask(connection, till.message("0100", de3="770000"))
        never_came = till.purchase(card, 100)
        assert (await till.ask(connection, till.reversal(never_came))).code == "00"
        assert (await till.ask(connection, never_came)).code == "12"
        bought = till.purchase(card, 1777)
        assert (await till.ask(connection, bought)).code == "00"
        assert (await till.ask(connection, till.reversal(bought, de4="000000000778"))).code == "94"
        # The terminal changes hands, and undoes by DE90 alone what it sold for the merchant before, twice.
        await switch.enter(f"terminal_id,merchant_id,kind,zone,key\n{till.terminal_id},{SHOP},pos,Hall 2,{till.master_key.hex()}\n")
        for _ in range(2):
            undone = till.reversal(bought, de2=None, de4=None, de49=None, de42=CANTEEN.ljust(15), de60="000007", de24="003")
            assert (await till.ask(connection, undone)).code == "00"
        await switch.enter(f"{CARDS_HEADER}\n77,X,family,active,2099-12-31,0,5\n")
        till.merchant_id = SHOP
        for _ in range(6):
            await pay(connection, chance.choice(tills), chance, cards)
        await till.ask(connection, till.message("0800", de70="002"))
        forgotten = await serve_every_operation(switch, connection, tills[1], chance)

        async def held() -> int:
            return int((await switch.show("card", forgotten))["holds"])

        assert await held() == 700
        clock.set(1)
        await until(held, lambda fen: fen == 0)
        await pay(connection, tills[2], chance, cards)
    await in_thread(switch.stop)


@dataclass(frozen=True)
class Scene:
    """The terminals and the cards of all operations."""

    switch: Switch
    connection: Connection
    till: Device
    shop: Device
    counter: Device
    water: Device
    library: Device
    meter: Device
    gate: Device
    student: str
    debtor: str
    lost: str
    teacher: str

    async def ask(self, device: Device, fields: Fields, code: str = "00") -> str:
        """The transaction number, where it was decided."""
        answer = await device.ask(self.connection, fields)
        assert answer.code == code, (fields, answer.fields)
        return answer.fields.get("37", "")


async def serve_every_operation(switch: Switch, connection: Connection, till: Device, chance: random.Random) -> str:
    """All of them, approved, declined, undone, flagged and late. Gives a card of which 700 fen are held at the end."""
    shop = await switch.device(merchant=SHOP)
    counter, water, library, meter = [await switch.device(kind=kind) for kind in ("counter", "water", "library", "meter")]
    gate = await switch.device(kind="gate", zone="NORTH")
    for device in (shop, counter, water, library, meter, gate):
        await device.sign_on(connection)
    student, debtor = await switch.cards(2, cash=20_000, subsidy=3_000)
    lost = await switch.card(status="lost")
    teacher = await switch.card(card_class="teacher", cash=50_000)
    await switch.rule(*RULES)
    await switch.set_pins({student: "4821", teacher: "123456"})
    scene = Scene(switch, connection, till, shop, counter, water, library, meter, gate, student, debtor, lost, teacher)
    for part in (sell, sell_offline, pay_in_and_out, use_water, show_cards, close_batches, report):
        await part(scene)
    await switch.rule(RULES[0])
    for _ in range(8):
        await pay(connection, chance.choice([till, shop]), chance, [student, teacher, debtor, lost])
    return student


async def sell(scene: Scene) -> None:
    """Surcharges and discounts, refunded in parts and undone; PINs."""
    till, shop, student, teacher = scene.till, scene.shop, scene.student, scene.teacher
    bought = till.purchase(student, 2_777)
    number = await scene.ask(till, bought)
    await scene.ask(till, till.refund(number, 333))
    refund = till.refund(number, 777, de2=student)
    await scene.ask(till, refund)
    await scene.ask(till, till.refund(number, 2_000), "61")
    await scene.ask(till, till.void(number), "12")
    await scene.ask(till, till.reversal(refund))
    await scene.ask(till, till.refund(number, 444))
    await scene.ask(till, till.reversal(bought, de2=None, de4=None))
    await scene.ask(till, till.reversal(refund))
    await scene.ask(till, till.refund(number, 1), "12")
    number = await scene.ask(shop, shop.purchase(teacher, 8_001, de48=shop.pin(teacher, "123456")))
    await scene.ask(shop, shop.purchase(teacher, 8_001, de48=shop.pin(teacher, "654321")), "55")
    await scene.ask(shop, shop.refund(number, 2_000))
    number = await scene.ask(shop, shop.purchase(student, 500, de3="002000"))
    await scene.ask(shop, shop.void(number, de4="000000000001"))
    await scene.ask(shop, shop.void("000000000001"), "25")
    await scene.ask(shop, shop.purchase(await scene.switch.card(card_class="temporary"), 100), "57")


async def pay_in_and_out(scene: Scene) -> None:
    """Loads and bills."""
    counter, student, teacher, lost = scene.counter, scene.student, scene.teacher, scene.lost
    load = counter.load(student, 5_000)
    await scene.ask(counter, load)
    await scene.ask(counter, counter.load(lost, 5_000), "41")
    await scene.ask(counter, counter.reversal(load))
    bill = counter.bill(student, 1_234, "02")
    await scene.ask(counter, bill)
    await scene.ask(counter, counter.bill(student, 99_999), "51")
    await scene.ask(counter, counter.bill(teacher, 4_321, "01"))
    await scene.ask(counter, counter.reversal(bill))


async def sell_offline(scene: Scene) -> None:
    """A debt, a lost card, what was undone, and what nobody can post any more."""
    till, water, gate, student, debtor, lost = scene.till, scene.water, scene.gate, scene.student, scene.debtor, scene.lost
    await scene.ask(till, till.offline_sale(debtor, 30_000))
    await scene.ask(till, till.offline_sale(lost, 100))
    sold = till.offline_sale(student, 900, de60="000002")
    await scene.ask(till, sold)
    await scene.ask(till, till.reversal(sold, de60="000002"))
    await scene.ask(till, till.offline_sale("4711", 100), "14")
    await scene.ask(till, till.purchase(debtor, 1), "51")
    long_ago = f"{today(-20):%m%d}"
    await scene.ask(till, till.offline_sale(student, 900, de13=long_ago), "12")
    await scene.ask(water, water.completion("000000000005", 10, de13=long_ago), "12")
    await scene.ask(gate, gate.advice("enter", student, de13=long_ago), "12")
    await scene.ask(till, till.reversal(till.offline_sale(student, 900, de13=long_ago)), "12")
    await scene.ask(till, till.reversal(sold, de13=long_ago), "12")
    await scene.ask(till, till.offline_sale(student, 900, de13=long_ago, de3="770000"), "12")


async def use_water(scene: Scene) -> None:
    """Holds that are completed, undone, and one that lapses."""
    water, student = scene.water, scene.student
    number = await scene.ask(water, water.hold(student, 1_000))
    await scene.ask(water, water.completion(number, 1_001), "61")
    completion = water.completion(number, 432)
    number = await scene.ask(water, completion)
    await scene.ask(water, water.reversal(completion))
    hold = water.hold(student, 999_999)
    await scene.ask(water, hold)
    await scene.ask(water, water.hold(student, 1), "51")
    await scene.ask(water, water.reversal(hold))
    await scene.ask(water, water.hold(student, 700))


async def show_cards(scene: Scene) -> None:
    """Doors, the library, cards that are lost and found."""
    gate, library, counter, shop, student, teacher, lost = (
        scene.gate,
        scene.library,
        scene.counter,
        scene.shop,
        scene.student,
        scene.teacher,
        scene.lost,
    )
    await scene.ask(gate, gate.act("enter", student))
    await scene.ask(gate, gate.act("enter", student), "57")
    await scene.ask(gate, gate.advice("leave", teacher))
    await scene.ask(gate, gate.act("attendance", teacher))
    await scene.ask(gate, gate.advice("verify", lost))
    await scene.ask(library, library.act("borrow", student, "QA76.73"))
    await scene.ask(library, library.act("borrow", teacher, "QA76.73"), "12")
    await scene.ask(library, library.advice("borrow", lost, "Z 1"))
    await scene.ask(library, library.act("return", student, "QA76.73"))
    await scene.ask(library, library.act("return", student, "Q"), "25")
    await scene.ask(counter, counter.loss(teacher))
    await scene.ask(shop, shop.purchase(teacher, 1), "41")
    await scene.ask(counter, counter.found(teacher))
    await scene.ask(counter, counter.loss(lost))


async def close_batches(scene: Scene) -> None:
    """Two of the counter's, one of them only when it is told right."""
    counter, student = scene.counter, scene.student
    await scene.ask(counter, counter.batch_close(1, (1, 5_000, 1, 5_000, 2, 5_555, 1, 1_234)))
    await scene.ask(counter, counter.batch_close(2, (0,) * 7 + (1,)), "95")
    await scene.ask(counter, counter.load(student, 100))
    await scene.ask(counter, counter.batch_close(2, (1, 100, 0, 0, 0, 0, 0, 0)))


async def report(scene: Scene) -> None:
    """A meter reports, is stolen and is found."""
    meter, switch = scene.meter, scene.switch
    await scene.ask(meter, meter.event("01", "7-301", "2350 W"))
    await scene.ask(meter, meter.event("04"))
    await switch.enter(f"terminal_id,standing\n{meter.terminal_id},suspended\n")
    await scene.ask(meter, meter.event("04"), "58")
    await switch.enter(f"terminal_id,standing\n{meter.terminal_id},active\n")


async def pay(connection: Connection, till: Device, chance: random.Random, cards: list[str]) -> None:
    """A purchase, now and then undone."""
    purses = chance.choice(["000000", "001000", "002000"])
    request = till.purchase(chance.choice(cards), chance.randint(1, 1500), de3=purses)
    answer = await till.ask(connection, request)
    if answer.code == "00" and chance.random() < 0.3:
        assert (await till.ask(connection, till.reversal(request))).code == "00"


@dataclass(frozen=True)
class Case:
    """A stopped switch and reports on it."""

    switch: Switch
    last: int
    whole: Path
    early: Path
    late: Path
    """What follows the early one."""

    def report(self, folder: Path, first: object, last: object) -> Path:
        file = folder / f"{first}-{last}.jsonl"
        completed = self.audit(first, last, "--output", file)
        assert completed.returncode == 0, completed.stderr
        return file

    def audit(self, first: object, last: object, *more: str | Path) -> subprocess.CompletedProcess[str]:
        return self.switch.command("audit", "--config", self.switch.file, "--from", str(first), "--to", str(last), *more)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    seed = random.randrange(2**32)  # noqa: S311 - no secret
    print(f"seed {seed}")  # noqa: T201 - shown where a test fails
    folder = tmp_path_factory.mktemp("evidence")
    switch = Switch(folder / "data", policy_hold_hours=1)
    try:
        with pytest.MonkeyPatch.context() as patch:
            trio.run(serve_a_day, switch, random.Random(seed), Clock(folder, patch))  # noqa: S311 - no secret
        last = switch.verify()["records"]
        bare = Case(switch, last, folder, folder, folder)
        whole = bare.report(folder, 1, last)
        early = bare.report(folder, 1, last // 2)
        ends = read(early)[-2]["last"]
        assert ends < last
        yield Case(switch, last, whole, early, bare.report(folder, ends + 1, last))
    finally:
        switch.close()


def read(report: Path) -> Lines:
    return [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]


def canonical(document: object) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def written(lines: Lines, file: Path) -> Path:
    """A report of these lines with the seal that fits them."""
    return sealed_text([canonical(line) for line in lines[:-1]], file)


def sealed_text(texts: list[str], file: Path) -> Path:
    text = "".join(f"{line}\n" for line in texts).encode()
    seal = {"line": "seal", "sha256": hashlib.sha256(text).hexdigest()}
    file.write_bytes(text + canonical(seal).encode() + b"\n")
    return file


class Forger:
    """Alters single lines of a report and puts the seal right."""

    def __init__(self, lines: Lines, file: Path) -> None:
        self.lines = lines
        self._texts = [canonical(line) for line in lines[:-1]]
        self._file = file

    def put(self, index: int, path: Path_, value: object) -> Path:
        """With another value in the line at `index`."""
        line = copy.deepcopy(self.lines[index])
        place: Any = line
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        return self.put_line(index, line)

    def put_line(self, index: int, line: dict[str, Any]) -> Path:
        return sealed_text([*self._texts[:index], canonical(line), *self._texts[index + 1 :]], self._file)


# --- sound reports ---


def test_a_report_holds_every_kind_of_record_and_is_sound(case: Case) -> None:
    lines = read(case.whole)
    records = [line for line in lines if line["line"] == "record"]
    assert [record["position"] for record in records] == list(range(1, case.last + 1))
    # Limits are written with those of holds and PINs by now.
    assert {record["record"]["kind"] for record in records} == set(KINDS.values()) - {"policy"}
    responses = {record["record"]["response"] for record in records}
    assert responses == {"00", "12", "14", "25", "41", "51", "55", "57", "61", "94", "95"}
    assert {record["record"]["flag"] for record in records} >= {None, "41", "51", "57"}
    accounts = {movement[end] for record in records for movement in record["ledger"]["movements"] for end in ("debit", "credit")}
    assert accounts >= {"house:fees", "house:grants", "house:cash_desk", "payee:tuition", "payee:electricity"}
    found = evidence.check(case.whole)
    assert (found.ok, found.complete, found.first, found.last) == (True, True, 1, case.last), found.problem
    checked = case.switch.verify()
    assert found.state_digest == checked["state_digest"]
    assert found.asked == case.last
    assert stat_mode(case.whole) == 0o600


def test_the_page_names_every_field_and_value(case: Case) -> None:
    page = (Path(__file__).parent.parent / "docs" / "evidence.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w-]+)`", page))

    def names(document: object) -> set[str]:
        if isinstance(document, list):
            return set().union(*map(names, document))
        return set(document) | names(list(document.values())) if isinstance(document, dict) else set()

    printed = names(read(case.whole))
    assert len(printed) > 60
    assert printed <= named
    enumerations = (KEYS, PURSES, PINS, PAYEES, ACTS, EVENTS, STANDINGS)
    assert {*KINDS.values(), *TOTALS}.union(*enumerations) <= named
    assert ", ".join(RESPONSES) in page
    for number, kind in KINDS.items():
        assert f"| `{kind}` | {number} |" in page


def stat_mode(file: Path) -> int:
    return file.stat().st_mode & 0o777


def test_what_is_printed_is_what_was_asked_of_the_switch(case: Case) -> None:
    """A purchase and the reversal of it, as the terminal knows them."""
    records = [line for line in read(case.whole) if line["line"] == "record"]
    (bought,) = [line for line in records if line["record"].get("amount") == 1777 and line["record"]["kind"] == "purchase"]
    said = bought["record"]
    assert (said["mti"], said["response"], said["currency"], said["purses"]) == ("0200", "00", "156", "policy")
    assert (bought["ledger"]["merchant"], said["paid_cash"] + said["paid_subsidy"]) == (CANTEEN, 1777)
    at = datetime.datetime.fromisoformat(said["at"])
    assert at.utcoffset() is not None
    assert abs(at - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(hours=1)
    assert said["terminal_clock"][:10] == bought["ledger"]["business_date"] == str(today())
    undone = [line for line in records if line["record"]["original"] == bought["position"]]
    assert [line["record"]["response"] for line in undone] == ["94", "00", "00"]
    assert [sum(movement["fen"] for movement in line["ledger"]["movements"]) for line in undone] == [0, 1777, 0]
    assert undone[1]["ledger"]["merchant"] == CANTEEN, "the merchant for whom it was sold, not the terminal's new one"
    assert undone[1]["ledger"]["holder"] == bought["ledger"]["holder"], "although the reversal names no card"


def test_no_key_is_printed(case: Case) -> None:
    records = [line["record"] for line in read(case.whole) if line["line"] == "record"]
    for record in records:
        assert not [name for name in record if re.search("nonce|wrapped|verif", name)]
    assert {frozenset(record) for record in records if record["kind"] == "pin"} == {
        frozenset(records[0]) - {"amount_max", "identity_days", "hold_hours", "pin_tries_max"} | {"card"}
    }
    text = case.whole.read_text(encoding="utf-8")
    keys = [case.switch.folder / "keys" / name for name in ("key-encryption.key", "admin.token")]
    assert not [key for key in keys if key.read_text().strip() in text]


def test_batches_are_whole_and_what_was_asked_for_is_marked(case: Case, tmp_path: Path) -> None:
    for position in (1, case.last // 3, case.last):
        lines = read(case.report(tmp_path, position, position))
        (batch,) = [line for line in lines if line["line"] == "batch"]
        assert batch["first"] <= position <= batch["last"]
        assert [line["position"] for line in lines if line.get("asked") is True] == [position]
        assert evidence.check(tmp_path / f"{position}-{position}.jsonl").ok


def test_a_business_day_is_all_of_its_records(case: Case, tmp_path: Path) -> None:
    report = case.report(tmp_path, today(), today(1))
    found = evidence.check(report)
    assert found.ok, found.problem
    asked = [line for line in read(report) if line.get("asked") is True]
    cutover = next(line for line in read(case.whole) if line.get("record", {}).get("kind") == "cutover")
    assert (asked[0]["position"], asked[-1]["position"]) == (cutover["position"], case.last)


def test_a_report_that_follows_is_checked_with_all_that_went_before(case: Case) -> None:
    alone, after = evidence.check(case.late), evidence.check(case.late, [case.early])
    assert (alone.ok, alone.complete) == (True, False), alone.problem
    assert (after.ok, after.complete) == (True, True), after.problem
    for file, follows, words in (
        (case.early, [case.late], "begins with record 1"),
        (case.late, [case.late], "ends with record"),
        (case.late, [case.whole], "ends with record"),
    ):
        found = evidence.check(file, follows)
        assert not found.ok
        assert words in (found.problem or ""), found.problem


def test_the_state_at_the_seam_of_two_reports_is_one(case: Case, tmp_path: Path) -> None:
    lines = read(case.early)
    other = written(put_at(lines, (len(lines) - 2, "state_digest"), "ab" * 32), tmp_path / "early")
    assert evidence.check(other).ok, "a report alone cannot tell"
    found = evidence.check(case.late, [other])
    assert not found.ok
    assert "the state's digest before it is not the one" in (found.problem or "")
    stranger = put_at(read(case.late), (0, "journal"), "ab" * 16)
    assert "of another journal" in (is_found(written(stranger, tmp_path / "late"), [case.early]).problem or "")


def test_a_hash_noted_elsewhere_fixes_the_history(case: Case) -> None:
    batches = [line for line in read(case.whole) if line["line"] == "batch"]
    notes = [evidence.Anchor(batch["hash"], batch["last"]) for batch in batches]
    found = evidence.check(case.whole, anchors=notes)
    assert (found.ok, found.anchors) == (True, len(batches))
    before = read(case.late)[0]["before"]
    assert evidence.check(case.late, anchors=[evidence.Anchor(before["hash"], before["position"])]).anchors == 1
    chained = evidence.check(case.late, [case.early], [notes[0], notes[-1]])
    assert (chained.ok, chained.anchors) == (True, 2)
    for anchor, words in (
        (evidence.Anchor("00" * 32, notes[1].position), "is not the one that was noted"),
        (evidence.Anchor("00" * 32, case.last + 1), "no batch ends with record"),
    ):
        found = evidence.check(case.whole, anchors=[notes[0], anchor])
        assert not found.ok
        assert words in (found.problem or "")


async def test_beside_the_running_switch(case: Case, tmp_path: Path) -> None:
    """The same bytes but for the moment; what the switch serves meanwhile is not in it; and the switch notes who asked."""
    switch = case.switch
    await in_thread(switch.start)
    try:
        before = {file: file.read_bytes() for file in switch.journal.iterdir() if file.name != "lock"}
        report = await in_thread(lambda: case.report(tmp_path, 1, case.last))
        assert {file: file.read_bytes() for file in before} == before, "nothing is changed"
        assert f"evidence from 1 to {case.last} is asked for by " in switch.log
        assert read(report)[1:-1] == read(case.whole)[1:-1]
        (switch.folder / "keys" / "admin.token").rename(tmp_path / "token")
        refused = await in_thread(lambda: case.audit(1, 1))
        (tmp_path / "token").rename(switch.folder / "keys" / "admin.token")
        assert (refused.returncode, refused.stdout) == (1, ""), "what cannot be noted is not given"
        response = await switch.http("POST", "/v1/audit", params={"from": "1", "to": "2", "by": "x\ny"})
        assert response.status_code == 422, "no line of a log is anybody's to write"
        assert (await switch.http("POST", "/v1/audit", token="wrong")).status_code == 401
    finally:
        await in_thread(switch.stop)


# --- the command ---


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        ("x", "2", "neither the number of a record"),
        ("0", "2", "neither the number of a record"),
        ("2026-02-30", "2026-03-01", "neither the number of a record"),
        ("3", "2", "exchange them"),
        ("1", "2026-11-22", "both business dates"),
        ("1", "99999999", "so there is no record 99999999"),
        ("2099-01-01", "2099-01-02", "nothing was recorded from"),
        ("2001-01-01", "2001-01-02", "nothing was recorded from"),
    ],
)
def test_what_cannot_be_reported_is_said(case: Case, tmp_path: Path, first: str, last: str, words: str) -> None:
    file = tmp_path / "report"
    completed = case.audit(first, last, "--output", file)
    assert (completed.returncode, completed.stdout) == (1, "")
    assert words in completed.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_kept(case: Case, tmp_path: Path) -> None:
    file = tmp_path / "report"
    file.write_text("precious")
    completed = case.audit(1, 2, "--output", file)
    assert (completed.returncode, file.read_text()) == (1, "precious")
    assert "is there already" in completed.stderr
    refused = case.audit("2099-01-01", "2099-01-01", "--output", file, "--overwrite")
    assert (refused.returncode, file.read_text()) == (1, "precious"), "a report that fails takes nothing's place"
    completed = case.audit(1, 2, "--output", file, "--overwrite")
    assert completed.returncode == 0, completed.stderr
    assert evidence.check(file).ok
    assert list(tmp_path.iterdir()) == [file]
    assert case.audit(1, 2, "--output", tmp_path / "no" / "folder").returncode == 1


def test_the_report_on_stdout(case: Case, tmp_path: Path) -> None:
    completed = case.audit(1, case.last)
    (tmp_path / "report").write_text(completed.stdout, encoding="utf-8")
    found = evidence.check(tmp_path / "report")
    assert found.ok, found.problem
    assert f"Note elsewhere: {found.hash}@{found.last}" in completed.stderr


def test_the_sentences_and_the_exit_code(case: Case, tmp_path: Path) -> None:
    note = f"{evidence.check(case.whole).hash}@{case.last}"
    sound = case.switch.command("check-evidence", case.whole, "--anchor", note)
    assert (sound.returncode, sound.stderr) == (0, "")
    assert "is sound" in sound.stdout
    assert "noted elsewhere" in sound.stdout
    lines = read(case.whole)
    at = next(index for index, line in enumerate(lines) if line.get("record", {}).get("kind") == "purchase")
    lines[at]["record"]["amount"] += 1
    altered = written(lines, tmp_path / "altered")
    found = case.switch.command("check-evidence", altered)
    assert found.returncode == 1
    assert f"line {at + 1}, record {lines[at]['position']}: the field amount is " in found.stdout
    as_json = json.loads(case.switch.command("check-evidence", altered, "--json").stdout)
    assert (as_json["ok"], as_json["line"], as_json["record"]) == (False, at + 1, lines[at]["position"])
    for arguments, words in (
        ((tmp_path / "none",), "cannot be read"),
        ((tmp_path,), "cannot be read"),
        ((case.whole, "--anchor", "12@x"), "64 hexadecimal digits"),
        ((case.whole, "--follows", tmp_path / "none"), "cannot be read"),
    ):
        completed = case.switch.command("check-evidence", *arguments)
        assert (completed.returncode, completed.stdout) == (1, ""), completed
        assert words in completed.stderr


def test_a_machine_that_has_only_python_one_package_and_one_folder(case: Case, tmp_path: Path) -> None:
    """A fresh environment with the package blake3 alone, as this one has it; the one folder and the reports in another place."""
    home = tmp_path / "elsewhere"
    venv.create(home / "python", with_pip=False)
    packages = next((home / "python" / "lib").glob("python*")) / "site-packages"
    ours = Path(str(sys.modules[blake3.__module__].__file__)).parent
    shutil.copytree(ours, packages / "blake3")
    shutil.copytree(Path(evidence.__file__).parent, home / "evidence")
    for report in (case.early, case.late):
        shutil.copy(report, home)
    python = home / "python" / "bin" / "python"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, *arguments], cwd=home, env=clean, check=False, capture_output=True, text=True, timeout=DEADLINE_SECONDS
        )

    assert ask("-c", "import switch").returncode == 1, "nothing of the switch is there"
    completed = ask("-m", "evidence", case.late.name, "--follows", case.early.name)
    assert (completed.returncode, completed.stderr) == (0, "")
    assert "reaches back to record 1" in completed.stdout
    content = (home / case.late.name).read_bytes()
    (home / case.late.name).write_bytes(content.replace(b'"asked":true', b'"asked":false', 1))
    completed = ask("-m", "evidence", case.late.name)
    assert (completed.returncode, completed.stderr) == (1, "")
    assert "line 3" in completed.stdout


# --- forgers ---


def is_found(file: Path, follows: list[Path] | None = None) -> evidence.Finding:
    found = evidence.check(file, follows or [])
    assert not found.ok, "an alteration is not found"
    assert found.problem
    return found


def test_every_altered_byte_is_found(case: Case, tmp_path: Path, chance: random.Random) -> None:
    content = case.whole.read_bytes()
    file = tmp_path / "altered"
    places = {*chance.sample(range(len(content)), 400), 0, len(content) - 1}
    for at in sorted(places):
        flipped = bytearray(content)
        flipped[at] ^= 1 << chance.randrange(8)
        file.write_bytes(flipped)
        found = is_found(file)
        assert found.line is not None
        # Named where it is, or at the latest where the batch or the report ends.
        assert found.line >= content[:at].count(b"\n") + 1 - (content[at] == 10 or flipped[at] == 10)
    for at in sorted(chance.sample(range(len(content)), 60)):
        for altered in (content[:at], content[:at] + content[at + 1 :], content[:at] + bytes([chance.randrange(256)]) + content[at:]):
            if altered != content:
                file.write_bytes(altered)
                is_found(file)
    for altered in (
        content + b"\n",
        content + content,
        content[:-1],
        b"",
        b"\n",
        content.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + content,
    ):
        file.write_bytes(altered)
        is_found(file)


@pytest.mark.parametrize("sealed", [False, True])
def test_lines_taken_away_doubled_or_exchanged_are_found(case: Case, tmp_path: Path, chance: random.Random, sealed: bool) -> None:
    lines = read(case.whole)

    def put(altered: Lines) -> Path:
        if sealed:
            return written(altered, tmp_path / "altered")
        (tmp_path / "altered").write_text("".join(canonical(line) + "\n" for line in altered), encoding="utf-8")
        return tmp_path / "altered"

    assert evidence.check(put(lines)).ok
    ends = [index for index, line in enumerate(lines[: len(lines) - sealed]) if line["line"] != "record"]
    for at in {*ends, *chance.sample(range(len(lines) - sealed), 60)}:
        is_found(put(lines[:at] + lines[at + 1 :]))
        is_found(put([*lines[:at], lines[at], *lines[at:]]))
        if at + 1 < len(lines) - sealed:
            is_found(put([*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]))


def leaves(document: object, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Every value that holds no other, and every empty list."""
    if isinstance(document, dict) and document:
        for name, value in document.items():
            yield from leaves(value, (*path, name))
    elif isinstance(document, list) and document:
        for index, value in enumerate(document):
            yield from leaves(value, (*path, index))
    else:
        yield path, document


def others(value: object) -> list[object]:
    """Other values that a forger may put in its place."""
    if isinstance(value, bool):
        return [not value, int(value), None]
    if isinstance(value, int):
        return [value + 1, value - 1, float(value), str(value), None, True]
    if isinstance(value, str):
        other = chr(ord(value[0]) ^ 1) + value[1:] if value else "x"
        return [other, value + "0", value[:-1], None, 0] if value else [other, None]
    if isinstance(value, list):
        return [[{"credit": "merchant:X", "debit": "cash:X", "fen": 1}], None]
    return [0, "", "1", False]


def test_a_line_has_one_text(case: Case, tmp_path: Path) -> None:
    """With a right seal: what one reader of JSON would take for another's is refused."""
    texts = [canonical(line) for line in read(case.whole)[:-1]]
    at = next(index for index, text in enumerate(texts) if '"kind":"merchant"' in text)
    others = [
        texts[at].replace('{"asked":true', '{"asked":false,"asked":true'),
        texts[at].replace('"asked":true,', "").replace('"line":', '"asked":true,"line":'),
        texts[at].replace(",", ", "),
        texts[at].replace('"record"', '"rec\\u006frd"', 1),
        texts[at] + " ",
        f"[{texts[at]}]",
        "NaN",
        "[" * 5_000,
    ]
    file = tmp_path / "altered"
    for other in others:
        assert other != texts[at]
        text = "".join(f"{line}\n" for line in [*texts[:at], other, *texts[at + 1 :]]).encode()
        file.write_bytes(text + canonical({"line": "seal", "sha256": hashlib.sha256(text).hexdigest()}).encode() + b"\n")
        found = is_found(file)
        assert found.line == at + 1
        assert "the line is not" in (found.problem or "")


def put_at(lines: Lines, path: Path_, value: object) -> Lines:
    altered = copy.deepcopy(lines)
    place: Any = altered
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return altered


BELIEVED = {("evidence", "made_at"), ("evidence", "made_by"), ("evidence", "timezone"), ("before", "state_digest"), ("end", "state_digest")}
"""What no record tells: only the seal holds these, and a forger may put that right. The digests are held against the next report's."""


def test_a_forger_who_puts_the_seal_right_is_found_in_a_whole_history(case: Case, tmp_path: Path, chance: random.Random) -> None:
    lines = read(case.whole)
    # One line of each kind is enough, but all that an approved operation can move.
    chosen: dict[object, int] = {}
    for index, line in enumerate(lines[:-1]):
        said, ends = line.get("record", {}), [movement["debit"][:4] for movement in line.get("ledger", {}).get("movements", [])]
        chosen.setdefault((line["line"], said.get("kind"), said.get("response") == "00", said.get("flag"), str(ends)), index)
    forger = Forger(lines, tmp_path / "altered")
    tried = 0
    # Half of them each time: all take a minute.
    for index in chance.sample([*chosen.values()], len(chosen) // 2):
        for path, value in leaves(lines[index]):
            where = (path[0] if path[0] == "before" else lines[index]["line"], path[-1])
            for other in chance.sample(others(value), 1 + (path[0] == "ledger")):
                if (other == value and type(other) is type(value)) or (where in BELIEVED and isinstance(other, str | None)):
                    continue
                found = evidence.check(forger.put(index, path, other))
                assert not found.ok, f"line {index + 1}, {path}: {value!r} became {other!r} unseen"
                assert found.line is not None
                tried += 1
        for name in lines[index]:
            is_found(forger.put_line(index, {key: value for key, value in lines[index].items() if key != name}))
        is_found(forger.put_line(index, {**lines[index], "more": 1}))
    assert tried > 600


def test_a_forger_is_found_in_a_part_of_a_history_where_the_records_tell(case: Case, tmp_path: Path, chance: random.Random) -> None:
    """Under `record` everything; under `ledger` what a second mention contradicts, and all of it once the earlier report is there."""
    lines = read(case.late)
    records = [index for index, line in enumerate(lines) if line["line"] == "record"]
    forger = Forger(lines, tmp_path / "altered")
    for index in chance.sample(records, 25):
        for path, value in leaves(lines[index]["record"]):
            is_found(forger.put(index, ("record", *path), others(value)[0]))
        for path, value in leaves(lines[index]["ledger"]):
            is_found(forger.put(index, ("ledger", *path), others(value)[0]), [case.early])
    numbers = [lines[index]["record"].get("terminal_number") for index in records]
    again = next(index for at, index in enumerate(records) if numbers[at] is not None and numbers[at] in numbers[:at])
    is_found(forger.put(again, ("ledger", "terminal"), "SOMEBODY"))


def rewritten(
    lines: Lines,
    alter: Callable[[dict[str, Any], bytes], bytes] = lambda _, content: content,
    alter_head: Callable[[bytearray], None] = lambda _: None,
    padding: bytes = b"\xa5",
) -> Lines:
    """A history written anew, hashes and all: each record as `alter` makes it of the line and its bytes, each head after `alter_head`."""
    lines = copy.deepcopy(lines)
    previous = lines[0]["before"]["hash"]
    start = 1
    while lines[start]["line"] == "batch":
        batch = lines[start]
        count = batch["last"] - batch["first"] + 1
        contents = [alter(line, bytes.fromhex(line["bytes"])) for line in lines[start + 1 : start + 1 + count]]
        payload = b"".join(len(content).to_bytes(2, "little") + content for content in contents)
        for line, content in zip(lines[start + 1 :], contents, strict=False):
            line["bytes"] = content.hex()
        head = bytearray.fromhex(batch["head"])
        head[56:64] = len(payload).to_bytes(8, "little")
        head[80:112] = bytes.fromhex(previous)
        head[40:48] = blake3(bytes(head[32:40] + head[48:])).digest()[:8]
        alter_head(head)
        previous = blake3(bytes(head[32:]) + payload + padding * (-(112 + len(payload)) % 4096)).hexdigest()
        head[:32] = bytes.fromhex(previous)
        number, first = (int.from_bytes(head[at : at + 8], "little") for at in (64, 72))
        batch.update(batch=number, first=first, last=first + count - 1, previous=head[80:].hex(), hash=previous, head=head.hex())
        start += 1 + count
    lines[start]["hash"] = previous
    return lines


def test_a_rewritten_history_is_told_by_a_note(case: Case, tmp_path: Path) -> None:
    """Somebody who writes the journal anew is found by one hash noted at the time."""

    def rename(line: dict[str, Any], content: bytes) -> bytes:
        if line["record"]["kind"] == "merchant":
            line["record"]["name"] = line["record"]["name"].replace("第一", "第二")
        return content.replace("第一".encode(), "第二".encode())

    lines = read(case.whole)
    noted = evidence.Anchor(evidence.check(case.whole).hash, case.last)
    assert written(rewritten(lines), tmp_path / "same").read_bytes() == case.whole.read_bytes()
    forged = written(rewritten(lines, rename), tmp_path / "forged")
    assert evidence.check(forged).ok, "as a history of its own it is sound"
    found = evidence.check(forged, anchors=[noted])
    assert not found.ok
    assert "is not the one that was noted" in (found.problem or "")


def test_bytes_that_are_hashed_and_not_printed_cannot_be_altered(case: Case, tmp_path: Path) -> None:
    """A wrapped key, a nonce, a bit without a meaning: the hash alone tells."""
    lines = read(case.whole)
    unprinted = {"terminal": (-3, -4, -10, -25), "sign_on": (-3, -10, -18), "purchase": (15,), "pin": (-3, -18)}
    for kind, places in unprinted.items():
        at = next(index for index, line in enumerate(lines) if line.get("record", {}).get("kind") == kind)
        for place in places:
            content = bytearray.fromhex(lines[at]["bytes"])
            # In a purchase's identity the bits 52 to 55 mean nothing.
            content[place] ^= 0x10
            found = is_found(written(put_at(lines, (at, "bytes"), content.hex()), tmp_path / "altered"))
            assert "the hash of batch" in (found.problem or ""), (kind, place, found.problem)
            assert found.record is not None
            assert found.record <= lines[at]["position"]


def test_a_report_of_the_format_before_is_read(case: Case, tmp_path: Path) -> None:
    """What a switch wrote and reported before there were holds and PINs: limits of the first kind, and fields that are missing."""

    def to_first_kind(line: dict[str, Any], content: bytes) -> bytes:
        said = line["record"]
        if said["kind"] == "limits":
            said["kind"] = "policy"
            content = b"\x01" + content[1:15] + content[18:]
            del said["hold_hours"], said["pin_tries_max"]
        for name in ("flag", "switch_totals", "pin"):
            said.pop(name, None)
        return content

    lines = read(case.whole)
    of_old = {None, "limits", *OLD}
    new = next(index for index, line in enumerate(lines) if line.get("record", {}).get("kind") not in of_old)
    ends = max(index for index, line in enumerate(lines[:new]) if line["line"] == "batch")
    records = [line for line in lines[:ends] if line["line"] == "record"]
    fen = sum(movement["fen"] for line in records for movement in line["ledger"]["movements"])
    first = lines[:ends]
    first[0] |= {"format": 1, "to": len(records)}
    counted = {"asked": len(records), "batches": len(first) - len(records) - 1, "credits": fen, "debits": fen}
    end = lines[-2] | counted | {"last": len(records), "records": len(records)}
    old = rewritten([*first, end, lines[-1]], to_first_kind)
    found = evidence.check(written(old, tmp_path / "old"))
    assert (found.ok, found.complete, found.last) == (True, True, len(records)), found.problem
    for wrong in (put_at(old, (0, "format"), 2), put_at(old, (0, "format"), 0), put_at(old, (0, "format"), 3)):
        is_found(written(wrong, tmp_path / "wrong"))


OLD = {"cutover", "merchant", "terminal", "card", "import", "sign_on", "sign_off", "purchase", "reversal", "unknown"}
"""Kinds of records that there were in format 1, beside limits."""


def test_a_history_that_no_switch_writes_is_found_however_well_it_is_hashed(case: Case, tmp_path: Path) -> None:
    lines = read(case.whole)

    def put(at: int, *values: int) -> Callable[[bytearray], None]:
        def alter(head: bytearray) -> None:
            head[at : at + len(values)] = bytes(values)
            if at != 40:
                head[40:48] = blake3(bytes(head[32:40] + head[48:])).digest()[:8]

        return alter

    heads = [
        ("own check", put(40, 0)),
        ("head is not that of a batch", put(39, 0)),
        ("head is not that of a batch", put(48, 2)),
        ("head is not that of a batch", put(52, 0, 0)),
        ("the hash of batch", put(57, 99)),
        ("does not follow batch 0", put(64, 2)),
        ("does not follow batch 0", put(72, 2)),
        ("whose hash is", put(80, 0, 0, 0)),
    ]
    for words, alter in heads:
        found = is_found(written(rewritten(lines, alter_head=alter), tmp_path / "altered"))
        assert words in (found.problem or ""), found.problem
    assert "hash of batch" in (is_found(written(rewritten(lines, padding=b"\0"), tmp_path / "altered")).problem or "")
    batches = [index for index, line in enumerate(lines) if line["line"] == "batch"]
    swapped = [*lines[: batches[1]], *lines[batches[2] : batches[3]], *lines[batches[1] : batches[2]], *lines[batches[3] :]]
    assert "does not follow batch" in (is_found(written(rewritten(swapped), tmp_path / "altered")).problem or "")
    no_genesis = put_at(lines, (0, "before", "hash"), "ab" * 32)
    assert "that of the journal's identity" in (is_found(written(rewritten(no_genesis), tmp_path / "altered")).problem or "")
