"""It stays fast: the instructions of each path, counted, against what is committed in `benchmarks/instructions.json`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "benchmarks" / "instructions.py"
COMMITTED = ROOT / "benchmarks" / "instructions.json"


def check(committed: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "check", "--committed", str(committed)]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def test_no_path_takes_more_instructions_than_committed(capsys: pytest.CaptureFixture[str]) -> None:
    """What it says of another toolchain, or of a path that became cheaper, is shown however the tests are run."""
    done = check(COMMITTED)
    with capsys.disabled():
        sys.stdout.write(f"\n{done.stdout}{done.stderr}")
    assert done.returncode == 0, done.stderr


def test_more_than_a_twentieth_above_the_committed_figure_fails(tmp_path: Path) -> None:
    figures = json.loads(check_and_update(tmp_path).read_text())
    figures["instructions"]["mac"] /= 1.06
    figures["instructions"]["parse"] /= 1.04
    (tmp_path / "lower.json").write_text(json.dumps(figures))
    done = check(tmp_path / "lower.json")
    assert done.returncode == 1
    assert "mac takes" in done.stderr
    assert "6.0% more than the committed" in done.stderr
    assert "parse takes" not in done.stderr
    assert "COMPARED LOOSELY" not in done.stderr


def test_another_toolchain_is_told_and_compared_loosely(tmp_path: Path) -> None:
    figures = json.loads(check_and_update(tmp_path).read_text())
    figures["with"]["rustc"] = "1.88.0"
    figures["instructions"]["parse"] /= 1.2
    figures["instructions"]["mac"] /= 1.3
    del figures["instructions"]["balance"]
    (tmp_path / "older.json").write_text(json.dumps(figures))
    done = check(tmp_path / "older.json")
    assert done.returncode == 1
    assert "COMPARED LOOSELY" in done.stderr
    assert "instead of 1.88.0" in done.stderr
    assert "parse takes" not in done.stderr
    assert "mac takes" in done.stderr
    assert "balance has no committed figure" in done.stderr


def check_and_update(folder: Path) -> Path:
    """Figures of this machine, so that these tests say the same on any."""
    command = [sys.executable, str(SCRIPT), "update", "--committed", str(folder / "here.json")]
    subprocess.run(command, capture_output=True, check=True, stdin=subprocess.DEVNULL)
    return folder / "here.json"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    cargo = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip()
    command = [sys.executable, str(SCRIPT), "check"]
    without = {**os.environ, "PATH": f"{cargo}/bin:{tmp_path}"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=without)
    assert done.returncode == 1
    assert "valgrind is missing; install it" in done.stderr
