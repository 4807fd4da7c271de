"""A door in front of PostgreSQL that knows what passes: it can stop a client before any statement, or keep back the answer to one.

For what: a follower is to die, or to lose its connection, at a step of its work that a test names. Sleeping and hoping does not find it.

Always true here: messages pass whole, in order and unchanged, each as soon as it is there. A client in a trap waits until its connection
is cut or it is let go on.

How it works: the client's messages are cut by type and length. A statement's text stands in a simple query and where it is prepared;
where it is bound, its name leads to the text. Source: the documentation of PostgreSQL, "Message Formats".
"""

import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio

STARTUP: Final = "startup"
COPY_DATA: Final = "copy data"

_READ_BYTES: Final = 65_536


@dataclass(eq=False)
class Trap:
    """Springs at the last of `steps`, met in this order: before it passes or, `answered`, when its answer has come and is kept back.

    A message is a step when its text contains the step's.
    """

    steps: tuple[str, ...]
    answered: bool
    sprung: trio.Event = field(default_factory=trio.Event)
    released: trio.Event = field(default_factory=trio.Event)


class Door:
    """Listens on a port of its own, and passes on to the server behind it. Resource handling: `serve` owns all connections."""

    def __init__(self, url: str) -> None:
        """`url` names the server by the folder of its socket."""
        parts = urllib.parse.urlsplit(url)
        query = urllib.parse.parse_qs(parts.query)
        self._socket = f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"
        self._who = f"{parts.username}@127.0.0.1", parts.path
        self._trap: Trap | None = None
        self._passing: set[trio.CancelScope] = set()
        self._serving = trio.CancelScope()
        self.url = ""
        """Its address, once it serves."""

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled or shut."""
        async with trio.open_nursery() as nursery:
            self._serving = nursery.cancel_scope
            listeners: list[trio.SocketListener] = await nursery.start(partial(trio.serve_tcp, self._pass, 0, host="127.0.0.1"))
            host, path = self._who
            self.url = f"postgresql://{host}:{listeners[0].socket.getsockname()[1]}{path}?sslmode=disable"
            task_status.started()

    def trap(self, *steps: str, answered: bool) -> Trap:
        """Set a trap; there is one at a time."""
        self._trap = Trap(steps, answered)
        return self._trap

    def shut(self) -> None:
        """Cut every connection, and take no more."""
        self._serving.cancel()

    def cut(self) -> None:
        """Cut every connection."""
        for scope in self._passing:
            scope.cancel()

    async def _pass(self, client: trio.SocketStream) -> None:
        with trio.CancelScope() as passing:
            self._passing.add(passing)
            try:
                async with await trio.open_unix_socket(self._socket) as server, client, trio.open_nursery() as nursery:
                    way = _Way(self, client, server)
                    nursery.start_soon(way.answers, passing)
                    await way.asks()
                    passing.cancel()
            except* OSError:
                pass  # the server is away: the client sees its connection closed
            except* (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # one side has gone, and so does the other
        self._passing.discard(passing)

    def springs(self, step: str) -> Trap | None:
        """The trap, if this step is the last that it waits for; it is used up then."""
        trap = self._trap
        if trap is None or trap.steps[0] not in step:
            return None
        if len(trap.steps) > 1:
            trap.steps = trap.steps[1:]
            return None
        self._trap = None
        return trap


class _Way:
    """One client's way through the door."""

    def __init__(self, door: Door, client: trio.SocketStream, server: trio.SocketStream) -> None:
        self._door = door
        self._client = client
        self._server = server
        self._texts: dict[bytes, str] = {}
        self._buffer = bytearray()
        self._started = False
        self._kept_back: Trap | None = None

    async def asks(self) -> None:
        while data := await self._client.receive_some(_READ_BYTES):
            self._buffer += data
            for message in self._messages():
                trap = self._door.springs(self._step(message))
                if trap is not None and trap.answered:
                    self._kept_back = trap
                elif trap is not None:
                    trap.sprung.set()
                    await trap.released.wait()
                await self._server.send_all(message)

    async def answers(self, passing: trio.CancelScope) -> None:
        while data := await self._server.receive_some(_READ_BYTES):
            trap = self._kept_back
            if trap is not None:
                self._kept_back = None
                trap.sprung.set()
                await trap.released.wait()
            await self._client.send_all(data)
        passing.cancel()

    def _messages(self) -> Iterator[bytes]:
        """Those that are whole. The first one, the startup, has no type."""
        while len(self._buffer) >= 5:
            kind = 1 if self._started else 0
            end = kind + int.from_bytes(self._buffer[kind : kind + 4], "big")
            if len(self._buffer) < end:
                return
            message = bytes(self._buffer[:end])
            del self._buffer[:end]
            yield message
            self._started = True

    def _step(self, message: bytes) -> str:
        if not self._started:
            return STARTUP
        content = message[5:]
        match message[:1]:
            case b"Q":
                return content[:-1].decode()
            case b"P":
                name, text, _ = content.split(b"\0", 2)
                self._texts[name] = text.decode()
                return ""
            case b"B":
                return self._texts[content.split(b"\0", 2)[1]]
            case b"d":
                return COPY_DATA
            case _:
                return ""
