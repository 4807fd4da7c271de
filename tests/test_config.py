"""The configuration: defaults, refusals in one sentence, and the folder that `switch init` makes."""

import stat
from pathlib import Path

import msgspec
import pytest

from switch import config
from switch.config import Config, ConfigError, Runtime

A_TIME_ZONE = 'a time zone that this machine knows, such as "Asia/Shanghai", or "" for the machine\'s own'


def load(folder: Path, text: str) -> Config:
    file = folder / "switch.toml"
    file.write_text(text, encoding="utf-8")
    return config.load(file)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    sentence = str(caught.value)
    assert sentence.startswith(f"{folder}/switch.toml")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence.removeprefix(f"{folder}/switch.toml").removeprefix(":").strip()


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    loaded = load(tmp_path, "")
    assert (loaded.terminals.host, loaded.terminals.port) == ("127.0.0.1", 8583)
    assert loaded.admin.port == 8580
    assert loaded.policy.amount_max == 5_000_000
    assert loaded.policy.identity_days == 8
    assert loaded.terminals.mac_failures_max == 5
    assert loaded.journal.segment_bytes == 64 * 1024 * 1024
    assert loaded.campus.timezone == ""
    assert loaded.database.embedded


def test_the_template_shows_every_field_with_its_default(tmp_path: Path) -> None:
    by_template = load(tmp_path, config.TEMPLATE)
    assert by_template == load(tmp_path, "")
    shown = {
        f"{section}.{line.split(' = ')[0]}"
        for block in config.TEMPLATE.split("\n[")[1:]
        for section, _, body in [block.partition("]")]
        for line in body.splitlines()
        if " = " in line and not line.startswith("#")
    }
    there_are = {
        f"{section.name}.{field.name}"
        for section in msgspec.structs.fields(config.Sections)
        for field in msgspec.structs.fields(section.type)
    }
    assert shown == there_are


def test_relative_paths_start_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "switch.toml").write_text('[journal]\nfolder = "here"\n[keys]\nfolder = "/elsewhere/keys"\n')
    monkeypatch.chdir(tmp_path)
    loaded = config.load("site/switch.toml")
    assert loaded.journal.folder == tmp_path / "site" / "here"
    assert loaded.keys.folder == Path("/elsewhere/keys")
    assert loaded.database.folder == tmp_path / "site" / "database"
    assert loaded.runtime_file == tmp_path / "site" / "run" / "serve.json"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "[terminals]\nport = 70000",
            "line 2: terminals.port is 70000; it must be a whole number from 0 (any free port) to 65535.",
        ),
        (
            "[terminals]\nport = -1",
            "line 2: terminals.port is -1; it must be a whole number from 0 (any free port) to 65535.",
        ),
        (
            '[terminals]\nport = "8583"',
            'line 2: terminals.port is "8583"; it must be a whole number from 0 (any free port) to 65535.',
        ),
        (
            "[admin]\nport = true",
            "line 2: admin.port is true; it must be a whole number from 0 (any free port) to 65535.",
        ),
        (
            "[terminals]\nprot = 1",
            "line 2: terminals.prot is unknown; [terminals] takes host, port, connections_max and mac_failures_max.",
        ),
        (
            "[keys]\nfile = 1",
            "line 2: keys.file is unknown; [keys] takes folder.",
        ),
        (
            "[terminal]\nport = 1",
            "line 1: [terminal] is unknown; the sections are [terminals], [admin], [campus], [policy], [journal], [database] and [keys].",
        ),
        (
            "port = 1",
            "line 1: port is unknown; the sections are [terminals], [admin], [campus], [policy], [journal], [database] and [keys].",
        ),
        (
            'file = "x"',
            "line 1: file is unknown; the sections are [terminals], [admin], [campus], [policy], [journal], [database] and [keys].",
        ),
        (
            "journal = 7",
            "line 1: journal is 7; it must be a section, [journal].",
        ),
        (
            '[terminals]\nhost = ""',
            'line 2: terminals.host is ""; it must be an IP address or a host name of this machine, as a string.',
        ),
        (
            "[terminals]\nconnections_max = 0",
            "line 2: terminals.connections_max is 0; it must be a whole number from 1 to 65000.",
        ),
        (
            "[terminals]\nmac_failures_max = 0",
            "line 2: terminals.mac_failures_max is 0; it must be a whole number from 1 to 1000.",
        ),
        (
            '[campus]\nname = ""',
            'line 2: campus.name is ""; it must be a string of 1 to 200 characters.',
        ),
        (
            '[campus]\ntimezone = "Mars/Base"',
            f'line 2: campus.timezone is "Mars/Base"; it must be {A_TIME_ZONE}.',
        ),
        (
            '[campus]\ntimezone = "../../etc/passwd"',
            f'line 2: campus.timezone is "../../etc/passwd"; it must be {A_TIME_ZONE}.',
        ),
        (
            "[campus]\ntimezone = 2020-01-01",
            f'line 2: campus.timezone is "2020-01-01"; it must be {A_TIME_ZONE}.',
        ),
        (
            "[policy]\namount_max = 1000000000000",
            "line 2: policy.amount_max is 1000000000000; it must be a whole number of fen from 1 to 4294967295.",
        ),
        (
            "[policy]\namount_max = 12.5",
            "line 2: policy.amount_max is 12.5; it must be a whole number of fen from 1 to 4294967295.",
        ),
        (
            "[policy]\nidentity_days = 1",
            "line 2: policy.identity_days is 1; it must be a whole number of business days from 2 to 60.",
        ),
        (
            "[journal]\nsegment_bytes = 8388609",
            "line 2: journal.segment_bytes is 8388609; it must be a multiple of 4096 from 8388608 (8 MiB) to 1073741824 (1 GiB).",
        ),
        (
            '[journal]\nfolder = ""',
            'line 2: journal.folder is ""; it must be a path, as a string; a relative one starts at the file\'s own folder.',
        ),
        (
            "[journal]\nfolder = 3",
            "line 2: journal.folder is 3; it must be a path, as a string; a relative one starts at the file's own folder.",
        ),
        (
            '[database]\nurl = "mysql://x"',
            'line 2: database.url is malformed; it must be "embedded" or an address such as "postgresql://user@host/database".',
        ),
        (
            "[terminals]\nport = 9000\n[admin]\nport = 9000",
            "line 4: admin.port is 9000, which terminals.port takes already; the two must differ.",
        ),
        (
            "[policy]\nidentity_days = 3\nhold_hours = 49",
            "line 3: policy.hold_hours is 49, longer than a hold can be completed with policy.identity_days 3; the most is 48.",
        ),
        (
            "[policy]\nidentity_days = 2\nhold_hours = 25",
            "line 3: policy.hold_hours is 25, longer than a hold can be completed with policy.identity_days 2; the most is 24.",
        ),
    ],
)
def test_a_fault_is_named_with_its_field_and_what_is_allowed(tmp_path: Path, text: str, sentence: str) -> None:
    assert refusal(tmp_path, text) == sentence


