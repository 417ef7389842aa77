"""Shared by all tests: float64, fixed threads, and the folder of published measurements."""

from __future__ import annotations

import os
from pathlib import Path

# The tests themselves run side by side; must be said before NumPy, SciPy and MKL are imported.
for library in ("OMP", "MKL", "OPENBLAS"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_default_dtype(torch.float64)
torch.set_warn_always(True)  # else a warning, an error here, would come once a process and move from test to test
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of published measurements beside the project (or $BILEVEL_DATA); skips the test where it is absent."""
    folder = Path(os.environ.get("BILEVEL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"published measurements are not at {folder}; set BILEVEL_DATA to their folder")
    return folder


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
