"""A real switch for tests: its folder, its process, and parties whose messages are written field by field or byte by byte.

Always true here: the switch is another process, reached over TCP alone; what is sent and read goes through the reference terminal's
codec, none of the switch's own. Its clock is real, but its campus lies where it is about noon, so that no business day ends under a test.
Whatever is waited for has a deadline, and a switch that ends otherwise than it should shows its log.
"""

import contextlib
import datetime
import itertools
import json
import os
import re
import secrets
import selectors
import signal
import ssl
import subprocess
import sys
import zoneinfo
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
import trio
from prometheus_client.parser import text_string_to_metric_families

from switch import config as configuration
from switch._core import verify
from switch.dialect import (
    MAC_BYTES,
    FrameBuffer,
    MacKey,
    decode,
    encode,
    frame,
    session_keys,
    sign_on_key,
    sub_elements,
    write_sub_elements,
)
from switch.terminal import Terminal
from switch.terminal_protocol import TerminalProtocol
from tests.messages import Messages, pin_block

DEADLINE_SECONDS: Final = 60
"""For whatever is waited for; reached only where something is broken."""

POLL_SECONDS: Final = 0.02

PROGRAM: Final = Path(sys.executable).with_name("switch")

NO_DATABASE: Final = "postgresql://nobody@127.0.0.1:1/none"
"""Nothing listens there: the switch authorizes without PostgreSQL, and starts at once."""

CANTEEN: Final = "M00000000000001"
SHOP: Final = "M2"
MERCHANTS: Final = f"merchant_id,name,category,fee_bp\n{CANTEEN},第一食堂,canteen,120\n{SHOP},Corner shop,shop,0\n"
TERMINALS_HEADER: Final = "terminal_id,merchant_id,kind,zone,key"
CARDS_HEADER: Final = "card_number,holder_id,class,status,expires,cash,subsidy"
RULES_HEADER: Final = "rule,class,category,zone,days,from,to,value"
PINS_HEADER: Final = "card_number,pin"

AMOUNT_MAX: Final = 5_000_000
FAR_FUTURE: Final = "2099-12-31"

_NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Nothing here speaks TLS; the default would read the system's certificates for every request."""

Fields = dict[str, str]
Seen = TypeVar("Seen")


def _noon() -> str:
    """A time zone in which it is about noon."""
    ahead = 12 - datetime.datetime.now(datetime.UTC).hour
    # POSIX counts the hours westward.
    return f"Etc/GMT{-ahead:+d}" if ahead else "Etc/GMT"


ZONE: Final = _noon()


def now() -> datetime.datetime:
    """The campus's local time, as a terminal's clock shows it."""
    return datetime.datetime.now(zoneinfo.ZoneInfo(ZONE)).replace(tzinfo=None)


def today(days: int = 0) -> datetime.date:
    """The campus's date, or that of so many days later."""
    return now().date() + datetime.timedelta(days=days)


async def until(look: Callable[[], Awaitable[Seen]], holds: Callable[[Seen], bool]) -> Seen:
    """Look again and again until what is seen holds, and give it. Fails with what was seen last."""
    seen = await look()
    with trio.move_on_after(DEADLINE_SECONDS):
        while not holds(seen):
            await trio.sleep(POLL_SECONDS)
            seen = await look()
    assert holds(seen), f"not within {DEADLINE_SECONDS} seconds; seen last: {seen}"
    return seen


class Metrics:
    """One reading of `/metrics`."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._values = {
            (sample.name, *sorted(sample.labels.items())): sample.value for family in self.families.values() for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> int:
        """A sample's value; 0 where there is none yet."""
        return int(self._values.get((name, *sorted(labels.items())), 0))

    def sum(self, name: str, **labels: str) -> int:
        """Over all samples of this name that have at least these labels."""
        return int(sum(value for (found, *pairs), value in self._values.items() if found == name and labels.items() <= set(pairs)))

    def closed(self, reason: str) -> int:
        return self.value("switch_connections_closed_total", reason=reason)

    def answered(self, operation: str, response: str) -> int:
        return self.value("switch_requests_total", operation=operation, response=response)


