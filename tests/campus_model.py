"""A campus in plain dictionaries: what the switch must answer to each message, by the terminal protocol, and where the money is then.

It is told messages as a terminal writes them (`switch.dialect`), in the order in which the switch decided them, and gives each reply,
element by element; only the transaction number (DE37) is the switch's to choose. It knows nothing of journals, keys and bytes, it lives on
one business day, and it shares no code with the switch. Where it is slow, that is because it looks through everything that happened.
"""

import datetime
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from tests.campus_policy import Policy

Fields = dict[str, str]
Deed = dict[str, Any]
"""A remembered 01xx or 02xx message, and what it moved."""
Account = tuple[str, str]
"""Kind and owner."""

AMOUNT_MAX, PIN_TRIES_MAX, IDENTITY_DAYS, PIECE_MAX = 5_000_000, 3, 8, 40
STATUS_CODES: Final = {"active": "00", "inactive": "78", "lost": "41", "frozen": "62", "blacklisted": "62", "cancelled": "78"}
LISTED: Final = {"lost", "frozen", "blacklisted", "cancelled"}
LIVE: Final = {"active", "inactive", "frozen", "blacklisted"}
PAYEES: Final = {"01": "tuition", "02": "electricity", "03": "water", "04": "other"}
ECHOED: Final = ("2", "3", "4", "11", "12", "13", "24", "41", "42", "49", "60", "70")
TOTALS: Final = ("74", "75", "76", "77", "86", "87", "88", "89")

_POS, _KIOSK = {"purchase", "void", "refund", "offline_sale", "balance", "verify"}, {"balance", "bill_payment", "loss", "found", "verify"}
KINDS: Final = {
    "pos": _POS,
    "kiosk": _KIOSK,
    "counter": _POS | _KIOSK | {"load"},
    "water": {"hold", "completion", "purchase", "offline_sale", "balance"},
    "gate": {f"{name}{advice}" for name in ("enter", "leave", "attendance", "verify") for advice in ("", " advice")},
    "library": {"purchase", *(f"{name}{advice}" for name in ("borrow", "return", "verify") for advice in ("", " advice"))},
    "meter": {"event"},
}
_CARD_SHOWN: Final = {"90": "verify", "91": "enter", "92": "leave", "93": "borrow", "94": "return", "95": "attendance"}
_SALES: Final = ("000000", "001000", "002000")
_OPERATIONS: Final = {
    **{("020", code): "purchase" for code in _SALES},
    **{("022", code): "offline_sale" for code in _SALES},
    **{("020", code): name for code, name in {"020000": "void", "200000": "refund", "210000": "load", "500000": "bill_payment"}.items()},
    **{("010", code): name for code, name in {"310000": "balance", "000000": "hold"}.items()},
    **{("010", f"{code}0000"): name for code, name in _CARD_SHOWN.items()},
    **{("012", f"{code}0000"): f"{name} advice" for code, name in _CARD_SHOWN.items()},
}
_NEEDED: Final = {
    **dict.fromkeys((*KINDS["gate"], *KINDS["library"], "balance"), ("2",)),
    **dict.fromkeys(("purchase", "offline_sale"), ("2", "4", "42", "49")),
    **dict.fromkeys(("refund", "completion"), ("4", "37")),
    **dict.fromkeys(("load", "hold", "bill_payment"), ("2", "4")),
    **dict.fromkeys(("loss", "found"), ("2", "101")),
    **dict.fromkeys(("void",), ("37",)),
    **dict.fromkeys(("batch_close",), ("60", *TOTALS)),
}
_TAGS_NEEDED: Final = {"bill_payment": ("30", "31"), "event": ("40",), "hotlist": ("50",), "borrow": ("11",), "return": ("11",)}
_INQUIRIES: Final = {"balance", "verify", "hotlist", "echo"}
_AMOUNT_CHECKED: Final = {"purchase", "offline_sale", "refund", "load", "bill_payment", "hold", "completion"}
_MONEY: Final = _AMOUNT_CHECKED | {"void", "reversal"}
_UNTOUCHED: Final = {
    "cash": 0,
    "subsidy": 0,
    "refunded": 0,
    "cash_back": 0,
    "subsidy_back": 0,
    "held": 0,
    "counted": None,
    "undone": False,
    "flag": None,
}


