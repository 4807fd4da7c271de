"""What broken, hostile and dead peers, and broken files, do to the switch: nothing that anybody else notices."""

import random
import re
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest
import trio

from switch.dialect import decode, encode, frame
from tests.switch_process import (
    CANTEEN,
    CARDS_HEADER,
    DEADLINE_SECONDS,
    FAR_FUTURE,
    TERMINALS_HEADER,
    Connection,
    Device,
    Switch,
    in_thread,
    until,
)

GROWTH_BYTES_MAX = 48 << 20
"""By which the switch's memory may grow under all that is thrown at it here; unbounded, it would be hundreds of megabytes."""

IDLE_CONNECTIONS = 10_000
DESCRIPTORS_OF_THE_TESTS = 500


class Honest:
    """A terminal that pays one fen after another and is served, whatever happens beside it."""

    def __init__(self, device: Device, connection: Connection, card: str) -> None:
        self._device = device
        self._connection = connection
        self._card = card
        self._paid = 0

    async def pays(self, times: int) -> None:
        for _ in range(times):
            answer = await self._device.ask(self._connection, self._device.purchase(self._card, 1))
            self._paid += 1
            assert (answer.code, answer.purses) == ("00", (100_000 - self._paid, 0))

    async def pays_during(self, work: Callable[[], object]) -> None:
        """Pays over and over while `work` is done."""
        done = trio.Event()

        async def pay() -> None:
            while not done.is_set():
                await self.pays(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pay)
            await work()  # type: ignore[misc]
            done.set()


@pytest.fixture
async def honest(switch: Switch) -> AsyncIterator[Honest]:
    device, card = await switch.device(), await switch.card()
    async with switch.connect() as connection:
        await device.sign_on(connection)
        honest = Honest(device, connection, card)
        await honest.pays(1)
        yield honest
        await honest.pays(1)


async def resident_bytes(switch: Switch) -> int:
    return (await switch.metrics()).value("process_resident_memory_bytes")


# --- the wire ---


async def test_a_flood_of_garbage(switch: Switch, honest: Honest, chance: random.Random) -> None:
    before = await switch.metrics()
    connections = 400

    async def throw(number: int) -> None:
        kinds = [
            chance.randbytes(chance.randint(1, 70_000)),
            frame(chance.randbytes(chance.randint(1, 2048))) * 20,
            frame(bytes.fromhex("0200") + chance.randbytes(chance.randint(8, 300))) * 50,
            b"GET / HTTP/1.1\r\nHost: switch\r\n\r\n" * 100,
            b"\xff" * 100_000,
        ]
        async with switch.connect() as connection:
            try:
                await connection.send(kinds[number % len(kinds)])
                await connection.stream.send_eof()
                # What cannot be read is not answered; what can be is answered 30, for nothing of it is well-formed.
                for answer in await connection.until_closed():
                    assert (answer.code, answer.mac) == ("30", None) or answer.code in {"58", "12"}
            except trio.BrokenResourceError:
                pass  # closed while this was still sending

    async def flood() -> None:
        for _ in range(4):
            async with trio.open_nursery() as nursery:
                for number in range(connections // 4):
                    nursery.start_soon(throw, number)

    await honest.pays_during(flood)
    accepted = before.value("switch_connections_accepted_total") + connections
    after = await until(switch.metrics, lambda now: now.value("switch_connections") == before.value("switch_connections"))
    assert after.value("switch_connections_accepted_total") == accepted
    assert after.sum("switch_connections_closed_total") == before.sum("switch_connections_closed_total") + connections
    assert after.closed("length_over") >= before.closed("length_over") + connections // 5 * 2, "two kinds of five begin with such a length"
    assert after.value("process_resident_memory_bytes") < before.value("process_resident_memory_bytes") + GROWTH_BYTES_MAX


async def test_a_flood_of_messages_that_prove_nothing(switch: Switch, honest: Honest) -> None:
    device = await switch.device()
    before = await switch.metrics()
    message = frame(encode(device.purchase("1", 1), device.sign_on_key))

    async def flood() -> None:
        for _ in range(100):
            async with switch.connect() as connection:
                await connection.send(message * 100)
                assert [answer.code for answer in await connection.until_closed()] == ["63"] * 5

    await honest.pays_during(flood)
    after = await until(switch.metrics, lambda now: now.closed("mac_failures") >= before.closed("mac_failures") + 100)
    assert after.value("switch_mac_failures_total") == before.value("switch_mac_failures_total") + 500
    assert (await switch.show("terminal", device.terminal_id))["signed_on"] is False


async def test_frames_cut_short_by_a_peer_that_leaves(switch: Switch, honest: Honest) -> None:
    device = await switch.device()
    whole = frame(encode(device.message("0800", de70="301")))
    before = await switch.metrics()

    async def leave_early() -> None:
        for length in range(len(whole)):
            async with switch.connect() as connection:
                await connection.send(whole[:length])
                await connection.stream.send_eof()
                assert await connection.until_closed() == [], f"cut after {length} bytes"
        async with switch.connect() as connection:
            await connection.send(whole)
            await connection.stream.send_eof()
            assert [answer.code for answer in await connection.until_closed()] == ["00"], "who asked and then closed is answered"

    await honest.pays_during(leave_early)
    after = await until(switch.metrics, lambda now: now.value("switch_connections") == before.value("switch_connections"))
    assert after.closed("peer") == before.closed("peer") + len(whole) + 1


async def test_a_peer_that_resets_its_connection(switch: Switch, honest: Honest) -> None:
    device, card = await switch.device(), await switch.card()
    async with switch.connect() as connection:
        await device.sign_on(connection)
    before = await switch.metrics()
    requests = [device.purchase(card, 1) for _ in range(20)]

    async def reset() -> None:
        for request in requests:
            async with switch.connect() as connection:
                await connection.send(frame(encode(request, device.key)))
                # Closed with a zero linger time a socket sends RST: the answer finds nobody.
                connection.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, (1).to_bytes(4, "little") + bytes(4))

    await honest.pays_during(reset)
    await until(switch.metrics, lambda now: now.value("switch_connections") == before.value("switch_connections"))
    async with switch.connect() as connection:
        for request in requests:
            assert (await device.ask(connection, {**request, "t": "0201"})).code == "00"
    assert await switch.purses(card) == (100_000 - 20, 0)


