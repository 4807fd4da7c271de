"""What `switch serve` does when its surroundings refuse something: descriptors, processes, room on the disk."""

import errno
import json
import logging
import resource
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx
import msgspec
import pytest
import trio
import trio.testing

from switch import config as configuration
from switch import metrics, serve
from switch.admin import Door
from switch.config import ConfigError, Runtime
from switch.follow import Progress
from switch.gateway import Gateway
from tests.switch_process import DEADLINE_SECONDS, PROGRAM, Switch, in_thread, until

if TYPE_CHECKING:
    from switch._core import Core

INFINITE = resource.RLIM_INFINITY


# --- descriptors ---


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "served", "set_to"),
    [
        (1024, 65_536, 16_384, 16_384, 16_640),
        (1024, INFINITE, 16_384, 16_384, 16_640),
        (65_536, 65_536, 16_384, 16_384, None),
        (INFINITE, INFINITE, 16_384, 16_384, None),
        (1024, 4096, 16_384, 3840, 4096),
        (100, 257, 16_384, 1, 257),
        (100, 300, 10, 10, 266),
    ],
)
def test_as_many_connections_as_descriptors_allow(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, soft: int, hard: int, wanted: int, served: int, set_to: int | None
) -> None:
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: calls.append(limits))
    assert serve._raise_descriptor_limit(wanted) == served
    assert calls == ([] if set_to is None else [(set_to, hard)])
    warned = [record.getMessage() for record in caplog.records]
    assert warned == (
        []
        if served == wanted
        else [
            f"this system allows {hard} descriptors, too few for {wanted} connections: {served} are served; raise its limit of open files"
        ]
    )


def test_the_core_is_told_how_many_connections_are_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[int] = []

    class Double:
        remarks: tuple[str, ...] = ()

        def __init__(self, **arguments: Any) -> None:
            told.append(arguments["connections_max"])

        def close(self) -> None:
            pass

    monkeypatch.setattr(serve, "Core", Double)
    with serve.open_core(configuration.initialise(tmp_path / "data"), 17):
        pass
    assert told == [17]


def limited(switch: Switch, descriptors: int) -> list[str]:
    return ["bash", "-c", f'ulimit -n {descriptors}; exec "$0" serve --config "$1"', str(PROGRAM), str(switch.file)]


def test_too_few_descriptors_for_any_connection_are_refused(make_switch: Callable[..., Switch]) -> None:
    switch = make_switch()
    completed = subprocess.run(limited(switch, 256), check=False, capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    assert (completed.returncode, completed.stdout) == (1, "")
    assert completed.stderr == (
        "switch serve: this system allows 256 descriptors, and the switch needs 256 beside its connections; "
        "raise its limit of open files.\n"
    )


async def test_connections_beyond_the_descriptors_are_closed(make_switch: Callable[..., Switch]) -> None:
    switch = make_switch()
    process = await trio.lowlevel.open_process(limited(switch, 258), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        line = b""
        with trio.fail_after(DEADLINE_SECONDS):
            while not line.endswith(b"\n"):
                data = await process.stdout.receive_some()
                assert data, "the switch ended"
                line += data
        switch.ready = json.loads(line)
        async with switch.connect() as first, switch.connect(), switch.connect():
            # None of them has proved anything, so the one that has been there longest makes room.
            assert await first.until_closed() == []
    finally:
        process.terminate()
        with trio.fail_after(DEADLINE_SECONDS):
            assert await process.wait() == 0
        assert process.stdout is not None
        await process.stdout.aclose()


# --- the follower ---


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EAGAIN, errno.ENOMEM])
async def test_a_follower_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
    tmp_path: Path,
    number: int,
) -> None:
    settling = serve.Settling(configuration.initialise(tmp_path / "data"))
    tries: list[float] = []

    async def refuse(*_: Any, **__: Any) -> trio.Process:
        await trio.lowlevel.checkpoint()
        tries.append(trio.current_time())
        raise OSError(number, "out of something")

    monkeypatch.setattr(trio.lowlevel, "open_process", refuse)
    assert autojump_clock.autojump_threshold == 0
    with trio.move_on_after(20):
        await settling._follow("postgresql://x")
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert pauses[:3] == pytest.approx([0.1, 0.2, 0.4])
    assert pauses[-1] == pytest.approx(5.0)
    assert settling.progress() == Progress(connected=False, error="the follower cannot be started: out of something")
    assert {record.getMessage() for record in caplog.records} == {"the follower cannot be started: out of something; it is tried again"}
    await settling.finish()


