"""What an approved operation does: which accounts pay whom, what the purses hold afterwards, what it changes for later records.

Each effect follows from the message and the books. Where they do not suffice, because what a message refers to is before the beginning
of the report, the movements are believed as far as they are such as the operation makes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from .answers import differs
from .books import BATCH_MAX, SALES, Batch, Books, Decision, Hold, Pair, Taken, transfers
from .lines import Fault, canonical, listed
from .records import PAYEES, Document, Message, Rule


@dataclass(frozen=True)
class Terms:
    """What rules say of a class of cards at merchants of a category."""

    transaction_max: int
    pin_above: int
    surcharge_bp: int
    takes_subsidy: bool

    @classmethod
    def of(cls, rules: Sequence[Rule], card_class: str, category: str) -> "Terms":
        fitting = [rule for rule in rules if rule.fits(card_class, category)]
        # Later ones are more specific: neither, category, class, both.
        fitting.sort(key=lambda rule: (rule.card_class is not None, rule.category is not None))
        last = {rule.name: rule.value for rule in fitting}
        ceilings = [rule.value for rule in fitting if rule.name == "transaction_max"]
        return cls(
            min(ceilings, default=(1 << 32) - 1),
            last.get("pin_above", (1 << 32) - 1),
            last.get("surcharge", 0),
            bool(last.get("subsidy", category == "canteen")),
        )

    def price(self, amount: int) -> int:
        """With the surcharge, rounded half up."""
        return amount + (amount * self.surcharge_bp + 5_000) // 10_000


@dataclass
class Effect:
    """What an approved decision does."""

    movements: list[Document] = field(default_factory=list)
    paid: Pair = (0, 0)
    available: Pair | None = (0, 0)
    """By how much what is available in the purses changes; None: what it was before is not known."""
    stands: bool = False
    counted: tuple[str, int] | None = None
    """In which of a batch's totals, with how many fen."""
    original: int | None = None
    refers_to: int | None = None


def effect_of(books: Books, taken: Taken) -> Effect:
    """What it does. Raises Fault where the books do not let it."""
    found = _EFFECTS.get(taken.kind)
    return found(books, taken) if found else Effect()


def _terms(books: Books, taken: Taken) -> Terms | None:
    """What the rules say of it; None where they, the card's class or the merchant's category are not known."""
    card = books.cards.get(taken.said["card"] or "")
    category = books.category_of.get(taken.merchant)
    if not books.complete or card is None or card.card_class is None or category is None:
        return None
    return Terms.of(books.rules, card.card_class, category)


def _check_terms(taken: Taken, terms: Terms | None) -> None:
    """What is approved, or not flagged, was within the amount of one operation, and had the PIN that it needed."""
    if terms is None or (taken.kind == "offline_sale" and taken.said["flag"] is not None):
        return
    if taken.amount > terms.transaction_max:
        raise Fault(f"{taken.amount} fen are approved, above the {terms.transaction_max} of one operation")
    if taken.amount > terms.pin_above and taken.said.get("pin") != "right":
        raise Fault(f"{taken.amount} fen are approved without a PIN, which is needed above {terms.pin_above}")


def _sell(books: Books, taken: Taken) -> Effect:
    said, paid, after = taken.said, taken.paid, taken.after
    terms = _terms(books, taken)
    if not said["card"] or after is None:
        raise Fault(f"a {taken.kind} of nobody's is approved")
    price = terms.price(taken.amount) if terms else sum(paid)
    if sum(paid) != price or not 0 <= price <= 2 * taken.amount:
        raise Fault(f"{sum(paid)} fen are paid for a {taken.kind} of {taken.amount} fen by card {said['card']}")
    if said["purses"] == "cash" and paid[1]:
        raise Fault(f"a purse paid that the terminal did not ask for: it asked for {said['purses']}")
    if terms is not None:
        from_subsidy = min(price, after[1] + paid[1]) if terms.takes_subsidy and said["purses"] != "cash" else 0
        if paid[1] != from_subsidy:
            raise Fault(f"of {price} fen the subsidy purse pays {from_subsidy}, but it is said to have paid {paid[1]}")
    # Only a purse that is enough alone is asked alone; nothing is sold where there is a debt.
    is_covered = after[0] >= 0 and not (said["purses"] == "subsidy" and paid[0])
    if not is_covered and (taken.kind == "purchase" or said["flag"] is None):
        raise Fault(f"the purses pay {paid}, asked for {said['purses']}, and hold {after} afterwards, below their floor")
    _check_terms(taken, terms)
    movements = _paid(taken.purses, taken.shop, taken.amount, paid)
    return Effect(movements, paid, (-paid[0], -paid[1]), stands=True, counted=("debits", taken.amount))


