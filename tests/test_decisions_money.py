"""What the switch decides about money beside the purchase itself: void, refund, load, bill, hold, completion, offline sale, and the
reversal of each. A holder has 1000 fen in cash and 500 of subsidy where a row says nothing else.
"""

from tests.decision_table import Row, Scene, decisions, for_every_status, table, whatever_the_status

PURCHASE = [
    *table(
        """
        hold 800 | purchase 700 | 00 | 0 0 700
        hold 800 | purchase 701 | 51
        hold 800 | purchase 201 3=001000 | 51
        hold 800 | purchase 200 3=001000 | 00 | 0 500 200
        hold 800 | purchase 500 3=002000 | 00 | 200 0 500

        offline 1001 3=001000 | purchase 1 | 51
        offline 1001 3=001000 | purchase 1 3=001000 | 51
        offline 1001 3=001000 | purchase 1 3=002000 | 51
        offline 1001 3=001000 | purchase 1 3=002000 @shop | 57
        offline 1000 3=001000 | purchase 1 | 00 | 0 499 1
        offline 1001 3=001000, load 1 | purchase 1 | 00 | 0 499 1

        | purchase 850 @pos | 00 | 650 0 850
        | purchase 850 @counter | 00 | 650 0 850
        | purchase 850 @water | 00 | 650 0 850
        | purchase 850 @library | 00 | 650 0 850
        | purchase 850 @kiosk | 58
        card last-day | purchase 850 | 00 | 650 0 850
        prepare purchase 850, reverse #1 | send #1 | 12
        """,
        "left",
    ),
    *for_every_status("purchase 850"),
]


@decisions(PURCHASE)
async def test_purchase(scene: Scene, row: Row) -> None:
    await scene.decide(row)


VOID = [
    *table(
        """
        purchase 850 | void #1 | 00 | 1000 500 -850
        purchase 850 | void #1 2=card | 00 | 1000 500 -850
        purchase 850 | void #1 @pos2 | 00 | 1000 500 -850
        purchase 850 @pos2 | void #1 @counter | 00 | 1000 500 -850
        purchase 850 3=001000 | void #1 | 00 | 1000 500 -850
        purchase 400 3=002000 | void #1 | 00 | 1000 500 -400
        purchase 850 @water | void #1 | 00 | 1000 500 -850
        offline 850 | void #1 2=card | 00 | 1000 500 -850
        offline 2000 | void #1 2=card | 00 | 1000 500 -2000
        offline 400 3=002000 @shop | void #1 @shop | 00 | 1000 500 -400
        purchase 850 13=-1 | void #1 | 00 | 1000 500 -850
        purchase 850 | void #1 49=156 42=- 60=000001 24=003 | 00 | 1000 500 -850

        purchase 850 | void #1 4=0 | 00 | 1000 500 -850
        purchase 850 | void #1 4=1 | 00 | 1000 500 -850
        purchase 850 | void #1 4=5000001 | 00 | 1000 500 -850

        purchase 850, void #1 2=other !25, void #1 @shop !25 | void #1 | 00 | 1000 500 -850

        purchase 850 | void #1 37=- | 30
        purchase 850 | void 12345678901 | 30
        purchase 850 | void 00000000000A | 30
        purchase 850 | void #1 49=840 | 30
        purchase 850 | void #1 60=000000 | 30
        purchase 850 | void #1 42=M2 | 58
        purchase 850 | void #1 @kiosk | 58
        purchase 850 | void #1 13=-8 | (12)
        purchase 850, prepare void #1, reverse #2 | send #2 | 12
        purchase 850 | void #1 2=unknown | 14

        purchase 850 | void 000000000000 | 25
        purchase 850 | void 999999999999 | 25
        purchase 850 | void #1 2=other | 25
        purchase 850 2=other | void #1 2=card | 25
        purchase 850 | void #1 @shop | 25
        purchase 850 @shop | void #1 | 25
        purchase 1501 !51 | void #1 | 25
        load 100 | void #1 | 25
        bill 100 | void #1 | 25
        hold 100 | void #1 | 25
        hold 100, complete #1 60 | void #2 | 25
        purchase 850, refund #1 100 | void #2 | 25
        purchase 850, void #1 | void #2 | 25
        purchase 850, reverse #1 | void #2 | 25
        enter | void #1 | 25
        lose | void #1 | 25

        purchase 850, void #1 | void #1 | 12
        purchase 850, void #1 | void #1 @pos2 | 12
        purchase 850, reverse #1 | void #1 | 12
        purchase 850, refund #1 1 | void #1 | 12
        purchase 850, refund #1 850 | void #1 | 12
        offline 850, void #1 | void #1 | 12
        purchase 850, refund #1 100, reverse #2 | void #1 | 00 | 1000 500 -850
        """,
        "left",
    ),
    *whatever_the_status("void #1 2=card", "1000 500 -850", "purchase 850"),
]