async def test_a_line_that_is_no_progress_is_ignored(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    settling = serve.Settling(configuration.initialise(tmp_path / "data"))
    sender, receiver = trio.testing.memory_stream_one_way_pair()
    known = Progress(settled=5, durable=7, connected=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(settling._read_progress, receiver)
        for line in (msgspec.json.encode(known), b"Fatal: \xff", b'{"settled": "many"}', b"{"):
            await sender.send_all(line + b"\n")
            await trio.testing.wait_all_tasks_blocked()
            assert settling.progress() == known
        await sender.send_all(msgspec.json.encode(Progress(settled=8)) + b"\n")
        await sender.aclose()
    assert settling.progress() == Progress(settled=8)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 3
    assert all("is no progress and is ignored" in record.getMessage() for record in caplog.records)


# --- the runtime file ---


async def test_a_switch_that_cannot_say_how_to_reach_it_serves_and_says_it_later(make_switch: Callable[..., Switch]) -> None:
    switch = make_switch()
    config = configuration.load(switch.file)
    # Another switch, killed, left its own; and what is in the way now stands for a full disk.
    stale = Runtime(pid=1, terminals="127.0.0.1:1", admin="127.0.0.1:1", database="")
    stale.write(config.runtime_file)
    obstacle = config.runtime_file.with_suffix(".new")
    obstacle.mkdir()
    await in_thread(switch.start)
    async with switch.connect():
        pass
    assert "serve.json cannot be written and is tried again: " in switch.log
    assert not config.runtime_file.exists()
    obstacle.rmdir()

    async def look() -> Runtime | None:
        await trio.lowlevel.checkpoint()
        return Runtime.read(config.runtime_file)

    written = await until(look, lambda runtime: runtime is not None)
    assert written is not None
    assert (written.pid, written.admin) == (switch.pid, switch.ready["admin"])
    await in_thread(switch.stop)
    assert not config.runtime_file.exists()


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Runtime, "write", refuse)
    file = tmp_path / "serve.json"
    file.write_text("{}")
    assert not serve._tell(Runtime(pid=1, terminals="", admin="", database=""), file)
    assert [record.getMessage() for record in caplog.records] == [f"{file} cannot be written and is tried again: No space left on device"]
    assert not file.exists()


# --- addresses ---


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://switch@db/switch", "postgresql://switch@db/switch"),
        ("postgresql://switch:secret@db:5432/switch", "postgresql://switch@db:5432/switch"),
        ("postgresql://switch:se@cret@[::1]/switch?sslmode=require", "postgresql://switch@[::1]/switch?sslmode=require"),
        ("postgresql://:secret@db/switch", "postgresql://@db/switch"),
        ("postgresql:///switch?host=/run/x&password=secret", "postgresql:///switch?host=/run/x"),
        ("postgresql://db/switch?password=secret", "postgresql://db/switch"),
        ("postgresql://db/switch?%70assword=secret&user=a", "postgresql://db/switch?user=a"),
        (
            "postgresql://switch:secret@db/switch?passfile=/secret&sslmode=require&sslpassword=secret&password=secret",
            "postgresql://switch@db/switch?sslmode=require",
        ),
    ],
)
def test_an_address_is_shown_without_its_secrets(address: str, shown: str) -> None:
    assert serve._without_password(address) == shown


# --- the operators' door ---


class CoreDouble:
    """Shows what is not durable yet."""

    position = 7
    durable = 6

    def show(self, kind: str, identifier: str) -> bytes:
        return json.dumps({"kind": kind, "card_number": identifier, "position": self.position}).encode()

    def statistics(self) -> bytes:
        empty = metrics.Histogram(bounds=[], counts=[0], sum=0, count=0)
        journal = metrics.JournalStatistics(
            mode="", segment=1, segment_bytes_left=0, prepared=False, batches=0, bytes=0, torn_bytes=0, sync=empty, batch_records=empty
        )
        return msgspec.json.encode(
            metrics.Statistics(
                position=7,
                durable=6,
                business_date="2026-11-22",
                clock_ahead_days=0,
                room=self.room,
                journal=journal,
                requests=[],
                latency=empty,
                connections=metrics.Connections(open=0, accepted=0, closed={}, bytes_read=0, bytes_sent=0),
                mac_failures=0,
                waves=0,
                debug_build=False,
                entries={},
                memory={},
            )
        )

    room = True

    def drain(self) -> bool:
        return True


@pytest.fixture
def core() -> CoreDouble:
    return CoreDouble()


@pytest.fixture
def gateway(core: CoreDouble) -> Gateway:
    return Gateway(cast("Core", core))


@pytest.fixture
def door(core: CoreDouble, gateway: Gateway) -> httpx.AsyncClient:
    application = Door(cast("Core", core), gateway, Progress, "token").application()
    return httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://door", headers={"authorization": "Bearer token"})


async def ask_for_card(door: httpx.AsyncClient, answers: list[httpx.Response]) -> None:
    answers.append(await door.get("/v1/show/card/1"))


async def test_what_is_shown_is_durable(core: CoreDouble, gateway: Gateway, door: httpx.AsyncClient) -> None:
    answers: list[httpx.Response] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_for_card, door, answers)
        await trio.testing.wait_all_tasks_blocked()
        gateway._announce()
        await trio.testing.wait_all_tasks_blocked()
        assert not answers, "a power cut could take back what it shows"
        core.durable = 7
        gateway._announce()
    assert [(answer.status_code, answer.json()["position"]) for answer in answers] == [(200, 7)]


async def test_what_is_shown_while_the_switch_ends_is_answered(core: CoreDouble, gateway: Gateway, door: httpx.AsyncClient) -> None:
    answers: list[httpx.Response] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_for_card, door, answers)
        await trio.testing.wait_all_tasks_blocked()
        core.durable = 7
        assert await gateway.drain()
    assert [answer.status_code for answer in answers] == [200]


async def test_a_switch_without_room_is_not_ready(core: CoreDouble, door: httpx.AsyncClient) -> None:
    ready = await door.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    core.room = False
    ready = await door.get("/readyz")
    assert (ready.status_code, ready.json()) == (503, {"ready": False, "reason": "the journal has no room; free space on its disk"})
    assert "switch_journal_room 0.0" in (await door.get("/metrics")).text


async def test_a_switch_that_ends_is_not_ready(gateway: Gateway, door: httpx.AsyncClient) -> None:
    await gateway.drain()
    ready = await door.get("/readyz")
    assert (ready.status_code, ready.json()) == (503, {"ready": False, "reason": "the switch is ending"})


def test_no_descriptor_for_a_connection_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 256))
    with pytest.raises(ConfigError, match=r"^this system allows 256 descriptors, .*; raise its limit of open files\.$"):
        serve._raise_descriptor_limit(16_384)
