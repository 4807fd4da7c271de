"""The documentation against the program: what docs/*.md and README.md say that can be tried or looked up is tried or looked up.

Every example of bytes is taken apart and put together again by the reference terminal's codec; the element table is held against
its specification; commands are parsed, files imported, metrics and log lines looked for where they come from.
"""

import ast
import contextlib
import io
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import iso8583
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from switch import cli, settlement
from switch import config as configuration
from switch._core import Core
from switch.dialect import (
    CURRENCY,
    FRAME_BYTES_MAX,
    RESPONSES,
    SPECIFICATION,
    FrameBuffer,
    MacKey,
    decode,
    encode,
    session_keys,
    sign_on_key,
)
from switch.follow import Progress
from switch.metrics import Connections, Histogram, JournalStatistics, Statistics, exposition
from switch.replay import CSV_HEADER, REPLAY_NAME, Operation, read_entries

ROOT: Final = Path(__file__).parent.parent
PAGES: Final = (ROOT / "README.md", ROOT / "loadtests" / "README.md", *sorted((ROOT / "docs").glob("*.md")))
PROTOCOL: Final = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
POLICIES: Final = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
OPERATING: Final = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
VECTORS: Final[dict[str, Any]] = json.loads((ROOT / "tests" / "vectors.json").read_text(encoding="utf-8"))
MESSAGES: Final[dict[str, dict[str, Any]]] = {message["name"]: message for message in VECTORS["messages"]}

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


# --- protocol.md: bytes ---


def parts(block: str) -> list[tuple[str, bytes, str]]:
    """The parts of a message example: name, bytes, note. Lines with the same name one after another are one part."""
    found: list[tuple[str, bytes, str]] = []
    for line in block.splitlines():
        match = HEX_LINE.fullmatch(line.strip())
        assert match is not None, f"not a line of an example: {line}"
        name, content, note = match["part"], bytes.fromhex(match["hex"]), match["note"].strip()
        if found and found[-1][0] == name:
            _, before, noted = found.pop()
            content, note = before + content, f"{noted} {note}"
        found.append((name, content, note))
    return found


EXAMPLES: Final = {name: parts(block) for name, block in blocks(PROTOCOL, "hex").items()}
WHOLE: Final = {name: example for name, example in EXAMPLES.items() if not name.startswith("frame ")}


def message_of(example: list[tuple[str, bytes, str]]) -> bytes:
    return b"".join(content for _, content, _ in example)


def test_every_published_message_is_an_example() -> None:
    assert set(MESSAGES) <= set(WHOLE)
    for name, message in MESSAGES.items():
        assert message_of(WHOLE[name]).hex() == message["message"]
        assert decode(message_of(WHOLE[name])).items() >= {**message["fields"], "2": message["fields"].get("2", "")}.items() - {("2", "")}


@pytest.mark.parametrize("name", WHOLE)
def test_an_example_is_what_the_codec_makes_of_its_own_values(name: str) -> None:
    message = message_of(WHOLE[name])
    fields = decode(message)
    tag = fields.pop("64", None) or fields.pop("128")
    proving = [key for key in ("sign_on_key", "mac_key") if MacKey(bytes.fromhex(VECTORS[key])).verifies(message[:-8], bytes.fromhex(tag))]
    assert len(proving) == 1
    assert encode(fields, MacKey(bytes.fromhex(VECTORS[proving[0]]))) == message
    assert f"under the {proving[0].replace('sign_on', 'sign-on').replace('mac', 'MAC').replace('_', ' ')}" in WHOLE[name][-1][2]


@pytest.mark.parametrize("name", WHOLE)
def test_each_line_of_an_example_is_the_part_that_it_says(name: str) -> None:
    message = message_of(WHOLE[name])
    _, encoded = iso8583.decode(message, SPECIFICATION)
    elements = {f"DE{element}" for element in encoded if element.isdigit() and element != "1"}
    expected = {"t": "MTI", "p": "bitmap", "1": "second bitmap"}
    for element, piece in encoded.items():
        if element == "h":
            continue
        wanted = expected.get(element, f"DE{element}")
        assert (wanted, piece["len"] + piece["data"]) in [(part, content) for part, content, _ in WHOLE[name]]
    assert {part for part, _, _ in WHOLE[name] if part.startswith("DE")} == elements
    listed = " ".join(note for part, _, note in WHOLE[name] if part.endswith("bitmap"))
    assert {f"DE{number}" for number in re.findall(r"\d+", listed)} == elements
    assert ("second bitmap" in listed) == ("1" in encoded)


