"""The documentation against the program: what docs/*.md and README.md say that can be tried or looked up is tried or looked up.

Every example of bytes is taken apart and put together again by the reference terminal's codec; the element table is held against
its specification; commands are parsed, files imported, metrics and log lines looked for where they come from.
"""

import ast
import contextlib
import datetime
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
    encode,
    session_keys,
    sign_on_key,
    sub_element_pairs,
)
from switch.follow import Progress
from switch.metrics import Connections, Histogram, JournalStatistics, Statistics, exposition
from switch.replay import CSV_HEADER, REPLAY_NAME, Operation, read_entries
from tests.documented import (
    BLOCK,
    EXAMPLES,
    FILES,
    FRAMES,
    KEYS,
    KEYS_TERMINAL,
    MASTER_KEY,
    NONCES,
    PIN_EXAMPLE,
    PROTOCOL,
    ROOT,
    STORY,
    WHOLE,
    blocks,
    own_text,
    pin_block,
    rows,
    section,
    spans,
)

PAGES: Final = (ROOT / "README.md", ROOT / "loadtests" / "README.md", *sorted((ROOT / "docs").glob("*.md")))
POLICIES: Final = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
OPERATING: Final = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
VECTORS: Final[dict[str, Any]] = json.loads((ROOT / "tests" / "vectors.json").read_text(encoding="utf-8"))
ECHOED: Final = ("2", "3", "4", "11", "12", "13", "24", "41", "42", "49", "60", "70")
MESSAGES: Final[dict[str, dict[str, Any]]] = {message["name"]: message for message in VECTORS["messages"]}

# --- protocol.md: bytes ---


def test_every_published_message_is_an_example() -> None:
    assert set(MESSAGES) <= set(WHOLE)
    for name, message in MESSAGES.items():
        assert WHOLE[name].message.hex() == message["message"]
        assert WHOLE[name].fields == message["fields"]


@pytest.mark.parametrize("name", WHOLE)
def test_an_example_is_what_the_codec_writes_and_its_mac_is_right(name: str) -> None:
    example = WHOLE[name]
    written = encode(example.fields, example.key())
    assert example.message == written, f"the codec writes {written.hex()}"
    assert example.is_proved


@pytest.mark.parametrize("name", WHOLE)
def test_each_line_of_an_example_is_the_part_that_it_says(name: str) -> None:
    parts = WHOLE[name].parts
    _, encoded = iso8583.decode(WHOLE[name].message, SPECIFICATION)
    elements = {f"DE{element}" for element in encoded if element.isdigit() and element != "1"}
    expected = {"t": "MTI", "p": "bitmap", "1": "second bitmap"}
    for element, piece in encoded.items():
        if element == "h":
            continue
        wanted = expected.get(element, f"DE{element}")
        assert (wanted, piece["len"] + piece["data"]) in [(part, content) for part, content, _ in parts]
    assert {part for part, _, _ in parts if part.startswith("DE")} == elements
    listed = " ".join(note for part, _, note in parts if part.endswith("bitmap"))
    assert {f"DE{number}" for number in re.findall(r"\d+", listed)} == elements
    assert ("second bitmap" in listed) == ("1" in encoded)


TOTALS: Final = dict(
    zip(("74", "75", "76", "77", "86", "87", "88", "89"), ("credits", "credit reversals", "debits", "debit reversals") * 2, strict=True)
)
ACCOUNTS: Final = {"10": "cash", "20": "subsidy"}
NAMED_VALUES: Final = {"01": "the nonce", "02": "the switch's nonce", "52": "the PIN block"}


def month_day(shown: str) -> str:
    """`22 November` as DE13 has it."""
    return f"{datetime.datetime.strptime(f'{shown} 2000', '%d %B %Y'):%m%d}"  # noqa: DTZ007 - a day, no moment


def in_words(element: str, value: str) -> set[str]:
    """How an example may put an element's value."""
    if element in TOTALS:
        return {f"{TOTALS[element]}: {int(value)}" + (" fen" if int(element) > 80 else "")}
    words: dict[str, set[str]] = {
        "2": {f"{len(value)} digits: {value}"},
        "4": {f"{value.lstrip('0') or '0'} fen"},
        "12": {f"{value[:2]}:{value[2:4]}:{value[4:]}"},
        "37": {f"transaction {value.lstrip('0')}", f"of transaction {value.lstrip('0')}"},
        "38": {f"approval code {value}"},
        "60": {f"6 bytes: batch {value}"},
        **{digits: {value} for digits in ("3", "11", "22", "24", "70")},
    }
    return words.get(element, {f'"{value.rstrip()}"'})


