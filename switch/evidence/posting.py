"""A record on its way into the books: whom it names, whether it was answered rightly, what it does, and the state after it."""

from .answers import check_decline, check_flag, check_response, check_terminal
from .books import HOUR_MICROSECONDS, MONEY, PURSE_FEN_MAX, REFERRING, SPENT, Books, Card, Decision, Taken, transfers
from .effects import Effect, effect_of
from .lines import Fault, canonical, listed
from .records import ACCOUNT_FEN_MAX, Document, Message, Record, date_text


def post(books: Books, position: int, record: Record, ledger: Document) -> int:
    """Check what a report says of the books beside a record, and go on to the state after it. Gives the fen that moved.

    Raises Fault, without line and position.
    """
    said = record.said
    is_anybodys = record.message is not None or said["kind"] == "lapse"
    names = {"business_date", "movements"} | ({"terminal", "merchant", "holder"} if is_anybodys else set())
    if ledger.keys() != names:
        raise Fault(f"under ledger stand {listed(ledger)} where {listed(names)} should")
    books.take_date(said, ledger["business_date"])
    if said["kind"] in {"policy", "limits"}:
        books.amount_max, books.identity_days = said["amount_max"], said["identity_days"]
        # Before they could be set, holds lapsed after a day.
        books.hold_hours = said.get("hold_hours", 24)
        books.forget()
    if record.message is not None:
        expected = _take_message(books, position, record, record.message, ledger)
    elif said["kind"] == "lapse":
        expected = _take_lapse(books, record, ledger)
    else:
        expected = _take_own(books, record, ledger["movements"])
    if canonical(ledger["movements"]) != canonical(expected):
        raise Fault(f"the movements {canonical(ledger['movements'])} are not those that follow from the record: {canonical(expected)}")
    books.note_takings(expected)
    return sum(movement["fen"] for movement in expected)


def _take_own(books: Books, record: Record, stated: object) -> list[Document]:
    """A record that no terminal caused; gives the movements that follow."""
    said = record.said
    if (said["response"], said["cash_after"], said["original"], said["flag"], said["switch_totals"]) != ("00", *(None,) * 4):
        raise Fault(f"a {said['kind']} record with a terminal's outcome")
    if said["paid_cash"] or said["paid_subsidy"]:
        raise Fault(f"a {said['kind']} record says that something was paid")
    if said["kind"] == "merchant":
        if books.complete and said["merchant"] not in books.category_of:
            books.merchants.append(said["merchant"])
        books.category_of[said["merchant"]] = said["category"]
    elif said["kind"] == "terminal":
        _take_terminal(books, said["terminal"], said["merchant_number"], said["terminal_kind"])
    elif said["kind"] == "card":
        return _take_card(books, said, stated)
    elif said["kind"] == "rules":
        books.rules = list(record.rules)
    elif said["kind"] in {"pin", "standing"}:
        _take_change(books, said)
    return []


def _take_terminal(books: Books, terminal: str, merchant: int, kind: str) -> None:
    books.kind_of[terminal] = kind
    if not books.complete:
        # A merchant's number says nothing without the records that entered it: the next message is believed again.
        books.merchant_of.pop(terminal, None)
        return
    if merchant >= len(books.merchants):
        raise Fault(f"terminal {terminal} belongs to merchant number {merchant}, which there is not")
    if terminal not in books.merchant_of:
        books.terminals[len(books.terminals)] = terminal
    books.merchant_of[terminal] = books.merchants[merchant]


def _take_change(books: Books, said: Document) -> None:
    """A PIN, or a terminal that may work no more, or again."""
    if said["kind"] == "pin":
        if books.complete and said["card"] not in books.cards:
            raise Fault(f"card {said['card']} has a PIN, but there is no such card")
        return
    if books.complete and said["terminal"] not in books.merchant_of:
        raise Fault(f"terminal {said['terminal']} is {said['standing']}, but there is no such terminal")
    if said["standing"] == "active":
        books.suspended.discard(said["terminal"])
    else:
        books.suspended.add(said["terminal"])