@decisions(VOID)
async def test_void(scene: Scene, row: Row) -> None:
    await scene.decide(row)


REFUND = [
    *table(
        """
        purchase 850 | refund #1 1 | 00 | 651 0 -1
        purchase 850 | refund #1 350 | 00 | 1000 0 -350
        purchase 850 | refund #1 351 | 00 | 1000 1 -351
        purchase 850 | refund #1 400 2=card | 00 | 1000 50 -400
        purchase 850 | refund #1 850 | 00 | 1000 500 -850
        purchase 850 | refund #1 300 @pos2 | 00 | 950 0 -300
        purchase 850 | refund #1 300 @counter 49=156 42=- | 00 | 950 0 -300
        purchase 400 3=001000 | refund #1 100 | 00 | 700 500 -100
        purchase 400 3=002000 | refund #1 100 | 00 | 1000 200 -100
        purchase 850, refund #1 300 | refund #1 550 | 00 | 1000 500 -550
        purchase 850, refund #1 300, refund #1 100 | refund #1 450 | 00 | 1000 500 -450
        purchase 850, refund #1 850, reverse #2 | refund #1 850 | 00 | 1000 500 -850
        offline 850 | refund #1 400 | 00 | 1000 50 -400
        offline 2000 | refund #1 400 2=card | 00 | -100 0 -400
        offline 2000 | refund #1 2000 | 00 | 1000 500 -2000
        offline 400 3=002000 @shop | refund #1 400 @shop | 00 | 1000 500 -400
        hold 500, complete #1 300 | refund #2 100 | 00 | 800 500 -100
        hold 500, complete #1 300 | refund #2 300 | 00 | 1000 500 -300

        purchase 850, refund #1 851 !61, refund #1 9 2=other !25, refund #1 0 !13 | refund #1 850 | 00 | 1000 500 -850

        purchase 850 | refund #1 100 4=- | 30
        purchase 850 | refund #1 100 37=- | 30
        purchase 850 | refund 1 100 | 30
        purchase 850 | refund 00000000000A 100 | 30
        purchase 850 | refund #1 100 49=840 | 30
        purchase 850 | refund #1 100 42=M2 | 58
        purchase 850 | refund #1 100 @kiosk | 58
        purchase 850 | refund #1 100 13=-8 | (12)
        purchase 850, prepare refund #1 100, reverse #2 | send #2 | 12
        purchase 850 | refund #1 0 | 13
        purchase 850 | refund #1 5000001 | 13
        purchase 850 | refund #1 100 2=unknown | 14

        purchase 850 | refund 000000000000 100 | 25
        purchase 850 | refund 999999999999 100 | 25
        purchase 850 | refund #1 100 2=other | 25
        purchase 850 | refund #1 100 @shop | 25
        purchase 850 @shop | refund #1 100 | 25
        purchase 1501 !51 | refund #1 100 | 25
        load 100 | refund #1 100 | 25
        bill 100 | refund #1 100 | 25
        hold 100 | refund #1 100 | 25
        hold 100, complete #1 60 | refund #1 60 | 25
        purchase 850, refund #1 100 | refund #2 100 | 25
        purchase 850, void #1 | refund #2 100 | 25
        purchase 850, reverse #1 | refund #2 100 | 25

        purchase 850, void #1 | refund #1 100 | 12
        purchase 850, reverse #1 | refund #1 100 | 12
        offline 850, void #1 | refund #1 100 | 12
        hold 500, complete #1 300, reverse #2 | refund #2 100 | 12

        purchase 850 | refund #1 851 | 61
        purchase 850, refund #1 300 | refund #1 551 | 61
        purchase 850, refund #1 850 | refund #1 1 | 61
        hold 500, complete #1 300 | refund #2 301 | 61
        hold 500, complete #1 0 | refund #2 1 | 61
        """,
        "left",
    ),
    *whatever_the_status("refund #1 850 2=card", "1000 500 -850", "purchase 850"),
]