def lines_in_words(element: str, value: str) -> list[str]:
    """How an example puts the lines of DE48 and DE54."""
    if element == "54":
        entries = [value[at : at + 20] for at in range(0, len(value), 20)]
        lines = [f"{ACCOUNTS[text[:2]]}, available, {text[4:7]}, {text[7]}, {int(text[8:])} fen" for text in entries]
        assert {text[2:4] for text in entries} == {"02"}
    else:
        lines = [
            f"tag {tag}, length {len(text):02}, " + (NAMED_VALUES[tag] if tag in NAMED_VALUES and len(text) > 1 else f'"{text}"')
            for tag, text in sub_element_pairs(value)
        ]
    return [f"{len(value)} bytes: {lines[0]}", *lines[1:]]


@pytest.mark.parametrize("name", WHOLE)
def test_what_an_example_says_in_words_is_what_its_bytes_say(name: str) -> None:
    example = WHOLE[name]
    asked = EXAMPLES[name.removesuffix(" reply")].fields if name.endswith(" reply") else {}
    for element, value in example.fields.items():
        notes = [line.note for line in example.lines if line.part == f"DE{element}" and line.note]
        if element == "t":
            continue
        if notes == ["echoed"]:
            assert asked.get(element) == value, f"DE{element} is echoed"
        elif element in {"48", "54"}:
            assert notes == lines_in_words(element, value)
        elif element == "13":
            assert [month_day(note) for note in notes] == [value]
        elif element == "15":
            assert [month_day(note.removeprefix("business date, ")) for note in notes] == [value]
        elif element == "90":
            day = datetime.datetime.strptime(f"2000{value[10:14]}", "%Y%m%d")  # noqa: DTZ007 - a day, no moment
            at = f"{value[14:16]}:{value[16:18]}:{value[18:20]}"
            assert value[20:] == "0" * 22
            assert notes == [f"{value[:4]}, STAN {value[4:10]}, {day.day} {day:%B}, {at}, 22 zeros"]
        else:
            (note,) = notes
            assert (note.partition(",")[0] if element == "3" else note) in in_words(element, value)


def test_lines_of_sub_elements_and_purses_are_cut_where_they_say() -> None:
    """Each line of DE48 or DE54 with words begins a sub-element or a purse."""
    for example in WHOLE.values():
        for element in {"48", "54"} & set(example.fields):
            pieces: list[bytes] = []
            for line in example.lines:
                if line.part == f"DE{element}" and line.note:
                    pieces.append(line.content)
                elif line.part == f"DE{element}":
                    pieces[-1] += line.content
            pieces[0] = pieces[0][2:]
            value = example.fields[element]
            expected = (
                [value[:20], value[20:]] if element == "54" else [f"{tag}{len(text):02}{text}" for tag, text in sub_element_pairs(value)]
            )
            assert [piece.decode() for piece in pieces] == expected


def test_the_frame_is_cut_as_it_says() -> None:
    ((name, example),) = FRAMES.items()
    content = {part: content for part, content, _ in example.parts}
    cut = list(FrameBuffer().feed(example.message))
    assert cut == [(content["TPDU"], WHOLE[name.removeprefix("frame ")].message)]
    swapped = content["TPDU"][:1] + content["TPDU"][3:] + content["TPDU"][1:3]
    assert f"The reply's TPDU is `{swapped.hex(' ')}`" in PROTOCOL


def test_keys_are_derived_as_shown() -> None:
    assert len(blocks(PROTOCOL, "keys")) == 1
    mac_key, pin_key = session_keys(MASTER_KEY, KEYS_TERMINAL, *NONCES)
    derived = {"sign-on key": sign_on_key(MASTER_KEY, KEYS_TERMINAL), "MAC key": mac_key, "PIN key": pin_key}
    assert {name: key.hex() for name, key in derived.items()} == {name: KEYS[name] for name in derived}
    published = ("tmk", "terminal_nonce", "switch_nonce", "sign_on_key", "mac_key", "pin_key")
    assert list(KEYS.values()) == [VECTORS[name] for name in published]
    shown = {row[0]: row[1] for row in rows(section(PROTOCOL, "How the examples are written"))}
    assert shown == {terminal: session_keys(MASTER_KEY, terminal, *NONCES)[0].hex() for terminal in shown}
    assert set(shown) == {exchange.terminal for exchange in STORY}