def test_values_in_words_are_those_of_the_bytes() -> None:
    """DE11 000002, DE12 12:05:01, DE41 "T0000001" and the like."""
    checked = 0
    for example in WHOLE.values():
        fields = decode(message_of(example))
        for part, _, note in example:
            if match := re.fullmatch(r'(?:"([^"]*)"|(\d{2}:\d{2}:\d{2}|\d{3,6}))', note):
                shown = (match[1] or match[2]).replace(":", "")
                assert fields[part.removeprefix("DE")] == shown
                checked += 1
            if match := re.fullmatch(r"(\d+) fen", note):
                assert int(fields["4"]) == int(match[1])
                checked += 1
            if match := re.match(r"(\d+) (?:bytes|digits)\b", note):
                assert len(fields[part.removeprefix("DE")]) == int(match[1])
                checked += 1
    assert checked > 30


def test_the_frame_is_cut_as_it_says() -> None:
    (name,) = set(EXAMPLES) - set(WHOLE)
    example = EXAMPLES[name]
    content = {part: content for part, content, _ in example}
    cut = list(FrameBuffer().feed(message_of(example)))
    assert cut == [(content["TPDU"], bytes.fromhex(MESSAGES[name.removeprefix("frame ")]["message"]))]
    swapped = content["TPDU"][:1] + content["TPDU"][3:] + content["TPDU"][1:3]
    assert f"The reply's TPDU is `{swapped.hex(' ')}`" in PROTOCOL


def test_keys_are_derived_as_shown() -> None:
    (block,) = blocks(PROTOCOL, "keys").values()
    shown = dict(re.split(r" {2,}", line) for line in block.splitlines())
    master_key, terminal_nonce, switch_nonce = (bytes.fromhex(shown[name]) for name in ("master key", "terminal nonce", "switch nonce"))
    mac_key, pin_key = session_keys(master_key, "T0000001", terminal_nonce, switch_nonce)
    derived = {"sign-on key": sign_on_key(master_key, "T0000001"), "MAC key": mac_key, "PIN key": pin_key}
    assert {name: key.hex() for name, key in derived.items()} == {name: shown[name] for name in derived}
    published = ("tmk", "terminal_nonce", "switch_nonce", "sign_on_key", "mac_key", "pin_key")
    assert list(shown.values()) == [VECTORS[name] for name in published]


# --- protocol.md: tables ---


def elements_of(cell: str) -> Iterator[int]:
    for entry in cell.split(","):
        first, _, last = entry.strip().partition("-")
        yield from range(int(first), int(last or first) + 1)


