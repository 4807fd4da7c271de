"""Whether a terminal's message was answered as what is known demands: by its terminal, its amount, its card, its original."""

from typing import Final

from .books import MONEY, SPENT, STATUS_CODES, Books, Taken
from .lines import Fault

ASKED_OF_CARDS: Final = {"14", "41", "62", "78", "54"}
FLAGS: Final = {
    "offline_sale": {"41", "62", "78", "54", "57", "75", "55", "61", "65", "51"},
    "identity": {"41", "62", "78", "54", "57"},
}
SOLD: Final = "00 12 13 14 41 62 78 54 57 75 55 61 65 51"
POSSIBLE: Final = {
    "purchase": SOLD,
    "hold": SOLD,
    "bill_payment": SOLD,
    "offline_sale": "00 12 13 14",
    "load": "00 12 13 14 41 62 78 54 61",
    "void": "00 12 14 25",
    "refund": "00 12 13 14 25 61",
    "completion": "00 12 13 14 25 61",
    "identity": "00 12 14 41 62 78 54 57 25",
    "card_report": "00 14 62 78",
    "reversal": "00 94",
    "batch_close": "00 95",
    "event": "00",
    "sign_on": "00",
    "sign_off": "00",
    "unknown": "12",
}
"""The responses that each kind may have."""
KINDS_THAT_MAY: Final = {
    "purchase": "pos counter water library",
    "offline_sale": "pos counter water",
    "void": "pos counter",
    "refund": "pos counter",
    "load": "counter",
    "bill_payment": "kiosk counter",
    "card_report": "kiosk counter",
    "hold": "water",
    "completion": "water",
    "event": "meter",
    "enter": "gate",
    "leave": "gate",
    "attendance": "gate",
    "borrow": "library",
    "return": "library",
    "verify": "gate library",
}
"""Terminals by the operation, an identity event's by its act; all others are every terminal's."""


def check_terminal(books: Books, taken: Taken) -> None:
    if taken.terminal in books.suspended:
        raise Fault(f"terminal {taken.terminal} is suspended, and decides nothing")
    kind = books.kind_of.get(taken.terminal)
    operation = taken.operation
    if kind is not None and kind not in KINDS_THAT_MAY.get(operation, kind):
        raise Fault(f"terminal {taken.terminal} is a {kind}, for which {operation} is no operation")


def check_response(books: Books, taken: Taken) -> None:
    """Hold the response against the first reasons in their order; and no response is one that has no reason."""
    response = taken.said["response"]
    possible = POSSIBLE[taken.kind].split()
    if taken.message in books.reversed_before:
        if response != "12":
            raise Fault("it decides otherwise than 12 what was undone before it came")
        return
    if not books.complete and response == "12" and response in possible:
        # It may have been undone before the report begins.
        return
    excluded: set[str] = set()
    for reason in (_amount_reason, _card_reason):
        due, others = reason(books, taken)
        if due is not None and response != due:
            raise Fault(f"a {taken.kind} should be answered {due}, and is answered {response}")
        excluded |= others
        if due is not None or (response == "13" and response not in excluded):
            return
    if taken.kind in {*SPENT, "load", "offline_sale"}:
        excluded.add("12")
    if response in excluded or response not in possible:
        raise Fault(f"a {taken.kind} is answered {response}, for which there is no reason")


def _amount_reason(books: Books, taken: Taken) -> tuple[str | None, set[str]]:
    if taken.kind not in MONEY - {"void"}:
        return None, {"13"}
    if taken.amount == 0 and taken.kind != "completion":
        return "13", {"13"}
    if books.amount_max is None:
        return None, set()
    return ("13" if taken.amount > books.amount_max else None), {"13"}


def _card_reason(books: Books, taken: Taken) -> tuple[str | None, set[str]]:
    """Status and expiry, where they are asked of the card; of the others whether there is such a card."""
    said, kind = taken.said, taken.kind
    if kind not in {*MONEY, "identity", "card_report"}:
        return None, ASKED_OF_CARDS
    if said["card"] and taken.holder is None:
        return "14", ASKED_OF_CARDS
    if kind == "card_report":
        return _report_reason(books, taken)
    is_asked = kind in {*SPENT, "load"} or (kind == "identity" and not said["is_advice"])
    is_known, code = books.card_code(said["card"])
    if is_asked:
        return code, ASKED_OF_CARDS if is_known else {"14"}
    return None, ASKED_OF_CARDS


def _report_reason(books: Books, taken: Taken) -> tuple[str | None, set[str]]:
    """Lost and found."""
    said = taken.said
    card = books.cards[said["card"]]
    if card.status is not None:
        code = None if card.status == "lost" else STATUS_CODES.get(card.status)
        live = books.live_card.get(card.holder)
        if card.status == "lost" and said["is_found"] and live is not None:
            code = "78"
        if code is None and said["response"] != "00":
            return "00", set()
        if code is not None:
            return code, set()
    return None, set()


def check_decline(books: Books, taken: Taken) -> None:
    said = taken.said
    if any(taken.paid):
        raise Fault(f"{sum(taken.paid)} fen are paid by a {taken.kind} that was answered {said['response']}")
    if taken.kind == "reversal":
        if said["response"] != "94" or differs(books, taken) is False:
            raise Fault(f"a reversal is answered {said['response']}, for which there is no reason")
        if taken.original is not None and said["original"] != taken.original.position:
            raise Fault(f"it refers to record {said['original']}, but what it names is record {taken.original.position}")
    elif said["original"] is not None:
        raise Fault(f"a {taken.kind} that was answered {said['response']} refers to record {said['original']}")


def check_flag(books: Books, taken: Taken) -> None:
    said = taken.said
    flag = said["flag"]
    if flag is not None and (said["response"] != "00" or flag not in FLAGS.get(taken.kind, ()) or said.get("is_advice") is False):
        raise Fault(f"a {taken.kind} that was answered {said['response']} is flagged {flag}")
    if said["response"] == "00" and (taken.kind == "offline_sale" or said.get("is_advice") is True):
        is_known, code = books.card_code(said["card"])
        if is_known and ((code is not None and flag != code) or (code is None and flag in ASKED_OF_CARDS)):
            raise Fault(f"it is flagged {flag}, but for its card it would have been answered {code or 'otherwise'}")
    if said["switch_totals"] is not None and (taken.kind, said["response"]) != ("batch_close", "95"):
        raise Fault(f"a {taken.kind} that was answered {said['response']} has a batch's totals")


def differs(books: Books, taken: Taken) -> bool | None:
    """Whether a reversal names another card or amount than what it would undo; None: that is before the beginning of the report.

    Its card is the one that it touched, where its message named none. The amount of a void means nothing.
    """
    original, said = taken.original, taken.said
    if original is None:
        return False if books.complete else None
    pairs = [(said["card"], original.card)]
    if original.said["processing"] != "020000":
        pairs.append((said["amount"], original.said["amount"]))
    if any(None not in pair and pair[0] != pair[1] for pair in pairs):
        return True
    is_card_untold = original.said["response"] == "00" and original.kind in {"completion", "refund"} and original.card is None
    return None if is_card_untold and said["card"] else False