async def test_a_peer_that_does_not_read(switch: Switch, honest: Honest) -> None:
    device = await switch.device()
    # Answered 30, for a batch number has six digits, and echoed: what is sent in comes out.
    bloated = frame(encode(device.message("0800", de70="301", de60="7" * 999)))
    before = await switch.metrics()
    peers = 8

    async def never_read() -> None:
        async with switch.connect() as connection:
            connection.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            with trio.fail_after(DEADLINE_SECONDS):
                try:
                    while True:
                        await connection.stream.send_all(bloated * 64)
                except trio.BrokenResourceError:
                    pass

    async def flood() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(peers):
                nursery.start_soon(never_read)

    await honest.pays_during(flood)
    after = await until(switch.metrics, lambda now: now.value("switch_connections") == before.value("switch_connections"))
    assert after.closed("slow_reader") + after.closed("reset") == before.closed("slow_reader") + before.closed("reset") + peers
    assert after.closed("slow_reader") > before.closed("slow_reader")
    assert after.value("switch_memory_bytes", part="connections") < 4 << 20
    assert after.value("process_resident_memory_bytes") < before.value("process_resident_memory_bytes") + GROWTH_BYTES_MAX


async def test_a_peer_that_reads_late_gets_all_its_answers(switch: Switch) -> None:
    device = await switch.device()
    count = 3000
    async with switch.connect() as connection:
        requests = [device.message("0800", de70="301") for _ in range(count)]
        await connection.send(b"".join(frame(encode(request)) for request in requests))
        await until(switch.metrics, lambda now: now.answered("echo", "00") >= count)
        answers = [await connection.receive() for _ in requests]
    assert [answer.fields["11"] for answer in answers] == [request["11"] for request in requests]


async def test_thousands_of_idle_connections_and_half_frames(switch: Switch, honest: Honest) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = hard if hard != resource.RLIM_INFINITY else 2 * IDLE_CONNECTIONS
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    count = min(IDLE_CONNECTIONS, soft - DESCRIPTORS_OF_THE_TESTS)
    print(f"{count} idle connections")  # noqa: T201 - shown where the test fails
    device = await switch.device()
    whole = frame(encode(device.message("0800", de70="301")))
    before = await switch.metrics()
    with ExitStack() as stack:

        def connect() -> list[socket.socket]:
            return [stack.enter_context(socket.create_connection(("127.0.0.1", switch.port), DEADLINE_SECONDS)) for _ in range(count)]

        sockets: list[socket.socket] = []

        async def open_all() -> None:
            sockets.extend(await in_thread(connect))

        await honest.pays_during(open_all)
        open_before = before.value("switch_connections")
        full = await until(switch.metrics, lambda now: now.value("switch_connections") == open_before + count)
        assert full.value("switch_connections_accepted_total") == before.value("switch_connections_accepted_total") + count
        assert full.value("process_resident_memory_bytes") < before.value("process_resident_memory_bytes") + GROWTH_BYTES_MAX
        abandoned, resumed = sockets[:100], sockets[-100:]
        for begun in abandoned + resumed:
            begun.sendall(whole[:-1])
        await honest.pays(200)

        def resume() -> list[bytes]:
            for begun in resumed:
                begun.sendall(whole[-1:])
            return [begun.recv(4096) for begun in resumed]

        # A hundred end their frame and are answered, out of the middle of all that idleness.
        for answer in await in_thread(resume):
            assert decode(answer[2:])["39"] == "00"
        # The other hundred never do. They are young (core_rs/tests/reactor.rs lets them grow old); nobody notices them.
        after = await switch.metrics()
        assert after.value("switch_connections") == open_before + count
        await honest.pays(20)
    await until(switch.metrics, lambda now: now.value("switch_connections") == open_before)