@decisions(REFUND)
async def test_refund(scene: Scene, row: Row) -> None:
    await scene.decide(row)


LOAD = [
    *table(
        """
        | load 500 | 00 | 1500 500 0
        | load 1 49=156 42=- 60=000001 24=003 | 00 | 1001 500 0
        | load 5000000 | 00 | 5001000 500 0
        hold 400 | load 100 | 00 | 700 500 0
        offline 2000 | load 200 | 00 | -300 0 0
        offline 2000 | load 500 | 00 | 0 0 0
        offline 2000 | load 700 | 00 | 200 0 0
        cash 99999999899 | load 100 | 00 | 99999999999 500 0
        card last-day | load 500 | 00 | 1500 500 0

        | load 500 2=- | 30
        | load 500 4=- | 30
        | load 500 49=840 | 30
        | load 500 60=00001 | 30
        | load 500 42=M2 | 58
        | load 500 @pos | 58
        | load 500 13=-8 | (12)
        prepare load 500, reverse #1 | send #1 | 12
        prepare load 500, reverse-by-stan #1 | send #1 | 12
        | load 0 | 13
        | load 5000001 | 13
        | load 500 2=unknown | 14
        cash 99999999900 | load 100 | 61
        """,
        "left",
    ),
    *for_every_status("load 500"),
]


@decisions(LOAD)
async def test_load(scene: Scene, row: Row) -> None:
    await scene.decide(row)


BILL = [
    *table(
        """
        | bill 300 | 00 | 700 500 0
        | bill 300 01 @counter | 00 | 700 500 0
        | bill 300 02 | 00 | 700 500 0
        | bill 300 03 | 00 | 700 500 0
        | bill 300 04 49=156 42=- | 00 | 700 500 0
        | bill 1000 | 00 | 0 500 0
        hold 800 | bill 200 | 00 | 0 500 0
        card last-day | bill 300 | 00 | 700 500 0

        | bill 300 2=- | 30
        | bill 300 4=- | 30
        | bill 300 49=840 | 30
        | bill 300 48=- | 30
        | bill 300 48=3104ROOM | 30
        | bill 300 48=300201 | 30
        | bill 300 48=3002013100 | 30
        | bill 300 48=3002003104ROOM | 30
        | bill 300 48=3002053104ROOM | 30
        | bill 300 48=300113104ROOM | 30
        | bill 300 48=3003001 | 30
        | bill 300 48=30020X3104ROOM | 30
        | bill 300 48=3002013104ROOM5204ABCD | 30
        | bill 300 42=M2 | 58
        | bill 300 @pos | 58
        | bill 300 13=-8 | (12)
        prepare bill 300, reverse #1 | send #1 | 12
        | bill 0 | 13
        | bill 5000001 | 13
        | bill 300 2=unknown | 14
        | bill 1001 | 51
        cash 0 | bill 300 | 51
        hold 800 | bill 201 | 51
        offline 2000 | bill 1 | 51
        """,
        "left",
    ),
    *for_every_status("bill 300"),
]


@decisions(BILL)
async def test_bill_payment(scene: Scene, row: Row) -> None:
    await scene.decide(row)


