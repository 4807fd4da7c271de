"""The benchmarks run, tiny, so that they never rot; their figures are of no interest here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import peers
from benchmarks.figures import summary
from benchmarks.peers import PostgreSQL, Redis
from benchmarks.processes import BenchmarkFailed, Driver
from benchmarks.publish import BEGIN, END, publish
from benchmarks.report import report
from benchmarks.run import make_campus
from benchmarks.targets import judge

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / "benchmarks" / "run.py"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=120)


@pytest.fixture(scope="module")
def rehearsal(driver: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The figures of a whole run, and what it printed."""
    folder = tmp_path_factory.mktemp("benchmark")
    output = folder / "figures.json"
    done = run(sys.executable, RUN, "--rehearsal", "--driver", driver, "--folder", folder / "data", "--output", output)
    assert done.returncode == 0, done.stderr
    assert not list((folder / "data").iterdir()), "the benchmark leaves nothing behind"
    return json.loads(output.read_text()), done.stdout


def test_every_part_runs_and_terminals_ledger_and_journal_agree(rehearsal: tuple[dict[str, Any], str]) -> None:
    figures, shown = rehearsal
    assert [(case["connections"], case["depth"]) for case in figures["cases"]] == [(4, 1), (8, 4)]
    for case in figures["cases"]:
        (only,) = case["rounds"]
        assert case["ratio"] == pytest.approx(only["purchases"]["per_second"] / only["echo"]["per_second"])
        for peer in ("echo", "purchases"):
            latency = only[peer]["latency_ns"]
            assert 0 < latency["p50"] <= latency["p99"] <= latency["max"]
            assert 0 < only[peer]["answers"] <= only[peer]["answers_total"]
        assert only["purchases"]["batch_records"] >= 1
    counted = [only["purchases"]["answers_total"] for case in figures["cases"] for only in case["rounds"]]
    counted += [only["purchases"]["answers_total"] for only in figures["open_loop"]["rounds"]]
    assert figures["ledger"]["approved"] == sum(counted)
    assert figures["ledger"]["fen"] >= sum(counted)
    assert figures["in_process"]["purchases"] >= 2_000
    assert [point["cards"] for point in figures["growth"]] == [100, 1_000]
    assert (figures["startup"]["records"], figures["startup"]["cards"]) == (20_000, 1_000)
    assert "from a snapshot of the last" in shown


def test_a_journal_is_settled_into_tables_that_answer_by_their_indexes(driver: Path, tmp_path: Path) -> None:
    command = (sys.executable, ROOT / "benchmarks" / "settling.py", "--rehearsal", "--driver", driver, "--folder", tmp_path / "data")
    done = run(*command, "--records", "20000", "--cards", "1000")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["records"], figures["cards"]) == (20_000, 1_000)
    # All but the policy, the date, the canteen, its tills and the cards.
    assert figures["transactions"] == 20_000 - 3 - 256 - 1_000
    assert figures["postings"] > figures["transactions"]
    assert figures["records_per_second"] > 0
    assert min(figures["answers_ms"].values()) > 0
    assert not list((tmp_path / "data").iterdir()), "the benchmark leaves nothing behind"


def test_postgresql_and_redis_are_met_in_the_same_run(rehearsal: tuple[dict[str, Any], str]) -> None:
    figures, _ = rehearsal
    assert [case["connections"] for case in figures["postgresql"]["clients"]] == [1, 2]
    assert figures["postgresql"]["settings"]["synchronous_commit"] == figures["postgresql"]["settings"]["fsync"] == "on"
    assert [(case["appendfsync"], case["connections"], case["depth"]) for case in figures["redis"]["cases"]] == [
        ("always", 4, 1),
        ("always", 8, 4),
        ("everysec", 4, 1),
        ("everysec", 8, 4),
    ]
    for case in (*figures["postgresql"]["clients"], *figures["redis"]["cases"]):
        assert case["purchases"]["per_second"] > 0
        assert case["purchases"]["p99_us"] >= case["purchases"]["p50_us"] > 0


def test_settling_and_a_quiet_lunch_are_measured(rehearsal: tuple[dict[str, Any], str]) -> None:
    figures, _ = rehearsal
    settling = figures["settling"]
    assert settling["catching_up"]["records_per_second"] > 0
    assert settling["reconciled"]["position"] >= settling["backlog"]
    assert settling["reconciled"]["difference_count"] == 0
    assert settling["alone"]["purchases"]["p99_us"] > 0
    # So small a backlog may be gone before a round is over; then there is no figure, and never one of something else.
    assert (settling["beside"] is None) == (settling["catching_up_beside_purchases"] is None)
    assert set(figures["lunch"]["cpu"]) == {"serve", "follow", "postgresql"}
    assert figures["lunch"]["purchases"]["answers_total"] == figures["lunch"]["ledger"]["approved"] > 0
    assert figures["memory"]["connections"] == 16


