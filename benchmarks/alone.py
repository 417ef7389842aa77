"""Running one function of a benchmark in a process of its own, to measure its peak memory and to survive peers that fail."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from typing import Any

from benchmarks.record import peak_megabytes


def alone(function: str, timeout: float = 550.0, **arguments: Any) -> dict[str, Any]:
    """What "package.module:function" returns for keyword arguments (a dictionary of numbers), with its "peak_mb".

    A run that fails or exceeds `timeout` seconds gives {"error": a sentence}.
    """
    command = [sys.executable, "-m", "benchmarks.alone", function, json.dumps(arguments)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {timeout:.0f} s"}
    lines = run.stdout.strip().splitlines()
    if run.returncode or not lines:
        return {"error": (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1]}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def main(function: str, arguments: str) -> None:
    module, name = function.split(":")
    found = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    print(json.dumps({**found, "peak_mb": peak_megabytes()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