def _hold(books: Books, taken: Taken) -> Effect:
    held, after = taken.paid[0], taken.after
    if after is None or not 1 <= held <= taken.amount or (held < taken.amount and after[0] != 0):
        raise Fault(f"of {taken.amount} fen {held} are held, and {after} are left")
    _check_terms(taken, _terms(books, taken))
    books.holds[taken.position] = Hold(taken.holder, taken.message.terminal, taken.merchant, held, taken.record.microseconds)
    return Effect(paid=(held, 0), available=(-held, 0), stands=True)


def _load(_: Books, taken: Taken) -> Effect:
    fen = taken.amount
    movements = transfers(("house:cash_desk", taken.purses[0], fen))
    return Effect(movements, (fen, 0), (fen, 0), stands=True, counted=("credits", fen))


def _pay_bill(books: Books, taken: Taken) -> Effect:
    fen = taken.amount
    _check_terms(taken, _terms(books, taken))
    movements = transfers((taken.purses[0], f"payee:{taken.said['payee']}", fen))
    return Effect(movements, (fen, 0), (-fen, 0), stands=True, counted=("debits", fen))


def _referred(books: Books, taken: Taken, kinds: set[str]) -> Decision | None:
    """What is completed, undone or refunded: it stands, and is one of these. None: it is before the beginning of the report."""
    said, original = taken.said, taken.original
    if original is None:
        if books.complete or said["refers_to"] >= books.first:
            raise Fault(f"it refers to record {said['refers_to']}, which is nothing of this merchant's that is remembered")
        return None
    if original.kind not in kinds or not original.stands or said["card"] not in {None, original.card}:
        raise Fault(f"it refers to record {original.position}, a {original.kind} that is undone, or another's, or no {listed(kinds)}")
    return original


def _complete(books: Books, taken: Taken) -> Effect:
    fen, number = taken.amount, taken.said["refers_to"]
    hold = _referred(books, taken, {"hold"})
    movements = transfers((taken.purses[0], taken.shop, fen))
    effect = Effect(movements, (fen, 0), None, stands=True, counted=("debits", fen), original=number, refers_to=number)
    if hold is not None:
        if fen > hold.paid[0]:
            raise Fault(f"{fen} fen are taken of a hold of {hold.paid[0]}")
        effect.available = (hold.paid[0] - fen, 0)
        hold.stands = False
    books.holds.pop(number, None)
    return effect


def _void(books: Books, taken: Taken) -> Effect:
    number = taken.said["refers_to"]
    sale = _referred(books, taken, {"purchase", "offline_sale"})
    if sale is None:
        return _believed(taken, number, gives_back=True)
    if sale.business_date != books.business_date or sale.refunded:
        raise Fault(f"it undoes record {number}, of another day or refunded in part")
    return _give_all_back(books, taken, sale, number)


def _refund(books: Books, taken: Taken) -> Effect:
    fen, number = taken.amount, taken.said["refers_to"]
    sale = _referred(books, taken, SALES)
    if sale is None:
        return _believed(taken, number, gives_back=True)
    if fen > sale.left:
        raise Fault(f"{fen} fen are given back of record {number}, of which {sale.left} are left")
    share = sale.share(fen)
    sale.refunded += fen
    sale.given_back = (sale.given_back[0] + share[0], sale.given_back[1] + share[1])
    movements = _given_back(taken.purses, taken.shop, fen, share)
    return Effect(movements, share, share, stands=True, counted=("credits", fen), original=number, refers_to=number)


