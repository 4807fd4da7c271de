"""What a terminal keeps for itself: totals counted from answers, and the hotlist's copy."""

import random

import pytest

from switch.dialect import ProtocolViolation, write_sub_elements
from switch.terminal_books import Batches, Hotlist, HotlistPiece, Totals

SALE = {"3": "000000", "4": "000000000850"}


def reference(number: int) -> str:
    return f"{number:012}"


def test_totals_are_written_and_read() -> None:
    totals = Totals(1, 2, 3, 4, 5, 6, 7, 10**15)
    assert Totals.read(totals.elements()) == totals
    assert list(totals.elements().items())[-1] == ("89", "1000000000000000")
    assert Totals.read({element: value for element, value in totals.elements().items() if element != "77"}) is None


@pytest.mark.parametrize(
    ("mti", "elements", "expected"),
    [
        ("0200", SALE, Totals(debits=1, debit_amount=850)),
        ("0200", {**SALE, "3": "002000"}, Totals(debits=1, debit_amount=850)),
        ("0220", SALE, Totals(debits=1, debit_amount=850)),
        ("0220", {**SALE, "37": reference(1)}, Totals(debits=1, debit_amount=850)),
        ("0200", {**SALE, "3": "500000"}, Totals(debits=1, debit_amount=850)),
        ("0200", {**SALE, "3": "210000"}, Totals(credits=1, credit_amount=850)),
        ("0200", {**SALE, "3": "200000", "37": reference(1)}, Totals(credits=1, credit_amount=850)),
        ("0200", {**SALE, "3": "020000", "37": reference(1)}, Totals(debit_reversals=1, debit_reversal_amount=850)),
        ("0100", SALE, Totals()),
        ("0100", {"3": "910000"}, Totals()),
        ("0120", {"3": "910000"}, Totals()),
        ("0300", {"91": "1"}, Totals()),
        ("0400", SALE, Totals()),
    ],
    ids=lambda value: value if isinstance(value, str) else value.get("3", "") if isinstance(value, dict) else "",
)
def test_each_operation_counts_as_what_it_is(mti: str, elements: dict[str, str], expected: Totals) -> None:
    batches = Batches()
    batches.count(mti, elements, reference(7), None)
    assert batches.totals() == expected


def test_what_was_undone_counts_back_what_was_left_of_it_and_once() -> None:
    batches = Batches()
    batches.count("0200", SALE, reference(1), None)
    batches.count("0200", {"3": "200000", "4": "000000000050", "37": reference(1)}, reference(2), None)
    batches.count("0200", {"3": "200000", "4": "000000000300", "37": reference(1)}, reference(3), None)
    batches.count("0400", {"3": "200000"}, reference(4), reference(2))
    for again in (5, 6):
        batches.count("0400", SALE, reference(again), reference(1))
    batches.count("0200", {"3": "020000", "37": reference(1)}, reference(7), None)
    assert batches.totals() == Totals(
        credits=2,
        credit_amount=350,
        credit_reversals=1,
        credit_reversal_amount=50,
        debits=1,
        debit_amount=850,
        debit_reversals=1,
        debit_reversal_amount=550,
    )


def test_a_reversal_of_the_unknown_leaves_the_net_totals_equal() -> None:
    batches = Batches()
    batches.count("0200", SALE, reference(1), None)
    batches.count("0400", SALE, reference(2), None)
    came_and_went = Totals(debits=2, debit_amount=1150, debit_reversals=1, debit_reversal_amount=300)
    assert batches.totals() != came_and_went
    assert batches.totals().net == came_and_went.net
    assert batches.totals().net != Totals(debits=2, debit_amount=1150).net


def test_a_batch_is_the_one_that_is_named_or_the_open_one() -> None:
    batches = Batches()
    batches.closed(3)
    batches.closed(1)
    assert batches.open == 4
    batches.count("0200", SALE, reference(1), None)
    batches.count("0200", {**SALE, "60": "000002"}, reference(2), None)
    assert batches.totals(4) == batches.totals(2) == Totals(debits=1, debit_amount=850)
    assert batches.totals(3) == Totals()


# --- the hotlist ---


