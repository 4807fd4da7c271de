"""Replays: what terminals asked, or might ask, as a file that load drivers send again at any speed.

A replay lies in a folder of its own, beside the campus that it was made for: `merchants.csv`, `terminals.csv` and `cards.csv` as
`switch import` takes them, and `replay.csv` with a line a request.

Always true of what is read or written here: offsets do not go back, and a reversal or a repeat is of the last purchase of its own
terminal, with that purchase's card.
"""

import enum
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from switch.campus import CampusUnread, read_rows, write_rows

__all__ = ["CSV_HEADER", "REPLAY_NAME", "Entry", "Operation", "ReplayUnread", "read_entries", "write_entries"]

REPLAY_NAME: Final = "replay.csv"
CSV_HEADER: Final = "offset_ms,terminal_id,card_number,operation,amount"

DIGITS_MAX: Final = {"offset_ms": 12, "card_number": 19, "amount": 12}
"""Of each number: an offset of thirty years, and what a message has room for (DE2, DE4)."""


class ReplayUnread(Exception):
    """One sentence: which line of a replay is wrong, and why."""


class Operation(enum.StrEnum):
    """What is asked."""

    PURCHASE = "purchase"
    BALANCE = "balance"
    REVERSAL = "reversal"
    """Of the terminal's last purchase."""
    REPEAT = "repeat"
    """The terminal's last purchase once more, under its first identity."""
    LOAD = "load"
    """Cash for the purse, at a counter."""


_OF_THE_LAST: Final = frozenset({Operation.REVERSAL, Operation.REPEAT})


class Entry(NamedTuple):
    """One line: what a terminal asks so many milliseconds after the replay's beginning.

    `amount` is in fen, 0 for all but a purchase and a load.
    """

    offset_ms: int
    terminal_id: str
    card_number: str
    operation: Operation
    amount: int


def write_entries(path: Path, entries: Iterable[Entry]) -> int:
    """Writes them as they come and returns how many there were."""
    return write_rows(path, CSV_HEADER, entries)


def read_entries(path: Path, terminals: Container[str] | None = None) -> Iterator[Entry]:
    """The entries one by one, each checked, also that its terminal is one of `terminals` where these are given. Raises `ReplayUnread`."""
    before = 0
    bought: dict[str, str] = {}
    try:
        for line, row in enumerate(read_rows(path, CSV_HEADER), start=2):
            entry = _entry(path, line, row)
            if entry.offset_ms < before:
                raise ReplayUnread(f"{path} row {line}: offset_ms {entry.offset_ms} comes after {before}; sort the lines by their time.")
            before = entry.offset_ms
            if terminals is not None and entry.terminal_id not in terminals:
                raise ReplayUnread(f"{path} row {line}: terminal {entry.terminal_id} is not in its campus's terminals.csv.")
            if entry.operation is Operation.PURCHASE:
                bought[entry.terminal_id] = entry.card_number
            elif entry.operation in _OF_THE_LAST and bought.get(entry.terminal_id) != entry.card_number:
                raise ReplayUnread(
                    f"{path} row {line}: a {entry.operation} with card {entry.card_number}, but the last purchase at {entry.terminal_id}"
                    f" was with {bought.get(entry.terminal_id, 'none')}."
                )
            yield entry
    except CampusUnread as unread:
        raise ReplayUnread(str(unread)) from None


def _entry(path: Path, line: int, row: list[str]) -> Entry:
    offset, terminal_id, card_number, operation, amount = row
    for name, text in (("offset_ms", offset), ("amount", amount), ("card_number", card_number)):
        if not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX[name]):
            raise ReplayUnread(f"{path} row {line}: {name} {text[:40]!r} is not made of 1 to {DIGITS_MAX[name]} digits.")
    try:
        return Entry(int(offset), terminal_id, card_number, Operation(operation), int(amount))
    except ValueError:
        raise ReplayUnread(f"{path} row {line}: operation {operation!r} is not one of {', '.join(Operation)}.") from None