@dataclass(frozen=True)
class Answer:
    """One frame that the switch sent."""

    tpdu: bytes
    message: bytes
    fields: Fields
    """Without the MAC; "t" is the MTI."""
    mac: bytes | None

    @classmethod
    def read(cls, tpdu: bytes, message: bytes) -> "Answer":
        fields = decode(message)
        mac = fields.pop("64", None) or fields.pop("128", None)
        return cls(tpdu, message, fields, None if mac is None else bytes.fromhex(mac))

    @property
    def code(self) -> str:
        return self.fields["39"]

    @property
    def content(self) -> bytes:
        """Every byte but MTI and MAC."""
        return self.message[2 : -MAC_BYTES if self.mac else None]

    def proved_by(self, key: MacKey) -> bool:
        return self.mac is not None and key.verifies(self.message[:-MAC_BYTES], self.mac)

    def without(self, *elements: str) -> Fields:
        return {element: value for element, value in self.fields.items() if element not in elements}

    @property
    def purses(self) -> tuple[int, int] | None:
        """What DE54 says of the cash and the subsidy purse, in fen."""
        text = self.fields.get("54")
        if text is None:
            return None
        found = re.fullmatch(r"1002156([CD])(\d{12})2002156([CD])(\d{12})", text)
        assert found, text
        cash, subsidy = (int(found[2]) * (-1) ** (found[1] == "D"), int(found[4]) * (-1) ** (found[3] == "D"))
        return cash, subsidy


class Connection:
    """A TCP connection, bytes in and frames out."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._frames = FrameBuffer()
        self._answers: list[Answer] = []

    async def send(self, data: bytes) -> None:
        with trio.fail_after(DEADLINE_SECONDS):
            await self.stream.send_all(data)

    async def receive(self) -> Answer:
        """The next answer. Fails where the switch closes the connection instead."""
        with trio.fail_after(DEADLINE_SECONDS):
            while not self._answers:
                data = await self.stream.receive_some()
                assert data, "the switch closed the connection"
                self._answers += [Answer.read(*content) for content in self._frames.feed(data)]
        return self._answers.pop(0)

    async def until_closed(self) -> list[Answer]:
        """Wait for the switch to close the connection, and give what it sent before."""
        with trio.fail_after(DEADLINE_SECONDS), contextlib.suppress(trio.BrokenResourceError):
            while data := await self.stream.receive_some():
                self._answers += [Answer.read(*content) for content in self._frames.feed(data)]
        answers, self._answers = self._answers, []
        return answers

    async def ask(self, message: bytes, tpdu: bytes = b"") -> Answer:
        await self.send(frame(message, tpdu))
        return await self.receive()


class Device(Messages):
    """A terminal that the switch knows, told message by message what to say, right or wrong."""

    def __init__(self, terminal_id: str, merchant_id: str, master_key: bytes) -> None:
        super().__init__(terminal_id, merchant_id, now)
        self.master_key = master_key
        self.sign_on_key = MacKey(sign_on_key(master_key, terminal_id))
        self.session: MacKey | None = None
        self.pin_key = b""
        """Of the session, once there is one."""

    @property
    def key(self) -> MacKey:
        assert self.session is not None, "not signed on"
        return self.session

    def keys_of(self, nonce: bytes, answer: Answer) -> tuple[bytes, bytes]:
        """MAC key and PIN key of the session that this answer to a sign-on opens."""
        switch_nonce = bytes.fromhex(sub_elements(answer.fields["48"])["02"])
        return session_keys(self.master_key, self.terminal_id, nonce, switch_nonce)

    def session_of(self, nonce: bytes, answer: Answer) -> MacKey:
        """The key of the session that this answer to a sign-on opens."""
        return MacKey(self.keys_of(nonce, answer)[0])

    def pin(self, card: str, pin: str) -> str:
        """DE48's sub-element 52 with the PIN for this card."""
        return write_sub_elements({"52": pin_block(self.pin_key, card, pin)})

    async def sign_on(self, connection: Connection) -> Answer:
        nonce = secrets.token_bytes(8)
        answer = await self.ask(connection, self.sign_on_message(nonce), self.sign_on_key)
        assert answer.code == "00", answer.fields
        mac_key, self.pin_key = self.keys_of(nonce, answer)
        self.session = MacKey(mac_key)
        return answer

    async def ask(self, connection: Connection, fields: Fields, key: MacKey | None = None, tpdu: bytes = b"") -> Answer:
        """Send under the session's key, or `key`, and read the answer. A MAC, if it has one, is right; a decision has one."""
        key = key or self.key
        answer = await connection.ask(encode(fields, key), tpdu)
        assert answer.proved_by(key) or (answer.mac is None and answer.code in {"30", "58", "63"}), answer.fields
        return answer


