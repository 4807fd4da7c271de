"""`switch demo`: a college at lunch on this machine, and the proof that everybody's sums are equal.

A switch is set up in an empty folder, told of a made-up college (`switch.campus`) and started as the process that it is in
production. Every one of the 230 terminals has its own TCP connection, key and session, and is the reference terminal
(`switch.terminal`), which shares no code with the switch. Lunch is replayed at a chosen speed, open loop: a payment is due at its
moment whether the switch is quick or not, one at a time at a terminal, late ones in a queue. A small share is sent twice, repeated
or reversed on purpose. The sums at the end and the verdict on them are `switch.demo_report`'s.

Always true here: the demonstration succeeds only if nothing unexpected was answered, every merchant's and every card's sum is the same
by the terminals' own count, in a ledger replayed from the journal and in PostgreSQL, the switch drained and ended with 0, and its journal
verifies. No process and, unless asked to, no file is left, whatever ends it; killed past asking (SIGKILL) it leaves its folder, but
no process where util-linux's setpriv is.

How it works: trio alone runs the terminals and the progress display; whatever blocks (asyncio for PostgreSQL, replaying, removing a
folder, writing to the console) is on a thread. The switch alone is not started on one: the kernel's signal on a parent's death comes
with the end of the thread that forked, and an idle worker thread ends after some seconds.
"""

import contextlib
import datetime
import gc
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import msgspec
import trio

from switch.campus import CARDHOLDERS, Campus, Card, TerminalRow, college
from switch.demo_report import BooksUnread, Tally, milliseconds, read_books, report, verdict_of_command, verdicts
from switch.dialect import ProtocolViolation
from switch.meals import LUNCH, Conduct, Payment, lunch
from switch.terminal import Terminal
from switch.terminal_protocol import NoAnswer, Refused, Reply, Request, TerminalProtocol

__all__ = ["DemoOptions", "run_demo"]

SPEED: Final = 90.0
"""Lunch seconds a second: an hour and a half in one minute."""

PROGRESS_SECONDS: Final = 5.0
"""Between two lines of progress where they are kept; a terminal's one line is renewed four times a second."""

COMMAND_SECONDS: Final = 120.0
"""For `switch init`, `import`, `reconcile` or `verify`: far above what they take, so that a hang ends."""

READY_SECONDS: Final = 120.0
"""For the switch to be ready; the first time, that includes the making of a database."""

DRAIN_SECONDS: Final = 30.0
"""For the switch to end after SIGTERM."""

OVERTIME_SECONDS: Final = 60.0
"""By which the replay may last longer than planned, before it is given up."""

PATIENCE_SECONDS: Final = 30.0
"""For one answer, repeats included."""

WITH_ITS_PARENT: Final = ("setpriv", "--pdeathsig", "TERM", "--")
"""Before a command: the kernel asks it to end when the thread that started it is gone, even killed."""

LAG_METRIC: Final = "switch_settlement_lag_records"