def _give_all_back(books: Books, taken: Taken, sale: Decision, number: int) -> Effect:
    """What is left of a sale; its refunds are undone with it."""
    left = sale.left
    share = sale.share(left)
    sale.stands = False
    if sale.refunded:
        for decisions in books.decisions.values():
            for refund in decisions.values():
                if refund.kind == "refund" and refund.refers_to == sale.position:
                    refund.stands = False
    movements = _given_back(taken.purses, f"merchant:{sale.merchant}", left, share)
    return Effect(movements, share, share, counted=("debit_reversals", left), original=number)


def _reverse(books: Books, taken: Taken) -> Effect:
    undoes, original = taken.record.undoes, taken.original
    assert undoes is not None
    if original is None:
        return _reverse_unknown(books, taken, undoes)
    if differs(books, taken):
        raise Fault(f"it is approved as a reversal of record {original.position}, whose card or amount is another")
    if not original.stands:
        return Effect(original=original.position)
    if original.kind in SALES:
        return _give_all_back(books, taken, original, original.position)
    if original.kind == "refund":
        return _take_back(books, taken, original)
    return _undo(books, taken, original)


def _undo(books: Books, taken: Taken, original: Decision) -> Effect:
    """A hold, a load or a bill undone."""
    original.stands = False
    cash, fen, number = taken.purses[0], original.paid[0], original.position
    if original.kind == "hold":
        books.holds.pop(number, None)
        return Effect(paid=(fen, 0), available=(fen, 0), original=number)
    if original.kind == "load":
        movements = transfers((cash, "house:cash_desk", fen))
        return Effect(movements, (fen, 0), (-fen, 0), counted=("credit_reversals", fen), original=number)
    movements = transfers((f"payee:{original.said['payee']}", cash, fen))
    return Effect(movements, (fen, 0), (fen, 0), counted=("debit_reversals", fen), original=number)


def _take_back(books: Books, taken: Taken, refund: Decision) -> Effect:
    """A refund undone: from the subsidy purse what is left there of what it got, and the rest from the cash purse."""
    after, paid = taken.after, taken.paid
    is_shared = sum(paid) == sum(refund.paid) and paid[1] <= refund.paid[1]
    if after is None or not is_shared or (paid[1] < refund.paid[1] and after[1] != 0):
        raise Fault(f"a refund that gave {refund.paid} is taken back by {paid}, which leaves {after}")
    refund.stands = False
    sale = books.at(refund.refers_to)
    if sale is not None:
        sale.refunded -= refund.amount
        sale.given_back = (sale.given_back[0] - refund.paid[0], sale.given_back[1] - refund.paid[1])
    movements = _paid(taken.purses, f"merchant:{refund.merchant}", refund.amount, paid)
    counted = ("credit_reversals", refund.amount)
    return Effect(movements, paid, (-paid[0], -paid[1]), counted=counted, original=refund.position)


def _reverse_unknown(books: Books, taken: Taken, undoes: Message) -> Effect:
    """A reversal of what has not come, or of what is before the beginning of the report."""
    before = taken.said["original"]
    is_known_here = books.complete or (before is not None and before >= books.first)
    if (is_known_here and (before is not None or any(taken.paid))) or (before is None and any(taken.paid)):
        raise Fault(f"it says that it undoes record {before} and gives back {sum(taken.paid)} fen, but no such decision is before it")
    if before is None:
        books.reversed_before.add(undoes)
        return Effect()
    books.holds.pop(before, None)
    return _believed(taken, before, gives_back=None)


def _believed(taken: Taken, original: int, *, gives_back: bool | None) -> Effect:
    """What undoes or refunds something that is before the beginning of the report: each movement is one that such a thing makes,
    and the purses get, or lose, what is said to be paid. `gives_back` None: either.
    """
    cash, subsidy = taken.purses
    there = [(cash, taken.shop), (subsidy, taken.shop), (cash, "house:fees"), (subsidy, "house:fees"), ("house:grants", taken.shop)]
    back = [(credit, debit) for debit, credit in there]
    groups = [back] if gives_back else [back, there, [(cash, "house:cash_desk")], *([(f"payee:{payee}", cash)] for payee in PAYEES)]
    try:
        moved = [(str(one["debit"]), str(one["credit"]), int(one["fen"])) for one in taken.stated]
    except (TypeError, KeyError, ValueError):
        raise Fault("its movements cannot be read") from None
    ends = [(debit, credit) for debit, credit, _ in moved]
    if not any(ends == [pair for pair in group if pair in ends] for group in groups) or any(fen <= 0 for *_, fen in moved):
        raise Fault("its movements are none by which something is given back")
    change = [sum(fen * ((credit == purse) - (debit == purse)) for debit, credit, fen in moved) for purse in (cash, subsidy)]
    is_hold = not moved and gives_back is None
    if not is_hold and (abs(change[0]), abs(change[1])) != taken.paid:
        raise Fault(f"its movements change the purses by {change}, but {taken.paid} are said to be paid")
    available = None if is_hold else (change[0], change[1])
    movements = [{"debit": debit, "credit": credit, "fen": fen} for debit, credit, fen in moved]
    stands = taken.kind == "refund"
    return Effect(movements, taken.paid, available, stands=stands, original=original, refers_to=original if stands else None)


