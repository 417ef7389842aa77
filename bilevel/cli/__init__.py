"""The command line: bilevel init | models | check | run | resume | compare | jacobian | uncertainty | profile | multistart | pest |
plot | train-steps ...

Nothing heavy is imported before a command needs it, so that `bilevel --help` answers at once.
Exit codes: 0 done; 1 the calibration, an inner solve or a user's model failed; 2 bad input, and earlier results are as
they were; 130 interrupted.
"""

from __future__ import annotations

import atexit
import gc

# Each adds its commands, and --help lists them in this order.
# isort: off
from bilevel.cli import studies, fits, results, learned

# isort: on
from bilevel.cli.application import app
from bilevel.cli.sessions import start_drawing
from bilevel.cli.streams import open_standard_streams

__all__ = ["app", "fits", "learned", "main", "results", "studies"]


def main() -> None:
    """The entry point of the `bilevel` command."""
    open_standard_streams()
    atexit.register(gc.freeze)  # Python would look through PyTorch's half a million objects for cycles before it ends
    app(obj=start_drawing)
