"""`python -m benchmarks list` and `python -m benchmarks run NAME [--quick] [--json FILE]`.

A benchmark is a module of one of the rooms with LINE (what it measures), DURATION (as a person would say it) and
run(quick) -> list of records. Its name is its path: `core/block` is benchmarks/core/block.py.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import time
from pathlib import Path
from types import ModuleType

import benchmarks
from benchmarks.record import Record, peak_megabytes, table, versions, write_json

ROOMS = ("core", "learned", "soil")
"""The folders of benchmarks; `references` holds what they compare with."""


def discover() -> dict[str, ModuleType]:
    """All benchmarks by name."""
    found = {}
    for room in ROOMS:
        folder = [str(Path(benchmarks.__path__[0]) / room)]
        for name in sorted(info.name for info in pkgutil.iter_modules(folder)):
            module = importlib.import_module(f"benchmarks.{room}.{name}")
            if hasattr(module, "LINE"):
                found[f"{room}/{name}"] = module
    return found


def run(module: ModuleType, quick: bool) -> list[Record]:
    """The benchmark's records, completed with the cost of the whole run where a row states none."""
    start = time.perf_counter()
    records = module.run(quick)
    seconds = time.perf_counter() - start
    for record in records:
        record.seconds = seconds if record.seconds is None else record.seconds
        record.peak_mb = peak_megabytes() if record.peak_mb is None else record.peak_mb
        record.versions = versions() if record.versions is None else record.versions
    return records


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns 1 when a promised number does not hold (never with --quick, whose sizes promise nothing)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=benchmarks.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name every benchmark with one line and its usual duration")
    runner = commands.add_parser("run", help="run one benchmark")
    runner.add_argument("name")
    runner.add_argument("--quick", action="store_true", help="the same work at a size that ends within a minute")
    runner.add_argument("--json", type=Path, metavar="FILE", help="write the records as JSON")
    options = parser.parse_args(arguments)

    found = discover()
    if options.command == "list":
        width = max(map(len, found), default=0)
        for name, module in found.items():
            print(f"{name:{width}}  {module.LINE}  [{module.DURATION}]")
        return 0
    if options.name not in found:
        parser.error(f"there is no benchmark named {options.name!r}; `python -m benchmarks list` names them")
    records = run(found[options.name], options.quick)
    print(table(records))
    if options.json is not None:
        write_json(records, options.json)
    return 0 if options.quick or all(record.holds is not False for record in records) else 1


if __name__ == "__main__":
    raise SystemExit(main())
