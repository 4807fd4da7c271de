"""What an operator decides: `switch.toml`, the keys beside it, and the folder that `switch init` makes for both.

Always true here: a `Config` in hand is whole and within its ranges, so nothing that reads it checks again. Every field has a
default. An unknown field is refused, because a misspelt limit that is silently ignored is no limit. A refusal is one sentence:
the file and line, the field's path, what is wrong and what is allowed. The database's address is never shown: it may hold a password.

How it works: msgspec's structs below are the schema, and each field carries its range and the words for it (`Meta`). The file is
converted in one go; only when that fails is it walked field by field to find the words for the first fault, and then statement by
statement to find its line, which tomllib does not tell.
"""

import contextlib
import os
import re
import secrets
import shutil
import stat
import tomllib
import typing
import zoneinfo
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

__all__ = [
    "Admin",
    "Campus",
    "Config",
    "ConfigError",
    "Database",
    "Journal",
    "Keys",
    "Policy",
    "Runtime",
    "Terminals",
    "initialise",
    "load",
]

CONFIG_NAME: Final = "switch.toml"
KEY_ENCRYPTION_KEY_NAME: Final = "key-encryption.key"
KEY_ENCRYPTION_KEY_BYTES: Final = 32
ADMIN_TOKEN_NAME: Final = "admin.token"  # noqa: S105 - the file's name
EMBEDDED: Final = "embedded"
ADDRESS: Final = re.compile(r"postgres(ql)?://\S+")

NOT_SHOWN: Final = ("database", "database.url")
"""What may hold a password: no refusal repeats its value."""


class ConfigError(Exception):
    """One sentence for the operator; nothing was changed."""


class TimeZone(str):
    """A name of the IANA time zone database that this machine knows, or "" for the machine's own zone."""

    __slots__ = ()


class DatabaseAddress(str):
    """`EMBEDDED`, or a PostgreSQL's address that can be taken apart."""

    __slots__ = ()


Host = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9.:_-]{1,253}$", description="an IP address or a host name of this machine, as a string"),
]
Port = Annotated[int, Meta(ge=0, le=65535, description="a whole number from 0 (any free port) to 65535")]
Folder = Annotated[Path, Meta(description="a path, as a string; a relative one starts at the file's own folder")]


