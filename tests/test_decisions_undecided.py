"""What the switch does not decide: nothing while the journal takes nothing (91), and not what would take an account past its bound (96).

Always true here, of whatever is answered so: the reply is proved and has no number; there is no record; nothing has changed; and the same
message, sent again once there is room, is decided by what is true then.

Whose bounds are met: a merchant's and a payee's by what they are paid, a cash purse's ceiling by what is given back to it, its floor by
debts and by what is taken back. A hold moves nothing, and cash loads would meet the bound of the cash desk, 10^18 fen, after 232 million of
the largest: those two are never answered 96.
"""

import resource
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import pytest

from switch._core import Core
from switch.dialect import MacKey, encode
from tests.conftest import running
from tests.decision_table import UNKNOWN_CARD, Scene, reply_to, steps
from tests.messages import Fields
from tests.switch_process import CANTEEN, MERCHANTS, Answer, Connection, Device, Switch, in_thread, until

# --- 91 ---

UNLIMITED: Final = resource.getrlimit(resource.RLIMIT_FSIZE)
SEGMENT_BYTES: Final = 8_388_608
OPENING: Final = 1_000_000

BEFORE: Final = "purchase 100, purchase 200, purchase 300, hold 50, borrow LENT"

UNDECIDED: Final[list[tuple[str, str]]] = [
    # What is asked while there is no room, and what it is answered once there is, one after the other.
    ("void #1", "00"),
    ("refund #2 50", "00"),
    ("reverse #3", "00"),
    ("load 500", "00"),
    ("purchase 850", "00"),
    ("bill 300", "00"),
    ("hold 400", "00"),
    ("complete #4 30", "00"),
    ("offline 70", "00"),
    ("enter", "00"),
    ("leave", "00"),
    ("borrow BOOK", "00"),
    ("return LENT", "00"),
    ("attendance", "00"),
    ("advise enter", "00"),
    ("advise leave", "00"),
    ("advise borrow OTHER @library", "00"),
    ("advise return OTHER @library", "00"),
    ("advise attendance", "00"),
    ("advise verify", "00"),
    ("lose 2=other", "00"),
    ("find 2=other", "00"),
    ("close 7", "00"),
    ("close 1 @gate", "00"),
    ("close 1 @counter", "95"),
    ("event 01 DORM-3-417 2350W", "00"),
    # Of operations that are not known.
    ("purchase 1 3=990000", "12"),
    ("offline 1 3=990000", "12"),
    ("echo t=0700", "12"),
    # Advices and reversals that come too late are written down, so they need room as well.
    ("offline 70 13=-20", "12"),
    ("complete #4 1 13=-20", "12"),
    ("advise attendance 13=-20", "12"),
    ("reverse #2 13=-20", "12"),
    # What would be declined is not decided either.
    ("purchase 0", "13"),
    ("purchase 1 2=unknown", "14"),
    ("lose 2=unknown", "14"),
    ("void 999999999999", "25"),
    ("refund #2 151", "61"),
    ("purchase 9999", "51"),
    ("reverse #2 4=1", "94"),
    # The card is lost by then.
    ("purchase 2 2=other", "41"),
]
AFTERWARDS: Final = (200, 0)
"""What is available, of 1000 and 500."""
EARNED: Final = -100 - 50 - 300 + 850 + 30 + 70
"""By the merchant, meanwhile."""

DECIDED_ALL_THE_SAME: Final[list[tuple[str, str]]] = [
    # What is refused before anything is written, and what is only asked after.
    ("purchase 1 48=malformed", "30"),
    ("purchase 1 60=000000", "30"),
    ("purchase 1 42=M3", "58"),
    ("purchase 1 13=-20", "12"),
    ("balance", "00"),
    ("balance 2=unknown", "14"),
    ("verify", "00"),
    ("hotlist 0", "00"),
    ("echo", "00"),
]