LOG_TAIL_LINES: Final = 20
INTERRUPTED: Final = 130


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What `switch demo` may be told."""

    speed: float | None = None
    """Lunch seconds a second; None for `SPEED`."""
    seed: int = 1
    directory: Path | None = None
    """Where to work: a new or an empty folder. None for a temporary one."""
    cardholders: int = CARDHOLDERS
    keep: bool = False
    """Leaves the folder for a look afterwards."""


class DemoFailed(Exception):
    """One sentence, or several lines, for the one who started it."""


class Ready(msgspec.Struct, frozen=True):
    """The line by which `switch serve` says where it can be reached."""

    ready: bool
    terminals: str
    admin: str
    database: str


async def run_demo(options: DemoOptions) -> int:
    """Runs the demonstration to its verdict: 0 equal, 1 not, 130 interrupted. Resource handling: leaves no process and no folder."""
    exit_code = INTERRUPTED
    async with trio.open_nursery() as nursery:

        async def until_interrupted(task_status: trio.TaskStatus[None]) -> None:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                task_status.started()
                async for _ in signals:
                    nursery.cancel_scope.cancel()

        await nursery.start(until_interrupted)
        try:
            async with _folder(options) as folder:
                exit_code = 0 if await _demonstrate(options, folder) else 1
        except DemoFailed as failure:
            await _say(f"The demonstration failed: {failure}", error=True)
            exit_code = 1
        nursery.cancel_scope.cancel()
    if exit_code == INTERRUPTED:
        await _say("\nInterrupted; everything is stopped and taken away.", error=True)
    return exit_code


async def _demonstrate(options: DemoOptions, folder: Path) -> bool:
    speed = SPEED if options.speed is None else options.speed
    if not speed > 0:
        raise DemoFailed(f"a speed of {speed:g} is none; name a number above 0, such as {SPEED:g}.")
    data, files = folder / "switch", folder / "campus"
    config = data / "switch.toml"

    await _say(f"Setting up a switch and a college of {options.cardholders:,} in {folder}")
    await _command("init", str(data))
    campus, payments = await trio.to_thread.run_sync(_prepare, options, config, files)
    await _command("import", "--config", str(config), *(str(files / f"{name}.csv") for name in ("merchants", "terminals", "cards")))

    async with _Switch.serving(config, folder / "serve.log") as switch:
        await _say(
            f"{len(payments):,} payments at {len(campus.terminals)} terminals of {len(campus.merchants)} merchants, {speed:g} times as fast"
            f" as life (loads at the finance office are left out: the switch does not take them yet)"
        )
        replay = _Replay(campus, payments, switch.ready, speed)
        async with switch.watched():
            await replay.run()
            try:
                books = await trio.to_thread.run_sync(read_books, data / "journal", switch.ready.database, abandon_on_cancel=True)
            except BooksUnread as failure:
                raise DemoFailed(str(failure)) from None
            reconciliation = await _command("reconcile", "--config", str(config), check=False)
        found = verdicts(campus, replay.tally, books)
        found.append(verdict_of_command("`switch reconcile`", reconciliation, "ledger and PostgreSQL differ"))
        ended = await switch.stop()
        found.append("" if ended == 0 else f"The switch ended with {ended} after SIGTERM, not with 0.")
    found.append(verdict_of_command("`switch verify`", await _command("verify", str(data), check=False), "the journal is not sound"))

    problems = [verdict for verdict in found if verdict]
    await _say(report(campus, replay.tally, books, problems))
    if options.keep:
        await _say(f"Left for a look: {folder}")
    return not problems


def _prepare(options: DemoOptions, config: Path, files: Path) -> tuple[Campus, list[Payment]]:
    """On a thread: any free port for the switch, the college's files, the lunch."""
    config.write_text(re.sub(r"(?m)^port = \d+$", "port = 0", config.read_text(encoding="utf-8")), encoding="utf-8")
    campus = college(options.seed, _local_now().date(), options.cardholders)
    files.mkdir()
    campus.write(files)
    return campus, lunch(campus, options.seed)


def _local_now() -> datetime.datetime:
    return datetime.datetime.now()  # noqa: DTZ005 - the campus's clock is this machine's here


# --- processes and folders --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _folder(options: DemoOptions) -> AsyncIterator[Path]:
    if options.directory is None:
        folder = Path(await trio.to_thread.run_sync(partial(tempfile.mkdtemp, prefix="campus-card-switch-")))
    else:
        folder = options.directory.absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            occupied = any(folder.iterdir())
        except OSError as error:
            raise DemoFailed(f"{options.directory}: {error.strerror}.") from None
        if occupied:
            raise DemoFailed(f"{options.directory}: this folder is not empty; name a new or an empty one.")
    try:
        yield folder
    finally:
        if not options.keep:
            with trio.CancelScope(deadline=trio.current_time() + DRAIN_SECONDS, shield=True):
                await trio.to_thread.run_sync(partial(shutil.rmtree, folder, ignore_errors=True))


def _arguments(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "switch", *arguments]


async def _command(*arguments: str, check: bool = True) -> "subprocess.CompletedProcess[bytes]":
    """Runs one of the switch's own commands to its end. Raises `DemoFailed` with its last words if `check` and it failed."""
    with trio.move_on_after(COMMAND_SECONDS) as patience:
        done = await trio.run_process(_arguments(*arguments), capture_stdout=True, capture_stderr=True, check=False)
        if check and done.returncode:
            raise DemoFailed(f"`switch {arguments[0]}` ended with {done.returncode}: {done.stderr.decode(errors='replace').strip()}")
        return done
    assert patience.cancelled_caught
    raise DemoFailed(f"`switch {arguments[0]}` did not end within {COMMAND_SECONDS:g} s.")


