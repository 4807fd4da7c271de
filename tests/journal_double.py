"""A journal's replica written down in Python, for tests of what follows one.

Record n of it is the same whoever reads it: 50 cardholders in turn pay 1 to 900 fen at one of 5 merchants, 1,000 records a
business date, every tenth one declined and every hundredth taking back the purchase before it. Only its end, the durable mark, moves;
it is the size of a file. Run as a program it is a follower process: journal_double.py FOLDER ADDRESS.
"""

import asyncio
import contextlib
import datetime
import itertools
import json
import struct
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from switch import follow

HOLDERS = 50
MERCHANTS = 5
RECORDS_A_DAY = 1000
SMALL_CHUNK = 97
"""So that a few thousand records are many chunks, and some of them hold two business dates."""
FIRST_DATE = datetime.date(2026, 11, 22)
EPOCH = datetime.date(2000, 1, 1)
SUSPENSE = 0
DAY_MICROSECONDS = 86_400_000_000

Row = tuple[bytes | None, ...]
Posting = tuple[int, int, int]


def text(value: str) -> bytes:
    return value.encode()


def int2(value: int) -> bytes:
    return struct.pack(">h", value)


def int4(value: int) -> bytes:
    return struct.pack(">i", value)


def int8(value: int) -> bytes:
    return struct.pack(">q", value)


def date(value: datetime.date) -> bytes:
    return int4((value - EPOCH).days)


def copy_stream(rows: Iterable[Row]) -> bytes:
    """Rows in PostgreSQL's binary COPY format."""
    out = [b"PGCOPY\n\xff\r\n\0" + bytes(8)]
    for row in rows:
        out.append(int2(len(row)))
        out.extend(int4(-1) if field is None else int4(len(field)) + field for field in row)
    out.append(int2(-1))
    return b"".join(out)


def without_last(stream: bytes, columns: int) -> bytes:
    """A stream as it was before its table got so many columns more."""
    at, out = 19, [stream[:19]]
    while (fields := struct.unpack_from(">h", stream, at)[0]) != -1:
        at += 2
        out.append(int2(fields - columns))
        for field in range(fields):
            end = at + 4 + max(0, struct.unpack_from(">i", stream, at)[0])
            out.append(stream[at:end] if field < fields - columns else b"")
            at = end
    return b"".join([*out, stream[at:]])


