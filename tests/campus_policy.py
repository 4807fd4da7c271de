"""A campus's policy in plain dictionaries: which rules concern a payment or a passage, and what they say of it.

It shares no code with the switch. A payment is a dictionary, as `tests.campus_model` keeps one for each message; where a rule counts, it
looks through all payments that stand and were made since the rule came into force.
"""

import datetime
from collections.abc import Iterable
from typing import Any, Final

RULES_HEADER: Final = "rule,class,category,zone,days,from,to,value"

Row = dict[str, str]


class Policy:
    """The rules in force."""

    def __init__(self, lines: Iterable[str], before: "Policy | None" = None, made: int = 0) -> None:
        """Lines of the policy file, without its header, after `made` messages. A line that stood in the file before goes on counting."""
        begun = {} if before is None else before.begun
        self.begun: dict[str, int] = {line: begun.get(line, made) for line in lines}
        """How many messages had been decided when each came into force."""
        self._rows: list[Row] = [dict(zip(RULES_HEADER.split(","), line.split(","), strict=True)) for line in self.begun]

    def _fitting(self, name: str, payment: dict[str, Any]) -> list[Row]:
        """The rows that concern it, the most specific first."""
        rows = [row for row in self._rows if row["rule"] == name and _period(row, payment["at"]) is not None]
        rows = [row for row in rows if all(row[key] in {"", "*", payment[key]} for key in ("class", "category", "zone"))]
        return sorted(rows, key=lambda row: (row["class"] == "*", row["category"] == "*"))

    def _counted(self, row: Row, payments: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those that this row, which counts, has counted."""
        begun = self.begun[",".join(row.values())]
        return [payment for payment in payments if payment["made"] >= begun and row in self._fitting(row["rule"], payment)]

    def _value(self, name: str, payment: dict[str, Any], otherwise: str) -> str:
        return next((row["value"] for row in self._fitting(name, payment)), otherwise)

    def takes_subsidy(self, payment: dict[str, Any]) -> bool:
        return self._value("subsidy", payment, "yes" if payment["category"] == "canteen" else "no") == "yes"

    def price(self, payment: dict[str, Any]) -> int:
        """What the cardholder pays for it, in fen: with a surcharge or a discount, rounded half up."""
        return int(payment["amount"] + (payment["amount"] * int(self._value("surcharge", payment, "0")) + 5_000) // 10_000)

    def refuses(self, payment: dict[str, Any]) -> bool:
        return bool(self._fitting("refuse", payment))

    def needs_pin(self, payment: dict[str, Any]) -> bool:
        return bool(payment["amount"] > int(self._value("pin_above", payment, "999999999999")))

    def limit_code(self, payment: dict[str, Any], standing: Iterable[dict[str, Any]], today: datetime.date) -> str | None:
        """61 or 65, where it would pass a limit. `standing` are the holder's other payments of the business date that are not undone."""
        others = list(standing)
        if any(payment["amount"] > int(row["value"]) for row in self._fitting("transaction_max", payment)):
            return "61"
        for row in self._fitting("day_max", payment):
            if payment["amount"] + sum(other["counted"] for other in self._counted(row, others)) > int(row["value"]):
                return "61"
        for row in self._fitting("day_count", payment):
            if 1 + len(self._counted(row, others)) > int(row["value"]):
                return "65"
        for row in self._fitting("meal", payment) if payment["is_meal"] else []:
            day, meals = _period(row, payment["at"]), [other for other in self._counted(row, others) if other["is_meal"]]
            # A meal of a day before yesterday is not counted any more.
            kept = day is not None and day >= today - datetime.timedelta(days=1)
            if 1 + sum(kept and _period(row, other["at"]) == day for other in meals) > int(row["value"]):
                return "65"
        return None

    def opens(self, passage: dict[str, Any]) -> bool:
        """A zone without a rule about its doors is open."""
        ruled = any(row["rule"] == "door" and row["zone"] == passage["zone"] for row in self._rows)
        return not ruled or bool(self._fitting("door", passage))

    @property
    def zones_with_passback(self) -> set[str]:
        return {row["zone"] for row in self._rows if row["rule"] == "anti_passback"}

    def passback(self, passage: dict[str, Any]) -> datetime.timedelta:
        """For how long the same way is closed."""
        return datetime.timedelta(minutes=int(self._value("anti_passback", passage, "0")))


def _period(row: Row, at: datetime.datetime) -> datetime.date | None:
    """The day on which the row's period began that this moment lies in; nothing outside of it."""
    begins, ends = (datetime.time.fromisoformat(row[key] or "00:00") for key in ("from", "to"))
    day = at.date()
    if begins < ends:
        inside = begins <= at.time() < ends
    else:
        inside = at.time() >= begins or at.time() < ends
        # Past midnight it is still the period of the day before.
        day -= datetime.timedelta(days=begins > at.time())
    first, last = row["days"][:1] or "1", row["days"][-1:] or "7"
    return day if inside and first <= str(day.isoweekday()) <= last else None