PORT = "it must be a whole number from 0 (any free port) to 65535."


@pytest.mark.parametrize(
    ("text", "line", "fault"),
    [
        ("# port = 70000\n[admin]\nport = 1\n\n [ terminals ] # here\n\nport=70000", 7, f"terminals.port is 70000; {PORT}"),
        ("terminals.host = 'a'\nterminals.port = 70000", 2, f"terminals.port is 70000; {PORT}"),
        ("terminals = {port = 70000}\n", 1, f"terminals.port is 70000; {PORT}"),
        ('["terminals"]\r\n"port" = 70000\r\n', 2, f"terminals.port is 70000; {PORT}"),
        ('[campus]\nname = """\n[terminals]\nport = 70000\n"""\n[terminals]\nport = 70001', 7, f"terminals.port is 70001; {PORT}"),
        ("[terminals]\nhost = 'a'\nport = [\n1,\n2]", 3, f"terminals.port is [1,2]; {PORT}"),
        ("[terminals]\n[terminals.tls]\nport = 1", 2, "terminals.tls is unknown; "),
        ("[keys]\n[[terminals]]\nport = 1", 2, 'terminals is [{"port":1}]; it must be a section, [terminals].'),
        ("[keys]\n\n[terminal]\n[admin]\n", 3, "[terminal] is unknown; "),
        ("\n[terminals]\nport = 8580", 3, "admin.port is 8580, which terminals.port takes already; the two must differ."),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path: Path, text: str, line: int, fault: str) -> None:
    assert refusal(tmp_path, text).startswith(f"line {line}: {fault}")


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://[bad/db",
        "postgresql://switch:hunter2@[bad/db",
        "postgresql://switch:hunter2@host/a database",
        "postgresql://switch:hunter2@host/database\\n",
        "mysql://switch:hunter2@host/database",
        "embedded\\n",
        "",
    ],
)
def test_an_address_that_is_none_is_refused_and_never_shown(tmp_path: Path, address: str) -> None:
    fault = 'database.url is malformed; it must be "embedded" or an address such as "postgresql://user@host/database".'
    assert refusal(tmp_path, f'[database]\nurl = "{address}"') == f"line 2: {fault}"
    assert refusal(tmp_path, f'[database]\nurl = ["{address}"]') == f"line 2: {fault}"
    section = "database is malformed; it must be a section, [database]."
    assert refusal(tmp_path, f'database = "{address}"') == f"line 1: {section}"