@pytest.mark.parametrize("name", ["postgresql", "redis"])
def test_whoever_forgets_what_was_bought_is_not_compared(name: str, driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their debits without the look for a duplicate."""
    sql, lua = ((peers.DEBITS / file).read_text() for file in ("purchase.sql", "purchase.lua"))
    (tmp_path / "purchase.lua").write_text(lua.replace("if known then", "if false then"))
    broken = sql.replace("    IF FOUND THEN\n        IF known", "    IF false THEN\n        IF known").replace(
        ",\n    UNIQUE (terminal_id, business_date, stan)", ""
    )
    assert broken != sql
    (tmp_path / "purchase.sql").write_text(broken)
    monkeypatch.setattr(peers, "DEBITS", tmp_path)
    campus = make_campus(2, 5)
    campus.write(tmp_path)
    native = Driver(driver, tmp_path, rehearsal=True)
    peer = PostgreSQL(tmp_path / "data", campus) if name == "postgresql" else Redis(tmp_path / "data", campus)
    with pytest.raises(BenchmarkFailed, match="a purchase sent again was made again"):
        serve_and_drive(peer, native, name)


def serve_and_drive(peer: PostgreSQL | Redis, driver: Driver, name: str) -> None:
    with peer.serving() as server:
        driver.drive(server, 2, 1, 0.05, 0.01, by=f"drive-{name}", more=peer.driving)


def test_books_that_hold_something_else_than_was_counted_fail(driver: Path, tmp_path: Path) -> None:
    campus = make_campus(2, 5)
    campus.write(tmp_path)
    with pytest.raises(BenchmarkFailed, match="Redis holds"):
        serve_and_drive(Redis(tmp_path / "data", campus), Driver(driver, tmp_path, rehearsal=True), "redis")


def test_without_redis_its_row_is_left_out_and_said_to_be(rehearsal: tuple[dict[str, Any], str]) -> None:
    figures = {**rehearsal[0], "redis": None}
    figures["targets"] = judge(figures)
    (target,) = [target for target in figures["targets"] if "Redis" in target["name"]]
    assert (target["met"], target["why"]) == (None, "Redis is not installed")
    assert "Redis is not installed here (Debian, Ubuntu: apt install redis-server)." in list(report(figures))


def run_of(per_second: float, others_cpu: float, nanoseconds: int) -> dict[str, Any]:
    latency = dict.fromkeys(("p50", "p99", "p999"), nanoseconds)
    return {"per_second": per_second, "others_cpu": others_cpu, "latency_ns": latency, "histogram": [[nanoseconds, 100]]}


def test_rounds_in_which_others_took_the_machine_do_not_count() -> None:
    rounds = [
        {"echo": run_of(100, 0.0, 1_000), "purchases": run_of(80, 0.1, 2_000)},
        {"echo": run_of(100, 0.0, 1_000), "purchases": run_of(10, 1.9, 9_000)},
    ]
    found = summary(rounds)
    assert (found["rounds_quiet"], found["ratio"], found["purchases"]["per_second"]) == (1, 0.8, 80)
    assert {microseconds for _, microseconds in found["purchases"]["curve"]} == {2.0}
    assert all("histogram" not in run for each in rounds for run in each.values())


def test_a_target_is_met_missed_or_neither(rehearsal: tuple[dict[str, Any], str]) -> None:
    figures = json.loads(json.dumps(rehearsal[0]))
    figures["in_process"]["nanoseconds"]["p50"] = 600
    figures["lunch"]["cpu"] = {"serve": 0.015, "follow": 0.006, "postgresql": 0.5}
    figures["settling"] = None
    met = {target["name"]: target["met"] for target in judge(figures)}
    assert met["a purchase in process, one thread, no disk"] is True
    assert met["CPU of serve and follow at 20/s"] is False
    assert met["p99 while settlement catches up, beside p99 without"] is None


def test_figures_are_published_in_one_step_and_again_the_same(rehearsal: tuple[dict[str, Any], str], tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    figures.write_text(json.dumps({**rehearsal[0], "command": "benchmarks/run.py"}))
    (tmp_path / "README.md").write_text(f"before\n{BEGIN}what stood here\n{END}after\n")
    publish(figures, tmp_path)
    kept = tmp_path / "results" / f"{rehearsal[0]['date']}.json"
    first = {file.name: file.read_bytes() for file in (tmp_path / "README.md", *(tmp_path / "results").iterdir())}
    assert set(first) == {"README.md", kept.name, "rates.svg", "latencies.svg", "cards.svg", "memory.svg"}
    text = first["README.md"].decode()
    assert text.startswith(f"before\n{BEGIN}")
    assert text.endswith(f"{END}after\n")
    assert "| a purchase in process, one thread, no disk |" in text
    assert "what stood here" not in text
    publish(kept, tmp_path)
    assert first == {file.name: file.read_bytes() for file in (tmp_path / "README.md", *(tmp_path / "results").iterdir())}


def test_a_rehearsal_is_not_published(rehearsal: tuple[dict[str, Any], str], tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    figures.write_text(json.dumps(rehearsal[0]))
    with pytest.raises(ValueError, match="rehearsal"):
        publish(figures, tmp_path)


def test_a_debug_build_refuses_to_give_figures(driver: Path, tmp_path: Path) -> None:
    done = run(driver, "in-process", "--campus", tmp_path)
    assert done.returncode == 1
    assert "this is a debug build" in done.stderr


def test_answers_that_do_not_prove_themselves_give_no_figure(driver: Path, tmp_path: Path) -> None:
    """The echo in the switch's place: the driver believes nothing of it."""
    (tmp_path / "terminals.csv").write_text(f"terminal_id,merchant_id,kind,zone,key\nT0000001,M00000000000001,pos,,{'5a' * 16}\n")
    (tmp_path / "cards.csv").write_text("card_number\n6230000000000017\n")
    with subprocess.Popen([driver, "--rehearsal", "echo"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as echo:
        assert echo.stdout is not None
        address = json.loads(echo.stdout.readline())["address"]
        done = run(driver, "--rehearsal", "drive", "--address", address, "--campus", tmp_path, "--connections", "1")
        assert echo.stdin is not None
        echo.stdin.close()
        assert echo.wait(10) == 0
    assert (done.returncode, done.stdout) == (1, "")
    assert "a sign-on was answered" in done.stderr