@pytest.fixture
async def cramped(make_switch: Callable[..., Switch]) -> Switch:
    """A running switch that cannot make a second segment: to its process the disk is full once the first one is."""
    switch = make_switch()
    for file in switch.journal.iterdir():
        file.unlink()
    switch.journal.rmdir()
    Core.create(switch.journal, segment_bytes=SEGMENT_BYTES)
    # The next segment would be larger than this process may make a file.
    switch.configure(journal_segment_bytes=2 * SEGMENT_BYTES)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SEGMENT_BYTES, UNLIMITED[1]))
    try:
        await in_thread(switch.start)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, UNLIMITED)
    await switch.enter(MERCHANTS)
    return switch


async def position(switch: Switch) -> int:
    """Of the last record."""
    reached: int = (await switch.http("GET", "/v1/statistics")).json()["position"]
    return reached


async def all_seen(switch: Switch, cards: list[str], devices: list[Device]) -> list[dict[str, Any]]:
    """Whatever an operator is shown of these, and of the devices' merchants."""
    who = {*(("card", card) for card in cards), *(("terminal", device.terminal_id) for device in devices)}
    who |= {("merchant", device.merchant_id) for device in devices}
    return [await switch.show(*named) for named in sorted(who)]


class Cramped:
    """A scene on a switch whose journal is full, and what was asked there before and is asked now."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.switch = scene.switch
        self.connection = scene.connection
        self.before: list[tuple[Device, Fields, Answer]] = []
        self.undecided: list[tuple[Device, Fields, str]] = []
        """Each with its answer once there is room."""

    async def till_it_is_full(self) -> None:
        await self.scene.do(BEFORE)
        self.before = [(await self.scene.till(till), request, answer) for till, request, answer in self.scene.messages if answer]
        self.undecided = [(*await self._message(text), code) for text, code in UNDECIDED]
        for text, _ in DECIDED_ALL_THE_SAME:
            await self._message(text)
        await self._fill()

    async def _message(self, text: str) -> tuple[Device, Fields]:
        till, request = await self.scene.message(next(steps(text)))
        return await self.scene.till(till), request

    async def _fill(self) -> None:
        """Pay elsewhere until the journal takes no more."""
        await self.switch.enter("merchant_id,name,category,fee_bp\nFILLER,Filler,shop,0\n")
        device, card = await self.switch.device(merchant="FILLER"), await self.switch.card(cash=OPENING)
        await device.sign_on(self.connection)
        assert (await self.switch.metrics()).value("switch_journal_next_segment_ready") == 0
        taken = 0
        while (answer := await device.ask(self.connection, request := device.purchase(card, 1))).code == "00":
            taken += 1
        assert answer.fields == reply_to(request, "91")
        assert taken > 1000
        assert await self.switch.purses(card) == (OPENING - taken, 0)

    async def all_refused(self, *more: tuple[Device, Fields, MacKey]) -> None:
        """91 to each, to a repeat as well, and no trace of it."""
        asked = [*((device, request, device.key) for device, request, _ in self.undecided), *more]
        cards, devices = [self.scene.card, self.scene.other], [device for device, *_ in asked]
        reached, seen = await position(self.switch), await all_seen(self.switch, cards, devices)
        for device, request, key in asked:
            for sent in (request, {**request, "t": f"{request['t'][:3]}1"}):
                answer = await device.ask(self.connection, sent, key)
                assert (answer.fields, answer.proved_by(key)) == (reply_to(sent, "91"), True)
        assert (await position(self.switch), await all_seen(self.switch, cards, devices)) == (reached, seen)

    async def what_needs_no_room_is_answered(self) -> None:
        reached = await position(self.switch)
        for text, code in DECIDED_ALL_THE_SAME:
            device, request = await self._message(text)
            assert (await device.ask(self.connection, request)).code == code, text
        device, request, _ = self.undecided[0]
        assert (await self.connection.ask(encode(request, device.sign_on_key))).code == "63"
        for device, request, answer in self.before:
            assert (await device.ask(self.connection, request)).message == answer.message
            assert (await device.ask(self.connection, {**request, "2": UNKNOWN_CARD})).code == "94"
        assert await position(self.switch) == reached
        other = MERCHANTS.replace("Corner", "Other").encode()
        refused = await self.switch.http("POST", "/v1/import", params={"name": "m.csv"}, content=other)
        assert refused.status_code == 422
        assert "nothing was applied" in refused.text

    async def all_decided(self) -> None:
        """Once there is room, each by what is true then, and once."""
        reached, earned = await position(self.switch), (await self.switch.show("merchant", CANTEEN))["balance"]
        resource.prlimit(self.switch.pid, resource.RLIMIT_FSIZE, UNLIMITED)
        device, request, _ = self.undecided[0]
        answers = [await until(lambda: device.ask(self.connection, request), lambda answer: answer.code != "91")]
        for device, request, _ in self.undecided[1:-1]:
            answers.append(await device.ask(self.connection, request))
        assert await position(self.switch) == reached + len(answers), "a record each"
        await self.switch.alter(self.scene.other, status="lost", cash=0)
        device, request, _ = self.undecided[-1]
        answers.append(await device.ask(self.connection, request))
        assert [answer.code for answer in answers] == [code for _, _, code in self.undecided]

        assert await self.scene.purses() == AFTERWARDS
        assert (await self.switch.show("merchant", CANTEEN))["balance"] - earned == EARNED
        reached = await position(self.switch)
        for (device, request, _), answer in zip(self.undecided, answers, strict=True):
            assert (await device.ask(self.connection, request)).message == answer.message, "and this is remembered"
        assert await position(self.switch) == reached


async def test_while_the_journal_takes_nothing_nothing_is_decided(cramped: Switch) -> None:
    late, leaver = await cramped.devices(2)
    async with cramped.connect() as connection, cramped.operator():
        scene = Cramped(Scene(cramped, connection, shares_tills=False))
        await leaver.sign_on(connection)
        nonce = bytes(range(8))
        sign_on, sign_off = late.sign_on_message(nonce), leaver.sign_off()
        await scene.till_it_is_full()
        await scene.all_refused((late, sign_on, late.sign_on_key), (leaver, sign_off, leaver.key))
        balance = leaver.balance(UNKNOWN_CARD)
        assert (await leaver.ask(connection, balance)).code == "14", "it is signed on still"
        await scene.what_needs_no_room_is_answered()
        await scene.all_decided()

        signed_on = await late.ask(connection, sign_on, late.sign_on_key)
        assert signed_on.code == "00"
        assert (await late.ask(connection, late.balance(UNKNOWN_CARD), late.session_of(nonce, signed_on))).code == "14"
        assert (await leaver.ask(connection, sign_off)).code == "00"
        assert (await leaver.ask(connection, balance)).code == "63"


# --- 96 ---

HIGHEST: Final = 4_294_967_295
"""The most that `amount_max` can allow."""
ACCOUNT_MAX: Final = 999_999_999_999
PURSE_MAX: Final = 99_999_999_999
"""The most that a purse is opened with, or loaded up to."""


@pytest.fixture(scope="module")
def vast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switch]:
    """A switch that allows the largest amounts. Each test has merchants of its own."""
    with running(tmp_path_factory.mktemp("vast") / "data", policy_amount_max=HIGHEST) as switch:
        yield switch


@pytest.fixture
async def treasury(vast: Switch) -> AsyncIterator["Treasury"]:
    async with vast.connect() as connection, vast.operator():
        yield Treasury(vast, connection)


class Treasury:
    """Moves sums that no campus has."""

    def __init__(self, switch: Switch, connection: Connection) -> None:
        self.switch = switch
        self.connection = connection
        self._devices: list[Device] = []
        self._cards: list[str] = []

    async def till(self, kind: str, merchant: str) -> Device:
        """Of a shop that is new where nobody has named it yet."""
        await self.switch.enter(f"merchant_id,name,category,fee_bp\n{merchant},{merchant},shop,0\n")
        device = await self.switch.device(kind=kind, merchant=merchant)
        await device.sign_on(self.connection)
        self._devices.append(device)
        return device

    async def card(self, cash: int, **of: Any) -> str:
        self._cards.append(await self.switch.card(cash=cash, **of))
        return self._cards[-1]

    async def ask(self, device: Device, request: Fields) -> Answer:
        """What is decided, and approved."""
        answer = await device.ask(self.connection, request)
        assert answer.code == "00", (request, answer.fields)
        return answer

    async def number(self, device: Device, request: Fields) -> str:
        """The transaction number that it gets."""
        return (await self.ask(device, request)).fields["37"]

    async def move(self, device: Device, make: Callable[[str, int], Fields], card: str, total: int) -> list[tuple[Fields, str]]:
        """So many fen by as few messages as can be. Gives each with its number."""
        amounts = [HIGHEST] * (total // HIGHEST) + [total % HIGHEST] * (total % HIGHEST > 0)
        requests = [make(card, amount) for amount in amounts]
        return [(request, await self.number(device, request)) for request in requests]

    async def all_refused(self, asked: list[tuple[Device, Fields]]) -> None:
        """Each of these is answered 96, however often it is sent, and leaves no trace."""
        reached, seen = await position(self.switch), await all_seen(self.switch, self._cards, self._devices)
        for device, request in [*asked, *asked]:
            answer = await device.ask(self.connection, request)
            assert (answer.fields, answer.proved_by(device.key)) == (reply_to(request, "96"), True)
        assert (await position(self.switch), await all_seen(self.switch, self._cards, self._devices)) == (reached, seen)

    async def all_decided(self, asked: list[tuple[Device, Fields]]) -> None:
        """They come again, and are approved, once."""
        answers = [await self.ask(*request) for request in asked]
        assert [(await self.ask(*request)).message for request in asked] == [answer.message for answer in answers]

    async def earned(self, merchant: str) -> int:
        balance: int = (await self.switch.show("merchant", merchant))["balance"]
        return balance


async def test_a_merchant_is_not_paid_more_than_an_account_may_hold(treasury: Treasury) -> None:
    pos, water = await treasury.till("pos", "FULL"), await treasury.till("water", "FULL")
    card, debtor = await treasury.card(cash=10_000), await treasury.card(cash=PURSE_MAX)
    hold = await treasury.number(water, water.hold(card, 200))
    refund = pos.refund(await treasury.number(pos, pos.purchase(card, 150)), 150)
    await treasury.ask(pos, refund)
    (_, sale), *_ = await treasury.move(pos, pos.offline_sale, debtor, ACCOUNT_MAX - 100)
    assert await treasury.earned("FULL") == ACCOUNT_MAX - 100

    asked = [
        (pos, pos.purchase(card, 101)),
        (pos, pos.offline_sale(card, 101)),
        (water, water.completion(hold, 101)),
        (pos, pos.reversal(refund)),
    ]
    await treasury.all_refused(asked)
    await treasury.ask(pos, pos.refund(sale, 1_000))
    await treasury.all_decided(asked)
    left = 1_100 - 3 * 101 - 150
    await treasury.ask(pos, pos.purchase(card, left))
    assert await treasury.earned("FULL") == ACCOUNT_MAX, "to the last fen"
    await treasury.all_refused([(pos, pos.purchase(card, 1))])
    assert await treasury.switch.purses(card) == (10_000 - 3 * 101 - 150 - left, 0)


async def test_a_payee_is_not_paid_more_than_an_account_may_hold(treasury: Treasury) -> None:
    kiosk = await treasury.till("kiosk", "OFFICE")
    card = await treasury.card(cash=10_000)
    left, first = ACCOUNT_MAX - 100, None
    while left:
        payer = await treasury.card(cash=PURSE_MAX)
        paid = await treasury.move(kiosk, lambda card, amount: kiosk.bill(card, amount, "03"), payer, min(left, PURSE_MAX))
        first, left = first or paid[0][0], left - min(left, PURSE_MAX)
    assert first is not None

    asked = [(kiosk, kiosk.bill(card, 101, "03"))]
    await treasury.all_refused(asked)
    await treasury.ask(kiosk, kiosk.bill(card, 101, "02"))
    await treasury.ask(kiosk, kiosk.reversal(first))
    await treasury.all_decided(asked)
    assert await treasury.switch.purses(card) == (10_000 - 202, 0)


async def test_a_purse_is_not_given_back_more_than_an_account_may_hold(treasury: Treasury) -> None:
    counter, elsewhere = await treasury.till("counter", "GENEROUS"), await treasury.till("pos", "ELSEWHERE")
    card = await treasury.card(cash=PURSE_MAX)
    bill = counter.bill(card, HIGHEST, "04")
    await treasury.ask(counter, bill)
    room = (ACCOUNT_MAX - PURSE_MAX) // HIGHEST
    sales = await treasury.move(counter, counter.offline_sale, card, (room + 3) * HIGHEST)
    # All that was spent is loaded again, and given back as well.
    await treasury.move(counter, counter.load, card, (room + 4) * HIGHEST)
    for _, number in sales[3:]:
        await treasury.ask(counter, counter.void(number))
    full = PURSE_MAX + room * HIGHEST
    assert await treasury.switch.purses(card) == (full, 0)
    assert full + HIGHEST > ACCOUNT_MAX

    asked = [
        (counter, counter.void(sales[0][1])),
        (counter, counter.refund(sales[1][1], HIGHEST)),
        (counter, counter.reversal(sales[2][0])),
        (counter, counter.reversal(bill)),
    ]
    await treasury.all_refused(asked)
    assert (await counter.ask(treasury.connection, counter.load(card, 1))).code == "61", "what is paid in stays far below"
    await treasury.move(elsewhere, elsewhere.purchase, card, 4 * HIGHEST)
    await treasury.all_decided(asked)
    assert await treasury.switch.purses(card) == (full, 0)
    assert await treasury.earned("GENEROUS") == 0


async def test_nobody_owes_more_than_an_account_may(treasury: Treasury) -> None:
    # Two merchants, for one alone would be full before.
    counter, other = await treasury.till("counter", "LENDER"), await treasury.till("pos", "LENDER-2")
    card = await treasury.card(cash=0)
    load = counter.load(card, 1_000)
    await treasury.ask(counter, load)
    refund = counter.refund(await treasury.number(counter, counter.purchase(card, 500)), 300)
    await treasury.ask(counter, refund)
    await treasury.move(counter, counter.offline_sale, card, ACCOUNT_MAX // 2)
    await treasury.move(other, other.offline_sale, card, ACCOUNT_MAX - ACCOUNT_MAX // 2 + 800 - 200)
    assert await treasury.switch.purses(card) == (200 - ACCOUNT_MAX, 0)

    asked = [(other, other.offline_sale(card, 201)), (counter, counter.reversal(load)), (counter, counter.reversal(refund))]
    await treasury.all_refused(asked)
    assert (await other.ask(treasury.connection, other.purchase(card, 201))).code == "51", "online it is a matter of funds"
    await treasury.ask(counter, counter.load(card, 2_000))
    await treasury.all_decided(asked)
    assert await treasury.switch.purses(card) == (200 - ACCOUNT_MAX + 2_000 - 201 - 1_000 - 300, 0)


async def test_no_more_subsidy_is_taken_at_once_than_the_largest_amount(treasury: Treasury) -> None:
    """With a surcharge a price can be above it."""
    pos = await treasury.till("pos", "DEAR")
    await treasury.switch.rule("surcharge,family,*,,,,,10000", "subsidy,family,*,,,,,yes")
    card = await treasury.card(cash=HIGHEST, subsidy=PURSE_MAX, card_class="family")
    asked = [(pos, pos.purchase(card, HIGHEST // 2 + 1)), (pos, pos.offline_sale(card, HIGHEST // 2 + 1))]
    await treasury.all_refused(asked)
    await treasury.ask(pos, pos.purchase(card, HIGHEST // 2))
    assert await treasury.switch.purses(card) == (HIGHEST, PURSE_MAX - HIGHEST // 2 * 2)
    await treasury.ask(pos, pos.purchase(card, HIGHEST // 2, de3="001000"))
    await treasury.switch.rule("subsidy,family,*,,,,,yes")
    await treasury.all_decided(asked)
