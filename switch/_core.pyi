"""The contract of the Rust core; checked against the extension by stubtest.

Money is in fen. What is JSON comes as bytes, to be decoded by msgspec into the struct that expects it.
"""

from collections.abc import Callable, Mapping
from os import PathLike
from typing import final

__all__ = ["Chunk", "Core", "CoreError", "Evidence", "Replica", "journal_identity", "verify"]

class CoreError(Exception):
    """What the caller got wrong or the surroundings refuse. Its text is one sentence for an operator: what, where, what to do."""

@final
class Core:
    """The hot core: sockets, sessions, ledger and journal.

    Resource handling: owns its epoll descriptor, the sockets it adopted, the journal's files and lock, and two threads,
    until `close`. Only the thread that made it may call it. The interpreter's lock is given up during every call that works.

    Error handling: a failed write or sync of the journal ends the process with exit code 74; a broken invariant aborts it.
    """

    def __new__(
        cls,
        *,
        journal: str | PathLike[str],
        key_encryption_key: bytes,
        timezone: str,
        segment_bytes: int,
        amount_max: int,
        identity_days: int,
        hold_hours: int,
        pin_tries_max: int,
        mac_failures_max: int,
        connections_max: int,
        accept_date: str | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Core:
        """Open the journal under its exclusive lock, replay it from its newest sound snapshot on, and be ready to serve.

        `key_encryption_key`: 32 bytes. `timezone`: an IANA name, or "" for the machine's. `accept_date`: today's campus date,
        YYYY-MM-DD, as an operator confirms it. `progress` is given the record reached, once a second while it replays. Raises
        CoreError where the journal is in use, damaged, or written under another key, and where the clock is so far ahead of the
        business date that it must be confirmed.
        """
    @staticmethod
    def create(journal: str | PathLike[str], *, segment_bytes: int) -> None:
        """Make an empty journal. Raises CoreError where the folder holds one already or cannot be written."""
    @property
    def remarks(self) -> list[str]:
        """What an operator should know of this start: each snapshot that was not sound and was passed over, a sentence each."""
    def fileno(self) -> int:
        """The epoll descriptor: readable when `wave` has something to do."""
    def adopt(self, descriptor: int) -> bool:
        """Take over a connected socket's descriptor, which is the core's from here on. False: it was closed at once and counted."""
    def wave(self, budget_microseconds: int) -> bool:
        """Serve whatever is ready, for about so long. True: more is ready, so call again without waiting."""
    def tick(self) -> None:
        """Once a second: the business date, peers that began a frame and never ended it, and those that do not read."""
    def drain(self) -> bool:
        """Read what has arrived, take nothing more, answer. To be called until True: all is durable and taken."""
    def import_csv(self, name: str, content: bytes) -> bytes:
        """Import a file of merchants, terminals, standings, cards, PINs or rules: all of it or nothing.

        Raises CoreError naming line and field. JSON: {"file", "kind", "rows", "added", "changed", "unchanged", "removed", "position"}.
        It is durable once `durable` reaches "position".
        """
    def show(self, kind: str, identifier: str) -> bytes | None:
        """A card, terminal or merchant as JSON; None where it is not known. Raises CoreError for another kind."""
    def flush(self) -> int:
        """Block until everything so far is durable, and give its position."""
    @property
    def position(self) -> int:
        """The last record's position; 0 before the first."""
    @property
    def durable(self) -> int:
        """The position up to which records are on stable storage."""
    def statistics(self) -> bytes:
        """Everything counted, as JSON: `switch.metrics.Statistics`."""
    def close(self) -> None:
        """Make everything durable and let go of all resources. May be called again."""

@final
class Chunk:
    """The rows of consecutive records, as PostgreSQL's binary COPY takes them."""

    @property
    def first(self) -> int: ...
    @property
    def last(self) -> int:
        """Balances and parties are as they stood after this position."""
    @property
    def business_date(self) -> str:
        """The business date of its rows, YYYY-MM-DD. A cutover is the last record of a chunk."""
    @property
    def tables(self) -> Mapping[str, bytes]:
        """Complete streams by table; only tables that have rows, and `rule` where it was replaced, be it by nothing."""
    @property
    def rows(self) -> int: ...
    @property
    def hash(self) -> str:
        """Hash of the journal's batch that holds the last record, 64 hex digits: it fixes the whole history up to there."""

@final
class Replica:
    """A second ledger that follows a journal, beside the switch that writes it. Only `snapshot` and `retire` change the folder.

    Error handling: every call raises CoreError where the journal is damaged or a record gives another outcome than it holds.
    """

    def __new__(cls, journal: str | PathLike[str], *, archive: str | PathLike[str] | None = None, until: int = ...) -> Replica:
        """Begin with the newest sound snapshot at or before the record `until`, or else before the first record.

        Segments that were moved to `archive` are read there.
        """
    @property
    def remarks(self) -> list[str]:
        """Each snapshot that it would rather have begun with and that was not sound, a sentence each."""
    @property
    def identity(self) -> str:
        """Which journal it is, 32 hex digits."""
    @property
    def position(self) -> int:
        """The last record applied."""
    @property
    def durable(self) -> int:
        """The position up to which the journal is durable now."""
    @property
    def hash(self) -> str:
        """Hash of the batch that holds the last record applied, 64 hex digits: it fixes the whole history up to there."""
    @property
    def business_date(self) -> str:
        """As of the last record applied, YYYY-MM-DD."""
    def snapshot(self) -> int:
        """Write a snapshot of the state as it is now beside the journal, durably, unless a newer one is there.

        Gives the record of the newest.
        """
    def retire(self, *, segments: bool, archive: str | PathLike[str] | None = None) -> int:
        """Take away snapshots beyond the two newest sound ones and, with `segments`, the segments that no start needs any more.

        Gives how many segments went. With `archive`, a folder, each is put there before. Nothing goes where a snapshot lies beyond the
        record applied last, which is to be one that PostgreSQL has. Only the process that has claimed the upkeep may call it.
        """
    def advance(self, until: int) -> None:
        """Apply records up to and including `until` without making rows."""
    def collect(self, records_max: int) -> Chunk | None:
        """Apply up to `records_max` further durable records, a cutover at last, and give their rows; None where there is none."""
    def accounts(self) -> bytes:
        """JSON: [[account, kind, owner, balance, holds], ...], every account, by number."""
    def digest(self) -> str:
        """BLAKE3 over the state, 64 hex digits."""
    def sum(self) -> int:
        """The sum over all accounts; 0."""
    def show(self, kind: str, identifier: str) -> bytes | None:
        """As `Core.show`, as of `position`."""

@final
class Evidence:
    """A report on a part of a journal, as docs/evidence.md has it, without its last line, the seal; read beside the switch.

    `first` and `last`: numbers of records, or business dates as YYYY-MM-DD. `timezone`: an IANA name, or "" for the machine's.

    Error handling: every call raises CoreError where an end is none, nothing lies between them, or the journal is damaged.
    """

    def __new__(
        cls, journal: str | PathLike[str], first: str, last: str, *, timezone: str, archive: str | PathLike[str] | None = None
    ) -> Evidence:
        """Segments that are not in the journal's folder are read from `archive`, if it is there."""
    @property
    def position(self) -> int:
        """The last record read."""
    @property
    def durable(self) -> int:
        """The last record that can be read."""
    def read(self) -> bytes | None:
        """The next lines, about a MiB; empty while the first record is still far; None behind the last."""

def journal_identity(journal: str | PathLike[str]) -> str:
    """Which journal a folder holds, 32 hex digits. Raises CoreError where it holds none."""

def verify(journal: str | PathLike[str], *, archive: str | PathLike[str] | None = None) -> bytes:
    """Check a journal that no switch has open: checksums, chain, outcomes, every account's bounds, the sum, the snapshots.

    Segments that are not in its folder are read from `archive`, if it is there; without them it begins at the oldest sound snapshot.
    JSON: {"ok", "first_record", "records", "state_digest", "sum", "last_timestamp", "snapshots"} and, where not ok, "problem" and,
    where it is about a record, "first_bad_record".
    """