def _take_card(books: Books, said: Document, stated: object) -> list[Document]:
    number, holder = said["card"], said["holder"]
    card = books.cards.setdefault(number, Card(holder))
    if card.holder != holder:
        raise Fault(f"card {number} goes from holder {card.holder} to {holder}")
    card.card_class, card.expires = said["class"], said["expires"]
    books.set_status(number, card, said["status"])
    opening = (said["opening_cash"], said["opening_subsidy"])
    movements = transfers(
        ("house:suspense", f"cash:{holder}", opening[0]),
        ("house:grants", f"subsidy:{holder}", opening[1]),
    )
    if holder in books.purses or (not books.complete and stated == []):
        return []
    if min(opening) < 0 or max(opening) > PURSE_FEN_MAX:
        raise Fault(f"holder {holder} is opened with {opening} fen")
    books.purses[holder] = opening
    return movements


def _take_lapse(books: Books, record: Record, ledger: Document) -> list[Document]:
    said = record.said
    position = said["hold"]
    hold = books.holds.pop(position, None)
    paid, after = (said["paid_cash"], said["paid_subsidy"]), (said["cash_after"], said["subsidy_after"])
    if (said["response"], said["original"], said["flag"], said["switch_totals"]) != ("00", position, None, None) or None in after:
        raise Fault("a lapse is approved, refers to its hold and says what the purses hold afterwards")
    if hold is None:
        if books.complete or position >= books.first:
            raise Fault(f"hold {position} lapses, but it is not open")
        return []
    if any(open_ < position for open_ in books.holds):
        raise Fault(f"hold {position} lapses before an older one")
    if books.hold_hours is not None and record.microseconds - hold.microseconds < books.hold_hours * HOUR_MICROSECONDS:
        raise Fault(f"hold {position} lapses before {books.hold_hours} hours have passed")
    decision = books.at(position)
    terminal = books.terminals.get(hold.terminal)
    merchant = decision.merchant if decision is not None else books.merchant_of.get(str(terminal))
    due = (terminal, merchant if books.complete else ledger["merchant"], hold.holder)
    if (ledger["terminal"], ledger["merchant"], ledger["holder"]) != due or paid != (hold.fen, 0):
        raise Fault(f"hold {position} of {hold.fen} fen at {due[0]} for {due[1]} by {due[2]} lapses as {paid} of somebody else")
    if decision is not None:
        decision.stands = False
    books.take_purses(hold.holder, after, (hold.fen, 0), least=-ACCOUNT_FEN_MAX)
    return []


def _take_message(books: Books, position: int, record: Record, message: Message, ledger: Document) -> list[Document]:
    """A record that a terminal's message caused; gives the movements that follow."""
    said = record.said
    is_late = said["kind"] == "late"
    _check_day(books, message, message if record.undoes is None else record.undoes, is_late=is_late)
    taken = _named(books, position, record, message, ledger)
    check_terminal(books, taken)
    if is_late:
        return _put_off(books, taken)
    check_response(books, taken)
    approved = said["response"] == "00"
    # What a batch adds up to is checked where its totals differ as well.
    effect = effect_of(books, taken) if approved or taken.kind == "batch_close" else Effect()
    if not approved:
        check_decline(books, taken)
    elif taken.paid != effect.paid or said["original"] != effect.original:
        raise Fault(
            f"a {taken.kind} pays {taken.paid} and refers to record {said['original']}, but it should be {effect.paid}"
            f" and record {effect.original}"
        )
    check_flag(books, taken)
    _check_after(books, taken, effect)
    card = said["card"]
    if approved and taken.kind in {"completion", "refund"} and taken.original is not None:
        card = taken.original.card
    books.numbers[position] = message
    books.decisions.setdefault(message.day, {})[message] = Decision(
        position, said, card, taken.holder, taken.merchant, str(books.business_date), taken.paid, effect.stands, effect.refers_to
    )
    if taken.original is None or taken.kind != "reversal":
        books.merchant_of.setdefault(taken.terminal, taken.merchant)
    if effect.counted is not None and books.complete:
        books.batch_of(message.terminal, said["batch_number"]).count(*effect.counted)
    return effect.movements