HOLD = [
    *table(
        """
        | hold 400 | 00 | 600 500 0
        | hold 400 49=156 42=- 60=000001 24=003 | 00 | 600 500 0
        | hold 1000 | 00 | 0 500 0
        | hold 5000000 | 00 | 0 500 0
        hold 400 | hold 400 | 00 | 200 500 0
        hold 400 | hold 700 | 00 | 0 500 0
        card last-day | hold 400 | 00 | 600 500 0

        | hold 400 2=- | 30
        | hold 400 4=- | 30
        | hold 400 49=840 | 30
        | hold 400 42=M2 | 58
        | hold 400 @pos | 58
        | hold 400 13=-8 | (12)
        prepare hold 400, reverse #1 | send #1 | 12
        | hold 0 | 13
        | hold 5000001 | 13
        | hold 400 2=unknown | 14
        cash 0 | hold 400 | 51
        hold 1000 | hold 1 | 51
        offline 2000 | hold 1 | 51
        """,
        "left",
    ),
    *for_every_status("hold 400"),
]


@decisions(HOLD)
async def test_hold(scene: Scene, row: Row) -> None:
    await scene.decide(row)


COMPLETION = [
    *table(
        """
        hold 400 | complete #1 300 | 00 | 700 500 300
        hold 400 | complete #1 300 2=card | 00 | 700 500 300
        hold 400 | complete #1 300 2=card t=0221 | 00 | 700 500 300
        hold 400 | complete #1 300 49=156 42=- 60=000001 24=003 | 00 | 700 500 300
        hold 400 | complete #1 400 | 00 | 600 500 400
        hold 400 | complete #1 0 2=card | 00 | 1000 500 0
        hold 5000 | complete #1 1000 | 00 | 0 500 1000
        hold 400, hold 500 | complete #1 300 | 00 | 200 500 300
        hold 400, offline 2000 | complete #1 300 2=card | 00 | -800 0 300

        hold 400, complete #1 401 !61, complete #1 9 2=other !25, complete #1 5000001 !13 | complete #1 400 | 00 | 600 500 400

        hold 400 | complete #1 300 4=- | 30
        hold 400 | complete #1 300 37=- | 30
        hold 400 | complete 1 300 | 30
        hold 400 | complete 00000000000A 300 | 30
        hold 400 | complete #1 300 49=840 | 30
        hold 400 | complete #1 300 42=M2 | 58
        hold 400 | complete #1 300 @pos | 58
        hold 400, prepare complete #1 300, reverse #2 | send #2 | 12
        hold 400 | complete #1 5000001 | 13
        hold 400 | complete #1 300 2=unknown | 14

        hold 400 | complete 000000000000 300 | 25
        hold 400 | complete 999999999999 300 | 25
        hold 400 | complete #1 300 2=other | 25
        hold 400 | complete #1 300 @shopwater | 25
        hold 400 @shopwater | complete #1 300 | 25
        cash 0, hold 400 !51 | complete #1 300 | 25
        hold 400, complete #1 300 | complete #2 300 | 25
        purchase 850 @water | complete #1 300 | 25
        offline 850 @water | complete #1 300 | 25
        load 400 | complete #1 300 | 25
        bill 400 | complete #1 300 | 25
        hold 400, complete #1 300 | complete #1 300 | 12
        hold 400, complete #1 0 | complete #1 0 | 12
        hold 400, reverse #1 | complete #1 300 | 12
        hold 400, complete #1 300, reverse #2 | complete #1 300 | 12
        hold 400 | complete #1 401 | 61
        hold 5000 | complete #1 1001 | 61
        """,
        "left",
    ),
    *whatever_the_status("complete #1 300 2=card", "700 500 300", "hold 400"),
]


@decisions(COMPLETION)
async def test_completion(scene: Scene, row: Row) -> None:
    await scene.decide(row)


