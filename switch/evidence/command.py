"""The command: its arguments, what was found in words or as JSON, the exit code."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from .report import Anchor, Finding, check


def sentences(found: Finding) -> Iterator[str]:
    """What was found, in words."""
    if not found.ok:
        place = "".join(
            f"{sep}{name} {number}" for sep, name, number in ((" ", "line", found.line), (", ", "record", found.record)) if number
        )
        yield f"{found.file}{place}: {found.problem}."
        return
    yield (
        f"{found.file} is sound: records {found.first} to {found.last} in {found.batches} batches of journal {found.journal}, of which"
        f" {found.asked} were asked for ({found.asked_from} to {found.asked_to}). Debits and credits are {found.fen} fen each."
    )
    if found.complete:
        yield "It reaches back to record 1: every name, purse and movement in it follows from the records themselves."
    else:
        yield (
            f"It begins after record {found.first - 1}: names of terminals, merchants and holders that no record in it says are the"
            " switch's statement, consistent throughout; what purses held before their first mention is too."
        )
    if found.anchors:
        yield f"{found.anchors} of its hashes are those that were noted elsewhere, so its history up to there is the one of that time."
    else:
        yield (
            "Whether it is the journal's one history, only a hash that was noted at the time can tell:"
            f" hold it against --anchor HASH@POSITION. Its own is {found.hash}@{found.last}."
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("file", metavar="FILE", type=Path, help="the report")
    parser.add_argument(
        "--follows",
        metavar="EARLIER",
        type=Path,
        action="append",
        default=[],
        help="a report that ends where it begins; the earliest first",
    )
    parser.add_argument(
        "--anchor",
        metavar="HASH@POSITION",
        action="append",
        default=[],
        help="a chain hash noted earlier, elsewhere, of a batch's last record",
    )
    parser.add_argument("--json", action="store_true", help="the result as JSON")


def run(options: argparse.Namespace) -> int:
    """Check, say what was found on stdout, and give the exit code: 0 sound, 1 not, or it could not be read."""
    try:
        found = check(options.file, options.follows, [Anchor.parse(text) for text in options.anchor])
    except OSError as error:
        print(f"{error.filename}: the file cannot be read: {error.strerror}.", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"{error}.", file=sys.stderr)
        return 1
    print(json.dumps(vars(found), ensure_ascii=False) if options.json else "\n".join(sentences(found)))
    return 0 if found.ok else 1