class Terminals(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The listener for terminals and what one of them may use up."""

    host: Host = "127.0.0.1"
    port: Port = 8583
    connections_max: Annotated[int, Meta(ge=1, le=65_000, description="a whole number from 1 to 65000")] = 16_384
    mac_failures_max: Annotated[int, Meta(ge=1, le=1000, description="a whole number from 1 to 1000")] = 5


class Admin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The listener for operators, metrics and health."""

    host: Host = "127.0.0.1"
    port: Port = 8580


class Campus(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose cards these are, and by which clock its business days change."""

    name: Annotated[str, Meta(min_length=1, max_length=200, description="a string of 1 to 200 characters")] = "Campus"
    timezone: Annotated[
        TimeZone,
        Meta(description='a time zone that this machine knows, such as "Asia/Shanghai", or "" for the machine\'s own'),
    ] = TimeZone("")


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the ledger allows. Amounts are in fen."""

    # The ledger holds a purchase's parts in 32 bits; a higher ceiling would be a mistyped one.
    amount_max: Annotated[int, Meta(ge=1, le=4_294_967_295, description="a whole number of fen from 1 to 4294967295")] = 5_000_000
    identity_days: Annotated[int, Meta(ge=2, le=60, description="a whole number of business days from 2 to 60")] = 8
    hold_hours: Annotated[int, Meta(ge=1, le=720, description="a whole number of hours from 1 to 720")] = 24
    pin_tries_max: Annotated[int, Meta(ge=1, le=10, description="a whole number from 1 to 10")] = 3


class Journal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The switch's memory on disk."""

    folder: Folder = Path("journal")
    segment_bytes: Annotated[
        int,
        Meta(
            # It must hold the largest batch; and it is filled with zeros ahead of use, which should not take minutes.
            ge=8_388_608,
            le=1_073_741_824,
            multiple_of=4096,
            description="a multiple of 4096 from 8388608 (8 MiB) to 1073741824 (1 GiB)",
        ),
    ] = 67_108_864
    snapshot_records: Annotated[
        int,
        Meta(ge=1_000, le=1_000_000_000, description="a whole number of records from 1000 to 1000000000"),
    ] = 5_000_000
    old_segments: Annotated[
        Literal["keep", "archive", "remove"],
        Meta(description='"keep", "archive" or "remove"'),
    ] = "keep"
    archive: Folder = Path("archive")


class Database(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The PostgreSQL that follows the journal: one that the switch runs itself, or the site's own."""

    url: Annotated[
        DatabaseAddress,
        Meta(description='"embedded" or an address such as "postgresql://user@host/database"'),
    ] = DatabaseAddress(EMBEDDED)
    folder: Folder = Path("database")

    @property
    def embedded(self) -> bool:
        """Whether the switch runs the database itself, in `folder`."""
        return self.url == EMBEDDED


class Keys(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the secrets lie. Back this folder up apart from the journal, which is of no use without it."""

    folder: Folder = Path("keys")


class Sections(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of `switch.toml`, section by section."""

    terminals: Terminals = Terminals()
    admin: Admin = Admin()
    campus: Campus = Campus()
    policy: Policy = Policy()
    journal: Journal = Journal()
    database: Database = Database()
    keys: Keys = Keys()


class Config(Sections, frozen=True, kw_only=True):
    """A configuration that was read and found good. Its paths are absolute."""

    file: Path

    @property
    def runtime_file(self) -> Path:
        """Where a running switch says how to reach it."""
        return self.file.parent / "run" / "serve.json"

    def key_encryption_key(self) -> bytes:
        """The key that wraps the terminals' master keys in the journal (AES-256): 32 bytes.

        Raises `ConfigError` where the file is missing, malformed or open to other users.
        """
        path = self.keys.folder / KEY_ENCRYPTION_KEY_NAME
        text = secret(path)
        with contextlib.suppress(ValueError):
            key = bytes.fromhex(text)
            if len(key) == KEY_ENCRYPTION_KEY_BYTES:
                return key
        raise ConfigError(f"{path}: this is no key; it must hold {KEY_ENCRYPTION_KEY_BYTES * 2} hexadecimal digits.")

    def admin_token(self) -> str:
        """The token that an operator's request must carry.

        Raises `ConfigError` where the file is missing, empty or open to other users.
        """
        path = self.keys.folder / ADMIN_TOKEN_NAME
        token = secret(path)
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise ConfigError(f"{path}: this is no token; it must hold one line of printable ASCII without spaces.")
        return token


def load(path: Path | str) -> Config:
    """Read `switch.toml`.

    Raises `ConfigError`, one sentence that names the file and, where there is one, the field, its fault and what is allowed.
    """
    file = Path(path).absolute()
    try:
        text = file.read_bytes().decode()
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; `switch init DIR` makes one.") from None
    except OSError as error:
        raise ConfigError(f"{path}: it cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: line {line} is not UTF-8, which TOML must be.") from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: this is not TOML: {str(error).rstrip('.')}.") from None

    def decode(wanted: type, value: Any) -> Any:
        return _decode(wanted, value, file.parent)

    try:
        sections = msgspec.convert(document, Sections, dec_hook=decode)
    except msgspec.ValidationError as error:
        fault = _explain(document, decode)
        if fault is None:
            raise ConfigError(f"{path}: {error}.") from None
        raise ConfigError(f"{path}{_at_line(text, fault.section, fault.name)}: {fault.sentence}") from None
    config = Config(
        file=file,
        terminals=sections.terminals,
        admin=sections.admin,
        campus=sections.campus,
        policy=sections.policy,
        journal=msgspec.structs.replace(
            sections.journal, folder=file.parent / sections.journal.folder, archive=file.parent / sections.journal.archive
        ),
        database=msgspec.structs.replace(sections.database, folder=file.parent / sections.database.folder),
        keys=msgspec.structs.replace(sections.keys, folder=file.parent / sections.keys.folder),
    )
    _check_together(config, path, text)
    return config


def _check_together(config: Config, path: Path | str, text: str) -> None:
    """What each section alone cannot tell. Raises `ConfigError`."""
    if config.journal.archive.resolve() == config.journal.folder.resolve():
        place = _at_line(text, "journal", "archive") or _at_line(text, "journal", "folder")
        raise ConfigError(f"{path}{place}: journal.archive is journal.folder itself; name a folder of its own.")
    if config.admin.port and (config.admin.host, config.admin.port) == (config.terminals.host, config.terminals.port):
        place = _at_line(text, "admin", "port") or _at_line(text, "terminals", "port")
        raise ConfigError(f"{path}{place}: admin.port is {config.admin.port}, which terminals.port takes already; the two must differ.")
    policy = config.policy
    if policy.hold_hours > (hours := 24 * (policy.identity_days - 1)):
        place = _at_line(text, "policy", "hold_hours") or _at_line(text, "policy", "identity_days")
        raise ConfigError(
            f"{path}{place}: policy.hold_hours is {policy.hold_hours}, longer than a hold can be completed with policy.identity_days"
            f" {policy.identity_days}; the most is {hours}."
        )


def initialise(directory: Path | str) -> Config:
    """Make a data folder: a commented `switch.toml`, keys, an empty journal, and folders for what runs there.

    All of it is on disk before this returns: a key lost in a power cut would make the journal unreadable. When a step fails,
    what was made is taken away again. Raises `ConfigError` where `directory` is not empty or cannot be written,
    `switch._core.CoreError` where the journal cannot be made.
    """
    # Imported here so that a configuration can be read and checked where the extension is not built.
    from switch._core import Core  # noqa: PLC0415

    root = Path(directory)
    try:
        root.mkdir(parents=True, exist_ok=True)
        if any(root.iterdir()):
            raise ConfigError(f"{directory}: this folder is not empty; name a new or an empty one.")
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(f"{directory}: this is not a folder; name a new or an empty one.") from None
    except OSError as error:
        raise ConfigError(f"{directory}: the folder cannot be made: {error.strerror}.") from None
    try:
        for name in ("keys", "database", "run"):
            (root / name).mkdir(mode=0o700)
        key = secrets.token_hex(KEY_ENCRYPTION_KEY_BYTES)
        _write(root / "keys" / KEY_ENCRYPTION_KEY_NAME, key + "\n", 0o600)
        _write(root / "keys" / ADMIN_TOKEN_NAME, secrets.token_urlsafe(32) + "\n", 0o600)
        _write(root / CONFIG_NAME, TEMPLATE, 0o644)
        config = load(root / CONFIG_NAME)
        config.journal.folder.mkdir(mode=0o700)
        for folder in (root / "keys", root, root.absolute().parent):
            _sync_folder(folder)
        Core.create(str(config.journal.folder), segment_bytes=config.journal.segment_bytes)
    except BaseException as error:
        for made in root.iterdir():
            if made.is_dir():
                shutil.rmtree(made, ignore_errors=True)
            else:
                made.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ConfigError(f"{directory}: the folder cannot be filled: {error.strerror}.") from None
        raise
    return config


class Runtime(Struct, frozen=True, kw_only=True):
    """How to reach the switch that runs on a data folder. Left behind by one that was killed: it answers then, or nobody does."""

    pid: int
    terminals: str
    admin: str
    database: str

    def write(self, file: Path) -> None:
        """Put it into place whole, so that a reader never sees half of it."""
        file.parent.mkdir(mode=0o700, exist_ok=True)
        unfinished = file.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        _write(unfinished, msgspec.json.encode(self).decode() + "\n", 0o600)
        unfinished.replace(file)

    @classmethod
    def read(cls, file: Path) -> "Runtime | None":
        """What the running switch wrote; None where none runs, or the file is not one of ours."""
        try:
            return msgspec.json.decode(file.read_bytes(), type=cls)
        except (FileNotFoundError, msgspec.DecodeError):
            return None


def _decode(wanted: type, value: Any, base: Path) -> Any:
    """Make what msgspec does not know by itself: paths, time zones and addresses."""
    if not isinstance(value, str):
        raise ValueError("a string is expected")  # noqa: TRY004 - msgspec turns ValueError into its own error
    if wanted is Path:
        if not value or "\0" in value:
            raise ValueError("a path is expected")
        return base / Path(value).expanduser()
    if wanted is DatabaseAddress:
        if value != EMBEDDED:
            if not ADDRESS.fullmatch(value):
                raise ValueError("an address is expected")
            urlsplit(value)  # its ValueError is ours
        return DatabaseAddress(value)
    assert wanted is TimeZone, wanted  # a new type of field must be decoded here
    if value:
        try:
            zoneinfo.ZoneInfo(value)
        except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError):
            raise ValueError("an unknown time zone") from None
    return TimeZone(value)


class Fault(NamedTuple):
    """What is wrong, and with which section or field of one."""

    section: str
    name: str | None
    sentence: str


def _explain(document: dict[str, Any], decode: typing.Callable[[type, Any], Any]) -> Fault | None:
    """Find the words for the first fault that kept `document` from becoming `Sections`."""
    sections = typing.get_type_hints(Sections)
    for section_name, content in document.items():
        section = sections.get(section_name)
        if section is None:
            what = f"[{section_name}]" if isinstance(content, dict) else section_name
            return Fault(section_name, None, f"{what} is unknown; the sections are {_listed(f'[{name}]' for name in sections)}.")
        if not isinstance(content, dict):
            return Fault(section_name, None, f"{section_name} is {_shown(section_name, content)}; it must be a section, [{section_name}].")
        fields = typing.get_type_hints(section, include_extras=True)
        for name, value in content.items():
            path = f"{section_name}.{name}"
            if name not in fields:
                return Fault(section_name, name, f"{path} is unknown; [{section_name}] takes {_listed(fields)}.")
            try:
                msgspec.convert(value, fields[name], dec_hook=decode)
            except msgspec.ValidationError:
                (meta,) = fields[name].__metadata__
                return Fault(section_name, name, f"{path} is {_shown(path, value)}; it must be {meta.description}.")
    return None


def _at_line(text: str, section: str, name: str | None) -> str:
    """Where a section, or a field of it, is first named in a good TOML text, as " line N"; "" where it is not.

    Every statement is parsed by itself below the header that it stands under, so that strings over several lines, dotted keys and
    inline tables are what tomllib says they are.
    """
    header, statement, first = "", "", 1
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        statement = f"{statement}\n{line}" if statement else line
        try:
            found = tomllib.loads(statement if statement.lstrip().startswith("[") else f"{header}\n{statement}")
        except tomllib.TOMLDecodeError:
            continue  # it goes on in the next line
        if statement.lstrip().startswith("["):
            header = statement
        content = found.get(section)
        if section in found and (name is None or (isinstance(content, dict) and name in content)):
            return f" line {first}"
        statement, first = "", number + 1
    return ""


def _listed(names: typing.Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _shown(path: str, value: Any) -> str:
    """A value as the operator wrote it, or near enough, and short."""
    if path in NOT_SHOWN:
        return "malformed"
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError):
        text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def secret(path: Path) -> str:
    """The one line of a file that nobody but its owner may read."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigError(f"{path}: other users may read this secret; close it with: chmod 600 {path}.")
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise ConfigError(f"{path}: this file is missing; restore it from its backup.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: it cannot be read: {error}.") from None


def _write(path: Path, text: str, mode: int) -> None:
    """Make a new file with its content on disk. `mode` holds from the first moment, whatever the umask."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor, not a path
        os.fchmod(descriptor, mode)
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Every field with its default, so that an operator sees what there is; a test holds it against the structs above.
TEMPLATE: Final = """\
# The campus card switch. What is left out takes the value shown here; a name that is not known is refused.
# A relative path starts at this file's folder.

[terminals]
# Where terminals connect. "0.0.0.0" listens on every address of this machine; port 0 takes any free one.
host = "127.0.0.1"
port = 8583
# More connections than this are closed at once.
connections_max = 16384
# So many wrong MACs in a row close a connection.
mac_failures_max = 5

[admin]
# Where operators' commands, /metrics, /healthz and /readyz are served. Keep it off the terminals' network.
host = "127.0.0.1"
port = 8580

[campus]
name = "Campus"
# The clock by which terminals date their messages and business days change, such as "Asia/Shanghai"; "" is the machine's own.
timezone = ""

[policy]
# The highest amount of one operation, in fen.
amount_max = 5000000
# For so many business days a repeated request gets its first answer again.
identity_days = 8
# A hold that nobody completes lapses after so many hours, 24 at most for each of the identity_days but one.
hold_hours = 24
# So many wrong PINs in a row lock a card's PIN.
pin_tries_max = 3

[journal]
folder = "journal"
# The size of one file of the journal; a multiple of 4096.
segment_bytes = 67108864
# A snapshot is made after so many records, and when the business date has moved on; a start goes on from the newest one.
snapshot_records = 5000000
# What becomes of files that no start needs any more, once PostgreSQL has them too: "keep", "archive" (moved to the folder below)
# or "remove".
old_segments = "keep"
archive = "archive"

[database]
# "embedded" runs a PostgreSQL of its own in the folder below; "postgresql://user@host/database" uses yours instead.
url = "embedded"
folder = "database"

[keys]
# Secrets. Back them up apart from the journal: without the key it cannot be used.
folder = "keys"
"""