async def test_connections_beyond_the_bound_are_closed_at_once(make_switch: Callable[..., Switch]) -> None:
    switch = make_switch(terminals_connections_max=8)
    switch.start()
    await switch.enter(f"merchant_id,name,category,fee_bp\n{CANTEEN},Canteen,canteen,0\n")
    device = await switch.device()
    async with AsyncExitStack() as stack:
        held = [await stack.enter_async_context(switch.connect()) for _ in range(8)]
        await device.sign_on(held[0])

        async def all_are_served() -> None:
            for connection in held:
                assert (await device.ask(connection, device.message("0800", de70="301"))).code == "00"

        await all_are_served()
        for _ in range(5):
            async with switch.connect() as refused:
                assert await refused.until_closed() == []
        metrics = await until(switch.metrics, lambda now: now.closed("full") == 5)
        assert metrics.value("switch_connections") == 8
        await all_are_served()
        await held[0].stream.aclose()
        await until(switch.metrics, lambda now: now.value("switch_connections") == 7)
        async with switch.connect() as again:
            assert (await device.ask(again, device.message("0800", de70="301"))).code == "00"


# --- files ---

GOOD_CARD = f"6239000000000001,HG1,student,active,{FAR_FUTURE},100,0"
GOOD_TERMINAL = f"TGOOD,{CANTEEN},pos,,{'0a' * 16}"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", ["the file is empty", "merchant_id,name,category,fee_bp"]),
        ("card,holder\n1,2\n", ["line 1", '"card,holder"', "merchant_id,name,category,fee_bp"]),
        (f"{CARDS_HEADER}\n{GOOD_CARD}\n\n6239000000000002,HG2,student,active\n", ["line 4", "4 fields where the header has 7"]),
        (f"{CARDS_HEADER}\r\n{GOOD_CARD}\r\n6239000000000002,HG2,student\r\n", ["line 3", "3 fields where the header has 7"]),
        (f"\ufeff{CARDS_HEADER}\n{GOOD_CARD}\n6239000000000002,HG2\n", ["line 3", "2 fields where the header has 7"]),
        (f"{CARDS_HEADER}\n{GOOD_CARD}\n62390000000000x2,HG2,student,active,{FAR_FUTURE},0,0\n", ["line 3", "field card_number"]),
        (f"{CARDS_HEADER}\n{GOOD_CARD}\n62390000000000000002,HG2,student,active,{FAR_FUTURE},0,0\n", ["line 3", "field card_number"]),
        (f"{CARDS_HEADER}\n{GOOD_CARD}\n6239000000000002,,student,active,{FAR_FUTURE},0,0\n", ["line 3", "field holder_id"]),
        (f"{CARDS_HEADER}\n{GOOD_CARD}\n6239000000000002,HG2,pupil,active,{FAR_FUTURE},0,0\n", ["line 3", "field class", "student"]),
        (f"{CARDS_HEADER}\n{GOOD_CARD}\n6239000000000002,HG2,student,live,{FAR_FUTURE},0,0\n", ["line 3", "field status", "frozen"]),
        (f"{CARDS_HEADER}\n{GOOD_CARD}\n6239000000000002,HG2,student,active,2027-02-29,0,0\n", ["line 3", "field expires", "YYYY-MM-DD"]),
        (f"{CARDS_HEADER}\n{GOOD_CARD}\n6239000000000002,HG2,student,active,{FAR_FUTURE},-1,0\n", ["line 3", "field cash"]),
        (f"{CARDS_HEADER}\n{GOOD_CARD}\n6239000000000002,HG2,student,active,{FAR_FUTURE},0,1.50\n", ["line 3", "field subsidy"]),
        (f"{CARDS_HEADER}\n{GOOD_CARD}\n{GOOD_CARD}\n", ["line 3", "field card_number", "stands on line 2"]),
        (
            f"{CARDS_HEADER}\n{GOOD_CARD}\n6239000000000002,HG1,student,active,{FAR_FUTURE},0,0\n",
            ["line 3", "has the live card 6239000000000001"],
        ),
        (f"{CARDS_HEADER}\n{GOOD_CARD}\n6239000000000002,HG1,student,lost,{FAR_FUTURE},200,0\n", ["line 3", "field cash", "posted once"]),
        (
            f"{TERMINALS_HEADER}\n{GOOD_TERMINAL}\nT2GOOD,NOBODY,pos,,{'0b' * 16}\n",
            ["line 3", "field merchant_id", "import the merchants first"],
        ),
        (f"{TERMINALS_HEADER}\n{GOOD_TERMINAL}\nT2GOOD,{CANTEEN},till,,{'0b' * 16}\n", ["line 3", "field kind", "kiosk"]),
        (f"{TERMINALS_HEADER}\n{GOOD_TERMINAL}\nT2GOOD,{CANTEEN},pos,,{'0b' * 15}\n", ["line 3", "field key", "32 hex digits"]),
        (f"{TERMINALS_HEADER}\n{GOOD_TERMINAL}\nT23456789,{CANTEEN},pos,,{'0b' * 16}\n", ["line 3", "field terminal_id"]),
        (f"{TERMINALS_HEADER}\n{GOOD_TERMINAL}\nT2GOOD,{CANTEEN},pos,{'z' * 17},{'0b' * 16}\n", ["line 3", "field zone"]),
        ("merchant_id,name,category,fee_bp\nMGOOD,Good,shop,0\nM3,Bad,casino,0\n", ["line 3", "field category", "canteen"]),
        ("merchant_id,name,category,fee_bp\nMGOOD,Good,shop,0\nM3,,shop,0\n", ["line 3", "field name"]),
        ("merchant_id,name,category,fee_bp\nMGOOD,Good,shop,0\nM3,Bad,shop,10001\n", ["line 3", "field fee_bp"]),
        ("merchant_id,name,category,fee_bp\nMGOOD,Good,shop,0\nM3,Bad,shop,1%\n", ["line 3", "field fee_bp"]),
        ("merchant_id,name,category,fee_bp\nMGOOD,Good,shop,0\nM3,\udcff,shop,0\n", ["line 3", "UTF-8"]),
    ],
)
async def test_a_wrong_file_is_refused_whole(switch: Switch, tmp_path: Path, content: str, named: list[str]) -> None:
    file = tmp_path / "wrong.csv"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    before = (await switch.metrics()).value("switch_journal_position")
    completed = await in_thread(lambda: switch.command("import", "--config", switch.file, file))
    assert (completed.returncode, completed.stdout) == (1, "")
    sentence = completed.stderr
    assert sentence.startswith(f"switch import: {file}")
    assert sentence.count("\n") == 1
    assert "0b0b" not in sentence, "a key must not end in a log"
    for words in named:
        assert words in sentence
    assert (await switch.metrics()).value("switch_journal_position") == before, "nothing of it was applied"
    for kind, identifier in (("card", "6239000000000001"), ("terminal", "TGOOD"), ("merchant", "MGOOD")):
        assert (await switch.http("GET", f"/v1/show/{kind}/{identifier}")).status_code == 404


