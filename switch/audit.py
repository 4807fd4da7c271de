"""`switch audit`: a part of the journal as an evidence report, beside the running switch or without it; docs/evidence.md has its lines.

Always true here: the journal is only read. A report stands under its name when it is whole and on disk, or not at all, and takes
nothing's place unless told. It can be read by its owner alone, because it holds card numbers in full.

How it works: the core makes the lines, this module writes them, hashes them and ends them with that hash, the seal. `switch.evidence`
checks them, and shares nothing with either.
"""

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import msgspec

__all__ = ["AuditFailed", "Report", "Summary", "destination", "write"]

PROGRESS_SECONDS: Final = 2.0
"""Between two words about how far it is."""

PRIVATE: Final = 0o600


class AuditFailed(Exception):
    """One sentence for the operator."""


class Report(Protocol):
    """What is needed of `switch._core.Evidence`."""

    @property
    def position(self) -> int: ...
    @property
    def durable(self) -> int: ...
    def read(self) -> bytes | None: ...


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The report's end."""

    first: int
    last: int
    asked: int
    batches: int
    hash: str
    """Of the last batch: with the last record's number, what is worth noting elsewhere."""


def write(report: Report, out: BinaryIO, progress: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> Summary:
    """Write a report to its end. Raises CoreError, as the core does, and OSError."""
    sha256 = hashlib.sha256()
    spoken = clock()
    last = b""
    while (lines := report.read()) is not None:
        out.write(lines)
        sha256.update(lines)
        last = lines or last
        if clock() - spoken >= PROGRESS_SECONDS:
            spoken = clock()
            progress(f"record {report.position} of {report.durable}")
    out.write(msgspec.json.encode({"line": "seal", "sha256": sha256.hexdigest()}) + b"\n")
    return msgspec.json.decode(last[last.rindex(b"\n", 0, -1) + 1 :], type=Summary)


@contextlib.contextmanager
def destination(file: Path | None, *, overwrite: bool) -> Iterator[BinaryIO]:
    """Where a report goes: `file`, or stdout without one. Raises AuditFailed where the file is there already or cannot be written."""
    if file is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    there = AuditFailed(f"{file} is there already; choose another name, or pass --overwrite.")
    if file.exists() and not overwrite:
        raise there
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.new")
    try:
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE), "wb") as out:  # noqa: PTH123 - with its mode from the start
            yield out
            out.flush()
            os.fsync(out.fileno())
        if overwrite:
            unfinished.replace(file)
        else:
            # Unlike a rename, a link takes nobody's place.
            file.hardlink_to(unfinished)
    except FileExistsError:
        raise there from None
    except OSError as error:
        raise AuditFailed(f"{file}: the report cannot be written: {error.strerror}.") from None
    finally:
        unfinished.unlink(missing_ok=True)