async def _death_wrapper() -> tuple[str, ...]:
    """`WITH_ITS_PARENT` where it works: other makes of setpriv do not know the option."""
    if shutil.which(WITH_ITS_PARENT[0]) is None:
        return ()
    tried = await trio.run_process([*WITH_ITS_PARENT, "true"], capture_stdout=True, capture_stderr=True, check=False)
    return WITH_ITS_PARENT if tried.returncode == 0 else ()


class _Switch:
    """The switch as a process of its own, in a process group of its own, so that Ctrl-C reaches the demonstration alone."""

    def __init__(self, wrapper: Sequence[str], config: Path, log: Path) -> None:
        """Forks in the thread that runs trio, which outlives the switch: see `WITH_ITS_PARENT`. Hence no `trio.open_process`."""
        self.ready = Ready(ready=False, terminals="", admin="", database="")
        self._log = log
        reading, writing = os.pipe()
        self._stdout = trio.lowlevel.FdStream(reading)
        try:
            with log.open("wb") as log_file:
                self._process = subprocess.Popen(
                    [*wrapper, *_arguments("serve", "--config", str(config))],
                    stdin=subprocess.DEVNULL,
                    stdout=writing,
                    stderr=log_file,
                    start_new_session=True,
                )
        finally:
            os.close(writing)

    @classmethod
    @contextlib.asynccontextmanager
    async def serving(cls, config: Path, log: Path) -> AsyncIterator["_Switch"]:
        """Started and ready. At the end of the block it is stopped, by force if need be."""
        switch = cls(await _death_wrapper(), config, log)
        try:
            await switch._wait_until_ready()
            yield switch
        finally:
            with trio.CancelScope(deadline=trio.current_time() + DRAIN_SECONDS, shield=True):
                switch._process.terminate()
                await switch._wait()
            # Whoever is left of the group is past asking. Its database and follower end by themselves without it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(switch._process.pid, signal.SIGKILL)
            with trio.CancelScope(deadline=trio.current_time() + DRAIN_SECONDS, shield=True):
                await switch._wait()
                await switch._stdout.aclose()

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Raises `DemoFailed` as soon as the switch ends within the block."""
        ended: int | None = None
        failure: DemoFailed | None = None
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                nonlocal ended
                ended = await self._wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            try:
                yield
            except DemoFailed as raised:
                # Carried past the nursery, which would wrap it.
                failure = raised
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if ended is not None:
            raise DemoFailed(f"the switch ended with {ended} in the middle.{await self._last_words()}")

    async def stop(self) -> int | None:
        """SIGTERM, and the exit code; None if it does not end in time."""
        self._process.terminate()
        with trio.move_on_after(DRAIN_SECONDS):
            return await self._wait()
        return None

    async def _wait(self) -> int:
        """Until the process has ended: its exit code."""
        if self._process.poll() is None:
            descriptor = os.pidfd_open(self._process.pid)
            try:
                await trio.lowlevel.wait_readable(descriptor)
            finally:
                os.close(descriptor)
        return self._process.wait()

    async def _wait_until_ready(self) -> None:
        line = b""
        with trio.move_on_after(READY_SECONDS):
            while b"\n" not in line and (data := await self._stdout.receive_some()):
                line += data
        try:
            self.ready = msgspec.json.decode(line.partition(b"\n")[0], type=Ready)
        except msgspec.DecodeError:
            raise DemoFailed(f"the switch did not get ready.{await self._last_words()}") from None

    async def _last_words(self) -> str:
        lines = (await trio.to_thread.run_sync(partial(self._log.read_text, errors="replace"))).splitlines()
        return "".join(f"\n  | {line}" for line in lines[-LOG_TAIL_LINES:])


# --- the lunch --------------------------------------------------------------------------------------------------------------------


class _Replay:
    """230 terminals and the payments that are due at them."""

    def __init__(self, campus: Campus, payments: Sequence[Payment], ready: Ready, speed: float) -> None:
        self.tally = Tally(payments=len(payments))
        self.speed = speed
        self._ready = ready
        self._cards = {card.card_number: card for card in campus.cards}
        self._today = _local_now().date()
        host, _, port = ready.terminals.rpartition(":")
        by_terminal: defaultdict[str, list[Payment]] = defaultdict(list)
        for payment in payments:
            by_terminal[payment.terminal_id].append(payment)
        self._tills = [(row, _terminal(row, host.strip("[]"), int(port)), by_terminal[row.terminal_id]) for row in campus.terminals]
        self._started_at = 0.0

    async def run(self) -> None:
        """Signs every terminal on, then replays. Surprises are kept in the tally, not raised."""
        # Nothing made so far is garbage; a collection that walks it would be seen as a slow answer.
        gc.collect()
        gc.freeze()
        try:
            async with trio.open_nursery() as nursery:
                for _, terminal, _ in self._tills:
                    nursery.start_soon(self._sign_on, terminal)
            if self.tally.surprises:
                raise DemoFailed(self.tally.surprises[0])
            await self._lunch()
        finally:
            for _, terminal, _ in self._tills:
                terminal.close()
            gc.unfreeze()

    async def _sign_on(self, terminal: Terminal) -> None:
        try:
            await terminal.sign_on()
        except (Refused, NoAnswer, ProtocolViolation) as failure:
            self.tally.surprises.append(f"{failure}.")

    async def _lunch(self) -> None:
        self._started_at = trio.current_time()
        with trio.move_on_after(LUNCH.seconds / self.speed + OVERTIME_SECONDS) as overtime:
            async with trio.open_nursery() as display:
                display.start_soon(self._show_progress)
                async with trio.open_nursery() as nursery:
                    for row, terminal, payments in self._tills:
                        nursery.start_soon(self._serve, row, terminal, payments)
                self.tally.lasted_seconds = trio.current_time() - self._started_at
                display.cancel_scope.cancel()
        if overtime.cancelled_caught:
            self.tally.surprises.append(f"Lunch was not over {OVERTIME_SECONDS:g} s after its time.")

    async def _serve(self, row: TerminalRow, terminal: Terminal, payments: Sequence[Payment]) -> None:
        for payment in payments:
            due = self._started_at + payment.at_seconds / self.speed
            await trio.sleep_until(due)
            self.tally.late_seconds_max = max(self.tally.late_seconds_max, trio.current_time() - due)
            try:
                await self._pay(row, terminal, payment)
            except (NoAnswer, ProtocolViolation, Refused) as failure:
                self.tally.surprises.append(f"{failure}.")
                terminal.close()

    async def _pay(self, row: TerminalRow, terminal: Terminal, payment: Payment) -> None:
        tally = self.tally
        request = terminal.protocol.purchase(_local_now(), payment.card_number, payment.amount)
        match payment.conduct:
            case Conduct.ORDINARY:
                reply = await self._timed(terminal, request)
            case Conduct.DOUBLED:
                reply = await self._timed(terminal, request, copies=2)
                # The second answer was compared with the first by the terminal's protocol.
                tally.doubled += 1
                tally.remembered += 1
            case Conduct.REPEATED:
                await self._timed(terminal, request)
                reply = await terminal.exchange(request, repeat=True)
                tally.repeated += 1
                tally.remembered += reply.again
            case Conduct.RECONNECTED:
                await terminal.abandon(request)
                reply = await terminal.exchange(request, repeat=True)
                tally.reconnected += 1
            case Conduct.REVERSED | Conduct.REVERSED_BARE:
                reply = await self._timed(terminal, request)
                await self._reverse(row, terminal, request, bare=payment.conduct is Conduct.REVERSED_BARE)
            case _:
                assert payment.conduct is Conduct.OVERTAKEN
                await self._reverse(row, terminal, request, bare=False)
                reply = await self._timed(terminal, request)
                tally.overtaken += 1
        self._book(row, payment, reply)

    async def _timed(self, terminal: Terminal, request: Request, copies: int = 1) -> Reply:
        began = time.perf_counter()
        reply = await terminal.exchange(request, copies=copies)
        self.tally.seconds.append(time.perf_counter() - began)
        return reply

    async def _reverse(self, row: TerminalRow, terminal: Terminal, original: Request, *, bare: bool) -> None:
        reply = await terminal.reversal(original, original_data=not bare)
        if not reply.approved:
            self.tally.surprises.append(f"A reversal by {row.terminal_id} was answered {reply.code}, {reply.meaning}.")
            return
        self.tally.reversed += 1
        if original.reply is not None and original.reply.approved:
            self.tally.given_back_fen += original.amount
            self.tally.by_merchant[row.merchant_id] -= original.amount
            self.tally.by_card[original.fields["2"]] -= original.amount

    def _book(self, row: TerminalRow, payment: Payment, reply: Reply) -> None:
        tally = self.tally
        if reply.approved:
            tally.approved += 1
            tally.approved_fen += payment.amount
            tally.by_merchant[row.merchant_id] += payment.amount
            tally.by_card[payment.card_number] += payment.amount
        else:
            tally.declined[reply.code] += 1
        expected = _expected_codes(self._cards.get(payment.card_number), payment.conduct, self._today)
        if reply.code not in expected:
            tally.surprises.append(
                f"{row.terminal_id}, STAN {reply.request.stan}: a purchase was answered {reply.code}, {reply.meaning}; expected was"
                f" {' or '.join(sorted(expected))}."
            )

    # Progress.

    async def _show_progress(self) -> None:
        one_line = sys.stdout.isatty()
        seen_done = seen = 0
        seen_at = self._started_at
        async with httpx.AsyncClient(base_url=f"http://{self._ready.admin}", timeout=2.0, trust_env=False) as admin:
            while True:
                await trio.sleep(0.25 if one_line else PROGRESS_SECONDS)
                tally, now = self.tally, trio.current_time()
                done = tally.approved + tally.declined.total()
                recent = sorted(tally.seconds[seen:])
                rate = (done - seen_done) / (now - seen_at)
                text = "  ".join(
                    (
                        _lunch_clock((now - self._started_at) * self.speed),
                        f"{done:6,} of {tally.payments:,}",
                        f"{rate:6,.0f}/s",
                        f"{tally.approved:6,} approved",
                        f"{tally.declined.total():4,} declined",
                        f"p50 {milliseconds(recent, 0.5)}",
                        f"p99 {milliseconds(recent, 0.99)}",
                        f"to settle {await _unsettled(admin)}",
                    )
                )
                await _say(f"\r{text}\x1b[K" if one_line else text, end="" if one_line else "\n")
                if not one_line or now - seen_at >= 1.0:
                    seen_done, seen, seen_at = done, len(tally.seconds), now


def _terminal(row: TerminalRow, host: str, port: int) -> Terminal:
    protocol = TerminalProtocol(row.terminal_id, row.key, row.merchant_id)
    return Terminal(protocol, host, port, answer_seconds=PATIENCE_SECONDS / 3, patience_seconds=PATIENCE_SECONDS, now=_local_now)


def _expected_codes(card: Card | None, conduct: Conduct, today: datetime.date) -> frozenset[str]:
    """What a purchase may be answered, from the files that were imported. Whether a purse suffices is left to the sums."""
    if conduct is Conduct.OVERTAKEN:
        # A reversal was there before it. It stands before any question of the card.
        return frozenset({"12"})
    if card is None:
        return frozenset({"14"})
    return card.purchase_answers(today)


def _lunch_clock(seconds: float) -> str:
    began = datetime.datetime.combine(datetime.date.min, LUNCH.begins)
    return f"{began + datetime.timedelta(seconds=min(int(seconds), LUNCH.seconds)):%H:%M:%S}"


async def _unsettled(admin: httpx.AsyncClient) -> str:
    """Records that PostgreSQL does not have yet, by the switch's own metrics."""
    try:
        metrics = (await admin.get("/metrics")).text
    except httpx.HTTPError:
        return "?"
    found = re.search(rf"(?m)^{LAG_METRIC} (\S+)$", metrics)
    return f"{float(found[1]):,.0f}" if found else "?"


async def _say(text: str, *, end: str = "\n", error: bool = False) -> None:
    """Writes to the console on a thread: a console that does not take it must not hold the terminals up."""
    await trio.to_thread.run_sync(
        partial(print, text, end=end, file=sys.stderr if error else sys.stdout, flush=True), abandon_on_cancel=True
    )