def _identify(books: Books, taken: Taken) -> Effect:
    said, item = taken.said, taken.said["item"]
    if (said["act"] in {"borrow", "return"}) != (item is not None):
        raise Fault(f"{said['act']} is about the item {item}")
    if said["act"] == "borrow":
        if item in books.loans:
            raise Fault(f"item {item} is lent, but it is on loan since record {books.loans[item][1]}")
        books.loans[item] = (taken.holder, taken.position)
    if said["act"] != "return":
        return Effect()
    loan = books.loans.pop(item, None)
    if loan is None and (books.complete or said["original"] is None or said["original"] >= books.first):
        raise Fault(f"item {item} comes back, but it is not on loan")
    if loan is not None and loan[0] != taken.holder:
        raise Fault(f"item {item} comes back from holder {taken.holder}, but it was lent to {loan[0]}")
    return Effect(original=loan[1] if loan else said["original"])


def _report_card(books: Books, taken: Taken) -> Effect:
    card = books.cards[taken.said["card"]]
    books.set_status(taken.said["card"], card, "active" if taken.said["is_found"] else "lost")
    return Effect()


def _close_batch(books: Books, taken: Taken) -> Effect:
    said, terminal, number = taken.said, taken.message.terminal, taken.said["batch_number"]
    told, own = said["totals"], said["switch_totals"]
    if number is None or (said["response"] == "95") != (own is not None) or own == told or said["response"] not in {"00", "95"}:
        raise Fault(f"batch {number} is answered {said['response']}, for which there is no reason")
    if not books.complete:
        return Effect()
    known = books.batches.get((terminal, number), Batch()).document()
    if (own or told) != known:
        raise Fault(f"batch {number} of terminal {taken.terminal} adds up to {canonical(known)}, not to {canonical(own or told)}")
    open_ = books.open_batch.get(terminal, 1)
    following = min(number + 1, BATCH_MAX)
    if own is None and following > open_:
        books.batches.setdefault((terminal, open_), Batch()).touched = books.today
        books.open_batch[terminal] = following
    return Effect()


def _paid(purses: tuple[str, str], shop: str, amount: int, paid: Pair) -> list[Document]:
    """The merchant gets the amount: what the purses pay more goes to the fees, what they pay less comes from the grants."""
    subsidy = min(paid[1], amount)
    cash = min(paid[0], amount - subsidy)
    return transfers(
        (purses[0], shop, cash),
        (purses[1], shop, subsidy),
        (purses[0], "house:fees", paid[0] - cash),
        (purses[1], "house:fees", paid[1] - subsidy),
        ("house:grants", shop, amount - cash - subsidy),
    )


def _given_back(purses: tuple[str, str], shop: str, amount: int, paid: Pair) -> list[Document]:
    """The same in the other direction."""
    return [{"debit": one["credit"], "credit": one["debit"], "fen": one["fen"]} for one in _paid(purses, shop, amount, paid)]


_EFFECTS: Final[dict[str, Callable[[Books, Taken], Effect]]] = {
    "purchase": _sell,
    "offline_sale": _sell,
    "hold": _hold,
    "completion": _complete,
    "void": _void,
    "refund": _refund,
    "load": _load,
    "bill_payment": _pay_bill,
    "identity": _identify,
    "card_report": _report_card,
    "batch_close": _close_batch,
    "reversal": _reverse,
}
