"""What a load test ends with: a page and a table of what its terminals counted, whichever driver sent it.

Always true here: every latency counts from the moment at which the request was due, and every figure is made from the answers as they
were written down, none of them rounded before.
"""

import html
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loadtests.answers import Count
from switch.agreement import Books, sums, sums_in_words, yuan
from switch.campus import Campus, write_rows
from switch.dialect import RESPONSES

__all__ = ["CSV_HEADER", "SHARES", "Result", "percentile", "write_report"]

SHARES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
CSV_HEADER: Final = "operation,answers,p50_us,p90_us,p99_us,p99.9_us,max_us"

FINDINGS_SHOWN: Final = 20

_STYLE: Final = (
    "body{font:15px sans-serif;margin:2em;max-width:60em}td,th{padding:2px 12px;text-align:right}"
    "td:first-child,th:first-child{text-align:left}svg{background:#f6f6f6}"
)
WIDTH: Final = 960
HEIGHT: Final = 220


@dataclass(frozen=True, kw_only=True)
class Result:
    """One load test."""

    title: str
    campus: Campus
    counted: Count
    books: Books
    findings: Sequence[str]
    """What is not as it should be; empty if all is well."""

    def table(self) -> list[tuple[str, int, list[int]]]:
        """By operation, and over all of them: its name, its answers, their latencies at `SHARES` in microseconds."""
        everything = array("Q")
        for latencies in self.counted.latencies.values():
            everything.extend(latencies)
        rows = [*sorted(self.counted.latencies.items()), ("all", everything)]
        return [(name, len(latencies), [percentile(latencies, share) for share in SHARES.values()]) for name, latencies in rows]

    def text(self) -> str:
        """For the console."""
        lines = [
            "",
            self.title,
            "",
            f"  {'':12}{'answers':>10}" + "".join(f"{name:>11}" for name in SHARES),
            *(
                f"  {name:12}{answers:>10,}" + "".join(f"{value / 1000:>8.2f} ms" for value in values)
                for name, answers, values in self.table()
            ),
            "  From the moment at which a request was due to its answer's last byte, verified; driver and switch share this machine.",
            "",
            *(f"  {operation:12}{count:>10,}   {code} {RESPONSES.get(code, 'unknown')}" for operation, code, count in self._responses()),
            "",
            *sums_in_words(self._sums()),
            "",
        ]
        if self.findings:
            lines += [f"NOT EQUAL, or not as expected: {len(self.findings):,} findings.", *self.findings[:FINDINGS_SHOWN]]
            lines += [f"  and {left:,} more."] if (left := len(self.findings) - FINDINGS_SHOWN) > 0 else []
        else:
            lines.append(self.verdict)
        return "\n".join(lines)

    @property
    def verdict(self) -> str:
        """One sentence where there are no findings."""
        return (
            f"Every answer was right, and terminals, ledger and PostgreSQL agree to the fen, merchant by merchant"
            f" ({len(self.campus.merchants):,}) and card by card ({len(self.campus.cards):,}), at journal position {self.books.position:,};"
            " the switch drained and ended, its journal verifies."
        )

    def _sums(self) -> list[tuple[str, int, int, int]]:
        return sums(self.campus, self.counted, self.books)

    def _responses(self) -> list[tuple[str, str, int]]:
        return [(operation, code, count) for (operation, code), count in sorted(self.counted.responses.items())]

    def page(self) -> str:
        """HTML that needs nothing from elsewhere."""
        findings = "".join(f"<li>{html.escape(finding)}</li>" for finding in self.findings)
        verdict = f"<p><strong>Not as expected:</strong></p><ul>{findings}</ul>" if self.findings else f"<p>{html.escape(self.verdict)}</p>"
        minutes = sorted(self.counted.by_minute.items())
        return "\n".join(
            (
                "<!DOCTYPE html>",
                '<html lang="en"><meta charset="utf-8"><title>Load test</title>',
                f"<style>{_STYLE}</style>",
                f"<h1>{html.escape(self.title)}</h1>",
                verdict,
                "<h2>Latency</h2>",
                "<p>From the moment at which a request was due to its answer's last byte, verified, in milliseconds.</p>",
                _table(
                    ("operation", "answers", *SHARES),
                    ((name, f"{answers:,}", *(f"{value / 1000:.2f}" for value in values)) for name, answers, values in self.table()),
                ),
                "<h2>Requests in each minute of the replay</h2>",
                _bars([(minute, len(latencies)) for minute, latencies in minutes], ""),
                "<h2>p99 in each minute of the replay, milliseconds</h2>",
                _bars([(minute, percentile(latencies, 0.99) / 1000) for minute, latencies in minutes], " ms"),
                "<h2>Answers</h2>",
                _table(
                    ("operation", "answer", "", "count"),
                    ((operation, code, RESPONSES.get(code, "unknown"), f"{count:,}") for operation, code, count in self._responses()),
                ),
                "<h2>To the fen</h2>",
                _table(
                    ("", "taken by merchants", "spent by cards", "loaded at counters"),
                    ((name, *map(yuan, fen)) for name, *fen in self._sums()),
                ),
                "</html>\n",
            )
        )


def write_report(result: Result, folder: Path) -> list[Path]:
    """Writes report.html and report.csv and returns their paths."""
    page, table = folder / "report.html", folder / "report.csv"
    page.write_text(result.page(), encoding="utf-8")
    write_rows(table, CSV_HEADER, ((name, answers, *values) for name, answers, values in result.table()))
    return [page, table]


def percentile(values: Sequence[int], share: float) -> int:
    """The smallest of the values that at least this share of them does not exceed; 0 of none."""
    ordered = sorted(values)
    # A product such as 0.999 * 1000 may lie a hair above its value.
    return ordered[math.ceil(round(share * len(ordered), 6)) - 1] if ordered else 0


def _table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = ["<table><tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in header) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows]
    return "\n".join((*lines, "</table>"))


def _bars(values: Sequence[tuple[int, float]], unit: str) -> str:
    """A bar a minute, from zero."""
    minutes = max((minute for minute, _ in values), default=0) + 1
    top = max((value for _, value in values), default=0) or 1
    wide = WIDTH / minutes
    bars = [
        f'<rect x="{minute * wide:.1f}" y="{HEIGHT * (1 - value / top):.1f}" width="{max(wide - 1, 0.5):.1f}"'
        f' height="{HEIGHT * value / top:.1f}" fill="#36c"><title>minute {minute}: {value:,.6g}{unit}</title></rect>'
        for minute, value in values
    ]
    label = f'<text x="4" y="14" font-size="12">{top:,.6g}{unit}</text>'
    return f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">' + "".join(bars) + label + "</svg>"