OFFLINE_SALE = [
    *table(
        """
        | offline 850 | 00 | 650 0 850
        | offline 850 t=0221 | 00 | 650 0 850
        | offline 850 13=-1 | 00 | 650 0 850
        | offline 850 13=-7 | 00 | 650 0 850
        | offline 850 13=1 | 00 | 650 0 850
        | offline 850 60=000001 24=003 | 00 | 650 0 850
        | offline 850 3=001000 | 00 | 150 500 850
        | offline 400 3=002000 | 00 | 1000 100 400
        | offline 700 3=002000 | 00 | 800 0 700
        | offline 1500 | 00 | 0 0 1500
        | offline 2000 | 00 | -500 0 2000
        | offline 2000 3=001000 | 00 | -1000 500 2000
        | offline 2000 3=002000 | 00 | -500 0 2000
        | offline 5000000 | 00 | -4998500 0 5000000
        offline 2000 | offline 100 | 00 | -600 0 100
        offline 2000 3=001000 | offline 100 | 00 | -1000 400 100
        hold 400 | offline 850 | 00 | 250 0 850
        hold 800 | offline 850 | 00 | -150 0 850
        hold 800 | offline 300 3=001000 | 00 | -100 500 300
        | offline 850 @shop | 00 | 150 500 850
        | offline 400 3=002000 @shop | 00 | 600 500 400
        | offline 2000 3=002000 @shop | 00 | -1000 500 2000
        | offline 850 @counter | 00 | 650 0 850
        | offline 850 @water | 00 | 650 0 850

        | offline 850 2=- | 30
        | offline 850 3=- | 30
        | offline 850 4=- | 30
        | offline 850 42=- | 30
        | offline 850 49=- | 30
        | offline 850 49=840 | 30
        | offline 850 42=M2 | 58
        | offline 850 @kiosk | 58
        prepare offline 850, reverse #1 | send #1 | 12
        prepare offline 0, reverse #1 | send #1 | 12
        | offline 0 | 13
        | offline 5000001 | 13
        | offline 850 2=unknown | 14
        """,
        "left",
    ),
    *whatever_the_status("offline 850", "650 0 850"),
]


@decisions(OFFLINE_SALE)
async def test_offline_sale(scene: Scene, row: Row) -> None:
    await scene.decide(row)