def business_date(position: int) -> datetime.date:
    return FIRST_DATE + datetime.timedelta(days=position // RECORDS_A_DAY)


def purse(holder: int) -> int:
    return 1 + MERCHANTS + 2 * holder


def merchant_account(merchant: int) -> int:
    return 1 + merchant


def posting(position: int) -> Posting | None:
    """What the record moves: debit, credit, fen."""
    if position <= HOLDERS:
        return SUSPENSE, purse(position - 1), 100_000
    if position % 100 == 0:
        debit, credit, amount = posting(position - 1) or (0, 0, 0)
        return credit, debit, amount
    if position % 10 == 0:
        return None
    return purse(position % HOLDERS), merchant_account(position % MERCHANTS), position * 37 % 900 + 1


class Chunk(NamedTuple):
    first: int
    last: int
    business_date: str
    tables: dict[str, bytes]
    rows: int
    hash: str


def history(position: int) -> str:
    """Stands for the hash of the batch that holds this record."""
    return f"{position:064x}"


class Journal(NamedTuple):
    """A folder made by `Replica.create`, as a follower takes it."""

    folder: Path
    records_max: int = sys.maxsize

    @property
    def identity(self) -> str:
        return (self.folder / "identity").read_text()

    def replica(self, until: int) -> "Replica":
        assert until >= 0
        return Replica(self.folder, self.records_max)

    def claim(self) -> bool:
        return not (self.folder / "claimed").exists()


class Replica:
    """The part of `switch._core.Replica` that a follower and a reconciliation use, on a folder made by `create`."""

    def __init__(self, folder: Path, records_max: int = sys.maxsize) -> None:
        self._folder = folder
        self._records_max = records_max
        self._balances = [0] * (1 + MERCHANTS + 2 * HOLDERS)
        self._identity = (folder / "identity").read_text()
        self._position = 0
        # A call has the replica for itself. The extension's would make the second caller wait, and its event loop with it.
        self._borrowed = threading.Lock()

    @staticmethod
    def create(folder: Path, identity: str = "00112233445566778899aabbccddeeff") -> Path:
        folder.mkdir()
        (folder / "identity").write_text(identity)
        (folder / "durable").touch()
        return folder

    @staticmethod
    def make_durable(folder: Path, position: int) -> None:
        with (folder / "durable").open("r+b") as mark:
            mark.truncate(position)

    @contextlib.contextmanager
    def _borrow(self) -> Iterator[None]:
        if not self._borrowed.acquire(blocking=False):
            raise RuntimeError("already borrowed")
        try:
            yield
        finally:
            self._borrowed.release()

    @property
    def identity(self) -> str:
        with self._borrow():
            return self._identity

    @property
    def position(self) -> int:
        with self._borrow():
            return self._position

    @property
    def durable(self) -> int:
        with self._borrow():
            return self._mark()

    @property
    def hash(self) -> str:
        with self._borrow():
            return history(self._position)

    @property
    def remarks(self) -> list[str]:
        return []

    @property
    def business_date(self) -> str:
        with self._borrow():
            return business_date(self._position).isoformat()

    def snapshot(self) -> int:
        with self._borrow():
            (self._folder / f"{self._position}.snapshot").touch()
            return self._position

    def retire(self, *, segments: bool, archive: Path | None) -> int:
        with self._borrow():
            (self._folder / "retired").write_text(f"{self._position} {segments} {archive}")
        return 1

    def _mark(self) -> int:
        return (self._folder / "durable").stat().st_size

    def advance(self, until: int) -> None:
        with self._borrow():
            assert self._position <= until <= self._mark()
            for position in range(self._position + 1, until + 1):
                self._apply(position)
            self._position = until

    def collect(self, records_max: int) -> Chunk | None:
        with self._borrow():
            first = self._position + 1
            # As with the extension's, the rows of a chunk are of one business date.
            day_ends = first + (RECORDS_A_DAY - 1 - first % RECORDS_A_DAY)
            self._position = max(self._position, min(self._position + min(records_max, self._records_max), self._mark(), day_ends))
            return self._encode(first, self._position) if first <= self._position else None

    def _encode(self, first: int, last: int) -> Chunk:
        rows: dict[str, list[Row]] = {"transaction": [], "posting": [], "operator_action": []}
        touched: set[int] = set()
        for position in range(first, last + 1):
            moved = self._apply(position)
            touched.update(moved[:2] if moved else ())
            if position > HOLDERS:
                rows["transaction"].append(_transaction(position, moved))
            if moved:
                rows["posting"].append(
                    (int8(position), date(business_date(position)), int2(0), int4(moved[0]), int4(moved[1]), int8(moved[2]))
                )
        rows["account"] = [self._account(account) for account in sorted(touched)]
        if first == 1:
            rows["operator_action"].append((int8(1), int8(0), text("import"), text("卡.csv: 50")))
            rows["merchant"] = [
                (text(f"M{number}"), text(f"食堂 {number}"), text("canteen"), int4(0), int4(merchant_account(number)))
                for number in range(MERCHANTS)
            ]
            rows["cardholder"] = [(text(f"H{n}"), int4(purse(n)), int4(purse(n) + 1)) for n in range(HOLDERS)]
            rows["card"] = [
                (text(f"62{n:04}"), text(f"H{n}"), text("student"), text("active"), date(FIRST_DATE), bytes(1)) for n in range(HOLDERS)
            ]
        rows["terminal"] = [(text("T0000001"), text("M0"), text("pos"), text("north"), bytes([last % 2]), int4(1), text("active"))]
        filled = {table: content for table, content in rows.items() if content}
        return Chunk(
            first=first,
            last=last,
            business_date=business_date(first).isoformat(),
            tables={table: copy_stream(content) for table, content in filled.items()},
            rows=sum(len(content) for content in filled.values()),
            hash=history(last),
        )

    def accounts(self) -> bytes:
        return json.dumps([(number, *self._owner(number), balance, 0) for number, balance in enumerate(self._balances)]).encode()

    def digest(self) -> str:
        return f"{self._position:032x}"

    def sum(self) -> int:
        return sum(self._balances)

    def _apply(self, position: int) -> Posting | None:
        moved = posting(position)
        if moved:
            self._balances[moved[0]] -= moved[2]
            self._balances[moved[1]] += moved[2]
        return moved

    def _account(self, account: int) -> Row:
        kind, owner = self._owner(account)
        return int4(account), text(kind), text(owner), int8(self._balances[account]), int8(0)

    @staticmethod
    def _owner(account: int) -> tuple[str, str]:
        if account == SUSPENSE:
            return "house", "suspense"
        if account <= MERCHANTS:
            return "merchant", f"M{account - 1}"
        holder, subsidy = divmod(account - 1 - MERCHANTS, 2)
        return ("subsidy" if subsidy else "cash"), f"H{holder}"


def _transaction(position: int, moved: Posting | None) -> Row:
    back = position % 100 == 0
    debit, credit, amount = moved or (purse(position % HOLDERS), merchant_account(position % MERCHANTS), 0)
    holder, merchant = (credit, debit) if back else (debit, credit)
    number = (holder - 1 - MERCHANTS) // 2
    day = (business_date(position) - EPOCH).days * DAY_MICROSECONDS
    return (
        *(int8(position), date(business_date(position)), int8(day + position)),
        *(text("reversal" if back else "purchase"), text("00" if moved else "51")),
        *(text(f"T{merchant:07}"), text(f"M{merchant - 1}"), text(f"62{number:04}"), text(f"H{number}")),
        *(int4(position % 999_999), int8(day + 43_200_000_000), int8(amount), int8(amount), int8(0)),
        *(int8(position - 1) if back else None, int8(0), None, int4(1)),
        *(None, text("purchase") if back else None, None, bytes(1)),
    )


def spent(last: int) -> dict[str, int]:
    """What was paid at each merchant up to a record, less what was taken back, in fen."""
    sums = dict.fromkeys((f"M{number}" for number in range(MERCHANTS)), 0)
    for position, moved in zip(itertools.count(1), map(posting, range(1, last + 1)), strict=False):
        if moved and position > HOLDERS:
            debit, credit, amount = moved
            if position % 100 == 0:
                sums[f"M{debit - 1}"] -= amount
            else:
                sums[f"M{credit - 1}"] += amount
    return sums


if __name__ == "__main__":
    journal, address = Path(sys.argv[1]), sys.argv[2]
    sys.exit(asyncio.run(follow.serve(Journal(journal, SMALL_CHUNK), None, address)))
