"""The command line: `switch init`, `serve`, `import`, `verify`, `audit`, `check-evidence`, `reconcile`, `export-replay`, `show`, `demo`,
and `follow` for the switch itself.

Always true here: what a command found goes to stdout, as JSON or as a table; what went wrong goes to stderr in one sentence,
and the exit code is then 1 (2 for a wrong call).
"""

import argparse
import contextlib
import datetime
import fcntl
import getpass
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import trio

from switch import audit, evidence
from switch import config as configuration
from switch._core import CoreError, Evidence, Replica, verify
from switch.config import Config, ConfigError, Runtime
from switch.postgres import EmbeddedPostgres, PostgresError

__all__ = ["main"]


class CommandFailed(Exception):
    """One sentence for the operator."""


HEADERS = [
    ("merchant_id", "name"),
    ("terminal_id", "merchant_id"),
    ("terminal_id", "standing"),
    ("card_number", "holder_id"),
    ("card_number", "pin"),
    ("rule", "class"),
]
"""By the first two columns of a file, the order in which files must be taken: terminals name merchants, standings terminals, PINs
cards, and no rule should ask for a PIN before it is set."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except* (audit.AuditFailed, CommandFailed, ConfigError, CoreError, PostgresError) as errors:
        for error in _leaves(errors):
            print(f"switch {options.command}: {error}", file=sys.stderr)
    except* KeyboardInterrupt:
        print(f"switch {options.command}: interrupted.", file=sys.stderr)
    return 1


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="switch", description="The campus card switch.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], summary: str, *, config: bool = True) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary)
        command.set_defaults(run=run)
        if config:
            command.add_argument(
                "--config", metavar="FILE", type=Path, default=Path("switch.toml"), help="the switch.toml (default: in this folder)"
            )
        return command

    init = add("init", _init, "Make a data folder: configuration, keys, an empty journal.", config=False)
    init.add_argument("directory", metavar="DIR", type=Path)
    serve = add("serve", _serve, "Run the switch; prints one JSON line when ready; SIGTERM ends it.")
    serve.add_argument(
        "--accept-date", metavar="YYYY-MM-DD", help="confirm today's campus date, where a start asks for it after a long closure"
    )
    load = add(
        "import",
        _import,
        "Import merchants, terminals, their standings, cards, PINs or rules from CSV files, into the running switch or before its start.",
    )
    load.add_argument("files", metavar="FILE.csv", type=Path, nargs="+")
    check = add("verify", _verify, "Check the whole journal of a switch that is not running.", config=False)
    check.add_argument("directory", metavar="DIR", type=Path)
    report = add("audit", _audit, "Write a part of the journal as an evidence report, beside the running switch or without it.")
    report.add_argument("--from", dest="first", metavar="A", required=True, help="the first record, or business date (YYYY-MM-DD)")
    report.add_argument("--to", dest="last", metavar="B", required=True, help="the last record, or business date")
    report.add_argument("--output", metavar="FILE", type=Path, help="where it goes (default: stdout)")
    report.add_argument("--overwrite", action="store_true", help="in the place of a file that is there already")
    held = add("check-evidence", evidence.run, "Check an evidence report; needs neither switch nor journal.", config=False)
    evidence.add_arguments(held)
    add("reconcile", _reconcile, "Compare ledger and PostgreSQL to the fen at one position.")
    export = add("export-replay", _export_replay, "Write a business day, out of PostgreSQL, as a replay with nobody's card in it.")
    export.add_argument("--day", metavar="YYYY-MM-DD", required=True, help="the business day")
    export.add_argument("--output", metavar="FOLDER", type=Path, required=True, help="a new or an empty folder")
    export.add_argument(
        "--key", metavar="FILE", type=Path, help="64 hex digits; the same key gives the same pseudonyms (default: a key that is forgotten)"
    )
    show = add("show", _show, "Show one card, terminal or merchant.")
    show.add_argument("kind", choices=["card", "terminal", "merchant"])
    show.add_argument("identifier")
    show.add_argument("--json", action="store_true", help="as JSON")
    follow = add("follow", _follow, "Bring the journal into PostgreSQL; `serve` runs this by itself.")
    follow.add_argument("--database", metavar="URL", help="the database's address (default: the configuration's)")
    follow.add_argument("--upkeep", action="store_true", help="also make snapshots and take old segments away, as `serve` has it do")
    demo = add("demo", _demo, "Run a college's lunch on this machine, from empty folder to reconciliation.", config=False)
    demo.add_argument("--speed", type=float, metavar="N", help="times faster than real (default: lunch in about a minute)")
    demo.add_argument("--seed", type=int, default=1, metavar="N", help="another seed, another lunch")
    demo.add_argument("--directory", type=Path, metavar="DIR", help="an empty folder to work in (default: a temporary one)")
    demo.add_argument("--keep", action="store_true", help="leave the folder afterwards")
    return parser


def _init(options: argparse.Namespace) -> int:
    made = configuration.initialise(options.directory)
    print(f"{made.file} is made. Next: switch import --config {made.file} FILE.csv ..., then switch serve --config {made.file}")
    return 0


def _serve(options: argparse.Namespace) -> int:
    from switch.serve import run  # noqa: PLC0415 - only this command needs the servers

    config = configuration.load(options.config)
    trio.run(run, config, lambda line: print(line, flush=True), options.accept_date)
    return 0


def _import(options: argparse.Namespace) -> int:
    from switch.serve import open_core  # noqa: PLC0415 - see _serve

    config = configuration.load(options.config)
    files: list[tuple[Path, bytes]] = []
    for file in options.files:
        try:
            files.append((file, file.read_bytes()))
        except OSError as error:
            raise CommandFailed(f"{file}: the file cannot be read: {error.strerror}.") from None
    files.sort(key=lambda entry: _rank(entry[1]))
    live = _live(config)
    with contextlib.ExitStack() as stack:
        core = None if live else stack.enter_context(open_core(config, config.terminals.connections_max))
        for file, content in files:
            if core is None:
                assert live is not None
                report = _ask(live, config, "POST", "/v1/import", params={"name": str(file)}, content=content)
            else:
                report = core.import_csv(str(file), content)
                core.flush()
            print(report.decode())
    return 0


def _rank(content: bytes) -> int:
    """A file that is none of them goes first: it is refused before anything is taken."""
    header = content[:1000].removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0].decode("ascii", "replace")
    columns = tuple(column.strip() for column in header.split(",")[:2])
    return HEADERS.index(columns) if columns in HEADERS else -1


def _live(config: Config) -> Runtime | None:
    """The switch that runs on this data folder, if one does: the journal's lock tells."""
    if not _locked(config):
        return None
    runtime = Runtime.read(config.runtime_file)
    if runtime is None:
        raise CommandFailed(f"a switch is starting or ending on {config.file.parent}; try again in a moment.")
    return runtime


