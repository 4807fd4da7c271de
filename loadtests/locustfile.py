"""Locust sends a replay to a switch: a user is a terminal, its requests are due when the replay says so.

    locust --headless -f loadtests/locustfile.py --host 127.0.0.1:8583 --replay FOLDER --speed 20 \
        --html report.html --csv report

Always true here: the load is open. A request is due at its moment whether the switch is quick or not, one at a time at a terminal, late
ones in a queue, and its latency counts from that moment. Locust is told of every request under the operation's name, and fails one whose
answer is missing, unproved or wrong; then it ends with 1.

How it works: one greenlet reads the replay in its order, some seconds ahead, into a queue for each terminal, so a replay may be longer than
memory. The shape opens tills as the lunch fills: a till connects and signs on a few seconds before its first customer, and stays. When
every request has its answer, the shape ends the run.
"""

import datetime
import logging
import math
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

import gevent
from gevent.queue import SimpleQueue
from locust import LoadTestShape, User, constant, events, stats, task
from locust.env import Environment
from locust.runners import LocalRunner

from loadtests.answers import CSV_HEADER, Answer
from loadtests.till import FAILURES, Expectations, Till, zone
from switch.campus import Campus, CampusUnread, RowWriter, TerminalRow
from switch.replay import REPLAY_NAME, Entry, ReplayUnread, read_entries

BEGINS_SECONDS: Final = 3.0
"""From Locust's first look at the shape to the first request: for the first tills to be open."""

OPENS_SECONDS: Final = 5.0
"""By which a till is asked for before its first request. Locust looks at the shape once a second."""

OPENED_A_SECOND: Final = 100
"""Tills that may open within a second."""

AHEAD_SECONDS: Final = 10.0
"""By which the replay is read ahead."""

PATIENCE_SECONDS: Final = 30.0
"""For one answer."""

OVERTIME_SECONDS: Final = 60.0
"""By which the run may last longer than planned, before it is given up."""

PROTOCOL: Final = "ISO 8583"

_log = logging.getLogger(__name__)


class Lunch:
    """One run: what is due when, and at whom. Times are of `time.perf_counter`."""

    def __init__(self, environment: Environment) -> None:
        """Raises `CampusUnread`, `ReplayUnread` and `ValueError`, a sentence each."""
        options = environment.parsed_options
        assert options is not None
        host, _, port = (environment.host or "").removeprefix("tcp://").rpartition(":")
        if not host or not port.isdigit():
            raise ValueError("the switch's address is missing; name it: --host HOST:PORT")
        if not 0 < options.speed < math.inf:
            raise ValueError(f"a speed of {options.speed:g} is none; name a number above 0")
        self._address = (host, int(port))
        self._zone = zone(options.timezone)
        self._speed: float = options.speed
        self._replay: Path = options.replay / REPLAY_NAME
        campus = Campus.read(options.replay)
        self._expectations = Expectations({card.card_number: card for card in campus.cards}, datetime.datetime.now(self._zone).date())
        rows = {row.terminal_id: row for row in campus.terminals}
        self._first: list[tuple[int, TerminalRow]] = []
        """Each till's first request and itself, in the order in which they open."""
        self.entries = self.last_ms = 0
        seen: set[str] = set()
        for entry in read_entries(self._replay, rows):
            self.entries += 1
            self.last_ms = entry.offset_ms
            if entry.terminal_id not in seen:
                seen.add(entry.terminal_id)
                self._first.append((entry.offset_ms, rows[entry.terminal_id]))
        if not self.entries:
            raise ValueError(f"{self._replay}: there is nothing to replay")
        self._queues: dict[str, SimpleQueue[Entry]] = {}
        self._dealing: gevent.Greenlet[..., None] | None = None
        self._wanted = self._opened = 0
        self.begins_at = 0.0
        self.settled = 0
        """Requests that were answered, or never will be."""
        # For as long as the run lasts; `close` ends it.
        self._answers = RowWriter(options.answers, CSV_HEADER) if options.answers else None

    def begin(self) -> None:
        """From now on time passes. Where Locust's page has the run begin again, all of it does."""
        if self._dealing is not None:
            self._dealing.kill()
        self._wanted = self._opened = self.settled = 0
        self._queues = {row.terminal_id: SimpleQueue() for _, row in self._first}
        self.begins_at = time.perf_counter() + BEGINS_SECONDS
        self._dealing = gevent.spawn(self._deal)
        self._dealing.link_exception(lambda failed: _log.error("the replay cannot be read on: %s", failed.exception))

    def _deal(self) -> None:
        for number, entry in enumerate(read_entries(self._replay)):
            ahead = self.due(entry.offset_ms) - time.perf_counter() - AHEAD_SECONDS
            # Gives way now and then where there is no time to wait, or a slow file would hold the tills up.
            if ahead > 0 or number % 100 == 0:
                gevent.sleep(max(ahead, 0.0))
            self._queues[entry.terminal_id].put(entry)

    def due(self, offset_ms: int) -> float:
        """The moment of a request."""
        return self.begins_at + offset_ms / 1000 / self._speed

    def tills_wanted(self) -> int:
        """How many must be open by now."""
        reached_ms = (time.perf_counter() - self.begins_at + OPENS_SECONDS) * self._speed * 1000
        while self._wanted < len(self._first) and self._first[self._wanted][0] <= reached_ms:
            self._wanted += 1
        return self._wanted

    def open_till(self) -> tuple[str, Till]:
        """The next one in the order of their first customers."""
        row = self._first[self._opened][1]
        self._opened += 1
        return row.terminal_id, Till(row, self._address, self._zone, PATIENCE_SECONDS)

    def next(self, terminal_id: str) -> Entry:
        """Waits for the terminal's next request to be due. It may never come."""
        entry = self._queues[terminal_id].get()
        if (wait := self.due(entry.offset_ms) - time.perf_counter()) > 0:
            gevent.sleep(wait)
        return entry

    def expected(self, entry: Entry) -> frozenset[str]:
        return self._expectations.answers(entry.operation, entry.card_number)

    def note(self, answer: Answer) -> None:
        """Writes an answer down where that was asked for."""
        if self._answers is not None:
            self._answers.write(answer)

    @property
    def over(self) -> bool:
        """Every request is settled, or time is up."""
        if self._answers is not None:
            self._answers.flush()
        return self.settled >= self.entries or time.perf_counter() > self.due(self.last_ms) + OVERTIME_SECONDS

    def close(self) -> None:
        if self._answers is not None:
            self._answers.close()