REVERSAL = [
    *table(
        """
        purchase 850 | reverse #1 | 00 | 1000 500 -850 | purchase 1
        purchase 850 | reverse-by-stan #1 | 00 | 1000 500 -850
        purchase 850 | reverse #1 t=0420 | 00 | 1000 500 -850
        purchase 850 | reverse #1 t=0421 42=- 60=000001 24=003 | 00 | 1000 500 -850
        purchase 850 | reverse #1 2=- 3=- 4=- 49=- | 00 | 1000 500 -850
        purchase 850, refund #1 300 | reverse #1 | 00 | 1000 500 -550 | refund #1 1 !12
        purchase 850, refund #1 850 | reverse #1 | 00 | 1000 500 0
        purchase 850, void #1 | reverse #1 | 00 | 1000 500 0
        purchase 850, reverse #1 | reverse #1 | 00 | 1000 500 0
        purchase 1501 !51 | reverse #1 | 00 | 1000 500 0
        offline 850 | reverse #1 | 00 | 1000 500 -850
        offline 2000 | reverse #1 | 00 | 1000 500 -2000
        offline 2000, refund #1 400 | reverse #1 | 00 | 1000 500 -1600

        purchase 850, void #1 | reverse #2 | 00 | 1000 500 0 | void #1 !12
        purchase 850, void #1 2=card | reverse #2 | 00 | 1000 500 0
        purchase 850, void #1 4=1 | reverse #2 4=2 | 00 | 1000 500 0
        purchase 850, refund #1 300 | reverse #2 | 00 | 650 0 300 | refund #1 850
        purchase 850, refund #1 300 2=card | reverse-by-stan #2 | 00 | 650 0 300
        purchase 850, refund #1 300, reverse #2 | reverse #2 | 00 | 650 0 0
        purchase 850, refund #1 300, reverse #1 | reverse #2 | 00 | 1000 500 0 | refund #1 1 !12
        purchase 850, refund #1 850 | reverse #2 | 00 | 650 0 850
        purchase 850, refund #1 850, purchase 300 3=002000 | reverse #2 | 00 | 350 0 850
        purchase 850, refund #1 850, purchase 500 3=002000 | reverse #2 | 00 | 150 0 850
        purchase 850, refund #1 850, purchase 700 | reverse #2 2=card | 00 | -50 0 850

        load 500 | reverse #1 | 00 | 1000 500 0
        load 500 | reverse-by-stan #1 | 00 | 1000 500 0
        load 500, reverse #1 | reverse #1 | 00 | 1000 500 0
        cash 0, subsidy 0, load 500, purchase 400 | reverse #1 | 00 | -400 0 0 | purchase 1 !51
        cash 0, load 500, hold 400 | reverse #1 | 00 | -400 500 0
        bill 300 | reverse #1 | 00 | 1000 500 0
        bill 300 | reverse-by-stan #1 | 00 | 1000 500 0
        bill 300, reverse #1 | reverse #1 | 00 | 1000 500 0

        hold 400 | reverse #1 | 00 | 1000 500 0 | complete #1 1 !12
        hold 400 | reverse-by-stan #1 | 00 | 1000 500 0
        hold 400, complete #1 300 | reverse #1 | 00 | 700 500 0
        hold 400, complete #1 300 | reverse #2 2=card | 00 | 1000 500 -300 | complete #1 300 !12
        hold 400, complete #1 300, reverse #2 | reverse #2 | 00 | 1000 500 0
        hold 400, complete #1 0 | reverse #2 | 00 | 1000 500 0
        hold 400, complete #1 300, refund #2 100 | reverse #2 | 00 | 1000 500 -200

        enter | reverse #1 | 00 | 1000 500 0
        attendance | reverse #1 | 00 | 1000 500 0
        borrow BOOK | reverse #1 | 00 | 1000 500 0 | borrow BOOK !12
        advise enter | reverse #1 | 00 | 1000 500 0

        prepare purchase 850 | reverse #1 | 00 | 1000 500 0 | send #1 !12
        prepare offline 850 | reverse #1 | 00 | 1000 500 0 | send #1 !12
        prepare load 850 | reverse-by-stan #1 | 00 | 1000 500 0 | send #1 !12
        prepare bill 850 | reverse #1 | 00 | 1000 500 0 | send #1 !12
        prepare hold 850 | reverse #1 | 00 | 1000 500 0 | send #1 !12
        hold 850, prepare complete #1 850 | reverse #2 | 00 | 150 500 0 | send #2 !12, complete #1 850
        purchase 850, prepare refund #1 850 | reverse #2 | 00 | 650 0 0 | send #2 !12, refund #1 850
        purchase 850, prepare void #1 | reverse #2 | 00 | 650 0 0 | send #2 !12, void #1
        prepare enter | reverse #1 | 00 | 1000 500 0 | send #1 !12
        prepare borrow BOOK | reverse #1 | 00 | 1000 500 0 | send #1 !12, borrow BOOK
        prepare purchase 850 2=unknown | reverse #1 | 00 | 1000 500 0 | send #1 !12

        purchase 850 | reverse #1 @pos2 | 00 | 650 0 0 | void #1
        purchase 850 | reverse #1 49=840 | 30
        purchase 850 | reverse #1 60=000000 | 30
        purchase 850 | reverse #1 42=M2 | 58
        purchase 850, reverse #1 2=other !94, reverse #1 4=1 !94 | reverse #1 | 00 | 1000 500 -850
        purchase 850 | reverse #1 2=other | 94
        purchase 850 | reverse #1 4=849 | 94
        load 500 | reverse #1 2=other | 94
        load 500 | reverse #1 4=0 | 94
        bill 300 | reverse #1 4=301 | 94
        hold 400 | reverse #1 2=other | 94
        hold 400, complete #1 300 | reverse #2 4=400 | 94
        purchase 850, refund #1 300 | reverse #2 4=850 | 94
        offline 850 | reverse #1 2=unknown | 94
        purchase 850, void #1 2=card | reverse #2 2=other | 94
        """,
        "left",
        "then",
    ),
    *whatever_the_status("reverse #1", "1000 500 -850", "purchase 850"),
    *whatever_the_status("reverse #1", "1000 500 0", "load 500"),
    *whatever_the_status("reverse #1", "1000 500 0", "hold 400"),
]


@decisions(REVERSAL)
async def test_reversal(scene: Scene, row: Row) -> None:
    await scene.decide(row)
