"""SIGTERM under load: what was read is answered, what was approved is kept, and the switch ends with code 0 within a bound."""

import contextlib
import functools
import random
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import pytest
import trio

from switch import gateway, serve
from switch.dialect import FrameBuffer, encode, frame
from tests.postgres_door import Door
from tests.switch_process import DEADLINE_SECONDS, MERCHANTS, Answer, Connection, Device, Fields, Switch, in_thread, report_of, until
from tests.test_chaos_postgresql import tell

OPENING: Final = 10_000_000

PILE: Final = 1000
"""Purchases whose answers a small receive buffer cannot hold, and the switch does (`UNSENT_BYTES_MAX`)."""

MACHINE_SECONDS: Final = 3.0
"""For the interpreter's end and a busy machine."""

END_SECONDS_MAX: Final = gateway.DRAIN_SECONDS + serve.FOLLOWER_STOP_SECONDS + MACHINE_SECONDS
"""With a PostgreSQL of the site's own: first the answers, then the follower."""


class Caller:
    """A terminal with a card of its own that sends without waiting for answers: purchases of one fen each."""

    def __init__(self, switch: Switch, device: Device, card: str) -> None:
        self.card = card
        self.asked: list[Fields] = []
        self.answers: list[Answer] = []
        self._switch = switch
        self._device = device
        self._stream: trio.SocketStream

    async def open(self, *, receive_bytes: int | None = None) -> None:
        """Connect and sign on. With `receive_bytes` the answers soon pile up at the switch."""
        own = trio.socket.socket()
        if receive_bytes is not None:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        await own.connect(("127.0.0.1", self._switch.port))
        self._stream = trio.SocketStream(own)
        await self._device.sign_on(Connection(self._stream))

    def purchases(self, count: int) -> bytes:
        """So many frames, to be sent."""
        requests = [self._device.purchase(self.card, 1) for _ in range(count)]
        self.asked += requests
        return b"".join(frame(encode(request, self._device.key)) for request in requests)

    async def send(self, count: int, *, rest: bytes = b"") -> bool:
        """So many purchases at once, and perhaps the beginning of another frame. False: the switch has closed the connection."""
        return await self.send_bytes(self.purchases(count) + rest)

    async def send_bytes(self, data: bytes) -> bool:
        """Send it. False: the switch has closed the connection."""
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True

    async def send_on(self) -> None:
        """Send for as long as the connection takes it."""
        while await self.send(10):
            pass

    async def read_on(self, *, bytes_max: int = 65_536, pause: float = 0.0) -> None:
        """Read until the switch has closed the connection, so many bytes at a time."""
        frames = FrameBuffer()
        with contextlib.suppress(trio.BrokenResourceError), trio.fail_after(DEADLINE_SECONDS):
            while data := await self._stream.receive_some(bytes_max):
                self.answers += [Answer.read(*content) for content in frames.feed(data)]
                await trio.sleep(pause)

    async def say_no_more(self) -> None:
        await self._stream.send_eof()

    def break_off(self) -> None:
        """Break the connection off, as a concentrator that restarts."""
        self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._stream.socket.close()

    def close(self) -> None:
        self._stream.socket.close()

    @property
    def approved(self) -> int:
        assert {answer.code for answer in self.answers} <= {"00", "91"}
        return sum(answer.code == "00" for answer in self.answers)

    async def taken(self) -> int:
        """What the ledger has debited."""
        return OPENING - sum(await self._switch.purses(self.card))

    async def ask_again(self) -> None:
        """Repeat all that was ever asked: each is approved, now or then, and none is taken twice."""
        async with self._switch.connect() as connection:
            for requests in (self.asked[at : at + 100] for at in range(0, len(self.asked), 100)):
                await connection.send(b"".join(frame(encode({**request, "t": "0201"}, self._device.key)) for request in requests))
                for _ in requests:
                    assert (await connection.receive()).code == "00"
        assert await self.taken() == len(self.asked)


async def callers(switch: Switch, count: int) -> list[Caller]:
    devices, cards = await switch.devices(count), await switch.cards(count, cash=OPENING)
    return [Caller(switch, device, card) for device, card in zip(devices, cards, strict=True)]


@contextlib.asynccontextmanager
async def ends(switch: Switch, seconds_max: float, chance: random.Random, *, signals: int = 4) -> AsyncIterator[None]:
    """Told to end again and again, at any moment, it ends with code 0 within the bound, as if told once."""
    began = time.monotonic()
    process = switch.process
    assert process is not None
    process.send_signal(signal.SIGTERM)
    async with trio.open_nursery() as nursery:

        async def again() -> None:
            for _ in range(signals):
                await trio.sleep(chance.expovariate(5))
                process.send_signal(chance.choice([signal.SIGTERM, signal.SIGINT]))

        nursery.start_soon(again)
        yield
        code = await in_thread(switch.ended)
        seconds = time.monotonic() - began
        nursery.cancel_scope.cancel()
    print(f"ended within {seconds:.2f} of {seconds_max:.0f} seconds")  # noqa: T201 - shown where the test fails, and by `make chaos`
    assert code == 0, (code, switch.log)
    assert seconds < seconds_max, switch.log
    assert "Traceback" not in switch.log


@pytest.fixture
async def own(make_switch: Callable[..., Switch]) -> Switch:
    switch = make_switch()
    await in_thread(switch.start)
    await switch.enter(MERCHANTS)
    return switch