class TillUser(User):
    """A terminal and whoever stands at it."""

    wait_time = constant(0)
    lunch: Lunch
    """Set once for all of them, when Locust begins."""

    def on_start(self) -> None:
        self.terminal_id, self.till = self.lunch.open_till()
        began = time.perf_counter()
        failure: Exception | None = None
        try:
            self.till.sign_on()
        except FAILURES as error:
            failure = error
        # Where it failed, every customer of this till does.
        self._report("sign-on", time.perf_counter() - began, failure)

    @task
    def serve(self) -> None:
        """The next customer."""
        entry = self.lunch.next(self.terminal_id)
        due = self.lunch.due(entry.offset_ms)
        failure: Exception | None = None
        try:
            reply, moved = self.till.ask(entry, self.lunch.expected(entry))
        except FAILURES as error:
            failure = error
            seconds = time.perf_counter() - due
        else:
            seconds = time.perf_counter() - due
            self.lunch.note(Answer(*entry[:4], moved, reply.code, round(seconds * 1e6)))
        self.lunch.settled += 1
        self._report(entry.operation.value, seconds, failure)

    def on_stop(self) -> None:
        self.till.close()

    def _report(self, name: str, seconds: float, failure: Exception | None) -> None:
        self.environment.events.request.fire(
            request_type=PROTOCOL,
            name=name,
            response_time=seconds * 1000,
            response_length=0,
            start_time=time.time() - seconds,
            context={},
            exception=failure,
        )


class LunchShape(LoadTestShape):
    """Opens tills as the lunch fills, and ends when it is over."""

    def reset_time(self) -> None:
        super().reset_time()  # type: ignore[no-untyped-call]
        TillUser.lunch.begin()

    def tick(self) -> tuple[int, float] | None:
        if TillUser.lunch.over:
            return None
        return TillUser.lunch.tills_wanted(), OPENED_A_SECOND


def _options(parser: ArgumentParser) -> None:
    own = parser.add_argument_group("Replay")
    own.add_argument("--replay", type=Path, metavar="FOLDER", required=True, help="campus and replay.csv")
    own.add_argument("--speed", type=float, metavar="X", default=1.0, help="times as fast as life (default: 1)")
    own.add_argument("--answers", type=Path, metavar="FILE.csv", help="where every answer is written down")
    own.add_argument("--timezone", metavar="ZONE", default="UTC", help="the campus's, as in its switch.toml (default: UTC)")


def _prepare(environment: Environment, **_: Any) -> None:
    if not isinstance(environment.runner, LocalRunner):
        raise SystemExit("locust: a replay is sent by one process; leave --processes, --master and --worker out.")
    try:
        TillUser.lunch = Lunch(environment)
    except (CampusUnread, ReplayUnread) as unread:
        raise SystemExit(f"locust: {unread}") from None
    except (ValueError, OSError) as wrong:
        raise SystemExit(f"locust: {wrong}.") from None


def _end(environment: Environment, **_: Any) -> None:
    lunch = TillUser.lunch
    lunch.close()
    if lunch.settled < lunch.entries:
        _log.error("%d of %d requests were not made or not answered", lunch.entries - lunch.settled, lunch.entries)
        environment.process_exit_code = 1
    options = environment.parsed_options
    if options is not None and options.csv_prefix:
        # Locust writes its tables once in so long and not at the end: without another turn, what came since its last one is missing there.
        gevent.sleep(stats.CSV_STATS_INTERVAL_SEC)


events.init_command_line_parser.add_listener(_options)  # type: ignore[no-untyped-call]
events.init.add_listener(_prepare)  # type: ignore[no-untyped-call]
events.quitting.add_listener(_end)  # type: ignore[no-untyped-call]