def specified(notation: str) -> dict[str, Any]:
    """A format of the element table in pyiso8583's terms."""
    match = re.fullmatch(r"(LLVAR |LLLVAR |)(n|x\+n|an|ans|b|z) (\d+)", notation)
    assert match is not None, f"unknown format {notation}"
    variable, kind, count = {"": 0, "LLVAR ": 1, "LLLVAR ": 2}[match[1]], match[2], int(match[3])
    if kind in {"n", "z"}:
        padding = {"right_pad": "0"} if variable else {"left_pad": "0"}
        return {"data_enc": "b", "len_enc": "bcd", "len_type": variable, "len_count": "nibbles", "max_len": count, **padding}
    if kind in {"b", "x+n"}:
        return {"data_enc": "b", "len_enc": "b", "len_type": 0, "max_len": count if kind == "b" else 1 + count // 2}
    return {"data_enc": "ascii", "len_enc": "bcd", "len_type": variable, "max_len": count}


def test_the_element_table_is_the_terminals_specification() -> None:
    table = [row for row in rows(section(PROTOCOL, "Encoding")) if re.fullmatch(r"[\d, -]+", row[0]) and len(row) == 4]
    shown = {element: specified(row[2]) for row in table for element in elements_of(row[0])}
    assert sum(len(list(elements_of(row[0]))) for row in table) == len(shown), "an element stands twice"
    assert {str(element): shape for element, shape in shown.items()} == {
        element: dict(shape) for element, shape in SPECIFICATION.items() if element.isdigit() and element != "1"
    }
    assert 65 not in shown
    assert f"`{CURRENCY}`" in PROTOCOL
    assert f"1 to {FRAME_BYTES_MAX}" in PROTOCOL


def test_every_response_code_and_no_other_is_listed() -> None:
    ledger = (ROOT / "core_rs" / "src" / "ledger" / "response.rs").read_text(encoding="utf-8")
    decided = set(re.findall(r'=> "(\d\d)"', ledger))
    listed = [row for row in rows(section(PROTOCOL, "Response codes")) if row[0]]
    assert {row[0] for row in listed} == decided <= set(RESPONSES)
    not_remembered = {row[0] for row in listed if row[2] == "no"} - {row[0] for row in listed if row[2] == "yes"}
    assert not_remembered == {"30", "58", "63", "91", "96"}


def test_reasons_for_closing_a_connection_are_the_cores() -> None:
    files = ("reactor/mod.rs", "reactor/connection.rs", "iso8583/frame.rs", "iso8583/message.rs")
    sources = "".join((ROOT / "core_rs" / "src" / name).read_text(encoding="utf-8") for name in files)
    reasons = {row[1].strip("`") for row in rows(section(PROTOCOL, "Transport"))} | {"mac_failures"}
    assert len(reasons) == 11
    assert not [reason for reason in reasons if f'"{reason}"' not in sources]


# --- operating.md ---


def known_options() -> set[str]:
    parser = cli._parser()
    (commands,) = (action.choices for action in parser._actions if isinstance(action.choices, dict))
    return {option for command in (parser, *commands.values()) for action in command._actions for option in action.option_strings}


def command_lines() -> list[str]:
    """Every call of `switch` in the documentation, in blocks and in running text."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [line for match in BLOCK.finditer(text) if match["kind"] in {"", "sh"} for line in match["text"].splitlines()] + sorted(
            spans(text)
        )
        found += [line.partition("#")[0].removeprefix(".venv/bin/").strip() for line in lines]
    return [line for line in found if re.match(r"switch (?!\w+\.)[a-z-]", line)]


def test_every_command_that_is_written_down_can_be_called() -> None:
    lines = command_lines()
    assert len(lines) > 15
    for line in lines:
        complaint = complaint_about([argument for argument in shlex.split(line)[1:] if argument != "..."])
        # A command's bare name in running text leaves out what it needs; anything else wrong is wrong.
        assert complaint is None or "the following arguments are required" in complaint, line


def complaint_about(arguments: list[str]) -> str | None:
    """What the parser says against a call; None: nothing."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as complaint:
        try:
            cli._parser().parse_args(arguments)
        except SystemExit as end:
            return complaint.getvalue() if end.code else None
    return None


def test_every_option_that_is_named_exists() -> None:
    named = {option for span in spans(OPERATING) for option in re.findall(r"(?<!\S)--[a-z-]+", span)}
    assert named
    assert named <= known_options()


def test_the_configuration_is_described_field_by_field() -> None:
    defaults = {
        f"{section_name}.{field}": str(value) if isinstance(value, Path) else value
        for section_name, content in msgspec.structs.asdict(configuration.Sections()).items()
        for field, value in msgspec.structs.asdict(content).items()
    }
    described = {
        row[0].strip("`"): tomllib.loads(f"value = {row[1].strip('`')}")["value"] for row in rows(section(OPERATING, "switch.toml"))
    }
    assert described == defaults
    sections = "|".join(configuration.Sections.__struct_fields__)
    mentioned = {span for page in (OPERATING, PROTOCOL) for span in spans(page) if re.fullmatch(rf"(?:{sections})\.[a-z_]+", span)}
    assert mentioned <= set(defaults)


def test_the_files_shown_can_be_imported(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.mkdir()
    segment_bytes = 8 << 20
    Core.create(str(journal), segment_bytes=segment_bytes)
    core = Core(
        journal=journal,
        key_encryption_key=bytes(32),
        timezone="UTC",
        segment_bytes=segment_bytes,
        amount_max=5_000_000,
        identity_days=8,
        hold_hours=24,
        pin_tries_max=3,
        mac_failures_max=5,
        connections_max=1,
    )
    try:
        reports = [json.loads(core.import_csv(f"{number}.csv", text.encode())) for number, text in blocks(OPERATING, "csv").items()]
        assert [(report["kind"], report["added"]) for report in reports] == [("merchants", 2), ("terminals", 2), ("cards", 2)]
        first, *examples, pins = blocks(POLICIES, "csv").values()
        reports = [json.loads(core.import_csv(f"{number}.csv", text.encode())) for number, text in enumerate((first, pins))]
        assert [(report["kind"], report["added"]) for report in reports] == [("policy", 7), ("pins", 2)]
        # Each rule has an example, of its own rows and no others; it is a whole file with the header before it.
        header = first.splitlines()[0]
        shown = []
        for text in examples:
            report = json.loads(core.import_csv("example.csv", f"{header}\n{text}".encode()))
            (rule,) = {line.split(",")[0] for line in text.splitlines()}
            assert report["added"] + report["changed"] + report["unchanged"] == len(text.splitlines())
            shown.append(rule)
    finally:
        core.close()
    assert shown == re.findall(r"^### (.+)$", section(POLICIES, "The rules"), re.MULTILINE)
    assert shown == [row[0].split("`")[1] for row in rows(section(POLICIES, "The rules").split("\n### ")[0])]
    columns = re.findall(r"`(\w+)`", " ".join(row[0] for row in rows(section(POLICIES, "The policy file"))))
    assert columns == header.split(",")
    fields = {name for text in blocks(OPERATING, "csv").values() for name in text.splitlines()[0].split(",")}
    described = {name for row in rows(section(OPERATING, "Files to import")) for name in spans(row[0])}
    assert described == fields


def test_the_replay_shown_can_be_read(tmp_path: Path) -> None:
    (text,) = blocks((ROOT / "loadtests" / "README.md").read_text(encoding="utf-8"), "csv").values()
    (tmp_path / REPLAY_NAME).write_text(text, encoding="utf-8")
    assert {entry.operation for entry in read_entries(tmp_path / REPLAY_NAME)} == set(Operation)
    described = rows(section((ROOT / "loadtests" / "README.md").read_text(encoding="utf-8"), "The replay format"))
    assert [row[0].strip("`") for row in described] == CSV_HEADER.split(",")


def exported_metrics() -> set[str]:
    histogram = Histogram(bounds=[1], counts=[1, 0], sum=1, count=1)
    statistics = Statistics(
        position=1,
        durable=1,
        business_date="2026-11-22",
        clock_ahead_days=0,
        room=True,
        journal=JournalStatistics(
            mode="O_DIRECT|O_DSYNC",
            segment=1,
            segment_bytes_left=1,
            prepared=True,
            batches=1,
            bytes=1,
            torn_bytes=0,
            sync=histogram,
            batch_records=histogram,
        ),
        requests=[("purchase", "00", 1)],
        latency=histogram,
        connections=Connections(open=1, accepted=1, closed={"peer": 1}, bytes_read=1, bytes_sent=1),
        mac_failures=0,
        debug_build=False,
        waves=1,
        entries={"cards": 1},
        memory={"cards": 1},
    )
    page = exposition(lambda: statistics, Progress)().decode()
    names = set()
    for family in text_string_to_metric_families(page):
        names |= {family.name} if family.type == "histogram" else {sample.name for sample in family.samples}
    return names


def test_metrics_are_all_described_and_all_there() -> None:
    exported = exported_metrics()
    described = {name for row in rows(section(OPERATING, "Metrics")) for name in spans(row[0])}
    assert described == exported
    mentioned = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\b(?:switch|process)_[a-z_]+\b", OPERATING)}
    assert mentioned == exported


def said_by_the_program() -> str:
    """Every string of the sources, Python's pieced together, Rust's continuation lines joined."""
    trees = [ast.parse(source.read_text(encoding="utf-8")) for source in (ROOT / "switch").glob("*.py")]
    said = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    sources = [source.read_text(encoding="utf-8") for source in (ROOT / "core_rs" / "src").rglob("*.rs")]
    said += [re.sub(r"\\\n\s*", "", source) for source in sources]
    return "\n".join(said)


def test_what_the_log_is_said_to_say_it_says() -> None:
    said = said_by_the_program()
    logged = [text for row in rows(section(OPERATING, "Exit codes and log")) for text in spans(row[0])]
    refusals = [
        text
        for text in spans(OPERATING)
        if text.startswith(("cannot listen on", "the journal in", "the journal has lost", "its folder is"))
    ]
    assert len(logged) > 12
    assert len(refusals) == 4
    for text in logged + refusals:
        for piece in re.split(r"…", text):
            assert piece.strip(" :") in said, f"nothing says {text!r}"


def test_the_exit_code_of_a_failed_write_is_the_cores() -> None:
    writer = (ROOT / "core_rs" / "src" / "journal" / "writer.rs").read_text(encoding="utf-8")
    (code,) = re.findall(r"EXIT_CODE_IO: i32 = (\d+);", writer)
    assert code in [row[0] for row in rows(section(OPERATING, "Exit codes and log"))]


def test_tables_are_described_column_by_column() -> None:
    described = {row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in rows(section(OPERATING, "What the tables hold"))}
    assert {name: tuple(columns) for name, columns in described.items() if name in settlement.TABLES} == {
        name: table.columns for name, table in settlement.TABLES.items()
    }
    script = "".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "switch" / "migrations").glob("*.sql")))
    assert set(described) == {*re.findall(r"CREATE TABLE (\w+)", script), "schema_migration"}
    assert "CREATE VIEW spending" in script


# --- all pages ---


def anchors(page: str) -> set[str]:
    """Anchors of a page's headings, as they are made from their words."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", text)) if "://" not in link]
    for link in links:
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{link}: there is no such file"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{link}: there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_folders_and_files_that_are_named_exist(page: Path) -> None:
    named = {
        span
        for span in spans(page.read_text(encoding="utf-8"))
        if re.fullmatch(r"(?:core_rs|switch|tests|benchmarks|loadtests|docs)/[\w./]+", span)
    }
    assert not [name for name in named if not (ROOT / name).exists()]