async def test_what_was_read_is_answered(own: Switch, chance: random.Random) -> None:
    half_open, half_sent, reading = await callers(own, 4), await callers(own, 4), await callers(own, 16)
    volleying, deaf, broken_off = await callers(own, 16), await callers(own, 4), await callers(own, 4)
    readers, others = [*half_open, *half_sent, *reading, *volleying], [*deaf, *broken_off]
    for caller in (*readers, *others):
        await caller.open()
    for caller in (*half_open, *others):
        await caller.send(50)
    for caller in half_open:
        await caller.say_no_more()
    for caller in half_sent:
        await caller.send(50, rest=b"\0\x90\x02")
    async with trio.open_nursery() as nursery:
        for caller in readers:
            nursery.start_soon(caller.read_on)
        for caller in reading:
            nursery.start_soon(caller.send_on)
        volleys = [(caller, caller.purchases(200)) for caller in volleying]
        await trio.sleep(chance.uniform(0, 0.4))
        for caller in broken_off:
            caller.break_off()
        # So that the end meets sockets full of requests, and batches in every state: half of them before the signal, half behind it.
        for caller, volley in volleys[::2]:
            await caller.send_bytes(volley)
        async with ends(own, gateway.DRAIN_SECONDS, chance):
            for caller, volley in volleys[1::2]:
                nursery.start_soon(caller.send_bytes, volley)
    await agree(own, readers, others)
    assert {caller.approved for caller in (*half_open, *half_sent)} == {50}


async def agree(switch: Switch, readers: list[Caller], others: list[Caller]) -> None:
    """Those who read to the end have an answer for every debit, and a debit for every approval; nobody pays twice for asking again."""
    assert switch.verify()["ok"]
    await in_thread(switch.start)
    for caller in readers:
        assert caller.approved == await caller.taken()
    for caller in (*readers, *others):
        await caller.ask_again()
        caller.close()


async def test_who_reads_late_still_gets_every_answer(own: Switch, chance: random.Random) -> None:
    """What the system has taken in for a peer is thrown away when the switch ends with that peer's requests unread."""
    slow = await callers(own, 4)
    for caller in slow:
        await caller.open(receive_bytes=4096)
        await caller.send(PILE)
    await until(own.metrics, lambda now: now.answered("purchase", "00") == PILE * len(slow))
    async with trio.open_nursery() as nursery, ends(own, END_SECONDS_MAX, chance, signals=2):
        for caller in slow:
            for _ in range(20):
                await caller.send(1)
                await trio.sleep(chance.expovariate(500))
            nursery.start_soon(functools.partial(caller.read_on, bytes_max=2048, pause=0.04))
    assert "some terminals did not take their answers in time" not in own.log
    await agree(own, slow, [])
    assert min(caller.approved for caller in slow) >= PILE


async def test_who_never_reads_holds_nothing_up_for_long(own: Switch, chance: random.Random) -> None:
    """And the follower hangs: the longest end there is without an embedded database."""
    (never,) = await callers(own, 1)
    await never.open(receive_bytes=4096)
    await never.send(PILE)
    await until(own.metrics, lambda now: now.answered("purchase", "00") == PILE)
    tell([await own.follower()], signal.SIGSTOP)
    async with ends(own, END_SECONDS_MAX, chance, signals=20):
        pass
    never.close()
    assert "some terminals did not take their answers in time" in own.log
    await in_thread(own.start)
    await never.ask_again()


async def test_told_to_end_while_it_starts(own: Switch, chance: random.Random) -> None:
    """Before the journal is replayed a signal ends it as any program; from then on with code 0. Nothing is ever harmed."""
    await in_thread(own.stop)
    codes = set()
    for _ in range(8):
        own.spawn()
        await trio.sleep(chance.uniform(0, 0.8))
        own.signal(signal.SIGTERM)
        codes.add(await in_thread(own.ended))
        assert own.verify()["ok"]
    assert codes <= {0, -signal.SIGTERM}
    for _ in range(3):
        await in_thread(own.start)
        await in_thread(own.stop)
    assert "Traceback" not in own.log


TROUBLES: Final = ["frozen", "away", "its follower dead", "its follower dead and started again"]


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_whatever_postgresql_is_at(
    make_switch: Callable[..., Switch], database_url: str, chance: random.Random, trouble: str
) -> None:
    door = Door(database_url)
    async with trio.open_nursery() as doors:
        await doors.start(door.serve)
        switch = make_switch(database=door.url)
        await in_thread(switch.start)
        await switch.enter(MERCHANTS)
        some = await callers(switch, 8)
        for caller in some:
            await caller.open()
        async with trio.open_nursery() as nursery:
            for caller in some:
                nursery.start_soon(caller.send_on)
                nursery.start_soon(caller.read_on)
            await until(switch.metrics, lambda now: now.value("switch_settled_position") > 0)
            await befall(switch, door, trouble)
            async with ends(switch, END_SECONDS_MAX, chance):
                pass
        doors.cancel_scope.cancel()
    switch.configure(database_url=database_url)
    await in_thread(switch.start)
    for caller in some:
        assert caller.approved == await caller.taken()
        caller.close()
    position = (await switch.metrics()).value("switch_journal_durable_position")
    await until(switch.metrics, lambda now: now.value("switch_settled_position") == position)
    await in_thread(switch.stop)
    reconciled = report_of(await in_thread(lambda: switch.command("reconcile", "--config", switch.file)))
    assert (reconciled["ok"], reconciled["position"]) == (True, position)


async def befall(switch: Switch, door: Door, trouble: str) -> None:
    if trouble == "frozen":
        # It has the commit, and never says so.
        trap = door.trap("UPDATE journal_position", "COMMIT;", answered=True)
        with trio.fail_after(DEADLINE_SECONDS):
            await trap.sprung.wait()
    elif trouble == "away":
        door.shut()
    else:
        follower = await switch.follower()
        tell([follower], signal.SIGKILL)
        if trouble.endswith("again"):
            await until(switch.follower, lambda now: now != follower)