def test_several_servers_may_be_named_in_an_address(tmp_path: Path) -> None:
    address = "postgresql://switch@first:5432,second:5433/switch"
    assert load(tmp_path, f'[database]\nurl = "{address}"').database.url == address


def test_a_syntax_error_is_named_with_its_line(tmp_path: Path) -> None:
    sentence = refusal(tmp_path, '[terminals]\nhost = "a"\nport 8583\n')
    assert sentence.startswith("this is not TOML: ")
    assert "line 3" in sentence


def test_a_file_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "switch.toml").write_bytes("[campus]\nname = '中国'\n".encode("gbk"))
    with pytest.raises(ConfigError, match=r"switch\.toml: line 2 is not UTF-8, which TOML must be\.$"):
        config.load(tmp_path / "switch.toml")


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no such file; `switch init DIR` makes one\.$"):
        config.load(tmp_path / "switch.toml")


def test_port_zero_may_stand_twice(tmp_path: Path) -> None:
    assert load(tmp_path, "[terminals]\nport = 0\n[admin]\nport = 0\n").admin.port == 0


def test_a_postgresql_address_replaces_the_embedded_database(tmp_path: Path) -> None:
    loaded = load(tmp_path, '[database]\nurl = "postgresql://switch@db.example/switch"\n')
    assert not loaded.database.embedded


def test_init_makes_a_folder_that_loads_with_its_secrets_closed(tmp_path: Path) -> None:
    made = config.initialise(tmp_path / "new" / "data")
    root = tmp_path / "new" / "data"
    assert made == config.load(root / "switch.toml")
    assert len(made.key_encryption_key()) == 32
    assert len(made.admin_token()) >= 32
    assert {path.name for path in root.iterdir()} == {"switch.toml", "keys", "journal", "database", "run"}
    for folder in ("keys", "journal", "database", "run"):
        assert stat.S_IMODE((root / folder).stat().st_mode) == 0o700
    for secret in ("key-encryption.key", "admin.token"):
        assert stat.S_IMODE((root / "keys" / secret).stat().st_mode) == 0o600


def test_two_inits_share_no_secret(tmp_path: Path) -> None:
    first, second = config.initialise(tmp_path / "a"), config.initialise(tmp_path / "b")
    assert first.key_encryption_key() != second.key_encryption_key()
    assert first.admin_token() != second.admin_token()


def test_init_refuses_a_folder_with_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(ConfigError, match=r"this folder is not empty; name a new or an empty one\.$"):
        config.initialise(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_init_refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"this is not a folder; name a new or an empty one\.$"):
        config.initialise(tmp_path / "file")
    with pytest.raises(ConfigError, match=r"this is not a folder; name a new or an empty one\.$"):
        config.initialise(tmp_path / "file" / "below")


def test_init_takes_everything_away_again_when_the_journal_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Core:
        @staticmethod
        def create(journal: str, *, segment_bytes: int) -> None:
            (Path(journal) / "half-made").write_text("")
            raise RuntimeError(f"no space left for {segment_bytes} bytes")

    monkeypatch.setattr("switch._core.Core", Core)
    with pytest.raises(RuntimeError, match="no space left for 67108864 bytes"):
        config.initialise(tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())
    monkeypatch.undo()
    config.initialise(tmp_path / "data")


@pytest.mark.parametrize(
    ("content", "mode", "fault"),
    [
        ("00112233445566778899aabbccddeeff" * 2 + "\n", 0o640, "other users may read this secret; close it with: chmod 600 "),
        ("00112233445566778899aabbccddeeff\n", 0o600, "this is no key; it must hold 64 hexadecimal digits."),
        ("zz112233445566778899aabbccddeeff" * 2 + "\n", 0o600, "this is no key; it must hold 64 hexadecimal digits."),
    ],
)
def test_a_bad_key_is_refused(tmp_path: Path, content: str, mode: int, fault: str) -> None:
    loaded = load(tmp_path, "")
    with pytest.raises(ConfigError, match="this file is missing; restore it from its backup"):
        loaded.key_encryption_key()
    loaded.keys.folder.mkdir()
    key = loaded.keys.folder / "key-encryption.key"
    key.write_text(content)
    key.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        loaded.key_encryption_key()
    assert str(caught.value).startswith(f"{key}: {fault}")


def test_the_runtime_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "run" / "serve.json"
    assert Runtime.read(file) is None
    for pid in (1, 2):
        running = Runtime(pid=pid, terminals="127.0.0.1:1", admin="127.0.0.1:2", database="postgresql://x")
        running.write(file)
        assert Runtime.read(file) == running
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text("{")
    assert Runtime.read(file) is None
