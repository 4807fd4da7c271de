"""The pages' blocks, tables and spans; and of docs/protocol.md the examples: messages in hex, a line a part, with what it says in words.

Always true here: nothing is known of a message but what stands on the page; it is decoded and encoded by the reference terminal's codec.

How it works: `EXAMPLES` are the blocks `hex NAME`. A request NAME and its reply `NAME reply` make an `Exchange`; all of them in the order
of DE12 are the day that the page tells of (`STORY`), at the campus of its files (`FILES`).
"""

import dataclasses
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from switch.dialect import MAC_BYTES, MacKey, decode, session_keys, sign_on_key

ROOT: Final = Path(__file__).parent.parent
PROTOCOL: Final = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")

BLOCK: Final = re.compile(r"^```(?P<kind>\w*) ?(?P<name>.*)\n(?P<text>(?:.*\n)*?)```$", re.MULTILINE)
HEX_LINE: Final = re.compile(
    r"(?P<hex>[0-9a-f]{2,}(?: +[0-9a-f]{2,})*) +(?P<part>MTI|bitmap|second bitmap|DE\d+|length|TPDU|message)\b(?P<note>.*)"
)


def blocks(page: str, kind: str) -> dict[str, str]:
    """The fenced blocks of a kind, by what stands behind the kind (or by their number where nothing does)."""
    found = [match for match in BLOCK.finditer(page) if match["kind"] == kind]
    named = {match["name"] or str(number): match["text"] for number, match in enumerate(found)}
    assert len(named) == len(found), f"two blocks of {kind} have the same name"
    return named


def section(page: str, title: str) -> str:
    """What stands under a heading, up to the next one of the same or a higher level."""
    match = re.search(rf"^(#+) {re.escape(title)}\n((?:.*\n)*?)(?=^#{{1,2}} |\Z)", page, re.MULTILINE)
    assert match is not None, f"there is no section {title!r}"
    return match[2]


def own_text(page: str, title: str) -> str:
    """What stands under a heading, without what stands under headings below it or behind it."""
    return section(page, title).partition("\n###")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a text's tables, headings left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rules = [number for number, row in enumerate(cells) if all(re.fullmatch("-+", cell) for cell in row)]
    return [row for number, row in enumerate(cells) if number not in rules and number + 1 not in rules]


def spans(text: str) -> set[str]:
    """What stands between backticks outside of blocks; a line's end in it is a space."""
    found = re.findall(r"`((?:[^`\n]|\n(?!\n))+)`", BLOCK.sub("", text))
    return {" ".join(span.split()).replace("\\|", "|") for span in found}


# --- examples ---


class Line(NamedTuple):
    """One line of an example."""

    part: str
    """MTI, bitmap, second bitmap, DE and its number; in a frame length, TPDU, message."""
    content: bytes
    note: str
    """What it says of it in words; empty on a line that only goes on with the hex of the one before."""


@dataclasses.dataclass(frozen=True)
class Example:
    """One message, or frame, as it stands on the page."""

    name: str
    lines: list[Line]

    @property
    def message(self) -> bytes:
        return b"".join(line.content for line in self.lines)

    @functools.cached_property
    def fields(self) -> dict[str, str]:
        """Without the MAC; "t" is the MTI."""
        fields = decode(self.message)
        return {element: value for element, value in fields.items() if element not in {"64", "128"}}

    @property
    def parts(self) -> list[Line]:
        """Lines of the same part one after another are one."""
        found: list[Line] = []
        for line in self.lines:
            if found and found[-1].part == line.part:
                before = found.pop()
                line = Line(line.part, before.content + line.content, f"{before.note} {line.note}".strip())  # noqa: PLW2901
            found.append(line)
        return found

    def key(self) -> MacKey | None:
        """The key under which it says that its MAC is."""
        notes = [line.note for line in self.lines if line.part in {"DE64", "DE128"}]
        if not notes:
            return None
        (note,) = notes
        terminal = self.fields["41"]
        if note == "under the sign-on key":
            return MacKey(sign_on_key(MASTER_KEY, terminal))
        expected = "under the MAC key" if terminal == KEYS_TERMINAL else f"under the MAC key of {terminal}"
        assert note == expected, note
        return MacKey(session_keys(MASTER_KEY, terminal, *NONCES)[0])

    @property
    def is_proved(self) -> bool:
        """Whether its MAC is right, where it has one."""
        key = self.key()
        return key is None or key.verifies(self.message[:-MAC_BYTES], self.message[-MAC_BYTES:])


def _example(name: str, block: str) -> Example:
    lines = []
    for line in block.splitlines():
        match = HEX_LINE.fullmatch(line.strip())
        assert match is not None, f"not a line of an example: {line}"
        lines.append(Line(match["part"], bytes.fromhex(match["hex"]), match["note"].strip()))
    return Example(name, lines)


EXAMPLES: Final = {name: _example(name, block) for name, block in blocks(PROTOCOL, "hex").items()}
FRAMES: Final = {name: example for name, example in EXAMPLES.items() if name.startswith("frame ")}
WHOLE: Final = {name: example for name, example in EXAMPLES.items() if name not in FRAMES}

KEYS: Final = dict(re.split(r" {2,}", line) for line in next(iter(blocks(PROTOCOL, "keys").values())).splitlines())
"""The keys of terminal `KEYS_TERMINAL`, by name."""
KEYS_TERMINAL: Final = "T0000001"
MASTER_KEY: Final = bytes.fromhex(KEYS["master key"])
NONCES: Final = (bytes.fromhex(KEYS["terminal nonce"]), bytes.fromhex(KEYS["switch nonce"]))

FILES: Final = blocks(PROTOCOL, "csv")
"""The files of the campus at which the examples happen, by what they hold."""


@dataclasses.dataclass(frozen=True)
class Exchange:
    """A request and its reply."""

    name: str
    request: Example
    reply: Example

    @property
    def terminal(self) -> str:
        return self.request.fields["41"]


def _exchanges() -> Iterator[Exchange]:
    for name, example in WHOLE.items():
        if not name.endswith(" reply"):
            yield Exchange(name, example, WHOLE[f"{name} reply"])


STORY: Final = sorted(_exchanges(), key=lambda exchange: (exchange.request.fields["12"], exchange.request.fields["11"]))
"""All of them in the order in which they happened."""


# --- the PIN block ---


class PinBlock(NamedTuple):
    """ISO 9564-1 format 4, step by step."""

    pin_field: bytes
    enciphered: bytes
    card_field: bytes
    xor: bytes
    block: bytes


def pin_block(key: bytes, pin: str, card_number: str, random: bytes) -> PinBlock:
    """Enciphers a PIN of 4 to 12 digits under a session's PIN key. `random` are eight bytes."""
    cipher = Cipher(AES(key), modes.ECB())  # noqa: S305 - the standard's: a block at a time
    pin_field = bytes.fromhex(f"4{len(pin):x}{pin}".ljust(16, "a")) + random
    beyond = max(len(card_number) - 12, 0)
    card_field = bytes.fromhex(f"{beyond}{card_number.rjust(12, '0')}".ljust(32, "0"))
    enciphered = cipher.encryptor().update(pin_field)
    xor = bytes(left ^ right for left, right in zip(enciphered, card_field, strict=True))
    return PinBlock(pin_field, enciphered, card_field, xor, cipher.encryptor().update(xor))


PIN_EXAMPLE: Final = dict(re.split(r" {2,}", line) for line in next(iter(blocks(PROTOCOL, "pin").values())).splitlines())
"""The PIN block whose steps the page shows, by their names."""
