"""A whole report: the hashes and the chain of its batches, its records one after another, its end and its seal; and what was found."""

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import blake3

from .books import Books
from .lines import Fault, Lines, canonical, expect, expect_fields, from_hex, listed
from .posting import post
from .records import EPOCH, Document, Record, Unreadable, decode

FORMAT: Final = 2
OLDER: Final = {1: frozenset({"flag", "switch_totals", "pin"})}
"""Formats before, with the fields that a record did not have: there was nothing yet that they could say."""
BLOCK_BYTES: Final = 4096
HEAD_BYTES: Final = 112
PADDING: Final = b"\xa5"
BATCH_MAGIC: Final = b"SWJBATCH"
JOURNAL_VERSION: Final = 1
RECORD_BYTES_MAX: Final = 60_000


@dataclass(frozen=True)
class Anchor:
    """A chain hash that was noted elsewhere: that of the batch that ends with the record at `position`."""

    hash: str
    position: int

    @classmethod
    def parse(cls, text: str) -> "Anchor":
        """HASH@POSITION. Raises ValueError."""
        found = re.fullmatch(r"([0-9a-f]{64})@(\d{1,18})", text)
        if found is None:
            raise ValueError(f"{text!r} is not 64 hexadecimal digits, an @ and the number of a record")
        return cls(found[1], int(found[2]))


@dataclass
class Finding:
    """What was found; as JSON the result of the check."""

    ok: bool = False
    file: str = ""
    problem: str | None = None
    line: int | None = None
    """The line on which it is."""
    record: int | None = None
    """The record that it is about."""
    journal: str | None = None
    first: int = 0
    last: int = 0
    """The records in it."""
    asked_from: int | str = 0
    asked_to: int | str = 0
    asked: int = 0
    """How many of the records were asked for."""
    batches: int = 0
    last_batch: int = 0
    """The number of the last one in the journal."""
    fen: int = 0
    """Moved by them."""
    hash_before: str = ""
    hash: str = ""
    """Of the last batch."""
    state_digest_before: str = ""
    state_digest: str = ""
    complete: bool = False
    """Whether it reaches back to record 1, itself or by those that it follows."""
    anchors: int = 0
    """Chain hashes noted elsewhere that were found to be those of the report."""