def asked_with_card() -> Iterator[dict[str, str]]:
    return (exchange.request.fields for exchange in STORY if "2" in exchange.request.fields)


def test_the_pin_block_is_made_as_shown() -> None:
    """And it is the one that the purchase with PIN carries."""
    assert len(blocks(PROTOCOL, "pin")) == 1
    pin, card = PIN_EXAMPLE["PIN"], PIN_EXAMPLE["card number"]
    random = bytes.fromhex(PIN_EXAMPLE["PIN field"])[8:]
    made = pin_block(bytes.fromhex(KEYS["PIN key"]), pin, card, random)
    names = ("PIN field", "enciphered", "card field", "XOR", "PIN block")
    assert [PIN_EXAMPLE[name] for name in names] == [step.hex() for step in made]
    (other,) = (name for name in PIN_EXAMPLE if name.startswith("card field of "))
    assert PIN_EXAMPLE[other] == pin_block(bytes(16), pin, other.removeprefix("card field of "), random).card_field.hex()
    sent = [(fields["2"], dict(sub_element_pairs(fields.get("48", ""))).get("52")) for fields in asked_with_card()]
    assert [one for one in sent if one[1]] == [(card, made.block.hex().upper())]
    assert f"\n{card},{pin}\n" in FILES["pins"]


# --- protocol.md: one story ---


def test_replies_are_those_of_their_requests() -> None:
    for exchange in STORY:
        asked, answered = exchange.request.fields, exchange.reply.fields
        assert int(answered["t"]) == int(asked["t"]) + 10, exchange.name
        echo = {element for element in ECHOED if element in asked and (element, asked["t"][:2]) != ("2", "08")}
        assert {element: answered[element] for element in echo} == {element: asked[element] for element in echo}
        added = {"15", "37", "38", "39", "48", "54", *(TOTALS if answered["39"] == "95" else ())}
        assert set(answered) - echo - {"t"} <= added
        assert ("38" in answered) == ("37" in answered and asked["t"][:2] in {"01", "02", "04"} and answered["39"] == "00")
        assert "38" not in answered or answered["38"] == answered["37"][-6:]
        assert exchange.request.key() is not None or asked["70"] == "301"


def test_the_examples_follow_one_another() -> None:
    """In the order of DE12 STANs and transaction numbers rise, and what names another message names one that is there."""
    stans: dict[str, str] = {}
    number = ""
    done: dict[str, dict[str, str]] = {}
    merchants = dict(line.split(",")[:2] for line in FILES["terminals"].splitlines()[1:])
    for exchange in STORY:
        asked, answered = exchange.request.fields, exchange.reply.fields
        assert asked["42"] == merchants[exchange.terminal]
        assert stans.get(exchange.terminal, "") < asked["11"], f"{exchange.name}: a STAN twice"
        stans[exchange.terminal] = asked["11"]
        assert answered["15"] == asked["13"]
        if "37" in answered:
            assert number < answered["37"], f"{exchange.name}: transaction numbers rise"
            number = answered["37"]
        if "37" in asked:
            original = done[asked["37"]]
            assert asked.get("2") == original["2"]
        if "90" in asked:
            (original,) = (one for one in done.values() if asked["90"].startswith(one["t"] + one["11"] + one["13"] + one["12"]))
            assert [asked.get(element) for element in ("2", "3", "4", "49")] == [original.get(element) for element in ("2", "3", "4", "49")]
        done[answered.get("37", exchange.name)] = asked


def test_every_operation_has_an_example() -> None:
    asked = [exchange.request.fields for exchange in STORY]
    said = {(fields["t"], fields.get("3") or fields.get("70") or fields.get("91", "")) for fields in asked}
    table = [row for row in rows(section(PROTOCOL, "Messages")) if len(row) == 5]
    assert len(table) > 20
    for name, mtis, processing, needed, _ in table:
        (mti, *others) = re.findall(r"\d{4}", mtis)
        codes = set(re.findall(r"\d{6}", processing) or re.findall(r"(?<=70 = )\d{3}|(?<=91 = )\d|(?<=91 = 1 or )\d", needed))
        found = {code for said_mti, code in said if said_mti == mti}
        # One of several ways to say the same is enough.
        assert found & codes if " or " in processing else codes <= found or " to " in processing, name
        assert {mti, *others} <= {said_mti for said_mti, _ in said}, name


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
    table = [row for row in rows(section(PROTOCOL, "Response codes")) if len(row) == 3 and row[0]]
    listed = [(code, row[2]) for row in table for code in row[0].split(", ")]
    assert {code for code, _ in listed} == decided <= set(RESPONSES)
    not_remembered = {code for code, remembered in listed if remembered == "no"} - {code for code, yes in listed if yes == "yes"}
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
        assert [(report["kind"], report["added"]) for report in reports] == [
            ("merchants", 2),
            ("terminals", 2),
            ("standings", 0),
            ("cards", 2),
        ]
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


