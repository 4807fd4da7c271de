"""Hostile peers as a process of their own: `python -m tests.hostile_peers KIND`, for tests/test_hostile_peers.py.

A line of JSON on standard input says against whom: `port`, `count` (connections), and `terminals` (number, merchant, master key in
hexadecimal). It prints `ready` once the attack is under way, goes on until its standard input ends, and prints what it did as JSON.

They run at a lower priority: those who attack have machines of their own, and here they share the switch's.
"""

import contextlib
import datetime
import itertools
import json
import os
import random
import resource
import select
import socket
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Final

from switch.dialect import MacKey, encode, frame, sign_on_key, write_sub_elements

PATIENCE_SECONDS: Final = 30
RESET: Final = (1).to_bytes(4, "little") + bytes(4)
"""SO_LINGER on, for no time: a socket closed so sends RST."""

PAUSE_SECONDS: Final = 0.001
"""Between two rounds over all sockets, where nothing else sets the pace."""


@dataclass
class Attack:
    """What every kind of peer has in hand."""

    port: int
    count: int
    terminals: list[tuple[str, str, str]]
    done: dict[str, int] = field(default_factory=dict)
    """What was counted, for the test."""
    chance: random.Random = field(default_factory=random.Random)

    def note(self, what: str, times: int = 1) -> None:
        self.done[what] = self.done.get(what, 0) + times

    def connect(self, receive_bytes: int | None = None) -> socket.socket:
        """A connection that does not block. One that the switch has no place for is closed by it soon after."""
        peer = socket.socket()
        if receive_bytes is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        peer.settimeout(PATIENCE_SECONDS)
        peer.connect(("127.0.0.1", self.port))
        peer.setblocking(False)
        self.note("connected")
        return peer

    def fields(self, terminal: int, stan: int, **elements: str) -> dict[str, str]:
        number, merchant, _ = self.terminals[terminal]
        now = datetime.datetime.now(datetime.UTC)
        given = {name.removeprefix("de"): value for name, value in elements.items()}
        return {
            "t": "0800",
            "11": f"{stan:06}",
            "12": f"{now:%H%M%S}",
            "13": f"{now:%m%d}",
            "41": number.ljust(8),
            "42": merchant.ljust(15),
            **given,
        }

    def bloated(self) -> bytes:
        """An echo test without a MAC that is answered 30 with as much as was sent: a batch number has six digits."""
        return frame(encode(self.fields(0, 1, de70="301", de60="7" * 999)))


def sends(peer: socket.socket, data: bytes) -> int | None:
    """Bytes taken; None where the switch has closed the connection."""
    try:
        return peer.send(data)
    except BlockingIOError:
        return 0
    except OSError:
        return None


def receives(peer: socket.socket, count: int) -> bytes | None:
    """What has come; None where the switch has closed the connection."""
    try:
        return peer.recv(count) or None
    except BlockingIOError:
        return b""
    except OSError:
        return None


def slow_readers(attack: Attack, *, trickle: bool) -> Generator[None, None, None]:
    """Ask for kilobytes without end and read nothing, or a byte a second."""
    request = attack.bloated() * 8
    peers = [attack.connect(4096) for _ in range(attack.count)]
    rest = dict.fromkeys(range(attack.count), request)
    read_at = time.monotonic()
    while True:
        for index, peer in enumerate(peers):
            taken = sends(peer, rest[index])
            if taken is None:
                attack.note("closed")
                peer.close()
                peers[index], rest[index] = attack.connect(4096), request
            else:
                rest[index] = rest[index][taken:] or request
        if trickle and time.monotonic() > read_at + 1:
            read_at = time.monotonic()
            attack.note("bytes_read", sum(len(receives(peer, 1) or b"") for peer in peers))
        time.sleep(PAUSE_SECONDS)
        yield


def never_readers(attack: Attack) -> Generator[None, None, None]:
    return slow_readers(attack, trickle=False)


def byte_readers(attack: Attack) -> Generator[None, None, None]:
    return slow_readers(attack, trickle=True)


def half_frames(attack: Attack) -> Generator[None, None, None]:
    """Begin the longest frame on every connection and never end it: one byte after another, as far as it goes."""
    peers = [attack.connect() for _ in range(attack.count)]
    for peer in peers:
        assert sends(peer, (2048).to_bytes(2, "big") + b"\x02\x00" + bytes(1040)) == 1044
    for _ in range(1000):
        attack.note("closed", sum(sends(peer, b"\0") is None for peer in peers))
        yield
    while True:
        time.sleep(PAUSE_SECONDS)
        yield


def connection_storm(attack: Attack) -> Generator[None, None, None]:
    """Connect and close without end, by FIN and by RST; some with half a frame sent."""
    for number in itertools.count():
        with attack.connect() as peer:
            if number % 3 == 0:
                sends(peer, b"\0\x40\x02")
            if number % 2 == 0:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        if number % 64 == 0:
            yield


