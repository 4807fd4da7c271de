"""A report's lines: JSON objects, each in its one text, and what is wrong with one that is not."""

import hashlib
import json
from typing import BinaryIO, Final

from .records import Document

LINE_BYTES_MAX: Final = 4 << 20


class Fault(Exception):
    """What is wrong with a report: one sentence."""


def canonical(document: object) -> str:
    """The one text of a document: keys in order, no spaces, nothing escaped that need not be."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def listed(names: object) -> str:
    return ", ".join(sorted(map(str, names))) if isinstance(names, dict | set) else str(names)


class Lines:
    """A report's lines, each in its one text, with the hash over them."""

    def __init__(self, report: BinaryIO) -> None:
        self._report = report
        self.number = 0
        self.sha256 = hashlib.sha256()
        """Over the lines before the last one read."""
        self._last = b""

    def next(self) -> Document:
        """The next line. Raises Fault where it is none."""
        self.sha256.update(self._last)
        self.number += 1
        self._last = self._report.readline(LINE_BYTES_MAX)
        if not self._last:
            raise Fault("the report ends here without its end; it was cut, or was never finished")
        if not self._last.endswith(b"\n"):
            raise Fault("the line does not end")
        try:
            text = self._last[:-1].decode("utf-8")
            document = json.loads(text)
            is_canonical = isinstance(document, dict) and canonical(document) == text
        except (ValueError, RecursionError):
            raise Fault("the line is not JSON") from None
        if not is_canonical:
            raise Fault("the line is not written as reports are written: keys in order, each once, no spaces")
        assert isinstance(document, dict)
        return document

    def end(self) -> None:
        self.number += 1
        if self._report.read(1):
            raise Fault("something stands behind the seal")


def expect(document: Document, kind: str, **fields: type | tuple[type, ...]) -> None:
    """See that a line is of this kind and has exactly these fields, of these types. Raises Fault."""
    if document.get("line") != kind:
        raise Fault(f"a line of the kind {document.get('line')!r} stands where one of the kind {kind!r} should")
    expect_fields(document, line=str, **fields)


def expect_fields(document: object, **fields: type | tuple[type, ...]) -> None:
    if not isinstance(document, dict) or document.keys() != fields.keys():
        raise Fault(f"it has the fields {listed(document)} where {listed(fields)} should stand")
    for name, types in fields.items():
        value = document[name]
        # To Python True is a number as well.
        if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
            raise Fault(f"the field {name} is {value!r}, which it cannot be")


def from_hex(text: str, count: int | None, what: str) -> bytes:
    try:
        content = bytes.fromhex(text)
    except ValueError:
        content = b""
    if content.hex() != text or count not in {None, len(content)}:
        raise Fault(f"{what} is not {'bytes' if count is None else f'{count} bytes'} in hexadecimal digits")
    return content
