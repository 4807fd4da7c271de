"""Makes a replay of a made-up college: its lunch, or its whole day, for any number of students.

    python -m loadtests.generate FOLDER --students 17600 --seed 1 --part lunch

Always true here: equal arguments give equal files, byte for byte. The college is `switch.campus`'s and what it pays is `switch.meals`'s;
here the schedule becomes requests. A purchase that the network doubled or whose answer was lost is repeated a second later, one that was
given up is reversed; that a reversal overtakes its purchase cannot be said in a replay and is left out.
"""

import argparse
import datetime
import heapq
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from switch.campus import CARDHOLDERS, college
from switch.meals import DAY, LUNCH, Conduct, Meal, Payment, payments
from switch.replay import REPLAY_NAME, Entry, Operation, write_entries

PARTS: Final[dict[str, Sequence[Meal]]] = {"lunch": (LUNCH,), "day": DAY}

SECOND_THOUGHTS: Final = {
    Conduct.DOUBLED: Operation.REPEAT,
    Conduct.REPEATED: Operation.REPEAT,
    Conduct.RECONNECTED: Operation.REPEAT,
    Conduct.REVERSED: Operation.REVERSAL,
    Conduct.REVERSED_BARE: Operation.REVERSAL,
}
"""What a terminal asks next about a purchase that went that way."""

SECOND_THOUGHT_MS: Final = 1000
"""Behind the purchase, or just before the terminal's next customer where that is sooner."""


def generate(folder: Path, students: int, seed: int, part: str, today: datetime.date) -> int:
    """Writes campus and replay into `folder`, whose cards are valid or expired as of `today`, and returns how many requests it has."""
    campus = college(seed, today, students)
    campus.write(folder)
    return write_entries(folder / REPLAY_NAME, entries(payments(campus, seed, PARTS[part])))


def entries(schedule: Iterable[Payment]) -> Iterator[Entry]:
    """The requests of a schedule, in the order of their time."""
    later: list[tuple[int, int, Entry]] = []
    waiting: dict[str, Entry] = {}

    def until(moment: int) -> Iterator[Entry]:
        while later and later[0][0] <= moment:
            entry = heapq.heappop(later)[2]
            # One that a customer came before has been sent already.
            if waiting.get(entry.terminal_id) is entry:
                yield waiting.pop(entry.terminal_id)

    for number, payment in enumerate(schedule):
        offset = int(payment.at_seconds * 1000)
        yield from until(offset)
        if hurried := waiting.pop(payment.terminal_id, None):
            yield hurried._replace(offset_ms=offset)
        operation = Operation.LOAD if payment.load else Operation.PURCHASE
        yield Entry(offset, payment.terminal_id, payment.card_number, operation, payment.amount)
        if second := SECOND_THOUGHTS.get(payment.conduct):
            entry = Entry(offset + SECOND_THOUGHT_MS, payment.terminal_id, payment.card_number, second, 0)
            waiting[payment.terminal_id] = entry
            heapq.heappush(later, (entry.offset_ms, number, entry))
    yield from until(sys.maxsize)


def _day(text: str) -> datetime.date:
    try:
        day = datetime.date.fromisoformat(text)
    except ValueError:
        day = datetime.date.min
    # Cards expire some years before and after it.
    if not 2000 <= day.year <= 2099:
        raise argparse.ArgumentTypeError(f"{text!r} is no day of 2000 to 2099; write it as YYYY-MM-DD")
    return day


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(prog="loadtests.generate", description="Make a replay of a made-up college, and the college.")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="a new or an empty folder")
    parser.add_argument("--students", type=int, metavar="N", default=CARDHOLDERS, help=f"cardholders (default: {CARDHOLDERS})")
    parser.add_argument("--seed", type=int, metavar="N", default=1, help="another seed, another college (default: 1)")
    parser.add_argument("--part", choices=PARTS, default="lunch", help="of the day (default: lunch)")
    parser.add_argument(
        "--today",
        type=_day,
        metavar="YYYY-MM-DD",
        default=datetime.datetime.now(datetime.UTC).date(),
        help="the day on which cards must be valid (default: today, UTC)",
    )
    options = parser.parse_args(arguments)
    if options.students < 1:
        print(f"loadtests.generate: a college of {options.students} has nobody; name 1 or more students.", file=sys.stderr)
        return 1
    try:
        options.folder.mkdir(parents=True, exist_ok=True)
        if any(options.folder.iterdir()):
            print(f"loadtests.generate: {options.folder} is not empty; name a new or an empty folder.", file=sys.stderr)
            return 1
        count = generate(options.folder, options.students, options.seed, options.part, options.today)
    except OSError as error:
        print(f"loadtests.generate: {error.filename or options.folder}: {error.strerror}.", file=sys.stderr)
        return 1
    print(f"{count:,} requests of {options.students:,} students in {options.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