@pytest.mark.parametrize(
    ("found", "wrong", "named"),
    [
        ("mac_failures_max = 5", "mac_failures_maximum = 5", ["terminals.mac_failures_maximum", "mac_failures_max"]),
        ("amount_max = 5000000", 'amount_max = "much"', ["policy.amount_max", '"much"', "whole number"]),
        ("identity_days = 8", "identity_days = 1", ["policy.identity_days", "from 2 to 60"]),
        ("[policy]", "[polity]", ["[polity]", "[policy]"]),
        ("[policy]", "[policy", ["TOML", "line"]),
        ('host = "127.0.0.1"\nport = 0', 'host = "127.0.0.1"\nport = 65536', ["terminals.port", "65536"]),
        ('timezone = "', 'timezone = "Moon/', ["campus.timezone", "Moon/"]),
        ("segment_bytes = 8388608", "segment_bytes = 8388609", ["journal.segment_bytes", "8388609"]),
        ('url = "', 'url = "mysql://', ["database.url"]),
    ],
)
def test_a_wrong_configuration_is_refused(make_switch: Callable[..., Switch], found: str, wrong: str, named: list[str]) -> None:
    switch = make_switch()
    text = switch.file.read_text()
    assert text.count(found) >= 1
    switch.file.write_text(text.replace(found, wrong, 1))
    before = sorted((path, path.stat().st_mtime_ns) for path in switch.folder.rglob("*") if path.is_file())
    completed = switch.command("serve", "--config", switch.file)
    assert (completed.returncode, completed.stdout) == (1, "")
    assert re.match(re.escape(f"switch serve: {switch.file}") + r"( line \d+)?: ", completed.stderr)
    assert completed.stderr.count("\n") == 1
    for words in named:
        assert words in completed.stderr
    assert sorted((path, path.stat().st_mtime_ns) for path in switch.folder.rglob("*") if path.is_file()) == before