def _locked(config: Config) -> bool:
    try:
        with (config.journal.folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def _ask(live: Runtime, config: Config, method: str, path: str, **arguments: Any) -> bytes:
    """Ask the running switch; what it refuses becomes this command's sentence."""
    headers = {"authorization": f"Bearer {config.admin_token()}"}
    try:
        response = httpx.request(method, f"http://{live.admin}{path}", headers=headers, timeout=120, trust_env=False, **arguments)
    except httpx.HTTPError as error:
        raise CommandFailed(f"the running switch does not answer on {live.admin}: {error}.") from None
    if response.is_error:
        raise CommandFailed(_reason(response))
    return response.content


def _reason(response: httpx.Response) -> str:
    with contextlib.suppress(msgspec.DecodeError, KeyError, TypeError):
        return str(msgspec.json.decode(response.content)["error"])
    return f"the running switch answered with HTTP status {response.status_code}"


def _verify(options: argparse.Namespace) -> int:
    config = configuration.load(options.directory / configuration.CONFIG_NAME)
    if _locked(config):
        raise CommandFailed(f"a switch runs on {options.directory}; stop it first, or use switch reconcile while it runs.")
    checked = verify(config.journal.folder, archive=config.journal.archive)
    print(checked.decode())
    return 0 if msgspec.json.decode(checked)["ok"] else 1


def _audit(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    journal = config.journal
    report = Evidence(journal.folder, options.first, options.last, timezone=config.campus.timezone, archive=journal.archive)
    query = {"from": options.first, "to": options.last, "by": _machine_user()}
    live = _live(config)
    if live is not None:
        _ask(live, config, "POST", "/v1/audit", params=query)
    with audit.destination(options.output, overwrite=options.overwrite) as out:
        end = audit.write(report, out, lambda words: print(f"switch audit: {words}", file=sys.stderr))
    print(
        f"switch audit: records {end.first} to {end.last} in {end.batches} batches, {end.asked} of them asked for."
        f" Note elsewhere: {end.hash}@{end.last}",
        file=sys.stderr,
    )
    return 0


def _machine_user() -> str:
    """Who calls, as a log may show it; a number where the machine has no name for them."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return re.sub(r"[^\w.@+-]", "_", name)[:64]


def _reconcile(options: argparse.Namespace) -> int:
    from switch.reconcile import ReconcileFailed, reconcile  # noqa: PLC0415 - see _serve

    config = configuration.load(options.config)
    try:
        with _database(config) as address:
            result = reconcile(config.journal.folder, config.journal.archive, address)
    except ReconcileFailed as error:
        raise CommandFailed(str(error)) from None
    print(msgspec.json.encode(result).decode())
    return 0 if result.ok else 1


def _export_replay(options: argparse.Namespace) -> int:
    from switch.export import KEY_BYTES, ExportFailed, export_day  # noqa: PLC0415 - see _serve

    config = configuration.load(options.config)
    try:
        day = datetime.date.fromisoformat(options.day)
    except ValueError:
        raise CommandFailed(f"{options.day!r} is no day; write it as YYYY-MM-DD.") from None
    key = None
    if options.key is not None:
        text = configuration.secret(options.key)
        if not re.fullmatch(rf"[0-9A-Fa-f]{{{2 * KEY_BYTES}}}", text):
            raise CommandFailed(f"{options.key}: a key is {2 * KEY_BYTES} hex digits; make one with: openssl rand -hex {KEY_BYTES}")
        key = bytes.fromhex(text)
    try:
        with _database(config) as address:
            exported = export_day(address, day, options.output, key)
    except ExportFailed as error:
        raise CommandFailed(str(error)) from None
    print(msgspec.json.encode(exported).decode())
    return 0


@contextlib.contextmanager
def _database(config: Config) -> Iterator[str]:
    """The database's address; the embedded one is brought up for as long as it is needed where no switch runs it."""
    if not config.database.embedded:
        yield config.database.url
        return
    live = _live(config)
    if live is not None:
        if not live.database:
            raise CommandFailed("the switch runs without its database at the moment; its log says why.")
        yield live.database
        return
    postgres = EmbeddedPostgres(config.database.folder)
    trio.run(postgres.start)
    try:
        yield postgres.url
    finally:
        trio.run(postgres.stop)


def _show(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    live = _live(config)
    if live is not None:
        shown = _ask(live, config, "GET", f"/v1/show/{options.kind}/{quote(options.identifier, safe='')}")
    else:
        replica = Replica(config.journal.folder, archive=config.journal.archive)
        replica.advance(replica.durable)
        found = replica.show(options.kind, options.identifier)
        if found is None:
            raise CommandFailed(f"there is no {options.kind} {options.identifier}")
        shown = found
    if options.json:
        print(shown.decode())
    else:
        for name, value in msgspec.json.decode(shown, type=dict[str, Any]).items():
            print(f"{name:18} {_in_words(value)}")
    return 0


def _in_words(value: Any) -> str:
    """A shown value on one line: several things between semicolons, their parts between commas."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_words(part)}" for name, part in value.items())
    if isinstance(value, list):
        return "; ".join(map(_in_words, value)) or "-"
    return "-" if value is None else str(value)


def _follow(options: argparse.Namespace) -> int:
    from switch import follow  # noqa: PLC0415 - see _serve

    config = configuration.load(options.config)
    address = options.database or config.database.url
    if address == configuration.EMBEDDED:
        raise CommandFailed("the embedded database is followed by switch serve itself; give --database to follow into another one.")
    return follow.main(config.journal, address, upkeep=options.upkeep)


def _demo(options: argparse.Namespace) -> int:
    from switch.demo import DemoOptions, run_demo  # noqa: PLC0415 - see _serve

    demo = DemoOptions(speed=options.speed, seed=options.seed, directory=options.directory, keep=options.keep)
    return trio.run(run_demo, demo)
