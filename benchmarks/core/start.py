"""How long a user waits before anything happens: imports and the command line's help, each in fresh processes."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.record import Record, at_most, stated

LINE = "import bilevel against import torch; bilevel --help"
DURATION = "30 seconds"


def seconds(code: str, repeat: int, *arguments: str) -> float:
    """The least wall time of a fresh interpreter that runs `code`."""
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return min(times)


def run(quick: bool) -> list[Record]:
    repeat = 2 if quick else 5
    ours, torch = (seconds(f"import {name}", repeat) for name in ("bilevel", "torch"))
    text = seconds("from bilevel.cli import main; main()", repeat, "--help")
    return [
        stated("import torch", torch, "s"),
        stated("import bilevel", ours, "s"),
        at_most("import bilevel / import torch", ours / torch, 1.2),
        at_most("bilevel --help", text, 0.5, "s"),
    ]
