"""`switch demo`: a college at lunch on this machine, and the proof that everybody's sums are equal.

A switch is set up in an empty folder, told of a made-up college (`switch.campus`) and started as the process that it is in
production. Every one of the 230 terminals has its own TCP connection, key and session, and is the reference terminal
(`switch.terminal`), which shares no code with the switch. Lunch is replayed at a chosen speed, open loop: a payment is due at its
moment whether the switch is quick or not, one at a time at a terminal, late ones in a queue. A small share is sent twice, repeated
or reversed on purpose. Folder, processes and verdict are `switch.trial`'s, the text at the end `switch.demo_report`'s.

Always true here: the demonstration succeeds only if nothing unexpected was answered, every merchant's, every card's and the cash desk's sum
is the same by the terminals' own count, in a ledger replayed from the journal and in PostgreSQL, the switch drained and ended with 0, and
its journal verifies.
"""

import datetime
import gc
import re
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import trio

from switch.agreement import differences, milliseconds
from switch.campus import CARDHOLDERS, Campus, Card, TerminalRow, college
from switch.demo_report import Tally, report
from switch.dialect import ProtocolViolation
from switch.meals import LUNCH, Conduct, Payment, lunch
from switch.terminal import Terminal
from switch.terminal_protocol import NoAnswer, Refused, Reply, Request, TerminalProtocol
from switch.trial import Ready, TrialFailed, interruptible, on_trial, say, working_folder

__all__ = ["DemoOptions", "run_demo"]

SPEED: Final = 80.0
"""Lunch seconds a second: eighty minutes in one."""

PROGRESS_SECONDS: Final = 5.0
"""Between two lines of progress where they are kept; a terminal's one line is renewed four times a second."""

OVERTIME_SECONDS: Final = 60.0
"""By which the replay may last longer than planned, before it is given up."""

PATIENCE_SECONDS: Final = 30.0
"""For one answer, repeats included."""

LAG_METRIC: Final = "switch_settlement_lag_records"


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


async def run_demo(options: DemoOptions) -> int:
    """Runs the demonstration to its verdict: 0 equal, 1 not, 130 interrupted. Resource handling: leaves no process and no folder."""

    async def demonstrate() -> int:
        async with working_folder(options.directory, keep=options.keep) as folder:
            return 0 if await _demonstrate(options, folder) else 1

    return await interruptible(demonstrate, "The demonstration failed")


async def _demonstrate(options: DemoOptions, folder: Path) -> bool:
    speed = SPEED if options.speed is None else options.speed
    if not speed > 0:
        raise TrialFailed(f"a speed of {speed:g} is none; name a number above 0, such as {SPEED:g}.")
    await say(f"Setting up a switch and a college of {options.cardholders:,} in {folder}")
    files = folder / "campus"
    campus, payments = await trio.to_thread.run_sync(_prepare, options, files)
    tally = Tally()

    async def have_lunch(switch: Ready) -> None:
        nonlocal tally
        await say(
            f"{len(payments):,} payments at {len(campus.terminals)} terminals of {len(campus.merchants)} merchants, {speed:g} times as fast"
            " as life"
        )
        replay = _Replay(campus, payments, switch, speed)
        tally = replay.tally
        await replay.run()

    books, found = await on_trial(folder / "switch", files, {"port": "0"}, have_lunch)
    problems = [*tally.surprises, *differences(campus, tally, books), *found]
    await say(report(campus, tally, books, problems))
    if options.keep:
        await say(f"Left for a look: {folder}")
    return not problems


def _prepare(options: DemoOptions, files: Path) -> tuple[Campus, list[Payment]]:
    """On a thread: the college's files, and its lunch."""
    campus = college(options.seed, _local_now().date(), options.cardholders)
    files.mkdir()
    campus.write(files)
    return campus, lunch(campus, options.seed)


def _local_now() -> datetime.datetime:
    return datetime.datetime.now()  # noqa: DTZ005 - the campus's clock is this machine's here


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
                raise TrialFailed(self.tally.surprises[0])
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
        if payment.load:
            self._book(row, payment, await self._timed(terminal, terminal.protocol.load(_local_now(), payment.card_number, payment.amount)))
            return
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
        if reply.approved and payment.load:
            tally.loads += 1
            tally.loaded += payment.amount
            tally.by_card[payment.card_number] -= payment.amount
        elif reply.approved:
            tally.approved += 1
            tally.approved_fen += payment.amount
            tally.by_merchant[row.merchant_id] += payment.amount
            tally.by_card[payment.card_number] += payment.amount
        else:
            tally.declined[reply.code] += 1
        expected = _expected_codes(self._cards.get(payment.card_number), payment, self._today)
        if reply.code not in expected:
            what = "load" if payment.load else "purchase"
            tally.surprises.append(
                f"{row.terminal_id}, STAN {reply.request.stan}: a {what} was answered {reply.code}, {reply.meaning}; expected was"
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
                done = tally.approved + tally.loads + tally.declined.total()
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
                await say(f"\r{text}\x1b[K" if one_line else text, end="" if one_line else "\n")
                if not one_line or now - seen_at >= 1.0:
                    seen_done, seen, seen_at = done, len(tally.seconds), now


def _terminal(row: TerminalRow, host: str, port: int) -> Terminal:
    protocol = TerminalProtocol(row.terminal_id, row.key, row.merchant_id)
    return Terminal(protocol, host, port, answer_seconds=PATIENCE_SECONDS / 3, patience_seconds=PATIENCE_SECONDS, now=_local_now)


def _expected_codes(card: Card | None, payment: Payment, today: datetime.date) -> frozenset[str]:
    """What it may be answered, from the files that were imported. Whether a purse suffices is left to the sums."""
    if payment.conduct is Conduct.OVERTAKEN:
        # A reversal was there before it. It stands before any question of the card.
        return frozenset({"12"})
    if card is None:
        return frozenset({"14"})
    return card.load_answers(today) if payment.load else card.purchase_answers(today)


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
