"""Learned steps against the best classical solvers, each tuned on the same training set: times, counts, wins and losses."""

from bilevel.acceleration.bench.methods import BenchMethod, classical_methods
from bilevel.acceleration.bench.report import BenchSettings, Report
from bilevel.acceleration.bench.run import run
from bilevel.acceleration.bench.table import text, to_json

__all__ = ["Method", "Report", "Settings", "classical_methods", "run", "text", "to_json"]