class Check:
    """One report while it is being checked."""

    def __init__(self, file: Path, books: Books | None, before: Finding | None, anchors: Sequence[Anchor]) -> None:
        self.finding = Finding(file=str(file))
        self.books = books or Books(complete=False)
        self._absent: frozenset[str] = frozenset()
        self._before = before
        self._wanted = {anchor.position: anchor for anchor in anchors}

    def run(self, report: BinaryIO) -> None:
        lines = Lines(report)
        found = self.finding
        try:
            self._header(lines.next())
            document = lines.next()
            while document.get("line") == "batch":
                self._take_batch(document, lines)
                document = lines.next()
            found.record = None
            self._end(document)
            self._seal(lines.next(), lines)
            lines.end()
        except Fault as fault:
            found.problem, found.line = str(fault), lines.number
        else:
            found.ok, found.record = True, None

    def _header(self, header: Document) -> None:
        found = self.finding
        moment = (str, type(None))
        expect(
            header, "evidence", format=int, journal=str, **{"from": (int, str)}, to=(int, str), before=dict, timezone=str,
            made_at=moment, made_by=str,
        )  # fmt: skip
        if header["format"] not in {FORMAT, *OLDER}:
            raise Fault(f"the report has format {header['format']}; this program checks format {FORMAT} and before")
        self._absent = OLDER.get(header["format"], frozenset())
        identity = from_hex(header["journal"], 16, "the journal's identity")
        before = header["before"]
        expect_fields(before, position=int, batch=int, hash=str, state_digest=str)
        from_hex(before["hash"], 32, "the hash before the first batch")
        from_hex(before["state_digest"], 32, "the state's digest")
        if (type(header["from"]), type(header["to"])) not in {(int, int), (str, str)} or header["from"] > header["to"]:
            raise Fault(f"the report is of {header['from']} to {header['to']}, which is no range")
        found.journal, found.asked_from, found.asked_to = header["journal"], header["from"], header["to"]
        found.first, found.last = before["position"] + 1, before["position"]
        found.hash = found.hash_before = before["hash"]
        found.state_digest_before = before["state_digest"]
        found.last_batch = before["batch"]
        if before["position"] == 0:
            if before["batch"] or before["hash"] != blake3.blake3(identity).hexdigest():
                raise Fault("before record 1 there is no batch, and the hash is that of the journal's identity; here it is another")
            self.books = Books(complete=True)
        elif self._before is None:
            self.books = Books(complete=False, first=found.first)
        if self._before is not None:
            self._follow(self._before, before)
        found.complete = self.books.complete
        self._anchored()

    def _follow(self, earlier: Finding, before: Document) -> None:
        if earlier.journal != self.finding.journal:
            raise Fault(f"it is of another journal than {earlier.file}")
        if before["position"] != earlier.last:
            raise Fault(
                f"it begins with record {before['position'] + 1}, but {earlier.file} ends with record {earlier.last};"
                f" make it from record {earlier.last + 1} on"
            )
        if (before["batch"], before["hash"]) != (earlier.last_batch, earlier.hash):
            raise Fault(f"the batch and the hash before it are not those with which {earlier.file} ends: two different histories")
        if before["state_digest"] != earlier.state_digest:
            raise Fault(f"the state's digest before it is not the one with which {earlier.file} ends")

    def _anchored(self) -> None:
        """Hold the chain's hash at this position against one that was noted elsewhere, if there is one."""
        anchor = self._wanted.pop(self.finding.last, None)
        if anchor is not None:
            if anchor.hash != self.finding.hash:
                raise Fault(f"the hash after record {anchor.position} is not the one that was noted: {anchor.hash}")
            self.finding.anchors += 1

    @property
    def wanted(self) -> list[Anchor]:
        """Anchors whose positions did not come."""
        return list(self._wanted.values())

    def _take_batch(self, document: Document, lines: Lines) -> None:
        found = self.finding
        found.record = found.last + 1
        expect(document, "batch", batch=int, first=int, last=int, previous=str, hash=str, head=str)
        head = from_hex(document["head"], HEAD_BYTES, "the head")
        if head[40:48] != blake3.blake3(head[32:40] + head[48:]).digest()[:8]:
            raise Fault("the head's own check does not match")
        version, records = (int.from_bytes(head[at : at + 4], "little") for at in (48, 52))
        payload, batch, first = (int.from_bytes(head[at : at + 8], "little") for at in (56, 64, 72))
        if head[32:40] != BATCH_MAGIC or version != JOURNAL_VERSION or not records:
            raise Fault("the head is not that of a batch of records")
        printed = {"batch": batch, "first": first, "last": first + records - 1, "previous": head[80:].hex(), "hash": head[:32].hex()}
        for name, value in printed.items():
            if document[name] != value:
                raise Fault(f"the field {name} is {document[name]}, but the head says {value}")
        if (batch, first) != (found.last_batch + 1, found.last + 1):
            raise Fault(f"batch {batch} with record {first} does not follow batch {found.last_batch} with record {found.last}")
        if head[80:].hex() != found.hash:
            raise Fault(f"the batch does not follow the one before it, whose hash is {found.hash}")
        hasher = blake3.blake3(head[32:])
        length = 0
        for position in range(first, first + records):
            found.record = position
            content = self._take_record(lines.next(), position)
            hasher.update(len(content).to_bytes(2, "little") + content)
            length += 2 + len(content)
        hasher.update(PADDING * (-(HEAD_BYTES + length) % BLOCK_BYTES))
        if length != payload or hasher.digest() != head[:32]:
            found.record = first
            raise Fault(
                f"the hash of batch {batch}, records {first} to {first + records - 1}, is not the one in its head: a byte of it was altered"
            )
        found.last_batch, found.hash = batch, head[:32].hex()
        found.batches += 1
        self._anchored()

    def _take_record(self, document: Document, position: int) -> bytes:
        found = self.finding
        expect(document, "record", position=int, asked=bool, record=dict, ledger=dict, bytes=str)
        if document["position"] != position:
            raise Fault(f"record {document['position']} stands where record {position} should")
        content = from_hex(document["bytes"], None, "the record")
        if not 1 <= len(content) <= RECORD_BYTES_MAX:
            raise Fault(f"a record has 1 to {RECORD_BYTES_MAX} bytes, not {len(content)}")
        try:
            record = decode(content)
        except Unreadable as error:
            raise Fault(f"its bytes are no record: {error}") from None
        self._compare(document["record"], record)
        found.fen += post(self.books, position, record, document["ledger"])
        asked = self._asked(position, document["ledger"]["business_date"])
        if document["asked"] != asked:
            raise Fault(f"the field asked is {document['asked']}, but {found.asked_from} to {found.asked_to} was asked for")
        if position == found.first > 1 and asked and isinstance(found.asked_from, str) and record.said["kind"] != "cutover":
            raise Fault(f"the records of {document['ledger']['business_date']} before it are missing")
        found.asked += asked
        found.last = position
        return content

    def _asked(self, position: int, business_date: str) -> bool:
        first, last = self.finding.asked_from, self.finding.asked_to
        if isinstance(first, int) and isinstance(last, int):
            return first <= position <= last
        return str(first) <= business_date <= str(last)

    def _compare(self, printed: Document, record: Record) -> None:
        said = {name: value for name, value in record.said.items() if name not in self._absent}
        expected = {**said, "at": _moment(record.microseconds, printed.get("at"))}
        if printed.keys() != expected.keys():
            raise Fault(f"under record stand {listed(printed)} where {listed(expected)} should")
        if canonical(printed) == canonical(expected):
            return
        for name, value in expected.items():
            if canonical(printed[name]) != canonical(value):
                raise Fault(f"the field {name} is {canonical(printed[name])}, but the record's bytes say {canonical(value)}")

    def _end(self, end: Document) -> None:
        found = self.finding
        numbers = dict.fromkeys(("first", "last", "records", "asked", "batches", "debits", "credits"), int)
        expect(end, "end", **numbers, hash=str, state_digest=str)
        from_hex(end["state_digest"], 32, "the state's digest")
        counted = {
            "first": found.first,
            "last": found.last,
            "records": found.last - found.first + 1,
            "asked": found.asked,
            "batches": found.batches,
            "hash": found.hash,
            "debits": found.fen,
            "credits": found.fen,
        }
        for name, value in counted.items():
            if end[name] != value:
                raise Fault(f"the field {name} is {end[name]}, but the lines before make {value}")
        if not found.asked or (isinstance(found.asked_to, int) and found.last < found.asked_to):
            raise Fault(
                f"the report ends with record {found.last} and does not hold what was asked for: {found.asked_from} to {found.asked_to}"
            )
        if isinstance(found.asked_from, int) and found.first > found.asked_from:
            raise Fault(f"the report begins with record {found.first}, but {found.asked_from} was asked for")
        found.state_digest = end["state_digest"]

    def _seal(self, seal: Document, lines: Lines) -> None:
        expect(seal, "seal", sha256=str)
        if seal["sha256"] != lines.sha256.hexdigest():
            raise Fault("the seal is not the SHA-256 of the lines before it: the report was altered after it was made")


