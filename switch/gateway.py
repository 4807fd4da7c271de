"""Where terminals connect: the listener, and the pump that drives the core.

Always true here: a connection is Python's only until it is accepted; then its descriptor is the core's. One call into the
core serves a whole wave of messages; there is no Python object and no task for a message.

How it works: the core's epoll descriptor becomes readable when any socket, or the journal's thread, has something for it. The
pump waits for that like for any socket and calls `Core.wave`; a wave ends after a bounded time, so that the operators' side,
on the same thread, is never kept waiting.
"""

import socket
from typing import Final

import trio

from switch._core import Core

__all__ = ["Gateway", "listen"]

WAVE_MICROSECONDS: Final = 1000
"""A wave's budget: long enough to make the turn of trio's loop between two waves cheap, and for a record to become durable on a good disk,
so that a purchase at a quiet hour is one wave and not two; short enough for an operator's page.
Under a flood a wave goes past it by at most one slice of the core's own (`SLICE_MICROSECONDS` in `limits.rs`) and one read."""

TICK_SECONDS: Final = 1.0
DRAIN_SECONDS: Final = 10.0
"""For answers to leave when the switch ends. A terminal that does not read by then repeats and finds its answer."""


async def listen(host: str, port: int) -> tuple[list[trio.SocketListener], str]:
    """Listen and say where: `host:port`, the port as given by the system where 0 was asked for."""
    listeners = await trio.open_tcp_listeners(port, host=host)
    address = listeners[0].socket.getsockname()
    shown = f"[{address[0]}]" if listeners[0].socket.family == socket.AF_INET6 else address[0]
    return listeners, f"{shown}:{address[1]}"


class Gateway:
    """The terminals' side of the switch.

    Resource handling: `serve` owns the listeners; the core belongs to the caller. Error handling: what the core refuses about one
    connection ends that connection and is counted there; nothing of a terminal's raises here.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._progress = trio.Event()
        self._draining = False

    @property
    def draining(self) -> bool:
        """Whether the switch is ending: nothing more is taken."""
        return self._draining

    async def serve(self, listeners: list[trio.SocketListener], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept and serve until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pump)
            nursery.start_soon(self._tick)
            await nursery.start(trio.serve_listeners, self._adopt, listeners)
            task_status.started()

    async def wait_durable(self, position: int) -> None:
        """Wait until the record at `position` is on stable storage."""
        while self._core.durable < position:
            await self._progress.wait()

    async def drain(self) -> bool:
        """Answer what has been read, take nothing more. False: some peer did not take its answers within the deadline."""
        self._draining = True
        with trio.move_on_after(DRAIN_SECONDS) as deadline:
            while not self._core.drain():
                with trio.move_on_after(TICK_SECONDS / 20):
                    await trio.lowlevel.wait_readable(self._core.fileno())
                self._core.wave(WAVE_MICROSECONDS)
                self._announce()
        self._announce()
        return not deadline.cancelled_caught

    async def _adopt(self, stream: trio.SocketStream) -> None:
        self._core.adopt(stream.socket.detach())
        await trio.lowlevel.checkpoint()

    async def _pump(self) -> None:
        descriptor = self._core.fileno()
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            while self._core.wave(WAVE_MICROSECONDS):
                self._announce()
                await trio.lowlevel.checkpoint()
            self._announce()

    def _announce(self) -> None:
        if self._progress.statistics().tasks_waiting:
            self._progress.set()
            self._progress = trio.Event()

    async def _tick(self) -> None:
        while True:
            await trio.sleep(TICK_SECONDS)
            self._core.tick()