def too_many(attack: Attack) -> Generator[None, None, None]:
    """Take every place that there is, and come back as soon as one is refused."""
    held: list[socket.socket] = []
    poll = select.epoll()
    while True:
        while len(held) < attack.count:
            peer = attack.connect()
            poll.register(peer, select.EPOLLIN)
            held.append(peer)
        refused = {descriptor for descriptor, _ in poll.poll(0)}
        attack.note("refused", len(refused))
        for peer in held:
            if peer.fileno() in refused:
                poll.unregister(peer)
                peer.close()
        held = [peer for peer in held if peer.fileno() >= 0]
        time.sleep(PAUSE_SECONDS)
        yield


def idle(attack: Attack) -> Generator[None, None, None]:
    """Connect and say nothing."""
    peers = [attack.connect() for _ in range(attack.count)]
    assert peers
    while True:
        time.sleep(PAUSE_SECONDS)
        yield


def garbage(attack: Attack) -> Generator[None, None, None]:
    """Send what is no message, what is half of one, and what can be read but proves nothing."""
    chance = attack.chance
    echo = frame(encode(attack.fields(0, 1, de70="301")))
    kinds: list[Callable[[], bytes]] = [
        lambda: chance.randbytes(8192),
        lambda: b"GET / HTTP/1.1\r\n\r\n" * 400,
        lambda: frame(bytes.fromhex("0200") + chance.randbytes(300)) * 27,
        lambda: echo * 100,
        lambda: frame(bytes.fromhex("0800") + bytes(8)) * 600,
    ]
    peers = [attack.connect() for _ in range(attack.count)]
    while True:
        for index, peer in enumerate(peers):
            came = receives(peer, 1 << 16)
            if came is None or sends(peer, chance.choice(kinds)()) is None:
                attack.note("closed")
                peer.close()
                peers[index] = attack.connect()
        yield


def echo_flood(attack: Attack) -> Generator[None, None, None]:
    """Echo tests without a MAC, which nobody is closed for: hundreds at a time, and more as soon as they are answered."""
    request = frame(encode(attack.fields(0, 1, de70="301")))
    with attack.connect() as peer:
        peer.settimeout(PATIENCE_SECONDS)
        peer.sendall(request)
        answer_bytes = len(peer.recv(4096))
    burst = request * 512
    peers = [attack.connect() for _ in range(attack.count)]
    awaited = dict.fromkeys(range(attack.count), 0)
    while True:
        for index, peer in enumerate(peers):
            came = receives(peer, 1 << 18)
            assert came is not None, "a peer that reads was closed"
            awaited[index] -= len(came)
            if awaited[index] == 0:
                assert sends(peer, burst) == len(burst), "a socket takes a burst once the one before is answered"
                awaited[index] = 512 * answer_bytes
                attack.note("asked", 512)
        yield


def sign_on_storm(attack: Attack) -> Generator[None, None, None]:
    """Every terminal signs on again and again without waiting for answers; every other one under a wrong key."""
    own = [MacKey(sign_on_key(bytes.fromhex(key), number)) for number, _, key in attack.terminals]
    keys = [MacKey(bytes(16)) if index % 2 else key for index, key in enumerate(own)]
    peers = [attack.connect() for _ in attack.terminals]
    for stan in itertools.count(1):
        for index, peer in enumerate(peers):
            nonce = write_sub_elements({"01": attack.chance.randbytes(8).hex().upper()})
            message = frame(encode(attack.fields(index, stan, de48=nonce, de70="001"), keys[index]))
            if receives(peer, 1 << 16) is None or sends(peer, message) is None:
                attack.note("closed")
                peer.close()
                peers[index] = attack.connect()
            else:
                attack.note("asked")
        yield


KINDS: Final[dict[str, Callable[[Attack], Generator[None, None, None]]]] = {
    "never_readers": never_readers,
    "byte_readers": byte_readers,
    "half_frames": half_frames,
    "connection_storm": connection_storm,
    "too_many": too_many,
    "idle": idle,
    "garbage": garbage,
    "echo_flood": echo_flood,
    "sign_on_storm": sign_on_storm,
}


def main() -> None:
    os.nice(19)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    order: dict[str, Any] = json.loads(sys.stdin.readline())
    attack = Attack(order["port"], order["count"], [tuple(terminal) for terminal in order["terminals"]])
    attack.chance.seed(order["seed"])
    rounds = KINDS[sys.argv[1]](attack)
    for _ in range(order.get("rounds", 3)):
        next(rounds)
    print("ready", flush=True)  # noqa: T201 - what the test waits for
    with contextlib.closing(rounds):
        while not select.select([sys.stdin], [], [], 0)[0]:
            next(rounds)
    print(json.dumps(attack.done), flush=True)  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main()
