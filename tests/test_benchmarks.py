"""The benchmarks run, tiny, so that they never rot; their figures are of no interest here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / "benchmarks" / "run.py"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=120)


def test_every_part_runs_and_terminals_ledger_and_journal_agree(driver: Path, tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    done = run(sys.executable, RUN, "--rehearsal", "--driver", driver, "--folder", tmp_path / "data", "--output", output)
    assert done.returncode == 0, done.stderr
    figures = json.loads(output.read_text())
    assert [(case["connections"], case["depth"]) for case in figures["cases"]] == [(4, 1), (8, 4)]
    for case in figures["cases"]:
        (only,) = case["rounds"]
        assert case["ratio"] == pytest.approx(only["purchases"]["per_second"] / only["echo"]["per_second"])
        for peer in ("echo", "purchases"):
            latency = only[peer]["latency_ns"]
            assert 0 < latency["p50"] <= latency["p99"] <= latency["max"]
            assert 0 < only[peer]["answers"] <= only[peer]["answers_total"]
        assert only["purchases"]["batch_records"] >= 1
    counted = sum(only["purchases"]["answers_total"] for case in figures["cases"] for only in case["rounds"])
    assert figures["ledger"]["approved"] == counted
    assert figures["ledger"]["fen"] >= counted
    assert figures["in_process"]["purchases"] >= 2_000
    assert (figures["startup"]["records"], figures["startup"]["cards"]) == (20_000, 1_000)
    assert "from a snapshot of the last" in done.stdout
    assert "| connections | depth |" in done.stdout
    assert not list((tmp_path / "data").iterdir()), "the benchmark leaves nothing behind"


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
