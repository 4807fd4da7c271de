"""What a terminal says: a message for each operation of the terminal protocol, whole, in which any element can be another or missing.

Always true here: nothing comes from the switch; a message has the STAN after the last one's, and its terminal's time. PIN blocks are made
by `cryptography` alone.
"""

import datetime
import itertools
import secrets
from collections.abc import Callable, Sequence
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from switch.dialect import write_sub_elements

Fields = dict[str, str]

ACTS: Final = {"verify": "90", "enter": "91", "leave": "92", "borrow": "93", "return": "94", "attendance": "95"}
"""What a card is shown for, with the first two digits of DE3."""

TOTALS: Final = ("74", "86", "75", "87", "76", "88", "77", "89")
"""A batch's totals: number and amount of credits, credit reversals, debits, debit reversals."""


def pin_block(key: bytes, card: str, pin: str, *, fill: str = "A") -> str:
    """The PIN as ISO 9564-1 format 4 has it, under the session's PIN key: 32 hex digits. `fill` is a nibble that should be A."""
    pin_field = bytes.fromhex(f"4{len(pin):X}{pin}".ljust(16, fill)) + secrets.token_bytes(8)
    card_field = bytes.fromhex(f"{max(len(card) - 12, 0)}{card:>012}".ljust(32, "0"))
    encrypt = Cipher(AES(key), ECB()).encryptor()  # noqa: S305 - the standard chains two single blocks
    once = encrypt.update(pin_field)
    return encrypt.update(bytes(left ^ right for left, right in zip(once, card_field, strict=True))).hex().upper()


class Messages:
    """A terminal's. `elements` are de2="...", in any order; None leaves one out that would be there."""

    def __init__(self, terminal_id: str, merchant_id: str, clock: Callable[[], datetime.datetime]) -> None:
        """`clock` tells the campus's local time."""
        self.terminal_id = terminal_id
        self.merchant_id = merchant_id
        self._clock = clock
        self._stans = itertools.count(1)

    def skip(self, stans: int) -> None:
        """Go on so many numbers further: the ones between are somebody else's."""
        for _ in range(stans):
            next(self._stans)

    def message(self, mti: str, **elements: str | None) -> Fields:
        at = self._clock()
        base: dict[str, str | None] = {
            "11": f"{next(self._stans):06}",
            "12": f"{at:%H%M%S}",
            "13": f"{at:%m%d}",
            "41": self.terminal_id.ljust(8),
            "42": self.merchant_id.ljust(15),
        }
        given = {name.removeprefix("de"): value for name, value in elements.items()}
        return {"t": mti, **{element: value for element, value in (base | given).items() if value is not None}}

    # Money. Amounts are in fen; a number is an original's transaction number.

    def purchase(self, card: str, amount: int, **elements: str | None) -> Fields:
        return self.message("0200", **{"de2": card, "de3": "000000", "de4": f"{amount:012}", "de49": "156", **elements})

    def offline_sale(self, card: str, amount: int, **elements: str | None) -> Fields:
        return self.purchase(card, amount, **{"t": "0220", **elements})

    def void(self, number: str, **elements: str | None) -> Fields:
        return self.message("0200", **{"de3": "020000", "de37": number, **elements})

    def refund(self, number: str, amount: int, **elements: str | None) -> Fields:
        return self.message("0200", **{"de3": "200000", "de4": f"{amount:012}", "de37": number, **elements})

    def load(self, card: str, amount: int, **elements: str | None) -> Fields:
        return self.message("0200", **{"de2": card, "de3": "210000", "de4": f"{amount:012}", **elements})

    def bill(self, card: str, amount: int, kind: str = "01", reference: str = "ROOM 4711", **elements: str | None) -> Fields:
        private = write_sub_elements({"30": kind, "31": reference})
        return self.message("0200", **{"de2": card, "de3": "500000", "de4": f"{amount:012}", "de48": private, **elements})

    def balance(self, card: str, **elements: str | None) -> Fields:
        return self.message("0100", **{"de2": card, "de3": "310000", **elements})

    def hold(self, card: str, amount: int, **elements: str | None) -> Fields:
        return self.message("0100", **{"de2": card, "de3": "000000", "de4": f"{amount:012}", **elements})

    def completion(self, number: str, amount: int, **elements: str | None) -> Fields:
        return self.message("0220", **{"de3": "000000", "de4": f"{amount:012}", "de37": number, **elements})

    def reversal(self, original: Fields, **elements: str | None) -> Fields:
        """With DE90."""
        named = f"{original['t']}{original['11']}{original['13']}{original['12']}".ljust(42, "0")
        content = {f"de{element}": original.get(element) for element in ("2", "3", "4", "49")}
        return self.message("0400", **{**content, "de90": named, **elements})

    def reversal_by_stan(self, original: Fields, **elements: str | None) -> Fields:
        """Without DE90: under the original's own DE11 and DE13."""
        content = {f"de{element}": original.get(element) for element in ("2", "3", "4", "11", "12", "13", "49")}
        return self.message("0400", **{**content, **elements})

    # What a card is shown for, and what becomes of cards.

    def act(self, act: str, card: str, item: str | None = None, **elements: str | None) -> Fields:
        """One of `ACTS`; an item is borrowed or brought back."""
        private = None if item is None else write_sub_elements({"11": item})
        return self.message("0100", **{"de2": card, "de3": f"{ACTS[act]}0000", "de48": private, **elements})

    def advice(self, act: str, card: str, item: str | None = None, **elements: str | None) -> Fields:
        """The same, of what happened while the switch was away."""
        return self.act(act, card, item, **{"t": "0120", **elements})

    def loss(self, card: str, **elements: str | None) -> Fields:
        return self.message("0300", **{"de2": card, "de91": "1", "de101": "HOTLIST", **elements})

    def found(self, card: str, **elements: str | None) -> Fields:
        return self.loss(card, **{"de91": "3", **elements})

    def hotlist(self, held: int, after: str | None = None, **elements: str | None) -> Fields:
        private = write_sub_elements({"50": f"{held:010}"} | ({} if after is None else {"51": after}))
        return self.message("0300", **{"de48": private, "de91": "5", "de101": "HOTLIST", **elements})

    # The terminal's own.

    def batch_close(self, batch: int, totals: Sequence[int], **elements: str | None) -> Fields:
        """`totals` in the order of `TOTALS`."""
        values = {f"de{element}": f"{total:0{10 if int(element) < 80 else 16}}" for element, total in zip(TOTALS, totals, strict=True)}
        return self.message("0500", **{"de60": f"{batch:06}", **values, **elements})

    def event(self, kind: str, place: str | None = None, value: str | None = None, **elements: str | None) -> Fields:
        private = {"40": kind, "41": place, "42": value}
        return self.message(
            "0600", **{"de48": write_sub_elements({tag: text for tag, text in private.items() if text is not None}), **elements}
        )

    def echo(self, **elements: str | None) -> Fields:
        return self.message("0800", **{"de70": "301", **elements})

    def sign_off(self, **elements: str | None) -> Fields:
        return self.message("0800", **{"de70": "002", **elements})

    def sign_on_message(self, nonce: bytes, **elements: str | None) -> Fields:
        return self.message("0800", **{"de48": write_sub_elements({"01": nonce.hex().upper()}), "de70": "001", **elements})