class Switch:
    """A data folder and the process that serves it.

    Resource handling: `start` begins a process that `stop` or `kill` ends; `close` ends whatever still runs and checks what is left.
    """

    def __init__(self, folder: Path, *, database: str = NO_DATABASE, **settings: int | str) -> None:
        """`settings` by section and name, such as terminals_port."""
        self.folder = folder
        self.file = folder / configuration.CONFIG_NAME
        configuration.initialise(folder)
        self.configure(
            **{
                "terminals_port": 0,
                "admin_port": 0,
                "campus_timezone": ZONE,
                "journal_segment_bytes": 8_388_608,
                "database_url": database,
                **settings,
            }
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.ready: dict[str, Any] = {}
        self._log = folder.with_suffix(".log")
        self._operator: httpx.AsyncClient | None = None
        self._terminals = itertools.count(1)
        self._cards = itertools.count(1)

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def configure(self, **settings: int | str) -> None:
        """Set single values in switch.toml."""
        lines, section = [], ""
        for line in self.file.read_text(encoding="utf-8").splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            name = f"{section}_{line.split(' = ')[0]}"
            lines.append(f"{line.split(' = ')[0]} = {json.dumps(settings.pop(name))}" if name in settings else line)
        assert not settings, f"no such settings: {settings}"
        self.file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    # The process. These block; from trio by `in_thread`.

    def start(self, *before: str, arguments: Sequence[str] = ()) -> None:
        """Begin, with these arguments more, and wait for the ready line."""
        self.spawn(*before, arguments=arguments)
        assert self.until_ready(), f"the switch ended with code {self.ended()}:\n{self.log}"

    def spawn(self, *before: str, arguments: Sequence[str] = ()) -> None:
        """Begin, without a wait. `before` is put in front of the command; the process must stay its own."""
        assert self.process is None
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*before, PROGRAM, "serve", "--config", self.file, *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONWARNINGS": "error"},
            )

    def until_ready(self) -> bool:
        """Wait for the ready line. False: it has ended instead."""
        assert self.process is not None
        assert self.process.stdout is not None
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                assert selector.select(DEADLINE_SECONDS), f"no ready line within {DEADLINE_SECONDS} seconds:\n{self.log}"
                data = os.read(self.process.stdout.fileno(), 4096)
                if not data:
                    return False
                line += data
        self.ready = json.loads(line)
        assert self.ready["ready"] is True
        return True

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end, and see that it does so with exit code 0."""
        self.signal(number)
        code = self.ended()
        assert code == 0, f"ended with code {code}:\n{self.log}"

    def kill(self) -> None:
        """End it as a power cut would."""
        self.signal(signal.SIGKILL)
        assert self.ended() == -signal.SIGKILL

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for its end, and give its exit code, negative for a signal."""
        assert self.process is not None
        assert self.process.stdout is not None
        try:
            return self.process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end within {DEADLINE_SECONDS} seconds:\n{self.log}") from None
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def close(self) -> None:
        """End it, and see that nothing went wrong that no test looked at."""
        if self.process is not None:
            self.stop()
        assert "Traceback" not in self.log, self.log
        checked = self.verify()
        assert checked["ok"], checked
        assert checked["sum"] == 0

    def verify(self) -> dict[str, Any]:
        """What `switch verify` says of the journal, with nothing running."""
        checked: dict[str, Any] = json.loads(verify(self.journal, archive=self.folder / "archive"))
        return checked

    def command(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(  # the caller looks at the exit code
            [PROGRAM, *arguments], check=False, capture_output=True, text=True, timeout=DEADLINE_SECONDS, cwd=self.folder
        )

    async def follower(self) -> int:
        """The follower's process, once there is one."""

        async def look() -> list[int]:
            await trio.lowlevel.checkpoint()
            return [pid for pid in self._children() if b"\0follow\0" in _command_line(pid)]

        return (await until(look, bool))[0]

    def _children(self) -> list[int]:
        return [int(pid) for task in Path(f"/proc/{self.pid}/task").iterdir() for pid in (task / "children").read_text().split()]

    # Its two doors.

    @property
    def port(self) -> int:
        return int(self.ready["terminals"].rpartition(":")[2])

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        """A terminals' connection, closed at the end."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        try:
            yield Connection(stream)
        finally:
            stream.socket.close()

    async def http(self, method: str, path: str, *, token: str | None = None, **arguments: Any) -> httpx.Response:
        """Ask the operators' door, with the folder's token unless another is given."""
        token = (self.folder / "keys" / "admin.token").read_text().strip() if token is None else token
        headers = {b"authorization": f"Bearer {token}".encode()} if token else {}
        async with AsyncExitStack() as stack:
            client = self._operator
            if client is None:
                client = await stack.enter_async_context(_http_client())
            return await client.request(method, f"http://{self.ready['admin']}{path}", headers=headers, **arguments)

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[None]:
        """Keep one connection to the operators' door meanwhile: a third of the time of each look."""
        async with _http_client() as client:
            self._operator = client
            try:
                yield
            finally:
                self._operator = None

    async def metrics(self) -> Metrics:
        return Metrics((await self.http("GET", "/metrics", token="")).text)

    async def show(self, kind: str, identifier: str) -> dict[str, Any]:
        response = await self.http("GET", f"/v1/show/{kind}/{identifier}")
        assert response.status_code == 200, response.text
        shown: dict[str, Any] = response.json()
        return shown

    async def purses(self, card: str) -> tuple[int, int]:
        """The ledger's balances of the cash and the subsidy purse, in fen."""
        shown = await self.show("card", card)
        return shown["cash"], shown["subsidy"]

    # Parties and rules, entered while it runs.

    async def enter(self, content: str) -> dict[str, Any]:
        """Import a file's content."""
        response = await self.http("POST", "/v1/import", params={"name": "test.csv"}, content=content.encode())
        assert response.status_code == 200, response.text
        report: dict[str, Any] = response.json()
        return report

    async def devices(self, count: int, *, kind: str = "pos", merchant: str = CANTEEN, zone: str = "") -> list[Device]:
        """New terminals, each with its own key, not signed on."""
        devices = [Device(f"T{next(self._terminals)}", merchant, secrets.token_bytes(16)) for _ in range(count)]
        rows = [f"{device.terminal_id},{merchant},{kind},{zone},{device.master_key.hex()}" for device in devices]
        await self.enter("\n".join([TERMINALS_HEADER, *rows]))
        return devices

    async def device(self, *, kind: str = "pos", merchant: str = CANTEEN, zone: str = "") -> Device:
        (device,) = await self.devices(1, kind=kind, merchant=merchant, zone=zone)
        return device

    async def cards(self, count: int, **of: Any) -> list[str]:
        """New cards, each with its own holder; `of` as in `alter`."""
        numbers = [f"6230{next(self._cards):012}" for _ in range(count)]
        await self.alter(*numbers, **of)
        return numbers

    async def card(self, **of: Any) -> str:
        (number,) = await self.cards(1, **of)
        return number

    async def alter(
        self,
        *numbers: str,
        card_class: str = "student",
        status: str = "active",
        expires: str = FAR_FUTURE,
        cash: int = 100_000,
        subsidy: int = 0,
    ) -> None:
        """Import these cards as they are from now on. Purses are filled for a holder who is new, with 0 in both left as they are."""
        rows = [f"{number},H{number},{card_class},{status},{expires},{cash},{subsidy}" for number in numbers]
        await self.enter("\n".join([CARDS_HEADER, *rows]))

    async def rule(self, *rows: str) -> int:
        """Import these rules, which replace all before. Gives the position from which on they are in force."""
        report = await self.enter("\n".join([RULES_HEADER, *rows, ""]))
        position: int = report["position"]
        return position

    async def set_pins(self, pins: Mapping[str, str]) -> None:
        """By card number."""
        await self.enter("\n".join([PINS_HEADER, *(f"{card},{pin}" for card, pin in pins.items())]))

    def terminal(self, device: Device, **arguments: Any) -> Terminal:
        """The reference terminal with this device's key, on a connection of its own."""
        protocol = TerminalProtocol(device.terminal_id, device.master_key, device.merchant_id)
        return Terminal(protocol, "127.0.0.1", self.port, now=now, **arguments)


def _http_client() -> httpx.AsyncClient:
    return httpx.AsyncClient(trust_env=False, timeout=DEADLINE_SECONDS, verify=_NO_TLS)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""  # it has just ended


def runs(pid: int) -> bool:
    """Whether it does; one that has ended and waits for its parent to notice has no program any more."""
    return Path(f"/proc/{pid}/exe").exists()


async def until_gone(pid: int) -> None:
    """Wait until this process has ended."""

    async def look() -> bool:
        await trio.lowlevel.checkpoint()
        return runs(pid)

    await until(look, lambda there: not there)


async def in_thread(work: Callable[[], Seen]) -> Seen:
    """Run what blocks beside trio."""
    return await trio.to_thread.run_sync(work)


def report_of(completed: subprocess.CompletedProcess[str]) -> Mapping[str, Any]:
    """The JSON that a command printed."""
    found: Mapping[str, Any] = json.loads(completed.stdout)
    return found