def test_what_a_card_a_terminal_or_a_merchant_may_be_is_described() -> None:
    registry = (ROOT / "core_rs" / "src" / "ledger" / "registry.rs").read_text(encoding="utf-8")
    fields = {row[0].strip("`"): row[1] for row in rows(section(OPERATING, "Files to import"))}
    for field, kind in (
        ("status", "CardStatus"),
        ("class", "CardClass"),
        ("category", "Category"),
        ("kind", "TerminalKind"),
        ("standing", "TerminalStanding"),
    ):
        enumeration = re.search(rf"^    {kind} \{{\n(.*?)^    \}}", registry, re.MULTILINE | re.DOTALL)
        assert enumeration is not None, kind
        names = re.findall(r'= \d+ "(\w+)"', enumeration[1])
        assert len(names) > 1
        assert [name for name in names if not re.search(rf"\b{name}\b", fields[field])] == [], field


def test_what_metrics_are_counted_by_is_described() -> None:
    cells = {row[0].strip("`"): row[1] for row in rows(section(OPERATING, "Metrics"))}
    operations = re.search(r"`operation` \(([\w, ]+)\)", cells["switch_requests_total"])
    assert operations is not None
    source = (ROOT / "core_rs" / "src" / "stats.rs").read_text(encoding="utf-8")
    assert operations[1].split(", ") == re.findall(r'Self::\w+ => "(\w+)"', source)
    report = (ROOT / "core_rs" / "src" / "reactor" / "report.rs").read_text(encoding="utf-8")
    for metric, told in (("switch_entries", "entries"), ("switch_memory_bytes", "memory")):
        counted = re.search(rf'"{told}": \{{(.*?)\}}', report, re.DOTALL)
        assert counted is not None
        names = re.findall(r'"(\w+)":', counted[1])
        assert len(names) > 5
        assert [name for name in names if not re.search(rf"\b{name}\b", cells[metric])] == [], metric


def test_tables_are_described_column_by_column() -> None:
    described = {row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in rows(own_text(OPERATING, "What the tables hold"))}
    assert {name: tuple(columns) for name, columns in described.items() if name in settlement.TABLES} == {
        name: table.columns for name, table in settlement.TABLES.items()
    }
    script = "".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "switch" / "migrations").glob("*.sql")))
    assert set(described) == {*re.findall(r"CREATE TABLE (\w+)", script), "schema_migration"}
    views = {row[0].strip("`") for row in rows(own_text(OPERATING, "Views"))}
    assert views == set(re.findall(r"CREATE (?:OR REPLACE )?VIEW (\w+)", script))


def test_every_operation_and_every_kind_of_exception_is_described() -> None:
    ledger = ROOT / "core_rs" / "src" / "ledger"
    named = re.findall(r'=> "(\w+)"', (ledger / "command.rs").read_text(encoding="utf-8"))
    acts = re.search(r" Act \{(.*?)\n    \}", (ledger / "registry.rs").read_text(encoding="utf-8"), re.DOTALL)
    assert acts is not None
    by_operators = {"policy", "cutover", "merchant", "terminal", "card", "standing", "rules", "pin", "import"}
    assert by_operators <= set(named)
    described = {name for row in rows(own_text(OPERATING, "Transactions")) for name in spans(row[0])}
    assert described == {*named, *re.findall(r'"(\w+)"', acts[1])} - by_operators
    kinds = re.findall(r'const \w+: &str = "(\w+)";', (ROOT / "core_rs" / "src" / "rows" / "exception.rs").read_text(encoding="utf-8"))
    assert {row[0].strip("`") for row in rows(own_text(OPERATING, "Exceptions"))} == set(kinds)


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
