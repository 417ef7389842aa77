"""Where the folder of published measurements lies: $BILEVEL_DATA, or shared/data beside the project."""

from __future__ import annotations

import os
from pathlib import Path


def shared_data() -> Path:
    """The folder; exits with a sentence where it is absent."""
    folder = Path(os.environ.get("BILEVEL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not folder.is_dir():
        raise SystemExit(f"published measurements are not at {folder}; set BILEVEL_DATA to their folder")
    return folder