def test_a_piece_is_read_with_all_its_changes() -> None:
    text = write_sub_elements([("50", "0000000007"), ("52", "1"), ("53", "+0012"), ("53", "-9999999999999999999")])
    assert HotlistPiece.read(text) == HotlistPiece(7, more=True, changes=(("+", "0012"), ("-", "9" * 19)))


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("50", "7"), ("52", "0")],
        [("50", "0000000007")],
        [("50", "0000000007"), ("52", "2")],
        [("52", "0")],
        [("50", "0000000007"), ("52", "0"), ("53", "12")],
        [("50", "0000000007"), ("52", "0"), ("53", "+")],
        [("50", "0000000007"), ("52", "0"), ("53", "*12")],
    ],
)
def test_a_piece_that_is_none_is_a_violation(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(ProtocolViolation):
        HotlistPiece.read(write_sub_elements(pairs))


def take(hotlist: Hotlist, version: int, *changes: str, more: bool = False) -> None:
    hotlist.take(hotlist.next(), HotlistPiece(version, more, tuple((change[0], change[1:]) for change in changes)))


@pytest.mark.parametrize(
    ("version", "changes", "more"),
    [
        (2, [], False),
        (4, [], True),
        (4, ["-3"], False),
        (4, ["+1"], False),
        (4, ["+7", "+6"], False),
        (4, ["+7", "+7"], False),
        (4, ["+07", "+7"], False),
    ],
    ids=["back", "nowhere", "takes away what is not there", "adds what is there", "disorder", "twice", "the longer one first"],
)
def test_a_piece_that_cannot_be_is_a_violation_and_changes_nothing(version: int, changes: list[str], more: bool) -> None:
    hotlist = Hotlist()
    take(hotlist, 3, "+1", "+2")
    with pytest.raises(ProtocolViolation):
        take(hotlist, version, *changes, more=more)
    assert (hotlist.version, hotlist.cards, hotlist.next()) == (3, {"1", "2"}, {"50": "0000000003"})


def test_a_piece_that_goes_back_behind_the_one_before_is_a_violation() -> None:
    hotlist = Hotlist()
    take(hotlist, 3, "+5", more=True)
    with pytest.raises(ProtocolViolation, match="order"):
        take(hotlist, 3, "+4")


def test_nothing_is_taken_before_the_last_piece() -> None:
    hotlist = Hotlist()
    take(hotlist, 2, "+1", more=True)
    assert (hotlist.cards, hotlist.version, hotlist.reading) == (frozenset(), 0, True)
    take(hotlist, 2, "+2")
    assert (hotlist.cards, hotlist.version, hotlist.reading) == ({"1", "2"}, 2, False)


def test_an_answer_to_what_is_not_asked_any_more_is_left_aside() -> None:
    hotlist = Hotlist()
    first = hotlist.next()
    take(hotlist, 2, "+1", more=True)
    hotlist.take(first, HotlistPiece(2, more=True, changes=(("+", "1"),)))
    take(hotlist, 2, "+2")
    hotlist.take(first, HotlistPiece(9, more=False, changes=()))
    assert (hotlist.cards, hotlist.version) == ({"1", "2"}, 2)


def test_a_reading_that_the_switch_has_forgotten_begins_again_from_the_version_held() -> None:
    hotlist = Hotlist()
    take(hotlist, 3, "+1", "+2")
    take(hotlist, 5, "+3", more=True)
    take(hotlist, 0)
    assert (hotlist.version, hotlist.cards, hotlist.reading, hotlist.next()) == (3, {"1", "2"}, True, {"50": "0000000003"})
    take(hotlist, 5, "+3", "+4")
    assert (hotlist.version, hotlist.cards, hotlist.reading) == (5, {"1", "2", "3", "4"}, False)


def test_a_copy_of_a_version_that_the_switch_does_not_have_is_in_force_until_the_whole_list_is_there() -> None:
    hotlist = Hotlist()
    take(hotlist, 9, "+1", "+2")
    stale = hotlist.next()
    hotlist.unknown(stale)
    assert (hotlist.reading, hotlist.next(), hotlist.cards, hotlist.version) == (True, {"50": "0000000000"}, {"1", "2"}, 9)
    hotlist.unknown(stale)
    hotlist.unknown(hotlist.next())
    take(hotlist, 4, "+2", more=True)
    assert (hotlist.next(), hotlist.cards) == ({"50": "0000000000", "51": "2"}, {"1", "2"})
    take(hotlist, 4, "+3")
    assert (hotlist.version, hotlist.cards, hotlist.reading) == (4, {"2", "3"}, False)
    take(hotlist, 5, "-3")
    assert (hotlist.version, hotlist.cards) == (5, {"2"})


def test_copies_follow_a_list_that_changes_under_them(chance: random.Random) -> None:
    """Against a list that remembers all its versions, and forgets readings as a switch that starts again would."""
    listed: set[str] = set()
    versions: list[frozenset[str]] = [frozenset()]
    numbers = [str(number).rjust(width, "0") for number in range(1, 30) for width in (1, 2, 3) if len(str(number)) <= width]
    copies = [(Hotlist(), {"reading": -1}) for _ in range(3)]
    for _ in range(3000):
        if chance.random() < 0.5:
            listed ^= {chance.choice(numbers)}
            versions.append(frozenset(listed))
        hotlist, memory = chance.choice(copies)
        if chance.random() < 0.05:
            memory["reading"] = -1
        asked = hotlist.next()
        held, after = int(asked["50"]), asked.get("51")
        if after is None:
            memory["reading"] = len(versions) - 1
        known = memory["reading"] >= 0
        then = versions[memory["reading"]] if known else versions[held]
        changed = sorted(then ^ versions[held], key=lambda number: (int(number), len(number)))
        left = [number for number in changed if after is None or (int(number), len(number)) > (int(after), len(after))]
        sent = tuple(("+" if number in then else "-", number) for number in left[:4])
        hotlist.take(asked, HotlistPiece(memory["reading"] if known else 0, len(left) > 4, sent))
        assert hotlist.cards == versions[hotlist.version]
    assert all(hotlist.version > 1000 for hotlist, _ in copies)