def _moment(microseconds: int, printed: object) -> str | None:
    """The moment in the offset from UTC in which it is printed, so that any campus's may be right."""
    try:
        offset = datetime.datetime.fromisoformat(str(printed)).utcoffset() or datetime.timedelta()
        at = (EPOCH + datetime.timedelta(microseconds=microseconds)).astimezone(datetime.timezone(offset))
    except (ValueError, OverflowError):
        offset = datetime.timedelta()
        try:
            at = EPOCH + datetime.timedelta(microseconds=microseconds)
        except OverflowError:
            return None
    return at.isoformat(timespec="microseconds")


def check(file: Path, follows: Sequence[Path] = (), anchors: Sequence[Anchor] = ()) -> Finding:
    """Check a report, and before it those that it follows, the earliest first. Raises OSError where one cannot be read."""
    books: Books | None = None
    found: Finding | None = None
    wanted = list(anchors)
    met = 0
    for each in (*follows, file):
        one = Check(each, books, found, wanted)
        with each.open("rb") as report:
            one.run(report)
        found, books, wanted = one.finding, one.books, one.wanted
        met += found.anchors
        if not found.ok:
            return found
    assert found is not None
    found.anchors = met
    if wanted:
        found.ok = False
        found.problem = (
            f"no batch ends with record {wanted[0].position}, for which a hash was noted; "
            f"a note can be held against the batches from record {found.first} to {found.last}"
        )
    return found
