"""What `switch demo` ends with: what its terminals counted, in words, and whether it agrees (`switch.agreement`)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from switch.agreement import Books, milliseconds, sums, sums_in_words, yuan
from switch.campus import Campus
from switch.dialect import RESPONSES

__all__ = ["Tally", "report"]


@dataclass
class Tally:
    """What the terminals know. Amounts in fen."""

    payments: int = 0
    """What was due at them."""
    lasted_seconds: float = 0.0
    """From the first payment's moment to the last one's answer, in real time."""
    approved: int = 0
    approved_fen: int = 0
    declined: Counter[str] = field(default_factory=Counter)
    """By DE39."""
    doubled: int = 0
    repeated: int = 0
    reconnected: int = 0
    reversed: int = 0
    given_back_fen: int = 0
    overtaken: int = 0
    remembered: int = 0
    """Answers that came again and were the same."""
    seconds: list[float] = field(default_factory=list)
    """From a purchase's first byte to its answer's last."""
    late_seconds_max: float = 0.0
    """The longest that a payment waited for its terminal, in real time."""
    by_merchant: Counter[str] = field(default_factory=Counter)
    by_card: Counter[str] = field(default_factory=Counter)
    """What its purses paid, less what was loaded."""
    loads: int = 0
    loaded: int = 0
    surprises: list[str] = field(default_factory=list)
    """What should not have been answered, or was not answered; a sentence each."""


def report(campus: Campus, tally: Tally, books: Books, problems: Sequence[str]) -> str:
    """What is shown at the end: counts, times, the three sums, and that they agree or the first of the problems."""
    seconds = sorted(tally.seconds)
    percentiles = [f"{name} {milliseconds(seconds, share)}" for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))]
    lines = [
        "",
        f"Lunch of {tally.payments:,} payments in {tally.lasted_seconds:.1f} s.",
        "",
        _count_line("approved", tally.approved, yuan(tally.approved_fen)),
        _count_line("loaded at the finance office", tally.loads, yuan(tally.loaded)),
        _count_line("declined", tally.declined.total()),
        *(_count_line(f"  {RESPONSES.get(code, 'unknown')}", count, f"({code})") for code, count in tally.declined.most_common()),
        _count_line("reversed", tally.reversed, f"{yuan(tally.given_back_fen)} given back"),
        _count_line("  before the purchase arrived", tally.overtaken),
        _count_line("doubled by the network", tally.doubled),
        _count_line("repeated, answer lost", tally.repeated),
        _count_line("repeated, connection lost", tally.reconnected),
        _count_line("answered from memory", tally.remembered, "each the same as before"),
        "",
        f"  answers: {', '.join(percentiles)} (terminals and switch share this machine)",
        f"  longest wait for a free terminal {tally.late_seconds_max * 1e3:.0f} ms",
        "",
        *sums_in_words(sums(campus, tally, books)),
        "",
    ]
    if problems:
        shown = problems[:20]
        lines += [f"NOT EQUAL, or not as expected: {len(problems):,} findings.", *(f"  {problem}" for problem in shown)]
        lines += [f"  and {len(problems) - len(shown):,} more."] if len(problems) > len(shown) else []
    else:
        lines.append(
            f"Terminals, ledger and PostgreSQL agree to the fen, merchant by merchant ({len(campus.merchants)}), card by card"
            f" ({len(campus.cards):,}) and at the cash desk, at journal position {books.position:,}; the switch drained and ended, its"
            " journal verifies."
        )
    return "\n".join(lines)


def _count_line(what: str, count: int, note: str = "") -> str:
    return f"  {what:34}{count:>8,}   {note}".rstrip()
