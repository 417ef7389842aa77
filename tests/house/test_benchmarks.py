"""Every benchmark still runs, at its small size: what is timed is not tested otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(
    f"{path.parent.name}/{path.stem}"
    for room in ("core", "learned", "soil")
    for path in (ROOT / "benchmarks" / room).glob("*.py")
    if "LINE = " in path.read_text(encoding="utf-8")
)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name, tmp_path):
    command = [sys.executable, "-m", "benchmarks", "run", name, "--quick", "--json", str(tmp_path / "records.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "records.json").is_file()
