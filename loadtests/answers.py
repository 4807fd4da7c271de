"""What a load driver brings home: a line for each request that was answered, and what these lines make together.

Always true here: a driver's sums are made from its answers alone, not from the replay or the switch. `count` believes no driver: an
answer that the card's file does not allow, and one that is missing, is a finding whoever drove.
"""

import datetime
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from loadtests.till import Expectations
from switch.campus import Campus, CampusUnread, read_rows
from switch.dialect import RESPONSES
from switch.replay import Entry, Operation

__all__ = ["CSV_HEADER", "FINDINGS_MAX", "Answer", "Count", "count", "read_answers"]

CSV_HEADER: Final = "offset_ms,terminal_id,card_number,operation,amount,response,latency_us"

FINDINGS_MAX: Final = 1000
"""Wrong answers put into words; more only fill memory."""


class Answer(NamedTuple):
    """One line. `amount` is the fen that moved: of a purchase or a load its amount or 0, of a reversal what it gave back, else 0."""

    offset_ms: int
    terminal_id: str
    card_number: str
    operation: Operation
    amount: int
    response: str
    """DE39."""
    latency_us: int
    """From the moment at which the request was due to its answer's last byte."""


def read_answers(path: Path) -> Iterator[Answer]:
    """The answers one by one. Raises `CampusUnread` where this is not such a file."""
    for offset, terminal_id, card_number, operation, amount, response, latency in read_rows(path, CSV_HEADER):
        try:
            yield Answer(int(offset), terminal_id, card_number, Operation(operation), int(amount), response, int(latency))
        except ValueError as error:
            raise CampusUnread(f"{path}: an answer cannot be read: {error}.") from None


@dataclass
class Count:
    """What the terminals know. Amounts in fen, times in microseconds."""

    requests: Counter[str] = field(default_factory=Counter)
    """By operation."""
    responses: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By operation and DE39."""
    by_merchant: Counter[str] = field(default_factory=Counter)
    by_card: Counter[str] = field(default_factory=Counter)
    """What its purses paid, less what was loaded."""
    loaded: int = 0
    latencies: dict[str, "array[int]"] = field(default_factory=lambda: defaultdict(lambda: array("Q")))
    """By operation."""
    by_minute: dict[int, "array[int]"] = field(default_factory=lambda: defaultdict(lambda: array("Q")))
    """Latencies by minute of the replay."""
    findings: list[str] = field(default_factory=list)
    """Wrong and missing answers, a sentence each; the first of them."""


def count(campus: Campus, entries: Iterable[Entry], answers: Iterable[Answer], today: datetime.date) -> Count:
    """Adds up the answers to a replay's entries."""
    counted = Count()
    merchants = {terminal.terminal_id: terminal.merchant_id for terminal in campus.terminals}
    expectations = Expectations({card.card_number: card for card in campus.cards}, today)
    open_requests = Counter((entry.terminal_id, entry.operation) for entry in entries)
    for answer in answers:
        counted.requests[answer.operation] += 1
        counted.responses[answer.operation, answer.response] += 1
        counted.latencies[answer.operation].append(answer.latency_us)
        counted.by_minute[answer.offset_ms // 60_000].append(answer.latency_us)
        open_requests[answer.terminal_id, answer.operation] -= 1
        if answer.operation is Operation.LOAD:
            counted.loaded += answer.amount
            counted.by_card[answer.card_number] -= answer.amount
        elif answer.amount:
            moved = -answer.amount if answer.operation is Operation.REVERSAL else answer.amount
            counted.by_merchant[merchants[answer.terminal_id]] += moved
            counted.by_card[answer.card_number] += moved
        expected = expectations.answers(answer.operation, answer.card_number)
        if answer.response not in expected and len(counted.findings) < FINDINGS_MAX:
            counted.findings.append(
                f"{answer.terminal_id} at {answer.offset_ms} ms: a {answer.operation} was answered {answer.response},"
                f" {RESPONSES.get(answer.response, 'unknown')}; expected was {' or '.join(sorted(expected))}."
            )
    for (terminal_id, operation), left in sorted(open_requests.items()):
        if left and len(counted.findings) < FINDINGS_MAX:
            more = (
                f"{left} of its {operation}s were not answered" if left > 0 else f"{-left} {operation}s were answered that nobody asked for"
            )
            counted.findings.append(f"{terminal_id}: {more}.")
    return counted