class Campus:
    """All parties, and every message that came."""

    def __init__(self, today: datetime.date, version: int = 0, listed: frozenset[str] = frozenset()) -> None:
        """`version` and `listed` are the hotlist's before anything here."""
        self.today = today
        self.merchants: dict[str, str] = {}
        """Category by merchant."""
        self.terminals: dict[str, dict[str, str]] = {}
        self.cards: dict[str, dict[str, Any]] = {}
        """`holder`, `class`, `status`, `expires`, `pin`, `tries`."""
        self.policy = Policy([])
        self.accounts: Counter[Account] = Counter()
        """Fen."""
        self.version = version
        self.lists = {0: frozenset[str](), version: listed}
        """The hotlist by version, as far as it is known."""
        self._readings: dict[str, int] = {}
        self.answers: dict[tuple[str, ...], tuple[Any, Fields, str]] = {}
        """What was asked, the reply, and the operation's name."""
        self.deeds: dict[tuple[str, ...], Deed] = {}
        self._by_reference: dict[str, Deed] = {}
        self._tombstones: set[tuple[str, ...]] = set()
        self.loans: dict[str, str] = {}
        """Holder by item."""
        self._late: set[tuple[Any, ...]] = set()
        """Identity and content of reversals of what is not remembered any more: they are for a person, and stay so."""
        self._passages: dict[Account, tuple[str, datetime.datetime]] = {}
        """The last one while a rule asked for it, by holder and zone."""
        self._batches: dict[str, int] = defaultdict(lambda: 1)
        self.totals: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0] * 8)
        """Of a terminal's batch: credits, their reversals, debits and theirs; then their amounts."""

    # --- parties ---

    def enter_parties(self, merchants: dict[str, str], terminals: Iterable[Sequence[str]], policy: Iterable[str]) -> None:
        """Category by merchant; name, merchant, kind and zone of each terminal; lines of the policy file."""
        self.merchants, self.policy = merchants, Policy(policy)
        self.terminals = {name: {"merchant": merchant, "kind": kind, "zone": zone} for name, merchant, kind, zone in terminals}

    def enter_policy(self, policy: Iterable[str]) -> None:
        """Other rules, from the next message on."""
        self.policy = Policy(policy, self.policy, len(self.deeds))
        self._passages = {key: passage for key, passage in self._passages.items() if key[1] in self.policy.zones_with_passback}

    def enter_card(self, number: str, cash: int, subsidy: int, **row: Any) -> None:
        """A row of cards.csv, new or changed. Purses are opened once."""
        status = row.pop("status")
        self.cards.setdefault(number, {"pin": None, "tries": 0, "status": "active"}).update(row)
        self._set_status(number, status)
        self._move(cash, ("house", "suspense"), ("cash", row["holder"]))
        self._move(subsidy, ("house", "grants"), ("subsidy", row["holder"]))

    def _set_status(self, number: str, status: str) -> None:
        listed = self.lists[self.version]
        self.cards[number]["status"] = status
        if (number in listed) != (status in LISTED):
            self.version += 1
            self.lists[self.version] = listed ^ {number}

    def available(self, holder: str) -> tuple[int, int]:
        """Cash without what is on hold, and subsidy."""
        held = sum(deed["held"] for deed in self.deeds.values() if deed["holder"] == holder)
        return self.accounts["cash", holder] - held, self.accounts["subsidy", holder]

    def _move(self, fen: int, source: Account, target: Account) -> None:
        self.accounts[source] -= fen
        self.accounts[target] += fen

    # --- a message ---

    def decide(self, message: Fields, reference: str | None = None, pin: str | None = None) -> Fields:
        """The reply to a message whose MAC is right. `reference` is the transaction number that the switch gave it, `pin` what was typed.

        Where a reply was lost, its number is taken from the next one to the same message.
        """
        name, terminal = operation_of(message), self.terminals[message["41"].strip()]
        if code := self._refusal(message, terminal, name):
            return self._reply(message, code)
        if name in _INQUIRIES:
            return self._reply(message, *self._inquire(message, name))
        identity, content = _identity(message), [message.get(element) for element in ("2", "3", "4", "49")]
        if (identity, *content) in self._late:
            return self._reply(message, "12")
        if identity not in self.answers and "90" in message and not self._is_kept(message["90"][10:14]):
            self._late.add((identity, *content))
            return self._reply(message, "12")
        if identity not in self.answers:
            self.answers[identity] = content, self._decide_first(message, terminal, name, identity, pin), name
        elif self.answers[identity][0] != content:
            return self._reply(message, "94")
        answer = self.answers[identity][1]
        if answer["37"] == "" and reference is not None:
            answer.update({"37": reference, **({"38": reference[-6:]} if "38" in answer else {})})
            self._by_reference[reference] = self.deeds.get(identity, {"granted": False})
        return {**answer, "t": _reply_type(message["t"])}

    def _decide_first(self, message: Fields, terminal: Fields, name: str, identity: tuple[str, ...], pin: str | None) -> Fields:
        deed = self._new_deed(message, terminal, name)
        # Verification beforehand is an inquiry, afterwards it is an event like attendance.
        decide: Callable[..., Any] = getattr(self, f"_{name.removesuffix(' advice').replace('verify', 'attendance')}", _impossible)
        if identity in self._tombstones:
            decide = _impossible
        elif name in _AMOUNT_CHECKED and not (name != "completion") <= deed["amount"] <= AMOUNT_MAX:
            decide = _no_such_amount
        elif name in {"void", "refund", "completion"} and "2" in message and message["2"] not in self.cards:
            decide = _no_such_card
        decided = decide(message, deed, pin)
        code, more = decided if isinstance(decided, tuple) else (decided, {})
        if identity[0] == "financial":
            deed["granted"] = code == "00"
            self.deeds[identity] = deed
        if code == "00" and identity[0] in {"financial", "04"}:
            more |= {"38": "", **(self._balances(message) if name in _MONEY else {})}
        return self._reply(message, code, {"37": "", **more})

    def _refusal(self, message: Fields, terminal: Fields, name: str) -> str | None:
        """What is answered without being remembered."""
        family, tags, reversed_family = message["t"][:2], _tags(message), message.get("90", "02")[:2]
        missing = any(element not in message for element in (*_NEEDED.get(name, ()), *(["3"] if family in {"01", "02"} else [])))
        missing |= any(tag not in tags for tag in _TAGS_NEEDED.get(name.removesuffix(" advice"), ()))
        if missing or reversed_family not in {"01", "02"} or (family == "03" and name == "unknown"):
            return "30"
        kinds = {kind for kind, operations in KINDS.items() if name in operations}
        if message.get("42", terminal["merchant"]).strip() != terminal["merchant"] or (kinds and terminal["kind"] not in kinds):
            return "58"
        return None if name == "echo" or self._is_kept(message["13"]) else "12"

    def _is_kept(self, date: str) -> bool:
        """Whether it is one of the days whose messages are remembered."""
        return -IDENTITY_DAYS < (self._date(date) - self.today).days <= 1

    def _date(self, text: str) -> datetime.date:
        dates = (datetime.date(self.today.year + years, int(text[:2]), int(text[2:])) for years in (-1, 0, 1))
        return min(dates, key=lambda date: abs(date - self.today))

    def _reply(self, message: Fields, code: str, more: Fields | None = None) -> Fields:
        echoed = {element: message[element] for element in ECHOED if element in message and (element, message["t"][:2]) != ("2", "08")}
        return {"t": _reply_type(message["t"]), **echoed, "15": f"{self.today:%m%d}", "39": code, **(more or {})}

    def _balances(self, message: Fields) -> Fields:
        if message.get("2") not in self.cards:
            return {}
        purses = zip(("10", "20"), self.available(self.cards[message["2"]]["holder"]), strict=True)
        return {"54": "".join(f"{kind}02156{'C' if fen >= 0 else 'D'}{abs(fen):012}" for kind, fen in purses)}

    # --- inquiries ---

    def _inquire(self, message: Fields, name: str) -> tuple[str, Fields]:
        if name == "echo":
            return "00", {}
        if name == "hotlist":
            return "00", {"48": self._piece(message["41"], _tags(message))}
        if message["2"] not in self.cards:
            return "14", {}
        card_class = self.cards[message["2"]]["class"]
        return (
            ("00", self._balances(message)) if name == "balance" else (self._status(message), {"48": f"20{len(card_class):02}{card_class}"})
        )

    def _piece(self, terminal: str, tags: Fields) -> str:
        """Of the changes since the version held, in the order of card numbers, as of the reading's first piece."""
        if "51" not in tags:
            self._readings[terminal] = self.version
        now = self.lists[self._readings[terminal]]
        changed = sorted((int(number), len(number), number) for number in self.lists[int(tags["50"])] ^ now)
        left = [number for *place, number in changed if "51" not in tags or place > [int(tags["51"]), len(tags["51"])]]
        changes = "".join(f"53{len(number) + 1:02}{'+' if number in now else '-'}{number}" for number in left[:PIECE_MAX])
        return f"5010{self._readings[terminal]:010}5201{int(len(left) > PIECE_MAX)}{changes}"

    # --- money: each operation gives the code, and does what it grants ---

    def _new_deed(self, message: Fields, terminal: Fields, name: str) -> Deed:
        card = self.cards.get(message.get("2", ""), {})
        time = message["12"]
        at = datetime.datetime.combine(self._date(message["13"]), datetime.time(int(time[:2]), int(time[2:4]), int(time[4:])))
        deed = {"operation": name, "amount": int(message.get("4", "0")), "at": at, "is_meal": name in {"purchase", "offline_sale"}}
        deed |= {"card": message.get("2"), "holder": card.get("holder"), "class": card.get("class")}
        deed |= {**terminal, "category": self.merchants[terminal["merchant"]], "made": len(self.deeds), **_UNTOUCHED}
        return deed | {"paid": self.policy.price(deed) if deed["is_meal"] else deed["amount"]}

    def _status(self, message: Fields) -> str:
        if message["2"] not in self.cards:
            return "14"
        card = self.cards[message["2"]]
        code = STATUS_CODES[card["status"]]
        return "54" if code == "00" and card["expires"] < self.today else code

    def _spend(self, message: Fields, deed: Deed, pin: str | None) -> str:
        """The ladder from 14 to 51 for a purchase, a hold or a bill payment."""
        if (code := self._status(message)) != "00":
            return code
        if self.policy.refuses(deed) or (message["3"] == "002000" and not self.policy.takes_subsidy(deed)):
            return "57"
        if self.policy.needs_pin(deed) and (wrong := self._wrong_pin(self.cards[message["2"]], pin)):
            return wrong
        standing = (other for other in self.deeds.values() if other["holder"] == deed["holder"] and other["counted"] is not None)
        if limit := self.policy.limit_code(deed, (other for other in standing if not other["undone"]), self.today):
            return limit
        cash, subsidy = self.available(deed["holder"])
        if deed["operation"] == "hold":
            return "00" if cash > 0 else "51"
        share = subsidy if deed["is_meal"] and message["3"] != "001000" and self.policy.takes_subsidy(deed) else 0
        return "00" if cash >= 0 and share + (0 if message["3"] == "002000" else cash) >= deed["paid"] else "51"

    def _wrong_pin(self, card: dict[str, Any], pin: str | None) -> str | None:
        if card["tries"] >= PIN_TRIES_MAX:
            return "75"
        if card["pin"] is not None and pin is not None:
            card["tries"] = 0 if pin == card["pin"] else card["tries"] + 1
        return None if pin is not None and pin == card["pin"] else "55"

    def _purchase(self, message: Fields, deed: Deed, pin: str | None) -> str:
        code = self._spend(message, deed, pin)
        return self._offline_sale(message, deed, pin) if code == "00" else code

    def _offline_sale(self, message: Fields, deed: Deed, _: str | None) -> str:
        if deed["holder"] is None:
            return "14"
        if deed["operation"] == "offline_sale":
            self._flag(deed, self._spend(message, deed, None))
        named = message["3"] != "001000" and self.policy.takes_subsidy(deed)
        subsidy = min(deed["paid"], self.accounts["subsidy", deed["holder"]]) if named else 0
        return self._pay(message, deed, subsidy, ("merchant", deed["merchant"]))

    def _bill_payment(self, message: Fields, deed: Deed, pin: str | None) -> str:
        code = self._spend(message, deed, pin)
        return self._pay(message, deed, 0, ("payee", PAYEES[_tags(message)["30"]])) if code == "00" else code

    def _pay(self, message: Fields, deed: Deed, subsidy: int, payee: Account) -> str:
        deed.update(subsidy=subsidy, cash=deed["paid"] - subsidy, payee=payee, counted=deed["amount"])
        self._turn_over(deed, -deed["amount"], -deed["cash"], -subsidy)
        self._count(message, 2, deed["amount"])
        return "00"

    def _turn_over(self, sale: Deed, amount: int, cash: int, subsidy: int) -> None:
        """From the payee to the purses; below zero, the other way. A surcharge is for fees, a discount from grants."""
        self._move(cash, sale["payee"], ("cash", sale["holder"]))
        self._move(subsidy, sale["payee"], ("subsidy", sale["holder"]))
        self._move(amount - cash - subsidy, sale["payee"], ("house", "fees" if sale["paid"] >= sale["amount"] else "grants"))

    def _give_back(self, sale: Deed, amount: int) -> tuple[int, int]:
        """So much of a sale's amount, and the same part of what was paid: first to the purse that was debited last. What either got."""
        sale["refunded"] += amount
        due = sale["paid"] * sale["refunded"] // sale["amount"] if sale["amount"] else 0
        back = max(0, due - sale["cash_back"] - sale["subsidy_back"])
        # Where refunds were taken back, others may have got ahead: a surcharge is never negative, nor is a discount.
        back = max(back, amount) if sale["paid"] >= sale["amount"] else min(back, amount)
        cash = min(back, sale["cash"] - sale["cash_back"])
        self._turn_over(sale, amount, cash, back - cash)
        sale.update(cash_back=sale["cash_back"] + cash, subsidy_back=sale["subsidy_back"] + back - cash, counted=sale["counted"] - amount)
        return cash, back - cash

    def _named(self, message: Fields, deed: Deed, *operations: str) -> Deed | None:
        """The granted transaction that DE37 names, if the request may name it."""
        found = self._by_reference.get(message["37"], {"granted": False})
        if not found["granted"] or found["operation"] not in operations or found["merchant"] != deed["merchant"]:
            return None
        return found if message.get("2", found["card"]) == found["card"] else None

    def _void(self, message: Fields, deed: Deed, _: str | None) -> str:
        sale = self._named(message, deed, "purchase", "offline_sale")
        if sale is None:
            return "25"
        if sale["undone"] or sale["refunded"]:
            return "12"
        self._give_back(sale, sale["amount"])
        sale["undone"] = True
        self._count(message, 3, sale["amount"])
        return "00"

    def _refund(self, message: Fields, deed: Deed, _: str | None) -> str:
        sale = self._named(message, deed, "purchase", "offline_sale", "completion")
        if sale is None or sale["undone"]:
            return "25" if sale is None else "12"
        if deed["amount"] > sale["amount"] - sale["refunded"]:
            return "61"
        deed["of"], (deed["cash"], deed["subsidy"]) = sale, self._give_back(sale, deed["amount"])
        deed["card"] = sale["card"]
        self._count(message, 0, deed["amount"])
        return "00"

    def _load(self, message: Fields, deed: Deed, _: str | None) -> str:
        if (code := self._status(message)) == "00":
            self._move(deed["amount"], ("house", "cash_desk"), ("cash", deed["holder"]))
            self._count(message, 0, deed["amount"])
        return code

    def _hold(self, message: Fields, deed: Deed, pin: str | None) -> str:
        if (code := self._spend(message, deed, pin)) == "00":
            deed["held"] = deed["counted"] = min(deed["amount"], self.available(deed["holder"])[0])
        return code

    def _completion(self, message: Fields, deed: Deed, _: str | None) -> str:
        hold = self._named(message, deed, "hold")
        if hold is None or hold["undone"]:
            return "25" if hold is None else "12"
        if deed["amount"] > hold["held"]:
            return "61"
        # It takes the hold's place, also in what was counted. What is left of the hold can no more be undone.
        deed |= {key: hold[key] for key in ("card", "holder", "class", "at", "made")}
        hold.update(held=0, undone=True)
        return self._pay(message, deed, 0, ("merchant", deed["merchant"]))

    def _reversal(self, message: Fields, _: Deed, __: str | None) -> str:
        named = message.get("90", f"0200{message['11']}{message['13']}")
        identity = ("financial", message["41"], named[10:14], named[4:10])
        if identity not in self.deeds:
            self._tombstones.add(identity)
            return "00"
        deed = self.deeds[identity]
        # What a void says of its amount means nothing.
        known = {"2": deed["card"], "4": None if deed["operation"] == "void" else self.answers[identity][1].get("4")}
        if any(content is not None and message.get(element, content) != content for element, content in known.items()):
            return "94"
        if deed["granted"] and not deed["undone"]:
            self._undo(message, deed)
        return "00"

    def _undo(self, message: Fields, deed: Deed) -> None:
        match deed["operation"]:
            case "purchase" | "offline_sale" | "completion" | "bill_payment":
                left = deed["amount"] - deed["refunded"]
                self._give_back(deed, left)
                self._count(message, 3, left)
            case "load":
                self._move(deed["amount"], ("cash", deed["holder"]), ("house", "cash_desk"))
                self._count(message, 1, deed["amount"])
            case "refund" if not deed["of"]["undone"]:
                self._take_back(deed["of"], deed)
                self._count(message, 1, deed["amount"])
        deed.update(held=0, undone=deed["operation"] not in {"void", "refund"} or "of" in deed)

    def _take_back(self, sale: Deed, refund: Deed) -> None:
        """A refund's money, out of the purses that got it, but no more subsidy than there is. So much can be refunded again."""
        missing = max(0, refund["subsidy"] - self.accounts["subsidy", sale["holder"]])
        self._turn_over(sale, -refund["amount"], -refund["cash"], -refund["subsidy"])
        self._move(missing, ("cash", sale["holder"]), ("subsidy", sale["holder"]))
        sale.update(refunded=sale["refunded"] - refund["amount"], counted=sale["counted"] + refund["amount"])
        sale.update(cash_back=sale["cash_back"] - refund["cash"], subsidy_back=sale["subsidy_back"] - refund["subsidy"])

    def _flag(self, deed: Deed, code: str) -> None:
        """What would have been answered beforehand to what is told of afterwards."""
        deed["flag"] = None if code == "00" else code

    # --- a card is shown; beforehand, or told of afterwards (then its status and the doors' rules do not matter any more) ---

    def _attendance(self, message: Fields, deed: Deed, _: str | None) -> str:
        return self._shown(message, deed, self._status(message))

    def _shown(self, message: Fields, deed: Deed, code: str) -> str:
        if code == "14" or message["t"][2] != "2":
            return code
        self._flag(deed, code)
        return "00"

    def _enter(self, message: Fields, passage: Deed, _: str | None) -> str:
        code, key, minute = self._status(message), (passage["holder"], passage["zone"]), passage["at"].replace(second=0)
        way, at = self._passages.get(key, ("", minute))
        again = way == message["3"] and datetime.timedelta() <= minute - at < self.policy.passback(passage)
        if code == "00" and (again or not self.policy.opens(passage)):
            code = "57"
        code = self._shown(message, passage, code)
        if code == "00" and minute >= at and self.policy.passback(passage):
            self._passages[key] = message["3"], minute
        return code

    _leave = _enter

    def _borrow(self, message: Fields, deed: Deed, _: str | None) -> str:
        code, item = self._attendance(message, deed, None), _tags(message)["11"]
        if code == "00" and item in self.loans:
            return "12"
        if code == "00":
            self.loans[item] = deed["holder"]
        return code

    def _return(self, message: Fields, deed: Deed, _: str | None) -> str:
        code, item = self._attendance(message, deed, None), _tags(message)["11"]
        if code == "00" and self.loans.get(item) != deed["holder"]:
            return "57" if item in self.loans else "25"
        if code == "00":
            del self.loans[item]
        return code

    # --- cards, batches, events ---

    def _loss(self, message: Fields, _: Deed, __: str | None) -> str:
        return self._report(message["2"], "active", "lost")

    def _found(self, message: Fields, _: Deed, __: str | None) -> str:
        number = message["2"]
        holder, status = (self.cards.get(number, {}).get(key) for key in ("holder", "status"))
        replaced = any(card["status"] in LIVE and card["holder"] == holder for other, card in self.cards.items() if other != number)
        return "78" if status == "lost" and replaced else self._report(number, "lost", "active")

    def _report(self, number: str, before: str, after: str) -> str:
        if number not in self.cards:
            return "14"
        status = self.cards[number]["status"]
        if status == before:
            self._set_status(number, after)
        return "00" if status in {before, after} else STATUS_CODES[status]

    def _count(self, message: Fields, place: int, amount: int) -> None:
        totals = self.totals[message["41"], int(message.get("60", self._batches[message["41"]]))]
        totals[place] += 1
        totals[place + 4] += amount

    def _batch_close(self, message: Fields, _: Deed, __: str | None) -> tuple[str, Fields]:
        terminal, batch = message["41"], int(message["60"])
        totals = self.totals[terminal, batch]
        if totals != [int(message[element]) for element in TOTALS]:
            return "95", {element: f"{value:0{10 if element < '80' else 16}}" for element, value in zip(TOTALS, totals, strict=True)}
        self._batches[terminal] = max(self._batches[terminal], min(batch + 1, 999_999))
        return "00", {}

    def _event(self, message: Fields, _: Deed, __: str | None) -> tuple[str, Fields]:
        return "00", {"48": "4304TRIP" if _tags(message)["40"] in {"01", "03"} else "4304NONE"}


def _impossible(*_: Any) -> str:
    return "12"


def _no_such_amount(*_: Any) -> str:
    return "13"


def _no_such_card(*_: Any) -> str:
    return "14"


def operation_of(message: Fields) -> str:
    """Its name, as in `KINDS`; what a terminal of any kind may do has one as well."""
    mti, code = message["t"], message.get("3", "")
    if mti[:3] == "022" and code == "000000" and "37" in message:
        return "completion"
    if mti[:2] == "03":
        return {"1": "loss", "3": "found", "5": "hotlist"}.get(message.get("91", ""), "unknown")
    of_family = {"04": "reversal", "05": "batch_close", "06": "event", "08": "echo"}
    return of_family.get(mti[:2]) or _OPERATIONS.get((mti[:3], code), "unknown")


def _identity(message: Fields) -> tuple[str, ...]:
    family = message["t"][:2]
    return "financial" if family in {"01", "02"} else family, message["41"], message["13"], message["11"]


def _reply_type(mti: str) -> str:
    return f"{int(mti) + 10:04}"


def _tags(message: Fields) -> Fields:
    text, found = message.get("48", ""), {}
    while text:
        end = 4 + int(text[2:4])
        found[text[:2]], text = text[4:end], text[end:]
    return found