def _check_day(books: Books, message: Message, named: Message, *, is_late: bool) -> None:
    """Whether the message is dated as its kind must be, and what it names."""
    known = books.decisions.get(message.day, {}).get(message)
    if known is not None:
        raise Fault(f"it decides again what record {known.position} decided")
    today = books.today
    # How long the switch remembers may not have been said; what is dated today is remembered.
    oldest = today if not books.complete and is_late else books.remembered_from
    outside = [date_text(day) for day in (message.day, named.day) if not oldest <= day <= today + 1]
    if not is_late and outside:
        raise Fault(f"the terminal's date {outside[0]} is outside the days that are kept on {books.business_date}")
    if is_late and not outside:
        raise Fault(f"it puts off a message of {date_text(message.day)}, a day that is kept on {books.business_date}")


def _named(books: Books, position: int, record: Record, message: Message, ledger: Document) -> Taken:
    """The message with the names that the report gives, which are held against what is known of them."""
    said = record.said
    number, terminal, merchant, holder = said["terminal_number"], ledger["terminal"], ledger["merchant"], ledger["holder"]
    if not (isinstance(terminal, str) and isinstance(merchant, str) and isinstance(holder, str | None)):
        raise Fault("terminal, merchant and holder are no texts")
    known = books.terminals.get(number) if books.complete else books.terminals.setdefault(number, terminal)
    if known != terminal:
        raise Fault(f"terminal number {number} is given as {terminal}, but it is {known}")
    own = books.merchant_of.get(terminal, None if books.complete else merchant)
    original = _original(books, record, own)
    due = original.merchant if original else own
    # Without the whole past, what a reversal undoes may be another merchant's than the terminal's is now.
    if merchant != due and (original or books.complete or said["kind"] != "reversal"):
        raise Fault(f"the merchant is given as {merchant}, but it is {due}")
    card = said["card"] or (original.card if original else None)
    if card and holder is not None and not books.complete:
        books.cards.setdefault(card, Card(holder))
    owner = books.cards[card].holder if card in books.cards else None
    is_told = card or original or books.complete or (said["kind"] not in REFERRING and said["kind"] != "reversal")
    if holder != owner and is_told:
        raise Fault(f"the holder of card {card} is given as {holder}, but it is {owner}")
    return Taken(position, record, message, terminal, merchant, holder, original, ledger["movements"])


def _original(books: Books, record: Record, own: str | None) -> Decision | None:
    """What a message refers to: of a reversal by the message that it names, of others by number, and of this merchant alone."""
    if record.said["kind"] == "late":
        return None
    if record.undoes is not None:
        return books.decisions.get(record.undoes.day, {}).get(record.undoes)
    if record.said["kind"] not in REFERRING:
        return None
    found = books.at(record.said["refers_to"])
    return found if found is not None and found.merchant == own else None


def _put_off(books: Books, taken: Taken) -> list[Document]:
    """An advice or a reversal that came too late: nothing is done."""
    if taken.said["response"] != "12":
        raise Fault("a message that came too late is answered 12")
    check_decline(books, taken)
    check_flag(books, taken)
    _check_after(books, taken, Effect())
    # A terminal whose clock is wrong may have used the number for something else.
    told = (taken.message, *(taken.said[name] for name in ("card", "processing", "amount", "currency")))
    if told in books.late:
        raise Fault("it puts a message off a second time")
    books.late[told] = books.today
    return []


def _check_after(books: Books, taken: Taken, effect: Effect) -> None:
    """What purses hold afterwards is said where they are concerned, and is what they held before and what moved."""
    after, approved = taken.after, taken.said["response"] == "00"
    is_due = approved and taken.kind in MONEY
    if approved and taken.kind == "reversal":
        is_due = bool(taken.said["card"] and taken.holder) or effect.paid != (0, 0) or effect.available != (0, 0)
        # What it undid may have moved nothing of the purses', or be before the beginning of the report.
        is_due = is_due or (after is not None and taken.original is not None and effect.original is not None)
    if is_due != (after is not None) and not (taken.original is None and taken.kind == "reversal" and not books.complete):
        raise Fault("it does not say what the purses hold afterwards" if is_due else "it says what purses hold that it is not about")
    if after is not None:
        if taken.holder is None:
            raise Fault("it says what purses hold that nobody has")
        least = 0 if taken.kind in SPENT else -ACCOUNT_FEN_MAX
        books.take_purses(taken.holder, after, effect.available, least=least)
        if taken.kind == "load" and after[0] > PURSE_FEN_MAX:
            raise Fault(f"the cash purse of holder {taken.holder} is loaded up to {after[0]} fen")
